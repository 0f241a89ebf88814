"""How long the event loop keeps what happens waiting.

Owns one timer on the loop.  A timer that is due while something holds the loop fires late by
what was left of the hold-up, and so does every other event that comes at such a moment: the
lateness, sampled at even steps, is what peers and pages feel.
"""

import asyncio
import time
from collections.abc import Callable

from router.observe.counters import Histogram

INTERVAL = 0.02


class StallMeter:
    """Observes the lateness, in seconds, of a timer every ``interval`` into ``histogram``.

    ``clock`` must be finer than the loop's own, which uvloop rounds to milliseconds.
    """

    __slots__ = ("_clock", "_due", "_handle", "_histogram", "_interval", "_loop")

    def __init__(
        self,
        histogram: Histogram,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        clock: Callable[[], float] = time.monotonic,
        interval: float = INTERVAL,
    ) -> None:
        self._histogram = histogram
        self._loop = loop
        self._clock = clock
        self._interval = interval
        self._due = 0.0
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to measure; on the running loop when none was given."""
        if self._handle is None:
            self._loop = self._loop or asyncio.get_running_loop()
            self._arm(self._loop)

    def stop(self) -> None:
        """Stop; what was observed stays.  May be started again."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = self._clock() + self._interval
        self._handle = loop.call_later(self._interval, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        # Timers are rounded to milliseconds and may fire a little early.
        self._histogram.observe(max(0.0, self._clock() - self._due))
        self._arm(loop)
