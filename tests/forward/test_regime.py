"""When, how fast and over how many associations a destination is sent to."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from router.forward.permit import Hours
from router.forward.regime import Outgoing
from router.forward.throttle import Bandwidth, Speed
from router.net.errors import AssociationRejected, AssociationTimeout, ConnectFailed
from router.spool.index_types import DeliveryState
from rules.window import parse_windows
from tests.forward.fakes import CT, MR, Answer, FakePeer, House, timed_out, waiting
from tests.forward.virtual import run, wall

DELIVERED, READY = DeliveryState.DELIVERED, DeliveryState.READY
NOW = datetime.fromtimestamp(1_700_001_000, UTC)  # where virtual time begins: 22:30 UTC
assert (NOW.hour, NOW.minute) == (22, 30)
SHUT = parse_windows(["23:00-23:30"], "UTC")
OPEN = parse_windows(["22:00-23:00"], "UTC")
HALF_AN_HOUR = 1800.0 - NOW.second


def hours(windows: object = SHUT, **options: object) -> Hours:
    return Hours("night", windows, **options)  # type: ignore[arg-type]


def status(house: House, name: str = "pacs"):  # type: ignore[no-untyped-def]
    return house.forwarder.snapshot()[name]


# -- schedules -------------------------------------------------------------------------------------


def test_what_waits_for_a_shut_schedule_is_not_even_leased() -> None:
    async def scenario() -> None:
        house = House("pacs", hours=hours())
        house.index.add("pacs", *(waiting(n) for n in range(1, 11)))
        began = wall()
        house.start()
        await asyncio.sleep(1000)
        for number in range(11, 15):
            house.arrive("pacs", waiting(number))
            await asyncio.sleep(1)
        assert (house.index.leases, house.peer.connects) == (0, [])
        assert status(house).up
        assert status(house).reason == "schedule night is shut"
        assert status(house).until == began + HALF_AN_HOUR
        await house.index.until_closed("pacs")
        assert wall() == pytest.approx(began + HALF_AN_HOUR, abs=1)
        assert status(house).until is None
        assert status(house).reason == ""
        await house.stop()

    run(scenario())


@pytest.mark.parametrize("latency", [0.9, 7.0])
def test_what_is_in_flight_when_it_shuts_is_finished(latency: float) -> None:
    async def scenario() -> None:
        house = House("pacs", hours=hours(OPEN), associations=2)
        house.peer.latency = lambda uid: latency
        house.index.add("pacs", *(waiting(n, study=f"1.{n}") for n in range(1, 6000)))
        house.start()
        await asyncio.sleep(HALF_AN_HOUR - 1)
        before = len(house.peer.asked)
        await asyncio.sleep(60)
        assert len(house.peer.asked) - before < 3 + 2 / latency
        asked, taken = len(house.peer.asked), len(house.peer.delivered)
        assert asked == taken == house.index.count("pacs", DELIVERED), "none was cut off"
        assert status(house).active == 0, "the queue may be changed: nothing of it is in hand"
        await asyncio.sleep(3600)
        assert len(house.peer.asked) == asked
        await house.stop()

    run(scenario())


def test_what_is_in_flight_when_it_shuts_is_stopped_and_charged_nothing() -> None:
    async def scenario() -> None:
        house = House("pacs", hours=hours(OPEN, closing="stop"), associations=2)
        house.peer.stalled = asyncio.Event()
        house.index.add("pacs", *(waiting(n, study=f"1.{n}") for n in range(1, 6)))
        house.start()
        await asyncio.sleep(HALF_AN_HOUR - 1)
        assert status(house).in_flight == 2
        await asyncio.sleep(2)
        assert (status(house).in_flight, status(house).active) == (0, 0)
        assert all(association.aborted for association in house.peer.associations)
        assert house.index.count("pacs", READY) == 5
        assert all(not row.history for row in house.index.rows["pacs"].values())
        house.peer.stalled = None
        began = wall()
        await house.index.until_closed("pacs")
        assert wall() - began == pytest.approx(23 * 3600, abs=2), "with the next window"
        assert status(house).up
        await house.stop()

    run(scenario())


def test_what_is_urgent_breaks_through_and_nothing_else_does() -> None:
    async def scenario() -> None:
        house = House("pacs", hours=hours(urgent=10))
        house.index.add("pacs", *(waiting(n, priority=n % 10) for n in range(1, 1001)))
        house.index.add("pacs", waiting(2000, priority=10), waiting(2001, priority=20))
        house.start()
        await asyncio.sleep(10)
        assert house.peer.delivered == ["1.2.3.2001", "1.2.3.2000"]
        house.arrive("pacs", waiting(2002, priority=11), waiting(2003))
        await asyncio.sleep(10)
        assert house.peer.delivered[2:] == ["1.2.3.2002"]
        assert status(house).active == 0
        assert status(house).reason == "schedule night is shut, but for priority 10 and more"
        assert status(house).urgent == 10
        house.forwarder.pause("pacs", "update")
        assert status(house).urgent is None
        house.forwarder.resume("pacs")
        leases = house.index.leases
        await asyncio.sleep(600)
        assert house.index.leases - leases < 20, "what may not go is not asked for all the time"
        await asyncio.sleep(HALF_AN_HOUR)
        assert house.index.count("pacs", READY) == 0
        await house.stop()

    run(scenario())


def test_what_is_urgent_and_was_deferred_is_tried_in_its_time() -> None:
    async def scenario() -> None:
        house = House("pacs", hours=hours(urgent=10))
        house.peer.answer = lambda uid: Answer(0xA700)
        house.index.add("pacs", waiting(1), waiting(2, priority=10))
        house.start()
        await asyncio.sleep(60)
        assert 2 < len(house.peer.asked) < 8
        assert set(house.peer.asked) == {"1.2.3.2"}
        await house.stop()

    run(scenario())


def test_what_is_urgent_goes_on_while_the_rest_is_stopped() -> None:
    async def scenario() -> None:
        house = House("pacs", hours=hours(OPEN, closing="stop", urgent=10), associations=2)
        house.peer.latency = lambda uid: 10.0
        house.index.add("pacs", waiting(1, study="1.1"), waiting(2, priority=10, study="1.2"))
        house.configs["pacs"] = replace(house.configs["pacs"], hours=hours(OPEN))
        house.start()
        await asyncio.sleep(5)
        house.forwarder.configure(
            [replace(house.configs["pacs"], hours=hours(closing="stop", urgent=10))]
        )
        await asyncio.sleep(60)
        assert house.peer.delivered == ["1.2.3.2"]
        assert sum(association.aborted for association in house.peer.associations) == 1
        await house.stop()

    run(scenario())


def test_a_destination_that_is_down_is_not_called_outside_its_hours() -> None:
    async def scenario() -> None:
        house = House("pacs", hours=hours(OPEN))
        house.peer.down()
        house.index.add("pacs", waiting(1))
        house.start(members=["pacs"])
        await asyncio.sleep(HALF_AN_HOUR)
        connects = len(house.peer.connects)
        assert connects > 5
        assert not status(house).up
        await asyncio.sleep(4 * 3600)
        assert len(house.peer.connects) == connects
        house.peer.connect_error = None
        await house.index.until_closed("pacs")
        assert datetime.fromtimestamp(wall(), UTC).hour == 22
        await house.stop()

    run(scenario())


def test_another_schedule_is_taken_and_the_associations_are_kept() -> None:
    async def scenario() -> None:
        house = House("pacs", hours=hours(), linger=10_000)
        house.index.add("pacs", waiting(1))
        house.start()
        await asyncio.sleep(10)
        plain = house.configs["pacs"]
        house.forwarder.configure([replace(plain, hours=None)])
        await house.index.until_closed("pacs")
        house.arrive("pacs", waiting(2))
        house.forwarder.configure([replace(plain, hours=hours(OPEN))])
        await house.index.until_closed("pacs")
        house.forwarder.configure([plain])
        house.arrive("pacs", waiting(3))
        await asyncio.sleep(10)
        assert house.peer.delivered == ["1.2.3.1", "1.2.3.2"]
        assert len(house.peer.connects) == 1
        await house.stop()

    run(scenario())


def test_a_clock_that_is_set_is_believed_within_a_minute() -> None:
    async def scenario() -> None:
        shift = 0.0
        house = House("pacs", clock=lambda: wall() + shift, hours=hours())
        house.index.add("pacs", waiting(1))
        house.start()
        await asyncio.sleep(100)
        shift = HALF_AN_HOUR
        await asyncio.sleep(61)
        assert house.peer.delivered == ["1.2.3.1"]
        shift = -86400.0
        house.arrive("pacs", waiting(2))
        await asyncio.sleep(61)
        house.arrive("pacs", waiting(3))
        await asyncio.sleep(61)
        assert len(house.peer.delivered) <= 2, "the day before, it was shut"
        await house.stop()

    run(scenario())


# -- paused ----------------------------------------------------------------------------------------


def test_a_pause_finishes_what_is_in_flight_and_takes_nothing_more() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=2)
        house.peer.latency = lambda uid: 10.0
        house.index.add("pacs", *(waiting(n, study=f"1.{n}") for n in range(1, 20)))
        house.start()
        await asyncio.sleep(5)
        destination = house.forwarder._destinations["pacs"]
        assert destination.paused == ""
        destination.pause("by anna: the archive is being updated")
        assert status(house).active == status(house).in_flight == 2
        await asyncio.sleep(1000)
        assert len(house.peer.delivered) == house.index.count("pacs", DELIVERED) == 2
        assert destination.paused == status(house).paused == "by anna: the archive is being updated"
        assert status(house).reason == "paused: by anna: the archive is being updated"
        house.arrive("pacs", waiting(100, priority=100))
        house.forwarder.refresh()
        await asyncio.sleep(1000)
        assert len(house.peer.asked) == 2
        destination.resume()
        assert (status(house).paused, status(house).reason) == ("", "")
        await house.index.until_closed("pacs")
        assert house.peer.delivered[2] == "1.2.3.100"
        await house.stop()

    run(scenario())


def test_a_pause_during_a_lease_is_heeded() -> None:
    async def scenario() -> None:
        house = House("pacs")
        house.index.latency = 5.0
        house.index.add("pacs", waiting(1))
        house.start()
        await asyncio.sleep(2.5)
        house.forwarder._destinations["pacs"].pause("now")
        await asyncio.sleep(100)
        assert (house.peer.connects, status(house).active) == ([], 0)
        house.forwarder._destinations["pacs"].resume()
        await house.index.until_closed("pacs")
        await house.stop()

    run(scenario())


def test_a_pause_that_is_not_explained_is_refused() -> None:
    async def scenario() -> None:
        house = House("pacs")
        house.start()
        with pytest.raises(ValueError, match="reason"):
            house.forwarder._destinations["pacs"].pause("")
        await house.stop()

    run(scenario())


def test_what_a_paused_destination_puts_back_is_in_the_queue_again() -> None:
    async def scenario() -> None:
        house = House("pacs")
        house.peer.stalled = asyncio.Event()
        house.index.add("pacs", waiting(1), waiting(2))
        house.start()
        await asyncio.sleep(1)
        house.forwarder._destinations["pacs"].pause("update")
        house.peer.left_before_the_end = True
        for association in house.peer.associations:
            association.end()
        await asyncio.sleep(1000)
        assert status(house).active == 0
        assert house.index.count("pacs", READY) == 2
        await house.stop()

    run(scenario())


# -- how fast --------------------------------------------------------------------------------------


@pytest.mark.parametrize("associations", [1, 4])
def test_instances_keep_to_the_rate(associations: int) -> None:
    async def scenario() -> None:
        house = House("pacs", speed=Speed(rate=5.0), associations=associations)
        house.peer.window = 1
        house.index.add("pacs", *(waiting(n, study=f"1.{n}") for n in range(1, 1001)))
        house.start()
        await asyncio.sleep(10)
        assert len(house.peer.asked) == pytest.approx(50, abs=2)
        await asyncio.sleep(90)
        assert len(house.peer.asked) == pytest.approx(500, abs=2)
        assert status(house).limited == "5 instances/s"
        began = wall()
        await house.stop(grace=20)
        assert wall() - began < 1, "nobody waits for its turn at the end"

    run(scenario())


def test_what_waits_for_the_rate_is_not_in_hand_and_the_most_urgent_goes_next() -> None:
    async def scenario() -> None:
        house = House("pacs", speed=Speed(rate=1 / 60))
        house.index.add("pacs", *(waiting(n) for n in range(1, 11)))
        house.start()
        await asyncio.sleep(90)
        assert len(house.peer.asked) == 2
        assert status(house).in_flight == 0
        house.arrive("pacs", waiting(100, priority=10))
        await asyncio.sleep(60)
        assert house.peer.asked[2:] == ["1.2.3.100"]
        house.forwarder.configure([replace(house.configs["pacs"], speed=Speed())])
        await house.index.until_closed("pacs")
        assert len(house.peer.connects) <= 5, "one for each of three turns, and two"
        await house.stop()

    run(scenario())


def test_a_rate_that_is_not_used_is_given_to_the_next() -> None:
    async def scenario() -> None:
        house = House("pacs", speed=Speed(rate=1 / 60), associations=2)
        house.peer.window = 4
        house.start()
        for number in range(1, 4):
            house.arrive("pacs", waiting(number))
            await asyncio.sleep(60.5)
        assert len(house.peer.asked) == 3
        await house.stop()

    run(scenario())


def test_an_association_that_ended_while_it_waited_for_the_rate_charges_nobody() -> None:
    async def scenario() -> None:
        house = House("pacs", speed=Speed(rate=1 / 60))
        house.index.add("pacs", *(waiting(n) for n in range(1, 4)))
        house.start()
        await asyncio.sleep(30)
        for association in house.peer.associations:
            association.end()
        await house.index.until_closed("pacs")
        assert all(len(row.history) == 1 for row in house.index.rows["pacs"].values())
        assert house.counts.associations_failed == []
        await house.stop()

    run(scenario())


MEGABIT = 125_000.0


@pytest.mark.parametrize("length", [500_000, 40_000_000])
@pytest.mark.parametrize("associations", [1, 3])
def test_bytes_keep_to_the_bandwidth(length: int, associations: int) -> None:
    async def scenario() -> None:
        speed = Speed(Bandwidth(otherwise=20 * MEGABIT))
        house = House("pacs", speed=speed, associations=associations)
        house.peer.latency = lambda uid: 0.0001
        house.index.add("pacs", *(waiting(n, length=length, study=f"1.{n}") for n in range(1, 200)))
        house.start()
        began = wall()
        await asyncio.sleep(10)
        read = sum(reader.length - reader.remaining for reader in house.spool.readers)
        assert read == pytest.approx((wall() - began) * 20 * MEGABIT, rel=0.05)
        assert status(house).limited == "20 Mbit/s"
        await house.stop()

    run(scenario())


def test_the_bandwidth_follows_the_hours_in_the_middle_of_an_instance() -> None:
    async def scenario() -> None:
        day = Bandwidth(((OPEN, MEGABIT),), otherwise=8 * MEGABIT)
        house = House("pacs", speed=Speed(day))
        house.index.add("pacs", waiting(1, length=10**10))
        house.start()
        await asyncio.sleep(10)
        [reader] = house.spool.readers
        at_ten = reader.length - reader.remaining
        assert at_ten == pytest.approx(10 * MEGABIT, rel=0.05)
        await asyncio.sleep(HALF_AN_HOUR - 10)
        before = reader.remaining
        await asyncio.sleep(100)
        assert before - reader.remaining == pytest.approx(100 * 8 * MEGABIT, rel=0.05)
        assert status(house).limited == "8 Mbit/s"
        await house.stop(grace=0)

    run(scenario())


def test_all_together_keep_to_their_bandwidth_and_share_it() -> None:
    async def scenario() -> None:
        house = House("a", "b", "c", associations=1)
        for name in "abc":
            for n in range(1, 50):
                house.index.add(name, waiting(n, length=10**7, study=f"1.{n}"))
        house.forwarder.start(
            house.configs.values(), outgoing=Outgoing(Bandwidth(otherwise=30 * MEGABIT))
        )
        await asyncio.sleep(20)
        read = sum(r.length - r.remaining for r in house.spool.readers)
        assert read == pytest.approx(20 * 30 * MEGABIT, rel=0.05)
        counts = [len(house.peers[name].asked) for name in "abc"]
        assert max(counts) - min(counts) <= 1
        assert status(house, "a").limited == "30 Mbit/s of all destinations"
        # One that takes nothing leaves the whole of it to the others.
        house.peers["b"].stalled = house.peers["c"].stalled = asyncio.Event()
        await asyncio.sleep(20)
        before = sum(r.length - r.remaining for r in house.spool.readers)
        await asyncio.sleep(20)
        after = sum(r.length - r.remaining for r in house.spool.readers)
        assert after - before == pytest.approx(20 * 30 * MEGABIT, rel=0.05)
        await house.stop(grace=0)

    run(scenario())


# -- over how many associations --------------------------------------------------------------------


def rejected() -> AssociationRejected:
    return AssociationRejected("PACS", 2, 3, 2)  # transient, presentation: local limit exceeded


def test_a_peer_that_takes_no_more_associations_is_not_down() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=4)
        peer = house.peer
        connect = peer.connect

        async def two_at_most(proposals):  # type: ignore[no-untyped-def]
            if sum(not each.closed for each in peer.associations) >= 2:
                peer.connects.append(asyncio.get_running_loop().time())
                raise rejected()
            return await connect(proposals)

        house.configs["pacs"] = replace(house.configs["pacs"], connect=two_at_most)
        peer.latency = lambda uid: 0.1
        house.index.add("pacs", *(waiting(n, study=f"1.{n}") for n in range(1, 2001)))
        house.start()
        await asyncio.sleep(1)
        assert status(house).limited == "2 of 4 associations, as it takes no more"
        await house.index.until_closed("pacs")
        assert house.counts.availability == []
        assert peer.most_open == 2
        assert len(peer.connects) <= 2 + 3, "it is asked for another ever more rarely"
        await house.stop()

    run(scenario())


@pytest.mark.parametrize("associations", [2, 4])
def test_a_peer_of_one_association_is_not_down_while_ours_idles_there(associations: int) -> None:
    async def scenario() -> None:
        house = House("pacs", associations=associations)
        peer = house.peer
        connect = peer.connect

        async def one_at_most(proposals):  # type: ignore[no-untyped-def]
            if any(not each.closed for each in peer.associations):
                peer.connects.append(asyncio.get_running_loop().time())
                raise rejected()
            return await connect(proposals)

        house.configs["pacs"] = replace(house.configs["pacs"], connect=one_at_most)
        house.start()
        house.arrive("pacs", waiting(1))
        await asyncio.sleep(0.5)
        house.arrive("pacs", waiting(2, sop_class=MR))  # which the one that idles does not accept
        await asyncio.sleep(0.5)
        assert house.index.count("pacs", DeliveryState.DELIVERED) == 2
        assert house.counts.availability == []
        assert len(peer.connects) <= 3
        await house.stop()

    run(scenario())


def test_a_new_peer_that_rejects_is_down_though_the_old_one_is_still_sent_to() -> None:
    async def scenario() -> None:
        house = House("pacs")
        house.peer.latency = lambda uid: 100.0
        house.index.add("pacs", waiting(1))
        house.start()
        await asyncio.sleep(1)
        other = FakePeer()
        other.connect_error = rejected()
        config = replace(house.configs["pacs"], connect=other.connect, identity=1, peer=1)
        house.forwarder.configure([config])
        house.arrive("pacs", waiting(2, study="1.9"))
        await asyncio.sleep(10)
        assert house.counts.availability == [("pacs", False)]
        assert len(other.connects) <= 4
        await house.stop(grace=0)

    run(scenario())


def one_after_the_other(peer: FakePeer, patience: float = 30.0) -> Callable[..., Awaitable[object]]:
    """`connect` of a peer that answers a request for an association only once it is done with the
    one that it has, as DCMTK's storescp."""
    connect = peer.connect

    async def patient(proposals):  # type: ignore[no-untyped-def]
        try:
            async with asyncio.timeout(patience):
                while any(not each.closed for each in peer.associations):
                    await asyncio.sleep(0.25)
        except TimeoutError:
            peer.connects.append(asyncio.get_running_loop().time())
            raise AssociationTimeout("PACS did not answer the association request") from None
        return await connect(proposals)

    return patient


