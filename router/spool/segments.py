"""Segment files: the pool of spare ones, the lives they are in, and who reads them.

Owns the files under ``segments/``.  A segment is *spare* (zeroed or recycled, generation over),
*active* (the committer writes to it) or *sealed*.  Generations are never used twice.  Must not
know records beyond their places.  Thread-safe: the committer, readers and the keeper share it.
"""

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from router.spool import system
from router.spool.blocks import aligned
from router.spool.errors import SpoolError, SpoolFull
from router.spool.layout import BLOCK, SegmentHeader
from router.spool.record import Position
from router.spool.roll import Roll
from router.spool.segment import Segment
from router.spool.survey import Survey
from router.spool.unread import number_of

_ZEROS = aligned(1 << 20)
_OPEN_LIMIT = 64
# What opening a file meets that says nothing about the file.
_NOT_ITS_FAULT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EROFS, errno.EACCES, errno.EPERM)


class SegmentTable:
    """All segments of a spool.

    `reserve` is the free space in bytes that making segments must leave on the file system.
    """

    def __init__(self, directory: Path, size: int, reserve: int) -> None:
        self.directory = directory
        self._size = size
        self._reserve = reserve
        self._lock = threading.Lock()
        self._spares: list[Segment] = []
        self._lives: dict[int, Segment] = {}
        self._active: Segment | None = None
        self._names = system.NewNames(directory)
        self._next_number = 1
        self._next_generation = 1
        self._debris: list[Path] = []
        self._why_debris = ""
        self._roll = Roll(directory.with_name(f"{directory.name}.roll"))
        self.left: list[str] = []
        """Names of files that `load` could not use at all, or missed."""
        self.copies: dict[str, str] = {}
        """By the name of a file that `load` left alone, that of another of its generation."""
        self.unreadable = 0
        """Files that `load` could not read, or not whole, and left alone, or missed."""

    @property
    def size(self) -> int:
        """Bytes of a segment that is made from now on."""
        return self._size

    # -- opening -------------------------------------------------------------------------------

    def load(
        self,
        find_generation: Callable[[Path], int],
        count_records: Callable[[Segment], int] = lambda _: 0,
        unread: Mapping[str, int] | None = None,
    ) -> list[str]:
        """Read the headers of all segments; every one that had a life becomes sealed.

        `find_generation` and `count_records` are those of `router.spool.survey.Survey`; `unread`
        are the files that an earlier start could not read, by name, and the latest generation that
        the roll knew of in each then.  Returns what was odd, a line each.  What cannot be used is
        counted in `unreadable`, and named in `left` where nothing of it can be.  Raises SpoolError
        when the directory or the roll cannot be read.
        """
        notes = self._roll.load()
        noted, whole = dict(self._roll.generations), self._roll.found
        if not self._roll.whole:  # what earlier starts missed is to come back all the same
            noted = {number_of(name): begun for name, begun in (unread or {}).items()} | noted
        found = Survey(self.directory, self._size, noted, unread or (), whole=whole)
        found.run(find_generation, count_records)
        self._lives, self._spares = found.lives, found.spares
        self._next_number = found.last_number + 1
        self.reserve_generations(found.last_generation)
        self.left, self.unreadable, self.copies = found.left, found.unreadable, found.copies
        notes += found.notes
        for segment in (*found.lives.values(), *found.spares):
            if found.roll.get(segment.number, 0) > noted.get(segment.number, 0):
                _sync_if_possible(segment.path)  # the roll must not know of a life that a cut takes
        try:
            self._roll.begin(found.roll)
        except SpoolError as error:
            notes.append(f"{error}; a segment that is missing may not be told of")
        for path in found.useless:
            self._discard(path)
        if self._debris:
            notes.append(str(self._not_removed()))
        return notes

    def expected(self, name: str) -> bool:
        """Whether a file that earlier starts missed is to come back: until `Roll.remove`, by which
        it is given up."""
        return number_of(name) in self._roll.generations

    def begun(self, name: str) -> int:
        """The latest generation that is known to have been begun in a file; 0 for none."""
        return self._roll.generations.get(number_of(name), 0)

    def skip_generations(self, count: int) -> int:
        """Leave as many unused: a file that cannot be read may be in one of them.  The next."""
        self._next_generation += count
        return self._next_generation

    @property
    def next_generation(self) -> int:
        """That of the next life."""
        return self._next_generation

    def reserve_generations(self, last: int) -> None:
        """Never use a generation up to `last` again."""
        self._next_generation = max(self._next_generation, last + 1)

    # -- writing (the committer's thread) ------------------------------------------------------

    def activate(self) -> Segment:
        """Seal the active segment and begin the life of another.

        The header is durable when this returns.  Were it left to the sync of the first group, a
        power cut might keep a record of that group and lose the header: the generation would be
        given out again, and the record, never acknowledged, would pass for one of the new life.
        Raises SpoolFull when there is neither a spare nor space for a new one, SpoolError
        otherwise.
        """
        with self._lock:
            left = self._seal()
            segment = self._spares.pop() if self._spares else None
        _close_all([left])
        if segment is None:
            segment = self._make(zeroed=False)
        with self._lock:
            generation = self._next_generation
            self._next_generation += 1
        header = SegmentHeader(segment.size, generation, segment.past)
        with system.translated(f"beginning segment {segment.path.name}"):
            fd = direct = -1
            try:
                fd = os.open(segment.path, os.O_RDWR | os.O_CLOEXEC)
                direct = system.open_direct(segment.path, os.O_WRONLY)
                system.write_all(fd, [header.to_bytes()], 0)
                system.sync_data(fd)
                segment.past = generation
                self._roll.note(segment.number, generation)
            except OSError as error:
                _close_all([fd, direct])
                if min(fd, direct) < 0 and error.errno in _NOT_ITS_FAULT:
                    with self._lock:
                        self._spares.append(segment)  # nothing was done to it
                else:
                    # It is of no use, and must not take space that nobody accounts for.
                    self._discard(segment.path)
                raise
            except SpoolError:  # of the roll: it is sound, and its next life is a later one
                _close_all([fd, direct])
                with self._lock:
                    self._spares.insert(0, segment)
                raise
        with self._lock:
            segment.fd, segment.direct = fd, direct
            segment.generation = generation
            segment.used = BLOCK
            segment.acked = 0
            segment.pins = 1  # the committer's own
            self._lives[generation] = segment
            self._active = segment
        return segment

    def seal(self) -> None:
        """Write no more to the active segment, if there is one."""
        with self._lock:
            left = self._seal()
        _close_all([left])

    def _seal(self) -> int:
        """With the lock; the descriptor to be closed without it, since that may wait."""
        active, self._active = self._active, None
        if active is None:
            return -1
        active.pins -= 1
        descriptor, active.direct = active.direct, -1
        return descriptor

    @property
    def active(self) -> Segment | None:
        """The segment that the committer writes to."""
        return self._active

    @property
    def written(self) -> int:
        """Bytes that may have been written to segments, ever: by how much it grows, as many are."""
        active = self._active
        return self._next_generation * self._size + (0 if active is None else active.used)

    # -- the pool (the keeper's thread) --------------------------------------------------------

    def refill(self, target: int) -> bool:
        """Make one zeroed spare if there are fewer than `target`; True if one was made."""
        with self._lock:
            enough = len(self._spares) >= target
        self._clear()
        if enough:
            return False
        segment = self._make(zeroed=True)
        with self._lock:
            self._spares.append(segment)
        return True

    def trim(self, target: int) -> int:
        """Remove spares above `target`, giving their space back; returns how many."""
        self._clear()
        with self._lock:
            extra = self._spares[target:]
            del self._spares[target:]
        try:
            self._roll.remove(segment.number for segment in extra)
        except SpoolError:
            with self._lock:
                self._spares += extra
            raise
        for segment in extra:
            self._discard(segment.path)
        if self._debris:
            raise self._not_removed()
        return len(extra)

    def make_room(self) -> list[str]:
        """Remove spares where the disk is so full that the index could not even be opened, as many
        as it takes: what comes in needs the others.  What was done, a line each."""
        count = 0
        try:
            while self._spares and self._is_full():
                count += self.trim(len(self._spares) - 1)
        except SpoolError as error:
            return [f"the disk is full, and spare segments stay: {error}"]
        return [f"the disk is full: {count} spare segments were removed"] if count else []

    def _is_full(self) -> bool:
        try:
            return free_bytes(self.directory) < self._reserve
        except SpoolError:  # who makes a segment tells
            return False

    def _clear(self) -> int:
        """Try again to remove what could not be; how many are left."""
        with self._lock:
            debris, self._debris = self._debris, []
        for path in debris:
            self._discard(path)
        with self._lock:
            return len(self._debris)

    def _make(self, *, zeroed: bool) -> Segment:
        if self._clear():  # else each attempt would leave another one
            raise self._not_removed()
        with self._lock:
            number = self._next_number
            self._next_number += 1
        free = free_bytes(self.directory)
        if free < self._size + self._reserve:
            raise SpoolFull(
                f"no space for another segment: {free} bytes are free, {self._size} are needed "
                f"and {self._reserve} stay reserved"
            )
        path = self.directory / f"{number:08d}.seg"
        begun = self._names.begin()
        with system.translated(f"making segment {path.name}"):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, self._size)
                if zeroed:
                    # Blocks that were written once need no metadata in later syncs.
                    _write_zeros(path, 0, self._size)
                system.write_all(fd, [SegmentHeader(self._size, 0).to_bytes()], 0)
                os.fsync(fd)
                self._names.sync(begun)
                self._roll.note(number, 0)
            except (OSError, SpoolError):
                self._discard(path)
                raise
            finally:
                system.close(fd)
        return Segment(path, number, self._size, 0)

    def _discard(self, path: Path) -> None:
        """Remove a file that is of no use; if that cannot be, `refill` tries again."""
        number = int(path.stem)
        try:
            try:
                self._roll.remove([number])
            except SpoolError:
                if self._roll.generations.get(number):
                    raise  # it would be missed, see `Survey`
            path.unlink(missing_ok=True)
        except (OSError, SpoolError) as error:
            with self._lock:
                self._debris.append(path)
                self._why_debris = str(error)

    def _not_removed(self) -> SpoolError:
        what = f"files of no use cannot be removed from {self.directory}"
        return SpoolError(f"{what}: {self._why_debris}")

    def recycle(self, generation: int, *, wipe: bool, indexed: Position | None) -> bool:
        """End the life of a sealed segment and make it a spare; False while it is in use.

        The caller has made sure, durably, that nothing in the index refers to it any more;
        `indexed` is the index's position: a record that was acknowledged and is not in the index
        yet keeps the segment.
        """
        with self._lock:
            segment = self._lives.get(generation)
            if segment is None or segment is self._active or segment.pins:
                return False
            if not segment.indexed(indexed):
                return False
            del self._lives[generation]
            descriptor, segment.fd = segment.fd, -1
        _close_all([descriptor])
        try:
            with system.translated(f"recycling segment {segment.path.name}"):
                if segment.size != self._size or segment.suspect:
                    if wipe:
                        _wipe_if_possible(segment.path, segment.size)
                    self._roll.remove([segment.number])
                    segment.path.unlink()
                    return True
                self._end_life(segment, wipe=wipe)
        except SpoolError:
            with self._lock:
                self._lives[generation] = segment
            raise
        segment.past = generation
        segment.generation = 0
        with self._lock:
            self._spares.insert(0, segment)
        return True

    @staticmethod
    def _end_life(segment: Segment, *, wipe: bool) -> None:
        fd = os.open(segment.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if wipe:
                # First, and synced: a free segment is one that needs no wiping any more.
                _write_zeros(segment.path, BLOCK, segment.size)
                system.sync_data(fd)
            # Not synced: should it be lost, the index still says that the life is over.
            header = SegmentHeader(segment.size, 0, segment.generation)
            system.write_all(fd, [header.to_bytes()], 0)
        finally:
            system.close(fd)

    # -- reading -------------------------------------------------------------------------------

    def pin(self, generation: int) -> Segment | None:
        """Keep a segment from being recycled until `unpin`; None when its life is over."""
        with self._lock:
            segment = self._lives.get(generation)
            if segment is not None:
                segment.pins += 1
            return segment

    def unpin(self, segment: Segment) -> None:
        """The reverse of `pin`."""
        with self._lock:
            segment.pins -= 1

    def open(self, segment: Segment) -> int:
        """Descriptor of a pinned segment; blocking when it was not open.  Raises SpoolError.

        The disk is asked outside the lock, which the event loop takes in `pin` and `unpin`.
        """
        with self._lock:
            if segment.fd >= 0:
                return segment.fd
        with system.translated(f"opening segment {segment.path.name}"):
            opened = os.open(segment.path, os.O_RDWR | os.O_CLOEXEC)
        with self._lock:
            if segment.fd < 0:
                segment.fd = opened
                unused = self._take_idle()
            else:  # another reader was quicker
                unused = [opened]
            result = segment.fd
        _close_all(unused)
        return result

    def _take_idle(self) -> list[int]:
        """Descriptors above the limit that nobody uses, for the caller to close."""
        opened = [s for s in self._lives.values() if s.fd >= 0]
        taken: list[int] = []
        if len(opened) > _OPEN_LIMIT:
            for segment in [s for s in opened if not s.pins][: len(opened) - _OPEN_LIMIT]:
                taken.append(segment.fd)
                segment.fd = -1
        return taken

    # -- looking -------------------------------------------------------------------------------

    def sealed(self) -> list[Segment]:
        """Segments with a life that the committer has left, oldest first."""
        with self._lock:
            return [s for _, s in sorted(self._lives.items()) if s is not self._active]

    def free(self) -> set[str]:
        """Names of the spare files."""
        with self._lock:
            return {segment.path.name for segment in self._spares}

    @property
    def spare_bytes(self) -> int:
        """Room in the pool and in the active segment."""
        with self._lock:
            rest = self._active.size - self._active.used if self._active is not None else 0
            return rest + sum(s.size for s in self._spares)

    @property
    def total_bytes(self) -> int:
        """Space that all segments take on disk, spares included."""
        with self._lock:
            return sum(s.size for s in self._spares) + sum(s.size for s in self._lives.values())

    def close(self) -> None:
        """Close all descriptors."""
        with self._lock:
            descriptors = [self._seal(), *(segment.fd for segment in self._lives.values())]
            for segment in self._lives.values():
                segment.fd = -1
        _close_all(descriptors)


def _write_zeros(path: Path, start: int, end: int) -> None:
    """Past the page cache, which is for what somebody reads.  Not synced.  Raises OSError."""
    fd = system.open_direct(path, os.O_WRONLY)
    try:
        for offset in range(start, end, len(_ZEROS)):
            system.write_blocks(fd, [_ZEROS[: min(len(_ZEROS), end - offset)]], offset)
    finally:
        system.close(fd)


def _wipe_if_possible(path: Path, size: int) -> None:
    """Before it is removed; of what the disk does not take, that nobody uses it again must do."""
    with contextlib.suppress(OSError):
        _write_zeros(path, BLOCK, size)


def _sync_if_possible(path: Path) -> None:
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            system.sync_data(fd)
        finally:
            system.close(fd)


def _close_all(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        system.close(descriptor)


def free_bytes(directory: Path) -> int:
    """Free space for us on the file system of `directory`.  Raises SpoolError."""
    with system.translated(f"asking for the free space of {directory}"):
        stat = os.statvfs(directory)
    return stat.f_bavail * stat.f_frsize
