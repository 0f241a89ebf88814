"""The state of a delivery in words that a person understands.

Owns those words, from what the index says of the delivery and the gateway of its destination.
Must not know how either comes about.  Times are seconds since the epoch.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from router.observe.state import DestinationState
from router.spool.index_types import Delivery, DeliveryState, Pause

PAUSED = "by an operator"
"""What everybody may read of a pause; who it was, and why, is told to those who may act."""

Key = tuple[int, str]
"""Instance and destination."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How the destinations are at a moment, and what is being sent to them.

    ``running`` is False where no gateway runs: then nothing is known of destinations but what
    was noted (``pauses``).
    """

    now: float
    destinations: Mapping[str, DestinationState] = field(default_factory=dict)
    sending: Collection[Key] = frozenset()
    pauses: Mapping[str, Pause] = field(default_factory=dict)
    running: bool = True


@dataclass(frozen=True, slots=True)
class Situation:
    """``state``: ready, sending, waiting, held, dead, delivered, uncommitted, dropped or
    duplicate.  One that is waiting says for what (``why``: back-off, schedule, study not
    complete, series not complete, destination down, paused, not configured), until when where
    that is known, and the ``detail``."""

    state: str
    why: str = ""
    until: float | None = None
    detail: str = ""


def situation(delivery: Delivery, standing: Standing) -> Situation:
    """Of one delivery."""
    if delivery.state is not DeliveryState.READY:
        gone = standing.running and delivery.destination not in standing.destinations
        # Of one that is gone nobody asks whether it keeps what it took.
        why = "not configured" if gone and delivery.state is DeliveryState.UNCOMMITTED else ""
        return Situation(delivery.state.name.lower(), why, detail=_detail(delivery))
    if (delivery.instance_id, delivery.destination) in standing.sending:
        return Situation("sending")
    if delivery.waits:
        schedule = delivery.waits.startswith("schedule ")
        return Situation(
            "waiting", "schedule" if schedule else delivery.waits, None, delivery.waits
        )
    held_up = _of_destination(delivery.destination, delivery.priority, standing)
    if held_up is not None:
        return held_up
    if delivery.due_at is not None and delivery.due_at > standing.now:
        return Situation("waiting", "back-off", delivery.due_at, delivery.reason)
    found = standing.destinations.get(delivery.destination)
    return Situation("ready", detail=found.limited if found else "")


def _of_destination(name: str, priority: int, standing: Standing) -> Situation | None:
    """What holds up all of that priority that waits for it."""
    if (pause := standing.pauses.get(name)) is not None:
        return Situation("waiting", "paused", None, paused_by(pause))
    if not standing.running:
        return None
    found = standing.destinations.get(name)
    if found is None:
        return Situation("waiting", "not configured")
    if found.paused:
        return Situation("waiting", "paused", None, found.paused)
    urgent = found.urgent is not None and priority >= found.urgent
    if (found.shut or found.opens_at is not None) and not urgent:
        return Situation("waiting", "schedule", found.opens_at, found.shut)
    if not found.up:
        return Situation("waiting", "destination down", found.next_probe_at, found.reason)
    return None


def paused_by(pause: Pause) -> str:
    """Who paused it, and why."""
    text = f"by {pause.who}" if pause.who else PAUSED
    return f"{text}: {pause.reason}" if pause.reason else text


def _detail(delivery: Delivery) -> str:
    if delivery.state is DeliveryState.DUPLICATE and delivery.duplicate_of is not None:
        return f"the same bytes as instance {delivery.duplicate_of}"
    if delivery.state is DeliveryState.UNCOMMITTED:
        return "; ".join(filter(None, ("stored, waits to be committed", delivery.reason)))
    return delivery.reason
