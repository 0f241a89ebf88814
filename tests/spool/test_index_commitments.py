"""What destinations took and have not committed yet."""

from pathlib import Path

import pytest

from router.spool import sqlite
from router.spool.index import Filter, Index
from router.spool.index_commitments import Committed, Refusal, Transaction, Uncommitted
from router.spool.index_schema import STEPS
from tests.spool import index_version_2
from tests.spool.index_samples import (
    DEAD,
    DELIVERED,
    DROPPED,
    DUPLICATE,
    HELD,
    READY,
    T0,
    UNCOMMITTED,
    add,
    audited,
    fate,
    fill,
    leased,
    meta,
    outcome,
    ref,
    state,
)

GONE = Refusal("not committed: 0112H, no such object instance", again=True)
NEVER = Refusal("not committed: 0122H, class not supported", again=False)


def _took(index: Index, *numbers: int, destination: str = "pacs") -> None:
    index.settle([outcome(n, destination, UNCOMMITTED, status=0) for n in numbers])


def _ask(index: Index, uid: str = "2.25.1", limit: int = 100, at: float = T0) -> Transaction:
    asked = index.commitments.ask("pacs", uid, limit, at, at + 60)
    assert asked is not None
    return asked


def _answer(index: Index, uid: str, *kept: int, **refused: Refusal) -> Committed:
    return index.commitments.answer(
        uid,
        [f"1.2.3.4.{n}" for n in kept],
        {f"1.2.3.4.{n.removeprefix('n')}": refusal for n, refusal in refused.items()},
        at=T0 + 2000,
        most={"pacs": 2},
        words="committed",
    )


def test_an_answer_to_what_was_never_asked_changes_nothing(index: Index) -> None:
    fill(index, [1], "pacs")
    _took(index, 1)
    _ask(index)
    assert _answer(index, "2.25.99", 1) == Committed(known=False)
    assert _answer(index, "", 1) == Committed(known=False)
    assert state(index, 1, "pacs") is UNCOMMITTED


def test_a_destination_that_nobody_knows_has_nothing(index: Index) -> None:
    commitments = index.commitments
    assert commitments.uncommitted("nowhere", 10) == Uncommitted()
    assert commitments.ask("nowhere", "2.25.1", 10, T0, T0) is None
    assert commitments.ask_again("nowhere", "2.25.1", T0, T0) is None
    assert commitments.give_up("nowhere", T0, "", T0) == 0
    assert commitments.accept("nowhere", "", T0, 10) == 0


def test_an_answer_names_others_and_leaves_some_out(index: Index) -> None:
    fill(index, [1, 2], "pacs")
    _took(index, 1)
    _ask(index)
    _took(index, 2)  # in no transaction yet
    answered = _answer(index, "2.25.1", 2, 77)
    assert answered == Committed(known=True, destination="pacs", left=1, foreign=2)
    assert [state(index, n, "pacs") for n in (1, 2)] == [UNCOMMITTED, UNCOMMITTED]


def test_what_is_named_in_both_ways_is_refused(index: Index) -> None:
    fill(index, [1], "pacs")
    _took(index, 1)
    _ask(index)
    assert _answer(index, "2.25.1", 1, n1=GONE).resent == 1
    assert state(index, 1, "pacs") is READY


def test_uncommitted_is_kept_and_not_sent_again(index: Index) -> None:
    fill(index, [1, 2], "pacs")
    _took(index, 1, 2)
    assert leased(index, "pacs") == []
    assert index.next_due("pacs") is None
    account = index.account(audit=True)
    line = account.destinations["pacs"]
    assert (line.received, line.uncommitted, line.delivered, line.difference) == (2, 2, 0, 0)
    assert index.purge(T0 + 1e9, 100).count == 0, "it may still have to be sent again"


