"""What is looked up when somebody asks, rather than counted as it happens.

Owns the values that describe a moment: queues, destinations, disk.  Whoever wires the gateway
implements `Sources`; metrics, pages and the API read the same values, so they cannot disagree.
Times are seconds since the epoch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from router.spool.index_types import QueueLine


@dataclass(frozen=True, slots=True)
class DestinationState:
    """Whether a destination answers; ``reason`` says why not, in words for an operator.

    ``paused`` is "" unless somebody paused it; ``shut`` says that its schedule is, ``opens_at``
    when that opens, None when it never does again; ``urgent`` is the priority from which on it
    sends all the same, None when it sends nothing; ``limited`` says what holds it back though it
    sends.
    """

    name: str
    up: bool
    reason: str = ""
    next_probe_at: float | None = None
    associations: int = 0
    in_flight: int = 0
    paused: str = ""
    opens_at: float | None = None
    shut: str = ""
    limited: str = ""
    urgent: int | None = None


@dataclass(frozen=True, slots=True)
class DiskState:
    """The spool's room.  ``low``: C-STORE is answered A700 until space returns.

    ``spare_bytes`` are those of ``spool_bytes`` that hold nothing: segments to be written anew.
    ``share`` of the disk or of ``max_size`` is in use, None without a high mark.
    ``archive_failed``: the last batch for the archive could not be written; None without one.
    """

    spool_bytes: int
    free_bytes: int
    low: bool = False
    spare_bytes: int = 0
    share: float | None = None
    archive_failed: bool | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment of the gateway.

    ``account_differences`` is what was received less what is accounted for, by scope: empty
    when nothing vanished.  ``unindexed_instances`` are safe in the spool but not in the index yet,
    and so in no queue, list or account.
    """

    now: float
    queues: tuple[QueueLine, ...] = ()
    destinations: tuple[DestinationState, ...] = ()
    disk: DiskState | None = None
    held_instances: int = 0
    dead_instances: int = 0
    unindexed_instances: int = 0
    account_differences: Mapping[str, int] = field(default_factory=dict)


class Sources(Protocol):
    """Where the snapshot comes from."""

    async def snapshot(self) -> Snapshot:
        """The present moment, without holding up the event loop."""
        ...
