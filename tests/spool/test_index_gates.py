"""Gates: what is kept back until a study is complete or a schedule opens."""

from pathlib import Path

import pytest

from router.spool.index import DeliveryState, Filter, Index
from router.spool.index_types import OPEN_STATES, Gate
from router.spool.plan import Plan
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
    fate,
    fill,
    leased,
    meta,
    outcome,
    ref,
    state,
)

STUDY = Plan(after="study-complete")
SERIES = Plan(after="series-complete", quiet=5)
NIGHT = Plan(schedule="night")
BOTH = Plan(after="study-complete", schedule="night")
FAR = T0 + 8e12


def _gate(index: Index) -> Gate:
    (gate,) = index.gates()
    return gate


def test_no_time_makes_due_what_is_behind_a_gate(index: Index) -> None:
    result = fill(index, [1, 2], "pacs", plan=STUDY)
    assert (result.deliveries, result.gated) == ({}, {"pacs": 2})
    assert leased(index, "pacs", now=FAR) == []
    assert leased(index, "pacs", now=T0 - 1e6) == []  # as after the clock was set back
    assert index.next_due("pacs") is None
    assert index.retry(Filter(), at=T0).count == 0
    line = index.queue_summary()[0]
    assert (line.count, line.gated, line.waits) == (2, 2, ("study not complete",))
    assert (line.oldest, line.next_due) == (T0 + 1, None)


def test_a_gate_says_what_came_and_when(index: Index) -> None:
    add(
        index,
        (ref(1), meta(1, "pacs", plan=STUDY, at=T0 + 5)),
        (ref(2), meta(2, "pacs", plan=STUDY, at=T0 + 3)),
    )
    assert _gate(index) == Gate(
        id=_gate(index).id,
        destination="pacs",
        kind="study",
        key="1.2.3",
        plan=STUDY,
        study_instance_uid="1.2.3",
        instances=2,
        earlier=0,
        first_at=T0 + 3,
        last_at=T0 + 5,
        supplement=0,
    )
    fill(index, [30], "pacs", plan=STUDY)
    assert (_gate(index).instances, _gate(index).last_at) == (3, T0 + 30)


def test_each_destination_plan_study_and_series_has_its_own(index: Index) -> None:
    add(
        index,
        (ref(1), meta(1, "pacs", "vna", plan=STUDY)),
        (ref(2), meta(2, "pacs", study="9", plan=STUDY)),
        (ref(3), meta(3, "pacs", plan=Plan(after="study-complete", quiet=9))),
        (ref(4), meta(4, "pacs", series="7", plan=SERIES)),
        (ref(5), meta(5, "pacs", series="8", plan=SERIES)),
        (ref(6), meta(6, "pacs", plan=NIGHT)),
        (ref(7), meta(7, "pacs", study="9", plan=NIGHT)),
    )
    found = {(g.destination, g.kind, g.key, g.plan.quiet): g.instances for g in index.gates()}
    assert found == {
        ("pacs", "study", "1.2.3", 60.0): 1,
        ("vna", "study", "1.2.3", 60.0): 1,
        ("pacs", "study", "9", 60.0): 1,
        ("pacs", "study", "1.2.3", 9.0): 1,
        ("pacs", "series", "7", 5.0): 1,
        ("pacs", "series", "8", 5.0): 1,
        ("pacs", "schedule", "night", 60.0): 2,
    }
    assert index.queue_summary()[0].waits == (
        "study not complete",
        "series not complete",
        "schedule night shut",
    )


def test_without_a_uid_it_is_complete_by_itself(index: Index) -> None:
    add(
        index,
        (ref(1), meta(1, "pacs", study="", plan=STUDY)),
        (ref(2), meta(2, "pacs", series="", plan=SERIES)),
        (ref(3), meta(3, "pacs", study="", plan=SERIES)),
        (ref(4), meta(4, "pacs", study="", plan=BOTH)),
    )
    assert leased(index, "pacs") == [1, 2, 3]
    assert _gate(index).kind == "schedule"


