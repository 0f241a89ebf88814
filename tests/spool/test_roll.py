"""What the roll of segment files makes known: files that are gone, or of an earlier time."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from router.spool import recovery, system
from router.spool.errors import SpoolError, SpoolFull, SpoolLocked
from router.spool.forget import forget
from router.spool.layout import BLOCK
from router.spool.record import Ref
from router.spool.roll import Roll
from router.spool.segments import SegmentTable
from router.spool.verify import verify
from router.spool.writer import large_path
from tests.spool.conftest import OpenRig
from tests.spool.spool_samples import KIB, Rig, meta, payload, segment_of, settings
from tests.spool.test_copies_again import noted
from tests.spool.test_lost_by_restart import unreadable
from tests.spool.test_rebuild import forget_index, save_index

LARGE = 300 * KIB


def read(path: Path) -> tuple[dict[int, int], list[str]]:
    roll = Roll(path)
    notes = roll.load()
    return dict(roll.generations), notes


# -- the file ------------------------------------------------------------------------------------


def test_what_is_noted_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "roll"
    roll = Roll(path)
    assert roll.load() == []
    assert not roll.found
    roll.begin({1: 0, 2: 7})
    roll.note(1, 8)
    for number in range(3, 400):  # more than one block
        roll.note(number, number * 2**33)
    roll.remove([2, 5])
    expected = {1: 8} | {n: n * 2**33 for n in range(3, 400) if n != 5}
    assert read(path) == (expected, [])
    assert path.stat().st_size % BLOCK == 0
    again = Roll(path)
    again.load()
    again.begin(expected)
    for number in range(1000, 1003):  # where the removed ones were, and behind
        again.note(number, 1)
    again.remove([999])
    assert read(path) == (expected | {1000: 1, 1001: 1, 1002: 1}, [])


def test_a_flipped_bit_costs_no_more_than_its_entry(tmp_path: Path) -> None:
    path = tmp_path / "roll"
    entries = {1: 3, 2: 7, 3: 0}
    Roll(path).begin(entries)
    data = path.read_bytes()
    for bit in range(8 * 128):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        found, notes = read(path)
        place = bit // 8 // 32
        if bit // 8 % 32 >= 20 and place:
            assert (found, notes) == (entries, []), bit
            continue
        assert len(notes) == 1, bit
        assert "may not be told of" in notes[0]
        assert found == ({n: g for n, g in entries.items() if n != place} if place else {}), bit


@pytest.mark.parametrize("cut", [0, 5, 31, 32, 100])
def test_one_that_was_cut_says_what_it_still_has(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "roll"
    Roll(path).begin({1: 3, 2: 7, 3: 5})
    path.write_bytes(path.read_bytes()[:cut])
    roll = Roll(path)
    roll.load()
    assert roll.generations == dict([(1, 3), (2, 7), (3, 5)][: max(0, cut // 32 - 1)])
    left = dict(roll.generations)
    for number in range(4, 140):
        roll.note(number, 9)
    assert read(path) == (left | dict.fromkeys(range(4, 140), 9), [])
    roll.begin({1: 3, 2: 7, 3: 5})
    assert read(path) == ({1: 3, 2: 7, 3: 5}, [])


def test_a_bad_block_is_left_for_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "roll"
    roll = Roll(path)
    roll.begin({1: 3, 2: 4})

    def bad(*_: object) -> None:
        raise OSError(errno.EIO, "bad block")

    with monkeypatch.context() as patch:
        patch.setattr(system, "write_all", bad)
        roll.note(2, 5)
        with pytest.raises(SpoolError, match="bad block"):
            roll.remove([1])
    assert read(path) == ({1: 3, 2: 5}, [])
    roll.remove([1])
    assert read(path) == ({2: 5}, [])


def test_what_could_not_be_begun_is_whole_with_the_next_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "roll"
    Roll(path).begin({1: 3, 2: 4})
    roll = Roll(path)
    roll.load()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(system, "write_all", full)
        patch.setattr(system, "write_aside", full)
        with pytest.raises(OSError, match="No space left"):
            roll.begin({2: 4, 3: 0})
    assert read(path) == ({1: 3, 2: 4}, [])
    roll.note(2, 5)
    assert read(path)[0][2] == 5


def _no_room(path: Path, data: bytes) -> Path:
    raise SpoolFull(f"writing {path}: No space left on device")


def test_on_a_full_disk_it_is_changed_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "roll"
    Roll(path).begin({1: 3, 2: 4})
    roll = Roll(path)
    roll.load()
    monkeypatch.setattr(system, "write_aside", _no_room)
    roll.begin({2: 6, 3: 0})
    assert read(path) == ({2: 6, 3: 0}, [])
    roll.note(4, 7)
    roll.remove([2])
    assert read(path) == ({3: 0, 4: 7}, [])


def test_what_it_may_still_name_is_not_said_to_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "roll"
    roll = Roll(path)
    roll.begin({1: 3, 2: 4})

    def bad(*_: object) -> None:
        raise SpoolError("bad block")

    with monkeypatch.context() as patch:
        patch.setattr(roll, "_put", bad)
        patch.setattr(system, "put_in_place", bad)
        with pytest.raises(SpoolError, match="bad block"):
            roll.note(2, 5)
        for _ in range(2):
            with pytest.raises(SpoolError, match="bad block"):
                roll.remove([1])
    assert read(path) == ({1: 3, 2: 4}, [])
    roll.remove([1])
    assert read(path) == ({2: 5}, [])


# -- a start -------------------------------------------------------------------------------------


def _filled(open_rig: OpenRig) -> tuple[Rig, Ref, Path]:
    """A segment that yesterday's index knows, one that it does not, and one behind; the large
    instance of the second, and its file."""
    rig = open_rig()
    rig.commit(payload(1, 5000), meta(1, "pacs"))
    rig.feed()
    save_index(rig)
    rig.spool.segments.seal()
    rig.commit(payload(2, 5000), meta(2, "pacs"))
    large = rig.commit(payload(3, LARGE), meta(3, "pacs")).kept
    path = segment_of(rig, large)
    rig.spool.segments.seal()
    rig.commit(payload(4, 5000), meta(4, "pacs"))
    rig.feed()
    rig.close()
    return rig, large, path


def _started(open_rig: OpenRig, rig: Rig) -> Rig:
    again = open_rig(rig.directory)
    again.keeper.sweep()
    again.acked = rig.acked
    return again


INDEXES: dict[str, Callable[[Rig], Path | None]] = {
    "yesterday": lambda rig: rig.directory / "yesterday.sqlite",
    "none": lambda rig: None,
}


def _has_all(again: Rig, rig: Rig) -> None:
    for number, (data, _) in rig.acked.items():
        row = again.index.instance(number)
        assert row is not None
        assert again.read(row.ref) == data
        assert [r.destination for r in row.meta.routes] == ["pacs"]


@pytest.mark.parametrize("which", INDEXES)
def test_a_missing_segment_that_no_index_knew_is_told_and_waited_for(
    open_rig: OpenRig, which: str
) -> None:
    rig, large, path = _filled(open_rig)
    forget_index(rig, INDEXES[which](rig))
    away = rig.directory / "away"
    path.rename(away)
    for _ in range(3):  # not with the first start alone
        again = _started(open_rig, rig)
        assert f"segment {path.name} is missing, in which generation 2" in again.spool.notes[0]
        assert again.index.instance(large.id) is None
        assert large_path(again.spool.large_directory, large.id).exists()
        again.close()
    away.rename(path)
    again = _started(open_rig, rig)
    _has_all(again, rig)
    again.close()
    last = _started(open_rig, rig)
    assert not any("missing" in note for note in last.spool.notes)
    assert not last.spool.log_damaged


@pytest.mark.parametrize("which", INDEXES)
def test_one_that_is_given_up_is_looked_for_no_longer(open_rig: OpenRig, which: str) -> None:
    rig, large, path = _filled(open_rig)
    forget_index(rig, INDEXES[which](rig))
    path.unlink()
    _started(open_rig, rig).close()
    spool = rig.directory / "spool"
    assert forget(spool, path.name) == 2
    with pytest.raises(SpoolError, match="is not missed"):
        forget(spool, path.name)
    for _ in range(2):
        again = _started(open_rig, rig)
        assert not any("missing" in note for note in again.spool.notes)
        again.close()
    assert not large_path(spool / "large", large.id).exists()
    rows = dict.fromkeys(rig.acked, again.index)
    assert set(rows) == {1, 2, 3, 4}


def test_what_is_there_or_was_never_missed_cannot_be_given_up(open_rig: OpenRig) -> None:
    rig, _, path = _filled(open_rig)
    spool = rig.directory / "spool"
    for name, why in (
        (path.name, "is there"),
        ("00000099.seg", "is not missed"),
        ("notes.txt", "is not missed"),
        ("../../x", "is not missed"),
    ):
        with pytest.raises(SpoolError, match=why):
            forget(spool, name)
    running = _started(open_rig, rig)
    with pytest.raises(SpoolLocked):
        forget(spool, path.name)
    running.close()
    assert path.exists()


def test_a_spare_that_is_gone_is_missed_by_nobody(open_rig: OpenRig) -> None:
    rig = open_rig()
    ref = rig.commit(payload(1, 5000), meta(1, "pacs")).kept
    rig.feed()
    assert rig.spool.segments.refill(3)
    used = segment_of(rig, ref)
    rig.close()
    spares = [p for p in (rig.directory / "spool" / "segments").glob("*.seg") if p != used]
    assert spares
    for path in spares:
        path.unlink()
    again = _started(open_rig, rig)
    assert again.spool.notes == []
    again.close()


def test_a_copy_that_is_taken_away_again_is_missed_by_nobody(open_rig: OpenRig) -> None:
    rig, _, path = _filled(open_rig)
    copy = path.with_name("00000099.seg")
    copy.write_bytes(path.read_bytes())
    again = _started(open_rig, rig)
    assert "00000099.seg: is in generation 2" in again.spool.notes[0]
    again.close()
    copy.unlink()
    last = _started(open_rig, rig)
    assert last.spool.notes == []
    last.close()


def test_spares_of_another_size_are_missed_by_nobody(open_rig: OpenRig) -> None:
    rig = open_rig()
    rig.commit(payload(1, 5000), meta(1, disposition="discard"))
    rig.feed()
    rig.spool.segments.seal()
    rig.step()
    rig.acked.clear()
    rig.close()
    for _ in range(2):
        other = SegmentTable(rig.directory / "spool" / "segments", 128 * KIB, 0)
        assert other.load(recovery.generation_of) == []
        assert other.left == []
    assert not list((rig.directory / "spool" / "segments").glob("*.seg"))


def fail(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Nothing can be written to the roll."""

    def failing(*_: object) -> None:
        raise system.failure("writing the roll", OSError(code, os.strerror(code)))

    monkeypatch.setattr(Roll, "_put", failing)
    monkeypatch.setattr(Roll, "_write", failing)


