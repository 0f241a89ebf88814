"""Limits so narrow that most of the time nothing goes: who holds an association meanwhile."""

import asyncio
from dataclasses import replace
from itertools import pairwise

import pytest

from router.forward.throttle import Bandwidth, Metered, Speed, Throttle
from router.spool.record import Ref
from tests.forward.fakes import FakeReader, FakeSpool, House, waiting
from tests.forward.virtual import CreepingLoop, VirtualLoop, run, wall

KILOBIT = 125.0


class Clocked(FakeReader):
    """Notes when each piece of it was read."""

    def __init__(self, ref: Ref) -> None:
        super().__init__(ref)
        self.times: list[float] = []

    def read(self, buffers: list[memoryview]) -> None:
        self.times.append(wall())
        super().read(buffers)


async def watch(house: House, idle: list[float], step: float = 0.5) -> None:
    """Adds to ``idle`` for how long associations have stood with nothing under way."""
    since: dict[str, float] = {}
    while True:
        for association in house.peer.associations:
            if association.closed or association.outstanding:
                since.pop(association.id, None)
            else:
                began = since.setdefault(association.id, wall())
                idle.append(wall() - began)
        await asyncio.sleep(step)


@pytest.mark.parametrize("loop", [VirtualLoop, CreepingLoop])
@pytest.mark.parametrize(("associations", "window"), [(1, 1), (4, 8)])
def test_an_association_lay_idle_until_its_turn_was_there(
    associations: int, window: int, loop: type[VirtualLoop]
) -> None:
    """Regression: for ten minutes; a firewall that forgets idle lines cost an attempt each time."""

    async def scenario() -> None:
        house = House("pacs", speed=Speed(rate=1 / 600), associations=associations)
        house.peer.window = window
        house.index.add("pacs", *(waiting(n, study=f"1.{n}") for n in range(1, 31)))
        idle: list[float] = []
        watching = asyncio.create_task(watch(house, idle))
        house.start()
        await asyncio.sleep(20 * 600 + 300)
        assert len(house.peer.delivered) == 21, "the rate is kept to and made use of"
        assert 0 < max(idle) < 15
        assert len(house.peer.connects) == 21, "one for each turn"
        assert house.peer.most_open == 1
        assert house.counts.associations_failed == []
        watching.cancel()
        await asyncio.wait([watching])
        began = wall()
        await house.stop(grace=20)
        assert wall() - began < 1

    run(scenario(), loop)


def test_who_lets_associations_linger_keeps_them_for_the_next_turn() -> None:
    async def scenario() -> None:
        house = House("pacs", speed=Speed(rate=1 / 20), linger=60.0)
        house.index.add("pacs", *(waiting(n) for n in range(1, 31)))
        house.start()
        await asyncio.sleep(20 * 20 + 10)
        assert len(house.peer.delivered) == 21
        assert len(house.peer.connects) <= 2
        await house.stop()

    run(scenario())


@pytest.mark.parametrize("rate", [1 / 9, 1 / 11, 0.5, 5.0])
def test_near_turns_are_all_used_and_cost_no_association_each(rate: float) -> None:
    async def scenario() -> None:
        house = House("pacs", speed=Speed(rate=rate), associations=8)
        house.peer.window = 8
        house.index.add("pacs", *(waiting(n, study=f"1.{n}") for n in range(1, 2001)))
        house.start()
        await asyncio.sleep(300)
        assert len(house.peer.asked) == pytest.approx(300 * rate, rel=0.05, abs=1.5)
        if rate > 0.1:
            assert len(house.peer.connects) <= 8
        await house.stop(grace=20)

    run(scenario())


def test_a_peer_that_is_down_is_found_up_by_the_first_turn_after_it_came_back() -> None:
    async def scenario() -> None:
        house = House("pacs", speed=Speed(rate=1 / 600))
        error = house.peer.connect_error
        house.peer.down()
        house.index.add("pacs", *(waiting(n) for n in range(1, 4)))
        house.start()
        await asyncio.sleep(3600)
        assert len(house.peer.connects) < 30, "as often as it is probed"
        house.peer.connect_error = error
        await asyncio.sleep(3 * 600)
        assert len(house.peer.delivered) == 3
        await house.stop()

    run(scenario())


