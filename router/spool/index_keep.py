"""What the index holds for the spool's housekeeping: places of records, and what may go.

Owns which rows of an instance are deleted with it and the count of live records by generation.
Must not know files.
"""

from collections.abc import Sequence

from router.spool.errors import SpoolError
from router.spool.index_database import (
    Counts,
    Database,
    count,
    id_list,
    microseconds,
    new_counts,
    ref_of,
)
from router.spool.index_types import Purged, Tally
from router.spool.record import Position, Ref

_PURGED_AT_ONCE = 1000


class Keep:
    """Behind `Index.purge`, `move`, `refs_in`, `generations_in_use` and `known`."""

    def __init__(self, db: Database) -> None:
        self._db = db
        meta = dict(db.json("SELECT json_group_array(json_array(key, value)) FROM meta"))
        self.copied: Position | None = None
        """See `Index.copied_position`."""
        if "copied_generation" in meta:
            self.copied = Position(meta["copied_generation"], meta["copied_offset"])

    def known(self, ids: Sequence[int]) -> set[int]:
        """Those that are in the index."""
        return set(self._db.json(_KNOWN, id_list(ids))) if ids else set()

    def move(self, refs: Sequence[Ref]) -> None:
        """See `Index.move`."""
        known = self.known([ref.id for ref in refs])
        moved = [ref for ref in refs if ref.id in known]
        if not refs:
            return
        last = max((ref.generation, ref.offset) for ref in refs)
        if self.copied is not None:
            last = max(last, (self.copied.generation, self.copied.offset))
        counts = new_counts()
        with self._db.transaction():
            if moved:
                self.move_rows(moved, counts)
            self._db.tally(counts)
            self._db.run(_FORGET_GENERATIONS)
            self._db.run(_SET_COPIED, "copied_generation", last[0], "copied_offset", last[1])
        self.copied = Position(*last)

    def move_rows(self, refs: Sequence[Ref], counts: Counts) -> None:
        """Note new places in the open transaction; the caller writes ``counts``."""
        ids = id_list([ref.id for ref in refs])
        before = {row[0]: tuple(row[1:]) for row in self._db.json(_PLACES, ids)}
        # Never to other bytes: what only looks like a record, or has a number that was given twice.
        refs = [r for r in refs if (r.length, r.crc) == (before[r.id][1], before[r.id][3])]
        for ref in refs:
            generation, length, large, _ = before[ref.id]
            count(counts, Tally.GENERATION, generation, -1, 0 if large else -length)
            count(counts, Tally.GENERATION, ref.generation, 1, 0 if ref.large else ref.length)
        self._db.run_rows(
            _MOVE,
            [[r.id, r.generation, r.offset, r.data_offset, int(r.large)] for r in refs],
        )

    def refs_in(self, generation: int, limit: int) -> list[Ref]:
        """See `Index.refs_in`."""
        rows = self._db.json(_REFS_IN, generation, limit)
        return [ref_of(row) for row in rows]

    def generations_in_use(self) -> dict[int, tuple[int, int]]:
        """See `Index.generations_in_use`."""
        rows = self._db.json(_GENERATIONS, int(Tally.GENERATION))
        return {generation: (n, size) for generation, n, size in rows}

    def purge(self, settled_before: float, limit: int, oldest_first: bool) -> Purged:
        """See `Index.purge`."""
        order = "settled_at" if oldest_first else "generation, offset"
        large: list[Ref] = []
        total = size = 0
        while total < limit:
            step = min(_PURGED_AT_ONCE, limit - total)
            try:
                refs = self._purge_step(microseconds(settled_before), step, order)
            except SpoolError:
                # What the steps before it deleted is gone: the caller has files to remove.
                if not total:
                    raise
                break
            large += [ref for ref in refs if ref.large]
            total += len(refs)
            size += sum(ref.length for ref in refs)
            if len(refs) < step:
                break
        return Purged(large, total, size)

    def _purge_step(self, settled_before: int, limit: int, order: str) -> list[Ref]:
        rows = self._db.json(_PURGEABLE.format(order=order), settled_before, limit)
        if not rows:
            return []
        refs = [ref_of(row) for row in rows]
        ids = id_list([ref.id for ref in refs])
        counts = new_counts()
        for ref, (*_, disposition, _context) in zip(refs, rows, strict=True):
            in_segment = 0 if ref.large else ref.length
            count(counts, Tally.GENERATION, ref.generation, -1, -in_segment)
            count(counts, Tally.PURGED_DISPOSITION + disposition, 0, 1, ref.length)
        for destination, state, n, size in self._db.json(_FATES, ids):
            count(counts, Tally.PURGED_STATE + state, destination, n, size)
        contexts = id_list({row[8] for row in rows})
        with self._db.transaction():
            for statement in _PURGE:
                self._db.run(statement, ids)
            studies = self._db.value(_STUDIES_OF, contexts)
            self._db.run(_PURGE_CONTEXTS, contexts)
            self._db.run(_PURGE_GATES, studies)
            self._db.tally(counts)
            self._db.run(_FORGET_GENERATIONS)
        return refs


