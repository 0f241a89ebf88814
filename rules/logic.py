"""What follows from a condition, and what it rules out, as far as that can be told at sight.

Owns implication and contradiction between conditions.  A yes is right for every data set that is
as the standard wants it (one value where the dictionary says one); a no means nothing.
"""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from pydicom.datadict import dictionary_VM

from rules.attributes import Attribute, label_of
from rules.pattern import (
    Affix,
    Exact,
    Folded,
    Glob,
    Interval,
    Network,
    Pattern,
    Regex,
    Today,
    matcher,
)
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
    leaves_of,
)

MAX_PARTS = 100
MAX_DEPTH = 3
MAX_PAIRS = 1000
"""Larger conditions are not thought about: the answer is no."""

Part: TypeAlias = Condition
"""A condition that is no `AllOf` and no `Named`."""


def parts_of(condition: Condition) -> tuple[Part, ...]:
    """The conditions that must all hold, with nesting that changes nothing taken away."""
    return tuple(dict.fromkeys(_parts(condition)))


def _parts(condition: Condition) -> Iterator[Part]:
    match condition:
        case AllOf(conditions):
            for inner in conditions:
                yield from _parts(inner)
        case Named(_, inner) | AnyOf((inner,)) | Not(Not(inner)):
            yield from _parts(inner)
        case Not(AllOf((inner,)) | Named(_, inner)):
            yield from _parts(Not(inner))
        case Not(AnyOf(conditions)):
            for inner in conditions:
                yield from _parts(Not(inner))
        case _:
            yield condition


def subject_of(part: Part) -> object | None:
    """What a part looks at, if that is one thing: it follows from a part on the same alone, as
    does its opposite."""
    match part:
        case Match(subject) | Has(subject) | Count(subject):
            return subject.path if isinstance(subject, Attribute) else subject
        case SameAs(subject):
            return subject.path
        case Received():
            return Received
        case Not(inner):
            return subject_of(inner)
        case _:
            return None


def manageable(condition: Condition) -> bool:
    """Whether a condition is small enough to think about."""
    return sum(1 for _ in leaves_of(condition)) <= MAX_PARTS and _depth(condition) <= MAX_DEPTH


def _depth(condition: Condition) -> int:
    match condition:
        case AnyOf(conditions) | Not(AllOf(conditions)):
            return 1 + max(map(_depth, conditions), default=0)
        case AllOf(conditions):
            return max(map(_depth, conditions), default=0)
        case Not(inner) | Named(_, inner):
            return _depth(inner)
        case _:
            return 0


def implies(given: Sequence[Part], wanted: Condition) -> bool:
    """Whether ``wanted`` holds wherever all of ``given`` do."""
    return all(_follows(given, part) for part in parts_of(wanted))


def impossible(condition: Condition) -> str | None:
    """Why a condition never holds, or None."""
    return _clash(parts_of(condition)) if manageable(condition) else None


def _clash(parts: Sequence[Part]) -> str | None:
    for at, one in enumerate(parts):
        for other in parts[:at]:
            if _exclude(one, other) or _exclude(other, one):
                return f"its conditions on {_shown(one)} exclude each other"
    rest = [part for part in parts if not isinstance(part, AnyOf)]
    for part in parts:
        if isinstance(part, AnyOf) and all(
            _clash((*rest, *parts_of(inner))) for inner in part.conditions
        ):
            return "nothing under its 'any' can hold with the rest"
    return None


def _shown(part: Part) -> str:
    match part:
        case Match(subject) | Has(subject) | Count(subject) | SameAs(subject):
            return label_of(subject) if isinstance(subject, Attribute) else subject
        case Received():
            return "received"
        case Not(inner):
            return _shown(parts_of(inner)[0])
        case _:
            return "several things"


def _follows(given: Sequence[Part], wanted: Part) -> bool:
    if any(_entails(part, wanted) for part in given):
        return True
    if isinstance(wanted, AnyOf):
        return any(implies(given, inner) for inner in wanted.conditions)
    return False


def _entails(given: Part, wanted: Part) -> bool:
    if given == wanted:
        return True
    match given, wanted:
        case AnyOf(conditions), _:
            return all(implies(parts_of(inner), wanted) for inner in conditions)
        case Match(subject, patterns), Match(other, wider) if subject == other:
            return _within(patterns, wider)
        case Match(subject) | Count(subject), Has(other, extent):
            same = _whole(subject, other)
            valued = isinstance(given, Match) or given.least > 0
            return same and (extent == "present" or (extent == "valued" and valued))
        case Has(subject, "valued" | "empty"), Has(other, "present"):
            return _whole(subject, other)
        case Count(subject, least, most), Count(other, low, high) if subject == other:
            return low <= least and (high is None or (most is not None and most <= high))
        case _, Not(inner):
            return _exclude(given, inner)
        case _:
            return False


