"""What couriers tell of the instances that they carried.

Owns what an answer, a fall or a damage means for the instance, the breaker and the number of
associations.  Must not know the queue, nor when something is sent.
"""

from collections.abc import Callable

from router.dimse.status import describe_status
from router.forward.courier import Courier
from router.forward.door import Door
from router.forward.parts import Owner, Parts
from router.forward.verdict import Fate
from router.net.errors import AssociationError
from router.net.pool import Pace, StoreResult
from router.spool.errors import SpoolDamaged
from router.spool.index_types import Waiting
from router.spool.record import DAMAGED


class Clerk:
    """The `Desk` of a destination's couriers.

    ``take`` gives a courier its next instance, ``more`` is called when one more association may be
    had.
    """

    def __init__(
        self,
        parts: Parts,
        door: Door,
        owner: Owner,
        *,
        take: Callable[[Courier], Waiting | None],
        more: Callable[[], None],
    ) -> None:
        self.name = parts.name
        self.take = take
        self.put_back = owner.put_back
        self._door = door
        self._owner = owner
        self._breaker = parts.breaker
        self._availability = parts.availability
        self._fates = parts.fates
        self._regime = parts.regime
        self._throttle = parts.regime.throttle
        self._concurrency = parts.regime.concurrency
        self._board = parts.board
        self._observer = parts.observer
        self._clock = parts.monotonic
        self._more = more
        self._logger = parts.log

    @property
    def pace(self) -> Pace:
        """See `Desk`."""
        return self._throttle

    @property
    def enough(self) -> bool:
        """Whether as many wait for their turn as there are instances to send."""
        return self._throttle.counts and self._throttle.waiting >= self._board.waiting

    async def turn(self) -> bool:
        """See `Desk`."""
        if self.enough or self._regime.far:
            return False
        if self._throttle.counts:
            await self._throttle.turn()
        return True

    def pass_on(self) -> None:
        """See `Desk`."""
        self._throttle.pass_on()

    def attempt(self, courier: Courier, item: Waiting) -> None:
        """See `Desk`."""
        self._fates.begun(item, courier.checkout.association.id)
        self._observer.on_attempt(self.name)

    def answered(self, courier: Courier, item: Waiting, result: StoreResult) -> None:
        """See `Desk`."""
        self._door.suspects.answered(self._clock())
        verdict = self._fates.judge(item, result)
        if verdict.strained:
            opened = self._breaker.struck(courier.token, verdict.reason, self._clock())
            self._availability.fallen(opened)
            self._concurrency.failed()
        else:
            self._availability.answering(courier.token)
            if self._concurrency.succeeded(self._clock()):
                self._more()
        if verdict.fate is Fate.DELIVERED:
            self._fates.delivered(item, verdict.reason, result.status, courier.peer)
            return
        # The peer's comment stays in the index: it may name a patient.
        self._logger.warning(
            "not stored",
            destination=self.name,
            instance=item.ref.id,
            association=courier.checkout.association.id,
            status=describe_status(result.status),
            fate=verdict.fate.value,
        )
        if verdict.fate is Fate.PERMANENT:
            self._fates.give_up(item, verdict.reason, result.status)
        else:
            # A destination that was short of resources and still is has not tried the instance.
            attempted = not (courier.probing and verdict.strained)
            self._fates.defer(item, verdict.reason, result.status, attempted=attempted)

    def broken(
        self, courier: Courier, item: Waiting, error: AssociationError, *, begun: bool
    ) -> None:
        """See `Desk`."""
        self._logger.warning(
            "association fell",
            destination=self.name,
            instance=item.ref.id,
            association=courier.checkout.association.id,
            begun=begun,
            reason=str(error),
        )
        if not courier.fallen:
            # One fall is one failure, however many messages were outstanding.
            courier.fallen = True
            self._observer.on_association_failed(self.name, error.kind)
            self._availability.fallen(
                self._breaker.struck(courier.token, str(error), self._clock())
            )
            self._concurrency.failed()
        if begun:
            self._fates.unanswered_by(item, error)
        else:
            self.put_back(item)

    def went_out(self, courier: Courier, item: Waiting) -> None:
        """See `Desk`; what the peer of before has tells nothing of the one of now."""
        if courier.peer == self._owner.peer:
            self._fates.unanswered += 1

    def damaged(self, item: Waiting, error: SpoolDamaged) -> None:
        """See `Desk`."""
        self._logger.error(
            "stored instance is damaged",
            destination=self.name,
            instance=item.ref.id,
            reason=str(error),
        )
        self._fates.give_up(item, f"{DAMAGED}{error}", refused=False)

    def unreadable(self, item: Waiting, reason: str) -> None:
        """See `Desk`."""
        self._logger.error(
            "instance cannot be sent", destination=self.name, instance=item.ref.id, reason=reason
        )
        self._fates.defer(item, reason)
