"""The values that go into the index and come out of it.

Owns the states of a delivery, the filters and the results; no SQL.  Times are seconds since the
epoch, sizes are bytes of data sets.
"""

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

from router.spool.plan import Plan
from router.spool.record import InstanceMeta, Position, Ref


class DeliveryState(IntEnum):
    """The fate of one instance at one destination.

    The first three are open: they keep the instance in the spool.  A dead letter is open on
    purpose: it waits for a person, and retention must not take it away first.  UNCOMMITTED keeps
    it too, but is sent no more.
    """

    READY = 0
    """Waiting: due now, or at a time for a reason."""
    HELD = 1
    """Held back by an operator."""
    DEAD = 2
    """Given up; an operator retries or drops it."""
    DELIVERED = 3
    DROPPED = 4
    """Taken off the queue by an operator or by a policy that said so."""
    DUPLICATE = 5
    """The same bytes went to this destination, or wait to go there, as another instance.  While
    that one waits this one is kept too, and goes in its place should it end otherwise."""
    UNCOMMITTED = 6
    """The destination took it and has not yet said that it keeps it."""


STATES = tuple(DeliveryState)
"""By their number: ten times as fast as calling the class, which counts for every row."""

OPEN_STATES = (DeliveryState.READY, DeliveryState.HELD, DeliveryState.DEAD)

KEEPING_STATES = (*OPEN_STATES, DeliveryState.UNCOMMITTED)
"""Those that keep an instance in the spool."""


class Disposition(IntEnum):
    """What became of an instance as a whole."""

    ROUTED = 0
    HELD = 1
    QUARANTINED = 2
    DISCARDED = 3


class Tally(IntEnum):
    """What a running count counts; its key is a destination, a generation or 0."""

    STATE = 0
    """STATE + DeliveryState, by destination: deliveries that are in it or were when purged."""
    ROUTED = 10
    """Deliveries ever made for a destination."""
    GATED = 15
    """By destination: the part of STATE + READY that is behind gates."""
    DISPOSITION = 20
    """DISPOSITION + Disposition: instances, by what became of them."""
    RECEIVED = 30
    """Instances ever added."""
    PURGED_STATE = 40
    """PURGED_STATE + DeliveryState, by destination: the part of STATE without rows."""
    PURGED_DISPOSITION = 50
    """PURGED_DISPOSITION + Disposition: the part of DISPOSITION without rows."""
    GENERATION = 60
    """By generation: instances in the index whose record lies there, and their bytes."""
    HOUR_RECEIVED = 70
    """By hour of reception (`hour_of`): the part of RECEIVED."""
    HOUR_PURGED_DISPOSITION = 80
    """HOUR_PURGED_DISPOSITION + Disposition, by hour: the part of PURGED_DISPOSITION."""
    HOUR_PURGED_STATE = 90
    """HOUR_PURGED_STATE + DeliveryState, by hour and destination (`hour_key`): the part of
    PURGED_STATE."""


@dataclass(frozen=True, slots=True)
class Gap:
    """What lies behind ``known`` in the log the index may not have, though its position is past
    it: starts could not read it.  ``mark`` stands for the notes of that beside the spool."""

    known: Position
    mark: int


@dataclass(frozen=True, slots=True)
class AddResult:
    """``deliveries``: new ones that are READY and due, by destination; ``gated``: new ones that
    are behind a gate; ``duplicates``: new ones that are not sent because the same bytes went or
    wait to go there; ``known``: instances that the index had already."""

    deliveries: dict[str, int]
    duplicates: int
    added: int
    known: int
    gated: dict[str, int] = field(default_factory=dict)


GateKind = Literal["study", "series", "schedule"]