def test_committed_is_delivered_and_may_go(index: Index) -> None:
    fill(index, [1, 2], "pacs")
    index.settle(
        [
            outcome(1, "pacs", UNCOMMITTED, status=0),
            outcome(2, "pacs", UNCOMMITTED, status=0xB000, reason="coerced"),
        ]
    )
    asked = _ask(index)
    assert [r.sop_instance_uid for r in asked.references] == ["1.2.3.4.1", "1.2.3.4.2"]
    assert (asked.asked, asked.made_at, asked.references[0].series_instance_uid) == (
        *(1, T0, "1.2.3.1"),
    )
    answered = _answer(index, "2.25.1", 1, 2)
    assert answered == Committed(known=True, destination="pacs", committed=2)
    assert [fate(index, n, "pacs").reason for n in (1, 2)] == ["committed", "coerced; committed"]
    assert index.commitments.uncommitted("pacs", 10) == Uncommitted()
    assert index.purge(T0 + 1e9, 100).count == 2


def test_the_same_answer_twice_is_known_and_does_nothing(index: Index) -> None:
    fill(index, [1], "pacs")
    _took(index, 1)
    _ask(index)
    _answer(index, "2.25.1", 1)
    assert _answer(index, "2.25.1", 1) == Committed(known=True, destination="pacs")
    assert _answer(index, "2.25.1", n1=GONE) == Committed(known=True, destination="pacs")
    assert state(index, 1, "pacs") is DELIVERED


def test_refused_is_sent_again_so_often_and_then_dead(index: Index) -> None:
    fill(index, [1], "pacs")
    for turn in range(3):
        assert state(index, 1, "pacs") is READY
        assert leased(index, "pacs", now=T0 + 1e6) == [1]
        _took(index, 1)
        _ask(index, f"2.25.{turn}")
        answered = _answer(index, f"2.25.{turn}", n1=GONE)
        assert (answered.resent, answered.dead) == ((1, 0) if turn < 2 else (0, 1))
    found = fate(index, 1, "pacs")
    assert (found.state, found.reason) == (DEAD, GONE.reason)
    index.retry(Filter(destination="pacs"), at=T0)
    _took(index, 1)
    _ask(index, "2.25.9")
    assert _answer(index, "2.25.9", n1=GONE).resent == 1, "a person asked for it: from the start"


def test_refused_for_good_is_dead_at_once(index: Index) -> None:
    fill(index, [1, 2], "pacs")
    _took(index, 1, 2)
    _ask(index)
    answered = _answer(index, "2.25.1", 2, n1=NEVER)
    assert (answered.dead, answered.committed) == (1, 1)
    assert fate(index, 1, "pacs").reason == NEVER.reason


def test_asked_again_has_another_uid_and_either_answer_counts(index: Index) -> None:
    fill(index, [1, 2], "pacs")
    _took(index, 1, 2)
    first = _ask(index)
    commitments = index.commitments
    assert commitments.ask_again("pacs", "2.25.2", T0 + 59, T0 + 200) is None, "not due yet"
    again = commitments.ask_again("pacs", "2.25.2", T0 + 60, T0 + 200)
    assert again is not None
    assert (again.id, again.asked, again.references) == (first.id, 2, first.references)
    assert commitments.uncommitted("pacs", 10) == Uncommitted(0, None, T0 + 200)
    assert _answer(index, "2.25.1", 1).committed == 1
    assert _answer(index, "2.25.2", 2).committed == 1
    assert commitments.ask_again("pacs", "2.25.3", T0 + 1e6, T0 + 2e6) is None


def test_what_is_asked_again_is_what_is_left(index: Index) -> None:
    fill(index, [1, 2, 3], "pacs")
    _took(index, 1, 2, 3)
    _ask(index)
    _answer(index, "2.25.1", 1, n3=GONE)
    again = index.commitments.ask_again("pacs", "2.25.2", T0 + 60, T0 + 200)
    assert again is not None
    assert [r.sop_instance_uid for r in again.references] == ["1.2.3.4.2"]
    _took(index, 3)
    assert index.commitments.uncommitted("pacs", 10).unasked == 1, "it is in no transaction"


