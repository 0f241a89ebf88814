"""How often the same thing is said.

Owns the counting of repetitions, so that a peer that is refused a thousand times a minute costs
a few lines and one that says how many more there were.  Pure: ``now`` comes from the caller.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class _Window:
    started: float
    admitted: int = 0
    suppressed: int = 0


class RateLimited:
    """At most ``limit`` lines per key in each ``interval`` seconds.

    Remembers ``max_keys`` keys; the one whose window is oldest makes room for a new one, and
    what was held back for it is still reported by `drain`.
    """

    def __init__(self, limit: int = 5, interval: float = 60.0, max_keys: int = 1024) -> None:
        if limit < 1 or interval <= 0 or max_keys < 1:
            raise ValueError("limit, interval and max_keys are positive")
        self._limit = limit
        self._interval = interval
        self._max_keys = max_keys
        self._windows: dict[str, _Window] = {}
        self._evicted: list[tuple[str, int]] = []

    def admit(self, key: str, now: float) -> int | None:
        """None when the line is to be held back; else how many were, in the window before."""
        window = self._windows.get(key)
        if window is not None and now - window.started < self._interval:
            if window.admitted >= self._limit:
                window.suppressed += 1
                return None
            window.admitted += 1
            return 0
        # Out and in again keeps the dictionary in the order of the windows' beginnings.
        if window is not None:
            del self._windows[key]
        elif len(self._windows) >= self._max_keys:
            self._evict()
        self._windows[key] = _Window(now, admitted=1)
        return window.suppressed if window is not None else 0

    def drain(self, now: float) -> list[tuple[str, int]]:
        """Keys whose window is over, with how many lines were held back; each only once."""
        result, self._evicted = self._evicted, []
        while self._windows:
            key, window = next(iter(self._windows.items()))
            if now - window.started < self._interval:
                break
            del self._windows[key]
            if window.suppressed:
                result.append((key, window.suppressed))
        return result

    def next_due(self) -> float | None:
        """When `drain` is worth calling next; None when nothing is remembered."""
        first = next(iter(self._windows.values()), None)
        if self._evicted:
            return first.started if first else 0.0
        return first.started + self._interval if first else None

    def _evict(self) -> None:
        key, window = next(iter(self._windows.items()))
        del self._windows[key]
        if window.suppressed:
            # Bounded too: a flood of keys, each with repetitions, is summed up under one name.
            if len(self._evicted) < self._max_keys:
                self._evicted.append((key, window.suppressed))
            else:
                _, count = self._evicted[-1]
                self._evicted[-1] = ("others", count + window.suppressed)