@dataclass(frozen=True, slots=True)
class Gate:
    """What holds deliveries of one destination and plan back until something has happened.

    ``key``: the Study or Series Instance UID that is to be complete, or the name of the schedule
    whose windows are to be open.  ``study_instance_uid`` is "" for a schedule.  ``instances``
    came since it was made; it need not hold any of them still (an operator may have taken them
    away).  ``earlier`` came and were let through before, ``supplement`` times in all: with 0 it
    holds the study itself, with 1 what came late for the first time.  ``first_at`` and
    ``last_at`` are times of reception, one that repeats another counted too.
    """

    id: int
    destination: str
    kind: GateKind
    key: str
    plan: Plan
    study_instance_uid: str
    instances: int
    earlier: int
    first_at: float
    last_at: float
    supplement: int


@dataclass(frozen=True, slots=True)
class Moved:
    """Deliveries that may go now and that are behind a gate (now, or as before but at another
    destination), by the destination where they are now.  ``more``: the limit stopped it."""

    ready: dict[str, int] = field(default_factory=dict)
    gated: dict[str, int] = field(default_factory=dict)
    more: bool = False


@dataclass(frozen=True, slots=True)
class Expired:
    """``count`` are dead now; ``oldest``: since when the next one counts that is not old enough
    yet, None when none was met; ``after``: the instance behind which to go on, None at the end."""

    count: int = 0
    oldest: float | None = None
    after: int | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """One delivery to make."""

    ref: Ref
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str
    received_at: float
    calling_ae: str
    attempts: int
    priority: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt at a delivery ended.

    ``state`` is DELIVERED, UNCOMMITTED, DEAD, DROPPED, or READY for another try at ``due_at``
    (None: at once).  ``status`` is the DIMSE status, if there was one.  ``attempted`` is False
    when the destination was not asked at all, which does not count as an attempt.  ``refused``
    tells of a DEAD one that another destination might take.  ``association`` is the
    one on which it was tried, "" without one; ``seconds`` is how long that took.  ``peer`` is who
    answered there, as in `Index.take_peers`; None where that does not matter.
    """

    instance_id: int
    destination: str
    state: DeliveryState
    at: float
    status: int | None = None
    reason: str = ""
    due_at: float | None = None
    attempted: bool = True
    refused: bool = False
    association: str = ""
    seconds: float | None = None
    peer: Hashable = None


@dataclass(frozen=True, slots=True)
class Settled:
    """``repeated``: deliveries whose fate was settled before and that were left as they are;
    ``unknown``: none such in the index.  Both as (instance id, destination).  ``revived``: how
    many that repeated another became READY, since that one was not delivered; ``gated``: how many
    went behind a gate; ``refused``: where something waits for another member of its plan, having
    been refused."""

    applied: int
    repeated: tuple[tuple[int, str], ...]
    unknown: tuple[tuple[int, str], ...]
    revived: int = 0
    gated: int = 0
    refused: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Purged:
    """Rows that were deleted; ``large``: those whose file of its own may now be removed."""

    large: list[Ref]
    count: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Changed:
    """What an operator's action did.  ``more``: its limit stopped it before the end;
    ``gated``: how many went behind a gate."""

    count: int
    bytes: int
    more: bool = False
    gated: int = 0


@dataclass(frozen=True, slots=True)
class Rerouted:
    """What a step of such an action did: ``count`` deliveries (instances, where these were
    decided anew), of which ``gated`` went behind a gate; ``left`` were not touched.  ``more``:
    the next step goes on from ``after`` (an instance) or ``cursor`` (a delivery)."""

    count: int = 0
    bytes: int = 0
    left: int = 0
    more: bool = False
    gated: int = 0
    after: int = 0
    cursor: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which deliveries or instances are meant; what is None does not restrict.

    ``reason`` is a glob over the reason of a delivery; where instances are asked for and neither
    a destination nor a state of deliveries is given, over that of the instance.  ``older_than``
    and ``newer_than`` are times of reception.  ``tag`` is a label that rules gave it.
    """

    destination: str | None = None
    state: DeliveryState | None = None
    study: str | None = None
    sop_instance_uid: str | None = None
    reason: str | None = None
    older_than: float | None = None
    newer_than: float | None = None
    ids: tuple[int, ...] | None = None
    disposition: Disposition | None = None
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class QueueLine:
    """One destination and open state.  ``oldest`` is a time of reception, ``next_due`` the
    first time that something may be sent: 0.0 when something may now, None when nothing ever
    will by itself, or only when a gate is opened.  ``gated`` of the count are behind gates,
    ``waits`` says for what ("study not complete").  One of UNCOMMITTED deliveries is there only
    when there are any, and waits "to be committed"."""

    destination: str
    state: DeliveryState
    count: int
    bytes: int
    oldest: float | None
    next_due: float | None
    gated: int = 0
    waits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Delivery:
    """One instance at one destination.  ``waits`` says what it waits for behind a gate, "" when
    it is not behind one; it has no ``due_at`` then."""

    instance_id: int
    destination: str
    state: DeliveryState
    priority: int
    due_at: float | None
    attempts: int
    updated_at: float
    status: int | None
    reason: str
    rule: str
    duplicate_of: int | None
    plan: str = ""
    waits: str = ""


