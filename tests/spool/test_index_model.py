"""Whatever is done in whatever order, the index agrees with a dictionary and adds up."""

import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from router.spool.index import DeliveryState, Disposition, Filter, Index
from router.spool.index_check import disagreement
from router.spool.index_commitments import Refusal
from router.spool.index_types import OPEN_STATES
from router.spool.plan import Plan
from router.spool.record import InstanceMeta, Ref
from tests.spool.index_model import (
    DESTINATION_NAMES,
    DESTINATIONS,
    GATED_BYTES,
    PLANS,
    ROUTES,
    STUDIES,
    SUPPRESSING,
    WHERE,
    GateKey,
    Modelled,
    settled,
)
from tests.spool.index_samples import (
    DEAD,
    DELIVERED,
    DROPPED,
    DUPLICATE,
    HELD,
    READY,
    T0,
    UNCOMMITTED,
    add,
    meta,
    outcome,
    ref,
)

_destination = st.sampled_from(DESTINATIONS)
_excluded = st.just(set[int]()) | st.sets(st.integers(1, 20), max_size=3)


class IndexMachine(RuleBasedStateMachine):
    """Instances with one UID have the same bytes: duplicates come often."""

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "index.db"
        self.index = Index.open(self.path)
        self.now = T0
        self.last = 0
        self.received = 0
        self.shut: set[GateKey] = set()
        self.night_shut = False
        self.model: dict[int, Modelled] = {}
        self.asked: list[tuple[str, str]] = []
        self.asks = 0
        self.gone: Counter[tuple[str, DeliveryState]] = Counter()
        self.gone_instances: Counter[Disposition] = Counter()

    def teardown(self) -> None:
        if hasattr(self, "index"):
            self.index.close()
            self.directory.cleanup()

    def _end(self, number: int, name: str, fate: DeliveryState, *, with_repeats: bool) -> int:
        """A delivery has a fate, and so have those that repeat it; how many were dropped."""
        one = self.model[number]
        waited = one.fates[name] in (READY, HELD, UNCOMMITTED)
        was, one.fates[name] = one.fates[name], fate
        one.due.pop(name, None)
        one.asked.pop(name, None)
        if fate is READY:
            self._place(number, name, new=was is not READY)
        else:
            one.gates.pop(name, None)
        if not waited or fate not in (DEAD, DROPPED):
            return 0
        repeating = [
            (n, other)
            for n, other in self.model.items()
            if other.fates.get(name) is DUPLICATE and other.repeats[name] == number
        ]
        if with_repeats:
            for _, other in repeating:
                other.fates[name] = DROPPED
            return len(repeating)
        self._revive(name, [n for n, _ in repeating])
        return 0

    def _revive(self, name: str, numbers: list[int]) -> None:
        """What these repeat is not coming: the first goes, the others repeat it."""
        for place, number in enumerate(numbers):
            if place:
                self.model[number].repeats[name] = numbers[0]
            else:
                self.model[number].fates[name] = READY
                del self.model[number].repeats[name]
                self._place(number, name, new=True)

    def _place(self, number: int, name: str, *, new: bool) -> None:
        """It is READY: behind a gate?"""
        one = self.model[number]
        if name in one.gates:
            return
        gate = one.complete_gate(name)
        places = (name, *one.plans.get(name, Plan()).members)
        incomplete = gate and any((place, *gate[1:]) in self.shut for place in places)
        if not new or not incomplete:
            gate = one.schedule_gate(name)
            if not new and not self.night_shut:
                gate = None
        if gate is not None:
            self._behind(number, name, gate)

    def _behind(self, number: int, name: str, gate: GateKey) -> None:
        self.shut.add(gate)
        self.model[number].gates[name] = gate
        self.model[number].due.pop(name, None)

    @rule(
        new=st.lists(
            st.tuples(
                st.integers(1, 2),
                st.sampled_from(STUDIES),
                st.sampled_from(ROUTES),
                st.sampled_from(["hold", "discard"]),
                st.integers(0, 1),
                st.sampled_from(PLANS),
            ),
            min_size=2,
            max_size=8,
        ),
        again=st.booleans(),
    )
    def add(self, new: list[tuple[int, str, tuple[str, ...], str, int, Plan]], again: bool) -> None:
        entries = []
        for number, study, destinations, otherwise, priority, plan in new:
            self.last += 1
            routes = sorted(destinations)
            what = meta(
                self.last,
                *routes,
                uid=f"1.9{study}.{number}",  # a UID belongs to one study
                study=study,
                disposition="" if routes else otherwise,
                priority=priority,
                plan=plan,
            )
            entries.append((ref(self.last, crc=number), what))
        ready, gated = self._add_to_model(entries)
        if again and self.last - len(new) in self.model:
            old = self.last - len(new)
            entries.insert(0, (ref(old), meta(old, "pacs", uid="9.9")))
        result = add(self.index, *entries)
        assert (result.deliveries, result.gated) == (ready, gated)
        assert result.added == len(new)

    def _add_to_model(
        self, entries: list[tuple[Ref, InstanceMeta]]
    ) -> tuple[dict[str, int], dict[str, int]]:
        """What is due, and what is behind gates, by destination."""
        ready: Counter[str] = Counter()
        gated: Counter[str] = Counter()
        for entry in entries:
            one = Modelled(entry)
            number = one.ref.id
            self.received += 1
            names = [route.destination for route in one.meta.routes]
            for route in one.meta.routes:
                plan = Plan.from_text(route.plan)
                places = [route.destination, *(m for m in plan.members if m not in names)]
                one.plans[route.destination] = plan
                kept = one.complete_gate(route.destination) or plan.schedule
                del one.plans[route.destination]
                found = [
                    (place, n)
                    for place in dict.fromkeys(places)
                    for n, other in self.model.items()
                    if other.uid == one.uid
                    and other.fates.get(place) in SUPPRESSING
                    and (kept or place not in other.gates)
                    and (
                        other.fates[place] is not READY
                        or _goes_along(plan, other.plans.get(place, Plan()))
                    )
                    and place not in one.fates
                ]
                if found:
                    name, earlier = found[0]
                    one.fates[name], one.repeats[name] = DUPLICATE, earlier
                    one.plans[name] = plan
                    continue
                name = route.destination
                one.fates[name], one.plans[name] = READY, plan
                self.model[number] = one
                gate = one.complete_gate(name) or one.schedule_gate(name)
                if gate is not None:
                    self._behind(number, name, gate)
                (ready if gate is None else gated)[name] += 1
            self.model[number] = one
        return dict(ready), dict(gated)

    @rule()
    def lose(self) -> None:
        """The index is made anew from what the spool has."""
        self.index.close()
        for file in Path(self.directory.name).iterdir():
            file.unlink()
        entries = [(o.ref, InstanceMeta.from_bytes(o.meta.to_bytes())) for o in self.model.values()]
        self.model.clear()
        self.gone.clear()
        self.gone_instances.clear()
        self.asked.clear()
        self.shut.clear()
        self.received, self.night_shut = 0, False
        ready, gated = self._add_to_model(entries)
        self.index = Index.open(self.path)
        if entries:
            result = add(self.index, *entries)
            assert (result.deliveries, result.gated) == (ready, gated)
        self.last = self.index.last_id()

    @precondition(lambda self: self.shut)
    @rule(which=st.integers(0, 20), limit=st.sampled_from([1, 2, 100]))
    def open_gate(self, which: int, limit: int) -> None:
        gates = self.index.gates()
        gate = gates[which % len(gates)]
        key = (gate.destination, gate.kind, gate.key, gate.plan)
        if gate.kind == "schedule":
            self.night_shut = False
        behind = [n for n, one in self.model.items() if one.gates.get(key[0]) == key]
        moved = self.index.open_gate(gate.id, limit)
        through = {gate.destination: n} if (n := len(behind[:limit])) else {}
        onward = gate.kind != "schedule" and bool(gate.plan.schedule)
        assert (moved.gated if onward else moved.ready) == through
        assert (moved.ready if onward else moved.gated) == {}
        assert moved.more == (len(behind) > limit)
        if not moved.more:
            self.shut.discard(key)
        for number in behind[:limit]:
            one = self.model[number]
            del one.gates[gate.destination]
            if onward:
                self._behind(number, key[0], (key[0], "schedule", gate.plan.schedule, gate.plan))

    @rule(
        destination=st.none() | _destination,
        exclude=_excluded,
        limit=st.sampled_from([1, 100]),
    )
    def shut_gate(self, destination: str | None, exclude: set[int], limit: int) -> None:
        self.night_shut = True
        expected: Counter[str] = Counter()
        for number, one in self.model.items():
            for name, fate in one.fates.items():
                gate = one.schedule_gate(name)
                if (
                    gate is not None
                    and fate is READY
                    and name not in one.gates
                    and destination in (None, name)
                    and number not in exclude
                ):
                    self._behind(number, name, gate)
                    expected[name] += 1
        found: Counter[str] = Counter()
        while True:
            moved = self.index.shut_gate(destination, "night", exclude, limit)
            found.update(moved.gated)
            assert sum(moved.gated.values()) <= limit
            assert moved.ready == {}
            if not moved.more:
                break
        assert found == expected

    @rule(
        destination=_destination,
        down=st.sampled_from(ROUTES),
        exclude=_excluded,
        limit=st.sampled_from([1, 2, 100]),
    )
    def divert(
        self, destination: str, down: tuple[str, ...], exclude: set[int], limit: int
    ) -> None:
        up = {name for name in DESTINATIONS if name not in down}
        while self._divert_in_model(destination, up, exclude):
            pass
        while True:
            moved = self.index.divert(destination, up, exclude, self.now, limit)
            if not moved.more and not moved.ready and not moved.gated:
                break

    def _divert_in_model(self, destination: str, up: set[str], exclude: set[int]) -> bool:
        """Whether one moved."""
        for number, one in self.model.items():
            if one.fates.get(destination) is not READY or number in exclude:
                continue
            target = one.better(destination, up)
            if target is None:
                continue
            gate = one.gates.pop(destination, None)
            one.move(destination, target)
            if gate is not None:
                self._behind(number, target, (target, *gate[1:]))
                if not any(other.gates.get(destination) == gate for other in self.model.values()):
                    self.shut.discard(gate)
            left = []
            for n, other in self.model.items():
                if (
                    other.fates.get(destination) is DUPLICATE
                    and other.repeats[destination] == number
                ):
                    plan = other.plans.get(destination, Plan())
                    if target in plan.members and target not in other.fates:
                        other.move(destination, target)
                    else:
                        left.append(n)
            self._revive(destination, left)
            return True
        return False

    @rule(destination=st.none() | _destination, study=st.none() | st.sampled_from(STUDIES))
    def hasten(self, destination: str | None, study: str | None) -> None:
        changed = self.index.hasten(Filter(destination=destination, study=study), at=self.now)
        count = 0
        for one in self.model.values():
            if study is not None and (one.study != study or not study):
                continue
            for name in [n for n in one.gates if destination in (None, n)]:
                del one.gates[name]
                one.plans[name] = one.plans[name].hastened()
                count += 1
        assert changed.count == count

    def _waiting(self, destination: str) -> set[int]:
        return {
            number
            for number, one in self.model.items()
            if one.fates.get(destination) is READY
            and one.due.get(destination, self.now) <= self.now
            and destination not in one.gates
        }

    @rule(
        destination=_destination,
        limit=st.integers(1, 5),
        fate=st.sampled_from([DELIVERED, DEAD, DROPPED, READY, UNCOMMITTED]),
        delay=st.sampled_from([None, 10.0, 1000.0]),
    )
    def send(self, destination: str, limit: int, fate: DeliveryState, delay: float | None) -> None:
        due = self._waiting(destination)
        found = [w.ref.id for w in self.index.lease(destination, limit, self.now, [])]
        assert len(found) == min(limit, len(due))
        assert set(found) <= due
        when = None if delay is None else self.now + delay
        outcomes = [outcome(n, destination, fate, at=self.now, due_at=when) for n in found]
        assert self.index.settle(outcomes).applied == len(found)
        for number in found:
            self._end(number, destination, fate, with_repeats=False)
            if fate is READY and when is not None and destination not in self.model[number].gates:
                self.model[number].due[destination] = when

    @rule(number=st.integers(1, 30), destination=_destination)
    def settle_anything(self, number: int, destination: str) -> None:
        one = self.model.get(number)
        fate = one.fates.get(destination) if one else None
        settled = self.index.settle([outcome(number, destination, DELIVERED, at=self.now)])
        assert bool(settled.unknown) == (fate is None)
        assert bool(settled.repeated) == (fate in (DELIVERED, DUPLICATE, UNCOMMITTED))
        if one and settled.applied:
            self._end(number, destination, DELIVERED, with_repeats=False)

    @rule(destination=_destination, limit=st.integers(1, 5))
    def ask(self, destination: str, limit: int) -> None:
        """Of what was taken and not asked for yet, the first."""
        self.asks += 1
        uid = f"2.25.{self.asks}"
        unasked = [
            number
            for number, one in self.model.items()
            if one.fates.get(destination) is UNCOMMITTED and destination not in one.asked
        ]
        found = self.index.commitments.ask(destination, uid, limit, self.now, self.now + 60)
        assert (found is None) == (not unasked)
        for number in sorted(unasked)[:limit]:
            self.model[number].asked[destination] = uid
        if found is not None:
            self.asked.append((uid, destination))
            uids = {self.model[number].uid for number in sorted(unasked)[:limit]}
            assert {reference.sop_instance_uid for reference in found.references} == uids

    @precondition(lambda self: self.asked)
    @rule(which=st.integers(0, 20), fate=st.sampled_from([DELIVERED, READY, DEAD]))
    def answer(self, which: int, fate: DeliveryState) -> None:
        """About all but the last of a transaction, which is left out."""
        uid, destination = self.asked[which % len(self.asked)]
        members = [n for n, one in self.model.items() if one.asked.get(destination) == uid]
        named = {self.model[number].uid for number in sorted(members)[:-1]}
        if len(members) == 1:
            named = {self.model[members[0]].uid}
        refusal = Refusal("no", again=fate is READY)
        done = self.index.commitments.answer(
            uid,
            named if fate is DELIVERED else (),
            {} if fate is DELIVERED else dict.fromkeys(named, refusal),
            at=self.now,
            most={destination: 1000},
            words="committed",
        )
        ended = [number for number in sorted(members) if self.model[number].uid in named]
        counted = {DELIVERED: done.committed, READY: done.resent, DEAD: done.dead}
        assert counted[fate] == len(ended) == sum(counted.values())
        assert done.left == len(members) - len(ended)
        for number in ended:
            self._end(number, destination, fate, with_repeats=False)

    @rule(destination=_destination)
    def accept(self, destination: str) -> None:
        taken = [n for n, o in self.model.items() if o.fates.get(destination) is UNCOMMITTED]
        assert self.index.commitments.accept(destination, "so be it", self.now, 1000) == len(taken)
        for number in taken:
            self._end(number, destination, DELIVERED, with_repeats=False)

    @rule(number=st.integers(1, 30), destination=_destination)
    def drop_one(self, number: int, destination: str) -> None:
        which = Filter(ids=(number,), destination=destination)
        changed = self.index.drop(which, "because", at=self.now)
        one = self.model.get(number)
        dropped = one is not None and one.fates.get(destination) in OPEN_STATES
        assert changed.count == dropped
        if dropped:
            self._end(number, destination, DROPPED, with_repeats=False)

    @rule(
        action=st.sampled_from(["retry", "drop", "hold", "release"]),
        destination=st.none() | _destination,
        study=st.none() | st.sampled_from(STUDIES),
    )
    def act(self, action: str, destination: str | None, study: str | None) -> None:
        which = Filter(destination=destination, study=study)
        if action == "drop":
            changed = self.index.drop(which, "because", at=self.now)
        else:
            changed = getattr(self.index, action)(which, at=self.now)
        count = 0
        for number, one in self.model.items():
            if study is not None and (one.study != study or not study):
                continue
            for name, fate in one.fates.items():
                if destination not in (None, name):
                    continue
                to = {
                    "retry": READY
                    if fate is DEAD or one.due.get(name, self.now) > self.now
                    else None,
                    "drop": DROPPED if fate in OPEN_STATES else None,
                    "hold": HELD if fate is READY else None,
                    "release": READY if fate is HELD else None,
                }[action]
                if to is not None:
                    count += 1 + self._end(number, name, to, with_repeats=True)
        assert changed.count == count

    @rule(destinations=st.lists(_destination, min_size=1), route=st.booleans())
    def decide_held(self, destinations: list[str], route: bool) -> None:
        if route:
            changed = self.index.route_held(Filter(), destinations, "by hand", at=self.now)
        else:
            changed = self.index.discard_held(Filter(), "by hand", at=self.now)
        held = [o for o in self.model.values() if o.disposition is Disposition.HELD]
        for one in held:
            one.disposition = Disposition.ROUTED if route else Disposition.DISCARDED
            if route:
                one.fates = dict.fromkeys(destinations, READY)
                one.plans = {}
        assert changed.count == len(held)

    @rule(limit=st.integers(1, 10), oldest_first=st.booleans())
    def purge(self, limit: int, oldest_first: bool) -> None:
        before = {number for number, one in self.model.items() if settled(self.model, one)}
        purged = self.index.purge(self.now + 1e6, limit, oldest_first=oldest_first)
        assert purged.count == min(limit, len(before))
        for number in before:
            if not self.index.known([number]):
                one = self.model.pop(number)
                self.gone_instances[one.disposition] += 1
                self.gone.update((name, fate) for name, fate in one.fates.items())

    @rule(seconds=st.sampled_from([1.0, 20.0, 2000.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.last > 0)
    @rule()
    def reopen(self) -> None:
        self.index.close()
        self.index = Index.open(self.path)
        assert self.index.last_id() == self.last
        self.night_shut = False  # whoever opens it says so again

    @invariant()
    def adds_up(self) -> None:
        if not hasattr(self, "index"):
            return
        account = self.index.account(audit=True)
        assert account.differences == {}
        assert disagreement(self.index._db) == ""
        assert account.received == self.received
        kinds = Counter(one.disposition for one in self.model.values()) + self.gone_instances
        assert (account.routed, account.held, account.discarded) == (
            kinds[Disposition.ROUTED],
            kinds[Disposition.HELD],
            kinds[Disposition.DISCARDED],
        )
        fates = Counter(
            (name, fate) for one in self.model.values() for name, fate in one.fates.items()
        )
        fates += self.gone
        for name, line in account.destinations.items():
            assert (
                line.waiting,
                line.held,
                line.dead,
                line.delivered,
                line.dropped,
                line.duplicate,
                line.uncommitted,
            ) == tuple(fates[name, fate] for fate in DeliveryState)

    @invariant()
    def is_where_it_should_be(self) -> None:
        if not hasattr(self, "index"):
            return
        gates = {
            gate.id: (gate.destination, gate.kind, gate.key, gate.plan)
            for gate in self.index.gates()
        }
        assert set(gates.values()) == self.shut
        names = dict(self.index._db.json(DESTINATION_NAMES))
        found = {
            (number, names[destination]): (state, gates.get(gate), repeated)
            for number, destination, state, gate, repeated in self.index._db.json(WHERE)
        }
        assert found == {
            (number, name): (fate, one.gates.get(name), one.repeats.get(name))
            for number, one in self.model.items()
            for name, fate in one.fates.items()
        }
        behind = Counter(name for one in self.model.values() for name in one.gates)
        assert dict(self.index._db.json(GATED_BYTES)) == {n: 100 * c for n, c in behind.items()}
        for name in DESTINATIONS:
            leased = self.index.lease(name, 1000, self.now, [])
            assert {w.ref.id for w in leased} == self._waiting(name)


def _goes_along(plan: Plan, earlier: Plan) -> bool:
    """Whether one that waits may be wherever a delivery with this plan may be."""
    if plan.mode == "one":
        return True
    return earlier.mode != "one" and set(plan.members) <= set(earlier.members)


TestIndex = IndexMachine.TestCase
TestIndex.settings = settings(max_examples=60, stateful_step_count=30, deadline=None, database=None)
