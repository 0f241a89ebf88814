"""Proof of delivery in the running gateway.

Owns what of a configuration concerns commitment by destinations, and the way of its calls to the
index's thread and to archives.  Must not know how a destination is asked, nor what an answer means.
"""

import asyncio
import contextlib
import functools
import random
import time
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import structlog

from router.commitment.committers import Committers
from router.commitment.index import CommitmentIndex
from router.commitment.ports import CommitterConfig, CommitterStatus, Held, NotAsked
from router.commitment.scu import PROPOSALS
from router.config import Config
from router.net.connector import connect
from router.net.errors import AssociationError
from router.net.normalized import Handler, Received
from router.net.pool import Proposal
from router.net.requestor import Requestor
from router.net.target import Target
from router.observe.counters import Counters
from router.query import find
from router.spool.index_commitments import (
    Commitments,
    Reference,
)
from router.spool.index_thread import Thread
from router.spool.index_types import DeliveryState, Outcome

_QUESTION = 120.0
"""Seconds for all questions of one batch to an archive, once the association with it stands."""


class Calls(Protocol):
    """What is allowed of calling destinations; `router.forward.forwarder.Forwarder` has it."""

    held_changed: Callable[[str], None]

    def held(self, destination: str) -> tuple[str, float | None] | None: ...
    async def aside(
        self, destination: str, connect: Callable[[], Awaitable[Requestor]]
    ) -> Requestor: ...


class Proof:
    """What the destinations of a configuration have still to commit.

    ``calls`` gives whoever sends to them, from `start` on; ``resent(destination, count)`` is called
    when something is to be sent, or may be, again.
    """

    def __init__(
        self,
        index: Callable[[], Commitments],
        thread: Thread,
        counters: Counters,
        calls: Callable[[], Calls],
        resent: Callable[[str, int], None],
    ) -> None:
        self._calls = calls
        self._counters = counters
        self._names: frozenset[str] = frozenset()
        """Those that have to commit, and those that had to and are not configured any more: what is
        still on its way there is none the less to be proven."""
        self._committers = Committers(
            CommitmentIndex(index, thread),
            clock=time.time,
            new_uid=lambda: f"2.25.{uuid.uuid4().int}",
            random=random.Random(),
            observer=counters,
            resent=resent,
            log=structlog.get_logger("commitment"),
        )

    def start(self, config: Config) -> None:
        """Begins to ask."""
        configs = self._configs(config)
        self._names = frozenset(one.name for one in configs)
        self._calls().held_changed = self._committers.held_changed
        self._committers.start(configs, _unasked(config))

    def configure(self, config: Config) -> None:
        """Takes on another configuration."""
        configs, unasked = self._configs(config), _unasked(config)
        self._names = self._names.difference(unasked).union(one.name for one in configs)
        self._committers.configure(configs, unasked)

    async def stop(self) -> None:
        """What is under way is cut off; it is asked again after a start."""
        await self._committers.stop()

    async def take(self, request: Received) -> int:
        """A report of storage commitment; see `router.net.normalized.Handler`."""
        return await self._committers.reports.take(request)

    def awaited(self) -> bool:
        """Whether any destination may have something to report."""
        return bool(self._names)

    def hasten(self, destination: str | None) -> None:
        """An operator wants it asked now, or all that are asked."""
        self._committers.hasten(destination)

    def snapshot(self) -> dict[str, CommitterStatus]:
        """Destinations that are asked, by name."""
        return self._committers.snapshot()

    # -- for the queues

    def pending(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """The same, with what was delivered to a destination that has to commit it UNCOMMITTED."""
        if not any(outcome.destination in self._names for outcome in outcomes):
            return outcomes
        return [
            replace(outcome, state=DeliveryState.UNCOMMITTED)
            if outcome.destination in self._names and outcome.state is DeliveryState.DELIVERED
            else outcome
            for outcome in outcomes
        ]

    def settled(self, outcomes: Sequence[Outcome]) -> None:
        """The index has these."""
        taken = {o.destination for o in outcomes if o.state is DeliveryState.UNCOMMITTED}
        for name in taken:
            self._committers.notify(name)

    # -- destinations

    def _configs(self, config: Config) -> list[CommitterConfig]:
        calling_ae = config.local[0].ae_title
        found = []
        for name, remote in config.remotes.items():
            if remote.host is None or remote.commitment is None:
                continue
            # One message at a time: some peers trip over the window, and there is no need of it.
            target = replace(Target.of(name, remote, calling_ae), asynchronous_operations=1)
            found.append(
                CommitterConfig(
                    name=name,
                    settings=remote.commitment,
                    connect=functools.partial(
                        self._connect, target, PROPOSALS, on_request=self.take
                    ),
                    look=functools.partial(self._look, target),
                    identity=target,
                    held=functools.partial(self._held, name),
                )
            )
        return found

    def _held(self, name: str) -> Held | None:
        found = self._calls().held(name)
        return None if found is None else Held(*found)

    async def _connect(
        self, target: Target, proposals: Sequence[Proposal], on_request: Handler | None = None
    ) -> Requestor:
        """An association that counts among all that are requested."""
        opened = functools.partial(
            connect, target, proposals, self._counters, on_request=on_request
        )
        return await self._calls().aside(target.name, opened)

    async def _look(self, target: Target, references: Sequence[Reference]) -> Collection[Reference]:
        """Those that an archive lists, a question for each series.

        Another object of the same UID may lie in another one.
        """
        try:
            association = await self._connect(target, find.PROPOSALS)
            async with asyncio.timeout(_QUESTION):
                try:
                    listed: set[Reference] = set()
                    for (study, series), members in _series(references):
                        uids = await find.list_instances(association, study, series)
                        listed.update(one for one in members if one.sop_instance_uid in uids)
                    with contextlib.suppress(AssociationError):  # the answers stand
                        await association.release()
                finally:
                    if not association.closed:
                        association.abort()
        except TimeoutError:
            raise NotAsked(f"{target} did not answer within {_QUESTION:g} s") from None
        except (AssociationError, find.QueryRefused) as error:
            raise NotAsked(str(error)) from error
        return listed


def _unasked(config: Config) -> list[str]:
    """Destinations that are configured without it."""
    return [n for n, r in config.remotes.items() if r.host is not None and r.commitment is None]


def _series(
    references: Iterable[Reference],
) -> Iterator[tuple[tuple[str, str], Sequence[Reference]]]:
    members: dict[tuple[str, str], list[Reference]] = defaultdict(list)
    for one in references:
        members[one.study_instance_uid, one.series_instance_uid].append(one)
    yield from sorted((pair, ones) for pair, ones in members.items() if all(pair))
