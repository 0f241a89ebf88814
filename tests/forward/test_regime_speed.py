"""How fast a destination is sent to, and what is urgent on a slow way."""

import asyncio
from dataclasses import replace

import pytest

from router.forward.regime import Outgoing
from router.forward.throttle import Bandwidth, Speed
from router.spool.index_types import DeliveryState
from tests.forward.fakes import House, waiting
from tests.forward.night import HALF_AN_HOUR, OPEN, status
from tests.forward.virtual import run, wall

DELIVERED, READY = DeliveryState.DELIVERED, DeliveryState.READY


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
