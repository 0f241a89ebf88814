"""Data sets that were committed a moment ago, still in memory for those who forward them.

Segments are written past the page cache, so what is forwarded at once would be read back from
the disk.  Owns which blocks are kept for that, and for how long; never more of them than a share
of the pool's limit, and none that an arriving instance needs.  On the event loop's thread only.
"""

from dataclasses import dataclass

from router.spool.blocks import BlockPool
from router.spool.errors import SpoolDamaged
from router.spool.layout import crc32
from router.spool.record import Ref

_SHARE = 3
"""Of the pool's limit, a third may hold what was committed."""


@dataclass(slots=True, eq=False)
class _Kept:
    blocks: list[memoryview]
    uses: int
    pins: int = 0
    dropped: bool = False


class Recent:
    """What was committed last, the oldest dropped first."""

    def __init__(self, pool: BlockPool) -> None:
        self._pool = pool
        self._kept: dict[int, _Kept] = {}
        pool.reclaim = self._drop_oldest

    def keep(self, instance_id: int, blocks: list[memoryview], uses: int) -> None:
        """Take over the blocks of a committed data set, until `uses` readers have read it whole.

        Given back at once when nobody is going to read it.
        """
        pool = self._pool
        if not uses:
            pool.give_back(blocks)
            return
        size = sum(map(len, blocks))
        most = pool.limit // _SHARE
        if size > most:
            pool.give_back(blocks)
            return
        pool.keep(size)
        self._kept[instance_id] = _Kept(blocks, uses)
        while pool.kept > most and self._kept:
            self._drop_oldest()

    def open(self, ref: Ref) -> "RecentReader | None":
        """A reader of the data set of `ref`, if it is still here."""
        kept = self._kept.get(ref.id)
        if kept is None:
            return None
        kept.pins += 1
        return RecentReader(self, kept, ref)

    def closed(self, kept: _Kept, instance_id: int, *, whole: bool) -> None:
        """For readers: one fewer reads it, and has perhaps read it `whole`."""
        kept.pins -= 1
        kept.uses -= whole
        if kept.dropped:
            if not kept.pins:
                self._pool.forget(kept.blocks)
        elif kept.uses <= 0:
            self._drop(instance_id)

    def _drop_oldest(self) -> None:
        for instance_id in self._kept:
            self._drop(instance_id)
            return

    def _drop(self, instance_id: int) -> None:
        kept = self._kept.pop(instance_id)
        kept.dropped = True
        if not kept.pins:
            self._pool.forget(kept.blocks)


class RecentReader:
    """Reads from memory what `Reader` reads from the disk; never waits."""

    __slots__ = ("_at", "_crc", "_kept", "_recent", "_ref", "remaining")

    def __init__(self, recent: Recent, kept: _Kept, ref: Ref) -> None:
        self._recent: Recent | None = recent
        self._kept = kept
        self._ref = ref
        self._crc = 0
        self._at = (0, 0)
        self.remaining = ref.length

    @property
    def length(self) -> int:
        """Bytes of the data set."""
        return self._ref.length

    def try_read(self, buffers: list[memoryview]) -> bool:
        """See `Reader.try_read`; False only when more is asked for than there is."""
        wanted = sum(map(len, buffers))
        if wanted > self.remaining:
            return False
        blocks = self._kept.blocks
        number, offset = self._at
        crc = self._crc
        for buffer in buffers:
            at, size = 0, len(buffer)
            while at < size:
                block = blocks[number]
                count = min(size - at, len(block) - offset)
                buffer[at : at + count] = block[offset : offset + count]
                at += count
                offset += count
                if offset == len(block):
                    number, offset = number + 1, 0
            crc = crc32(buffer, crc)
        self._at, self._crc = (number, offset), crc
        self.remaining -= wanted
        if not self.remaining and crc != self._ref.crc:
            raise SpoolDamaged(
                f"instance {self._ref.id}: CRC-32 in memory is {crc:08x}, "
                f"{self._ref.crc:08x} was committed"
            )
        return True

    def read(self, buffers: list[memoryview]) -> None:
        """See `Reader.read`."""
        if not self.try_read(buffers):
            wanted = sum(map(len, buffers))
            raise SpoolDamaged(
                f"instance {self._ref.id}: {wanted} bytes wanted, {self.remaining} are left"
            )

    def close(self) -> None:
        """Let the blocks go.  May be called twice."""
        recent, self._recent = self._recent, None
        if recent is not None:
            recent.closed(self._kept, self._ref.id, whole=not self.remaining)
