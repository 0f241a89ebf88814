"""Power cuts at random moments of random work: what was acknowledged is there, whole, once.

``DCMROUTER_POWER_CUTS`` sets how many; 108 by default.
"""

import io
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from router.spool import system
from router.spool.errors import SpoolError
from router.spool.keeper import Keeper
from router.spool.segment import Segment
from router.spool.segments import SegmentTable
from router.spool.upkeep import Upkeep
from tests.spool.power import File, Recorder, Unmodelled, Write, contents
from tests.spool.power_life import CUTS, MIXES, play
from tests.spool.spool_samples import Loop, Rig, meta, payload, settings

WANTED = int(os.environ.get("DCMROUTER_POWER_CUTS", "108"))
ROUNDS = max(1, -(-WANTED // (CUTS * len(MIXES))))


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_power_cuts(tmp_path: Path, loop: Loop, mix: str, seed: int) -> None:
    assert play(tmp_path, loop, seed, mix) == CUTS
    shutil.rmtree(tmp_path)


# -- does the simulation lose what it should? ------------------------------------------------------


def play_until_it_fails(tmp_path: Path, loop: Loop, *mixes: str) -> None:
    for seed in range(12):
        for mix in mixes or ("mixed",):
            play(tmp_path / f"{mix}{seed}", loop, seed, mix)


def test_a_spool_that_does_not_sync_is_found_out(
    tmp_path: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "sync_data", lambda _: None)
    with pytest.raises((AssertionError, SpoolError), match=r"is lost|is missed|has format ''"):
        play_until_it_fails(tmp_path, loop)


def test_a_spool_that_does_not_sync_names_is_found_out(
    tmp_path: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "sync_directory", lambda _: None)
    with pytest.raises(AssertionError, match="is lost"):
        play_until_it_fails(tmp_path, loop)


def test_a_keeper_that_does_not_wait_for_the_index_is_found_out(
    tmp_path: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Keeper.step

    def step(keeper: Keeper, now: float) -> Upkeep:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(keeper._index, "barrier", lambda: None)
            return real(keeper, now)

    monkeypatch.setattr(Keeper, "step", step)
    with pytest.raises(AssertionError, match=r"its bytes are gone|was given up"):
        play_until_it_fails(tmp_path, loop, "recycling")


def test_a_header_that_is_not_synced_is_found_out(
    tmp_path: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The generation would be given out again.
    real = SegmentTable.activate

    def activate(table: SegmentTable) -> Segment:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(system, "sync_data", lambda _: None)
            return real(table)

    monkeypatch.setattr(SegmentTable, "activate", activate)
    with pytest.raises(AssertionError):
        play_until_it_fails(tmp_path, loop, "mixed", "recycling", "compacting")


# -- what the simulation does not know is told -----------------------------------------------------


def _append(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_APPEND))


def _written_by_position(path: Path) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, b"x")
    finally:
        os.close(fd)


def _odd_flags(path: Path) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.pwritev(fd, [b"x"], 0, os.RWF_APPEND)
    finally:
        os.close(fd)


def _behind_its_back(path: Path) -> None:
    with io.open(path, "r+b") as file:  # noqa: UP020 - on purpose not through Path
        file.write(b"x")


def _swallowed(path: Path) -> None:
    try:
        os.truncate(path, 1)
    except AssertionError:
        return


@pytest.mark.parametrize(
    "act",
    [
        _append,
        _written_by_position,
        _odd_flags,
        _behind_its_back,
        _swallowed,
        lambda path: os.link(path, path.with_name("other")),
        lambda path: path.open("a").close(),
        lambda path: path.with_name("made").symlink_to(path),
    ],
)
def test_what_is_not_modelled_fails(tmp_path: Path, act: Callable[[Path], None]) -> None:
    path = tmp_path / "spool" / "file"
    path.parent.mkdir()
    path.write_bytes(b"old")
    recorder = Recorder(tmp_path)
    with pytest.raises(Unmodelled), recorder.recording():
        act(path)


def test_what_is_modelled_is_recorded_whole(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    with recorder.recording():
        directory = tmp_path / "spool"
        directory.mkdir()
        (directory / "new").write_text("1\n")
        (directory / "new").replace(directory / "format")
        fd = os.open(directory / "file", os.O_RDWR | os.O_CREAT | os.O_DSYNC, 0o600)
        os.posix_fallocate(fd, 0, 8192)
        os.pwritev(fd, [b"ab", b"cd"], 4096)
        os.pwrite(fd, b"e", 0)
        os.close(fd)
        (directory / "gone").write_bytes(b"x")
        (directory / "gone").unlink()
        system.sync_directory(directory)
        system.sync_directory(tmp_path)
    to = tmp_path.parent / "cut"
    for seed in range(20):
        recorder.cut(recorder.time, random.Random(seed), to)
        assert {path.name for path in (to / "spool").iterdir()} == {"format", "file"}
        data = (to / "spool" / "file").read_bytes()
        assert data[:1] == b"e", "written through, and gone"
        assert data[4096:4100] == b"abcd"
        shutil.rmtree(to)


def test_an_unsynced_name_may_be_lost_with_all_below_it(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    with recorder.recording():
        (tmp_path / "spool").mkdir()
        (tmp_path / "spool" / "file").write_bytes(b"x")
        system.sync_directory(tmp_path / "spool")
    found = set()
    to = tmp_path.parent / "cut"
    for seed in range(20):
        recorder.cut(recorder.time, random.Random(seed), to)
        found.add((to / "spool" / "file").exists())
        shutil.rmtree(to)
    assert found == {True, False}


def test_what_a_cut_leaves_of_a_file() -> None:
    file = File(b"a" * 8192)
    file.writes.append(Write(1, 0, b"b" * 4096))
    file.syncs.append((2, 3))
    file.writes.append(Write(4, 4096, b"c" * 4096))
    before, after = set(), set()
    for seed in range(60):
        chance = random.Random(seed)
        before.add(contents(file, 2, chance)[:1])
        got = contents(file, 4, chance)
        assert got[:4096] == b"b" * 4096, "what was synced is gone"
        assert set(got[4096:]) <= {ord("a"), ord("c")}
        after.add(got[4096:])
    assert len(before) == 2
    assert len(after) > 3, "no torn blocks"


def test_what_is_written_through_is_there_without_a_sync() -> None:
    file = File(b"a" * 4096)
    file.writes.append(Write(1, 0, b"b" * 4096, through=2))
    assert {contents(file, 2, random.Random(n))[:1] for n in range(40)} == {b"b"}
    assert {contents(file, 1, random.Random(n))[:1] for n in range(40)} == {b"a", b"b"}


# -- killed before a name was synced, and started again --------------------------------------------


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("before", ["segments", "data", ""])
def test_what_is_acknowledged_after_a_kill_does_not_rest_on_a_name_that_was_not_synced(
    tmp_path: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """The process is killed as it is to sync this directory."""
    recorder = Recorder(tmp_path / "disk")
    home = recorder.root / "data"
    recorder.root.mkdir()
    killed_at = recorder.root / "data" / "spool" / before if before == "segments" else None
    real = system.sync_directory

    def dying(path: Path) -> None:
        if path == (killed_at or (home if before else recorder.root)):
            raise _Killed
        real(path)

    with recorder.recording():
        with monkeypatch.context() as patch:
            patch.setattr(system, "sync_directory", dying)
            with pytest.raises(_Killed):
                _start(home, loop)
        rig = _start(home, loop)
        ref = rig.commit(payload(1, 5000), meta(1, "pacs")).kept
        at = recorder.now()
        rig.close()
    for seed in range(20):
        recorder.cut(at, random.Random(seed), tmp_path / str(seed))
        again = _start(tmp_path / str(seed) / "data", loop)
        assert again.read(again.row(ref.id).ref) == payload(1, 5000)
        again.close()


def _start(home: Path, loop: Loop) -> Rig:
    rig = Rig.__new__(Rig)
    try:
        rig.__init__(home, loop, settings())  # type: ignore[misc]
        return rig.start()
    except _Killed:
        if hasattr(rig, "index"):
            rig.index.close()
            rig.spool.close()
        raise
