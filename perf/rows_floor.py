"""The same bytes to the product and to a bare program that writes and syncs them.

Owns the rows against the floor: the senders of both hand what they send to the kernel by
``sendfile``, so the ratio is that of the receivers.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from perf.contenders import Floor
from perf.processes import cpu_seconds
from perf.report import Sample, Target
from perf.row import Measure, Row
from perf.steps import Bench, check_count, floor_send, make_contender, replay_send

_MB = 1e6
_CONTENDERS = ("dcmrouter", "dcmrouter-warm", "floor")
_LEAST = 0.7

Lists = Callable[[Bench], list[list[Path]]]


def measure_against_floor(kind: str, lists: Lists, unit: Literal["n", "MB"]) -> Measure:
    """How fast a contender takes the files of a kind that `lists` gives."""

    def measure(bench: Bench, name: str, _: int) -> Sample:
        paths = lists(bench)
        count = sum(map(len, paths))
        size = sum(path.stat().st_size for each in paths for path in each) / _MB
        with make_contender(bench, name) as contender:
            cpu = cpu_seconds(contender.pid)
            if isinstance(contender, Floor):
                seconds = floor_send(bench, contender, paths)
            else:
                seconds = replay_send(bench, contender, kind, paths)
            used = cpu_seconds(contender.pid) - cpu
            check_count(contender, count)
            amount = size if unit == "MB" else count
            settings = contender.settings().replace(str(bench.work), "WORK")
            return Sample(amount / seconds, used, count, contender.shown_command(), settings)

    return measure


def _row(name: str, what: str, kind: str, lists: Lists, unit: Literal["n", "MB"] = "n") -> Row:
    shown = "instances/s" if unit == "n" else "MB/s"
    return Row(
        name,
        f"the same bytes to a bare program, {what}",
        shown,
        _CONTENDERS,
        measure_against_floor(kind, lists, unit),
        (Target("floor", _LEAST, None),),
        subjects=("dcmrouter", "dcmrouter-warm"),
    )


ROWS = (
    _row(
        "floor-mr",
        "131 KB MR, 4 senders",
        "mr",
        lambda bench: bench.files("mr", bench.sizes.senders, bench.sizes.mr),
    ),
    _row(
        "floor-ct",
        "526 KB CT, 4 senders",
        "ct",
        lambda bench: bench.files("ct", bench.sizes.senders, bench.sizes.ct),
    ),
    _row(
        "floor-xa",
        "50 MB XA, one sender",
        "xa",
        lambda bench: bench.files("xa", 1, bench.sizes.xa),
        "MB",
    ),
)
