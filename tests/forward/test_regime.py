"""When a destination is sent to: schedules, pauses, and what is urgent."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from router.spool.index_types import DeliveryState
from rules.window import parse_windows
from tests.forward.fakes import Answer, House, waiting
from tests.forward.night import HALF_AN_HOUR, OPEN, hours, status
from tests.forward.virtual import run, wall

DELIVERED, READY = DeliveryState.DELIVERED, DeliveryState.READY


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
