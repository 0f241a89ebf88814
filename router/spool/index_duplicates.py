"""Which deliveries of new instances repeat an earlier one.

Owns what makes two deliveries the same, and which of the earlier ones is good enough to stand for
another.  Must not know how bytes are compared: it is told.  Writes nothing.
"""

from collections.abc import Callable, Sequence

from router.spool.index_database import Database, clean, id_list, ref_of
from router.spool.index_gates import Gates
from router.spool.index_names import Names
from router.spool.index_peers import Peers
from router.spool.index_plans import Plans
from router.spool.index_routes import routes_of
from router.spool.index_types import DeliveryState
from router.spool.record import InstanceMeta, Ref, RouteMeta

Entry = tuple[Ref, InstanceMeta]
SameBytes = Callable[[Ref, Ref], bool]
Context = tuple[int, int]
"""Id of a context and the order of its study."""
Earlier = tuple[int, bool, str]
"""Id of the instance that is repeated, whether it still waits to be delivered, and where to."""

_Kind = tuple[str, str, str]
_Wanted = tuple[Ref, _Kind, str, str, bool, bool, frozenset[str]]
"""A delivery and one place where it may have gone already: the instance, its kind, where it is to
go, the place, whether that is the last one, whether it would be behind a gate, and its members."""

_NOBODY: frozenset[str] = frozenset()

_WAITING = (DeliveryState.READY, DeliveryState.HELD)
_SUPPRESSING = (*_WAITING, DeliveryState.DELIVERED, DeliveryState.UNCOMMITTED)
_AT_PEER = f"{int(DeliveryState.DELIVERED)}, {int(DeliveryState.UNCOMMITTED)}"


class Duplicates:
    """Behind `Index.add`."""

    def __init__(
        self, db: Database, destinations: Names, plans: Plans, gates: Gates, peers: Peers
    ) -> None:
        self._db = db
        self._destinations = destinations
        self._plans = plans
        self._gates = gates
        self._peers = peers

    def find(
        self,
        entries: Sequence[Entry],
        contexts: Sequence[Context],
        sop_keys: Sequence[int],
        same_bytes: SameBytes,
        *,
        delivered: bool = True,
    ) -> dict[tuple[int, str], Earlier]:
        """(instance id, destination) of what need not be sent, with the earlier one; without
        ``delivered`` only one that waits still, or is held, is an earlier one.

        Asks the index for the first instance of the same study with the same UIDs, transfer
        syntax, length and CRC that went or waits to go to that destination, then looks among
        the earlier ones of this batch.  One behind a gate is good enough only for what would be
        behind a gate itself: what is to go now must not wait for the night with it.  One that
        waits is good enough for what several may have only if each of those may have it too: else
        both would wait for one that is down.
        """
        wanted, keys = self._wanted(entries, contexts, sop_keys)
        indexed = {
            n: (ref_of(place), state != DeliveryState.DELIVERED)
            for n, state, *place in self._db.json_rows(
                _CANDIDATES if delivered else _CANDIDATES_WAITING, keys
            )
        }
        return _chosen(wanted, indexed, same_bytes)

    def _wanted(
        self, entries: Sequence[Entry], contexts: Sequence[Context], sop_keys: Sequence[int]
    ) -> tuple[list[_Wanted], list[tuple[object, ...]]]:
        """What may be a duplicate of what went to where, with the row to ask the index for each."""
        wanted: list[_Wanted] = []
        keys: list[tuple[object, ...]] = []
        find = self._destinations.id
        for (ref, meta), (_, order), key in zip(entries, contexts, sop_keys, strict=True):
            kind = _kind(meta)
            for route in routes_of(meta):
                first = route.destination
                same = (order, key, ref.crc, ref.length, *kind)
                if not route.plan:
                    wanted.append((ref, kind, first, first, True, False, _NOBODY))
                    keys.append((len(keys), *same, find(first), 0, None, self._peers.after(first)))
                    continue
                places = self._places(route, meta)
                keeps = self._is_kept(route, meta)
                members = self._members(route)
                going_along = id_list(self._plans.for_all(members)) if members else None
                wanted.append((ref, kind, first, first, not places, keeps, members))
                wanted += [
                    (ref, kind, first, place, place == places[-1], keeps, members)
                    for place in places
                ]
                for place in (first, *places):
                    after = self._peers.after(place)
                    keys.append((len(keys), *same, find(place), int(keeps), going_along, after))
        return wanted, keys

    def _members(self, route: RouteMeta) -> frozenset[str]:
        """Those of which one may have it, if there is more than one."""
        plan = self._plans.plan(self._plans.id(route.plan))
        return frozenset() if plan.mode == "one" else frozenset(plan.members)

    def _is_kept(self, route: RouteMeta, meta: InstanceMeta) -> bool:
        """Whether it would be behind a gate."""
        plan = self._plans.id(route.plan)
        if plan is None:
            return False
        return self._gates.key_for(meta, self._destinations.id(route.destination), plan) is not None

    def _places(self, route: RouteMeta, meta: InstanceMeta) -> tuple[str, ...]:
        """Where else one with members may have gone already: to those that no other route
        names."""
        others = {other.destination for other in routes_of(meta)}
        members = dict.fromkeys(self._plans.plan(self._plans.id(route.plan)).members)
        return tuple(
            name
            for name in members
            if name not in others and self._destinations.find(name) is not None
        )


