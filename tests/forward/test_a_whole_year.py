"""Gates, windows and a dead destination over a whole year, out of the real index.

Virtual time jumps from timer to timer.  What is expected is reckoned from nothing but the clock on
the wall, five minutes at a time.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

import pytest

from router.forward import gatekeeper, permit, throttle
from router.forward.permit import Hours
from router.net.errors import ConnectFailed
from router.net.settings import Retry
from router.spool.index_types import DeliveryState
from router.spool.plan import Plan
from router.spool.record import Position, RouteMeta
from rules.window import Holidays, Span, parse_windows
from tests.forward.test_failover import Pair
from tests.forward.test_gates_and_queues import GatedPair
from tests.forward.test_with_index import entry
from tests.forward.virtual import run, wall

DAY = 86_400.0
YEAR = 366 * DAY
STEP = 300
"""Seconds: all windows here, and all changes of the clock, are at a multiple of them."""
BEGIN = 1_700_000_000.0 + 1000.0
"""Where virtual time begins: in November."""
ZONES = ("Europe/Stockholm", "America/New_York", "Australia/Sydney")
CHRISTMAS = Holidays(
    yearly=frozenset({(12, 25), (12, 26), (1, 1)}), spans=(Span(tuple(range(7)), 600, 720),)
)

Open = Callable[[datetime], bool]


def _night(local: datetime) -> bool:
    """Weekdays from 18:00 to 07:00, all of Saturday and Sunday; holidays from 10:00 to 12:00."""

    def holiday(day: datetime) -> bool:
        return (day.month, day.day) in {(12, 25), (12, 26), (1, 1)}

    before = datetime.fromordinal(local.toordinal() - 1)
    if not holiday(before) and before.weekday() < 5 and local.hour < 7:
        return True
    if holiday(local):
        return 10 <= local.hour < 12
    return local.weekday() >= 5 or local.hour >= 18


def _small_hours(local: datetime) -> bool:
    return 90 <= local.hour * 60 + local.minute < 300


WINDOWS: dict[str, tuple[list[str], Holidays | None, Open]] = {
    "night": (["mon-fri 18:00-07:00", "sat-sun 00:00-24:00"], CHRISTMAS, _night),
    "at": (
        ["mon,wed,sun at 19:00 for 2h"],
        None,
        lambda at: at.weekday() in (0, 2, 6) and 19 <= at.hour < 21,
    ),
    "every": (
        ["sat-sun every 6h for 20m"],
        None,
        lambda at: at.weekday() >= 5 and at.hour % 6 == 0 and at.minute < 20,
    ),
    "gap": (
        ["thu-sun 02:15-02:45", "2024-02-28 10:00-11:00"],
        None,
        lambda at: (
            (at.weekday() >= 3 and at.hour == 2 and 15 <= at.minute < 45)
            or (at.year, at.month, at.day, at.hour) == (2024, 2, 28, 10)
        ),
    ),
    "small hours": (["01:30-05:00"], None, _small_hours),
}
PLANS = (
    ("a", Plan(after="study-complete", quiet=60.0)),
    ("a", Plan(after="study-complete", quiet=60.0, schedule="night")),
    ("a", Plan(after="series-complete", quiet=900.0, schedule="at")),
    ("a", Plan(schedule="night")),
    ("a", Plan(schedule="at")),
    ("a", Plan(schedule="every")),
    ("a", Plan(schedule="gap")),
    ("b", Plan()),
    ("b", Plan(schedule="night")),
    ("b", Plan(after="study-complete", quiet=600.0, schedule="gap")),
)
"""Destination b has hours of its own: the small ones."""


class Reckoning:
    """When each schedule is open, all year."""

    def __init__(self, zone: str) -> None:
        steps = range(int((YEAR + 30 * DAY) // STEP))
        self._first = BEGIN - BEGIN % STEP
        local = [datetime.fromtimestamp(self._first + n * STEP, ZoneInfo(zone)) for n in steps]
        self.changes = [
            self._first + n * STEP
            for n in steps[1:]
            if local[n].utcoffset() != local[n - 1].utcoffset()
        ]
        self._open = {
            name: bytes(shows(moment) for moment in local) for name, (*_, shows) in WINDOWS.items()
        }

    def release(self, moment: float, names: list[str]) -> float:
        """The first moment from this one on at which all of these are open."""
        step = int((moment - self._first) // STEP)
        while not all(self._open[name][step] for name in names):
            step += 1
        return max(moment, self._first + step * STEP)


@dataclass(frozen=True)
class Arrival:
    at: float
    uid: str
    study: str
    destination: str
    plan: Plan


def _arrivals(reckoning: Reckoning, chance: Random) -> list[Arrival]:
    """Studies of one or two instances at any time, and many when the clock changes and at
    Christmas."""
    times = [BEGIN + 60 + chance.random() * (YEAR - 5 * DAY) for _ in range(250)]
    christmas = datetime(2023, 12, 25, tzinfo=UTC).timestamp()
    for special in (*reckoning.changes, christmas):
        times += [special + (chance.random() * 2 - 1.2) * DAY for _ in range(30)]
    found: list[Arrival] = []
    for number, begins in enumerate(times):
        destination, plan = PLANS[number % len(PLANS)]
        at = begins
        for instance in range(chance.randrange(1, 3)):
            uid = f"1.7.{number}.{instance}"
            # What may go is not to be known but moments before a window shuts.
            while not 3 <= (at + plan.quiet) % 60 < 56 or not 3 <= at % 60 < 56:
                at += 1.0
            found.append(Arrival(at, uid, f"1.7.{number}", destination, plan))
            at += chance.random() * 40
    return sorted(found, key=lambda arrival: arrival.at)


def _expected(arrivals: list[Arrival], reckoning: Reckoning) -> dict[str, float]:
    last = {arrival.study: arrival.at for arrival in arrivals}
    moments = {}
    for one in arrivals:
        ready = one.at if one.plan.after == "at-once" else last[one.study] + one.plan.quiet
        names = [one.plan.schedule] if one.plan.schedule else []
        names += ["small hours"] if one.destination == "b" else []
        moments[one.uid] = reckoning.release(ready, names)
    return moments


@pytest.fixture
def from_timer_to_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody sets the clock here, so nobody looks at it every minute for that."""
    monkeypatch.setattr(gatekeeper, "LONGEST_WAIT", YEAR)
    monkeypatch.setattr(permit, "_LOOK", YEAR)
    monkeypatch.setattr(throttle, "_LOOK", YEAR)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.usefixtures("from_timer_to_timer")
