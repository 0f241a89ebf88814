"""From the nodes of ``rules:`` to rules, with every mistake found and placed.

Owns the grammar.  A mistake is never read as a condition that does not hold: whatever could not
match anything is refused here, because a study lost by a typo is found weeks later.
"""

import ipaddress
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from rules.attributes import BULK, SINGLE_TEXT, keywords, label, tag_of, vr_of
from rules.nearest import did_you_mean, nearest
from rules.pattern import Exact, Glob, Network, Pattern, glob_matcher, is_glob
from rules.rule import FACTS, AllOf, AnyOf, Condition, Match, Not, Rule
from rules.source import MappingNode, Node, Problem, ScalarNode, SequenceNode, kind
from rules.uids import UIDKind, is_uid, is_uid_glob, names, resolve

RULE_KEYS = ("name", "when", "to", "final", "discard")
NOT_YET = frozenset({"send"})
"""Keys that the language will have; refused until then, never passed over."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the rest of the configuration defines: names of remotes, and those with a host."""

    remotes: Collection[str]
    destinations: Collection[str]


@dataclass(slots=True)
class Parser:
    """Reads rules; what is wrong is gathered in ``problems``.

    ``known`` None leaves the names of remotes unchecked.
    """

    known: Known | None = None
    problems: list[Problem] = field(default_factory=list)

    def rules(self, node: Node) -> tuple[Rule, ...]:
        """The rules that could be read, in order."""
        if not isinstance(node, SequenceNode):
            self._report(
                node,
                f"rules must be a list, not {kind(node)}",
                "start each rule with '- name: ...'",
            )
            return ()
        seen: dict[str, int] = {}
        found = []
        for number, item in enumerate(node.items, 1):
            rule = self._rule(item, number)
            if rule is None:
                continue
            if rule.name in seen:
                place = item.get("name") if isinstance(item, MappingNode) else None
                self._report(
                    place or item,
                    f"duplicate rule name {rule.name!r}",
                    f"the rule in line {seen[rule.name]} has it",
                )
            seen.setdefault(rule.name, item.line)
            found.append(rule)
        return tuple(found)

    def _report(self, node: Node, message: str, fix: str = "") -> None:
        self.problems.append(node.problem(message, fix))

    def _rule(self, node: Node, number: int) -> Rule | None:
        if not isinstance(node, MappingNode):
            self._report(node, f"rule {number} must be a mapping, not {kind(node)}")
            return None
        name = self._name(node, f"rule {number}")
        for key, (key_node, _) in node.entries.items():
            if key in NOT_YET:
                self._report(key_node, f"{key!r} is not available in this version")
            elif key not in RULE_KEYS:
                self._report(
                    key_node, f"unknown key {key!r} in {_called(name)}", _key_fix(key, RULE_KEYS)
                )
        condition = AllOf()
        if (when := node.get("when")) is not None:
            condition = self._conjunction(when, "when")
        to = self._to(node.get("to"), name)
        discard = self._discard(node.get("discard"))
        if "to" in node.entries and "discard" in node.entries:
            self._report(
                node.key("discard"),
                f"{_called(name)} has both 'to' and 'discard'",
                "make two rules of it",
            )
        elif "to" not in node.entries and "discard" not in node.entries:
            self._report(
                node,
                f"{_called(name)} has neither 'to' nor 'discard'",
                "say where it sends, or 'discard: true'",
            )
        return Rule(name, condition, to, self._final(node.get("final")), discard, node.line)

    def _name(self, node: MappingNode, default: str) -> str:
        value = node.get("name")
        if value is None:
            return default
        if not isinstance(value, ScalarNode) or value.is_null or not value.text.strip():
            self._report(value, f"name must be text, not {kind(value)}")
            return default
        return value.text.strip()

    def _final(self, node: Node | None) -> bool:
        if node is None:
            return False
        value = node.boolean if isinstance(node, ScalarNode) else None
        if value is None:
            self._report(node, f"final must be true or false, not {kind(node)}")
        return bool(value)

    def _discard(self, node: Node | None) -> str | None:
        if node is None:
            return None
        if not isinstance(node, ScalarNode) or node.is_null or not node.text.strip():
            self._report(node, f"discard must be true or a reason, not {kind(node)}")
            return ""
        if node.boolean is False:
            self._report(node, f"'discard: {node.written}' does nothing", "leave it out")
        return "" if node.boolean is not None else node.text.strip()

    def _to(self, node: Node | None, rule: str) -> tuple[str, ...]:
        if node is None:
            return ()
        items = node.items if isinstance(node, SequenceNode) else (node,)
        if not items:
            self._report(node, f"'to' of {_called(rule)} is empty", "name at least one remote")
        found: list[str] = []
        for item in items:
            if isinstance(item, MappingNode):
                self._destination_mapping(item)
            elif not isinstance(item, ScalarNode) or item.is_null or not item.text.strip():
                self._report(item, f"'to' takes the name of a remote or a list, not {kind(item)}")
            elif self._destination(item):
                name = item.text.strip()
                if name in found:
                    self._report(item, f"{_called(rule)} names {name!r} twice")
                found.append(name)
        return tuple(found)

    def _destination_mapping(self, node: MappingNode) -> None:
        if "failover" in node.entries:
            self._report(
                node.key("failover"),
                "'failover' is not available in this version",
                "name the destinations in a list to send to each of them",
            )
        else:
            self._report(node, "'to' takes the name of a remote or a list, not a mapping")

    def _destination(self, node: ScalarNode) -> bool:
        name = node.text.strip()
        if not self._remote(node, name):
            return False
        if self.known is not None and name not in self.known.destinations:
            self._report(
                node,
                f"remote {node.shown} has no host, so nothing can be sent to it",
                f"give it one: '{name}: {{ae_title: ..., host: ..., port: ...}}'",
            )
            return False
        return True

    def _remote(self, node: ScalarNode, name: str) -> bool:
        if self.known is None or name in self.known.remotes:
            return True
        fix = did_you_mean(name, self.known.remotes) or "add it under 'remotes'"
        self._report(node, f"no remote is called {node.shown}", fix)
        return False

    def _conjunction(self, node: Node, key: str) -> AllOf:
        """A mapping, all of whose keys must hold."""
        if not isinstance(node, MappingNode) or not node.entries:
            got = "an empty mapping" if isinstance(node, MappingNode) else kind(node)
            fix = "leave 'when' out to match everything" if key == "when" else ""
            self._report(node, f"{key!r} needs a mapping of conditions, not {got}", fix)
            return AllOf()
        found = (self._entry(key_node, value) for key_node, value in node.entries.values())
        return AllOf(tuple(condition for condition in found if condition is not None))

    def _entry(self, key: ScalarNode, value: Node) -> Condition | None:
        if key.text == "not":
            return Not(self._conjunction(value, "not"))
        if key.text in ("any", "all"):
            return self._list(key.text, value)
        if key.text in FACTS:
            return self._match(key.text, value, lambda item: _FACT_PARSERS[key.text](self, item))
        tag = self._tag(key)
        if tag is None:
            return None
        return self._match(tag, value, lambda item: self._attribute_pattern(tag, item))

    def _list(self, key: str, node: Node) -> Condition | None:
        if not isinstance(node, SequenceNode) or not node.items:
            got = "an empty list" if isinstance(node, SequenceNode) else kind(node)
            self._report(
                node, f"{key!r} needs a list of conditions, not {got}", f"{key}: [{{...}}, {{...}}]"
            )
            return None
        conditions = tuple(self._conjunction(item, key) for item in node.items)
        return AnyOf(conditions) if key == "any" else AllOf(conditions)

    def _match(
        self,
        subject: str | int,
        node: Node,
        pattern: "Callable[[ScalarNode], tuple[Pattern, ...]]",
    ) -> Match | None:
        where = subject if isinstance(subject, str) else label(subject)
        items = node.items if isinstance(node, SequenceNode) else (node,)
        if not items:
            self._report(node, f"{where} has an empty list, which nothing can match")
        found: list[Pattern] = []
        for item in items:
            if not isinstance(item, ScalarNode):
                self._report(item, f"{where} takes a value or a list of values, not {kind(item)}")
            elif item.is_null or not item.text.strip():
                fix = f'put "{item.text}" in quotes if that text is meant' if item.text else ""
                self._report(item, f"{where} has no value to compare with", fix)
            else:
                found.extend(pattern(item))
        return Match(subject, tuple(dict.fromkeys(found))) if found else None

    def _tag(self, key: ScalarNode) -> int | None:
        tag = tag_of(key.text)
        if tag is None:
            known = (*FACTS, "any", "all", "not")
            close = nearest(key.text, known) or nearest(key.text, keywords())
            fix = f"did you mean {close!r}?" if close else ""
            if key.text.startswith("(") and not key.quoted:
                fix = 'inside braces a tag stands in quotes: "(0008,0060)"'
            self._report(key, f"unknown condition {key.shown}", fix)
        elif tag < 0x00080000:
            fix = {0x00020010: "use transfer_syntax", 0x00020002: "use sop_class"}.get(tag, "")
            self._report(key, f"{label(tag)} is not an attribute of a data set", fix)
        elif vr_of(tag) in BULK:
            self._report(key, f"{label(tag)} has no text to compare: its VR is {vr_of(tag)}")
        else:
            return tag
        return None

    def _attribute_pattern(self, tag: int, node: ScalarNode) -> tuple[Pattern, ...]:
        text, vr = node.text.strip(), vr_of(tag)
        if "\\" in text and vr not in SINGLE_TEXT:
            self._report(
                node,
                f"{label(tag)} cannot match {node.shown}: its values are compared one by one",
                "name the one that matters, or use 'all' for several",
            )
            return ()
        if vr == "UI" and not is_uid_glob(text):
            fix = "use sop_class, which takes names" if tag == 0x00080016 else ""
            self._report(node, f"{label(tag)} is a UID and cannot match {node.shown}", fix)
            return ()
        return (_text_pattern(text),)

    def _ae_title(self, node: ScalarNode) -> tuple[Pattern, ...]:
        text = node.text.strip()
        if len(text.replace("*", "")) > 16:
            self._report(node, f"no AE title can match {node.shown}: they have 16 characters")
            return ()
        return (_text_pattern(text),)

    def _remote_name(self, node: ScalarNode) -> tuple[Pattern, ...]:
        text = node.text.strip()
        if not is_glob(text):
            return (Exact(text),) if self._remote(node, text) else ()
        if self.known is not None and not any(map(glob_matcher(text), self.known.remotes)):
            self._report(node, f"no remote's name matches {node.shown}")
            return ()
        return (Glob(text),)

    def _source(self, node: ScalarNode) -> tuple[Pattern, ...]:
        text = node.text.strip()
        network = _network(text)
        if network is not None:
            return (Network(network),)
        wider = _network(text, strict=False)
        fix = "write an address such as 10.1.2.3, or a network such as 10.1.0.0/16"
        if wider is not None:
            fix = f"did you mean {str(wider)!r}?"
        self._report(node, f"source {node.shown} is not an address or network", fix)
        return ()

    def _uid(self, node: ScalarNode, sort: UIDKind, key: str) -> tuple[Pattern, ...]:
        text = node.text.strip()
        if is_glob(text) and is_uid_glob(text):
            return (Glob(text),)
        uids = resolve(sort, text)
        if not uids:
            what = "matches no" if is_glob(text) else "is not a UID or the name of a"
            fix = "" if is_glob(text) else did_you_mean(text, names(sort))
            if not is_uid(text) and is_uid_glob(text):
                fix = "a UID has numbers between dots, 64 characters at most"
            self._report(node, f"{key} {node.shown} {what} {_SORT_WORDS[sort]}", fix)
        return tuple(map(Exact, uids))


_SORT_WORDS: Mapping[UIDKind, str] = {
    "SOP Class": "SOP class",
    "Transfer Syntax": "transfer syntax",
}
_FACT_PARSERS: Mapping[str, Callable[[Parser, ScalarNode], tuple[Pattern, ...]]] = {
    "calling_ae": Parser._ae_title,
    "called_ae": Parser._ae_title,
    "remote": Parser._remote_name,
    "source": Parser._source,
    "sop_class": lambda parser, node: parser._uid(node, "SOP Class", "sop_class"),
    "transfer_syntax": lambda parser, node: parser._uid(node, "Transfer Syntax", "transfer_syntax"),
}


def _network(
    text: str, strict: bool = True
) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=strict)
    except ValueError:
        return None


def _called(name: str) -> str:
    return name if name.startswith("rule ") else f"rule {name!r}"


def _key_fix(key: str, known: Collection[str]) -> str:
    return did_you_mean(key, known) or f"known are {', '.join(known)}"


def _text_pattern(text: str) -> Pattern:
    return Glob(text) if is_glob(text) else Exact(text)
