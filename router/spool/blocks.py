"""Memory for instances that are still arriving.

Owns a pool of equal blocks, used again and again, so that receiving allocates nothing.  Used on
the event loop's thread only.
"""

BLOCK_SIZE = 64 * 1024


class BlockPool:
    """Hands out writable blocks of 64 KiB.

    `limit` is the number of bytes above which `scarce` is True; it does not stop `take`, since
    what has begun to arrive must go somewhere: writers then pass their blocks to disk early.
    """

    def __init__(self, limit: int) -> None:
        self._free: list[memoryview] = []
        self._limit = max(1, limit // BLOCK_SIZE)
        self._made = 0

    def take(self) -> memoryview:
        """A block with unspecified contents."""
        if self._free:
            return self._free.pop()
        self._made += 1
        return memoryview(bytearray(BLOCK_SIZE))

    def give_back(self, blocks: list[memoryview]) -> None:
        """Return blocks whose contents are no longer needed."""
        if self._made > self._limit:
            # Beyond the limit blocks are not kept: memory falls back after a burst.
            self._made -= len(blocks)
            return
        self._free.extend(blocks)

    @property
    def in_use(self) -> int:
        """Bytes in blocks that are taken."""
        return (self._made - len(self._free)) * BLOCK_SIZE

    @property
    def scarce(self) -> bool:
        """More than the limit is taken."""
        return self._made - len(self._free) > self._limit
