"""The couriers of one destination.

Owns all tasks that send: when one more is sent off, which of them makes room for another, and
how they end.  Must not know how instances come on the board, nor what becomes of them.

At most one association is being opened at a time, so that a destination which has died is found
out by one attempt.
"""

import asyncio
from collections.abc import Callable

from router.forward.clerk import Clerk
from router.forward.courier import Courier
from router.forward.door import Door
from router.forward.parts import Owner, Parts
from router.forward.ports import DestinationConfig, OpenReader
from router.net.pool import Checkout, Pool
from router.spool.index_types import Waiting

_ABORT_GRACE = 1.0


class Crew:
    """To be made on the event loop; sends nobody off until `dispatch`.

    ``door`` is where they get their associations, ``couriers`` are those that have one.
    ``watched``: the peer is probed while it is down though nothing waits; the owner says so.
    """

    def __init__(
        self, config: DestinationConfig, parts: Parts, owner: Owner, open_reader: OpenReader
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.door = Door(config, parts, self.crowded)
        self._clerk = Clerk(parts, self.door, owner, take=self.take, more=self.dispatch)
        self._owner = owner
        self._board = parts.board
        self._breaker = parts.breaker
        self._availability = parts.availability
        self._regime = parts.regime
        self._ledger = parts.ledger
        self._open_reader = open_reader
        self._wake = parts.wake
        self._logger = parts.log
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening: asyncio.Task[None] | None = None
        self._yielding = False
        self.couriers: set[Courier] = set()
        self.watched = False

    # -- what the destination asks -------------------------------------------------------------

    @property
    def gone(self) -> bool:
        """Whether all of them have ended, and none is being sent off."""
        return not self._tasks

    @property
    def held(self) -> set[int]:
        """The instances that they have in hand."""
        return {number for courier in self.couriers for number in courier.held}

    @property
    def in_flight(self) -> int:
        """How many instances they have in hand."""
        return sum(len(courier.held) for courier in self.couriers)

    @property
    def trying(self) -> bool:
        """Whether one of them has been sent off since the peer was last found to be there."""
        return any(self._breaker.holds(courier.token) for courier in self.couriers)

    @property
    def standing(self) -> int:
        """Associations that there are, or are about to be."""
        return self.door.standing + (self._opening is not None)

    def crowded(self) -> bool:
        """Whether others stand; then a peer that rejects one more has enough of them.  One that
        idles counts as well: the next one is opened in its place."""
        standing = self.door.pool.open if self._breaker.up else 0
        if standing:
            self._regime.concurrency.full(standing, self._loop.time())
        return standing > 0

    def top_up(self) -> None:
        """There is more to take."""
        for courier in self.couriers:
            courier.top_up()

    def cut_off(self, allows: Callable[[int], bool]) -> None:
        """Ends the associations that carry an instance of a priority that is not allowed."""
        for courier in self.couriers:
            if not all(allows(item.priority) for item in courier.held.values()):
                courier.abort()

    async def disband(self, grace: float) -> None:
        """Has them finish what they hold within ``grace`` seconds, and aborts the rest.

        `Owner.may_send` is to be False by then, or they take more.
        """
        if self._opening is not None:
            self._opening.cancel()
        await self._join(grace)
        for courier in self.couriers:
            courier.abort()
        await self._join(_ABORT_GRACE)
        for task in self._tasks:
            task.cancel()
        await self._join(_ABORT_GRACE)

    async def _join(self, seconds: float) -> None:
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=seconds)

    # -- sending off -------------------------------------------------------------------------

    def make_room(self) -> None:
        """Lets go what lies idle above what the destination may have."""
        if (most := self._regime.most) < self.door.standing:
            self.door.pool.trim(most)

    def dispatch(self) -> None:
        """Sends off one more courier, if there is something for it; it calls again."""
        if not self._owner.may_send() or self._opening is not None:
            return
        idle = self._breaker.up or not self.watched or self._regime.permit.why
        if not self._board.waiting and idle:
            return
        if len(self._at_work()) >= self._regime.width:
            return
        if self._board.waiting and (self._clerk.enough or self._regime.early):
            return
        if self._board.waiting and self.door.sharing.content:
            return
        probing = not self._breaker.up
        token = self._breaker.attempt(self._loop.time())
        if token is None or (self._breaker.unproven and self.trying):
            return
        # No more than may be at work: one that idles makes room, as the peer counts it too.
        self.door.pool.resize(self._regime.width)
        task = self._opening = self._loop.create_task(self._work(token, probing=probing))
        self._regime.holds(self.standing)
        self._tasks.add(task)
        task.add_done_callback(self._work_done)

    def _work_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._wake()

    async def _work(self, token: int, *, probing: bool) -> None:
        pool, peer = self.door.pool, self._owner.peer
        try:
            try:
                checkout = await self.door.acquire(pool, token, probing=probing)
            finally:
                self._opening = None
                self._yielding = False
            if checkout is not None:
                await self._employ(pool, checkout, token, peer, probing=probing)
        finally:
            self._breaker.abandon(token)  # of no effect unless this was a probe that told nothing

    async def _employ(
        self, pool: Pool, checkout: Checkout, token: int, peer: object, *, probing: bool
    ) -> None:
        courier = Courier(
            self._clerk,
            checkout,
            token,
            probing=probing or self._breaker.unproven,
            peer=peer,
            open_reader=self._open_reader,
            log=self._logger,
        )
        self.couriers.add(courier)
        try:
            await courier.run(self.dispatch)
        except Exception:
            self._logger.exception("courier failed", destination=self._clerk.name)
        finally:
            self.couriers.discard(courier)
            self._board.leave(courier.study)
            for item in courier.held.values():
                self._clerk.put_back(item)
            if courier.in_vain:
                reason = "the peer accepted the association and ended it at once"
                self._availability.fallen(self._breaker.struck(token, reason, self._loop.time()))
            pool.release(checkout)

    # -- what couriers ask (Desk) --------------------------------------------------------------

    def take(self, courier: Courier) -> Waiting | None:
        """See `Desk`."""
        if not self._owner.may_send() or not self._breaker.holds(courier.token):
            return None
        if self._regime.permit.nothing:  # what a lease brought is shed in this turn
            return None
        if len(self.couriers) > self._regime.width and self._too_many():
            courier.yielding = True
            return None
        if self._starving(courier):
            courier.yielding = self._yielding = True
            return None
        take = self._board.take_least_tried if courier.probing else self._board.take
        taken = take(courier.checkout.accepted, courier.study, courier.checkout.study)
        if self._ledger.more and self._board.hungry:
            self._wake()
        if taken is None:
            return None
        item, courier.study = taken
        return item

    def _at_work(self) -> list[Courier]:
        return [courier for courier in self.couriers if not courier.checkout.retired]

    def _too_many(self) -> bool:
        """Whether more couriers than may be at work would go on."""
        going_on = [courier for courier in self._at_work() if not courier.yielding]
        return len(going_on) > (max(1, self._regime.width) if self._regime.most else 0)

    def _starving(self, courier: Courier) -> bool:
        """Whether the most urgent instance can go on no association unless one makes room.

        Not one that has carried nothing yet: it would be opened, and make room, for ever.
        """
        if not courier.used:
            return False
        first = self._board.first_pair()
        if courier.checkout.study is not None:
            if not self.door.sharing.outranked(courier.checkout.study):
                return False
            first = None
        elif first is None or first in courier.checkout.accepted:
            return False
        if self._yielding or self._opening is not None:
            return False
        at_work = self._at_work()
        if len(at_work) < self._regime.width:
            return False
        return first is None or not any(first in o.checkout.accepted for o in at_work)
