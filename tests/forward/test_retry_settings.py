"""What the settings of a remote change: fates of statuses and failures, attempts, ages."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from router.forward.fates import in_words
from router.forward.verdict import Fate, judge
from router.net.errors import (
    AssociationAborted,
    AssociationBroken,
    AssociationError,
    AssociationRejected,
    ConnectFailed,
)
from router.net.retry import Retry
from router.spool import index_expire
from router.spool.errors import SpoolError
from router.spool.index_types import DeliveryState, Expired, Filter
from router.spool.plan import Plan
from router.spool.record import Position, RouteMeta
from tests.forward.fakes import Answer, House, timed_out, waiting
from tests.forward.test_failover import Pair, entry, scenario
from tests.forward.virtual import run, wall

D, T, P = Fate.DELIVERED, Fate.TEMPORARY, Fate.PERMANENT
READY, DEAD = DeliveryState.READY, DeliveryState.DEAD


@pytest.mark.parametrize(
    ("said", "status", "fate"),
    [
        ({"A7xx": "permanent"}, 0xA700, P),
        ({"Cxxx": "temporary"}, 0xC000, T),
        ({"Cxxx": "temporary", "C123": "permanent"}, 0xC123, P),
        ({"0110": "permanent"}, 0x0110, P),
        ({"0111": "delivered"}, 0x0111, D),
        ({"B006": "permanent"}, 0xB006, P),
        ({"B001": "delivered"}, 0xB001, D),
        ({"0xxx": "permanent"}, 0x0000, D),
        ({"A7xx": "permanent"}, 0xA900, P),
    ],
)
def test_a_status_means_what_the_settings_say(
    said: dict[str, str], status: int, fate: Fate
) -> None:
    assert judge(status, retry=Retry(statuses=said)).fate is fate


def test_every_status_that_is_not_named_means_what_it_meant() -> None:
    retry = Retry(statuses={"C123": "temporary"})
    others = [status for status in range(0x10000) if status != 0xC123]
    assert all(judge(status, retry=retry) == judge(status) for status in others)


def test_one_that_is_called_permanent_strains_nobody() -> None:
    assert judge(0xA700).strained
    assert not judge(0xA700, retry=Retry(statuses={"A7xx": "permanent"})).strained


@pytest.mark.parametrize(("status", "fates"), [(0xC000, "TTP"), (0xA9FF, "TTP"), (0x0122, "PPP")])
def test_what_archives_say_while_they_are_busy_may_be_asked_again(status: int, fates: str) -> None:
    retry = Retry(permanent_after=3)
    said = [judge(status, attempts=n, retry=retry).fate for n in (1, 2, 3)]
    assert said == [{"T": T, "P": P}[letter] for letter in fates]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (90, "90 s"),
        (1.5, "1.5 s"),
        (600, "10 min"),
        (7200, "2 h"),
        (216000, "2.5 d"),
        (1e6, "12 d"),
    ],
)
def test_ages_are_told_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def house(retry: Retry, steps: Callable[[House], Awaitable[None]]) -> None:
    async def main() -> None:
        one = House("pacs", retry=retry)
        one.start()
        await steps(one)
        await one.stop()

    run(main())


def test_attempts_are_counted_until_a_permanent_answer_is_believed() -> None:
    async def steps(one: House) -> None:
        one.peer.answer = lambda uid: Answer(0xC001)
        one.arrive("pacs", waiting(1))
        await one.index.until_closed("pacs")
        history = one.index.rows["pacs"][1].history
        assert [outcome.state for outcome in history] == [READY, READY, DEAD]

    house(Retry(permanent_after=3), steps)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("timeout", timed_out()),
        ("aborted", AssociationAborted("PACS", 0, 0)),
        ("broken", AssociationBroken("connection lost")),
    ],
)
@pytest.mark.parametrize("after", [1, 2])
def test_a_failure_in_mid_message_may_be_final(
    kind: str, error: AssociationError, after: int
) -> None:
    async def steps(one: House) -> None:
        one.peer.answer = lambda uid: error if uid.endswith(".1") else Answer(0)
        one.arrive("pacs", waiting(1), waiting(2))
        await one.index.until_closed("pacs")
        history = one.index.rows["pacs"][1].history
        assert [outcome.state for outcome in history] == [READY] * (after - 1) + [DEAD]
        assert history[-1].reason == str(error)
        assert one.index.count("pacs", DeliveryState.DELIVERED) == 1

    failures = {kind: "permanent"}
    house(Retry(failures=failures, permanent_after=after), steps)


def test_one_that_fails_beyond_its_age_is_dead() -> None:
    async def steps(one: House) -> None:
        one.peer.answer = lambda uid: Answer(0x0110)
        one.arrive("pacs", waiting(1, received_at=wall()))
        begun = wall()
        await one.index.until_closed("pacs")
        last = one.index.last("pacs", 1)
        assert last.state is DEAD
        assert re.match("given up after 6[0-5] min: 0110H", last.reason)
        assert 3600 <= last.at - begun <= 3600 + 300

    house(Retry(max_age=3600), steps)


def test_what_waits_for_one_that_is_down_is_dead_at_its_age(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.peers["a"].down()
        pair.receive("a", count=50)
        await asyncio.sleep(1800)
        pair.receive("a", count=7)
        await asyncio.sleep(1790)
        assert dead(pair) == 0
        await asyncio.sleep(15)
        assert dead(pair) == 50
        (item, *_) = pair.real.queue_list(Filter(state=DEAD), limit=10)
        assert item.delivery.reason == "older than 60 min; 10.0.0.5:104: connection refused"
        assert item.delivery.attempts == 0
        await asyncio.sleep(1800)
        assert dead(pair) == 57
        assert pair.counts.failed.count(("a", "dead")) == 57
        pair.up_again("a")
        pair.receive("a")
        await asyncio.sleep(400)
        assert pair.where() == {"a": 1}

    scenario(tmp_path, steps, retry=Retry(max_age=3600))


def test_what_was_given_up_is_told_though_the_index_fails_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def steps(pair: Pair) -> None:
        calls: list[int] = []
        real = pair.queues.expire

        async def failing(*args: Any) -> Expired:
            expired = await real(*args) if len(calls) != 1 else None
            if expired is None or expired.count:
                calls.append(0 if expired is None else expired.count)
            if expired is None:
                raise SpoolError("input/output error")
            return expired

        monkeypatch.setattr(pair.queues, "expire", failing)
        pair.peers["a"].down()
        pair.receive("a", count=50)
        await asyncio.sleep(3700)
        assert calls == [20, 0, 20, 10]
        assert dead(pair) == 50
        assert pair.counts.failed.count(("a", "dead")) == 50
        assert pair.gated == 2, "once for each time that some were given up"

    scenario(tmp_path, steps, retry=Retry(max_age=3600))


def test_many_old_ones_behind_gates_are_not_looked_through_at_each_arrival(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_expire, "_PAGE", 1)
    monkeypatch.setattr(index_expire, "_PAGES", 1)

    async def steps(pair: Pair) -> None:
        calls: list[float] = []
        real = pair.queues.expire

        async def counted(*args: Any) -> Expired:
            calls.append(wall())
            return await real(*args)

        monkeypatch.setattr(pair.queues, "expire", counted)
        pair.peers["a"].down()
        pair.receive("a", count=50, schedule="day")
        await asyncio.sleep(3700)
        calls.clear()
        for _ in range(100):
            pair.receive("a")
            await asyncio.sleep(1.0)
        assert 50 <= len(calls) <= 160
        for gate in pair.real.gates():
            while pair.real.open_gate(gate.id).more:
                pass
        pair.forwarder.notify("a")
        await asyncio.sleep(60)
        assert dead(pair) == 50

    scenario(tmp_path, steps, retry=Retry(max_age=3600))


def test_an_operators_retry_gives_it_its_time_again(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.peers["a"].down()
        pair.receive("a", count=5)
        await asyncio.sleep(3700)
        assert dead(pair) == 5
        pair.real.retry(Filter(destination="a"), at=wall())
        pair.forwarder.refresh()
        await asyncio.sleep(3500)
        assert dead(pair) == 0
        await asyncio.sleep(200)
        assert dead(pair) == 5

    scenario(tmp_path, steps, retry=Retry(max_age=3600))


def test_what_repeats_one_that_is_too_old_is_told_to_its_gate(tmp_path: Path) -> None:
    plan = Plan(schedule="day").to_text()

    def receive(pair: Pair, number: int) -> None:
        ref, meta = entry(number, wall())
        meta = meta._replace(sop_instance_uid="1.2", routes=(RouteMeta("a", "all", 0, plan),))
        pair.real.add(
            [(ref._replace(crc=1), meta._replace(study_instance_uid="1"))],
            Position(1, (number + 1) * 1000),
            suppress_duplicates=True,
            same_bytes=lambda one, two: True,
        )
        for gate in pair.real.gates():
            pair.real.open_gate(gate.id)
        pair.forwarder.notify("a")

    async def steps(pair: Pair) -> None:
        pair.peers["a"].down()
        receive(pair, 1)
        await asyncio.sleep(1800)
        receive(pair, 2)
        await asyncio.sleep(1790)
        assert (dead(pair), pair.gated, pair.real.gates()) == (0, 0, [])
        await asyncio.sleep(15)
        assert (dead(pair), pair.gated) == (1, 1)
        (gate,) = pair.real.gates()
        assert gate.instances == 1

    scenario(tmp_path, steps, retry=Retry(max_age=3600))


def test_one_that_is_up_and_slow_loses_nothing_by_age(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.peers["a"].latency = lambda uid: 20.0
        pair.receive("a", count=50)
        await asyncio.sleep(1100)
        assert pair.where() == {"a": 50}
        assert dead(pair) == 0

    scenario(tmp_path, steps, retry=Retry(max_age=100))


def test_another_has_it_before_it_is_too_old(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.peers["a"].connect_error = AssociationRejected("PACS", 1, 1, 3)
        pair.receive("a", "b", count=50)
        pair.receive("a", count=3)
        await asyncio.sleep(30)
        assert pair.where() == {"b": 50}
        assert dead(pair) == 3

    scenario(tmp_path, steps, retry=Retry(failures={"rejected": "permanent"}))


def test_a_rejection_that_is_not_transient_may_be_final(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        for error in (AssociationRejected("PACS", 2, 3, 1), ConnectFailed("refused")):
            pair.peers["a"].connect_error = error
            pair.receive("a", count=5)
            await asyncio.sleep(1000)
            assert dead(pair) == 0
        pair.peers["a"].connect_error = AssociationRejected("PACS", 1, 1, 7)
        await asyncio.sleep(301)
        assert dead(pair) == 0, "once is not twice"
        await asyncio.sleep(301)
        assert dead(pair) == 10
        (item, *_) = pair.real.queue_list(Filter(state=DEAD), limit=1)
        assert "called AE title not recognised" in item.delivery.reason
        pair.up_again("a")
        pair.receive("a")
        await asyncio.sleep(301)
        assert pair.where() == {"a": 1}, "what came since is tried"

    scenario(tmp_path, steps, retry=Retry(failures={"rejected": "permanent"}, permanent_after=2))


def test_a_rejection_by_who_was_called_before_a_reload_counted_for_who_is_called_now() -> None:
    """Regression: with that one it was twice, and what waited was dead."""

    async def main() -> None:
        house = House("pacs")
        house.peer.connect_error = AssociationRejected("PACS", 1, 1, 7)
        house.peer.connect_latency = 5.0
        house.start()
        door = house.forwarder._destinations["pacs"]._door
        house.arrive("pacs", waiting(1))
        await asyncio.sleep(1)
        house.forwarder.configure([replace(house.configs["pacs"], identity=1, peer=1)])
        house.peer.connect_latency = 50.0
        await asyncio.sleep(10)
        assert house.counts.associations_failed == [("pacs", "rejected")]
        assert (door.rejected, door.failed_at) == (0, 0.0)
        assert house.counts.availability == [], "nobody knows yet"
        await asyncio.sleep(50)
        assert door.rejected == 1
        await house.stop()

    run(main())


def dead(pair: Pair) -> int:
    return sum(q.count for q in pair.real.queue_summary() if q.state is DEAD)
