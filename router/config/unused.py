"""What is defined and used by nothing.

Owns these warnings: a name that nobody uses is mostly one that somebody meant to use.
"""

from collections.abc import Iterator

from router.config.checks import at
from router.config.model import Config
from router.net.admission import parse_network
from router.net.settings import LocalAE, Remote
from rules import Known, Problem, RuleSet
from rules.pattern import Exact, Glob, Listed, glob_matcher, is_glob
from rules.rule import AllOf, AnyOf, Condition, Match, Named, Not, Received, leaves_of
from rules.source import MappingNode, Node


def warnings(config: Config, rules: RuleSet, root: Node, known: Known) -> Iterator[Problem]:
    """One for each remote, condition, list and schedule that has no part in anything."""
    named: set[str] = set()
    windows = []
    for rule in rules.rules:
        named.update(_names(rule.condition))
        windows += [
            leaf.windows for leaf in leaves_of(rule.condition) if isinstance(leaf, Received)
        ]
    schedules = {rule.send.schedule for rule in rules.rules}
    schedules |= {name for name, each in known.schedules.items() if each in windows}
    schedules |= {remote.schedule or "" for remote in config.remotes.values()}
    for bandwidth in (
        config.network.bandwidth_out,
        *(r.bandwidth for r in config.remotes.values()),
    ):
        schedules.update(bandwidth)
    yield from _remotes(config, rules, root)
    for section, defined, used in (
        ("conditions", known.conditions, named),
        ("lists", config.lists, _lists(rules)),
        ("schedules", config.schedules, schedules),
    ):
        for name in defined:
            if name not in used:
                word = section.removesuffix("s")
                yield _key(root, section, name).problem(f"no rule uses the {word} {name!r}")


def _remotes(config: Config, rules: RuleSet, root: Node) -> Iterator[Problem]:
    asked = {rule.send.expect for rule in rules.rules}
    for name, remote in config.remotes.items():
        if remote.host is not None:
            if name not in rules.destinations and name not in asked:
                yield at(root, "remotes", name).problem(f"no rule sends to remote {name!r}")
        elif not _named_in_rules(name, rules) and not any(
            _may_call(name, remote, ae) for ae in config.local
        ):
            yield at(root, "remotes", name).problem(
                f"remote {name!r} has no host, and no local AE accepts its calls",
                "name it under 'accept', or give it a host",
            )


def _named_in_rules(name: str, rules: RuleSet) -> bool:
    for rule in rules.rules:
        for leaf in leaves_of(rule.condition):
            if isinstance(leaf, Match) and leaf.subject == "remote":
                for pattern in leaf.patterns:
                    if isinstance(pattern, Exact) and pattern.text == name:
                        return True
                    if isinstance(pattern, Glob) and glob_matcher(pattern.text)(name):
                        return True
    return False


def _may_call(name: str, remote: Remote, ae: LocalAE) -> bool:
    """Whether a call of it may be let in, as far as can be told: a network may hold anyone."""
    if ae.accept == "any" or name in ae.accept:
        return True
    return any(
        glob_matcher(entry)(remote.ae_title) if is_glob(entry) else parse_network(entry) is not None
        for entry in ae.accept
    )


def _names(condition: Condition) -> Iterator[str]:
    match condition:
        case Named(name, inner):
            yield name
            yield from _names(inner)
        case AllOf(conditions) | AnyOf(conditions):
            for inner in conditions:
                yield from _names(inner)
        case Not(inner):
            yield from _names(inner)


def _lists(rules: RuleSet) -> set[str]:
    return {
        pattern.name
        for rule in rules.rules
        for leaf in leaves_of(rule.condition)
        for pattern in (leaf.patterns if isinstance(leaf, Match) else ())
        if isinstance(pattern, Listed)
    }


def _key(root: Node, section: str, name: str) -> Node:
    node = root.get(section) if isinstance(root, MappingNode) else None
    return node.key(name) if isinstance(node, MappingNode) else root
