"""Destinations that are paused, shut, or slow because we hold back, and what others make of it."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from router.forward.permit import Hours
from router.forward.regime import Outgoing
from router.forward.throttle import Bandwidth, Metered, Speed, Throttle
from router.net.retry import Retry
from router.spool.index_types import DeliveryState, Filter
from rules.window import parse_windows
from tests.forward.fakes import Answer, House, waiting
from tests.forward.test_failover import Pair, scenario
from tests.forward.test_giving_way import RETRY, failing, places, state, study
from tests.forward.virtual import run, wall

DEAD, READY = DeliveryState.DEAD, DeliveryState.READY
NOW = datetime.fromtimestamp(1_700_001_000, UTC)  # where virtual time begins
assert (NOW.hour, NOW.minute) == (22, 30)
SHUT_UNTIL_23 = Hours("night", parse_windows(["23:00-23:30"], "UTC"))


# -- what others make of it --------------------------------------------------------------------


def test_what_waits_for_one_that_is_down_goes_to_nobody_who_is_paused(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.forwarder.pause("b", "update")
        pair.peers["a"].down()
        pair.receive("a", "b", "c", count=30)
        await asyncio.sleep(60)
        assert pair.where() == {"c": 30}
        pair.check()

    scenario(tmp_path, steps)


def test_with_nobody_else_it_waits_and_goes_when_one_may_be_sent_to(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.configs["b"] = replace(pair.configs["b"], hours=SHUT_UNTIL_23)
        pair.start({"a", "b"})
        pair.peers["a"].down()
        pair.receive("a", "b", count=30)
        await asyncio.sleep(60)
        assert {state(pair, n)[0] for n in range(1, 31)} == {"a"}
        await asyncio.sleep(1800)
        assert pair.where() == {"b": 30}
        pair.check()

    scenario(tmp_path, steps, start=False)


def test_one_that_is_shut_takes_what_is_urgent(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.configs["b"] = replace(pair.configs["b"], hours=replace(SHUT_UNTIL_23, urgent=10))
        pair.start({"a", "b", "c"})
        pair.peers["a"].down()
        pair.receive("a", "b", count=2)
        pair.receive("a", "b", count=3, priority=10)
        await asyncio.sleep(60)
        assert pair.where() == {"b": 3}
        assert {state(pair, n)[0] for n in (1, 2)} == {"a"}
        pair.receive("a", "b", "c", count=4)
        pair.receive("a", "b", "c", count=5, priority=20)
        await asyncio.sleep(60)
        assert pair.where() == {"b": 8, "c": 4}
        pair.forwarder.pause("b", "update")
        pair.receive("a", "b", count=6, priority=20)
        await asyncio.sleep(60)
        assert pair.where() == {"b": 8, "c": 4}, "paused it takes nothing, however urgent"
        pair.forwarder.resume("b")
        await asyncio.sleep(60)
        assert pair.where() == {"b": 14, "c": 4}
        await asyncio.sleep(1800)
        assert pair.where() == {"b": 16, "c": 4}
        pair.check()

    scenario(tmp_path, steps, start=False)


def test_one_that_gives_way_keeps_what_is_urgent(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.configs["a"] = replace(pair.configs["a"], hours=replace(SHUT_UNTIL_23, urgent=10))
        pair.start({"a", "b"})
        pair.receive("a", "b", count=2)
        await asyncio.sleep(90)
        assert pair.where() == {"b": 2}
        pair.receive("a", "b", count=2)
        pair.receive("a", "b", count=300, priority=10)
        await asyncio.sleep(30)
        assert pair.where() == {"a": 300, "b": 4}
        pair.check()

    scenario(tmp_path, steps, start=False, retry=RETRY)


def test_a_pause_alone_moves_nothing(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.forwarder.pause("a", "update")
        pair.receive("a", "b", count=3)
        await asyncio.sleep(5000)
        assert {state(pair, n)[0] for n in range(1, 4)} == {"a"}
        pair.forwarder.resume("a")
        await asyncio.sleep(30)
        assert pair.where() == {"a": 3}
        pair.check()

    scenario(tmp_path, steps)


@pytest.mark.parametrize("shut", [False, True])
def test_one_that_is_held_back_for_long_gives_way_until_it_goes_on(
    tmp_path: Path, shut: bool
) -> None:
    async def steps(pair: Pair) -> None:
        if shut:
            pair.configs["a"] = replace(pair.configs["a"], hours=SHUT_UNTIL_23)
        else:
            pair.forwarder.pause("a", "update")
        pair.start({"a", "b"})
        pair.receive("a", "b", count=3)
        await asyncio.sleep(59)
        assert pair.where() == {}
        await asyncio.sleep(3)
        assert pair.where() == {"b": 3}
        pair.receive("a", "b", count=3)
        await asyncio.sleep(3)
        assert pair.where() == {"b": 6}, "what comes then goes there too"
        asked = pair.queues.asked
        await asyncio.sleep(1700)
        assert pair.queues.asked - asked < 10
        pair.peers["b"].stalled = asyncio.Event()
        pair.receive("a", "b", count=400)
        await asyncio.sleep(1)
        pair.forwarder.resume("a")
        await asyncio.sleep(100)
        back = pair.where()["a"]
        assert 100 < back < 400, "but for what is in hand it goes back"
        pair.peers["b"].stalled.set()
        await asyncio.sleep(30)
        pair.receive("a", "b")
        await asyncio.sleep(3)
        assert pair.where() == {"a": back + 1, "b": 406 - back}
        pair.check()

    scenario(tmp_path, steps, start=False, retry=RETRY)


def test_what_waits_for_a_schedule_or_a_pause_is_not_given_up_for_its_age(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.peers["a"].down()
        pair.receive("a", count=3)
        await asyncio.sleep(60)
        pair.forwarder.pause("a", "the archive moves")
        await asyncio.sleep(86_400)
        assert {state(pair, n)[1] for n in range(1, 4)} == {READY}
        pair.up_again("a")
        pair.forwarder.resume("a")
        await asyncio.sleep(310)
        assert pair.where() == {"a": 3}
        pair.check()

    scenario(tmp_path, steps, retry=Retry(max_age=3600))


def test_after_the_pause_it_is_tried_first_and_dead_when_that_fails(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.peers["a"].down()
        pair.receive("a", count=3)
        await asyncio.sleep(60)
        pair.forwarder.pause("a", "the archive moves")
        await asyncio.sleep(86_400)
        connects = len(pair.peers["a"].connects)
        pair.forwarder.resume("a")
        await asyncio.sleep(310)
        assert len(pair.peers["a"].connects) > connects
        assert {state(pair, n)[1] for n in range(1, 4)} == {DEAD}

    scenario(tmp_path, steps, retry=Retry(max_age=3600))


def test_a_study_that_was_begun_is_not_taken_apart_for_a_long_wait(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        failing(pair, "a", 0x0110, 2)
        study(pair, "1.5.1", 10, "a", "b")
        await asyncio.sleep(200)
        assert places(pair, "1.5.1") == {"a": 10}
        pair.peers["a"].answer = lambda uid: Answer(0)
        await asyncio.sleep(310)
        assert pair.where() == {"a": 10}
        pair.check()

    scenario(tmp_path, steps, retry=RETRY)


def test_a_study_is_not_kept_for_one_that_is_not_configured_any_more(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.peers["a"].latency = lambda uid: 1.0
        study(pair, "1.5.1", 30, "a", "b")
        await asyncio.sleep(10)
        pair.forwarder.configure([pair.configs["b"], pair.configs["c"]], {"a", "b"})
        await asyncio.sleep(30)
        assert sum(pair.where().values()) == 30
        assert 5 < pair.where()["a"] < 15
        pair.check()

    scenario(tmp_path, steps)


def test_what_was_held_while_it_was_sent_and_refused_stays_held(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.peers["a"].latency = lambda uid: 5.0
        failing(pair, "a", 0xA900, 1)
        pair.receive("a", "b", on_refusal="next")
        await asyncio.sleep(3)
        pair.real.hold(Filter(destination="a"), at=wall())
        pair.forwarder.refresh()
        await asyncio.sleep(30)
        assert state(pair, 1)[:2] == ("a", DeliveryState.HELD)
        assert not pair.peers["b"].asked
        pair.real.release(Filter(destination="a"), at=wall())
        pair.forwarder.refresh()
        await asyncio.sleep(30)
        assert pair.where() == {"b": 1}
        pair.check()

    scenario(tmp_path, steps)


def test_what_comes_back_to_one_that_has_given_way_is_given_too(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.receive("a", "b")
        await asyncio.sleep(1)
        pair.peers["a"].stalled = asyncio.Event()
        pair.receive("a", "b")
        await asyncio.sleep(3)
        pair.forwarder.pause("a", "update")
        await asyncio.sleep(100)
        assert pair.where() == {"a": 1}
        (association,) = pair.peers["a"].associations
        association.end()
        await asyncio.sleep(10)
        assert pair.where() == {"a": 1, "b": 1}

    scenario(tmp_path, steps, retry=RETRY)


# -- pauses and limits -------------------------------------------------------------------------


def test_couriers_take_nothing_that_a_lease_brings_after_the_pause() -> None:
    async def main() -> None:
        house = House("pacs", associations=2)
        house.peer.latency = lambda uid: 8.0
        house.index.add("pacs", *(waiting(n, study=f"1.{n}") for n in range(1, 40)))
        house.start()
        await asyncio.sleep(10.5)
        house.index.latency = 5.0
        house.arrive("pacs", *(waiting(n, study=f"1.{n}") for n in range(100, 110)))
        await asyncio.sleep(0.2)
        house.forwarder.pause("pacs", "update")
        asked = len(house.peer.asked)
        await asyncio.sleep(100)
        assert len(house.peer.asked) == asked == 4
        house.index.latency = 0.001
        house.forwarder.resume("pacs")
        await house.index.until_closed("pacs")
        await house.stop()

    run(main())


def test_a_reload_of_the_bandwidth_of_all_holds_for_what_is_on_its_way() -> None:
    async def main() -> None:
        house = House("pacs", associations=1)
        slow = Outgoing(Bandwidth(otherwise=1000.0))
        house.forwarder.start(house.configs.values(), (), slow)
        house.arrive("pacs", waiting(1, length=100_000_000))
        await asyncio.sleep(100)
        assert not house.peer.delivered
        house.forwarder.configure(house.configs.values(), ())
        began = wall()
        await house.index.until_closed("pacs")
        assert wall() - began < 5
        await house.stop()

    run(main())


def test_a_peer_that_closes_what_is_idle_is_not_down_for_that() -> None:
    async def main() -> None:
        house = House("pacs", speed=Speed(rate=1 / 60), associations=4)
        house.index.add("pacs", *(waiting(n, study=f"1.{n}") for n in range(1, 11)))
        house.start()

        async def impatient() -> None:
            while True:
                await asyncio.sleep(20)
                for association in house.peer.associations:
                    if not association.closed and not association.outstanding:
                        association.end()

        closing = asyncio.create_task(impatient())
        await asyncio.sleep(10 * 60)
        assert len(house.peer.delivered) >= 9
        assert house.counts.availability == []
        assert house.counts.associations_failed == []
        assert len(house.peer.connects) < 200
        closing.cancel()
        await asyncio.wait([closing])
        await house.stop()

    run(main())


def test_many_associations_of_one_leave_another_its_share_of_the_common_line() -> None:
    async def main() -> None:
        total = Metered(Bandwidth(otherwise=1_250_000.0))
        narrow = Throttle(Speed(Bandwidth(otherwise=125_000.0)), total)
        greedy = Throttle(Speed(), total)
        sent = {narrow: 0, greedy: 0}

        async def send(throttle: Throttle) -> None:
            while True:
                count = throttle.piece
                await throttle.take(count)
                sent[throttle] += count

        total.look(wall())
        narrow.look(wall())
        tasks = [asyncio.create_task(send(one)) for one in [greedy] * 8 + [narrow]]
        await asyncio.sleep(60)
        assert sent[narrow] / 60 > 0.8 * 125_000
        assert sum(sent.values()) / 60 == pytest.approx(1_250_000, rel=0.05)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    run(main())
