"""What repeats a delivery that is redirected goes along with it, and in its place if need be."""

import pytest

from router.spool.index import Filter, Index
from router.spool.index_types import DeliveryState, Rerouted
from router.spool.plan import Plan
from router.spool.record import RouteMeta
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
    leased,
    meta,
    outcome,
    places,
    ref,
    same,
)

UID = "1.2.3.4.1"


def _redirect(index: Index, which: Filter, target: str, **more: object) -> Rerouted:
    return index.redirect(which, target, at=T0 + 50, who="eva", **more)  # type: ignore[arg-type]


def _first_and_repeats(index: Index, *numbers: int) -> None:
    add(index, *((ref(n, crc=1), meta(n, "pacs", uid=UID)) for n in numbers))
    assert {places(index, n)["pacs"] for n in numbers[1:]} == {DUPLICATE}


@pytest.mark.parametrize("drops", [True, False], ids=["dropped", "dead"])
def test_what_repeats_one_that_is_redirected_goes_there_in_its_place(
    index: Index, drops: bool
) -> None:
    """An operator drops the one that is wrong; its bytes are damaged."""
    _first_and_repeats(index, 1, 2, 3)
    _redirect(index, Filter(destination="pacs", ids=(1,)), "vna")
    if drops:
        assert index.drop(Filter(ids=(1,)), "wrong one", at=T0 + 60).count == 1
    else:
        index.settle([outcome(1, "vna", DEAD, reason="damaged in the spool")])
    assert leased(index, "vna") == [2]
    assert places(index, 3) == {"pacs": DROPPED, "vna": DUPLICATE}
    assert fate(index, 3, "vna").duplicate_of == 2
    assert index.purge(T0 + 1e6, 9).count == (1 if drops else 0)
    index.settle([outcome(2, "vna", DELIVERED, at=T0 + 1e6)])
    assert index.purge(T0 + 2e6, 9).count == 2


def test_a_drop_of_all_that_is_there_drops_the_repeats_that_came_along(index: Index) -> None:
    _first_and_repeats(index, 1, 2)
    _redirect(index, Filter(destination="pacs"), "vna")
    assert index.drop(Filter(destination="vna"), "all", at=T0 + 60).count == 2
    assert leased(index, "vna") == []
    assert index.purge(T0 + 1e6, 9).count == 2


@pytest.mark.parametrize("fate_there", [READY, HELD, DELIVERED, UNCOMMITTED])
def test_a_repeat_stands_there_with_what_stands_for_the_first(
    index: Index, fate_there: DeliveryState
) -> None:
    add(index, (ref(1, crc=1), meta(1, "pacs", "vna", uid=UID)))
    if fate_there is HELD:
        index.hold(Filter(ids=(1,), destination="vna"), at=T0)
    elif fate_there is not READY:
        index.settle([outcome(1, "vna", fate_there)])
    add(index, (ref(2, crc=1), meta(2, "pacs", uid=UID)))
    _redirect(index, Filter(destination="pacs"), "vna")
    assert places(index, 1) == {"pacs": DROPPED, "vna": fate_there}
    assert places(index, 2) == {"pacs": DROPPED, "vna": DUPLICATE}
    assert index.purge(T0 + 1e6, 9).count == (2 if fate_there is DELIVERED else 0)
    if fate_there is READY:
        index.drop(Filter(ids=(1,)), "wrong one", at=T0 + 60)
        assert leased(index, "vna") == [2]


