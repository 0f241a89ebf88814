"""Memory for instances that are still arriving.

Owns a pool of blocks of two sizes, used again and again, so that receiving allocates nothing.
Used on the event loop's thread only.
"""

import contextlib
import ctypes
import mmap
from collections.abc import Callable

BLOCK_SIZE = 64 * 1024
SMALL_BLOCK = 4 * 1024
_HUGE_PAGE = 2 << 20
_HUGE_SHARE = 16
_HUGE_MOST = 8 << 20
"""Of the pool's limit a sixteenth, and no more than this, lies in huge pages."""


def aligned(size: int) -> memoryview:
    """Zeroed memory of our own that begins at a page, as O_DIRECT wants it.

    Private, so that it counts as memory of the process.
    """
    return memoryview(mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def _huge() -> list[memoryview]:
    """Blocks of one huge page, where the kernel has one to give; else of its small ones.

    Most instances pass through these, and what the kernel must know of each page that it reads
    from or writes to, and the processor of each that is copied to, it then needs to know once.
    """
    room = mmap.mmap(-1, 2 * _HUGE_PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel that knows none
        room.madvise(mmap.MADV_HUGEPAGE)
    # Now, by whoever makes the pool: a virtual machine may need milliseconds to find the memory,
    # for which the event loop should not wait.
    start = -ctypes.addressof(ctypes.c_char.from_buffer(room)) % _HUGE_PAGE
    page = memoryview(room)[start : start + _HUGE_PAGE]
    page[0] = 0
    return [page[at : at + BLOCK_SIZE] for at in range(0, _HUGE_PAGE, BLOCK_SIZE)]


def _nothing() -> None:
    """Nobody keeps blocks."""


class BlockPool:
    """Hands out writable blocks of 64 KiB, page-aligned, and of 4 KiB for what may stay that small.

    `limit` is the number of bytes above which `scarce` is True; it does not stop `take`, since
    what has begun to arrive must go somewhere: writers then pass their blocks to disk early.

    Blocks may also be *kept* with what is in them: they count apart, and are given up, by calls
    of `reclaim`, when those that are taken need the room.
    """

    def __init__(self, limit: int) -> None:
        self.limit = max(BLOCK_SIZE, limit)
        self.in_use = 0
        """Bytes in blocks that are taken."""
        self.kept = 0
        """Bytes in blocks that are kept."""
        self.reclaim: Callable[[], None] = _nothing
        """Forget the oldest of what is kept."""
        self._free: list[memoryview] = []
        pages = min(limit // _HUGE_SHARE, _HUGE_MOST) // _HUGE_PAGE
        self._huge = [block for _ in range(pages) for block in _huge()]
        self._free_small: list[memoryview] = []
        self._idle = 0

    def take(self) -> memoryview:
        """A block of 64 KiB with unspecified contents."""
        if not self._free and self.kept and self.in_use + BLOCK_SIZE + self.kept > self.limit:
            self.reclaim()
        if self._free:
            block = self._free.pop()
            self._idle -= BLOCK_SIZE
        else:
            block = self._huge.pop() if self._huge else aligned(BLOCK_SIZE)
        self.in_use += BLOCK_SIZE
        return block

    def take_small(self) -> memoryview:
        """A block of 4 KiB with unspecified contents."""
        if self._free_small:
            block = self._free_small.pop()
            self._idle -= SMALL_BLOCK
        else:
            block = memoryview(bytearray(SMALL_BLOCK))
        self.in_use += SMALL_BLOCK
        return block

    def give_back(self, blocks: list[memoryview]) -> None:
        """Return blocks, as they were taken, whose contents are no longer needed."""
        for block in blocks:
            self.in_use -= len(block)
            self._put(block)

    def keep(self, size: int) -> None:
        """Blocks of `size` bytes that were taken are kept from now on, until `forget`."""
        self.in_use -= size
        self.kept += size

    def forget(self, blocks: list[memoryview]) -> None:
        """Return blocks that were kept."""
        for block in blocks:
            self.kept -= len(block)
            self._put(block)

    def _put(self, block: memoryview) -> None:
        # Beyond the limit blocks are not used again: memory falls back after a burst.  Those of a
        # huge page would not give theirs back.
        size = len(block)
        if self.in_use + self.kept + self._idle + size <= self.limit:
            self._idle += size
            (self._free if size == BLOCK_SIZE else self._free_small).append(block)
        elif isinstance(block.obj, mmap.mmap) and len(block.obj) > BLOCK_SIZE:
            self._huge.append(block)

    @property
    def scarce(self) -> bool:
        """More than the limit is taken."""
        return self.in_use > self.limit

    @property
    def exhausted(self) -> bool:
        """More than twice the limit is taken: nothing more should begin to arrive."""
        return self.in_use > 2 * self.limit