def test_spares_of_another_size_go_as_soon_as_the_disk_takes_it(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = open_rig()
    rig.commit(payload(1, 5000), meta(1, disposition="discard"))
    rig.feed()
    rig.spool.segments.seal()
    rig.step()
    rig.acked.clear()
    rig.close()
    (path,) = (rig.directory / "spool" / "segments").glob("*.seg")
    with monkeypatch.context() as patch:
        fail(patch, errno.EIO)
        other = SegmentTable(path.parent, 128 * KIB, 0)
        assert "cannot be removed" in "".join(other.load(recovery.generation_of))
        assert path.exists()
    other.refill(1)
    assert not path.exists()
    assert SegmentTable(path.parent, 128 * KIB, 0).load(recovery.generation_of) == []


def test_what_is_recycled_trimmed_and_begun_anew_is_never_missed(open_rig: OpenRig) -> None:
    rig = open_rig()
    for round_ in range(6):
        for n in range(4):
            rig.commit(payload(n, 60_000), meta(10 * round_ + n, disposition="discard"))
        rig.feed()
        rig.spool.segments.seal()
        rig.step()
        rig.spool.segments.refill(2)
        if round_ % 2:
            rig.spool.segments.trim(1)
        present = {int(p.stem) for p in (rig.directory / "spool" / "segments").glob("*.seg")}
        assert set(read(rig.directory / "spool" / "segments.roll")[0]) == present
        rig.acked.clear()
        rig.close()
        rig = open_rig(rig.directory)
        assert rig.spool.notes == []


def test_a_spool_of_a_version_without_a_roll_gets_one(open_rig: OpenRig) -> None:
    rig, _, path = _filled(open_rig)
    roll = rig.directory / "spool" / "segments.roll"
    before = read(roll)
    roll.unlink()
    again = _started(open_rig, rig)
    assert again.spool.notes == []
    again.close()
    entries, notes = read(roll)
    assert not notes
    assert {n: g for n, g in entries.items() if g} == before[0]
    path.unlink()
    last = _started(open_rig, rig)
    assert "is missing" in last.spool.notes[0]
    last.close()


def test_what_an_older_version_missed_is_still_waited_for(open_rig: OpenRig) -> None:
    rig, large, path = _filled(open_rig)
    forget_index(rig, INDEXES["none"](rig))
    away = rig.directory / "away"
    path.rename(away)
    _started(open_rig, rig).close()  # it notes that it could not read it
    (rig.directory / "spool" / "segments.roll").unlink()
    for _ in range(2):
        again = _started(open_rig, rig)
        assert again.spool.log_damaged
        again.close()
    away.rename(path)
    again = _started(open_rig, rig)
    row = again.index.instance(large.id)
    assert row is not None
    assert again.read(row.ref) == payload(3, LARGE)
    again.close()


def _flip_entry_of(roll: Path, number: int) -> None:
    data = bytearray(roll.read_bytes())
    at = next(at for at in range(32, len(data), 32) if data[at] == number)
    data[at + 9] ^= 1
    roll.write_bytes(data)


@pytest.mark.parametrize("which", INDEXES)
@pytest.mark.parametrize("roll", ["flipped", "lost"])
def test_what_a_start_missed_is_waited_for_whatever_becomes_of_the_roll(
    open_rig: OpenRig, which: str, roll: str
) -> None:
    """Regression: where its entry was damaged since, it was taken for given up; its large files
    were swept, and when it was brought back nothing of it was read."""
    rig, large, path = _filled(open_rig)
    forget_index(rig, INDEXES[which](rig))
    away = rig.directory / "away"
    path.rename(away)
    _started(open_rig, rig).close()
    if roll == "flipped":
        _flip_entry_of(rig.directory / "spool" / "segments.roll", int(path.stem))
    else:
        (rig.directory / "spool" / "segments.roll").unlink()
    for _ in range(2):
        again = _started(open_rig, rig)
        assert any(f"segment {path.name} is missing" in note for note in again.spool.notes)
        assert large_path(again.spool.large_directory, large.id).exists()
        again.close()
    away.rename(path)
    again = _started(open_rig, rig)
    _has_all(again, rig)


@pytest.mark.parametrize("which", INDEXES)
def test_a_start_that_cannot_read_the_roll_does_not_go_on_without_it(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """Regression: it wrote it anew, without a segment that was missing then; when that was brought
    back, what no index knew of it was not read."""
    rig, large, path = _filled(open_rig)
    forget_index(rig, INDEXES[which](rig))
    roll = rig.directory / "spool" / "segments.roll"
    before = roll.read_bytes()
    away = rig.directory / "away"
    path.rename(away)
    with unreadable(roll.name), pytest.raises(SpoolError, match=r"reading .*roll.*move it away"):
        open_rig(rig.directory)
    with unreadable(roll.name):
        findings = verify(rig.directory / "spool", rig.directory / "index.sqlite").findings
    assert any(f.where == "the roll" and "reading" in f.what for f in findings)
    assert roll.read_bytes() == before
    again = _started(open_rig, rig)
    assert f"segment {path.name} is missing, in which generation 2" in again.spool.notes[0]
    assert large_path(again.spool.large_directory, large.id).exists()
    again.close()
    away.rename(path)
    again = _started(open_rig, rig)
    _has_all(again, rig)


def test_what_could_not_be_read_at_the_first_start_with_a_roll_is_missed_too(
    open_rig: OpenRig,
) -> None:
    rig, large, path = _filled(open_rig)
    spool = rig.directory / "spool"
    forget_index(rig, None)
    (spool / "segments.roll").unlink()
    away = rig.directory / "away"
    path.rename(away)
    path.mkdir()  # as one that the disk does not give
    _started(open_rig, rig).close()
    path.rmdir()
    findings = verify(spool, rig.directory / "index.sqlite").findings
    said = [f.what for f in findings if f.where == f"segment {path.name}"]
    assert said == ["is missing, which could not be read before"]
    for _ in range(2):
        again = _started(open_rig, rig)
        assert (
            f"segment {path.name} is missing, which could not be read before"
            in (again.spool.notes[0])
        )
        assert large_path(again.spool.large_directory, large.id).exists()
        again.close()
    away.rename(path)
    again = _started(open_rig, rig)
    row = again.index.instance(large.id)
    assert row is not None
    assert again.read(row.ref) == payload(3, LARGE)
    again.close()
    last = _started(open_rig, rig)
    assert last.spool.notes == []


def test_what_could_not_be_read_and_is_lost_can_be_given_up(open_rig: OpenRig) -> None:
    rig, _, path = _filled(open_rig)
    spool = rig.directory / "spool"
    (spool / "segments.roll").unlink()
    path.unlink()
    path.mkdir()
    _started(open_rig, rig).close()
    path.rmdir()
    _started(open_rig, rig).close()
    assert forget(spool, path.name) == 0
    again = _started(open_rig, rig)
    assert again.spool.notes == []
    again.close()


def test_a_life_is_noted_by_a_start_when_it_is_durable(open_rig: OpenRig) -> None:
    """Regression: a kill before the sync of its header, a start, and a power cut within that: the
    file was of an earlier time than its entry then, and left alone for good."""
    rig, _, path = _filled(open_rig)
    number = int(path.stem)
    roll = Roll(rig.directory / "spool" / "segments.roll")
    roll.load()
    roll.note(number, roll.generations[number] - 1)  # as if it had been killed before it noted it
    done: list[tuple[str, int]] = []
    with noted(done):
        _started(open_rig, rig)
    first = done.index((str(path), -1))
    assert first < done.index((f"{roll.path}.new", -1))


# -- a disk that does not take what is to be noted -----------------------------------------------


def test_spares_that_cannot_be_taken_off_it_stay_spares(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = open_rig()
    segments = rig.spool.segments
    while segments.refill(5):
        pass
    room = segments.spare_bytes
    with monkeypatch.context() as patch:
        patch.setattr(Roll, "_put", _none_left)
        with pytest.raises(SpoolFull):
            segments.trim(1)
    assert segments.spare_bytes == room
    assert segments.trim(1) == 4
    assert len(list(segments.directory.glob("*.seg"))) == 1
    rig.close()


def test_a_life_that_cannot_be_noted_costs_no_segment(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = open_rig()
    for number in range(2):  # one that had a life is noted with it
        rig.commit(payload(number, 5000), meta(number, disposition="discard"))
        rig.feed()
        rig.spool.segments.seal()
        rig.step()
    names = {path.name for path in rig.spool.segments.directory.glob("*.seg")}
    with monkeypatch.context() as patch:
        patch.setattr(Roll, "_put", _none_left)
        patch.setattr(system, "write_aside", _no_room)
        for number in range(2, 5):
            assert rig.commit(payload(number, 5000), meta(number, "pacs")).error is not None
    assert {path.name for path in rig.spool.segments.directory.glob("*.seg")} == names
    kept = rig.commit(payload(5, 5000), meta(5, "pacs")).kept
    rig.feed()
    rig.close()
    again = _started(open_rig, rig)
    assert again.spool.notes == []
    assert again.read(again.row(kept.id).ref) == payload(5, 5000)
    again.close()


def test_a_full_disk_gives_spares_of_another_size_back(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = open_rig()
    while rig.spool.segments.refill(4):
        pass
    rig.commit(payload(1, 5000), meta(1, disposition="discard"))
    rig.feed()
    rig.spool.segments.seal()
    rig.step()
    directory = rig.spool.segments.directory
    rig.close()
    assert list(directory.glob("*.seg"))
    monkeypatch.setattr(system, "write_aside", _no_room)
    again = Rig(rig.directory, rig.loop, settings(segment_size=128 * KIB))
    assert again.spool.notes == []
    assert list(directory.glob("*.seg")) == []
    again.close()


def _none_left(*_: object) -> None:
    raise SpoolFull("writing segments.roll: Too many open files")