@pytest.mark.parametrize("latency", [0.5, 10.0, 45.0])
def test_a_peer_that_lets_a_second_association_wait_is_not_down(latency: float) -> None:
    async def scenario() -> None:
        house = House("pacs", asynchronous_operations=8)
        peer = house.peer
        peer.latency = lambda uid: latency
        connect = one_after_the_other(peer)
        house.configs["pacs"] = replace(house.configs["pacs"], connect=connect)
        kinds = [MR] + [CT] * 49
        house.index.add(
            "pacs",
            *(waiting(n, study=f"1.{n // 50}", sop_class=kinds[n % 50]) for n in range(1, 301)),
        )
        house.start()
        await house.index.until_closed("pacs")
        assert house.index.count("pacs", DELIVERED) == 300
        assert {row.item.attempts for row in house.index.rows["pacs"].values()} == {1}
        assert house.counts.availability == []
        await house.stop()

    run(scenario())


def test_a_peer_that_hangs_is_down_though_an_association_stands() -> None:
    async def scenario() -> None:
        house = House("pacs")
        peer = house.peer
        house.index.add("pacs", *(waiting(n, study=f"1.{n}") for n in range(1, 11)))
        peer.latency = lambda uid: 60.0
        peer.answer = lambda uid: timed_out()
        connect = one_after_the_other(peer)

        async def hangs(proposals):  # type: ignore[no-untyped-def]
            if peer.associations:
                await asyncio.sleep(30)
                raise AssociationTimeout("PACS did not answer the association request")
            return await connect(proposals)

        house.configs["pacs"] = replace(house.configs["pacs"], connect=hangs)
        house.start()
        await asyncio.sleep(100)
        assert house.counts.availability == [("pacs", False)]
        await house.stop(grace=0)

    run(scenario())


