"""The text of ``/metrics``.

Owns how the rows of `METRICS` become what Prometheus reads, away from the event loop.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from prometheus_client import ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from router.observe.counters import Counters
from router.observe.metrics import METRICS
from router.observe.rows import Buckets, MetricInfo, Row
from router.observe.state import Snapshot, Sources

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Rendering(Collector):
    """One scrape: rows already copied, families made as the exposition asks for them."""

    def __init__(self, tables: list[tuple[MetricInfo, list[Row]]]) -> None:
        self._tables = tables

    def collect(self) -> Iterator[Metric]:
        """The metric families, in the order of `METRICS`; then those of the process."""
        for metric, rows in self._tables:
            yield _family(metric, rows)
        yield from ProcessCollector(registry=None).collect()


def _family(metric: MetricInfo, rows: list[Row]) -> Metric:
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.documentation, labels=metric.labels)
        for labels, value in rows:
            assert isinstance(value, Buckets)
            histogram.add_metric(labels, _cumulative(value), value.sum)
        return histogram
    make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = make(metric.name, metric.documentation, labels=metric.labels)
    for labels, value in rows:
        assert not isinstance(value, Buckets)
        family.add_metric(labels, value)
    return family


def _cumulative(buckets: Buckets) -> list[tuple[str, float]]:
    passed = 0
    result: list[tuple[str, float]] = []
    for bound, count in zip((*map(repr, buckets.bounds), "+Inf"), buckets.counts, strict=True):
        passed += count
        result.append((bound, passed))
    return result


class Exporter:
    """The text of ``/metrics``.

    Values are copied on the event loop's thread, where nobody changes them meanwhile; the text
    is made in a thread of its own, since that of a few hundred destinations takes longer than
    the loop may stand still.  ``on_error`` is told what kept the snapshot away.
    """

    def __init__(
        self,
        counters: Counters,
        sources: Sources,
        *,
        timeout: float = 5.0,
        on_error: Callable[[Exception], None] | None = None,
    ) -> None:
        self._counters = counters
        self._sources = sources
        self._timeout = timeout
        self._on_error = on_error
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="metrics")
        self._current: asyncio.Task[bytes] | None = None

    async def render(self) -> bytes:
        """Text exposition format 0.0.4.  Requests that overlap share one look-up.

        What is counted is there even when `Sources` fails or takes more than ``timeout``
        seconds: `dcmrouter_scrape_errors_total` rises and the looked-up metrics are left out.
        """
        if self._current is None:
            self._current = asyncio.create_task(self._render())
            self._current.add_done_callback(self._finished)
        # A client that leaves must not take the answer from the others.
        return await asyncio.shield(self._current)

    def _finished(self, task: asyncio.Task[bytes]) -> None:
        self._current = None
        if not task.cancelled():
            # Looked at here so that a failure nobody waits for any more is not a complaint.
            task.exception()

    async def close(self) -> None:
        """End a rendering under way, and the thread."""
        if self._current is not None:
            self._current.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._current
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _render(self) -> bytes:
        snapshot = await self._look_up()
        tables = [(m, list(m.rows(self._counters, snapshot))) for m in METRICS]
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, generate_latest, Rendering(tables))

    async def _look_up(self) -> Snapshot | None:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._sources.snapshot()
        except Exception as error:  # noqa: BLE001  whatever is broken, the counters must be seen
            self._counters.scrape_errors.value += 1
            if self._on_error is not None:
                self._on_error(error)
            return None
