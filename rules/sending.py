"""How a rule sends: when, at which priority, in which windows.

Owns the grammar of `send`.  An option that could not mean anything where it stands is a mistake.
"""

import re
from dataclasses import dataclass
from typing import cast, get_args

from rules.actions import Report, check_keys, destination, text_of
from rules.known import Known
from rules.nearest import did_you_mean
from rules.rule import After, Send
from rules.source import MappingNode, Node, ScalarNode, kind

SEND_KEYS = ("after", "quiet", "expect", "schedule", "priority")
RESERVED = ("as", "limit")
"""Keys that the language will have; refused until then, never passed over."""
EXPECT_KEYS = ("archive", "wait")
PRIORITIES = {"low": -10, "normal": 0, "high": 10, "urgent": 20}
MAX_PRIORITY = 100
QUIET = (1.0, 86400.0)
"""The least and the most that `quiet` may be, in seconds."""
WAIT = (1.0, 7 * 86400.0)
KEEP = (1.0, 3650 * 86400.0)

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)")
_NUMBER = re.compile(r"[+-]?[0-9]{1,9}")


@dataclass(slots=True)
class Sending:
    """Reads `send`.  ``known`` None leaves the names of remotes and schedules unchecked."""

    known: Known | None
    report: Report

    def send(self, node: Node) -> Send:
        """The options, with those that could not be read left to their defaults."""
        if not isinstance(node, MappingNode) or not node.entries:
            got = "an empty mapping" if isinstance(node, MappingNode) else kind(node)
            fix = "send: {after: study-complete, priority: high}"
            self.report(node, f"'send' needs a mapping of options, not {got}", fix)
            return Send()
        check_keys(node, SEND_KEYS, "send", self.report, RESERVED)
        given = {key: value for key, (_, value) in node.entries.items()}
        after = self._after(given.get("after"))
        quiet, default = given.get("quiet"), Send()
        if quiet is not None and after == "at-once":
            fix = "add 'after: study-complete' or 'after: series-complete'"
            message = "'quiet' does nothing where instances are sent at once"
            self.report(node.key("quiet"), message, fix)
        if "expect" in given and after not in (None, "study-complete"):
            fix = "it counts the instances of a study: add 'after: study-complete'"
            self.report(node.key("expect"), f"'expect' does nothing with 'after: {after}'", fix)
        expect, wait = self._expect(given.get("expect"))
        return Send(
            after=after or "study-complete",
            quiet=self._duration(quiet, "quiet", QUIET, default.quiet),
            expect=expect,
            wait=wait,
            schedule=self._schedule(given.get("schedule")),
            priority=self._priority(given.get("priority")),
        )

    def keep(self, node: Node) -> float:
        """`keep` of a rule, in seconds; 0.0 when it cannot be read."""
        if text_of(node) in ("study", "series"):
            fix = "write it as 30d; 'keep: study' stands beside 'failover' or 'balance', under 'to'"
            self.report(node, f"keep must be a duration, not {kind(node)}", fix)
            return 0.0
        return self._duration(node, "keep", KEEP, 0.0)

    def _after(self, node: Node | None) -> After | None:
        """None for a value that could not be read, so that nothing is said of its company."""
        if node is None:
            return "at-once"
        text, known = text_of(node), get_args(After)
        if text in known:
            return cast(After, text)
        fix = did_you_mean(text, known) if text else ""
        self.report(
            node, f"after must be {', '.join(known[:-1])} or {known[-1]}, not {kind(node)}", fix
        )
        return None

    def _expect(self, node: Node | None) -> tuple[str, float]:
        default = Send()
        if node is None:
            return default.expect, default.wait
        wait = default.wait
        archive: Node | None = node
        if isinstance(node, MappingNode):
            check_keys(node, EXPECT_KEYS, "expect", self.report)
            archive = node.get("archive")
            wait = self._duration(node.get("wait"), "wait", WAIT, default.wait)
            if archive is None:
                fix = "expect: {archive: pacs, wait: 30m}"
                self.report(node, "'expect' does not say which archive to ask", fix)
                return "", wait
        name = text_of(archive) if archive is not None else None
        if name is None or not isinstance(archive, ScalarNode):
            where = archive or node
            self.report(where, f"'expect' takes the name of a remote, not {kind(where)}", "")
            return "", wait
        found = destination(archive, self.known, self.report, "it cannot be asked")
        return (name if found else ""), wait

    def _schedule(self, node: Node | None) -> str:
        if node is None:
            return ""
        name = text_of(node)
        if name is None or not isinstance(node, ScalarNode):
            self.report(node, f"schedule must be the name of a schedule, not {kind(node)}", "")
            return ""
        if self.known is not None and name not in self.known.schedules:
            fix = did_you_mean(name, self.known.schedules) or "add it under 'schedules'"
            self.report(node, f"no schedule is called {node.shown}", fix)
            return ""
        return name

    def _priority(self, node: Node | None) -> int:
        if node is None:
            return 0
        text = text_of(node) or ""
        if text in PRIORITIES:
            return PRIORITIES[text]
        if _NUMBER.fullmatch(text) and abs(int(text)) <= MAX_PRIORITY:
            return int(text)
        names = f"{', '.join(list(PRIORITIES)[:-1])}, {list(PRIORITIES)[-1]}"
        limits = f"a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}"
        message = f"priority must be {names} or {limits}, not {kind(node)}"
        self.report(node, message, did_you_mean(text, PRIORITIES) if text else "")
        return 0

    def _duration(
        self, node: Node | None, key: str, bounds: tuple[float, float], default: float
    ) -> float:
        if node is None:
            return default
        match = _DURATION.fullmatch(text_of(node) or "")
        factor = _UNITS.get(match[2]) if match else None
        if match is None or factor is None:
            fix = "write it as 30s, 5m or 2h"
            self.report(node, f"{key} must be a duration, not {kind(node)}", fix)
            return default
        value = float(match[1]) * factor
        if not bounds[0] <= value <= bounds[1]:
            least, most = f"{bounds[0]:g}s", f"{bounds[1] / 86400:g}d"
            self.report(node, f"{key} must be from {least} to {most}, not {kind(node)}", "")
            return default
        return value
