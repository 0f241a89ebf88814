"""What is purged though nobody has it is promised to nobody."""

from pathlib import Path

import pytest

from router.spool.index import Filter, Index
from router.spool.index_promises import Asked, PromiseState
from tests.spool.index_samples import (
    DELIVERED,
    READY,
    T0,
    UNCOMMITTED,
    add,
    audited,
    fill,
    meta,
    outcome,
    places,
    ref,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
UID = "1.2.3.4.1"
NOT_HERE = 0x0112


def _asked(index: Index, *items: tuple[str, str], uid: str = "2.25.1") -> int:
    """A request for these, of which each was found safe."""
    asked = Asked(uid, "ct", "CT1", "ROUTER", "a1", items or ((CT, UID),))
    _, number = index.promises.ask(asked, T0, T0)
    safe = dict.fromkeys(range(len(asked.items)), 0)
    index.promises.weighed(number, safe, PromiseState.REPORTING, T0)
    return number


def _verdicts(index: Index, number: int) -> list[int | None]:
    return [item.verdict for item in index.promises.items(number)]


def _purge(index: Index, count: int) -> None:
    assert index.purge(T0 + 1e9, 10).count == count


def _copy(index: Index, number: int, *names: str, crc: int = 1, sop_class: str = CT) -> None:
    """One of that UID, which nobody compared with another when it came."""
    one = meta(number, *names, uid=UID)._replace(sop_class_uid=sop_class)
    add(index, (ref(number, crc=crc), one), suppress=False)


def test_what_was_dropped_everywhere_is_not_promised_once_it_is_purged(index: Index) -> None:
    fill(index, [1], "pacs", "vna")
    fill(index, [2], "pacs")
    number = _asked(index, (CT, UID), (CT, "1.2.3.4.2"))
    index.drop(Filter(ids=(1,)), "no", at=T0)
    assert _verdicts(index, number) == [0, 0], "it is judged by what it is while it is here"
    _purge(index, 1)
    assert _verdicts(index, number) == [NOT_HERE, 0]
    (promise,) = index.promises.listing(10, everything=False)
    assert (promise.committed, promise.failed) == (1, 1)
    assert promise.state is PromiseState.REPORTING


@pytest.mark.parametrize("state", [DELIVERED, UNCOMMITTED])
def test_what_somebody_has_stays_promised(index: Index, state: int) -> None:
    fill(index, [1], "pacs", "vna")
    number = _asked(index)
    index.settle([outcome(1, "vna", state)])  # type: ignore[arg-type]
    index.drop(Filter(ids=(1,), destination="pacs"), "no", at=T0)
    if state is UNCOMMITTED:
        assert index.commitments.ask("vna", "2.25.7", 9, T0, T0 + 900.0) is not None
        index.commitments.answer("2.25.7", [UID], {}, at=T0, most={}, words="yes")
    _purge(index, 1)
    assert _verdicts(index, number) == [0]


def test_what_was_discarded_is_not_promised_once_it_is_purged(index: Index) -> None:
    fill(index, [1])
    number = _asked(index)
    index.discard_held(Filter(), "test images", at=T0)
    _purge(index, 1)
    assert _verdicts(index, number) == [NOT_HERE]


def test_a_duplicate_of_what_was_delivered_stays_promised(index: Index) -> None:
    add(index, (ref(1, crc=1), meta(1, "pacs", uid=UID)))
    add(index, (ref(2, crc=1), meta(2, "pacs", "vna", uid=UID)))
    number = _asked(index)
    index.settle([outcome(1, "pacs", DELIVERED)])
    index.drop(Filter(ids=(2,), destination="vna"), "no", at=T0)
    _purge(index, 2)
    assert _verdicts(index, number) == [0]


@pytest.mark.parametrize("together", [True, False])
def test_the_same_bytes_elsewhere_stay_promised(index: Index, together: bool) -> None:
    _copy(index, 1, "pacs")
    _copy(index, 2, "pacs")
    number = _asked(index)
    index.drop(Filter(ids=(2,)), "no", at=T0)
    if together:
        index.settle([outcome(1, "pacs", DELIVERED)])
    _purge(index, 1 + together)
    assert _verdicts(index, number) == [0]


def test_the_same_bytes_elsewhere_that_were_dropped_as_well_count_for_nothing(
    index: Index,
) -> None:
    _copy(index, 1, "pacs")
    _copy(index, 2, "pacs")
    number = _asked(index)
    index.drop(Filter(), "no", at=T0)
    _purge(index, 2)
    assert _verdicts(index, number) == [NOT_HERE]


@pytest.mark.parametrize(("dropped", "verdict"), [(1, 0), (2, NOT_HERE)])
def test_of_two_contents_the_last_is_meant(index: Index, dropped: int, verdict: int) -> None:
    _copy(index, 1, "pacs")
    _copy(index, 2, "pacs", crc=2)
    number = _asked(index)
    index.drop(Filter(ids=(dropped,)), "no", at=T0)
    _purge(index, 1)
    assert _verdicts(index, number) == [verdict]


def test_one_of_another_class_is_not_meant(index: Index) -> None:
    _copy(index, 1, "pacs")
    _copy(index, 2, "pacs", sop_class=MR)
    number = _asked(index, (CT, UID), (MR, UID))
    index.drop(Filter(ids=(2,)), "no", at=T0)
    _purge(index, 1)
    assert _verdicts(index, number) == [0, NOT_HERE]


def test_a_verdict_that_was_on_its_way_comes_too_late(index: Index) -> None:
    """It was looked up, dropped and purged at once, and only then noted as safe."""
    fill(index, [1], "pacs")
    asked = Asked("2.25.1", "ct", "CT1", "ROUTER", "a1", [(CT, UID)])
    _, number = index.promises.ask(asked, T0, T0)
    index.drop(Filter(), "no", at=T0)
    _purge(index, 1)
    index.promises.weighed(number, {0: 0}, PromiseState.REPORTING, T0)
    assert _verdicts(index, number) == [NOT_HERE]
    (promise,) = index.promises.listing(10, everything=False)
    assert (promise.committed, promise.failed) == (0, 1)


def test_a_verdict_that_it_failed_stays_and_may_be_noted(index: Index) -> None:
    fill(index, [1, 2], "pacs")
    number = _asked(index, (CT, UID), (CT, "1.2.3.4.2"))
    index.promises.weighed(number, {0: 0x0110, 1: 0x0110}, PromiseState.REPORTING, T0)
    index.drop(Filter(), "no", at=T0)
    _purge(index, 2)
    assert _verdicts(index, number) == [0x0110, 0x0110]


def test_each_that_was_promised_it_is_told_and_nobody_after_a_restart_is_not(
    tmp_path: Path,
) -> None:
    with audited(tmp_path / "index.db") as index:
        fill(index, [1, 2], "pacs")
        numbers = [_asked(index, uid=f"2.25.{n}") for n in (1, 2)]
        over = _asked(index, uid="2.25.3")
        index.promises.settle(over, PromiseState.REPORTED, "", T0)
    with audited(tmp_path / "index.db") as index:
        index.drop(Filter(ids=(1,)), "no", at=T0)
        assert index.purge_these([1, 2]).count == 1
        assert [_verdicts(index, number) for number in numbers] == [[NOT_HERE], [NOT_HERE]]
        listing = {one.id: one for one in index.promises.listing(10, everything=True)}
        assert (listing[over].committed, listing[over].failed) == (1, 0)
        assert places(index, 2) == {"pacs": READY}
