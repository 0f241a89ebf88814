"""Expectations kept beside the rules: their grammar.

Owns what a file of cases may say, with every mistake found and placed: a case that could not fail,
or not pass, whatever the rules do, is a mistake.  Must not read files: text and names come in as
arguments.  What is made of an expectation is in `rules.verdict`.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeAlias, cast, get_args

from rules.actions import GROUPS, called, check_keys, text_of
from rules.attributes import SINGLE_TEXT, Attribute, Key, keywords, vr_of
from rules.codes import never
from rules.decision import Facts
from rules.nearest import did_you_mean, nearest
from rules.pattern import Exact, Interval, parse_address
from rules.refusal import Refusal
from rules.rule import After, Match, Mode, Received, Rule, leaves_of
from rules.sending import PRIORITIES, Sending
from rules.source import MappingNode, Node, Problem, Problems, ScalarNode, SequenceNode, kind
from rules.subjects import parse_attribute
from rules.uids import UIDKind, names, resolve
from rules.window import zone_of

FILE_KEYS = ("rules", "given", "cases")
CASE_KEYS = ("name", "given", "expect")
EXPECT_KEYS = ("to", "not_to", "hold", "discard", "tag", "keep", "priority", "after", "schedule")
GIVEN_FACTS = (
    *("calling_ae", "called_ae", "remote", "source"),
    *("sop_class", "transfer_syntax", "received"),
)
ANY_DAY = "2000-01-01T12:00"
"""When a case is received that does not say so, under rules that do not look at the time."""
_SOP_CLASS = 0x00080016

Option: TypeAlias = Literal["priority", "after", "schedule"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A route: to one destination (``mode`` None, which of a group is drawn), or to a group."""

    members: tuple[str, ...]
    mode: Mode | None = None

    def __str__(self) -> str:
        if self.mode is None:
            return self.members[0]
        return f"{{{self.mode}: [{', '.join(self.members)}]}}"