def test_a_plan_that_cannot_be_read_keeps_nothing_back(index: Index) -> None:
    assert fill(index, [1], "pacs", plan='{"after":"Christmas"}').deliveries == {"pacs": 1}
    assert leased(index, "pacs") == [1]
    assert fate(index, 1, "pacs").plan == '{"after":"Christmas"}'


def test_an_opened_gate_lets_all_through_in_the_order_of_the_queue(index: Index) -> None:
    fill(index, [1, 2, 3], "pacs", plan=STUDY)
    fill(index, [4], "pacs", plan=STUDY, priority=7)
    fill(index, [5], "pacs")
    moved = index.open_gate(_gate(index).id, 100)
    assert (moved.ready, moved.gated, moved.more) == ({"pacs": 4}, {}, False)
    assert leased(index, "pacs") == [4, 1, 2, 3, 5]
    assert index.gates() == []
    assert fate(index, 1, "pacs").waits == ""


def test_a_gate_is_opened_in_steps(index: Index) -> None:
    fill(index, [1, 2, 3], "pacs", plan=STUDY)
    gate = _gate(index).id
    assert index.open_gate(gate, 2).more
    assert leased(index, "pacs") == [1, 2]
    fill(index, [4], "pacs", plan=STUDY)  # comes in time
    moved = index.open_gate(gate, 2)
    assert (moved.ready, moved.more) == ({"pacs": 2}, False)
    assert index.gates() == []
    fill(index, [5], "pacs", plan=STUDY)
    assert _gate(index).supplement == 1


def test_late_instances_are_supplements(tmp_path: Path) -> None:
    with audited(tmp_path / "index.db") as index:
        fill(index, [1, 2], "pacs", plan=STUDY)
        index.open_gate(_gate(index).id, 100)
        fill(index, [3], "pacs", plan=STUDY)
        assert (_gate(index).supplement, _gate(index).instances, _gate(index).earlier) == (1, 1, 2)
        assert (_gate(index).first_at, _gate(index).last_at) == (T0 + 3, T0 + 3)
    with audited(tmp_path / "index.db") as index:
        index.open_gate(_gate(index).id, 100)
        fill(index, [4, 5], "pacs", plan=STUDY)
        assert (_gate(index).supplement, _gate(index).instances, _gate(index).earlier) == (2, 2, 3)


def test_what_an_operator_took_away_is_no_supplement(index: Index) -> None:
    fill(index, [1, 2], "pacs", plan=STUDY)
    index.drop(Filter(), "", at=T0)
    moved = index.open_gate(_gate(index).id, 100)
    assert (moved.ready, moved.more, index.gates()) == ({}, False, [])
    fill(index, [3], "pacs", plan=STUDY)
    assert _gate(index).supplement == 0


def test_what_was_let_through_in_part_makes_a_supplement_of_the_next(index: Index) -> None:
    fill(index, [1, 2, 3], "pacs", plan=STUDY)
    gate = _gate(index).id
    index.open_gate(gate, 2)
    index.drop(Filter(ids=(3,)), "", at=T0)
    assert index.open_gate(gate, 2).ready == {}
    fill(index, [4], "pacs", plan=STUDY)
    assert _gate(index).supplement == 1


def test_opening_what_is_gone_is_harmless(index: Index) -> None:
    fill(index, [1], "pacs", plan=STUDY)
    gate = _gate(index).id
    index.open_gate(gate, 100)
    for again in (gate, gate + 1, 0):
        moved = index.open_gate(again, 100)
        assert (moved.ready, moved.gated, moved.more) == ({}, {}, False)
    fill(index, [2], "pacs", plan=STUDY)
    assert _gate(index).supplement == 1


