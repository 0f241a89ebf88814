"""From text or nodes to a rule set, or to everything that is wrong with it."""

from collections.abc import Iterator

from rules.parse import Known, Parser
from rules.rule import Rule
from rules.ruleset import RuleSet
from rules.source import Node, Problem, Problems, parse


def load(
    source: Node | str | bytes | None, *, file: str = "rules", known: Known | None = None
) -> RuleSet:
    """The rules of a list in YAML, or of its node in a larger file; None means no rules.

    ``known`` tells the remotes that rules may name; without it their names are not checked.
    Raises Problems with all mistakes at once.
    """
    if source is None:
        return RuleSet(())
    node = parse(source, file) if isinstance(source, str | bytes) else source
    parser = Parser(known)
    rules = parser.rules(node)
    if parser.problems:
        raise Problems(parser.problems)
    return RuleSet(rules)


def warnings(rules: RuleSet, file: str) -> Iterator[Problem]:
    """What is allowed and yet hardly meant: rules that can never do anything."""
    stop: Rule | None = None
    routed: Rule | None = None
    may_route = False
    for rule in rules.rules:
        if stop is not None:
            yield Problem(
                file,
                rule.line,
                1,
                f"rule {rule.name!r} is never reached",
                f"rule {stop.name!r} ends every decision in line {stop.line}",
            )
            continue
        if rule.discard is not None and routed is not None:
            yield Problem(
                file,
                rule.line,
                1,
                f"rule {rule.name!r} never discards anything",
                f"rule {routed.name!r} in line {routed.line} routes everything before it",
            )
        may_route = may_route or bool(rule.to)
        if rule.unconditional:
            routed = routed or (rule if rule.to else None)
            if rule.final or (rule.discard is not None and not may_route):
                stop = rule
