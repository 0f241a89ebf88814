"""Whether one condition holds for an instance, and why, worked out the long way.

Owns the plain reading of conditions that `rules.interpret` explains by.
"""

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, tzinfo

from rules.attributes import Attribute, label_of_step
from rules.decision import Facts
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
    parse_address,
)
from rules.regex import searcher
from rules.rule import (
    AllOf,
    AnyOf,
    Condition,
    Count,
    Has,
    Match,
    Named,
    Not,
    Received,
    SameAs,
    Subject,
)
from rules.subjects import vr_of_attribute
from rules.values import (
    KINDS,
    Kind,
    Lens,
    Scalar,
    composed,
    day_of,
    fold,
    name_group,
    padded,
    read_age,
    read_date,
    read_moment,
    read_number,
    read_time,
    reckoned,
    start_of_day,
)
from rules.window import zone_of
from rules.words import (
    any_pattern,
    count_words,
    extent_words,
    moment_words,
    subject_words,
    values_words,
    windows_words,
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one condition; ``parts`` are those that it is made of."""

    text: str
    held: bool
    why: str = ""
    parts: tuple["Finding", ...] = ()


@dataclass(frozen=True, slots=True)
class Judge:
    """Judges conditions on one instance, with the labels that it has so far."""

    facts: Facts
    zone: tzinfo
    lists: Mapping[str, frozenset[str]]
    labels: tuple[str, ...] = ()

    def find(self, condition: Condition) -> Finding:
        """Whether it holds, and why."""
        match condition:
            case AllOf((Has(one, "valued"), Not(Match(two, patterns)))) if one == two:
                return self._differs(one, patterns)
            case AllOf(conditions):
                parts = tuple(map(self.find, conditions))
                if len(parts) == 1:
                    return parts[0]  # a group of one says nothing more
                return Finding("all of these", all(p.held for p in parts), "", parts)
            case AnyOf(conditions):
                parts = tuple(map(self.find, conditions))
                if len(parts) == 1:
                    return parts[0]  # a group of one says nothing more
                return Finding("any of these", any(p.held for p in parts), "", parts)
            case Named(name, inner):
                part = self.find(inner)
                return Finding(f"condition {name!r}", part.held, "", (part,))
            case Not(inner):
                return self._not(inner)
            case Match(subject, patterns):
                return self._match(subject, patterns)
            case Has(subject, extent):
                return self._has(subject, extent)
            case Count():
                return self._count(condition)
            case SameAs(subject, other, ignore_case):
                return self._same_as(subject, other, ignore_case)
            case Received(windows):
                return Finding(
                    f"received in {windows_words(windows)}",
                    windows.open_at(self.facts.received_at),
                    f"it was {moment_words(self.facts.received_at, zone_of(windows.zone))}",
                )

    def _not(self, inner: Condition) -> Finding:
        found = self.find(inner)
        if found.parts:
            return Finding("not", not found.held, "", (found,))
        return Finding(f"not: {found.text}", not found.held, found.why)

    # What there is to compare.

    def values(self, subject: Subject) -> tuple[str, ...] | None:
        """The values of a subject; None when there is nothing of that name."""
        facts = self.facts
        if isinstance(subject, Attribute):
            values = facts.attributes.get(subject.key)
            if values is None or not subject.position:
                return values
            if len(values) < subject.position:
                return None
            return (values[subject.position - 1],)
        match subject:
            case "calling_ae":
                return (facts.calling_ae.strip(),)
            case "called_ae":
                return (facts.called_ae.strip(),)
            case "remote":
                return (facts.remote,) if facts.remote else None
            case "source":
                address = parse_address(facts.source_address)
                return None if address is None else (str(address),)
            case "sop_class":
                return (facts.sop_class_uid,)
            case "transfer_syntax":
                return (facts.transfer_syntax_uid,)
            case "tag":
                return self.labels or None

    def _state(self, subject: Subject) -> str:
        """What is found under a subject, in words."""
        values = self.values(subject)
        if values is not None:
            return values_words(values) if values else "it has no value"
        if isinstance(subject, Attribute):
            whole = self.facts.attributes.get(subject.key)
            if whole is not None:
                return f"it has {len(whole)} values" if len(whole) != 1 else "it has 1 value"
            return f"the data set has no {'.'.join(map(_short, subject.path))}"
        if subject == "remote":
            return "the sender is no remote that has a name"
        if subject == "tag":
            return "no rule before has labelled it"
        return f"the address is {self.facts.source_address!r}"

    # The comparisons.

    def _match(self, subject: Subject, patterns: Sequence[Pattern]) -> Finding:
        values = self.values(subject) or ()
        return Finding(
            f"{subject_words(subject)} {any_pattern(patterns, self.zone)}",
            any(self._fits(pattern, value) for pattern in patterns for value in values),
            self._why(subject, patterns),
        )

    def _differs(self, subject: Attribute, patterns: Sequence[Pattern]) -> Finding:
        values = self.values(subject) or ()
        fits = any(self._fits(pattern, value) for pattern in patterns for value in values)
        return Finding(
            f"{subject_words(subject)} has a value, and none that "
            f"{any_pattern(patterns, self.zone)}",
            any(values) and not fits,
            self._why(subject, patterns),
        )

    def _why(self, subject: Subject, patterns: Sequence[Pattern]) -> str:
        why = self._state(subject)
        if any(isinstance(p, Interval) and p.relative for p in patterns):
            why += f", and it was received on {date.fromordinal(self._today()).isoformat()}"
        return why

    def _has(self, subject: Attribute, extent: str) -> Finding:
        values = self.values(subject)
        held = {
            "present": values is not None,
            "absent": values is None,
            "empty": values is not None and not any(values),
            "valued": values is not None and any(values),
        }[extent]
        text = f"{subject_words(subject)} {extent_words(extent)}"  # type: ignore[arg-type]
        return Finding(text, held, self._state(subject))

    def _count(self, count: Count) -> Finding:
        values = self.values(count.subject)
        text = f"{subject_words(count.subject)} {count_words(count)}"
        if values is None:
            return Finding(text, False, self._state(count.subject))
        enough = len(values) >= count.least
        return Finding(
            text,
            enough and (count.most is None or len(values) <= count.most),
            "it has 1 value" if len(values) == 1 else f"it has {len(values)} values",
        )

    def _same_as(self, subject: Attribute, other: Attribute, ignore_case: bool) -> Finding:
        text = f"{subject_words(subject)} is the same as {subject_words(other)}"
        mine, theirs = self.values(subject), self.values(other)
        for values, of in ((mine, subject), (theirs, other)):
            if not values:
                name = ".".join(map(_short, of.path))
                return Finding(text, False, f"{name}: {self._state(of)}")
        vr, other_vr = vr_of_attribute(subject), vr_of_attribute(other)
        lens: Lens = "fold" if ignore_case else "text"
        if "PN" in (vr, other_vr):
            lens = "name"
        elif vr in KINDS and KINDS[vr] == KINDS.get(other_vr):
            lens = KINDS[vr]
        held = any(
            one != "" and two != "" and self._same(lens, one, two)
            for one in mine or ()
            for two in theirs or ()
        )
        return Finding(text, held, f"{values_words(mine or ())}, and {values_words(theirs or ())}")

    def _same(self, lens: Lens, one: str, two: str) -> bool:
        if lens == "text":
            return one == two
        if lens == "fold":
            return fold(one) == fold(two)
        if lens == "name":
            groups = [{name_group(g) for g in text.split("=")} - {""} for text in (one, two)]
            return bool(groups[0] & groups[1])
        read = self._reader(lens)
        return read(one) is not None and read(one) == read(two)

    def _reader(self, kind: Kind) -> Callable[[str], Scalar | None]:
        match kind:
            case "number":
                return read_number
            case "date":
                return read_date
            case "time":
                return read_time
            case "age":
                return read_age
            case "moment":
                return lambda text: read_moment(text, self.zone)

    def _fits(self, pattern: Pattern, value: str) -> bool:
        match pattern:
            case Exact(text):
                return value == text
            case Glob(text):
                return like(text, value)
            case Affix("starts", text):
                return value[: len(text)] == text
            case Affix("ends", text):
                return value[max(len(value) - len(text), 0) :] == text
            case Affix(_, text):
                return value.find(text) >= 0
            case Regex(text, ignore_case):
                return searcher(text, ignore_case)(value)
            case Folded(inner):
                plain = fold(inner.text)
                if isinstance(inner, Affix):
                    return self._fits(Affix(inner.where, plain), fold(value))
                return self._fits(type(inner)(plain), fold(value))
            case Name(inner):
                return self._fits_name(inner, value)
            case Network(network):
                try:
                    return ipaddress.ip_address(value) in network
                except ValueError:
                    return False
            case Listed(name, lens):
                return any(self._same(lens, entry, value) for entry in self.lists.get(name, ()))
            case Interval():
                return self._lies_in(pattern, value)

    def _fits_name(self, pattern: Exact | Glob | Affix | Regex, value: str) -> bool:
        groups = value.split("=")
        if isinstance(pattern, Regex):
            found = searcher(composed(pattern.text), True)
            return any(found(composed(group.rstrip("^ "))) for group in groups)
        if isinstance(pattern, Affix):
            folded = Affix(pattern.where, fold(pattern.text))
            return any(self._fits(folded, name_group(group)) for group in groups)
        wanted = pattern.text.split("=")
        if len(wanted) == 1:
            return any(_same_group(pattern, wanted[0], group) for group in groups)
        groups += [""] * len(wanted)
        pairs = zip(wanted, groups, strict=False)
        return all(
            not name_group(want) or _same_group(pattern, want, group) for want, group in pairs
        )

    def _lies_in(self, interval: Interval, value: str) -> bool:
        found = self._reader(interval.kind)(value)
        if found is None:
            return False
        if interval.low is not None:
            low = self._bound(interval.low, interval.kind)
            if found < low or (found == low and not interval.low.included):
                return False
        if interval.high is not None:
            high = self._bound(interval.high, interval.kind)
            if found > high or (found == high and not interval.high.included):
                return False
        return True

    def _bound(self, bound: Bound, kind: Kind) -> Scalar:
        if not isinstance(bound.value, Today):
            return bound.value
        day = reckoned(self._today(), bound.value.years, bound.value.days)
        return start_of_day(day, self.zone) if kind == "moment" else day

    def _today(self) -> int:
        return day_of(self.facts.received_at, self.zone)


def _same_group(pattern: Exact | Glob, text: str, group: str) -> bool:
    wanted, found = name_group(text), name_group(group)
    if not wanted or not found or isinstance(pattern, Exact):
        return bool(wanted) and wanted == found
    return like(wanted, found) or like(wanted, padded(found))


def like(glob: str, value: str) -> bool:
    """``*`` for any run of characters and ``?`` for one, tried from the left."""
    at = start = 0
    star = -1
    place = 0
    while start < len(value):
        if at < len(glob) and glob[at] == "*":
            star, place = at, start
            at += 1
        elif at < len(glob) and glob[at] in ("?", value[start]):
            at += 1
            start += 1
        elif star >= 0:
            # The last star takes one character more.
            place += 1
            at, start = star + 1, place
        else:
            return False
    return glob[at:].strip("*") == ""


def _short(step: object) -> str:
    label = label_of_step(step)  # type: ignore[arg-type]
    return label.split(" ")[0]