@pytest.mark.parametrize("answers", [True, False])
def test_no_connection_beside_one_that_is_answered_is_no_sign_of_a_dead_peer(answers: bool) -> None:
    async def scenario() -> None:
        house = House("pacs")
        peer = house.peer
        connect = peer.connect
        peer.latency = lambda uid: 3.0 if answers else 1000.0

        async def no_more(proposals):  # type: ignore[no-untyped-def]
            if peer.associations:
                await asyncio.sleep(10)
                raise ConnectFailed("PACS could not be connected to within 10 s")
            return await connect(proposals)

        house.configs["pacs"] = replace(house.configs["pacs"], connect=no_more)
        house.index.add("pacs", *(waiting(n, study=f"1.{n}") for n in range(1, 31)))
        house.start()
        await asyncio.sleep(20)
        assert house.counts.availability == ([] if answers else [("pacs", False)])
        await house.stop(grace=0)

    run(scenario())


def test_a_rejection_with_nobody_at_work_is_a_failure() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=4)
        house.peer.connect_error = rejected()
        house.index.add("pacs", waiting(1))
        house.start()
        await asyncio.sleep(1)
        assert house.counts.availability == [("pacs", False)]
        await house.stop()

    run(scenario())


def test_failures_shut_the_window_fast_and_answers_open_it_slowly() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=8)
        peer = house.peer
        peer.latency = lambda uid: 1.0
        house.index.add("pacs", *(waiting(n, study=f"1.{n}") for n in range(1, 401)))
        house.start()
        await asyncio.sleep(3.5)
        assert peer.most_open == 8
        peer.answer = lambda uid: timed_out()
        await asyncio.sleep(1)
        peer.answer = lambda uid: Answer(0)
        peer.most_open = 0
        await house.index.until(lambda: status(house).up)
        before = len(peer.stored)
        await house.index.until(lambda: len(peer.stored) >= before + 3)
        assert peer.most_open <= 3
        await house.index.until(lambda: house.index.count("pacs", READY) <= 20)
        assert peer.most_open == 8
        await house.stop()

    run(scenario())


