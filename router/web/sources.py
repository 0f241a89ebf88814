"""What the web face asks of the gateway.

Owns the values that the pages and the API show and the protocols by which they are had; the
gateway implements both.  Must not know HTTP.  Times are seconds since the epoch, sizes bytes.

`StatusSource` is for everybody who can reach the port: nothing in it identifies a patient, an
instance or a study.  `ControlSource` is for whoever may open the control socket.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from router.config.compare import Difference
from router.config.versions import File, Origin, Version
from router.observe.state import Snapshot
from router.spool.index_hours import SinceAccount
from router.spool.index_promises import Promise
from router.spool.index_types import Account, Changed, Filter, InstanceRow, QueueItem, QueueLine
from router.web.standing import Standing


class ControlError(Exception):
    """What was asked cannot be done: ``error`` says what is wrong, ``fix`` what to do.

    ``status`` is that of the HTTP answer: 400 for a bad request, 404, 409, 503.
    """

    def __init__(self, error: str, fix: str = "", *, status: int = 400) -> None:
        super().__init__(error)
        self.error = error
        self.fix = fix
        self.status = status


@dataclass(frozen=True, slots=True)
class Readiness:
    """Ready when there is no reason against it: listeners, disk, index."""

    reasons: tuple[str, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether senders would be served."""
        return not self.reasons


@dataclass(frozen=True, slots=True)
class ListenerState:
    """One local AE and where it listens."""

    local_ae: str
    address: str
    listening: bool = True


@dataclass(frozen=True, slots=True)
class AssociationState:
    """One open association.  ``direction`` is in or out; ``peer`` a configured name."""

    id: str
    direction: str
    local_ae: str
    peer: str
    calling_ae: str
    address: str
    since: float
    instances: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """The gateway at one moment; ``reload_error`` is why the file on disk is not in effect."""

    version: str
    started_at: float
    snapshot: Snapshot
    rules_version: str = ""
    configured_at: float = 0.0
    reload_error: str = ""
    listeners: tuple[ListenerState, ...] = ()
    associations: tuple[AssociationState, ...] = ()


@dataclass(frozen=True, slots=True)
class InstanceFile:
    """A Part 10 file (PS3.10 §7) as it is read: ``length`` bytes in pieces."""

    name: str
    length: int
    pieces: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Reloaded:
    """``applied`` is False when the configuration has ``problems``: the old one stays.

    ``version`` is the number under which it is kept, 0 when it could not be kept.  ``files`` are
    those that were written or removed to go back to a version.  ``notes`` are what has not taken
    effect yet, and what became of an edit that was in the way.
    """

    applied: bool
    changes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    version: int = 0
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Redone:
    """What was sent elsewhere, again, or decided anew: ``count`` deliveries (instances, where
    these were decided), and ``left`` that were not touched."""

    count: int
    bytes: int
    left: int = 0


@dataclass(frozen=True, slots=True)
class RuleLine:
    """A rule in words; ``state`` is why it does not count now, "" when it does.

    ``when`` shows no value of an attribute that could identify a patient.
    """

    name: str
    when: str
    does: tuple[str, ...]
    state: str = ""


@dataclass(frozen=True, slots=True)
class ListState:
    """A list that rules look into: how many values, and whether its file failed since."""

    name: str
    values: int
    failed: bool = False


@dataclass(frozen=True, slots=True)
class RulesView:
    """The rules in force, in order.

    ``number`` is that of the version that is kept, 0 when it could not be kept; ``trouble`` says
    why.
    """

    version: str
    number: int
    since: float
    rules: tuple[RuleLine, ...] = ()
    destinations: tuple[str, ...] = ()
    lists: tuple[ListState, ...] = ()
    reload_error: str = ""
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class VersionsView:
    """The versions that are kept, oldest first, and in words those that cannot be read."""

    versions: tuple[Version, ...]
    damaged: tuple[str, ...] = ()
    in_force: int = 0
    trouble: str = ""


