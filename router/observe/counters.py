"""What the gateway counts.

Owns the numbers that services raise as they work: plain integers and floats in slotted objects,
touched on the event loop's thread only, so that one more instance costs an addition and no lock.
Must not know who reads them: `router.observe.rows` copies them into the rows of metrics.

A service asks for its child once, when an association opens or a destination is set up, and
keeps it: ``received = counters.received.of("ROUTER", "ct-room-1")`` and then
``received.instances += 1``.  Label values are names from the configuration and the fixed words
below, never what a peer sent: a peer that the configuration does not name is `UNKNOWN`.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Generic, TypeVar

UNKNOWN = "unknown"
"""Label of every peer that the configuration does not name."""

OTHER = "other"
"""Label of the series that takes what comes after a family is full."""

MAX_SERIES = 2000
"""Children of one family; a configuration of that many remotes has been seen, twice has not."""

STORE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
COMMIT_SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01),
    *(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0),
)
BATCH_INSTANCES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
DELIVERY_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0)
# Fine where the promise is (p99.9 of 10 to 25 ms): a quantile is told as the bound of its bucket.
STALL_SECONDS = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025),
    *(0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 5.0),
)

Child = TypeVar("Child")


class Count:
    """One number that only rises."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


class Received:
    """What one remote sent to one local AE; ``bytes`` are those of data sets."""

    __slots__ = ("bytes", "instances")

    def __init__(self) -> None:
        self.instances = 0
        self.bytes = 0


class Associations:
    """Associations of one direction, local AE and peer; who opens one also closes it."""

    __slots__ = ("open", "total")

    def __init__(self) -> None:
        self.open = 0
        self.total = 0

    def opened(self) -> None:
        """An association was accepted, by us or by the peer."""
        self.open += 1
        self.total += 1

    def closed(self) -> None:
        """It ended, in whatever way."""
        self.open -= 1


