"""All destinations together.

Owns the set of destinations as configured.  Must not know how one sends: they share the index
and nothing else, so that none can hold up another.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from random import Random

from structlog.typing import FilteringBoundLogger

from router.forward.destination import Destination
from router.forward.errands import E
from router.forward.expiry import Expiry
from router.forward.failover import Diverter, at_rest
from router.forward.parts import Surroundings
from router.forward.ports import (
    NOT_CONFIGURED,
    DestinationConfig,
    DestinationStatus,
    DivertIndex,
    ExpireIndex,
    IndexGateway,
    Observer,
    OpenReader,
)
from router.forward.regime import Common, Outgoing


class Forwarder:
    """Sends what waits in the index to where it is to go.

    ``clock`` gives seconds since the epoch; timers run by the event loop's own clock.  To be
    used on one event loop, from `start` to `stop`.  ``returned(destination)`` is called when
    something that was in hand when `at_rest` was entered came back unsent: enter it once more.
    ``held_changed(destination)``, to be set before `start`, is called when `held` may have changed.
    """

    def __init__(
        self,
        *,
        index: IndexGateway,
        open_reader: OpenReader,
        clock: Callable[[], float],
        random: Random,
        observer: Observer,
        log: FilteringBoundLogger,
        divert: DivertIndex | None = None,
        expire: ExpireIndex | None = None,
        gated: Callable[[], None] = lambda: None,
        returned: Callable[[str], None] = lambda destination: None,
    ) -> None:
        self._random = random
        self._logger = log
        self._returned = returned
        self.held_changed: Callable[[str], None] = lambda destination: None
        self._gated = gated
        self._common = Common()
        self._around = Surroundings(index, open_reader, clock, random, observer, log, self._common)
        self._outgoing = Outgoing()
        self._destinations: dict[str, Destination] = {}
        self._pauses: dict[str, str] = {}
        self._running = False
        self._diverter: Diverter | None = None
        if divert is not None:  # what is too old is given up after others could have it
            self._diverter = Diverter(
                divert,
                self._destinations,
                clock=clock,
                random=random,
                observer=observer,
                notify=self.notify,
                gated=gated,
                log=log,
                expiry=None
                if expire is None
                else Expiry(
                    expire, clock=clock, observer=observer, log=log, given_up=self._given_up
                ),
            )

    def start(
        self,
        configs: Iterable[DestinationConfig],
        members: Collection[str] = frozenset(),
        outgoing: Outgoing = Outgoing(),  # noqa: B008 - frozen
    ) -> None:
        """Begins to send what waits for these; for the others see `configure`."""
        self._running = True
        self.configure(configs, members, outgoing)
        if self._diverter is not None:
            self._diverter.start()

    def configure(
        self,
        configs: Iterable[DestinationConfig],
        members: Collection[str] = frozenset(),
        outgoing: Outgoing = Outgoing(),  # noqa: B008 - frozen
    ) -> None:
        """Takes on a new set of destinations, at once and without waiting.

        One that is the same keeps its associations; one that changed finishes what is in flight
        as it was begun; what waits for one that is gone stays in the index, see `why`, unless
        others may have it.  ``members`` are those that stand in for others, or others for them:
        they are probed while they are down, whether anything waits for them or not.  ``outgoing``
        holds for all destinations together.
        """
        if not self._running:
            raise RuntimeError("the forwarder is not running")
        self._common.configure(outgoing)
        others, self._outgoing = outgoing != self._outgoing, outgoing
        wanted = {config.name: config for config in configs}
        for name, destination in self._destinations.items():
            destination.configure(wanted.get(name))
            if others:  # what is on its way may stand in line for what holds no longer
                destination.notify()
        for name, config in wanted.items():
            if name not in self._destinations:
                destination = Destination(
                    config,
                    # Of its own, so that how one fares does not change the waits of another.
                    replace(self._around, random=Random(self._random.random())),
                    on_change=self._changed,
                    on_return=self._returned,
                )
                self._destinations[name] = destination
                if name in self._pauses:
                    destination.pause(self._pauses[name])
                destination.start()
        if self._diverter is not None:
            self._diverter.configure(frozenset(members))

    def notify(self, destination: str, count: int = 1) -> None:
        """``count`` new instances for a destination are in the index."""
        found = self._destinations.get(destination)
        if found is not None and count:
            found.notify()
        if self._diverter is not None:
            self._diverter.added(destination)

    def refused(self, destination: str) -> None:
        """Something is in its queue that it refused and that another may have."""
        self._changed(destination)

    def _given_up(self, destination: str) -> None:
        self._gated()
        self.notify(destination)

    def _changed(self, destination: str) -> None:
        self.held_changed(destination)
        if self._diverter is not None:
            self._diverter.changed(destination)

    @property
    def names(self) -> Collection[str]:
        """All destinations that are configured, or were since `start`."""
        return self._destinations.keys()

    def at_rest(self, destination: str) -> AbstractAsyncContextManager[Collection[int]]:
        """See `Destination.at_rest`, with ``clear``."""
        return at_rest(self._destinations, destination, clear=True)

    def pause(self, destination: str, reason: str) -> None:
        """Nothing more is taken for it, until `resume`; also for one that is not configured yet,
        and before `start`."""
        self._pauses[destination] = reason
        if (found := self._destinations.get(destination)) is not None:
            found.pause(reason)

    def resume(self, destination: str) -> None:
        """The reverse of `pause`."""
        self._pauses.pop(destination, None)
        if (found := self._destinations.get(destination)) is not None:
            found.resume()

    def held(self, destination: str) -> tuple[str, float | None] | None:
        """See `Destination.held`; None of one that is not configured."""
        found = self._destinations.get(destination)
        return None if found is None else found.held

    async def aside(self, destination: str, connect: Callable[[], Awaitable[E]]) -> E:
        """An association with a destination that carries nothing of its queue, once there is a
        place for it among those of all; raises what ``connect`` raises."""
        return await self._common.errands.open(destination, connect)

    def sending(self) -> set[tuple[int, str]]:
        """What is on its way, as (instance id, destination)."""
        return {
            (number, name) for name, found in self._destinations.items() for number in found.sending
        }

    def refresh(self, destination: str | None = None) -> None:
        """The queue was changed by an operator, for one destination or for all."""
        for name, found in self._destinations.items():
            if destination is None or name == destination:
                found.refresh()

    def why(self, destination: str) -> str:
        """Why nothing is sent there for now; "" when nothing stands in the way."""
        found = self._destinations.get(destination)
        return NOT_CONFIGURED if found is None else found.status().reason

    def snapshot(self) -> dict[str, DestinationStatus]:
        """All destinations that are configured, or were since `start`, by name."""
        return {name: found.status() for name, found in self._destinations.items()}

    async def stop(self, grace: float) -> None:
        """Finishes what is in flight within ``grace`` seconds, aborts the rest, settles.

        Does nothing when it is not running.
        """
        if not self._running:
            return
        self._running = False
        if self._diverter is not None:
            await self._diverter.stop()
        results = await asyncio.gather(
            *(found.stop(grace) for found in self._destinations.values()), return_exceptions=True
        )
        for name, result in zip(self._destinations, results, strict=True):
            if isinstance(result, BaseException):
                self._logger.error("stopping failed", destination=name, exc_info=result)
