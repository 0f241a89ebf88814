"""Adding, leasing, settling and purging."""

from pathlib import Path

import pytest

from router.spool.index import DeliveryState, Disposition, Filter, Index
from router.spool.record import Position, Ref, RouteMeta
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
    same,
    state,
)


def test_a_new_index_is_empty(index: Index) -> None:
    assert index.indexed_position() is None
    assert index.last_id() == 0
    assert index.queue_summary() == []
    assert index.account().received == 0
    assert index.lease("pacs", 10, T0, []) == []
    assert index.next_due("pacs") is None


def test_what_was_added_is_leased_as_it_was(index: Index) -> None:
    one = meta(1, "pacs", "vna", priority=3)
    result = add(index, (ref(1, length=2**33, crc=2**32 - 1, large=True), one))
    assert result.deliveries == {"pacs": 1, "vna": 1}
    assert (result.added, result.duplicates, result.known) == (1, 0, 0)
    (waiting,) = index.lease("pacs", 10, T0, [])
    assert waiting.ref == ref(1, length=2**33, crc=2**32 - 1, large=True)
    assert waiting.sop_class_uid == one.sop_class_uid
    assert waiting.sop_instance_uid == one.sop_instance_uid
    assert waiting.transfer_syntax_uid == one.transfer_syntax_uid
    assert waiting.study_instance_uid == one.study_instance_uid
    assert waiting.calling_ae == one.calling_ae
    assert waiting.received_at == one.received_at
    assert (waiting.attempts, waiting.priority) == (0, 3)
    row = index.instance(1)
    assert row is not None
    assert row.meta == one
    assert row.disposition is Disposition.ROUTED


