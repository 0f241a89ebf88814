"""What a rule does: where it sends, what it drops, holds and labels, and when it counts.

Owns the grammar of `to`, `discard`, `hold`, `tag`, `disabled` and `valid`.  Must not know
conditions, nor the options of `send`.
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias, cast, get_args

from rules.bounds import MAX_REASON, unfit
from rules.known import Known
from rules.nearest import did_you_mean, nearest
from rules.rule import By, Keep, Mode, OnRefusal, Target
from rules.source import MappingNode, Node, ScalarNode, SequenceNode, kind
from rules.window import zone_of

Report: TypeAlias = Callable[[Node, str, str], None]
"""Takes what is wrong: where, what, and what would mend it ("" for nothing to say)."""

GROUPS = ("failover", "first_available", "balance")
"""The modes that have several members, by the key that each is written with."""
TO_KEYS = (*GROUPS, "by", "weights", "keep", "on_refusal")
VALID_KEYS = ("from", "until")
MAX_WEIGHT = 1000
TAG = re.compile(r"[A-Za-z0-9_.-]{1,32}")
"""What a label may be: it goes into metrics, records and the queue's tables."""
_SLIPS = {
    **dict.fromkeys(("if", "match", "conditions", "condition", "filter"), "when"),
    **dict.fromkeys(("then", "destination", "destinations", "send_to", "route", "forward"), "to"),
    **dict.fromkeys(("stop", "last", "break"), "final"),
    **dict.fromkeys(("drop", "delete", "reject", "ignore"), "discard"),
    **dict.fromkeys(("label", "labels", "tags"), "tag"),
}
"""What people call the keys of a rule elsewhere."""
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([T ][0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{2}:[0-9]{2})?)?"
)
_WHOLE = re.compile(r"[0-9]{1,9}")


def key_fix(key: str, known: Collection[str]) -> str:
    """What an unknown key probably meant, or all that there are."""
    if (word := meant(key, known)) is not None:
        return f"did you mean {word!r}?"
    if key in GROUPS and "to" in known:
        return f"put it under 'to': to: {{{key}: [archive-a, archive-b]}}"
    return did_you_mean(key, known) or f"known are {', '.join(known)}"


def meant(key: str, known: Collection[str]) -> str | None:
    """The key that other languages of rules call so."""
    word = _SLIPS.get(key.lower().replace("-", "_"))
    return word if word in known else None


def called(rule: str) -> str:
    """A rule as messages name it: by its name, or by its place when it has none."""
    return rule if re.fullmatch(r"rule [0-9]+", rule) else f"rule {rule!r}"


def text_of(node: Node) -> str | None:
    """The text of a scalar that has one."""
    if not isinstance(node, ScalarNode) or node.is_null or not node.text.strip():
        return None
    return node.text.strip()


def check_keys(
    node: MappingNode,
    known: Collection[str],
    where: str,
    report: Report,
    reserved: Collection[str] = (),
) -> None:
    """Reports each key that is not one of ``known``; ``where`` ends the sentence.

    ``reserved`` are keys that the language will have.
    """
    for key, (key_node, _) in node.entries.items():
        if key in reserved:
            message = f"{key!r} in {where} is not available in this version"
            report(key_node, message, "leave it out")
        elif key not in known:
            report(key_node, f"unknown key {key_node.shown} in {where}", key_fix(key, known))


def reason(node: Node, key: str, report: Report) -> str:
    """`discard` and `hold`: ``true`` or a reason; "" for a bare ``true``."""
    text = text_of(node)
    if text is None or not isinstance(node, ScalarNode):
        report(node, f"{key} must be true or a reason, not {kind(node)}", "")
        return ""
    if node.boolean is False:
        report(node, f"'{key}: {node.written}' does nothing", "leave it out")
    elif node.boolean is None:
        _check_reason(node, text, key, "write a reason in words, or true", report)
    return "" if node.boolean is not None else text


_NO_REASON = frozenset(
    ("0", "1", "n", "y", "t", "f", "never", "none", "null", "nil", "nothing", "not", "na", "n/a")
)
"""What people write who mean yes or no."""


def _check_reason(node: ScalarNode, text: str, key: str, fix: str, report: Report) -> None:
    if text.lower() in _NO_REASON or not any(map(str.isalnum, text)):
        report(node, f"{node.shown} is no reason for {key!r}", f"{fix}; leave it out for no")
    elif (what := unfit(text, MAX_REASON)) is not None:
        report(node, f"the reason of {key!r} {what[0]}", what[1])


