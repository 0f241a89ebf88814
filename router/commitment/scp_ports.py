"""What commitment as SCP needs of others, and what it tells them.

Owns the narrow interfaces to the index, an association and the counters.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

from router.dimse.command import Command
from router.net.pool import Proposal
from router.net.target import Target
from router.spool.index_promises import Promises


class Index(Protocol):
    """What it needs of the index."""

    promises: Promises

    def barrier(self) -> None:
        """See `router.spool.index.Index`."""
        ...


class Association(Protocol):
    """What a report needs of an association that we requested."""

    @property
    def accepted(self) -> dict[Proposal, int]: ...
    @property
    def closed(self) -> bool: ...

    async def perform(
        self, context_id: int, command: Command, data: bytes | None, *, longest: int
    ) -> tuple[Command, bytes]: ...
    async def release(self) -> None: ...
    def abort(self) -> None: ...


class Observer(Protocol):
    """Counts; must neither wait nor raise."""

    def on_promise(self, remote: str, outcome: str) -> None:
        """A request of a remote was ``asked``, ``refused``, ``reported`` or ``given_up``, or a
        report was in vain (``retried``)."""
        ...

    def on_promised(self, remote: str, committed: int, failed: int) -> None:
        """So many instances of a request were decided."""
        ...


Connect = Callable[[Target], Awaitable[Association]]
"""Opens an association with the proposals and roles of `scp`; raises AssociationError."""
