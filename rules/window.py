"""Windows of time in a time zone: those of every week, of single days, and of holidays.

Owns what "mon-fri 18:00-07:00" means, daylight saving included.  Must not know who waits for a
window, nor read a clock: moments come in as seconds since the epoch.
"""

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from rules.nearest import did_you_mean

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_EVERY_DAY = tuple(range(7))
_DAY = 86400
_HORIZON = 22
"""Days in which a window that opens once a week opens, though one week's lies in an hour that
daylight saving leaves out."""
_EXAMPLE = 'write "mon-fri 18:00-07:00", or "18:00-07:00" for every day'
_SPAN = re.compile(r"(?:(?P<days>[A-Za-z][A-Za-z,\s-]*?)\s+)?(?P<start>[^\s-]+)\s*-\s*(?P<end>\S+)")
_OVER_DAYS = re.compile(
    r"(?P<first>[A-Za-z]{3,9})\s+(?P<start>[0-9:]+)\s*-\s*(?P<last>[A-Za-z]{3,9})\s+(?P<end>[0-9:]+)"
)
"""From an hour of one day to one of another, as a calendar has it."""
_PARTS = re.compile(r"(?:[A-Za-z][A-Za-z,\s-]*\s)?[0-9]{1,2}:[0-9]{2}\s*-\s*[0-9]{1,2}:[0-9]{2}")
_LOOKED_AT = 1000
"""Characters of a text that is no window in which several are looked for."""
_DATED = re.compile(
    r"(?P<first>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:\s*\.\.\s*(?P<last>[0-9]{4}-[0-9]{2}-[0-9]{2}))?(?:\s+(?P<rest>\S.*))?"
)
_GIVEN_DAYS = r"(?:(?P<days>[A-Za-z][A-Za-z,\s-]*?)\s+)?"
_AT = re.compile(_GIVEN_DAYS + r"at\s+(?P<clock>\S+)(?:\s+for\s+(?P<length>\S.*))?")
_EVERY = re.compile(_GIVEN_DAYS + r"every\s+(?P<step>\S+)(?:\s+for\s+(?P<length>\S.*))?")
_LENGTH = re.compile(r"([0-9]{1,4}(?:\.[0-9]{1,2})?)\s*(m|min|h)")
_EPOCH = date(1970, 1, 1).toordinal()
_LAST = float((date.max.toordinal() - _EPOCH - 2) * _DAY)
"""In seconds since the epoch: no zone is beyond the last day that a date can have."""
_CLOCK = re.compile(r"([0-9]{1,2}):([0-9]{2})")


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """From ``start`` to ``end`` on each of ``days``, by the clock on the wall.

    ``days`` are those on which it begins, 0 is Monday.  Minutes since midnight; an ``end`` that
    is not after ``start`` lies on the next day, 1440 is midnight at the end of the day.
    """

    days: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True, order=True)
class Dated:
    """As `Span`, on each day from ``first`` to ``last``, which are ordinals of dates."""

    first: int
    last: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Holidays:
    """Days on which other windows begin than in every week: ``spans``, whatever their days.

    ``dates`` are ordinals of dates, ``yearly`` are months with days.
    """

    dates: frozenset[int] = frozenset()
    yearly: frozenset[tuple[int, int]] = frozenset()
    spans: tuple[Span, ...] = ()

    def has(self, ordinal: int) -> bool:
        """Whether that date is one."""
        if ordinal in self.dates:
            return True
        day = date.fromordinal(ordinal)
        return (day.month, day.day) in self.yearly


