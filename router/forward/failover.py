"""Brings what waits at a destination that is down to those that may have it instead, and back.

Owns when the index is asked to do so, and that what nobody has taken is looked at for its age.
Must not know which deliveries may go where: that is in their plans, which the index keeps.

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
from router.forward.expiry import Expiry
from router.forward.ports import DivertIndex, Observer
from router.net.settings import Retry
from router.spool.errors import SpoolError
from router.spool.index_types import Moved

_GATHER = 0.2
"""Seconds between two rounds: what comes for a destination that is down goes together."""
_TROUBLE = Retry(first=0.5, factor=2.0, cap=30.0, jitter=0.25)


def _away(destination: Destination) -> bool:
    """Whether others have what is meant for it: it is down, or held back for too long."""
    return not destination.up or destination.gives_way_in == 0.0


class _Standing:
    """How a destination was at the last round; ``diverted`` are those moved since it went."""

    __slots__ = ("away", "diverted", "sends", "urgent")

    def __init__(self, destination: Destination | None) -> None:
        self.sends = destination is not None and destination.sends
        self.urgent = None if destination is None else destination.urgent
        self.away = destination is None or _away(destination)
        self.diverted = 0

    def takes_as(self, other: "_Standing") -> bool:
        """Whether it sends what the other does, and is away if that is."""
        mine = self.sends, self.urgent, self.away
        return mine == (other.sends, other.urgent, other.away)


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
        expiry: Expiry | None = None,
    ) -> None:
        self._expiry = expiry
        self._timers: dict[str, asyncio.TimerHandle] = {}
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
        if destination is None or not destination.up or destination.gives_way_in is not None:
            self.changed(name)

    async def stop(self) -> None:
        """What is under way at the index is finished."""
        for timer in self._timers.values():
            timer.cancel()
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
                standing = self._standings[name] = _Standing(destination)
            now = _Standing(destination)
            if not now.takes_as(standing):
                # Others may have what is meant for this one, or need it to take theirs.
                self._all = True
                if standing.away == now.away:
                    now.diverted = standing.diverted
                self._standings[name] = standing = now
            destination.watch(name in self._members or bool(standing.diverted))
        if self._all:
            waiting = await self._index.waiting_at()
            self._wanted.update(waiting)
            self._all = False
        while self._wanted:
            name = self._wanted.pop()
            await self._divert(name)
            await self._expire(name)
        for destination in self._destinations.values():
            if destination.wants_one:
                await self._lend(destination)

    def _up(self, name: str) -> list[str]:
        """Who may have what waits at one, itself included if it is to keep that."""
        return [
            other
            for other, destination in self._destinations.items()
            if (destination.sends if other != name else not _away(destination))
        ]

    def _urgent(self) -> dict[str, int]:
        """Who takes only what is that urgent: they are shut but for that."""
        found = ((name, destination.urgent) for name, destination in self._destinations.items())
        return {name: least for name, least in found if least is not None}

    async def _divert(self, name: str) -> None:
        counts: Counter[str] = Counter()
        destination = self._destinations.get(name)
        # One that looks out for an instance in vain has none that is due.
        more = destination is None or not destination.wants_one
        try:
            while more:
                async with at_rest(self._destinations, name, clear=False) as in_hand:
                    moved = await self._move(name, self._up(name), in_hand, self._urgent())
                counts.update(moved.ready)
                counts.update(moved.gated)
                more = moved.more
        finally:
            self._tell(name, counts)

    async def _lend(self, destination: Destination) -> None:
        """Gives one instance to a destination that is there, to find out whether it takes any."""
        name = destination.name
        for origin in await self._index.waiting_at():
            if origin == name:
                continue
            up, urgent = [name], dict[str, int]()
            if (least := destination.least) is not None:
                up, urgent = [], {name: least}
            async with at_rest(self._destinations, origin, clear=False) as in_hand:
                if not destination.wants_one:
                    return
                if (there := self._destinations.get(origin)) is not None and not _away(there):
                    up.append(origin)
                moved = await self._move(origin, up, in_hand, urgent, limit=1)
            self._tell(origin, Counter(moved.ready) + Counter(moved.gated))
            if moved.ready.get(name):
                return

    async def _move(
        self,
        name: str,
        up: Collection[str],
        in_hand: Collection[int],
        urgent: Mapping[str, int],
        limit: int | None = None,
    ) -> Moved:
        """Some of what waits at one that is at rest; tells those that have it now."""
        destination = self._destinations.get(name)
        retry = None if destination is None else destination.retry
        moved = await self._index.divert(
            name,
            up,
            tuple(in_hand),
            self._clock(),
            None if retry is None else retry.give_way_after,
            urgent=urgent,
            gone=retry is None,
            limit=limit,
        )
        for other, count in moved.ready.items():
            self._notify(other, count)
        if moved.gated:
            self._gated()
        return moved

    async def _expire(self, name: str) -> None:
        """Gives up what is too old, after others could have it; plans when to look again."""
        destination = self._destinations.get(name)
        if destination is None:
            return
        if (timer := self._timers.pop(name, None)) is not None:
            timer.cancel()
        again = None if self._expiry is None else await self._expiry.look(destination)
        if seconds := destination.gives_way_in:
            again = seconds if again is None else min(seconds, again)
        if again is not None:
            again = max(again, _GATHER)
            self._timers[name] = self._loop.call_later(again, self.changed, name)

    def _tell(self, name: str, counts: Counter[str]) -> None:
        for other, count in counts.items():
            self._observer.on_diverted(name, other, count)
        if not counts:
            return
        destination = self._destinations.get(name)
        if destination is not None and not _away(destination):
            self._logger.info("given back, or to another", destination=name, to=dict(counts))
            return
        standing = self._standings.setdefault(name, _Standing(destination))
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
