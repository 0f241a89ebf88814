"""The connection to the index: pragmas, transactions, errors, batches as JSON.

Owns the connection, and what is known of its log beside it.  Must not know
what a delivery is.

The library gives the GIL away for every step of a statement and wants it back after it;
beside a busy event loop each return can cost a switch interval.  So rows go in by the hundred,
as one ``VALUES`` of a statement, and a result comes back as one JSON value: a statement is one
step, whatever the number of its rows.
"""

import contextlib
import json
import os
import re
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog

from router.spool import index_seal, sqlite, system
from router.spool.errors import IndexDamaged, SpoolError, SpoolFull
from router.spool.index_schema import STEPS, Step, migrate
from router.spool.layout import crc32
from router.spool.record import Ref

_log = structlog.get_logger("app")

_PAGE_CACHE_KIB = 16 * 1024
_PAGE_SIZE = 8192
# Pages are written back to the database, and synced, after so many pages of the log; pages that
# were written several times in between count once.
_CHECKPOINT_PAGES = 2048
# Far more than a log has whose pages are written back.
_LONG_LOG = 8 * _CHECKPOINT_PAGES * _PAGE_SIZE
_BUSY_TIMEOUT = 10.0  # seconds
_ROWS_AT_ONCE = 256
# An index of this size is read through, its trees compared, in a few seconds.
_CHECKED_BYTES = 512 << 20
_JOURNAL_PARTS = ("-wal", "-shm")
_ADVICE = (
    "the index is damaged; no instance is lost, all are safe in the spool; restart the gateway: "
    "it moves this file aside and makes the index anew, and what was delivered may be sent again"
)

GATED = 9_100_000_000_000_000_000
"""The time of what waits behind a gate: later than all that `microseconds` gives."""

Counts = dict[tuple[int, int], list[int]]
"""Changes of the tallies: (what, key) to [n, bytes]."""


def new_counts() -> Counts:
    """None yet."""
    return defaultdict(lambda: [0, 0])


def count(counts: Counts, what: int, key: int, n: int, size: int) -> None:
    """Note that ``n`` more (or fewer) of ``size`` bytes in all are counted."""
    entry = counts[what, key]
    entry[0] += n
    entry[1] += size