def test_what_is_remembered_of_a_study_goes_with_its_last_instance(index: Index) -> None:
    fill(index, [1, 2], "pacs", plan=STUDY)
    fill(index, [3], "pacs", study="9", plan=STUDY)
    for gate in index.gates():
        index.open_gate(gate.id, 100)
    index.settle([outcome(n, "pacs", DELIVERED) for n in (1, 3)])
    index.purge(FAR, 10)
    studies = "SELECT json_group_array(study) FROM gate"
    assert index._db.json(studies) == ["1.2.3"]
    index.settle([outcome(2, "pacs", DELIVERED)])
    index.purge(FAR, 10)
    assert index._db.json(studies) == []


def test_a_gate_whose_study_was_purged_is_not_remembered(index: Index) -> None:
    fill(index, [1], "pacs", plan=STUDY)
    index.drop(Filter(), "", at=T0)
    index.purge(FAR, 10)
    index.open_gate(_gate(index).id, 10)
    assert index._db.value("SELECT count(*) FROM gate") == 0


# -- schedules


def test_after_its_study_a_delivery_waits_for_its_schedule(index: Index) -> None:
    fill(index, [1, 2], "pacs", plan=BOTH)
    moved = index.open_gate(_gate(index).id, 100)
    assert (moved.ready, moved.gated) == ({}, {"pacs": 2})
    gate = _gate(index)
    assert (gate.kind, gate.key, gate.instances) == ("schedule", "night", 2)
    assert (gate.first_at, gate.last_at, gate.study_instance_uid) == (T0 + 1, T0 + 2, "")
    assert fate(index, 1, "pacs").waits == "schedule night shut"
    assert leased(index, "pacs", now=FAR) == []
    assert index.open_gate(gate.id, 100).ready == {"pacs": 2}
    assert leased(index, "pacs") == [1, 2]
    assert index.gates() == []


def test_a_schedule_that_shuts_takes_back_what_was_not_sent(index: Index) -> None:
    fill(index, range(1, 6), "pacs", plan=NIGHT)
    fill(index, [6], "pacs", plan=Plan(schedule="weekend"))
    fill(index, [7], "pacs")
    fill(index, [8], "vna", plan=NIGHT)
    for gate in index.gates():
        index.open_gate(gate.id, 100)
    index.settle([outcome(2, "pacs", READY, due_at=T0 + 2000), outcome(3, "pacs", DELIVERED)])
    index.hold(Filter(ids=(4,)), at=T0)
    moved = index.shut_gate("pacs", "night", [1], 100)
    assert (moved.gated, moved.ready, moved.more) == ({"pacs": 2}, {}, False)
    assert leased(index, "pacs", now=FAR) == [1, 6, 7]
    assert fate(index, 2, "pacs").attempts == 1
    assert fate(index, 2, "pacs").due_at is None
    assert leased(index, "vna") == [8]
    # What was being sent comes back, and waits too; what was delivered is.
    settled = index.settle([outcome(1, "pacs", READY, due_at=T0 + 2000)])
    assert (settled.applied, settled.gated) == (1, 1)
    assert fate(index, 1, "pacs").waits == "schedule night shut"
    assert index.shut_gate(None, "night", [], 100).gated == {"vna": 1}
    assert index.shut_gate(None, "night", [], 100).gated == {}
    for gate in index.gates():
        index.open_gate(gate.id, 100)
    assert leased(index, "pacs") == [1, 2, 5, 6, 7]
    assert leased(index, "vna") == [8]


def test_a_schedule_shuts_in_steps(index: Index) -> None:
    fill(index, range(1, 6), "pacs", plan=NIGHT)
    index.open_gate(_gate(index).id, 100)
    assert index.shut_gate("pacs", "night", [3], 3).more
    assert len(leased(index, "pacs")) == 2
    assert not index.shut_gate("pacs", "night", [3], 3).more
    assert leased(index, "pacs") == [3]
    assert _gate(index).instances == 4


