"""The rules once more, slowly and in words: which clause held or did not, why, and what followed.

Owns the explanation.  Decides by itself, without what `rules.compile` and `rules.tables` make of
the rules; both go back to `rules.values` for what a value means, and nothing else.  A test holds
the two together.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import tzinfo
from typing import Literal, TypeAlias

from rules.balance import drawn
from rules.decision import Decision, Facts, Route
from rules.judge import Finding, Judge
from rules.rule import Rule, Target
from rules.ruleset import NO_ROUTE, NO_RULE, RuleSet
from rules.window import zone_of
from rules.words import either, moment_words, send_words, span_words, target_words

Verdict: TypeAlias = Literal[
    "holds", "does not hold", "disabled", "not valid yet", "expired", "not reached"
]


@dataclass(frozen=True, slots=True)
class Clause:
    """One comparison, or the head of a group whose members follow one ``depth`` further in."""

    text: str
    held: bool
    why: str
    depth: int


@dataclass(frozen=True, slots=True)
class RuleTrace:
    """What became of one rule.  ``effect`` says what it did, or why it was passed over."""

    rule: Rule
    verdict: Verdict
    clauses: tuple[Clause, ...]
    effect: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """The decision, and a trace of each rule, in order."""

    decision: Decision
    rules: tuple[RuleTrace, ...]


def explain(rules: RuleSet, facts: Facts) -> Explanation:
    """Why `rules` decide as they do."""
    course = _Course(facts, zone_of(rules.zone), rules.lists)
    if reason := rules.unfit(facts):
        passed = tuple(RuleTrace(rule, "not reached", (), "") for rule in rules.rules)
        return Explanation(Decision("hold", (), reason, rules.version), passed)
    traces = tuple(course.step(rule) for rule in rules.rules)
    disposition, reason = course.outcome()
    decision = Decision(
        disposition,
        tuple(course.routes),
        reason,
        rules.version,
        tuple(course.labels),
        course.keep_for if disposition != "discard" else 0.0,
    )
    return Explanation(decision, traces)


class _Course:
    """A decision on its way through the rules."""

    def __init__(self, facts: Facts, zone: tzinfo, lists: Mapping[str, frozenset[str]]) -> None:
        self.facts = facts
        self.zone = zone
        self.lists = lists
        self.routes: list[Route] = []
        self.labels: list[str] = []
        self.keep_for = 0.0
        self.matched = False
        self.ended_by: Rule | None = None
        self.over = False

    def outcome(self) -> tuple[Literal["route", "hold", "discard"], str]:
        """The disposition and its reason."""
        ender = self.ended_by
        if ender is not None:
            given = ender.hold if ender.discard is None else ender.discard
            reason = f"rule {ender.name!r}: {given}" if given else f"rule {ender.name!r}"
            return ("hold" if ender.discard is None else "discard"), reason
        if self.routes:
            return "route", ""
        return "hold", NO_ROUTE if self.matched else NO_RULE

    def step(self, rule: Rule) -> RuleTrace:
        """One rule, in its turn."""
        if self.over:
            return RuleTrace(rule, "not reached", (), "")
        if rule.disabled is not None:
            return RuleTrace(rule, "disabled", (), rule.disabled)
        if (passed := self._untimely(rule)) is not None:
            return passed
        judge = Judge(self.facts, self.zone, self.lists, tuple(self.labels))
        findings = [judge.find(condition) for condition in rule.condition.conditions]
        clauses = tuple(clause for finding in findings for clause in _clauses(finding, 0))
        if not all(finding.held for finding in findings):
            return RuleTrace(rule, "does not hold", clauses, "")
        return RuleTrace(rule, "holds", clauses, "; ".join(self._apply(rule)))

    def _untimely(self, rule: Rule) -> RuleTrace | None:
        moment = self.facts.received_at
        for when, verdict in ((rule.valid_from, "not valid yet"), (rule.until, "expired")):
            if when is None:
                continue
            aware = when if when.tzinfo is not None else when.replace(tzinfo=self.zone)
            at = moment_words(aware.timestamp(), self.zone)
            if verdict == "not valid yet" and moment < aware.timestamp():
                return RuleTrace(rule, "not valid yet", (), f"valid from {at}")
            if verdict == "expired" and moment >= aware.timestamp():
                return RuleTrace(rule, "expired", (), f"valid until {at}")
        return None

    def _apply(self, rule: Rule) -> list[str]:
        said = []
        self.matched = True
        new = [label for label in dict.fromkeys(rule.tags) if label not in self.labels]
        self.labels += new
        if new:
            said.append(f"labels it {', '.join(new)}")
        if rule.keep_for > self.keep_for:
            self.keep_for = rule.keep_for
            said.append(f"keeps it for {span_words(rule.keep_for)} once it is settled")
        if rule.discard is not None or rule.hold is not None:
            verb = "holds" if rule.discard is None else "discards"
            if not self.routes:
                self.ended_by, self.over = rule, True
                given = rule.hold if rule.discard is None else rule.discard
                return [*said, f"{verb} it: {given}" if given else f"{verb} it"]
            names = either(route.destination for route in self.routes)
            said.append(f"no longer {verb} it, since it goes to {names}")
        said += [self._send(rule, target) for target in rule.targets]
        if rule.final:
            self.over = True
            said.append("ends the decision")
        return said

    def _send(self, rule: Rule, target: Target) -> str:
        members = target.members
        if target.mode == "balance":
            members = drawn(target, self.facts.attributes)
        first = next((r for r in self.routes if r.destination == members[0]), None)
        if first is not None:
            whose = "this rule" if first.rule == rule.name else f"rule {first.rule!r}"
            return f"{members[0]} was already routed by {whose}, whose options hold"
        self.routes.append(
            Route(
                destination=members[0],
                rule=rule.name,
                priority=rule.send.priority,
                mode=target.mode,
                members=() if target.mode == "one" else members,
                send=rule.send,
                keep=target.keep,
                on_refusal=target.on_refusal,
            )
        )
        return f"routes to {target_words(target, members[0])}{send_words(rule.send)}"


def _clauses(finding: Finding, depth: int) -> list[Clause]:
    inner = [clause for part in finding.parts for clause in _clauses(part, depth + 1)]
    return [Clause(finding.text, finding.held, finding.why, depth), *inner]
