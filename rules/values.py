"""What a value's text means: a number, a date, a time, an age, the groups of a name.

Owns the reading of values as the standard writes them (PS3.5 §6.2), and of the same as a person
writes them.  Must not know conditions.  Nothing here raises for the text of a value, and what
cannot be read reads as nothing at all, so that no comparison holds for it.
"""

import re
from collections.abc import Callable, Hashable
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Literal, TypeAlias
from unicodedata import normalize

Kind: TypeAlias = Literal["number", "date", "time", "moment", "age"]
"""What can be ordered.  ``moment`` is a date with a time (DT)."""
Lens: TypeAlias = Literal["text", "fold", "name", "number", "date", "time", "moment", "age"]
"""How a value is looked at before it is compared."""
Scalar: TypeAlias = int | float
"""What values of a kind are ordered by: numbers by themselves, dates by their ordinal, times by
microseconds since midnight, moments by microseconds since the epoch, ages by 1/16 of a day."""

KINDS: dict[str, Kind] = {
    **dict.fromkeys(
        ("DS", "IS", "US", "SS", "UL", "SL", "FL", "FD", "UV", "SV", "US or SS"), "number"
    ),
    "DA": "date",
    "TM": "time",
    "DT": "moment",
    "AS": "age",
}
"""Kind of the value representations whose values are ordered."""

CACHED = 256
"""Characters of the longest value for which an answer is kept in memory."""
DAY = 86_400_000_000
"""Microseconds."""
# Composing takes the square of the length of what is hostile; a name has 64 characters a group.
_COMPOSED = 1000
_NUMBER = re.compile(
    r"[+-]?(?:[0-9]{1,64}(?:\.[0-9]{0,64})?|\.[0-9]{1,64})(?:[Ee][+-]?[0-9]{1,3})?"
)
_DATE = re.compile(r"([0-9]{4})([.-]?)([0-9]{2})\2([0-9]{2})")
_TIME = re.compile(r"([0-9]{2})(?:(:?)([0-9]{2})(?:\2([0-9]{2})(?:\.([0-9]{1,6}))?)?)?")
_MOMENT = re.compile(
    r"([0-9]{4})(?:([0-9]{2})(?:([0-9]{2})(?:([0-9]{2})(?:([0-9]{2})(?:([0-9]{2})"
    r"(?:\.([0-9]{1,6}))?)?)?)?)?)?([+-][0-9]{4})?"
)
_AGE = re.compile(r"([0-9]{1,3})([DWMY])")
_UNITS = {"D": 16, "W": 7 * 16, "M": 487, "Y": 5844}  # 30.4375 and 365.25 days
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read_number(text: str) -> Scalar | None:
    """A decimal string, an integer string, or the text of a binary number."""
    try:
        if len(text) < 19 and text.isascii() and text.isdigit():
            return int(text)
        return _number(text) if _NUMBER.fullmatch(text) else None
    except (OverflowError, ValueError):
        return None


def _number(text: str) -> Scalar:
    if "." not in text and "e" not in text and "E" not in text:
        return int(text)
    number = float(text)
    return int(number) if number.is_integer() else number


def read_date(text: str) -> int | None:
    """YYYYMMDD, or YYYY.MM.DD as before 1993, as the day's ordinal."""
    try:
        if len(text) == 8 and text.isascii() and text.isdigit():
            return date(int(text[:4]), int(text[4:6]), int(text[6:])).toordinal()
        match = _DATE.fullmatch(text)
        return date(int(match[1]), int(match[3]), int(match[4])).toordinal() if match else None
    except ValueError:
        return None


