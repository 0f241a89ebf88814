"""The line cut behind every byte of a conversation, in each direction, by FIN and by RST.

However far it came, the instance is delivered once the fault is over: once if its answer was
heard, or if it had not gone out whole; twice only where the answer was lost.
"""

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from perf.proxy import THROUGH, Cut, How, Record, Script
from router.spool.index_types import DeliveryState
from tests.net.support import Runner
from tests.proxy.house import Lane, Shop, carry

SIZE = 66
AT_ONCE = 60


@dataclass(frozen=True)
class Plan:
    """The conversation as it is without a fault: where each PDU ends, by direction."""

    request: tuple[int, ...]
    answer: tuple[int, ...]


async def measured(directory: Path) -> Plan:
    """A-ASSOCIATE, one C-STORE and A-RELEASE, from start to end."""
    (lane,) = await conversations(directory, {"whole": THROUGH})
    (record,) = lane.proxy.records
    assert record.said == ["request 1", "release", "end"]
    return Plan(tuple(record.request_ends), tuple(record.answer_ends))


async def conversations(directory: Path, scripts: dict[str, Script]) -> list[Lane]:
    """One instance for each script; all played, and all delivered."""
    directory.mkdir()
    async with contextlib.AsyncExitStack() as ending:
        shop = await ending.enter_async_context(Shop(directory))
        lanes = [
            await ending.enter_async_context(Lane(shop, name, [script, THROUGH], patience=5.0))
            for name, script in scripts.items()
        ]
        shop.forwarder.start(lane.config for lane in lanes)
        await asyncio.gather(*(lane.keep(1, SIZE) for lane in lanes))
        await carry(shop, lanes)
    for lane in lanes:
        *tries, last = lane.history(lane.parcels[0])
        assert last.state is DeliveryState.DELIVERED, (lane.name, last)
        assert len(tries) <= 1, (lane.name, tries)
        assert not lane.strange
        assert 1 <= len(lane.calls) <= 3, (lane.name, lane.calls)
    return lanes


def check(lane: Lane, plan: Plan, direction: str, at: int) -> None:
    copies = lane.copies(lane.parcels[0])
    first: Record = lane.proxy.records[0]
    what = (lane.name, copies, lane.proxy.records, lane.history(lane.parcels[0]))
    if direction == "request":
        gone_out = plan.request[2]  # A-ASSOCIATE-RQ, command set, data set
        assert copies == 1 if at < gone_out else 1 <= copies <= 2, what
    else:
        accepted, answered = plan.answer[:2]
        expected = {2} if accepted < at < answered else {1}
        if at == accepted:  # the request may have been on its way already
            expected = {1, 2}
        assert copies in expected, what
    assert (first.to_acceptor if direction == "request" else first.to_sender) == at, what


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("direction", ["request", "answer"])
def test_a_line_cut_behind_any_byte(
    tmp_path: Path, direction: Literal["request", "answer"], how: How
) -> None:
    async def scenario() -> None:
        plan = await measured(tmp_path / "whole")
        assert len(plan.request) == 4
        assert len(plan.answer) == 3
        places = range((plan.request if direction == "request" else plan.answer)[-1])
        for begin in range(0, len(places), AT_ONCE):
            scripts = {
                f"{direction} {at} {how}": Script(cut=Cut(direction, at, how))
                for at in places[begin : begin + AT_ONCE]
            }
            lanes = await conversations(tmp_path / str(begin), scripts)
            for lane, at in zip(lanes, places[begin : begin + AT_ONCE], strict=True):
                check(lane, plan, direction, at)

    Runner("uvloop")(scenario, limit=100.0)
