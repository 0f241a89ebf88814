"""Brings what waits at a destination that is down to those that may have it instead, and back.

Owns when the index is asked to do so.  Must not know which deliveries may go where: that is in
their plans, which the index keeps.

Two hands never hold one delivery: it is moved while its destination takes nothing from the queue,
and what that has in hand already stays.  An instance whose answer was lost as the destination fell
is the exception that cannot be helped: it may have arrived, and goes to the other one all the same.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from random import Random

from structlog.typing import FilteringBoundLogger

from router.forward.backoff import delay
from router.forward.destination import Destination
from router.forward.ports import DivertIndex, Observer
from router.net.settings import Retry
from router.spool.errors import SpoolError

_GATHER = 0.2
"""Seconds between two rounds: what comes for a destination that is down goes together."""
_TROUBLE = Retry(first=0.5, factor=2.0, cap=30.0, jitter=0.25)


class _Standing:
    """How a destination was at the last round; ``diverted`` are those moved since it fell."""

    __slots__ = ("diverted", "up")

    def __init__(self, up: bool) -> None:
        self.up = up
        self.diverted = 0


@asynccontextmanager
async def at_rest(
    destinations: Mapping[str, Destination], name: str, *, clear: bool
) -> AsyncIterator[Collection[int]]:
    """See `Destination.at_rest`; one that was never configured is always at rest."""
    destination = destinations.get(name)
    if destination is None:
        yield ()
        return
    async with destination.at_rest(clear=clear) as in_hand:
        yield in_hand


class Diverter:
    """``notify(destination, count)`` is called for what became due elsewhere, ``gated()`` when
    something was put behind a gate elsewhere."""

    def __init__(
        self,
        index: DivertIndex,
        destinations: Mapping[str, Destination],
        *,
        clock: Callable[[], float],
        random: Random,
        observer: Observer,
        notify: Callable[[str, int], None],
        gated: Callable[[], None],
        log: FilteringBoundLogger,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._index = index
        self._destinations = destinations
        self._clock = clock
        self._random = random
        self._observer = observer
        self._notify = notify
        self._gated = gated
        self._logger = log
        self._standings: dict[str, _Standing] = {}
        self._members: frozenset[str] = frozenset()
        self._wanted: set[str] = set()
        self._all = True
        self._failures = 0
        self._wake = asyncio.Event()
        self._main: asyncio.Task[None] | None = None

    # -- from outside ------------------------------------------------------------------------

    def start(self) -> None:
        """Begins with what waits in the index."""
        self._main = self._loop.create_task(self._run(), name="failover")

    def configure(self, members: frozenset[str]) -> None:
        """The destinations are others, or of others of them it is said that one may stand in."""
        self._members = members
        self._all = True
        self._wake.set()

    def changed(self, name: str) -> None:
        """A destination went down, or came back, or has something anew that it failed with."""
        self._wanted.add(name)
        self._wake.set()

    def added(self, name: str) -> None:
        """Something was put in a queue."""
        destination = self._destinations.get(name)
        if destination is None or not destination.up:
            self.changed(name)

    async def stop(self) -> None:
        """What is under way at the index is finished."""
        if self._main is not None:
            self._main.cancel()
            await asyncio.wait([self._main])

    # -- the one task ------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._round()
                self._failures = 0
            except Exception as error:  # noqa: BLE001 - the next one may go well, and has to be had
                self._all = True
                self._wake.set()
                await asyncio.sleep(self._in_trouble(error))
            else:
                await asyncio.sleep(_GATHER)

    async def _round(self) -> None:
        for name, destination in self._destinations.items():
            standing = self._standings.get(name)
            if standing is None:
                standing = self._standings[name] = _Standing(destination.up)
            if standing.up != destination.up:
                standing.up, standing.diverted = destination.up, 0
                # Others may have what is meant for this one, or need it to take theirs.
                self._all = True
            destination.watch(name in self._members or bool(standing.diverted))
        if self._all:
            waiting = await self._index.waiting_at()
            self._wanted.update(waiting)
            self._all = False
        while self._wanted:
            await self._divert(self._wanted.pop())

    def _up(self) -> list[str]:
        return [name for name, destination in self._destinations.items() if destination.up]

    async def _divert(self, name: str) -> None:
        counts: Counter[str] = Counter()
        more = True
        try:
            while more:
                async with at_rest(self._destinations, name, clear=False) as in_hand:
                    moved = await self._index.divert(
                        name, self._up(), tuple(in_hand), self._clock()
                    )
                for other, count in moved.ready.items():
                    self._notify(other, count)
                if moved.gated:
                    self._gated()
                counts.update(moved.ready)
                counts.update(moved.gated)
                more = moved.more
        finally:
            self._tell(name, counts)

    def _tell(self, name: str, counts: Counter[str]) -> None:
        for other, count in counts.items():
            self._observer.on_diverted(name, other, count)
        if not counts:
            return
        destination = self._destinations.get(name)
        if destination is not None and destination.up:
            self._logger.info("given back", destination=name, to=dict(counts))
            return
        standing = self._standings.setdefault(name, _Standing(up=False))
        if not standing.diverted:  # what follows is told by the metric only
            self._logger.warning(
                "others take what waits",
                destination=name,
                to=dict(counts),
                sent_without_answer=0 if destination is None else destination.unanswered,
            )
        standing.diverted += counts.total()

    def _in_trouble(self, error: Exception) -> float:
        self._failures += 1
        if not isinstance(error, SpoolError):
            self._logger.exception("diverting failed")
        elif self._failures == 1:
            self._logger.error("nothing can be diverted", reason=str(error))
        return delay(_TROUBLE, self._failures, self._random.random())
