"""Deliveries that operators add: sent again, redirected, decided anew."""

import pytest

from router.spool import index_again, index_reroute
from router.spool.index import Disposition, Filter, Index
from router.spool.index_types import Changed, DeliveryState, Rerouted
from router.spool.plan import Plan
from router.spool.record import Ref, RouteMeta
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
    fate,
    fill,
    leased,
    meta,
    outcome,
    places,
    ref,
    same,
    state,
)

NIGHT = Plan(schedule="night")
WHOLE = Plan(after="study-complete", quiet=5.0, mode="failover", members=("pacs", "vna"))


def _redirect(index: Index, which: Filter, target: str, **more: object) -> Rerouted:
    return index.redirect(which, target, at=T0 + 50, who="eva", **more)  # type: ignore[arg-type]


def _resend(index: Index, which: Filter, *names: str, **more: object) -> Rerouted:
    rule = "by an operator"
    return index.resend(which, names, rule, at=T0 + 50, who="eva", **more)  # type: ignore[arg-type]


# -- redirect


def test_what_is_no_destination_or_state_is_refused(index: Index) -> None:
    fill(index, [1], "pacs")
    assert _redirect(index, Filter(), "vna").count == 0, "it must be said from where"
    assert _redirect(index, Filter(destination="nowhere"), "vna").count == 0
    assert _redirect(index, Filter(destination="pacs"), "pacs").count == 0
    with pytest.raises(ValueError, match="not a state of what waits"):
        _redirect(index, Filter(destination="pacs", state=DELIVERED), "vna")
    with pytest.raises(ValueError, match="no destination"):
        _resend(index, Filter())
    assert index.events(9) == []
    assert places(index, 1) == {"pacs": READY}


def test_what_waits_goes_to_another_and_the_account_shows_both(index: Index) -> None:
    fill(index, [1, 2, 3, 4, 5], "pacs", priority=3)
    index.settle(
        [
            outcome(2, "pacs", READY, due_at=T0 + 1e9),
            outcome(3, "pacs", DEAD),
            outcome(4, "pacs", DELIVERED),
        ]
    )
    done = _redirect(index, Filter(destination="pacs"), "vna", reason="move", exclude=[5])
    assert (done.count, done.left, done.more) == (2, 1, False)
    assert leased(index, "vna", now=T0) == [1, 2]
    assert [w.priority for w in index.lease("vna", 9, T0, [])] == [3, 3]
    assert leased(index, "pacs") == [5]
    assert places(index, 3) == {"pacs": DEAD}
    assert fate(index, 1, "pacs").reason == "redirected to vna: move"
    assert fate(index, 1, "vna").reason == "in place of pacs"
    assert fate(index, 1, "vna").rule == "everything"
    (event,) = index.events(9)
    assert (event.action, event.who, event.count) == ("redirect", "eva", 2)
    row = index.instance(2)
    assert row is not None
    assert row.events == (event,)
    assert _redirect(index, Filter(destination="pacs", state=DEAD), "vna").count == 1
    assert leased(index, "vna", now=T0) == [1, 2, 3]


def test_what_the_other_has_on_its_own_is_not_sent_twice(index: Index) -> None:
    fill(index, [1, 2, 3], "pacs", "vna")
    index.settle([outcome(1, "vna", DELIVERED), outcome(3, "vna", DEAD)])
    assert _redirect(index, Filter(destination="pacs"), "vna").count == 3
    assert places(index, 1) == {"pacs": DROPPED, "vna": DELIVERED}
    assert places(index, 2) == {"pacs": DROPPED, "vna": READY}
    assert places(index, 3) == {"pacs": DROPPED, "vna": READY}, "else nobody would have it"
    assert index.purge(T0 + 1e6, 9).count == 1


@pytest.mark.parametrize("ended", [None, DEAD])
def test_what_waits_there_already_stays_there_for_both(
    index: Index, ended: DeliveryState | None
) -> None:
    """Else the instance is at one place in the end, where two were to have it."""
    plan = Plan("failover", ("vna", "tele")).to_text()
    routes = (RouteMeta("pacs", "one"), RouteMeta("vna", "two", 0, plan))
    add(index, (ref(1), meta(1, "pacs", "vna")._replace(routes=routes)))
    if ended is not None:
        index.settle([outcome(1, "vna", ended)])
    assert _redirect(index, Filter(destination="pacs"), "vna").count == 1
    index.divert("vna", ["tele"], [], T0 + 60)
    assert (state(index, 1, "pacs"), state(index, 1, "vna")) == (DROPPED, READY)
    assert leased(index, "vna") == [1]


