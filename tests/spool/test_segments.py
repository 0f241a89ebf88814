"""Segments: their lives, the pool, and what keeps one from being used again."""

import errno
import os
from pathlib import Path

import pytest

from router.spool import segments as module
from router.spool import system
from router.spool.errors import SpoolError, SpoolFull
from router.spool.layout import BLOCK, RecordHeader, SegmentHeader
from router.spool.record import Position
from router.spool.recovery import generation_of
from router.spool.segment import Segment
from router.spool.segments import SegmentTable

SIZE = 64 * 1024


def table(directory: Path, *, size: int = SIZE, reserve: int = 0) -> tuple[SegmentTable, list[str]]:
    made = SegmentTable(directory, size, reserve)
    return made, made.load(generation_of)


def header_of(segment: Segment) -> SegmentHeader | None:
    return SegmentHeader.from_bytes(segment.path.read_bytes()[:BLOCK])


def recycled(made: SegmentTable, segment: Segment, **more: object) -> bool:
    return made.recycle(segment.generation, **({"wipe": False, "indexed": None} | more))  # type: ignore[arg-type]


def fail(code: int):
    def failing(*_: object, **__: object) -> int:
        raise OSError(code, os.strerror(code))

    return failing


# -- bad input -------------------------------------------------------------------------------------


def test_a_damaged_header_is_replaced_by_what_its_records_say(tmp_path: Path) -> None:
    made, _ = table(tmp_path)
    segment = made.activate()
    for n, generation in enumerate((3, segment.generation)):  # one of an earlier life
        offset = BLOCK * (n + 1)
        record = RecordHeader(0, generation, offset, n, 0, 0, 0, 0).to_bytes()
        system.write_all(segment.fd, [record], offset)
    elsewhere = RecordHeader(0, 99, BLOCK, 9, 0, 0, 0, 0).to_bytes()  # copied there by somebody
    system.write_all(segment.fd, [elsewhere], 5 * BLOCK)
    system.write_all(segment.fd, [b"garbage"], 0)
    made.close()
    again, notes = table(tmp_path)
    assert [s.generation for s in again.sealed()] == [3]
    assert "damaged header" in notes[0]
    assert again.activate().generation == 4


def test_a_file_of_zeros_is_removed_if_nothing_was_begun_in_it(tmp_path: Path) -> None:
    made, _ = table(tmp_path)
    assert made.refill(1)
    (path,) = tmp_path.glob("*.seg")
    path.write_bytes(bytes(SIZE))
    again, notes = table(tmp_path)
    assert again.sealed() == []
    assert notes == []
    assert not path.exists()
    assert table(tmp_path)[1] == []


def test_a_file_of_zeros_in_which_a_life_was_begun_is_told_of(tmp_path: Path) -> None:
    made, _ = table(tmp_path)
    segment = made.activate()
    system.write_all(segment.fd, [bytes(BLOCK)], 0)
    made.close()
    again, notes = table(tmp_path)
    assert again.left == [segment.path.name]
    assert "neither its header nor any record in it is sound" in notes[0]
    assert segment.path.exists()


def test_two_segments_of_one_generation_do_not_hide_each_other(tmp_path: Path) -> None:
    made, _ = table(tmp_path)
    segment = made.activate()
    made.close()
    copy = tmp_path / "00000009.seg"
    copy.write_bytes(segment.path.read_bytes())
    again, notes = table(tmp_path)
    assert [s.path for s in again.sealed()] == [segment.path]
    assert "left alone" in notes[0]
    assert copy.exists()


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.seg").write_text("mine")
    made, notes = table(tmp_path)
    assert "notes.seg" in notes[0]
    assert (tmp_path / "notes.seg").read_text() == "mine"
    made.activate()


def test_one_unreadable_segment_file_does_not_keep_the_others_from_opening(tmp_path: Path) -> None:
    made, _ = table(tmp_path)
    first = made.activate()
    made.close()
    (tmp_path / "00000007.seg").mkdir()
    again, notes = table(tmp_path)
    assert [s.path for s in again.sealed()] == [first.path]
    assert again.unreadable == 1
    assert len(notes) == 1
    assert "00000007.seg cannot be read" in notes[0]
    assert (tmp_path / "00000007.seg").is_dir()
    assert again.activate().path.name == "00000008.seg"