def test_one_refusal_for_want_of_resources_halves_the_window() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=4)
        house.peer.latency = lambda uid: 1.0
        house.peer.answer = lambda uid: Answer(0xA700 if uid == "1.2.3.7" else 0)
        house.index.add("pacs", *(waiting(n, study=f"1.{n}") for n in range(1, 301)))
        house.start()
        seen = set()
        while house.index.count("pacs", READY) > 100:
            await asyncio.sleep(0.1)
            seen.add(status(house).limited)
        assert "2 of 4 associations after failures" in seen
        assert status(house).limited == ""
        assert house.counts.availability == []
        await house.stop(grace=0)

    run(scenario())


def test_all_together_have_no_more_associations_than_allowed() -> None:
    async def scenario() -> None:
        names = [f"d{n}" for n in range(5)]
        house = House(*names, associations=8)
        for name in names:
            for n in range(1, 101):
                house.index.add(name, waiting(n, study=f"1.{n}"))
        for peer in house.peers.values():
            peer.latency = lambda uid: 0.5
        most = 0

        def count() -> int:
            return sum(not a.closed for p in house.peers.values() for a in p.associations)

        house.forwarder.start(house.configs.values(), outgoing=Outgoing(associations=9))
        for _ in range(300):
            await asyncio.sleep(0.05)
            most = max(most, count())
        assert most == 9
        for name in names:
            await house.index.until_closed(name)
        assert all(peer.stored for peer in house.peers.values())
        await house.stop()

    run(scenario())


