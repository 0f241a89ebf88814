"""From the nodes of ``when:`` to conditions, with every mistake found and placed.

Owns the keys of conditions and how they nest; what their values say is `rules.operators`' matter.
A mistake is never read as a condition that does not hold: whatever could not match anything is
refused, because a study lost by a typo is found weeks later.
"""

from typing import Protocol

from rules.bounds import MAX_NAME, MAX_NESTED, TOO_DEEP, Size, size_of, unfit
from rules.known import Known
from rules.nearest import did_you_mean, nearest
from rules.operators import Operand
from rules.refusal import Refusal
from rules.rule import FACTS, AllOf, AnyOf, Condition, Named, Not, Received
from rules.source import MappingNode, Node, ScalarNode, SequenceNode, kind
from rules.subjects import parse_attribute
from rules.window import parse_windows, zone_of
from rules.written import Values

WORDS = ("any", "all", "not", "is", "received")
"""Keys of conditions that are neither facts nor attributes."""
_KNOWN = ", ".join((*FACTS, *WORDS))
_SLIPS = {
    "or": "any",
    "and": "all",
    "none": "not",
    "aet": "calling_ae",
    "ae": "calling_ae",
    "ae_title": "calling_ae",
    "host": "source",
    "ip": "source",
    "address": "source",
    "time": "received",
    "label": "tag",
    "condition": "is",
}


class Report(Protocol):
    """Takes what is wrong at a node, and what would mend it."""

    def __call__(self, node: Node, message: str, fix: str = "", /) -> None:
        """Keeps one problem."""
        ...