def test_a_redirection_can_be_taken_back(index: Index) -> None:
    fill(index, [1], "pacs")
    _redirect(index, Filter(destination="pacs"), "vna")
    _redirect(index, Filter(destination="vna"), "pacs")
    assert places(index, 1) == {"pacs": READY, "vna": DROPPED}


def test_what_repeats_one_that_is_redirected_does_not_go_in_its_place(index: Index) -> None:
    fill(index, [1], "pacs")
    add(index, (ref(2, crc=1), meta(2, "pacs", uid="1.2.3.4.1")))
    assert state(index, 2, "pacs") is DUPLICATE
    assert _redirect(index, Filter(destination="pacs"), "vna").count == 1
    assert places(index, 2) == {"pacs": DROPPED, "vna": DUPLICATE}
    assert fate(index, 2, "vna").duplicate_of == 1
    assert leased(index, "pacs") == []
    assert leased(index, "vna") == [1]
    index.settle([outcome(1, "vna", DELIVERED)])
    assert index.purge(T0 + 1e6, 9).count == 2


def test_what_is_behind_a_gate_is_behind_one_like_it(index: Index) -> None:
    fill(index, [1, 2], "pacs", plan=WHOLE)
    fill(index, [3], "pacs", plan=NIGHT)
    index.shut_gate(None, "night")
    assert _redirect(index, Filter(destination="pacs"), "tele").gated == 3
    assert leased(index, "tele") == []
    found = {gate.kind: gate for gate in index.gates() if gate.destination == "tele"}
    assert set(found) == {"study", "schedule"}
    assert found["study"].plan.members == (), "it was said who gets it"
    assert found["study"].plan.quiet == 5.0
    assert found["study"].instances == 2
    assert index.open_gate(found["study"].id).ready == {"tele": 2}
    assert leased(index, "tele") == [1, 2]
    for gate in index.gates():
        index.open_gate(gate.id)
    assert leased(index, "tele") == [1, 2, 3]


def test_what_was_held_keeps_to_its_schedule(index: Index) -> None:
    fill(index, [1], "pacs", plan=NIGHT)
    (gate,) = index.gates()
    index.open_gate(gate.id)
    index.hold(Filter(), at=T0)
    assert _redirect(index, Filter(destination="pacs", state=HELD), "vna").gated == 1
    assert leased(index, "vna") == []


def test_a_redirection_goes_on_where_it_stopped(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_reroute, "_AT_ONCE", 2)
    fill(index, range(1, 6), "pacs")
    which = Filter(destination="pacs")
    done = _redirect(index, which, "vna", exclude=[1, 2])
    assert (done.count, done.left, done.more) == (0, 2, True)
    done = _redirect(index, which, "vna", exclude=[1, 2], after=done.cursor)
    assert (done.count, done.more) == (2, True)
    assert _redirect(index, which, "vna", exclude=[1, 2], after=done.cursor).count == 1
    assert leased(index, "pacs") == [1, 2]


# -- resend


def test_a_study_is_sent_to_somewhere_else(index: Index) -> None:
    fill(index, [1, 2], "pacs")
    fill(index, [3], "pacs", study="1.9")
    index.settle([outcome(n, "pacs", DELIVERED) for n in (1, 2, 3)])
    assert index.purge(T0, 9).count == 0
    done = _resend(index, Filter(study="1.2.3"), "tele", "vna")
    assert (done.count, done.left, done.more) == (4, 0, False)
    assert leased(index, "tele") == leased(index, "vna") == [1, 2]
    assert index.purge(T0 + 1e6, 9).count == 1, "what waits again is kept"
    assert fate(index, 1, "tele").rule == "by an operator"
    assert index.events(1)[0].count == 4


