"""One destination: an island with its own queue, associations, breaker and timer.

Owns the life of an instance between the lease and its outcome, and all tasks that work for the
destination.  Must not know other destinations; nothing here is shared with one but the index.

One task, woken by an event or by one timer, settles, leases and sends couriers off; they ask it
for instances and tell it what came of them (see `Desk`).  At most one association is being
opened at a time, so that a destination which has died is found out by one attempt.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, KeysView
from contextlib import asynccontextmanager
from random import Random

from structlog.typing import FilteringBoundLogger

from router.dimse.status import describe_status
from router.forward.availability import Availability
from router.forward.board import Board
from router.forward.breaker import Breaker
from router.forward.courier import Courier
from router.forward.door import Door
from router.forward.fates import Fates
from router.forward.ledger import Ledger
from router.forward.ports import (
    NOT_CONFIGURED,
    DestinationConfig,
    DestinationStatus,
    IndexGateway,
    Observer,
    OpenReader,
)
from router.forward.recall import Recall
from router.forward.verdict import Fate
from router.net.errors import AssociationError
from router.net.pool import Checkout, Pool, StoreResult
from router.spool.errors import SpoolDamaged
from router.spool.index_types import Waiting

_ACTIVE_BYTES = 256 * 2**20
_ABORT_GRACE = 1.0
_SETTLE_GRACE = 5.0


class Destination:
    """Sends what waits for one name.  To be made on the event loop; silent until `start`.

    ``on_change(name)`` is called when it went down, or came back, or something fell back into its
    queue while it is not up; ``on_return(name)`` when something came back unsent that was in hand
    when `at_rest` cleared the queue: it is kept until that is done again.
    """

    def __init__(
        self,
        config: DestinationConfig,
        *,
        index: IndexGateway,
        open_reader: OpenReader,
        clock: Callable[[], float],
        random: Random,
        observer: Observer,
        log: FilteringBoundLogger,
        on_change: Callable[[str], None] = lambda name: None,
        on_return: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._open_reader = open_reader
        self._clock = clock
        self._observer = observer
        self._logger = log
        self._wake = asyncio.Event()
        self._config: DestinationConfig | None = config
        self._peer = config.peer
        self._board = Board(limit=1, minimum=1, byte_limit=_ACTIVE_BYTES)
        self._breaker = Breaker(config.retry, random)
        self._availability = Availability(
            config.name,
            self._breaker,
            observer=observer,
            log=log,
            on_up=self._up_again,
            on_down=self._lease_anew,
        )
        self._ledger = Ledger(
            config.name,
            index,
            self._board,
            clock=clock,
            monotonic=self._loop.time,
            random=random,
            log=log,
        )
        self._fates = Fates(
            config.name,
            self._ledger,
            config.retry,
            clock=clock,
            random=random,
            observer=observer,
            wake=self._wake.set,
        )
        self._door = Door(
            config,
            board=self._board,
            breaker=self._breaker,
            availability=self._availability,
            fates=self._fates,
            clock=self._loop.time,
            observer=observer,
            log=log,
        )
        self._on_change, self._on_return = on_change, on_return
        self._leasing = asyncio.Lock()
        self._watched = False
        self._main: asyncio.Task[None] | None = None
        self._couriers: set[Courier] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._recall = Recall(self._board, self._couriers)
        self._opening: asyncio.Task[None] | None = None
        self._yielding = self._stopping = self._admitted = False
        self.name = config.name

    # -- from outside ------------------------------------------------------------------------

    def start(self) -> None:
        """Begins to send."""
        self._main = self._loop.create_task(self._run(), name=f"forward {self.name}")

    def notify(self) -> None:
        """Something was put in the queue."""
        self._ledger.more = True
        self._wake.set()

    def refresh(self) -> None:
        """The queue was changed by an operator: look at it anew, and try now.

        What waits is leased again, refused pairs are proposed again, and a probe is due now.
        """
        # What is in hand and comes back unsent may be held or dropped by now: ask the index.
        self._recall.changed()
        self._door.forget()
        self._breaker.hasten(self._loop.time())
        self.notify()

    def configure(self, config: DestinationConfig | None) -> None:
        """Takes on another configuration; None when the destination is not configured any more.

        What is in flight is finished on its old association.
        """
        if config == self._config:
            return
        if self._config is not None:
            self._door.retire()
        self._config = config
        if config is None:
            self._recall.release()
        else:
            self._fates.retry = config.retry
            if config.peer != self._peer:
                self._peer = config.peer
                self._fates.forget()
            self._door.renew(config)
            self._availability.anew()
            self._breaker.reset(config.retry)
        self.notify()
        self._on_change(self.name)

    @property
    def up(self) -> bool:
        """Whether it is configured, and answered when it was last asked."""
        return self._config is not None and self._breaker.up

    def watch(self, wanted: bool) -> None:
        """Whether it is probed while it is down though nothing waits for it: others have that."""
        if wanted != self._watched:
            self._watched = wanted
            self._wake.set()

    @property
    def unanswered(self) -> int:
        """Instances, since it was up last, all of which was sent without an answer."""
        return self._fates.unanswered

    @asynccontextmanager
    async def at_rest(self, *, clear: bool) -> AsyncIterator[KeysView[int]]:
        """While this is entered nothing is taken from the queue.  Gives the ids of what was taken
        before and is not settled; with ``clear`` what is not being sent yet is put back first, and
        what comes back unsent later is put back when this is entered again."""
        async with self._leasing:
            if clear:
                self._recall.rested()
            try:
                yield self._board.ids
            finally:
                self.notify()
                if clear and not self.up:  # what came back others may have
                    self._on_change(self.name)

    def status(self) -> DestinationStatus:
        """For display."""
        configured = self._config is not None
        probe = None if self._breaker.up or not configured else self._breaker.next_probe
        return DestinationStatus(
            name=self.name,
            configured=configured,
            up=configured and self._breaker.up,
            reason=self._ledger.trouble or self._breaker.reason if configured else NOT_CONFIGURED,
            next_probe=None if probe is None else self._clock() + probe - self._loop.time(),
            active=len(self._board.ids),
            waiting=self._board.waiting,
            in_flight=self._in_flight,
            unsettled=self._ledger.unsettled,
            open_associations=self._door.pool.open,
        )

    async def stop(self, grace: float) -> None:
        """Finishes what is in flight within ``grace`` seconds, aborts the rest, settles.

        What was aborted stays in the queue and is not charged with an attempt.
        """
        self._stopping = True
        self._wake.set()
        self._ledger.retry_now()
        if self._opening is not None:
            self._opening.cancel()
        await self._join(grace)
        for courier in self._couriers:
            courier.abort()
        await self._join(_ABORT_GRACE)
        for task in self._tasks:
            task.cancel()
        await self._join(_ABORT_GRACE)
        self._wake.set()
        if (main := self._main) is not None:
            await asyncio.wait([main], timeout=_SETTLE_GRACE)
            main.cancel()
            await asyncio.wait([main])
        self._ledger.close()
        await self._door.aclose()

    # -- the one task ------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._turn()
            except Exception as error:
                # The destination must outlive a fault of ours, and not spin on it either.
                self._logger.exception("forwarding failed", destination=self.name)
                self._ledger.in_trouble(f"internal error: {type(error).__name__}")
            if self._stopping and not self._tasks and not self._ledger.unsettled:
                return
            timer = self._set_timer()
            try:
                await self._wake.wait()
            finally:
                if timer is not None:
                    timer.cancel()

    async def _turn(self) -> None:
        self._ledger.advance()
        await self._ledger.settle(idle=self._stopping or not self._in_flight)
        if self._ledger.take_fallen_back() and not self.up:
            self._on_change(self.name)
        if self._config is None:
            self._board.clear()
        elif not self._stopping:
            # A destination that is down is leased for only when its probe is due: until then
            # its queue may grow without costing anybody a call to the index.
            self._admitted = self._breaker.admits(self._loop.time())
            if self._admitted:
                async with self._leasing:
                    await self._ledger.lease()
                self._door.bury_refused()
            if self._board.waiting:
                for courier in self._couriers:
                    courier.top_up()
            self._dispatch()
        self._door.reap()

    def _set_timer(self) -> asyncio.TimerHandle | None:
        times = [self._ledger.next_wake(), self._door.pool.next_expiry]
        probe = self._breaker.next_probe
        # What this turn found due waits for something to wake us; what fell due since does not.
        overdue = self._admitted and probe is not None and probe <= self._loop.time()
        wanted = self._board.waiting or self._ledger.more or self._watched
        if self._config is not None and wanted and not overdue:
            times.append(probe)
        due = [when for when in times if when is not None]
        return self._loop.call_at(min(due), self._wake.set) if due else None

    # -- couriers ----------------------------------------------------------------------------

    @property
    def _sending(self) -> bool:
        return self._config is not None and not self._stopping and not self._ledger.trouble

    @property
    def _in_flight(self) -> int:
        return sum(len(courier.held) for courier in self._couriers)

    def _at_work(self) -> list[Courier]:
        return [courier for courier in self._couriers if not courier.checkout.retired]

    def _dispatch(self) -> None:
        """Sends off one more courier, if there is something for it; it calls again."""
        if not self._sending or self._opening is not None:
            return
        if not self._board.waiting and (self._breaker.up or not self._watched):
            return
        if self._config is None or len(self._at_work()) >= self._config.associations:
            return
        probing = not self._breaker.up
        token = self._breaker.attempt(self._loop.time())
        if token is None:
            return
        task = self._opening = self._loop.create_task(self._work(token, probing=probing))
        self._tasks.add(task)
        task.add_done_callback(self._work_done)

    def _work_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._wake.set()

    async def _work(self, token: int, *, probing: bool) -> None:
        pool, peer = self._door.pool, self._peer
        try:
            try:
                checkout = await self._door.acquire(pool, token, probing=probing)
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
            self,
            checkout,
            token,
            probing=probing,
            peer=peer,
            open_reader=self._open_reader,
            log=self._logger,
        )
        self._couriers.add(courier)
        try:
            await courier.run(self._dispatch)
        except Exception:
            self._logger.exception("courier failed", destination=self.name)
        finally:
            self._couriers.discard(courier)
            self._board.leave(courier.study)
            for item in courier.held.values():
                self.put_back(item)
            if courier.in_vain:
                reason = "the peer accepted the association and ended it at once"
                self._availability.fallen(self._breaker.struck(token, reason, self._loop.time()))
            pool.release(checkout)

    async def _join(self, seconds: float) -> None:
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=seconds)

    # -- what couriers ask and tell (Desk) -----------------------------------------------------

    def take(self, courier: Courier) -> Waiting | None:
        """See `Desk`."""
        if not self._sending or not self._breaker.holds(courier.token):
            return None
        if self._starving(courier):
            courier.yielding = self._yielding = True
            return None
        take = self._board.take_least_tried if courier.probing else self._board.take
        taken = take(courier.checkout.accepted, courier.study)
        if self._ledger.more and self._board.hungry:
            self._wake.set()
        if taken is None:
            return None
        item, courier.study = taken
        return item

    def _starving(self, courier: Courier) -> bool:
        """Whether the most urgent instance can go on no association unless one makes room."""
        first = self._board.first_pair()
        if first is None or first in courier.checkout.accepted:
            return False
        if self._yielding or self._opening is not None or self._config is None:
            return False
        at_work = self._at_work()
        if len(at_work) < self._config.associations:
            return False
        return not any(first in other.checkout.accepted for other in at_work)

    def attempt(self, courier: Courier, item: Waiting) -> None:
        """See `Desk`."""
        self._observer.on_attempt(self.name)

    def put_back(self, item: Waiting) -> None:
        """See `Desk`."""
        if self._recall.stale(item.ref.id) or self._config is None:
            self._board.settled([item.ref.id])
            self.notify()
            if not self.up:  # others may have it
                self._on_change(self.name)
        elif self._recall.kept(item.ref.id):
            self._on_return(self.name)
        else:
            self._board.put_back(item)

    def answered(self, courier: Courier, item: Waiting, result: StoreResult) -> None:
        """See `Desk`."""
        self._door.suspects.answered(self._loop.time())
        verdict = self._fates.judge(item, result)
        if verdict.strained:
            opened = self._breaker.struck(courier.token, verdict.reason, self._loop.time())
            self._availability.fallen(opened)
        else:
            self._availability.answering(courier.token)
        if verdict.fate is Fate.DELIVERED:
            self._fates.delivered(item, verdict.reason, result.status)
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
                self._breaker.struck(courier.token, str(error), self._loop.time())
            )
        if begun:
            self._fates.defer(item, str(error))
        else:
            self.put_back(item)

    def went_out(self, courier: Courier, item: Waiting) -> None:
        """See `Desk`; what the peer of before has tells nothing of the one of now."""
        if courier.peer == self._peer:
            self._fates.went_out(item)

    def damaged(self, item: Waiting, error: SpoolDamaged) -> None:
        """See `Desk`."""
        self._logger.error(
            "stored instance is damaged",
            destination=self.name,
            instance=item.ref.id,
            reason=str(error),
        )
        self._fates.give_up(item, f"damaged in the spool: {error}")

    def unreadable(self, item: Waiting, reason: str) -> None:
        """See `Desk`."""
        self._logger.error(
            "instance cannot be sent", destination=self.name, instance=item.ref.id, reason=reason
        )
        self._fates.defer(item, reason)

    def _lease_anew(self) -> None:
        self._board.clear()  # by the time of the probe something more urgent may have come
        self.notify()
        self._on_change(self.name)

    def _up_again(self) -> None:
        self._fates.unanswered = 0
        self._wake.set()
        self._on_change(self.name)
