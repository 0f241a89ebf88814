"""Deliveries that were not decided when their instance came: sent again or elsewhere, redirected,
decided anew.

Owns which deliveries an order adds, and what becomes of the one that each stands in place of.  Must
not know rules, nor who is up.  Each action is done in transactions of a few thousand; what was done
before an error stays done, and counted.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from router.spool.index_added import Additions, New, count_disposition, repeating
from router.spool.index_again import Again, Standing
from router.spool.index_along import Along
from router.spool.index_changes import REPEATS, Changes, DeliveryRow, follow
from router.spool.index_database import (
    clean,
    microseconds,
)
from router.spool.index_duplicates import Earlier, SameBytes
from router.spool.index_events import Action
from router.spool.index_gates import SCHEDULE, Arrivals, GateKey, GateRow, gate_study
from router.spool.index_routes import disposition_of, routes_of
from router.spool.index_select import Key
from router.spool.index_tables import Tables
from router.spool.index_together import Together
from router.spool.index_types import DeliveryState, Disposition, Filter, Rerouted
from router.spool.record import InstanceMeta

_AT_ONCE = 2000
_AGAIN = (
    DeliveryState.DELIVERED,
    DeliveryState.UNCOMMITTED,
    DeliveryState.DROPPED,
    DeliveryState.DEAD,
)
"""What is sent again when it is asked for; anything else is on its way, or kept back on purpose."""
_AT_HAND = (DeliveryState.DELIVERED, DeliveryState.UNCOMMITTED)
_UNDONE = (DeliveryState.DROPPED, DeliveryState.DEAD)
"""What a redirected delivery does not find at its new destination."""


class Reroute:
    """Behind `Index.resend`, `redirect` and `route_anew`."""

    def __init__(self, tables: Tables) -> None:
        self._db = tables.db
        self._destinations = tables.destinations
        self._rules = tables.rules
        self._plans = tables.plans
        self._gates = tables.gates
        self._select = tables.select
        self._queues = tables.queues
        self._peers = tables.peers
        self._repeated = Again(tables)
        self._along = Along(tables)
        self._add = Additions(tables)
        self._together = Together(tables.db, tables.destinations)

    # -- once more, or somewhere else

    def resend(
        self,
        which: Filter,
        names: Sequence[str],
        rule: str,
        at: float,
        who: str,
        step: tuple[int, int],
        same_bytes: SameBytes | None,
    ) -> Rerouted:
        """See `Index.resend`; ``step`` is after which instance, and up to which."""
        names = list(dict.fromkeys(names))
        if not names:
            raise ValueError("no destination to send to")
        self._destinations.ensure(names)
        self._rules.ensure([rule])
        numbers = [self._destinations.id(name) for name in names]
        action = Action(self._db, "resend", which, at, who, {"to": ", ".join(names)})
        after, until = step
        found = self._select.instances(which, _AT_ONCE, after)
        ids = [number for number in found if number <= until]
        if not ids:
            return Rerouted()
        keys = [(instance, number) for instance in ids for number in numbers]
        there = self._queues.rows(keys)
        alone = self._repeated.alone(keys, ids)
        again = {key for key, row in there.items() if row.state in _AGAIN} | alone.keys()
        going = [key for key in keys if key not in there or key in again]
        standing = self._repeated.standing(
            [(*key, None) for key in going], same_bytes, delivered=False
        )
        ids = [number for number in ids if standing.goes(number)]
        changes, new, left = Changes(), [], 0
        rule_id = self._rules.id(rule)
        firsts: dict[Key, int] | None = None if same_bytes is None else {}
        instances = self._add.instances(ids)
        for instance, length, _, study_order in instances:
            for name, number in zip(names, numbers, strict=True):
                row, repeats = there.get((instance, number)), standing.by.get((instance, name))
                if row is None:
                    one = New(instance, length, number, 0, study_order, rule_id, repeats=repeats)
                    new.append(one)
                    left += repeats is not None
                elif (instance, number) not in again:
                    left += 1
                elif self._goes_alone(changes, row, alone, firsts, action.at):
                    self._again(changes, row, action.at)
                else:
                    left += 1
        self._keep_repeats(changes, action.at)
        touched = {one.instance_id for one in new} | {row.instance_id for row in changes.rows}
        going_now = [one.length for one in new if one.repeats is None]
        going_now += [row.length for row in changes.rows]
        with self._db.transaction():
            self._add.as_routed(changes, instances, {one.instance_id for one in new})
            self._add.insert(changes, new, action.at)
            changes.write(self._db)
            if touched:
                action.record(sorted(touched), len(going_now))
        more = standing.cut is not None or (len(found) == _AT_ONCE and ids[-1] < until)
        return Rerouted(len(going_now), sum(going_now), left=left, more=more, after=ids[-1])

    @staticmethod
    def _goes_alone(
        changes: Changes,
        row: DeliveryRow,
        alone: Mapping[Key, tuple[int, bool]],
        firsts: dict[Key, int] | None,
        at: int,
    ) -> bool:
        """Whether it goes itself.  Of several that repeat the same one the first does, for which
        the others wait: ``firsts`` are those; None where each is sent."""
        key = (row.instance_id, row.destination_id)
        if key not in alone:
            return True
        earlier, settled = alone[key]
        if settled:
            changes.keep(row.instance_id, at=at)
        first = row.instance_id
        if firsts is not None:
            first = firsts.setdefault((earlier, row.destination_id), first)
        changes.repeat(row, None if first == row.instance_id else first)
        return first == row.instance_id

    def _again(self, changes: Changes, row: DeliveryRow, at: int) -> None:
        """As if it were new, and without anything to wait for: somebody wants it there now."""
        changes.note(row)
        if row.plan_id is not None:
            text = self._plans.hastened(row.plan_id)
            self._plans.ensure([text])
            row.plan_id = self._plans.id(text)
        row.due_at = row.status = None
        row.reason = "sent again by an operator"
        row.attempts = 0
        changes.move(row, DeliveryState.READY, at=at)

    def _keep_repeats(self, changes: Changes, at: int) -> None:
        """What repeats one that was delivered, and waits once more, is kept with it."""
        delivered = [
            (row.instance_id, row.destination_id)
            for row in changes.rows
            if changes.before(row) is DeliveryState.DELIVERED
        ]
        for _, instance, *_rest in self._db.json_rows(REPEATS, delivered):
            changes.keep(instance, at=at)

    # -- what waits for one goes to another

    def redirect(
        self,
        which: Filter,
        target: str,
        reason: str,
        step: tuple[Collection[int], Key | None],
        at: float,
        who: str,
        same_bytes: SameBytes | None,
    ) -> Rerouted:
        """See `Index.redirect`; ``step`` is without which instances, and after which delivery."""
        origin = self._destinations.find(which.destination or "")
        if origin is None or which.destination == target:
            return Rerouted()
        self._destinations.ensure([target])
        number = self._destinations.id(target)
        states = (DeliveryState.READY,) if which.state is None else (which.state,)
        if states[0] not in (DeliveryState.READY, DeliveryState.HELD, DeliveryState.DEAD):
            raise ValueError(f"{states[0]!r} is not a state of what waits")
        action = Action(self._db, "redirect", which, at, who, {"to": target, "because": reason})
        excluded, after = set(step[0]), step[1]
        keys = self._select.deliveries(which, states, _AT_ONCE, after)
        more = len(keys) == _AT_ONCE
        rows = list(self._queues.rows([key for key in keys if key[0] not in excluded]).values())
        there = self._queues.rows([(row.instance_id, number) for row in rows])
        going = {key for key, row in there.items() if self._is_undone(row)}
        past = self._repeated.had_by_another(there.values(), target)
        # What repeats one that goes itself is kept as it is, with that one.
        going |= {key for key, one in past.items() if (one, number) not in going}
        undone = [row for key, row in there.items() if key in going]
        new, standing = self._unless_there(
            self._moved(rows, there, origin, number), undone, same_bytes
        )
        if standing.cut is not None:
            more, keys = True, [key for key in keys if standing.goes(key[0])]
            rows = [row for row in rows if standing.goes(row.instance_id)]
        last = keys[-1] if keys else after
        left = sum(key[0] in excluded for key in keys)
        why = f"redirected to {target}" + (f": {reason}" if reason else "")
        changes = Changes()
        for row in rows:
            changes.note(row)
            found = there.get((row.instance_id, number))
            if found is not None:
                if (row.instance_id, number) in going:
                    if found.state is DeliveryState.DUPLICATE:
                        changes.keep(row.instance_id, at=action.at)
                        changes.repeat(found, None)
                    self._again(changes, found, action.at)
                self._stay(changes, found, action.at)
            row.due_at, row.reason = None, clean(why)
            changes.move(row, DeliveryState.DROPPED, at=action.at)
        self._keep_repeats(changes, action.at)
        # The same bytes go to the other one: what repeats them here is not to go in their place,
        # but there, should they not.
        followed = follow(self._db, changes, lambda ids: {(i, origin) for i in ids})
        stands = self._along.stands(number, there, new)
        new += self._along.go(changes, followed, number, stands, action.at)
        with self._db.transaction():
            self._add.insert(changes, new, action.at)
            changes.write(self._db)
            if rows:
                ids = [row.instance_id for row in (*rows, *followed.dropped)]
                action.record(ids, len(rows))
        size = sum(row.length for row in rows)
        gated = sum(one.gate is not None for one in new)
        return Rerouted(len(rows), size, left=left, more=more, gated=gated, cursor=last)

    def _unless_there(
        self,
        new: Sequence[New],
        undone: Iterable[DeliveryRow],
        same_bytes: SameBytes | None,
    ) -> tuple[list[New], Standing]:
        """Those of this step, each with what stands for it at its destination; ``undone`` are those
        that are to go there too."""
        wanted = [
            (one.instance_id, one.destination_id, one.plan_id if one.gate is not None else None)
            for one in new
        ]
        wanted += [(row.instance_id, row.destination_id, None) for row in undone]
        standing = self._repeated.standing(wanted, same_bytes, delivered=True)
        found = []
        for one in new:
            if standing.goes(one.instance_id):
                name = self._destinations.name(one.destination_id)
                repeats = standing.by.get((one.instance_id, name))
                found.append(one if repeats is None else repeating(one, repeats))
        return found, standing

    def _is_undone(self, found: DeliveryRow) -> bool:
        """Whether the destination of a delivery does not have the instance, nor will by itself."""
        if found.state is not DeliveryState.DELIVERED:
            return found.state in _UNDONE
        name = self._destinations.name(found.destination_id)
        return found.instance_id <= self._peers.after(name)  # that had it was another peer

    def _moved(
        self,
        rows: Sequence[DeliveryRow],
        there: dict[tuple[int, int | None], DeliveryRow],
        origin: int,
        target: int,
    ) -> list[New]:
        """Those that the target gets: of what it has none of."""
        wanted = [row for row in rows if (row.instance_id, target) not in there]
        plans = {row.plan_id: self._plans.alone(row.plan_id) for row in wanted}
        self._plans.ensure(plans.values())
        gates = self._gates.rows({row.gate_id for row in wanted if row.gate_id is not None})
        details = {
            instance: rest
            for instance, *rest in self._db.json_rows(
                _DETAILS, [(row.instance_id, origin) for row in wanted]
            )
        }
        reason = f"in place of {self._destinations.name(origin)}"
        new = []
        for row in wanted:
            plan_id = self._plans.id(plans[row.plan_id])
            received, priority, study_order, rule_id = details[row.instance_id]
            gate, arrivals = self._gate(row, gates, target, plan_id, received)
            new.append(
                New(
                    *(row.instance_id, row.length, target, priority, study_order, rule_id),
                    *(plan_id, gate, arrivals, reason),
                )
            )
        return new

    def _stay(self, changes: Changes, row: DeliveryRow, at: int) -> None:
        """What waits at the new destination already is there for both, and goes nowhere else."""
        plan_id = row.plan_id
        if row.state in _AT_HAND or plan_id is None or not self._plans.plan(plan_id).members:
            return
        changes.note(row)
        text = self._plans.alone(plan_id)
        self._plans.ensure([text])
        row.plan_id = self._plans.id(text)
        changes.move(row, row.state, at=at)

    def _gate(
        self,
        row: DeliveryRow,
        gates: dict[int, GateRow],
        target: int,
        plan_id: int | None,
        received: int,
    ) -> tuple[GateKey | None, Arrivals | None]:
        """One like that which it was behind; that of its schedule where it did not wait at all."""
        if plan_id is None:
            return None, None
        gate = gates.get(row.gate_id) if row.gate_id is not None else None
        if gate is not None:
            key = (target, gate.kind, gate.key, plan_id)
            return key, Arrivals(
                gate.study, gate.first_at, gate.last_at, 1, gate.supplement, gate.earlier
            )
        schedule = self._plans.plan(plan_id).schedule
        if row.state is not DeliveryState.READY and schedule:
            return (target, SCHEDULE, clean(schedule), plan_id), Arrivals("", received, received)
        return None, None

    # -- decided anew

    def route_anew(
        self,
        decided: Sequence[tuple[int, InstanceMeta]],
        at: float,
        who: str,
        same_bytes: SameBytes | None,
    ) -> Rerouted:
        """See `Index.route_anew`."""
        metas = dict(self._together.placed(decided))
        held = [row for row in self._add.instances(metas) if row[2] == Disposition.HELD]
        kinds = {row[0]: disposition_of(metas[row[0]]) for row in held}
        routed = [row for row in held if kinds[row[0]] is Disposition.ROUTED]
        discarded = [row for row in held if kinds[row[0]] is Disposition.DISCARDED]
        routes = [route for row in routed for route in routes_of(metas[row[0]])]
        self._destinations.ensure(dict.fromkeys(route.destination for route in routes))
        self._rules.ensure(dict.fromkeys(route.rule for route in routes))
        self._plans.ensure({route.plan for route in routes})
        repeats = self._repeated.decided({row[0]: metas[row[0]] for row in routed}, same_bytes)
        new = [one for row in routed for one in self._decided(row, metas[row[0]], repeats)]
        versions = sorted({metas[row[0]].rules_version for row in held})
        action = Action(self._db, "reroute", Filter(), at, who, {"rules": ", ".join(versions)})
        changes = Changes()
        with self._db.transaction():
            self._add.as_routed(changes, routed, {row[0] for row in routed})
            self._add.insert(changes, new, action.at)
            for instance, length, *_ in discarded:
                count_disposition(changes, Disposition.HELD, Disposition.DISCARDED, length)
                reason = clean(metas[instance].reason) or None
                self._db.run(_DISCARD, action.at, reason, instance)
            changes.write(self._db)
            if routed or discarded:
                ids = [row[0] for row in (*routed, *discarded)]
                action.record(ids, len(ids))
        done = [*routed, *discarded]
        return Rerouted(
            len(done),
            sum(row[1] for row in done),
            left=len(metas) - len(done),
            gated=sum(one.gate is not None for one in new),
        )

    def _decided(
        self,
        row: Sequence[int],
        meta: InstanceMeta,
        repeats: Mapping[tuple[int, str], Earlier],
    ) -> Iterable[New]:
        instance, length, _, study_order = row
        at = microseconds(meta.received_at)
        for route in routes_of(meta):
            number = self._destinations.id(route.destination)
            plan_id = self._plans.id(route.plan)
            gate = None if plan_id is None else self._gates.key_for(meta, number, plan_id)
            arrivals = None if gate is None else Arrivals(gate_study(gate, meta), at, at)
            one = New(
                *(instance, length, number, route.priority, study_order),
                *(self._rules.id(route.rule), plan_id, gate, arrivals),
            )
            earlier = repeats.get((instance, route.destination))
            if earlier is not None:  # it may be that of another member of its plan
                one = replace(repeating(one, earlier), destination_id=self._at(earlier))
            yield one

    def _at(self, earlier: Earlier) -> int:
        return self._destinations.id(earlier[2])


_DETAILS = """
WITH wanted(instance_id, destination_id) AS (VALUES {values})
SELECT json_group_array(json_array(
    d.instance_id, i.received_at, d.priority, d.study_order, d.rule_id
))
FROM wanted
CROSS JOIN delivery AS d
    ON d.instance_id = wanted.instance_id AND d.destination_id = wanted.destination_id
CROSS JOIN instance AS i ON i.id = d.instance_id
"""
_DISCARD = f"""
UPDATE instance SET disposition = {int(Disposition.DISCARDED)}, settled_at = ?,
    reason = coalesce(?, reason)
WHERE id = ?
"""
