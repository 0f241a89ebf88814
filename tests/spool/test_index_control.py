"""What operators do to the queues, what they and the gauges read."""

import json

import pytest

from router.spool import index_control, index_events
from router.spool.index import DeliveryState, Disposition, Filter, Index
from router.spool.record import RouteMeta
from tests.spool.index_samples import (
    DEAD,
    DELIVERED,
    DROPPED,
    DUPLICATE,
    HELD,
    READY,
    T0,
    add,
    fill,
    leased,
    meta,
    outcome,
    ref,
    state,
)


def _listed(index: Index, which: Filter, limit: int = 100) -> list[tuple[int, str]]:
    items = index.queue_list(which, limit)
    return [(item.delivery.instance_id, item.delivery.destination) for item in items]


# -- actions


def test_retry_wakes_the_dead_and_the_deferred(index: Index) -> None:
    fill(index, [1, 2, 3, 4], "pacs")
    index.hold(Filter(ids=(4,)), at=T0)
    index.settle(
        [
            outcome(1, "pacs", DEAD, status=0xC000, reason="no"),
            outcome(2, "pacs", READY, due_at=T0 + 1e9),
        ]
    )
    changed = index.retry(Filter(destination="pacs"), at=T0 + 5, who="eva")
    assert (changed.count, changed.bytes, changed.more) == (2, 200, False)
    assert leased(index, "pacs", now=T0) == [1, 2, 3]
    assert [w.attempts for w in index.lease("pacs", 9, T0, [])] == [0, 0, 0]
    assert state(index, 4, "pacs") is HELD, "a retry does not release what somebody held"


def test_drop_takes_off_whatever_is_open(index: Index) -> None:
    fill(index, [1, 2, 3, 4], "pacs")
    index.hold(Filter(ids=(1,)), at=T0)
    index.settle([outcome(2, "pacs", DEAD), outcome(3, "pacs", DELIVERED)])
    assert index.drop(Filter(), "sent by hand", at=T0 + 5).count == 3
    assert [state(index, n, "pacs") for n in (1, 2, 3, 4)] == [DROPPED, DROPPED, DELIVERED, DROPPED]
    assert index.queue_list(Filter(state=DROPPED), 1)[0].delivery.reason == "sent by hand"
    assert index.purge(T0 + 5, 10).count == 3


def test_hold_and_release(index: Index) -> None:
    fill(index, [1, 2], "pacs", "vna")
    index.settle([outcome(1, "pacs", READY, due_at=T0 + 1e9)])
    assert index.hold(Filter(destination="pacs"), "upgrade", at=T0).count == 2
    assert (leased(index, "pacs"), index.next_due("pacs")) == ([], None)
    assert leased(index, "vna") == [1, 2]
    assert index.release(Filter(ids=(1,)), at=T0).count == 1
    assert leased(index, "pacs", now=T0) == [1]
    assert index.release(Filter(), at=T0).count == 1
    assert index.release(Filter(), at=T0).count == 0


def test_held_instances_are_routed_after_all(index: Index) -> None:
    add(
        index,
        (ref(1), meta(1, reason="no rule matched")),
        (ref(2), meta(2, reason="bad VR", quarantined=True, study="")),
        (ref(3), meta(3, reason="no rule matched", study="1.4")),
        (ref(4), meta(4, "vna")),
    )
    which = Filter(reason="no rule*")
    changed = index.route_held(which, ["pacs", "vna", "pacs"], "by hand", at=T0 + 9, who="eva")
    assert (changed.count, changed.bytes) == (2, 200)
    assert leased(index, "pacs") == [1, 3]
    assert leased(index, "vna") == [1, 4, 3]
    row = index.instance(1)
    assert row is not None
    assert row.disposition is Disposition.ROUTED
    assert row.meta.routes == (RouteMeta("vna", "by hand"), RouteMeta("pacs", "by hand"))
    assert [(e.action, e.who, e.count) for e in row.events] == [("route", "eva", 2)]
    account = index.account()
    assert (account.routed, account.held, account.quarantined) == (3, 0, 1)
    assert index.route_held(Filter(ids=(2, 4)), ["pacs"], "by hand", at=T0).count == 1
    index.settle([outcome(1, "pacs", DELIVERED), outcome(1, "vna", DELIVERED)])
    assert index.purge(float("inf"), 9).count == 1
    with pytest.raises(ValueError, match="no destination"):
        index.route_held(Filter(), [], "by hand", at=T0)


@pytest.mark.parametrize("which", [Filter(destination="pacs"), Filter(state=DEAD)])
def test_held_instances_of_no_destination_went_with_those_of_one(
    index: Index, which: Filter
) -> None:
    add(index, (ref(1), meta(1, reason="no rule matched")), (ref(2), meta(2, "pacs")))
    assert index.discard_held(which, "test images", at=T0).count == 0
    assert index.route_held(which, ["vna"], "by hand", at=T0).count == 0
    assert index.account().held == 1


