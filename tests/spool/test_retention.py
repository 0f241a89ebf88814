"""How long settled instances stay: in general, and for a rule that says so."""

from pathlib import Path

import pytest

from router.spool import sqlite
from router.spool.index import Index
from router.spool.index_database import GATED
from router.spool.index_retain import kept_times
from router.spool.index_types import DeliveryState, Filter
from tests.spool import index_version_2
from tests.spool.conftest import OpenRig
from tests.spool.index_samples import DEAD, DELIVERED, T0, add, audited, fill, meta, outcome, ref
from tests.spool.keeping import deliver, lives
from tests.spool.spool_samples import meta as spool_meta
from tests.spool.spool_samples import payload

DAY = 86400.0
MONTH = 30 * DAY


def settled(index: Index, number: int, at: float, *, keep: float = 0.0, length: int = 100) -> None:
    """One that was delivered at that time."""
    add(index, (ref(number, length=length), meta(number, "pacs")._replace(keep=keep)))
    index.settle([outcome(number, "pacs", DELIVERED, at=at)])


def left(index: Index) -> list[int]:
    return [row.ref.id for row in index.instances(Filter(), 1000)]


# -- a rule's own time -----------------------------------------------------------------------------


def test_one_that_a_rule_keeps_longer_outlives_the_others_and_one_that_it_keeps_shorter_not(
    index: Index,
) -> None:
    settled(index, 1, T0)
    settled(index, 2, T0, keep=MONTH)
    settled(index, 3, T0, keep=60.0)
    assert index.purge(T0 + 61 - DAY, 10, now=T0 + 59).count == 0
    assert index.purge(T0 + 61 - DAY, 10, now=T0 + 61).count == 1
    assert left(index) == [1, 2]
    assert index.purge(T0 + 1, 10, now=T0 + 1 + DAY).count == 1
    assert left(index) == [2]
    assert index.purge(T0 + MONTH - 1, 10, now=T0 + MONTH - 1).count == 0
    assert index.purge(T0 + MONTH, 10, now=T0 + MONTH).count == 1


def test_without_a_time_now_all_go_the_oldest_settled_first(index: Index) -> None:
    settled(index, 1, T0 + 3)
    settled(index, 2, T0 + 1, keep=MONTH)
    settled(index, 3, T0 + 2, keep=DAY)
    settled(index, 4, T0 + 4, keep=MONTH)
    gone = []
    for _ in range(4):
        before = set(left(index))
        assert index.purge(float("inf"), 1).count == 1
        gone += before - set(left(index))
    assert gone == [2, 3, 1, 4]


def test_a_part_of_a_second_is_kept_too(index: Index) -> None:
    settled(index, 1, T0, keep=1.5)
    assert index.purge(T0 + 1.6, 10, now=T0 + 1.6).count == 0
    assert index.purge(T0 + 2, 10, now=T0 + 2).count == 1


def test_what_was_discarded_is_not_kept_for_a_rule(index: Index) -> None:
    add(index, (ref(1), meta(1, disposition="discard")._replace(keep=MONTH)))
    assert index.purge(T0 + 10, 10, now=T0 + 10).count == 1


def test_one_that_is_held_keeps_its_time_for_when_it_is_settled(index: Index) -> None:
    add(index, (ref(1), meta(1)._replace(keep=MONTH)))
    index.route_held(Filter(), ["pacs"], "by hand", at=T0)
    index.settle([outcome(1, "pacs", DELIVERED, at=T0)])
    row = index.instance(1)
    assert row is not None
    assert row.meta.keep == MONTH
    assert index.purge(T0 + DAY, 10, now=T0 + DAY).count == 0


def test_the_times_that_are_in_use_are_found_without_reading_every_row(index: Index) -> None:
    assert kept_times(index._db) == []
    for number, keep in enumerate([60.0, 0.0, MONTH, 60.0, DAY], 1):
        settled(index, number, T0, keep=keep)
    add(index, (ref(9), meta(9, "pacs")._replace(keep=5.0)))
    assert kept_times(index._db) == [0, 60, DAY, MONTH]
    plan = index._db._connection.execute(
        "EXPLAIN QUERY PLAN SELECT keep FROM instance INDEXED BY instance_settled "
        "WHERE settled_at IS NOT NULL AND keep > 5 ORDER BY keep LIMIT 1"
    ).fetchall()
    assert [row[3] for row in plan] == [
        "SEARCH instance USING COVERING INDEX instance_settled (keep>?)"
    ]


