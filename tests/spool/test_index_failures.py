"""Failures that lost instances or stopped queues, each by the name of what happened."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from router.spool import index_keep
from router.spool.errors import SpoolFull
from router.spool.index import DeliveryState, Filter, Index, QueueItem
from router.spool.index_retain import Settling
from router.spool.record import InstanceMeta, Ref
from tests.spool import index_version_1
from tests.spool.index_samples import (
    DEAD,
    DELIVERED,
    DROPPED,
    DUPLICATE,
    HELD,
    READY,
    T0,
    add,
    audited,
    fill,
    leased,
    meta,
    outcome,
    ref,
    state,
)

FOREVER = float("inf")


# -- a purge that failed half-way


def _fail_at(index: Index, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The purge's ``step``-th transaction finds the disk full."""
    monkeypatch.setattr(index_keep, "_PURGED_AT_ONCE", 2)
    real = index._keep._delete
    calls = 0

    def delete(rows: Sequence[Settling]) -> list[Ref]:
        nonlocal calls
        calls += 1
        if calls == step:
            raise SpoolFull("no space")
        return real(rows)

    monkeypatch.setattr(index._keep, "_delete", delete)


def test_after_a_purge_failed_half_way_instances_were_never_leased(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of the study first the context is deleted with its instances, then the purge fails.
    add(index, *((ref(n), meta(n, disposition="discard", study="1.1")) for n in (1, 2)))
    add(index, *((ref(n), meta(n, disposition="discard", study="1.2")) for n in (3, 4)))
    _fail_at(index, monkeypatch, 2)
    assert index.purge(FOREVER, 5).count == 2
    assert index.known([1, 2, 3, 4]) == {3, 4}
    fill(index, [7], "pacs", study="1.1")
    assert leased(index, "pacs") == [7]
    assert index.instance(7) is not None
    (item,) = index.queue_list(Filter(), 5)
    assert item.meta.study_instance_uid == "1.1"


def test_what_a_purge_deleted_before_it_failed_was_not_told(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(index, *((ref(n, large=True), meta(n, disposition="discard")) for n in range(1, 6)))
    _fail_at(index, monkeypatch, 2)
    purged = index.purge(FOREVER, 5)
    assert ([r.id for r in purged.large], purged.count, purged.bytes) == ([1, 2], 2, 200)
    _fail_at(index, monkeypatch, 1)
    with pytest.raises(SpoolFull):
        index.purge(FOREVER, 5)


def test_the_id_of_a_deleted_context_was_given_out_again(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    with audited(path) as index:
        add(index, (ref(1), meta(1, disposition="discard", study="1.1")))
        used = index._db.value("SELECT max(id) FROM context")
        index.purge(FOREVER, 5)
        assert index._db.value("SELECT count(*) FROM context") == 0
    with audited(path) as index:
        fill(index, [2], "pacs", study="1.2")
        assert index._db.value("SELECT id FROM context") > used


def test_an_index_that_lacks_a_context_does_not_give_its_id_to_another(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    index = Index.open(path)
    fill(index, [1], "pacs", study="1.1")
    index._db.run("DELETE FROM context")
    index._db.run("DELETE FROM meta WHERE key IN ('next_context', 'position_sum')")
    assert index.account().balanced
    assert index.account(audit=True).differences == {"instances without a context": 1}
    index.close()
    index = Index.open(path)
    fill(index, [2], "pacs", study="1.2")
    assert leased(index, "pacs") == [2], "never one under another's study"
    index.close()


# -- the duplicate of something that never arrived


def _twice(index: Index, first: str = "1.9", count: int = 2) -> None:
    for number in range(1, count + 1):
        add(index, (ref(number, crc=5), meta(number, "pacs", uid=first)))
    assert [state(index, n, "pacs") for n in range(2, count + 1)] == [DUPLICATE] * (count - 1)


def _one(index: Index, number: int) -> QueueItem:
    (item,) = index.queue_list(Filter(ids=(number,)), 1)
    return item


@pytest.mark.parametrize("fate", [DEAD, DROPPED])
def test_the_duplicate_of_what_ended_otherwise_was_never_sent(
    index: Index, fate: DeliveryState
) -> None:
    _twice(index, count=3)
    settled = index.settle([outcome(1, "pacs", fate, reason="damaged in the spool")])
    assert settled.revived == 1
    assert leased(index, "pacs") == [2]
    assert _one(index, 2).delivery.duplicate_of is None
    assert _one(index, 2).delivery.reason.startswith("in place of instance 1")
    row = index.instance(3)
    assert row is not None
    assert (row.deliveries[0].state, row.deliveries[0].duplicate_of) == (DUPLICATE, 2)
    assert index.settle([outcome(2, "pacs", DELIVERED)]).revived == 0
    assert leased(index, "pacs") == []
    assert index.purge(FOREVER, 9).count == (2 if fate is DEAD else 3)


def test_the_duplicate_was_purged_before_the_first_had_arrived(index: Index) -> None:
    _twice(index)
    assert index.purge(FOREVER, 9).count == 0
    index.hold(Filter(), at=T0)
    assert index.purge(FOREVER, 9).count == 0
    index.release(Filter(), at=T0)
    index.settle([outcome(1, "pacs", DELIVERED, at=T0 + 50)])
    row = index.instance(2)
    assert row is not None
    assert (row.settled_at, row.deliveries[0].state) == (T0 + 50, DUPLICATE)
    assert index.purge(FOREVER, 9).count == 2


def test_the_duplicate_of_what_was_delivered_is_settled_at_once(index: Index) -> None:
    add(index, (ref(1, crc=5), meta(1, "pacs", uid="1.9")))
    index.settle([outcome(1, "pacs", DELIVERED)])
    add(index, (ref(2, crc=5), meta(2, "pacs", uid="1.9")))
    assert index.purge(FOREVER, 9).count == 2


def test_dropping_a_study_means_its_duplicates_as_well(index: Index) -> None:
    _twice(index)
    assert index.drop(Filter(study="1.2.3", state=READY), "ours", at=T0, who="eva").count == 2
    assert [state(index, n, "pacs") for n in (1, 2)] == [DROPPED, DROPPED]
    row = index.instance(2)
    assert row is not None
    assert row.deliveries[0].reason == "ours"
    assert [e.action for e in row.events] == ["drop"]
    assert index.purge(FOREVER, 9).count == 2


def test_dropping_one_instance_sends_its_duplicate(index: Index) -> None:
    _twice(index)
    index.hold(Filter(), at=T0)
    assert state(index, 1, "pacs") is HELD
    assert index.drop(Filter(ids=(1,)), "broken", at=T0).count == 1
    assert leased(index, "pacs") == [2]


def test_a_batch_of_fates_reaches_each_duplicate(index: Index) -> None:
    add(index, *((ref(n, crc=n), meta(n, "pacs", "vna", uid=f"1.9.{n}")) for n in (1, 2, 3)))
    add(index, *((ref(n + 3, crc=n), meta(n + 3, "pacs", "vna", uid=f"1.9.{n}")) for n in (1, 2)))
    index.settle(
        [
            outcome(1, "pacs", DEAD),
            outcome(1, "vna", DELIVERED),
            outcome(2, "pacs", DELIVERED),
            outcome(2, "vna", DELIVERED),
        ]
    )
    assert (leased(index, "pacs"), leased(index, "vna")) == ([3, 4], [3])
    row = index.instance(5)
    assert row is not None
    assert row.settled_at == T0 + 1000


@pytest.mark.parametrize(
    "other",
    [
        meta(2, "pacs", uid="1.9")._replace(transfer_syntax_uid="1.2.840.10008.1.2.4.90"),
        meta(2, "pacs", uid="1.9")._replace(sop_class_uid="1.2.840.10008.5.1.4.1.1.4"),
    ],
)
@pytest.mark.parametrize("in_one_batch", [True, False])
def test_the_same_bytes_in_another_syntax_or_class_were_not_sent(
    index: Index, other: InstanceMeta, in_one_batch: bool
) -> None:
    first = (ref(1, crc=5), meta(1, "pacs", uid="1.9"))
    second = (ref(2, crc=5), other)
    if in_one_batch:
        assert add(index, first, second).duplicates == 0
    else:
        add(index, first)
        assert add(index, second).duplicates == 0


def test_an_older_index_keeps_the_duplicates_of_what_still_waits(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    index_version_1.build(path)
    index_version_1.add_duplicates(path)
    with audited(path) as index:
        row = index.instance(9)
        assert row is not None
        assert row.settled_at is None
        index.settle([outcome(7, "pacs", DEAD)])
        assert leased(index, "pacs") == [9]


# -- the clock was set back


def test_what_was_deferred_while_the_clock_was_ahead_waited_for_that_time(index: Index) -> None:
    fill(index, [1, 2, 3], "pacs")
    year = 365 * 86400.0
    index.settle(
        [
            outcome(1, "pacs", READY, at=T0 + year, due_at=T0 + year + 60),
            outcome(2, "pacs", READY, at=T0, due_at=T0 + 7200),
            outcome(3, "pacs", READY, at=T0, due_at=T0 + 30),
        ]
    )
    assert leased(index, "pacs", now=T0 + 10) == [1], "as after a start; the others wait their time"
    index.settle([outcome(1, "pacs", READY, at=T0 + year, due_at=T0 + year + 60)])
    assert leased(index, "pacs", now=T0 + year) == [2, 3]
    index.settle([outcome(n, "pacs", DELIVERED, at=T0 + year) for n in (2, 3)])
    assert leased(index, "pacs", now=T0 + 20) == [1], "set back at work"
    assert index.next_due("pacs") == 0.0


# -- one long transaction


@pytest.mark.parametrize("action", ["route", "discard"])
def test_deciding_on_many_held_instances_was_one_long_step(index: Index, action: str) -> None:
    add(index, *((ref(n), meta(n, quarantined=n % 2 == 0)) for n in range(1, 12)))
    counts = []
    while True:
        if action == "route":
            changed = index.route_held(Filter(), ["pacs"], "by hand", at=T0, limit=4)
        else:
            changed = index.discard_held(Filter(), "by hand", at=T0, limit=4)
        counts.append(changed.count)
        if not changed.more:
            break
    assert counts == [4, 4, 3]
    exact = add(index, *((ref(n), meta(n)) for n in range(12, 16)))
    assert exact.added == 4
    assert index.route_held(Filter(), ["pacs"], "by hand", at=T0, limit=4).more is False
