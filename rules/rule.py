"""A rule and its condition, as understood but not yet compiled.

Owns the meaning of the rule language as data: what the compiler turns into closures, the
explanation into words, and what a version is computed from.  Must not know YAML.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Literal, TypeAlias

from rules.attributes import Attribute, Key, Private, vr_of
from rules.pattern import Interval, Pattern, canonical_pattern
from rules.values import KINDS
from rules.window import Windows

Fact: TypeAlias = Literal[
    "calling_ae", "called_ae", "remote", "source", "sop_class", "transfer_syntax", "tag"
]
FACTS: tuple[Fact, ...] = (
    "calling_ae",
    "called_ae",
    "remote",
    "source",
    "sop_class",
    "transfer_syntax",
    "tag",
)
"""``tag``: the labels that earlier rules gave the instance."""

Subject: TypeAlias = Fact | Attribute
"""What a condition looks at."""

Extent: TypeAlias = Literal["present", "absent", "empty", "valued"]
"""Present: the data set has the element, with a value or without.  Empty: it has it without."""


@dataclass(frozen=True, slots=True)
class Match:
    """Holds when any value of the subject matches any pattern; never for a missing attribute."""

    subject: Subject
    patterns: tuple[Pattern, ...]


@dataclass(frozen=True, slots=True)
class Has:
    """Whether the data set has an attribute, and a value in it."""

    subject: Attribute
    extent: Extent


@dataclass(frozen=True, slots=True)
class Count:
    """How many values an attribute has, ``least`` to ``most`` (None: no limit); never for a
    missing attribute, and an empty one has none."""

    subject: Attribute
    least: int
    most: int | None


@dataclass(frozen=True, slots=True)
class SameAs:
    """Holds when a value of the one attribute equals a value of the other; never without both."""

    subject: Attribute
    other: Attribute
    ignore_case: bool = False


@dataclass(frozen=True, slots=True)
class Received:
    """Holds when the instance was received while the windows were open."""

    windows: Windows


@dataclass(frozen=True, slots=True)
class AllOf:
    conditions: tuple["Condition", ...] = ()


@dataclass(frozen=True, slots=True)
class AnyOf:
    conditions: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Not:
    condition: "Condition"


@dataclass(frozen=True, slots=True)
class Named:
    """A condition of ``conditions:``, by its name; means what it stands for."""

    name: str
    condition: "Condition"


Leaf: TypeAlias = Match | Has | Count | SameAs | Received
Condition: TypeAlias = Leaf | AllOf | AnyOf | Not | Named

Mode: TypeAlias = Literal["one", "failover", "balance", "first_available"]
By: TypeAlias = Literal["study", "patient", "instance"]
Keep: TypeAlias = Literal["", "study"]
OnRefusal: TypeAlias = Literal["dead", "next"]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a rule sends: one of ``members``, which of them being the mode's matter.

    ``one`` has one member.  ``failover``: the first that is up, and back to an earlier one when it
    recovers.  ``first_available``: the first that is up, and there it stays.  ``balance``: one
    drawn by the study, the patient or the instance, in the proportion of the ``weights`` (as
    many as members); the same for all of one study, patient or instance while it is up.

    With ``keep`` a study is finished where it was begun, though another member is to have it.
    ``on_refusal``: whether what a member refuses for good is dead, or goes to the next one.
    """

    mode: Mode
    members: tuple[str, ...]
    by: By = "study"
    weights: tuple[int, ...] = ()
    keep: Keep = ""
    on_refusal: OnRefusal = "dead"


After: TypeAlias = Literal["at-once", "study-complete", "series-complete"]


@dataclass(frozen=True, slots=True)
class Send:
    """``send:`` of a rule.  Seconds.

    A study (series) is complete when nothing of it came for ``quiet`` seconds, no association
    that has sent to it is open, and, with ``expect``, the archive of that name knows of no more
    instances than came; for the last it waits ``wait`` seconds at most.  ``schedule`` names
    the windows in which it is sent.
    """

    after: After = "at-once"
    quiet: float = 60.0
    expect: str = ""
    wait: float = 1800.0
    schedule: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """One item of ``rules:``.

    At least one of ``targets``, ``discard``, ``hold``, ``tags`` and ``keep_for`` is set, and at
    most one of the first three.  ``discard`` and ``hold`` are the reason given, "" for a bare
    ``true``.  ``keep_for`` is for how many seconds it wants an instance kept once that is settled,
    0.0 when it does not say.  A rule is passed over while it is ``disabled`` (the reason), before
    ``valid_from`` and from ``until`` on.  ``file``, ``line`` and ``column`` are for messages and
    do not count when rules are compared.
    """

    name: str
    condition: AllOf = AllOf()
    targets: tuple[Target, ...] = ()
    send: Send = Send()
    final: bool = False
    discard: str | None = None
    hold: str | None = None
    tags: tuple[str, ...] = ()
    disabled: str | None = None
    valid_from: datetime | None = None
    until: datetime | None = None
    file: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)
    column: int = field(default=1, compare=False)
    keep_for: float = 0.0

    @property
    def destinations(self) -> tuple[str, ...]:
        """Every remote that it may send to, in the order in which they are written, none twice."""
        return tuple(dict.fromkeys(name for target in self.targets for name in target.members))

    @property
    def unconditional(self) -> bool:
        """Holds for every instance at all times."""
        return (
            not self.condition.conditions
            and self.disabled is None
            and self.valid_from is None
            and self.until is None
        )