def test_kept_ones_are_not_walked_over(index: Index) -> None:
    # A month's worth of them, every second: what is looked at must not grow with it.
    settled(index, 1, T0)
    for number in range(2, 60):
        settled(index, number, T0, keep=MONTH)
    plan = index._db._connection.execute(
        "EXPLAIN QUERY PLAN SELECT * FROM instance INDEXED BY instance_settled "
        "WHERE keep = ? AND settled_at IS NOT NULL AND settled_at <= ? ORDER BY settled_at LIMIT 9",
        (0, GATED),
    ).fetchall()
    assert [row[3] for row in plan] == [
        "SEARCH instance USING INDEX instance_settled (keep=? AND settled_at>? AND settled_at<?)"
    ]


# -- so many bytes, or only the discarded ----------------------------------------------------------


@pytest.mark.parametrize(("most", "count"), [(0, 0), (1, 1), (100, 1), (101, 2), (999, 5)])
def test_no_more_goes_than_makes_up_the_bytes(index: Index, most: int, count: int) -> None:
    for number in range(1, 6):
        settled(index, number, T0 + number)
    purged = index.purge(float("inf"), 1000, most=most)
    assert (purged.count, purged.bytes) == (count, 100 * count)
    assert left(index) == list(range(count + 1, 6))


def test_bytes_are_counted_over_pages(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.spool.index_keep._PURGED_AT_ONCE", 2)
    for number in range(1, 10):
        settled(index, number, T0 + number)
    assert index.purge(float("inf"), 1000, most=450).count == 5


def test_the_discarded_alone(index: Index) -> None:
    settled(index, 1, T0)
    add(index, (ref(2), meta(2, disposition="discard")))
    fill(index, [3], "pacs")
    index.settle([outcome(3, "pacs", DEAD)])
    assert index.aged(float("inf"), 10) == [1]
    assert index.aged(float("inf"), 10, exclude=[1]) == []
    assert index.purge(float("inf"), 10, discarded_only=True).count == 1
    assert left(index) == [1, 3]


def test_these_go_if_they_still_may(index: Index) -> None:
    settled(index, 1, T0)
    settled(index, 2, T0)
    fill(index, [3], "pacs")
    assert index.purge_these([]).count == 0
    purged = index.purge_these([1, 3, 99])
    assert (purged.count, purged.bytes) == (1, 100)
    assert left(index) == [2, 3]
    assert index.oldest_settled() == T0
    assert index.purge_these([2]).count == 1
    assert index.oldest_settled() is None


def test_counts_by_hour_outlive_a_purge_under_pressure(index: Index) -> None:
    settled(index, 1, T0)
    index.purge(float("inf"), 10)
    rows = index._db._connection.execute("SELECT count(*) FROM tally WHERE what >= 70").fetchone()
    assert rows[0] > 0


# -- older indexes, and one that is lost -----------------------------------------------------------


def test_an_older_index_is_brought_up_and_keeps_as_before(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    index_version_2.build(path)
    with sqlite.connect(path) as connection:
        connection.execute("UPDATE delivery SET state = 4, due_at = NULL WHERE instance_id = 10")
        connection.execute("UPDATE instance SET unsettled = 0, settled_at = 1 WHERE id = 10")
        connection.execute("UPDATE tally SET n = n - 1, bytes = bytes - 100 WHERE what = 0")
        connection.execute("INSERT INTO tally VALUES (4, 1, 1, 100)")
    connection.close()
    with audited(path) as index:
        assert index.aged(5.0, 10) == [10]
        row = index.instance(10)
        assert row is not None
        assert row.meta.keep == 0
        assert index.purge(5.0, 10, now=5.0).count == 1


def test_a_rule_s_time_survives_a_rebuild_of_the_index(open_rig: OpenRig) -> None:
    rig = open_rig()
    kept = spool_meta(1, "pacs")._replace(keep=MONTH)
    ids = [
        rig.commit(payload(n, 1000), what).kept.id
        for n, what in enumerate((kept, spool_meta(2, "pacs")))
    ]
    rig.feed()
    rig.spool.segments.seal()
    rig.close()
    for path in rig.directory.glob("index.sqlite*"):
        path.unlink()
    again = open_rig()
    assert again.row(ids[0]).meta.keep == MONTH
    deliver(again, [again.row(n).ref for n in ids])
    assert again.step(T0 + DAY).purged == 1
    assert again.row(ids[0]).deliveries[0].state is DeliveryState.DELIVERED
    assert len(lives(again)) == 1
    assert again.step(T0 + MONTH + 1).purged == 1
