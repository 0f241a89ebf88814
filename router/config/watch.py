"""The files of `lists:`, looked at again and again while the gateway runs.

Owns when a file counts as changed, and that one that cannot be read leaves the values that are in
force as they are.  Must not know who is told, nor how often it is asked.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

Values: TypeAlias = frozenset[str]
Signature: TypeAlias = tuple[int, int, int, int] | None
"""What tells one state of a file from another; None for no file."""


@dataclass(frozen=True, slots=True)
class Source:
    """A list: its file, and how it is read: values, or in words why there are none.

    ``read`` may raise OSError.
    """

    path: Path
    read: Callable[[], tuple[Values, str]]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look brought: lists with other values than before, and those that failed just now.

    ``trouble`` is why each list that is not as its file has it is so; it stays until the file is
    sound again.
    """

    changed: Mapping[str, Values] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    trouble: Mapping[str, str] = field(default_factory=dict)


class ListWatch:
    """Looks at the files of lists whose ``values`` are in force.

    A file is read once it was found twice in the same state: whoever writes it in place is not
    interrupted half-way.  Blocking, for one thread at a time.
    """

    def __init__(self, sources: Mapping[str, Source], values: Mapping[str, Values]) -> None:
        self.values = dict(values)
        self._sources = sources
        self._found: dict[str, Signature] = {}
        self._read: dict[str, Signature] = {}
        self._trouble: dict[str, str] = {}

    def look(self) -> Seen:
        """Once over all of them; costs a stat(2) each when nothing happened."""
        changed: dict[str, Values] = {}
        failed: dict[str, str] = {}
        for name, source in self._sources.items():
            signature = _signature(source.path)
            if name in self._read and self._read[name] == signature:
                continue
            if name not in self._found or self._found[name] != signature:
                self._found[name] = signature
                continue
            try:
                values, why = source.read()
            except OSError as error:
                values, why = frozenset(), error.strerror or str(error)
            if _signature(source.path) != signature:
                del self._found[name]
                continue
            self._read[name] = signature
            if why:
                self._trouble[name] = failed[name] = why
                continue
            self._trouble.pop(name, None)
            if values != self.values.get(name):
                self.values[name] = changed[name] = values
        return Seen(changed, failed, dict(self._trouble))


def _signature(path: Path) -> Signature:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev
