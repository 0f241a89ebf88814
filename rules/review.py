"""What is allowed and yet hardly meant: rules that can never do anything.

Owns the warnings about rules.  Must not know how rules are written, nor read a clock.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from rules.attributes import Attribute, label_of, vr_of
from rules.codes import oddities, unlikely
from rules.logic import Part, implies, impossible, manageable, parts_of, subject_of
from rules.pattern import Interval
from rules.rule import Match, Rule, leaves_of
from rules.ruleset import RuleSet
from rules.source import Problem
from rules.values import KINDS


def warnings(rules: RuleSet, file: str, now: float | None = None) -> Iterator[Problem]:
    """Of each rule the first thing that keeps it from ever doing anything, and odd comparisons,
    those with text that no value can be among them.

    ``file`` is the place of rules that do not know their own; with ``now`` (seconds since the
    epoch) also those whose time is over.  Disabled rules are not looked at.
    """
    before: list[_Seen] = []
    masks: dict[object, int] = {}
    for rule in rules.rules:
        if rule.disabled is not None:
            continue
        parts = parts_of(rule.condition) if manageable(rule.condition) else ()
        mask = 0
        for part in parts:
            if (subject := subject_of(part)) is not None:
                mask |= masks.setdefault(subject, 1 << len(masks))
        seen = _Seen(rule, parts, mask)
        if (found := _never(seen, before, now)) is not None:
            yield _at(rule, file, *found)
        for text in (*_odd(rule), *_unlikely(rule)):
            yield _at(rule, file, *text)
        if parts or not rule.condition.conditions:
            before.append(seen)


def notes(rules: RuleSet, file: str, now: float) -> Iterator[Problem]:
    """What is as it should be and easily forgotten: rules that do nothing for now."""
    for rule in rules.rules:
        if rule.disabled is not None:
            yield _at(rule, file, f"rule {rule.name!r} is disabled: {rule.disabled}")
        elif rule.valid_from is not None and rule.valid_from.timestamp() > now:
            yield _at(rule, file, f"rule {rule.name!r} is not valid before {_day(rule.valid_from)}")


@dataclass(frozen=True, slots=True)
class _Seen:
    """``mask`` has a bit for each subject of which the parts need a condition to follow from."""

    rule: Rule
    parts: tuple[Part, ...]
    mask: int

    @property
    def drops(self) -> bool:
        return self.rule.discard is not None or self.rule.hold is not None

    def covers(self, other: "_Seen") -> bool:
        """Whether this rule, which comes first, holds whenever the other does."""
        if self.mask & ~other.mask:
            return False
        mine, its = self.rule, other.rule
        if mine.valid_from is not None and (
            its.valid_from is None or its.valid_from < mine.valid_from
        ):
            return False
        if mine.until is not None and (its.until is None or its.until > mine.until):
            return False
        # A label that the other looks for may be given in between.
        if any(isinstance(p, Match) and p.subject == "tag" for p in leaves_of(mine.condition)):
            return False
        return implies(other.parts, mine.condition)


def _at(rule: Rule, file: str, message: str, fix: str = "") -> Problem:
    return Problem(rule.file or file, rule.line, rule.column, message, fix)


def _day(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d" if moment.hour == moment.minute == 0 else "%Y-%m-%d %H:%M")


def _never(seen: _Seen, before: Sequence[_Seen], now: float | None) -> tuple[str, str] | None:
    rule, name = seen.rule, f"rule {seen.rule.name!r}"
    if now is not None and rule.until is not None and rule.until.timestamp() <= now:
        return f"{name} is over: it was valid until {_day(rule.until)}", "remove it or its 'until'"
    if (why := impossible(rule.condition)) is not None:
        return f"{name} can never match: {why}", ""
    may_route = False
    for earlier in before:
        if (earlier.rule.final or (earlier.drops and not may_route)) and earlier.covers(seen):
            other = _other(earlier.rule, rule)
            if earlier.rule.unconditional:
                return f"{name} is never reached", f"{other[0]} ends every decision in {other[1]}"
            fix = f"{other[0]} in {other[1]} matches all that it would, and ends the decision"
            return f"{name} is never reached", fix
        may_route = may_route or bool(earlier.rule.targets)
    if seen.drops:
        for earlier in before:
            if earlier.rule.targets and earlier.covers(seen):
                other = _other(earlier.rule, rule)
                verb = "discards" if rule.discard is not None else "holds"
                what = "everything" if earlier.rule.unconditional else "all that it would match"
                fix = f"{other[0]} in {other[1]} routes {what} before it"
                return f"{name} never {verb} anything", fix
    return None


def _other(rule: Rule, beside: Rule) -> tuple[str, str]:
    where = f"line {rule.line}" if rule.file == beside.file else f"{rule.file}:{rule.line}"
    return f"rule {rule.name!r}", where


def _unlikely(rule: Rule) -> Iterator[tuple[str, str]]:
    """Text that no value can be: the condition would silently never hold."""
    found = (
        each
        for leaf in leaves_of(rule.condition)
        for each in (*(unlikely(leaf) if isinstance(leaf, Match) else ()), *oddities(leaf))
    )
    for what, fix in dict.fromkeys(found):
        yield f"rule {rule.name!r}: {what}", fix


def _odd(rule: Rule) -> Iterator[tuple[str, str]]:
    """Comparisons by order of what has none."""
    seen: set[Attribute] = set()
    for leaf in leaves_of(rule.condition):
        if not isinstance(leaf, Match) or not isinstance(leaf.subject, Attribute):
            continue
        step = leaf.subject.path[-1]
        vr = vr_of(step) if isinstance(step, int) else ""
        if not vr or vr in KINDS or leaf.subject in seen:
            continue
        if any(isinstance(pattern, Interval) for pattern in leaf.patterns):
            seen.add(leaf.subject)
            what = f"compares {label_of(leaf.subject)}, text of VR {vr}, as a number"
            yield f"rule {rule.name!r} {what}", "a value that is no number never matches"
