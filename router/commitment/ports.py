"""What asking for commitment needs of others, and what it tells them.

Owns the narrow interfaces to an association and the counters; for the index see `commitment.index`.
"""

from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from router.dimse.command import Command
from router.net.commitment import Commitment
from router.net.pool import Proposal
from router.spool.index_commitments import Reference


class NotAsked(Exception):
    """An archive could not be asked what it has; the text is fit for an operator."""


class Asked(Protocol):
    """What is needed of an association; `router.net.requestor.Requestor` has it."""

    @property
    def accepted(self) -> Mapping[Proposal, int]: ...

    @property
    def closed(self) -> bool: ...

    async def perform(
        self, context_id: int, command: Command, data: bytes | None, *, longest: int
    ) -> tuple[Command, bytes]: ...

    async def ended(self) -> object: ...

    async def release(self) -> None: ...

    def abort(self) -> None: ...


class Observer(Protocol):
    """Counts; called on the event loop, must neither wait nor raise."""

    def on_commitment_asked(self, destination: str, outcome: str) -> None:
        """``outcome`` is ``asked``, ``refused`` or ``failed``."""
        ...

    def on_commitment(self, destination: str, outcome: str, count: int) -> None:
        """``count`` deliveries were ``committed``, ``resent``, ``dead``, or ``accepted`` without
        being asked for."""
        ...


@dataclass(frozen=True, slots=True)
class Held:
    """Why a destination is not to be called at present, and until when, in seconds since the epoch,
    where that is known."""

    why: str
    until: float | None


@dataclass(frozen=True, slots=True)
class CommitterConfig:
    """A destination of which commitment is asked.

    ``connect`` opens an association for it, whose reports go where all go.  ``look`` gives those
    of the references that the destination lists, each in its series, and raises NotAsked.
    ``held`` tells whether it may be called now, None when it may.
    ``identity`` is equal for two when the same peer is called in the same way.
    """

    name: str
    settings: Commitment
    connect: Callable[[], Awaitable[Asked]] = field(compare=False)
    look: Callable[[Sequence[Reference]], Awaitable[Collection[Reference]]] = field(compare=False)
    identity: Hashable = None
    held: Callable[[], Held | None] = field(default=lambda: None, compare=False)


@dataclass(frozen=True, slots=True)
class CommitterStatus:
    """``trouble`` says why a destination is not asked now, or could not be when it was last tried,
    "" when it could; ``next_at`` when it is asked next, in seconds since the epoch, None when
    nothing is to be asked, or nobody knows when."""

    trouble: str
    next_at: float | None
