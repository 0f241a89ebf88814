"""Where the rows of a metric come from.

Owns what a metric is, and the ways from the counters, and from what is looked up at a scrape, to
its rows: copies, so that they can be written down away from the event loop.  Must not know which
metrics there are: that is `metrics`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from router.observe.counters import Count, Counters, Family, Histogram
from router.observe.state import DiskState, Snapshot
from router.spool.index_types import QueueLine

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Buckets:
    """A copy of a histogram, for rendering away from the loop."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float


Row = tuple[Labels, float | Buckets]


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """One metric: what it is called, what it tells, and where its rows come from."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    documentation: str
    rows: Callable[[Counters, Snapshot | None], Iterable[Row]]


def counts(family: Callable[[Counters], Family[Count]]) -> Callable[..., Iterable[Row]]:
    """A row for each child of a family of counts."""

    def rows(counters: Counters, _: Snapshot | None) -> Iterable[Row]:
        return [(labels, child.value) for labels, child in family(counters).children.items()]

    return rows


def copied(histogram: Histogram) -> Buckets:
    """A histogram as it is now."""
    return Buckets(histogram.bounds, tuple(histogram.counts), histogram.sum)


def histogram(which: Callable[[Counters], Histogram]) -> Callable[..., Iterable[Row]]:
    """The one row of a histogram without labels."""

    def rows(counters: Counters, _: Snapshot | None) -> Iterable[Row]:
        return [((), copied(which(counters)))]

    return rows


def looked_up(read: Callable[[Snapshot], Iterable[Row]]) -> Callable[..., Iterable[Row]]:
    """Rows of what is looked up: none at all when the look-up failed, rather than a false 0."""

    def rows(_: Counters, snapshot: Snapshot | None) -> Iterable[Row]:
        return () if snapshot is None else read(snapshot)

    return rows


def queues(value: Callable[[Snapshot, QueueLine], float | None]) -> Callable[..., Iterable[Row]]:
    """A row for each destination and state for which ``value`` is not None."""

    def rows(snapshot: Snapshot) -> Iterable[Row]:
        for queue in snapshot.queues:
            number = value(snapshot, queue)
            if number is not None:
                yield (queue.destination, queue.state.name.lower()), number

    return looked_up(rows)


def oldest(snapshot: Snapshot, queue: QueueLine) -> float | None:
    """Seconds since the receipt of the oldest delivery of a queue, None when there is none."""
    if queue.oldest is None or not queue.count:
        return None
    return max(0.0, snapshot.now - queue.oldest)


def disk(snapshot: Snapshot, read: Callable[[DiskState], float | bool | None]) -> Iterable[Row]:
    """The one row of what is known of the disk, none while it is not."""
    value = read(snapshot.disk) if snapshot.disk else None
    return () if value is None else [((), float(value))]


def differences(snapshot: Snapshot) -> Iterable[Row]:
    """Instances received less those accounted for, in all and where they do not add up."""
    # `all` is there in good times too: an alert needs a series to look at.
    yield ("all",), sum(abs(n) for n in snapshot.account_differences.values())
    yield from (((scope,), n) for scope, n in snapshot.account_differences.items())
