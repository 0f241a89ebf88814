"""Deliveries that go to another member of their plan, and back."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from router.spool.errors import SpoolError
from router.spool.index import Filter, Index
from router.spool.index_database import Database
from router.spool.index_types import Moved
from router.spool.plan import Plan
from router.spool.record import InstanceMeta, Ref, RouteMeta
from tests.spool.index_samples import (
    DEAD,
    DELIVERED,
    DUPLICATE,
    READY,
    T0,
    add,
    fate,
    fill,
    leased,
    meta,
    outcome,
    places,
    ref,
)
from tests.spool.statements import statements

ALL = ("a", "b", "c")
FAILOVER = Plan(mode="failover", members=ALL)
BALANCE = Plan(mode="balance", members=("a", "c", "b"))
FIRST = Plan(mode="first_available", members=ALL)
STUDY = Plan(mode="failover", members=ALL, after="study-complete")


def _divert(
    index: Index, destination: str, *up: str, exclude: tuple[int, ...] = (), limit: int = 100
) -> Moved:
    return index.divert(destination, set(up), exclude, T0 + 500, limit)


def test_what_waits_goes_to_the_next_that_is_up(index: Index) -> None:
    fill(index, [1, 2], "a", plan=FAILOVER)
    fill(index, [3], "a", plan=BALANCE)
    fill(index, [4], "a")
    index.settle([outcome(1, "a", READY, due_at=T0 + 9000, status=0xA700, reason="full")])
    moved = _divert(index, "a", "b", "c")
    assert (moved.ready, moved.gated, moved.more) == ({"b": 2, "c": 1}, {}, False)
    assert leased(index, "a") == [4]
    assert leased(index, "b", now=T0) == [1, 2]
    assert leased(index, "c", now=T0) == [3]
    one = fate(index, 1, "b")
    assert (one.attempts, one.status, one.reason) == (1, None, "in place of a")
    assert (one.plan, one.updated_at, one.due_at) == (FAILOVER.to_text(), T0 + 500, None)
    accounts = index.account().destinations
    assert (accounts["a"].received, accounts["b"].received, accounts["b"].waiting) == (1, 2, 2)


def test_what_was_delivered_elsewhere_says_in_whose_place(index: Index) -> None:
    fill(index, [1, 2, 3], "a", plan=FAILOVER)
    fill(index, [4], "b", plan=FAILOVER)
    _divert(index, "a", "b")
    index.settle([outcome(1, "b", READY, due_at=T0 + 9000, reason="full; try later")])
    assert fate(index, 1, "b").reason == "in place of a; full; try later"
    index.settle([outcome(1, "b", DELIVERED), outcome(2, "b", DELIVERED, reason="coerced")])
    assert fate(index, 1, "b").reason == "in place of a"
    assert fate(index, 2, "b").reason == "in place of a; coerced"
    index.settle([outcome(3, "b", READY, reason="full"), outcome(4, "b", READY, reason="full")])
    _divert(index, "b", "a")
    assert fate(index, 3, "a").reason == ""
    index.settle([outcome(3, "a", DELIVERED)])
    assert fate(index, 3, "a").reason == ""
    assert fate(index, 4, "a").reason == ""


def test_it_goes_back_when_a_better_one_recovers(index: Index) -> None:
    fill(index, [1], "a", plan=FAILOVER)
    assert _divert(index, "a", "c").ready == {"c": 1}
    assert _divert(index, "c", "b", "c").ready == {"b": 1}
    assert fate(index, 1, "b").reason == "in place of a"
    assert _divert(index, "b", *ALL).ready == {"a": 1}
    assert fate(index, 1, "a").reason == ""
    assert places(index, 1) == {"a": READY}


@pytest.mark.parametrize("plan", [Plan(members=ALL), Plan(mode="failover"), Plan(), FIRST])
def test_it_stays_where_it_may_not_or_need_not_go(index: Index, plan: Plan) -> None:
    fill(index, [1], "b", plan=plan)
    assert _divert(index, "b", *ALL) == Moved()
    assert leased(index, "b") == [1]


def test_first_available_stays_where_it_went(index: Index) -> None:
    fill(index, [1], "a", plan=FIRST)
    assert _divert(index, "a", "b").ready == {"b": 1}
    assert _divert(index, "b", *ALL) == Moved()
    assert _divert(index, "b", "a", "c").ready == {"a": 1}


def test_to_one_that_is_shut_but_for_the_urgent_only_those_go(index: Index) -> None:
    fill(index, [1], "a", plan=FAILOVER)
    fill(index, [2], "a", plan=FAILOVER, priority=10)
    fill(index, [3], "a", plan=FAILOVER, priority=20)

    def moved(*up: str, **urgent: int) -> Moved:
        return index.divert("a", set(up), (), T0 + 500, urgent=urgent)

    assert moved(b=21) == Moved()
    assert moved("a", b=10) == Moved(), "it is up itself"
    assert moved(a=15, b=10).ready == {"b": 1}, "it sends what is as urgent itself"
    assert leased(index, "b") == [2]
    assert moved("c", b=20).ready == {"b": 1, "c": 1}
    assert leased(index, "c") == [1]


def test_those_that_are_not_urgent_are_not_looked_through_for_each_that_is(
    index: Index,
) -> None:
    fill(index, range(1, 1500), "a", plan=FAILOVER)
    fill(index, [2000], "a", plan=FAILOVER, priority=10)
    assert index.divert("a", (), (), T0 + 500, urgent={"b": 10}).ready == {"b": 1}
    fill(index, [2001], "a", plan=FAILOVER, priority=10)
    with statements(index) as examined:
        assert index.divert("a", (), (), T0 + 501, urgent={"b": 10}).ready == {"b": 1}
    assert any("p.instance_id > 2000" in sql for sql in examined)
    assert index.divert("a", {"b"}, (), T0 + 502).ready == {"b": 1499}, "it opened"


def test_without_anybody_it_stays(index: Index) -> None:
    fill(index, [1], "a", plan=FAILOVER)
    for up in ((), ("a",), ("elsewhere",)):
        assert _divert(index, "a", *up) == Moved()
    assert _divert(index, "unknown", "b") == Moved()
    assert leased(index, "a") == [1]


def test_nobody_gets_it_twice(index: Index) -> None:
    add(index, (ref(1), meta(1, "a", "b", plan=FAILOVER)))
    assert _divert(index, "a", "b") == Moved()
    assert _divert(index, "a", "b", "c").ready == {"c": 1}
    assert places(index, 1) == {"b": READY, "c": READY}


def test_one_that_was_delivered_there_already_stays(index: Index) -> None:
    add(index, (ref(1), meta(1, "a", "b", plan=FAILOVER)))
    index.settle([outcome(1, "b", DELIVERED)])
    assert _divert(index, "a", "b") == Moved()
    assert places(index, 1) == {"a": READY, "b": DELIVERED}


def test_what_is_being_sent_or_does_not_wait_stays(index: Index) -> None:
    fill(index, range(1, 6), "a", plan=FAILOVER)
    index.settle([outcome(1, "a", DELIVERED), outcome(2, "a", DEAD)])
    index.hold(Filter(ids=(3,)), at=T0)
    assert _divert(index, "a", "b", exclude=(4,)).ready == {"b": 1}
    assert leased(index, "b") == [5]
    assert leased(index, "a") == [4]


def test_its_age_counts_from_when_it_first_waited(index: Index) -> None:
    fill(index, [1, 2], "a", plan=FAILOVER)
    add(index, (ref(3, crc=1), meta(3, "a", uid="1.2.3.4.1")))
    assert _divert(index, "a", "b").ready == {"b": 2, "a": 1}
    assert index.expire("b", T0 + 1, "too old", (), T0 + 600).count == 0
    expired = index.expire("b", T0 + 1.5, "too old", (), T0 + 600)
    assert (expired.count, expired.oldest) == (1, T0 + 2)
    assert index.expire("a", T0 + 3.5, "too old", (), T0 + 600).count == 1, "not of the diversion"


def test_what_an_operator_tried_again_keeps_its_time_where_it_goes(index: Index) -> None:
    fill(index, [1], "a", plan=FAILOVER)
    index.settle([outcome(1, "a", DEAD)])
    index.retry(Filter(), at=T0 + 400)
    _divert(index, "a", "b")
    assert index.expire("b", T0 + 399, "too old", (), T0 + 600).count == 0
    assert index.expire("b", T0 + 401, "too old", (), T0 + 600).count == 1


def test_one_that_had_its_try_elsewhere_is_no_younger_for_that(index: Index) -> None:
    fill(index, [1], "a", plan=FAILOVER)
    index.settle([outcome(1, "a", READY, due_at=T0 + 9000)])
    assert index.divert("a", {"a", "b"}, (), T0 + 1100, give_way=60.0).ready == {"b": 1}
    assert fate(index, 1, "b").attempts == 0
    assert index.expire("b", T0 + 1, "too old", (), T0 + 1200).count == 0
    assert index.expire("b", T0 + 1.5, "too old", (), T0 + 1200).count == 1


def test_it_is_done_in_steps(index: Index) -> None:
    fill(index, range(1, 4), "a", plan=FAILOVER)
    fill(index, range(4, 7), "a", plan=BALANCE)
    assert _divert(index, "a", "b", limit=2) == Moved({"b": 2}, {}, more=True)
    assert _divert(index, "a", "b", limit=2) == Moved({"b": 2}, {}, more=True)
    assert _divert(index, "a", "b", limit=2) == Moved({"b": 2})
    assert _divert(index, "a", "b", limit=2) == Moved()
    assert leased(index, "b") == [1, 2, 3, 4, 5, 6]


def test_many_that_have_nobody_are_not_looked_through_each_time(index: Index) -> None:
    entries = [(ref(n), meta(n, "a", "b", plan=FAILOVER)) for n in range(1, 1102)]
    add(index, *entries)
    assert _divert(index, "a", "b", exclude=(1,)) == Moved()
    add(index, (ref(2000), meta(2000, "a", plan=FAILOVER)))
    index.drop(Filter(ids=(5,), destination="b"), "", at=T0)  # a row all the same
    with statements(index) as examined:
        assert _divert(index, "a", "b", exclude=(1,)).ready == {"b": 1}
    assert any("p.instance_id > 1101" in sql for sql in examined)
    # Another one that is up is another question, and so is a minute later.
    assert _divert(index, "a", "c", limit=3).ready == {"c": 3}
    assert _divert(index, "a", "b") == Moved()
    moved = index.divert("a", {"c"}, (), T0 + 561, 2000)
    assert moved.ready == {"c": 1098}


def test_what_was_passed_over_is_looked_at_a_minute_later(index: Index) -> None:
    add(index, *((ref(n), meta(n, "a", "b", plan=FAILOVER)) for n in range(2, 1103)))
    add(index, (ref(1), meta(1, "a", plan=FAILOVER)))
    index.hold(Filter(ids=(1,)), at=T0)
    assert _divert(index, "a", "b") == Moved()
    index.release(Filter(), at=T0)
    assert index.divert("a", {"b"}, (), T0 + 559, 100) == Moved()
    assert index.divert("a", {"b"}, (), T0 + 561, 100).ready == {"b": 1}


def test_a_few_that_have_nobody_keep_nothing_waiting(index: Index) -> None:
    fill(index, range(1, 900), "a", plan=FAILOVER)
    assert _divert(index, "a", "b", exclude=tuple(range(1, 900))) == Moved()
    assert _divert(index, "a", "b", limit=2000).ready == {"b": 899}


# -- gates


def test_its_gate_goes_along(index: Index) -> None:
    fill(index, [1, 2, 3], "a", plan=STUDY)
    moved = _divert(index, "a", "b", limit=2)
    assert (moved.ready, moved.gated, moved.more) == ({}, {"b": 2}, True)
    assert sorted((g.destination, g.instances) for g in index.gates()) == [("a", 1), ("b", 2)]
    _divert(index, "a", "b")
    (gate,) = index.gates()
    assert (gate.destination, gate.instances, gate.key) == ("b", 3, "1.2.3")
    assert (gate.first_at, gate.last_at, gate.supplement) == (T0 + 1, T0 + 3, 0)
    assert leased(index, "b", now=T0 + 8e12) == []
    assert index.open_gate(gate.id, 100).ready == {"b": 3}
    assert leased(index, "b") == [1, 2, 3]


def test_a_supplement_is_one_wherever_it_goes(index: Index) -> None:
    fill(index, [1, 2], "a", plan=STUDY)
    _divert(index, "a", "b")
    (gate,) = index.gates()
    index.open_gate(gate.id, 100)
    fill(index, [3], "a", plan=STUDY)
    (gate,) = index.gates()
    assert (gate.destination, gate.supplement, gate.instances, gate.earlier) == ("a", 1, 1, 2)
    _divert(index, "a", "c")
    (gate,) = index.gates()
    assert (gate.destination, gate.supplement, gate.instances, gate.earlier) == ("c", 1, 1, 2)
    _divert(index, "c", *ALL)
    (gate,) = index.gates()
    assert (gate.destination, gate.supplement, gate.instances, gate.earlier) == ("a", 1, 1, 2)
    index.open_gate(gate.id, 100)
    fill(index, [4], "a", plan=STUDY)
    (gate,) = index.gates()
    assert (gate.supplement, gate.instances, gate.earlier) == (2, 1, 3)


def test_its_study_is_not_complete_because_the_rest_went_elsewhere(index: Index) -> None:
    fill(index, [1, 2], "a", plan=STUDY)
    index.hold(Filter(ids=(1,)), at=T0)
    _divert(index, "a", "b")
    assert index.release(Filter(), at=T0).gated == 1
    gates = {gate.destination: gate for gate in index.gates()}
    assert (gates["a"].instances, gates["a"].last_at) == (0, gates["b"].last_at)
    assert leased(index, "a", now=T0 + 8e12) == []
    _divert(index, "a", "b")
    (gate,) = index.gates()
    assert index.open_gate(gate.id, 9).ready == {"b": 2}


def test_a_schedule_shuts_where_it_went_too(index: Index) -> None:
    night = Plan(mode="failover", members=ALL, schedule="night")
    fill(index, [1, 2], "a", plan=night)
    (gate,) = index.gates()
    index.open_gate(gate.id, 1)
    assert _divert(index, "a", "b") == Moved({"b": 1}, {"b": 1})
    (gate,) = index.gates()
    assert (gate.destination, gate.kind, gate.instances) == ("b", "schedule", 1)
    assert index.shut_gate(None, "night", [], 100).gated == {"b": 1}
    assert leased(index, "b") == []
    assert index.open_gate(gate.id, 100).ready == {"b": 2}


# -- what repeats another


def _same(index: Index, number: int, *destinations: str, plan: Plan = FAILOVER) -> None:
    add(index, (ref(number, crc=1), meta(number, *destinations, uid="1", plan=plan)))


def test_what_repeats_it_goes_along(index: Index) -> None:
    for n in (1, 2, 3):
        _same(index, n, "a")
    assert _divert(index, "a", "b").ready == {"b": 1}
    assert [places(index, n) for n in (2, 3)] == [{"b": DUPLICATE}] * 2
    index.settle([outcome(1, "b", DELIVERED)])
    assert index.purge(T0 + 1e9, 9).count == 3


def test_what_went_along_goes_in_its_place(index: Index) -> None:
    for n in (1, 2, 3):
        _same(index, n, "a")
    _divert(index, "a", "b")
    assert index.settle([outcome(1, "b", DEAD)]).revived == 1
    assert leased(index, "b") == [2]
    assert (places(index, 3), fate(index, 3, "b").duplicate_of) == ({"b": DUPLICATE}, 2)
    _divert(index, "b", *ALL)
    assert [places(index, n) for n in (1, 2, 3)] == [
        {"b": DEAD},
        {"a": READY},
        {"a": DUPLICATE},
    ]


def test_what_repeats_it_but_may_not_go_there_goes_by_itself(index: Index) -> None:
    _same(index, 1, "a")
    _same(index, 2, "a", plan=Plan())
    _same(index, 3, "a")
    _same(index, 4, "a", plan=Plan())
    moved = _divert(index, "a", "b")
    assert moved.ready == {"b": 1, "a": 1}
    assert leased(index, "a") == [2]
    assert fate(index, 2, "a").reason == "in place of instance 1, which went to b"
    assert fate(index, 4, "a").duplicate_of == 2
    assert places(index, 3) == {"b": DUPLICATE}
    index.settle([outcome(2, "a", DELIVERED), outcome(1, "b", DELIVERED)])
    assert index.purge(T0 + 1e9, 9).count == 4


def test_what_repeats_it_and_goes_there_as_well_goes_by_itself(index: Index) -> None:
    _same(index, 1, "a")
    _same(index, 2, "a", "b")
    assert places(index, 2) == {"a": DUPLICATE, "b": READY}
    assert _divert(index, "a", "b").ready == {"b": 1, "a": 1}
    assert places(index, 2) == {"a": READY, "b": READY}


def test_one_left_behind_respects_its_gate(index: Index) -> None:
    _same(index, 1, "a")
    _same(index, 2, "a", plan=Plan(schedule="night"))
    assert _divert(index, "a", "b") == Moved({"b": 1}, {"a": 1})
    (gate,) = index.gates()
    assert (gate.destination, gate.kind) == ("a", "schedule")


def test_sent_again_it_is_known_where_it_went(index: Index) -> None:
    _same(index, 1, "a")
    _divert(index, "a", "b")
    _same(index, 2, "a")
    assert places(index, 2) == {"b": DUPLICATE}
    index.settle([outcome(1, "b", DELIVERED)])
    _same(index, 3, "a")
    assert places(index, 3) == {"b": DUPLICATE}
    # One that only `a` will do for is sent, as is one for both of them.
    _same(index, 4, "a", plan=Plan())
    assert places(index, 4) == {"a": READY}
    index.drop(Filter(ids=(4,)), "", at=T0)
    _same(index, 5, "a", "b")
    assert places(index, 5) == {"a": READY, "b": DUPLICATE}


def test_twins_of_one_batch_meet_where_the_first_goes(index: Index) -> None:
    _same(index, 1, "a")
    _divert(index, "a", "b")
    entries = [(ref(n, crc=1), meta(n, "a", uid="1", plan=FAILOVER)) for n in (2, 3)]
    plain = (ref(4, crc=1), meta(4, "a", uid="1"))
    assert add(index, *entries, plain).deliveries == {"a": 1}
    assert [places(index, n) for n in (2, 3, 4)] == [
        {"b": DUPLICATE},
        {"b": DUPLICATE},
        {"a": READY},
    ]


@pytest.mark.parametrize("one_batch", [False, True])
def test_what_others_may_have_does_not_wait_behind_what_they_may_not(
    index: Index, one_batch: bool
) -> None:
    """`a` has been down since the first came; the rule was changed, and all is sent again."""
    entries = [
        (ref(1, crc=1), meta(1, "a", uid="1")),
        (ref(2, crc=1), meta(2, "a", uid="1", plan=Plan(mode="failover", members=("a", "b")))),
        (ref(3, crc=1), meta(3, "a", uid="1", plan=FAILOVER)),
        (ref(4, crc=1), meta(4, "a", uid="1", plan=Plan(mode="balance", members=("b", "a")))),
    ]
    for batch in [entries] if one_batch else [[entry] for entry in entries]:
        add(index, *batch)
    assert [places(index, n) for n in (1, 2, 3, 4)] == [
        {"a": READY},
        {"a": READY},
        {"a": READY},
        {"a": DUPLICATE},
    ]
    assert _divert(index, "a", "b").ready == {"b": 2}
    index.settle([outcome(1, "a", DELIVERED)])
    add(index, (ref(5, crc=1), meta(5, "a", uid="1", plan=FAILOVER)))
    assert places(index, 5) == {"a": DUPLICATE}


def test_two_routes_that_went_to_one_place_are_two_deliveries_still(index: Index) -> None:
    _same(index, 1, "a")
    _divert(index, "a", "c")
    _same(index, 2, "a", "b")
    assert places(index, 2) == {"c": DUPLICATE, "b": READY}


def test_two_routes_are_not_placed_at_one_member(index: Index) -> None:
    """Of a study that is to be whole, each route has a delivery of its own."""
    plans = {
        "a": Plan("failover", ("a", "b"), keep="study").to_text(),
        "c": Plan("failover", ("c", "b"), keep="study").to_text(),
    }
    routes = tuple(RouteMeta(name, "rule", 0, plan) for name, plan in plans.items())
    add(index, (ref(1), meta(1, "a", "c")._replace(routes=routes)))
    # Both are down: one of the two goes to the member that they share, the other waits.
    index.divert("a", ["b"], [], T0 + 2000)
    index.divert("c", ["b"], [], T0 + 2000)
    index.settle([outcome(1, "b", DELIVERED)])
    add(index, (ref(2), meta(2, "a", "c")._replace(routes=routes)))
    assert places_of(index, 2) == ["b", "c"]


def test_routes_beside_that_of_a_whole_study_stay_each_where_it_is(index: Index) -> None:
    """Two instances of one study, in one batch, whose other routes are not the same."""
    plan = Plan("failover", ("a", "b"), keep="study").to_text()
    night = Plan(schedule="night").to_text()

    def routed(number: int, other: str, late: str) -> tuple[Ref, InstanceMeta]:
        routes = (
            RouteMeta("a", "rule", 0, plan),
            RouteMeta(other, "rule"),
            RouteMeta(late, "rule", 0, night),
        )
        return ref(number), meta(number, "a")._replace(routes=routes)

    add(index, routed(1, "c", "d"), routed(2, "e", "f"))
    assert [places_of(index, n) for n in (1, 2)] == [["a", "c", "d"], ["a", "e", "f"]]


def places_of(index: Index, number: int) -> list[str]:
    row = index.instance(number)
    assert row is not None
    return sorted(delivery.destination for delivery in row.deliveries)


def test_one_that_went_where_its_study_was_begun_is_told_of_there_at_the_second_try(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index says that it failed, when it did not; the member would not know why to wake."""
    plan = Plan("failover", ("a", "b"), keep="study")
    fill(index, [1], "a", plan=plan)
    _divert(index, "a", "b")
    index.settle([outcome(1, "b", DELIVERED)])
    real = Database.transaction

    @contextmanager
    def late(database: Database) -> Iterator[None]:
        with real(database):
            yield
        raise SpoolError("it took too long")

    with monkeypatch.context() as patch:
        patch.setattr(Database, "transaction", late)
        with pytest.raises(SpoolError):
            fill(index, [2], "a", plan=plan)
    assert fill(index, [2], "a", plan=plan).deliveries["b"] == 1
    assert leased(index, "b") == [2]
