"""How many associations there may be to all destinations together.

Owns who may have how many, those that carry nothing of a queue included.  Must not know
destinations beyond their names, nor associations.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Callable


class Places:
    """At most ``limit`` in all, one of them for each destination whatever the others do.

    So one that is dead, or silent, or wants them all, keeps no other from sending: the first
    place of each is its own, and only what is left over is for whoever comes first.  ``limit`` is
    no less than the number of destinations, which the configuration is checked for.

    An association beside the queue, an *errand*, takes one of its destination's places.  Where it
    has no other, sending makes room: the two take turns.
    """

    def __init__(self, limit: float = math.inf) -> None:
        self._limit = limit
        self._held: dict[str, int] = {}
        self._errands: Counter[str] = Counter()
        self._line: list[tuple[str, asyncio.Future[None]]] = []
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
        self._call()  # the place that was kept for it is anybody's now

    def holds(self, name: str, count: int) -> None:
        """It has so many now, errands apart."""
        fewer = count < self._held.get(name, 0)
        if count or name in self._wake:
            self._held[name] = count
        else:
            self._held.pop(name, None)
        if fewer:
            self._call()

    def allowed(self, name: str) -> int | None:
        """How many it may have in all for sending, what it has included; None when there is no
        limit, 0 while its only place is that of an errand."""
        if self._limit == math.inf:
            return None
        asked = sum(1 for waiting, _ in self._line if waiting == name)
        return max(0, self._entitled(name) - self._errands[name] - asked)

    async def errand(self, name: str) -> Callable[[], None]:
        """Waits for a place beside the queue; what is returned gives it back, once."""
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append((name, granted))
        self._grant()
        if not granted.done():
            self._rouse(name)
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self._give_back(name)
            else:
                self._line = [entry for entry in self._line if entry[1] is not granted]
                self._rouse(name)
            raise
        given = False

        def give_back() -> None:
            nonlocal given
            if not given:
                given = True
                self._give_back(name)

        return give_back

    def _give_back(self, name: str) -> None:
        self._errands[name] -= 1
        if not self._errands[name]:
            del self._errands[name]
        self._refused.add(name)
        self._call()

    def _taken(self, name: str) -> int:
        return self._held.get(name, 0) + self._errands[name]

    def _entitled(self, name: str) -> int:
        """How many it may have in all, whatever for."""
        taken = self._taken(name)
        kept = sum(1 for other in self._held if other != name and not self._taken(other))
        total = sum(self._held.values()) + self._errands.total()
        if (over := total - int(self._limit)) > 0:  # as after a reload
            return max(1, taken - over)
        free = max(0, int(self._limit) - total - kept)
        if not free:
            self._refused.add(name)
        return max(1, taken + free)

    def _grant(self) -> None:
        for entry in list(self._line):
            name, granted = entry
            if self._limit != math.inf and self._taken(name) >= self._entitled(name):
                continue
            if not granted.done():  # else its task is being cancelled, and takes it off the line
                self._line.remove(entry)
                self._errands[name] += 1
                granted.set_result(None)

    def _call(self) -> None:
        self._grant()
        refused, self._refused = self._refused, set()
        for name in refused:
            self._rouse(name)

    def _rouse(self, name: str) -> None:
        if (wake := self._wake.get(name)) is not None:
            wake()
