"""Group commit: nothing is done before the sync, and after a failure nothing of the group is."""

import errno
import os
import pydoc
import threading
from pathlib import Path

import pytest

from router.spool import system
from router.spool.committer import Committer, Job
from router.spool.errors import SpoolError, SpoolFull
from router.spool.layout import BLOCK
from router.spool.record import Position
from router.spool.recovery import Recovered, scan
from router.spool.segments import SegmentTable
from tests.spool.committing import SIZE, Bench
from tests.spool.spool_samples import KIB, PATIENCE, Loop, meta, payload


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize(("kind", "ahead"), [("commit", 0)])
def test_a_failing_call_fails_the_group_and_leaves_the_segment(
    bench: Bench, kind: str, ahead: int, code: int
) -> None:
    first = bench.job()
    bench.commit(first)
    left = bench.segments.active
    bench.disk.hold.clear()
    bench.disk.reached.clear()
    blocker = bench.job()
    bench.submit(blocker)
    assert bench.disk.reached.wait(PATIENCE)
    group = [bench.job() for _ in range(3)]
    bench.submit(*group)
    bench.disk.fail(kind, ahead, code)
    bench.disk.hold.set()
    bench.wait(5)
    assert bench.groups == [1, 1, 3]
    for job in group:
        assert (job.ref, job.end) == (None, None)
        assert isinstance(job.error, SpoolFull) == (code != errno.EIO)
        assert left is not None
        assert left.path.name in str(job.error)
    assert bench.segments.active is None
    assert left.pins == 0
    assert left.acked == blocker.end.offset, "the failed group counts as acknowledged"
    after = bench.job()
    bench.commit(after)
    assert after.error is None
    assert after.ref.generation > first.ref.generation
    assert {first.id, blocker.id, after.id} <= bench.found().keys()


def test_a_failure_after_a_change_of_segment_fails_both_parts(bench: Bench) -> None:
    bench.commit(bench.job())
    bench.disk.hold.clear()
    bench.disk.reached.clear()
    bench.submit(bench.job())
    assert bench.disk.reached.wait(PATIENCE)
    group = [bench.job(100 * KIB) for _ in range(4)]
    bench.submit(*group)
    bench.disk.fail("commit", 1, errno.EIO)  # of the second segment
    bench.disk.hold.set()
    bench.wait(6)
    assert [job.ref for job in group] == [None] * 4
    assert all(segment.pins == 0 for segment in bench.segments.sealed())