@dataclass(frozen=True, slots=True)
class Windows:
    """Open while any span is.  ``zone`` is a name of the IANA data base.

    What the clock on the wall shows decides, and nothing else.  So where daylight saving leaves
    an hour out (02:00 to 03:00), "02:15-02:45" does not open that day and "02:30-05:00" opens
    at 03:00; where an hour comes twice, "02:15-02:45" opens twice, and "01:00-02:30" closes at
    the first 02:30 and is open again from the second 02:00 to the second 02:30.

    A window is that of the day on which it begins: one that begins before a holiday goes on into
    it, and one that begins on a holiday goes on into the day after.  What ``dated`` says of single
    days holds on holidays too.
    """

    spans: tuple[Span, ...]
    zone: str = "UTC"
    dated: tuple[Dated, ...] = ()
    holidays: Holidays | None = None

    def open_at(self, moment: float) -> bool:
        """Whether a span holds ``moment``; its first minute is in, its last second too."""
        local = datetime.fromtimestamp(moment, UTC).astimezone(zone_of(self.zone))
        minute, today = local.hour * 60 + local.minute, local.toordinal()
        for start, end in self._on(today):
            if start <= minute and (end <= start or minute < end):
                return True
        return any(end <= start and minute < end for start, end in self._on(today - 1))

    def _on(self, ordinal: int) -> Iterator[tuple[int, int]]:
        """Begin and end of what begins on a date."""
        if self.holidays is not None and self.holidays.has(ordinal):
            for span in self.holidays.spans:
                yield span.start, span.end
        else:
            weekday = (ordinal - 1) % 7
            for span in self.spans:
                if weekday in span.days:
                    yield span.start, span.end
        for day in self.dated:
            if day.first <= ordinal <= day.last:
                yield day.start, day.end

    def next_change(self, moment: float) -> float | None:
        """The first moment after ``moment`` at which it opens or closes; None when never.

        What `open_at` says holds from ``moment`` up to there.  Holidays that come every year are
        looked for in the next nine.
        """
        now = self.open_at(moment)
        zone = zone_of(self.zone)
        for first, last in self._stretches(moment):
            for start, end, offset in _steady(first, last, zone):
                if start > moment and self.open_at(start) is not now:
                    return start
                for change in self._edges(start, end, offset):
                    if change > moment and self.open_at(change) is not now:
                        return change
        return None

    def _stretches(self, moment: float) -> Iterator[tuple[float, float]]:
        """Between these it is as at the end of the one before: only weeks like any other pass."""
        done = moment + _HORIZON * _DAY
        yield moment, done
        for ordinal in self._special(int(moment // _DAY) + _EPOCH - 2):
            midnight = (ordinal - _EPOCH) * float(_DAY)
            end = min(midnight + (_HORIZON + 2) * _DAY, _LAST)
            if end > done:
                yield max(done, midnight - 2 * _DAY), end
                done = end

    def _special(self, first: int) -> list[int]:
        """The dates from ``first`` on that are unlike the same day a week before."""
        # Between its ends one range is a week like the other, and it may be of thousands of years.
        ends = {day for each in self.dated for day in (each.first, each.last + 1)}
        found = {day for day in ends if first <= day <= date.max.toordinal()}
        if self.holidays is not None:
            found.update(day for day in self.holidays.dates if day >= first)
            year = date.fromordinal(first).year
            for month, day in self.holidays.yearly:
                found.update(_ordinals(month, day, range(year, year + 10)))
        return sorted(found)

    def _edges(self, start: float, end: float, offset: int) -> list[float]:
        """Where a span may begin or end from ``start`` to ``end``, the zone being ``offset``
        seconds from UTC throughout."""
        spans: list[Span | Dated] = [*self.spans, *self.dated]
        spans += self.holidays.spans if self.holidays is not None else ()
        minutes = {minute for span in spans for minute in (span.start, span.end)}
        first = int((start + offset) // _DAY)
        last = int((end + offset) // _DAY)
        moments = (
            day * _DAY + minute * 60.0 - offset
            for day in range(first, last + 1)
            for minute in minutes
        )
        return sorted(moment for moment in moments if start <= moment < end)

    def apart(self, other: "Windows") -> bool:
        """Whether both, in one zone, are never open at once, as far as their weeks tell."""
        if any(each.dated or each.holidays for each in (self, other)):
            return False
        return not _minutes(self.spans) & _minutes(other.spans)

    def canonical(self) -> list[object]:
        """The same for two that are written differently and mean the same spans."""
        found: list[object] = [
            self.zone,
            sorted([list(s.days), s.start, s.end] for s in self.spans),
        ]
        if self.dated or self.holidays is not None:
            found.append(sorted([d.first, d.last, d.start, d.end] for d in self.dated))
        if (days := self.holidays) is not None:
            spans = sorted([s.start, s.end] for s in days.spans)
            found.append([sorted(days.dates), sorted(days.yearly), spans])
        return found


def _ordinals(month: int, day: int, years: Iterable[int]) -> Iterator[int]:
    for year in years:
        with contextlib.suppress(ValueError):  # 29 February, or beyond the last year there is
            yield date(year, month, day).toordinal()


def zone_of(name: str) -> tzinfo:
    """The time zone of that name; raises `zoneinfo.ZoneInfoNotFoundError`, ValueError for none.

    UTC is had on machines without a time zone data base too.
    """
    return UTC if name == "UTC" else ZoneInfo(name)


def _minutes(spans: Iterable[Span]) -> set[int]:
    """The minutes of a week in which a span is open, as the clock on the wall shows them."""
    found: set[int] = set()
    for span in spans:
        length = span.end - span.start + (1440 if span.end <= span.start else 0)
        for day in span.days:
            first = day * 1440 + span.start
            found.update(minute % 10080 for minute in range(first, first + length))
    return found


def is_zone(name: str) -> bool:
    """Whether a time zone has that name."""
    try:
        zone_of(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def check_zone(name: str) -> None:
    """Raises ValueError (message, fix) for what is no time zone."""
    if not is_zone(name):
        known = available_timezones()
        # People write the city alone, or the abbreviation.
        cities = {zone.rpartition("/")[2]: zone for zone in sorted(known) if "/" in zone}
        # Abbreviations are no places: CEST is not meant by EST, and Etc/GMT+1 is west of Greenwich.
        places = [zone for zone in known if "/" in zone and not zone.startswith("Etc/")]
        fix = did_you_mean(name, (*places, "UTC"))
        if (city := name.strip().replace(" ", "_").title()) in cities:
            fix = f"did you mean {cities[city]!r}?"
        if not known:
            fix = "this machine has no time zone data base: install the package tzdata"
        message = f"{name!r} is not a time zone of the IANA data base"
        raise ValueError(message, fix or "write a name such as Europe/Stockholm")


def parse_windows(texts: Iterable[str], zone: str, holidays: Holidays | None = None) -> Windows:
    """The windows of texts such as "mon-fri 18:00-07:00"; see `parse_spans`.

    Raises ValueError with two arguments, what is wrong and what would mend it.
    """
    check_zone(zone)
    spans: list[Span] = []
    dated: list[Dated] = []
    for text in texts:
        for span in parse_spans(text):
            (dated if isinstance(span, Dated) else spans).append(span)  # type: ignore[arg-type]
    return Windows(tuple(spans), zone, tuple(dated), holidays)


def parse_spans(text: str) -> list[Span | Dated]:
    """What one text means; raises ValueError (message, fix).

    Besides "mon-fri 18:00-07:00": "2026-12-24 12:00-24:00" on one day, "2026-12-24..2026-12-31
    08:00-12:00" on several; "at 19:00" opens then for an hour, "mon-fri at 19:00 for 2h" for as
    long as it says; "every 2h" opens for ten minutes, "every 2h for 30m" for half an hour, by the
    clock on the wall from midnight on.
    """
    plain = text.strip()
    if (match := _DATED.fullmatch(plain)) is not None:
        first, last = _date(match["first"], text), _date(match["last"] or match["first"], text)
        if last < first:
            raise ValueError(f"{text!r} ends before it begins", "write the earlier date first")
        rest = match["rest"]
        if not rest:
            raise ValueError(f"{text!r} has no time of day", f'write "{plain} 00:00-24:00"')
        if rest[0].isalpha() and not rest.startswith(("at ", "every ")):
            raise ValueError(f"{text!r} has a date and a day of the week", "leave the day out")
        spans = parse_spans(rest)
        return [Dated(first, last, span.start, span.end) for span in spans]
    if (match := _AT.fullmatch(plain)) is not None:
        start = _minute(match["clock"], text)
        if start == 1440:
            raise ValueError(f"{text!r}: a window begins at 00:00, not at 24:00", "")
        length = _length(match["length"], text) if match["length"] else 60
        return [Span(_given_days(match, text), start, _end(start, length))]
    if (match := _EVERY.fullmatch(plain)) is not None:
        return list(_every(match, text))
    return [parse_span(text)]


def _every(match: re.Match[str], text: str) -> Iterator[Span]:
    step = _length(match["step"], text)
    if 1440 % step:
        fix = "write 5m, 10m, 15m, 20m, 30m, 1h, 2h, 3h, 4h, 6h, 8h or 12h"
        raise ValueError(f"{text!r}: {match['step']!r} does not divide a day", fix)
    length = _length(match["length"], text) if match["length"] else 10
    if length >= step:
        fix = f'say for how long, less than {match["step"]}: "every {match["step"]} for 1m"'
        raise ValueError(f"{text!r} would never close", fix)
    days = _given_days(match, text)
    for start in range(0, 1440, step):
        yield Span(days, start, _end(start, length))


def _given_days(match: re.Match[str], text: str) -> tuple[int, ...]:
    return _days(match["days"], text) if match["days"] else _EVERY_DAY


def _end(start: int, length: int) -> int:
    """As a span has it: 1440 at midnight."""
    return start + length if start + length <= 1440 else start + length - 1440


def _length(written: str, text: str) -> int:
    """Minutes, from 1 to a minute less than a day."""
    match = _LENGTH.fullmatch(written)
    minutes = float(match[1]) * (60 if match[2] == "h" else 1) if match else 0.0
    if not minutes.is_integer() or not 1 <= minutes < 1440:
        fix = "write it in minutes or hours, less than a day: 30m, 2h"
        raise ValueError(f"{text!r}: {written!r} is no length of a window", fix)
    return int(minutes)


def _date(written: str, text: str) -> int:
    try:
        return date.fromisoformat(written).toordinal()
    except ValueError:
        message = f"{text!r}: {written!r} is not a date"
        raise ValueError(message, "write year, month and day: 2026-12-24") from None


def parse_span(text: str) -> Span:
    """One window; raises ValueError (message, fix)."""
    plain = text.strip().replace("–", "-")  # what word processors make of a hyphen
    if (over := _OVER_DAYS.fullmatch(plain)) is not None:
        raise ValueError(f"{text!r}: windows are per day", _per_day(over, text))
    match = _SPAN.fullmatch(plain)
    if match is None and len(parts := _PARTS.findall(plain[:_LOOKED_AT])) > 1:
        quoted = ", ".join(f'"{part.strip()}"' for part in parts)
        raise ValueError(f"{text!r} is more than one window", f"write a list: [{quoted}]")
    if match is None:
        raise ValueError(f"{text!r} is not a window of time", _EXAMPLE)
    start = _minute(match["start"], text)
    end = _minute(match["end"], text)
    if start == 1440:
        raise ValueError(f"{text!r}: a window begins at 00:00, not at 24:00", "")
    if start == end:
        raise ValueError(
            f"{text!r} begins and ends at the same minute", "write 00:00-24:00 for the whole day"
        )
    if end == 0:
        end = 1440
    days = match["days"]
    return Span(_days(days, text) if days else _EVERY_DAY, start, end)


def _per_day(over: re.Match[str], text: str) -> str:
    """The windows of single days that make up one over several."""
    first, last = _day(over["first"], text), _day(over["last"], text)
    start, end = _minute(over["start"], text), _minute(over["end"], text)
    names = [day[:3] for day in _DAYS]
    if (last - first) % 7 == 0:
        return f'write "{names[first]} {over["start"]}-{over["end"]}"'
    windows = []
    whole = first if start == 0 else (first + 1) % 7
    if start:
        windows.append(f'"{names[first]} {over["start"]}-24:00"')
    if (days := (last - whole) % 7) > 0:
        span = names[whole] if days == 1 else f"{names[whole]}-{names[(last - 1) % 7]}"
        windows.append(f'"{span} 00:00-24:00"')
    if end:
        windows.append(f'"{names[last]} 00:00-{over["end"]}"')
    return f"write [{', '.join(windows)}]"


def _minute(clock: str, text: str) -> int:
    match = _CLOCK.fullmatch(clock)
    if match is None:
        raise ValueError(f"{text!r}: {clock!r} is not a time of day", "write it as 18:00")
    hour, minute = int(match[1]), int(match[2])
    if minute > 59:
        fix = f"minutes go from 00 to 59: {hour:02}:00" if hour < 24 else "it ends with 24:00"
        raise ValueError(f"{text!r}: {clock!r} is not a time of day", fix)
    if hour * 60 + minute > 1440:
        raise ValueError(f"{text!r}: {clock!r} is not a time of day", "it ends with 24:00")
    return hour * 60 + minute


def _days(written: str, text: str) -> tuple[int, ...]:
    found: set[int] = set()
    for part in re.sub(r"\s*-\s*", "-", written).replace(",", " ").split():
        first, _, last = part.partition("-")
        start = _day(first, text)
        end = _day(last, text) if "-" in part else start
        found.update((start + step) % 7 for step in range((end - start) % 7 + 1))
    if not found:
        raise ValueError(f"{text!r} is not a window of time", _EXAMPLE)
    return tuple(sorted(found))


def _day(word: str, text: str) -> int:
    for number, name in enumerate(_DAYS):
        if len(word) >= 3 and name.startswith(word.lower()):
            return number
    fix = did_you_mean(word, (*(name[:3] for name in _DAYS), *_DAYS))
    known = "days are mon, tue, wed, thu, fri, sat and sun"
    raise ValueError(f"{text!r}: {word!r} is not a day of the week", fix or known)


def _steady(start: float, end: float, zone: tzinfo) -> Iterator[tuple[float, float, int]]:
    """The stretches between ``start`` and ``end`` in which the zone keeps its distance from UTC,
    each with that distance, in seconds."""
    while start < end:
        stop = min(start + _DAY, end)
        offset = _offset(start, zone)
        if _offset(stop, zone) != offset:
            stop = _transition(start, stop, zone)
        yield start, stop, offset
        start = stop


def _transition(low: float, high: float, zone: tzinfo) -> float:
    """The first whole second of a new distance from UTC, between two that differ in it."""
    offset = _offset(low, zone)
    before, after = int(low), int(-(-high // 1))
    while after - before > 1:
        middle = (before + after) // 2
        if _offset(middle, zone) == offset:
            before = middle
        else:
            after = middle
    return float(after)


def _offset(moment: float, zone: tzinfo) -> int:
    shift = datetime.fromtimestamp(moment, UTC).astimezone(zone).utcoffset()
    return int(shift.total_seconds()) if shift is not None else 0
