"""Runs cases of one target and says how they went.

Owns the bounds on what a case may cost, and stopping at the first violation.  Must not know any
target, nor where findings are kept.

Time is bounded three ways: by a timer of processor time against what would never end; by the lines
of Python that a sampled case executes, which is the same on every machine; and by `growth`, which
feeds ten times as much of the same.  Memory of the same sampled cases is traced.
"""

import signal
import sys
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType

from tests.fuzz.core import Target, Violation
from tests.fuzz.mutate import MAGIC, Mutator

LONGEST_CASE = 10.0
"""Seconds of processor time after which a case is taken to have no end."""
SAMPLED = 2_000
"""One case in so many is measured."""
_ARMED_FOR = 64


@dataclass(frozen=True, slots=True)
class Finding:
    """An input that broke a promise; the error is a traceback."""

    target: str
    seed: str
    data: bytes
    error: str


@dataclass(slots=True)
class Report:
    """Times in seconds; ``held`` is the most bytes that a case had buffered."""

    target: str
    seed: str
    cases: int = 0
    refused: int = 0
    slowest: float = 0.0
    seconds: float = 0.0
    held: int = 0
    lines: int = 0
    memory: int = 0
    finding: Finding | None = None

    @property
    def accepted(self) -> int:
        return self.cases - self.refused

    def add(self, other: "Report") -> None:
        """Take in the report of more cases of the same target."""
        self.cases += other.cases
        self.refused += other.refused
        self.seconds += other.seconds
        for name in ("slowest", "held", "lines", "memory"):
            setattr(self, name, max(getattr(self, name), getattr(other, name)))
        self.finding = self.finding or other.finding


def mutator(target: Target, seed: str) -> Mutator:
    """The inputs that belong to a seed."""
    magic = (*MAGIC, *target.magic)
    return Mutator(
        target.seeds(), f"{seed}/{target.name}", head=target.head, kept=target.kept, magic=magic
    )


def run(target: Target, cases: int, seed: str, *, sampled: int = SAMPLED) -> Report:
    """At most ``cases`` cases; ends at the first that breaks a promise."""
    report = Report(target.name, seed)
    sampled = max(min(sampled, cases // 40), 1)
    check, clock = target.check, time.perf_counter
    began = clock()
    data = b""
    with _time_limit():
        try:
            for number, data in enumerate(mutator(target, seed).inputs(cases)):
                if not number % _ARMED_FOR:
                    signal.setitimer(signal.ITIMER_VIRTUAL, LONGEST_CASE)
                start = clock()
                refused, held = check(data)
                took = clock() - start
                report.cases += 1
                report.refused += refused
                if took > report.slowest:
                    report.slowest = took
                if held > report.held:
                    report.held = held
                if not number % sampled:
                    _measure(target, data, report)
        except Exception:  # noqa: BLE001 - whatever the code under test lets out is the finding
            report.finding = Finding(target.name, seed, data, traceback.format_exc())
    report.seconds = clock() - began
    return report


def replay(target: Target, data: bytes) -> None:
    """One input, measured too.  Raises whatever it breaks."""
    with _time_limit():
        signal.setitimer(signal.ITIMER_VIRTUAL, LONGEST_CASE)
        target.check(data)
        _measure(target, data, Report(target.name, "replayed"))


@contextmanager
def _time_limit() -> Iterator[None]:
    def expired(number: int, frame: FrameType | None) -> None:
        raise Violation(f"no end after {LONGEST_CASE:.0f} s of processor time")

    before = signal.signal(signal.SIGVTALRM, expired)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _measure(target: Target, data: bytes, report: Report) -> None:
    cost = target.cost
    report.memory = max(report.memory, memory := _memory_of(target, data))
    if memory > (most := cost.memory + cost.memory_per_byte * len(data)):
        raise Violation(f"{memory} bytes were allocated for {len(data)} of input, bound {most}")
    report.lines = max(report.lines, lines := lines_of(partial(target.check, data)))
    if lines > (most := cost.lines + cost.lines_per_byte * len(data)):
        raise Violation(f"{lines} lines were executed for {len(data)} bytes, bound {most}")


def _memory_of(target: Target, data: bytes) -> int:
    """Bytes allocated at the peak of a case."""
    tracemalloc.start()
    try:
        target.check(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def lines_of(work: Callable[[], object]) -> int:
    """Lines of Python that are executed."""
    lines = 0

    def trace(frame: FrameType, event: str, _: object) -> object:
        nonlocal lines
        if event == "line":
            lines += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        work()
    finally:
        sys.settrace(before)
    return lines
