"""Commitment as SCP where the disk does not have what the index says."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from router.spool.index import Index
from router.spool.record import Ref
from tests.commitment.modalities import Desk, scenario
from tests.forward.virtual import wall
from tests.spool.index_samples import DELIVERED, fill, outcome


def test_what_is_not_on_the_disk_is_not_promised(index: Index) -> None:
    fill(index, [1, 2, 3, 4], "pacs")
    index.settle([outcome(3, "pacs", DELIVERED)])

    async def act(desk: Desk) -> None:
        desk.absent = {2: False, 3: False}
        await desk.ask(1, 2, 3)
        await asyncio.sleep(30)
        ((_, report, _),) = desk.peers["ct"].reports
        assert [item.sop_instance_uid for item in report.committed] == ["1.2.3.4.1", "1.2.3.4.3"]
        assert [failure.reason for failure in report.failed] == [0x0110]
        assert desk.looked[0] == [1, 2], "and nothing of what a destination has"

    scenario(index, act)


def test_what_cannot_be_told_is_looked_at_again(index: Index) -> None:
    fill(index, [1, 2], "pacs")

    async def act(desk: Desk) -> None:
        desk.absent = {1: None, 2: None}
        await desk.ask(1, 2)
        await asyncio.sleep(20)
        assert not desk.peers["ct"].reports
        desk.absent = {2: None}
        await asyncio.sleep(60)
        ((_, report, _),) = desk.peers["ct"].reports
        assert [item.sop_instance_uid for item in report.committed] == ["1.2.3.4.1"]
        assert [failure.reason for failure in report.failed] == [0x0110]

    scenario(index, act, grace=60)


def test_one_that_is_moved_meanwhile_is_looked_at_where_it_is_then(index: Index) -> None:
    fill(index, [1, 2], "pacs")

    async def act(desk: Desk) -> None:
        found = desk.scp._presence._present

        async def moved(refs: Sequence[Ref]) -> Mapping[int, bool | None]:
            for ref in refs:
                if ref.generation == 1:
                    desk.index.move([ref._replace(generation=2)])
            here = await found(refs)
            return {ref.id: here[ref.id] and ref.generation == 2 for ref in refs}

        desk.scp._presence._present = moved
        await desk.ask(1, 2)
        await asyncio.sleep(30)
        ((_, report, _),) = desk.peers["ct"].reports
        assert len(report.committed) == 2

    scenario(index, act)


def test_it_is_looked_again_before_a_report_that_was_late(index: Index) -> None:
    fill(index, [1, 2], "pacs")

    async def act(desk: Desk) -> None:
        desk.peers["ct"].down = True
        await desk.ask(1, 2)
        await asyncio.sleep(100)
        (promise,) = desk.listed()
        assert promise.committed == 2
        desk.absent = {1: False}
        desk.peers["ct"].down = False
        await asyncio.sleep(700)
        ((_, report, _),) = desk.peers["ct"].reports
        assert [failure.reason for failure in report.failed] == [0x0110]
        assert len(report.committed) == 1

    scenario(index, act)


def test_many_are_looked_at_by_and_by(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.commitment.presence.MOST", 20)
    monkeypatch.setattr("router.commitment.presence._AT_ONCE", 7)
    fill(index, range(1, 101), "pacs")

    async def act(desk: Desk) -> None:
        desk.absent = {50: False}
        at = wall()
        await desk.ask(*range(1, 101))
        await asyncio.sleep(30)
        ((when, report, _),) = desk.peers["ct"].reports
        assert len(report.committed) == 99
        assert when - at < 10
        numbers = [number for some in desk.looked for number in some]
        assert set(numbers) == set(range(1, 101))
        assert len(numbers) <= 120, "and once more some of those that were decided before"
        assert max(map(len, desk.looked)) == 7

    scenario(index, act)


def test_many_of_which_nothing_can_be_told_are_not_looked_at_without_a_pause(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.commitment.presence.MOST", 20)
    fill(index, range(1, 31), "pacs")

    async def act(desk: Desk) -> None:
        desk.absent = dict.fromkeys(range(1, 31), None)
        await desk.ask(*range(1, 31))
        await asyncio.sleep(1.5)
        assert len(desk.looked) <= 5
        await asyncio.sleep(50)
        assert 3 <= len(desk.looked) <= 30
        desk.absent = {}
        await asyncio.sleep(60)
        ((_, report, _),) = desk.peers["ct"].reports
        assert len(report.committed) == 30

    scenario(index, act, grace=300)
