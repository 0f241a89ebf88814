"""One segment file in one of its lives.

Owns what is remembered of it while the gateway runs.  Must not know what lies on the disk.
"""

from pathlib import Path

from router.spool.layout import BLOCK
from router.spool.record import Position


class Segment:
    """One segment file in one of its lives.  Guarded by the table's lock, but for `fd` I/O."""

    __slots__ = (
        "acked",
        "direct",
        "fd",
        "generation",
        "number",
        "past",
        "path",
        "pins",
        "size",
        "suspect",
        "unread",
        "used",
    )

    def __init__(self, path: Path, number: int, size: int, generation: int) -> None:
        self.path = path
        self.number = number
        self.size = size
        self.generation = generation
        self.fd = -1
        self.direct = -1
        """For the committer's writes past the page cache, while the segment is active."""
        self.past = 0
        self.pins = 0
        self.used = BLOCK
        self.acked = 0
        self.unread = False
        self.suspect = False
        """The disk failed to take something here: for no further life."""

    def indexed(self, position: Position | None) -> bool:
        """Whether the index, at `position`, was told of all that was acknowledged here.

        `acked` is the offset behind the last such record since the start; a segment of before
        the start was read by recovery.  Copies do not count: the index learns of them by moves.
        One that recovery could not read (`unread`) may hold what nobody knows of: never.
        """
        if self.unread:
            return False
        if not self.acked:
            return True
        return position is not None and not position < Position(self.generation, self.acked)