def test_dead_and_silent_destinations_hold_no_places_of_the_others() -> None:
    async def scenario() -> None:
        names = ["dead", "silent", "late", "well"]
        house = House(*names, associations=4)
        house.peers["dead"].connect_error = ConnectFailed("no")
        house.peers["dead"].connect_latency = 10.0
        house.peers["silent"].stalled = asyncio.Event()
        for name in ("dead", "silent", "well"):
            for n in range(1, 1001):
                house.index.add(name, waiting(n, study=f"1.{n}"))
        house.peers["well"].latency = lambda uid: 0.1
        house.forwarder.start(house.configs.values(), outgoing=Outgoing(associations=6))
        await asyncio.sleep(10)
        assert status(house, "well").in_flight >= 1
        rate = len(house.peers["well"].stored)
        assert rate > 90
        house.arrive("late", waiting(1))
        began = wall()
        await house.index.until_closed("late")
        assert wall() - began < 1, "its first place is its own"
        house.peers["silent"].stalled.set()
        await house.stop(grace=0)

    run(scenario())


def test_a_limit_that_is_lifted_is_used() -> None:
    async def scenario() -> None:
        house = House("a", "b", associations=4)
        for name in "ab":
            for n in range(1, 1001):
                house.index.add(name, waiting(n, study=f"1.{n}", sop_class=MR))
            house.peers[name].latency = lambda uid: 0.5
        house.forwarder.start(house.configs.values(), outgoing=Outgoing(associations=2))
        await asyncio.sleep(20)
        assert [house.peers[name].most_open for name in "ab"] == [1, 1]
        house.forwarder.configure(house.configs.values(), outgoing=Outgoing(associations=math.inf))
        await asyncio.sleep(20)
        assert [house.peers[name].most_open for name in "ab"] == [4, 4]
        house.forwarder.configure(house.configs.values(), outgoing=Outgoing(associations=2))
        await asyncio.sleep(20)
        opened = [sum(not a.closed for a in house.peers[name].associations) for name in "ab"]
        assert opened == [1, 1], "who had more gives it up"
        await house.stop()

    run(scenario())


