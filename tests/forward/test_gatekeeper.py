"""Gates are opened and shut when they should be, in virtual time."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from router.forward.gatekeeper import LONGEST_WAIT
from router.forward.ports import NotAnswered
from router.spool.errors import SpoolError
from router.spool.index_types import Moved
from router.spool.plan import Plan
from rules.window import parse_windows
from tests.forward.gates import GateHouse
from tests.forward.virtual import run, wall

STUDY = Plan(after="study-complete", quiet=60.0)
EXPECTING = replace(STUDY, expect="vna", wait=600.0)
NIGHT = parse_windows(["18:00-07:00"], "UTC")
NIGHTLY = Plan(schedule="night")
# Virtual time begins on a Tuesday at 22:30 UTC.
NOON = 86400.0 - (1_700_001_000 % 86400) + 12 * 3600


def scenario(steps: Callable[[GateHouse], Awaitable[None]], *, start: bool = True) -> GateHouse:
    """Runs the steps in a house whose gatekeeper has begun."""
    houses: list[GateHouse] = []

    async def main() -> None:
        house = GateHouse()
        houses.append(house)
        if start:
            house.keeper.start()
        await steps(house)
        await house.keeper.stop()
        assert not asyncio.all_tasks() - {asyncio.current_task()}

    run(main())
    return houses[0]


def test_a_study_goes_once_it_was_quiet() -> None:
    async def steps(house: GateHouse) -> None:
        began = wall()
        house.arrive(STUDY, 3)
        await asyncio.sleep(40)
        house.arrive(STUDY, 2)
        ((at, gate),) = await house.opened()
        assert at - began == pytest.approx(100, abs=0.3)
        assert gate.instances == 5
        assert house.due == [("pacs", 5)]

    scenario(steps)


def test_a_study_is_not_complete_while_somebody_may_send_to_it() -> None:
    async def steps(house: GateHouse) -> None:
        began = wall()
        house.open_studies.add("1.2")
        house.arrive(STUDY)
        await asyncio.sleep(200)
        assert not house.index.opened
        house.open_studies.clear()
        house.keeper.freed()
        ((at, _),) = await house.opened()
        assert at - began == pytest.approx(200, abs=0.3)

    scenario(steps)


def test_late_instances_are_a_supplement_after_their_own_quiet_time() -> None:
    async def steps(house: GateHouse) -> None:
        house.arrive(EXPECTING, 5)
        house.index.all_came = 5
        house.answer = lambda: 5
        await house.opened()
        await asyncio.sleep(500)
        house.answer = lambda: 500
        began = wall()
        house.arrive(EXPECTING, 2)
        at, gate = (await house.opened(2))[1]
        assert at - began == pytest.approx(60, abs=0.3)
        assert (gate.supplement, gate.earlier) == (1, 5)

    scenario(steps)


def test_a_large_gate_is_opened_step_by_step() -> None:
    async def steps(house: GateHouse) -> None:
        house.arrive(STUDY, 35)
        with capture_logs() as lines:
            await house.opened()
            await asyncio.sleep(1)
        assert [count for _, count in house.due] == [10, 10, 10, 5]
        (line,) = lines
        assert line["event"] == "gate opened"
        assert (line["destination"], line["instances"], line["supplement"]) == ("pacs", 35, 0)
        assert "1.2" not in str(line.values()), "no UID is in the log"

    scenario(steps)


def test_a_restart_does_not_send_a_study_that_still_arrives() -> None:
    """It was quiet for 90 s only because nobody could send to us."""

    async def steps(house: GateHouse) -> None:
        house.arrive(STUDY, 5)
        house.arrive(replace(STUDY, quiet=3600.0), key="1.3", destination="vna")
        await asyncio.sleep(90)
        house.keeper.start()
        await asyncio.sleep(30)
        began = wall()
        house.arrive(STUDY, 295)
        ((at, gate),) = await house.opened()
        assert at - began == pytest.approx(60, abs=0.3)
        assert (gate.key, gate.instances) == ("1.2", 300)
        at, gate = (await house.opened(2))[1]
        assert gate.key == "1.3"
        assert at - gate.last_at == pytest.approx(3600, abs=0.3)

    scenario(steps, start=False)


def test_the_archive_tells_that_all_have_come() -> None:
    async def steps(house: GateHouse) -> None:
        began = wall()
        house.answer = lambda: 7
        house.index.all_came = 5
        house.arrive(EXPECTING, 5)
        await asyncio.sleep(70)
        assert house.asked
        assert not house.index.opened
        house.index.all_came = 7
        house.arrive(EXPECTING, 2)
        ((at, _),) = await house.opened()
        assert at - began == pytest.approx(130, abs=0.3)

    scenario(steps)


def test_instances_that_this_destination_does_not_get_count_as_come() -> None:
    async def steps(house: GateHouse) -> None:
        house.index.all_came = 9
        house.answer = lambda: 9
        began = wall()
        house.arrive(EXPECTING, 5)
        ((at, _),) = await house.opened()
        assert at - began == pytest.approx(60, abs=0.3)

    scenario(steps)


def down() -> int | None:
    raise NotAnswered("connection refused")


def broken() -> int | None:
    raise RuntimeError("a fault of ours")


@pytest.mark.parametrize("answer", [down, broken, lambda: 1000, lambda: None])
def test_no_archive_holds_a_study_for_longer_than_the_wait(answer: Callable[[], int]) -> None:
    async def steps(house: GateHouse) -> None:
        began = wall()
        house.answer = answer
        house.arrive(EXPECTING, 5)
        ((at, _),) = await house.opened()
        assert at - began == pytest.approx(660, abs=0.3)
        assert 3 <= len(house.asked) <= 8

    scenario(steps)


def test_an_archive_that_never_answers_is_waited_for_no_longer_either() -> None:
    async def steps(house: GateHouse) -> None:
        began = wall()
        house.answer_takes = 1e6
        house.arrive(EXPECTING, 5)
        ((at, _),) = await house.opened()
        assert at - began == pytest.approx(660, abs=0.3)

    scenario(steps)


def test_an_archive_gets_one_question_at_a_time_and_one_that_is_down_few() -> None:
    async def steps(house: GateHouse) -> None:
        house.answer_takes = 3.0
        house.answer = down
        for number in range(50):
            house.arrive(EXPECTING, key=f"1.{number}")
        await house.opened(50)
        times = [at for at, _, _ in house.asked]
        assert all(later - earlier >= 3.0 for earlier, later in itertools.pairwise(times))
        assert len(times) < 12

    scenario(steps)


def test_a_question_about_one_archive_does_not_wait_for_another() -> None:
    async def steps(house: GateHouse) -> None:
        house.answer_takes = 1e6
        house.arrive(EXPECTING)
        house.arrive(replace(EXPECTING, expect="ris"), destination="vna", key="1.3")
        await asyncio.sleep(61)
        assert {archive for _, archive, _ in house.asked} == {"vna", "ris"}

    scenario(steps)


def test_a_schedule_opens_and_shuts_with_its_windows() -> None:
    async def steps(house: GateHouse) -> None:
        house.keeper.configure({"night": NIGHT})
        await asyncio.sleep(NOON)
        house.arrive(NIGHTLY, 25)
        await asyncio.sleep(5 * 3600)
        assert not house.due
        ((at, _),) = await house.opened()
        assert at % 86400 == pytest.approx(18 * 3600, abs=0.3)
        assert sum(count for _, count in house.due) == 25
        house.sending["pacs"] = (3, 4)
        await asyncio.sleep(13 * 3600 + 1)
        (at, *one), (_, *other) = house.index.shut_at[-2:]
        assert one == ["night", "pacs", (3, 4)]
        assert other == ["night", None, (3, 4)]
        assert at % 86400 == pytest.approx(7 * 3600, abs=0.3)
        assert not house.resting

    scenario(steps)


def test_what_comes_while_the_window_is_open_goes_at_once_and_is_told_once() -> None:
    async def steps(house: GateHouse) -> None:
        house.keeper.configure({"night": NIGHT})
        with capture_logs() as lines:
            for number in range(1, 6):
                house.arrive(NIGHTLY)
                began = wall()
                at, _ = (await house.opened(number))[-1]
                assert at - began < 0.3
        assert [line["event"] for line in lines] == ["gate opened"]

    scenario(steps)


def test_what_was_due_when_the_window_closed_is_put_back_before_anything_sends() -> None:
    async def steps(house: GateHouse) -> None:
        house.index.due["vna", "night"] = 25
        await asyncio.sleep(NOON)
        house.keeper.configure({"night": NIGHT})
        await house.keeper.prepare()
        assert house.index.due["vna", "night"] == 0
        assert {destination for _, _, destination, _ in house.index.shut_at} == {None}
        house.keeper.start()
        await house.opened()

    scenario(steps, start=False)


def test_a_clock_that_is_set_is_noticed_within_a_minute() -> None:
    async def steps(house: GateHouse) -> None:
        house.keeper.configure({"night": NIGHT})
        await asyncio.sleep(NOON)
        house.arrive(NIGHTLY)
        await asyncio.sleep(60)
        house.clock_off = 8 * 3600.0
        began = wall()
        ((at, _),) = await house.opened()
        assert at - began <= LONGEST_WAIT
        house.clock_off = 0.0
        before = len(house.index.shut_at)
        await asyncio.sleep(LONGEST_WAIT + 1)
        assert len(house.index.shut_at) > before

    scenario(steps)


def test_a_complete_study_waits_for_its_window_as_well() -> None:
    async def steps(house: GateHouse) -> None:
        house.keeper.configure({"night": NIGHT})
        await asyncio.sleep(NOON)
        house.arrive(replace(STUDY, schedule="night"), 3)
        await house.opened()
        assert not house.due
        at, gate = (await house.opened(2))[1]
        assert gate.kind == "schedule"
        assert at % 86400 == pytest.approx(18 * 3600, abs=0.3)
        assert house.due == [("pacs", 3)]

    scenario(steps)


def test_what_waits_for_a_schedule_that_is_gone_goes_and_that_is_told() -> None:
    async def steps(house: GateHouse) -> None:
        house.keeper.configure({"night": NIGHT})
        await asyncio.sleep(NOON)
        house.arrive(NIGHTLY, 12)
        house.arrive(NIGHTLY, 2, destination="vna")
        await asyncio.sleep(60)
        assert not house.due
        with capture_logs() as lines:
            house.keeper.configure({})
            await house.opened(2)
            await asyncio.sleep(1)
        warnings = [line for line in lines if line["log_level"] == "warning"]
        told = {line["destination"]: line["instances"] for line in warnings}
        assert told == {"pacs": 12, "vna": 2}, "how many, and where"
        assert {line["schedule"] for line in warnings} == {"night"}

    scenario(steps)


def test_a_reload_with_other_windows_shuts_what_was_open() -> None:
    async def steps(house: GateHouse) -> None:
        house.keeper.configure({"night": NIGHT})
        await asyncio.sleep(60)
        house.index.due["pacs", "night"] = 5
        house.keeper.configure({"night": parse_windows(["01:00-02:00"], "UTC")})
        await asyncio.sleep(1)
        assert house.index.due["pacs", "night"] == 0

    scenario(steps)


def test_an_index_in_trouble_is_left_alone_and_then_everything_goes_on() -> None:
    async def steps(house: GateHouse) -> None:
        house.index.broken = SpoolError("disk I/O error")
        with capture_logs() as lines:
            for _ in range(3000):
                house.arrive(STUDY)
                await asyncio.sleep(0.1)
            house.index.broken = None
            await house.opened()
            await asyncio.sleep(1)
        events = [line["event"] for line in lines]
        assert events.count("gates cannot be opened or shut") == 1
        assert "gates can be opened again" in events
        assert house.index.looks <= 10

    scenario(steps)


def test_a_fault_of_ours_does_not_end_it() -> None:
    async def steps(house: GateHouse) -> None:
        house.index.broken = RuntimeError("what is this")
        house.arrive(STUDY)
        await asyncio.sleep(100)
        house.index.broken = None
        await house.opened()

    with capture_logs() as lines:
        scenario(steps)
    assert "keeping the gates failed" in {line["event"] for line in lines}


def test_the_gates_are_not_read_for_every_instance() -> None:
    async def steps(house: GateHouse) -> None:
        for _ in range(1000):
            house.arrive(STUDY)
            await asyncio.sleep(0.01)
        assert house.index.looks <= 101

    scenario(steps)


def test_a_schedule_that_was_gone_for_a_while_is_shut_anew() -> None:
    async def steps(house: GateHouse) -> None:
        await asyncio.sleep(NOON)
        house.keeper.configure({"night": NIGHT})
        await asyncio.sleep(1)
        house.keeper.configure({})
        await asyncio.sleep(1)
        house.index.due["pacs", "night"] = 5
        house.keeper.configure({"night": NIGHT})
        await asyncio.sleep(1)
        assert house.index.due["pacs", "night"] == 0

    scenario(steps)


def test_an_answer_to_a_question_that_more_came_behind_is_not_taken() -> None:
    async def steps(house: GateHouse) -> None:
        house.answer_takes = 20.0
        house.index.all_came = 5
        house.answer = lambda: 5
        house.arrive(EXPECTING, 5)
        await asyncio.sleep(70)
        assert len(house.asked) == 1
        house.arrive(EXPECTING, 1)
        await asyncio.sleep(30)
        house.index.all_came = 6
        house.answer = lambda: 9
        await asyncio.sleep(60)
        assert len(house.asked) == 2
        assert not house.index.opened

    scenario(steps)


def test_what_waits_where_nothing_is_sent_is_put_back_as_well() -> None:
    async def steps(house: GateHouse) -> None:
        house.keeper.configure({"night": NIGHT})
        await asyncio.sleep(60)
        house.index.due["not configured", "night"] = 25
        await asyncio.sleep(9 * 3600)
        assert house.index.due["not configured", "night"] == 0

    scenario(steps)


@pytest.mark.parametrize("error", [SpoolError("page 7 is damaged"), RuntimeError("a fault")])
def test_a_gate_that_cannot_be_opened_keeps_no_other_shut(error: Exception) -> None:
    async def steps(house: GateHouse) -> None:
        house.keeper.configure({"night": NIGHT})
        first = house.arrive(STUDY, key="1.1")
        real, tries = house.index.open_gate, []

        async def open_gate(gate_id: int) -> Moved:
            if gate_id == first and len(tries) < 20:
                tries.append(wall())
                raise error
            return await real(gate_id)

        house.index.open_gate = open_gate  # type: ignore[method-assign]
        with capture_logs() as lines:
            house.arrive(STUDY, key="1.3")
            began = wall()
            ((at, gate),) = await house.opened()
            assert at - began == pytest.approx(60, abs=0.3)
            assert gate.key == "1.3"
            await asyncio.sleep(200)
            began = wall()
            house.arrive(NIGHTLY)
            at, gate = (await house.opened(2))[1]
            assert at - began < 2.5, "nor late"
            at, gate = (await house.opened(3))[2]
            assert gate.key == "1.1"
            assert len(tries) == 20
        events = [line["event"] for line in lines]
        assert events.count("a gate cannot be opened") == 1

    scenario(steps)


def test_an_index_that_opens_nothing_is_in_trouble_as_a_whole() -> None:
    async def steps(house: GateHouse) -> None:
        tries = []

        async def open_gate(gate_id: int) -> Moved:
            tries.append(wall())
            raise SpoolError("disk I/O error")

        house.index.open_gate = open_gate  # type: ignore[method-assign]
        for number in range(500):
            house.arrive(STUDY, key=f"1.{number}")
        await asyncio.sleep(62)
        assert 16 <= len(tries) < 100

    with capture_logs() as lines:
        scenario(steps)
    assert "gates cannot be opened or shut" in {line["event"] for line in lines}


def test_no_study_is_forgotten_over_those_that_the_archive_does_not_have() -> None:
    async def steps(house: GateHouse) -> None:
        house.answer_takes = 1.0
        house.answer = lambda: 99
        for number in range(60):
            house.arrive(EXPECTING, key=f"1.{number}")
        await asyncio.sleep(125)
        assert [key for _, _, key in house.asked[:60]] == [f"1.{n}" for n in range(60)]

    scenario(steps)


def test_the_next_question_is_put_when_the_last_one_is_answered() -> None:
    async def steps(house: GateHouse) -> None:
        house.answer_takes = 0.01
        house.answer = lambda: 99
        for number in range(500):
            house.arrive(EXPECTING, key=f"1.{number}")
        await asyncio.sleep(70)
        assert len({key for _, _, key in house.asked}) == 500, "not one in a turn"

    scenario(steps)


def test_an_association_that_never_closes_holds_its_study_no_longer_than_an_archive() -> None:
    async def steps(house: GateHouse) -> None:
        began = wall()
        house.open_studies.add("1.2")
        house.arrive(replace(STUDY, wait=600.0))
        with capture_logs() as lines:
            ((at, _),) = await house.opened()
            await asyncio.sleep(1)
        assert at - began == pytest.approx(660, abs=0.3)
        assert lines[0]["why"] == "nothing came for 660 s, although somebody sends"

    scenario(steps)
