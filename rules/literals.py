"""Numbers, dates, times and ages as a person writes them in a rule, and intervals of them.

Owns their grammar, and the precision of what is written: a date is the whole of its day, a time
without seconds the whole of its minute.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, tzinfo
from math import inf
from typing import Literal

from rules.pattern import Bound, Interval, Today
from rules.refusal import Refusal
from rules.values import (
    Kind,
    Scalar,
    read_age,
    read_date,
    read_moment,
    read_number,
    read_time,
    start_of_day,
)

Comparison = Literal["<", "<=", ">", ">="]
NOUNS: dict[Kind, str] = {
    "number": "a number",
    "date": "a date",
    "time": "a time of day",
    "moment": "a date and time",
    "age": "an age",
}
EXAMPLES: dict[Kind, str] = {
    "number": "write a number such as 1.5",
    "date": "write it as 2026-11-21, or reckon from today: today-7d",
    "time": "write it as 18:00 or 18:00:30",
    "moment": "write it as 2026-11-21, 2026-11-21T18:00, or today-7d",
    "age": "write it as 18Y, 6M, 3W or 10D",
}
_SECOND = 1_000_000
_TODAY = re.compile(r"today(?:\s*([+-])\s*([0-9]{1,5})\s*([A-Za-z]+))?", re.IGNORECASE)
_TIME = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(\.[0-9]{1,6})?)?")
_MOMENT = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(\.[0-9]{1,6})?)?"
)
_PLAIN_TIME = re.compile(r"[0-9]{2}(?:[0-9]{2}(?:[0-9]{2}(?:\.[0-9]{1,6})?)?)?")


@dataclass(frozen=True, slots=True)
class Span:
    """What a literal covers: from ``start`` on, to ``end``, which belongs to it when ``closed``."""

    start: Scalar | Today
    end: Scalar | Today
    closed: bool = True


def read_span(kind: Kind, text: str, zone: tzinfo) -> Span:
    """Raises Refusal for what is no literal of ``kind``."""
    span = _READERS[kind](text.strip(), zone)
    if span is None:
        raise Refusal(f"{text.strip()!r} is not {NOUNS[kind]}", _hint(kind, text.strip()))
    return span


def equal_to(kind: Kind, text: str, zone: tzinfo) -> Interval:
    """All that ``text`` covers."""
    span = read_span(kind, text, zone)
    return Interval(kind, Bound(span.start, True), Bound(span.end, span.closed))


def compared(kind: Kind, sign: Comparison, text: str, zone: tzinfo) -> Interval:
    """What is ``sign`` than ``text``."""
    span = read_span(kind, text, zone)
    match sign:
        case "<":
            return Interval(kind, None, Bound(span.start, False))
        case "<=":
            return Interval(kind, None, Bound(span.end, span.closed))
        case ">":
            return Interval(kind, Bound(span.end, not span.closed), None)
        case ">=":
            return Interval(kind, Bound(span.start, True), None)


def between(kind: Kind, low: str, high: str, zone: tzinfo) -> Interval:
    """From ``low`` to ``high``, both of them in.  Raises Refusal for an empty one, too."""
    first, last = read_span(kind, low, zone), read_span(kind, high, zone)
    if _after(first.start, last.end):
        fix = f"write {high.strip()}..{low.strip()}"
        if kind == "time":
            fix = f'past midnight it is a list: [">= {low.strip()}", "<= {high.strip()}"]'
        raise Refusal(f"the range is empty: {low.strip()} is after {high.strip()}", fix)
    return Interval(kind, Bound(first.start, True), Bound(last.end, last.closed))


def _after(low: Scalar | Today, high: Scalar | Today) -> bool:
    if isinstance(low, Today) and isinstance(high, Today):
        return low.years * 365.25 + low.days > high.years * 365.25 + high.days
    if isinstance(low, Today) or isinstance(high, Today):
        return False  # It depends on the day.
    return low > high


def _number(text: str, _zone: tzinfo) -> Span | None:
    number = read_number(text)
    if number in (inf, -inf):
        raise Refusal(f"{text!r} is beyond all numbers", "the largest is about 1.8e308")
    return None if number is None else Span(number, number)


def _age(text: str, _zone: tzinfo) -> Span | None:
    age = read_age(text.upper())
    return None if age is None else Span(age, age)


def _date(text: str, _zone: tzinfo) -> Span | None:
    if (today := _today(text)) is not None:
        return Span(today, today)
    day = read_date(text)
    return None if day is None else Span(day, day)


def _time(text: str, _zone: tzinfo) -> Span | None:
    digits = text
    if match := _TIME.fullmatch(text):
        digits = match[1].rjust(2, "0") + match[2] + (match[3] or "") + (match[4] or "")
    elif not _PLAIN_TIME.fullmatch(text):
        return None
    start = read_time(digits)
    return None if start is None else _from(start, len(digits))


def _from(start: int, digits: int) -> Span:
    """A moment or time of so many digits from the hour on."""
    if digits <= 2:
        return Span(start, start + 3600 * _SECOND, closed=False)
    if digits == 4:
        return Span(start, start + 60 * _SECOND, closed=False)
    if digits == 6:
        return Span(start, start + _SECOND, closed=False)
    return Span(start, start)


def _moment(text: str, zone: tzinfo) -> Span | None:
    if (today := _today(text)) is not None:
        return Span(today, Today(today.days + 1, today.years), closed=False)
    day = read_date(text)
    if day is not None:
        return Span(start_of_day(day, zone), start_of_day(day + 1, zone), closed=False)
    if match := _MOMENT.fullmatch(text):
        text = "".join(part or "" for part in match.groups())
    digits = re.split("[+-]", text)[0]
    if len(digits) < 10:
        return None
    start = read_moment(text, zone)
    return None if start is None else _from(start, len(digits) - 8)


def _today(text: str) -> Today | None:
    match = _TODAY.fullmatch(text)
    if match is None:
        return None
    if match[1] is None:
        return Today()
    count = int(match[2]) * (-1 if match[1] == "-" else 1)
    unit = match[3].lower()
    if unit in ("d", "day", "days"):
        return Today(days=count)
    if unit in ("w", "week", "weeks"):
        return Today(days=7 * count)
    if unit in ("y", "year", "years") and abs(count) <= 1000:
        return Today(years=count)
    raise Refusal(
        f"{text!r} is not a day that can be reckoned",
        "count days, weeks or years: today-7d, today+1w, today-18y",
    )


def _hint(kind: Kind, text: str) -> str:
    if kind in ("date", "moment"):
        if text.lower().startswith("yesterday"):
            return "write today-1d"
        if text.lower().startswith("tomorrow"):
            return "write today+1d"
        for order in ("%d.%m.%Y", "%d/%m/%Y", "%d-%m-%Y", "%Y/%m/%d"):
            try:
                found = datetime.strptime(text, order)  # noqa: DTZ007 - only the date is used
            except ValueError:
                continue
            return f"write {found:%Y-%m-%d}"
    if kind == "number" and "," in text and read_number(text.replace(",", ".")) is not None:
        return f"write {text.replace(',', '.')}"
    if kind == "age" and text.isdigit():
        return f"say of what: {text}Y for years, {text}M, {text}W or {text}D"
    return EXAMPLES[kind]


_READERS: dict[Kind, Callable[[str, tzinfo], Span | None]] = {
    "number": _number,
    "date": _date,
    "time": _time,
    "moment": _moment,
    "age": _age,
}