# -- what an operator reads ------------------------------------------------------------------------


@pytest.mark.parametrize("urgent", [None, 10])
def test_one_that_went_down_before_it_shut_is_shut_unless_something_may_go(
    urgent: int | None,
) -> None:
    async def scenario() -> None:
        house = House("pacs", hours=hours(OPEN, urgent=urgent))  # until 23:00
        house.peer.down()
        house.index.add("pacs", waiting(1))
        house.start()
        await asyncio.sleep(10)
        assert status(house).reason == "10.0.0.5:104: connection refused"
        assert (status(house).shut, status(house).next_probe is None) == ("", False)
        await asyncio.sleep(HALF_AN_HOUR)
        now = status(house)
        if urgent is None:
            assert (now.shut, now.next_probe) == ("schedule night is shut", None)
            assert now.reason == now.shut
        else:
            assert (now.shut, now.until) == ("", None)
            assert now.reason == "10.0.0.5:104: connection refused"
        await house.stop()

    run(scenario())


def test_a_schedule_that_never_opens_again_is_shut() -> None:
    async def scenario() -> None:
        over = parse_windows(["2020-12-24 08:00-12:00"], "UTC")
        house = House("pacs", hours=hours(over))
        house.index.add("pacs", waiting(1))
        house.start()
        await asyncio.sleep(10)
        assert (status(house).shut, status(house).until) == ("schedule night is shut", None)
        await house.stop()

    run(scenario())


