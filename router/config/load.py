"""From the file to a configuration that may take effect, or to everything that is wrong.

Owns the order of the steps: read, substitute, validate, check across sections.  A configuration
with one problem is no configuration; there is no partial result.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from router.config import checks
from router.config.environment import substitute
from router.config.explain import explain
from router.config.model import Config
from rules import Known, Problem, Problems, RuleSet
from rules import load as load_rules
from rules.source import MappingNode, Node, ScalarNode, kind, parse, plain


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and what it was read from.

    ``digest`` is the SHA-256 (hexadecimal) of the file's bytes.  ``warnings`` are for the log;
    they keep nothing from taking effect.  ``root`` gives later problems their place.
    """

    config: Config
    rules: RuleSet
    file: str
    digest: str
    warnings: tuple[Problem, ...]
    root: Node


def load(path: str | os.PathLike[str], env: Mapping[str, str] | None = None) -> Loaded:
    """The configuration in the file at ``path``; ``env`` is the process's when left out.

    Reads a file and may take some hundred milliseconds for thousands of rules: not for the event
    loop.  Raises Problems with everything that is wrong.
    """
    file = os.fspath(path)
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        raise Problems([Problem(file, 0, 0, f"cannot be read: {error.strerror}")]) from None
    return loads(data, file, os.environ if env is None else env)


def loads(text: bytes | str, file: str, env: Mapping[str, str]) -> Loaded:
    """The configuration in ``text``; ``file`` is the name that problems carry."""
    data = text.encode() if isinstance(text, str) else text
    root, problems = substitute(parse(data, file), env)
    if not isinstance(root, MappingNode):
        problem = root.problem(f"the file must be a mapping, not {kind(root)}")
        raise Problems([*problems, problem])
    # A section whose every line is commented out is a section left to its defaults.
    entries = {k: e for k, e in root.entries.items() if not _is_null(e[1])}
    rules_node = entries.pop("rules", (None, None))[1]
    settings = replace(root, entries=entries)
    rules = RuleSet(())
    config: Config | None = None
    try:
        rules = load_rules(rules_node, file=file, known=_known(settings))
    except Problems as error:
        problems.extend(error.problems)
    try:
        config = Config.model_validate(plain(settings))
    except ValidationError as error:
        problems.extend(explain(error, Config, settings))
    else:
        problems.extend(checks.problems(config, settings))
    if config is None or problems:
        raise Problems(problems)
    config = config.model_copy(
        update={"rules": rules.rules, "data_dir": config.data_dir.expanduser()}
    )
    warnings = tuple(checks.warnings(config, rules, settings))
    return Loaded(config, rules, file, hashlib.sha256(data).hexdigest(), warnings, root)


def _is_null(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.is_null


def _known(settings: MappingNode) -> Known:
    """Names of remotes from the nodes, so that rules are checked although a setting is wrong."""
    remotes = settings.get("remotes")
    entries = remotes.entries if isinstance(remotes, MappingNode) else {}
    destinations = set()
    for name, (_, node) in entries.items():
        host = node.get("host") if isinstance(node, MappingNode) else None
        if host is not None and not _is_null(host):
            destinations.add(name)
    return Known(frozenset(entries), frozenset(destinations))
