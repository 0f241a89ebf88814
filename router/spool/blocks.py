"""Memory for instances that are still arriving.

Owns a pool of blocks of two sizes, used again and again, so that receiving allocates nothing.
Used on the event loop's thread only.
"""

import mmap

BLOCK_SIZE = 64 * 1024
SMALL_BLOCK = 4 * 1024


class BlockPool:
    """Hands out writable blocks of 64 KiB, and of 4 KiB for what may stay that small.

    `limit` is the number of bytes above which `scarce` is True; it does not stop `take`, since
    what has begun to arrive must go somewhere: writers then pass their blocks to disk early.
    """

    def __init__(self, limit: int) -> None:
        self._free: list[memoryview] = []
        self._free_small: list[memoryview] = []
        self._limit = max(BLOCK_SIZE, limit)
        self._idle = 0
        self.in_use = 0
        """Bytes in blocks that are taken."""

    def take(self) -> memoryview:
        """A block of 64 KiB with unspecified contents."""
        self.in_use += BLOCK_SIZE
        if self._free:
            self._idle -= BLOCK_SIZE
            return self._free.pop()
        # Page-aligned, as O_DIRECT wants it; private, so that it counts as memory of the process.
        return memoryview(mmap.mmap(-1, BLOCK_SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))

    def take_small(self) -> memoryview:
        """A block of 4 KiB with unspecified contents."""
        self.in_use += SMALL_BLOCK
        if self._free_small:
            self._idle -= SMALL_BLOCK
            return self._free_small.pop()
        return memoryview(bytearray(SMALL_BLOCK))

    def give_back(self, blocks: list[memoryview]) -> None:
        """Return blocks, as they were taken, whose contents are no longer needed."""
        for block in blocks:
            size = len(block)
            self.in_use -= size
            # Beyond the limit blocks are not kept: memory falls back after a burst.
            if self.in_use + self._idle + size <= self._limit:
                self._idle += size
                (self._free if size == BLOCK_SIZE else self._free_small).append(block)

    @property
    def scarce(self) -> bool:
        """More than the limit is taken."""
        return self.in_use > self._limit

    @property
    def exhausted(self) -> bool:
        """More than twice the limit is taken: nothing more should begin to arrive."""
        return self.in_use > 2 * self._limit