def _exclude(one: Part, other: Condition) -> bool:
    """Whether no instance can meet both; not symmetric."""
    match one, other:
        case Not(inner), _:
            return implies(parts_of(other), inner)
        case Match(subject, patterns), Match(same, others) if subject == same:
            return _single(subject) and _disjoint(patterns, others)
        case Has(subject, extent), Has(other_subject, against):
            return _whole(subject, other_subject) and (extent, against) in _OPPOSITES
        case Match(subject), Has(other_subject, "absent" | "empty"):
            return _whole(subject, other_subject)
        case Count(subject, least), Has(other_subject, extent):
            gone = extent == "absent" or (extent == "empty" and least > 0)
            return _whole(subject, other_subject) and gone
        case Count(subject, least, most), Count(same, low, high) if subject == same:
            return (most is not None and most < low) or (high is not None and high < least)
        case Received(windows), Received(others) if windows.zone == others.zone:
            return windows.apart(others)
        case _, AllOf(conditions):
            return any(_exclude(one, inner) for inner in conditions)
        case _:
            return False


_OPPOSITES = {
    (one, other)
    for pair in (
        ("present", "absent"),
        ("valued", "absent"),
        ("empty", "absent"),
        ("valued", "empty"),
    )
    for one, other in (pair, pair[::-1])
}


def _whole(subject: object, other: Attribute) -> bool:
    """Whether both are one attribute with all its values: a position may be absent alone."""
    return subject == other and other.position == 0


def _single(subject: object) -> bool:
    """Whether there is one value to compare."""
    if not isinstance(subject, Attribute):
        return subject != "tag"
    if len(subject.path) > 1 or not isinstance(subject.path[0], int):
        return False
    try:
        return subject.position > 0 or dictionary_VM(subject.path[0]) == "1"
    except KeyError:
        return False


def _within(narrow: Sequence[Pattern], wide: Sequence[Pattern]) -> bool:
    same = frozenset(wide)
    rest = [pattern for pattern in narrow if pattern not in same]
    others = [pattern for pattern in wide if not isinstance(pattern, Exact)]
    if len(rest) * len(others) > MAX_PAIRS:
        return False
    return all(any(_covers(pattern, one) for pattern in others) for one in rest)


def _disjoint(one: Sequence[Pattern], other: Sequence[Pattern]) -> bool:
    if not frozenset(one).isdisjoint(other):
        return False
    # Two texts that differ are apart: only the rest is compared.
    pairs = [
        (p, q)
        for p in one[:MAX_PAIRS]
        for q in other[:MAX_PAIRS]
        if not (isinstance(p, Exact) and isinstance(q, Exact))
    ]
    return len(pairs) <= MAX_PAIRS and all(_apart(p, q) for p, q in pairs)


def _covers(wide: Pattern, narrow: Pattern) -> bool:
    """Whether every value that ``narrow`` matches is matched by ``wide``."""
    if wide == narrow:
        return True
    match wide, narrow:
        case ((Glob() | Affix() | Regex() | Folded()), Exact(text)):
            return matcher(wide)(text)
        case Folded(), Folded(Exact(text)):
            return matcher(wide)(text)
        case Glob("*"), (Glob() | Affix() | Folded() | Regex() | Interval()):
            return True
        case Network(net), Network(inner):
            return net.version == inner.version and inner.subnet_of(net)  # type: ignore[arg-type]
        case Interval(kind), Interval(other) if kind == other:
            return _reaches(wide, narrow, "low") and _reaches(wide, narrow, "high")
        case _:
            return False


def _reaches(wide: Interval, narrow: Interval, side: str) -> bool:
    outer, inner = getattr(wide, side), getattr(narrow, side)
    if outer is None or outer == inner:
        return True
    if inner is None or isinstance(outer.value, Today) or isinstance(inner.value, Today):
        return False
    if outer.value == inner.value:
        return bool(outer.included or not inner.included)
    return bool((outer.value < inner.value) == (side == "low"))


def _apart(one: Pattern, other: Pattern) -> bool:
    """Whether no value matches both."""
    match one, other:
        case Exact(text), (Exact() | Glob() | Affix() | Regex() | Folded()):
            return not matcher(other)(text)
        case ((Glob() | Affix() | Regex() | Folded()), Exact(text)):
            return not matcher(one)(text)
        case Folded(Exact(text)), Folded():
            return not matcher(other)(text)
        case Folded(), Folded(Exact(text)):
            return not matcher(one)(text)
        case Network(net), Network(inner):
            return not net.overlaps(inner)
        case Interval(kind), Interval(same) if kind == same:
            return _below(one, other) or _below(other, one)
        case _:
            return False


def _below(one: Interval, other: Interval) -> bool:
    high, low = one.high, other.low
    if high is None or low is None:
        return False
    if isinstance(high.value, Today) or isinstance(low.value, Today):
        return False
    if high.value == low.value:
        return not (high.included and low.included)
    return high.value < low.value
