"""What the index holds for the spool's housekeeping: places of records, and what may go.

Owns which rows of an instance are deleted with it and the count of live records by generation.
Must not know files.
"""

from collections.abc import Collection, Mapping, Sequence

from router.spool.errors import SpoolError
from router.spool.index_attempts import forget_attempts
from router.spool.index_database import (
    Counts,
    Database,
    count,
    id_list,
    new_counts,
    ref_of,
)
from router.spool.index_hours import count_purged, forget_hours
from router.spool.index_retain import Choice, Settling, oldest_settled, page, still_settled
from router.spool.index_types import KEEPING_STATES, Gap, Purged, Tally
from router.spool.index_unkept import forget_unkept
from router.spool.record import Position, Ref

_PURGED_AT_ONCE = 1000


class Keep:
    """Behind `Index.purge`, `move`, `refs_in`, `generations_in_use` and `known`."""

    def __init__(self, db: Database) -> None:
        self._db = db
        meta = self._noted()
        self.copied = _copied(meta)
        """See `Index.copied_position`."""
        self.gap: Gap | None = None
        """See `Index.gap`."""
        if "gap_mark" in meta:
            self.gap = Gap(Position(meta["gap_generation"], meta["gap_offset"]), meta["gap_mark"])
        self.anew: int = meta.get("anew_id", 0)
        """See `Index.made_anew`."""

    def _noted(self) -> dict[str, int]:
        return dict(self._db.json("SELECT json_group_array(json_array(key, value)) FROM meta"))

    def look_again(self) -> None:
        """As `Adder.look_again`, of copies."""
        noted = _copied(self._noted())
        if self.copied is not None and (noted is None or noted < self.copied):
            raise self._db.met_damaged("it has forgotten where a record was copied to")

    def known(self, ids: Sequence[int]) -> set[int]:
        """Those that are in the index."""
        return set(self._db.json(_KNOWN, id_list(ids))) if ids else set()

    def figures(self, ids: Sequence[int]) -> dict[int, tuple[int, int]]:
        """See `Index.figures`."""
        rows = self._db.json(_PLACES, id_list(ids)) if ids else ()
        return {number: (length, crc) for number, _, length, _, crc in rows}

    def places(self, ids: Sequence[int]) -> dict[int, Ref]:
        """See `Index.places`."""
        rows = self._db.json(_REFS, id_list(ids)) if ids else ()
        return {row[0]: ref_of(row) for row in rows}

    def at(self, places: Sequence[Position]) -> set[Position]:
        """See `Index.at`."""
        wanted = [[place.generation, place.offset] for place in places]
        return {Position(*row) for row in self._db.json_rows(_AT, wanted)}

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

    def note_gap(self, gap: Gap | None) -> None:
        """See `Index.note_gap`."""
        if gap == self.gap:
            return
        with self._db.transaction():
            if gap is None:
                self._db.run(_NO_GAP)
            else:
                known = gap.known
                self._db.run(_SET_GAP, known.generation, known.offset, gap.mark)
        self.gap = gap

    def note_anew(self, last_id: int) -> None:
        """See `Index.note_anew`."""
        self._db.run(_SET_ANEW, last_id)
        self.anew = last_id

    def refs_in(self, generation: int, limit: int) -> list[Ref]:
        """See `Index.refs_in`."""
        rows = self._db.json(_REFS_IN, generation, limit)
        return [ref_of(row) for row in rows]

    def generations_in_use(self) -> dict[int, tuple[int, int]]:
        """See `Index.generations_in_use`."""
        rows = self._db.json(_GENERATIONS, int(Tally.GENERATION))
        return {generation: (n, size) for generation, n, size in rows}

    def check_free(self, generation: int) -> None:
        """See `Index.check_free`."""
        if self.refs_in(generation, 1):
            raise self._db.met_damaged("a segment that it counts as free has records of its own")

    def purge(self, choice: Choice, limit: int, most: int | None = None) -> Purged:
        """See `Index.purge`."""
        large: list[Ref] = []
        total = size = 0
        while total < limit and (most is None or size < most):
            step = min(_PURGED_AT_ONCE, limit - total)
            try:
                rows = page(self._db, choice, step, None if most is None else most - size)
                if len(still_settled(self._db, [row.place[0] for row in rows])) != len(rows):
                    # Held ones have no delivery that would say so.
                    raise self._db.met_damaged("some that are to be purged are not settled")
                refs = self._delete(rows)
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

    def purge_these(self, ids: Collection[int]) -> Purged:
        """See `Index.purge_these`."""
        refs = self._delete(still_settled(self._db, ids))
        return Purged([ref for ref in refs if ref.large], len(refs), sum(r.length for r in refs))

    def aged(self, choice: Choice, limit: int, most: int | None) -> list[int]:
        """See `Index.aged`."""
        return [row.place[0] for row in page(self._db, choice, limit, most)]

    def oldest_settled(self) -> float | None:
        """See `Index.oldest_settled`."""
        return oldest_settled(self._db)

    def _delete(self, rows: Sequence[Settling]) -> list[Ref]:
        if not rows:
            return []
        refs = [ref_of(row.place) for row in rows]
        ids = id_list([ref.id for ref in refs])
        counts = new_counts()
        for ref, row in zip(refs, rows, strict=True):
            in_segment = 0 if ref.large else ref.length
            count(counts, Tally.GENERATION, ref.generation, -1, -in_segment)
            count(counts, Tally.PURGED_DISPOSITION + row.disposition, 0, 1, ref.length)
        for destination, state, n, size in self._db.json(_FATES, ids):
            if state in KEEPING_STATES:
                # Whatever else it says of these: to delete them would be for good.
                raise self._db.met_damaged("some that are to be purged still wait to be delivered")
            count(counts, Tally.PURGED_STATE + state, destination, n, size)
        count_purged(self._db, ids, counts)
        contexts = id_list({row.context_id for row in rows})
        with self._db.transaction():
            forget_unkept(self._db, ids)
            for statement in _PURGE:
                self._db.run(statement, ids)
            forget_attempts(self._db, ids)
            studies = self._db.value(_STUDIES_OF, contexts)
            self._db.run(_PURGE_CONTEXTS, contexts)
            self._db.run(_PURGE_GATES, studies)
            self._db.tally(counts)
            self._db.run(_FORGET_GENERATIONS)
            forget_hours(self._db, max(row.settled_at for row in rows))
        return refs