# -- what is urgent on a slow way ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("speed", "soon"),
    [(Speed(rate=1 / 6), 13.0), (Speed(bandwidth=Bandwidth((), MEGABIT)), 17.0)],
)
def test_what_is_urgent_does_not_stand_behind_what_was_leased_before(
    speed: Speed, soon: float
) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        house = House("pacs", speed=speed)
        house.start()
        old = [waiting(n, length=500_000, study=f"1.{n // 50}") for n in range(600)]
        house.arrive("pacs", *old)
        await asyncio.sleep(30)
        for round_ in range(3):
            began = loop.time()
            house.arrive("pacs", waiting(1000 + round_, study="1.999", priority=10, length=500_000))
            row = house.index.rows["pacs"][1000 + round_]
            await house.index.until(lambda row=row: row.state is DELIVERED)
            assert loop.time() - began < soon
        order = [int(uid.rpartition(".")[2]) for uid in house.peer.delivered]
        routine = [number for number in order if number < 1000]
        for study in range(600 // 50):
            of_it = [number for number in routine if number // 50 == study]
            assert sorted(of_it) == list(range(study * 50, study * 50 + len(of_it))), "in order"
        await house.stop(grace=0)

    run(scenario())


def test_a_full_board_asks_for_the_more_urgent_once_a_second_at_most() -> None:
    async def scenario() -> None:
        house = House("pacs", speed=Speed(rate=1 / 60))
        house.start()
        house.arrive("pacs", *(waiting(n) for n in range(600)))
        await asyncio.sleep(90)
        leases, turns = house.index.leases, asyncio.get_running_loop().selector.jumps  # type: ignore[attr-defined]
        for number in range(1000, 1200):
            house.arrive("pacs", waiting(number))
            await asyncio.sleep(0.05)
        await asyncio.sleep(20)
        assert 2 <= house.index.leases - leases <= 12, "ten seconds of arrivals, and none after"
        assert asyncio.get_running_loop().selector.jumps - turns < 1500  # type: ignore[attr-defined]
        await house.stop(grace=0)

    run(scenario())


class Aside:
    """An association that carries nothing of the queue."""

    def __init__(self) -> None:
        self.over = asyncio.Event()

    async def ended(self) -> None:
        await self.over.wait()


def test_an_association_beside_the_queue_counts_and_sending_makes_room() -> None:
    async def scenario() -> None:
        house = House("a", "b", associations=4, linger=1000.0)
        for name in "ab":
            for n in range(1, 201):
                house.index.add(name, waiting(n, study=f"1.{n}"))
            house.peers[name].latency = lambda uid: 0.5
        open_to_a = lambda: sum(not one.closed for one in house.peers["a"].associations)  # noqa: E731
        house.forwarder.start(house.configs.values(), outgoing=Outgoing(associations=2))
        await asyncio.sleep(10)
        assert open_to_a() == 1
        began, seen = wall(), []

        async def connect() -> Aside:
            await asyncio.sleep(0.1)  # one that is being released counts no more
            seen.append(open_to_a())
            return Aside()

        aside = await house.forwarder.aside("a", connect)
        assert (wall() - began < 1, seen) == (True, [0])
        before = len(house.peers["a"].stored)
        await asyncio.sleep(10)
        assert len(house.peers["a"].stored) == before, "its only place is taken"
        assert "0 of 4 associations" in status(house, "a").limited
        aside.over.set()
        await asyncio.sleep(10)
        assert len(house.peers["a"].stored) > before + 15
        await house.index.until_closed("a")
        aside = await house.forwarder.aside("a", connect)  # what lies idle is let go
        assert seen == [0, 0]
        aside.over.set()
        await asyncio.sleep(0.1)
        await house.stop(grace=0)

    run(scenario())


def test_one_that_cannot_be_opened_beside_the_queue_keeps_no_place() -> None:
    async def scenario() -> None:
        house = House("a", associations=4)
        house.forwarder.start(house.configs.values(), outgoing=Outgoing(associations=1))

        async def connect() -> Aside:
            raise ConnectFailed("no")

        for _ in range(3):
            with pytest.raises(ConnectFailed):
                await house.forwarder.aside("a", connect)
        house.arrive("a", waiting(1))
        await house.index.until_closed("a")
        await house.stop()

    run(scenario())


def test_what_is_paused_or_shut_says_so_and_until_when() -> None:
    async def scenario() -> None:
        house = House("a")
        told: list[tuple[str, float | None] | None] = []
        house.forwarder.held_changed = lambda name: told.append(house.forwarder.held(name))
        house.start()
        await asyncio.sleep(1)
        assert house.forwarder.held("a") is None
        assert house.forwarder.held("nobody") is None
        house.forwarder.pause("a", "by anna")
        assert told[-1] == ("paused: by anna", None)
        house.forwarder.resume("a")
        await asyncio.sleep(1)
        assert told[-1] is None
        await house.stop()

    run(scenario())
