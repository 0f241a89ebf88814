"""The files of an index on a disk that loses its power.

Owns what the disk has of them for certain, and the making of what it may have after a cut: each
sector of 512 bytes that was written since is old or new, whatever the order of writing.

What is certain is what SQLite has synced, as far as it is known here without looking into it:

- the write-ahead log as of the latest `Index.barrier`;
- all of the log before its pages are written back to the database, and all of the database before
  the log is begun anew.  SQLite is kept from doing so by itself (`quiet`): `write_back` does it, at
  a moment that the life chooses, and may be cut in the middle;
- the header of a log that was begun anew, before anything behind it.

Left out: a cut while an index is made, opened or closed (what that wrote is taken as synced); one
within a transaction that grew beyond SQLite's page cache; sectors that are torn themselves; names
that a directory has not got; syncs of SQLite's own that fail or lie.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from router.spool import index_database, sqlite
from tests.spool.power import SECTOR

NAME = "index.sqlite"
_LOG_HEADER = 32
_NEVER = 1 << 20  # pages


@contextmanager
def quiet() -> Iterator[None]:
    """An index that is opened inside writes its log back when it is told to, and when closed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_database, "_CHECKPOINT_PAGES", _NEVER)
        yield


@dataclass(frozen=True, slots=True)
class IndexFiles:
    """Database and log: as they are on the disk for certain, and as they were written."""

    database: tuple[bytes, bytes]
    log: tuple[bytes, bytes]

    def cut(self, chance: random.Random, to: Path) -> None:
        """Leave in the directory `to` what a power cut may leave."""
        (to / NAME).write_bytes(_torn(*self.database, chance))
        log = _torn(_begun_anew(*self.log), self.log[1], chance)
        if log:
            (to / f"{NAME}-wal").write_bytes(log)


class IndexDisk:
    """Of one open index.  Made right after it was opened by one who is `quiet`."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME
        self._database = self._path.read_bytes()
        self._log = self._read_log()

    def synced(self) -> None:
        """The log was synced just now, or ended: then the database was."""
        self._log = self._read_log()
        if not self._log:
            self._database = self._path.read_bytes()

    def write_back(self, halfway: Callable[[], None]) -> None:
        """Write the pages of the log to the database; `halfway` that is not yet synced."""
        self.synced()
        with closing(sqlite.connect(self._path)) as connection:
            busy, pages, written = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        assert (busy, pages) == (0, written), "somebody reads the index meanwhile"
        halfway()
        self._database = self._path.read_bytes()

    def files(self) -> IndexFiles:
        """As they are now."""
        return IndexFiles((self._database, self._path.read_bytes()), (self._log, self._read_log()))

    def _read_log(self) -> bytes:
        path = self._path.with_name(f"{NAME}-wal")
        return path.read_bytes() if path.exists() else b""


def _begun_anew(durable: bytes, written: bytes) -> bytes:
    """What is certain of a log, given that a new header is synced before what follows it."""
    if durable[:_LOG_HEADER] == written[:_LOG_HEADER]:
        return durable
    return written[:_LOG_HEADER] + durable[_LOG_HEADER:]


def _torn(durable: bytes, written: bytes, chance: random.Random) -> bytes:
    mood = chance.random()
    if mood < 0.2 or durable == written:
        return durable
    if mood < 0.35:
        return written
    share = chance.choice((0.05, 0.5, 0.95))
    longest = max(len(durable), len(written))
    versions = durable.ljust(longest, b"\0"), written.ljust(longest, b"\0")
    data = bytearray()
    for at in range(0, longest, SECTOR):
        data += versions[chance.random() < share][at : at + SECTOR]
    return bytes(data[: chance.choice((len(durable), longest))])