def test_a_rate_that_is_raised_while_nobody_has_an_association_is_used_at_once() -> None:
    async def scenario() -> None:
        house = House("pacs", speed=Speed(rate=1 / 3600))
        house.index.add("pacs", *(waiting(n) for n in range(1, 31)))
        house.start()
        await asyncio.sleep(1800)
        assert len(house.peer.delivered) == 1
        house.forwarder.configure([replace(house.configs["pacs"], speed=Speed(rate=10.0))])
        await asyncio.sleep(10)
        assert len(house.peer.delivered) == 30
        await house.stop()

    run(scenario())


@pytest.mark.parametrize("kilobits", [8, 16, 32, 64])
def test_each_of_many_associations_got_a_piece_of_a_narrow_line_once_in_a_minute(
    kilobits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: 65 s between two pieces, eight associations at 8 kbit/s."""
    readers: list[Clocked] = []

    def open_reader(spool: FakeSpool, ref: Ref) -> Clocked:
        readers.append(Clocked(ref))
        return readers[-1]

    monkeypatch.setattr(FakeSpool, "open_reader", open_reader)

    async def scenario() -> None:
        speed = Speed(Bandwidth(otherwise=kilobits * KILOBIT))
        house = House("pacs", associations=8, speed=speed)
        house.start()
        began = wall()
        length, count = 100_000, 16
        house.arrive("pacs", *(waiting(n, length=length, study=f"1.{n}") for n in range(count)))
        await asyncio.sleep(30)
        busy = house.peer.most_open
        limited = house.forwarder.snapshot()["pacs"].limited
        said = f"{busy} of 8 associations, as the bandwidth keeps no more busy"
        assert limited == f"{kilobits} kbit/s, {said}"
        await house.index.until_closed("pacs")
        gaps = [b - a for reader in readers for a, b in pairwise(reader.times)]
        assert max(gaps) < max(5.5, 8192 / (kilobits * KILOBIT) + 0.5)
        seconds = count * length / (kilobits * KILOBIT)
        assert wall() - began == pytest.approx(seconds, rel=0.05), "all of the line is used"
        assert house.peer.most_open == busy
        await house.stop()

    run(scenario())


def test_as_many_associations_as_are_configured_once_the_line_is_wide() -> None:
    async def scenario() -> None:
        throttle = Throttle(Speed(), Metered(Bandwidth()))
        throttle.look(0.0)
        assert throttle.worth > 1000
        house = House("pacs", associations=8, speed=Speed(Bandwidth(otherwise=8 * KILOBIT)))
        house.peer.latency = lambda uid: 1.0
        house.start()
        house.arrive("pacs", *(waiting(n, study=f"1.{n}") for n in range(100)))
        await asyncio.sleep(20)
        assert house.peer.most_open == 1
        house.forwarder.configure([replace(house.configs["pacs"], speed=Speed())])
        await house.index.until_closed("pacs")
        assert house.peer.most_open == 8
        await house.stop()

    run(scenario())


def test_associations_that_a_line_has_become_too_narrow_for_finish_and_go() -> None:
    async def scenario() -> None:
        house = House("pacs", associations=8)
        house.peer.latency = lambda uid: 1.0
        house.start()
        house.arrive("pacs", *(waiting(n, study=f"1.{n}") for n in range(60)))
        await asyncio.sleep(3)
        assert house.peer.most_open == 8
        narrow = Speed(Bandwidth(otherwise=8 * KILOBIT))
        house.forwarder.configure([replace(house.configs["pacs"], speed=narrow)])
        await asyncio.sleep(10)
        assert sum(not each.closed for each in house.peer.associations) == 1
        await house.index.until_closed("pacs")
        assert sorted(house.peer.delivered) == sorted(set(house.peer.delivered))
        assert len(house.peer.delivered) == 60
        assert house.counts.associations_failed == []
        await house.stop()

    run(scenario())
