"""Many conditions on one subject, asked at once.

Owns the index.  Sets of rules are the bits of an integer.  Each subject that any rule compares
has tables from value to the rules that this value satisfies, so a few dictionary look-ups and
bitwise ANDs leave only the rules that hold; a glob that several rules share is tried once; numbers
and dates are read once and found by bisection.  What does not fit a table (nested ``any``, a
second condition on one subject, labels) is handed back, to be tried for the rules that came so far.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import tzinfo

from rules.attributes import Attribute
from rules.compile import FEW, Moment, Setting, keys, listed_keys, scalar_reader, values_of
from rules.decision import Facts
from rules.intervals import Pieces, edges
from rules.pattern import (
    Affix,
    Exact,
    Folded,
    Glob,
    Interval,
    Listed,
    Matcher,
    Name,
    Network,
    Pattern,
    Textual,
    is_glob,
    matcher,
)
from rules.rule import AllOf, AnyOf, Condition, Extent, Has, Match, Named, Not, Subject
from rules.values import Kind, Lens, Scalar, fold, name_group

_EXCEPT: dict[Extent, tuple[bool, bool, bool]] = {
    # Whether it fails for a missing attribute, for an empty one, for one with a value.
    "present": (True, False, False),
    "absent": (False, True, True),
    "empty": (True, False, True),
    "valued": (True, True, False),
}
_OPPOSITES: dict[Extent, Extent] = {"present": "absent", "absent": "present"}


class _Keyed:
    """What values are found by under one lens, each with the rules that it satisfies."""

    __slots__ = ("entries", "read_keys")

    def __init__(self, lens: Lens, zone: tzinfo) -> None:
        self.read_keys: Callable[[str], Sequence[object]] = keys(lens, zone)
        self.entries: dict[object, int] = {}


class _Ordered:
    """The intervals of one kind, those that move with the day cut anew for each day."""

    __slots__ = ("_fixed", "_intervals", "_moving", "_zone", "read")

    def __init__(self, kind: Kind, zone: tzinfo) -> None:
        self.read: Callable[[str], Scalar | None] = scalar_reader(kind, zone)
        self._intervals: dict[Interval, int] = {}
        self._zone = zone
        self._fixed: Pieces | None = None
        self._moving: tuple[int, Pieces] | None = None

    def add(self, interval: Interval, bit: int) -> None:
        self._intervals[interval] = self._intervals.get(interval, 0) | bit

    def freeze(self) -> None:
        if not any(interval.relative for interval in self._intervals):
            self._fixed = self._cut(0)

    def pieces(self, moment: Moment) -> Pieces:
        if self._fixed is not None:
            return self._fixed
        moving = self._moving
        if moving is None or moving[0] != moment.day:
            # One assignment: another thread sees the old day's or the new one's, whole.
            self._moving = moving = (moment.day, self._cut(moment.day))
        return moving[1]

    def _cut(self, day: int) -> Pieces:
        return Pieces(
            (*edges(interval, day, self._zone), rules)
            for interval, rules in self._intervals.items()
        )


class Table:
    """Values and patterns of one subject, each with the rules that it satisfies.

    What values begin with is looked up by length: globs such as ``CT*`` are what people write
    most, and are told apart at once however many there are.
    """

    __slots__ = (
        "_heads",
        "_patterns",
        "_setting",
        "exact",
        "heads",
        "keyed",
        "matchers",
        "ordered",
        "plain",
    )

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._heads: dict[int, dict[str, int]] = {}
        self.exact: dict[str, int] = {}
        self.heads: tuple[tuple[int, dict[str, int]], ...] = ()
        self.plain = True
        self.keyed: dict[Lens, _Keyed] = {}
        self.ordered: dict[Kind, _Ordered] = {}
        self._patterns: dict[Textual, int] = {}
        self.matchers: tuple[tuple[Matcher, int], ...] = ()

    def add(self, pattern: Pattern, bit: int) -> None:
        """One more pattern of the rule ``bit``."""
        match pattern:
            case Exact(text):
                self.exact[text] = self.exact.get(text, 0) | bit
            case Affix("starts", text):
                self._head(text, bit)
            case Glob(text) if text.endswith("*") and not is_glob(text[:-1]):
                self._head(text[:-1], bit)
            case Network(network) if network.num_addresses == 1:
                self.add(Exact(str(network.network_address)), bit)
            case Folded(Exact(text)):
                self._key("fold", fold(text), bit)
            case Name(Exact(text)) if "=" not in text:
                if name_group(text):
                    self._key("name", name_group(text), bit)
            case Interval(kind):
                self._place(pattern, kind, bit)
            case Listed(_, lens):
                for key in listed_keys(pattern, self._setting):
                    self._key(lens, key, bit)
            case _:
                self._patterns[pattern] = self._patterns.get(pattern, 0) | bit

    def _head(self, text: str, bit: int) -> None:
        heads = self._heads.setdefault(len(text), {})
        heads[text] = heads.get(text, 0) | bit

    def _key(self, lens: Lens, key: object, bit: int) -> None:
        if lens == "text":
            self.exact[str(key)] = self.exact.get(str(key), 0) | bit
            return
        keyed = self.keyed.setdefault(lens, _Keyed(lens, self._setting.zone))
        keyed.entries[key] = keyed.entries.get(key, 0) | bit

    def _place(self, interval: Interval, kind: Kind, bit: int) -> None:
        low, high = interval.low, interval.high
        if low is not None and low == high and low.included and not interval.relative:
            self._key(kind, low.value, bit)
        else:
            self.ordered.setdefault(kind, _Ordered(kind, self._setting.zone)).add(interval, bit)

    def freeze(self) -> None:
        """After the last pattern."""
        self.heads = tuple(sorted(self._heads.items()))
        self.matchers = tuple((matcher(p), rules) for p, rules in self._patterns.items())
        self.plain = not (self.heads or self.matchers or self.keyed or self.ordered)
        for ordered in self.ordered.values():
            ordered.freeze()

    def satisfied(self, candidates: int, values: Sequence[str], moment: Moment) -> int:
        """The rules, at least those of ``candidates``, of which a pattern matches a value."""
        found = 0
        if len(values) > FEW:
            values = tuple(dict.fromkeys(values))
        for value in values:
            found |= self.exact.get(value, 0)
        if self.plain:
            return found
        for value in values:
            for length, heads in self.heads:
                found |= heads.get(value[:length], 0)
            for matches, rules in self.matchers:
                if rules & candidates & ~found and matches(value):
                    found |= rules
        if self.keyed:
            for keyed in self.keyed.values():
                for value in values:
                    for key in keyed.read_keys(value):
                        found |= keyed.entries.get(key, 0)
        if self.ordered:
            for ordered in self.ordered.values():
                for value in values:
                    scalar = ordered.read(value)
                    if scalar is not None:
                        found |= ordered.pieces(moment).at(scalar)
        return found


class Index:
    """One subject: the rules that require a value of it, those that forbid one, and those that
    ask whether it is there."""

    __slots__ = (
        "_key",
        "failing",
        "forbidden",
        "forbidding",
        "required",
        "requiring",
        "subject",
        "touched",
        "values",
    )

    def __init__(self, subject: Subject, setting: Setting) -> None:
        self.subject = subject
        self.values = values_of(subject)
        self.required = Table(setting)
        self.forbidden = Table(setting)
        self.requiring = 0
        self.forbidding = 0
        self.failing = [0, 0, 0]
        self.touched = 0
        self._key = subject.key if isinstance(subject, Attribute) else None

    def require(self, patterns: Iterable[Pattern], bit: int) -> bool:
        """False when the rule has a condition here already: two on one subject are an `and`."""
        if self.requiring & bit:
            return False
        self.requiring |= bit
        for pattern in patterns:
            self.required.add(pattern, bit)
        return True

    def forbid(self, patterns: Iterable[Pattern], bit: int) -> None:
        """None of the patterns."""
        self.forbidding |= bit
        for pattern in patterns:
            self.forbidden.add(pattern, bit)

    def ask(self, extent: Extent, bit: int) -> None:
        """Whether the attribute is there."""
        for at, fails in enumerate(_EXCEPT[extent]):
            if fails:
                self.failing[at] |= bit

    def freeze(self) -> None:
        """After the last rule."""
        missing, empty, valued = self.failing
        self.touched = self.requiring | self.forbidding | missing | empty | valued
        # What requires a value needs no table to fail where there is none.
        self.required.freeze()
        self.forbidden.freeze()

    def narrow(self, candidates: int, facts: Facts, moment: Moment) -> int:
        """Those of ``candidates`` whose conditions on this subject hold."""
        values = self.values(facts)
        if not values:
            candidates &= ~self.requiring
            if self._key is not None:
                missing = self._key not in facts.attributes
                candidates &= ~self.failing[0 if missing else 1]
            return candidates
        if candidates & self.requiring:
            candidates &= ~self.requiring | self.required.satisfied(candidates, values, moment)
        if candidates & self.forbidding:
            candidates &= ~self.forbidden.satisfied(candidates, values, moment)
        if self._key is not None:
            candidates &= ~self.failing[2 if any(values) else 1]
        return candidates


class Indexes:
    """All subjects of a set of rules."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._indexes: dict[Subject, Index] = {}

    def ordered(self) -> list[Index]:
        """Ready to be asked, those first that tell most rules apart."""
        for index in self._indexes.values():
            index.freeze()
        # Facts first: they are at hand, and tell rules apart better than most attributes.
        return sorted(
            self._indexes.values(),
            key=lambda index: (isinstance(index.subject, Attribute), -index.touched.bit_count()),
        )

    def place(self, condition: Condition, bit: int) -> list[Condition]:
        """Enters what a rule demands; returns what did not fit, all of which must hold too."""
        match condition:
            case AllOf(conditions):
                return [rest for inner in conditions for rest in self.place(inner, bit)]
            case Named(_, inner):
                return self.place(inner, bit)
            case Match(subject, patterns) if subject != "tag":
                return [] if self._index(subject).require(patterns, bit) else [condition]
            case Has(subject, extent) if not subject.position:
                self._index(subject).ask(extent, bit)
                return []
            case AnyOf(conditions) if (merged := _merged(conditions)) is not None:
                return self.place(merged, bit)
            case Not(inner):
                return self._place_absent(inner, condition, bit)
            case _:
                return [condition]

    def _place_absent(self, inner: Condition, whole: Condition, bit: int) -> list[Condition]:
        match inner:
            case Match(subject, patterns) if subject != "tag":
                self._index(subject).forbid(patterns, bit)
                return []
            case Has(subject, extent) if extent in _OPPOSITES:
                return self.place(Has(subject, _OPPOSITES[extent]), bit)
            case AnyOf(conditions):
                # None of several is the absence of each.
                return [rest for one in conditions for rest in self.place(Not(one), bit)]
            case AllOf((one,)) | Named(_, one):
                return self._place_absent(one, whole, bit)
            case Not(one):
                return self.place(one, bit)
            case _:
                return [whole]

    def _index(self, subject: Subject) -> Index:
        return self._indexes.setdefault(subject, Index(subject, self._setting))


def _merged(conditions: Sequence[Condition]) -> Match | None:
    """Alternatives on one subject, as one condition on it; None when they are on several."""
    matches = [each for each in map(_bare, conditions) if isinstance(each, Match)]
    if len(matches) < len(conditions) or len({each.subject for each in matches}) != 1:
        return None
    patterns = dict.fromkeys(pattern for each in matches for pattern in each.patterns)
    return Match(matches[0].subject, tuple(patterns))


def _bare(condition: Condition) -> Condition:
    """Without what only groups or names it."""
    while True:
        match condition:
            case AllOf((one,)) | AnyOf((one,)) | Named(_, one):
                condition = one
            case _:
                return condition