def test_in_an_open_schedule_a_deferral_keeps_its_time(index: Index) -> None:
    index.shut_gate(None, "night", [], 100)
    fill(index, [1], "pacs", plan=NIGHT)
    index.open_gate(_gate(index).id, 100)
    assert index.settle([outcome(1, "pacs", READY, due_at=T0 + 2000)]).gated == 0
    assert index.next_due("pacs") == T0 + 2000
    assert index.retry(Filter(), at=T0).gated == 0
    assert index.next_due("pacs") == 0.0


def test_a_deferral_does_not_wait_for_a_supplement(index: Index) -> None:
    fill(index, [1], "pacs", plan=STUDY)
    index.open_gate(_gate(index).id, 100)
    fill(index, [2], "pacs", plan=STUDY)
    assert index.settle([outcome(1, "pacs", READY, due_at=T0 + 2000)]).gated == 0
    assert index.next_due("pacs") == T0 + 2000


def test_what_was_put_back_while_it_was_being_sent_ends_as_it_ended(index: Index) -> None:
    fill(index, [1, 2, 3, 4], "pacs", plan=NIGHT)
    index.open_gate(_gate(index).id, 100)
    index.shut_gate("pacs", "night", [], 100)
    index.settle(
        [
            outcome(1, "pacs", DELIVERED),
            outcome(2, "pacs", DEAD),
            outcome(3, "pacs", DROPPED),
            outcome(4, "pacs", READY, due_at=T0 + 2000),
        ]
    )
    assert [state(index, n, "pacs") for n in (1, 2, 3, 4)] == [DELIVERED, DEAD, DROPPED, READY]
    assert index.next_due("pacs") is None
    assert index.open_gate(_gate(index).id, 100).ready == {"pacs": 1}
    assert leased(index, "pacs") == [4]


# -- operators


def test_what_becomes_ready_again_goes_behind_a_gate_that_is_shut(index: Index) -> None:
    fill(index, [1, 2], "pacs", plan=STUDY)
    index.hold(Filter(ids=(1,)), at=T0)
    assert fate(index, 1, "pacs").waits == ""
    changed = index.release(Filter(), at=T0)
    assert (changed.count, changed.gated) == (1, 1)
    assert leased(index, "pacs", now=FAR) == []
    assert index.open_gate(_gate(index).id, 100).ready == {"pacs": 2}


def test_what_was_held_while_its_study_became_complete_goes_on(index: Index) -> None:
    fill(index, [1], "pacs", plan=STUDY)
    fill(index, [2], "pacs", plan=BOTH)
    index.hold(Filter(), at=T0)
    for gate in index.gates():
        index.open_gate(gate.id, 100)
    changed = index.release(Filter(), at=T0)
    assert (changed.count, changed.gated) == (2, 1)
    assert leased(index, "pacs") == [1]
    assert _gate(index).kind == "schedule"


def test_a_retried_one_keeps_to_its_schedule(index: Index) -> None:
    fill(index, [1], "pacs", plan=NIGHT)
    fill(index, [2], "pacs", plan=STUDY)
    for gate in index.gates():
        index.open_gate(gate.id, 100)
    index.settle([outcome(1, "pacs", DEAD), outcome(2, "pacs", DEAD)])
    fill(index, [3], "pacs", plan=STUDY)
    changed = index.retry(Filter(), at=T0)
    assert (changed.count, changed.gated) == (2, 2)
    assert {gate.kind for gate in index.gates()} == {"schedule", "study"}
    assert leased(index, "pacs", now=FAR) == []


@pytest.mark.parametrize("which", [Filter(), Filter(destination="pacs", study="1.2.3")])
def test_hastened_ones_go_now_and_for_good(index: Index, which: Filter) -> None:
    fill(index, [1, 2], "pacs", plan=BOTH)
    fill(index, [3], "pacs")
    changed = index.hasten(which, at=T0, who="me")
    assert (changed.count, changed.bytes, changed.more) == (2, 200, False)
    assert leased(index, "pacs") == [1, 2, 3]
    assert index.shut_gate(None, "night", [], 100).gated == {}
    index.settle([outcome(1, "pacs", READY, due_at=T0 + 5), outcome(2, "pacs", DEAD)])
    assert index.retry(Filter(), at=T0).gated == 0
    assert leased(index, "pacs") == [1, 2, 3]
    assert fate(index, 1, "pacs").plan == ""
    assert index.events(5)[-1].action == "hasten"


