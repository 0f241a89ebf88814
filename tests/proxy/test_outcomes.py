"""Every row of the outcome table, on real sockets, all destinations of one gateway at once.

What one destination suffers must show at no other, so they run side by side: that is the test of
the islands, and it makes the time-outs of all cost the time of one.
"""

import contextlib
import functools
import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from perf.proxy import Record
from router.spool.index_types import DeliveryState, Outcome
from tests.net.support import Runner
from tests.proxy.house import RETRY, Lane, Shop, carry
from tests.proxy.table import LARGE, PATIENCE, SMALL, TABLE, Case

READY = DeliveryState.READY
HEALTHY = Case("", "healthy")


@dataclass(frozen=True)
class Tale:
    """What one destination came to; histories and copies by instance."""

    histories: list[list[Outcome]]
    copies: list[int]
    strange: bool
    calls: list[float]
    refusals: list[str]
    records: list[Record]
    availability: list[bool]


def name_of(case: Case) -> str:
    return f"{TABLE.index(case):02d} {case.fault}" if case in TABLE else case.fault


def descriptors() -> set[tuple[str, str]]:
    """Sockets and files; a pipe for signals is libuv's, once and for all."""
    links = [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    found = {(path.name, str(path.readlink())) for path in links if path.is_symlink()}
    return {(name, what) for name, what in found if what.startswith(("socket:", "/"))}


async def play(directory: Path, cases: Sequence[Case]) -> dict[str, Tale]:
    async with contextlib.AsyncExitStack() as ending:
        shop = await ending.enter_async_context(Shop(directory))
        lanes = []
        for case in cases:
            lane = Lane(
                shop,
                name_of(case),
                case.scripts,
                astray=case.astray,
                window=case.window,
                patience=PATIENCE,
            )
            lanes.append(await ending.enter_async_context(lane))
        shop.forwarder.start(lane.config for lane in lanes)
        for lane, case in zip(lanes, cases, strict=True):
            for number, sop_class in enumerate(case.sop_classes, 1):
                # What is large is so for the second instance's sake.
                small = number != 2 and case.size > LARGE // 10
                await lane.keep(number, SMALL if small else case.size, sop_class)
        await carry(shop, lanes)
        return {lane.name: tell(shop, lane) for lane in lanes}


def tell(shop: Shop, lane: Lane) -> Tale:
    return Tale(
        [lane.history(parcel) for parcel in lane.parcels],
        [lane.copies(parcel) for parcel in lane.parcels],
        lane.strange,
        lane.calls,
        [str(error) for error in lane.refusals],
        lane.proxy.records,
        [up for name, up in shop.counts.availability if name == lane.name],
    )


@pytest.fixture(scope="module")
def tales(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tale]:
    gc.collect()
    before = descriptors()
    told: dict[str, Tale] = {}
    for quiet in (False, True):
        directory = tmp_path_factory.mktemp("outcomes")
        cases = [case for case in (*TABLE, HEALTHY) if case.quiet is quiet]
        played = functools.partial(play, directory, cases)
        # The runner holds that no task is left, and no exception that nobody looked at.
        told |= Runner("uvloop")(played, limit=90.0)
    gc.collect()
    assert descriptors() <= before, "descriptors were left open"
    return told


@pytest.mark.parametrize("case", TABLE, ids=name_of)
def test_outcome(tales: dict[str, Tale], case: Case) -> None:
    tale = tales[name_of(case)]
    assert not tale.strange, "something came that was not sent"
    if case.scripts[0].interferes:
        assert "fault" in tale.records[0].said, "there was no fault"
    for number, history in enumerate(tale.histories, 1):
        copies = tale.copies[number - 1]
        what = f"instance {number}, {copies} times at the destination: {history}"
        if number not in case.charged:
            if number == 3 and case.next_too and case.next_too in history[0].reason:
                assert history.pop(0).state is READY, what
            assert [outcome.state for outcome in history] == [DeliveryState.DELIVERED], what
            assert copies == 1, what
            continue
        *tries, last = history
        assert (last.state, last.status) == (case.state, case.status), what
        assert case.last in last.reason, what
        assert bool(case.last) is bool(last.reason), what
        assert len(tries) == len(case.tries), what
        for one, text in zip(tries, case.tries, strict=True):
            assert text in one.reason, what
            assert (one.state, one.attempted) == (READY, True), what
            assert one.due_at is not None, what
            assert one.due_at - one.at > 0.99 * RETRY.first, what
        fewest, most = case.copies
        assert fewest <= copies <= most, what


@pytest.mark.parametrize("case", TABLE, ids=name_of)
def test_calls_are_few_and_wait_for_the_back_off(tales: dict[str, Tale], case: Case) -> None:
    tale = tales[name_of(case)]
    assert 1 <= len(tale.calls) <= case.calls, tale.calls
    if case.refused:
        assert [case.refused in text for text in tale.refusals] == [True], tale.refusals
        assert tale.calls[1] - tale.calls[0] >= RETRY.first
    else:
        assert tale.refusals == []
    assert tale.availability == ([False, True] if case.down else [])


@pytest.mark.parametrize("case", TABLE, ids=name_of)
def test_an_association_is_not_used_after_a_fault(tales: dict[str, Tale], case: Case) -> None:
    records = tales[name_of(case)].records
    after = [said for record in records for said in record.after_fault]
    if not case.goes_on:
        assert not [said for said in after if said.startswith("request")], records
    elif any("fault" in record.said for record in records):
        assert [said for said in after if said.startswith("request")], records


def test_the_slow_line_is_slower_than_the_time_out(tales: dict[str, Tale]) -> None:
    (tale,) = (tales[name_of(case)] for case in TABLE if case.scripts[0].bandwidth)
    first, second = (history[-1] for history in tale.histories[:2])
    assert second.at - first.at > 1.2 * PATIENCE


def test_a_healthy_destination_beside_them_noticed_nothing(tales: dict[str, Tale]) -> None:
    tale = tales[HEALTHY.fault]
    assert tale.copies == [1, 1, 1]
    assert len(tale.calls) == 1
    ended = [outcome.at for history in tale.histories for outcome in history]
    assert len(ended) == 3
    assert max(ended) - min(ended) < PATIENCE
