"""When the spool is too full, how much has to go, and when that is enough.

Owns the two marks: a purge begins above the high one and ends at the low one.  Pure; must not know
where the figures come from.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Run:
    """One purge between the marks, as it is told of.

    ``oldest`` is when the one was settled that was settled first of those that are left, None
    when none is; ``ended`` is False for one that has nothing left to purge and is still above the
    low mark.
    """

    count: int
    bytes: int
    share: float
    oldest: float | None
    ended: bool


class Marks:
    """Asked once a step.  ``running``: from above the high mark until the low one."""

    def __init__(self) -> None:
        self.running = False
        self.share: float | None = None
        """Of the capacity that was in use when last asked; None without marks."""
        self._count = 0
        self._bytes = 0
        self._stuck = False

    def excess(
        self, marks: tuple[float, float] | None, used: int, capacity: int, promised: int
    ) -> int:
        """Bytes that are to be purged now; 0 for none.

        ``promised`` of ``used`` will be free without any purge: what holds nothing that lives, and
        is only not given back yet.
        """
        if marks is None or capacity <= 0:
            self.running, self.share = False, None
            return 0
        high, low = marks
        self.share = used / capacity
        if not self.running and used > high * capacity:
            self.running, self._stuck = True, False
            self._count = self._bytes = 0
        if not self.running:
            return 0
        return max(0, used - promised - int(low * capacity))

    def purged(self, count: int, size: int) -> None:
        """So much was deleted."""
        if self.running:
            self._count += count
            self._bytes += size

    def told(
        self, marks: tuple[float, float] | None, used: int, capacity: int, *, idle: bool
    ) -> tuple[int, int, bool] | None:
        """After a step: (instances, bytes, whether the low mark was reached) when there is
        something to tell, once each.  ``idle``: more was to be purged, and nothing could be."""
        if not self.running or marks is None:
            return None
        self.share = used / capacity
        if used <= marks[1] * capacity:
            self.running = False
            return self._count, self._bytes, True
        if idle and not self._stuck:
            self._stuck = True
            return self._count, self._bytes, False
        return None