def test_batches_are_bounded_and_the_oldest_first(index: Index) -> None:
    fill(index, range(1, 6), "pacs")
    _took(index, 5, 3, 1, 2, 4)
    assert index.commitments.uncommitted("pacs", 3).unasked == 3
    assert index.commitments.uncommitted("pacs", 30) == Uncommitted(5, T0 + 1000, None)
    first, second = _ask(index, "2.25.1", 3), _ask(index, "2.25.2", 3)
    assert [len(t.references) for t in (first, second)] == [3, 2]
    assert first.references[0].sop_instance_uid == "1.2.3.4.1"
    assert index.commitments.ask("pacs", "2.25.3", 3, T0, T0) is None


def test_two_objects_of_one_uid_are_one_reference_and_one_answer(index: Index) -> None:
    add(index, (ref(1), meta(1, "pacs", uid="1.2.3.4.1")), suppress=False)
    add(index, (ref(2, crc=9), meta(2, "pacs", uid="1.2.3.4.1")), suppress=False)
    _took(index, 1, 2)
    assert len(_ask(index).references) == 1
    assert _answer(index, "2.25.1", 1).committed == 2


def test_two_objects_of_one_uid_in_two_series_may_be_answered_apart(index: Index) -> None:
    others = {"uid": "1.2.3.4.1", "study": "1.2.9", "series": "1.2.9.1"}
    add(index, (ref(1), meta(1, "pacs")), (ref(2), meta(2, "pacs", **others)), suppress=False)
    _took(index, 1, 2)
    first, second = _ask(index).references
    assert (first.series_instance_uid, second.series_instance_uid) == ("1.2.3.1", "1.2.9.1")
    answered = index.commitments.answer(
        "2.25.1", [second], {first: NEVER}, at=T0 + 2000, most={}, words="listed"
    )
    assert (answered.committed, answered.dead, answered.foreign) == (1, 1, 0)
    assert [state(index, n, "pacs") for n in (1, 2)] == [DEAD, DELIVERED]


def test_a_repeat_waits_for_the_commitment_of_the_first(index: Index) -> None:
    add(index, (ref(1), meta(1, "pacs", uid="1.2.3.4.1")))
    _took(index, 1)
    add(index, (ref(2, crc=1), meta(2, "pacs", uid="1.2.3.4.1")))
    assert state(index, 2, "pacs") is DUPLICATE
    assert index.purge(T0 + 1e9, 100).count == 0
    _ask(index)
    _answer(index, "2.25.1", n1=NEVER)
    assert state(index, 2, "pacs") is READY, "it goes in place of the one that was refused"
    _took(index, 2)
    _ask(index, "2.25.2")
    _answer(index, "2.25.2", 1)
    assert state(index, 2, "pacs") is DELIVERED


def test_a_repeat_is_settled_with_the_commitment(index: Index) -> None:
    add(index, (ref(1), meta(1, "pacs", uid="1.2.3.4.1")))
    add(index, (ref(2, crc=1), meta(2, "pacs", uid="1.2.3.4.1")))
    _took(index, 1)
    _ask(index)
    _answer(index, "2.25.1", 1)
    assert index.purge(T0 + 1e9, 100).count == 2


def test_given_up_is_dead_with_the_reason(index: Index) -> None:
    fill(index, [1, 2], "pacs")
    _took(index, 1)
    _ask(index, "2.25.1", at=T0)
    _took(index, 2)
    _ask(index, "2.25.2", at=T0 + 500)
    assert index.commitments.give_up("pacs", T0, "late", T0 + 1000) == 0
    assert index.commitments.give_up("pacs", T0 + 1, "late", T0 + 1000) == 1
    assert index.commitments.give_up("pacs", T0 + 1, "late", T0 + 1000) == 0
    assert (fate(index, 1, "pacs").state, fate(index, 1, "pacs").reason) == (DEAD, "late")
    assert state(index, 2, "pacs") is UNCOMMITTED


def test_without_the_setting_what_was_taken_is_delivered(index: Index) -> None:
    fill(index, [1, 2, 3], "pacs", "vna")
    _took(index, 1, 2, 3)
    _took(index, 1, destination="vna")
    _ask(index, "2.25.1", 1)
    assert sorted(index.commitments.waiting_at()) == ["pacs", "vna"]
    assert index.commitments.accept("pacs", "not asked for any more", T0, 2) == 2
    assert index.commitments.accept("pacs", "not asked for any more", T0, 2) == 1
    assert index.commitments.accept("pacs", "not asked for any more", T0, 2) == 0
    assert [state(index, n, "pacs") for n in (1, 2, 3)] == [DELIVERED] * 3
    assert fate(index, 2, "pacs").reason == "not asked for any more"
    assert index.commitments.waiting_at() == ["vna"]
    assert index.commitments.ask_again("pacs", "2.25.7", T0 + 1e6, T0 + 2e6) is None


