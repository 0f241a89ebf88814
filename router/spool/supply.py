"""The pool of spare segments: how many are to be ready, and when they are made.

Zeroing takes its time, so this runs on a thread other than the index's.
"""

import math

from router.spool.errors import SpoolFull
from router.spool.spool import Spool

_READY = 2
"""Spares that are made whatever goes on: more would take the disk from what comes in."""
_QUIET = 8
"""Less than this part of a segment, in bytes, comes in between two looks while it is quiet."""


class Supply:
    """`keep` is called every second or so."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._written = spool.segments.written
        """At the last look."""
        self.gives = False
        """Spares are to be given back: a purge by the marks made some."""

    def keep(self) -> None:
        """Make spares, most of them while it is quiet; give space back when the disk runs low.

        Raises SpoolError.
        """
        segments, settings = self._spool.segments, self._spool.settings
        # What the marks give up is for others on the disk too.
        gives, self.gives = self.gives and settings.max_size is None, False
        low = self._spool.free_bytes() < settings.low_disk
        if gives or low:
            segments.trim(self._least() if low else settings.spare_segments)
            return
        try:
            more = True
            while more and self._size() <= self._most():
                more = segments.refill(self._wanted())
        except SpoolFull as error:
            raise SpoolFull(f"the pool of segments is short: {error}") from error
        finally:
            self._written = segments.written

    def _wanted(self) -> int:
        """How many spares are to be ready now."""
        settings = self._spool.settings
        written = self._spool.segments.written - self._written
        busy = written > settings.segment_size // _QUIET
        # The other half of `max_size` is for instances, also for those in files of their own.
        low = self._spool.free_bytes() - settings.segment_size < settings.low_disk
        if busy or low or self._size() > self._most() / 2:
            return self._least()
        return settings.spare_segments

    def _least(self) -> int:
        return min(_READY, self._spool.settings.spare_segments)

    def _size(self) -> int:
        """Of the spool, with one spare more."""
        return self._spool.used_bytes() + self._spool.settings.segment_size

    def _most(self) -> float:
        settings = self._spool.settings
        return math.inf if settings.max_size is None else settings.max_size
