"""Deliveries that an operator adds to instances of the index, compared with what their destination
has or waits for.

Owns how such a delivery is put to `index_duplicates`, and how much is compared in one step.  Must
not know what becomes of it.  Writes nothing.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from router.spool.index_changes import DeliveryRow
from router.spool.index_database import id_list, ref_of
from router.spool.index_duplicates import Earlier, SameBytes
from router.spool.index_select import Key
from router.spool.index_tables import Tables
from router.spool.index_types import DeliveryState
from router.spool.record import InstanceMeta, Ref, RouteMeta

_COMPARED_AT_ONCE = 64 * 2**20
"""Bytes of new deliveries that are compared in a step: the queues wait for the index meanwhile."""

Wanted = tuple[int, int, int | None]
"""Instance, destination, and the plan of a delivery that is to be behind a gate."""


@dataclass(frozen=True, slots=True)
class Standing:
    """``by`` (instance id, destination): what stands for a delivery.  What has the instance number
    ``cut`` or more was not compared any more; None when all was."""

    by: Mapping[tuple[int, str], Earlier]
    cut: int | None = None

    def goes(self, instance_id: int) -> bool:
        """Whether it belongs to this step."""
        return self.cut is None or instance_id < self.cut


NOBODY = Standing({})


class _Budget:
    """``same_bytes`` for as many bytes, and never for less than all of one instance; to be asked
    in the order of instances."""

    def __init__(self, same_bytes: SameBytes) -> None:
        self._same_bytes = same_bytes
        self._first: int | None = None
        self._spent = 0
        self.cut: int | None = None

    def __call__(self, new: Ref, earlier: Ref) -> bool:
        if self._first is None:
            self._first = new.id
        if new.id != self._first and self._spent + new.length > _COMPARED_AT_ONCE:
            self.cut = new.id if self.cut is None else self.cut
        if self.cut is not None:
            return False
        self._spent += new.length
        return self._same_bytes(new, earlier)


class Again:
    """Behind `Reroute`."""

    def __init__(self, tables: Tables) -> None:
        self._db = tables.db
        self._destinations = tables.destinations
        self._plans = tables.plans
        self._duplicates = tables.duplicates
        self._peers = tables.peers

    def standing(
        self, wanted: Collection[Wanted], same_bytes: SameBytes | None, *, delivered: bool
    ) -> Standing:
        """What stands for them: earlier ones that wait, and with ``delivered`` those that the
        destination has.  Nothing without ``same_bytes``."""
        if same_bytes is None or not wanted:
            return NOBODY
        routes: dict[int, list[RouteMeta]] = {}
        for instance, destination, plan in wanted:
            name = self._destinations.name(destination)
            routes.setdefault(instance, []).append(RouteMeta(name, "", 0, self._plans.text(plan)))
        rows = self._rows(routes)
        metas = {row[0]: _described(row, routes[row[0]]) for row in rows}
        budget = _Budget(same_bytes)
        return Standing(self._found(rows, metas, budget, delivered=delivered), budget.cut)

    def decided(
        self, metas: Mapping[int, InstanceMeta], same_bytes: SameBytes | None
    ) -> Mapping[tuple[int, str], Earlier]:
        """As when they had just come, by the routes in their descriptions; all of them."""
        if same_bytes is None or not metas:
            return {}
        return self._found(self._rows(metas), metas, same_bytes, delivered=True)

    def alone(self, keys: Sequence[Key], ids: Collection[int]) -> dict[Key, tuple[int, bool]]:
        """Of those that repeat one which is not among ``ids``, and for which nothing would go by
        itself: what they repeat, and whether they wait for it no more."""
        together = set(ids)
        return {
            (instance, number): (earlier, state != DeliveryState.UNCOMMITTED)
            for instance, number, earlier, state in self._db.json_rows(_REPEAT_WHAT_WENT, keys)
            if earlier not in together
        }

    def had_by_another(self, there: Iterable[DeliveryRow], name: str) -> dict[Key, int]:
        """Those of these deliveries to a destination that repeat one which only a peer of before
        may have, and the number of that one."""
        repeats = (row for row in there if row.state is DeliveryState.DUPLICATE)
        keys = [(row.instance_id, row.destination_id) for row in repeats]
        after = self._peers.after(name)
        if not keys or not after:
            return {}
        found = self._db.json_rows(_REPEAT_TAKEN, keys)
        return {(instance, number): one for instance, number, one in found if one <= after}

    def _found(
        self,
        rows: Sequence[Sequence[Any]],
        metas: Mapping[int, InstanceMeta],
        same_bytes: SameBytes,
        *,
        delivered: bool,
    ) -> dict[tuple[int, str], Earlier]:
        return self._duplicates.find(
            [(ref_of(row), metas[row[0]]) for row in rows],
            [(0, row[7]) for row in rows],
            [row[8] for row in rows],
            same_bytes,
            delivered=delivered,
        )

    def _rows(self, ids: Collection[int]) -> list[list[Any]]:
        rows: list[list[Any]] = self._db.json(_ROWS, id_list(sorted(ids)))
        return rows


def _described(row: Sequence[Any], routes: Sequence[RouteMeta]) -> InstanceMeta:
    """What makes one the same as another, with its routes."""
    uid, sop_class, syntax, study, series = row[9:14]
    meta = InstanceMeta(0.0, "", "", "", "", "", sop_class, uid, syntax, study, series)
    return meta._replace(disposition="route", routes=tuple(routes))


_ROWS = """
SELECT json_group_array(json_array(
    i.id, i.generation, i.offset, i.data_offset, i.length, i.crc, i.large, i.study_order,
    i.sop_key, i.sop_instance_uid, c.sop_class_uid, c.transfer_syntax_uid, c.study_instance_uid,
    c.series_instance_uid
))
FROM json_each(?) AS j CROSS JOIN instance AS i ON i.id = j.value
CROSS JOIN context AS c ON c.id = i.context_id
"""
_WENT = f"{int(DeliveryState.DELIVERED)}, {int(DeliveryState.UNCOMMITTED)}"
# What repeats one that went, and is purged or still here: nothing would ever go for it.
_REPEAT_WHAT_WENT = f"""
WITH wanted(instance_id, destination_id) AS (VALUES {{values}})
SELECT json_group_array(json_array(d.instance_id, d.destination_id, d.duplicate_of, o.state))
FROM wanted
CROSS JOIN delivery AS d
    ON d.instance_id = wanted.instance_id AND d.destination_id = wanted.destination_id
LEFT JOIN delivery AS o
    ON o.instance_id = d.duplicate_of AND o.destination_id = d.destination_id
WHERE d.state = {int(DeliveryState.DUPLICATE)}
    AND (o.state IS NULL OR o.state IN ({_WENT}))
"""
# What repeats one that was delivered, and is perhaps purged.
_REPEAT_TAKEN = f"""
WITH wanted(instance_id, destination_id) AS (VALUES {{values}})
SELECT json_group_array(json_array(d.instance_id, d.destination_id, d.duplicate_of))
FROM wanted
CROSS JOIN delivery AS d
    ON d.instance_id = wanted.instance_id AND d.destination_id = wanted.destination_id
LEFT JOIN delivery AS o
    ON o.instance_id = d.duplicate_of AND o.destination_id = d.destination_id
WHERE d.state = {int(DeliveryState.DUPLICATE)}
    AND (o.state IS NULL OR o.state = {int(DeliveryState.DELIVERED)})
"""
