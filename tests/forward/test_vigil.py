"""When a study is complete, clocks that are set included."""

import math
from dataclasses import replace

import pytest

from router.forward.vigil import FIRST_QUESTION, LAST_QUESTION, Vigil
from router.spool.index_types import Gate
from router.spool.plan import Plan

WALL = 1.7e9
STUDY = Plan(after="study-complete", quiet=60.0)
EXPECTING = Plan(after="study-complete", quiet=60.0, expect="vna", wait=600.0)


def gate(plan: Plan = STUDY, *, last_at: float = WALL, instances: int = 5, **more: int) -> Gate:
    given = {"earlier": 0, "supplement": 0} | more
    return Gate(
        1, "pacs", "study", "1.2", plan, "1.2", instances, first_at=WALL, last_at=last_at, **given
    )


def test_quiet_time_is_from_the_last_arrival_to_the_last_moment() -> None:
    vigil = Vigil(gate(), WALL, 0.0)
    assert vigil.judge(59.9, "").seconds == pytest.approx(0.1)
    assert not vigil.judge(59.9, "").complete
    assert vigil.judge(60.0, "").complete


@pytest.mark.parametrize(
    ("quiet", "ago", "left"),
    [(60.0, 45, 60.0), (60.0, 3600, 60.0), (10.0, 3600, 10.0), (300.0, 100, 200.0)],
)
def test_a_restart_does_not_complete_what_still_arrives(
    quiet: float, ago: int, left: float
) -> None:
    """The time that has passed counts, but for the end of it: nobody could send while we were
    down, so a study that was quiet then may be half there."""
    vigil = Vigil(gate(replace(STUDY, quiet=quiet), last_at=WALL - ago), WALL, 7.0)
    assert vigil.judge(7.0, "").seconds == left
    assert not vigil.judge(6.9 + left, "").complete
    assert vigil.judge(7.0 + left, "").complete


def test_after_a_restart_an_archive_is_waited_for_no_longer_than_from_the_arrival() -> None:
    vigil = Vigil(gate(EXPECTING, last_at=WALL - 500), WALL, 0.0)
    assert vigil.judge(60.0, "").ask
    assert not vigil.judge(159.9, "").complete
    assert vigil.judge(160.0, "").why == "waited 600 s for vna: it was not asked yet"


def test_an_arrival_in_the_future_is_one_of_now() -> None:
    vigil = Vigil(gate(last_at=WALL + 7200), WALL, 0.0)
    assert vigil.judge(0.0, "").seconds == 60.0
    assert vigil.judge(60.0, "").complete


def test_a_clock_set_forward_completes_nothing_that_still_arrives() -> None:
    vigil = Vigil(gate(), WALL, 0.0)
    vigil.look(gate(last_at=WALL + 10, instances=6), WALL + 3610, 10.5, looked_at=9.5)
    assert vigil.silent(10.5) == 1.0, "no more than the time since the last look"
    began = Vigil.begun(gate(last_at=WALL + 10), WALL + 3610, 10.5, looked_at=9.5)
    assert began.silent(10.5) == 1.0


def test_a_clock_set_back_holds_nothing_up() -> None:
    vigil = Vigil(gate(), WALL, 0.0)
    vigil.look(gate(last_at=WALL - 3590, instances=6), WALL - 3590, 10.0, looked_at=9.0)
    assert vigil.judge(70.0, "").complete
    assert not vigil.judge(69.9, "").complete


def test_what_goes_away_is_no_arrival() -> None:
    vigil = Vigil(gate(), WALL, 0.0)
    vigil.look(gate(instances=3), WALL + 50, 50.0, looked_at=49.0)
    assert vigil.silent(50.0) == 50.0


def test_a_gate_that_is_shut_again_for_a_supplement_begins_anew() -> None:
    vigil = Vigil(gate(), WALL, 0.0)
    late = gate(instances=1, earlier=5, supplement=1)
    vigil.look(late, WALL + 80, 80.0, looked_at=79.9)
    assert vigil.silent(80.0) < 0.2


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (replace(STUDY, wait=600.0), "nothing came for 660 s"),
        (EXPECTING, "waited 600 s for vna: it was not asked yet"),
    ],
)
def test_who_may_still_send_holds_it_for_as_long_as_an_archive_and_not_for_ever(
    plan: Plan, why: str
) -> None:
    vigil = Vigil(gate(plan), WALL, 0.0)
    verdict = vigil.judge(600.0, "an association is open")
    assert (verdict.complete, verdict.why) == (False, "an association is open")
    assert verdict.seconds == 60.0
    verdict = vigil.judge(660.0, "an association is open")
    assert (verdict.complete, verdict.why) == (True, f"{why}, although an association is open")