def disabled(node: Node, report: Report) -> str:
    """`disabled`: the reason, which a later reader will want."""
    text = text_of(node)
    if text is None or not isinstance(node, ScalarNode):
        report(node, f"disabled must be a reason, not {kind(node)}", _WHY)
        return ""
    if node.boolean is False:
        report(node, f"'disabled: {node.written}' does nothing", "leave it out")
    elif node.boolean:
        report(node, f"'disabled: {node.written}' gives no reason", _WHY)
    else:
        _check_reason(node, text, "disabled", "write a reason in words", report)
    return text


_WHY = "say why, as in 'disabled: waiting for the VPN'"


def tags(node: Node, report: Report) -> tuple[str, ...]:
    """`tag`: a label or several."""
    items = node.items if isinstance(node, SequenceNode) else (node,)
    if not items:
        report(node, "'tag' has an empty list", "leave it out")
    found: list[str] = []
    for item in items:
        text = text_of(item)
        if text is None:
            report(item, f"'tag' takes a label or a list of labels, not {kind(item)}", "")
        elif not TAG.fullmatch(text):
            fix = "a label has 1 to 32 letters, digits, '_', '.' and '-'"
            report(item, f"{kind(item)} cannot be a label", fix)
        elif text in found:
            report(item, f"the label {text!r} stands here twice", "leave one out")
        else:
            found.append(text)
    return tuple(found)


def valid(node: Node, zone: str, report: Report) -> tuple[datetime | None, datetime | None]:
    """`valid`: from when on, and until when."""
    example = "valid: {from: 2026-11-01, until: 2027-01-01}"
    if not isinstance(node, MappingNode) or not node.entries:
        got = "an empty mapping" if isinstance(node, MappingNode) else kind(node)
        report(node, f"'valid' needs 'from' or 'until', not {got}", example)
        return None, None
    check_keys(node, VALID_KEYS, "valid", report)
    start, end = (
        _moment(value, key, zone, report) if (value := node.get(key)) is not None else None
        for key in VALID_KEYS
    )
    if start is not None and end is not None and start >= end:
        report(
            node.entries["until"][1],
            "'until' is not after 'from', so the rule would never be valid",
            "until is the first day on which it no longer counts",
        )
    return start, end


def _moment(node: Node, key: str, zone: str, report: Report) -> datetime | None:
    text = text_of(node)
    try:
        if text is None or not _MOMENT.fullmatch(text):
            raise ValueError(text)
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=zone_of(zone))
        moment.timestamp()
    except (ValueError, OverflowError):
        fix = "write it as 2026-11-01 or 2026-11-01T18:00"
        report(node, f"{key!r} must be a date or a date and time, not {kind(node)}", fix)
        return None
    return moment


