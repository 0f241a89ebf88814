"""All destinations of which commitment is asked.

Owns the set of them as configured, and what becomes of deliveries at others: what waits for a
commitment that nobody asks for any more is delivered, and stays where it is while its destination
is gone.  Must not know how one is asked.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable
from random import Random

from structlog.typing import FilteringBoundLogger

from router.commitment.index import CommitmentIndex
from router.commitment.ports import (
    CommitterConfig,
    CommitterStatus,
    Observer,
)
from router.commitment.reports import Reports
from router.commitment.scu import Asker
from router.spool.errors import SpoolError
from router.spool.index_commitments import Committed

ACCEPTED = "commitment is not asked for any more"
_PAUSE = 30.0
"""Seconds until the index is asked again that could not answer."""


class Committers:
    """``resent(destination, count)`` is called when something is to be sent, or may be, again.

    ``clock`` gives seconds since the epoch, ``new_uid`` a UID that nobody has.  To be made on the
    event loop; silent until `start`.
    """

    def __init__(
        self,
        index: CommitmentIndex,
        *,
        clock: Callable[[], float],
        new_uid: Callable[[], str],
        random: Random,
        observer: Observer,
        resent: Callable[[str, int], None],
        log: FilteringBoundLogger,
    ) -> None:
        self._index = index
        self._clock = clock
        self._new_uid = new_uid
        self._random = random
        self._observer = observer
        self._resent = resent
        self._logger = log
        self._configs: dict[str, CommitterConfig] = {}
        self._others: frozenset[str] = frozenset()
        self._gone: set[str] = set()
        self._askers: dict[str, Asker] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._main: asyncio.Task[None] | None = None
        self.reports = Reports(
            index, clock=clock, log=log, observer=observer, answered=self._answered
        )

    def start(self, configs: Iterable[CommitterConfig], others: Collection[str] = ()) -> None:
        """Begins to ask; see `configure`."""
        self._main = asyncio.get_running_loop().create_task(self._run(), name="commitments")
        self.configure(configs, others)

    def configure(self, configs: Iterable[CommitterConfig], others: Collection[str] = ()) -> None:
        """Takes on a new set of destinations, without waiting; those that are the same go on.

        ``others`` are the destinations that are configured not to be asked: what waited to be
        committed there is delivered.  At one that is in neither it waits: a slip in a name must
        not make proof of what nobody promised.
        """
        self._others = frozenset(others)
        wanted = {config.name: config for config in configs}
        for name, asker in list(self._askers.items()):
            if wanted.get(name) != self._configs[name]:
                del self._askers[name]
                task = asyncio.get_running_loop().create_task(self._end(asker))
                self._ending.add(task)
                task.add_done_callback(self._ending.discard)
        self._configs = wanted
        self.reports.resend = {name: one.settings.resend for name, one in wanted.items()}
        for name, config in wanted.items():
            if name not in self._askers:
                self._askers[name] = asker = self._asker(config)
                asker.start()
        self._wake.set()

    def notify(self, destination: str) -> None:
        """It took something that is to be committed."""
        asker = self._askers.get(destination)
        if asker is not None:
            asker.notify()
        else:
            self._wake.set()

    def hasten(self, destination: str | None) -> None:
        """An operator wants to hear of it now, or of all; see `Asker.hasten`."""
        for name, asker in self._askers.items():
            if destination in (None, name):
                asker.hasten()

    def held_changed(self, destination: str) -> None:
        """What `CommitterConfig.held` tells of it may have changed."""
        if (asker := self._askers.get(destination)) is not None:
            asker.held_changed()

    def snapshot(self) -> dict[str, CommitterStatus]:
        """All that are configured, by name."""
        return {name: asker.status() for name, asker in self._askers.items()}

    async def stop(self) -> None:
        """What is under way is cut off; it is asked again after a start."""
        if self._main is not None:
            self._main.cancel()
            await asyncio.wait([self._main])
        await asyncio.gather(*(asker.stop() for asker in self._askers.values()), *self._ending)

    def _asker(self, config: CommitterConfig) -> Asker:
        return Asker(
            config,
            index=self._index,
            reports=self.reports,
            clock=self._clock,
            new_uid=self._new_uid,
            random=Random(self._random.random()),
            observer=self._observer,
            log=self._logger,
        )

    async def _end(self, asker: Asker) -> None:
        if await asker.stop():
            self._resent(asker.name, 1)

    def _answered(self, result: Committed) -> None:
        if count := result.resent + result.dead:  # what repeats a dead one goes in its place
            self._resent(result.destination, count)
        if (asker := self._askers.get(result.destination)) is not None:
            asker.notify()

    async def _run(self) -> None:
        """Settles what no asker is there for."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                waiting = await self._index.waiting_at()
                for name in waiting:
                    await self._accept(name)
                self._tell_gone(waiting)
            except Exception as error:
                unexpected = not isinstance(error, SpoolError)
                why = str(error) or repr(error)
                self._logger.error("commitments cannot be settled", why=why, exc_info=unexpected)
                asyncio.get_running_loop().call_later(_PAUSE, self._wake.set)

    def _tell_gone(self, waiting: Iterable[str]) -> None:
        gone = {n for n in waiting if n not in self._askers and n not in self._others}
        for name in sorted(gone - self._gone):
            self._logger.warning(
                "not committed, and the destination is not configured any more: it stays so until "
                "it is configured again, or sent elsewhere, or dropped",
                destination=name,
            )
        self._gone = gone

    async def _accept(self, name: str) -> None:
        total = 0
        while name in self._others and name not in self._askers:
            count = await self._index.accept(name, ACCEPTED, self._clock())
            total += count
            if not count:
                break
        if total:
            self._logger.warning(ACCEPTED, destination=name, delivered=total)
            self._observer.on_commitment(name, "accepted", total)
