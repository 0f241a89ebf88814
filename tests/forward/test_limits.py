"""Token buckets, the window of associations, places and permits, each by itself."""

import asyncio
import functools
import math
from random import Random

import pytest

from router.forward.bucket import Bucket
from router.forward.concurrency import Concurrency
from router.forward.permit import Hours, Permit
from router.forward.places import Places
from router.forward.throttle import Bandwidth, Metered, Speed, Throttle
from router.units import parse_bandwidth, parse_rate
from rules.window import parse_windows
from tests.forward.virtual import CreepingLoop, VirtualLoop, run

YEAR = 366 * 86400
NEW_YEAR = 1_767_225_600.0  # 2026-01-01 00:00 UTC


@pytest.mark.parametrize("loop", [VirtualLoop, CreepingLoop])
@pytest.mark.parametrize("rate", [1 / 3600, 3.0, 1e9])
def test_a_bucket_lets_through_its_rate_in_the_order_of_asking(
    loop: type[VirtualLoop], rate: float
) -> None:
    async def scenario() -> None:
        bucket = Bucket(rate)
        order: list[int] = []
        began = asyncio.get_running_loop().time()

        async def ask(number: int, count: float) -> None:
            await bucket.take(count)
            order.append(number)

        counts = [Random(4).choice([0.5, 1, 30]) * rate for _ in range(40)]
        async with asyncio.TaskGroup() as group:
            for number, count in enumerate(counts):
                group.create_task(ask(number, count))
        spent = asyncio.get_running_loop().time() - began
        assert order == list(range(40))
        assert spent == pytest.approx(sum(counts[:-1]) / rate - 0.1, rel=0.02)
        assert bucket.waiting == 0

    run(scenario(), loop)


def test_what_nobody_took_does_not_gather() -> None:
    async def scenario() -> None:
        bucket = Bucket(10.0)
        await asyncio.sleep(1e6)
        end = asyncio.get_running_loop().time() + 10
        taken = 0
        while asyncio.get_running_loop().time() < end:
            await bucket.take(1)
            taken += 1
        assert taken == pytest.approx(100, abs=3)

    run(scenario())


def test_who_is_cancelled_in_line_takes_nothing_and_holds_nobody_up() -> None:
    async def scenario() -> None:
        bucket = Bucket(1.0)
        await bucket.take(10)
        tasks = [asyncio.ensure_future(bucket.take(100)) for _ in range(3)]
        last = asyncio.ensure_future(bucket.take(1))
        await asyncio.sleep(1)
        for task in tasks:
            task.cancel()
        began = asyncio.get_running_loop().time()
        await last
        assert asyncio.get_running_loop().time() - began < 10

    run(scenario())


def test_another_rate_holds_for_those_in_line() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        bucket = Bucket(1.0)
        await bucket.take(100)
        began = loop.time()
        waiting = asyncio.ensure_future(bucket.take(1))
        await asyncio.sleep(1)
        bucket.set_rate(0.5)
        await asyncio.sleep(1)
        bucket.set_rate(math.inf)
        await waiting
        assert loop.time() - began == pytest.approx(2)
        bucket.set_rate(1.0)
        await bucket.take(1)
        assert loop.time() - began < 3.1, "what was sent without a limit is owed by nobody"

    run(scenario())


def test_a_limit_that_is_raised_is_not_waited_for_as_the_old_one_said() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        bucket = Bucket(1 / 3600)
        await bucket.take(1)
        waiting = asyncio.ensure_future(bucket.take(1))
        await asyncio.sleep(60)
        began = loop.time()
        bucket.set_rate(10.0)
        await waiting
        assert loop.time() - began == pytest.approx(0.1, abs=0.02)
        bucket.set_rate(1 / 3600)
        began = loop.time()
        await bucket.take(1)
        assert loop.time() - began < 1, "what was sent at the higher rate is not owed at this one"

    run(scenario())


def test_a_window_halves_and_grows_by_one_for_as_many_answers_as_it_is_wide() -> None:
    window = Concurrency(8)
    assert window.allowed == 8
    sizes = []
    for _ in range(5):
        window.failed()
        sizes.append(window.allowed)
    assert sizes == [4, 2, 1, 1, 1]
    assert window.shut == "1 of 8 associations after failures"
    answers = [0]
    while window.allowed < 8:
        answers[-1] += 1
        if window.succeeded(0.0):
            answers.append(0)
    assert 26 <= sum(answers) <= 35
    assert answers[:-1] == sorted(answers[:-1]), "the wider, the slower"
    assert window.shut == ""
    assert not window.succeeded(0.0)
    window.down()
    assert window.allowed == 1


