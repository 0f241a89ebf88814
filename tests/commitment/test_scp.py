"""Commitment as SCP in virtual time, over a real index and peers that a test scripts."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from router.commitment.dataset import (
    Item,
    encode_action,
)
from router.net.errors import AssociationAborted, AssociationError
from router.spool.errors import SpoolError
from router.spool.index import Filter, Index
from router.spool.index_promises import Asked
from router.spool.index_types import DeliveryState
from router.spool.record import DAMAGED
from router.ul import AbortReason, AbortSource
from tests.commitment.modalities import CT, Desk, request, scenario
from tests.forward.virtual import wall
from tests.spool.index_samples import DELIVERED, T0, add, fill, meta, outcome, ref

# -- what is wrong with a request --------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"requested_sop_class_uid": "1.2.3"}, 0x0118),
        ({"requested_sop_instance_uid": "1.2.3"}, 0x0112),
        ({"action_type_id": 2}, 0x0123),
    ],
)
def test_requests_for_something_else(index: Index, changes: dict[str, Any], status: int) -> None:
    async def act(desk: Desk) -> None:
        data = encode_action("2.25.1", [Item(CT, "1.2")])
        assert await desk.scp.take(request(data, **changes)) == status
        assert desk.listed() == []

    _, logs = scenario(index, act)
    assert logs[0]["status"] == f"{status:04X}"


def test_requests_that_cannot_be_read_or_answered(index: Index) -> None:
    async def act(desk: Desk) -> None:
        assert await desk.scp.take(request(b"")) == 0x0120
        assert await desk.scp.take(request(b"\0" * 7)) == 0x0110
        assert await desk.ask(1, remote="") == 0x0124
        assert await desk.ask(1, remote="xa") == 0x0124
        desk.scp.configure(None)
        assert await desk.ask(1) == 0x0124
        assert not desk.scp.offered("ROUTER")

    desk, _ = scenario(index, act)
    assert desk.counted.counts == {"refused": 5}


def test_a_full_disk_makes_no_promise(index: Index) -> None:
    async def act(desk: Desk) -> None:
        desk.thread.broken = 1
        with suppress(SpoolError):
            await desk.ask(1)
            raise AssertionError("it was promised")
        assert desk.listed() == []
        assert await desk.ask(1) == 0

    scenario(index, act)


@pytest.mark.parametrize("when", ["safe", "delivered"])
@pytest.mark.parametrize("discarded", [True, False])
def test_what_came_last_and_was_given_up_is_not_promised_by_what_came_before(
    index: Index, when: str, *, discarded: bool
) -> None:
    add(index, (ref(1, crc=1), meta(1, "pacs")))
    index.settle([outcome(1, "pacs", DELIVERED)])
    later = meta(2, uid="1.2.3.4.1", disposition="discard")
    if not discarded:
        later = meta(2, "pacs", uid="1.2.3.4.1")
    add(index, (ref(2, crc=2), later))
    index.drop(Filter(ids=(2,)), "no", at=T0)
    assert index.purge_these([2]).count == 1

    async def act(desk: Desk) -> None:
        await desk.ask(1)
        await asyncio.sleep(100)
        ((_, report, _),) = desk.peers["ct"].reports
        assert [failure.reason for failure in report.failed] == [0x0112]
        add(index, (ref(3, crc=1), meta(3, "pacs", uid="1.2.3.4.1")))
        index.settle([outcome(3, "pacs", DELIVERED)])
        await desk.ask(1, uid="2.25.2")
        await asyncio.sleep(100)
        assert not desk.peers["ct"].reports[1][1].failed, "it came once more"

    scenario(index, act, when=when)


@pytest.mark.parametrize("routed", [("pacs", "vna"), ("vna",)])
def test_what_came_last_and_was_taken_by_others_alone_is_not_promised_by_what_came_before(
    index: Index, routed: tuple[str, ...]
) -> None:
    add(index, (ref(1, crc=1), meta(1, "pacs")))
    add(index, (ref(2, crc=2), meta(2, *routed, uid="1.2.3.4.1")))
    index.settle([outcome(1, "pacs", DELIVERED), outcome(2, "vna", DELIVERED)])
    index.drop(Filter(ids=(2,)), "no", at=T0)

    async def act(desk: Desk) -> None:
        for number, reason in enumerate((0x0110, 0x0112)):
            await desk.ask(1, uid=f"2.25.{number}")
            await asyncio.sleep(100)
            report = desk.peers["ct"].reports[number][1]
            assert [failure.reason for failure in report.failed] == [reason]
            index.purge_these([2])

    scenario(index, act, when="delivered", destinations=("pacs",))


def test_what_came_last_and_was_told_of_stays_promised_once_it_is_purged(index: Index) -> None:
    """As a request that waits for others has it."""
    add(index, (ref(1, crc=1), meta(1, "pacs")), (ref(3), meta(3, "pacs")))
    add(index, (ref(2, crc=2), meta(2, "pacs", uid="1.2.3.4.1")))
    index.settle([outcome(1, "pacs", DELIVERED), outcome(2, "pacs", DELIVERED)])

    async def act(desk: Desk) -> None:
        await desk.ask(1, 3)
        await asyncio.sleep(100)
        assert desk.listed()[0].committed == 1
        index.purge_these([2])
        index.settle([outcome(3, "pacs", DELIVERED)])
        await desk.peers["ct"].arrived.wait()
        assert not desk.peers["ct"].reports[0][1].failed

    scenario(index, act, when="delivered")


@pytest.mark.parametrize("when", ["safe", "delivered"])
def test_what_came_last_and_was_damaged_since_is_not_promised_by_what_came_before(
    index: Index, when: str
) -> None:
    """It was whole when the index was told of it, and may have been acknowledged."""
    add(index, (ref(1, crc=1), meta(1, "pacs")))
    add(index, (ref(2, crc=2), meta(2, "pacs", uid="1.2.3.4.1")))
    index.settle([outcome(1, "pacs", DELIVERED)])
    index.settle([outcome(2, "pacs", DeliveryState.DEAD, reason=f"{DAMAGED}CRC-32 is 0, not 2")])

    async def act(desk: Desk) -> None:
        await desk.ask(1)
        await asyncio.sleep(100)
        ((_, report, _),) = desk.peers["ct"].reports
        assert [failure.reason for failure in report.failed] == [0x0110]

    scenario(index, act, when=when)


def test_while_nothing_can_be_written_it_is_seldom_weighed(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(index, [1], "pacs")
    tried: list[str] = []

    async def act(desk: Desk) -> None:
        work_on = desk.thread.run

        async def full(work: Callable[..., Any], *args: Any) -> Any:
            if work.__name__ in ("weighed", "put_off") and len(tried) < 200:
                tried.append(work.__name__)
                raise SpoolError("the disk is full")
            return await work_on(work, *args)

        monkeypatch.setattr(desk.thread, "run", full)
        await desk.ask(1)
        await asyncio.sleep(600)
        assert 2 < len(tried) < 40
        monkeypatch.setattr(desk.thread, "run", work_on)
        await asyncio.sleep(100)
        assert len(desk.peers["ct"].reports) == 1

    scenario(index, act)


def test_more_than_can_be_promised(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.commitment.scp.MOST_OPEN", 2)

    async def act(desk: Desk) -> None:
        desk.peers["ct"].down = True
        answers = [await desk.ask(1, uid=f"2.25.{n}") for n in range(3)]
        assert answers == [0, 0, 0x0213]

    scenario(index, act)


# -- reports -----------------------------------------------------------------------------------


def test_local_aes_that_offer_it(index: Index) -> None:
    async def act(desk: Desk) -> None:
        assert desk.scp.offered("NIGHT")
        assert desk.scp.offered("")
        assert not desk.scp.offered("ROUTER")

    scenario(index, act, local=["NIGHT"])


def test_reports_come_after_the_delay_and_one_association_takes_many(index: Index) -> None:
    fill(index, [1, 2], "pacs")

    async def act(desk: Desk) -> None:
        at = wall()
        for number in range(5):
            assert await desk.ask(1, 2, uid=f"2.25.{number}") == 0
        await asyncio.sleep(30)
        peer = desk.peers["ct"]
        assert [r.transaction_uid for _, r, _ in peer.reports] == [f"2.25.{n}" for n in range(5)]
        assert all(len(r.committed) == 2 and not r.failed for _, r, _ in peer.reports)
        assert 5.0 <= peer.reports[0][0] - at < 6.0
        assert peer.associations <= 2

    desk, _ = scenario(index, act, delay="5s")
    assert desk.counted.counts == {"asked": 5, "committed": 10, "failed": 0, "reported": 5}


def test_it_calls_as_the_ae_that_was_asked(index: Index) -> None:
    fill(index, [1], "pacs")

    async def act(desk: Desk) -> None:
        await desk.ask(1, uid="2.25.1", own_ae="ROUTER")
        await desk.ask(1, uid="2.25.2", own_ae="NIGHT")
        await asyncio.sleep(30)
        told = {r.transaction_uid: calling for _, r, calling in desk.peers["ct"].reports}
        assert told == {"2.25.1": "ROUTER", "2.25.2": "NIGHT"}

    scenario(index, act)


def test_a_remote_that_is_down_keeps_nobody_waiting(index: Index) -> None:
    fill(index, [1], "pacs")

    async def act(desk: Desk) -> None:
        desk.peers["ct"].down = True
        await desk.ask(1, uid="2.25.1")
        await desk.ask(1, uid="2.25.2", remote="mr")
        await desk.peers["mr"].arrived.wait()
        await asyncio.sleep(120)
        assert desk.peers["ct"].reports == []
        desk.peers["ct"].down = False
        await desk.peers["ct"].arrived.wait()

    desk, logs = scenario(index, act)
    tries = desk.counted.counts["retried"]
    assert 3 <= tries <= 7, "10, 20, 40 and 80 s apart, a quarter less at most"
    assert len([line for line in logs if "tried again" in line["event"]]) == 1


@pytest.mark.parametrize(
    "fault",
    [
        AssociationAborted("CT", AbortSource.SERVICE_USER, AbortReason.NOT_SPECIFIED),
        0x0110,
    ],
)
def test_a_report_that_is_not_taken_is_made_again(
    index: Index, fault: AssociationError | int
) -> None:
    fill(index, [1], "pacs")

    async def act(desk: Desk) -> None:
        peer = desk.peers["ct"]
        peer.faults = [fault, fault]
        await desk.ask(1)
        await asyncio.sleep(60)
        assert peer.reports[-1][1].committed == (Item(CT, "1.2.3.4.1"),)

    desk, _ = scenario(index, act)
    assert desk.counted.counts["reported"] == 1
    assert desk.counted.counts["retried"] == 2
    assert [p.attempts for p in desk.listed()] == [2]


def test_a_peer_that_accepts_no_context_is_given_up_after_a_day(index: Index) -> None:
    fill(index, [1], "pacs")

    async def act(desk: Desk) -> None:
        desk.peers["ct"].hears = False
        await desk.ask(1)
        await asyncio.sleep(23.9 * 3600)
        assert desk.listed()[0].settled_at is None
        await asyncio.sleep(1200)
        assert desk.listed()[0].settled_at is not None

    desk, logs = scenario(index, act)
    assert desk.counted.counts["given_up"] == 1
    assert "accepts no context for storage commitment" in desk.listed()[0].reason
    assert [line["log_level"] for line in logs if "given up" in line["event"]] == ["error"]


def test_unknown_instances_are_looked_for_until_the_grace_is_over(index: Index) -> None:
    async def act(desk: Desk) -> None:
        at = wall()
        await desk.ask(1, 2)
        await asyncio.sleep(20)
        fill(index, [1], "pacs")
        await desk.peers["ct"].arrived.wait()
        ((when, report, _),) = desk.peers["ct"].reports
        assert report.committed == (Item(CT, "1.2.3.4.1"),)
        assert [(f.item.sop_instance_uid, f.reason) for f in report.failed] == [
            ("1.2.3.4.2", 0x112)
        ]
        assert 60 <= when - at <= 80

    scenario(index, act)


def test_no_further_back_than_needed(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.spool.index_promises._STEP", 10)
    for number in range(1, 101):
        fill(index, [number], "pacs", study=f"1.2.{number}")
    looks: list[int] = []
    look = index.promises.look

    def counted(place: Any) -> Any:
        looks.append(1)
        return look(place)

    monkeypatch.setattr(index.promises, "look", counted)

    async def act(desk: Desk) -> None:
        await desk.ask(75, 95)
        await desk.peers["ct"].arrived.wait()
        assert len(desk.peers["ct"].reports[0][1].committed) == 2

    scenario(index, act)
    assert len(looks) == 3


def test_the_index_is_walked_over_once_for_what_is_not_there(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of UIDs, in many requests, while others ask for what there is."""
    monkeypatch.setattr("router.spool.index_promises._STEP", 10)
    fill(index, list(range(1, 201)), "pacs")
    steps, since = [0], [0]
    look, look_after = index.promises.look, index.promises.look_after

    def walked(place: Any) -> Any:
        steps[0] += 1
        return look(place)

    def followed(after: int, until: int) -> Any:
        since[0] += 1
        return look_after(after, until)

    monkeypatch.setattr(index.promises, "look", walked)
    monkeypatch.setattr(index.promises, "look_after", followed)

    async def act(desk: Desk) -> None:
        for n in range(20):
            strange = range(1000 * (n + 1), 1000 * (n + 1) + 200)
            assert await desk.ask(*strange, uid=f"2.25.9{n}", remote="mr") == 0
        await asyncio.sleep(30)
        at = wall()
        assert await desk.ask(*range(1, 11)) == 0
        await desk.peers["ct"].arrived.wait()
        assert wall() - at < 2, "one that asks for little does not stand behind the other's grace"
        await desk.peers["mr"].arrived.wait()
        await asyncio.sleep(60)
        assert len(desk.peers["mr"].reports) == 20
        assert all(len(report.failed) == 200 for _, report, _ in desk.peers["mr"].reports)

    scenario(index, act)
    assert steps[0] <= 21 * 21, "once for each request at the most"
    assert since[0] <= 20, "once what came behind those that there are"