def test_a_segment_left_by_its_group_keeps_its_life_until_its_owners_know(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Recycled once sealed, its records would be gone before anybody is told of them.
    pins: list[list[int]] = []
    real = system.write_blocks

    def writing(fd: int, buffers: list[memoryview], offset: int, *, durably: bool = False) -> None:
        assert durably
        sealed = bench.segments.sealed()
        pins.append([s.pins for s in sealed])
        for segment in sealed:
            over = bench.segments.recycle(
                segment.generation, wipe=False, indexed=Position(1 << 40, 0)
            )
            assert over == (segment.pins == 0)
        real(fd, buffers, offset, durably=durably)

    bench.commit(bench.job())
    bench.disk.hold.clear()
    bench.disk.reached.clear()
    bench.submit(bench.job())
    assert bench.disk.reached.wait(PATIENCE)
    bench.submit(*[bench.job(100 * KIB) for _ in range(4)])
    monkeypatch.setattr(system, "write_blocks", writing)
    bench.disk.hold.set()
    bench.wait(6)
    assert all(job.error is None for job in bench.told)
    assert pins[-1] == [1] * len(pins[-1]) != []


@pytest.mark.parametrize("most", [1, 63, 4096])
def test_short_writes_are_continued(bench: Bench, most: int) -> None:
    bench.disk.most_at_once = most
    job = bench.job(3000)
    bench.commit(job)
    bench.disk.most_at_once = 1 << 30
    assert bench.found()[job.id].damage == ""


def test_a_write_of_nothing_is_an_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(system.os, "pwritev", lambda *_: 0)
        job = bench.job()
        bench.commit(job)
    assert type(job.error) is SpoolError
    assert job.ref is None


def test_a_record_that_fits_no_segment_fails_alone(bench: Bench) -> None:
    bench.disk.hold.clear()
    bench.submit(bench.job())
    assert bench.disk.reached.wait(PATIENCE)
    good, huge, fine = bench.job(), bench.job(what=bytes(SIZE)), bench.job()
    bench.submit(good, huge, fine)
    bench.disk.hold.set()
    bench.wait(4)
    assert "does not fit" in str(huge.error)
    assert huge.ref is None
    assert good.error is None is fine.error
    assert good.ref.generation == fine.ref.generation


def test_the_largest_record_that_fits(bench: Bench) -> None:
    what = meta(1).to_bytes()
    room = SIZE - BLOCK - 64 - len(what)
    fits, over = bench.job(room, what=what), bench.job(room + 1, what=what)
    bench.commit(fits, over)
    assert fits.error is None
    assert over.error is not None
    assert bench.found()[fits.id].damage == ""


def test_without_space_for_a_segment_the_group_is_refused_until_there_is(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.segments.trim(0)
    with monkeypatch.context() as patch:
        patch.setattr("router.spool.segments.free_bytes", lambda _: 0)
        job = bench.job()
        bench.commit(job)
        assert isinstance(job.error, SpoolFull)
    bench.commit(after := bench.job())
    assert after.error is None


@pytest.mark.parametrize("fault", [OSError(errno.EIO, "statvfs"), MemoryError(), ValueError("x")])
def test_the_thread_outlives_any_fault(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def failing() -> None:
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(bench.segments, "activate", failing)
        job = bench.job()
        bench.commit(job)
    assert type(job.error) is SpoolError
    bench.commit(after := bench.job())
    assert after.error is None


@pytest.mark.parametrize(
    "where",
    [
        "router.spool.committer.record_size",
        "router.spool.committer.Committer._note_place",
        "router.spool.committer._Finished",
        "router.spool.batch.Batch.clear",
    ],
)
def test_the_thread_outlives_the_want_of_memory_anywhere(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    real = pydoc.locate(where)
    failures = [MemoryError(), MemoryError()]

    def short(*arguments: object) -> object:
        if failures and threading.current_thread().name == "spool-commit":
            raise failures.pop()
        return real(*arguments)  # type: ignore[operator]

    with monkeypatch.context() as patch:
        patch.setattr(where, staticmethod(short) if where.endswith("_note_place") else short)
        bench.commit(job := bench.job())
    assert job.error is None or "MemoryError" in str(job.error)
    bench.commit(after := bench.job())
    assert after.error is None


@pytest.mark.parametrize("kind", ["sync", "commit"])  # of the header, of the group
def test_failing_groups_do_not_eat_the_disk(bench: Bench, kind: str) -> None:
    before = bench.segments.total_bytes
    for _ in range(20):
        bench.segments.refill(1)  # so that the next sync is that of the header
        bench.disk.fail(kind, 0, errno.EIO)
        bench.commit(job := bench.job())
        assert job.error is not None
        for segment in bench.segments.sealed():  # as the keeper does: nothing was acknowledged
            assert bench.segments.recycle(segment.generation, wipe=False, indexed=None)
    assert bench.segments.total_bytes <= before
    assert len(list(bench.segments.directory.iterdir())) * SIZE <= before


@pytest.mark.parametrize("most_at_once", [BLOCK, 3 * BLOCK, 5000, 700])
def test_a_write_that_takes_only_a_part_is_continued(bench: Bench, most_at_once: int) -> None:
    # Of what O_DIRECT took, the rest may begin where it can go by O_DIRECT no more.
    bench.disk.most_at_once = most_at_once
    size = 60_000
    jobs = [bench.aligned_job(size), bench.job(size), bench.job(1)]
    bench.submit(*jobs)
    bench.wait(3)
    assert [job.error for job in jobs] == [None] * 3
    found = bench.found()
    assert [found[job.id].damage for job in jobs] == [""] * 3


def test_a_file_system_without_direct_writes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def opening(path: object, flags: int, *mode: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(path, flags, *mode)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(system.os, "open", opening)
        bench.commit(job := bench.aligned_job(100 * KIB))
    assert job.error is None
    assert bench.found()[job.id].damage == ""


def test_a_disk_that_wants_larger_blocks(bench: Bench) -> None:
    bench.commit(bench.job())
    bench.disk.fail("commit", 0, errno.EINVAL)
    bench.commit(job := bench.aligned_job(100 * KIB))
    assert job.error is None
    assert bench.found()[job.id].damage == ""


def test_what_lies_behind_a_data_set_in_memory_does_not_get_to_the_disk(bench: Bench) -> None:
    job = bench.aligned_job(20_000)
    job.buffers[0][20_000:] = b"\xee" * (len(job.buffers[0]) - 20_000)
    bench.commit(job)
    bench.commit(short := bench.job(10))
    assert job.ref is not None
    assert short.ref is not None
    (segment,) = [s for s in bench.segments._lives.values() if s.generation == 1]
    after = segment.path.read_bytes()
    behind = after[job.ref.data_offset + 20_000 : short.ref.offset]
    assert behind == bytes(len(behind))
    assert after[short.ref.data_offset + 10 : segment.used].strip(b"\0") == b""


def test_a_group_larger_than_the_arena_is_whole(tmp_path: Path, loop: Loop) -> None:
    segments = SegmentTable(tmp_path, 8 << 20, 0)
    told: list[Job] = []
    committer = Committer(segments, loop.post, lambda *_: None)
    sizes = [12_000, 16_000, 3 << 20, 40] + [10_000] * 100
    for n, size in enumerate(sizes):
        data = payload(n, size)
        what = meta(n).to_bytes().ljust(1 << 20) if n == 3 else meta(n).to_bytes()
        committer.submit(Job(n + 1, what, [memoryview(data)], size, told.append))
    committer.start()
    loop.run_until(lambda: len(told) == len(sizes))
    committer.stop()
    segments.seal()
    (segment,) = segments.sealed()
    found = [f for f in scan(segment, 0, Path("/nowhere")) if isinstance(f, Recovered)]
    assert [(f.ref.length, f.damage) for f in found] == [(size, "") for size in sizes]
    segments.close()


def test_a_generation_used_twice_after_a_power_cut(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of a group whose sync was torn, a record could be on the disk and the header not.
    order: list[str] = []
    write, sync = system.write_all, system.sync_data

    def writing(fd: int, buffers: list[bytes], offset: int, flags: int = 0) -> int:
        order.append("header" if offset == 0 else f"record {flags}" if flags else "roll")
        return write(fd, buffers, offset, flags)

    def syncing(fd: int) -> None:
        order.append("sync")
        sync(fd)

    monkeypatch.setattr(system, "write_all", writing)
    monkeypatch.setattr(system, "sync_data", syncing)
    bench.commit(bench.job())
    durable = f"record {os.RWF_DSYNC}"
    assert order == ["header", "sync", "roll", "sync", durable]
    bench.commit(bench.job())
    assert order[5:] == [durable], "once for each life"
