"""Two mishaps in a row, each with each, in both orders: nothing that was acknowledged is lost.

``DCMROUTER_MISHAPS=20`` plays each pair so often; with ``DCMROUTER_MISHAPS_FROM=20`` those behind
them.
"""

import os
import shutil
from pathlib import Path
from random import Random

import pytest

from router.spool import system
from router.spool.roll import Roll
from tests.spool.failing import IN_LIFE
from tests.spool.lives_disk import quiet
from tests.spool.mishaps import AT_REST, Patient
from tests.spool.spool_samples import Loop

pytestmark = pytest.mark.timeout(7200)

MANY = int(os.environ.get("DCMROUTER_MISHAPS", "0"))
NAMES = (*AT_REST, *(name for name in IN_LIFE if name != "nothing"))
FIRST = int(os.environ.get("DCMROUTER_MISHAPS_FROM", "0"))


def play(directory: Path, loop: Loop, seed: str, names: tuple[str, ...]) -> list[str]:
    """What is wrong in the end, and all that happened."""
    random = Random(seed)
    patient = Patient(directory, loop, random)
    with quiet():
        for number in range(random.randint(2, 3)):
            killed = number and random.random() < 0.5
            patient.live(random.randint(10, 25), IN_LIFE["a kill" if killed else "nothing"])
            if random.random() < 0.6:
                patient.remember()
        for name in names:
            failing = IN_LIFE["nothing"]
            if name in AT_REST:
                patient.happens(name)
            else:
                failing = IN_LIFE[name]
                patient.history.append(name)
            patient.live(random.choice((0, 2, 8, 20)), failing)
            if random.random() < 0.3:
                patient.live(random.choice((0, 8)), IN_LIFE["a kill"])
        patient.heal()
        wrong = patient.wrong()
    return [*wrong, *patient.history, *patient.told] if wrong else []


@pytest.mark.parametrize("first", NAMES)
def test_nothing_is_lost_by_two_mishaps(tmp_path: Path, loop: Loop, first: str) -> None:
    seconds = NAMES if MANY else Random(first).sample(NAMES, 4)
    failed = {}
    for second in seconds:
        for number in range(FIRST, FIRST + (MANY or 1)):
            seed = f"{first}, {second}, {number}"
            wrong = play(tmp_path / "play", loop, seed, (first, second))
            if wrong:
                failed[seed] = wrong
            shutil.rmtree(tmp_path / "play")
    assert not failed


# -- do they find what they should? ----------------------------------------------------------------


def _found(directory: Path, loop: Loop, first: str, second: str) -> bool:
    """Whether one of some plays of two mishaps is wrong in the end."""
    for number in range(40):
        seed = f"{first}, {second}, {number}"
        if play(directory / str(number), loop, seed, (first, second)):
            return True
    return False


def test_directories_that_are_not_synced_are_found_out(
    tmp_path: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "sync_directory", lambda _: None)
    assert _found(tmp_path, loop, "a power cut", "a full disk")


def test_a_roll_that_notes_nothing_is_found_out(
    tmp_path: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Roll, "note", lambda *_: None)
    monkeypatch.setattr(Roll, "begin", lambda *_: None)
    assert _found(tmp_path, loop, "a segment is missing", "a bit of the roll flips")
