"""The plans of deliveries, of which many share one.

Owns their table and what is understood of each.  Must not know gates or members' states.
"""

from collections.abc import Iterable
from dataclasses import replace

from router.spool.index_database import Database
from router.spool.index_names import Names
from router.spool.plan import Plan

_NO_PLAN = Plan()
_SETS = 1024


class Plans:
    """The texts of plans, with numbers; None is the number of ""."""

    def __init__(self, db: Database) -> None:
        self._names = Names(db, "plan")
        self._plans: dict[int, Plan] = {}
        self._for_all: dict[frozenset[str], tuple[int, ...]] = {}
        self._counted = 0

    def ensure(self, texts: Iterable[str]) -> None:
        """Make sure that each has a number, in a transaction of its own."""
        self._names.ensure(text for text in texts if text)

    def id(self, text: str) -> int | None:
        """Raises KeyError for one that was never ensured."""
        return self._names.id(text) if text else None

    def text(self, number: int | None) -> str:
        return "" if number is None else self._names.name(number)

    def hastened(self, number: int) -> str:
        """The text of the plan that is left of one when it waits for nothing any more."""
        return self.plan(number).hastened().to_text()

    def alone(self, number: int | None) -> str:
        """The text of the plan that is left of one when an operator said who gets it: what it waits
        for stays, but nobody else may have it."""
        if number is None:
            return ""
        return replace(self.plan(number), mode="one", members=()).to_text()

    def for_all(self, members: frozenset[str]) -> tuple[int, ...]:
        """The numbers of the plans by which each of these may have it."""
        known = len(self._names.items())
        numbers = self._for_all.get(members)
        if numbers is None or self._counted != known:
            if self._counted != known or len(self._for_all) >= _SETS:
                self._for_all.clear()
                self._counted = known
            numbers = self._for_all[members] = tuple(
                number
                for _, number in self._names.items()
                if self.plan(number).mode != "one" and members <= set(self.plan(number).members)
            )
        return numbers

    def plan(self, number: int | None) -> Plan:
        """One whose text cannot be read waits for nothing: it must not keep an instance back for
        ever."""
        if number is None:
            return _NO_PLAN
        plan = self._plans.get(number)
        if plan is None:
            try:
                plan = Plan.from_text(self._names.name(number))
            except ValueError:
                plan = _NO_PLAN
            self._plans[number] = plan
        return plan


def plans_at(db: Database, destination: int) -> list[int]:
    """The plans that READY deliveries of a destination have; a look-up for each."""
    return list(db.json(_PLANS_AT, destination))


_PLANS_AT = """
WITH RECURSIVE at(plan) AS (
    SELECT min(plan_id) FROM delivery INDEXED BY delivery_plan
    WHERE destination_id = ?1 AND state = 0 AND plan_id IS NOT NULL
    UNION ALL
    SELECT (
        SELECT min(plan_id) FROM delivery INDEXED BY delivery_plan
        WHERE destination_id = ?1 AND state = 0 AND plan_id IS NOT NULL AND plan_id > at.plan
    )
    FROM at WHERE at.plan IS NOT NULL
)
SELECT json_group_array(plan) FROM at WHERE plan IS NOT NULL
"""