def test_what_is_there_is_sent_again_and_what_waits_is_left(index: Index) -> None:
    fill(index, [1, 2, 3, 4, 5], "pacs", plan=NIGHT)
    for gate in index.gates():
        index.open_gate(gate.id)
    index.settle([outcome(1, "pacs", DELIVERED), outcome(2, "pacs", DEAD)])
    index.drop(Filter(ids=(3,)), "no", at=T0)
    index.hold(Filter(ids=(4,)), at=T0)
    done = _resend(index, Filter(), "pacs")
    assert (done.count, done.left) == (3, 2)
    assert leased(index, "pacs") == [1, 2, 3, 5], "at once, whatever its rule waits for"
    assert [w.attempts for w in index.lease("pacs", 9, T0, [])] == [0, 0, 0, 0]
    assert state(index, 4, "pacs") is HELD


def test_what_repeats_one_that_is_sent_again_waits_with_it(index: Index) -> None:
    fill(index, [1], "pacs")
    add(index, (ref(2, crc=1), meta(2, "pacs", uid="1.2.3.4.1")))
    index.settle([outcome(1, "pacs", DELIVERED)])
    assert _resend(index, Filter(), "pacs").count == 1
    assert index.purge(T0 + 1e6, 9).count == 0
    index.settle([outcome(1, "pacs", DEAD, at=T0 + 60)])
    assert leased(index, "pacs") == [2], "in its place"
    index.settle([outcome(2, "pacs", DELIVERED, at=T0 + 61)])


def test_what_repeats_one_that_is_purged_is_sent_again_by_itself(index: Index) -> None:
    add(index, (ref(1, crc=7), meta(1, "pacs", uid="1.9")))
    index.settle([outcome(1, "pacs", DELIVERED)])
    add(index, (ref(2, crc=7), meta(2, "pacs", uid="1.9")._replace(keep=1e6)))
    index.purge(T0 + 5000, 10, now=T0 + 5000)
    assert (state(index, 2, "pacs"), index.known([1])) == (DUPLICATE, set())
    sent = _resend(index, Filter(study="1.2.3"), "pacs")
    assert (sent.count, sent.left) == (1, 0)
    assert leased(index, "pacs") == [2]
    assert fate(index, 2, "pacs").duplicate_of is None
    assert index.purge(T0 + 1e9, 10).count == 0, "it waits"
    index.settle([outcome(2, "pacs", DELIVERED)])
    assert index.purge(T0 + 1e9, 10).count == 1


@pytest.mark.parametrize("taken", [DELIVERED, UNCOMMITTED])
def test_what_repeats_one_that_is_not_meant_is_sent_again_by_itself(
    index: Index, taken: DeliveryState
) -> None:
    _first_and_repeats(index, 1, 2, 3)
    index.settle([outcome(1, "pacs", taken)])
    sent = _resend(index, Filter(ids=(2, 3)), "pacs", same_bytes=lambda one, two: True)
    assert (sent.count, sent.left) == (1, 1), "one of them, as both have the same bytes"
    assert leased(index, "pacs") == [2]
    assert (fate(index, 2, "pacs").duplicate_of, fate(index, 3, "pacs").duplicate_of) == (None, 2)
    assert not {2, 3} & _purged(index), "they wait"
    index.settle([outcome(2, "pacs", DELIVERED, at=T0 + 60)])
    assert {2, 3} <= _purged(index)


def test_where_duplicates_are_sent_each_that_is_meant_goes(index: Index) -> None:
    _first_and_repeats(index, 1, 2, 3)
    index.settle([outcome(1, "pacs", DELIVERED)])
    sent = _resend(index, Filter(ids=(2, 3)), "pacs")
    assert (sent.count, sent.left) == (2, 0)
    assert leased(index, "pacs") == [2, 3]


def test_what_repeats_one_that_waits_is_left(index: Index) -> None:
    _first_and_repeats(index, 1, 2)
    sent = _resend(index, Filter(ids=(2,)), "pacs")
    assert (sent.count, sent.left) == (0, 1)
    assert leased(index, "pacs") == [1]


def _first_and_repeats(index: Index, *numbers: int) -> None:
    add(index, *((ref(n, crc=1), meta(n, "pacs", uid="1.2.3.4.1")) for n in numbers))
    assert {state(index, n, "pacs") for n in numbers[1:]} == {DUPLICATE}


