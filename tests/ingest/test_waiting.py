"""What reception notes for those who wait for a study: plans, labels, who sends to what."""

import asyncio
from pathlib import Path

from router.ingest.feed import IndexFeed
from router.spool.index_types import AddResult
from router.spool.plan import Plan
from router.spool.record import InstanceMeta, Position, Ref, RouteMeta
from rules.decision import Decision, Route
from rules.rule import Send
from tests.forward.virtual import run as run_virtually
from tests.ingest.support import FixedRules, data_set, reception, store_rq, stored
from tests.net.support import Runner

STUDY, SERIES = "1.2.3.4", "1.2.3.4.5"
WHOLE = Plan(after="study-complete")


def test_plan_labels_and_time_are_in_the_record(run: Runner, tmp_path: Path) -> None:
    async def scenario() -> None:
        route = Route("a", "r", 3, "failover", ("a", "b"), Send(after="study-complete"))
        rules = FixedRules(Decision("route", (route,), "", "v1", ("night", "trial")))
        async with reception(tmp_path, rules=rules) as subject:
            wire = await subject.associated()
            assert (await stored(wire, data_set()))[0] == 0
            await wire.release()
            await subject.quiet()
            (meta,) = subject.metas
        (facts,) = rules.asked
        assert facts.received_at == meta.received_at == 1_700_000_000.0
        assert meta.tags == ("night", "trial")
        assert InstanceMeta.from_bytes(meta.to_bytes()) == meta
        (kept,) = meta.routes
        assert (kept.destination, kept.rule, kept.priority) == ("a", "r", 3)
        assert Plan.from_text(kept.plan) == Plan("failover", ("a", "b"), "study-complete")

    run(scenario)


def test_a_study_is_sent_to_from_the_head_of_a_data_set_on(run: Runner, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with reception(tmp_path) as subject:
            wire = await subject.associated()
            studies = subject.service.studies
            whole = store_rq(data_set(pixels=200_000))
            assert not studies.study_open(STUDY)
            await wire.send(whole[:100_000])
            async with asyncio.timeout(10.0):
                while not studies.study_open(STUDY):
                    await asyncio.sleep(0)
            assert studies.series_open(SERIES)
            assert not subject.metas, "and yet it is not complete"
            await wire.send(whole[100_000:])
            assert (await wire.answer()).status == 0
            await wire.release()
            await subject.quiet()

    run(scenario)


def test_a_data_set_without_a_study_is_taken_all_the_same(run: Runner, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with reception(tmp_path) as subject:
            wire = await subject.associated()
            head = data_set()
            cut = head[: head.index(b"\x20\x00\x0d\x00")]
            assert (await stored(wire, cut))[0] == 0
            assert not subject.service.studies.study_open("")
            await wire.release()
            await subject.quiet()

    run(scenario)


def meta(study: str, *plans: str) -> InstanceMeta:
    routes = tuple(RouteMeta(f"d{n}", "r", 0, plan) for n, plan in enumerate(plans))
    return InstanceMeta(0.0, "", "", "", "", "", "1.2", "1.2.3", "1.2", study, routes=routes)


def test_the_feed_tells_whose_instances_are_not_in_the_index_yet() -> None:
    told: list[tuple[str, str, int]] = []
    results = [AddResult({"a": 1}, 0, 2, 0, {"b": 2})]

    async def main() -> None:
        gate = asyncio.Event()

        async def add(entries: object, position: Position) -> AddResult:
            await gate.wait()
            return results.pop()

        feed = IndexFeed(
            add,
            lambda name, count: told.append(("due", name, count)),
            lambda name, count: told.append(("gated", name, count)),
        )
        feed.start()
        for number, one in enumerate((meta("1.1", "", WHOLE.to_text()), meta("1.2", ""))):
            ref = Ref(number, 1, number * 100, number * 100 + 64, 10, 0)
            feed.add(ref, one, Position(1, number * 100 + 100))
        assert feed.holds("1.1")
        assert not feed.holds("1.2"), "nobody waits for that study"
        await asyncio.sleep(1)
        assert feed.holds("1.1")
        gate.set()
        await asyncio.sleep(1)
        assert not feed.holds("1.1")
        await feed.stop()

    run_virtually(main())
    assert told == [("due", "a", 1), ("gated", "b", 2)]