def test_a_repeat_stands_there_with_another_that_stands_for_the_first(index: Index) -> None:
    """In the index as its duplicate already, or found to be one by the redirection."""
    for same_bytes, first in ((None, 1), (same, 11)):
        uid = f"1.2.3.5.{first}"
        add(index, (ref(first, crc=1), meta(first, "vna", uid=uid)))
        routes = ("pacs", "vna") if same_bytes is None else ("pacs",)
        add(index, (ref(first + 1, crc=1), meta(first + 1, *routes, uid=uid)))
        add(index, (ref(first + 2, crc=1), meta(first + 2, "pacs", uid=uid)))
        _redirect(index, Filter(destination="pacs"), "vna", same_bytes=same_bytes)
        assert leased(index, "vna") == [first]
        for repeat in (first + 1, first + 2):
            assert places(index, repeat) == {"pacs": DROPPED, "vna": DUPLICATE}
            assert fate(index, repeat, "vna").duplicate_of == first
        index.drop(Filter(ids=(first, first + 1)), "wrong ones", at=T0 + 60)
        assert leased(index, "vna") == [first + 2]
        index.settle([outcome(first + 2, "vna", DELIVERED)])


def test_a_repeat_that_goes_there_by_itself_is_left(index: Index) -> None:
    add(index, (ref(1, crc=1), meta(1, "pacs", uid=UID)))
    add(index, (ref(2, crc=1), meta(2, "pacs", "vna", uid=UID)))
    assert places(index, 2) == {"pacs": DUPLICATE, "vna": READY}
    _redirect(index, Filter(destination="pacs"), "vna", same_bytes=same)
    assert places(index, 1) == {"pacs": DROPPED, "vna": DUPLICATE}
    assert leased(index, "vna") == [2]
    assert places(index, 2) == {"pacs": DROPPED, "vna": READY}


@pytest.mark.parametrize("ended", [DROPPED, DEAD])
def test_a_repeat_that_ended_there_stands_there_once_more(
    index: Index, ended: DeliveryState
) -> None:
    add(index, (ref(1, crc=1), meta(1, "pacs", uid=UID)))
    add(index, (ref(2, crc=1), meta(2, "pacs", "vna", uid=UID)))
    index.settle([outcome(2, "vna", ended, status=0xC000, reason="no")])
    _redirect(index, Filter(destination="pacs"), "vna")
    assert places(index, 2) == {"pacs": DROPPED, "vna": DUPLICATE}
    assert (fate(index, 2, "vna").reason, fate(index, 2, "vna").status) == ("", None)
    index.drop(Filter(ids=(1,)), "wrong one", at=T0 + 60)
    assert leased(index, "vna") == [2]
    assert [w.attempts for w in index.lease("vna", 9, T0, [])] == [0]


@pytest.mark.parametrize("waits", [True, False])
def test_a_repeat_that_ended_there_is_settled_by_what_was_delivered(
    index: Index, waits: bool
) -> None:
    plan = Plan("failover", ("vna", "tele")).to_text()
    add(index, (ref(1, crc=1), meta(1, "pacs", uid=UID)))
    routes = (RouteMeta("pacs", "one"), RouteMeta("vna", "two", 0, plan))
    entry = (ref(2, crc=1), meta(2, "pacs", "vna", uid=UID)._replace(routes=routes))
    add(index, entry)
    index.settle([outcome(2, "vna", DROPPED)])
    index.resend(Filter(ids=(1,)), ["vna"], "too", at=T0)
    if not waits:
        index.settle([outcome(1, "vna", DELIVERED)])
    _redirect(index, Filter(destination="pacs"), "vna")
    assert places(index, 2) == {"pacs": DROPPED, "vna": DUPLICATE}
    assert index.purge(T0 + 1e6, 9).count == (0 if waits else 2)
    if waits:
        index.drop(Filter(ids=(1,)), "wrong one", at=T0 + 60)
        index.divert("vna", ["tele"], [], T0 + 60)
        assert leased(index, "vna") == [2], "it was said who gets it"


