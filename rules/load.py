"""From text or nodes to a rule set, or to everything that is wrong with it."""

from rules.include import Prepare, Read
from rules.known import Known
from rules.nearest import rationed
from rules.parse import Parser
from rules.review import warnings
from rules.rule import Rule
from rules.ruleset import RuleSet
from rules.source import Node, Problems, parse

__all__ = ["load", "warnings"]


def load(
    source: Node | str | bytes | None,
    *,
    file: str = "rules",
    known: Known | None = None,
    zone: str = "UTC",
    read: Read | None = None,
    prepare: Prepare | None = None,
) -> RuleSet:
    """The rules of a list in YAML, or of its node in a larger file; None means no rules.

    ``known`` tells what rules may name; without it names are not checked.  ``zone`` is the time
    zone in which windows and dates are meant.  ``read`` finds included files, ``prepare`` is
    applied to each of them before it is understood.  Raises Problems with all mistakes of all
    files at once.
    """
    parser = Parser(known, zone, read, prepare)
    rules: tuple[Rule, ...] = ()
    with rationed():
        parser.named_conditions()
        if source is not None:
            rules = parser.rules(parse(source, file) if isinstance(source, str | bytes) else source)
    if parser.problems:
        raise Problems(parser.problems)
    return RuleSet(rules, zone=zone, lists=known.lists if known is not None else None)
