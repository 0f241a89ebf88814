"""Turns what came of an attempt into the outcome that the index keeps.

Owns the number of attempts that an instance is allowed, when it is tried again, and which ones
may have arrived without our having heard.  Must not know associations or queues.
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
        attempts: Attempts,
    ) -> None:
        self._destination = destination
        self._ledger = ledger
        self._clock = clock
        self._random = random
        self._observer = observer
        self._wake = wake
        self._went_out: set[int] = set()
        self._attempts = attempts
        self.unanswered = 0
        self.retry = retry

    def begun(self, item: Waiting, association: str) -> None:
        """An attempt begins."""
        self._attempts.begun(item.ref.id, association)

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
        return judge(
            result.status,
            result.comment,
            sent_before=sent_before,
            attempts=item.attempts + 1,
            retry=self.retry,
        )

    def delivered(
        self,
        item: Waiting,
        reason: str,
        status: int,
        peer: Hashable = None,
        *,
        presumed: bool = False,
    ) -> None:
        """The destination, then this ``peer``, has it, or one of its UID (``presumed``), which the
        index may doubt; ``reason`` is its warning, or ""."""
        seconds = self._clock() - item.received_at

        def count(doubted: bool) -> None:
            if doubted:
                self._observer.on_failed(self._destination, "dead")
                return
            self._observer.on_sent(self._destination, item.ref.length)
            outcome = "warning" if reason else "delivered"
            self._observer.on_delivered(self._destination, outcome, seconds)

        state = DeliveryState.DELIVERED
        if presumed:
            self._record(item, state, reason, status, peer=peer, presumed=count)
        else:
            count(False)
            self._record(item, state, reason, status, peer=peer)

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
        presumed: Callable[[bool], None] | None = None,
    ) -> None:
        if state is not DeliveryState.READY:
            self._went_out.discard(item.ref.id)
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
            presumed is not None,
        )
        if self._ledger.record(outcome, presumed):
            self._wake()
