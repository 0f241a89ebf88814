import asyncio
import gc
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from router.observe import reference
from router.observe.counters import Counters
from router.observe.exposition import Exporter
from router.observe.metrics import METRICS
from router.observe.state import DestinationState, DiskState, Snapshot
from router.spool.index_types import DeliveryState, QueueLine

SNAPSHOT = Snapshot(
    now=1000.0,
    queues=(
        QueueLine("pacs", DeliveryState.READY, 3, 300, 940.0, 0.0),
        QueueLine("pacs", DeliveryState.DEAD, 0, 0, None, None),
    ),
    destinations=(DestinationState("pacs", up=True), DestinationState('a"b\\c\n', up=False)),
    disk=DiskState(spool_bytes=64, free_bytes=1024, low=True, spare_bytes=48),
    held_instances=4,
    dead_instances=5,
    account_differences={"pacs": -1},
)


class FixedSources:
    def __init__(self, snapshot=SNAPSHOT):
        self.calls = 0
        self.answer = snapshot

    async def snapshot(self):
        self.calls += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class GatedSources(FixedSources):
    def __init__(self):
        super().__init__()
        self.asked = asyncio.Event()
        self.gate = asyncio.Event()

    async def snapshot(self):
        self.asked.set()
        await self.gate.wait()
        return await super().snapshot()


def busy_counters():
    counters = Counters()
    counters.received.of("ROUTER", "ct").instances += 2
    counters.received.of("ROUTER", "ct").bytes += 2048
    counters.associations.of("in", "ROUTER", "ct").opened()
    counters.on_rejected("calling_ae")
    counters.on_aborted("in", "peer")
    counters.on_association_failed("pacs", "timeout")
    counters.on_stored(0xA700, 0.02)
    counters.on_committed(3, 0.0004)
    counters.on_protocol_error("unexpected_pdu")
    counters.on_delivered("pacs", "delivered", 0.3)
    counters.on_failed("pacs", "dead")
    counters.on_attempt("pacs")
    counters.on_availability("pacs", up=False)
    counters.on_sent("pacs", 99)
    counters.event_loop_stall_seconds.observe(0.004)
    counters.on_log_line("warning")
    return counters


def parsed(text):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


@pytest.fixture
async def exporter():
    exporter = Exporter(busy_counters(), FixedSources())
    yield exporter
    await exporter.close()


async def test_what_was_counted_is_in_the_text(exporter):
    values = parsed(await exporter.render())
    ct = (("local_ae", "ROUTER"), ("remote", "ct"))
    assert values["dcmrouter_instances_received_total", ct] == 2
    assert values["dcmrouter_bytes_received_total", ct] == 2048
    assert values["dcmrouter_store_responses_total", (("status", "A700"),)] == 1
    assert values["dcmrouter_association_rejects_total", (("reason", "calling_ae"),)] == 1
    dead = (("destination", "pacs"), ("outcome", "dead"))
    assert values["dcmrouter_deliveries_total", dead] == 1
    assert values["process_open_fds", ()] > 0


async def test_what_was_looked_up_is_in_the_text(exporter):
    values = parsed(await exporter.render())
    ready = (("destination", "pacs"), ("state", "ready"))
    assert values["dcmrouter_queue_instances", ready] == 3
    assert values["dcmrouter_queue_bytes", ready] == 300
    assert values["dcmrouter_queue_oldest_seconds", ready] == 60.0
    empty = (("destination", "pacs"), ("state", "dead"))
    assert ("dcmrouter_queue_oldest_seconds", empty) not in values
    assert values["dcmrouter_destination_up", (("destination", "pacs"),)] == 1
    assert values["dcmrouter_destination_up", (("destination", 'a"b\\c\n'),)] == 0
    assert values["dcmrouter_spool_bytes", ()] == 64
    assert values["dcmrouter_spool_spare_bytes", ()] == 48
    assert values["dcmrouter_spool_low", ()] == 1
    assert values["dcmrouter_account_difference", (("scope", "all"),)] == 1
    assert values["dcmrouter_account_difference", (("scope", "pacs"),)] == -1


