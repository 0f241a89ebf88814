"""Reads records and the beginnings of their data sets, beside a running gateway or without one.

Owns the proof that what was read is still what the index meant: a segment may be compacted,
recycled or wiped at any moment by a gateway that knows nothing of this reader.  Takes no lock,
changes nothing, makes nobody wait.  Blocking; must not know what the bytes mean.

The proof, in this order: the record's header and description have sound checksums and name the
generation, offset and id that the index names; the bytes are read; then the index is asked again.
The gateway lets the index forget an instance, durably, before it writes over its bytes (rule 4
of docs/architecture.md), so what the index still has in the same place was not written over.
"""

import contextlib
import os
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from router.spool import system
from router.spool.errors import SpoolError
from router.spool.index_view import IndexView
from router.spool.layout import BLOCK, RECORD_HEADER_SIZE, RecordHeader, SegmentHeader, crc32
from router.spool.record import InstanceMeta, Ref
from router.spool.recovery import is_of
from router.spool.writer import large_path

T = TypeVar("T")
Pieces: TypeAlias = Generator[bytes, None, None]
"""The data set from its start, in pieces; take as few as are needed.  Its checksum is over the
whole of it and is not looked at."""

_FIRST = 16 * 1024
"""Bytes that are asked for at once: mostly more than record header, description and the
attributes that rules look at; far less than an image."""
_MORE = 64 * 1024
_AHEAD = 32
_OPEN = 64
_ROWS = 4096
_PAGE = 512
_LOOKS = 4


@dataclass(frozen=True, slots=True)
class Seen(Generic[T]):
    """What became of one instance of the index.

    ``result`` is what was made of its bytes.  Without one it is either gone, since the gateway
    purged it meanwhile, or ``damage`` says what is wrong with it.
    """

    id: int
    result: T | None
    damage: str = ""


