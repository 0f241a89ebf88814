"""The files of `lists:`, looked at again and again while the gateway runs.

Owns when a file counts as changed, and that one that cannot be read, or that has nothing in it any
more, leaves the values that are in force as they are.  Must not know who is told, nor how often it
is asked.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

Values: TypeAlias = frozenset[str]
Signature: TypeAlias = tuple[int, int, int, int] | None
"""What tells one state of a file from another; None for no file."""

QUIET = 3.0
"""Seconds for which a file must have stayed as it is before it is taken: an export truncates it
first and writes the rows when it has them.  By our own clock, not by the time that the file bears:
that is another machine's, or was copied with the file."""

EMPTIED = "it has no values any more: reload the configuration if that is meant"


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

    A file is read once it was found in the same state for `QUIET` seconds: whoever writes it in
    place is not interrupted half-way.  ``before`` is the watch that this one takes over from: what
    it knows of the files still holds.

    ``now`` is in seconds, of a clock that is never set.  Blocking, and `look` for one thread at a
    time; `settled` may be asked meanwhile.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        values: Mapping[str, Values],
        before: "ListWatch | None" = None,
    ) -> None:
        self.values = dict(values)
        self._sources = sources
        found = before._found if before is not None else {}
        paths = (source.path for source in sources.values())
        self._found: dict[Path, tuple[Signature, float]] = {
            path: found[path] for path in paths if path in found
        }
        self._read: dict[str, Signature] = {}
        self._trouble: dict[str, str] = {}

    def settled(self, path: Path, now: float) -> bool:
        """Whether the file is as it was `QUIET` seconds ago, as far as it was looked at."""
        return self._settled(path, _signature(path), now)

    def look(self, now: float) -> Seen:
        """Once over all of them; costs a stat(2) each when nothing happened."""
        changed: dict[str, Values] = {}
        failed: dict[str, str] = {}
        for name, source in self._sources.items():
            signature = _signature(source.path)
            if name in self._read and self._read[name] == signature:
                continue
            if not self._settled(source.path, signature, now):
                continue
            try:
                values, why = source.read()
            except OSError as error:
                values, why = frozenset(), error.strerror or str(error)
            if _signature(source.path) != signature:
                continue
            if not (why or values) and self.values.get(name):
                why = EMPTIED
            self._read[name] = signature
            if why:
                self._trouble[name] = failed[name] = why
                continue
            self._trouble.pop(name, None)
            if values != self.values.get(name):
                self.values[name] = changed[name] = values
        return Seen(changed, failed, dict(self._trouble))

    def _settled(self, path: Path, signature: Signature, now: float) -> bool:
        found = self._found.get(path)
        if found is None or found[0] != signature:
            self._found[path] = signature, now
            return False
        return now - found[1] >= QUIET


def _signature(path: Path) -> Signature:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev
