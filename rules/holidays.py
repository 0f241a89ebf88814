"""Holidays kept in a file: a date on each line.

Owns the reading of such a file.  Must not open it, nor know what a holiday changes.
"""

import re
from dataclasses import dataclass
from datetime import date

from rules.source import Problem

MAX_BYTES = 1 << 20
MAX_DATES = 10_000
_LINE = re.compile(r"(?:(?P<year>[0-9]{4})-)?(?P<month>[0-9]{2})-(?P<day>[0-9]{2})(?:[\s,;#].*)?")
_LEAP = 2000
_PROBLEMS = 10


@dataclass(frozen=True, slots=True)
class HolidayText:
    """``dates`` are ordinals of dates, ``yearly`` months with days.  ``problems`` is empty when
    these are all of them."""

    dates: frozenset[int] = frozenset()
    yearly: frozenset[tuple[int, int]] = frozenset()
    problems: tuple[Problem, ...] = ()


def parse_holidays(data: bytes, file: str) -> HolidayText:
    """The holidays in a file of UTF-8 text: ``2026-12-25``, or ``12-25`` for every year; what
    follows a space, comma or semicolon is for people, and so are lines that begin with #.

    ``file`` is the name that problems carry.
    """
    if len(data) > MAX_BYTES:
        return _failed(Problem(file, 0, 0, f"is larger than {MAX_BYTES >> 20} MiB"))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return _failed(Problem(file, line, 1, "is not UTF-8", "save the file as UTF-8"))
    dates: set[int] = set()
    yearly: set[tuple[int, int]] = set()
    problems: list[Problem] = []
    for number, row in enumerate(text.splitlines(), 1):
        written = row.strip()
        if not written or written.startswith("#"):
            continue
        match = _LINE.fullmatch(written)
        try:
            if match is None:
                raise ValueError(written)
            day = date(int(match["year"] or _LEAP), int(match["month"]), int(match["day"]))
        except ValueError:
            what = f"{written[:40]!r} is not a date"
            fix = "write 2026-12-25, or 12-25 for every year"
            problems.append(Problem(file, number, 1, what, fix))
            if len(problems) == _PROBLEMS:
                break
            continue
        if match["year"]:
            dates.add(day.toordinal())
        else:
            yearly.add((day.month, day.day))
    if len(dates) > MAX_DATES:
        return _failed(Problem(file, 0, 0, f"has more than {MAX_DATES} dates"))
    if not dates and not yearly and not problems:
        problems.append(Problem(file, 0, 0, "has no dates", "write one on each line: 2026-12-25"))
    return HolidayText(frozenset(dates), frozenset(yearly), tuple(problems))


def _failed(problem: Problem) -> HolidayText:
    return HolidayText(problems=(problem,))
