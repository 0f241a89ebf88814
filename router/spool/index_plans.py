"""The plans of deliveries, of which many share one.

Owns their table and what is understood of each.  Must not know gates or members' states.
"""

from collections.abc import Iterable

from router.spool.index_database import Database, Names
from router.spool.plan import Plan

_NO_PLAN = Plan()


class Plans:
    """The texts of plans, with numbers; None is the number of ""."""

    def __init__(self, db: Database) -> None:
        self._names = Names(db, "plan")
        self._plans: dict[int, Plan] = {}

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