def test_held_instances_are_discarded(index: Index) -> None:
    add(index, (ref(1), meta(1, reason="no rule matched")), (ref(2), meta(2, "pacs")))
    assert index.discard_held(Filter(), "test images", at=T0 + 9, who="eva").count == 1
    row = index.instance(1)
    assert row is not None
    assert (row.disposition, row.meta.disposition) == (Disposition.DISCARDED, "discard")
    assert (row.meta.reason, row.settled_at) == ("test images", T0 + 9)
    assert index.purge(T0 + 9, 9).count == 1
    assert index.account().discarded == 1


def test_actions_go_on_over_many_pages(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_control, "_AT_ONCE", 7)
    fill(index, range(1, 51), "pacs", "vna")
    assert index.hold(Filter(), at=T0).count == 100
    assert index.release(Filter(destination="vna"), at=T0).count == 50
    index.settle([outcome(n, "vna", DEAD) for n in range(1, 31)])
    index.settle([outcome(n, "vna", READY, due_at=T0 + 1e9) for n in range(31, 51)])
    assert index.retry(Filter(), at=T0).count == 50
    assert index.drop(Filter(), "enough", at=T0).count == 100
    assert [e.count for e in index.events(10)] == [100, 50, 50, 100]
    add(index, *((ref(n), meta(n)) for n in range(51, 81)))
    assert index.route_held(Filter(), ["pacs"], "by hand", at=T0).count == 30


def test_an_action_may_be_limited(index: Index) -> None:
    fill(index, range(1, 11), "pacs")
    first = index.hold(Filter(), at=T0, limit=4)
    assert (first.count, first.more) == (4, True)
    assert index.hold(Filter(), at=T0, limit=6).more is False
    index.release(Filter(), at=T0)
    index.settle([outcome(n, "pacs", DEAD) for n in range(1, 4)])
    index.settle([outcome(n, "pacs", READY, due_at=T0 + 1e9) for n in range(4, 7)])
    changed = index.retry(Filter(), at=T0, limit=5)
    assert (changed.count, changed.more) == (5, True)


def test_events_say_who_did_what_to_which(index: Index) -> None:
    fill(index, [1, 2], "pacs")
    index.hold(Filter(destination="pacs", ids=(1,)), "upgrade", at=T0 + 3, who="eva")
    index.retry(Filter(), at=T0 + 4, who="nobody")
    index.drop(Filter(study="1.2.3", state=HELD), "ours", at=T0 + 5, who="åke")
    row = index.instance(1)
    assert row is not None
    assert [(e.at, e.who, e.action, e.count) for e in row.events] == [
        (T0 + 3, "eva", "hold", 1),
        (T0 + 5, "åke", "drop", 1),
    ]
    assert json.loads(row.events[1].detail) == {
        "study": "1.2.3",
        "state": "held",
        "because": "ours",
    }
    assert [e.action for e in index.events(10)] == ["drop", "hold"], "nothing done, no event"
    assert [e.action for e in index.events(1)] == ["drop"]
    other = index.instance(2)
    assert other is not None
    assert other.events == ()


def test_old_events_go(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_events, "_EVENTS_KEPT", 2)
    fill(index, [1], "pacs")
    for _ in range(3):
        index.hold(Filter(), at=T0)
        index.release(Filter(), at=T0)
    assert [e.action for e in index.events(10)] == ["release", "hold"]


# -- filters


_FILTERS = [
    (Filter(), [(1, "pacs"), (1, "vna"), (2, "pacs"), (3, "pacs"), (5, "pacs")]),
    (Filter(destination="pacs"), [(1, "pacs"), (2, "pacs"), (3, "pacs"), (5, "pacs")]),
    (Filter(destination="nowhere"), []),
    (Filter(state=READY), [(1, "vna"), (3, "pacs")]),
    (Filter(state=DEAD), [(1, "pacs"), (5, "pacs")]),
    (Filter(state=DELIVERED), [(4, "pacs")]),
    (Filter(state=DROPPED), []),
    (Filter(state=DELIVERED, destination="vna"), []),
    (Filter(study="1.1"), [(1, "pacs"), (1, "vna"), (3, "pacs")]),
    (Filter(study=""), []),
    (Filter(sop_instance_uid="1.2.3.4.2"), [(2, "pacs")]),
    (Filter(sop_instance_uid="1.2.3.4"), []),
    (Filter(sop_instance_uid="1.2.3.4.2", study="1.1"), []),
    (Filter(sop_instance_uid="1.2.3.4.3", study="1.1"), [(3, "pacs")]),
    (Filter(ids=(1, 5, 77, 5)), [(1, "pacs"), (1, "vna"), (5, "pacs")]),
    (Filter(ids=(1, 5), study="1.1"), [(1, "pacs"), (1, "vna")]),
    (Filter(ids=(4,), state=DELIVERED), [(4, "pacs")]),
    (Filter(ids=()), []),
    (Filter(reason="C000*"), [(1, "pacs")]),
    (Filter(reason="*[[]x]*"), [(5, "pacs")]),
    (Filter(older_than=T0 + 2), [(1, "pacs"), (1, "vna")]),
    (Filter(newer_than=T0 + 2), [(3, "pacs"), (5, "pacs")]),
    (Filter(older_than=T0 + 5, newer_than=T0 + 1), [(2, "pacs"), (3, "pacs")]),
    (Filter(disposition=Disposition.HELD), []),
    (Filter(disposition=Disposition.ROUTED, state=HELD), [(2, "pacs")]),
]


