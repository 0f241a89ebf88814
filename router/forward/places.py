"""How many associations all destinations together may have.

Owns who may have how many.  Must not know destinations beyond their names, nor associations.
"""

import math
from collections.abc import Callable


class Places:
    """At most ``limit`` in all, one of them for each destination whatever the others do.

    So one that is dead, or silent, or wants them all, keeps no other from sending: the first
    place of each is its own, and only what is left over is for whoever comes first.  ``limit`` is
    no less than the number of destinations, which the configuration is checked for.
    """

    def __init__(self, limit: float = math.inf) -> None:
        self._limit = limit
        self._held: dict[str, int] = {}
        self._wake: dict[str, Callable[[], None]] = {}
        self._refused: set[str] = set()

    def configure(self, limit: float) -> None:
        """Another number; who has more than it allows keeps it until it is given up."""
        more = limit > self._limit
        self._limit = limit
        if more:
            self._call()

    def join(self, name: str, wake: Callable[[], None]) -> None:
        """A destination that wants to be told, by ``wake``, when it may have more."""
        self._held.setdefault(name, 0)
        self._wake[name] = wake

    def leave(self, name: str) -> None:
        """It is not configured any more: no place is kept for it but those that it has."""
        self._wake.pop(name, None)
        self.holds(name, self._held.get(name, 0))

    def holds(self, name: str, count: int) -> None:
        """It has so many now."""
        fewer = count < self._held.get(name, 0)
        if count or name in self._wake:
            self._held[name] = count
        else:
            self._held.pop(name, None)
        if fewer:
            self._call()

    def allowed(self, name: str) -> int | None:
        """How many it may have in all, what it has included; None when there is no limit."""
        if self._limit == math.inf:
            return None
        held = self._held.get(name, 0)
        kept = sum(1 for other, count in self._held.items() if other != name and not count)
        total = sum(self._held.values())
        if (over := total - int(self._limit)) > 0:  # as after a reload
            return max(1, held - over)
        free = max(0, int(self._limit) - total - kept)
        if not free:
            self._refused.add(name)
        return max(1, held + free)

    def _call(self) -> None:
        refused, self._refused = self._refused, set()
        for name in refused:
            if (wake := self._wake.get(name)) is not None:
                wake()
