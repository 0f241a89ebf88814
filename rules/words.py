"""Conditions and actions in words, for explanations.

Owns the wording.  Must not know whether anything holds.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo

from rules.attributes import label_of
from rules.pattern import (
    Affix,
    Bound,
    Exact,
    Folded,
    Glob,
    Interval,
    Listed,
    Name,
    Network,
    Pattern,
    Regex,
    Today,
)
from rules.rule import Count, Extent, Send, Subject, Target
from rules.values import DAY, Kind, Scalar
from rules.window import Windows

MAX_SHOWN = 64
"""Characters of a value that an explanation shows."""
MAX_VALUES = 5
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_AFFIXES = {"starts": "starts with", "ends": "ends with", "contains": "contains"}
_EXTENTS: dict[Extent, str] = {
    "present": "is there",
    "absent": "is not there",
    "empty": "is there without a value",
    "valued": "has a value",
}
_SUBJECTS = {
    "calling_ae": "calling AE",
    "called_ae": "called AE",
    "remote": "remote",
    "source": "source address",
    "sop_class": "SOP class",
    "transfer_syntax": "transfer syntax",
    "tag": "label",
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AGES = ((5844, "Y"), (487, "M"), (7 * 16, "W"), (16, "D"))


def subject_words(subject: Subject) -> str:
    """``Modality (0008,0060)`` or ``calling AE``."""
    return _SUBJECTS[subject] if isinstance(subject, str) else label_of(subject)


def extent_words(extent: Extent) -> str:
    """``is there without a value``."""
    return _EXTENTS[extent]


def any_pattern(patterns: Sequence[Pattern], zone: tzinfo) -> str:
    """``is CT or MR, or is like X*``."""
    plain = [shown(p.text) for p in patterns if isinstance(p, Exact)]
    phrases = [f"is {either(plain)}"] if plain else []
    phrases += [_pattern(p, zone) for p in patterns if not isinstance(p, Exact)]
    return ", or ".join(phrases)


def _pattern(pattern: Pattern, zone: tzinfo) -> str:
    match pattern:
        case Exact(text):
            return f"is {shown(text)}"
        case Glob(text):
            return f"is like {shown(text)}"
        case Affix(where, text):
            return f"{_AFFIXES[where]} {shown(text)}"
        case Regex(text, ignore_case):
            return f"matches /{text}/" + ("i" if ignore_case else "")
        case Folded(inner):
            return f"{_pattern(inner, zone)} in any letter case"
        case Name(inner):
            return f"{_pattern(inner, zone)} as names are compared"
        case Network(network):
            return f"is in {network}" if network.num_addresses > 1 else f"is {network[0]}"
        case Listed(name, lens):
            return f"is in the list {name!r}" + (" in any letter case" if lens == "fold" else "")
        case Interval():
            return _interval(pattern, zone)


def _interval(interval: Interval, zone: tzinfo) -> str:
    low, high = interval.low, interval.high
    if low is not None and low == high:
        return f"is {_bound(low, interval.kind, zone)}"
    parts = []
    if low is not None:
        sign = "at least" if low.included else "more than"
        parts.append(f"{sign} {_bound(low, interval.kind, zone)}")
    if high is not None:
        sign = "at most" if high.included else "less than"
        parts.append(f"{sign} {_bound(high, interval.kind, zone)}")
    return "is " + " and ".join(parts or ["anything"])


def _bound(bound: Bound, kind: Kind, zone: tzinfo) -> str:
    value = bound.value
    if isinstance(value, Today):
        steps = [f"{value.years:+d}y"] if value.years else []
        steps += [f"{value.days:+d}d"] if value.days else []
        return "today" + "".join(steps)
    return _scalar(value, kind, zone)


def _scalar(value: Scalar, kind: Kind, zone: tzinfo) -> str:
    match kind:
        case "number":
            return str(value)
        case "date":
            return date.fromordinal(int(value)).isoformat()
        case "age":
            unit = next((u for u in _AGES if value and value % u[0] == 0), _AGES[-1])
            return f"{int(value) // unit[0]}{unit[1]}"
        case "time":
            if value >= DAY:
                return "24:00"
            return _clock((_EPOCH + timedelta(microseconds=value)).time().isoformat())
        case "moment":
            moment = _EPOCH + timedelta(microseconds=value)
            if 1 < moment.year < 9999:  # At the ends of the calendar no zone can be applied.
                moment = moment.astimezone(zone)
            return _clock(moment.replace(tzinfo=None).isoformat(" "))


def _clock(text: str) -> str:
    return text.removesuffix(":00") if text.count(":") > 1 else text


def count_words(count: Count) -> str:
    """``has 2 to 4 values``."""
    least, most = count.least, count.most
    if least == most:
        return f"has {_values(least)}"
    if most is None:
        return f"has at least {_values(least)}"
    if least == 0:
        return f"has at most {_values(most)}"
    return f"has {least} to {_values(most)}"


def _values(count: int) -> str:
    return "1 value" if count == 1 else f"{count} values"


_SPANS_TOLD = 6


def windows_words(windows: Windows) -> str:
    """``mon,tue 18:00-07:00 (Europe/Stockholm)``."""
    spans = []
    for span in windows.spans:
        days = "" if len(set(span.days)) == 7 else ",".join(_DAYS[d] for d in span.days) + " "
        spans.append(f"{days}{_minutes(span.start)}-{_minutes(span.end)}")
    if len(spans) > _SPANS_TOLD:
        spans[2:-1] = [f"{len(spans) - 3} more"]
    for day in windows.dated:
        first, last = date.fromordinal(day.first), date.fromordinal(day.last)
        dates = f"{first}" if first == last else f"{first}..{last}"
        spans.append(f"{dates} {_minutes(day.start)}-{_minutes(day.end)}")
    holidays = ", others on holidays" if windows.holidays is not None else ""
    return f"{either(spans) or 'no time'} ({windows.zone}{holidays})"


def _minutes(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


def moment_words(seconds: float, zone: tzinfo) -> str:
    """``sat 2026-11-21 02:00:00``."""
    local = datetime.fromtimestamp(seconds, UTC).astimezone(zone)
    return f"{_DAYS[local.weekday()]} {local:%Y-%m-%d %H:%M:%S}"


def values_words(values: Sequence[str]) -> str:
    """``it is MR`` or ``its values are A, B and 3 more``."""
    if len(values) == 1:
        return f"it is {shown(values[0])}"
    listed = ", ".join(map(shown, values[:MAX_VALUES]))
    more = f" and {len(values) - MAX_VALUES} more" if len(values) > MAX_VALUES else ""
    return f"its values are {listed}{more}"


def shown(text: str) -> str:
    """A value as an explanation shows it: shortened, in quotes where its end is not plain."""
    clean = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    if len(clean) > MAX_SHOWN:
        clean = f"{clean[: MAX_SHOWN - 1]}…"
    return repr(clean) if not clean or clean != clean.strip() or "," in clean else clean


def either(words: Iterable[str]) -> str:
    """``a, b or c``."""
    *most, last = [*words] or [""]
    return f"{', '.join(most)} or {last}" if most else last


def target_words(target: Target, destination: str) -> str:
    """Where it goes, and who stands in."""
    others = [name for name in target.members if name != destination]
    match target.mode:
        case "one":
            return destination
        case "failover":
            return f"{destination}, while that is down to {either(others)}"
        case "first_available":
            return f"{destination}, or if that is down to {either(others)} for good"
        case "balance":
            return f"{destination}, drawn from {either(target.members)} by {target.by}"


def span_words(seconds: float) -> str:
    """``30 d``, ``1.5 h`` or ``90 s``."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size and (seconds / size * 2).is_integer():
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def send_words(send: Send) -> str:
    """``, when the study is complete, in schedule 'night'``; "" for nothing special."""
    parts = []
    if send.after != "at-once":
        what = send.after.removesuffix("-complete")
        parts.append(f"when the {what} is complete (quiet for {send.quiet:g} s)")
        if send.expect:
            parts.append(f"and {send.expect!r} knows of no more (for {send.wait:g} s at most)")
    if send.schedule:
        parts.append(f"in schedule {send.schedule!r}")
    if send.priority:
        parts.append(f"with priority {send.priority}")
    return "".join(f", {part}" for part in parts)