async def test_histogram_buckets_are_cumulative_and_end_at_infinity(exporter):
    values = parsed(await exporter.render())
    buckets = [v for (name, _), v in values.items() if name == "dcmrouter_store_seconds_bucket"]
    assert buckets == sorted(buckets)
    assert values["dcmrouter_store_seconds_bucket", (("le", "0.01"),)] == 0
    assert values["dcmrouter_store_seconds_bucket", (("le", "0.025"),)] == 1
    assert values["dcmrouter_store_seconds_bucket", (("le", "+Inf"),)] == 1
    assert values["dcmrouter_store_seconds_count", ()] == 1


async def test_every_metric_of_the_table_is_in_the_text(exporter):
    text = (await exporter.render()).decode()
    missing = [m.name for m in METRICS if f"# TYPE {m.name} {m.kind}\n" not in text]
    assert not missing
    assert all(m.name.startswith("dcmrouter_") and m.documentation for m in METRICS)


async def test_tasks_are_counted_while_they_live(exporter):
    async def tasks():
        return parsed(await exporter.render())["dcmrouter_tasks", ()]

    before = await tasks()
    gate = asyncio.Event()
    waiting = [asyncio.create_task(gate.wait()) for _ in range(5)]
    assert await tasks() == before + 5
    gate.set()
    await asyncio.gather(*waiting)
    assert await tasks() == before


async def test_runs_of_the_collector_are_counted_by_generation(exporter):
    before = parsed(await exporter.render())
    gc.collect()
    after = parsed(await exporter.render())
    oldest = ("dcmrouter_gc_collections_total", (("generation", "2"),))
    assert after[oldest] > before[oldest] >= 0


async def test_a_failing_look_up_leaves_the_counters():
    counters, errors = busy_counters(), []
    exporter = Exporter(counters, FixedSources(OSError("index")), on_error=errors.append)
    values = parsed(await exporter.render())
    await exporter.close()
    assert values["dcmrouter_scrape_errors_total", ()] == 1
    assert ("dcmrouter_held_instances", ()) not in values
    assert values["dcmrouter_store_responses_total", (("status", "A700"),)] == 1
    assert [str(e) for e in errors] == ["index"]


async def test_a_look_up_that_hangs_is_given_up():
    exporter = Exporter(busy_counters(), GatedSources(), timeout=0.01)
    values = parsed(await exporter.render())
    await exporter.close()
    assert values["dcmrouter_scrape_errors_total", ()] == 1


async def test_overlapping_scrapes_share_one_look_up_and_one_may_leave():
    sources = GatedSources()
    exporter = Exporter(busy_counters(), sources)
    first, second = (asyncio.create_task(exporter.render()) for _ in range(2))
    await sources.asked.wait()
    first.cancel()
    sources.gate.set()
    assert b"dcmrouter_held_instances 4" in await second
    assert sources.calls == 1
    await exporter.render()
    assert sources.calls == 2
    await exporter.close()


def test_the_reference_page_is_up_to_date():
    page = Path(__file__).parents[2] / "docs/reference/metrics.md"
    assert page.read_text(encoding="utf-8") == reference.render(), (
        "run python -m router.observe.reference docs/reference/metrics.md"
    )


def test_the_reference_page_can_be_written(tmp_path):
    assert reference.main([str(tmp_path / "metrics.md")]) == 0
    assert (tmp_path / "metrics.md").read_text(encoding="utf-8") == reference.render()
    assert reference.main(["a", "b"]) == 2


@pytest.mark.interop
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
async def test_promtool_finds_nothing_to_say(exporter):
    text = await exporter.render()
    result = await asyncio.to_thread(
        subprocess.run, ["promtool", "check", "metrics"], input=text, capture_output=True
    )
    assert result.returncode == 0, result.stderr.decode()
    assert result.stderr == b""