@dataclass(slots=True)
class Targets:
    """`to`: reads where a rule sends.  ``known`` None leaves the names of remotes unchecked."""

    known: Known | None
    report: Report

    def targets(self, node: Node, rule: str) -> tuple[Target, ...]:
        """What could be read, in order."""
        items = node.items if isinstance(node, SequenceNode) else (node,)
        if not items:
            self.report(node, f"'to' of {called(rule)} is empty", "name at least one remote")
        found: list[Target] = []
        seen: set[str] = set()
        if items and (mode := self._flat(items)) is not None:
            rest = ", ".join(text_of(item) or "..." for item in items[1:])
            message = f"{mode!r} stands among the remotes of 'to'"
            self.report(items[0], message, f"write {{{mode}: [{rest}]}}")
            return ()
        for item in items:
            if isinstance(item, MappingNode):
                target = self._group(item, rule, seen)
            else:
                name = self._member(item, rule, "to", seen)
                target = Target("one", (name,)) if name is not None else None
            if target is not None:
                found.append(target)
        return tuple(found)

    def _flat(self, items: Sequence[Node]) -> str | None:
        """The mode that a list begins with as if it were a remote."""
        text = text_of(items[0])
        known = self.known.remotes if self.known is not None else ()
        return text if text in GROUPS and text not in known and len(items) > 1 else None

    def _group(self, node: MappingNode, rule: str, seen: set[str]) -> Target | None:
        modes = [key for key in node.entries if key in GROUPS]
        check_keys(node, TO_KEYS, f"'to' of {called(rule)}", self.report)
        if not modes:
            if any(nearest(key, TO_KEYS) in GROUPS for key in node.entries):
                return None  # misspelt, and told
            example = "to: {failover: [archive-a, archive-b]}"
            self.report(node, f"'to' has a mapping without {', '.join(GROUPS)}", example)
            return None
        for other in modes[1:]:
            self.report(
                node.key(other),
                f"'to' has both {modes[0]!r} and {other!r}",
                "make a list of two mappings, or two rules",
            )
        mode = cast(Mode, modes[0])
        members = self._members(node.entries[mode][1], mode, rule, seen)
        if mode != "balance":
            for key in ("by", "weights"):
                if key in node.entries:
                    self.report(node.key(key), f"{key!r} goes with 'balance', not {mode!r}", "")
            by, weights = self._by(None), self._weights(None, ())
        else:
            by, weights = self._by(node.get("by")), self._weights(node.get("weights"), members)
        keep = self._word(node, "keep", "", ("study",))
        if keep and mode == "balance" and by == "instance":
            fix = "write 'by: study', or leave 'keep' out"
            self.report(node.key("keep"), "'by: instance' spreads what 'keep' holds together", fix)
        refusal = self._word(node, "on_refusal", "dead", get_args(OnRefusal))
        return Target(mode, members, by, weights, cast(Keep, keep), cast(OnRefusal, refusal))

    def _word(self, node: MappingNode, key: str, default: str, known: Sequence[str]) -> str:
        """One of a few words; the default when there is none, or another."""
        value = node.get(key)
        if value is None:
            return default
        text = text_of(value) or ""
        if text in known:
            return text
        fix = did_you_mean(text, known) if text else ""
        self.report(value, f"{key} must be {' or '.join(known)}, not {kind(value)}", fix)
        return default

    def _members(self, node: Node, mode: str, rule: str, seen: set[str]) -> tuple[str, ...]:
        if not isinstance(node, SequenceNode):
            self.report(
                node,
                f"{mode!r} needs a list of remotes, not {kind(node)}",
                f"{mode}: [archive-a, archive-b]",
            )
            return ()
        if len(node.items) < 2:
            count = "one remote" if node.items else "an empty list"
            fix = "name two or more, or the one after 'to:' itself"
            self.report(node, f"{mode!r} has {count}, which leaves no choice", fix)
        names = [self._member(item, rule, mode, seen) for item in node.items]
        return tuple(name for name in names if name is not None)

    def _member(self, node: Node, rule: str, key: str, seen: set[str]) -> str | None:
        name = text_of(node)
        if name is None or not isinstance(node, ScalarNode):
            what = "remotes by their names" if key != "to" else "a remote by its name, or a list"
            if isinstance(node, SequenceNode):
                what = "remotes by their names"
            self.report(node, f"{key!r} takes {what}, not {kind(node)}", "")
            return None
        if not destination(node, self.known, self.report):
            return None
        if name in seen:
            fix = "a destination gets each instance once: leave one out"
            self.report(node, f"{called(rule)} names {name!r} twice", fix)
            return None
        seen.add(name)
        return name

    def _by(self, node: Node | None) -> By:
        if node is None:
            return "study"
        text, known = text_of(node), get_args(By)
        if text not in known:
            fix = did_you_mean(text, known) if text else ""
            self.report(node, f"by must be study, patient or instance, not {kind(node)}", fix)
            return "study"
        return cast(By, text)

    def _weights(self, node: Node | None, members: tuple[str, ...]) -> tuple[int, ...]:
        if node is None:
            return (1,) * len(members)
        if not isinstance(node, SequenceNode):
            self.report(node, f"weights must be a list, not {kind(node)}", "weights: [2, 1]")
            return ()
        found = []
        for item in node.items:
            text = text_of(item) or ""
            value = int(text) if _WHOLE.fullmatch(text) else -1
            if not 1 <= value <= MAX_WEIGHT:
                fix = "leave out the remote that shall get nothing" if value == 0 else ""
                limits = f"a whole number from 1 to {MAX_WEIGHT}"
                self.report(item, f"a weight must be {limits}, not {kind(item)}", fix)
            found.append(value)
        if members and len(found) != len(members):
            fix = "give each its own, in the same order"
            counts = f"{len(found)} weights for {len(members)} remotes"
            self.report(node, counts.replace("1 weights", "1 weight"), fix)
        return tuple(found)


def destination(
    node: ScalarNode, known: Known | None, report: Report, so: str = "nothing can be sent to it"
) -> bool:
    """Whether a remote of that name exists and can be reached; reports when not."""
    name = node.text.strip()
    if known is None:
        return True
    if name not in known.remotes:
        fix = did_you_mean(name, known.remotes) or "add it under 'remotes'"
        if name in known.titles:
            fix = f"it is the AE title of remote {known.titles[name]!r}: write that name"
        report(node, f"no remote is called {node.shown}", fix)
        return False
    if name not in known.destinations:
        report(
            node,
            f"remote {node.shown} has no host, so {so}",
            f"give it one: '{name}: {{ae_title: ..., host: ..., port: ...}}'",
        )
        return False
    return True
