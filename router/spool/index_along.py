"""What repeats a delivery that is redirected goes along with it.

Owns what such a repeat is at the new destination: the DUPLICATE of what stands there for the one
that it repeated, so that it goes itself should that one be dropped or die.  Must not know which
deliveries are redirected, nor why.
"""

from collections.abc import Iterable, Mapping, Sequence

from router.spool.index_added import New
from router.spool.index_changes import Changes, DeliveryRow, Followed
from router.spool.index_duplicates import Earlier
from router.spool.index_select import Key
from router.spool.index_tables import Tables
from router.spool.index_types import DeliveryState

_WAITING = (DeliveryState.READY, DeliveryState.HELD, DeliveryState.UNCOMMITTED)
_UNDONE = (DeliveryState.DROPPED, DeliveryState.DEAD)


class Along:
    """Behind `Reroute.redirect`; all of it before the transaction."""

    def __init__(self, tables: Tables) -> None:
        self._db = tables.db
        self._plans = tables.plans
        self._queues = tables.queues

    def stands(
        self,
        target: int,
        there: Mapping[tuple[int, int | None], DeliveryRow],
        new: Iterable[New],
    ) -> dict[int, Earlier]:
        """By instance, what stands at ``target`` for those that are redirected: ``new`` are made
        there, the others are ``there``, as they are to be from now on."""
        found: dict[int, Earlier] = {}
        for one in new:
            found[one.instance_id] = one.repeats or (one.instance_id, True, "")
        repeats: list[Key] = []
        for row in there.values():
            if row.state is DeliveryState.DUPLICATE:
                repeats.append((row.instance_id, target))
            else:
                found[row.instance_id] = (row.instance_id, row.state in _WAITING, "")
        for instance, earlier, state in self._db.json_rows(_REPEATED, repeats):
            changed = there.get((earlier, target))
            waits = (state if changed is None else changed.state) in _WAITING
            found[instance] = (earlier, waits, "")
        return found

    def go(
        self,
        changes: Changes,
        followed: Followed,
        target: int,
        stands: Mapping[int, Earlier],
        at: int,
    ) -> list[New]:
        """Deliveries to be made at ``target`` for the repeats that were dropped with what was
        redirected; those that are dropped or dead there already are changed into such."""
        dropped = [
            (row, followed.repeated[row.instance_id, row.destination_id])
            for row in followed.dropped
        ]
        along = [(row, stands[first]) for row, first in dropped if first in stands]
        there = self._queues.rows([(row.instance_id, target) for row, _ in along])
        wanted = [row for row, _ in along if (row.instance_id, target) not in there]
        self._plans.ensure(self._plans.alone(row.plan_id) for row in (*wanted, *there.values()))
        details = self._details(wanted)
        new: list[New] = []
        for row, earlier in along:
            found = there.get((row.instance_id, target))
            if found is None:
                priority, study_order, rule_id = details[row.instance_id]
                plan_id = self._plans.id(self._plans.alone(row.plan_id))
                new.append(
                    New(
                        *(row.instance_id, row.length, target, priority, study_order, rule_id),
                        plan_id=plan_id,
                        repeats=earlier,
                    )
                )
            elif found.state in _UNDONE:
                self._again(changes, found, earlier, at)
        return new

    def _again(self, changes: Changes, row: DeliveryRow, earlier: Earlier, at: int) -> None:
        """It lies there and did not go; from now on it repeats what stands there."""
        changes.note(row)
        row.plan_id = self._plans.id(self._plans.alone(row.plan_id))
        row.attempts = 0
        row.due_at = row.status = row.reason = None
        changes.move(row, DeliveryState.DUPLICATE, at=at)
        number, waits, _ = earlier
        changes.repeat(row, number)
        if waits:
            changes.keep(row.instance_id, at=at)

    def _details(self, rows: Sequence[DeliveryRow]) -> dict[int, list[int]]:
        """Priority, order of the study and rule of each."""
        keys = [(row.instance_id, row.destination_id) for row in rows]
        return {instance: rest for instance, *rest in self._db.json_rows(_DETAILS, keys)}


_REPEATED = """
WITH wanted(instance_id, destination_id) AS (VALUES {values})
SELECT json_group_array(json_array(d.instance_id, d.duplicate_of, o.state))
FROM wanted
CROSS JOIN delivery AS d
    ON d.instance_id = wanted.instance_id AND d.destination_id = wanted.destination_id
LEFT JOIN delivery AS o
    ON o.instance_id = d.duplicate_of AND o.destination_id = d.destination_id
WHERE d.duplicate_of IS NOT NULL
"""
_DETAILS = """
WITH wanted(instance_id, destination_id) AS (VALUES {values})
SELECT json_group_array(json_array(d.instance_id, d.priority, d.study_order, d.rule_id))
FROM wanted
CROSS JOIN delivery AS d
    ON d.instance_id = wanted.instance_id AND d.destination_id = wanted.destination_id
"""