def test_what_moved_from_another_gate_is_no_arrival() -> None:
    other = Vigil(gate(), WALL, 0.0)
    vigil = Vigil.begun(gate(), WALL + 50, 50.0, looked_at=49.0)
    vigil.go_on(other)
    assert vigil.judge(60.0, "").complete
    joined = Vigil(gate(last_at=WALL - 20, instances=1), WALL, 0.0)
    joined.look(gate(instances=6), WALL + 50, 50.0, 49.0, other)
    assert joined.silent(50.0) == 50.0
    joined.look(gate(instances=7), WALL + 55, 55.0, 50.0, other)
    assert joined.silent(55.0) == 55.0
    joined.look(gate(instances=8, last_at=WALL + 57), WALL + 57, 57.0, 55.0, other)
    assert joined.silent(57.0) == 0.0, "that one came"


def test_the_archive_is_asked_only_once_it_is_quiet_and_nobody_sends() -> None:
    vigil = Vigil(gate(EXPECTING), WALL, 0.0)
    assert not vigil.judge(59.0, "").ask
    assert not vigil.judge(61.0, "busy").ask
    assert vigil.judge(61.0, "").ask


@pytest.mark.parametrize(
    ("expected", "came", "complete"), [(5, 5, True), (3, 5, True), (0, 5, True), (6, 5, False)]
)
def test_it_is_complete_when_the_archive_knows_of_no_more(
    expected: int, came: int, complete: bool
) -> None:
    vigil = Vigil(gate(EXPECTING), WALL, 0.0)
    vigil.answered(expected, came, 61.0)
    assert vigil.judge(61.0, "").complete is complete


def test_an_archive_that_does_not_know_the_study_is_waited_for_and_no_longer() -> None:
    vigil = Vigil(gate(EXPECTING), WALL, 0.0)
    vigil.answered(None, 5, 61.0)
    assert not vigil.judge(659.0, "").complete
    verdict = vigil.judge(660.0, "")
    assert verdict.complete
    assert verdict.why == "waited 600 s for vna: it does not know of any"


def test_an_archive_that_cannot_be_asked_is_asked_again_ever_more_rarely() -> None:
    plan = replace(EXPECTING, wait=1e5)
    vigil = Vigil(gate(plan), WALL, 0.0)
    now, gaps = 60.0, []
    for _ in range(8):
        assert vigil.judge(now, "").ask
        vigil.not_answered("it is down", now)
        gap = vigil.judge(now, "").seconds
        assert gap is not None
        gaps.append(gap)
        now += gap
    assert gaps[:3] == [FIRST_QUESTION, 2 * FIRST_QUESTION, 4 * FIRST_QUESTION]
    assert gaps[-1] == LAST_QUESTION


def test_an_answer_of_before_the_last_arrival_counts_no_more() -> None:
    vigil = Vigil(gate(EXPECTING), WALL, 0.0)
    vigil.answered(5, 5, 61.0)
    vigil.look(gate(EXPECTING, last_at=WALL + 62, instances=6), WALL + 62, 62.0, looked_at=61.0)
    assert not vigil.judge(121.0, "").complete
    verdict = vigil.judge(122.0, "")
    assert verdict.ask
    assert not verdict.complete


def test_a_supplement_asks_nobody() -> None:
    vigil = Vigil(gate(EXPECTING, instances=1, earlier=5, supplement=1), WALL, 0.0)
    assert vigil.judge(60.0, "").complete


def test_what_is_taken_up_again_has_been_silent_since_its_last_arrival() -> None:
    def left(ago: float, *, began: float = -1e6, set_at: float = -math.inf) -> float | None:
        vigil = Vigil.taken_up(gate(last_at=WALL - ago), WALL, 0.0, began, set_at)
        return vigil.judge(0.0, "").seconds

    assert left(45) == 15.0
    assert left(60) is None, "complete"
    assert left(60, began=-20.0) == 40.0, "as after a start"
    assert left(45, set_at=-20.0) == 40.0, "what was before the clock was set is not counted"
    assert left(45, set_at=-50.0) == 15.0
    assert left(-7200) == 60.0


def test_an_arrival_that_is_corrected_to_be_earlier_is_no_arrival() -> None:
    vigil = Vigil(gate(last_at=WALL + 9000), WALL, 0.0)
    vigil.look(gate(last_at=WALL), WALL + 50, 50.0, looked_at=49.0)
    assert vigil.silent(50.0) == 50.0
