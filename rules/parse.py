"""From the nodes of ``rules:`` to rules, with every mistake found and placed.

Owns what a rule is made of; its condition is `rules.conditions`' matter, what it does
`rules.actions`' and `rules.sending`'s.  A mistake is never passed over, because a study lost by a
typo is found weeks later.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from rules.actions import (
    GROUPS,
    Targets,
    called,
    check_keys,
    disabled,
    meant,
    reason,
    tags,
    text_of,
    valid,
)
from rules.bounds import MAX_ALL_LEAVES, MAX_NAME, unfit
from rules.codes import never
from rules.conditions import ConditionParser
from rules.include import Includer, Prepare, Read
from rules.known import Known
from rules.nearest import did_you_mean, nearest
from rules.pattern import Exact, Glob, glob_matcher
from rules.rule import AllOf, AnyOf, Condition, Match, Named, Not, Rule, Send, leaves_of
from rules.sending import Sending
from rules.source import MappingNode, Node, Problem, ScalarNode, SequenceNode, kind

RULE_KEYS = (
    "name",
    "when",
    "to",
    "send",
    "tag",
    "keep",
    "final",
    "discard",
    "hold",
    "disabled",
    "valid",
)
RESERVED = ("edit",)
"""Keys that the language will have; refused until then, never passed over."""
ENDS = ("to", "discard", "hold")
"""What can become of an instance: a rule says one of them at most."""


@dataclass(slots=True)
class Parser:
    """Reads rules; what is wrong is gathered in ``problems``.

    ``known`` None leaves the names of remotes, lists and schedules unchecked.  ``zone`` is the
    time zone of dates and windows.  ``read`` and ``prepare`` are for included files.
    """

    known: Known | None = None
    zone: str = "UTC"
    read: Read | None = None
    prepare: Prepare | None = None
    problems: list[Problem] = field(default_factory=list)
    conditions: ConditionParser = field(init=False)
    _targets: Targets = field(init=False)
    _sending: Sending = field(init=False)
    _labels: dict[str, None] = field(default_factory=dict)
    _leaves: int = 0

    def __post_init__(self) -> None:
        self.conditions = ConditionParser(self.known, self._report, self.zone)
        self._targets = Targets(self.known, self._report)
        self._sending = Sending(self.known, self._report)

    def rules(self, node: Node) -> tuple[Rule, ...]:
        """The rules that could be read, those of included files too, in order."""
        if not isinstance(node, SequenceNode):
            self._report(
                node,
                f"rules must be a list, not {kind(node)}",
                "start each rule with '- name: ...'",
            )
            return ()
        includer = Includer(self.read, self.prepare, self.problems)
        seen: dict[str, Rule] = {}
        found = []
        for number, item in enumerate(includer.rules(node), 1):
            rule = self._rule(item, number)
            if rule is None:
                continue
            if (first := seen.get(rule.name)) is not None:
                place = item.get("name") if isinstance(item, MappingNode) else None
                where = f"line {first.line}"
                if first.file != rule.file:
                    where = f"{first.file}:{first.line}"
                self._report(
                    place or item,
                    f"duplicate rule name {rule.name!r}",
                    f"the rule in {where} has it",
                )
            seen.setdefault(rule.name, rule)
            found.append(rule)
        return tuple(found)

    def named_conditions(self) -> None:
        """Reads every condition of ``conditions:``, so that mistakes in unused ones are found."""
        for name, node in self.known.conditions.items() if self.known is not None else ():
            condition = self.conditions.named(name)
            if condition is not None:
                self._check_denied(condition, node)

    def _report(self, node: Node, message: str, fix: str = "") -> None:
        self.problems.append(node.problem(message, fix))

    def _rule(self, node: Node, number: int) -> Rule | None:
        if not isinstance(node, MappingNode):
            self._report(node, f"rule {number} must be a mapping, not {kind(node)}")
            return None
        name = self._name(node, f"rule {number}")
        check_keys(node, RULE_KEYS, called(name), self._report, RESERVED)
        self._check_ends(node, name)
        given = {key: value for key, (_, value) in node.entries.items()}
        condition = AllOf()
        if (when := given.get("when")) is not None:
            condition = self.conditions.mapping(when, "when")
            self._check_labels(condition, when)
            self._check_denied(condition, when)
            self._check_size(condition, when, name)
        start, until = None, None
        if (validity := given.get("valid")) is not None:
            start, until = valid(validity, self.zone, self._report)
        rule = Rule(
            name,
            condition,
            self._targets.targets(given["to"], name) if "to" in given else (),
            self._sending.send(given["send"]) if "send" in given else Send(),
            self._final(given.get("final")),
            reason(given["discard"], "discard", self._report) if "discard" in given else None,
            reason(given["hold"], "hold", self._report) if "hold" in given else None,
            tags(given["tag"], self._report) if "tag" in given else (),
            disabled(given["disabled"], self._report) if "disabled" in given else None,
            start,
            until,
            node.file,
            node.line,
            node.column,
            self._sending.keep(given["keep"]) if "keep" in given else 0.0,
        )
        self._labels.update(dict.fromkeys(rule.tags))
        return rule

    def _name(self, node: MappingNode, default: str) -> str:
        value = node.get("name")
        if value is None:
            return default
        text = text_of(value)
        if text is None:
            self._report(value, f"name must be text, not {kind(value)}")
            return default
        if (what := unfit(text, MAX_NAME)) is not None:
            self._report(value, f"the name of {default} {what[0]}", what[1])
            return default
        return text

    def _final(self, node: Node | None) -> bool:
        if node is None:
            return False
        value = node.boolean if isinstance(node, ScalarNode) else None
        if value is None:
            self._report(node, f"final must be true or false, not {kind(node)}")
        return bool(value)

    def _check_ends(self, node: MappingNode, name: str) -> None:
        """That the rule does something, and one thing."""
        given = [key for key in ENDS if key in node.entries]
        for key in given[1:]:
            self._report(
                node.key(key),
                f"{called(name)} has both {given[0]!r} and {key!r}",
                "make two rules of it",
            )
        if "send" in node.entries and given and given[0] != "to":
            self._report(node.key("send"), "'send' goes with 'to'", "nothing is sent here")
        if "keep" in node.entries and "discard" in node.entries:
            fix = "leave it out: what is discarded is not kept"
            self._report(node.key("keep"), "'keep' does nothing beside 'discard'", fix)
        unknown = [key for key in node.entries if key not in RULE_KEYS]
        words = {meant(key, RULE_KEYS) or nearest(key, RULE_KEYS) for key in unknown}
        words |= {"to" for key in unknown if key in GROUPS}
        also = {"tag", "keep"}
        if not given and not also & node.entries.keys() and not words & {*ENDS, *also}:
            self._report(
                node,
                f"{called(name)} does nothing",
                "say where it sends with 'to', or give it 'discard', 'hold', 'tag' or 'keep'",
            )
        elif not given and "send" in node.entries and "to" not in words:
            self._report(node.key("send"), "'send' goes with 'to'", "say where it sends")

    def _check_size(self, condition: AllOf, when: Node, name: str) -> None:
        size = self.conditions.size(condition)
        before, self._leaves = self._leaves, self._leaves + size.leaves
        what, fix = size.too_much
        if what:
            self._report(when, f"{called(name)} {what}", fix)
        elif before <= MAX_ALL_LEAVES < self._leaves:
            what = f"more than {MAX_ALL_LEAVES} comparisons in all rules up to here"
            fix = "named conditions count wherever they are used: use lists, or fewer rules"
            self._report(when, what, fix)

    def _check_denied(self, condition: Condition, place: Node) -> None:
        """What no value can be keeps a negation always true: what was to be kept back is sent."""
        for leaf in dict.fromkeys(_denied(condition, False)):
            for text, what, fix in never(leaf):
                at = next(_written(place, text), place)
                self._report(at, f"under a negation, {what}; so it holds for every value", fix)

    def _check_labels(self, condition: AllOf, when: Node) -> None:
        """A label that no earlier rule gives is a typo, and its condition never holds."""
        for leaf in leaves_of(condition):
            for pattern in leaf.patterns if isinstance(leaf, Match) else ():
                if isinstance(leaf, Match) and leaf.subject != "tag":
                    break
                if isinstance(pattern, Exact):
                    given = pattern.text in self._labels
                elif isinstance(pattern, Glob):
                    given = any(map(glob_matcher(pattern.text), self._labels))
                else:
                    continue
                if not given:
                    place = next(_scalars(when, "tag", pattern.text), when)
                    fix = did_you_mean(pattern.text, self._labels)
                    message = f"no rule before this one gives the label {pattern.text!r}"
                    self._report(place, message, fix)


def _denied(condition: Condition, denied: bool) -> Iterator[Match]:
    """The comparisons that must not hold; those inside a named condition are its own matter
    unless the name itself is denied."""
    match condition:
        case AllOf(conditions) | AnyOf(conditions):
            for inner in conditions:
                yield from _denied(inner, denied)
        case Not(inner):
            yield from _denied(inner, not denied)
        case Named(_, inner) if denied:
            yield from _denied(inner, denied)
        case Match() if denied:
            yield condition


def _written(node: Node, text: str) -> Iterator[ScalarNode]:
    """Where ``text`` stands as a value, with an operator before it or without."""
    match node:
        case SequenceNode(items=items):
            for item in items:
                yield from _written(item, text)
        case MappingNode(entries=entries):
            for _, value in entries.values():
                yield from _written(value, text)
        case ScalarNode(text=written):
            if written.strip().lstrip("!= ").strip("/") == text:
                yield node


def _scalars(node: Node, key: str, text: str) -> Iterator[Node]:
    """Where the value ``text`` stands under ``key``, at any depth."""
    if isinstance(node, SequenceNode):
        for item in node.items:
            yield from _scalars(item, key, text)
    elif isinstance(node, MappingNode):
        for name, (_, value) in node.entries.items():
            for item in value.items if isinstance(value, SequenceNode) else (value,):
                if name == key and isinstance(item, ScalarNode) and item.text.strip() == text:
                    yield item
            yield from _scalars(value, key, text)