@pytest.mark.parametrize("records", [True, False])
def test_a_header_that_the_disk_cannot_read_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: bool
) -> None:
    made, _ = table(tmp_path)
    bad = made.activate()
    if records:
        record = RecordHeader(0, bad.generation, BLOCK, 1, 0, 0, 0, 0).to_bytes()
        system.write_all(bad.fd, [record], BLOCK)
    good = made.activate()
    made.close()
    real = Path.open

    def opening(path: Path, *arguments: str) -> object:
        if path == bad.path:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return real(path, *arguments)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", opening)
    again, notes = table(tmp_path)
    assert bad.path.name in notes[0]
    assert bad.path.exists(), "what cannot be read was removed"
    readable = [bad.path, good.path] if records else [good.path]
    assert [s.path for s in again.sealed()] == readable
    assert again.unreadable == 1
    assert again.activate().generation == 3


def test_a_segment_cut_to_nothing_is_removed(tmp_path: Path) -> None:
    made, _ = table(tmp_path)
    segment = made.activate()
    made.close()
    os.truncate(segment.path, 100)
    assert table(tmp_path)[0].sealed() == []


def test_spares_of_another_size_are_not_used(tmp_path: Path) -> None:
    made, _ = table(tmp_path)
    assert made.refill(1)
    made.close()
    bigger, _ = table(tmp_path, size=2 * SIZE)
    assert bigger.spare_bytes == 0
    assert bigger.activate().path.stat().st_size == 2 * SIZE


def test_a_life_of_another_size_is_removed_at_its_end(tmp_path: Path) -> None:
    made, _ = table(tmp_path)
    segment = made.activate()
    made.close()
    bigger, _ = table(tmp_path, size=2 * SIZE)
    (old,) = bigger.sealed()
    assert old.size == SIZE
    assert recycled(bigger, old)
    assert not segment.path.exists()
    assert bigger.spare_bytes == 0


# -- lives -----------------------------------------------------------------------------------------


def test_a_life_begins_and_ends(tmp_path: Path) -> None:
    made, _ = table(tmp_path)
    first = made.activate()
    assert (first.generation, first.used, made.active) == (1, BLOCK, first)
    assert header_of(first) == SegmentHeader(SIZE, 1, 0)
    assert not recycled(made, first), "the active segment was recycled"
    second = made.activate()
    assert made.sealed() == [first]
    assert recycled(made, first)
    assert header_of(first) == SegmentHeader(SIZE, 0, 1)
    assert made.sealed() == []
    made.seal()
    assert made.active is None
    assert made.sealed() == [second]
    third = made.activate()
    assert third.path == first.path, "the recycled segment is used again"
    assert header_of(third) == SegmentHeader(SIZE, 3, 1)


def test_sealing_twice_takes_one_pin(tmp_path: Path) -> None:
    made, _ = table(tmp_path)
    segment = made.activate()
    assert made.pin(1) is segment
    made.seal()
    made.seal()
    assert segment.pins == 1


def test_generations_are_not_used_twice_over_restarts(tmp_path: Path) -> None:
    seen: list[int] = []
    for _ in range(4):
        made, _ = table(tmp_path)
        seen += [made.activate().generation for _ in range(3)]
        for segment in made.sealed():
            assert recycled(made, segment)
        made.close()
    assert len(set(seen)) == len(seen), seen


def test_a_generation_is_not_used_again_when_its_segment_was_recycled(tmp_path: Path) -> None:
    # With the index lost, only the segments can tell; their old records name that generation.
    made, _ = table(tmp_path)
    made.activate()
    latest = made.activate()
    made.seal()
    assert recycled(made, latest)
    made.close()
    again, _ = table(tmp_path)
    assert [s.generation for s in again.sealed()] == [1]
    assert again.activate().generation > latest.past == 2


def test_reserved_generations_are_passed_over(tmp_path: Path) -> None:
    made, _ = table(tmp_path)
    made.reserve_generations(41)
    made.reserve_generations(7)
    assert made.activate().generation == 42


def test_a_pinned_segment_is_not_recycled(tmp_path: Path) -> None:
    made, _ = table(tmp_path)
    segment = made.activate()
    made.seal()
    assert made.pin(1) is segment
    assert made.pin(1) is segment
    made.unpin(segment)
    assert not recycled(made, segment)
    made.unpin(segment)
    assert recycled(made, segment)
    assert made.pin(1) is None
    assert not made.recycle(1, wipe=False, indexed=None)


