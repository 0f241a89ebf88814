"""One destination: an island with its own queue, associations, breaker and timer.

Owns the life of an instance between the lease and its outcome.  Must not know other destinations;
nothing here is shared with one but the index.

One task, woken by an event or by one timer, settles, leases and has couriers sent off (`Crew`);
they ask for instances and tell what came of them (see `Desk`).
"""

import asyncio
from collections.abc import AsyncIterator, Callable, KeysView
from contextlib import asynccontextmanager

from router.forward.crew import Crew
from router.forward.parts import Parts, Surroundings
from router.forward.ports import NOT_CONFIGURED, DestinationConfig, DestinationStatus, Fallen
from router.forward.recall import Recall
from router.forward.trial import Trial
from router.net.retry import Retry
from router.spool.index_types import Waiting

_SETTLE_GRACE = 5.0
_NOT_BEFORE = 0.01
"""Seconds after a turn is due that it is looked for: clocks and sums are not exact."""


class Destination:
    """Sends what waits for one name.  To be made on the event loop; silent until `start`.

    ``on_change(name)`` is called when it went down, or came back, or something fell back into its
    queue while it is not up; ``on_return(name)`` when something came back unsent that was in hand
    when `at_rest` cleared the queue: it is kept until that is done again.
    """

    def __init__(
        self,
        config: DestinationConfig,
        around: Surroundings,
        *,
        on_change: Callable[[str], None] = lambda name: None,
        on_return: Callable[[str], None] = lambda name: None,
    ) -> None:
        self.name = config.name
        self.peer = config.peer
        self._loop = asyncio.get_running_loop()
        self._clock = around.clock
        self._logger = around.log
        self._wake = asyncio.Event()
        self._config: DestinationConfig | None = config
        parts = Parts.of(
            config,
            around,
            wake=self._wake.set,
            on_up=self._up_again,
            on_down=self._lease_anew,
        )
        self._regime = parts.regime
        self._board = parts.board
        self._breaker = parts.breaker
        self._availability = parts.availability
        self._ledger = parts.ledger
        self._fates = parts.fates
        self._crew = Crew(config, parts, self, around.open_reader)
        self._door = self._crew.door
        self._on_change, self._on_return = on_change, on_return
        self._trial = Trial(
            *(parts.breaker, parts.board, parts.ledger, parts.regime),
            trying=lambda: self._crew.trying,
            now=self._loop.time,
        )
        self._leasing = asyncio.Lock()
        self._main: asyncio.Task[None] | None = None
        self._recall = Recall(self._board, self._crew.couriers)
        self._stopping = self._admitted = False

    # -- from outside ------------------------------------------------------------------------

    def start(self) -> None:
        """Begins to send."""
        self._main = self._loop.create_task(self._run(), name=f"forward {self.name}")

    def notify(self) -> None:
        """Something was put in the queue."""
        self._ledger.came()
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
        same = config is not None and self._config is not None and config.same_way(self._config)
        self._regime.configure(config, anew=not same)
        if same:
            self._config = config
            self.notify()
            return
        if self._config is not None:
            self._door.retire()
        self._config = config
        if config is None:
            self._recall.release()
        else:
            self._fates.retry = config.retry
            self.peer = config.peer
            self._door.renew(config)
            self._availability.anew()
            self._breaker.reset(config.retry)
        self.notify()
        self._on_change(self.name)

    @property
    def up(self) -> bool:
        """Whether it is configured, and answered when it was last asked."""
        return self._config is not None and self._breaker.up

    @property
    def sends(self) -> bool:
        """Whether it is up, not to be tried first, and neither paused nor shut by its schedule."""
        return self.up and not self._breaker.unproven and not self._regime.permit.why

    @property
    def wants_one(self) -> bool:
        """Whether it is there, and one instance is wanted to find out whether it takes any."""
        return self.up and self._trial.wants_one

    @property
    def least(self) -> int | None:
        """The priority that its schedule asks for at present; None when it asks for none."""
        return self._regime.permit.least

    @property
    def urgent(self) -> int | None:
        """The priority from which on it sends though its schedule is shut; None when it sends
        whatever waits, or nothing."""
        permit = self._regime.permit
        tried = self.up and not self._breaker.unproven
        return permit.least if tried and not permit.nothing else None

    @property
    def held(self) -> tuple[str, float | None] | None:
        """Why nothing at all may go to it now, as it is paused or shut, and until when, in seconds
        since the epoch, where that is known; None when something may."""
        permit = self._regime.permit
        permit.look(self._clock())
        if self._config is None or not permit.nothing:
            return None
        return permit.why, None if permit.paused else permit.until

    @property
    def gives_way_in(self) -> float | None:
        """Seconds until others may have what waits, as it is paused or shut for long, or has one
        to be tried with; 0.0 when they may, None when it is neither, or never gives way."""
        held, retry, trial = self._regime.held_for, self.retry, self._trial.gives_way_in
        if held is None or retry is None or retry.give_way_after is None:
            return trial
        seconds = max(0.0, retry.give_way_after - held)
        return seconds if trial is None else min(seconds, trial)

    @property
    def retry(self) -> Retry | None:
        """As configured; None when it is not."""
        return None if self._config is None else self._config.retry

    @property
    def fallen(self) -> Fallen | None:
        """How it is down; None when it is up, or not configured, and while it is paused or shut
        until it failed anew: nobody knows whether it would be up."""
        if self._config is None or self._breaker.up:
            return None
        if self._regime.permit.why or not self._regime.tried:
            return None
        ago = self._loop.time() - self._door.failed_at
        return Fallen(self._breaker.reason, self._door.rejected, self._clock() - ago)

    def pause(self, reason: str) -> None:
        """Takes nothing more, until `resume`; what is in flight is finished.  Raises ValueError
        for a reason that says nothing."""
        if not reason:
            raise ValueError("to pause a destination needs a reason")
        self._regime.permit.paused = reason
        self._abide()
        self._wake.set()

    def resume(self) -> None:
        """Takes again what waits, as far as its schedule allows."""
        self._regime.permit.paused = ""
        self.notify()

    @property
    def paused(self) -> str:
        """Why it is paused; "" when it is not."""
        return self._regime.permit.paused

    def watch(self, wanted: bool) -> None:
        """Whether it is probed while it is down though nothing waits for it: others have that."""
        if wanted != self._crew.watched:
            self._crew.watched = wanted
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

    @property
    def sending(self) -> set[int]:
        """The instances that are on their way."""
        return self._crew.held

    def status(self) -> DestinationStatus:
        """For display."""
        configured = self._config is not None
        probe = None if self._breaker.up or not configured else self._breaker.next_probe
        permit = self._regime.permit
        # What is urgent waits for a destination that is down, though that be shut for the rest.
        held = permit.why if permit.nothing or self._breaker.up else ""
        shut = held if configured and not permit.paused else ""
        if permit.nothing:  # it is not called, whatever it was before
            probe = None
        reason = held or self._ledger.trouble or self._breaker.reason
        return DestinationStatus(
            name=self.name,
            configured=configured,
            up=configured and self._breaker.up,
            reason=reason if configured else NOT_CONFIGURED,
            next_probe=None if probe is None else self._clock() + probe - self._loop.time(),
            active=len(self._board.ids),
            waiting=self._board.waiting,
            in_flight=self._crew.in_flight,
            unsettled=self._ledger.unsettled,
            open_associations=self._door.pool.open,
            paused=permit.paused,
            until=permit.until if shut else None,
            shut=shut,
            urgent=permit.least if shut and not permit.nothing else None,
            limited=", ".join(self._regime.limits) if configured else "",
        )

    async def stop(self, grace: float) -> None:
        """Finishes what is in flight within ``grace`` seconds, aborts the rest, settles.

        What was aborted stays in the queue and is not charged with an attempt.
        """
        self._stopping = True
        self._wake.set()
        self._ledger.retry_now()
        self._regime.throttle.hurry()
        await self._crew.disband(grace)
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
                due = self._due()
            except Exception as error:
                # The destination must outlive a fault of ours, and not spin on it either.
                self._logger.exception("forwarding failed", destination=self.name)
                self._ledger.in_trouble(f"internal error: {type(error).__name__}")
                due = self._ledger.next_wake()
            if self._stopping and self._crew.gone and not self._ledger.unsettled:
                return
            timer = None if due is None else self._loop.call_at(due, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                if timer is not None:
                    timer.cancel()

    async def _turn(self) -> None:
        self._ledger.advance()
        self._abide()
        await self._ledger.settle(idle=self._stopping or not self._crew.in_flight)
        if self._ledger.take_fallen_back() and (not self.up or self._gives_way):
            self._on_change(self.name)
        if self._config is None:
            self._board.clear()
        elif not self._stopping:
            # A destination that is down is leased for only when its probe is due: until then
            # its queue may grow without costing anybody a call to the index.
            permit = self._regime.permit
            self._admitted = self._breaker.admits(self._loop.time()) and not permit.nothing
            if self._admitted:
                async with self._leasing:
                    await self._ledger.lease(permit.least, self._trial.leased)
                self._abide()
                self._door.bury_refused()
            if self._board.waiting:
                self._crew.top_up()
            self._crew.dispatch()
            if self._trial.look():
                self._on_change(self.name)
        self._door.reap()
        self._crew.make_room()
        self._regime.holds(self._crew.standing)

    def _abide(self) -> None:
        """Keeps to what may go now: the rest is left to the queue, or cut off on its way."""
        permit = self._regime.permit
        if self._regime.look():
            self._ledger.more = True
            self._on_change(self.name)
        if not permit.why:
            return
        if self._board.shed(permit.allows):
            self._ledger.more = True
        if permit.stops:
            self._crew.cut_off(permit.allows)

    def _due(self) -> float | None:
        """When, by the loop's clock, there may be something to do though nothing happens."""
        times = [self._ledger.next_wake(), self._door.pool.next_expiry]
        times += [self._regime.next_wake(), self._trial.next_wake()]
        probe = self._breaker.next_probe
        # What this turn found due waits for something to wake us; what fell due since does not.
        overdue = self._admitted and probe is not None and probe <= self._loop.time()
        wanted = self._board.waiting or self._ledger.more or self._crew.watched
        held_back = self._regime.permit.nothing
        if self._config is not None and wanted and not overdue and not held_back:
            times.append(probe)
        if self._board.waiting and (early := self._regime.early):
            times.append(self._loop.time() + early + _NOT_BEFORE)
        return min((when for when in times if when is not None), default=None)

    # -- what the others ask and tell ----------------------------------------------------------

    def may_send(self) -> bool:
        """See `Owner`."""
        return self._config is not None and not self._stopping and not self._ledger.trouble

    @property
    def _gives_way(self) -> bool:
        return self._config is not None and self._config.retry.give_way_after is not None

    def put_back(self, item: Waiting) -> None:
        """See `Desk`."""
        if self._recall.stale(item.ref.id) or self._config is None:
            self._board.settled([item.ref.id])
            self.notify()
            if not self.up:  # others may have it
                self._on_change(self.name)
        elif self._recall.kept(item.ref.id):
            self._on_return(self.name)
        elif not self._regime.permit.allows(item.priority):
            self._board.settled([item.ref.id])
            self._ledger.more = True
            self._on_change(self.name)  # others may have it
        else:
            self._board.put_back(item)

    def _lease_anew(self) -> None:
        self._regime.concurrency.down()
        self._regime.tried = True
        self._board.clear()  # by the time of the probe something more urgent may have come
        self.notify()
        self._on_change(self.name)

    def _up_again(self) -> None:
        self._fates.unanswered = 0
        self._wake.set()
        self._on_change(self.name)
