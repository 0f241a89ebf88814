"""What a run found: statistics, ratios and verdicts; as JSON for scripts, as a table for people.

Owns the form of ``perf/results/latest.json``.  Pure, but for writing the file it is told to.
"""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

SCHEMA = 1
Verdict = Literal["stretch", "at least", "short", "unknown"]
_STYLES: dict[str, str] = {"stretch": "bold green", "at least": "green", "short": "red"}


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement.  ``cpu_seconds`` is that of the contender, for ``work`` units of work."""

    value: float
    cpu_seconds: float | None = None
    work: float = 0.0
    command: str = ""
    settings: str = ""
    extra: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be reached: a ratio to the contender ``against``, or a figure when it is ""."""

    against: str
    at_least: float | None
    stretch: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """All rounds of one contender in one row; ``reason`` says why there are none or too few."""

    status: Literal["ok", "missing", "failed"]
    samples: tuple[Sample, ...] = ()
    reason: str = ""

    @property
    def values(self) -> list[float]:
        return [sample.value for sample in self.samples]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def cpu_ms_per_unit(self) -> float | None:
        """CPU that the contender used per unit of work: steadier than time on a busy machine."""
        cpu = [s.cpu_seconds * 1000 / s.work for s in self.samples if s.cpu_seconds and s.work]
        return statistics.median(cpu) if cpu else None

    def extra(self, name: str) -> float | None:
        """Median of a figure beside the main one; None when no round has it."""
        values = [s.extra[name] for s in self.samples if name in s.extra]
        return statistics.median(values) if values else None

    def to_json(self) -> dict[str, object]:
        found: dict[str, object] = {"status": self.status}
        if self.reason:
            found["reason"] = self.reason
        if not self.samples:
            return found
        found["median"] = _short(self.median)
        found["min"], found["max"] = _short(min(self.values)), _short(max(self.values))
        found["rounds"] = [_short(value) for value in self.values]
        if self.cpu_ms_per_unit is not None:
            found["cpu_ms_per_unit"] = _short(self.cpu_ms_per_unit)
        for name in sorted({name for sample in self.samples for name in sample.extra}):
            found[name] = _short(self.extra(name))
        found["command"] = self.samples[-1].command
        if self.samples[-1].settings:
            found["settings"] = self.samples[-1].settings
        return found


@dataclass(frozen=True, slots=True)
class Ratio:
    """A row held against one target.  ``paired`` is the median of the ratios round by round."""

    subject: str
    target: Target
    value: float | None
    paired: float | None
    verdict: Verdict

    def to_json(self) -> dict[str, object]:
        return {
            "subject": self.subject,
            "against": self.target.against or "figure",
            "value": _short(self.value),
            "paired": _short(self.paired),
            "at_least": self.target.at_least,
            "stretch": self.target.stretch,
            "verdict": self.verdict,
        }


@dataclass(frozen=True, slots=True)
class RowResult:
    """One row: what was measured, of whom, and how it stands to the targets.

    The first of ``subjects`` is ours; the others are variants of ours.  ``details`` are columns
    of a table of their own: title, and name in `Sample.extra`.
    """

    name: str
    title: str
    unit: str
    better: Literal["higher", "lower"]
    subjects: tuple[str, ...]
    targets: tuple[Target, ...]
    outcomes: Mapping[str, Outcome]
    notes: Mapping[str, float] = field(default_factory=dict)
    details: tuple[tuple[str, str], ...] = ()

    @property
    def failed(self) -> bool:
        return any(outcome.status == "failed" for outcome in self.outcomes.values())

    def ratios(self) -> list[Ratio]:
        """Every subject that was measured against every target."""
        return [
            self._ratio(subject, target)
            for target in self.targets
            for subject in self.subjects
            if subject == self.subjects[0] or self._measured(subject)
        ]

    def to_json(self) -> dict[str, object]:
        return {
            "title": self.title,
            "unit": self.unit,
            "better": self.better,
            "contenders": {name: o.to_json() for name, o in self.outcomes.items()},
            "ratios": [ratio.to_json() for ratio in self.ratios()],
            "notes": {name: _short(value) for name, value in self.notes.items()},
        }

    def _measured(self, name: str) -> bool:
        return name in self.outcomes and self.outcomes[name].status == "ok"

    def _ratio(self, subject: str, target: Target) -> Ratio:
        if not self._measured(subject) or (target.against and not self._measured(target.against)):
            return Ratio(subject, target, None, None, "unknown")
        ours = self.outcomes[subject]
        if not target.against:
            return Ratio(subject, target, ours.median, None, self._verdict(target, ours.median))
        theirs = self.outcomes[target.against]
        value = ours.median / theirs.median
        pairs = [a / b for a, b in zip(ours.values, theirs.values, strict=False)]
        return Ratio(subject, target, value, statistics.median(pairs), self._verdict(target, value))

    def _verdict(self, target: Target, value: float) -> Verdict:
        def reached(limit: float | None) -> bool:
            if limit is None:
                return False
            return value >= limit if self.better == "higher" else value <= limit

        if reached(target.stretch):
            return "stretch"
        if target.at_least is None:
            return "short" if target.stretch is not None else "unknown"
        return "at least" if reached(target.at_least) else "short"