def _chosen(
    wanted: Sequence[_Wanted], indexed: dict[int, tuple[Ref, bool]], same_bytes: SameBytes
) -> dict[tuple[int, str], Earlier]:
    """Of the earlier ones in the index, by the number of what is wanted, and in this batch, the
    first with the same bytes.  No place is taken twice by one instance."""
    found: dict[tuple[int, str], Earlier] = {}
    taken: set[tuple[int, str]] = set()
    in_batch: dict[tuple[object, ...], list[tuple[Ref, bool, frozenset[str]]]] = {}
    compared: dict[tuple[int, int], bool] = {}
    for n, (ref, kind, destination, place, last, keeps, members) in enumerate(wanted):
        if place != destination and (ref.id, destination) in found:
            continue
        content = (*kind, ref.length, ref.crc)
        before = next(
            (
                (earlier, True)
                for earlier, kept, others in in_batch.get((place, *content), ())
                if (keeps or not kept) and members <= others
            ),
            None,
        )
        for candidate in (indexed.get(n), before):
            if candidate is None or (ref.id, place) in taken:
                continue
            earlier, waits = candidate
            pair = (ref.id, earlier.id)
            if pair not in compared:
                compared[pair] = same_bytes(ref, earlier)
            if compared[pair]:
                found[ref.id, destination] = (earlier.id, waits, place)
                taken.add((ref.id, place))
                break
        else:
            if last:
                going = in_batch.setdefault((destination, *content), [])
                # The first of its kind is the one that is compared.
                if not any((kept, others) == (keeps, members) for _, kept, others in going):
                    going.append((ref, keeps, members))
    return found


def _kind(meta: InstanceMeta) -> _Kind:
    """What must be equal beside the bytes, which mean something else in another syntax."""
    return (
        clean(meta.sop_instance_uid),
        clean(meta.sop_class_uid),
        clean(meta.transfer_syntax_uid),
    )


def _literal(states: Sequence[DeliveryState]) -> str:
    return ", ".join(str(int(state)) for state in states)


_CANDIDATES = f"""
WITH wanted(
    n, study_order, sop_key, crc, length, uid, class, syntax, destination, keeps, going_along,
    after_id
)
    AS (VALUES {{values}})
SELECT json_group_array(json_array(
    n, f.state, i.id, i.generation, i.offset, i.data_offset, i.length, i.crc, i.large
))
FROM (
    SELECT n, destination, (
        SELECT e.id
        FROM instance AS e INDEXED BY instance_sop
        CROSS JOIN context AS c ON c.id = e.context_id
        CROSS JOIN delivery AS d
        WHERE e.study_order = wanted.study_order AND e.sop_key = wanted.sop_key
            AND e.crc = wanted.crc AND e.length = wanted.length AND e.sop_instance_uid = wanted.uid
            AND c.sop_class_uid = wanted.class AND c.transfer_syntax_uid = wanted.syntax
            AND d.instance_id = e.id AND d.destination_id = wanted.destination
            AND d.state IN ({_literal(_SUPPRESSING)})
            AND (e.id > wanted.after_id OR d.state NOT IN ({_AT_PEER}))
            AND (wanted.keeps OR d.gate_id IS NULL)
            AND (
                wanted.going_along IS NULL OR d.state <> {int(DeliveryState.READY)}
                OR d.plan_id IN (SELECT value FROM json_each(wanted.going_along))
            )
        ORDER BY e.id LIMIT 1
    ) AS earlier
    FROM wanted
)
CROSS JOIN instance AS i ON i.id = earlier
CROSS JOIN delivery AS f ON f.instance_id = earlier AND f.destination_id = destination
"""
_CANDIDATES_WAITING = _CANDIDATES.replace(_literal(_SUPPRESSING), _literal(_WAITING))
