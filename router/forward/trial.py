"""What a destination gets that is not known to take instances: one if it answers, few if not.

Owns how much it leases while it is tried, and when others may have what waits behind that one.
Must not know how it is sent, nor who the others are.
"""

from collections.abc import Callable

from router.forward.board import Board
from router.forward.breaker import Breaker
from router.forward.ledger import Ledger
from router.forward.regime import Regime

PROBED = 64
"""Instances that a probe may choose from, so that it need not be the same one each time."""
PATIENCE = 5.0
"""Seconds in which the one is mostly stored; a peer that is silent takes far longer to tell."""
_AGAIN = 60.0
"""Seconds until the next one is asked for after one that told nothing of the destination."""


class Trial:
    """``trying()`` tells whether the one is on its way, ``now()`` is the clock of timers."""

    def __init__(
        self,
        breaker: Breaker,
        board: Board,
        ledger: Ledger,
        regime: Regime,
        *,
        trying: Callable[[], bool],
        now: Callable[[], float],
    ) -> None:
        self._breaker = breaker
        self._board = board
        self._ledger = ledger
        self._regime = regime
        self._trying = trying
        self._now = now
        self._since: float | None = None
        self._not_before = 0.0
        self._known = (False, False, False)

    @property
    def most(self) -> int | None:
        """How many more may be leased; None when it is known to take them."""
        if not self._breaker.unproven:
            return None
        return 0 if self._board.waiting or self._trying() else 1

    @property
    def leased(self) -> int | None:
        """How many more it may have of its queue; None for as many as there is room for.

        What is down gets what a probe needs: to read a board full for each of a hundred that
        refuse the call costs those that take something.
        """
        return self.most if self._breaker.up else max(0, PROBED - self._board.waiting)

    @property
    def wants_one(self) -> bool:
        """Whether it is to be tried, and nothing that is due waits for it."""
        idle = not self._ledger.more and not self._ledger.trouble
        if self.most != 1 or not idle or self._regime.permit.nothing:
            return False
        return self._now() >= self._not_before

    @property
    def gives_way_in(self) -> float | None:
        """Seconds until others may have what waits; 0.0 when they may, None when it has had
        none to be tried with."""
        if not self._breaker.unproven:
            return None
        if self._since is not None:
            return max(0.0, self._since + PATIENCE - self._now())
        return 0.0 if self._now() < self._not_before else None

    def next_wake(self) -> float | None:
        """When, by the clock of timers, `look` may find something else."""
        waits = self.most == 1 and self._not_before > self._now()
        return self._not_before if waits else None

    def look(self) -> bool:
        """Takes note of where it is; True when others ought to know."""
        if self.most is None:
            self._since, self._not_before = None, 0.0
        elif self.most:
            if self._since is not None:
                self._not_before = self._now() + _AGAIN
            self._since = None
        elif self._since is None:
            self._since = self._now()
        in_vain = self._now() < self._not_before
        known, self._known = self._known, (self.wants_one, self._since is not None, in_vain)
        return known != self._known
