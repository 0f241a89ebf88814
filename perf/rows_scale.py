"""Rows of the table about the running gateway with a million instances waiting.

Owns which part of one measurement (`perf.scale`) each row shows; the cases take the place of
contenders.
"""

from collections.abc import Callable

from perf.contenders import Dcmrouter
from perf.report import Sample, Target
from perf.row import Row
from perf.scale import Amount, Case, Figures, Scale, cases
from perf.steps import Bench

# Names are those of `perf.scale.cases`.
TITLES = {
    "waiting-large": "1,000,000 waiting",
    "waiting-small": "1,000 waiting",
    "dead-large": "1,000,000, for 100 dead ones",
    "alone": "nothing waiting",
}
_LARGE = ("waiting-large", "dead-large")
_DETAILS = (
    ("after kill -9, s", "start_after_kill_seconds"),
    ("peak MB", "peak_mb"),
    ("idle, cores", "idle_share"),
    ("/metrics ms", "metrics_ms"),
    ("index MB", "index_mb"),
)


def _measured(bench: Bench, name: str, number: int) -> Figures:
    sizes = bench.sizes

    def make() -> Scale:
        amount = Amount(sizes.scale_seconds, sizes.scale_delivered, sizes.scale_quiet)
        scale = Scale(bench.work, _case(bench, name), amount)
        bench.at_end(scale.close)
        return scale

    scale = bench.once(("scale", name), make)
    return bench.once(("scale", name, number), scale.measure)


def _case(bench: Bench, name: str) -> Case:
    sizes = bench.sizes
    found = cases(
        sizes.scale_large, sizes.scale_small, sizes.scale_destinations, sizes.scale_segments
    )
    return next(case for case in found if case.name == name)


def _row(
    name: str,
    title: str,
    unit: str,
    figure: Callable[[Figures], float],
    contenders: tuple[str, ...],
    target: Target,
    *,
    lower: bool = False,
    details: tuple[tuple[str, str], ...] = (),
) -> Row:
    def measure(bench: Bench, contender: str, number: int) -> Sample:
        found = _measured(bench, contender, number)
        extra = {what: float(getattr(found, what)) for _, what in _DETAILS}
        return Sample(figure(found), extra=extra)

    subjects = tuple(each for each in contenders if each in _LARGE)
    return Row(
        f"scale-{name}",
        title,
        unit,
        contenders,
        measure,
        (target,),
        better="lower" if lower else "higher",
        subjects=subjects,
        missing=lambda _: Dcmrouter.missing(),
        details=details,
        most_rounds=1,
    )


ROWS = (
    _row(
        "start",
        "start of the process to /readyz, cold files",
        "s",
        lambda found: found.start_seconds,
        ("waiting-large", "waiting-small", "dead-large", "alone"),
        Target("", 10, 5),
        lower=True,
        details=_DETAILS,
    ),
    _row(
        "start-killed",
        "the same after kill -9",
        "s",
        lambda found: found.start_after_kill_seconds,
        ("waiting-large", "waiting-small", "dead-large", "alone"),
        Target("", 10, 5),
        lower=True,
    ),
    _row(
        "memory",
        "resident memory with what waits",
        "MB",
        lambda found: found.resident_mb,
        ("waiting-large", "waiting-small", "dead-large", "alone"),
        Target("waiting-small", 1.5, 1.2),
        lower=True,
    ),
    _row(
        "receive",
        "receive MR, four associations, behind what waits",
        "instances/s",
        lambda found: found.rate,
        ("waiting-large", "waiting-small"),
        Target("waiting-small", 0.9, 1.0),
    ),
    _row(
        "deliver",
        "received to delivered, MR, to a live destination beside what waits",
        "instances/s",
        lambda found: found.rate,
        ("dead-large", "alone"),
        Target("alone", 0.9, 1.0),
    ),
)