class ConditionParser:
    """Reads conditions; each mistake is told to ``report`` as node, message and fix ("" for none).

    ``known`` None leaves the names of remotes, lists and schedules unchecked.  ``zone`` is the time
    zone of dates, and of windows without one of their own.
    """

    def __init__(self, known: Known | None, report: Report, zone: str = "UTC") -> None:
        self.known = known
        self.zone = zone
        self._report = report
        self._named: dict[str, Condition | None] = {}
        self._reading: list[str] = []
        self._depth = 0
        self._sizes: dict[str, Size] = {}

    def mapping(self, node: Node, key: str) -> AllOf:
        """A mapping of conditions, all of which must hold; ``key`` is what it stands under."""
        if not isinstance(node, MappingNode) or not node.entries:
            got = "an empty mapping" if isinstance(node, MappingNode) else kind(node)
            fix = "leave 'when' out to match everything" if key == "when" else ""
            if isinstance(node, SequenceNode):
                fix = "drop the dash or the brackets"
                if len(node.items) != 1:
                    either = f"{key}: {{any: [...]}} for one of them"
                    fix = f"drop the dashes or brackets if all must hold; {either}"
            self._report(node, f"{key!r} needs a mapping of conditions, not {got}", fix)
            return AllOf()
        if self._depth > MAX_NESTED:
            self._report(node, f"{key!r} {TOO_DEEP[0]}", TOO_DEEP[1])
            return AllOf()
        self._depth += 1
        found = [self._entry(key_node, value) for key_node, value in node.entries.values()]
        self._depth -= 1
        return AllOf(tuple(condition for condition in found if condition is not None))

    def size(self, condition: Condition) -> Size:
        """Of a condition that was read here."""
        return size_of(condition, self._sizes)

    def named(self, name: str) -> Condition | None:
        """What a name of ``conditions:`` stands for; None when there is none, or none that could
        be read.  Each is read, and complained of, once."""
        if self.known is None or name not in self.known.conditions:
            return None
        if name in self._named:
            return self._named[name]
        node = self.known.conditions[name]
        self._reading.append(name)
        try:
            condition = self.mapping(node, name)
        finally:
            self._reading.pop()
        self._sizes[name] = size = self.size(condition)
        sound = bool(condition.conditions)
        # How it is used comes on top of its own levels.
        for what in (size.too_much, unfit(name, MAX_NAME) or ("", "")):
            if what[0]:
                self._report(node, f"condition {name[:MAX_NAME]!r} {what[0]}", what[1])
                sound = False
        self._named[name] = condition if sound else None
        return self._named[name]

    def _entry(self, key: ScalarNode, value: Node) -> Condition | None:
        match key.text:
            case "not":
                return Not(self.mapping(value, "not"))
            case "any" | "all":
                return self._list(key.text, value)
            case "is":
                return self._is(value)
            case "received":
                return self._received(value)
        for fact in FACTS:
            if key.text == fact:
                return self._operand(Values(fact, self.known, zone_of(self.zone)), value)
        try:
            attribute = parse_attribute(key.text.strip())
        except Refusal as refusal:
            self._refuse_key(key, value, refusal)
            return None
        return self._operand(Values(attribute, self.known, zone_of(self.zone)), value)

    def _operand(self, values: Values, node: Node) -> Condition | None:
        return Operand(values, self._report).parse(node)

    def _refuse_key(self, key: ScalarNode, value: Node, refusal: Refusal) -> None:
        message, fix = refusal.message, refusal.fix
        if message.startswith("unknown attribute") and "." not in key.text:
            message = f"unknown condition {key.shown}"
            word = _SLIPS.get(key.text.lower()) or nearest(key.text, (*FACTS, *WORDS))
            if word:
                fix = f"did you mean {word!r}?"
            elif isinstance(value, ScalarNode) and value.is_null and not value.written:
                fix = "several values stand in brackets: [..., ...]"
            elif not fix:
                fix = f"it is an attribute's keyword or tag, or one of {_KNOWN}"
        if not key.quoted and key.text.startswith("(") != key.text.endswith(")"):
            fix = 'inside braces a tag stands in quotes: "(0008,0060)"'
        self._report(key, message, fix)

    def _list(self, key: str, node: Node) -> Condition | None:
        if not isinstance(node, SequenceNode) or not node.items:
            got = "an empty list" if isinstance(node, SequenceNode) else kind(node)
            self._report(
                node, f"{key!r} needs a list of conditions, not {got}", f"{key}: [{{...}}, {{...}}]"
            )
            return None
        conditions = tuple(self.mapping(item, key) for item in node.items)
        return AnyOf(conditions) if key == "any" else AllOf(conditions)

    def _is(self, node: Node) -> Condition | None:
        items = node.items if isinstance(node, SequenceNode) else (node,)
        if not items:
            self._report(node, "'is' has an empty list, which nothing can be", "name a condition")
        found: list[Condition] = []
        for item in items:
            if not isinstance(item, ScalarNode) or item.is_null or not item.text.strip():
                self._report(
                    item,
                    f"'is' takes the name of a condition or a list of names, not {kind(item)}",
                    "write is: NAME, and what NAME stands for under 'conditions'",
                )
            elif (condition := self._resolve(item)) is not None:
                found.append(Named(item.text.strip(), condition))
        if not found:
            return None
        return found[0] if len(found) == 1 else AnyOf(tuple(found))

    def _resolve(self, node: ScalarNode) -> Condition | None:
        name = node.text.strip()
        known = self.known.conditions if self.known is not None else {}
        if name in self._reading:
            chain = [*self._reading[self._reading.index(name) :], name]
            self._report(
                node,
                f"condition {name!r} is made of itself: {' -> '.join(chain)}",
                "take one of them out",
            )
            return None
        if name not in known:
            fix = did_you_mean(name, known) or "add it under 'conditions'"
            self._report(node, f"no condition is called {node.shown}", fix)
            return None
        return self.named(name)

    def _received(self, node: Node) -> Condition | None:
        if isinstance(node, MappingNode):
            return self._scheduled(node)
        texts: list[tuple[ScalarNode, str]] = []
        for item in node.items if isinstance(node, SequenceNode) else (node,):
            if not isinstance(item, ScalarNode) or item.is_null or not item.text.strip():
                self._report(item, f"'received' takes windows of time, not {kind(item)}", _WINDOW)
            else:
                texts.append((item, item.text.strip()))
        if not texts:
            if isinstance(node, SequenceNode) and not node.items:
                self._report(node, "'received' has an empty list, in which no time lies", _WINDOW)
            return None
        sound = [text for item, text in texts if self._sound(item, text)]
        if len(sound) < len(texts):
            return None
        return Received(parse_windows(sound, self.zone))

    def _sound(self, node: ScalarNode, text: str) -> bool:
        try:
            parse_windows([text], self.zone)
        except ValueError as error:
            message, fix = error.args if len(error.args) == 2 else (str(error), "")
            known = self.known.schedules if self.known is not None else {}
            if (name := text if text in known else nearest(text, known)) is not None:
                fix = f"did you mean {{in: {name}}}?"
            self._report(node, message, fix)
            return False
        return True

    def _scheduled(self, node: MappingNode) -> Condition | None:
        name = node.get("in")
        if len(node.entries) != 1 or not isinstance(name, ScalarNode) or not name.text.strip():
            self._report(
                node,
                "'received' takes windows of time, or 'in' and the name of a schedule",
                f"{_WINDOW}, or {{in: SCHEDULE}}",
            )
            return None
        known = self.known.schedules if self.known is not None else {}
        windows = known.get(name.text.strip())
        if windows is None:
            fix = did_you_mean(name.text.strip(), known) or "add it under 'schedules'"
            self._report(name, f"no schedule is called {name.shown}", fix)
            return None
        return Received(windows)


_WINDOW = 'write "18:00-07:00" or "mon-fri 18:00-07:00"'