@pytest.mark.parametrize(
    ("before", "after"), [(DEAD, UNCOMMITTED), (DROPPED, UNCOMMITTED), (HELD, UNCOMMITTED)]
)
def test_what_arrived_after_all_is_to_be_committed(
    index: Index, before: object, after: object
) -> None:
    fill(index, [1], "pacs")
    if before is HELD:
        index.hold(Filter(ids=(1,)), at=T0)
    elif before is DROPPED:
        index.drop(Filter(ids=(1,)), "not wanted", at=T0)
    else:
        index.settle([outcome(1, "pacs", DEAD)])
    _took(index, 1)
    assert state(index, 1, "pacs") is after
    for late in (UNCOMMITTED, DEAD, READY, DELIVERED):
        assert len(index.settle([outcome(1, "pacs", late)]).repeated) == 1
    assert state(index, 1, "pacs") is UNCOMMITTED, "only the destination can say that it keeps it"


def test_it_is_all_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    with audited(path) as index:
        fill(index, [1, 2], "pacs")
        _took(index, 1, 2)
        _ask(index, "2.25.1", 1)
    with audited(path) as index:
        assert index.commitments.uncommitted("pacs", 10) == Uncommitted(1, T0 + 1000, T0 + 60)
        assert _answer(index, "2.25.1", 1).committed == 1


def test_transactions_that_are_over_are_forgotten_after_a_week(
    index: Index, tmp_path: Path
) -> None:
    fill(index, [1, 2, 3], "pacs")
    _took(index, 1)
    _ask(index, "2.25.1")
    _answer(index, "2.25.1", 1)
    _took(index, 2)
    _ask(index, "2.25.2", at=T0 + 6 * 86400)
    assert _answer(index, "2.25.1", 1).known
    _took(index, 3)
    _ask(index, "2.25.3", at=T0 + 8 * 86400)
    assert not _answer(index, "2.25.1", 1).known
    assert _answer(index, "2.25.2", 2).committed == 1, "one that is not over is kept"
    rows = sqlite.connect(tmp_path / "index.db").execute("SELECT uid FROM commitment_uid")
    assert sorted(rows.fetchall()) == [("2.25.2",), ("2.25.3",)]


def test_the_oldest_that_is_not_committed_is_told(index: Index) -> None:
    fill(index, [1, 2, 3], "pacs")
    _took(index, 2, 3)
    lines = {line.state: line for line in index.queue_summary() if line.destination == "pacs"}
    assert (lines[UNCOMMITTED].count, lines[UNCOMMITTED].oldest) == (2, T0 + 2)
    _ask(index, "2.25.1", 1)
    lines = {line.state: line for line in index.queue_summary()}
    assert (lines[UNCOMMITTED].bytes, lines[UNCOMMITTED].oldest) == (200, T0 + 2)
    assert lines[UNCOMMITTED].next_due is None
    assert lines[UNCOMMITTED].waits == ("to be committed",)
    index.commitments.note(1, T0 + 90, "pacs refused")
    (line,) = [one for one in index.queue_summary() if one.state is UNCOMMITTED]
    assert line.waits == ("to be committed", "pacs refused")
    listed = index.queue_list(Filter(state=UNCOMMITTED), 10)
    assert [item.delivery.instance_id for item in listed] == [2, 3]


def test_purging_forgets_how_often_something_was_refused(index: Index, tmp_path: Path) -> None:
    fill(index, [1], "pacs")
    _took(index, 1)
    _ask(index)
    _answer(index, "2.25.1", n1=GONE)
    index.drop(Filter(ids=(1,)), "enough", at=T0)
    assert index.purge(T0 + 1e9, 10).count == 1
    rows = sqlite.connect(tmp_path / "index.db").execute("SELECT * FROM commitment_failure")
    assert rows.fetchall() == []


