"""Failover out of the real index, between destinations without a network, in virtual time."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from router.net.errors import ConnectFailed
from router.net.settings import Retry
from router.spool.errors import SpoolError
from router.spool.index import Index
from router.spool.index_types import (
    DeliveryState,
    Expired,
    Filter,
    Moved,
    Outcome,
    Settled,
    Waiting,
)
from router.spool.plan import Mode, Plan
from router.spool.record import Position, RouteMeta
from tests.forward.fakes import Answer, House
from tests.forward.test_with_index import Gateway, entry
from tests.forward.virtual import run, wall


class Diverting(Gateway):
    """With what a diverter needs; `broken` is what a diversion raises."""

    broken: Exception | None = None
    asked = 0
    on_the_way = 0.0
    """Seconds from the look at the queue until its answer is there."""

    refused: Callable[[str], None]

    async def settle(self, outcomes: Sequence[Outcome]) -> Settled:
        settled = await super().settle(outcomes)
        for name in settled.refused:
            self.refused(name)
        return settled

    async def lease(
        self,
        destination: str,
        limit: int,
        now: float,
        exclude: Collection[int],
        least_priority: int | None = None,
    ) -> list[Waiting]:
        leased = self.index.lease(destination, limit, now, exclude, least_priority)
        await asyncio.sleep(0.001 + self.on_the_way)
        return leased

    async def divert(
        self,
        destination: str,
        up: Collection[str],
        exclude: Collection[int],
        at: float,
        give_way: float | None,
        *,
        urgent: Mapping[str, int],
        gone: bool,
        limit: int | None,
    ) -> Moved:
        await asyncio.sleep(0.001)
        self.asked += 1
        if self.broken is not None:
            raise self.broken
        return self.index.divert(
            destination, up, exclude, at, limit or 20, give_way, urgent=urgent, gone=gone
        )

    async def expire(
        self,
        destination: str,
        before: float,
        reason: str,
        exclude: Collection[int],
        at: float,
        after: int,
    ) -> Expired:
        await asyncio.sleep(0.001)
        return self.index.expire(destination, before, reason, exclude, at, 20, after=after)

    async def waiting_at(self) -> list[str]:
        await asyncio.sleep(0.001)
        lines = self.index.queue_summary()
        return [q.destination for q in lines if q.state is DeliveryState.READY and q.count]


class Pair(House):
    """Destinations a, b and c; what is received goes to the first of the members given."""

    def __init__(self, path: Path, **options: object) -> None:
        self.real = Index.open(path / "index.sqlite")
        self.queues = Diverting(self.real)
        options = {"associations": 1} | options
        queues = self.queues
        super().__init__("a", "b", "c", index=queues, divert=queues, expire=queues, **options)
        self.queues.refused = self.forwarder.refused
        self.number = 0

    def receive(
        self,
        *members: str,
        mode: Mode = "failover",
        count: int = 1,
        priority: int = 0,
        **plan: str,
    ) -> None:
        text = Plan(mode, members if len(members) > 1 else (), **plan).to_text()  # type: ignore[arg-type]
        entries = []
        for _ in range(count):
            self.number += 1
            ref, meta = entry(self.number, wall())
            route = RouteMeta(members[0], "all", priority, text)
            entries.append((ref, meta._replace(routes=(route,))))
        added = self.real.add(
            entries,
            Position(1, (self.number + 1) * 1000),
            suppress_duplicates=True,
            same_bytes=lambda one, two: False,
        )
        for name, more in (added.deliveries | added.gated).items():
            self.forwarder.notify(name, more)

    def up_again(self, name: str) -> None:
        self.peers[name].connect_error = None

    def where(self) -> dict[str, int]:
        return {name: len(peer.stored) for name, peer in self.peers.items() if peer.stored}

    def check(self) -> None:
        """Everything arrived, and once."""
        times = Counter(uid for peer in self.peers.values() for uid in peer.delivered)
        assert set(times.values()) <= {1}, [uid for uid, count in times.items() if count > 1]
        assert len(times) == self.number
        account = self.real.account(audit=True)
        assert account.balanced, account.differences
        assert sum(d.waiting for d in account.destinations.values()) == 0


def scenario(
    path: Path, steps: Callable[[Pair], Awaitable[None]], *, start: bool = True, **options: object
) -> None:
    async def main() -> None:
        pair = Pair(path, **options)
        if start:
            pair.start({"a", "b"})
        await steps(pair)
        await pair.stop()
        pair.real.close()

    run(main())


def test_while_the_first_is_up_it_has_everything(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.receive("a", "b", count=50)
        await asyncio.sleep(60)
        assert pair.where() == {"a": 50}
        pair.check()

    scenario(tmp_path, steps)


def test_the_second_has_what_waits_for_the_first_and_what_comes_then(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.peers["a"].down()
        pair.receive("a", "b", count=50)
        await asyncio.sleep(30)
        assert pair.where() == {"b": 50}
        pair.receive("a", "b", count=5)
        await asyncio.sleep(1)
        assert pair.where() == {"b": 55}
        pair.check()
        assert sum(count for *way, count in pair.counts.diverted if way == ["a", "b"]) == 55

    with capture_logs() as lines:
        scenario(tmp_path, steps)
    (line,) = [line for line in lines if line["event"] == "others take what waits"]
    assert line["destination"] == "a"


def test_a_fall_in_the_middle_of_a_study_and_back(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.peers["a"].latency = lambda uid: 0.05
        pair.receive("a", "b", count=100)
        await asyncio.sleep(1)
        pair.peers["a"].down()
        await asyncio.sleep(60)
        assert 5 < pair.where()["a"] < 30
        assert sum(pair.where().values()) == 100
        pair.up_again("a")
        await asyncio.sleep(300)
        at_b = pair.where()["b"]
        pair.receive("a", "b", count=10)
        await asyncio.sleep(60)
        assert pair.where()["b"] == at_b, "back at the first"
        pair.check()

    scenario(tmp_path, steps)


def test_one_that_is_down_is_probed_though_all_of_its_is_elsewhere(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.peers["a"].down()
        pair.receive("a", "b", count=5)
        await asyncio.sleep(1000)
        assert pair.where() == {"b": 5}
        tries = len(pair.peers["a"].connects)
        assert tries >= 6
        pair.up_again("a")
        await asyncio.sleep(310)
        assert pair.peers["a"].echoes
        assert ("a", True) in pair.counts.availability
        connects = len(pair.peers["a"].connects)
        await asyncio.sleep(2000)
        assert len(pair.peers["a"].connects) == connects, "one that is up is left alone"

    scenario(tmp_path, steps)


def test_a_peer_that_refuses_verification_is_found_up_all_the_same(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.peers["a"].accepts = lambda proposal: not proposal[0].endswith(".1.1")
        for _ in range(2):
            pair.peers["a"].down()
            pair.receive("a", "b", count=5)
            await asyncio.sleep(20)
            assert not pair.forwarder.snapshot()["a"].up
            pair.up_again("a")
            await asyncio.sleep(60)
            assert pair.forwarder.snapshot()["a"].up
            pair.receive("a")
            await asyncio.sleep(10)
        assert pair.where() == {"a": 2, "b": 10}

    scenario(tmp_path, steps)


def test_one_that_no_rule_fails_over_to_is_not_probed_for_nothing(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.peers["c"].down()
        pair.receive("c")
        await asyncio.sleep(10)
        pair.real.drop(Filter(destination="c"), "not wanted", at=wall())
        pair.forwarder.refresh()
        await asyncio.sleep(10)
        tries = len(pair.peers["c"].connects)
        await asyncio.sleep(2000)
        assert len(pair.peers["c"].connects) == tries

    scenario(tmp_path, steps)


def test_what_waits_at_the_second_goes_back_when_the_first_recovers(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.peers["a"].down()
        pair.peers["b"].latency = lambda uid: 10.0
        pair.receive("a", "b", count=400)
        await asyncio.sleep(100)
        pair.up_again("a")
        await asyncio.sleep(9000)
        assert pair.where()["a"] > 100
        pair.check()

    scenario(tmp_path, steps)


def test_first_available_stays_where_it_went(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.peers["a"].down()
        pair.peers["b"].latency = lambda uid: 10.0
        pair.receive("a", "b", mode="first_available", count=400)
        await asyncio.sleep(100)
        pair.up_again("a")
        await asyncio.sleep(9000)
        assert pair.where() == {"b": 400}
        pair.check()

    scenario(tmp_path, steps)


def test_with_all_of_them_down_it_waits_for_whichever_comes_first(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.peers["a"].down()
        pair.peers["b"].down()
        pair.receive("a", "b", count=30)
        await asyncio.sleep(1000)
        assert pair.where() == {}
        pair.up_again("b")
        await asyncio.sleep(320)
        assert pair.where() == {"b": 30}
        pair.check()

    scenario(tmp_path, steps)


def test_what_has_no_other_destination_waits(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.peers["a"].down()
        pair.receive("a", count=10)
        pair.receive("a", "b", count=10)
        await asyncio.sleep(100)
        assert pair.where() == {"b": 10}
        pair.up_again("a")
        await asyncio.sleep(400)
        assert pair.where() == {"a": 10, "b": 10}
        pair.check()

    scenario(tmp_path, steps)


def test_an_instance_whose_answer_was_lost_may_be_at_both_and_that_is_said(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        peer = pair.peers["a"]
        peer.latency = lambda uid: 1.0
        pair.receive("a", "b", count=10)
        await asyncio.sleep(2.5)
        peer.down()
        for association in peer.associations:
            association.end()
        await asyncio.sleep(60)
        assert sorted(peer.asked[: len(peer.stored)]) == sorted(peer.delivered)
        (lost,) = peer.asked[len(peer.stored) :]
        assert lost in pair.peers["b"].delivered
        assert len(pair.peers["b"].stored) == 10 - len(peer.stored)
        pair.check()

    with capture_logs() as lines:
        scenario(tmp_path, steps)
    (line,) = [line for line in lines if line["event"] == "others take what waits"]
    assert line["sent_without_answer"] == 1


def test_a_destination_that_is_gone_from_the_configuration_is_one_that_is_down(
    tmp_path: Path,
) -> None:
    async def steps(pair: Pair) -> None:
        pair.peers["a"].latency = lambda uid: 1.0
        pair.receive("a", "b", count=30)
        await asyncio.sleep(5.5)
        pair.forwarder.configure([pair.configs["b"], pair.configs["c"]], {"b", "c"})
        await asyncio.sleep(60)
        assert pair.where()["b"] >= 20
        pair.check()

    scenario(tmp_path, steps)


def test_one_that_was_gone_already_at_the_start_too(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.receive("a", "b", count=30)
        pair.receive("long gone", "b", count=30)
        pair.forwarder.start([pair.configs["b"]], ())
        await asyncio.sleep(60)
        assert pair.where() == {"b": 60}
        pair.receive("long gone", "b")
        await asyncio.sleep(1)
        assert pair.where() == {"b": 61}
        pair.check()

    scenario(tmp_path, steps, start=False)


def test_one_that_comes_and_goes_is_not_believed_at_once(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.peers["a"].answer = lambda uid: Answer(0xA700)
        for _ in range(600):
            pair.receive("a", "b")
            await asyncio.sleep(1)
        await asyncio.sleep(700)
        asked = len(pair.peers["a"].asked)
        assert asked < 60, "each time that it is believed it costs a few attempts"
        pair.check()
        pair.peers["a"].answer = lambda uid: Answer(0)
        await asyncio.sleep(400)
        pair.receive("a", "b", count=10)
        await asyncio.sleep(10)
        assert pair.where()["a"] >= 10

    scenario(tmp_path, steps, retry=Retry(max_attempts=1000))


def test_what_waits_behind_a_gate_goes_along(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.peers["a"].down()
        pair.receive("a")
        await asyncio.sleep(5)
        pair.receive("a", "b", count=5, after="study-complete")
        await asyncio.sleep(5)
        assert {gate.destination for gate in pair.real.gates()} == {"b"}
        for gate in pair.real.gates():
            pair.real.open_gate(gate.id)
        pair.forwarder.notify("b", 5)
        await asyncio.sleep(5)
        assert pair.where() == {"b": 5}

    scenario(tmp_path, steps)


def test_after_a_restart_it_goes_on(tmp_path: Path) -> None:
    async def first(pair: Pair) -> None:
        pair.peers["a"].down()
        pair.peers["b"].latency = lambda uid: 1.0
        pair.receive("a", "b", count=50)
        await asyncio.sleep(20)

    async def second(pair: Pair) -> None:
        pair.peers["a"].down()
        await asyncio.sleep(60)
        account = pair.real.account(audit=True)
        assert account.balanced
        assert account.destinations["b"].delivered == 50

    scenario(tmp_path, first)
    scenario(tmp_path, second)


@pytest.mark.parametrize("error", [SpoolError("disk I/O error"), RuntimeError("ours")])
def test_an_index_in_trouble_is_not_hammered_and_then_it_goes_on(
    tmp_path: Path, error: Exception
) -> None:
    async def steps(pair: Pair) -> None:
        pair.queues.broken = error
        pair.peers["a"].down()
        for _ in range(1000):
            pair.receive("a", "b")
            await asyncio.sleep(0.1)
        assert pair.queues.asked < 15
        pair.queues.broken = None
        await asyncio.sleep(120)
        assert pair.where() == {"b": 1000}
        pair.check()

    with capture_logs():
        scenario(tmp_path, steps)


def test_destinations_that_are_all_up_are_not_asked_about(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        await asyncio.sleep(1)
        before = pair.queues.asked
        for _ in range(100):
            pair.receive("a", "b")
            await asyncio.sleep(0.05)
        assert pair.queues.asked == before

    scenario(tmp_path, steps)


def test_nothing_is_moved_that_is_on_its_way_from_the_queue(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        pair.peers["a"].down()
        pair.peers["b"].latency = lambda uid: 1.0
        pair.receive("a", "b", count=5)
        await asyncio.sleep(20)
        pair.queues.on_the_way = 300.0
        pair.receive("a", "b", count=50)
        await asyncio.sleep(10)
        pair.up_again("a")
        await asyncio.sleep(3000)
        pair.check()
        assert sum(pair.where().values()) == 55

    scenario(tmp_path, steps)


def test_what_was_in_flight_as_it_fell_does_not_wait_for_the_next_probe(tmp_path: Path) -> None:
    async def steps(pair: Pair) -> None:
        peer = pair.peers["a"]
        peer.window = 4
        peer.latency = lambda uid: 0.1 * int(uid.rpartition(".")[2])
        pair.receive("a", "b", count=4)
        await asyncio.sleep(0.05)
        peer.connect_error = ConnectFailed("10.0.0.5:104: connection refused")
        peer.answer = lambda uid: Answer(0xA700)
        await asyncio.sleep(5)
        assert pair.where() == {"b": 4}
        pair.check()

    scenario(tmp_path, steps, retry=Retry(first=600.0, cap=600.0), asynchronous_operations=4)
