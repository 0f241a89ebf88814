"""A year in virtual time, with the clock changes of several zones: schedules and back-off."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random

import pytest

from router.forward.backoff import ceiling
from router.forward.breaker import Breaker
from router.net.errors import ConnectFailed
from router.net.retry import Retry
from router.spool.index_types import DeliveryState
from router.spool.plan import Plan
from rules.window import Holidays, Span, Windows, parse_windows, zone_of
from tests.forward.fakes import Answer, House, waiting
from tests.forward.gates import GateHouse
from tests.forward.virtual import run, wall

DAY = 86_400.0
CHRISTMAS = Holidays(
    yearly=frozenset({(12, 25), (12, 26), (1, 1)}), spans=(Span(tuple(range(7)), 600, 720),)
)
ZONES = ("Europe/Stockholm", "Australia/Lord_Howe", "America/Santiago")


def schedules(zone: str) -> dict[str, Windows]:
    return {
        "night": parse_windows(["mon-fri 18:00-07:00", "sat-sun 00:00-24:00"], zone, CHRISTMAS),
        "in the gap": parse_windows(["02:15-02:45", "2024-02-29 10:00-11:00"], zone),
        "at": parse_windows(["at 19:00 for 2h"], zone),
        "every": parse_windows(["every 6h for 20m"], zone),
    }


def moments(zone: str) -> list[float]:
    """The days on which the clock changes in a year, and Christmas Eve."""
    begin = datetime(2024, 1, 1, tzinfo=UTC)
    days = [begin + timedelta(days=n) for n in range(366)]
    shifts = [a for a, b in pairwise(days) if _offset(a, zone) != _offset(b, zone)]
    assert len(shifts) == 2
    return [day.timestamp() for day in (*shifts, datetime(2024, 12, 24, 12, tzinfo=UTC))]


def _offset(moment: datetime, zone: str) -> timedelta | None:
    return moment.astimezone(zone_of(zone)).utcoffset()


@pytest.mark.parametrize("zone", ZONES)
def test_what_waits_for_a_schedule_goes_when_it_opens_and_at_no_other_time(zone: str) -> None:
    async def about(start: float) -> None:
        house, chance = GateHouse(), Random(11)
        house.clock_off = start - wall()
        windows = schedules(zone)
        house.keeper.configure(windows)
        house.keeper.start()
        expected: dict[str, list[float]] = {name: [] for name in windows}
        while house.clock() < start + 1.5 * DAY:
            for name, each in windows.items():
                now = house.clock()
                opens = now if each.open_at(now) else each.next_change(now)
                assert opens is not None
                if not expected[name] or opens > expected[name][-1] + 1.0:
                    expected[name].append(opens)
                house.arrive(Plan(schedule=name))
            await asyncio.sleep(DAY * (0.02 + 0.2 * chance.random()))
        end = house.clock()
        await house.keeper.stop()
        for name, wanted in expected.items():
            # When the fake index noted it, by the clock that was not set.
            opened = [at + house.clock_off for at, gate in house.index.opened if gate.key == name]
            missed = [w for w in wanted if w < end and min(abs(w - at) for at in opened) > 1.0]
            assert not missed, name
            # What the index put back as a window closed goes when the next one opens.
            assert all(windows[name].open_at(at) for at in opened), name

    for start in moments(zone):
        run(about(start))


RETRIES = (
    Retry(),
    Retry(first=0.5, factor=1.25, cap=60, jitter=0.5),
    Retry(first=30, factor=1.0, cap=30, jitter=0),
    Retry(first=60, factor=3, cap=86_400, jitter=1.0),
)


@pytest.mark.parametrize("retry", RETRIES, ids=lambda retry: f"{retry.first:g}-{retry.cap:g}")
def test_a_year_of_outages_is_waited_for_as_the_settings_say(retry: Retry) -> None:
    """Each probe comes within the jitter below its ceiling, and nothing is sent in between."""
    chance, breaker, now = Random(5), Breaker(retry, Random(3)), 0.0
    waits = 0
    while now < 366 * DAY and waits < 20_000:
        for failures in range(1, chance.randrange(1, 12)):
            token = breaker.attempt(now)
            assert token is not None
            assert breaker.failed(token, "refused", now)
            due = breaker.next_probe
            assert due is not None
            longest = ceiling(retry, failures)
            assert longest * (1 - retry.jitter) - 1e-6 <= due - now <= min(longest, retry.cap)
            assert breaker.attempt(now + (due - now) * 0.999) is None or due - now < 1e-3
            now, waits = due, waits + 1
        token = breaker.attempt(now)
        assert token is not None
        breaker.succeeded(token)
        assert breaker.up
        assert breaker.failures == 0
        now += chance.random() * DAY
    assert waits > 1000


def test_a_month_without_the_destination_costs_a_call_per_cap_and_no_attempt() -> None:
    async def main() -> None:
        house = House("pacs", retry=Retry(cap=3600, jitter=0.25, max_attempts=5))
        house.peer.connect_error = ConnectFailed("refused")
        house.start()
        house.arrive("pacs", waiting(1), waiting(2))
        await asyncio.sleep(30 * DAY)
        assert 30 * 24 <= len(house.peer.connects) <= 30 * 24 / 0.75 + 20
        assert house.index.count("pacs", DeliveryState.READY) == 2
        house.peer.connect_error = None
        await house.index.until_closed("pacs")
        assert sorted(house.peer.delivered) == ["1.2.3.1", "1.2.3.2"]
        assert house.index.rows["pacs"][1].item.attempts == 1
        await house.stop()

    run(main())


def test_an_instance_that_fails_all_year_is_tried_in_real_valued_steps() -> None:
    async def main() -> None:
        retry = Retry(first=1.0, factor=1.25, cap=86_400, jitter=0.0, max_attempts=70)
        house = House("pacs", retry=retry)
        house.peer.answer = lambda uid: Answer(0x0110)
        house.start()
        house.arrive("pacs", waiting(1))
        await house.index.until_closed("pacs")
        history = house.index.rows["pacs"][1].history
        assert history[-1].state is DeliveryState.DEAD
        assert len(history) == 70
        waits = [one.due_at - one.at for one in history if one.due_at is not None]
        assert waits == pytest.approx([min(1.25**n, 86_400) for n in range(69)])
        late = [b.at - (a.due_at or 0.0) for a, b in pairwise(history)]
        assert all(0 <= each < 1.0 for each in late)
        assert history[-1].at - history[0].at > 14 * DAY
        await house.stop()

    run(main())