def to_json(head: Mapping[str, object], rows: Iterable[RowResult]) -> dict[str, object]:
    """The whole result; ``head`` is the machine, the versions, the time and the command."""
    return {"schema": SCHEMA, **head, "rows": {row.name: row.to_json() for row in rows}}


def write_json(path: Path, values: Mapping[str, object]) -> None:
    """Write it; the file appears whole or stays as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n")
    unfinished.replace(path)


def print_table(rows: Sequence[RowResult], titles: Mapping[str, str], console: Console) -> None:
    """A section per row, a line per contender; beside it, what we are in multiples of it."""
    table = Table(title="ratio: ours to it; for a figure of its own, the figure")
    table.add_column("who", overflow="fold")
    for column in ("median", "min – max", "CPU ms/unit", "ratio", "at least", "stretch"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_section()
        table.add_row(f"[bold]{row.title}, {row.unit}[/]")
        ratios: dict[str, list[Ratio]] = {}
        for ratio in row.ratios():
            ratios.setdefault(ratio.target.against or ratio.subject, []).append(ratio)
        for name, outcome in row.outcomes.items():
            cells = _ratio_cells(ratios.get(name, []), row.subjects[0], titles)
            table.add_row("  " + titles.get(name, name), *_figures(outcome), *cells)
    console.print(table)
    for row in rows:
        if row.details:
            _print_details(row, titles, console)
    reasons: dict[str, list[str]] = {}
    for row in rows:
        for name, outcome in row.outcomes.items():
            if outcome.status != "ok":
                what = f"{outcome.status}: {titles.get(name, name)}: {outcome.reason}"
                reasons.setdefault(what, []).append(row.name)
    for what, names in reasons.items():
        console.print(f"{what} ({', '.join(names)})", markup=False, soft_wrap=True)


def _print_details(row: RowResult, titles: Mapping[str, str], console: Console) -> None:
    """What was measured beside the main figure, medians of the rounds."""
    table = Table(title=f"{row.title}, {row.unit}", title_justify="left")
    table.add_column("", overflow="fold")
    table.add_column("median", justify="right", no_wrap=True)
    for column, _ in row.details:
        table.add_column(column, justify="right")
    for name, outcome in row.outcomes.items():
        if outcome.status == "ok":
            extra = [outcome.extra(key) for _, key in row.details]
            cells = ["–" if value is None else _human(value) for value in extra]
            table.add_row(titles.get(name, name), _human(outcome.median), *cells)
    console.print(table)


def _figures(outcome: Outcome) -> tuple[str, str, str]:
    if outcome.status != "ok":
        return f"[red]{outcome.status}[/]", "", ""
    low, high = min(outcome.values), max(outcome.values)
    cpu = outcome.cpu_ms_per_unit
    return (
        _human(outcome.median),
        f"{_human(low)} – {_human(high)}",
        "" if cpu is None else _human(cpu),
    )


def _ratio_cells(
    ratios: Sequence[Ratio], subject: str, titles: Mapping[str, str]
) -> tuple[str, str, str]:
    if not ratios:
        return "", "", ""
    values = []
    for ratio in ratios:
        value = "–" if ratio.value is None else _human(ratio.value)
        sign = " ×" if ratio.target.against else ""
        # A figure stands on the line of its own subject; a ratio on that of the other one.
        named = ratio.target.against and ratio.subject != subject
        variant = f" ({titles.get(ratio.subject)})" if named else ""
        values.append(f"[{_STYLES.get(ratio.verdict, 'dim')}]{value}{sign}{variant}[/]")
    target = ratios[0].target
    return (
        "\n".join(values),
        "" if target.at_least is None else f"{target.at_least:g}",
        "" if target.stretch is None else f"{target.stretch:g}",
    )


def _human(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _short(value: float | None) -> float | None:
    """Four significant digits and no more: the rest is noise."""
    return None if value is None else float(f"{value:.4g}")
