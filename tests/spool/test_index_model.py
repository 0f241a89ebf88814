"""Whatever is done in whatever order, the index agrees with a dictionary and adds up."""

import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from router.spool.index import DeliveryState, Disposition, Filter, Index
from router.spool.index_types import OPEN_STATES
from tests.spool.index_samples import (
    DEAD,
    DELIVERED,
    DROPPED,
    DUPLICATE,
    HELD,
    READY,
    T0,
    add,
    meta,
    outcome,
    ref,
)

_DESTINATIONS = ("pacs", "vna", "tele")
_STUDIES = ("1.1", "1.2", "")
_SUPPRESSING = (READY, HELD, DELIVERED)
_destination = st.sampled_from(_DESTINATIONS)


class _Modelled:
    """One instance of the model."""

    def __init__(self, uid: str, study: str, disposition: Disposition) -> None:
        self.uid = uid
        self.study = study
        self.disposition = disposition
        self.fates: dict[str, DeliveryState] = {}
        self.due: dict[str, float] = {}
        self.repeats: dict[str, int] = {}


class IndexMachine(RuleBasedStateMachine):
    """Instances with one UID have the same bytes: duplicates come often."""

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "index.db"
        self.index = Index.open(self.path)
        self.now = T0
        self.last = 0
        self.model: dict[int, _Modelled] = {}
        self.gone: Counter[tuple[str, DeliveryState]] = Counter()
        self.gone_instances: Counter[Disposition] = Counter()

    def teardown(self) -> None:
        if hasattr(self, "index"):
            self.index.close()
            self.directory.cleanup()

    def _settled(self, one: _Modelled) -> bool:
        """Nothing of it waits, nor anything that it would stand in for."""
        if one.disposition in (Disposition.HELD, Disposition.QUARANTINED):
            return False
        if any(fate in OPEN_STATES for fate in one.fates.values()):
            return False
        return not any(
            fate is DUPLICATE
            and one.repeats[name] in self.model
            and self.model[one.repeats[name]].fates[name] in OPEN_STATES
            for name, fate in one.fates.items()
        )

    def _end(self, number: int, name: str, fate: DeliveryState, *, with_repeats: bool) -> int:
        """A delivery has a fate, and so have those that repeat it; how many were dropped."""
        one = self.model[number]
        waited = one.fates[name] in (READY, HELD)
        one.fates[name] = fate
        one.due.pop(name, None)
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
        for place, (_, other) in enumerate(repeating):
            if place:
                other.repeats[name] = repeating[0][0]
            else:
                other.fates[name] = READY
        return 0

    @rule(
        new=st.lists(
            st.tuples(
                st.integers(1, 4),
                st.sampled_from(_STUDIES),
                st.sets(_destination),
                st.sampled_from(["hold", "discard"]),
                st.integers(0, 1),
            ),
            min_size=1,
            max_size=6,
        ),
        again=st.booleans(),
    )
    def add(self, new: list[tuple[int, str, set[str], str, int]], again: bool) -> None:
        entries = []
        ready: Counter[str] = Counter()
        for number, study, destinations, otherwise, priority in new:
            self.last += 1
            uid = f"1.9{study}.{number}"  # a UID belongs to one study
            routes = sorted(destinations)
            disposition = "" if routes else otherwise
            entries.append(
                (
                    ref(self.last, crc=number),
                    meta(
                        self.last,
                        *routes,
                        uid=uid,
                        study=study,
                        disposition=disposition,
                        priority=priority,
                    ),
                )
            )
            kind = Disposition.HELD if otherwise == "hold" else Disposition.DISCARDED
            one = _Modelled(uid, study, Disposition.ROUTED if routes else kind)
            for name in routes:
                earlier = [
                    n
                    for n, other in self.model.items()
                    if other.uid == uid and other.fates.get(name) in _SUPPRESSING
                ]
                repeated = bool(earlier)
                if earlier:
                    one.repeats[name] = earlier[0]
                one.fates[name] = DUPLICATE if repeated else READY
                ready[name] += not repeated
            self.model[self.last] = one
        if again and self.last - len(new) in self.model:
            old = self.last - len(new)
            entries.insert(0, (ref(old), meta(old, "pacs", uid="9.9")))
        result = add(self.index, *entries)
        assert result.deliveries == {name: n for name, n in ready.items() if n}
        assert result.added == len(new)

    def _waiting(self, destination: str) -> set[int]:
        return {
            number
            for number, one in self.model.items()
            if one.fates.get(destination) is READY
            and one.due.get(destination, self.now) <= self.now
        }

    @rule(
        destination=_destination,
        limit=st.integers(1, 5),
        fate=st.sampled_from([DELIVERED, DEAD, DROPPED, READY]),
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
            if fate is READY and when is not None:
                self.model[number].due[destination] = when

    @rule(number=st.integers(1, 30), destination=_destination)
    def settle_anything(self, number: int, destination: str) -> None:
        one = self.model.get(number)
        fate = one.fates.get(destination) if one else None
        settled = self.index.settle([outcome(number, destination, DELIVERED, at=self.now)])
        assert bool(settled.unknown) == (fate is None)
        assert bool(settled.repeated) == (fate in (DELIVERED, DUPLICATE))
        if one and settled.applied:
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
        study=st.none() | st.sampled_from(_STUDIES),
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
        assert changed.count == len(held)

    @rule(limit=st.integers(1, 10), oldest_first=st.booleans())
    def purge(self, limit: int, oldest_first: bool) -> None:
        before = {number for number, one in self.model.items() if self._settled(one)}
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

    @invariant()
    def adds_up(self) -> None:
        if not hasattr(self, "index"):
            return
        account = self.index.account(audit=True)
        assert account.differences == {}
        assert account.received == self.last
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
            ) == tuple(fates[name, fate] for fate in DeliveryState)


TestIndex = IndexMachine.TestCase
TestIndex.settings = settings(max_examples=60, stateful_step_count=30, deadline=None, database=None)