def test_position_and_last_id_survive_reopening_and_purging(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    with audited(path) as index:
        add(index, (ref(5), meta(5, disposition="discard")), generation=7)
        assert index.purge(T0 + 1e6, 10).count == 1
    with audited(path) as index:
        assert index.indexed_position() == Position(7, 5 * 4096 + 4096)
        assert index.last_id() == 5
        assert not index.known([5])


def test_adding_again_keeps_the_fate_and_takes_the_new_place(index: Index) -> None:
    fill(index, [1, 2], "pacs")
    index.settle([outcome(1, "pacs", DELIVERED)])
    moved = ref(1)._replace(generation=9, offset=0, data_offset=512)
    position = index.indexed_position()
    result = add(index, (moved, meta(1, "pacs")), (ref(2), meta(2, "pacs")), generation=0)
    assert (result.added, result.known, result.deliveries) == (0, 2, {})
    assert state(index, 1, "pacs") is DELIVERED
    assert leased(index, "pacs") == [2]
    row = index.instance(1)
    assert row is not None
    assert row.ref == moved
    assert index.indexed_position() == position, "the position never goes back"
    assert index.account().received == 2


def test_an_id_twice_in_one_batch_is_one_instance(index: Index) -> None:
    assert add(index, (ref(1), meta(1, "pacs")), (ref(1), meta(1, "pacs"))).added == 1


def test_a_destination_twice_in_a_description_is_one_delivery(index: Index) -> None:
    twice = meta(1, "pacs")._replace(routes=(RouteMeta("pacs", "a"), RouteMeta("pacs", "b")))
    assert add(index, (ref(1), twice)).deliveries == {"pacs": 1}
    row = index.instance(1)
    assert row is not None
    assert [d.rule for d in row.deliveries] == ["a"]


def test_dispositions_are_kept_apart(index: Index) -> None:
    add(
        index,
        (ref(1), meta(1, "pacs")),
        (ref(2), meta(2, reason="no rule matched")),
        (ref(3), meta(3, reason="bad VR at byte 12", quarantined=True)),
        (ref(4), meta(4, disposition="discard", reason="rule: no screenshots")),
        (ref(5), meta(5)._replace(disposition="route")),
    )
    account = index.account()
    assert (account.received, account.routed, account.held) == (5, 1, 2)
    assert (account.quarantined, account.discarded) == (1, 1)
    assert account.balanced
    assert index.purge(T0 + 1e6, 10).count == 1, "only the discarded one is settled"
    assert [r.ref.id for r in index.instances(Filter(disposition=Disposition.HELD), 9)] == [2, 5]
    held = index.instance(3)
    assert held is not None
    assert (held.meta.reason, held.meta.quarantined) == ("bad VR at byte 12", True)


def test_text_that_sqlite_cannot_keep_does_not_stop_a_batch(index: Index) -> None:
    odd = meta(1, "pacs")._replace(calling_ae="CT\0\ud800", sop_instance_uid="1.2\0")
    add(index, (ref(1), odd), (ref(2), meta(2, "pacs")))
    first, second = index.lease("pacs", 2, T0, [])
    assert (first.calling_ae, first.sop_instance_uid) == ("CT\ufffd?", "1.2\ufffd")
    assert second.ref.id == 2
    index.settle([outcome(1, "pacs", DEAD, reason="C000: \0\udfff")])
    assert index.queue_list(Filter(state=DEAD), 1)[0].delivery.reason == "C000: \ufffd?"


# -- duplicates


def test_same_bytes_again_are_not_sent_again(index: Index) -> None:
    add(index, (ref(1, crc=5), meta(1, "pacs", uid="1.9")))
    again = add(index, (ref(2, crc=5), meta(2, "pacs", "vna", uid="1.9")))
    assert (again.deliveries, again.duplicates) == ({"vna": 1}, 1)
    row = index.instance(2)
    assert row is not None
    assert {d.destination: d.duplicate_of for d in row.deliveries} == {"pacs": 1, "vna": None}
    assert leased(index, "pacs") == [1]


def test_duplicates_within_a_batch(index: Index) -> None:
    result = add(
        index,
        *((ref(n, crc=5), meta(n, "pacs", uid="1.9")) for n in (1, 2, 3)),
        (ref(4, crc=6), meta(4, "pacs", uid="1.9")),
    )
    assert (result.deliveries, result.duplicates) == ({"pacs": 2}, 2)
    assert leased(index, "pacs") == [1, 4]


@pytest.mark.parametrize(
    ("fate", "suppressed"),
    [(READY, True), (DELIVERED, True), (DEAD, False), (DROPPED, False)],
)
def test_only_what_went_or_will_go_suppresses(
    index: Index, fate: DeliveryState, suppressed: bool
) -> None:
    add(index, (ref(1, crc=5), meta(1, "pacs", uid="1.9")))
    index.settle([outcome(1, "pacs", fate)])
    assert add(index, (ref(2, crc=5), meta(2, "pacs", uid="1.9"))).duplicates == suppressed


def test_a_held_one_suppresses(index: Index) -> None:
    add(index, (ref(1, crc=5), meta(1, "pacs", uid="1.9")))
    index.hold(Filter(), at=T0)
    assert add(index, (ref(2, crc=5), meta(2, "pacs", uid="1.9"))).duplicates == 1


def test_a_second_copy_suppresses_when_the_first_is_dead(index: Index) -> None:
    add(index, (ref(1, crc=5), meta(1, "pacs", uid="1.9")))
    index.settle([outcome(1, "pacs", DEAD)])
    add(index, (ref(2, crc=5), meta(2, "pacs", uid="1.9")))
    assert add(index, (ref(3, crc=5), meta(3, "pacs", uid="1.9"))).duplicates == 1
    row = index.instance(3)
    assert row is not None
    assert row.deliveries[0].duplicate_of == 2


@pytest.mark.parametrize(
    ("other", "uid"),
    [(ref(2, crc=6), "1.9"), (ref(2, crc=5, length=99), "1.9"), (ref(2, crc=5), "1.8")],
)
def test_other_bytes_are_sent(index: Index, other: Ref, uid: str) -> None:
    add(index, (ref(1, crc=5), meta(1, "pacs", uid="1.9")))
    assert add(index, (other, meta(2, "pacs", uid=uid))).duplicates == 0


def test_bytes_decide_when_the_checksums_agree(index: Index) -> None:
    asked: list[tuple[int, int]] = []

    def differ(new: Ref, earlier: Ref) -> bool:
        asked.append((new.id, earlier.id))
        return False

    entries = [(ref(n, crc=5), meta(n, "pacs", "vna", uid="1.9")) for n in (1, 2)]
    for entry in entries:
        result = index.add([entry], Position(1, 0), suppress_duplicates=True, same_bytes=differ)
        assert result.duplicates == 0
    assert asked == [(2, 1)], "once for both destinations"


def test_suppression_may_be_off(index: Index) -> None:
    add(index, (ref(1, crc=5), meta(1, "pacs", uid="1.9")))
    again = add(index, (ref(2, crc=5), meta(2, "pacs", uid="1.9")), suppress=False)
    assert again.deliveries == {"pacs": 1}


# -- the order of a queue


def test_priority_then_whole_studies_then_age(index: Index) -> None:
    fill(index, [1], "pacs", study="1.1")
    fill(index, [2], "pacs", study="1.2")
    fill(index, [3], "pacs", study="1.1")
    fill(index, [4], "pacs", study="")
    fill(index, [5], "pacs", study="1.2")
    fill(index, [6], "pacs", study="")
    fill(index, [7], "pacs", study="1.3", priority=1)
    assert leased(index, "pacs") == [7, 1, 3, 2, 5, 4, 6]
    assert leased(index, "pacs", limit=3) == [7, 1, 3]
    assert leased(index, "pacs", limit=2, exclude=[7, 3]) == [1, 2]
    assert leased(index, "pacs") == [7, 1, 3, 2, 5, 4, 6], "a lease marks nothing"


def test_a_least_priority_leaves_the_rest_where_it_is(index: Index) -> None:
    fill(index, [1, 2], "pacs", study="1.1")
    fill(index, [3], "pacs", study="1.2", priority=20)
    fill(index, [4, 5], "pacs", study="1.3", priority=10)
    fill(index, [6], "pacs", study="1.4", priority=-10)

    def least(priority: int, limit: int = 10, now: float = T0) -> list[int]:
        return [item.ref.id for item in index.lease("pacs", limit, now, [], priority)]

    assert (least(10), least(11), least(21), least(-100)) == (
        [3, 4, 5],
        [3],
        [],
        leased(index, "pacs"),
    )
    assert least(10, limit=2) == [3, 4]
    assert index.next_due("pacs", [3], 11) is None
    assert index.next_due("pacs", [3], 10) == 0.0
    index.settle([outcome(n, "pacs", READY, due_at=T0 + n) for n in (1, 3, 5)])
    assert index.next_due("pacs", [4], 10) == T0 + 3
    assert index.next_due("pacs", [4, 3], 10) == T0 + 5
    assert least(10, now=T0 + 100) == [3, 4, 5]


def test_a_study_keeps_its_place_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    with audited(path) as index:
        fill(index, [1], "pacs", study="1.1")
        fill(index, [2], "pacs", study="1.2")
    with audited(path) as index:
        fill(index, [3], "pacs", study="1.1")
        assert leased(index, "pacs") == [1, 3, 2]


def test_destinations_do_not_see_each_other(index: Index) -> None:
    fill(index, [1, 2], "pacs", "vna")
    index.settle([outcome(1, "pacs", DELIVERED)])
    assert (leased(index, "pacs"), leased(index, "vna")) == ([2], [1, 2])


def test_deferred_ones_wait_for_their_time(index: Index) -> None:
    fill(index, [1, 2, 3], "pacs")
    index.settle(
        [
            outcome(1, "pacs", READY, due_at=T0 + 50, status=0xA700, reason="out of space"),
            outcome(2, "pacs", READY, due_at=T0 + 20, attempted=False),
        ]
    )
    assert leased(index, "pacs", now=T0) == [3]
    assert index.next_due("pacs") == 0.0
    assert index.next_due("pacs", [3]) == T0 + 20
    assert leased(index, "pacs", now=T0 + 20) == [2, 3]
    (first, *_) = index.lease("pacs", 10, T0 + 50, [])
    assert (first.ref.id, first.attempts) == (1, 1)
    item = index.queue_list(Filter(ids=(1,)), 1)[0].delivery
    assert (item.reason, item.status, item.attempts) == ("out of space", 0xA700, 1)
    index.settle([outcome(n, "pacs", DELIVERED) for n in (1, 2, 3)])
    assert index.next_due("pacs") is None


def test_a_deferral_after_a_lease_is_not_overlooked(index: Index) -> None:
    fill(index, [1, 2], "pacs")
    index.settle([outcome(1, "pacs", READY, due_at=T0 + 90)])
    assert leased(index, "pacs", now=T0) == [2]
    index.settle([outcome(2, "pacs", READY, due_at=T0 + 30)])
    assert leased(index, "pacs", now=T0 + 40) == [2]
    assert leased(index, "pacs", now=T0 + 90) == [1, 2]


# -- settling


def test_outcomes_end_where_they_say(index: Index) -> None:
    fill(index, [1, 2, 3, 4], "pacs")
    settled = index.settle(
        [
            outcome(1, "pacs", DELIVERED, status=0xB000, reason="coerced"),
            outcome(2, "pacs", DEAD, status=0xC000, reason="cannot understand"),
            outcome(3, "pacs", DROPPED),
            outcome(4, "pacs", READY),
        ]
    )
    assert (settled.applied, settled.repeated, settled.unknown) == (4, (), ())
    line = index.account().destinations["pacs"]
    assert (line.delivered, line.dead, line.dropped, line.waiting) == (1, 1, 1, 1)
    row = index.instance(1)
    assert row is not None
    delivery = row.deliveries[0]
    assert (delivery.status, delivery.reason, delivery.attempts) == (0xB000, "coerced", 1)
    assert delivery.updated_at == T0 + 1000
    assert leased(index, "pacs") == [4]


def test_settling_twice_or_the_unknown_is_reported_and_harmless(index: Index) -> None:
    fill(index, [1], "pacs")
    first = index.settle([outcome(1, "pacs", DELIVERED), outcome(1, "pacs", DEAD)])
    assert (first.applied, first.repeated) == (1, ((1, "pacs"),))
    again = index.settle(
        [outcome(1, "pacs", DELIVERED), outcome(1, "nowhere", DEAD), outcome(9, "pacs", DEAD)]
    )
    assert (again.applied, again.repeated) == (0, ((1, "pacs"),))
    assert again.unknown == ((1, "nowhere"), (9, "pacs"))
    assert state(index, 1, "pacs") is DELIVERED


def test_two_outcomes_of_one_delivery_in_a_batch(index: Index) -> None:
    fill(index, [1], "pacs")
    index.settle(
        [outcome(1, "pacs", READY, due_at=T0 + 5, reason="slow"), outcome(1, "pacs", DELIVERED)]
    )
    row = index.instance(1)
    assert row is not None
    assert (row.deliveries[0].state, row.deliveries[0].attempts) == (DELIVERED, 2)
    assert row.deliveries[0].due_at is None


@pytest.mark.parametrize("wrong", [HELD, DUPLICATE])
def test_not_every_state_is_an_outcome(index: Index, wrong: DeliveryState) -> None:
    fill(index, [1], "pacs")
    with pytest.raises(ValueError, match="not an outcome"):
        index.settle([outcome(1, "pacs", wrong)])
    assert state(index, 1, "pacs") is READY


def test_delivered_prevails_over_what_an_operator_did_meanwhile(index: Index) -> None:
    fill(index, [1, 2, 3], "pacs")
    index.drop(Filter(ids=(1,)), "sent by hand", at=T0)
    index.hold(Filter(ids=(2, 3)), "wait", at=T0)
    index.settle(
        [
            outcome(1, "pacs", DELIVERED),
            outcome(2, "pacs", DELIVERED),
            outcome(3, "pacs", READY, due_at=T0 + 10, reason="time-out"),
        ]
    )
    assert [state(index, n, "pacs") for n in (1, 2, 3)] == [DELIVERED, DELIVERED, HELD]
    assert index.queue_list(Filter(state=HELD), 1)[0].delivery.reason == "wait"


# -- housekeeping


def test_only_the_settled_are_purged_oldest_first(index: Index) -> None:
    fill(index, [1, 2, 3, 4, 5], "pacs", "vna")
    index.settle([outcome(n, "vna", DELIVERED, at=T0) for n in (1, 2, 3, 4)])
    index.settle(
        [
            outcome(1, "pacs", DELIVERED, at=T0 + 30),
            outcome(2, "pacs", DROPPED, at=T0 + 10),
            outcome(3, "pacs", DEAD, at=T0 + 10),
        ]
    )
    row = index.instance(1)
    assert row is not None
    assert row.settled_at == T0 + 30
    assert index.purge(T0 + 5, 10).count == 0
    assert index.purge(float("inf"), 1).count == 1
    assert index.known([1, 2]) == {1}
    purged = index.purge(float("inf"), 10)
    assert (purged.count, purged.bytes, purged.large) == (1, 100, [])
    assert [r.ref.id for r in index.instances(Filter(), 9)] == [3, 4, 5]
    line = index.account().destinations["pacs"]
    assert (line.received, line.delivered, line.dropped, line.dead) == (5, 1, 1, 1)


def test_purging_by_place_frees_the_oldest_segment_first(index: Index) -> None:
    for n, generation in ((1, 5), (2, 4), (3, 4)):
        add(index, (ref(n, generation=generation), meta(n, disposition="discard")))
    index.purge(float("inf"), 2, oldest_first=False)
    assert index.generations_in_use() == {5: (1, 100)}


def test_purging_names_large_files(index: Index) -> None:
    big = ref(1, length=10**9, large=True)
    add(index, (big, meta(1, disposition="discard")), (ref(2), meta(2, disposition="discard")))
    assert index.generations_in_use() == {1: (2, 100)}
    purged = index.purge(float("inf"), 10)
    assert (purged.large, purged.count, purged.bytes) == ([big], 2, 10**9 + 100)
    assert index.generations_in_use() == {}


def test_contexts_go_with_their_last_instance(index: Index) -> None:
    add(index, (ref(1), meta(1, disposition="discard")))
    index.purge(float("inf"), 10)
    add(index, (ref(2), meta(2, disposition="discard")))
    row = index.instance(2)
    assert row is not None
    assert row.meta.calling_ae == "CT1"
    index.purge(float("inf"), 10)
    assert index._db.value("SELECT count(*) FROM context") == 0


def test_moving_changes_places_and_nothing_else(index: Index) -> None:
    fill(index, [1, 2, 3], "pacs")
    moved = [ref(n)._replace(generation=8, offset=n, data_offset=n + 512) for n in (1, 3, 77)]
    index.move(moved)
    assert index.refs_in(8, 10) == moved[:2]
    assert index.refs_in(8, 1) == moved[:1]
    assert index.refs_in(1, 10) == [ref(2)]
    assert index.generations_in_use() == {1: (1, 100), 8: (2, 200)}
    assert [w.ref for w in index.lease("pacs", 9, T0, [])] == [moved[0], ref(2), moved[1]]


def test_barrier_leaves_everything_readable(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    with audited(path) as index:
        index.barrier()
        fill(index, range(1, 600), "pacs")
        index.barrier()
        assert len(leased(index, "pacs", limit=1000)) == 599
    with audited(path) as index:
        assert index.last_id() == 599


def test_a_batch_of_any_size(index: Index) -> None:
    first = 1
    for size in (1, 2, 3, 7, 255, 256, 257, 600):
        numbers = range(first, first + size)
        assert fill(index, numbers, "pacs").deliveries == {"pacs": size}
        assert leased(index, "pacs", limit=10_000) == list(numbers)
        done = index.settle([outcome(n, "pacs", DELIVERED) for n in numbers])
        assert done.applied == size
        first += size
    assert add(index).added == 0


def test_many_deferred_come_due_together(index: Index) -> None:
    numbers = range(1, 2500)
    fill(index, numbers, "pacs")
    index.settle([outcome(n, "pacs", READY, due_at=T0 + n / 1000) for n in numbers])
    seen: list[int] = []
    while found := leased(index, "pacs", limit=500, now=T0 + 10, exclude=seen):
        seen += found
    assert sorted(seen) == list(numbers)


def test_same_is_asked_for_the_new_and_the_earlier(index: Index) -> None:
    assert same(ref(1), ref(2))
    pairs: list[tuple[Ref, Ref]] = []
    add(index, (ref(1, crc=5), meta(1, "pacs", uid="1.9")))
    index.add(
        [(ref(2, crc=5), meta(2, "pacs", uid="1.9"))],
        Position(1, 1),
        suppress_duplicates=True,
        same_bytes=lambda new, earlier: bool(pairs.append((new, earlier))) or True,
    )
    assert pairs == [(ref(2, crc=5), ref(1, crc=5))]
