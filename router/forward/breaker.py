"""Whether a destination may be called, and when it is probed.

Owns the state of one destination: closed (it works), open (it does not; the next attempt is
due at `Breaker.next_probe`), probing (one attempt is under way, all others wait).  Pure: takes
``now`` in seconds of any one clock, knows no sockets, no log and no queue.

Attempts carry a token.  Several associations may fail of one cause: the first opens the
breaker, and what the others report under the old token changes nothing, else four workers
would climb four steps of the back-off at once.
"""

from enum import Enum
from random import Random

from router.forward.backoff import delay
from router.net.settings import Retry


class BreakerState(Enum):
    """``CLOSED`` lets everybody pass, ``OPEN`` nobody, ``PROBING`` has one attempt out."""

    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"


class Breaker:
    """Opens at a failure to associate, or at ``tolerance`` failed messages in a row.

    ``failures`` counts the failed attempts since it last took an instance, and sets the wait.
    ``next_probe`` is None unless it is open, and then too when a probe may be had at once.
    ``unproven``: it is closed, as the peer is there; it was not asked to take an instance since.
    """

    def __init__(self, retry: Retry, random: Random, *, tolerance: int = 3) -> None:
        self._retry = retry
        self._random = random
        self._tolerance = tolerance
        self._token = 0
        self._strikes = 0
        self.state = BreakerState.CLOSED
        self.reason = ""
        self.failures = 0
        self.unproven = False
        self.next_probe: float | None = None

    @property
    def up(self) -> bool:
        """False from the failure that opened it to the success that closes it."""
        return self.state is BreakerState.CLOSED

    def admits(self, now: float) -> bool:
        """Whether `attempt` would give a token."""
        if self.state is BreakerState.OPEN:
            return self.next_probe is None or now >= self.next_probe
        return self.state is BreakerState.CLOSED

    def attempt(self, now: float) -> int | None:
        """A token to report the attempt with, or None: not now.

        The token taken while open is the probe; there is no second one until it is reported
        or abandoned.
        """
        if not self.admits(now):
            return None
        if self.state is BreakerState.OPEN:
            self.state = BreakerState.PROBING
            self.next_probe = None
            self._token += 1
        return self._token

    def holds(self, token: int) -> bool:
        """Whether an attempt begun under ``token`` may go on to another message."""
        return token == self._token and self.state is not BreakerState.OPEN

    def failed(self, token: int, reason: str, now: float) -> bool:
        """The attempt could not associate.  True when this opened the breaker."""
        if token != self._token or self.state is BreakerState.OPEN:
            return False
        self.state = BreakerState.OPEN
        self._token += 1
        self._strikes = 0
        self.unproven = False
        self.failures += 1
        self.reason = reason
        self.next_probe = now + delay(self._retry, self.failures, self._random.random())
        return True

    def struck(self, token: int, reason: str, now: float) -> bool:
        """A message failed though the association stood.  True when this opened the breaker.

        One such failure may be the instance's fault, so only several in a row open it, or one
        during a probe.
        """
        if token != self._token:
            return False
        self._strikes += 1
        if self.state is BreakerState.PROBING or self._strikes >= self._tolerance:
            return self.failed(token, reason, now)
        return False

    def succeeded(self, token: int, *, weakly: bool = False) -> bool:
        """The peer answered.  True when this closed the breaker.

        ``weakly``: it is there, but what it was asked says nothing of how it takes instances.
        Then its failures are not forgotten before it takes one, and the next opens it again, for
        longer.
        """
        if token != self._token:
            return False
        if weakly:
            if self.state is not BreakerState.PROBING:
                return False
            self.state = BreakerState.CLOSED
            self._strikes = self._tolerance - 1
            self.unproven = True
            self.reason, self.next_probe = "", None
            return True
        self._strikes = 0
        self.unproven = False
        if self.state is not BreakerState.PROBING:
            self.failures = 0
            return False
        self._close()
        return True

    def abandon(self, token: int) -> None:
        """The attempt ended without telling anything; a probe may be had again at once."""
        if token == self._token and self.state is BreakerState.PROBING:
            self.state = BreakerState.OPEN
            self._token += 1

    def hasten(self, now: float) -> None:
        """Somebody mended the destination or asks for a try: the next probe is due now."""
        if self.state is BreakerState.OPEN:
            self.next_probe = now

    def reset(self, retry: Retry) -> None:
        """Another peer stands behind the name: nothing of what was learnt holds any longer."""
        self._retry = retry
        self._token += 1
        self._close()

    def _close(self) -> None:
        self.state = BreakerState.CLOSED
        self._strikes = 0
        self.unproven = False
        self.failures = 0
        self.reason = ""
        self.next_probe = None