@pytest.mark.parametrize(("which", "expected"), _FILTERS)
def test_filters(index: Index, which: Filter, expected: list[tuple[int, str]]) -> None:
    fill(index, [1], "pacs", "vna", study="1.1")
    fill(index, [2], "pacs", study="1.2")
    fill(index, [3], "pacs", study="1.1")
    fill(index, [4, 5], "pacs", study="")
    index.settle(
        [
            outcome(1, "pacs", DEAD, reason="C000: cannot"),
            outcome(4, "pacs", DELIVERED),
            outcome(5, "pacs", DEAD, reason="odd [x] 'quoted\"; --"),
        ]
    )
    index.hold(Filter(ids=(2,)), at=T0)
    assert _listed(index, which) == expected
    paged: list[tuple[int, str]] = []
    after = None
    while page := index.queue_list(which, 1, after):
        paged += [(page[0].delivery.instance_id, page[0].delivery.destination)]
        after = page[0].cursor
    assert paged == expected
    if which.disposition is None:
        instances = list(dict.fromkeys(number for number, _ in expected))
        by_instance = [row.ref.id for row in index.instances(which, 100)]
        if which.state is not None or which.destination is not None:
            assert set(by_instance) >= set(instances)
        if which.state is not None:
            assert by_instance == instances


def test_instances_by_filter(index: Index) -> None:
    fill(index, [1], "pacs", study="1.1")
    add(index, (ref(2), meta(2, reason="no rule matched", study="1.1")))
    add(index, (ref(3), meta(3, reason="bad VR", quarantined=True)))
    add(index, (ref(4), meta(4, disposition="discard", reason="no rule for it")))

    def found(which: Filter, limit: int = 9, after: int = 0) -> list[int]:
        return [row.ref.id for row in index.instances(which, limit, after)]

    assert found(Filter()) == [1, 2, 3, 4]
    assert found(Filter(), limit=2, after=1) == [2, 3]
    assert found(Filter(study="1.1")) == [1, 2]
    assert found(Filter(reason="no rule*")) == [2, 4]
    assert found(Filter(disposition=Disposition.QUARANTINED)) == [3]
    assert found(Filter(disposition=Disposition.DISCARDED)) == [4]
    assert found(Filter(sop_instance_uid="1.2.3.4.3")) == [3]
    assert found(Filter(ids=(4, 2)), after=2) == [4]
    assert found(Filter(destination="pacs")) == [1]
    assert found(Filter(newer_than=T0 + 3)) == [4]
    index.settle([outcome(1, "pacs", DEAD, reason="C000: no rule here")])
    assert found(Filter(state=DEAD, reason="*no rule*")) == [1]
    assert found(Filter(destination="pacs", reason="*no rule*")) == [1]
    assert found(Filter(destination="pacs", reason="x*")) == []


def test_queue_items_tell_what_and_why(index: Index) -> None:
    one = meta(1, "pacs", priority=2)
    add(index, (ref(1), one))
    index.settle([outcome(1, "pacs", READY, due_at=T0 + 9, status=0xA700, reason="full")])
    (item,) = index.queue_list(Filter(), 5)
    assert (item.ref, item.meta) == (ref(1), one)
    delivery = item.delivery
    assert (delivery.priority, delivery.due_at, delivery.status) == (2, T0 + 9, 0xA700)
    assert (delivery.reason, delivery.rule, delivery.attempts) == ("full", "everything", 1)
    assert delivery.duplicate_of is None
    assert index.instance(2) is None


# -- gauges