@dataclass(frozen=True, slots=True)
class QueueItem:
    """One line of a queue; ``cursor`` is the ``after`` of the next page."""

    delivery: Delivery
    ref: Ref
    meta: InstanceMeta
    cursor: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Event:
    """An operator's action."""

    id: int
    at: float
    who: str
    action: str
    detail: str
    count: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a delivery and what came of it: DELIVERED, DEAD, DROPPED, or READY when it
    was to be tried again.  ``association`` is "" when there was none; ``seconds`` is None when it
    is not known how long it took."""

    destination: str
    at: float
    seconds: float | None
    association: str
    outcome: DeliveryState
    status: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Pause:
    """A destination that an operator paused: since when, who, and why."""

    destination: str
    at: float
    who: str
    reason: str


@dataclass(frozen=True, slots=True)
class InstanceRow:
    """An instance as the index has it.  ``meta`` has its routes as they are now, with those
    that an operator added; ``deliveries``, ``events`` and ``attempts`` are filled by
    `Index.instance`.  Of each delivery that was not made at the first try the latest attempts
    are kept."""

    ref: Ref
    meta: InstanceMeta
    disposition: Disposition
    settled_at: float | None
    deliveries: tuple[Delivery, ...] = ()
    events: tuple[Event, ...] = ()
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True)
class DestinationAccount:
    """Deliveries of one destination since the index began."""

    received: int
    delivered: int
    waiting: int
    held: int
    dead: int
    dropped: int
    duplicate: int
    uncommitted: int = 0

    @classmethod
    def of_states(cls, received: int, states: Mapping[DeliveryState, int]) -> "DestinationAccount":
        """From the number of deliveries in each state."""
        return cls(
            received=received,
            delivered=states[DeliveryState.DELIVERED],
            waiting=states[DeliveryState.READY],
            held=states[DeliveryState.HELD],
            dead=states[DeliveryState.DEAD],
            dropped=states[DeliveryState.DROPPED],
            duplicate=states[DeliveryState.DUPLICATE],
            uncommitted=states[DeliveryState.UNCOMMITTED],
        )

    @property
    def difference(self) -> int:
        """What is missing: 0, or something vanished."""
        return self.received - (
            self.delivered
            + self.uncommitted
            + self.waiting
            + self.held
            + self.dead
            + self.dropped
            + self.duplicate
        )


@dataclass(frozen=True, slots=True)
class Account:
    """Where everything that was ever received is.  ``differences`` names what does not add up,
    and by how much; empty when the account is balanced."""

    received: int
    routed: int
    held: int
    quarantined: int
    discarded: int
    destinations: dict[str, DestinationAccount]
    differences: dict[str, int] = field(default_factory=dict)

    @property
    def balanced(self) -> bool:
        return not self.differences
