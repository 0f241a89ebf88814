"""Instances for the tests of the index."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from router.spool.index import AddResult, DeliveryState, Index, Outcome
from router.spool.index_check import disagreement
from router.spool.index_types import Delivery
from router.spool.plan import Plan
from router.spool.record import InstanceMeta, Position, Ref, RouteMeta

T0 = 1_700_000_000.0
READY, HELD, DEAD, DELIVERED, DROPPED, DUPLICATE, UNCOMMITTED = DeliveryState


@contextmanager
def audited(path: Path) -> Iterator[Index]:
    """An index that must add up when the test is over."""
    index = Index.open(path)
    yield index
    account, disagrees = index.account(audit=True), disagreement(index._db)
    index.close()
    assert account.differences == {}
    assert disagrees == "", "a start after a crash would make it anew"


def ref(
    number: int,
    *,
    generation: int = 1,
    length: int = 100,
    crc: int | None = None,
    large: bool = False,
) -> Ref:
    crc = number if crc is None else crc
    return Ref(number, generation, number * 4096, number * 4096 + 512, length, crc, large)


def meta(
    number: int,
    *destinations: str,
    uid: str | None = None,
    study: str = "1.2.3",
    disposition: str = "",
    priority: int = 0,
    reason: str = "",
    quarantined: bool = False,
    association: str = "a1",
    series: str = "1.2.3.1",
    plan: Plan | str = "",
    tags: tuple[str, ...] = (),
    at: float | None = None,
) -> InstanceMeta:
    text = plan if isinstance(plan, str) else plan.to_text()
    return InstanceMeta(
        received_at=T0 + number if at is None else at,
        association=association,
        calling_ae="CT1",
        called_ae="ROUTER",
        source="10.0.0.7",
        remote="ct",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid=f"1.2.3.4.{number}" if uid is None else uid,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        study_instance_uid=study,
        series_instance_uid=series,
        modality="CT",
        disposition=disposition or ("route" if destinations else "hold"),
        reason=reason,
        quarantined=quarantined,
        rules_version="r1",
        routes=tuple(RouteMeta(name, "everything", priority, text) for name in destinations),
        tags=tags,
    )


def same(_: Ref, __: Ref) -> bool:
    return True


def add(
    index: Index, *entries: tuple[Ref, InstanceMeta], suppress: bool = True, generation: int = 1
) -> AddResult:
    end = max((entry[0].offset for entry in entries), default=0) + 4096
    position = Position(generation, end)
    return index.add(entries, position, suppress_duplicates=suppress, same_bytes=same)


def fill(
    index: Index,
    numbers: Sequence[int],
    *destinations: str,
    study: str = "1.2.3",
    priority: int = 0,
    plan: Plan | str = "",
) -> AddResult:
    return add(
        index,
        *(
            (ref(n), meta(n, *destinations, study=study, priority=priority, plan=plan))
            for n in numbers
        ),
    )


def outcome(
    number: int,
    destination: str,
    state: DeliveryState,
    *,
    at: float = T0 + 1000,
    status: int | None = None,
    reason: str = "",
    due_at: float | None = None,
    attempted: bool = True,
) -> Outcome:
    return Outcome(number, destination, state, at, status, reason, due_at, attempted)


def leased(
    index: Index,
    destination: str,
    *,
    limit: int = 100,
    now: float = T0 + 1e6,
    exclude: Sequence[int] = (),
) -> list[int]:
    return [waiting.ref.id for waiting in index.lease(destination, limit, now, exclude)]


def state(index: Index, number: int, destination: str) -> DeliveryState:
    row = index.instance(number)
    assert row is not None
    return {d.destination: d.state for d in row.deliveries}[destination]


def fate(index: Index, number: int, destination: str) -> Delivery:
    row = index.instance(number)
    assert row is not None
    (found,) = [d for d in row.deliveries if d.destination == destination]
    return found


def places(index: Index, number: int) -> dict[str, DeliveryState]:
    """The state of each delivery of an instance, by destination."""
    row = index.instance(number)
    assert row is not None
    return {d.destination: d.state for d in row.deliveries}