def test_a_segment_whose_records_the_index_lacks_is_not_recycled(tmp_path: Path) -> None:
    made, _ = table(tmp_path)
    segment = made.activate()
    segment.acked = 3 * BLOCK
    made.seal()
    for position in (None, Position(0, 1 << 60), Position(1, 2 * BLOCK)):
        assert not recycled(made, segment, indexed=position), position
    assert recycled(made, segment, indexed=Position(1, 3 * BLOCK))
    assert made.activate().acked == 0


def test_wiping_leaves_nothing_and_comes_before_the_end_of_the_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = table(tmp_path)
    segment = made.activate()
    system.write_all(segment.fd, [b"patient data" * 100], SIZE - 1200)
    made.seal()
    order: list[str] = []
    real = system.write_all

    def writing(fd: int, buffers: list[bytes], offset: int, flags: int = 0) -> int:
        order.append("header" if offset == 0 else "zeros")
        return real(fd, buffers, offset, flags)

    monkeypatch.setattr(system, "write_all", writing)
    monkeypatch.setattr(system, "sync_data", lambda _: order.append("sync"))
    assert recycled(made, segment, wipe=True)
    assert segment.path.read_bytes()[BLOCK:] == bytes(SIZE - BLOCK)
    # Were it marked free first, a crash would leave a spare that is never wiped.
    assert order == ["zeros", "sync", "header"]


def test_without_wiping_the_bytes_stay(tmp_path: Path) -> None:
    made, _ = table(tmp_path)
    segment = made.activate()
    system.write_all(segment.fd, [b"patient data"], 2 * BLOCK)
    made.seal()
    assert recycled(made, segment)
    assert b"patient data" in segment.path.read_bytes()


@pytest.mark.parametrize("wipe", [False, True])
def test_a_segment_that_cannot_be_recycled_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wipe: bool
) -> None:
    made, _ = table(tmp_path)
    segment = made.activate()
    made.seal()
    with monkeypatch.context() as patch:
        patch.setattr(system, "write_all", fail(errno.EIO))
        with pytest.raises(SpoolError, match="Input/output error"):
            recycled(made, segment, wipe=wipe)
    assert made.sealed() == [segment]
    assert recycled(made, segment, wipe=wipe)
    assert made.total_bytes == SIZE


# -- the pool --------------------------------------------------------------------------------------


def test_refill_and_trim(tmp_path: Path) -> None:
    made, _ = table(tmp_path)
    assert [made.refill(2) for _ in range(3)] == [True, True, False]
    assert (made.spare_bytes, made.total_bytes) == (2 * SIZE, 2 * SIZE)
    assert made.trim(2) == 0
    assert made.trim(1) == 1
    assert len(list(tmp_path.glob("*.seg"))) == 1
    spare = made.activate()
    assert spare.path.read_bytes()[BLOCK:] == bytes(SIZE - BLOCK)
    assert made.spare_bytes == SIZE - BLOCK
    assert made.trim(0) == 0, "the active segment is no spare"


def test_spares_survive_a_restart(tmp_path: Path) -> None:
    made, _ = table(tmp_path)
    made.refill(2)
    made.refill(2)
    made.close()
    again, notes = table(tmp_path)
    assert (again.spare_bytes, again.sealed(), notes) == (2 * SIZE, [], [])
    again.activate()
    again.refill(2)
    assert len({path.name for path in tmp_path.glob("*.seg")}) == 3


def test_no_space_for_another_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = table(tmp_path, reserve=1000)
    monkeypatch.setattr(module, "free_bytes", lambda _: SIZE + 999)
    with pytest.raises(SpoolFull, match="stay reserved"):
        made.refill(1)
    with pytest.raises(SpoolFull):
        made.activate()
    assert list(tmp_path.glob("*.seg")) == []
    monkeypatch.setattr(module, "free_bytes", lambda _: SIZE + 1000)
    assert made.refill(1)


