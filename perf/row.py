"""What a row of the benchmark is.

Owns the shape alone; the rows themselves are in `perf.rows`, `perf.rows_latency` and
`perf.rows_scale`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from perf.report import Sample, Target
from perf.steps import Bench

Measure = Callable[[Bench, str, int], Sample]


@dataclass(frozen=True, slots=True)
class Row:
    """One row.  ``measure`` gets the bench, the contender's name and the round's number.

    ``details`` are figures beside the main one that the report shows in a table of their own:
    name of the column, and name in `Sample.extra`.  ``most_rounds`` for a row of which one round
    is long and has many samples of its own, or whose figure hardly varies; `perf.latency` and
    `perf.scale` by themselves do as many as wanted.
    """

    name: str
    title: str
    unit: str
    contenders: tuple[str, ...]
    measure: Measure
    targets: tuple[Target, ...] = ()
    better: Literal["higher", "lower"] = "higher"
    subjects: tuple[str, ...] = ("dcmrouter",)
    missing: Callable[[str], str] = lambda name: ""
    prepare: Callable[[Bench], None] = lambda bench: None
    details: tuple[tuple[str, str], ...] = ()
    most_rounds: int | None = None