def test_the_summary_has_a_line_per_destination_and_open_state(index: Index) -> None:
    fill(index, [1, 2, 3, 4], "pacs")
    fill(index, [5], "vna")
    index.settle(
        [
            outcome(1, "pacs", DELIVERED),
            outcome(2, "pacs", READY, due_at=T0 + 70),
            outcome(3, "pacs", DEAD),
        ]
    )
    index.hold(Filter(ids=(4,)), at=T0)
    lines = {(line.destination, line.state): line for line in index.queue_summary()}
    assert list(lines) == [(d, s) for d in ("pacs", "vna") for s in (READY, HELD, DEAD)]
    ready = lines["pacs", READY]
    assert (ready.count, ready.bytes, ready.oldest, ready.next_due) == (1, 100, T0 + 2, T0 + 70)
    held = lines["pacs", HELD]
    assert (held.count, held.oldest, held.next_due) == (1, T0 + 4, None)
    assert lines["pacs", DEAD].oldest == T0 + 3
    assert lines["vna", READY].next_due == 0.0
    assert (lines["vna", DEAD].count, lines["vna", DEAD].oldest) == (0, None)


def test_the_account_names_what_is_missing(index: Index) -> None:
    fill(index, [1, 2], "pacs")
    assert index.account(audit=True).balanced
    index._db.run("UPDATE tally SET n = n - 1 WHERE what = 0")
    account = index.account()
    assert not account.balanced
    assert account.differences == {"destination pacs": 1}
    assert account.destinations["pacs"].difference == 1
    index._db.run("UPDATE tally SET n = n + 1 WHERE what = 0")


def test_the_audit_counts_the_rows(index: Index) -> None:
    fill(index, [1, 2], "pacs")
    with index._db.transaction():
        index._db.run("DELETE FROM delivery WHERE instance_id = 1")
        index._db.run("UPDATE instance SET id = 77 WHERE id = 2")
    assert index.account().balanced
    assert index.account(audit=True).differences == {
        "rows of destination pacs, ready": 1,
        "instances whose deliveries differ from their count": 2,
        "deliveries without an instance": 1,
    }
    with index._db.transaction():
        index._db.run("UPDATE instance SET id = 2 WHERE id = 77")
        index._db.run(
            "INSERT INTO delivery("
            "instance_id, destination_id, state, priority, study_order, due_at, attempts, "
            "updated_at, status, reason, rule_id, duplicate_of, plan_id, gate_id) "
            "SELECT 1, destination_id, state, priority, study_order, due_at, "
            "attempts, updated_at, status, reason, rule_id, duplicate_of, plan_id, gate_id "
            "FROM delivery"
        )


def test_account_counts_every_fate(index: Index) -> None:
    fill(index, range(1, 7), "pacs")
    add(index, (ref(7, crc=1), meta(7, "pacs", uid="1.2.3.4.1")))
    index.settle(
        [
            outcome(1, "pacs", DELIVERED),
            outcome(2, "pacs", DEAD),
            outcome(3, "pacs", DROPPED),
            outcome(4, "pacs", READY, due_at=T0 + 1e9),
        ]
    )
    index.hold(Filter(ids=(5,)), at=T0)
    line = index.account().destinations["pacs"]
    assert (line.received, line.delivered, line.waiting, line.held) == (7, 1, 2, 1)
    assert (line.dead, line.dropped, line.duplicate, line.difference) == (1, 1, 1, 0)
    assert state(index, 7, "pacs") is DUPLICATE


@pytest.mark.parametrize("size", [1_000, 20_000])
def test_no_read_walks_over_the_queue(index: Index, size: int) -> None:
    """Steps of SQLite's machine, not time: the same with twenty times the queue."""
    fill(index, range(1, size + 1), "pacs")
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    reads = {
        "summary": index.queue_summary,
        "account": index.account,
        "lease": lambda: index.lease("pacs", 50, T0, range(1, 51)),
        "next_due": lambda: index.next_due("pacs"),
        "list": lambda: index.queue_list(Filter(destination="pacs"), 50, (size // 2, 1)),
        "list all": lambda: index.queue_list(Filter(), 50),
        "instances": lambda: index.instances(Filter(), 50, size // 2),
        "instances that wait": lambda: index.instances(Filter(state=DeliveryState.READY), 50, 5),
        "no dead": lambda: index.queue_list(Filter(state=DeliveryState.DEAD), 50),
        "no held": lambda: index.instances(Filter(disposition=Disposition.HELD), 50),
        "purge": lambda: index.purge(T0, 50),
        "settle": lambda: index.settle([outcome(n, "pacs", DEAD) for n in range(1, 51)]),
    }
    index._db._connection.set_progress_handler(step, 100)
    used = {}
    for name, read in reads.items():
        steps = 0
        read()
        used[name] = steps
    index._db._connection.set_progress_handler(None, 100)
    assert {name: n for name, n in used.items() if n > 150} == {}, used