def test_each_instance_of_a_year_goes_at_its_moment(tmp_path: Path, zone: str) -> None:
    reckoning = Reckoning(zone)
    assert len(reckoning.changes) in (2, 3)
    arrivals = _arrivals(reckoning, Random(zone))
    windows = {name: parse_windows(w, zone, days) for name, (w, days, _) in WINDOWS.items()}

    async def main() -> dict[str, float]:
        pair = GatedPair(tmp_path)
        pair.configs["b"] = replace(
            pair.configs["b"], hours=Hours("small hours", windows["small hours"])
        )
        pair.keeper.configure(windows)
        await pair.keeper.prepare()
        pair.start({"a", "b"})
        pair.keeper.start()
        for arrival in arrivals:
            await asyncio.sleep(arrival.at - wall())
            _receive(pair, arrival)
        # The last ones wait for days, but none for more than a month.
        await asyncio.sleep(BEGIN + YEAR + 25 * DAY - wall())
        pair.check()
        await pair.keeper.stop()
        await pair.stop()
        pair.real.close()
        return {s.uid: s.at + 1_700_000_000.0 for p in pair.peers.values() for s in p.stored}

    sent = run(main())
    expected = _expected(arrivals, reckoning)
    assert sent.keys() == expected.keys()
    late = {uid: sent[uid] - moment for uid, moment in expected.items()}
    wrong = {uid: by for uid, by in late.items() if not -0.001 <= by < 1.5}
    assert not wrong


def _receive(pair: GatedPair, arrival: Arrival) -> None:
    pair.number += 1
    ref, meta = entry(pair.number, wall())
    meta = meta._replace(
        sop_instance_uid=arrival.uid,
        study_instance_uid=arrival.study,
        series_instance_uid=f"{arrival.study}.1",
        routes=(RouteMeta(arrival.destination, "all", 0, arrival.plan.to_text()),),
    )
    added = pair.real.add(
        [(ref, meta)],
        Position(1, (pair.number + 1) * 1000),
        suppress_duplicates=True,
        same_bytes=lambda one, two: False,
    )
    pair.forwarder.notify(arrival.destination, sum(added.deliveries.values()))
    if added.gated:
        pair.keeper.notify()


@pytest.mark.parametrize("max_age", [None, 30 * DAY])
@pytest.mark.usefixtures("from_timer_to_timer")
def test_a_destination_that_is_dead_all_year_has_what_is_young_enough_when_it_is_back(
    tmp_path: Path, max_age: float | None
) -> None:
    retry = Retry(first=2.0, factor=2.0, cap=6 * 3600.0, jitter=0.25, max_age=max_age)
    every = 9.7 * DAY
    received: dict[str, float] = {}

    def old(uid: str) -> bool:
        return max_age is not None and wall() - received[uid] > max_age

    async def main() -> None:
        pair = Pair(tmp_path, retry=retry)
        peer, other = pair.peers["a"], pair.peers["b"]
        peer.connect_error = ConnectFailed("10.0.0.5:104: connection refused")
        pair.start()
        began = wall()
        while wall() < began + YEAR:
            pair.receive("a", count=2)
            received.update({f"1.2.3.{pair.number - n}": wall() for n in range(2)})
            pair.receive("b")
            await asyncio.sleep(2)
            assert len(other.stored) == pair.number / 3, "the other one waits for nothing"
            dead = sum(map(old, received))
            lines = {q.state: q.count for q in pair.real.queue_summary() if q.destination == "a"}
            assert lines[DeliveryState.DEAD] == dead
            assert lines[DeliveryState.READY] == len(received) - dead
            await asyncio.sleep(every - 2)
        assert not peer.asked
        waits = [later - sooner for sooner, later in pairwise(peer.connects)]
        for failures, wait in enumerate(waits):
            longest = min(2.0 ** min(failures + 1, 30), retry.cap)
            assert 0.75 * longest <= wait - peer.connect_latency <= longest + 0.1, failures
        assert sum(waits) > YEAR - 2 * retry.cap, "nor was it given up"
        young = {uid for uid in received if not old(uid)}
        peer.connect_error = None
        await asyncio.sleep(retry.cap + 60)
        assert sorted(peer.delivered) == sorted(young)
        assert len(peer.connects) <= len(waits) + 3
        account = pair.real.account(audit=True)
        assert account.balanced, account.differences
        assert account.destinations["a"].dead == len(received) - len(young)
        assert (max_age is None) == (len(young) == len(received))
        await pair.stop()
        pair.real.close()

    run(main())
