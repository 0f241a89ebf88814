"""Samples of a long run: kept as CSV, drawn as SVG, and judged.

Owns the form of the figures and the question whether a resource grows.  Must not know what is
measured.  Times are seconds since the start.
"""

import csv
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

TIME = "seconds"
_FIFTHS = 5
_WIDTH, _HEIGHT, _LEFT, _GAP = 760, 64, 190, 26
_INK, _LINE, _FRAME = "#333333", "#1f6feb", "#cccccc"

Row = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Bound:
    """How much a column may rise: ``absolute``, or ``relative`` to where it was, what is more."""

    column: str
    absolute: float
    relative: float = 0.0

    def allowance(self, before: float) -> float:
        """The rise that is still flat."""
        return max(self.absolute, self.relative * before)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Medians of the second and of the last fifth of the time, and whether that is flat."""

    bound: Bound
    before: float
    after: float

    @property
    def flat(self) -> bool:
        """Whether it rose by no more than it may; a fall is none of our worries."""
        return self.after - self.before <= self.bound.allowance(self.before)


def judge(rows: Sequence[Row], bounds: Iterable[Bound]) -> list[Verdict]:
    """One verdict for each bound.

    The first fifth of the time is for warming up.  Raises ValueError when there are too few
    samples for a median in one of the two parts, or a column is missing in them.
    """
    if not rows:
        raise ValueError("there are no samples")
    end = rows[-1][TIME]
    second = _part(rows, end, 1)
    last = _part(rows, end, _FIFTHS - 1)
    verdicts = []
    for bound in bounds:
        medians = []
        for part in (second, last):
            values = [row[bound.column] for row in part if bound.column in row]
            if len(values) < 3:
                raise ValueError(f"{len(values)} samples of {bound.column} are too few to judge")
            medians.append(statistics.median(values))
        verdicts.append(Verdict(bound, *medians))
    return verdicts


def _part(rows: Sequence[Row], end: float, number: int) -> list[Row]:
    low, high = end * number / _FIFTHS, end * (number + 1) / _FIFTHS
    return [row for row in rows if low <= row[TIME] < high or row[TIME] == high == end]


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """All samples, a column for each name that any of them has; empty where one was not had."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow([_figure(row[name]) if name in row else "" for name in columns])


def read_csv(path: Path) -> list[dict[str, float]]:
    """What `write_csv` wrote."""
    with path.open(newline="") as file:
        return [
            {name: float(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
        ]


def svg(rows: Sequence[Row], columns: Sequence[str], title: str) -> str:
    """One small chart for each column, one below the other, all over the same time."""
    end = rows[-1][TIME] or 1.0
    height = 40 + len(columns) * (_HEIGHT + _GAP) + 20
    size = f'width="{_LEFT + _WIDTH + 20}" height="{height}"'
    font = f'font-family="sans-serif" font-size="11" fill="{_INK}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="10" y="22" font-size="14">{escape(title)}</text>',
    ]
    top = 40
    for column in columns:
        points = [(row[TIME], row[column]) for row in rows if column in row]
        parts += _chart(column, points, end, top)
        top += _HEIGHT + _GAP
    parts.append(f'<text x="{_LEFT}" y="{top}">0 s</text>')
    parts.append(f'<text x="{_LEFT + _WIDTH}" y="{top}" text-anchor="end">{end:.0f} s</text>')
    return "\n".join([*parts, "</svg>", ""])


def _chart(column: str, points: Sequence[tuple[float, float]], end: float, top: int) -> list[str]:
    frame = (
        f'<rect x="{_LEFT}" y="{top}" width="{_WIDTH}" height="{_HEIGHT}" fill="none" '
        f'stroke="{_FRAME}"/>'
    )
    name = f'<text x="10" y="{top + _HEIGHT // 2}">{escape(column)}</text>'
    if not points:
        return [frame, name]
    # From zero, so that a small ripple does not look like a leak.
    most = max(value for _, value in points)
    scale = _HEIGHT / most if most > 0 else 0.0
    line = " ".join(
        f"{_LEFT + at / end * _WIDTH:.1f},{top + _HEIGHT - max(0.0, value) * scale:.1f}"
        for at, value in points
    )
    return [
        frame,
        name,
        f'<text x="{_LEFT - 6}" y="{top + 9}" text-anchor="end">{_short(most)}</text>',
        f'<polyline points="{line}" fill="none" stroke="{_LINE}"/>',
    ]


def _figure(value: float) -> str:
    return f"{value:.6g}" if value % 1 else f"{value:.0f}"


def _short(value: float) -> str:
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= factor:
            return f"{value / factor:.4g} {unit}"
    return f"{value:.3g}"
