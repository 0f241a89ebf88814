"""Intervals of numbers, dates, times and ages, ready to be asked for one value.

Owns the search: however many intervals there are for a subject, a value is found among them by
bisection.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from datetime import tzinfo

from rules.pattern import Bound, Interval, Today
from rules.values import Kind, Scalar, reckoned, start_of_day

_LOWEST, _HIGHEST = float("-inf"), float("inf")
Edge = tuple[Scalar, int]
"""Just before a value (0), or just after it (1)."""


def edges(interval: Interval, day: int, zone: tzinfo) -> tuple[Edge, Edge]:
    """Where the interval begins and ends on ``day`` (its ordinal)."""
    low, high = interval.low, interval.high
    return (
        (_LOWEST, 0) if low is None else (_value(low, interval.kind, day, zone), not low.included),
        (_HIGHEST, 1) if high is None else (_value(high, interval.kind, day, zone), high.included),
    )


def _value(bound: Bound, kind: Kind, day: int, zone: tzinfo) -> Scalar:
    value = bound.value
    if not isinstance(value, Today):
        return value
    ordinal = reckoned(day, value.years, value.days)
    return start_of_day(ordinal, zone) if kind == "moment" else ordinal


def holder(interval: Interval, day: int, zone: tzinfo) -> Callable[[Scalar], bool]:
    """Whether one value lies in one interval."""
    low, high = edges(interval, day, zone)
    return lambda value: low <= (value, 0) < high


class Pieces:
    """The line of values cut where any interval begins or ends; each piece has the rules, as bits,
    whose intervals hold it."""

    __slots__ = ("_cuts", "_rules")

    def __init__(self, intervals: Iterable[tuple[Edge, Edge, int]]) -> None:
        changes: dict[Edge, list[tuple[int, int]]] = {}
        for low, high, rules in intervals:
            if low < high:
                changes.setdefault(low, []).append((1, rules))
                changes.setdefault(high, []).append((-1, rules))
        self._cuts = sorted(changes)
        self._rules = [0]
        # A rule may have several intervals that overlap: it leaves with the last of them.
        inside: dict[int, int] = {}
        for cut in self._cuts:
            for step, rules in changes[cut]:
                inside[rules] = inside.get(rules, 0) + step
                if not inside[rules]:
                    del inside[rules]
            held = 0
            for rules in inside:
                held |= rules
            self._rules.append(held)

    def at(self, value: Scalar) -> int:
        """The rules of which an interval holds ``value``."""
        # The piece of a value lies behind the cut just before it.
        return self._rules[bisect_left(self._cuts, (value, 1))]
