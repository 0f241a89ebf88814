"""From the file to a configuration that may take effect, or to everything that is wrong.

Owns the order of the steps: read, substitute, validate, check across sections.  A configuration
with one problem is no configuration; there is no partial result.
"""

import functools
import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import ValidationError

from router.config import checks, unused
from router.config.environment import substitute
from router.config.explain import explain
from router.config.files import Files, Overlay
from router.config.model import Config, ListFile
from router.config.surroundings import Surroundings, read_list, survey
from router.config.watch import Source
from rules import Problem, Problems, RuleSet
from rules import load as load_rules
from rules.review import notes
from rules.source import MappingNode, Node, ScalarNode, kind, parse, plain


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and what it was read from.

    ``digest`` is the SHA-256 (hexadecimal) of the file's bytes, and, when it includes others, of
    theirs and their names.  ``warnings`` are for the log; they keep nothing from taking effect.
    ``notes`` are what is easily forgotten, such as disabled rules.  ``root`` gives later problems
    their place.

    ``files`` are the names and bytes of the configuration and of what it includes, in this
    order.  ``lists`` has the values of each list: they identify patients and must not be shown.
    """

    config: Config
    rules: RuleSet
    file: str
    digest: str
    warnings: tuple[Problem, ...]
    root: Node
    notes: tuple[Problem, ...] = ()
    files: tuple[tuple[str, bytes], ...] = ()
    lists: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def list_sources(self) -> dict[str, Source]:
        """How each list is read anew, by its name."""
        files = Files(self.file)
        return {
            name: Source(Path(files.name_of(each.file)), functools.partial(_values, each, files))
            for name, each in self.config.lists.items()
        }


def _values(definition: ListFile, files: Files) -> tuple[frozenset[str], str]:
    read = read_list(definition, files)
    return read.values, "; ".join(map(str, read.problems))


def load(
    path: str | os.PathLike[str],
    env: Mapping[str, str] | None = None,
    *,
    overlay: Overlay | None = None,
) -> Loaded:
    """The configuration in the file at ``path``; ``env`` is the process's when left out.

    ``overlay`` has contents to take in place of what lies on the disk.  Reads files and may take
    some hundred milliseconds for thousands of rules: not for the event loop.  Raises Problems
    with everything that is wrong.
    """
    file = os.fspath(path)
    files = Files(file, overlay)
    try:
        data = files.configuration(file)
    except OSError as error:
        raise Problems([Problem(file, 0, 0, f"cannot be read: {error.strerror}")]) from None
    return _told(data, file, files, os.environ if env is None else env, time.time())


def loads(
    text: bytes | str, file: str, env: Mapping[str, str], *, now: float | None = None
) -> Loaded:
    """The configuration in ``text``; ``file`` is the name that problems carry.

    Other files that it names are read from the directory of ``file``.  ``now`` (seconds since
    the epoch; the clock's when left out) tells which rules are over.
    """
    data = text.encode() if isinstance(text, str) else text
    return _told(data, file, Files(file), env, time.time() if now is None else now)


def _told(data: bytes, file: str, files: Files, env: Mapping[str, str], now: float) -> Loaded:
    try:
        return _loads(data, file, files, env, now)
    except Problems as error:
        error.texts = {file: data, **files.included}
        raise


def _loads(data: bytes, file: str, files: Files, env: Mapping[str, str], now: float) -> Loaded:
    unset: list[Problem] = []

    def prepare(node: Node) -> tuple[Node, list[Problem]]:
        found, problems = substitute(node, env)
        unset.extend(problems)
        return found, problems

    root, problems = prepare(parse(data, file))
    if not isinstance(root, MappingNode):
        problem = root.problem(f"the file must be a mapping, not {kind(root)}")
        raise Problems([*problems, problem])
    root, misplaced = checks.misplaced(root)
    problems += misplaced
    # A section whose every line is commented out is a section left to its defaults.
    entries = {k: e for k, e in root.entries.items() if not _is_null(e[1])}
    around = survey(replace(root, entries=entries), files, env)
    problems += [*around.problems, *around.lists.problems]
    rules = RuleSet(())
    try:
        rules = load_rules(
            entries.pop("rules", (None, None))[1],
            file=file,
            known=around.known,
            zone=around.zone,
            read=files.include,
            prepare=prepare,
        )
    except Problems as error:
        problems.extend(error.problems)
    entries.pop("conditions", None)
    settings = replace(root, entries=entries)
    config = _config(settings, problems)
    if config is None or problems:
        raise Problems(_without_consequences(problems, unset))
    config = _completed(config, rules, around)
    warnings = (
        *checks.warnings(config, rules, settings, now),
        *unused.warnings(config, rules, root, around.known),
        *around.lists.warnings,
    )
    return Loaded(
        config,
        rules,
        file,
        _digest(data, files),
        warnings,
        root,
        tuple(notes(rules, file, now)),
        ((file, data), *files.included.items()),
        around.lists.values,
    )


def _without_consequences(problems: list[Problem], unset: list[Problem]) -> list[Problem]:
    """Without what is said of a value that has a variable in it which is not set."""
    told = set(unset)
    places = {(problem.file, problem.line, problem.column) for problem in unset}
    return [p for p in problems if p in told or (p.file, p.line, p.column) not in places]


def _config(settings: MappingNode, problems: list[Problem]) -> Config | None:
    try:
        config = Config.model_validate(plain(settings))
    except ValidationError as error:
        problems.extend(explain(error, Config, settings))
        return None
    problems.extend(checks.problems(config, settings))
    return config


def _completed(config: Config, rules: RuleSet, around: Surroundings) -> Config:
    return config.model_copy(
        update={
            "rules": rules.rules,
            "conditions": dict(around.known.conditions),
            "data_dir": config.data_dir.expanduser(),
            "timezone": around.zone,
            "schedules": {
                name: schedule.with_holidays(around.holidays.get(name, schedule.dates))
                for name, schedule in config.schedules.items()
            },
        }
    )


def _digest(data: bytes, files: Files) -> str:
    digest = hashlib.sha256(data)
    for name, included in files.included.items():
        digest.update(b"\0" + name.encode("utf-8", "surrogateescape"))
        digest.update(hashlib.sha256(included).digest())
    return digest.hexdigest()


def _is_null(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.is_null
