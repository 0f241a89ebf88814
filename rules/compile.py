"""Conditions as functions of the facts.

Owns the meaning of every condition, one by one; `rules.tables` asks many at once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import TypeAlias

from rules.attributes import Attribute
from rules.decision import Facts
from rules.intervals import holder
from rules.pattern import Exact, Interval, Listed, Pattern, matcher, parse_address
from rules.rule import (
    AllOf,
    AnyOf,
    Condition,
    Count,
    Extent,
    Has,
    Match,
    Named,
    Not,
    Received,
    SameAs,
    Subject,
)
from rules.subjects import vr_of_attribute
from rules.values import KINDS, Lens, Scalar, day_of, name_groups, reader


class Moment:
    """What a decision knows beside the facts: the labels given so far, and the day."""

    __slots__ = ("_day", "_received_at", "_zone", "labels")

    def __init__(self, received_at: float, zone: tzinfo) -> None:
        self.labels: list[str] = []
        self._received_at = received_at
        self._zone = zone
        self._day = 0

    @property
    def day(self) -> int:
        """The ordinal of the day on which the instance was received."""
        if not self._day:
            self._day = day_of(self._received_at, self._zone)
        return self._day


@dataclass(frozen=True, slots=True)
class Setting:
    """What patterns refer to: the time zone of dates, and the entries of lists."""

    zone: tzinfo
    lists: Mapping[str, frozenset[str]]


FEW = 8
"""More values than this are looked at for repetitions: each costs as much as there are patterns."""
Test: TypeAlias = Callable[[Facts, Moment], bool]
Reader: TypeAlias = Callable[[Facts], Sequence[str]]
Match1: TypeAlias = Callable[[str, Moment], bool]
"""A pattern as a function of one value."""


def compile_condition(condition: Condition, setting: Setting) -> Test:
    """A condition as a function of the facts."""
    match condition:
        case Match(subject, patterns):
            return _match(subject, patterns, setting)
        case Has(subject, extent):
            return _has(subject, extent)
        case Count(subject, least, most):
            return _count(subject, least, most)
        case SameAs(subject, other, ignore_case):
            return _same_as(subject, other, ignore_case, setting)
        case Received(windows):
            return lambda facts, _: windows.open_at(facts.received_at)
        case AllOf(conditions):
            return _all_of([compile_condition(each, setting) for each in conditions])
        case AnyOf(conditions):
            return _any_of([compile_condition(each, setting) for each in conditions])
        case Not(inner):
            test = compile_condition(inner, setting)
            return lambda facts, moment: not test(facts, moment)
        case Named(_, inner):
            return compile_condition(inner, setting)


# Loops, not all() and any(): generators cost several times what they would compare.


def _all_of(tests: Sequence[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]

    def holds(facts: Facts, moment: Moment) -> bool:
        for test in tests:  # noqa: SIM110
            if not test(facts, moment):
                return False
        return True

    return holds


def _any_of(tests: Sequence[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]

    def holds(facts: Facts, moment: Moment) -> bool:
        for test in tests:  # noqa: SIM110
            if test(facts, moment):
                return True
        return False

    return holds


def _match(subject: Subject, patterns: Sequence[Pattern], setting: Setting) -> Test:
    exact = frozenset(p.text for p in patterns if isinstance(p, Exact))
    others = tuple(_match_one(p, setting) for p in patterns if not isinstance(p, Exact))

    def any_matches(values: Sequence[str], moment: Moment) -> bool:
        if len(values) > FEW:
            values = tuple(dict.fromkeys(values))
        for value in values:
            if value in exact:
                return True
            for matches in others:
                if matches(value, moment):
                    return True
        return False

    if subject == "tag":
        return lambda facts, moment: any_matches(moment.labels, moment)
    values_in = values_of(subject)
    return lambda facts, moment: any_matches(values_in(facts), moment)


def _match_one(pattern: Pattern, setting: Setting) -> Match1:
    if isinstance(pattern, Interval):
        return _interval(pattern, setting.zone)
    if isinstance(pattern, Listed):
        entries = listed_keys(pattern, setting)
        read_keys = keys(pattern.lens, setting.zone)
        return lambda value, moment: not entries.isdisjoint(read_keys(value))
    test = matcher(pattern)
    return lambda value, moment: test(value)


def _interval(interval: Interval, zone: tzinfo) -> Match1:
    read = scalar_reader(interval.kind, zone)
    if not interval.relative:
        fixed = holder(interval, 0, zone)

        def lies_in(value: str, moment: Moment) -> bool:
            key = read(value)
            return key is not None and fixed(key)

        return lies_in

    def lies_in_today(value: str, moment: Moment) -> bool:
        key = read(value)
        return key is not None and holder(interval, moment.day, zone)(key)

    return lies_in_today


def scalar_reader(lens: Lens, zone: tzinfo) -> Callable[[str], Scalar | None]:
    """`reader` of a kind that is ordered."""
    return reader(lens, zone)  # type: ignore[return-value]


def keys(lens: Lens, zone: tzinfo) -> Callable[[str], Sequence[object]]:
    """What a value is looked up by: nothing when it cannot be read, the groups of a name."""
    if lens == "name":
        return name_keys
    read = reader(lens, zone)

    def read_keys(value: str) -> Sequence[object]:
        key = read(value)
        return () if key is None else (key,)

    return read_keys


def name_keys(value: str) -> Sequence[str]:
    """The component groups of a name that are not empty."""
    return [group for group in name_groups(value) if group]


def listed_keys(pattern: Listed, setting: Setting) -> frozenset[object]:
    """What the entries of a list are found by; of a list that is not there, nothing."""
    read_keys = keys(pattern.lens, setting.zone)
    entries = setting.lists.get(pattern.name, frozenset())
    if pattern.lens == "text":
        return frozenset(entries)
    return frozenset(key for entry in entries for key in read_keys(entry))


def _has(subject: Attribute, extent: Extent) -> Test:
    key, at = subject.key, subject.position

    def present(facts: Facts) -> Sequence[str] | None:
        values = facts.attributes.get(key)
        if values is not None and at:
            return (values[at - 1],) if at <= len(values) else None
        return values

    match extent:
        case "present":
            return lambda facts, _: present(facts) is not None
        case "absent":
            return lambda facts, _: present(facts) is None
        case "valued":
            return lambda facts, _: any(present(facts) or ())
        case "empty":

            def empty(facts: Facts, _: Moment) -> bool:
                values = present(facts)
                return values is not None and not any(values)

            return empty


def _count(subject: Attribute, least: int, most: int | None) -> Test:
    key = subject.key

    def holds(facts: Facts, _: Moment) -> bool:
        values = facts.attributes.get(key)
        return values is not None and len(values) >= least and (most is None or len(values) <= most)

    return holds


def same_lens(subject: Attribute, other: Attribute, ignore_case: bool) -> Lens:
    """How the values of two attributes are looked at to be compared."""
    one, two = vr_of_attribute(subject), vr_of_attribute(other)
    if "PN" in (one, two):
        return "name"
    if KINDS.get(one) == KINDS.get(two) and one in KINDS:
        return KINDS[one]
    return "fold" if ignore_case else "text"


def _same_as(subject: Attribute, other: Attribute, ignore_case: bool, setting: Setting) -> Test:
    one, two = values_of(subject), values_of(other)
    read_keys = keys(same_lens(subject, other, ignore_case), setting.zone)

    def holds(facts: Facts, _: Moment) -> bool:
        these = {key for value in one(facts) if value for key in read_keys(value)}
        return bool(these) and any(
            key in these for value in two(facts) if value for key in read_keys(value)
        )

    return holds


def values_of(subject: Subject) -> Reader:
    """How a subject's values are had from the facts; none for a missing attribute.

    Not for ``tag``, which is no fact.
    """
    if isinstance(subject, str):
        return _FACT_VALUES[subject]
    key, at = subject.key, subject.position
    if at:
        return lambda facts: facts.attributes.get(key, ())[at - 1 : at]
    return lambda facts: facts.attributes.get(key, ())


def _source(facts: Facts) -> Sequence[str]:
    # In one spelling, so that ::ffff:10.0.0.5 is found under 10.0.0.5.
    address = parse_address(facts.source_address)
    return () if address is None else (str(address),)


_FACT_VALUES: dict[str, Reader] = {
    "calling_ae": lambda facts: (facts.calling_ae.strip(),),
    "called_ae": lambda facts: (facts.called_ae.strip(),),
    "remote": lambda facts: (facts.remote,) if facts.remote else (),
    "source": _source,
    "sop_class": lambda facts: (facts.sop_class_uid,),
    "transfer_syntax": lambda facts: (facts.transfer_syntax_uid,),
}
