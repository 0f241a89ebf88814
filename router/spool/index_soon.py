"""Which gates are to be looked after now, when there are more than may be kept in mind.

Owns the choice, by the times in the gates' rows: those that are to be quiet soonest, and of those
that should be quiet already one page after the other.  Must not know why one of them stays shut.

A choice reads every gate that is shut once, in one statement of about half a microsecond each; it
keeps none of them.
"""

from dataclasses import dataclass, replace
from math import inf
from typing import Literal

from router.spool.index_database import Database, id_list, microseconds
from router.spool.index_gates import SCHEDULE, Gates
from router.spool.index_plans import Plans
from router.spool.index_types import Gate

_AHEAD = 60.0
"""Seconds that an arrival may seem to be ahead: more, and the clock was set back since."""

Class = Literal["overdue", "quiet", "asking"]
CLASSES: tuple[Class, ...] = ("overdue", "quiet", "asking")
"""Of what should be quiet already: it has waited for all that it may wait for; it waits for an
association to end, if for anything; it waits for what an archive says."""

Place = tuple[int, int]
"""In a class: microseconds when it should be quiet, id of the gate."""
FIRST: Place = (-(2**62), 0)


@dataclass(frozen=True, slots=True)
class Look:
    """What is asked: ``now`` in seconds since the epoch; ``whole``: up to so many are given all
    of them; else ``each`` of a class, after a place in it, and ``soonest`` of the others."""

    now: float
    whole: int
    each: int
    soonest: int
    after: tuple[Place, ...] = (FIRST, FIRST, FIRST)

    def onward(self, answer: "Soon", classes: tuple[Class, ...], now: float) -> "Look":
        """The next one, with the next page of these classes; after the last comes the first."""
        after = tuple(
            (end or FIRST) if name in classes else before
            for name, before, end in zip(CLASSES, self.after, answer.ends, strict=True)
        )
        return replace(self, now=now, after=after)


@dataclass(frozen=True, slots=True)
class Soon:
    """The answer.  ``until``: of those that should be quiet after `Look.now` all are here that
    should be before then; infinity when none is left out.  ``whole``: no other gate is shut.
    ``ends``: the last place of the page of each class, None when no other comes after it."""

    gates: list[Gate]
    whole: bool = True
    until: float = inf
    ends: tuple[Place | None, ...] = (None, None, None)


class SoonGates:
    """Behind `Index.soon_gates`."""

    def __init__(self, db: Database, gates: Gates, plans: Plans) -> None:
        self._db = db
        self._gates = gates
        self._plans = plans

    def soon(self, look: Look) -> Soon:
        """See `Index.soon_gates`."""
        if self._db.value(_COUNT, look.whole + 1) <= look.whole:
            return Soon(self._gates.gates())
        now = microseconds(look.now)
        places = [number for place in look.after for number in place]
        plans = self._times()
        pages, ahead = self._db.json(_CHOOSE, plans, now, look.each, look.soonest, *places)
        if ahead > now + microseconds(_AHEAD):
            # By its row nothing more would come of it before that time.
            self._db.run(_CAME_NOW, now, now + microseconds(_AHEAD))
        ids = [gate for page in pages for _, gate in page]
        ids += self._db.json(_SCHEDULES)
        *classes, soonest = pages
        first, second, third = (
            (page[-1][0], page[-1][1]) if len(page) == look.each else None for page in classes
        )
        until = soonest[-1][0] / 1e6 if len(soonest) == look.soonest else inf
        gates = self._gates.shut_among(id_list(ids))
        return Soon(gates, whole=False, until=until, ends=(first, second, third))

    def _times(self) -> str:
        """JSON of the plans that gates have: id, quiet and wait in microseconds, asks or not."""
        rows = []
        for number in self._db.json(_PLANS):
            plan = self._plans.plan(number)
            times = microseconds(plan.quiet), microseconds(plan.wait)
            rows.append(f"[{number},{times[0]},{times[1]},{int(bool(plan.expect))}]")
        return f"[{','.join(rows)}]"


_COUNT = "SELECT count(*) FROM (SELECT 1 FROM gate INDEXED BY gate_shut WHERE shut > 0 LIMIT ?)"
_PLANS = """
SELECT json_group_array(plan_id) FROM (
    SELECT DISTINCT plan_id FROM gate INDEXED BY gate_shut WHERE shut > 0
)
"""
_SCHEDULES = f"""
SELECT json_group_array(id) FROM gate INDEXED BY gate_shut
WHERE shut > 0 AND kind = {SCHEDULE}
"""


def _page(number: int) -> str:
    at = 5 + 2 * number
    return f"""
    json((SELECT json_group_array(json_array(due, id)) FROM (
        SELECT due, id FROM waiting
        WHERE class = {number} AND (due > ?{at} OR due = ?{at} AND id > ?{at + 1})
        ORDER BY due, id LIMIT ?3
    )))"""


_CHOOSE = f"""
WITH plans(id, quiet, wait, asks) AS MATERIALIZED (
    SELECT
        json_extract(value, '$[0]'), json_extract(value, '$[1]'),
        json_extract(value, '$[2]'), json_extract(value, '$[3]')
    FROM json_each(?1)
), waiting(id, due, class, last_at) AS MATERIALIZED (
    SELECT
        g.id,
        g.last_at + p.quiet,
        CASE
            WHEN g.last_at + p.quiet > ?2 THEN 3
            WHEN g.last_at + p.quiet + p.wait <= ?2 THEN 0
            WHEN p.asks AND g.supplement = 0 THEN 2
            ELSE 1
        END,
        g.last_at
    FROM gate AS g INDEXED BY gate_shut CROSS JOIN plans AS p ON p.id = g.plan_id
    WHERE g.shut > 0 AND g.kind <> {SCHEDULE}
)
SELECT json_array(
    json_array({_page(0)}, {_page(1)}, {_page(2)},
    json((SELECT json_group_array(json_array(due, id)) FROM (
        SELECT due, id FROM waiting WHERE class = 3 ORDER BY due, id LIMIT ?4
    )))),
    (SELECT ifnull(max(last_at), 0) FROM waiting)
)
"""
_CAME_NOW = f"""
UPDATE gate SET last_at = ?1, first_at = min(first_at, ?1)
WHERE shut > 0 AND kind <> {SCHEDULE} AND last_at > ?2
"""
