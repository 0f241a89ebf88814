"""Which settled instances may go, and which of them first.

Owns the choice among them: by age, by the time that a rule asked for, by bytes, and what of it an
archive has to have first.  Must not know what deleting takes, nor files.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from router.spool.index_database import Database, id_list, microseconds, seconds
from router.spool.index_types import Disposition

Kind = Literal["all", "routed", "discarded"]
"""``discarded``: by a rule or an operator; ``routed``: the others that can be settled."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Settled instances that may go; seconds since the epoch.

    Those that were settled at ``settled_before`` or earlier; of those for which a rule says how
    long they are kept, with ``now``, the ones that were settled so long before ``now``.
    ``oldest_first`` goes by the time of settling, otherwise by place.  ``after``: only those that
    come after this time of settling and number, oldest first.
    """

    settled_before: float
    now: float | None = None
    kind: Kind = "all"
    oldest_first: bool = True
    exclude: Collection[int] = ()
    after: tuple[float, int] | None = None


@dataclass(frozen=True, slots=True)
class Settling:
    """A row that may go, with what deleting it takes."""

    place: list[Any]
    """As `index_database.ref_of` wants it."""
    disposition: int
    context_id: int
    settled_at: int

    @property
    def length(self) -> int:
        """Bytes of its data set."""
        return int(self.place[4])


def page(db: Database, choice: Choice, limit: int, most: int | None = None) -> list[Settling]:
    """The first ``limit`` of them; of no more than it takes to make up ``most`` bytes."""
    exclude = id_list(list(choice.exclude))
    order = "settled_at, id" if choice.oldest_first else "generation, offset"
    found: list[Any] = []
    if choice.kind == "discarded":
        before = microseconds(choice.settled_before)
        found = db.json(_DISCARDED.format(order=order), before, exclude, limit)
    else:
        moment, number = choice.after or (0.0, 0)
        later = (microseconds(moment), microseconds(moment), number) if choice.after else ()
        statement = _SETTLED.format(
            order=order, kind=_KINDS[choice.kind], later=_LATER if choice.after else ""
        )
        times = kept_times(db)
        for keep in times:
            before = _before(choice, keep)
            found += db.json(statement, keep, before, *later, exclude, limit)
        if len(times) > 1:
            found.sort(
                key=(lambda row: (row[9], row[0]))
                if choice.oldest_first
                else (lambda row: row[1:3])
            )
    rows = [Settling(row[:7], row[7], row[8], row[9]) for row in found[:limit]]
    return rows if most is None else _up_to(rows, most)


def _before(choice: Choice, keep: int) -> int:
    if keep and choice.now is not None:
        return microseconds(choice.now - keep)
    return microseconds(choice.settled_before)


def _up_to(rows: list[Settling], most: int) -> list[Settling]:
    size = 0
    for n, row in enumerate(rows):
        if size >= most:
            return rows[:n]
        size += row.length
    return rows


def kept_times(db: Database) -> list[int]:
    """The times, in seconds, for which rules keep any settled instance; 0 stands for no such
    rule.  One look into the index for each."""
    found: list[int] = []
    time = db.value(_FIRST_TIME)
    while time is not None:
        found.append(time)
        time = db.value(_NEXT_TIME, time)
    return found


def oldest_settled(db: Database) -> float | None:
    """When the one was settled that was settled first; None when none is."""
    oldest = [db.value(_OLDEST, keep) for keep in kept_times(db)]
    return seconds(min(oldest)) if oldest else None


def still_settled(db: Database, ids: Collection[int]) -> list[Settling]:
    """Those of ``ids`` that may still go: an operator may have taken one up again.

    By their own rows: the tree of what is settled may have been damaged."""
    rows = db.json(_STILL, id_list(list(ids))) if ids else []
    return [Settling(row[:7], row[7], row[8], row[9]) for row in rows]


_COLUMNS = """
SELECT json_group_array(json_array(
    id, generation, offset, data_offset, length, crc, large, disposition, context_id, settled_at
))
"""
_KINDS: dict[Kind, str] = {"all": "", "routed": f"AND disposition <> {int(Disposition.DISCARDED)}"}
_LATER = "AND settled_at >= ? AND (settled_at > ? OR id > ?)"
_SETTLED = f"""
{_COLUMNS} FROM (
    SELECT * FROM instance INDEXED BY instance_settled
    WHERE keep = ? AND settled_at IS NOT NULL AND settled_at <= ? {{kind}} {{later}}
        AND id NOT IN (SELECT value FROM json_each(?))
    ORDER BY {{order}} LIMIT ?
)
"""
_DISCARDED = f"""
{_COLUMNS} FROM (
    SELECT * FROM instance INDEXED BY instance_discarded
    WHERE disposition = {int(Disposition.DISCARDED)} AND settled_at IS NOT NULL
        AND settled_at <= ? AND id NOT IN (SELECT value FROM json_each(?))
    ORDER BY {{order}} LIMIT ?
)
"""
_STILL = f"""
{_COLUMNS} FROM instance NOT INDEXED
WHERE id IN (SELECT value FROM json_each(?)) AND settled_at IS NOT NULL
"""
_FIRST_TIME = """
SELECT keep FROM instance INDEXED BY instance_settled
WHERE settled_at IS NOT NULL AND keep >= 0 ORDER BY keep LIMIT 1
"""
_NEXT_TIME = """
SELECT keep FROM instance INDEXED BY instance_settled
WHERE settled_at IS NOT NULL AND keep > ? ORDER BY keep LIMIT 1
"""
_OLDEST = """
SELECT settled_at FROM instance INDEXED BY instance_settled
WHERE keep = ? AND settled_at IS NOT NULL ORDER BY settled_at LIMIT 1
"""