class StatusSource(Protocol):
    """Behind the TCP port; all of it may be read by whoever reaches the port."""

    async def metrics(self) -> bytes:
        """Text for Prometheus."""
        ...

    async def readiness(self) -> Readiness:
        """Whether senders would be served, and why not."""
        ...

    async def status(self) -> Status:
        """The present moment."""
        ...

    async def queues(self) -> Sequence[QueueLine]:
        """Deliveries by destination and state."""
        ...

    async def rules(self) -> RulesView:
        """The rules in force."""
        ...


class ControlSource(Protocol):
    """Behind the control socket.  Every method may raise `ControlError`."""

    async def status(self) -> Status:
        """The present moment."""
        ...

    async def queues(self) -> Sequence[QueueLine]:
        """Deliveries by destination and state."""
        ...

    async def retry(self, which: Filter, origin: Origin) -> Changed:
        """Dead and waiting deliveries are due now, their attempts forgotten."""
        ...

    async def drop(self, which: Filter, reason: str, origin: Origin) -> Changed:
        """Deliveries that are not to be made after all."""
        ...

    async def hold(self, which: Filter, origin: Origin) -> Changed:
        """Waiting deliveries stay until released."""
        ...

    async def release(self, which: Filter, origin: Origin) -> Changed:
        """Held deliveries wait to be sent again."""
        ...

    async def route_held(
        self, which: Filter, destinations: tuple[str, ...], origin: Origin
    ) -> Changed:
        """Instances that no rule matched, or that were quarantined, go to ``destinations``."""
        ...

    async def discard_held(self, which: Filter, reason: str, origin: Origin) -> Changed:
        """Instances that no rule matched, or that were quarantined, are given up."""
        ...

    async def hasten(self, which: Filter, origin: Origin) -> Changed:
        """What waits for a study or a schedule is due now."""
        ...

    async def redirect(self, which: Filter, target: str, reason: str, origin: Origin) -> Redone:
        """What waits for ``which.destination`` goes to ``target`` instead."""
        ...

    async def resend(self, which: Filter, destinations: tuple[str, ...], origin: Origin) -> Redone:
        """Instances that are still in the spool go to ``destinations``, again or as well."""
        ...

    async def reroute(self, which: Filter, origin: Origin) -> Redone:
        """Instances that no rule matched are decided anew, by the rules of now."""
        ...

    async def pause(self, destination: str, reason: str, origin: Origin) -> bool:
        """Nothing more goes there until it is resumed; False when it was paused already."""
        ...

    async def resume(self, destination: str, origin: Origin) -> bool:
        """The reverse; False when it was not paused."""
        ...

    async def standing(self) -> Standing:
        """What deliveries wait for, beside what the index says."""
        ...

    async def queue(
        self, which: Filter, limit: int, after: tuple[int, int] | None
    ) -> Sequence[QueueItem]:
        """Deliveries one by one; ``after`` is the cursor of the last one seen."""
        ...

    async def promises(self, limit: int, everything: bool) -> Sequence[Promise]:
        """Requests for storage commitment, the latest first; open ones unless ``everything``."""
        ...

    async def instances(self, which: Filter, limit: int, after: int) -> Sequence[InstanceRow]:
        """Instances by rising id, from the one after ``after``."""
        ...

    async def instance(self, number: int) -> InstanceRow | None:
        """One instance with its deliveries and events; None when there is none of that number."""
        ...

    async def open_file(self, number: int) -> InstanceFile | None:
        """Its bytes as a Part 10 file; None as above."""
        ...

    async def rules(self) -> RulesView:
        """The rules in force."""
        ...

    async def reload(self, origin: Origin) -> Reloaded:
        """Read the configuration anew, all or nothing."""
        ...

    async def versions(self) -> VersionsView:
        """The configurations that took effect."""
        ...

    async def version(self, text: str) -> tuple[Version, Sequence[File]]:
        """One of them, with its files: by number, version of the rules, or a word."""
        ...

    async def difference(self, old: str, new: str) -> Difference:
        """What differs between two of them."""
        ...

    async def rollback(self, text: str, origin: Origin) -> Reloaded:
        """Put the files of a version back and reload, all or nothing."""
        ...

    async def account(self) -> Account:
        """The balance of everything received (promise 2)."""
        ...

    async def account_since(self, since: float) -> SinceAccount:
        """The same for what was received since then."""
        ...
