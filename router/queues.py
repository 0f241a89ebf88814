"""The queues of the running gateway, as its services see them.

Owns the way of their calls to the index's thread, and what of a configuration concerns waiting:
windows, members, archives to ask.  Must not know how deliveries are made.
"""

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from router.config import Config
from router.forward.ports import NotAnswered
from router.net.connector import connect
from router.net.errors import AssociationError
from router.net.requestor import Requestor, RequestorObserver
from router.net.target import Target
from router.query.find import PROPOSALS, QueryRefused, count_instances
from router.spool.index import Index
from router.spool.index_soon import Look, Soon
from router.spool.index_thread import Thread
from router.spool.index_types import DeliveryState, Expired, Gate, Moved, Outcome, Settled, Waiting
from rules import RuleSet
from rules.window import Windows

_QUESTION = 60.0
"""Seconds for one question to an archive, once the association with it stands."""


class Provisional(Protocol):
    """Deliveries that are none until more is known of them."""

    def pending(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """Outcomes as they are to be recorded."""
        ...

    def settled(self, outcomes: Sequence[Outcome]) -> None:
        """They were recorded."""
        ...


class QueueGateway:
    """The index's side of what waits, for the forwarder, the diverter and the gatekeeper.

    ``gated()`` is called when something that was sent in vain went behind a gate,
    ``refused(destination)`` when something waits there for another one to take it.
    """

    def __init__(
        self,
        index: Index,
        thread: Thread,
        gated: Callable[[], None],
        refused: Callable[[str], None],
    ) -> None:
        self._index = index
        self._thread = thread
        self._gated = gated
        self._refused = refused
        self.proof: Provisional | None = None
        """What has to be said of a delivery before it counts as one."""

    async def lease(
        self,
        destination: str,
        limit: int,
        now: float,
        exclude: Collection[int],
        least_priority: int | None = None,
    ) -> list[Waiting]:
        """See `IndexGateway`."""
        return await self._thread.run(
            self._index.lease, destination, limit, now, exclude, least_priority
        )

    async def settle(self, outcomes: Sequence[Outcome]) -> Settled:
        """See `IndexGateway`."""
        if self.proof is not None:
            outcomes = self.proof.pending(outcomes)
        settled = await self._thread.run(self._index.settle, outcomes)
        if self.proof is not None:
            self.proof.settled(outcomes)
        # Those of before may have been settled by a call that said that it failed.
        again = {destination for _, destination in settled.repeated}
        if settled.gated or again:
            self._gated()
        for destination in again.union(settled.refused):
            self._refused(destination)
        return settled

    async def next_due(
        self, destination: str, exclude: Collection[int], least_priority: int | None = None
    ) -> float | None:
        """See `IndexGateway`."""
        return await self._thread.run(self._index.next_due, destination, exclude, least_priority)

    async def soon_gates(self, look: Look) -> Soon:
        """See `GateIndex`."""
        return await self._thread.run(self._index.soon_gates, look)

    async def open_gate(self, gate_id: int) -> Moved:
        """See `GateIndex`."""
        return await self._thread.run(self._index.open_gate, gate_id)

    async def shut_gate(
        self, destination: str | None, schedule: str, exclude: Collection[int]
    ) -> Moved:
        """See `GateIndex`."""
        return await self._thread.run(self._index.shut_gate, destination, schedule, exclude)

    async def came(self, gate: Gate) -> int:
        """See `GateIndex`."""
        series = gate.key if gate.kind == "series" else ""
        return await self._thread.run(self._index.came, gate.study_instance_uid, series)

    async def divert(
        self,
        destination: str,
        up: Collection[str],
        exclude: Collection[int],
        at: float,
        give_way: float | None,
        *,
        urgent: Mapping[str, int],
        gone: bool,
        limit: int | None,
    ) -> Moved:
        """See `DivertIndex`."""
        divert = functools.partial(self._index.divert, give_way=give_way, urgent=urgent, gone=gone)
        if limit is not None:
            divert = functools.partial(divert, limit=limit)
        return await self._thread.run(divert, destination, up, exclude, at)

    async def expire(
        self,
        destination: str,
        before: float,
        reason: str,
        exclude: Collection[int],
        at: float,
        after: int,
    ) -> Expired:
        """See `ExpireIndex`."""
        expire = self._index.expire
        return await self._thread.run(expire, destination, before, reason, exclude, at, after=after)

    async def waiting_at(self) -> list[str]:
        """See `DivertIndex`."""
        lines = await self._thread.run(self._index.queue_summary)
        return [q.destination for q in lines if q.state is DeliveryState.READY and q.count]


def members_of(rules: RuleSet) -> frozenset[str]:
    """The destinations of which one may have what is meant for another."""
    targets = [target for rule in rules.rules for target in rule.targets]
    return frozenset(name for t in targets if len(t.members) > 1 for name in t.members)


def windows_of(config: Config) -> dict[str, Windows]:
    """The schedules by name."""
    return {name: schedule.windows(config.timezone) for name, schedule in config.schedules.items()}


Aside = Callable[[str, Callable[[], Awaitable[Requestor]]], Awaitable[Requestor]]
"""Opens an association with a remote by name where there is a place for it among all."""


class Archives:
    """Asks the configured archives how much there is of a study."""

    def __init__(self, observer: RequestorObserver, aside: Aside) -> None:
        self._observer = observer
        self._aside = aside
        self._targets: Mapping[str, Target] = {}

    def configure(self, config: Config) -> None:
        """Asks those of this configuration from now on."""
        calling_ae = config.local[0].ae_title
        self._targets = {
            # One question at a time: no window is needed, and some archives trip over the item.
            name: replace(Target.of(name, remote, calling_ae), asynchronous_operations=1)
            for name, remote in config.remotes.items()
            if remote.host is not None
        }

    async def count(self, archive: str, gate: Gate) -> int | None:
        """See `router.forward.ports.Ask`."""
        target = self._targets.get(archive)
        if target is None:
            raise NotAnswered(f"{archive} is not configured, or has no host")
        series = gate.key if gate.kind == "series" else ""
        opened = functools.partial(connect, target, PROPOSALS, observer=self._observer)
        try:
            association = await self._aside(archive, opened)
            async with asyncio.timeout(_QUESTION):
                try:
                    number = await count_instances(association, gate.study_instance_uid, series)
                    with contextlib.suppress(AssociationError):  # the answer stands
                        await association.release()
                finally:
                    if not association.closed:
                        association.abort()
        except TimeoutError:
            raise NotAnswered(f"{target} did not answer within {_QUESTION:g} s") from None
        except (AssociationError, QueryRefused) as error:
            raise NotAnswered(str(error)) from error
        return number