@pytest.mark.parametrize("call", ["posix_fallocate", "fsync"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_making_a_segment_fails_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    made, _ = table(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail(code))
        with pytest.raises(SpoolError) as caught:
            made.refill(1)
    assert isinstance(caught.value, SpoolFull) == (code != errno.EIO)
    assert list(tmp_path.glob("*.seg")) == []
    assert made.refill(1)


def test_a_directory_that_could_not_be_synced_fails_all_who_made_segments_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: the kernel tells of it once; the next sync says that all is well, and may be of
    one whose name was lost with the others."""
    made, _ = table(tmp_path)
    real = os.fsync

    def meanwhile(fd: int) -> None:
        real(fd)
        monkeypatch.undo()
        with monkeypatch.context() as patch:
            patch.setattr(system, "sync_directory", fail(errno.EIO))
            with pytest.raises(SpoolError, match="Input/output error"):
                made.refill(9)

    monkeypatch.setattr(os, "fsync", meanwhile)
    with pytest.raises(SpoolError, match="failed since it began"):
        made.activate()
    assert list(made.directory.glob("*.seg")) == []
    assert made.activate().path.exists()


def test_a_segment_that_was_being_made_at_a_kill_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: the sync of its name had failed, which the kernel does not say again: what came
    into it was gone with a power cut."""
    made, _ = table(tmp_path)
    made.refill(1)

    def killed(_: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(system, "sync_directory", killed)
        with pytest.raises(KeyboardInterrupt):
            made.refill(2)
    first, second = sorted(made.directory.glob("*.seg"))
    again, notes = table(tmp_path)
    assert notes == []
    assert again.activate().path == first
    assert not second.exists()
    assert again.activate().path not in (first, second)


def test_a_spare_that_cannot_begin_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = table(tmp_path)
    made.refill(1)
    with monkeypatch.context() as patch:
        patch.setattr(system, "write_all", fail(errno.EIO))
        with pytest.raises(SpoolError, match="beginning segment"):
            made.activate()
    # Kept on disk but in nobody's account, each failure would cost a segment's space.
    assert list(tmp_path.glob("*.seg")) == []
    assert made.activate().generation > 0


def test_removing_spares_fails_as_an_error_of_the_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = table(tmp_path)
    made.refill(1)
    monkeypatch.setattr(Path, "unlink", fail(errno.EROFS))
    with pytest.raises(SpoolError, match=r"cannot be removed.*Read-only"):
        made.trim(0)
    monkeypatch.undo()
    assert made.trim(0) == 0
    assert list(tmp_path.rglob("*.seg")) == []


def test_a_full_statvfs_is_an_error_of_the_spool(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match="free space"):
        module.free_bytes(tmp_path / "missing")


# -- descriptors -----------------------------------------------------------------------------------


def test_idle_descriptors_are_closed_and_pinned_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_OPEN_LIMIT", 3)
    made, _ = table(tmp_path)
    for _ in range(6):
        made.activate()
    made.seal()
    made.close()
    again, _ = table(tmp_path)
    kept = again.pin(1)
    assert kept is not None
    descriptor = again.open(kept)
    for generation in range(2, 7):
        segment = again.pin(generation)
        assert segment is not None
        again.open(segment)
        again.unpin(segment)
    opened = [s for s in again.sealed() if s.fd >= 0]
    assert len(opened) <= 3 + 1
    assert kept.fd == descriptor
    assert os.pread(descriptor, 8, 0) == b"DCMRSEG1"
    again.close()
    assert all(s.fd == -1 for s in again.sealed())


@pytest.mark.parametrize("call", ["open", "close"])
def test_descriptors_are_opened_and_closed_outside_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    # The event loop takes the lock in `pin` and `unpin`, and must not wait for the disk there.
    monkeypatch.setattr(module, "_OPEN_LIMIT", 1)
    made, _ = table(tmp_path)
    for _ in range(4):
        made.activate()
    made.close()
    again, _ = table(tmp_path)
    real = getattr(os, call)
    called: list[bool] = []

    def looking(*arguments: object) -> object:
        called.append(again._lock.locked())
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module.os, call, looking)
        for generation in range(1, 5):
            segment = again.pin(generation)
            assert segment is not None
            assert again.open(segment) == again.open(segment)
            again.unpin(segment)
        assert recycled(again, again.sealed()[-1])
        again.close()
    assert called
    assert not any(called)


def test_two_readers_that_open_a_segment_at_once_share_a_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = table(tmp_path)
    made.activate()
    made.close()
    again, _ = table(tmp_path)
    segment = again.pin(1)
    assert segment is not None
    real = os.open
    inner: list[int] = []

    def opening(*arguments: object) -> int:
        fd: int = real(*arguments)  # type: ignore[arg-type]
        if not inner:
            inner.append(-1)
            inner[0] = again.open(segment)  # the other was quicker
        return fd

    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with monkeypatch.context() as patch:
        patch.setattr(module.os, "open", opening)
        assert again.open(segment) == inner[0] == segment.fd
    assert len(os.listdir("/proc/self/fd")) == before + 1  # noqa: PTH208
    again.close()