def test_hastening_takes_only_what_is_meant(index: Index) -> None:
    plan = Plan(mode="failover", members=("pacs", "vna"), schedule="night")
    fill(index, [1, 2, 3], "pacs", plan=plan)
    assert index.hasten(Filter(destination="vna"), at=T0).count == 0
    assert index.hasten(Filter(state=HELD), at=T0).count == 0
    assert index.hasten(Filter(ids=(2,)), at=T0).count == 1
    assert index.hasten(Filter(), at=T0, limit=1).more
    assert leased(index, "pacs") == [1, 2]
    assert Plan.from_text(fate(index, 2, "pacs").plan) == Plan("failover", ("pacs", "vna"))


def test_instances_and_queues_are_found_by_a_label(index: Index) -> None:
    add(
        index,
        (ref(1), meta(1, "pacs", tags=("night", "trial.7"))),
        (ref(2), meta(2, "pacs", tags=("trial",))),
        (ref(3), meta(3, "pacs")),
        (ref(4), meta(4, tags=("trial.7",))),
    )
    assert [r.ref.id for r in index.instances(Filter(tag="trial.7"), 9)] == [1, 4]
    assert [r.ref.id for r in index.instances(Filter(tag="trial"), 9)] == [2]
    assert [i.delivery.instance_id for i in index.queue_list(Filter(tag="night"), 9)] == [1]
    (item,) = index.queue_list(Filter(tag="trial", destination="pacs"), 9)
    assert item.meta.tags == ("trial",)
    assert index.drop(Filter(tag="trial.7"), "", at=T0).count == 1
    assert index.discard_held(Filter(tag="trial.7"), "", at=T0).count == 1
    row = index.instance(1)
    assert row is not None
    assert row.meta.tags == ("night", "trial.7")


# -- what repeats another


def _twins(index: Index, *numbers: int, plan: Plan = STUDY, suppress: bool = True) -> None:
    for n in numbers:
        add(index, (ref(n, crc=1), meta(n, "pacs", uid="1", plan=plan)), suppress=suppress)


def test_a_repeat_keeps_its_study_open(index: Index) -> None:
    _twins(index, 1, 40)
    assert (_gate(index).instances, _gate(index).last_at) == (1, T0 + 40)
    assert state(index, 40, "pacs") is DUPLICATE
    index.open_gate(_gate(index).id, 100)
    _twins(index, 80)
    assert index.gates() == []


@pytest.mark.parametrize("end", [DEAD, DROPPED])
def test_a_revived_one_goes_behind_the_gate_of_its_study(index: Index, end: DeliveryState) -> None:
    _twins(index, 1, 2)
    fill(index, [3], "pacs", plan=STUDY)
    settled = index.settle([outcome(1, "pacs", end)])
    assert (settled.revived, settled.gated) == (1, 1)
    assert fate(index, 2, "pacs").waits == "study not complete"
    assert _gate(index).instances == 2  # it is no arrival
    assert index.open_gate(_gate(index).id, 100).ready == {"pacs": 2}


def test_a_revived_one_whose_study_is_complete_goes_on(index: Index) -> None:
    _twins(index, 1, 2, plan=BOTH)
    index.open_gate(_gate(index).id, 100)
    settled = index.settle([outcome(1, "pacs", DEAD)])
    assert (settled.revived, settled.gated) == (1, 1)
    assert fate(index, 2, "pacs").waits == "schedule night shut"
    index.open_gate(_gate(index).id, 100)
    assert leased(index, "pacs") == [2]


