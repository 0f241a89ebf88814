"""What forwarding needs of others, and what it tells them.

Owns the narrow interfaces to the index, the spool and the counters, and the values that cross
them.  The index works in a thread of its own; here it is asynchronous.
"""

from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from router.forward.permit import Hours
from router.forward.throttle import Speed
from router.net.offer import Offer
from router.net.pool import Connect, Readable
from router.net.settings import Retry
from router.spool.index_soon import Look, Soon
from router.spool.index_types import Expired, Gate, Moved, Outcome, Settled, Waiting
from router.spool.record import Ref

OpenReader = Callable[[Ref], Readable]
"""Opens the data set of an instance without touching the disk; raises SpoolError."""


class IndexGateway(Protocol):
    """The queue's side of the index, each call run where the index lives.

    Any of them may raise SpoolError; then nothing was changed, and the call is made again.
    """

    async def lease(
        self,
        destination: str,
        limit: int,
        now: float,
        exclude: Collection[int],
        least_priority: int | None = None,
    ) -> list[Waiting]:
        """What is due, in the queue's order, but for the ids in ``exclude``; marks nothing.

        With ``least_priority`` only what has that or more."""
        ...

    async def settle(self, outcomes: Sequence[Outcome]) -> Settled:
        """Records how attempts ended, all in one transaction."""
        ...

    async def next_due(
        self, destination: str, exclude: Collection[int], least_priority: int | None = None
    ) -> float | None:
        """When (seconds since the epoch) something but ``exclude`` is due; 0.0 when it is now."""
        ...


class GateIndex(Protocol):
    """What the index does about deliveries that wait for more than their turn; as above."""

    async def soon_gates(self, look: Look) -> Soon:
        """Those to be looked after: all that are shut, or the choice that ``look`` asks for."""
        ...

    async def open_gate(self, gate_id: int) -> Moved:
        """Lets some of what is behind it through."""
        ...

    async def shut_gate(
        self, destination: str | None, schedule: str, exclude: Collection[int]
    ) -> Moved:
        """Puts some of what keeps to a schedule back behind its gate, but for ``exclude``."""
        ...

    async def came(self, gate: Gate) -> int:
        """How many instances of a gate's study or series were received."""
        ...


class DivertIndex(Protocol):
    """What the index does about deliveries that others may have; as above."""

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
        """Moves some of what waits to the best member that is in ``up``, but for ``exclude``; from
        one that is up what it refused, or what waits ``give_way`` seconds for its next attempt.
        Those in ``urgent`` take what has that priority or more.  ``gone``: it is not configured,
        and keeps no study.  ``limit``: no more than that."""
        ...

    async def waiting_at(self) -> Collection[str]:
        """The destinations for which something is READY, configured or not."""
        ...


class ExpireIndex(Protocol):
    """What the index does about what waits too long; as above."""

    async def expire(
        self,
        destination: str,
        before: float,
        reason: str,
        exclude: Collection[int],
        at: float,
        after: int,
    ) -> Expired:
        """Makes dead letters of some that came before a time, but for ``exclude``; looks behind the
        instance ``after``."""
        ...


Ask = Callable[[str, Gate], Awaitable[int | None]]
"""Asks the archive of that name how many instances of a gate's study or series it knows of; None
when it does not know of any.  Raises NotAnswered."""


class NotAnswered(Exception):
    """The archive could not be asked, or refused to say."""


class Observer(Protocol):
    """Counts what happens; called on the event loop, must neither wait nor raise."""

    def on_attempt(self, destination: str) -> None:
        """A C-STORE request is about to be sent."""
        ...

    def on_delivered(self, destination: str, outcome: str, seconds: float) -> None:
        """``outcome`` is ``delivered`` or ``warning``; ``seconds`` since it was received."""
        ...

    def on_failed(self, destination: str, outcome: str) -> None:
        """``outcome`` is ``deferred`` or ``dead``."""
        ...

    def on_sent(self, destination: str, count: int) -> None:
        """``count`` bytes of a data set were delivered."""
        ...

    def on_association_failed(self, destination: str, reason: str) -> None:
        """An association could not be had or broke; ``reason`` is `AssociationError.kind`."""
        ...

    def on_availability(self, destination: str, up: bool) -> None:
        """A destination went down or came back."""
        ...

    def on_diverted(self, destination: str, to: str, count: int) -> None:
        """``count`` deliveries that waited for a destination go to another one instead."""
        ...


@dataclass(frozen=True, slots=True)
class DestinationConfig:
    """A destination as configured.

    ``connect`` opens an association to it.  ``identity`` is equal for two when the
    same peer is called in the same way, so that a reload leaves its associations alone;
    ``peer`` is equal for two that call the same one, in whatever way.
    ``asynchronous_operations`` is the window that will be proposed; ``offer`` says what never is.
    ``hours`` and ``speed`` say when, and how fast, None for always.
    """

    name: str
    connect: Connect = field(compare=False)
    identity: Hashable
    peer: Hashable = None
    associations: int = 2
    asynchronous_operations: int = 1
    linger: float = 2.0
    association_per: Literal["study", "instance"] | None = None
    offer: Offer = field(default_factory=Offer)
    retry: Retry = field(default_factory=Retry)
    hours: Hours | None = None
    speed: Speed = field(default_factory=Speed)

    def same_way(self, other: "DestinationConfig") -> bool:
        """Whether the same peer is called in the same way, though at other hours or speed."""
        return replace(self, hours=other.hours, speed=other.speed) == other


@dataclass(frozen=True, slots=True)
class DestinationStatus:
    """One destination as an operator sees it.

    ``reason`` says why it is not sending, "" when it is or when there is nothing to send.
    ``next_probe`` is in seconds since the epoch.  ``active`` instances have been taken from the
    queue: ``waiting`` for an association, ``in_flight`` or ``unsettled`` (answered, not yet
    recorded).  ``paused`` is why an operator stopped it, ``shut`` that its schedule is, ``until``
    when that opens (seconds since the epoch), None when it never does again; ``urgent`` the
    priority from which on it sends all the same, None when it sends nothing; ``limited`` what holds
    it back though it sends.
    """

    name: str
    configured: bool
    up: bool
    reason: str
    next_probe: float | None
    active: int
    waiting: int
    in_flight: int
    unsettled: int
    open_associations: int
    paused: str = ""
    until: float | None = None
    shut: str = ""
    limited: str = ""
    urgent: int | None = None


@dataclass(frozen=True, slots=True)
class Fallen:
    """A destination that is down: why, how often in a row it ``rejected`` an association, and not
    as transient, and when (seconds since the epoch) it failed last to give one."""

    reason: str
    rejected: int
    at: float


NOT_CONFIGURED = "destination is not configured"
