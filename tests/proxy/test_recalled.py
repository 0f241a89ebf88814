"""What an operator takes back while it waits behind a message that does not end."""

import asyncio
import contextlib
from pathlib import Path
from time import time

import pytest
import uvloop

from perf import faults
from perf.proxy import Script
from router.spool.index_types import DeliveryState, Filter
from tests.proxy.house import Lane, Shop
from tests.proxy.table import LARGE, SMALL


@pytest.mark.parametrize("state", [DeliveryState.HELD, DeliveryState.DROPPED])
def test_held_or_dropped_behind_another_and_sent_all_the_same(
    tmp_path: Path, state: DeliveryState
) -> None:
    async def scenario() -> None:
        async with contextlib.AsyncExitStack() as ending:
            shop = await ending.enter_async_context(Shop(tmp_path))
            stall = Script(stop_reading=5_000, setup=faults.at_acceptance(faults.window(2)))
            scripts = (stall, Script())
            lane = await ending.enter_async_context(
                Lane(shop, "pacs", scripts, window=2, patience=2.0)
            )
            shop.forwarder.start([lane.config])
            first = await lane.keep(1, LARGE)
            second = await lane.keep(2, SMALL)
            shop.feed()
            shop.forwarder.notify("pacs", 2)
            while shop.forwarder.snapshot()["pacs"].in_flight < 2:
                await asyncio.sleep(0.01)
            act = shop.index.hold if state is DeliveryState.HELD else shop.index.drop
            assert act(Filter(ids=(second.ref.id,)), "wrong patient", at=time()).count == 1
            shop.forwarder.refresh()
            assert lane.copies(second) == 0, "it waits behind the one that is stalled"
            async with asyncio.timeout(15):
                while lane.copies(first) == 0 or shop.forwarder.snapshot()["pacs"].active:
                    await asyncio.sleep(0.05)
            row = shop.index.instance(second.ref.id)
            assert row is not None
            assert (lane.copies(second), row.deliveries[0].state) == (0, state)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())
