"""Each call of a start fails once, whatever state the spool and its index are in; then an ordinary
life, and two starts more.  In the end all that was acknowledged is there.

``DCMROUTER_START_FAULTS=100`` plays so many spools, and every call of theirs.
"""

import copy
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random

import pytest

from router.spool.errors import SpoolError
from router.spool.index_seal import unseal
from tests.spool.faults import Call, Fault, Seam
from tests.spool.index_copies import index_bytes
from tests.spool.scenario import Truth, lost
from tests.spool.short_life import ShortLife
from tests.spool.spool_samples import Loop

pytestmark = pytest.mark.timeout(7200)

MANY = int(os.environ.get("DCMROUTER_START_FAULTS", "0"))
SEEDS = range(1, 1 + (MANY or 3))
SAMPLE = 8
STATES = ("as it was", "of yesterday", "lost", "met damaged", "a segment is away")


@dataclass
class _Base:
    """A spool at rest: what was acknowledged, its index of yesterday."""

    home: Path
    truth: Truth
    yesterday: bytes = b""


@dataclass
class _Play:
    """One start with a fault, and what follows."""

    loop: Loop
    random: Random
    home: Path
    truth: Truth

    def live(self, life: ShortLife, acts: int) -> None:
        """Errors are told; nothing is done again."""
        for _ in range(acts):
            try:
                life.act(self.random)
            except SpoolError as error:
                life.told.append(("life", str(error)))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here cuts the power."""
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, os.fstat)


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


def _grown(directory: Path, loop: Loop, random: Random) -> _Base:
    """Two or three lives, the last one of which may have been killed."""
    home = directory / "base"
    home.mkdir()
    base = _Base(home, Truth())
    lives = random.randint(2, 3)
    for number in range(lives):
        life = ShortLife(home, loop, base.truth)
        play = _Play(loop, random, home, base.truth)
        play.live(life, 12)
        if number == lives - 2:
            base.yesterday = index_bytes(home / "index.sqlite")
        play.live(life, 12)
        if number == lives - 1 and random.random() < 0.5:
            killed = directory / "killed"
            shutil.copytree(home, killed)
            base.home = killed
            truth = copy.deepcopy(base.truth)
            life.close()
            base.truth = truth
        else:
            life.close()
    return base


def _put(base: _Base, to: Path, state: str, random: Random) -> Path | None:
    """The spool in that state; a segment that is away, and is to come back."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(base.home, to)  # with the times of the files, of which the seal knows
    index = to / "index.sqlite"
    if state in ("of yesterday", "lost"):
        for path in to.glob("index.sqlite*"):
            path.unlink()
        if state == "of yesterday":
            index.write_bytes(base.yesterday)
            unseal(index)
    elif state == "met damaged":
        index.with_name(index.name + "-damaged").write_text("a page")
    elif state == "a segment is away":
        path = random.choice(sorted((to / "spool/segments").glob("*.seg")))
        return path.rename(to.with_name(path.name))
    return None


def _played(
    base: _Base, directory: Path, loop: Loop, state: str, seed: str, fault: Fault | None
) -> tuple[list[Call], list[str]]:
    """The calls of the start, and what is wrong in the end."""
    random = Random(seed)
    home = directory / "play"
    away = _put(base, home, state, random)
    play = _Play(loop, random, home, copy.deepcopy(base.truth))
    seam = Seam(home, fault)
    seam.phase = "starting"
    told: list[tuple[str, str]] = []
    with seam.watching():
        try:
            life = ShortLife(home, loop, play.truth)
        except SpoolError as error:
            told.append(("start", str(error)))
        else:
            seam.phase = "living"
            play.live(life, random.choice((3, 20)))
            told += life.told
            life.close()
    starting = [call for call in seam.calls if call.phase == "starting"]
    if away is not None:
        place = home / "spool/segments" / away.name
        assert not place.exists(), "the name of one that is away was given to another"
        away.rename(place)
    for acts in (5, 0):
        life = ShortLife(home, loop, play.truth)
        play.live(life, acts)
        told += life.told
        wrong = lost(life)
        life.close()
    return starting, [*wrong, f"told: {told}"] if wrong else []


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_whichever_call_of_a_start_fails(
    tmp_path: Path, loop: Loop, state: str, seed: int
) -> None:
    random = Random(seed)
    base = _grown(tmp_path, loop, random)
    numbers = count()
    calls, wrong = _played(base, tmp_path, loop, state, f"{seed}", None)
    assert not wrong, wrong
    chosen = calls if MANY else random.sample(calls, min(SAMPLE, len(calls)))
    failed = {}
    for call in chosen:
        number = next(numbers)
        _, wrong = _played(base, tmp_path, loop, state, f"{seed} {number}", Fault(call))
        if wrong:
            failed[str(call), number] = wrong
    assert not failed