def _purged(index: Index) -> set[int]:
    before = index.known([1, 2, 3])
    index.purge(T0 + 1e6, 9)
    return before - index.known([1, 2, 3])


def test_what_was_held_or_discarded_goes_after_all(index: Index) -> None:
    add(
        index,
        (ref(1), meta(1, disposition="hold")),
        (ref(2), meta(2, disposition="discard")),
        (ref(3), meta(3, quarantined=True)),
    )
    assert _resend(index, Filter(), "pacs").count == 3
    assert leased(index, "pacs") == [1, 2, 3]
    assert index.account().routed == 3
    index.settle([outcome(n, "pacs", DELIVERED) for n in (1, 2, 3)])
    assert index.purge(T0 + 1e6, 9).count == 3


def test_a_resend_goes_on_where_it_stopped(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_reroute, "_AT_ONCE", 2)
    fill(index, range(1, 6), "pacs")
    done = _resend(index, Filter(), "vna", until=4)
    assert (done.count, done.after, done.more) == (2, 2, True)
    # Delivered meanwhile: a step that began anew would send it once more.
    index.settle([outcome(1, "vna", DELIVERED)])
    done = _resend(index, Filter(), "vna", after=2, until=4)
    assert (done.count, done.more) == (2, False)
    assert places(index, 5) == {"pacs": READY}
    assert _resend(index, Filter(), "vna", after=4, until=4) == Rerouted()


# -- what is there already, as another instance


def _copies(index: Index, *numbers: int, to: str = "", plan: Plan | str = "") -> None:
    """The same bytes each time, which nobody looked at when they came."""
    names = (to,) if to else ()
    add(
        index,
        *((ref(n, crc=1), meta(n, *names, uid="1.2.3.4.1", plan=plan)) for n in numbers),
        suppress=False,
    )


def test_where_duplicates_are_sent_nothing_is_compared(index: Index) -> None:
    _copies(index, 1, to="vna")
    _copies(index, 2, to="pacs")
    _copies(index, 3)
    assert _redirect(index, Filter(destination="pacs"), "vna").count == 1
    assert _resend(index, Filter(ids=(3,)), "vna").count == 1
    assert leased(index, "vna") == [1, 2, 3]


@pytest.mark.parametrize("fate", [READY, HELD, DELIVERED])
def test_what_the_other_has_or_waits_for_is_not_redirected_to_it_again(
    index: Index, fate: DeliveryState
) -> None:
    _copies(index, 1, to="vna")
    _copies(index, 2, 3, to="pacs")
    fill(index, [4], "pacs")
    if fate is HELD:
        index.hold(Filter(ids=(1,)), at=T0)
    elif fate is DELIVERED:
        index.settle([outcome(1, "vna", DELIVERED)])
    done = _redirect(index, Filter(destination="pacs"), "vna", same_bytes=same)
    assert done.count == 3
    assert places(index, 2) == {"pacs": DROPPED, "vna": DUPLICATE}
    assert places(index, 3) == {"pacs": DROPPED, "vna": DUPLICATE}
    assert places(index, 4) == {"pacs": DROPPED, "vna": READY}
    settled = index.purge(T0 + 1e6, 9).count
    assert settled == (3 if fate is DELIVERED else 0), "kept as long as what stands for it waits"
    if fate is READY:
        index.settle([outcome(1, "vna", DEAD)])
        assert leased(index, "vna") == [2, 4], "in its place"


@pytest.mark.parametrize("fate", [DEAD, DROPPED])
def test_what_did_not_arrive_stands_for_nothing(index: Index, fate: DeliveryState) -> None:
    _copies(index, 1, to="vna")
    _copies(index, 2, 3, to="pacs")
    index.settle([outcome(1, "vna", fate)])
    _redirect(index, Filter(destination="pacs"), "vna", same_bytes=same)
    assert places(index, 2) == {"pacs": DROPPED, "vna": READY}
    assert places(index, 3) == {"pacs": DROPPED, "vna": DUPLICATE}, "of the one beside it"