class Database:
    """One connection, for one thread at a time; closing waits for the call under way."""

    def __init__(self, path: Path, *, steps: tuple[Step, ...] = STEPS) -> None:
        """Open or create, and bring the schema up to date.

        Raises IndexDamaged when the file is not a sound database or was met damaged while it was
        used, SpoolFull without space, and SpoolError for a newer schema, or when it cannot be
        opened.
        """
        self.path = path
        self._lock = threading.RLock()
        self._closed = False
        self._ready = False
        self._doubtful = False
        """A sync of the log failed: what is in it may not be on the disk."""
        self._unsure = False
        """A COMMIT failed: all of it may be in the log, where nobody sees it but the next start; as
        on a full disk, when the log was written and what leads into it could not be.  Until
        `barrier` has written over it."""
        self.log_failed = False
        """A sync of the log failed since it was opened, and nobody has looked through the index:
        where the kernel could not write the log it may soon show what was there before, and that
        is what is written back."""
        self._log = -1
        with self._translated():
            with contextlib.suppress(FileNotFoundError):
                raise IndexDamaged(_marker(path).read_text(errors="replace"))
            self.sealed = self._is_sealed()
            """It was as it was when it was closed, so nothing of it needs to be looked through."""
            # Of one that was killed after a sync that failed: no later sync tells of that.
            self._doubtful = system.exists(_part(path, "-wal"))
            self._connection = sqlite.connect(path, timeout=_BUSY_TIMEOUT)
        try:
            with self._translated():
                try:
                    self._prepare(steps)
                except sqlite.Error as error:
                    if not sqlite.is_damage(error):
                        raise
                    self._connection.execute("PRAGMA shrink_memory")  # as in `_execute`
                    self._prepare(steps)
                if self._doubtful:  # first, so that what is looked through is on the disk
                    try:
                        self._write_back()
                    except IndexDamaged:
                        raise
                    except SpoolError as error:  # `barrier` does it, or gives nothing up
                        _log.warning("the index cannot be written yet", why=str(error))
                if not self.sealed:
                    self._check()
                self._add_sums()
        except IndexDamaged as damage:
            # To close writes the log back and removes it, and with it what says that the end was
            # not clean: should this start not come to moving it aside, the next one has to.
            self._mark_damaged(str(damage))
            self._disconnect()
            raise
        except BaseException:
            self._disconnect()
            raise
        self._ready = True

    def _is_sealed(self) -> bool:
        """Whether it is, byte by byte, what was closed in the end; raises IndexDamaged when it is
        not though it ought to be."""
        # With a log beside it somebody has it open, or ended without closing it.
        logged = system.exists(_part(self.path, "-wal"))
        intact = None if logged else index_seal.is_intact(self.path)
        if intact is False:
            raise IndexDamaged(f"index {self.path}: it is not what it was when it was closed")
        index_seal.unseal(self.path)
        return bool(intact)

    def _prepare(self, steps: tuple[Step, ...]) -> None:
        run = self._connection.execute
        run(f"PRAGMA page_size = {_PAGE_SIZE}")  # of a new file; an old one keeps its own
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")
        run(f"PRAGMA cache_size = -{_PAGE_CACHE_KIB}")
        run("PRAGMA temp_store = MEMORY")
        run(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        run(f"PRAGMA journal_size_limit = {4 * _CHECKPOINT_PAGES * _PAGE_SIZE}")
        if 0 < migrate(self._connection, steps) < len(steps):
            # So much is written by that that it may be synced within a commit: see `_open_log`.
            self._doubtful = True
        system.sync_directory(self.path.parent)
        with contextlib.suppress(OSError):  # then `barrier` tells
            self._open_log()

    def _check(self) -> None:
        """Find a wreck now rather than at night: all pages of each tree, or the first if there are
        too many.

        What a disk made of the file may leave out deliveries that wait, and have their instances
        purged.
        """
        run = self._connection.execute
        for name, table, sql in run("SELECT name, tbl_name, sql FROM sqlite_schema").fetchall():
            if name == table:
                run(f'SELECT * FROM "{name}" LIMIT 1').fetchall()
            elif sql:
                where = re.search(r"\sWHERE\s.*", str(sql), re.DOTALL)  # only of a partial index
                condition = where.group() if where else ""
                run(f'SELECT 1 FROM "{table}" INDEXED BY "{name}" {condition} LIMIT 1').fetchall()
        if self.path.stat().st_size <= _CHECKED_BYTES:
            # Not quick_check, which finds no row that a tree lacks: it would wait for ever.
            found = ""
            for _ in range(2):  # as in `_execute`; it tells of errors of the disk as of all else
                found = str(self._execute("PRAGMA integrity_check(1)", ()).get)
                if found == "ok":
                    return
                run("PRAGMA shrink_memory")
            raise IndexDamaged(f"index {self.path}: {' '.join(found.split())}")

    def _add_sums(self) -> None:
        """To an index of an older version, if it was found sound: what is wrong would be made right
        by sums."""
        sound = self.sealed or self.path.stat().st_size <= _CHECKED_BYTES
        if sound and not sqlite.has_sums(self._connection):
            self._doubtful = True  # as after an upgrade
            with contextlib.suppress(sqlite.Error):  # as on a full disk; another start does it
                sqlite.add_sums(self._connection)

    def look_through(self) -> None:
        """As after an end that was not clean; what is found is noted for the next start.  Raises
        IndexDamaged."""
        try:
            with self._lock, self._translated():
                self._connection.execute("PRAGMA shrink_memory")  # the file, not what it was to be
                self._check()
        except IndexDamaged as damage:
            text = str(damage) if _ADVICE in str(damage) else f"{damage}: {_ADVICE}"
            self._mark_damaged(text)
            raise IndexDamaged(text) from damage

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is committed as one, or nothing of it.

        Raises SpoolError and its kinds in place of SQLite's errors.
        """
        with self._lock, self._translated():
            if self._connection.in_transaction:  # the last one could not even be rolled back
                self._connection.execute("ROLLBACK")
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                # Not settled by one that succeeds: where nothing was changed nothing is written.
                before, self._unsure = self._unsure, True
                self._connection.execute("COMMIT")
                self._unsure = before
            except BaseException:
                # After some errors, a full disk among them, SQLite has rolled back by itself.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def run(self, sql: str, *parameters: object) -> int:
        """Run one statement; the number of rows that it changed."""
        with self._lock, self._translated():
            self._execute(sql, parameters)
            return self._connection.changes()

    def value(self, sql: str, *parameters: object) -> Any:
        """The first column of the first row; None without a row."""
        with self._lock, self._translated():
            row: Any = self._execute(sql, parameters).fetchone()
        return None if row is None else row[0]

    def _execute(self, sql: str, parameters: Sequence[Any]) -> sqlite.Cursor:
        """Up to the first row.  What seems damaged is looked at once more: a disk that did not give
        a page, or gave another, may give it now, and the index is not to be made anew for that."""
        try:
            return self._connection.execute(sql, parameters)
        except sqlite.Error as error:
            if self._connection.in_transaction or not sqlite.is_damage(error):
                raise
            self._connection.execute("PRAGMA shrink_memory")
            return self._connection.execute(sql, parameters)

    def run_rows(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        """Run a statement whose ``{values}`` stands for rows, a few hundred at a time."""
        with self._lock, self._translated():
            for text, parameters in _chunks(sql, rows):
                self._connection.execute(text, parameters)

    def json_rows(self, sql: str, rows: Sequence[Sequence[object]]) -> list[Any]:
        """`run_rows` for a statement that gives one JSON array, all of them joined."""
        result: list[Any] = []
        with self._lock, self._translated():
            for text, parameters in _chunks(sql, rows):
                result += json.loads(self._execute(text, parameters).get)
        return result

    def json(self, sql: str, *parameters: object) -> Any:
        """`value`, parsed; for statements that aggregate their rows to one JSON array."""
        return json.loads(self.value(sql, *parameters))

    def tally(self, counts: Counts) -> None:
        """Add changes to the running counts, in the open transaction."""
        rows = [[what, key, n, size] for (what, key), (n, size) in counts.items() if n or size]
        if rows:
            self.run_rows(_TALLY, rows)

    def barrier(self) -> None:
        """Return when everything committed would survive a power cut.

        With ``synchronous=NORMAL`` a commit is in the write-ahead log but not synced.  What is
        older than the log is: SQLite syncs the database before it starts the log anew.  So
        syncing the log's file is enough, and far cheaper than a checkpoint.  Nor does anything
        survive then of a transaction that failed: one more is written over it.
        """
        if self._unsure:
            with self.transaction():
                self.run(_ONE_MORE)
            self._unsure = False
        doing = f"cannot sync {_part(self.path, '-wal')}"
        if self._log < 0:  # of what happened until now it will not be told
            self._doubtful = True
            with system.translated(doing):
                self._open_log()
        if self._doubtful:
            self._write_back()
        if self._log < 0:
            return
        with system.translated(doing):
            try:
                system.sync_data(self._log)
            except OSError:
                self._doubtful = self.log_failed = True
                raise

    def _open_log(self) -> None:
        """Once, and before anything is written: the kernel tells an error of writing back to each
        descriptor that was open then, and not to a later one if somebody was told already.  That
        may be SQLite, whose commits keep to themselves that a checkpoint failed."""
        if self._log < 0 and not self._closed:
            with contextlib.suppress(FileNotFoundError):
                self._log = os.open(_part(self.path, "-wal"), os.O_RDONLY | os.O_CLOEXEC)

    def check_log(self) -> None:
        """Raises SpoolError when the pages of the log cannot be written back to the database.

        SQLite keeps that to itself, and goes on in a log that grows for ever.
        """
        with self._lock, self._translated():
            if self._log >= 0 and os.fstat(self._log).st_size > _LONG_LOG:
                self._execute("PRAGMA wal_checkpoint(PASSIVE)", ()).fetchone()

    def _write_back(self) -> None:
        """After a sync of the log that failed: all of it to the database, which is synced.

        A later sync would tell nothing: the kernel takes for written what it could not write
        (PostgreSQL learnt this in 2018).
        """
        with self._lock, self._translated():
            busy, *_ = self._execute("PRAGMA wal_checkpoint(TRUNCATE)", ()).get
        if busy:
            raise SpoolError(f"index {self.path}: its log could not be written back")
        self._doubtful = False

    def close(self, *, seal: bool = True) -> None:
        """Close; again is harmless.  Anything else afterwards raises SpoolError.  Without ``seal``
        the next start looks through all of it."""
        with self._lock:
            if not self._closed:
                self._closed = True
                try:  # here, since nobody hears what SQLite is told of as it closes
                    if self._log >= 0:
                        system.sync_data(self._log)
                except OSError:
                    self.log_failed = True
                with self._translated():
                    self._disconnect()
                with contextlib.suppress(OSError):  # the next start looks through all of it
                    others = system.exists(_part(self.path, "-wal"))  # have it open
                    doubted = self.log_failed or system.exists(_marker(self.path))
                    if seal and not others and not doubted:
                        index_seal.seal(self.path)

    def _disconnect(self) -> None:
        log, self._log = self._log, -1
        system.close(log)
        self._connection.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            kind = SpoolFull if error.errno in system.FULL else SpoolError
            raise kind(f"index {self.path}: {error.strerror or error}") from error
        except sqlite.Error as error:
            code, name = sqlite.code_of(error)
            text = f"index {self.path}: {error}" + (f" ({name})" if name else "")
            if self._closed:
                raise SpoolError(f"index {self.path} is closed") from error
            if code in sqlite.FULL:
                raise SpoolFull(text) from error
            if sqlite.is_damage(error) or "cannot hold BLOB" in str(error):  # nothing of it is one
                raise self._damaged(text) from error
            raise SpoolError(text) from error
        except UnicodeDecodeError as error:  # what was written is UTF-8
            raise self._damaged(f"index {self.path}: {error}") from error

    def _damaged(self, text: str) -> IndexDamaged:
        if self._ready:
            text += f": {_ADVICE}"
            self._mark_damaged(text)
        return IndexDamaged(text)

    def met_damaged(self, what: str) -> IndexDamaged:
        """To be raised by who finds that the rows contradict each other; noted for the next
        start."""
        text = f"index {self.path}: {what}: {_ADVICE}"
        self._mark_damaged(text)
        return IndexDamaged(text)

    def _mark_damaged(self, text: str) -> None:
        """Tell the next start, whose own look may miss what was met deep in the file.

        As well as can be: on a full or failing disk there is no better place to say it.
        """
        marker = _marker(self.path)
        with contextlib.suppress(OSError):
            marker.write_text(text, errors="replace")
            with marker.open("rb") as file:
                system.sync_data(file.fileno())
            system.sync_directory(self.path.parent)


def move_aside(path: Path, mark: str) -> Path:
    """Rename a damaged index and its journal, so that a new one can be made; the new name.

    The journal must go along: SQLite would replay it onto the new file.  Nothing that was moved
    before is overwritten.  Raises SpoolError.
    """
    with system.translated(f"moving the damaged index {path} aside"):
        aside = path.with_name(f"{path.name}.{mark}")
        number = 1
        while system.exists(aside):
            number += 1
            aside = path.with_name(f"{path.name}.{mark}-{number}")
        for suffix in (*_JOURNAL_PARTS, ""):
            part = _part(path, suffix)
            if system.exists(part):
                part.rename(_part(aside, suffix))
        index_seal.unseal(path)
        # Last: until all of it is done, for good, the next start must do it again.
        system.sync_directory(path.parent)
        _marker(path).unlink(missing_ok=True)
    return aside


def _part(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _marker(path: Path) -> Path:
    """Beside the index, there when it was met damaged; says how."""
    return _part(path, "-damaged")


def _chunks(sql: str, rows: Sequence[Sequence[object]]) -> Iterator[tuple[str, list[object]]]:
    """Statements of 2^n rows each: their texts are few, so all of them stay prepared."""
    at = 0
    while at < len(rows):
        size = min(_ROWS_AT_ONCE, 1 << ((len(rows) - at).bit_length() - 1))
        row = f"({','.join('?' * len(rows[at]))})"
        values = [value for row in rows[at : at + size] for value in row]
        yield sql.replace("{values}", ",".join([row] * size)), values
        at += size


def id_list(ids: Iterable[int]) -> str:
    """Numbers as the one parameter of ``json_each(?)``."""
    return json.dumps(list(ids))


def clean(text: str) -> str:
    """Text as SQLite can keep it: a peer may have sent NUL or half a surrogate pair."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def sum_of(*values: object) -> int:
    """By which values that no tree of the file repeats are known to be those that were written."""
    return crc32("\0".join(map(str, values)).encode())


def stored_tags(tags: Sequence[str]) -> str:
    """Labels, none of which holds a space, so that each can be found with a space around it."""
    return f" {clean(' '.join(tags))} " if tags else ""


def ref_of(row: Sequence[Any]) -> Ref:
    """From the first seven columns of a result, which are those of a Ref."""
    number, generation, offset, data_offset, length, crc, large = row[:7]
    return Ref(number, generation, offset, data_offset, length, crc, bool(large))


def microseconds(seconds: float) -> int:
    """As times are stored; infinity is the end of time."""
    return round(min(max(seconds, -9e12), 9e12) * 1e6)


def seconds(stored: int | None) -> float | None:
    """The reverse of `microseconds`; behind a gate there is no time."""
    return None if stored is None or stored >= GATED else stored / 1e6


# Other than before, or SQLite would write nothing.
_ONE_MORE = """
INSERT INTO meta(key, value) VALUES ('failed', 1) ON CONFLICT(key) DO UPDATE SET value = value + 1
"""
_TALLY = """
INSERT INTO tally(what, key, n, bytes) VALUES {values}
ON CONFLICT(what, key) DO UPDATE SET n = n + excluded.n, bytes = bytes + excluded.bytes
"""