@pytest.mark.parametrize("waits", [True, False])
def test_a_repeat_waits_as_long_as_what_the_first_repeats_there(index: Index, waits: bool) -> None:
    add(index, (ref(1, crc=1), meta(1, "vna", uid=UID)))
    if not waits:
        index.settle([outcome(1, "vna", DELIVERED)])
    add(index, (ref(2, crc=1), meta(2, "pacs", "vna", uid=UID)))
    add(index, (ref(3, crc=1), meta(3, "pacs", uid=UID)))
    _redirect(index, Filter(destination="pacs"), "vna")
    assert fate(index, 3, "vna").duplicate_of == 1
    assert index.purge(T0 + 1e6, 9).count == (0 if waits else 3)


def test_a_repeat_waits_for_what_goes_again_to_another_peer(index: Index) -> None:
    index.take_peers({"vna": ("10.0.0.1", 104, "VNA")}, T0)
    add(index, (ref(1, crc=1), meta(1, "vna", uid=UID)))
    index.settle([outcome(1, "vna", DELIVERED)])
    add(index, (ref(2, crc=1), meta(2, "pacs", "vna", uid=UID)))
    add(index, (ref(3, crc=1), meta(3, "pacs", uid=UID)))
    index.resend(Filter(ids=(1,)), ["pacs"], "too", at=T0)
    index.take_peers({"vna": ("10.0.0.2", 104, "VNA")}, T0)
    _redirect(index, Filter(destination="pacs"), "vna", same_bytes=same)
    assert leased(index, "vna") == [1]
    assert {fate(index, n, "vna").duplicate_of for n in (2, 3)} == {1}
    assert index.account(audit=True).differences == {}
    index.drop(Filter(ids=(1, 2)), "wrong ones", at=T0 + 60)
    assert leased(index, "vna") == [3]


def test_a_redirection_that_is_taken_back_takes_the_repeats_back(index: Index) -> None:
    _first_and_repeats(index, 1, 2)
    _redirect(index, Filter(destination="pacs"), "vna")
    _redirect(index, Filter(destination="vna"), "pacs")
    assert places(index, 2) == {"pacs": DUPLICATE, "vna": DROPPED}
    index.drop(Filter(ids=(1,)), "wrong one", at=T0 + 60)
    assert leased(index, "pacs") == [2]
    assert leased(index, "vna") == []


def test_a_repeat_that_came_along_waits_for_what_its_rule_says(index: Index) -> None:
    """It may go to nobody else either: it was said who gets it."""
    plan = Plan("failover", ("pacs", "vna"), after="study-complete", quiet=5.0)
    for number in (1, 2):
        entry = (ref(number, crc=1), meta(number, "pacs", uid=UID, plan=plan))
        add(index, entry)
    assert places(index, 2) == {"pacs": DUPLICATE}
    assert _redirect(index, Filter(destination="pacs"), "tele").gated == 1
    index.drop(Filter(ids=(1,)), "wrong one", at=T0 + 60)
    assert leased(index, "tele") == [], "the study is not complete"
    (gate,) = [gate for gate in index.gates() if gate.destination == "tele"]
    assert gate.plan.members == ()
    index.open_gate(gate.id)
    assert leased(index, "tele") == [2]
    index.divert("tele", ["pacs", "vna"], [], T0 + 60)
    assert leased(index, "tele") == [2]


def test_a_repeat_of_what_another_peer_had_goes_to_the_one_of_now(index: Index) -> None:
    index.take_peers({"vna": ("10.0.0.1", 104, "VNA")}, T0)
    add(index, (ref(1, crc=1), meta(1, "pacs", "vna", uid=UID)))
    index.settle([outcome(1, "vna", DELIVERED)])
    add(index, (ref(2, crc=1), meta(2, "pacs", uid=UID)))
    index.take_peers({"vna": ("10.0.0.2", 104, "VNA")}, T0)
    _redirect(index, Filter(destination="pacs"), "vna", same_bytes=same)
    assert leased(index, "vna") == [1]
    assert index.purge(T0 + 1e6, 9).count == 0
    index.drop(Filter(ids=(1,)), "wrong one", at=T0 + 60)
    assert leased(index, "vna") == [2]
