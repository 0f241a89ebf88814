"""Two versions, or a version and what lies on the disk, side by side.

Owns finding what a person calls a version, and reading both for the comparison in words.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from router.config.changes import diff, names_of
from router.config.differences import of_files, of_rules
from router.config.load import Loaded
from router.config.rollback import Read, present, trial
from router.config.versions import File, Version, Versions, VersionsError
from rules import Problems

CURRENT = "current"
DISK = "disk"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: ``name`` is the version's number, or ``disk``."""

    name: str
    files: tuple[File, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """``rules`` and ``settings`` are in words; ``note`` says why there are none of them."""

    old: str
    new: str
    text: str
    rules: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    note: str = ""


def find(versions: Versions, text: str) -> Version:
    """As `Versions.find`, and ``current`` for the one in force.  Raises VersionsError."""
    try:
        if text == CURRENT:
            version = versions.listing().in_force
            if version is None:
                raise VersionsError("there are no versions yet", "the gateway keeps one at start")
            return version
        return versions.find(text)
    except OSError as error:
        name = os.fspath(error.filename or versions.directory)
        raise VersionsError(f"{name} cannot be read: {error.strerror or error}") from error


def compare(config: Path, versions: Versions, old: str, new: str, read: Read) -> Difference:
    """What is in ``new`` and not in ``old``.  Raises VersionsError.  Blocking."""
    sides = [_side(config, versions, text, read) for text in (old, new)]
    first, second = sides
    text = of_files(first.files, second.files, first.name, second.name)
    read_both: list[Loaded] = []
    for side in sides:
        try:
            read_both.append(trial(config, side.files, read)[0])
        except Problems as error:
            which = "what lies there" if side.name == DISK else f"version {side.name}"
            count = len(error.problems)
            note = f"{which} would not take effect now: {error.problems[0]}"
            note += f" (and {count - 1} more problems)" if count > 1 else ""
            return Difference(first.name, second.name, text, note=note)
    before, after = read_both
    changes = (name for name in names_of(diff(before.config, after.config)) if name != "rules")
    return Difference(
        first.name,
        second.name,
        text,
        tuple(of_rules(before.rules.rules, after.rules.rules)),
        tuple(changes),
    )


def _side(config: Path, versions: Versions, text: str, read: Read) -> Side:
    if text == DISK:
        return Side(DISK, present(config, (), read).files)
    version = find(versions, text)
    return Side(str(version.number), versions.files(version.number))
