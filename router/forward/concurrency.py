"""How many associations a destination is worth at present.

Owns the window that opens slowly on success and shuts fast on failure, within what is configured.
Pure: takes ``now`` in seconds of any one clock; must not know associations.
"""

_FULL_FIRST = 60.0
_FULL_CAP = 960.0
"""Seconds in which a peer that took no more associations is not asked for another, doubled each
time it refuses again, unless it did not for as long as the last of them."""


class Concurrency:
    """Begins wide open: associations are opened one after the other, each when the one before is
    at work, so an untried peer gets one.  A failure halves the window, a peer that went down
    begins with one, and as many answers as it is wide open it by one more.

    Where the peer refused one more while others stood, it is full: it is not asked for more than
    it took until some time has passed.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = float(limit)
        self._ceiling = limit
        self._full_until = 0.0
        self._refusals = 0

    @property
    def allowed(self) -> int:
        """How many associations may be at work."""
        return int(self._size)

    @property
    def shut(self) -> str:
        """Why there may be fewer than are configured, in words; "" when nothing was wrong."""
        if self._ceiling < self._limit:
            return f"{self._ceiling} of {self._limit} associations, as it takes no more"
        if self.allowed < self._limit:
            return f"{self.allowed} of {self._limit} associations after failures"
        return ""

    def configure(self, limit: int) -> None:
        """Another number is configured, or another peer stands behind the name: begins anew."""
        self._limit = self._ceiling = limit
        self._size = float(limit)
        self._refusals = 0

    def succeeded(self, now: float) -> bool:
        """The peer answered.  True when one more association may be had by that."""
        if self._size >= self._limit:
            return False
        if self._ceiling < self._limit and now >= self._full_until:
            self._ceiling = self._limit
        before = self.allowed
        # A hair more than the sum of the shares, which is not exact, else 3 may stay 2.99….
        self._size = max(self._size, min(self._size + 1 / self._size + 1e-9, self._ceiling))
        return self.allowed > before

    def failed(self) -> None:
        """A message or an association failed."""
        self._size = max(1.0, self._size / 2)

    def down(self) -> None:
        """The peer is not to be sent to for a while."""
        self._size = 1.0

    def full(self, standing: int, now: float) -> None:
        """One more was refused while ``standing`` others, at least one, were at work."""
        if now - self._full_until > _FULL_CAP:  # it took more meanwhile, or was not asked
            self._refusals = 0
        self._ceiling = max(1, min(standing, self._limit))
        self._size = min(self._size, float(self._ceiling))
        self._full_until = now + min(_FULL_FIRST * 2**self._refusals, _FULL_CAP)
        self._refusals = min(self._refusals + 1, 10)