def leaves_of(condition: Condition) -> Iterator[Leaf]:
    """Every comparison in a condition, nested ones included."""
    match condition:
        case AllOf(conditions) | AnyOf(conditions):
            for inner in conditions:
                yield from leaves_of(inner)
        case Not(inner) | Named(_, inner):
            yield from leaves_of(inner)
        case _:
            yield condition


def attributes_of(condition: Condition) -> Iterator[Attribute]:
    """Every attribute that a condition looks at."""
    for leaf in leaves_of(condition):
        subjects: tuple[Subject, ...] = ()
        if isinstance(leaf, SameAs):
            subjects = (leaf.subject, leaf.other)
        elif isinstance(leaf, Match | Has | Count):
            subjects = (leaf.subject,)
        for subject in subjects:
            if isinstance(subject, Attribute):
                yield subject


def compared_in(condition: Condition) -> Iterator[Key]:
    """The attributes whose values a condition looks at, which is more than whether they are
    there."""
    for leaf in leaves_of(condition):
        if not (isinstance(leaf, Has) and leaf.extent in ("present", "absent")):
            for attribute in attributes_of(leaf):
                yield attribute.key


def version_of(rules: Iterable[Rule], zone: str = "UTC") -> str:
    """Twelve hexadecimal digits of the SHA-256 of the rules' meaning.

    The same for two files that differ in comments, quoting or the order of keys in ``when``, and
    in the time zone where no rule depends on it.
    """
    rules = tuple(rules)
    meaning: list[object] = [_canonical_rule(rule) for rule in rules]
    if any(map(_depends_on_zone, rules)):
        meaning.append(["zone", zone])
    text = json.dumps(meaning, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _depends_on_zone(rule: Rule) -> bool:
    """Whether the rules' time zone has a part in what it takes; windows have their own."""
    if any(when is not None and when.tzinfo is None for when in (rule.valid_from, rule.until)):
        return True
    for leaf in leaves_of(rule.condition):
        # A DT without an offset is read in the zone, wherever it is compared.
        if any(_is_moment(attribute) for attribute in attributes_of(leaf)):
            return True
        if isinstance(leaf, Match) and any(
            isinstance(p, Interval) and (p.relative or p.kind == "moment") for p in leaf.patterns
        ):
            return True
    return False


def _is_moment(attribute: Attribute) -> bool:
    step = attribute.path[-1]
    return isinstance(step, int) and KINDS.get(vr_of(step)) == "moment"


def _canonical_rule(rule: Rule) -> list[object]:
    return [
        rule.name,
        _canonical(rule.condition),
        [_canonical_target(target) for target in rule.targets],
        asdict(rule.send),
        [rule.final, rule.discard, rule.hold, rule.tags, rule.disabled],
        [when and when.isoformat() for when in (rule.valid_from, rule.until)],
        *([["keep", rule.keep_for]] if rule.keep_for else []),
    ]


def _canonical_target(target: Target) -> list[object]:
    """What is left out is not in it: rules of an older version are the same rules."""
    found: list[object] = [target.mode, target.members, target.by, target.weights]
    if (target.keep, target.on_refusal) != ("", "dead"):
        found += [target.keep, target.on_refusal]
    return found


def _canonical(condition: Condition) -> list[object]:
    match condition:
        case Match(subject, patterns):
            return [
                "is",
                _subject(subject),
                sorted(map(canonical_pattern, patterns), key=json.dumps),
            ]
        case Has(subject, extent):
            return ["has", _subject(subject), extent]
        case Count(subject, least, most):
            return ["count", _subject(subject), least, most]
        case SameAs(subject, other, ignore_case):
            return ["same", _subject(subject), _subject(other), ignore_case]
        case Received(windows):
            return ["received", windows.canonical()]
        case AllOf(conditions):
            return ["all", sorted(map(_canonical, conditions), key=json.dumps)]
        case AnyOf(conditions):
            return ["any", sorted(map(_canonical, conditions), key=json.dumps)]
        case Not(inner):
            return ["not", _canonical(inner)]
        case Named(_, inner):
            return _canonical(inner)


def _subject(subject: Subject) -> object:
    if isinstance(subject, str):
        return subject
    path = [
        [step.group, step.creator, step.element] if isinstance(step, Private) else step
        for step in subject.path
    ]
    return [path, subject.position]