def _copied(meta: Mapping[str, int]) -> Position | None:
    if "copied_generation" not in meta:
        return None
    return Position(meta["copied_generation"], meta["copied_offset"])


_KNOWN = """
SELECT json_group_array(i.id)
FROM json_each(?) AS j CROSS JOIN instance AS i ON i.id = j.value
"""
_AT = """
WITH o(generation, offset) AS (VALUES {values})
SELECT json_group_array(json_array(o.generation, o.offset))
FROM o CROSS JOIN instance AS i INDEXED BY instance_generation
    ON i.generation = o.generation AND i.offset = o.offset
"""
_PLACES = """
SELECT json_group_array(json_array(i.id, i.generation, i.length, i.large, i.crc))
FROM json_each(?) AS j CROSS JOIN instance AS i ON i.id = j.value
"""
_REFS = """
SELECT json_group_array(
    json_array(i.id, i.generation, i.offset, i.data_offset, i.length, i.crc, i.large)
)
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
_SET_GAP = """
INSERT OR REPLACE INTO meta(key, value)
VALUES ('gap_generation', ?), ('gap_offset', ?), ('gap_mark', ?)
"""
_SET_ANEW = "INSERT OR REPLACE INTO meta(key, value) VALUES ('anew_id', ?)"
_NO_GAP = "DELETE FROM meta WHERE key IN ('gap_generation', 'gap_offset', 'gap_mark')"
_FORGET_GENERATIONS = f"DELETE FROM tally WHERE what = {int(Tally.GENERATION)} AND n = 0"
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
    "DELETE FROM commitment_failure WHERE instance_id IN (SELECT value FROM json_each(?))",
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
