"""``${NAME}`` in the configuration's values.

Owns the substitution.  It happens after the YAML was read, so that no secret can break the
syntax, and leaves what was written beside the value, so that no message shows a secret.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from rules.source import MappingNode, Node, Problem, ScalarNode, SequenceNode

_REFERENCE = re.compile(r"\$(\$\{|\{(?P<name>[^}]*)(?P<close>\}?))")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def substitute(node: Node, env: Mapping[str, str]) -> tuple[Node, list[Problem]]:
    """The tree with environment variables put in, and those that are missing or malformed.

    ``$${`` stands for the characters ``${``.  Keys are left as they are.
    """
    problems: list[Problem] = []
    return _node(node, env, problems), problems


def _node(node: Node, env: Mapping[str, str], problems: list[Problem]) -> Node:
    match node:
        case MappingNode():
            entries = {k: (key, _node(v, env, problems)) for k, (key, v) in node.entries.items()}
            return replace(node, entries=entries)
        case SequenceNode():
            return replace(node, items=tuple(_node(item, env, problems) for item in node.items))
        case ScalarNode():
            return _scalar(node, env, problems)


def _scalar(node: ScalarNode, env: Mapping[str, str], problems: list[Problem]) -> ScalarNode:
    if "${" not in node.text:
        return node

    def value_of(match: re.Match[str]) -> str:
        name = match["name"]
        if name is None:
            return "${"
        if not match["close"]:
            problems.append(node.problem("'${' without '}'", "write '$${' for the characters"))
        elif not _NAME.fullmatch(name):
            problems.append(
                node.problem(
                    f"{match[0]!r} does not name an environment variable",
                    "write '$${' for the characters",
                )
            )
        elif name not in env:
            problems.append(node.problem(f"the environment variable {name!r} is not set"))
        else:
            return env[name]
        return match[0]

    # Quoted: a variable that is set to nothing is an empty text, not an absent value.
    return replace(node, text=_REFERENCE.sub(value_of, node.text), quoted=True)