def test_what_is_found_is_looked_up_by_its_number_from_then_on(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.spool.index_promises._STEP", 10)
    fill(index, list(range(1, 101)), "pacs")
    steps = [0]
    look = index.promises.look

    def walked(place: Any) -> Any:
        steps[0] += 1
        return look(place)

    monkeypatch.setattr(index.promises, "look", walked)

    async def act(desk: Desk) -> None:
        await desk.ask(1, 500)
        await asyncio.sleep(30)
        walks = steps[0]
        fill(index, [500, *range(501, 540)], "pacs", study="1.2.99")
        await asyncio.sleep(600)
        index.settle([outcome(n, "pacs", DELIVERED, status=0) for n in (1, 500)])
        await desk.peers["ct"].arrived.wait()
        assert len(desk.peers["ct"].reports[0][1].committed) == 2
        assert steps[0] == walks

    scenario(index, act, when="delivered")


def test_another_object_that_was_acknowledged_and_is_not_in_the_index_yet(index: Index) -> None:
    """Regression: the one of before stood for it, and was promised to be where this one is not."""
    fill(index, [1], "pacs")
    index.settle([outcome(1, "pacs", DELIVERED)])

    async def act(desk: Desk) -> None:
        async def behind() -> None:
            await asyncio.sleep(2.0)
            desk.behind = None
            add(index, (ref(2), meta(2, "pacs", uid="1.2.3.4.1")))

        desk.behind = behind
        assert await desk.ask(1) == 0
        await asyncio.sleep(30)
        assert desk.peers["ct"].reports == []
        index.settle([outcome(2, "pacs", DeliveryState.DEAD)])
        await desk.peers["ct"].arrived.wait()
        ((_, report, _),) = desk.peers["ct"].reports
        assert [failure.reason for failure in report.failed] == [0x0110]

    scenario(index, act, when="delivered")


def test_a_verdict_outlives_the_purge_of_its_instance(index: Index) -> None:
    """Retention may take what is delivered while others are waited for."""
    fill(index, [1, 2], "pacs")

    async def act(desk: Desk) -> None:
        await desk.ask(1, 2)
        index.settle([outcome(1, "pacs", DELIVERED, status=0)])
        await asyncio.sleep(60)
        assert index.purge(wall() + 1e9, 10).count == 1
        await asyncio.sleep(60)
        index.settle([outcome(2, "pacs", DELIVERED, status=0)])
        await desk.peers["ct"].arrived.wait()
        assert len(desk.peers["ct"].reports[0][1].committed) == 2

    scenario(index, act, when="delivered")


def test_what_was_dropped_before_the_report_got_through_is_not_promised(index: Index) -> None:
    """Found safe at night, dropped in the morning, reported at noon."""
    fill(index, [1, 2, 3, 4], "pacs")

    async def act(desk: Desk) -> None:
        peer = desk.peers["ct"]
        peer.down = True
        await desk.ask(1, 2, 3, 4)
        await asyncio.sleep(60)
        assert desk.listed()[0].committed == 4
        index.drop(Filter(ids=(2,)), "no", at=wall())
        index.settle([outcome(n, "pacs", DELIVERED, status=0) for n in (3, 4)])
        assert index.purge_these([3]).count == 1
        index.resend(Filter(ids=(4,)), ["pacs"], "by an operator", at=wall())
        await asyncio.sleep(3600)
        peer.down = False
        await peer.arrived.wait()
        report = peer.reports[0][1]
        assert [one.sop_instance_uid for one in report.committed] == [
            *("1.2.3.4.1", "1.2.3.4.3", "1.2.3.4.4")
        ]
        assert [failure.reason for failure in report.failed] == [0x0110]

    scenario(index, act)


def test_what_was_dropped_and_purged_before_the_report_got_through_is_not_promised(
    index: Index,
) -> None:
    """The modality is off over the weekend; what was dropped is kept for an hour."""
    fill(index, [1, 2, 3], "pacs")
    fill(index, [4])

    async def act(desk: Desk) -> None:
        peer = desk.peers["ct"]
        peer.down = True
        await desk.ask(1, 2, 3, 4)
        await asyncio.sleep(60)
        assert desk.listed()[0].committed == 4
        index.drop(Filter(ids=(2,)), "no", at=wall())
        index.settle([outcome(3, "pacs", DELIVERED, status=0)])
        index.discard_held(Filter(ids=(4,)), "no", at=wall())
        assert index.purge(wall() + 1e9, 10).count == 3
        assert (desk.listed()[0].committed, desk.listed()[0].failed) == (2, 2)
        await asyncio.sleep(3600)
        peer.down = False
        await peer.arrived.wait()
        ((_, report, _),) = peer.reports
        assert [one.sop_instance_uid for one in report.committed] == ["1.2.3.4.1", "1.2.3.4.3"]
        assert [(failure.item.sop_instance_uid, failure.reason) for failure in report.failed] == [
            *(("1.2.3.4.2", 0x0112), ("1.2.3.4.4", 0x0112))
        ]

    scenario(index, act)


def test_what_was_dropped_while_others_were_waited_for_is_not_promised(index: Index) -> None:
    fill(index, [1], "pacs")

    async def act(desk: Desk) -> None:
        await desk.ask(1, 2)
        await asyncio.sleep(10)
        index.drop(Filter(ids=(1,)), "no", at=wall())
        await desk.peers["ct"].arrived.wait()
        reasons = [failure.reason for failure in desk.peers["ct"].reports[0][1].failed]
        assert reasons == [0x0110, 0x0112]

    scenario(index, act)


def test_many_large_requests_are_not_weighed_together(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(index, list(range(1, 10)), "pacs")
    monkeypatch.setattr("router.commitment.scp._ITEMS_AT_ONCE", 4)
    monkeypatch.setattr("router.commitment.scp._MOST_ITEMS", 11)

    async def act(desk: Desk) -> None:
        await desk.ask(1, 2, 3, uid="2.25.1")
        await desk.ask(4, 5, 6, uid="2.25.2")
        await desk.ask(*range(1, 6), uid="2.25.3")
        assert await desk.ask(9, uid="2.25.4") == 0x0213
        await asyncio.sleep(60)
        assert [len(report.committed) for _, report, _ in desk.peers["ct"].reports] == [3, 3, 5]
        assert desk.peers["ct"].associations == 3
        assert await desk.ask(9, uid="2.25.4") == 0

    scenario(index, act)


def test_a_clock_that_was_ahead_delays_nothing(index: Index) -> None:
    fill(index, [1], "pacs")
    ahead = 4e9
    items = [(CT, "1.2.3.4.1"), (CT, "1.2.3.4.2")]
    index.promises.ask(Asked("2.25.1", "ct", "CT", "ROUTER", "a1", items), ahead, ahead)

    async def act(desk: Desk) -> None:
        await asyncio.sleep(300)
        ((_, report, _),) = desk.peers["ct"].reports
        assert len(report.committed) == 1
        assert [failure.reason for failure in report.failed] == [0x0112]

    scenario(index, act)


def test_a_failing_index_is_waited_for(index: Index) -> None:
    fill(index, [1], "pacs")

    async def act(desk: Desk) -> None:
        await desk.ask(1)
        desk.thread.broken = 3
        await asyncio.sleep(600)
        assert len(desk.peers["ct"].reports) == 1

    _, logs = scenario(index, act)
    assert [line for line in logs if line.get("exc_info")]


def test_what_is_open_is_given_up_without_the_setting(index: Index) -> None:
    fill(index, [1], "pacs")

    async def act(desk: Desk) -> None:
        desk.peers["ct"].down = True
        await desk.ask(1)
        await asyncio.sleep(5)
        desk.scp.configure(None)
        await asyncio.sleep(60)
        assert desk.listed()[0].reason == "storage commitment is not configured any more"

    scenario(index, act)


def test_it_goes_on_after_a_restart(index: Index) -> None:
    fill(index, [1], "pacs")

    async def before(desk: Desk) -> None:
        desk.peers["ct"].down = True
        await desk.ask(1)
        await asyncio.sleep(100)

    told: list[bool] = []

    async def after(desk: Desk) -> None:
        async with asyncio.timeout(3600):
            told.append(await desk.peers["ct"].arrived.wait())

    scenario(index, before)
    scenario(index, after)
    assert told == [True]
