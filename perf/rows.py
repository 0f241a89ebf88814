"""The rows of the table: what is done, by whom, and what is to be reached.

Owns the order of steps inside one measurement, and the check after each that nothing was lost.
Targets are those of the design's figures.
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from perf import rows_floor, rows_inside, rows_latency, rows_scale
from perf.canary import Canary
from perf.contenders import CONTENDERS, Dcmrouter, Sink, program
from perf.processes import (
    BenchError,
    cpu_seconds,
    peak_resident_bytes,
    reset_peak,
    resident_bytes,
    stolen_ticks,
)
from perf.report import Sample, Target
from perf.row import Measure, Row
from perf.steps import (
    DELIVERY_LIMIT,
    Bench,
    await_delivered,
    check_count,
    contender_type,
    dcmsend,
    histogram_buckets,
    load,
    make_contender,
    quantile,
    sender_startup,
)

_MB = 1e6
_STALL = "dcmrouter_event_loop_stall_seconds_bucket"

__all__ = ["ROWS", "TITLES", "Row", "receive"]


def missing_contender(name: str) -> str:
    """Why a receiver cannot take part; "" when it can."""
    if not program("dcmsend"):
        return "dcmsend (Debian package dcmtk), the sender, is not installed"
    return contender_type(name).missing()


def _missing_dcmrouter(name: str) -> str:
    return contender_type(name).missing()


TITLES = {
    **{name: kind.title for name, kind in CONTENDERS.items()},
    "dcmrouter-receiving": "dcmrouter, only receiving",
    "dcmrouter-one": "dcmrouter, one association",
    "full": "1,000,000 waiting",
    "small": "1,000 waiting",
    "rules": "rules",
    **rows_latency.TITLES,
    **rows_scale.TITLES,
}


def receive(bench: Bench, name: str, lists: list[list[Path]], unit: Literal["n", "MB"]) -> Sample:
    """Senders to one receiver: instances or MB (of files) per second."""
    sent = sum(map(len, lists))
    amount = sum(p.stat().st_size for paths in lists for p in paths) / _MB if unit == "MB" else sent
    with make_contender(bench, name) as contender:
        cpu, stolen = cpu_seconds(contender.pid), stolen_ticks()
        seconds = dcmsend(bench, contender, lists)
        used, share = cpu_seconds(contender.pid) - cpu, _stolen_since(stolen)
        check_count(contender, sent)
        return Sample(
            amount / seconds,
            used,
            sent,
            contender.shown_command(),
            contender.settings().replace(str(bench.work), "WORK"),
            {"seconds": seconds, "stolen_share": share},
        )


def _stolen_since(before: tuple[int, int]) -> float:
    stolen, total = stolen_ticks()
    return (stolen - before[0]) / max(1, total - before[1])


def _receive_mr(bench: Bench, name: str, _: int) -> Sample:
    return receive(bench, name, bench.files("mr", bench.sizes.senders, bench.sizes.mr), "n")


def _receive_ct(bench: Bench, name: str, _: int) -> Sample:
    return receive(bench, name, bench.files("ct", bench.sizes.senders, bench.sizes.ct), "n")


def _one_sender(bench: Bench) -> list[list[Path]]:
    """Half as much as four senders send together, over one association."""
    lists = bench.files("mr", bench.sizes.senders, bench.sizes.mr)
    return [lists[0] + lists[1]]


def _receive_one(bench: Bench, name: str, _: int) -> Sample:
    return receive(bench, name, _one_sender(bench), "n")


def _receive_xa(bench: Bench, name: str, _: int) -> Sample:
    return receive(bench, name, bench.files("xa", 1, bench.sizes.xa), "MB")


def _startup(lists: Callable[[Bench], list[list[Path]]]) -> Callable[[Bench], None]:
    def prepare(bench: Bench) -> None:
        files = lists(bench)
        if program("dcmsend"):
            bench.notes["sender_startup_seconds"] = sender_startup(bench, files)

    return prepare


def _forward_lists(bench: Bench) -> list[list[Path]]:
    each = bench.sizes.forward // bench.sizes.senders
    files = bench.files("mr", bench.sizes.senders, max(each, bench.sizes.mr))
    return [paths[:each] for paths in files]


def _forward(bench: Bench, name: str, _: int) -> Sample:
    lists = _forward_lists(bench)
    if name == "dcmrouter-receiving":
        return receive(bench, name, lists, "n")
    sent = sum(map(len, lists))
    with Sink(bench.work, sent) as sink, make_contender(bench, name, sink.port) as contender:
        cpu = cpu_seconds(contender.pid)
        began = time.monotonic()
        received = dcmsend(bench, contender, lists)
        delivered = sink.wait(DELIVERY_LIMIT)
        seconds = delivered["last"] - began
        used = cpu_seconds(contender.pid) - cpu
        check_count(contender, sent)
        return Sample(
            sent / seconds,
            used,
            sent,
            contender.shown_command(),
            contender.settings().replace(str(bench.work), "WORK"),
            {"seconds": seconds, "received_after_seconds": received},
        )


def _short_associations(bench: Bench, name: str, _: int) -> Sample:
    count = bench.sizes.short_associations
    shape = (
        ["--associations", 1, "--instances", count]
        if name.endswith("-one")
        else ["--associations", count, "--at-once", 4, "--instances", 1]
    )
    with make_contender(bench, name) as contender:
        cpu = cpu_seconds(contender.pid)
        report = load(bench, contender, "--kind", "mr", *shape)
        used = cpu_seconds(contender.pid) - cpu
        check_count(contender, count)
        return Sample(count / report["seconds"], used, count, contender.shown_command())


def _memory_associations(bench: Bench, name: str, _: int) -> Sample:
    sizes = bench.sizes
    with make_contender(bench, name) as contender:
        before = resident_bytes(contender.pid)
        reset_peak(contender.pid)
        options = ["--associations", sizes.associations, "--at-once", sizes.associations]
        report = load(
            bench, contender, *options, "--kind", "ct", "--instances", sizes.ct_each, "--barrier"
        )
        peak = peak_resident_bytes(contender.pid)
        check_count(contender, sizes.associations * sizes.ct_each)
        extra = {
            "idle_MB": before / _MB,
            "instances_per_second": report["acknowledged"] / report["seconds"],
        }
        return Sample(peak / _MB, command=contender.shown_command(), extra=extra)


def _memory_big(bench: Bench, name: str, _: int) -> Sample:
    needed = 3 * bench.sizes.big_bytes
    if shutil.disk_usage(bench.work).free < needed:
        raise BenchError(f"the work directory has less than {needed / _MB:.0f} MB free")
    with Sink(bench.work) as sink, make_contender(bench, name, sink.port) as contender:
        # Some ordinary work first: buffers and caches that any traffic fills are not its cost.
        load(bench, contender, "--kind", "mr", "--associations", 4, "--instances", 10)
        await_delivered(sink, 40)
        before = resident_bytes(contender.pid)
        reset_peak(contender.pid)
        report = load(bench, contender, "--big", bench.sizes.big_bytes)
        delivered = await_delivered(sink, 41)
        peak = peak_resident_bytes(contender.pid)
        if delivered["data_bytes"] < bench.sizes.big_bytes - 2**20:
            raise BenchError(f"only {delivered['data_bytes']:.0f} bytes were delivered")
        seconds = delivered["last"] - report["began"]
        extra = {
            "before_MB": before / _MB,
            "receive_MB_per_second": bench.sizes.big_bytes / _MB / report["seconds"],
            "through_MB_per_second": bench.sizes.big_bytes / _MB / seconds,
        }
        return Sample((peak - before) / _MB, command=contender.shown_command(), extra=extra)


def _stall(bench: Bench, name: str, _: int) -> Sample:
    with Sink(bench.work) as sink, make_contender(bench, name, sink.port) as contender:
        assert isinstance(contender, Dcmrouter)
        before = contender.metrics().get(_STALL, {})
        options = ["--associations", 8, "--at-once", 8, "--seconds", bench.sizes.stall_seconds]
        with Canary() as canary:
            report = load(bench, contender, "--kind", "mr", *options)
        during = {
            labels: value - before.get(labels, 0.0)
            for labels, value in contender.metrics().get(_STALL, {}).items()
        }
        await_delivered(sink, int(report["acknowledged"]))
        buckets = histogram_buckets(during)
        extra = {
            "samples": buckets[-1][1] if buckets else 0.0,
            "p50_ms": quantile(buckets, 0.5) * 1000,
            "received_per_second": report["acknowledged"] / report["seconds"],
            "machine_p999_ms": canary.late(0.999) * 1000,
        }
        value = quantile(buckets, 0.999) * 1000
        return Sample(value, command=contender.shown_command(), extra=extra)


def _queue(operation: Literal["enqueue", "lease", "settle"]) -> Measure:
    def measure(bench: Bench, name: str, round_number: int) -> Sample:
        level = bench.sizes.queue_large if name == "full" else bench.sizes.queue_small
        rates = bench.queue_rates(level, round_number)
        return Sample(getattr(rates, operation), extra={"waiting": float(level)})

    return measure


def _decision(bench: Bench, name: str, _: int) -> Sample:
    return rows_inside.decision_microseconds(500, bench.sizes.decisions)


def _mixed_decision(bench: Bench, name: str, _: int) -> Sample:
    return rows_inside.decision_microseconds(500, bench.sizes.decisions, mixed=True)


_RECEIVERS = ("dcmrouter", "dcmrouter-warm", "storescp", "orthanc", "pynetdicom")
# pynetdicom takes most of the time of a run; it has a target for MR alone.
_QUICK_RECEIVERS = tuple(name for name in _RECEIVERS if name != "pynetdicom")
_OURS = ("dcmrouter", "dcmrouter-warm")


def _mr_lists(bench: Bench) -> list[list[Path]]:
    return bench.files("mr", bench.sizes.senders, bench.sizes.mr)


def _ct_lists(bench: Bench) -> list[list[Path]]:
    return bench.files("ct", bench.sizes.senders, bench.sizes.ct)


def _xa_lists(bench: Bench) -> list[list[Path]]:
    return bench.files("xa", 1, bench.sizes.xa)


ROWS: tuple[Row, ...] = (
    Row(
        "receive-mr",
        "receive, 131 KB MR, 4 senders",
        "instances/s",
        _RECEIVERS,
        _receive_mr,
        (
            Target("storescp", 0.8, 1.1),
            Target("orthanc", 3, 5),
            Target("pynetdicom", 5, 8),
        ),
        subjects=_OURS,
        missing=missing_contender,
        prepare=_startup(_mr_lists),
    ),
    Row(
        "receive-ct",
        "receive, 526 KB CT, 4 senders",
        "instances/s",
        _QUICK_RECEIVERS,
        _receive_ct,
        (Target("storescp", 1.0, 1.5), Target("orthanc", 3, 5)),
        subjects=_OURS,
        missing=missing_contender,
        prepare=_startup(_ct_lists),
    ),
    Row(
        "receive-mr-one",
        "receive, 131 KB MR, one sender",
        "instances/s",
        _QUICK_RECEIVERS,
        _receive_one,
        (Target("storescp", 0.6, 0.9), Target("orthanc", 2, 4)),
        subjects=_OURS,
        missing=missing_contender,
        prepare=_startup(_one_sender),
    ),
    Row(
        "receive-xa",
        "receive, 50 MB multi-frame XA, one sender",
        "MB/s",
        _QUICK_RECEIVERS,
        _receive_xa,
        (Target("storescp", 1.5, 3),),
        subjects=_OURS,
        missing=missing_contender,
        prepare=_startup(_xa_lists),
    ),
    Row(
        "forward-mr",
        "received to delivered, 1,000 MR, one rule, one sink",
        "instances/s",
        ("dcmrouter", "orthanc", "dcmrouter-receiving"),
        _forward,
        (Target("orthanc", 10, None), Target("dcmrouter-receiving", None, 1.0)),
        missing=missing_contender,
        prepare=_startup(_forward_lists),
    ),
    Row(
        "short-associations",
        "receive, 1,000 associations of one MR each, four at once",
        "instances/s",
        ("dcmrouter", "dcmrouter-one", "storescp"),
        _short_associations,
        (Target("dcmrouter-one", 0.5, None), Target("storescp", None, None)),
        missing=_missing_dcmrouter,
    ),
    Row(
        "memory-associations",
        "resident memory, 200 associations sending CT at once",
        "MB",
        ("dcmrouter",),
        _memory_associations,
        (Target("", 300, 200),),
        better="lower",
        most_rounds=2,
        missing=_missing_dcmrouter,
    ),
    Row(
        "memory-big",
        "resident memory added while a 2 GB instance passes through",
        "MB",
        ("dcmrouter",),
        _memory_big,
        (Target("", 32, 8),),
        better="lower",
        most_rounds=2,
        missing=_missing_dcmrouter,
    ),
    Row(
        "stall",
        "event loop stall under full load, p99.9",
        "ms",
        ("dcmrouter",),
        _stall,
        (Target("", 25, 10),),
        better="lower",
        missing=_missing_dcmrouter,
        details=(
            ("p50 ms", "p50_ms"),
            ("an idle process, p99.9 ms", "machine_p999_ms"),
            ("instances/s", "received_per_second"),
        ),
    ),
    *(
        Row(
            f"queue-{operation}",
            f"queue, {operation}, 1,000,000 waiting against 1,000",
            "instances/s",
            ("full", "small"),
            _queue(operation),
            (Target("small", 0.9, 1.0),),
            subjects=("full",),
            missing=lambda name: rows_inside.queue_missing(),
        )
        for operation in ("enqueue", "lease", "settle")
    ),
    *rows_floor.ROWS,
    *rows_latency.ROWS,
    *rows_scale.ROWS,
    Row(
        "rules",
        "rule decision, 500 rules, 30 tags, mean",
        "µs",
        ("rules",),
        _decision,
        (Target("", 50, 20),),
        better="lower",
        subjects=("rules",),
        missing=lambda name: rows_inside.rules_missing(),
    ),
    Row(
        "rules-mixed",
        "rule decision, 500 rules with every operator, 31 tags, mean",
        "µs",
        ("rules",),
        _mixed_decision,
        (Target("", 50, 20),),
        better="lower",
        subjects=("rules",),
        missing=lambda name: rows_inside.rules_missing(),
    ),
)