def test_an_older_index_gets_what_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    index_version_2.build(path)
    connection = sqlite.connect(path)
    STEPS[2](connection)
    connection.execute("PRAGMA user_version = 3")
    connection.close()
    index = Index.open(path)
    index.settle([outcome(10, "pacs", UNCOMMITTED)])
    _ask(index)
    answered = index.commitments.answer(
        "2.25.1", ["1.2.3.10"], {}, at=T0, most={}, words="committed"
    )
    assert answered.committed == 1
    assert index.account(audit=True).differences == {}
    index.close()


# -- what operators do of it -------------------------------------------------------------------


def test_dropped_only_where_the_state_is_named(index: Index) -> None:
    fill(index, [1, 2], "pacs")
    _took(index, 1)
    _ask(index)
    assert index.drop(Filter(destination="pacs"), "no", at=T0).count == 1
    assert (state(index, 1, "pacs"), state(index, 2, "pacs")) == (UNCOMMITTED, DROPPED)
    which = Filter(destination="pacs", state=UNCOMMITTED)
    assert index.drop(which, "it has it, I looked", at=T0).count == 1
    assert state(index, 1, "pacs") is DROPPED
    assert fate(index, 1, "pacs").reason == "it has it, I looked"
    assert index.commitments.ask_again("pacs", "2.25.2", T0 + 9e9, T0 + 9e9) is None
    assert _answer(index, "2.25.1", n1=GONE).resent == 0
    assert index.purge(T0 + 9e9, 10).count == 2


def test_asked_again_now_with_what_was_asked_for_with_it(index: Index) -> None:
    fill(index, [1, 2, 3], "pacs")
    _took(index, 1, 2)
    _ask(index)
    assert index.ask_again(Filter(ids=(3,)), at=T0 + 1, who="eva").count == 0
    assert index.ask_again(Filter(state=HELD), at=T0 + 1, who="eva").count == 0
    assert index.commitments.uncommitted("pacs", 10).due_at == T0 + 60
    done = index.ask_again(Filter(ids=(1, 3)), at=T0 + 1, who="eva")
    assert (done.count, done.more) == (1, False)
    assert index.commitments.uncommitted("pacs", 10).due_at == T0 + 1
    again = index.commitments.ask_again("pacs", "2.25.2", T0 + 1, T0 + 61)
    assert again is not None
    assert len(again.references) == 2
    assert index.events(1)[0].action == "ask again"


def test_asking_again_goes_in_steps(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.spool.index_control._AT_ONCE", 2)
    fill(index, [1, 2, 3], "pacs")
    _took(index, 1, 2, 3)
    first = index.ask_again(Filter(), at=T0)
    assert (first.count, first.more) == (2, True)
    second = index.ask_again(Filter(), at=T0, after=first.cursor)
    assert (second.count, second.more) == (1, False)


def test_sent_again_it_is_asked_for_anew(index: Index) -> None:
    """Of the transaction that it was in nothing may be left to answer, and nobody would ask."""
    fill(index, [1], "pacs")
    _took(index, 1)
    _ask(index)
    assert index.resend(Filter(ids=(1,)), ["pacs"], "by an operator", at=T0).count == 1
    assert state(index, 1, "pacs") is READY
    _took(index, 1)
    assert index.commitments.uncommitted("pacs", 10).unasked == 1
    assert _answer(index, "2.25.1", n1=GONE).resent == 0, "that was of the one before"
    assert _ask(index, "2.25.2").references


def test_a_transaction_of_which_nothing_is_left_keeps_no_other_waiting(index: Index) -> None:
    fill(index, [1, 2], "pacs")
    _took(index, 1)
    _ask(index, "2.25.1")
    _took(index, 2)
    _ask(index, "2.25.2", at=T0 + 1)
    index.drop(Filter(ids=(1,), state=UNCOMMITTED), "no", at=T0)
    assert index.commitments.give_up("pacs", T0 + 100, "too long", T0 + 100) == 1
