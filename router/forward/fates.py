"""Turns what came of an attempt into the outcome that the index keeps.

Owns the number of attempts that an instance is allowed, and when it is tried again.  Must not know
associations or queues.
"""

from collections.abc import Callable, Hashable
from random import Random

from router.forward.attempts import Attempts
from router.forward.backoff import delay
from router.forward.ledger import Ledger
from router.forward.ports import Observer
from router.forward.verdict import Verdict, judge
from router.net.errors import AssociationError
from router.net.pool import StoreResult
from router.net.settings import Retry
from router.spool.index_types import DeliveryState, Outcome, Waiting

_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def in_words(span: float) -> str:
    """A length of time in its largest unit: ``36 h``, ``2.5 d``."""
    for size, unit in _UNITS:
        if span >= 2 * size:
            return f"{span / size:.2g} {unit}" if span < 10 * size else f"{span / size:.0f} {unit}"
    return f"{span:.2g} s"


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
        attempts: Attempts,
    ) -> None:
        self._destination = destination
        self._ledger = ledger
        self._clock = clock
        self._random = random
        self._observer = observer
        self._wake = wake
        self._attempts = attempts
        self.unanswered = 0
        """Instances all of which was sent without an answer of any use; counted by `Clerk`."""
        self.retry = retry

    def begun(self, item: Waiting, association: str) -> None:
        """An attempt begins."""
        self._attempts.begun(item.ref.id, association)

    def judge(self, item: Waiting, result: StoreResult) -> Verdict:
        """What the answer means for this instance."""
        return judge(result.status, result.comment, attempts=item.attempts + 1, retry=self.retry)

    def delivered(self, item: Waiting, reason: str, status: int, peer: Hashable = None) -> None:
        """The destination, then this ``peer``, has it; ``reason`` is its warning, or ""."""
        self._observer.on_sent(self._destination, item.ref.length)
        outcome = "warning" if reason else "delivered"
        self._observer.on_delivered(self._destination, outcome, self._clock() - item.received_at)
        self._record(item, DeliveryState.DELIVERED, reason, status, peer=peer)

    def unanswered_by(self, item: Waiting, error: AssociationError) -> None:
        """The association fell in the middle of the instance's message; an attempt is charged."""
        retry = self.retry
        final = getattr(retry.failures, error.kind, "temporary") == "permanent"
        if final and item.attempts + 1 >= retry.permanent_after:
            self.give_up(item, str(error))
        else:
            self.defer(item, str(error))

    def defer(
        self, item: Waiting, reason: str, status: int | None = None, *, attempted: bool = True
    ) -> None:
        """An attempt that failed for now; dead when it was the last one allowed, or is too old.

        ``attempted`` False: it does not count.
        """
        attempts = item.attempts + attempted
        if attempted and attempts >= self.retry.max_attempts:
            self.give_up(item, f"given up after {attempts} attempts: {reason}", status)
            return
        age = self._clock() - item.received_at
        if self.retry.max_age is not None and age >= self.retry.max_age:
            self.give_up(item, f"given up after {in_words(age)}: {reason}", status)
            return
        wait = delay(self.retry, attempts + (not attempted), self._random.random())
        self._observer.on_failed(self._destination, "deferred")
        self._record(item, DeliveryState.READY, reason, status, wait=wait, attempted=attempted)

    def give_up(
        self, item: Waiting, reason: str, status: int | None = None, *, refused: bool = True
    ) -> None:
        """It goes to the dead letters, where somebody will see it.

        ``refused`` False: no other destination could take it either.
        """
        self._observer.on_failed(self._destination, "dead")
        self._record(item, DeliveryState.DEAD, reason, status, refused=refused)

    def _record(
        self,
        item: Waiting,
        state: DeliveryState,
        reason: str,
        status: int | None,
        *,
        wait: float | None = None,
        attempted: bool = True,
        refused: bool = False,
        peer: Hashable = None,
    ) -> None:
        association, seconds = self._attempts.ended(item.ref.id)
        now = self._clock()
        outcome = Outcome(
            item.ref.id,
            self._destination,
            state,
            now,
            status,
            reason,
            None if wait is None else now + wait,
            attempted,
            refused,
            association,
            seconds,
            peer,
        )
        if self._ledger.record(outcome):
            self._wake()
