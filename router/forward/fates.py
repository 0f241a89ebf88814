"""Turns what came of an attempt into the outcome that the index keeps.

Owns the number of attempts that an instance is allowed, when it is tried again, and which ones
may have arrived without our having heard.  Must not know associations or queues.
"""

from collections.abc import Callable
from random import Random

from router.forward.backoff import delay
from router.forward.ledger import Ledger
from router.forward.ports import Observer
from router.forward.verdict import Verdict, judge
from router.net.pool import StoreResult
from router.net.settings import Retry
from router.spool.index_types import DeliveryState, Outcome, Waiting

_LIMIT = 65_536
"""Ids that are remembered; an operator may drop instances without our hearing of it."""


class Fates:
    """``wake`` is called when the ledger has something that its owner should see to."""

    def __init__(
        self,
        destination: str,
        ledger: Ledger,
        retry: Retry,
        *,
        clock: Callable[[], float],
        random: Random,
        observer: Observer,
        wake: Callable[[], None],
    ) -> None:
        self._destination = destination
        self._ledger = ledger
        self._clock = clock
        self._random = random
        self._observer = observer
        self._wake = wake
        self._went_out: set[int] = set()
        self.unanswered = 0
        self.retry = retry

    def went_out(self, item: Waiting) -> None:
        """All of it was sent, and no answer of any use came."""
        if len(self._went_out) >= _LIMIT:
            self._went_out.clear()
        self._went_out.add(item.ref.id)
        self.unanswered += 1

    def forget(self) -> None:
        """The destination is another peer now, to which nothing was sent yet."""
        self._went_out.clear()

    def judge(self, item: Waiting, result: StoreResult) -> Verdict:
        """What the answer means for this instance.

        Where another object has the same UID, a duplicate may be that one.
        """
        sent_before = not item.twin and item.ref.id in self._went_out
        return judge(result.status, result.comment, sent_before=sent_before)

    def delivered(self, item: Waiting, reason: str, status: int) -> None:
        """The destination has it; ``reason`` is its warning, or ""."""
        seconds = self._clock() - item.received_at
        self._observer.on_sent(self._destination, item.ref.length)
        self._observer.on_delivered(
            self._destination, "warning" if reason else "delivered", seconds
        )
        self._record(item, DeliveryState.DELIVERED, reason, status)

    def defer(
        self, item: Waiting, reason: str, status: int | None = None, *, attempted: bool = True
    ) -> None:
        """An attempt that failed for now; dead when it was the last one allowed.

        ``attempted`` False: it does not count.
        """
        attempts = item.attempts + attempted
        if attempted and attempts >= self.retry.max_attempts:
            self.give_up(item, f"given up after {attempts} attempts: {reason}", status)
            return
        due = self._clock() + delay(self.retry, attempts + (not attempted), self._random.random())
        self._observer.on_failed(self._destination, "deferred")
        self._record(item, DeliveryState.READY, reason, status, due_at=due, attempted=attempted)

    def give_up(self, item: Waiting, reason: str, status: int | None = None) -> None:
        """It goes to the dead letters, where somebody will see it."""
        self._observer.on_failed(self._destination, "dead")
        self._record(item, DeliveryState.DEAD, reason, status)

    def _record(
        self,
        item: Waiting,
        state: DeliveryState,
        reason: str,
        status: int | None,
        *,
        due_at: float | None = None,
        attempted: bool = True,
    ) -> None:
        if state is not DeliveryState.READY:
            self._went_out.discard(item.ref.id)
        outcome = Outcome(
            item.ref.id,
            self._destination,
            state,
            self._clock(),
            status,
            reason,
            due_at,
            attempted,
        )
        if self._ledger.record(outcome):
            self._wake()
