"""A rule and its condition, as understood but not yet compiled.

Owns the meaning of the rule language as data: what the compiler turns into closures, what a
version is computed from.  Must not know YAML.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from rules.pattern import Exact, Glob, Network, Pattern

Subject: TypeAlias = str | int
"""What a condition looks at: one of FACTS, or the tag of an attribute."""

FACTS = ("calling_ae", "called_ae", "remote", "source", "sop_class", "transfer_syntax")


@dataclass(frozen=True, slots=True)
class Match:
    """Holds when any value of the subject matches any pattern; never for a missing attribute."""

    subject: Subject
    patterns: tuple[Pattern, ...]


@dataclass(frozen=True, slots=True)
class AllOf:
    conditions: tuple["Condition", ...] = ()


@dataclass(frozen=True, slots=True)
class AnyOf:
    conditions: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Not:
    condition: "Condition"


Condition: TypeAlias = Match | AllOf | AnyOf | Not


@dataclass(frozen=True, slots=True)
class Rule:
    """One item of ``rules:``.

    Exactly one of ``to`` (not empty) and ``discard`` (the reason given; "" for a bare ``true``)
    is set.  ``line`` is for messages and does not count when rules are compared.
    """

    name: str
    condition: AllOf = AllOf()
    to: tuple[str, ...] = ()
    final: bool = False
    discard: str | None = None
    line: int = field(default=0, compare=False)

    @property
    def unconditional(self) -> bool:
        return not self.condition.conditions


def matches_of(condition: Condition) -> Iterator[Match]:
    """Every comparison in a condition, nested ones included."""
    match condition:
        case Match():
            yield condition
        case AllOf(conditions) | AnyOf(conditions):
            for inner in conditions:
                yield from matches_of(inner)
        case Not(inner):
            yield from matches_of(inner)


def version_of(rules: Iterable[Rule]) -> str:
    """Twelve hexadecimal digits of the SHA-256 of the rules' meaning.

    The same for two files that differ in comments, quoting or the order of keys in ``when``.
    """
    canonical = [
        [rule.name, _canonical(rule.condition), rule.to, rule.final, rule.discard] for rule in rules
    ]
    text = json.dumps(canonical, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _canonical(condition: Condition) -> list[object]:
    match condition:
        case Match(subject, patterns):
            return ["is", subject, sorted(map(_canonical_pattern, patterns))]
        case AllOf(conditions):
            return ["all", sorted(map(_canonical, conditions), key=json.dumps)]
        case AnyOf(conditions):
            return ["any", sorted(map(_canonical, conditions), key=json.dumps)]
        case Not(inner):
            return ["not", _canonical(inner)]


def _canonical_pattern(pattern: Pattern) -> list[str]:
    match pattern:
        case Exact(text):
            return ["exact", text]
        case Glob(text):
            return ["glob", text]
        case Network(network):
            return ["network", str(network)]
