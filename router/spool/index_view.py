"""The index as it lies on disk, for looking at alone: beside a running gateway or without one.

Owns a connection that cannot write.  Must not be used to change anything, nor to decide what may
be given up: between two questions a gateway may have moved on.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router.spool import sqlite, system
from router.spool.errors import IndexDamaged, SpoolError
from router.spool.index_database import id_list, ref_of
from router.spool.index_schema import APPLICATION_ID, STEPS
from router.spool.index_types import Disposition, Tally
from router.spool.record import Position, Ref

_PAGE = 4096
_ABOVE_ALL = 2**63 - 1
_TIMEOUT = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class Row:
    """An instance: where the index says that it lies, and what became of it."""

    ref: Ref
    disposition: Disposition
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Received:
    """An instance: where its record lies, and when it came."""

    ref: Ref
    received_at: float


class IndexView:
    """Raises IndexDamaged when the file is corrupt or no index, SpoolError for other trouble."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log = path.with_name(path.name + "-wal")
        self._connect()
        version = self._value("PRAGMA user_version")
        if self._value("PRAGMA application_id") != APPLICATION_ID or not version:
            self.close()
            raise IndexDamaged(f"{path} is not an index")
        if version != len(STEPS):
            self.close()
            raise SpoolError(
                f"the index has schema version {version}, this program reads {len(STEPS)}: use the "
                "version of dcmrouter that made it, or start the gateway of this one once"
            )

    def _connect(self) -> None:
        # Without a journal nobody has it open; then SQLite need not make one to read.
        self._alone = not system.exists(self._log)
        try:
            self._connection = sqlite.connect(
                self._path, read_only=True, immutable=self._alone, timeout=_TIMEOUT
            )
        except sqlite.Error as error:
            raise SpoolError(f"index {self._path}: {error}") from error

    def close(self) -> None:
        """Again is harmless."""
        self._connection.close()

    def damage(self) -> str:
        """What SQLite finds wrong with the file, read through; "" for nothing."""
        # Not quick_check, which finds no row that a tree lacks.
        found = str(self._value("PRAGMA integrity_check(1)"))
        return "" if found == "ok" else " ".join(found.split())

    def position(self) -> Position | None:
        """See `Index.indexed_position`."""
        meta = dict(self._rows("SELECT key, value FROM meta"))
        return Position(meta["generation"], meta["offset"]) if "generation" in meta else None

    def copied_position(self) -> Position | None:
        """See `Index.copied_position`."""
        meta = dict(self._rows("SELECT key, value FROM meta"))
        if "copied_generation" not in meta:
            return None
        return Position(meta["copied_generation"], meta["copied_offset"])

    def generations(self) -> dict[int, int]:
        """How many instances have their record in each generation; from the rows themselves."""
        return dict(self._rows(_GENERATIONS))

    def instances(self, generation: int) -> Iterator[Row]:
        """Those of a generation, by offset; a page of them at a time."""
        after = -1
        while rows := self._rows(_IN_GENERATION, generation, after, _PAGE):
            yield from map(_row, rows)
            after = rows[-1][2]

    def instance(self, instance_id: int) -> Row | None:
        """One; None when it is not in the index, any more or yet."""
        rows = self._rows(_INSTANCE, instance_id)
        return _row(rows[0]) if rows else None

    def received(self, below: int | None, limit: int) -> list[Received]:
        """Those with the highest ids, under `below` if it is given, by falling id."""
        rows = self._rows(_RECEIVED, below if below is not None else _ABOVE_ALL, limit)
        return [Received(ref_of(row), row[7] / 1e6) for row in rows]

    def refs(self, ids: Iterable[int]) -> dict[int, Ref]:
        """Where the records of instances lie now; of those that are still in the index."""
        return {row[0]: ref_of(row) for row in self._rows(_REFS, id_list(ids))}

    def last_id(self) -> int | None:
        """The largest id that was ever added, purged or not; None when none was."""
        return dict(self._rows("SELECT key, value FROM meta")).get("last_id")

    def purged(self) -> int:
        """How many instances were let go since the index began."""
        least, most = int(Tally.PURGED_DISPOSITION), int(Tally.GENERATION)
        return int(self._value(_PURGED, least, most))

    def _value(self, sql: str, *parameters: object) -> Any:
        return self._rows(sql, *parameters)[0][0]

    def _rows(self, sql: str, *parameters: object) -> list[Any]:
        """All at once, so that no read holds up a gateway's journal."""
        if self._alone and system.exists(self._log):  # a gateway has been started
            self._again()
        try:
            return self._connection.execute(sql, parameters).fetchall()
        except sqlite.Error as error:
            if self._alone and system.exists(self._log):
                self._again()
                return self._rows(sql, *parameters)
            kind = IndexDamaged if sqlite.is_damage(error) else SpoolError
            raise kind(f"index {self._path}: {error}") from error

    def _again(self) -> None:
        self._connection.close()
        self._connect()


def _row(row: tuple[Any, ...]) -> Row:
    return Row(ref_of(row), Disposition(row[7]), row[8])


_COLUMNS = """
SELECT id, generation, offset, data_offset, length, crc, large, disposition, sop_instance_uid
FROM instance
"""
_INSTANCE = f"{_COLUMNS} WHERE id = ?"
_IN_GENERATION = f"""
{_COLUMNS} INDEXED BY instance_generation
WHERE generation = ? AND offset > ? ORDER BY offset LIMIT ?
"""
_GENERATIONS = """
SELECT generation, count(*) FROM instance INDEXED BY instance_generation GROUP BY generation
"""
_RECEIVED = """
SELECT id, generation, offset, data_offset, length, crc, large, received_at
FROM instance WHERE id < ? ORDER BY id DESC LIMIT ?
"""
_REFS = """
SELECT i.id, generation, offset, data_offset, length, crc, large
FROM json_each(?) AS j CROSS JOIN instance AS i ON i.id = j.value
"""
_PURGED = "SELECT coalesce(sum(n), 0) FROM tally WHERE what >= ? AND what < ?"
