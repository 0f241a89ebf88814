"""More gates than are kept in mind: none late, none early, none forgotten; in virtual time."""

import asyncio
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from router.forward import attention
from router.spool.errors import SpoolError
from router.spool.index_types import Moved
from router.spool.plan import Plan
from rules.window import parse_windows
from tests.forward.many import ManyGates, scenario
from tests.forward.virtual import wall

STUDY = Plan(after="study-complete", quiet=60.0)
EXPECTING = replace(STUDY, expect="vna", wait=600.0)
NEAR = pytest.approx


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hardly any are kept in mind."""
    monkeypatch.setattr(attention, "MOST", 10)
    monkeypatch.setattr(attention, "_EACH", 4)
    monkeypatch.setattr(attention, "_SOONEST", 6)


def studies(count: int, prefix: str = "1") -> list[str]:
    return [f"{prefix}.{number}" for number in range(count)]


def test_twenty_thousand_waiting_studies_are_not_kept_in_memory(tmp_path: Path) -> None:
    async def steps(house: ManyGates) -> None:
        before = house.kept()
        began = wall()
        for each in range(20):
            plan = replace(STUDY, quiet=3600.0 if each == 0 else 36_000.0)
            house.receive(plan, studies(1000, f"1.{each}"))
            await asyncio.sleep(1)
        assert house.kept() - before <= 2 * attention.MOST
        house.receive(STUDY, ["2.1"])
        await asyncio.sleep(3500)
        assert house.opened_at() == {"2.1": NEAR(began + 80, abs=0.3)}
        assert house.kept() - before <= 2 * attention.MOST
        await asyncio.sleep(120)
        assert len(house.real.opened) == 1001
        assert house.kept() - before <= 2 * attention.MOST

    scenario(tmp_path, steps)


def test_each_goes_when_its_own_quiet_time_is_over(tmp_path: Path, few: None) -> None:
    async def steps(house: ManyGates) -> None:
        chance, due = Random(4), {}
        plans = [replace(STUDY, quiet=quiet) for quiet in (5.0, 60.0, 61.5, 300.0)]
        for study in studies(300):
            plan = chance.choice(plans)
            due[study] = wall() + plan.quiet
            house.receive(plan, [study])
            if chance.random() < 0.3:
                await asyncio.sleep(chance.random())
                due[study] = wall() + plan.quiet
                house.receive(plan, [study])
            await asyncio.sleep(chance.random())
        assert not house.real.choices[-1].whole
        await asyncio.sleep(400)
        opened = house.opened_at()
        assert opened.keys() == due.keys()
        late = {study: opened[study] - at for study, at in due.items()}
        assert min(late.values()) >= -0.001
        assert max(late.values()) < 0.5

    scenario(tmp_path, steps)


def test_one_in_mind_does_not_wait_for_an_index_that_is_slow_to_choose(
    tmp_path: Path, few: None
) -> None:
    async def steps(house: ManyGates) -> None:
        house.real.look_takes = 0.5
        began, due = wall(), {}
        for number in range(40):
            due[f"1.{number}"] = wall() + 60
            house.receive(STUDY, [f"1.{number}"])
            await asyncio.sleep(3)
        house.receive(replace(STUDY, quiet=1e5), studies(20, "2"))
        await asyncio.sleep(60)
        late = [house.opened_at()[study] - at for study, at in due.items()]
        assert all(-0.001 <= each < 0.75 for each in late)
        assert house.real.looks < (wall() - began) / 1.9, "nor does all else wait for the index"

    scenario(tmp_path, steps)


def test_studies_that_an_archive_is_waited_for_hold_up_no_others(tmp_path: Path, few: None) -> None:
    async def steps(house: ManyGates) -> None:
        house.answer = lambda: 99
        began = wall()
        house.receive(EXPECTING, studies(100))
        await asyncio.sleep(100)
        house.receive(STUDY, studies(5, "2"))
        await asyncio.sleep(62)
        at = house.opened_at()
        assert at == {study: NEAR(began + 160, abs=0.5) for study in studies(5, "2")}
        assert {key for _, _, key in house.asked} == set(studies(100)), "each was asked about"
        await asyncio.sleep(530)
        at = house.opened_at()
        assert {at.get(study) for study in studies(100)} - {None}
        assert all(660 <= at[study] - began < 675 for study in studies(100))

    scenario(tmp_path, steps)


def test_an_archive_is_asked_about_the_same_study_no_oftener_than_else(
    tmp_path: Path, few: None
) -> None:
    async def steps(house: ManyGates) -> None:
        house.answer = lambda: 99
        house.receive(EXPECTING, studies(15))
        await asyncio.sleep(600)
        assert len(house.asked) <= 15 * (600 / attention.FIRST_QUESTION + 1)

    scenario(tmp_path, steps)


def test_an_archive_that_is_down_is_waited_for_no_longer(tmp_path: Path, few: None) -> None:
    async def steps(house: ManyGates) -> None:
        house.answer_takes = 1e6
        other = replace(EXPECTING, expect="ris")
        began = wall()
        house.receive(EXPECTING, studies(30))
        house.receive(other, studies(30, "2"))
        await asyncio.sleep(680)
        at = house.opened_at()
        assert len(at) == 60
        assert all(660 <= each - began < 675 for each in at.values())
        assert {archive for _, archive, _ in house.asked} == {"vna", "ris"}

    scenario(tmp_path, steps)


def test_a_study_that_somebody_sends_to_is_found_again_when_he_ends(
    tmp_path: Path, few: None
) -> None:
    async def steps(house: ManyGates) -> None:
        house.open_studies.update(studies(60))
        house.receive(STUDY, studies(60))
        await asyncio.sleep(120)
        assert not house.real.opened
        house.open_studies -= {"1.7", "1.33", "1.59"}
        house.keeper.freed()
        await asyncio.sleep(60)
        assert house.opened_at().keys() == {"1.7", "1.33", "1.59"}

    scenario(tmp_path, steps)


def test_after_a_start_nothing_goes_that_may_still_arrive(tmp_path: Path, few: None) -> None:
    async def steps(house: ManyGates) -> None:
        house.receive(STUDY, studies(100), at=wall() - 3600)
        began = wall()
        house.keeper.start()
        await asyncio.sleep(30)
        house.receive(STUDY, ["1.99"])
        await asyncio.sleep(90)
        at = house.opened_at()
        assert at.pop("1.99") == NEAR(began + 90, abs=1)
        assert at.keys() == set(studies(99))
        assert all(60 <= each - began < 75 for each in at.values())

    scenario(tmp_path, steps, start=False)


@pytest.mark.parametrize("step", [3600.0, 86400.0, -3600.0, -86400.0])
def test_a_clock_that_is_set_completes_nothing_early_and_holds_nothing_for_long(
    tmp_path: Path, few: None, step: float
) -> None:
    async def steps(house: ManyGates) -> None:
        quiet = replace(STUDY, quiet=300.0)
        due = {}
        for study in studies(100):
            due[study] = wall() + 300
            house.receive(quiet, [study])
            await asyncio.sleep(1)
        house.clock_off += step
        await asyncio.sleep(1)
        for study in studies(40, "2"):
            due[study] = wall() + 300
            house.receive(quiet, [study])
            await asyncio.sleep(1)
        await asyncio.sleep(700)
        at = house.opened_at()
        assert at.keys() == due.keys()
        for study, when in at.items():
            assert -0.001 <= when - due[study] < 380, study

    scenario(tmp_path, steps)


@pytest.mark.parametrize("ago", [30.0, 3000.0])
def test_what_is_put_behind_the_gate_late_begins_anew(
    tmp_path: Path, few: None, ago: float
) -> None:
    """As after a start, when the index is behind with what was received long ago."""

    async def steps(house: ManyGates) -> None:
        house.receive(replace(STUDY, quiet=300.0), studies(50))
        await asyncio.sleep(100)
        house.receive(STUDY, ["2.0"])
        await asyncio.sleep(1)
        began = wall()
        house.receive(STUDY, ["2.1"], at=wall() - ago)
        await asyncio.sleep(63)
        assert house.opened_at()["2.1"] - began == NEAR(60, abs=1.2)

    scenario(tmp_path, steps)


def test_a_gate_that_cannot_be_opened_keeps_no_page_of_others_shut(
    tmp_path: Path, few: None
) -> None:
    async def steps(house: ManyGates) -> None:
        house.receive(STUDY, ["0.1"])
        await asyncio.sleep(1)
        (damaged,) = house.real.index.gates()
        real, tries = house.real.open_gate, []

        async def open_gate(gate_id: int) -> Moved:
            if gate_id == damaged.id:
                tries.append(wall())
                raise SpoolError("page 7 is damaged")
            return await real(gate_id)

        house.real.open_gate = open_gate  # type: ignore[method-assign]
        house.receive(STUDY, studies(50))
        await asyncio.sleep(75)
        assert house.opened_at().keys() == set(studies(50))
        assert 1 < len(tries) < 20

    scenario(tmp_path, steps)


def test_schedules_are_always_in_mind(tmp_path: Path, few: None) -> None:
    async def steps(house: ManyGates) -> None:
        house.keeper.configure({"night": parse_windows(["00:00-01:00"], "UTC")})
        began = wall()
        house.receive(replace(STUDY, quiet=1e6), studies(50))
        house.receive(Plan(schedule="night"), ["2.1"])
        await asyncio.sleep(4 * 3600)
        (found,) = house.real.opened
        assert found[0] == NEAR(began - began % 86400 + 86400, abs=0.5)

    scenario(tmp_path, steps)


def test_a_supplement_of_one_of_many_waits_for_its_own_quiet_time(
    tmp_path: Path, few: None
) -> None:
    async def steps(house: ManyGates) -> None:
        house.answer = lambda: 1
        house.receive(EXPECTING, ["2.1"])
        await asyncio.sleep(62)
        assert house.opened_at().keys() == {"2.1"}
        house.receive(replace(STUDY, quiet=3000.0), studies(50))
        house.answer = lambda: 99
        began = wall()
        house.receive(EXPECTING, ["2.1"])
        await asyncio.sleep(70)
        at, gate = house.real.opened[-1]
        assert (gate.key, gate.supplement) == ("2.1", 1)
        assert at == NEAR(began + 60, abs=0.3)

    scenario(tmp_path, steps)