def test_a_full_peer_is_asked_for_more_ever_more_rarely() -> None:
    window, now = Concurrency(4), 0.0
    waits = []
    for _ in range(6):
        window.full(2, now)
        assert window.allowed == 2
        assert window.shut == "2 of 4 associations, as it takes no more"
        began = now
        while window.allowed == 2:
            now += 1
            window.succeeded(now)
        waits.append(now - began)
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (pytest.approx(61, abs=3), pytest.approx(961, abs=3))
    window.configure(4)
    assert window.allowed == 4


def full_for(window: Concurrency, now: float) -> float:
    """Seconds from a refusal until it is asked for more again."""
    window.full(2, now)
    began = now
    while window.allowed == 2:
        now += 1
        window.succeeded(now)
    return now - began


def test_a_peer_that_was_full_once_and_not_for_hours_is_soon_asked_again() -> None:
    """Regression: what it refused months ago counted for ever."""
    window, now = Concurrency(4), 0.0
    for _ in range(6):
        now += full_for(window, now)
    assert full_for(window, now + 900) > 900, "it refuses still"
    assert full_for(window, now + 900 + 961 + 970) < 70
    assert full_for(window, now + 900 + 961 + 970 + 70) > 110


def test_places_are_never_more_than_there_are_and_the_first_is_always_free() -> None:
    random = Random(7)
    for limit in (5, 6, 9, 40):
        places = Places(limit)
        names = [f"d{n}" for n in range(5)]
        woken: set[str] = set()
        for name in names:
            places.join(name, functools.partial(woken.add, name))
        held = dict.fromkeys(names, 0)
        refused: set[str] = set()
        for _ in range(3000):
            name = random.choice(names)
            if held[name] and random.random() < 0.45:
                held[name] -= 1
                woken.clear()
                places.holds(name, held[name])
                assert refused <= woken, "who was refused is told"
                refused.clear()
                continue
            allowed = places.allowed(name)
            assert allowed is not None
            if held[name] < allowed:
                held[name] += 1
                places.holds(name, held[name])
            else:
                assert held[name] >= 1
                refused.add(name)
            assert sum(held.values()) <= limit


def test_a_destination_that_is_gone_keeps_no_place() -> None:
    places = Places(2)
    places.join("a", lambda: None)
    places.join("b", lambda: None)
    places.holds("a", 1)
    assert places.allowed("a") == 1
    places.leave("b")
    assert places.allowed("a") == 2
    assert Places().allowed("a") is None


def test_who_was_refused_is_told_when_another_is_not_configured_any_more() -> None:
    """Regression: the place that had been kept was free, and nobody knew."""
    places, woken = Places(2), set[str]()
    for name in "ab":
        places.join(name, functools.partial(woken.add, name))
    places.holds("a", 1)
    assert places.allowed("a") == 1
    places.leave("b")
    assert woken == {"a"}
    assert places.allowed("a") == 2


def test_an_errand_takes_turns_with_sending_where_there_is_one_place() -> None:
    async def scenario() -> None:
        places, woken = Places(2), set[str]()
        for name in "ab":
            places.join(name, functools.partial(woken.add, name))
            places.holds(name, 1)
        errand = asyncio.ensure_future(places.errand("a"))
        await asyncio.sleep(0)
        assert (errand.done(), woken) == (False, {"a"}), "it is asked to make room"
        assert (places.allowed("a"), places.allowed("b")) == (0, 1)
        places.holds("a", 0)
        give_back = await errand
        assert (places.allowed("a"), places.allowed("b")) == (0, 1)
        woken.clear()
        give_back()
        give_back()
        assert "a" in woken
        assert (places.allowed("a"), places.allowed("b")) == (1, 1)

    run(scenario())


