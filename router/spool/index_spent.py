"""Which members of its plan have had their try at a delivery.

Owns the column ``spent`` of deliveries, a bit for each member in the order of the plan, and that an
instance which one refused for good waits for another instead of being dead.  Must not know who is
up: `index_divert` moves what waits so.
"""

from collections.abc import Iterable

from router.spool.index_changes import DeliveryRow
from router.spool.index_database import Database, microseconds
from router.spool.index_names import Names
from router.spool.index_plans import Plans
from router.spool.index_types import DeliveryState, Outcome
from router.spool.plan import Plan

_LOOKED_FOR = microseconds(86_400.0)
"""For so long another member is waited for; then the one that refused it is asked again."""


def bit_of(plan: Plan, name: str) -> int:
    """The bit of a member; 0 for what is none."""
    return 1 << plan.members.index(name) if name in plan.members else 0


def forget_spent(db: Database, rows: Iterable[DeliveryRow]) -> None:
    """All members of their plans may be asked once more; into the open transaction."""
    planned = [(row.instance_id, row.destination_id) for row in rows if row.plan_id is not None]
    db.run_rows(_FORGET, planned)


class Refusals:
    """Of one settling."""

    def __init__(self, db: Database, destinations: Names, plans: Plans) -> None:
        self._db = db
        self._destinations = destinations
        self._plans = plans
        self._bits: list[tuple[int, int, int]] = []
        self.names: set[str] = set()

    def turn(self, row: DeliveryRow, outcome: Outcome) -> DeliveryState:
        """What becomes of a delivery that ended DEAD: READY when another member may have it, HELD
        when somebody held it meanwhile: that one decides, and it is tried once more if released.

        Sets when it is due.  One that was put behind a gate while it was sent is not asked for.
        """
        plan = self._plans.plan(row.plan_id)
        bit = bit_of(plan, outcome.destination)
        if plan.on_refusal != "next" or not bit or not outcome.refused or row.gate_id is not None:
            return DeliveryState.DEAD
        spent = self._db.value(_SPENT, row.instance_id, row.destination_id) or 0
        if spent & bit or not self._is_left(row, plan, spent | bit):
            return DeliveryState.DEAD
        if row.state is DeliveryState.HELD:
            return DeliveryState.HELD
        self._bits.append((row.instance_id, row.destination_id, spent | bit))
        self.names.add(outcome.destination)
        row.due_at = microseconds(outcome.at) + _LOOKED_FOR
        return DeliveryState.READY

    def _is_left(self, row: DeliveryRow, plan: Plan, spent: int) -> bool:
        """Whether a member may have it yet; not one that has a delivery of the instance anyhow."""
        there = set(self._db.json(_THERE, row.instance_id))
        return any(
            not spent & bit_of(plan, name) and self._destinations.find(name) not in there
            for name in plan.members
        )

    def write(self) -> None:
        """Into the open transaction."""
        self._db.run_rows(_SPEND, self._bits)


_FORGET = """
WITH o(instance_id, destination_id) AS (VALUES {values})
UPDATE delivery SET spent = NULL
FROM o
WHERE delivery.instance_id = o.instance_id AND delivery.destination_id = o.destination_id
    AND delivery.spent IS NOT NULL
"""
_THERE = "SELECT json_group_array(destination_id) FROM delivery WHERE instance_id = ?"
_SPENT = "SELECT spent FROM delivery WHERE instance_id = ? AND destination_id = ?"
_SPEND = """
WITH o(instance_id, destination_id, spent) AS (VALUES {values})
UPDATE delivery SET spent = o.spent
FROM o
WHERE delivery.instance_id = o.instance_id AND delivery.destination_id = o.destination_id
"""
