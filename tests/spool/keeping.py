"""What tests of upkeep do to a spool: fill it, deliver, and look at what is left."""

from router.spool.index_types import DeliveryState, Outcome
from router.spool.record import Ref
from tests.spool.spool_samples import KIB, Rig

T0 = 1_700_000_000.0
LARGE = 300 * KIB


def deliver(rig: Rig, refs: list[Ref], at: float = T0) -> None:
    rig.index.settle([Outcome(ref.id, "pacs", DeliveryState.DELIVERED, at) for ref in refs])


def fill(rig: Rig, count: int, size: int, *destinations: str) -> list[Ref]:
    """Instances, known to the index, in a segment that is then left."""
    refs = rig.commit_many(count, size, *destinations)
    rig.feed()
    rig.spool.segments.seal()
    return refs


def lives(rig: Rig) -> list[int]:
    return [segment.generation for segment in rig.spool.segments.sealed()]


def large_files(rig: Rig) -> set[int]:
    return {number for number, _ in rig.spool.large_files()}


def gone(rig: Rig, refs: list[Ref]) -> None:
    for ref in refs:
        rig.acked.pop(ref.id)
