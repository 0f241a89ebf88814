"""How segments and records lie on disk.

Owns the byte layout and its checks.  Must not know files, threads or what the bytes mean.

A segment is a file of fixed size.  Its first block holds the segment header; records follow,
each starting on a block boundary, so that the block of a record that was acknowledged is never
written again while the record lives:

=======  ====  ===========================================================
segment  size  field (little endian)
=======  ====  ===========================================================
0        8     magic ``DCMRSEG1``
8        8     segment size
16       8     generation: 0 = free, else rises with every life of any segment
24       8     generation of the latest life that is over, 0 if there was none
32       4     CRC-32 of bytes 0–31
=======  ====  ===========================================================

=======  ====  ===========================================================
record   size  field (little endian)
=======  ====  ===========================================================
0        4     magic ``DREC``
4        2     version, 1
6        2     flags: 1 = data set in a file of its own, 2 = copied from another segment
8        8     generation of the segment
16       8     offset of this record in the segment
24       8     instance id
32       8     length of the data set
40       4     CRC-32 of the data set
44       4     length of the description
48       4     CRC-32 of the description
52       8     generation in which the instance was first committed, of a copy; else 0
60       4     CRC-32 of bytes 0–59
64             description, then the data set (unless in a file of its own)
=======  ====  ===========================================================

A description may end with spaces, so that its data set begins at a block: such a one is written
from where it lies in memory.

A record belongs to the log only if generation and offset are those of the place where it was
found: what an earlier life of the segment left behind never matches.  That rests on generations
being used once, so a free segment still names its past one: with the index lost, nothing else
would say which generations the bytes left behind may name.
"""

import functools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from isal import isal_zlib

from router.spool.record import Position, Ref

BLOCK = 4096
SEGMENT_MAGIC = b"DCMRSEG1"
RECORD_MAGIC = b"DREC"
RECORD_HEADER_SIZE = 64
RECORD_VERSION = 1
FLAG_LARGE = 1
FLAG_MOVED = 2
META_LIMIT = 1 << 20  # a description of a thousand routes is some 60 KB

_SEGMENT = struct.Struct("<8sQQQ")
_RECORD = struct.Struct("<4sHHQQQQIIIQ")
_CRC = struct.Struct("<I")


crc32: Callable[..., int] = isal_zlib.crc32
"""``crc32(data, start=0)``: CRC-32 as in ISO 3309 and zlib, continued from ``start``."""


def align(size: int) -> int:
    """The next block boundary at or after `size`."""
    return (size + BLOCK - 1) & -BLOCK


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """The life that a segment is in, 0 is none, and the latest that is over."""

    size: int
    generation: int
    past: int = 0

    def to_bytes(self) -> bytes:
        """One block."""
        head = _SEGMENT.pack(SEGMENT_MAGIC, self.size, self.generation, self.past)
        return (head + _CRC.pack(crc32(head))).ljust(BLOCK, b"\0")

    @classmethod
    def from_bytes(cls, data: bytes) -> "SegmentHeader | None":
        """None when the bytes are no sound header."""
        if len(data) < _SEGMENT.size + 4:
            return None
        magic, size, generation, past = _SEGMENT.unpack_from(data)
        (crc,) = _CRC.unpack_from(data, _SEGMENT.size)
        if magic != SEGMENT_MAGIC or crc != crc32(data[: _SEGMENT.size]):
            return None
        return cls(size, generation, past)


class RecordHeader(NamedTuple):
    """The fixed part of a record."""

    flags: int
    generation: int
    offset: int
    id: int
    length: int
    crc: int
    meta_length: int
    meta_crc: int
    origin: int = 0
    """Generation in which a moved instance was first committed."""

    @property
    def large(self) -> bool:
        """The data set lies in a file of its own."""
        return bool(self.flags & FLAG_LARGE)

    @property
    def moved(self) -> bool:
        """The record was copied here from a segment that was to be recycled."""
        return bool(self.flags & FLAG_MOVED)

    @property
    def data_offset(self) -> int:
        """Offset of the data set in the segment, or 0 in a file of its own."""
        return 0 if self.large else self.offset + RECORD_HEADER_SIZE + self.meta_length

    @property
    def size(self) -> int:
        """Bytes that the record takes in the segment, to the next block boundary."""
        return record_size(self.meta_length, 0 if self.large else self.length)

    @property
    def ref(self) -> Ref:
        """Where the instance lies."""
        flags, generation, offset, number, length, crc, meta_length, *_ = self
        if flags & FLAG_LARGE:
            return Ref(number, generation, offset, 0, length, crc, True)
        data_offset = offset + RECORD_HEADER_SIZE + meta_length
        return Ref(number, generation, offset, data_offset, length, crc, False)

    @property
    def end(self) -> Position:
        """Where the record ends."""
        return Position(self.generation, self.offset + self.size)

    def to_bytes(self) -> bytes:
        """64 bytes."""
        head = _RECORD.pack(
            RECORD_MAGIC,
            RECORD_VERSION,
            self.flags,
            self.generation,
            self.offset,
            self.id,
            self.length,
            self.crc,
            self.meta_length,
            self.meta_crc,
            self.origin,
        )
        return head + _CRC.pack(crc32(head))

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview) -> "RecordHeader | None":
        """None when the bytes are no sound header of a version that we know."""
        if len(data) < RECORD_HEADER_SIZE or bytes(data[:4]) != RECORD_MAGIC:
            return None
        (crc,) = _CRC.unpack_from(data, _RECORD.size)
        if crc != crc32(data[: _RECORD.size]):
            return None
        fields = _RECORD.unpack_from(data)
        _, version, flags, generation, offset, id_, length, data_crc, *rest = fields
        meta_length, meta_crc, origin = rest
        if version != RECORD_VERSION or meta_length > META_LIMIT:
            return None
        return cls(flags, generation, offset, id_, length, data_crc, meta_length, meta_crc, origin)

    @classmethod
    def mended(cls, data: bytes) -> "RecordHeader | None":
        """The header of which one bit is another in these bytes; None when there is no such.

        Any two sound headers differ in more than two bits, so there is one at the most.
        """
        if len(data) < RECORD_HEADER_SIZE:
            return None
        (crc,) = _CRC.unpack_from(data, _RECORD.size)
        bit = _bits_by_syndrome().get(crc ^ crc32(data[: _RECORD.size]))
        if bit is None:
            return None
        mended = bytearray(data[:RECORD_HEADER_SIZE])
        mended[bit // 8] ^= 1 << bit % 8
        return cls.from_bytes(mended)


@functools.cache
def _bits_by_syndrome() -> dict[int, int]:
    """By how the CRC-32 of a record's header differs from the one that stands in it: the one bit of
    the header, counted from its first byte's lowest, that differs then.

    CRC-32 is linear: how a bit changes it depends on its place alone.  To try them all would take
    a millisecond for each block of what an earlier life of the segment left behind.
    """
    found = {}
    zeros = bytes(_RECORD.size)
    for bit in range(8 * _RECORD.size):
        one = bytearray(zeros)
        one[bit // 8] = 1 << bit % 8
        found[crc32(one) ^ crc32(zeros)] = bit
    found.update((1 << bit, 8 * _RECORD.size + bit) for bit in range(32))
    return found


def record_size(meta_length: int, inline_length: int) -> int:
    """Bytes of a record in its segment, to the next block boundary."""
    return align(RECORD_HEADER_SIZE + meta_length + inline_length)