def test_other_bytes_or_another_peer_of_that_name_make_no_duplicate(index: Index) -> None:
    _copies(index, 1, to="vna")
    index.take_peers({"vna": ("10.0.0.1", 104, "VNA")}, T0)
    index.settle([outcome(1, "vna", DELIVERED)])
    _copies(index, 2, 3, to="pacs")
    which = Filter(ids=(2,), destination="pacs")
    _redirect(index, which, "vna", same_bytes=lambda one, two: False)
    assert state(index, 2, "vna") is READY
    index.take_peers({"vna": ("10.0.0.2", 104, "VNA")}, T0)
    index.settle([outcome(2, "vna", DELIVERED)])
    _redirect(index, Filter(destination="pacs"), "vna", same_bytes=same)
    assert state(index, 3, "vna") is READY


def test_what_another_peer_of_that_name_had_goes_once_to_the_one_of_now(index: Index) -> None:
    index.take_peers({"vna": ("10.0.0.1", 104, "VNA")}, T0)
    add(index, (ref(1, crc=1), meta(1, "pacs", "vna", uid="1.2.3.4.1")))
    index.settle([outcome(1, "vna", DELIVERED)])
    index.take_peers({"vna": ("10.0.0.2", 104, "VNA")}, T0)
    _copies(index, 2, 3, to="pacs")
    _redirect(index, Filter(destination="pacs"), "vna", same_bytes=same)
    assert places(index, 1) == {"pacs": DROPPED, "vna": READY}
    assert places(index, 2) == {"pacs": DROPPED, "vna": DUPLICATE}, "of the one beside it"
    assert places(index, 3) == {"pacs": DROPPED, "vna": DUPLICATE}
    assert leased(index, "vna") == [1]


@pytest.mark.parametrize("purged", [False, True])
def test_what_repeats_one_that_another_peer_had_goes_to_the_one_of_now(
    index: Index, purged: bool
) -> None:
    index.take_peers({"vna": ("10.0.0.1", 104, "VNA")}, T0)
    _copies(index, 1, to="vna")
    index.settle([outcome(1, "vna", DELIVERED)])
    add(index, (ref(2, crc=1), meta(2, "pacs", "vna", uid="1.2.3.4.1")))
    assert places(index, 2) == {"pacs": READY, "vna": DUPLICATE}
    index.take_peers({"vna": ("10.0.0.2", 104, "VNA")}, T0)
    if purged:
        assert index.purge(T0 + 1e6, 10).count == 1
    _redirect(index, Filter(destination="pacs"), "vna", same_bytes=same)
    assert places(index, 2) == {"pacs": DROPPED, "vna": READY}
    assert index.account(audit=True).differences == {}
    assert leased(index, "vna") == [2]
    index.settle([outcome(2, "vna", DELIVERED)])
    assert index.purge(T0 + 1e6, 10).count == 2 - purged


def test_what_repeats_one_that_goes_again_too_is_kept_with_it(index: Index) -> None:
    index.take_peers({"vna": ("10.0.0.1", 104, "VNA")}, T0)
    _copies(index, 1, to="vna")
    index.settle([outcome(1, "vna", DELIVERED)])
    add(index, (ref(2, crc=1), meta(2, "pacs", "vna", uid="1.2.3.4.1")))
    index.resend(Filter(ids=(1,)), ["pacs"], "too", at=T0)
    index.take_peers({"vna": ("10.0.0.2", 104, "VNA")}, T0)
    _redirect(index, Filter(destination="pacs"), "vna", same_bytes=same)
    assert places(index, 1)["vna"] is READY
    assert places(index, 2) == {"pacs": DROPPED, "vna": DUPLICATE}
    assert index.account(audit=True).differences == {}
    assert leased(index, "vna") == [1]
    index.settle([outcome(1, "vna", DELIVERED)])
    assert index.purge(T0 + 1e6, 10).count == 2


def test_both_that_another_peer_had_are_counted_once(index: Index) -> None:
    index.take_peers({"vna": ("10.0.0.1", 104, "VNA")}, T0)
    for number in (1, 2):
        add(index, (ref(number, crc=1), meta(number, "pacs", "vna", uid="1.2.3.4.1")))
        index.settle([outcome(number, "vna", DELIVERED), outcome(number, "pacs", DEAD)])
    assert places(index, 2) == {"pacs": DEAD, "vna": DUPLICATE}
    index.take_peers({"vna": ("10.0.0.2", 104, "VNA")}, T0)
    _redirect(index, Filter(destination="pacs", state=DEAD), "vna", same_bytes=same)
    assert index.account(audit=True).differences == {}
    index.settle([outcome(number, "vna", DELIVERED) for number in leased(index, "vna")])
    assert index.account(audit=True).differences == {}
    assert index.purge(T0 + 1e6, 10).count == 2