def read_time(text: str) -> int | None:
    """HH, HHMM, HHMMSS and HHMMSS.FFFFFF, with colons as before 1993."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    hour, minute, second = int(match[1]), int(match[3] or 0), int(match[4] or 0)
    if hour > 23 or minute > 59 or second > 60:  # 60: a leap second
        return None
    return (hour * 3600 + minute * 60 + second) * 1_000_000 + int((match[5] or "").ljust(6, "0"))


def read_age(text: str) -> int | None:
    """Three digits and D, W, M or Y; a month has 30.4375 days, a year 365.25."""
    match = _AGE.fullmatch(text)
    return int(match[1]) * _UNITS[match[2]] if match else None


def read_moment(text: str, zone: tzinfo) -> int | None:
    """YYYYMMDDHHMMSS.FFFFFF&ZZXX, shortened from the right; without an offset in ``zone``."""
    match = _MOMENT.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, offset = match.groups()
    try:
        wall = datetime(  # noqa: DTZ001 - the zone follows
            int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0)
        )
        if int(second or 0) > 60:
            return None
        aware = wall.replace(tzinfo=_offset(offset) if offset else zone)
        since = aware - _EPOCH
    except (ValueError, OverflowError):
        return None
    micros = (since.days * 86400 + since.seconds + int(second or 0)) * 1_000_000
    return micros + int((fraction or "").ljust(6, "0"))


def _offset(text: str) -> timezone:
    if int(text[3:]) > 59:
        raise ValueError(text)
    minutes = int(text[1:3]) * 60 + int(text[3:])
    return timezone(timedelta(minutes=-minutes if text[0] == "-" else minutes))


def start_of_day(ordinal: int, zone: tzinfo) -> int:
    """Midnight at the start of a day in ``zone``, in microseconds since the epoch."""
    # Dates at the ends of the calendar cannot be moved to UTC; there no zone matters.
    ordinal = min(max(ordinal, 2), date.max.toordinal() - 1)
    midnight = datetime.combine(date.fromordinal(ordinal), datetime.min.time(), zone)
    since = midnight - _EPOCH
    return (since.days * 86400 + since.seconds) * 1_000_000


def day_of(moment: float, zone: tzinfo) -> int:
    """The ordinal of the day on which ``moment``, in seconds since the epoch, falls in ``zone``."""
    return datetime.fromtimestamp(moment, UTC).astimezone(zone).toordinal()


def reckoned(day: int, years: int, days: int) -> int:
    """The ordinal of the day that is so many years, then days from ``day``; 29 February falls on
    the 28th in other years."""
    start = date.fromordinal(day)
    year = min(max(start.year + years, 1), 9999)
    try:
        moved = start.replace(year=year)
    except ValueError:
        moved = start.replace(year=year, day=28)
    return min(max(moved.toordinal() + days, 1), date.max.toordinal())


def composed(text: str) -> str:
    """Text in Unicode's composed form (NFC), so that an é is one however it was typed."""
    if text.isascii() or len(text) > _COMPOSED:
        return text
    return normalize("NFC", text)


def fold(text: str) -> str:
    """Text without its letter case, composed."""
    if text.isascii():
        return text if text.isdigit() else text.lower()
    # Composed last: the folded form of a composed character may be none.
    return composed(text.casefold())


def name_groups(value: str) -> tuple[str, ...]:
    """The component groups of a person name (PS3.5 §6.2.1), each as `name_group`, empty ones too:
    alphabetic, ideographic, phonetic."""
    # What a sender may make as long as it likes is not kept.
    return cached_groups(value) if len(value) <= CACHED else _groups(value)


def _groups(value: str) -> tuple[str, ...]:
    return tuple(name_group(group) for group in value.split("="))


cached_groups = lru_cache(maxsize=4096)(_groups)


def name_group(group: str) -> str:
    """A component group as PS3.4 §C.2.2.2.1 compares it: letter case, spaces around components
    and empty components at the end do not count."""
    components = [part.strip() for part in fold(group).split("^")]
    while components and not components[-1]:
        components.pop()
    return "^".join(components)


def padded(group: str) -> str:
    """A group with all of its five components, for a pattern that has carets behind them."""
    return group + "^" * (4 - group.count("^"))


def reader(lens: Lens, zone: tzinfo) -> Callable[[str], Hashable | None]:
    """How a value is read under ``lens``; None is what cannot be read.

    Not for names, which have several groups (`name_groups`).
    """
    match lens:
        case "fold":
            return fold
        case "number":
            return read_number
        case "date":
            return read_date
        case "time":
            return read_time
        case "age":
            return read_age
        case "moment":
            return lambda text: read_moment(text, zone)
        case _:
            return str
