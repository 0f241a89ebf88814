"""How often the same thing is said.

Owns the counting of repetitions, so that a peer that is refused a thousand times a minute costs
a few lines and one that says how many more there were.  Pure: ``now`` comes from the caller.

A key is ``KIND`` or ``KIND WHO``, and both are limited: a peer that comes from ever new addresses
is not bounded by a limit for each of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(slots=True)
class _Window:
    started: float
    admitted: int = 0
    suppressed: int = 0


class RateLimited:
    """At most ``limit`` lines per key, and ``spread`` times as many per kind, in each ``interval``
    of seconds.

    ``limits`` are other limits per key, for some kinds.  Remembers ``max_keys`` keys; the one
    whose window is oldest makes room for a new one, and what was held back for it is still
    reported by `drain`, under its kind.  Kinds are fixed words of ours, so all of them are
    remembered.
    """

    def __init__(
        self,
        limit: int = 5,
        interval: float = 60.0,
        max_keys: int = 256,
        *,
        spread: int = 12,
        limits: Mapping[str, int] | None = None,
    ) -> None:
        self._limits = dict(limits or {})
        if min(limit, max_keys, spread, *self._limits.values()) < 1 or interval <= 0:
            raise ValueError("limit, interval, max_keys and spread are positive")
        self._limit = limit
        self._interval = interval
        self._max_keys = max_keys
        self._spread = spread
        self._windows: dict[str, _Window] = {}
        self._kinds: dict[str, _Window] = {}

    def admit(self, key: str, now: float) -> int | None:
        """None when the line is to be held back; else how many were, in the window before."""
        kind_name = key.partition(" ")[0]
        limit = self._limits.get(kind_name, self._limit)
        kind, before_kind = self._window(self._kinds, kind_name, now)
        window, before = self._window(self._windows, key, now)
        kind.suppressed += before_kind  # that of others, for `drain` to tell
        if window.admitted >= limit or kind.admitted >= limit * self._spread:
            window.suppressed += 1 + before
            return None
        window.admitted += 1
        kind.admitted += 1
        return before

    def _window(self, windows: dict[str, _Window], key: str, now: float) -> tuple[_Window, int]:
        """The window of a key that is open now, and what was held back in one that is over."""
        window = windows.get(key)
        if window is not None and now - window.started < self._interval:
            return window, 0
        # Out and in again keeps the dictionary in the order of the windows' beginnings.
        before = 0
        if window is not None:
            del windows[key]
            before = window.suppressed
        elif windows is self._windows and len(windows) >= self._max_keys:
            self._evict()
        windows[key] = window = _Window(now)
        return window, before

    def drain(self, now: float) -> list[tuple[str, int]]:
        """Keys whose window is over, with how many lines were held back; each only once.

        What was held back for keys that are forgotten stands under ``KIND, others``.
        """
        result = self._over(self._windows, now)
        result += [(f"{kind}, others", count) for kind, count in self._over(self._kinds, now)]
        return result

    def _over(self, windows: dict[str, _Window], now: float) -> list[tuple[str, int]]:
        result = []
        while windows:
            key, window = next(iter(windows.items()))
            if now - window.started < self._interval:
                break
            del windows[key]
            if window.suppressed:
                result.append((key, window.suppressed))
        return result

    def next_due(self) -> float | None:
        """When `drain` is worth calling next; None when nothing is remembered."""
        firsts = (next(iter(w.values()), None) for w in (self._windows, self._kinds))
        started = [window.started for window in firsts if window is not None]
        return min(started) + self._interval if started else None

    def _evict(self) -> None:
        key, window = next(iter(self._windows.items()))
        del self._windows[key]
        if window.suppressed:
            kind = key.partition(" ")[0]
            self._kinds.setdefault(kind, _Window(window.started)).suppressed += window.suppressed
