"""The feed of the index, in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from structlog.testing import capture_logs

from router.ingest.feed import BATCH, LIMIT, Entry, IndexFeed
from router.spool.errors import SpoolError, SpoolFull
from router.spool.index_types import AddResult
from router.spool.record import InstanceMeta, Position, Ref, RouteMeta
from tests.forward.virtual import run

META = InstanceMeta(0.0, "", "", "", "", "", "1.2", "1.2.3", "1.2.840.10008.1.2")


class FakeIndex:
    """Keeps what it is given; raises what `troubles` holds, one per call, first."""

    def __init__(self, *troubles: Exception) -> None:
        self.troubles = list(troubles)
        self.calls: list[tuple[float, list[int], Position]] = []
        self.called = asyncio.Event()
        self.hold: asyncio.Event | None = None

    async def add(self, entries: Sequence[Entry], position: Position) -> AddResult:
        now = asyncio.get_running_loop().time()
        self.calls.append((now, [ref.id for ref, _ in entries], position))
        self.called.set()
        if self.hold is not None:
            await self.hold.wait()
        if self.troubles:
            raise self.troubles.pop(0)
        return AddResult({"pacs": len(entries), "archive": 1}, 0, len(entries), 0)

    @property
    def ids(self) -> list[list[int]]:
        return [ids for _, ids, _ in self.calls]


def add(feed: IndexFeed, *ids: int) -> None:
    for n in ids:
        ref = Ref(n, 1, n * 100, n * 100 + 64, 10, 0)
        feed.add(ref, META, Position(1, n * 100 + 100))


def scenario(
    body: Callable[[FakeIndex, IndexFeed, list[tuple[str, int]]], Awaitable[None]],
    *troubles: Exception,
) -> list[str]:
    """Runs `body`, and returns what was logged."""
    told: list[tuple[str, int]] = []

    async def main() -> None:
        index = FakeIndex(*troubles)
        await body(
            index, IndexFeed(index.add, lambda name, count: told.append((name, count))), told
        )
        assert len(asyncio.all_tasks()) == 1

    with capture_logs() as logs:
        run(main())
    return [f"{line['log_level']} {line['event']} {line.get('why')}" for line in logs]


class _Short(list[object]):
    """Has no memory for the third."""

    def append(self, one: object) -> None:
        if len(self) == 2:
            raise MemoryError
        super().append(one)


@pytest.mark.parametrize("which", ["_entries", "_ends"])
def test_for_want_of_memory_the_position_never_gets_ahead(which: str) -> None:
    async def body(index: FakeIndex, feed: IndexFeed, told: list[tuple[str, int]]) -> None:
        setattr(feed, which, _Short())
        add(feed, 1, 2)
        with pytest.raises(MemoryError):
            add(feed, 3)
        setattr(feed, which, list(getattr(feed, which)))
        add(feed, 4, 5)
        feed.start()
        await index.called.wait()
        await feed.stop()
        assert index.ids == [[1, 2, 4, 5]]
        assert index.calls[0][2] <= Position(1, 600)

    scenario(body)


def test_batches_in_order_with_the_position_behind_the_last() -> None:
    async def body(index: FakeIndex, feed: IndexFeed, told: list[tuple[str, int]]) -> None:
        feed.start()
        add(feed, 1, 2, 3)
        await index.called.wait()
        add(feed, 4)
        await feed.stop()
        assert index.ids == [[1, 2, 3], [4]]
        assert [position for _, _, position in index.calls] == [
            Position(1, 400),
            Position(1, 500),
        ]
        assert told == [("pacs", 3), ("archive", 1), ("pacs", 1), ("archive", 1)]
        assert feed.waiting == 0

    assert scenario(body) == []


def test_who_waits_until_it_has_caught_up_waits_for_what_was_added_by_then() -> None:
    async def body(index: FakeIndex, feed: IndexFeed, _: object) -> None:
        clock = asyncio.get_running_loop().time
        await feed.caught_up()  # with nothing
        index.hold = asyncio.Event()
        feed.start()
        add(feed, 1)
        await index.called.wait()
        add(feed, 2)
        waiting = [asyncio.create_task(feed.caught_up()) for _ in range(2)]
        await asyncio.sleep(1.0)
        add(feed, 3)
        assert not any(task.done() for task in waiting)
        began = clock()
        index.hold.set()
        await asyncio.gather(*waiting)
        assert index.ids == [[1], [1, 2, 3]]
        assert clock() - began < 1.0
        await feed.caught_up()
        await feed.stop()

    assert scenario(body, SpoolError("disk I/O error")) == [
        "error the index cannot be written disk I/O error"
    ]


def test_what_comes_during_a_write_is_not_lost_with_it() -> None:
    async def body(index: FakeIndex, feed: IndexFeed, _: object) -> None:
        index.hold = asyncio.Event()
        feed.start()
        add(feed, 1)
        await index.called.wait()
        add(feed, 2, 3)
        assert feed.waiting == 3
        index.hold.set()
        await feed.stop()
        assert index.ids == [[1], [2, 3]]

    assert scenario(body) == []


def test_batches_are_bounded() -> None:
    async def body(index: FakeIndex, feed: IndexFeed, _: object) -> None:
        add(feed, *range(2 * BATCH + 5))
        feed.start()
        await feed.stop()
        assert [len(ids) for ids in index.ids] == [BATCH, BATCH, 5]
        assert [n for ids in index.ids for n in ids] == list(range(2 * BATCH + 5))

    assert scenario(body) == []


@pytest.mark.parametrize("error", [SpoolError("the index is locked"), ZeroDivisionError("oops")])
def test_an_index_that_fails_is_tried_again_later_and_later(error: Exception) -> None:
    """With the same instances, and those that came meanwhile; whatever the error is."""

    async def body(index: FakeIndex, feed: IndexFeed, told: list[tuple[str, int]]) -> None:
        feed.start()
        began = asyncio.get_running_loop().time()
        add(feed, 1)
        await index.called.wait()
        add(feed, 2)
        while len(index.calls) < 7:
            index.called.clear()
            await index.called.wait()
            if len(index.calls) == 3:
                assert feed.trouble == str(error)
        await feed.stop()
        times = [round(now - began, 3) for now, _, _ in index.calls]
        assert times == [0.0, 0.1, 0.6, 2.6, 7.6, 12.6, 17.6]
        assert index.ids == [[1]] + [[1, 2]] * 6
        assert told == [("pacs", 2), ("archive", 1)]
        assert feed.trouble == ""

    assert scenario(body, *[error] * 6) == [f"error the index cannot be written {error}"] * 6


def test_stopping_tries_once_more_at_once_and_gives_up() -> None:
    """What is left is in the spool, where the next start finds it."""

    async def body(index: FakeIndex, feed: IndexFeed, told: list[tuple[str, int]]) -> None:
        feed.start()
        add(feed, 1, 2)
        await asyncio.sleep(1.0)
        began = asyncio.get_running_loop().time()
        await feed.stop()
        assert asyncio.get_running_loop().time() == began
        assert feed.waiting == 2
        assert told == []

    scenario(body, *[SpoolFull("no space")] * 99)


def test_too_many_that_wait_are_a_reason_to_refuse() -> None:
    async def body(index: FakeIndex, feed: IndexFeed, _: object) -> None:
        assert feed.refusal == ""
        add(feed, *range(LIMIT - 1))
        assert feed.refusal == ""
        add(feed, LIMIT)
        assert feed.refusal == f"{LIMIT} instances wait for the index: it is slow"
        feed.start()
        await index.called.wait()
        await asyncio.sleep(0.01)
        assert feed.refusal == f"{LIMIT} instances wait for the index: no space"
        await feed.stop()
        assert feed.refusal == ""

    scenario(body, SpoolFull("no space"))


def test_stop_without_start() -> None:
    async def body(index: FakeIndex, feed: IndexFeed, _: object) -> None:
        add(feed, 1)
        await feed.stop()
        assert feed.waiting == 1

    assert scenario(body) == []


def _times(arrivals: Sequence[tuple[float, int, bool]], until: float) -> list[tuple[float, int]]:
    """When how many were written, of instances that come at these times; True goes somewhere."""
    written: list[tuple[float, int]] = []

    async def body(index: FakeIndex, feed: IndexFeed, _: object) -> None:
        feed.start()
        loop = asyncio.get_running_loop()
        began = loop.time()
        for at, number, routed in arrivals:
            await asyncio.sleep(began + at - loop.time())
            meta = META._replace(routes=(RouteMeta("pacs", "all"),)) if routed else META
            feed.add(Ref(number, 1, 0, 64, 10, 0), meta, Position(1, number))
        await asyncio.sleep(began + until - loop.time())
        written.extend((round(now - began, 3), len(ids)) for now, ids, _ in index.calls)
        await feed.stop()

    assert scenario(body) == []
    return written


def test_one_that_comes_alone_is_written_at_once() -> None:
    assert _times([(0.0, 1, False), (1.0, 2, True)], 2.0) == [(0.0, 1), (1.0, 1)]


def test_what_goes_somewhere_waits_for_the_shortest_pause_only() -> None:
    stream = [(n * 0.0011, n, True) for n in range(12)]
    assert _times(stream, 0.2) == [(0.0, 1), (0.005, 4), (0.01, 5), (0.015, 2)]


def test_what_goes_nowhere_waits_for_more_company() -> None:
    stream = [(n * 0.0011, n, False) for n in range(40)]
    assert _times(stream, 0.2) == [(0.0, 1), (0.03, 27), (0.071, 12)]


def test_it_is_written_with_the_first_that_goes_somewhere() -> None:
    stream = [(n * 0.001, n, n == 12) for n in range(14)]
    assert _times(stream, 0.2) == [(0.0, 1), (0.012, 12), (0.044, 1)]


def test_a_stop_does_not_wait_for_company() -> None:
    async def body(index: FakeIndex, feed: IndexFeed, _: object) -> None:
        feed.start()
        for wait in (0.001, 0.01):  # in the shortest pause, and in the one behind it
            add(feed, 1)
            await index.called.wait()
            index.called.clear()
            add(feed, 2)
            await asyncio.sleep(wait)
        began = asyncio.get_running_loop().time()
        await feed.stop()
        assert asyncio.get_running_loop().time() == began
        assert feed.waiting == 0

    assert scenario(body) == []
