"""Records of one group on their way to the active segment.

Owns how records are laid in memory so that they go to the disk in one write, past the page cache:
whole blocks, from page-aligned memory.  Used on the committer's thread only.
"""

from collections.abc import Sequence

from router.spool import system
from router.spool.blocks import aligned
from router.spool.errors import SpoolFull
from router.spool.layout import RECORD_HEADER_SIZE, RecordHeader, align
from router.spool.segment import Segment

_ARENA = 1 << 20
_COPIED = 16 << 10
"""Shorter data sets share blocks with their header: copying them costs less than a block more."""


def in_place(length: int, *, page_aligned: bool) -> bool:
    """Whether a data set is written from where it lies, and so begins at a block of its own."""
    return page_aligned and length >= _COPIED


def padded(meta: bytes) -> bytes:
    """A description that, behind its header, ends with a block; JSON does not mind the spaces."""
    return meta.ljust(align(RECORD_HEADER_SIZE + len(meta)) - RECORD_HEADER_SIZE)


class Batch:
    """Gathers records that follow one another in a segment; `flush` writes them.

    Headers, descriptions and short data sets are copied to an arena that is used again and again.
    Nothing that was added may be changed before the next `flush` or `clear`.
    """

    def __init__(self) -> None:
        self._arena = aligned(_ARENA)
        self._used = 0
        self._segment: Segment | None = None
        self._offset = 0
        self._pieces: list[memoryview] = []

    def add(
        self, segment: Segment, header: RecordHeader, meta: bytes, data: Sequence[memoryview]
    ) -> None:
        """One record more, whose data set is written from where it lies, to a whole block.

        `data` is page-aligned memory that reaches to the block boundary behind the data set;
        what lies there is overwritten with zeros.
        """
        room = self._room(segment, header, RECORD_HEADER_SIZE + len(meta))
        room[:RECORD_HEADER_SIZE] = header.to_bytes()
        room[RECORD_HEADER_SIZE:] = meta
        self._pieces += _whole_blocks(data, header.length)

    def add_copied(
        self, segment: Segment, header: RecordHeader, meta: bytes, data: Sequence[memoryview]
    ) -> None:
        """One record more, all of it copied; `data` has its exact bytes, wherever they lie."""
        size = RECORD_HEADER_SIZE + len(meta) + sum(map(len, data))
        room = self._room(segment, header, align(size))
        room[:RECORD_HEADER_SIZE] = header.to_bytes()
        at = RECORD_HEADER_SIZE
        for piece in (memoryview(meta), *data):
            room[at : at + len(piece)] = piece
            at += len(piece)
        room[at:] = bytes(len(room) - at)

    def _room(self, segment: Segment, header: RecordHeader, size: int) -> memoryview:
        """`size` bytes, whole blocks, that will be written at the place of `header`."""
        if self._segment is not segment or self._used + size > _ARENA:
            self.flush()
        if not self._pieces:
            self._segment, self._offset = segment, header.offset
        if size > _ARENA:
            room = aligned(size)
        else:
            room = self._arena[self._used : self._used + size]
            self._used += size
        self._pieces.append(room)
        return room

    def flush(self) -> None:
        """Write what was gathered; it is durable when this returns.  Raises SpoolError."""
        segment, pieces = self._segment, self._pieces
        if segment is not None and pieces:
            try:
                system.write_blocks(segment.direct, pieces, self._offset, durably=True)
            except OSError as error:
                failure = system.failure(f"writing to segment {segment.path.name}", error)
                if not isinstance(failure, SpoolFull):
                    segment.suspect = True
                raise failure from error
        self.clear()

    def clear(self) -> None:
        """Forget what was gathered and not written."""
        self._segment, self._pieces, self._used = None, [], 0


def _whole_blocks(data: Sequence[memoryview], length: int) -> list[memoryview]:
    blocks = []
    for block in data:
        if length <= 0:
            break
        if length < len(block):
            end = align(length)
            block[length:end] = bytes(end - length)
            block = block[:end]
        blocks.append(block)
        length -= len(block)
    return blocks