def test_what_repeats_one_that_the_peer_of_now_has_is_there(index: Index) -> None:
    index.take_peers({"vna": ("10.0.0.1", 104, "VNA")}, T0)
    index.take_peers({"vna": ("10.0.0.2", 104, "VNA")}, T0)
    _copies(index, 1, to="vna")
    index.settle([outcome(1, "vna", DELIVERED)])
    add(index, (ref(2, crc=1), meta(2, "pacs", "vna", uid="1.2.3.4.1")))
    _redirect(index, Filter(destination="pacs"), "vna", same_bytes=same)
    assert places(index, 2) == {"pacs": DROPPED, "vna": DUPLICATE}


def test_what_goes_now_does_not_wait_for_the_night_with_another(index: Index) -> None:
    index.shut_gate(None, "night")
    _copies(index, 1, to="vna", plan=NIGHT)
    _copies(index, 2, to="pacs")
    _copies(index, 3, to="tele", plan=NIGHT)
    _redirect(index, Filter(destination="pacs"), "vna", same_bytes=same)
    assert state(index, 2, "vna") is READY
    index.settle([outcome(2, "vna", DEAD)])
    _redirect(index, Filter(destination="tele"), "vna", same_bytes=same)
    assert state(index, 3, "vna") is DUPLICATE, "both wait for the night"


def test_a_redirection_compares_so_much_at_a_time(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_again, "_COMPARED_AT_ONCE", 250)
    _copies(index, 1, to="vna")
    _copies(index, *range(2, 8), to="pacs")
    fill(index, [8], "pacs")
    compared: list[int] = []

    def comparing(new: Ref, _: Ref) -> bool:
        compared.append(new.id)
        return True

    which, counts, after, more = Filter(destination="pacs"), [], None, True
    while more:
        done = _redirect(index, which, "vna", after=after, exclude=[5], same_bytes=comparing)
        counts.append((done.count, done.left))
        after, more = done.cursor, done.more
    assert counts == [(2, 0), (2, 1), (2, 0)]
    assert compared == [2, 3, 4, 6, 7]
    assert leased(index, "vna") == [1, 8]
    assert leased(index, "pacs") == [5]


def test_one_that_is_longer_than_what_is_compared_at_a_time_is_compared(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_again, "_COMPARED_AT_ONCE", 1)
    _copies(index, 1, to="vna")
    _copies(index, 2, 3)
    done = _resend(index, Filter(ids=(2, 3)), "vna", "tele", same_bytes=same)
    assert (done.count, done.left, done.after, done.more) == (1, 1, 2, True)
    done = _resend(index, Filter(ids=(2, 3)), "vna", "tele", after=2, same_bytes=same)
    assert (done.count, done.left, done.more) == (0, 2, False)
    assert places(index, 3) == {"vna": DUPLICATE, "tele": DUPLICATE}


def test_what_is_sent_again_goes_once_and_though_it_was_delivered(index: Index) -> None:
    _copies(index, 1, 2, to="pacs")
    _copies(index, 3)
    index.settle([outcome(n, "pacs", DELIVERED) for n in (1, 2)])
    done = _resend(index, Filter(), "tele", same_bytes=same)
    assert (done.count, done.bytes, done.left) == (1, 100, 2)
    assert leased(index, "tele") == [1]
    assert index.events(1)[0].count == 1
    index.settle([outcome(1, "tele", DELIVERED)])
    done = _resend(index, Filter(ids=(3,)), "pacs", same_bytes=same)
    assert (done.count, done.left) == (1, 0), "a wish to send it again"
    assert leased(index, "pacs") == [3]
    done = _resend(index, Filter(ids=(1,)), "pacs", same_bytes=same)
    assert done.count == 1, "it was delivered there itself, and goes again"
    index.settle([outcome(n, "pacs", DELIVERED, at=T0 + 2000) for n in (1, 3)])
    assert index.purge(T0 + 1e6, 9).count == 3


