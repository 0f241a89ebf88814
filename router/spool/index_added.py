"""Rows of deliveries that an operator adds to instances of the index.

Owns such a row, the gate that it is behind, and what it means for its instance and the counts.
Must not know why it is added, nor what it stands in place of.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from router.spool.index_changes import Changes
from router.spool.index_database import GATED, count, id_list
from router.spool.index_duplicates import Earlier
from router.spool.index_gates import Arrivals, GateKey
from router.spool.index_tables import Tables
from router.spool.index_types import DeliveryState, Disposition, Tally


@dataclass(frozen=True, slots=True)
class New:
    """A delivery to be added; ``gate`` with what comes to it, None when it is due."""

    instance_id: int
    length: int
    destination_id: int
    priority: int
    study_order: int
    rule_id: int
    plan_id: int | None = None
    gate: GateKey | None = None
    arrivals: Arrivals | None = None
    reason: str | None = None
    repeats: Earlier | None = None
    """What stands for it, so that it waits for nothing itself."""


class Additions:
    """All but `instances` is to be used in the open transaction."""

    def __init__(self, tables: Tables) -> None:
        self._db = tables.db
        self._gates = tables.gates

    def instances(self, ids: Collection[int]) -> list[list[int]]:
        """Id, length, disposition and order of the study of those of ``ids`` that there are."""
        rows: list[list[int]] = self._db.json(_INSTANCES, id_list(ids))
        return rows

    def as_routed(
        self, changes: Changes, held: Iterable[Sequence[int]], ids: Collection[int]
    ) -> None:
        """Those of ``held`` that are in ``ids`` go somewhere now, whatever they were before."""
        others = []
        for instance, length, disposition, _ in held:
            if instance in ids and disposition != Disposition.ROUTED:
                count_disposition(changes, disposition, Disposition.ROUTED, length)
                others.append(instance)
        if others:
            self._db.run(_AS_ROUTED, int(Disposition.ROUTED), id_list(others))

    def insert(self, changes: Changes, new: Sequence[New], at: int) -> None:
        """``changes`` takes the counts, and is written after."""
        if not new:
            return
        arrivals: dict[GateKey, Arrivals] = {}
        for one in new:
            if one.gate is not None and one.arrivals is not None:
                if one.gate in arrivals:
                    arrivals[one.gate].join(one.arrivals)
                else:
                    arrivals[one.gate] = replace(one.arrivals)
        gates = self._gates.shut_for(arrivals) if arrivals else {}
        rows: list[tuple[object, ...]] = []
        unsettled: dict[int, int] = {}
        for one in new:
            gate = None if one.gate is None else gates[one.gate]
            earlier, waits, _ = one.repeats or (None, True, "")
            state = DeliveryState.READY if earlier is None else DeliveryState.DUPLICATE
            rows.append(
                (
                    *(one.instance_id, one.destination_id, int(state)),
                    *(one.priority, one.study_order, at, one.rule_id, 0, one.plan_id, gate),
                    *(None if gate is None else GATED, one.reason, earlier),
                )
            )
            unsettled[one.instance_id] = unsettled.get(one.instance_id, 0) + waits
            for what in (Tally.STATE + state, Tally.ROUTED):
                count(changes.counts, what, one.destination_id, 1, one.length)
            if gate is not None:
                count(changes.counts, Tally.GATED, one.destination_id, 1, one.length)
        self._db.run_rows(_INSERT, rows)
        self._db.run_rows(_MORE_UNSETTLED, [each for each in unsettled.items() if each[1]])
        self._db.run(_SETTLED, at, id_list(number for number, n in unsettled.items() if not n))


def repeating(one: New, earlier: Earlier) -> New:
    """The same, behind no gate: what it repeats waits for it."""
    return replace(one, gate=None, arrivals=None, reason=None, repeats=earlier)


def count_disposition(changes: Changes, before: int, after: int, length: int) -> None:
    """An instance of that many bytes is another disposition's."""
    count(changes.counts, Tally.DISPOSITION + before, 0, -1, -length)
    count(changes.counts, Tally.DISPOSITION + after, 0, 1, length)


# Without a study, one of its own in the order of arrival, as in `index_add`.
_INSTANCES = """
SELECT json_group_array(json_array(
    i.id, i.length, i.disposition, CASE i.study_order WHEN 0 THEN i.id ELSE i.study_order END
))
FROM json_each(?) AS j CROSS JOIN instance AS i ON i.id = j.value
"""
_INSERT = """
INSERT INTO delivery(
    instance_id, destination_id, state, priority, study_order, updated_at, rule_id, attempts,
    plan_id, gate_id, due_at, reason, duplicate_of
) VALUES {values}
"""
_MORE_UNSETTLED = """
WITH o(id, n) AS (VALUES {values})
UPDATE instance SET unsettled = unsettled + o.n, settled_at = NULL
FROM o
WHERE instance.id = o.id
"""
# All of it stands at its destinations already.
_SETTLED = """
UPDATE instance SET settled_at = ?
WHERE id IN (SELECT value FROM json_each(?)) AND unsettled = 0 AND settled_at IS NULL
"""
_AS_ROUTED = """
UPDATE instance SET disposition = ?, settled_at = NULL
WHERE id IN (SELECT value FROM json_each(?))
"""
