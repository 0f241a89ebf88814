"""The wall clock is set, by hours and by years: queues go on, nothing spins, nothing is sent twice.

Waits run by the monotonic clock.  The wall clock says when something that was deferred falls due,
since that must outlive a restart, and it may be wrong then or now.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from router.net.settings import Retry
from router.spool.index import Index
from router.spool.index_types import DeliveryState, Filter, Outcome
from router.spool.record import Position
from tests.forward import fakes
from tests.forward.fakes import Answer, House
from tests.forward.test_with_index import Gateway, entry
from tests.forward.virtual import run, wall

HOUR = 3600.0
YEAR = 365 * 24 * HOUR
PATIENCE = 1000.0
"""Virtual seconds: the longest deferral (300), the longest sleep (300), and some."""
COUNT = 20


class Clock:
    """The wall clock as somebody sets it."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return wall() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(fakes, "wall", made)
    return made


def _add(index: Index, at: float, first: int = 1, count: int = COUNT) -> None:
    index.add(
        [entry(n, at, "pacs") for n in range(first, first + count)],
        Position(1, (first + count) * 1000),
        suppress_duplicates=True,
        same_bytes=lambda one, two: False,
    )


class CountingGateway(Gateway):
    """Counts the calls."""

    calls = 0

    async def lease(self, *args: object) -> list[fakes.Waiting]:
        self.calls += 1
        return await super().lease(*args)  # type: ignore[arg-type]


Steps = Callable[[Clock], None]
STEPS: dict[str, tuple[float, float]] = {
    # While the first attempts are made, and from then on.
    "an hour forward": (0.0, HOUR),
    "an hour back": (0.0, -HOUR),
    "years forward": (0.0, 10 * YEAR),
    "years back": (0.0, -10 * YEAR),
    "it was minutes ahead": (20 * 60.0, 0.0),
    "it was an hour ahead": (HOUR, 0.0),
    "it was years ahead": (10 * YEAR, 0.0),
    "it was years behind": (-10 * YEAR, 0.0),
}


@pytest.mark.parametrize("step", list(STEPS))
@pytest.mark.parametrize("restart", [False, True], ids=["at work", "over a restart"])
def test_what_was_deferred_is_sent_before_long(
    tmp_path: Path, clock: Clock, step: str, restart: bool
) -> None:
    async def scenario() -> None:
        before, after = STEPS[step]
        clock.ahead = before
        index = Index.open(tmp_path / "index.sqlite")
        gateway = CountingGateway(index)
        retry = Retry(first=200.0, cap=300.0)
        house = House("pacs", index=gateway, retry=retry)
        house.peer.answer = lambda uid: Answer(0x0110)
        house.start()
        _add(index, clock())
        house.forwarder.notify("pacs", COUNT)
        await asyncio.sleep(5)
        assert len(house.peer.asked) == COUNT, "each was tried once"
        house.peer.answer = lambda uid: Answer(0)
        if restart:
            await house.stop()
            index.close()
        clock.ahead = after
        if restart:
            index = Index.open(tmp_path / "index.sqlite")
            gateway = CountingGateway(index)
            house = House("pacs", index=gateway, retry=retry)
            house.start()
        await asyncio.sleep(PATIENCE)
        assert index.account().destinations["pacs"].delivered == COUNT
        assert len(house.peer.delivered) == COUNT, "sent twice"
        assert gateway.calls < 100, "it span"
        await house.stop()
        index.close()

    run(scenario())


def test_a_clock_that_jumps_to_and_fro_spins_nothing(tmp_path: Path, clock: Clock) -> None:
    async def scenario() -> None:
        index = Index.open(tmp_path / "index.sqlite")
        gateway = CountingGateway(index)
        house = House("pacs", index=gateway, retry=Retry(first=30.0, cap=60.0))
        refused: set[str] = set()

        def answer(uid: str) -> Answer:
            again = uid in refused
            refused.add(uid)
            return Answer(0 if again else 0x0110)

        house.peer.answer = answer
        house.start()
        for turn in range(60):
            clock.ahead = (YEAR, -YEAR, 0.0)[turn % 3]
            _add(index, clock(), 1 + turn * COUNT)
            house.forwarder.notify("pacs", COUNT)
            await asyncio.sleep(10)
        clock.ahead = 0.0
        await asyncio.sleep(PATIENCE)
        account = index.account()
        assert account.balanced
        assert account.destinations["pacs"].delivered == 60 * COUNT
        assert len(house.peer.delivered) == 60 * COUNT
        assert len(house.peer.asked) <= 2 * 60 * COUNT
        assert gateway.calls < 2000
        await house.stop()
        index.close()

    run(scenario())


def test_the_order_of_a_queue_is_that_of_arrival_whatever_the_clock_said(tmp_path: Path) -> None:
    index = Index.open(tmp_path / "index.sqlite")
    for number, at in enumerate((YEAR, 0.0, -YEAR, 2 * YEAR), 1):
        _add(index, 1.7e9 + at, number * 11, 1)  # of one study
    for now in (1.7e9, 0.0, 9e9):
        assert [w.ref.id for w in index.lease("pacs", 10, now, ())] == [11, 22, 33, 44]
    index.close()


def test_nothing_that_is_not_settled_is_purged_whatever_the_clock_says(tmp_path: Path) -> None:
    index = Index.open(tmp_path / "index.sqlite")
    _add(index, 1.7e9)
    ended = [
        Outcome(1, "pacs", DeliveryState.DELIVERED, 1.7e9),
        Outcome(2, "pacs", DeliveryState.DEAD, -1e12),
        Outcome(3, "pacs", DeliveryState.READY, 1e12, due_at=1e12),
        Outcome(4, "pacs", DeliveryState.DELIVERED, 1e12),
    ]
    index.settle(ended)
    purged = index.purge(1.7e9 + 100 * YEAR, 1000)
    assert purged.count == 1
    left = [row.ref.id for row in index.instances(Filter(), 100)]
    assert left == list(range(2, COUNT + 1))
    assert index.purge(float("inf"), 1000).count == 1, "settled while the clock was ahead"
    assert index.account(audit=True).balanced
    index.close()
