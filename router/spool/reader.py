"""Reads the data set of one instance back.

Owns the check that what is served is what was committed.  The caller provides the buffers, so
that bytes go from the page cache to where they are sent from, with nothing in between.
"""

import os
from pathlib import Path

from router.spool import system
from router.spool.errors import SpoolDamaged
from router.spool.layout import crc32
from router.spool.record import Ref
from router.spool.segment import Segment
from router.spool.segments import SegmentTable

_COMPARED_AT_ONCE = 1 << 20


class Reader:
    """Sequential; keeps its segment from being recycled until `close`."""

    __slots__ = ("_crc", "_fd", "_offset", "_path", "_ref", "_segment", "_table", "remaining")

    def __init__(self, ref: Ref, table: SegmentTable, segment: Segment | None, path: Path) -> None:
        self._ref = ref
        self._table = table
        self._segment = segment
        self._path = path
        self._fd = segment.fd if segment is not None and not ref.large else -1
        self._offset = ref.data_offset
        self._crc = 0
        self.remaining = ref.length

    @property
    def length(self) -> int:
        """Bytes of the data set."""
        return self._ref.length

    def try_read(self, buffers: list[memoryview]) -> bool:
        """Fill all of `buffers` if that needs no wait for the disk; else False, nothing is read.

        Raises SpoolDamaged as `read` does; of an error of the disk `read` will tell.
        """
        if self._fd < 0:
            return False
        wanted = sum(map(len, buffers))
        if wanted > self.remaining or len(buffers) > system.IOV_MAX:
            return False
        try:
            count = os.preadv(self._fd, buffers, self._offset, os.RWF_NOWAIT)
        except OSError:
            return False
        if count != wanted:
            return False
        self._took(buffers, count)
        return True

    def read(self, buffers: list[memoryview]) -> None:
        """Fill all of `buffers`.  Blocking: call it off the event loop.

        Raises SpoolDamaged when the bytes are not there or are not those committed; before the
        last of them are handed over, so that a damaged instance is never served whole.
        """
        wanted = sum(map(len, buffers))
        if wanted > self.remaining:
            raise SpoolDamaged(
                f"instance {self._ref.id}: {wanted} bytes wanted, {self.remaining} are left"
            )
        with system.translated(f"reading instance {self._ref.id}"):
            if self._fd < 0:
                self._open()
            offset = self._offset
            for start in range(0, len(buffers), system.IOV_MAX):
                offset += self._read_some(buffers[start : start + system.IOV_MAX], offset)
        self._took(buffers, wanted)

    def _read_some(self, buffers: list[memoryview], offset: int) -> int:
        wanted = sum(map(len, buffers))
        count = os.preadv(self._fd, buffers, offset)
        if count == wanted:
            return count
        got = 0
        for buffer in buffers:  # a short read: once more, piece by piece
            while len(buffer):
                count = os.preadv(self._fd, [buffer], offset + got)
                if count == 0:
                    raise SpoolDamaged(f"instance {self._ref.id}: its file ends too early")
                got += count
                buffer = buffer[count:]
        return got

    def _open(self) -> None:
        if self._segment is not None and not self._ref.large:
            self._fd = self._table.open(self._segment)
        else:
            try:
                self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError as error:
                raise SpoolDamaged(
                    f"instance {self._ref.id}: its file {self._path.name} is missing"
                ) from error

    def _took(self, buffers: list[memoryview], count: int) -> None:
        crc = self._crc
        for buffer in buffers:
            crc = crc32(buffer, crc)
        self._crc = crc
        self._offset += count
        self.remaining -= count
        if self.remaining == 0 and crc != self._ref.crc:
            raise SpoolDamaged(
                f"instance {self._ref.id}: CRC-32 is {crc:08x}, {self._ref.crc:08x} was committed"
            )

    def close(self) -> None:
        """Let the segment go.  May be called twice."""
        if self._segment is not None:
            self._table.unpin(self._segment)
            self._segment = None
            if not self._ref.large:
                self._fd = -1
        descriptor, self._fd = self._fd, -1
        system.close(descriptor)


def same_data(one: Reader, two: Reader) -> bool:
    """Whether two instances of one length, of which nothing was read yet, have equal data sets.

    Blocking.  Raises what `Reader.read` raises.
    """
    left, right = bytearray(_COMPARED_AT_ONCE), bytearray(_COMPARED_AT_ONCE)
    while one.remaining:
        count = min(len(left), one.remaining)
        one.read([memoryview(left)[:count]])
        two.read([memoryview(right)[:count]])
        if left[:count] != right[:count]:
            return False
    return True
