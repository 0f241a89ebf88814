"""What a value under a condition's key says: the short forms, and the operators by name.

Owns both grammars, for facts and attributes alike.  Refuses what could never hold: a number that
is none, an operator that the subject's values have no use for.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from rules.attributes import Attribute, label_of
from rules.literals import NOUNS, Comparison
from rules.nearest import did_you_mean
from rules.pattern import (
    Affix,
    Exact,
    Folded,
    Glob,
    Interval,
    Listed,
    Pattern,
    Regex,
    is_glob,
)
from rules.refusal import Refusal
from rules.rule import AllOf, Condition, Count, Has, Match, Not, SameAs, Subject
from rules.source import MappingNode, Node, ScalarNode, SequenceNode, kind
from rules.subjects import parse_attribute, vr_of_attribute
from rules.values import KINDS, Kind
from rules.written import SLASHED, Values

Report = Callable[[Node, str, str], None]
OPERATORS = (
    "equals",
    "not",
    "glob",
    "regex",
    "starts",
    "ends",
    "contains",
    "less",
    "at_most",
    "more",
    "at_least",
    "between",
    "present",
    "absent",
    "empty",
    "count",
    "same_as",
    "in",
    "ignore_case",
)
TEXT_OPERATORS = frozenset(
    {"equals", "not", "glob", "regex", "starts", "ends", "contains", "same_as", "in"}
)
"""Those that `ignore_case` has a meaning for."""
COMPARISONS: dict[str, Comparison] = {"less": "<", "at_most": "<=", "more": ">", "at_least": ">="}
_MANY = re.compile(r"([0-9]{1,6})\s*\.\.\s*([0-9]{1,6})|(<=|>=|<|>)?\s*([0-9]{1,6})")


@dataclass(frozen=True, slots=True)
class Operand:
    """One subject, and what a condition may say of it."""

    values: Values
    report: Report

    @property
    def where(self) -> str:
        return self.values.where

    @property
    def subject(self) -> Subject:
        return self.values.subject

    def parse(self, node: Node) -> Condition | None:
        """The condition that ``node`` puts on the subject; None when it could not be read."""
        if isinstance(node, MappingNode):
            return self._long(node)
        if isinstance(node, SequenceNode):
            if not node.items:
                self.report(
                    node,
                    f"{self.where} has an empty list, which nothing can match",
                    "name at least one value",
                )
            return self._any_of(self._each(node, negation=False))
        if not self._has_text(node):
            return None
        text = node.text.strip()
        if text.startswith("!="):
            return self._none_of(self._short(node, text[2:].strip(), "!="))
        return self._any_of(self._short(node, text))

    def _each(self, node: Node, negation: bool, literal: bool = False) -> tuple[Pattern, ...]:
        """The short forms of a list, or of the one that stands alone; ``literal``: no globs."""
        found: list[Pattern] = []
        for item in node.items if isinstance(node, SequenceNode) else (node,):
            if not isinstance(item, ScalarNode):
                self._misplaced(item)
            elif not self._has_text(item):
                continue
            elif item.text.strip().startswith("!="):
                rest = item.text.strip()[2:].strip()
                fix = "leave the != out: 'not' means it" if negation else f"write {{not: [{rest}]}}"
                self.report(item, f"{item.shown} cannot stand in a list of alternatives", fix)
            elif literal and is_glob(item.text):
                message = f"{self.where} {item.shown}: 'equals' takes a * or ? for itself"
                fix = f'for a glob write {self.where}: "{item.text.strip()}"'
                self.report(item, message, fix)
            else:
                found.extend(self._short(item, item.text.strip()))
        return tuple(found)

    def _misplaced(self, item: Node) -> None:
        fix = "write all values in one list"
        if isinstance(item, MappingNode):
            fix = "use 'any' for alternatives with operators"
        self.report(item, f"{self.where} takes a value or a list of values, not {kind(item)}", fix)

    def _has_text(self, node: ScalarNode) -> bool:
        if not node.is_null and node.text.strip():
            return True
        fix = f'put "{node.text}" in quotes if that text is meant' if node.text else ""
        if not node.text and isinstance(self.subject, Attribute):
            fix = "for an attribute without a value write {empty: true}"
        self.report(node, f"{self.where} has no value to compare with", fix)
        return False

    def _short(self, node: ScalarNode, text: str, after: str = "") -> tuple[Pattern, ...]:
        """One short form but negation; () when it is refused."""
        try:
            if not text:
                raise Refusal(
                    f"{node.shown} has nothing behind the {after}", f"write {after} VALUE"
                )
            return self.values.read_short(text, node.shown, after)
        except Refusal as refusal:
            self.report(node, refusal.message, refusal.fix)
            return ()

    def _long(self, node: MappingNode) -> Condition | None:
        if not node.entries:
            self.report(
                node, f"{self.where} has no operator in its braces", "write {equals: VALUE}"
            )
            return None
        fold = self._ignore_case(node)
        found: list[Condition] = []
        for name, (key, value) in node.entries.items():
            if name not in OPERATORS:
                fix = did_you_mean(name, OPERATORS) or f"known are {', '.join(OPERATORS)}"
                self.report(key, f"unknown operator {key.shown} of {self.where}", fix)
            elif not self.values.takes(name):
                usable = ", ".join(each for each in OPERATORS if self.values.takes(each))
                self.report(key, f"{self.where} has no {name!r}", f"it takes {usable}")
            elif name != "ignore_case":
                condition = self._operator(name, value, fold)
                if condition is not None:
                    found.append(condition)
        if not found:
            return None
        return found[0] if len(found) == 1 else AllOf(tuple(found))

    def _ignore_case(self, node: MappingNode) -> bool:
        value = node.get("ignore_case")
        if value is None:
            return False
        fold = self._boolean("ignore_case", value)
        if not node.entries.keys() & TEXT_OPERATORS:
            self.report(
                node.key("ignore_case"),
                f"{self.where} has no operator that 'ignore_case' could change",
                f"it is for {', '.join(o for o in OPERATORS if o in TEXT_OPERATORS)}",
            )
        return bool(fold)

    def _operator(self, name: str, node: Node, fold: bool) -> Condition | None:
        match name:
            case "equals" if isinstance(self.subject, str) and not self.values.takes("glob"):
                return self._any_of(self._each(node, negation=False, literal=True))
            case "not":
                return self._none_of(self._folding(self._each(node, negation=True), node, fold))
            case "less" | "at_most" | "more" | "at_least":
                sign = COMPARISONS[name]
                return self._any_of(
                    self._one(
                        name, node, lambda text, shown: self.values.compare(sign, text, shown)
                    )
                )
            case "between":
                return self._between(node)
            case "present" | "absent" | "empty":
                return self._extent(name, node)
            case "count":
                return self._count(node)
            case "same_as":
                return self._same_as(node, fold)
            case "in":
                return self._any_of(self._listed(node, fold))
            case _:
                return self._any_of(self._texts(name, node, fold))

    def _texts(self, name: str, node: Node, fold: bool) -> tuple[Pattern, ...]:
        def make(text: str, shown: str) -> Pattern:
            if name == "equals":
                return self.values.equals(text, shown, fold)
            if name == "glob":
                return self.values.glob(text, shown, fold)
            if name == "regex":
                if SLASHED.fullmatch(text):
                    fix = f"leave the slashes out, or write {text} without {{regex: ...}}"
                    raise Refusal(f"{shown} looks for the slashes too", fix)
                return self.values.regex(text, shown, fold)
            return self.values.affix(name, text, shown, fold)

        found: list[Pattern] = []
        items = node.items if isinstance(node, SequenceNode) else (node,)
        if not items:
            self.report(
                node, f"{name!r} of {self.where} is an empty list", "name at least one value"
            )
        for item in items:
            found.extend(self._one(name, item, make))
        return tuple(found)

    def _folding(
        self, patterns: tuple[Pattern, ...], node: Node, fold: bool
    ) -> tuple[Pattern, ...]:
        """Short forms, without letter case where that was asked for."""
        if not fold:
            return patterns
        found: list[Pattern] = []
        for pattern in patterns:
            if isinstance(pattern, Exact | Glob | Affix):
                found.append(Folded(pattern))
            elif isinstance(pattern, Regex):
                found.append(Regex(pattern.text, ignore_case=True))
            elif isinstance(pattern, Interval):
                self.report(node, f"{self.where} has no letter case", "leave 'ignore_case' out")
            else:
                found.append(pattern)
        return tuple(found)

    def _one(
        self, name: str, node: Node, make: Callable[[str, str], Pattern]
    ) -> tuple[Pattern, ...]:
        if not isinstance(node, ScalarNode) or node.is_null or not node.text.strip():
            several = "one value" if name in COMPARISONS else "a value or a list of values"
            fix = "use 'any' for alternatives" if isinstance(node, SequenceNode) else ""
            self.report(
                node,
                f"{name!r} of {self.where} takes {several}, not {kind(node)}",
                fix or f"write {{{name}: VALUE}}",
            )
            return ()
        try:
            return (make(node.text.strip(), node.shown),)
        except Refusal as refusal:
            self.report(node, refusal.message, refusal.fix)
            return ()

    def _between(self, node: Node) -> Condition | None:
        items = node.items if isinstance(node, SequenceNode) else ()
        texts = [i.text for i in items if isinstance(i, ScalarNode) and i.text.strip()]
        if len(items) != 2 or len(texts) != 2:
            self.report(
                node, f"'between' of {self.where} takes two values", "write between: [1, 5]"
            )
            return None
        try:
            return self._any_of((self.values.between(*texts),))
        except Refusal as refusal:
            self.report(node, refusal.message, refusal.fix)
            return None

    def _boolean(self, name: str, node: Node) -> bool | None:
        value = node.boolean if isinstance(node, ScalarNode) else None
        if value is None:
            self.report(
                node,
                f"{name!r} of {self.where} must be true or false, not {kind(node)}",
                f"write {{{name}: true}}",
            )
        return value

    def _extent(self, name: str, node: Node) -> Condition | None:
        wanted = self._boolean(name, node)
        if wanted is None:
            return None
        subject = cast(Attribute, self.subject)
        match name, wanted:
            case ("present", True) | ("absent", False):
                return Has(subject, "present")
            case ("present", False) | ("absent", True):
                return Has(subject, "absent")
            case (_, True):
                return Has(subject, "empty")
            case _:
                return Has(subject, "valued")

    def _count(self, node: Node) -> Condition | None:
        subject = cast(Attribute, self.subject)
        text = node.text.strip() if isinstance(node, ScalarNode) else ""
        match = _MANY.fullmatch(text)
        if match is None:
            self.report(
                node,
                f"'count' of {self.where} is no number of values: {kind(node)}",
                'write 3, "> 3" or "2..4"',
            )
            return None
        if subject.position:
            self.report(
                node, f"{self.where} is one value, so it has no count", "leave the position out"
            )
            return None
        least, most = _limits(match)
        if most is not None and most < max(least, 0):
            self.report(node, f"no count of values is {node_text(node)}", "counts begin with 0")
            return None
        if least <= 0 and most is None:
            self.report(
                node, f"every count of values is {node_text(node)}", "write {present: true}"
            )
            return None
        return Count(subject, max(least, 0), most)

    def _same_as(self, node: Node, fold: bool) -> Condition | None:
        if not isinstance(node, ScalarNode) or not node.text.strip():
            self.report(
                node,
                f"'same_as' of {self.where} takes an attribute, not {kind(node)}",
                "write {same_as: KEYWORD}",
            )
            return None
        try:
            other = parse_attribute(node.text.strip())
        except Refusal as refusal:
            self.report(node, refusal.message, refusal.fix)
            return None
        if other == self.subject:
            self.report(
                node, f"{self.where} is always the same as itself", "name another attribute"
            )
            return None
        other_kind = KINDS.get(vr_of_attribute(other))
        if self.values.kind != other_kind and None not in (self.values.kind, other_kind):
            self.report(
                node,
                f"{self.where} is never the same as {label_of(other)}: "
                f"{NOUNS[cast(Kind, self.values.kind)]} and {NOUNS[cast(Kind, other_kind)]}",
                "name an attribute of the same kind",
            )
            return None
        return SameAs(cast(Attribute, self.subject), other, fold)

    def _listed(self, node: Node, fold: bool) -> tuple[Pattern, ...]:
        found: list[Pattern] = []
        items = node.items if isinstance(node, SequenceNode) else (node,)
        if not items:
            self.report(node, f"'in' of {self.where} is an empty list", "name a list of 'lists'")
        for item in items:
            if not isinstance(item, ScalarNode) or item.is_null or not item.text.strip():
                message = f"'in' of {self.where} takes the name of a list, not {kind(item)}"
                self.report(item, message, "values themselves stand in a list without 'in'")
                continue
            name = item.text.strip()
            if self.values.known is not None and name not in self.values.known.lists:
                fix = did_you_mean(name, self.values.known.lists) or "add it under 'lists'"
                self.report(item, f"no list is called {item.shown}", fix)
                continue
            folded = fold or (self.values.known is not None and name in self.values.known.folded)
            found.append(Listed(name, self.values.lens(folded)))
        return tuple(found)

    def _any_of(self, patterns: tuple[Pattern, ...]) -> Condition | None:
        return Match(self.subject, tuple(dict.fromkeys(patterns))) if patterns else None

    def _none_of(self, patterns: tuple[Pattern, ...]) -> Condition | None:
        """None of the patterns; an attribute needs a value for that, a fact is always there."""
        match = self._any_of(patterns)
        if match is None or isinstance(self.subject, str):
            return None if match is None else Not(match)
        return AllOf((Has(self.subject, "valued"), Not(match)))


def node_text(node: Node) -> str:
    """A scalar as a message shows it."""
    return node.shown if isinstance(node, ScalarNode) else kind(node)


def _limits(match: re.Match[str]) -> tuple[int, int | None]:
    if match[1] is not None:
        return int(match[1]), int(match[2])
    number = int(match[4])
    match match[3]:
        case "<":
            return 0, number - 1
        case "<=":
            return 0, number
        case ">":
            return number + 1, None
        case ">=":
            return number, None
        case _:
            return number, number
