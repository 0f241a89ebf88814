"""Leasing and settling by themselves."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import structlog

from router.forward.board import Board
from router.forward.ledger import Ledger
from router.spool.errors import SpoolError
from router.spool.index import Index
from router.spool.index_types import DeliveryState, Outcome, Settled, Waiting
from tests.forward.fakes import FakeIndex, waiting
from tests.forward.virtual import run, wall
from tests.spool.index_samples import add, meta, ref


def made(index: FakeIndex) -> tuple[Ledger, Board]:
    board = Board(limit=10, minimum=2, byte_limit=10**9)
    ledger = Ledger(
        "pacs",
        index,
        board,
        clock=wall,
        monotonic=asyncio.get_running_loop().time,
        random=Random(1),
        log=structlog.get_logger(),
    )
    return ledger, board


def delivered(number: int) -> Outcome:
    return Outcome(number, "pacs", DeliveryState.DELIVERED, wall(), 0)


def test_outcomes_wait_for_company_but_not_long_and_not_when_idle() -> None:
    async def scenario() -> None:
        index = FakeIndex()
        index.add("pacs", *(waiting(n) for n in range(1, 6)))
        ledger, board = made(index)
        await ledger.lease()
        assert ledger.record(delivered(1))
        assert not ledger.record(delivered(2))
        await ledger.settle(idle=False)
        assert index.settles == []
        wake = ledger.next_wake()
        assert wake is not None
        await asyncio.sleep(wake - asyncio.get_running_loop().time())
        await ledger.settle(idle=False)
        assert index.settles == [2]
        assert list(board.ids) == [3, 4, 5]
        ledger.record(delivered(3))
        await ledger.settle(idle=True)
        assert index.settles == [2, 1]
        assert ledger.next_wake() is None

    run(scenario())


def test_trouble_passes_by_itself_when_there_is_nothing_to_settle() -> None:
    async def scenario() -> None:
        ledger, _ = made(FakeIndex())
        await ledger.lease()
        assert not ledger.more
        ledger.in_trouble("internal error: KeyError")
        wake = ledger.next_wake()
        assert wake is not None
        ledger.advance()
        assert ledger.trouble
        await asyncio.sleep(wake - asyncio.get_running_loop().time())
        ledger.advance()
        assert ledger.trouble == ""
        assert ledger.next_wake() is None

    run(scenario())


def test_trouble_lasts_longer_each_time_and_keeps_every_outcome() -> None:
    async def scenario() -> None:
        index = FakeIndex()
        index.add("pacs", waiting(1))
        ledger, _ = made(index)
        await ledger.lease()
        ledger.record(delivered(1))
        index.broken = SpoolError("input/output error")
        waits = []
        for _ in range(8):
            await ledger.settle(idle=True)
            wake = ledger.next_wake()
            assert wake is not None
            waits.append(wake - asyncio.get_running_loop().time())
            await asyncio.sleep(waits[-1])
        assert waits[:4] == sorted(waits[:4])
        assert waits[-1] <= 30
        assert ledger.unsettled == 1
        index.broken = None
        await ledger.settle(idle=True)
        assert (ledger.unsettled, ledger.trouble) == (0, "")

    run(scenario())


def test_the_next_thing_that_falls_due_is_planned() -> None:
    async def scenario() -> None:
        index = FakeIndex()
        index.add("pacs", waiting(1), waiting(2))
        index.rows["pacs"][2].due_at = wall() + 50
        ledger, board = made(index)
        await ledger.lease()
        assert list(board.ids) == [1]
        wake = ledger.next_wake()
        assert wake is not None
        assert abs(wake - asyncio.get_running_loop().time() - 50) < 0.1
        # The clock may be set: a far time is looked at again before long.
        index.rows["pacs"][2].due_at = wall() + 10**6
        ledger.advance()
        await asyncio.sleep(51)
        ledger.advance()
        assert ledger.more
        await ledger.lease()
        wake = ledger.next_wake()
        assert wake is not None
        assert wake - asyncio.get_running_loop().time() <= 300

    run(scenario())


def test_what_was_settled_by_a_call_that_failed_may_have_revived_others(tmp_path: Path) -> None:
    async def scenario() -> None:
        index = Index.open(tmp_path / "index.sqlite")
        twins = [(ref(n, crc=1), meta(n, "pacs", uid="1.5.1")) for n in (1, 2)]
        add(index, *twins)

        class Late(FakeIndex):
            """It has the outcomes, and says once that it has not."""

            failed = False

            async def settle(self, outcomes: Sequence[Outcome]) -> Settled:
                settled = index.settle(outcomes)
                if not self.failed:
                    self.failed = True
                    raise SpoolError("it took too long")
                return settled

            async def lease(self, *arguments: Any, **more: Any) -> list[Waiting]:
                return index.lease(*arguments, **more)

            async def next_due(self, *arguments: Any) -> float | None:
                return index.next_due(*arguments)

        ledger, board = made(Late())
        await ledger.lease()
        assert list(board.ids) == [1]
        assert not ledger.more
        ledger.record(Outcome(1, "pacs", DeliveryState.DEAD, wall(), 0xC000))
        await ledger.settle(idle=True)
        await asyncio.sleep(60)
        await ledger.settle(idle=True)
        assert ledger.more
        await ledger.lease()
        assert list(board.ids) == [2]
        index.close()

    run(scenario())
