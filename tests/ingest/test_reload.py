"""Instances that arrive while the configuration changes, or that are not taken."""

import asyncio
from pathlib import Path

from router.ingest.settings import StorageSettings
from rules.decision import Decision, Facts
from tests.ingest.support import CT, FixedRules, data_set, reception, store_rq, stored
from tests.net.support import Runner

STATION = 0x00081010


class ByStation(FixedRules):
    """Discards what lacks an attribute that only these rules ask for."""

    def decide(self, facts: Facts) -> Decision:
        if STATION not in facts.attributes:
            return Decision("discard", (), "no station", "v2")
        return super().decide(facts)


def test_new_rules_decided_on_what_was_scanned_for_the_old(run: Runner, tmp_path: Path) -> None:
    """Regression: the attribute that they need had not been looked for: discarded."""

    async def scenario() -> None:
        async with reception(tmp_path) as subject:
            wire = await subject.associated()
            request = store_rq(data_set(pixels=50_000), maximum=4096)
            await wire.send(request[:20_000])
            while not subject.service.spool._writers:
                await asyncio.sleep(0)
            subject.service.apply(
                StorageSettings(unparsable="refuse"), ByStation(tags=(STATION,), version="v2")
            )
            await wire.send(request[20_000:])
            assert (await wire.answer()).status == 0
            assert await stored(wire, data_set("1.2.4"), 2, "1.2.4") == (0, "")
            await wire.release()
            assert [(m.disposition, m.rules_version) for m in subject.metas] == [
                ("route", "v1"),
                ("discard", "v2"),
            ]

    run(scenario)


def test_a_class_uid_that_no_destination_can_read_was_acknowledged(
    run: Runner, tmp_path: Path
) -> None:
    """Regression: proposed with all else that waited, it closed the destination to everybody."""

    async def scenario() -> None:
        async with reception(tmp_path) as subject:
            wire = await subject.associated()
            for number, sop_class in enumerate((CT + "1" * 40, "1.2.3 4"), 1):
                status, comment = await stored(wire, data_set(), number, sop_class=sop_class)
                assert status == 0x0122
                assert "not a SOP Class UID" in comment
            assert await stored(wire, data_set(), 9) == (0, "")
            await wire.release()
            assert len(subject.metas) == 1

    run(scenario)


def test_a_refused_instance_under_way_used_up_the_time_to_stop(run: Runner, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with reception(tmp_path) as subject:
            subject.feed.refusal = "no room"
            wire = await subject.associated()
            request = store_rq(data_set(pixels=50_000), maximum=4096)
            await wire.send(request[:20_000])
            [association] = subject.listeners.associations
            while not association.messages:
                await asyncio.sleep(0)
            loop = asyncio.get_running_loop()
            began = loop.time()
            stopping = asyncio.create_task(subject.listeners.stop(19.0))
            await asyncio.sleep(0)
            await wire.send(request[20_000:])
            assert (await wire.answer()).status == 0xA700
            await stopping
            assert loop.time() - began < 5
            await wire.close()

    run(scenario)
