"""Sends instances over one association.

Owns the use of an association from `Pool.acquire` to `Pool.release`: as many C-STORE requests
outstanding as its asynchronous operations window allows (PS3.7 §D.3.3.3), and what a failure
tells of the instance in hand.  Must not know the queue, retries or statuses; it asks a `Desk`
for the next instance and hands it what came of it.

Each slot of the window is a lane: a task that takes, opens, sends and reports one instance
after the other, so that an answer out of order holds nobody up.
"""

import asyncio
from collections.abc import Callable, Hashable
from typing import Protocol

from structlog.typing import FilteringBoundLogger

from router.forward.board import proposal
from router.forward.ports import OpenReader
from router.net.errors import AnotherUnanswered, AssociationError, AssociationTimeout
from router.net.pool import Checkout, Pace, Readable, StoreResult
from router.spool.errors import SpoolDamaged, SpoolError
from router.spool.index_types import Waiting

_LONG = 1.0
"""Seconds of waiting for one's turn after which a peer may have left for want of patience."""


class Desk(Protocol):
    """The destination, as its couriers see it.  All of it is plain calls on the event loop."""

    @property
    def pace(self) -> Pace:
        """How fast its associations may send."""
        ...

    async def turn(self) -> bool:
        """Until one more instance may be taken; False when there is none to wait for, or it would
        be long."""
        ...

    def pass_on(self) -> None:
        """The turn was not used."""
        ...

    def take(self, courier: "Courier") -> Waiting | None:
        """The next instance for this courier; None ends the lane that asked."""
        ...

    def attempt(self, courier: "Courier", item: Waiting) -> None:
        """The request is about to go out."""
        ...

    def put_back(self, item: Waiting) -> None:
        """Was not sent, or its association fell for no fault of it: nothing counts."""
        ...

    def answered(self, courier: "Courier", item: Waiting, result: StoreResult) -> None:
        """The peer answered."""
        ...

    def broken(
        self, courier: "Courier", item: Waiting, error: AssociationError, *, begun: bool
    ) -> None:
        """The association fell; ``begun``: in the middle of this instance's own C-STORE, and for
        all that is known on its account."""
        ...

    def went_out(self, courier: "Courier", item: Waiting) -> None:
        """All of it was sent, and no answer came."""
        ...

    def damaged(self, item: Waiting, error: SpoolDamaged) -> None:
        """What the spool has of it is not what was committed."""
        ...

    def unreadable(self, item: Waiting, reason: str) -> None:
        """It could not be sent for a reason on our side that may pass."""
        ...


class Courier:
    """One association at work.

    One that is ``probing`` sends a single instance.  ``token`` is the breaker's, ``study`` the
    board's and ``peer`` the desk's: whom it sends to; ``held`` are the instances in its lanes.
    ``fallen`` is the desk's mark that the association's end was taken note of; ``yielding`` asks
    it to finish what it holds and let the association go.
    """

    def __init__(
        self,
        desk: Desk,
        checkout: Checkout,
        token: int,
        *,
        probing: bool,
        peer: Hashable,
        open_reader: OpenReader,
        log: FilteringBoundLogger,
    ) -> None:
        self._desk = desk
        self._open_reader = open_reader
        self._logger = log
        self._aborted_by_us = False
        self._group: asyncio.TaskGroup | None = None
        self._lanes = 0
        self._taken = self._waited = False
        self.probing = probing
        self.checkout = checkout
        self.token = token
        self.peer = peer
        self.study: str | None = None
        self.yielding = False
        self.fallen = False
        self.held: dict[int, Waiting] = {}

    async def run(self, started: Callable[[], None]) -> None:
        """Works until there is nothing more to take.

        ``started`` is called once every lane has taken its first instance.
        """
        async with asyncio.TaskGroup() as group:
            self._group = group
            self.checkout.association.pace = self._desk.pace
            self._lanes = 1
            group.create_task(self._lane())
            self.top_up()
            asyncio.get_running_loop().call_soon(started)

    @property
    def in_vain(self) -> bool:
        """Whether a new association ended by itself before it was of any use."""
        ended = self.checkout.association.closed and not self._aborted_by_us
        return ended and not (self._taken or self._waited or self.checkout.reused)

    @property
    def used(self) -> bool:
        """Whether it has taken an instance."""
        return self._taken

    def top_up(self) -> None:
        """There is more to take: lanes that had ended for want of it work again."""
        if self._group is None or not self._lanes:
            return
        while self._lanes < self.checkout.association.window:
            self._lanes += 1
            self._group.create_task(self._lane())

    async def _lane(self) -> None:
        try:
            while (item := await self._next()) is not None:
                self.held[item.ref.id] = item
                await self._carry(item)
                # Not in a finally clause: what a crash leaves in hand is put back by the desk.
                del self.held[item.ref.id]
        finally:
            self._lanes -= 1

    async def _carry(self, item: Waiting) -> None:
        try:
            reader = self._open_reader(item.ref)
        except SpoolDamaged as error:
            self._desk.damaged(item, error)
        except SpoolError as error:
            self._desk.unreadable(item, str(error))
        else:
            try:
                await self._send(item, reader)
            finally:
                reader.close()

    async def _next(self) -> Waiting | None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        if not await self._desk.turn():
            return None
        self._waited |= loop.time() - began > _LONG
        item = self._take()
        if item is None:
            self._desk.pass_on()
        return item

    def _take(self) -> Waiting | None:
        if self.yielding or self.checkout.retired:
            return None
        if self._taken and (self.probing or self.checkout.single):
            return None
        item = self._desk.take(self)
        self._taken |= item is not None
        return item

    async def _send(self, item: Waiting, reader: Readable) -> None:
        association = self.checkout.association
        sent = False

        def went() -> None:
            nonlocal sent
            sent = True

        self._desk.attempt(self, item)
        try:
            result = await association.store(
                self.checkout.accepted[proposal(item)],
                item.sop_class_uid,
                item.sop_instance_uid,
                reader,
                on_sent=went,
            )
        except AssociationError as error:
            if sent:
                self._desk.went_out(self, item)
            if self._aborted_by_us or self._stale(error):
                self._desk.put_back(item)
            else:
                # What waits for its turn to be sent has had nothing read of it yet.
                begun = reader.remaining < reader.length or not reader.length
                begun = begun and not isinstance(error, AnotherUnanswered)
                self._desk.broken(self, item, error, begun=begun)
        except SpoolDamaged as error:
            self._abort()
            self._desk.damaged(item, error)
        except SpoolError as error:
            self._abort()
            self._desk.unreadable(item, str(error))
        except Exception as error:
            # A fault of ours must neither lose the instance nor stop the destination.
            self._logger.exception(
                "delivery failed", instance=item.ref.id, association=association.id
            )
            self._abort()
            self._desk.unreadable(item, f"internal error: {type(error).__name__}")
        else:
            self.checkout.answered += 1
            self._desk.answered(self, item, result)

    def _stale(self, error: AssociationError) -> bool:
        """Whether the peer left while the association lay idle, which is no instance's fault."""
        checkout = self.checkout
        timed_out = isinstance(error, AssociationTimeout)
        return checkout.reused and not checkout.answered and not timed_out

    def abort(self) -> None:
        """Ends it now; what is in flight goes back to where it was taken from."""
        self._aborted_by_us = True
        self._abort()

    def _abort(self) -> None:
        # The data set was cut off in the middle: the association cannot carry another message.
        self._aborted_by_us = True
        if not self.checkout.association.closed:
            self.checkout.association.abort()
