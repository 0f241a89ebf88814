"""What segment files there are at a start, and what is wrong with them.

Owns the reading of their headers and the comparison with the roll.  Changes nothing on the disk,
and must not know records beyond that somebody counts them.
"""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from router.spool import system
from router.spool.errors import SpoolError
from router.spool.layout import BLOCK, SegmentHeader
from router.spool.segment import Segment

_CHUNK = 1 << 20


class Survey:
    """Of the files in ``directory``, of which new ones are ``size`` long, and of which the roll,
    or what an earlier start missed, says ``noted``: see `Roll.generations`.  ``unread`` are names
    of those that an earlier start could not read.  ``whole``: the roll has every file whose name is
    known to be durable.
    """

    def __init__(
        self,
        directory: Path,
        size: int,
        noted: Mapping[int, int],
        unread: Collection[str] = (),
        *,
        whole: bool = False,
    ) -> None:
        self._directory = directory
        self._size = size
        self._noted = noted
        self._unread = unread
        self._whole = whole
        self.lives: dict[int, Segment] = {}
        """By generation, those in a life."""
        self.spares: list[Segment] = []
        """Those that are free."""
        self.useless: list[Path] = []
        """Files of which nothing was ever used, or of a size of before; to be removed."""
        self.left: list[str] = []
        """Names of those that cannot be read at all, are of an earlier time, or are missing."""
        self.copies: dict[str, str] = {}
        """By the name of a file that is left alone, that of the other of its generation."""
        self.unreadable = 0
        """Files of which not all can be used."""
        self.notes: list[str] = []
        """What was odd, a line each."""
        self.roll: dict[int, int] = {}
        """What the roll is to say from now on."""
        self.last_number = max(noted, default=0)
        self.last_generation = max(noted.values(), default=0)

    def run(
        self, find_generation: Callable[[Path], int], count_records: Callable[[Segment], int]
    ) -> None:
        """`find_generation` is asked about a segment whose header is damaged or unreadable,
        `count_records` about two of one generation: a copy may be older.

        A file that cannot be read is named, counted and left alone.  Raises SpoolError when the
        directory cannot be read.
        """
        with system.translated(f"reading the segments in {self._directory}"):
            self._directory.mkdir(parents=True, exist_ok=True)
            # Not by glob: it takes a directory that cannot be read for an empty one.
            paths = sorted(p for p in self._directory.iterdir() if p.suffix == ".seg")
        seen = set[int]()
        for path in paths:
            if not path.stem.isdecimal():
                self.notes.append(f"segments/{path.name} is not a file of this spool; left alone")
                continue
            number = int(path.stem)
            seen.add(number)
            self.last_number = max(self.last_number, number)
            self.roll[number] = self._noted.get(number, 0)
            try:
                self._look_at(path, number, find_generation, count_records)
            except (OSError, SpoolError) as error:
                self._leave(path.name)
                self.notes.append(f"segment {path.name} cannot be read and is left alone: {error}")
        for number in sorted(self._noted.keys() - seen):
            self._miss(number)

    def _leave(self, name: str) -> None:
        self.unreadable += 1
        self.left.append(name)

    def _miss(self, number: int) -> None:
        """A file that is not there."""
        generation = self._noted[number]
        name = f"{number:08d}.seg"
        if not generation and name not in self._unread:
            return  # nothing was ever written to it
        self._leave(name)
        self.roll[number] = generation
        what = f"in which generation {generation} was begun"
        if not generation:
            what = "which could not be read before"
        self.notes.append(
            f"segment {name} is missing, {what}: bring it "
            "back and start again; if it is lost for good, stop the gateway and say "
            f"dcmrouter spool forget {name}"
        )

    def _look_at(
        self,
        path: Path,
        number: int,
        find_generation: Callable[[Path], int],
        count_records: Callable[[Segment], int],
    ) -> None:
        trouble: OSError | None = None
        header = None
        noted = self.roll[number]
        size = path.stat().st_size
        if size < BLOCK and number in self._noted:
            raise SpoolError(f"it has been cut to {size} bytes")
        try:
            with path.open("rb") as file:
                header = SegmentHeader.from_bytes(file.read(BLOCK))
        except IsADirectoryError:
            raise
        except OSError as error:
            trouble = error
        if header is None:
            generation = past = find_generation(path)
            if not generation:
                if trouble is not None:
                    raise trouble
                if noted or not _all_zeros(path):
                    raise SpoolError("neither its header nor any record in it is sound")
                self._give_up(path, number)
                return
            generation = past = max(generation, noted)
            self.notes.append(
                f"segment {path.name}: damaged header; its records say that it is "
                f"in generation {generation}"
            )
        else:
            generation, past = header.generation, header.past
            if max(generation, past) < noted:
                raise SpoolError(
                    f"it is of an earlier time: its latest generation is {max(generation, past)}, "
                    f"and {noted} was begun in it"
                )
            if generation and size < header.size:
                self.unreadable += 1
                self.notes.append(
                    f"segment {path.name}: has been cut to {size} of {header.size} bytes; "
                    "what lay behind is lost"
                )
        self.last_generation = max(self.last_generation, generation, past)
        # One that was being made at a kill: the sync of its name may have failed, of which the
        # kernel tells nobody again, and a power cut would take all that came into it.
        unsure = self._whole and number not in self._noted
        if size < BLOCK or (generation == 0 and (unsure or size != self._size)):
            self._give_up(path, number)
            return
        self.roll[number] = max(noted, generation, past)
        segment = Segment(path, number, size, generation)
        segment.used = size
        segment.past = past
        if trouble is not None:
            # Only its records were asked, and those of its last life may be out of reach too.
            segment.unread = True
            self.unreadable += 1
        self._sort_in(segment, count_records)

    def _give_up(self, path: Path, number: int) -> None:
        self.useless.append(path)
        if number not in self._noted:
            del self.roll[number]

    def _sort_in(self, segment: Segment, count_records: Callable[[Segment], int]) -> None:
        generation = segment.generation
        other = self.lives.get(generation)
        if other is not None:
            self.unreadable += 1
            if count_records(segment) > count_records(other):
                segment, other = other, segment
                self.lives[generation] = other
            self.roll.pop(segment.number)  # nobody misses a copy
            self.copies[segment.path.name] = other.path.name
            self.notes.append(
                f"segment {segment.path.name}: is in generation {generation}, as "
                f"{other.path.name} is, which has no fewer sound records; left alone"
            )
        elif generation:
            self.lives[generation] = segment
        else:
            self.spares.append(segment)


def _all_zeros(path: Path) -> bool:
    """Whether a file was never written to.  Raises OSError."""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            if chunk != bytes(len(chunk)):
                return False
    return True