_KNOWN = """
SELECT json_group_array(i.id)
FROM json_each(?) AS j CROSS JOIN instance AS i ON i.id = j.value
"""
_PLACES = """
SELECT json_group_array(json_array(i.id, i.generation, i.length, i.large, i.crc))
FROM json_each(?) AS j CROSS JOIN instance AS i ON i.id = j.value
"""
_MOVE = """
WITH o(id, generation, offset, data_offset, large) AS (VALUES {values})
UPDATE instance
SET generation = o.generation, offset = o.offset, data_offset = o.data_offset, large = o.large
FROM o
WHERE instance.id = o.id
"""
_REFS_IN = """
SELECT json_group_array(json_array(id, generation, offset, data_offset, length, crc, large))
FROM (
    SELECT * FROM instance INDEXED BY instance_generation
    WHERE generation = ? ORDER BY id LIMIT ?
)
"""
_GENERATIONS = """
SELECT json_group_array(json_array(key, n, bytes)) FROM tally WHERE what = ? AND n > 0
"""
_SET_COPIED = "INSERT OR REPLACE INTO meta(key, value) VALUES (?, ?), (?, ?)"
_FORGET_GENERATIONS = f"DELETE FROM tally WHERE what = {int(Tally.GENERATION)} AND n = 0"
_PURGEABLE = """
SELECT json_group_array(json_array(
    id, generation, offset, data_offset, length, crc, large, disposition, context_id
))
FROM (
    SELECT * FROM instance INDEXED BY instance_settled
    WHERE settled_at IS NOT NULL AND settled_at <= ? ORDER BY {order} LIMIT ?
)
"""
_FATES = """
SELECT json_group_array(json_array(destination_id, state, n, size)) FROM (
    SELECT d.destination_id, d.state, count(*) AS n, sum(i.length) AS size
    FROM json_each(?) AS j
    CROSS JOIN delivery AS d ON d.instance_id = j.value
    CROSS JOIN instance AS i ON i.id = d.instance_id
    GROUP BY d.destination_id, d.state
)
"""
_PURGE = (
    "DELETE FROM delivery WHERE instance_id IN (SELECT value FROM json_each(?))",
    "DELETE FROM event_instance WHERE instance_id IN (SELECT value FROM json_each(?))",
    "DELETE FROM instance WHERE id IN (SELECT value FROM json_each(?))",
)
_PURGE_CONTEXTS = """
DELETE FROM context WHERE id IN (SELECT value FROM json_each(?)) AND NOT EXISTS (
    SELECT 1 FROM instance INDEXED BY instance_context WHERE context_id = context.id
)
"""
_STUDIES_OF = """
SELECT json_group_array(DISTINCT c.study_instance_uid)
FROM json_each(?) AS j CROSS JOIN context AS c ON c.id = j.value
"""
# What was remembered of the studies of which nothing is left.
_PURGE_GATES = """
DELETE FROM gate WHERE shut = 0 AND study IN (SELECT value FROM json_each(?)) AND NOT EXISTS (
    SELECT 1 FROM context INDEXED BY context_study
    WHERE study_instance_uid = gate.study AND study_instance_uid <> ''
)
"""