@pytest.mark.parametrize("plan", ["", WHOLE])
def test_held_ones_are_duplicates_as_new_ones_would_be(index: Index, plan: Plan | str) -> None:
    _copies(index, 1, to="pacs")
    _copies(index, 10, 11)
    fill(index, [12])
    index.settle([outcome(1, "pacs", DELIVERED)])
    decided = [
        (n, meta(n, "pacs", "tele", uid=f"1.2.3.4.{min(n, 1) if n < 12 else n}", plan=plan))
        for n in (10, 11, 12)
    ]
    done = index.route_anew(decided, at=T0 + 50, same_bytes=same)
    assert (done.count, done.left) == (3, 0)
    assert places(index, 10) == {"pacs": DUPLICATE, "tele": READY}
    assert places(index, 11) == {"pacs": DUPLICATE, "tele": DUPLICATE}
    assert places(index, 12) == {"pacs": READY, "tele": READY}
    for gate in index.gates():
        index.open_gate(gate.id)
    index.settle([outcome(10, "tele", DELIVERED), outcome(12, "tele", DELIVERED)])
    assert index.purge(T0 + 1e6, 9).count == 3, "but for what waits for pacs"


def test_one_that_is_all_there_already_is_settled_at_once(index: Index) -> None:
    _copies(index, 1, to="pacs")
    index.settle([outcome(1, "pacs", DELIVERED)])
    _copies(index, 2)
    index.route_anew([(2, meta(2, "pacs", uid="1.2.3.4.1"))], at=T0 + 50, same_bytes=same)
    assert places(index, 2) == {"pacs": DUPLICATE}
    assert index.purge(T0 + 1e6, 9).count == 2


# -- decided anew


def test_held_ones_of_a_study_that_is_to_be_whole_go_where_it_was_begun(index: Index) -> None:
    plan = Plan("failover", ("pacs", "vna"), keep="study")
    fill(index, [1], "pacs", plan=plan)
    index.divert("pacs", ["vna"], (), T0 + 1)
    index.settle([outcome(1, "vna", DELIVERED)])
    add(index, (ref(2), meta(2, disposition="hold")), (ref(3), meta(3, disposition="hold")))
    decided = [(2, meta(2, "pacs", plan=plan)), (3, meta(3, "pacs", study="1.9", plan=plan))]
    assert index.route_anew(decided, at=T0 + 50, same_bytes=same).count == 2
    assert (places(index, 2), places(index, 3)) == ({"vna": READY}, {"pacs": READY})


def test_held_ones_are_decided_anew(index: Index) -> None:
    fill(index, [9], "pacs")
    add(index, *((ref(n), meta(n, disposition="hold")) for n in (10, 11, 12, 13, 14)))
    add(index, (ref(15), meta(15, quarantined=True)))
    decided = [
        (9, meta(9, "vna")),
        (10, meta(10, "pacs", "vna", priority=7)),
        (11, meta(11, disposition="discard", reason="test images")),
        (12, meta(12, disposition="hold")),
        (13, meta(13, "vna", plan=NIGHT)),
        (14, meta(14, "pacs", plan=WHOLE)),
        (15, meta(15, "pacs")),
    ]
    done = index.route_anew(decided, at=T0 + 50, who="eva")
    assert (done.count, done.left, done.gated) == (4, 3, 2)
    assert places(index, 9) == {"pacs": READY}, "it was not held"
    assert places(index, 15) == {}, "what cannot be parsed is for a person"
    assert [w.priority for w in index.lease("vna", 9, T0, [])] == [7]
    assert sorted((g.kind, g.destination) for g in index.gates()) == [
        ("schedule", "vna"),
        ("study", "pacs"),
    ]
    account = index.account()
    assert (account.routed, account.held, account.quarantined, account.discarded) == (4, 1, 1, 1)
    row = index.instance(11)
    assert row is not None
    assert (row.disposition, row.meta.reason) == (Disposition.DISCARDED, "test images")
    assert [e.action for e in row.events] == ["reroute"]
    assert index.events(1)[0].count == 4
    again = index.route_anew(decided, at=T0 + 60)
    assert (again.count, again.left) == (0, 7)
    assert isinstance(index.drop(Filter(), "end", at=T0 + 70), Changed)
