"""The files that a configuration names beside itself: included rules, lists.

Owns opening them and what was read from each.  Must not know what they mean.
"""

import fnmatch
import glob
import os
import stat
from collections.abc import Mapping, Sequence
from errno import EISDIR
from pathlib import Path
from typing import TypeAlias

from rules.lists import MAX_BYTES
from rules.source import MAX_TEXT, Problem, Problems

MAX_FILES = 1000
"""Files that a configuration may include."""
Overlay: TypeAlias = Mapping[Path, bytes | None]
"""By absolute path (`os.path.realpath`), what to take in place of what lies on the disk; None for
no file."""


class Files:
    """Reads files, their names taken from the directory of ``file``; remembers what it read.

    Blocking.  ``included`` maps the names of files, such as can be opened, to their bytes, in the
    order in which they were asked for.  ``overlay`` does not hold for lists.
    """

    def __init__(self, file: str, overlay: Overlay | None = None) -> None:
        self._directory = Path(file).parent
        self._overlay = overlay or {}
        self.included: dict[str, bytes] = {}

    def configuration(self, file: str) -> bytes:
        """The file itself; raises OSError."""
        real = _real(file)
        return self._read(file, 4 * MAX_TEXT) if real in self._overlay else Path(file).read_bytes()

    def include(self, pattern: str) -> list[tuple[str, bytes]]:
        """The files of that name or glob, sorted by name; [] when there is none.

        Raises Problems for those that cannot be read.
        """
        found, problems = [], []
        for name in self._matching(pattern):
            if len(self.included) >= MAX_FILES:
                problems.append(Problem(name, 0, 0, f"is one of more than {MAX_FILES} files"))
                break
            try:
                self.included[name] = self._read(name, 4 * MAX_TEXT)
            except IsADirectoryError:
                fix = f"name the files in it, as in {pattern.rstrip('/')}/*.yaml"
                problems.append(
                    Problem(name, 0, 0, "is a directory", "" if "*" in pattern else fix)
                )
            except OSError as error:
                problems.append(Problem(name, 0, 0, f"cannot be read: {error.strerror}"))
            else:
                found.append((name, self.included[name]))
        if problems:
            raise Problems(problems)
        return found

    def list_file(self, file: str) -> tuple[str, bytes]:
        """Name and content of a list's file; raises OSError."""
        name = self.name_of(file)
        return name, _read(name, MAX_BYTES)

    def name_of(self, file: str) -> str:
        """A name that can be opened, for one in the configuration."""
        return str(self._directory / _expanded(file))

    def _matching(self, pattern: str) -> list[str]:
        if not glob.has_magic(pattern):
            name = self.name_of(pattern)
            real = _real(name)
            exists = os.path.lexists(name)
            return [name] if self._overlay.get(real, b"" if exists else None) is not None else []
        path = Path(glob.escape(str(self._directory))) / _expanded(pattern)
        found = set(glob.glob(str(path), recursive=True))  # noqa: PTH207
        if self._overlay:
            found = {name for name in found if self._overlay.get(_real(name), b"") is not None}
            found |= self._overlaid(pattern)
        return sorted(found)

    def _overlaid(self, pattern: str) -> set[str]:
        """The files of the overlay alone that a glob names."""
        parts = _expanded(pattern).parts
        first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
        # What comes before the first star may lead upwards, or through links.
        directory = self._directory.joinpath(*parts[:first])
        base = _real(str(directory))
        found = set()
        for path, data in self._overlay.items():
            if data is None or not path.is_relative_to(base):
                continue
            inner = path.relative_to(base)
            if _fits(inner.parts, parts[first:]):
                found.add(str(directory / inner))
        return found

    def _read(self, name: str, limit: int) -> bytes:
        real = _real(name)
        if real not in self._overlay:
            return _read(name, limit)
        data = self._overlay[real]
        if data is None:
            raise FileNotFoundError(2, os.strerror(2), name)
        return data


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """As `glob` takes it: ``**`` is any number of directories, and no star begins with a dot."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return _fits(parts, pattern[1:]) or (
            bool(parts) and not parts[0].startswith(".") and _fits(parts[1:], pattern)
        )
    if not parts or (parts[0].startswith(".") and not pattern[0].startswith(".")):
        return False
    return fnmatch.fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _real(name: str) -> Path:
    return Path(os.path.realpath(name))


def _expanded(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:  # no such user
        return Path(name)


def _read(name: str, limit: int) -> bytes:
    # Not to wait for a pipe's other end, nor to read a device without end.
    path = Path(name)
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(EISDIR, "it is a directory")
    if not stat.S_ISREG(mode):
        raise OSError(0, "it is not a file")
    with path.open("rb") as handle:
        return handle.read(limit + 1)