class Lookout:
    """The spool in a directory, read by way of its index.

    Raises SpoolError when either cannot be read at all.
    """

    def __init__(self, directory: Path, view: IndexView) -> None:
        self._segments = directory / "segments"
        self._large = directory / "large"
        self.missing = 0
        """After `newest`: how many numbers of the time asked for the index does not have: those of
        instances that were purged, and of what was broken off.  No more than were ever purged."""
        self._view = view
        self._lives: dict[int, list[Path]] = {}
        self._unfound: set[int] = set()
        self._open: OrderedDict[tuple[int, Path], int] = OrderedDict()

    def close(self) -> None:
        """Close what is open."""
        while self._open:
            system.close(self._open.popitem()[1])

    def newest(
        self,
        since: float,
        until: float,
        limit: int | None,
        make: Callable[[Ref, InstanceMeta, Pieces], T],
    ) -> Iterator[Seen[T]]:
        """Instances that were received in [`since`, `until`), by falling id, `limit` at most.

        `make` may be called more than once for one instance, and its result be thrown away; what
        it raises passes through, but for SpoolError, which is damage.
        """
        left = limit
        for refs in self._refs(since, until):
            for at in range(0, len(refs), _PAGE):
                page = refs[at : at + _PAGE][:left]
                if left is not None:
                    left -= len(page)
                yield from self._page(page, make)
                if left == 0:
                    return

    def _refs(self, since: float, until: float) -> Iterator[list[Ref]]:
        """Pages of what was received then; what is missing among it is counted on the way."""
        purged = self._view.purged()
        above = (self._view.last_id() or 0) + 1
        was_in = True
        below: int | None = None
        while rows := self._view.received(below, _ROWS):
            found = []
            for row in rows:
                is_in = since <= row.received_at < until
                if is_in or was_in:
                    self.missing = min(self.missing + max(above - row.ref.id - 1, 0), purged)
                if is_in:
                    found.append(row.ref)
                above, was_in = row.ref.id, is_in
            yield found
            below = above
        if was_in:
            self.missing = min(self.missing + above - 1, purged)

    def one(self, ref: Ref, make: Callable[[Ref, InstanceMeta, Pieces], T]) -> Seen[T]:
        """As `newest`, of one."""
        return next(self._page([ref], make))

    def _page(
        self, refs: Sequence[Ref], make: Callable[[Ref, InstanceMeta, Pieces], T]
    ) -> Iterator[Seen[T]]:
        self._unfound.clear()
        found: dict[int, Seen[T]] = {}
        waiting = {ref.id: ref for ref in refs}
        for _ in range(_LOOKS):
            # By place, since a disk likes that, and asked for before they are needed.
            ordered = sorted(waiting.values(), key=lambda r: (r.generation, r.offset))
            for at, ref in enumerate(ordered):
                if at % _AHEAD == 0:
                    self._ask(ordered[at : at + 2 * _AHEAD])
                found[ref.id] = self._read(ref, make)
            now = self._view.refs(waiting)
            moved = {}
            for number, ref in waiting.items():
                if number not in now:
                    found[number] = Seen(number, None)
                elif now[number] != ref:
                    moved[number] = now[number]
            waiting = moved
            if not waiting:
                break
        for number in waiting:
            found[number] = Seen(number, None, "moved faster than it could be read")
        for ref in refs:
            yield found[ref.id]

    def _ask(self, refs: Sequence[Ref]) -> None:
        """Have the disk read what will be wanted soon; what fails now is told when it is read."""
        for ref in refs:
            for path in self._paths(ref.generation):
                with contextlib.suppress(OSError):
                    fd = self._descriptor(ref.generation, path)
                    os.posix_fadvise(fd, ref.offset, _FIRST, os.POSIX_FADV_WILLNEED)

    def _read(self, ref: Ref, make: Callable[[Ref, InstanceMeta, Pieces], T]) -> Seen[T]:
        damage = f"the segment of generation {ref.generation} is missing"
        for path in self._paths(ref.generation):
            try:
                with system.translated(f"reading segment {path.name}"):
                    meta, pieces = self._record(self._descriptor(ref.generation, path), ref)
                    with contextlib.closing(pieces):
                        return Seen(ref.id, make(ref, meta, pieces))
            except SpoolError as error:
                damage = str(error)
        return Seen(ref.id, None, damage)

    def _record(self, fd: int, ref: Ref) -> tuple[InstanceMeta, Pieces]:
        raw = os.pread(fd, _FIRST, ref.offset)
        header = RecordHeader.from_bytes(raw[:RECORD_HEADER_SIZE])
        # One whose number was another's as well has that still in its record.
        if header is None or (
            (header.id, header.generation, header.offset) != (ref.id, ref.generation, ref.offset)
            and not is_of(header, ref)
        ):
            raise SpoolError("no sound record at its place")
        figures = (header.data_offset, header.length, header.crc, header.large)
        if figures != (ref.data_offset, ref.length, ref.crc, ref.large):
            raise SpoolError("the index has other figures of it than its record")
        end = RECORD_HEADER_SIZE + header.meta_length
        if end > len(raw):
            raw += system.read_all(fd, end - len(raw), ref.offset + len(raw))
        description = raw[RECORD_HEADER_SIZE:end]
        if len(description) != header.meta_length or crc32(description) != header.meta_crc:
            raise SpoolError("damaged description")
        try:
            meta = InstanceMeta.from_bytes(description)
        except ValueError as error:
            raise SpoolError(str(error)) from None
        if ref.large:
            return meta, self._large_pieces(ref)
        return meta, self._pieces(fd, ref, raw[end : end + ref.length])

    def _pieces(self, fd: int, ref: Ref, first: bytes) -> Pieces:
        at = len(first)
        if first:
            yield first
        while at < ref.length:
            piece = os.pread(fd, min(_MORE, ref.length - at), ref.data_offset + at)
            if not piece:
                raise SpoolError(f"ends after {at} of {ref.length} bytes")
            yield piece
            at += len(piece)

    def _large_pieces(self, ref: Ref) -> Pieces:
        path = large_path(self._large, ref.id)
        with system.translated(f"reading {path.name}"):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield from self._pieces(fd, ref, b"")
        finally:
            system.close(fd)

    # -- files ---------------------------------------------------------------------------------

    def _paths(self, generation: int) -> list[Path]:
        """Segments that say they are in a generation; a damaged start may leave two."""
        if generation not in self._lives and generation not in self._unfound:
            self._look()
            if generation not in self._lives:
                self._unfound.add(generation)  # not to be looked for again at each of a thousand
        return self._lives.get(generation, [])

    def _look(self) -> None:
        lives: dict[int, list[Path]] = {}
        with system.translated(f"reading the segments in {self._segments}"):
            for path in sorted(self._segments.iterdir()):
                if path.suffix != ".seg":
                    continue
                try:
                    with path.open("rb") as file:
                        header = SegmentHeader.from_bytes(file.read(BLOCK))
                except OSError:
                    continue  # what lies there is told as damaged, instance by instance
                if header is not None and header.generation:
                    lives.setdefault(header.generation, []).append(path)
        self._lives = lives

    def _descriptor(self, generation: int, path: Path) -> int:
        # By generation too: a file of the same name may be another one in its next life.
        fd = self._open.get((generation, path))
        if fd is None:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            # A little of each record is read, so reading ahead would be for nothing.
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
            self._open[generation, path] = fd
            if len(self._open) > _OPEN:
                system.close(self._open.popitem(last=False)[1])
        else:
            self._open.move_to_end((generation, path))
        return fd