def test_a_revived_one_without_a_gate_is_due(index: Index) -> None:
    _twins(index, 1)
    index.open_gate(_gate(index).id, 100)
    add(index, (ref(2, crc=1), meta(2, "pacs", uid="1")))
    assert state(index, 2, "pacs") is DUPLICATE
    assert index.drop(Filter(ids=(1,)), "", at=T0).gated == 0
    assert leased(index, "pacs") == [2]


@pytest.mark.parametrize("plan", [STUDY, NIGHT, BOTH])
@pytest.mark.parametrize("together", [False, True])
def test_what_is_to_go_now_does_not_wait_behind_the_gate_of_its_twin(
    index: Index, plan: Plan, together: bool
) -> None:
    gated = (ref(1, crc=1), meta(1, "pacs", uid="1", plan=plan))
    urgent = [(ref(n, crc=1), meta(n, "pacs", uid="1", priority=5)) for n in (2, 3)]
    late = (ref(4, crc=1), meta(4, "pacs", uid="1", plan=plan))
    if together:
        result = add(index, gated, *urgent, late)
        assert (result.duplicates, result.deliveries) == (2, {"pacs": 1})
    else:
        for entry in (gated, *urgent, late):
            add(index, entry)
    assert leased(index, "pacs") == [2]
    assert state(index, 3, "pacs") is DUPLICATE, "of the urgent one, which goes now"
    assert state(index, 4, "pacs") is DUPLICATE
    assert index.account(audit=True).balanced


def test_what_would_be_behind_a_gate_repeats_what_goes_now(index: Index) -> None:
    urgent = (ref(1, crc=1), meta(1, "pacs", uid="1"))
    add(index, urgent, (ref(2, crc=1), meta(2, "pacs", uid="1", plan=NIGHT)))
    assert state(index, 2, "pacs") is DUPLICATE


# -- restarts


def test_gates_and_what_is_behind_them_survive(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    with audited(path) as index:
        fill(index, [1, 2], "pacs", plan=STUDY)
        fill(index, [3], "pacs", plan=NIGHT)
        before = index.gates()
    with audited(path) as index:
        assert index.gates() == before
        assert leased(index, "pacs", now=FAR) == []
        for gate in before:
            index.open_gate(gate.id, 100)
        assert leased(index, "pacs") == [1, 2, 3]


def test_added_again_it_stays_where_it_is(index: Index) -> None:
    fill(index, [1, 2], "pacs", plan=STUDY)
    before = index.gates()
    again = fill(index, [1, 2], "pacs", plan=STUDY)
    assert (again.known, again.gated, index.gates()) == (2, {}, before)
    index.open_gate(before[0].id, 100)
    fill(index, [1, 2], "pacs", plan=STUDY)
    assert leased(index, "pacs") == [1, 2]


def test_the_audit_finds_what_is_behind_nothing(tmp_path: Path) -> None:
    index = Index.open(tmp_path / "index.db")
    fill(index, [1, 2], "pacs", plan=STUDY)
    index._db.run("UPDATE gate SET shut = 0")
    assert index.account(audit=True).differences == {"deliveries behind a gate that is gone": 2}
    index._db.run("UPDATE gate SET shut = 1")
    index._db.run("UPDATE delivery SET gate_id = NULL WHERE instance_id = 1")
    assert index.account(audit=True).differences == {
        "deliveries behind a gate that is gone": 1,
        "rows of destination pacs, behind gates": 1,
    }
    index.close()


def test_the_lines_of_other_states_have_no_gates(index: Index) -> None:
    fill(index, [1, 2], "pacs", plan=STUDY)
    index.hold(Filter(ids=(1,)), at=T0)
    lines = {line.state: (line.count, line.gated, line.waits) for line in index.queue_summary()}
    assert lines == {
        READY: (1, 1, ("study not complete",)),
        HELD: (1, 0, ()),
        DEAD: (0, 0, ()),
    }
    assert set(lines) == set(OPEN_STATES)
