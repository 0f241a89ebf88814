"""Storage commitment in the running gateway.

Owns its wiring: what is promised to those who send to us, and the one service that takes the
messages of both roles.  Must not know how commitments are decided or asked for.
"""

import asyncio
import functools
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog

from router.commitment.scp import PROPOSALS, ROLES, CommitmentSCP
from router.commitment.search import CaughtUp
from router.commitment.service import CommitmentService
from router.config import Config
from router.dimse.status import NO_SUCH_SOP_INSTANCE
from router.net.connector import connect
from router.net.normalized import Received
from router.net.requestor import Requestor
from router.net.target import Target
from router.observe.counters import Counters
from router.queues import Aside
from router.spool.index import Index
from router.spool.index_thread import Thread
from router.spool.presence import present
from router.spool.spool import Spool


class Commitments:
    """Made with the gateway, before it listens.

    ``aside`` opens an association with a remote by name where there is a place for it;
    ``caught_up`` waits until the index has all that was acknowledged.
    ``take_report`` gets the N-EVENT-REPORTs of peers where ``awaited()``; both may be set before
    `start`.
    """

    def __init__(
        self,
        index: Index,
        thread: Thread,
        spool: Spool,
        counters: Counters,
        config: Config,
        aside: Aside,
        caught_up: CaughtUp,
    ) -> None:
        self._aside = aside
        self._counters = counters
        self._config = config
        self.take_report: Callable[[Received], Awaitable[int]] = _unexpected
        self.awaited: Callable[[], bool] = lambda: False
        self.scp = CommitmentSCP(
            config.commitment,
            index,
            thread,
            self._connect,
            self._target,
            counters,
            structlog.get_logger("commitment"),
            clock=time.time,
            random=random.Random(),
            present=lambda refs: asyncio.to_thread(present, spool, refs),
            caught_up=caught_up,
            doubted=lambda: max(spool.doubted, index.made_anew()),
        )
        self.service = CommitmentService(
            self.scp.take,
            lambda received: self.take_report(received),
            self.scp.offered,
            lambda: self.awaited(),
        )

    def start(self) -> None:
        """Go on with what was asked before."""
        self.scp.start()

    async def stop(self) -> None:
        """Break off what is under way; it goes on after the next start."""
        await self.service.close()
        await self.scp.stop()

    def configure(self, config: Config) -> None:
        """Go by this from now on."""
        self._config = config
        self.scp.configure(config.commitment)

    def _target(self, name: str, own_ae: str) -> Target | None:
        remote = self._config.remotes.get(name)
        if remote is None or remote.host is None:
            return None
        # As the AE that it asked, whatever is presented to it otherwise.
        target = Target.of(name, remote, own_ae)
        return replace(target, calling_ae=own_ae, asynchronous_operations=1)

    async def _connect(self, target: Target) -> Requestor:
        opened = functools.partial(connect, target, PROPOSALS, observer=self._counters, roles=ROLES)
        return await self._aside(target.name, opened)


async def _unexpected(_: Received) -> int:
    return NO_SUCH_SOP_INSTANCE