@dataclass(frozen=True, slots=True)
class Expectation:
    """What is None is not looked at.

    ``to`` are all routes there are, in any order.  ``hold`` and ``discard``: whether, or with a
    reason that has this text in it.  ``tags`` are among the labels.  ``keep`` is for how many
    seconds rules keep it once it is settled, 0 when none says so.  ``options``: of the route to
    that destination, or with "" of at least one.
    """

    to: tuple[Wanted, ...] | None = None
    not_to: tuple[str, ...] = ()
    hold: bool | str | None = None
    discard: bool | str | None = None
    tags: tuple[str, ...] = ()
    keep: float | None = None
    options: tuple[tuple[Option, str, str | int], ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """One case; ``file`` and ``line`` say where it stands."""

    name: str
    facts: Facts
    expected: Expectation
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Names:
    """What the configuration under test defines.

    ``unknown_caller`` tells of an AE title whether rules ask for the address behind it.
    ``identify`` names the remote that calls by an AE title from an address, as the gateway would;
    ``called_ae`` is what is called where a case does not say so.
    """

    destinations: Collection[str]
    remotes: Collection[str]
    schedules: Collection[str]
    rules: tuple[Rule, ...]
    zone: str = "UTC"
    called_ae: str = ""
    identify: Callable[[str, str], str] = field(default=lambda calling_ae, source: "")
    unknown_caller: Callable[[str], bool] = field(default=lambda calling_ae: False)


def rules_file(node: Node) -> ScalarNode | None:
    """Where a file of cases says that the rules are, relative to it; None when it does not."""
    value = node.get("rules") if isinstance(node, MappingNode) else None
    return value if isinstance(value, ScalarNode) and text_of(value) else None


def parse_cases(node: Node, under: Names) -> tuple[Case, ...]:
    """The cases of a file.  Raises Problems with all mistakes at once."""
    parser = _Parser(under)
    found = parser.file(node)
    if parser.problems:
        raise Problems(parser.problems)
    return found


def timed(rules: Iterable[Rule]) -> Rule | None:
    """The first rule whose answer depends on when an instance is received."""
    for rule in rules:
        if rule.disabled is not None:
            continue
        if rule.valid_from is not None or rule.until is not None:
            return rule
        for leaf in leaves_of(rule.condition):
            if isinstance(leaf, Received):
                return rule
            if isinstance(leaf, Match) and any(
                isinstance(p, Interval) and p.relative for p in leaf.patterns
            ):
                return rule
    return None


class _Parser:
    def __init__(self, under: Names) -> None:
        self.problems: list[Problem] = []
        self._under = under
        self._labels = {tag for rule in under.rules for tag in rule.tags}
        self._timed = timed(under.rules)

    def _report(self, node: Node, message: str, fix: str = "") -> None:
        self.problems.append(node.problem(message, fix))

    # -- the file ------------------------------------------------------------------------------

    def file(self, node: Node) -> tuple[Case, ...]:
        cases: Node | None = node
        common = _Given()
        if isinstance(node, MappingNode):
            check_keys(node, FILE_KEYS, "a file of cases", self._report)
            place = node.get("rules")
            if place is not None and rules_file(node) is None:
                self._report(place, f"'rules' is the name of a file, not {kind(place)}")
            cases = node.get("cases")
            common = self._given(node.get("given"), _Given())
        if cases is None and self.problems:
            return ()  # an unknown key probably meant them
        if cases is None:
            self._report(node, "there are no cases", "cases: [{name: …, given: …, expect: …}]")
            return ()
        if not isinstance(cases, SequenceNode) or not cases.items:
            got = "an empty list" if isinstance(cases, SequenceNode) else kind(cases)
            self._report(cases, f"'cases' needs a list, not {got}", "begin each with '- name: …'")
            return ()
        seen: dict[str, int] = {}
        return tuple(
            case
            for number, item in enumerate(cases.items, 1)
            if (case := self._case(item, number, common, seen)) is not None
        )

    def _case(self, node: Node, number: int, common: "_Given", seen: dict[str, int]) -> Case | None:
        if not isinstance(node, MappingNode):
            self._report(node, f"case {number} must be a mapping, not {kind(node)}")
            return None
        name_node = node.get("name")
        name = text_of(name_node) if name_node is not None else None
        if name is None:
            where = name_node if name_node is not None else node
            self._report(where, f"case {number} has no name", "name: what it is about")
            name = f"case {number}"
        where = name_node or node
        if name in seen:
            self._report(where, f"duplicate case {name!r}", f"line {seen[name]} has it")
        seen.setdefault(name, node.line)
        check_keys(node, CASE_KEYS, f"case {name!r}", self._report)
        unknown = node.entries.keys() - set(CASE_KEYS)
        given = self._given(node.get("given"), common)
        if given.received is None and self._timed is not None:
            rule = called(self._timed.name)
            message = f"case {name!r} does not say when, but {rule} looks at the time"
            self._report(where, message, "add 'received: 2026-11-21T12:00' to its 'given'")
        if not given.facts.keys() & {"source", "remote"} and self._under.unknown_caller(
            given.facts.get("calling_ae", "")
        ):
            message = f"case {name!r} does not say which address it comes from, but rules ask"
            self._report(where, message, "add 'source: 10.0.0.7' or 'remote: NAME' to its 'given'")
        expect = node.get("expect")
        if expect is None:
            if unknown:
                return None  # one of them probably meant it
            self._report(where, f"case {name!r} expects nothing", "expect: {to: [NAME]}")
            return None
        return Case(name, self._facts(given), self._expect(expect), node.file, node.line)

    # -- what is given -------------------------------------------------------------------------

    def _given(self, node: Node | None, common: "_Given") -> "_Given":
        found = _Given(dict(common.facts), dict(common.attributes), common.received)
        if node is None:
            return found
        if not isinstance(node, MappingNode):
            self._report(
                node, f"'given' needs a mapping, not {kind(node)}", "given: {Modality: CT}"
            )
            return found
        for key, value in node.entries.values():
            if key.text == "received":
                found.received = self._moment(value)
            elif key.text in GIVEN_FACTS:
                if (fact := self._fact(key.text, value)) is not None:
                    found.facts[key.text] = fact
            elif (attribute := self._attribute(key)) is not None:
                values = self._values(attribute, value)
                found.attributes[attribute.key] = values
        return found

    def _fact(self, name: str, node: Node) -> str | None:
        if not isinstance(node, ScalarNode) or node.is_null:
            self._report(node, f"{name} has one value, not {kind(node)}")
            return None
        text = node.text.strip()
        if name in ("sop_class", "transfer_syntax"):
            return self._uid("SOP Class" if name == "sop_class" else "Transfer Syntax", node)
        if name == "source" and parse_address(text) is None:
            self._report(node, f"source is one address, not {kind(node)}", "such as 10.0.0.7")
        if name == "remote" and text and text not in self._under.remotes:
            self._unknown(node, "remote", self._under.remotes)
        if name.endswith("_ae") and not 0 < len(text) <= 16:
            self._report(node, f"{kind(node)} is no AE title: they have 1 to 16 characters")
        return text

    def _uid(self, what: UIDKind, node: ScalarNode) -> str | None:
        found = resolve(what, node.text.strip())
        if len(found) == 1:
            return found[0]
        word = "SOP class" if what == "SOP Class" else "transfer syntax"
        fix = did_you_mean(node.text, names(what)) or "name one, or give its UID"
        self._report(node, f"{node.shown} is not the name of one {word}", fix)
        return None

    def _moment(self, node: Node) -> float | None:
        text = text_of(node) or ""
        try:
            moment = datetime.fromisoformat(text)
            if len(text) < len("2026-11-21T02:00"):
                raise ValueError(text)
        except ValueError:
            self._report(node, f"received is a time, not {kind(node)}", "as in 2026-11-21T02:00")
            return 0.0
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=zone_of(self._under.zone))
        return moment.timestamp()

    def _attribute(self, key: ScalarNode) -> Attribute | None:
        if key.text == "tag":
            fix = "expect: {tag: …} says which"
            self._report(key, "'tag' cannot be given: rules give labels", fix)
            return None
        try:
            found = parse_attribute(key.text)
        except Refusal as refusal:
            close = nearest(key.text, GIVEN_FACTS) or nearest(key.text, keywords())
            fix = f"did you mean {close!r}?" if close else refusal.fix
            self._report(key, refusal.message, fix)
            return None
        if found.position:
            fix = f"give all values: {key.text.partition('[')[0]}: [ONE, TWO, THREE]"
            self._report(key, f"{key.shown} names one value of several", fix)
            return None
        return found

    def _values(self, attribute: Attribute, node: Node) -> tuple[str, ...]:
        """What a data set has, as text; nothing, or an empty list: the element without a value."""
        last = attribute.path[-1]
        vr = vr_of(last) if isinstance(last, int) else ""
        found = []
        for item in node.items if isinstance(node, SequenceNode) else (node,):
            if not isinstance(item, ScalarNode):
                message = f"an attribute has a value or a list of values, not {kind(item)}"
                self._report(item, message)
            elif item.is_null or not item.text:
                continue
            elif vr == "DA" and item.text.startswith(("today", "<", ">")):
                fix = "write the date itself, as in 20261121"
                self._report(item, f"{item.shown} is not the value of a date", fix)
            elif "\\" in item.text and vr not in SINGLE_TEXT:
                self._report(item, f"{item.shown} has a backslash", "several values are a list")
            elif what := next(never(Match(attribute, (Exact(item.text.strip(" ")),))), None):
                message = f"no data set has {item.shown}: {what[1].rpartition(': ')[2]}"
                self._report(item, message, f"write {item.text.upper()}" if what[2] else "")
            else:
                found.append(item.text)
        return tuple(found)

    def _facts(self, given: "_Given") -> Facts:
        facts, attributes = given.facts, dict(given.attributes)
        for key in list(attributes):
            # A sequence with something in it is there.
            if isinstance(key, tuple):
                attributes.setdefault(key[0], ())
                for length in range(2, len(key)):
                    attributes.setdefault(key[:length], ())
        sop_class = facts.get("sop_class", "")
        if sop_class:
            attributes.setdefault(_SOP_CLASS, (sop_class,))
        else:
            sop_class = next(iter(attributes.get(_SOP_CLASS, ())), "")
        calling, source = facts.get("calling_ae", ""), facts.get("source", "")
        received = given.received
        if received is None:
            day = datetime.fromisoformat(ANY_DAY).replace(tzinfo=zone_of(self._under.zone))
            received = day.timestamp()
        return Facts(
            calling_ae=calling,
            called_ae=facts.get("called_ae", self._under.called_ae),
            source_address=source,
            remote=facts.get("remote", self._under.identify(calling, source)),
            sop_class_uid=sop_class,
            transfer_syntax_uid=facts.get("transfer_syntax", ""),
            attributes=attributes,
            received_at=received,
        )

    # -- what is expected ----------------------------------------------------------------------

    def _expect(self, node: Node) -> Expectation:
        if not isinstance(node, MappingNode) or not node.entries:
            got = "an empty mapping" if isinstance(node, MappingNode) else kind(node)
            self._report(node, f"'expect' needs a mapping, not {got}", "expect: {to: [NAME]}")
            return Expectation()
        check_keys(node, EXPECT_KEYS, "expect", self._report)
        to_node, not_to = node.get("to"), self._not_to(node.get("not_to"))
        to = None if to_node is None else self._to(to_node)
        hold = self._fate(node.get("hold"), "hold")
        discard = self._fate(node.get("discard"), "discard")
        options = tuple(
            option
            for name in get_args(Option)
            if (value := node.get(name)) is not None
            for option in self._options(name, value)
        )
        for wanted in to or ():
            for name in wanted.members:
                if name in not_to:
                    self._report(node.key("not_to"), f"{name} is in 'to' and in 'not_to'")
        gone = "hold" if hold not in (None, False) else "discard"
        if hold not in (None, False) or discard not in (None, False):
            others = [name for name in ("to", *get_args(Option)) if name in node.entries]
            if hold not in (None, False) and discard not in (None, False):
                others.append("discard")
            if others and not (others == ["to"] and not to):
                self._report(node.key(others[-1]), f"what '{gone}' expects excludes this one")
        tags, keep = self._tags(node.get("tag")), self._keep(node.get("keep"))
        if keep and discard not in (None, False):
            fix = "what is discarded goes by spool.keep_settled"
            self._report(node.key("keep"), "what 'discard' expects excludes this one", fix)
        return Expectation(to, not_to, hold, discard, tags, keep, options)

    def _to(self, node: Node) -> tuple[Wanted, ...]:
        items = node.items if isinstance(node, SequenceNode) else (node,)
        found: list[Wanted] = []
        for item in items:
            wanted = self._wanted(item)
            if wanted in found:
                self._report(item, f"{wanted} stands here twice", "leave one out")
            elif wanted is not None:
                found.append(wanted)
        return tuple(found)

    def _wanted(self, node: Node) -> Wanted | None:
        if not isinstance(node, MappingNode):
            name = self._destination(node)
            return Wanted((name,)) if name else None
        check_keys(node, GROUPS, "a group of destinations", self._report)
        groups = [key for key in GROUPS if key in node.entries]
        if not groups and node.entries:
            return None  # the unknown key is told already
        if len(groups) != 1:
            self._report(node, f"a group is one of {', '.join(GROUPS)}", "failover: [A, B]")
            return None
        members = node.entries[groups[0]][1]
        items = members.items if isinstance(members, SequenceNode) else (members,)
        found = tuple(name for item in items if (name := self._destination(item)))
        return Wanted(found, cast(Mode, groups[0])) if found else None

    def _not_to(self, node: Node | None) -> tuple[str, ...]:
        if node is None:
            return ()
        items = node.items if isinstance(node, SequenceNode) else (node,)
        if not items:
            self._report(node, "'not_to' is empty", "leave it out")
        return tuple(name for item in items if (name := self._destination(item)))

    def _destination(self, node: Node) -> str:
        text = text_of(node)
        if text is None or not isinstance(node, ScalarNode):
            self._report(node, f"a destination is a name, not {kind(node)}")
            return ""
        if text not in self._under.destinations:
            self._unknown(node, "destination", self._under.destinations)
        return text

    def _unknown(self, node: ScalarNode, what: str, known: Collection[str]) -> None:
        fix = did_you_mean(node.text, known) or f"there are: {', '.join(sorted(known)) or 'none'}"
        self._report(node, f"no {what} is called {node.shown}", fix)

    def _fate(self, node: Node | None, key: str) -> bool | str | None:
        if node is None:
            return None
        text = text_of(node)
        if text is None or not isinstance(node, ScalarNode):
            self._report(node, f"{key} is true, false or a part of the reason, not {kind(node)}")
            return None
        return text if node.boolean is None else node.boolean

    def _tags(self, node: Node | None) -> tuple[str, ...]:
        if node is None:
            return ()
        items = node.items if isinstance(node, SequenceNode) else (node,)
        if not items:
            self._report(node, "'tag' is empty", "leave it out")
        found = []
        for item in items:
            text = text_of(item)
            if text is None or not isinstance(item, ScalarNode):
                self._report(item, f"a label is text, not {kind(item)}")
            elif text not in self._labels:
                self._unknown(item, "label", self._labels)
            else:
                found.append(text)
        return tuple(found)

    def _keep(self, node: Node | None) -> float | None:
        if node is None:
            return None
        return 0.0 if text_of(node) == "none" else Sending(None, self._report).keep(node)

    def _options(self, name: Option, node: Node) -> list[tuple[Option, str, str | int]]:
        if not isinstance(node, MappingNode):
            value = self._option(name, node)
            return [] if value is None else [(name, "", value)]
        found: list[tuple[Option, str, str | int]] = []
        for key, item in node.entries.values():
            value = self._option(name, item)
            destination = self._destination(key)
            if value is not None and destination:
                found.append((name, destination, value))
        return found

    def _option(self, name: Option, node: Node) -> str | int | None:
        text = text_of(node)
        if text is None or not isinstance(node, ScalarNode):
            self._report(node, f"{name} has one value, not {kind(node)}")
            return None
        if name == "schedule":
            if text not in self._under.schedules and text != "none":
                self._unknown(node, "schedule", self._under.schedules)
            return text
        if name == "after":
            if text not in get_args(After):
                fix = did_you_mean(text, get_args(After)) or f"it is {' or '.join(get_args(After))}"
                self._report(node, f"after cannot be {node.shown}", fix)
            return text
        if text in PRIORITIES:
            return PRIORITIES[text]
        try:
            return int(text)
        except ValueError:
            fix = did_you_mean(text, PRIORITIES) or f"it is {', '.join(PRIORITIES)} or a number"
            self._report(node, f"priority cannot be {node.shown}", fix)
            return None


@dataclass(slots=True)
class _Given:
    facts: dict[str, str] = field(default_factory=dict)
    attributes: dict[Key, tuple[str, ...]] = field(default_factory=dict)
    received: float | None = None
