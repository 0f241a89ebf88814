"""A token bucket: how much may go per second, for all who share it.

Owns the tokens and the line of those who wait for some.  Must not know what a token stands for,
nor when its rate changes: it is told.
"""

import asyncio
import math
from collections import deque

_BURST = 0.1
"""Seconds of the rate that gather while nobody asks."""
_INSTANT = 1e-6
"""Seconds that no timer is set for: the clock may not tell them apart."""


class Bucket:
    """Lets ``rate`` tokens a second through, in the order in which they were asked for.

    Whoever comes first gets all that it asks for as soon as there is no debt, and leaves what it
    had beyond the tokens as a debt to those behind: so an amount may be larger than the bucket,
    and over any stretch of time no more passes than the rate gives, a tenth of a second of it and
    one amount.  A rate of inf lets everything through at once.  To be made on the event loop.
    """

    def __init__(self, rate: float = math.inf) -> None:
        self._loop = asyncio.get_running_loop()
        self._rate = rate
        self._tokens = self._burst
        self._at = self._loop.time()
        self._line: deque[tuple[float, asyncio.Future[None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self._rate

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._line)

    @property
    def wait(self) -> float:
        """Seconds until who asks now would be let through, after all who stand in line."""
        self._gather()
        if self._rate == math.inf or (not self._line and self._free):
            return 0.0
        return max(0.0, (sum(count for count, _ in self._line) - self._tokens) / self._rate)

    def set_rate(self, rate: float) -> None:
        """Another rate from now on; who waits for it waits as long as that says."""
        if rate == self._rate:
            return
        self._gather()
        if self._rate == math.inf or rate == math.inf:
            self._tokens = 0.0  # what was let through without a limit is owed by nobody
        else:
            # With less, a debt of a second stays one; with more it is of as many tokens as before,
            # else who raises a limit waits for as long as the old one said.
            scaled = self._tokens * rate / self._rate
            self._tokens = max(scaled, self._tokens) if self._tokens < 0 else scaled
        self._rate = rate
        self._serve()

    async def take(self, count: float) -> None:
        """Waits for ``count`` tokens; nothing is taken when this is cancelled meanwhile."""
        if self._rate == math.inf:
            return
        self._gather()
        if not self._line and self._free:
            self._tokens -= count
            return
        turn: asyncio.Future[None] = self._loop.create_future()
        self._line.append((count, turn))
        self._serve()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._line = deque(each for each in self._line if each[1] is not turn)
                self._serve()
            else:
                self.give_back(count)
            raise

    def give_back(self, count: float) -> None:
        """Tokens that were taken and not used."""
        if self._rate != math.inf:
            self._gather()
            self._tokens = min(self._tokens + count, self._burst)
            self._serve()

    @property
    def _burst(self) -> float:
        return self._rate * _BURST if self._rate != math.inf else 0.0

    @property
    def _free(self) -> bool:
        return self._rate == math.inf or self._tokens >= -self._rate * _INSTANT

    def _gather(self) -> None:
        now = self._loop.time()
        if self._rate != math.inf:
            self._tokens = min(self._tokens + (now - self._at) * self._rate, self._burst)
        self._at = now

    def _serve(self) -> None:
        self._gather()
        while self._line and self._free:
            count, turn = self._line.popleft()
            if not turn.done():
                turn.set_result(None)
                if self._rate != math.inf:
                    self._tokens -= count
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._line:
            self._timer = self._loop.call_later(-self._tokens / self._rate, self._serve)