def test_an_errand_that_is_called_off_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        places = Places(1)
        places.join("a", lambda: None)
        places.holds("a", 1)
        waiting = [asyncio.ensure_future(places.errand("a")) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        places.holds("a", 0)  # before the cancelled one had its turn
        give_back = await waiting[1]
        late = asyncio.ensure_future(places.errand("a"))
        await asyncio.sleep(0)
        give_back()  # it has its place, and does not know yet
        late.cancel()
        await asyncio.wait([waiting[0], late])
        assert waiting[0].cancelled()
        assert late.cancelled()
        assert places.allowed("a") == 1

    run(scenario())


def test_errands_are_never_more_than_there_are_places_and_all_have_their_turn() -> None:
    """With as many places as destinations, all of which send all the time."""

    async def scenario(limit: int) -> None:
        dice, names = Random(limit), "abc"
        places = Places(limit)
        sending, errands, done = dict.fromkeys(names, 0), 0, 0

        def send(name: str) -> None:
            allowed = places.allowed(name)
            assert allowed is not None
            sending[name] = min(allowed, 4)
            places.holds(name, sending[name])
            total = sum(sending.values()) + errands
            assert total <= limit

        async def errand(name: str) -> None:
            nonlocal errands, done
            for _ in range(20):
                give_back = await places.errand(name)
                errands += 1
                assert sum(sending.values()) + errands <= limit
                await asyncio.sleep(dice.random())
                errands -= 1
                done += 1
                give_back()
                await asyncio.sleep(dice.random())

        async def sender(name: str) -> None:
            while done < 60:
                send(name)
                await asyncio.sleep(dice.random())

        for name in names:
            places.join(name, lambda: None)
        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(errand(name))
                group.create_task(sender(name))
        assert done == 60

    for limit in (3, 4, 7):
        run(scenario(limit))


@pytest.mark.parametrize("zone", ["Europe/Stockholm", "Australia/Lord_Howe", "America/Santiago"])
def test_a_permit_is_right_about_every_change_of_a_year(zone: str) -> None:
    windows = parse_windows(["mon-fri 18:00-07:00", "sat 02:15-02:45", "sun 00:00-24:00"], zone)
    permit = Permit(Hours("night", windows, urgent=10))
    now, changes = NEW_YEAR, 0
    while now < NEW_YEAR + YEAR:
        permit.look(now)
        assert permit.shut is not windows.open_at(now)
        assert permit.allows(10)
        assert permit.allows(9) is not permit.shut
        assert (permit.until is None) is not permit.shut
        wait = permit.next_look(now)
        assert wait is not None
        assert 0 < wait <= 60
        changes += permit.until == now + wait
        # Far from a change one look is like the other.
        change = windows.next_change(now)
        assert change is not None
        now = max(now + wait, change - 150) if change - now > 300 else now + wait
    assert changes == pytest.approx(52 * 6, abs=10), "five evenings, and Sunday"


def test_a_calendar_is_not_looked_through_every_minute() -> None:
    """A tenth of a second each time, with fifty holidays that change nothing."""
    asked: list[float] = []

    class Asked:
        def open_at(self, moment: float) -> bool:
            return False

        def next_change(self, moment: float) -> None:
            asked.append(moment)

    permit = Permit(Hours("never", Asked()))  # type: ignore[arg-type]
    for minute in range(24 * 60 * 3):
        permit.look(NEW_YEAR + 60 * minute)
        assert permit.next_look(NEW_YEAR + 60 * minute) == 60.0, "the clock may be set meanwhile"
    assert len(asked) == 3
    permit.look(NEW_YEAR)
    assert len(asked) == 4, "the clock was set back"


def test_a_pause_is_above_everything() -> None:
    permit = Permit(None)
    permit.look(0.0)
    assert (permit.allows(-100), permit.nothing, permit.why) == (True, False, "")
    permit.paused = "by anna"
    assert (permit.allows(100), permit.nothing, permit.why) == (False, True, "paused: by anna")
    assert not permit.stops


def test_the_first_window_that_is_open_sets_the_bandwidth() -> None:
    windows = [parse_windows([text], "UTC") for text in ("07:00-18:00", "12:00-20:00")]
    bandwidth = Bandwidth(((windows[0], 1.0), (windows[1], 2.0)), otherwise=3.0)
    hours = {hour: bandwidth.at(NEW_YEAR + hour * 3600) for hour in (6, 7, 12, 18, 20)}
    assert hours == {6: 3.0, 7: 1.0, 12: 1.0, 18: 2.0, 20: 3.0}


def test_a_piece_is_a_tenth_of_a_second_within_bounds() -> None:
    async def scenario() -> None:
        pieces = []
        for rate in (1000.0, 1e6, 1e9, math.inf):
            throttle = Throttle(Speed(Bandwidth(otherwise=rate)), Metered(Bandwidth()))
            throttle.look(0.0)
            pieces.append(throttle.piece)
        assert pieces == [8192, 100_000, 262_144, 262_144]

    run(scenario())


@pytest.mark.parametrize(
    ("text", "value"),
    [("20Mbit/s", 2.5e6), ("8 kbit/s", 1000.0), ("2MB/s", 2e6), ("1MiB/s", 2**20)],
)
def test_bandwidths_are_read(text: str, value: float) -> None:
    assert parse_bandwidth(text) == value


@pytest.mark.parametrize(
    "text", ["20", 20, True, "20Mb/s", "20MB", "fast", "7kbit/s", "-1MB/s", {}]
)
def test_what_is_no_bandwidth_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"bandwidth|too little"):
        parse_bandwidth(text)


@pytest.mark.parametrize(
    ("text", "value"), [("5", 5.0), (0.5, 0.5), ("30/min", 0.5), ("36/h", 0.01), ("2/s", 2.0)]
)
def test_rates_are_read(text: object, value: float) -> None:
    assert parse_rate(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["0", 0, "5/d", "5 s", "often", True, "1/0", [5]])
def test_what_is_no_rate_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"rate|never send"):
        parse_rate(text)