class Histogram:
    """Observations sorted into fixed buckets.

    ``bounds`` are upper bounds, inclusive and rising; ``counts`` has one more for what is above
    the last.  ``sum`` and ``max`` are over all observations since the start.
    """

    __slots__ = ("bounds", "counts", "max", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        if list(bounds) != sorted(set(bounds)):
            raise ValueError(f"bucket bounds rise, not {bounds}")
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.max = 0.0

    def observe(self, value: float) -> None:
        """Count one value, of 0 or more."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value
        if value > self.max:
            self.max = value

    @property
    def count(self) -> int:
        """How many values were observed."""
        return sum(self.counts)

    def quantile(self, q: float) -> float:
        """Upper bound of the bucket that holds the ``q`` quantile (0 to 1); 0.0 when empty.

        In the last bucket, which has no bound, it is the largest value seen.
        """
        wanted = q * self.count
        passed = 0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            passed += count
            if passed >= wanted and passed:
                return bound
        return self.max


class Family(Generic[Child]):
    """Children of one kind, by their label values; at most ``limit`` of them, then `OTHER`."""

    __slots__ = ("_limit", "_make", "children", "labels")

    def __init__(
        self, labels: tuple[str, ...], make: Callable[[], Child], limit: int = MAX_SERIES
    ) -> None:
        self.labels = labels
        self.children: dict[tuple[str, ...], Child] = {}
        self._make = make
        self._limit = limit

    def of(self, *values: str) -> Child:
        """The child with these label values, in the order of `labels`; made when it is new.

        Raises ValueError when the number of values is wrong.
        """
        child = self.children.get(values)
        if child is None:
            if len(values) != len(self.labels):
                raise ValueError(f"labels are {self.labels}, not {values}")
            if len(self.children) >= self._limit:
                values = (OTHER,) * len(self.labels)
            child = self.children.setdefault(values, self._make())
        return child


class ConfigState:
    """The configuration: what is in force, how the last reload ended, and its lists.

    Times are seconds since the epoch.  ``lists`` has, by name, how many values are in force and
    whether its file failed since.
    """

    __slots__ = ("applied_at", "lists", "refused_last", "reloads", "rules", "version_failures")

    def __init__(self) -> None:
        self.rules = ""
        self.applied_at = 0.0
        self.refused_last = False
        self.reloads = Family(("outcome",), Count)
        self.version_failures = Count()
        self.lists: Mapping[str, tuple[int, bool]] = {}

    def started(self, rules: str, at: float) -> None:
        """The gateway began with these rules."""
        self.rules, self.applied_at = rules, at

    def applied(self, rules: str, at: float) -> None:
        """A reload took effect."""
        self.started(rules, at)
        self.refused_last = False
        self.reloads.of("applied").value += 1

    def refused(self) -> None:
        """A reload did not."""
        self.refused_last = True
        self.reloads.of("refused").value += 1


@lru_cache(maxsize=64)
def _status(number: int) -> str:
    return f"{number:04X}"


class Counters:
    """Every number that is counted as it happens; the documentation is in `metrics.METRICS`."""

    __slots__ = (
        "association_aborts",
        "association_cuts",
        "association_failures",
        "association_rejects",
        "associations",
        "commit_batch_instances",
        "commit_seconds",
        "commitments",
        "commitments_asked",
        "config",
        "connections_unused",
        "deliveries",
        "delivery_attempts",
        "delivery_seconds",
        "destination_changes",
        "diverted",
        "event_loop_stall_seconds",
        "log_lines",
        "promised",
        "promises",
        "protocol_errors",
        "purged",
        "purged_bytes",
        "received",
        "scrape_errors",
        "sent",
        "store_responses",
        "store_seconds",
    )

    def __init__(self) -> None:
        self.received = Family(("local_ae", "remote"), Received)
        self.associations = Family(("direction", "local_ae", "peer"), Associations)
        self.association_rejects = Family(("reason",), Count)
        self.association_aborts = Family(("direction", "by"), Count)
        self.association_cuts = Family(("reason",), Count)
        self.connections_unused = Family(("reason",), Count)
        self.association_failures = Family(("destination", "reason"), Count)
        self.store_seconds = Histogram(STORE_SECONDS)
        self.commit_seconds = Histogram(COMMIT_SECONDS)
        self.commit_batch_instances = Histogram(BATCH_INSTANCES)
        self.store_responses = Family(("status",), Count)
        self.protocol_errors = Family(("kind",), Count)
        self.deliveries = Family(("destination", "outcome"), Count)
        self.delivery_attempts = Family(("destination",), Count)
        self.destination_changes = Family(("destination", "to"), Count)
        self.diverted = Family(("destination", "to"), Count)
        self.delivery_seconds = Family(("destination",), lambda: Histogram(DELIVERY_SECONDS))
        self.sent = Family(("destination",), Count)
        self.commitments = Family(("destination", "outcome"), Count)
        self.commitments_asked = Family(("destination", "outcome"), Count)
        self.promises = Family(("remote", "outcome"), Count)
        self.promised = Family(("remote", "outcome"), Count)
        self.event_loop_stall_seconds = Histogram(STALL_SECONDS)
        self.log_lines = Family(("level",), Count)
        self.scrape_errors = Count()
        self.purged = Family(("why",), Count)
        self.purged_bytes = Family(("why",), Count)
        self.config = ConfigState()

    def on_opened(self, direction: str, local_ae: str, peer: str) -> None:
        """An association was accepted; ``peer`` is a configured name or ""."""
        self.associations.of(direction, local_ae, peer or UNKNOWN).opened()

    def on_closed(self, direction: str, local_ae: str, peer: str) -> None:
        """It ended, in whatever way."""
        self.associations.of(direction, local_ae, peer or UNKNOWN).closed()

    def on_received(self, local_ae: str, remote: str, count: int) -> None:
        """An instance of ``count`` bytes is safe; ``remote`` as ``peer`` above."""
        received = self.received.of(local_ae, remote or UNKNOWN)
        received.instances += 1
        received.bytes += count

    def on_rejected(self, reason: str) -> None:
        """We refused an association; ``reason`` is a fixed word such as ``calling_ae``."""
        self.association_rejects.of(reason).value += 1

    def on_aborted(self, direction: str, by: str) -> None:
        """An association was aborted; ``direction`` is in or out, ``by`` local or peer."""
        self.association_aborts.of(direction, by).value += 1

    def on_cut(self, reason: str) -> None:
        """We ended an association that stood; ``reason`` is a fixed word such as ``silent``."""
        self.association_cuts.of(reason).value += 1

    def on_unused(self, reason: str) -> None:
        """A connection was closed by the peer without an association: a fixed word how."""
        self.connections_unused.of(reason).value += 1

    def on_association_failed(self, destination: str, reason: str) -> None:
        """An association to ``destination`` could not be had or broke; a fixed word why."""
        self.association_failures.of(destination, reason).value += 1

    def on_stored(self, status: int, seconds: float) -> None:
        """A C-STORE was answered, ``seconds`` after its command set was complete."""
        self.store_responses.of(_status(status)).value += 1
        self.store_seconds.observe(seconds)

    def on_committed(self, instances: int, seconds: float) -> None:
        """A group of ``instances`` became durable in ``seconds``."""
        self.commit_batch_instances.observe(instances)
        self.commit_seconds.observe(seconds)

    def on_protocol_error(self, kind: str) -> None:
        """A peer broke the protocol; ``kind`` is a fixed word such as ``unexpected_pdu``."""
        self.protocol_errors.of(kind).value += 1

    def on_attempt(self, destination: str) -> None:
        """A C-STORE request is about to be sent to ``destination``."""
        self.delivery_attempts.of(destination).value += 1

    def on_delivered(self, destination: str, outcome: str, seconds: float) -> None:
        """An instance arrived, ``seconds`` after it was received.

        ``outcome`` is ``delivered`` or ``warning``.  The seconds come from the wall clock, so a
        step of it backwards is taken for 0.
        """
        self.deliveries.of(destination, outcome).value += 1
        self.delivery_seconds.of(destination).observe(max(0.0, seconds))

    def on_failed(self, destination: str, outcome: str) -> None:
        """An instance did not arrive; ``outcome`` is ``deferred`` or ``dead``."""
        self.deliveries.of(destination, outcome).value += 1

    def on_availability(self, destination: str, up: bool) -> None:
        """A destination went down or came back."""
        self.destination_changes.of(destination, "up" if up else "down").value += 1

    def on_diverted(self, destination: str, to: str, count: int) -> None:
        """``count`` deliveries that waited for a destination go to another one instead."""
        self.diverted.of(destination, to).value += count

    def on_commitment_asked(self, destination: str, outcome: str) -> None:
        """A destination was ``asked`` for commitment, ``refused`` to be, or that ``failed``."""
        self.commitments_asked.of(destination, outcome).value += 1

    def on_commitment(self, destination: str, outcome: str, count: int) -> None:
        """``count`` deliveries were ``committed``, ``resent``, ``dead`` or ``accepted``."""
        self.commitments.of(destination, outcome).value += count

    def on_promise(self, remote: str, outcome: str) -> None:
        """A request for storage commitment was ``asked``, ``refused``, ``reported`` or
        ``given_up``, or its report was in vain (``retried``)."""
        self.promises.of(remote or UNKNOWN, outcome).value += 1

    def on_promised(self, remote: str, committed: int, failed: int) -> None:
        """So many instances of requests of a remote were decided."""
        self.promised.of(remote or UNKNOWN, "committed").value += committed
        self.promised.of(remote or UNKNOWN, "failed").value += failed

    def on_sent(self, destination: str, count: int) -> None:
        """``count`` bytes of a data set were delivered to ``destination``."""
        self.sent.of(destination).value += count

    def on_purged(self, why: str, instances: int, count: int) -> None:
        """Settled instances, of ``count`` bytes, left the spool: ``age``, ``mark``, ``room`` or
        ``archived``."""
        self.purged.of(why).value += instances
        self.purged_bytes.of(why).value += count

    def on_log_line(self, level: str) -> None:
        """A line of ``level`` was logged, or held back under ``suppressed`` or ``dropped``."""
        self.log_lines.of(level).value += 1
