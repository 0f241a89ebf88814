"""A member that answers and is not known to store gets one instance, in virtual time."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from router.forward.trial import PATIENCE
from router.net.settings import Retry
from tests.forward.fakes import Answer, FakePeer, timed_out
from tests.forward.test_failover import Pair, scenario

OFTEN = Retry(max_attempts=1000)


def short_of_resources(peer: FakePeer) -> None:
    peer.answer = lambda uid: Answer(0xA700)


def silent(peer: FakePeer) -> None:
    peer.latency = lambda uid: 60.0 if uid else 0.01
    peer.answer = lambda uid: timed_out()


def hangs_up(peer: FakePeer) -> None:
    peer.poison = lambda pair: not pair[0].endswith(".1.1")


def well(peer: FakePeer) -> None:
    peer.answer = lambda uid: Answer(0)
    peer.latency = lambda uid: 0.001
    peer.poison = lambda pair: False
    peer.connect_error = None


def moved(pair: Pair, origin: str, target: str) -> int:
    counts: Counter[tuple[str, str]] = Counter()
    for one, other, count in pair.counts.diverted:
        counts[one, other] += count
    return counts[origin, target]


@pytest.mark.parametrize("mode", [short_of_resources, silent, hangs_up])
def test_a_backlog_stays_where_it_is_while_the_first_answers_and_does_not_store(
    tmp_path: Path, mode: object
) -> None:
    async def steps(pair: Pair) -> None:
        mode(pair.peers["a"])  # type: ignore[operator]
        pair.peers["b"].latency = lambda uid: 5.0
        pair.receive("a", "b", count=1000)
        await asyncio.sleep(3600)
        assert pair.peers["a"].echoes, "it was believed now and then"
        assert 5 <= moved(pair, "b", "a") <= 70, "one for each time"
        assert moved(pair, "a", "b") <= 1000 + moved(pair, "b", "a")
        assert len(pair.peers["a"].connects) < 200
        assert len(pair.peers["b"].stored) > 600, "which has not waited for it"
        well(pair.peers["a"])
        await asyncio.sleep(2000)
        assert sum(pair.where().values()) == 1000
        assert pair.where()["a"] > 10
        pair.check()

    with capture_logs():
        scenario(tmp_path, steps, retry=OFTEN)


def test_once_it_has_stored_one_it_gets_all_of_it_at_once(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.peers["a"].down()
        pair.peers["b"].latency = lambda uid: 600.0
        pair.receive("a", "b", count=500)
        await asyncio.sleep(100)
        pair.up_again("a")
        while not pair.peers["a"].echoes:
            await asyncio.sleep(1)
        await asyncio.sleep(5)
        assert moved(pair, "b", "a") == pair.where()["a"] > 200, "all but what b has in hand"

    scenario(tmp_path, steps)


def test_what_comes_for_it_waits_a_moment_for_the_one_that_is_tried(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        peer = pair.peers["a"]
        peer.down()
        pair.receive("a", "b")
        await asyncio.sleep(10)
        pair.up_again("a")
        while not peer.echoes:
            await asyncio.sleep(1)
        assert pair.where() == {"b": 1}
        peer.latency = lambda uid: PATIENCE - 1
        pair.receive("a", "b", count=3)
        await asyncio.sleep(100)
        assert pair.where() == {"a": 3, "b": 1}, "it took its time, and was waited for"

    scenario(tmp_path, steps)


def test_what_comes_for_one_that_is_silent_goes_to_another_within_seconds(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        peer = pair.peers["a"]
        silent(peer)
        peer.down()
        pair.receive("a", "b")
        await asyncio.sleep(10)
        pair.up_again("a")
        while not peer.echoes:
            await asyncio.sleep(1)
        pair.receive("a", "b", count=50)
        await asyncio.sleep(PATIENCE + 2)
        assert len(peer.asked) == 1
        assert pair.where() == {"b": 50}
        pair.receive("a", "b", count=50)
        await asyncio.sleep(2)
        assert pair.where() == {"b": 100}
        await asyncio.sleep(70)
        assert pair.where() == {"b": 101}, "with the one that was tried"
        assert len(peer.asked) == 1
        pair.check()

    with capture_logs():
        scenario(tmp_path, steps, retry=OFTEN)


def test_only_one_association_and_one_message_of_a_window(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        peer = pair.peers["a"]
        peer.window = 8
        peer.down()
        pair.receive("a", "b")
        await asyncio.sleep(10)
        pair.up_again("a")
        while not peer.echoes:
            await asyncio.sleep(1)
        peer.latency = lambda uid: 3.0
        pair.receive("a", "b", count=100)
        await asyncio.sleep(2)
        assert len(peer.asked) == 1
        await asyncio.sleep(5)
        assert len(peer.asked) > 20

    scenario(tmp_path, steps, associations=4, asynchronous_operations=8)


def test_one_that_cannot_be_sent_tells_nothing_and_another_is_tried(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        peer = pair.peers["a"]
        peer.down()
        pair.peers["b"].latency = lambda uid: 600.0
        pair.receive("a", "b", count=400)
        await asyncio.sleep(10)
        pair.spool.damaged.update(range(1, 401))
        pair.up_again("a")
        while not pair.spool.readers or not any(reader.damaged for reader in pair.spool.readers):
            await asyncio.sleep(1)
        pair.spool.damaged.clear()
        await asyncio.sleep(30)
        assert moved(pair, "b", "a") == 1
        await asyncio.sleep(60)
        assert pair.where()["a"] == moved(pair, "b", "a") - 1 > 100

    with capture_logs():
        scenario(tmp_path, steps)
