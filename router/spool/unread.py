"""Which segments earlier starts could not read, and which parts of them.

Owns the file ``unread`` of a spool directory.  Without it a start that reads such a segment again
would begin where the index has got to meanwhile, and what lies before that would be lost.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from router.spool import system
from router.spool.errors import SpoolError
from router.spool.index_types import Gap
from router.spool.layout import crc32
from router.spool.record import Position
from router.spool.summed import with_sum, without_sum

NAME = "unread"
_FLOOR = "-"
_BEGUN = "@"
_ALL = 2**62

Stretch = tuple[int, int]
"""From one offset in a segment up to another."""
_NONE = Position(0, 0)
WHOLE: Stretch = (0, _ALL)


@dataclass(frozen=True, slots=True)
class Unread:
    """``known``: the position in the log up to which the index knew all when a segment could not be
    read.  Only what lies in the ``stretches`` is still to be made up for: the rest was read, and
    what became of it is in the index, or was until it was purged.  ``begun``: the latest generation
    that the roll knew of in a file of which nothing can be used; 0 when that told nothing.
    """

    known: Position
    stretches: tuple[Stretch, ...] = (WHOLE,)
    begun: int = 0

    def holds(self, offset: int) -> bool:
        """Whether what lies at an offset could not be read."""
        return any(start <= offset < end for start, end in self.stretches)

    def and_from(self, offset: int) -> "Unread":
        """Those stretches, and all from an offset on."""
        return dataclasses.replace(self, stretches=(*self.stretches, (offset, _ALL)))

    def joined(self, other: "Unread") -> "Unread":
        """The stretches of both."""
        stretches = tuple(sorted({*self.stretches, *other.stretches}))
        return Unread(min(self.known, other.known), stretches, max(self.begun, other.begun))

    def still(self, unreadable: Iterable[Stretch]) -> "Unread":
        """What of it is unreadable now."""
        left = {
            (max(start, begin), min(end, stop))
            for start, end in self.stretches
            for begin, stop in unreadable
            if start < stop and begin < end
        }
        return dataclasses.replace(self, stretches=tuple(sorted(left)))


@dataclass(slots=True)
class Notes:
    """``segments`` by the names of their files.

    ``floor``: the generation and the number (as an offset) from which a start went on that could
    not read something.  The next one may be unable to read what that one wrote, and must not give
    out the same again.
    """

    segments: dict[str, Unread] = field(default_factory=dict)
    floor: Position = _NONE


def load(directory: Path) -> Notes:
    """Raises SpoolError when the file is there and cannot be read."""
    path = directory / NAME
    notes = Notes()
    with system.translated(f"reading {path}"):
        try:
            text = path.read_text(errors="replace")
        except FileNotFoundError:
            return notes
    try:
        lines = without_sum(text).splitlines()
        for name, generation, offset, *rest in map(str.split, lines):
            place = Position(int(generation), int(offset))
            if name == _FLOOR:
                notes.floor = place
            else:
                number_of(name)
                begun = rest.pop() if rest and rest[-1].startswith(_BEGUN) else f"{_BEGUN}0"
                stretches = tuple(map(_stretch, rest))
                notes.segments[name] = Unread(place, stretches, int(begun[1:]))
    except ValueError:
        raise SpoolError(
            f"reading {path}: it is damaged; move it away together with index.sqlite and start "
            "again: the index is then built anew from all that can be read"
        ) from None
    return notes


def number_of(name: str) -> int:
    """Of a segment, by the name of its file; ValueError for any other."""
    stem, dot, suffix = name.partition(".")
    if not (stem.isdecimal() and stem.isascii() and dot + suffix == ".seg"):
        raise ValueError(name)
    return int(stem)


def save(directory: Path, notes: Notes) -> None:
    """Note them durably, all or nothing.  Raises SpoolError."""
    text = "".join(_lines(notes.segments, notes.floor)) if notes.segments else ""
    system.replace_file(directory / NAME, with_sum(text) if text else b"")


def gap_of(segments: Mapping[str, Unread]) -> Gap | None:
    """What an index does not have that is consistent with these notes; None without any."""
    if not segments:
        return None
    mark = crc32("".join(sorted(map(_line, segments.items()))).encode())
    return Gap(min(noted.known for noted in segments.values()), mark)


def _lines(segments: Mapping[str, Unread], floor: Position) -> Iterable[str]:
    yield f"{_FLOOR} {floor.generation} {floor.offset}\n"
    yield from map(_line, segments.items())


def _line(named: tuple[str, Unread]) -> str:
    name, noted = named
    stretches = "".join(f" {start}-{end}" for start, end in noted.stretches)
    begun = f" {_BEGUN}{noted.begun}" if noted.begun else ""
    return f"{name} {noted.known.generation} {noted.known.offset}{stretches}{begun}\n"


def _stretch(text: str) -> Stretch:
    start, end = text.split("-")
    return int(start), int(end)
