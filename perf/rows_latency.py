"""Rows of the table that are distributions: the answer, the delivery, the stall, at three loads.

Owns which part of one measurement (`perf.latency`) each row shows; the loads take the place of
contenders.
"""

from perf.contenders import Dcmrouter
from perf.latency import SHARES, Distribution, Latencies, Latency, Level, Settings
from perf.report import Sample, Target
from perf.row import Measure, Row
from perf.steps import Bench

_SHARES = {f"at-{share * 100:.0f}": share for share in SHARES}
TITLES = {name: f"at {share:.0%} of highest rate" for name, share in _SHARES.items()}
_LOADS = tuple(_SHARES)
_KINDS = {"mr": "131 KB MR", "ct": "526 KB CT"}
_DETAILS = (
    ("p50", "p50_ms"),
    ("p99.9", "p999_ms"),
    ("max", "max_ms"),
    ("p99 from due", "p99_from_due_ms"),
    ("p99.9 from due", "p999_from_due_ms"),
    ("instances/s", "reached"),
)


def _measured(bench: Bench, kind: str, number: int) -> Latencies:
    settings = Settings(bench.sizes.latency_peak_seconds, bench.sizes.latency_seconds)
    return bench.once(
        ("latency", kind, number), lambda: Latency(bench.work, kind, settings).measure()
    )


def _sample(level: Level, figures: Distribution, from_due: Distribution) -> Sample:
    return Sample(
        figures.p99,
        extra={
            "p50_ms": figures.p50,
            "p999_ms": figures.p999,
            "max_ms": figures.max,
            "p99_from_due_ms": from_due.p99,
            "p999_from_due_ms": from_due.p999,
            "rate": level.rate,
            "reached": level.reached,
        },
    )


def _answer(kind: str) -> Measure:
    def measure(bench: Bench, name: str, number: int) -> Sample:
        level = _measured(bench, kind, number).at(_SHARES[name])
        return _sample(level, level.answer, level.answer_from_due)

    return measure


def _delivery(kind: str) -> Measure:
    def measure(bench: Bench, name: str, number: int) -> Sample:
        level = _measured(bench, kind, number).at(_SHARES[name])
        return _sample(level, level.delivery, level.delivery_from_due)

    return measure


def _stall(kind: str) -> Measure:
    def measure(bench: Bench, name: str, number: int) -> Sample:
        found = _measured(bench, kind, number)
        level = found.at(_SHARES[name])
        extra = {"highest": found.highest, "reached": level.reached, "cores": level.cpu_share}
        return Sample(level.stall_p999_ms, extra=extra)

    return measure


def _rows(kind: str, title: str) -> tuple[Row, ...]:
    def row(
        name: str,
        what: str,
        measure: Measure,
        targets: tuple[Target, ...] = (),
        details: tuple[tuple[str, str], ...] = _DETAILS,
    ) -> Row:
        return Row(
            f"latency-{name}-{kind}",
            f"{what}, {title}, eight associations",
            "ms",
            _LOADS,
            measure,
            targets,
            better="lower",
            subjects=_LOADS,
            missing=lambda _: Dcmrouter.missing(),
            details=details,
            most_rounds=1,
        )

    # The highest rate is one figure of the measurement, not of a load.
    loads = (("highest, instances/s", "highest"), ("instances/s", "reached"), ("cores", "cores"))
    figure = (Target("", 25, 10),)
    return (
        row("answer", "last byte of C-STORE-RQ to RSP, p99", _answer(kind)),
        row("delivery", "C-STORE-RSP to delivered, p99", _delivery(kind)),
        row("stall", "event loop stall under it, p99.9", _stall(kind), figure, loads),
    )


ROWS = tuple(row for kind, title in _KINDS.items() for row in _rows(kind, title))
