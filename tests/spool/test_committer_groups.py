"""Group commit: what shares a group, and how its records lie."""

import itertools
import threading
from pathlib import Path

import pytest

from router.spool import system
from router.spool.committer import GROUP_LIMIT, Committer, Job
from router.spool.layout import BLOCK, FLAG_LARGE, FLAG_MOVED, crc32
from router.spool.segments import SegmentTable
from tests.spool.committing import SIZE, Bench
from tests.spool.spool_samples import KIB, PATIENCE, Loop, meta, payload

# -- groups ----------------------------------------------------------------------------------------


def test_jobs_that_come_during_a_sync_go_as_one_group(bench: Bench) -> None:
    bench.disk.hold.clear()
    bench.submit(bench.job())
    assert bench.disk.reached.wait(PATIENCE)
    bench.submit(*[bench.job() for _ in range(50)])
    bench.disk.hold.set()
    bench.wait(51)
    assert bench.groups == [1, 50]
    assert bench.disk.calls.count("sync") == 2, "of the header and the roll"
    assert bench.disk.calls.count("commit") == 2
    assert [job.id for job in bench.told] == list(range(1, 52))
    ends = [job.end for job in bench.told]
    assert ends == sorted(ends, key=lambda p: (p.generation, p.offset))


def test_groups_are_limited(bench: Bench) -> None:
    bench.disk.hold.clear()
    bench.submit(bench.job())
    assert bench.disk.reached.wait(PATIENCE)
    bench.submit(*[bench.job(10) for _ in range(GROUP_LIMIT + 5)])
    bench.disk.hold.set()
    bench.wait(GROUP_LIMIT + 6)
    assert bench.groups == [1, GROUP_LIMIT, 5]


def test_nothing_is_done_before_the_sync_returned(bench: Bench) -> None:
    bench.disk.hold.clear()
    job = bench.job()
    bench.submit(job)
    assert bench.disk.reached.wait(PATIENCE)
    assert bench.loop.calls.empty()
    assert (job.ref, job.end, job.error, bench.told) == (None, None, None, [])
    bench.disk.hold.set()
    bench.wait(1)
    assert job.ref is not None


def test_every_touched_segment_is_written_durably(bench: Bench) -> None:
    bench.disk.hold.clear()
    bench.submit(bench.job())
    assert bench.disk.reached.wait(PATIENCE)
    bench.submit(*[bench.job(100 * KIB) for _ in range(5)])
    bench.disk.hold.set()
    bench.wait(6)
    generations = {job.ref.generation for job in bench.told[1:]}
    assert len(generations) == 3
    assert bench.disk.calls.count("sync") == 6, "one for each header, one for the roll"
    assert bench.disk.calls.count("commit") == 1 + 3
    assert len(bench.found()) == 6


def test_owners_are_told_on_their_thread(bench: Bench) -> None:
    bench.commit(bench.job())
    assert bench.threads == {threading.current_thread().name}


def test_an_owner_that_raises_does_not_silence_the_others(bench: Bench) -> None:
    def raising(_: Job) -> None:
        raise ValueError("the association is gone")

    jobs = [bench.job() for _ in range(3)]
    jobs[1].done = raising
    bench.disk.hold.clear()
    bench.submit(bench.job())
    assert bench.disk.reached.wait(PATIENCE)
    bench.submit(*jobs)
    bench.disk.hold.set()
    with pytest.raises(ExceptionGroup) as caught:
        bench.wait(4)
    assert [str(e) for e in caught.value.exceptions] == ["the association is gone"]
    assert [job.id for job in bench.told] == [4, 1, 3]


def test_an_observer_that_raises_silences_nobody(bench: Bench) -> None:
    def raising(_: int, __: float) -> None:
        raise ValueError("no such metric")

    bench.committer._on_group = raising
    bench.submit(bench.job())
    with pytest.raises(ExceptionGroup):
        bench.wait(1)
    assert len(bench.told) == 1


def test_stopping_finishes_what_was_submitted(bench: Bench) -> None:
    bench.disk.hold.clear()
    bench.submit(bench.job())
    assert bench.disk.reached.wait(PATIENCE)
    bench.submit(*[bench.job() for _ in range(5)])
    stopping = threading.Thread(target=bench.committer.stop)
    stopping.start()
    bench.disk.hold.set()
    stopping.join(PATIENCE)
    bench.loop.run_ready()
    assert [job.error for job in bench.told] == [None] * 6


def test_stopping_what_never_started(tmp_path: Path, loop: Loop) -> None:
    threads = threading.active_count()
    Committer(SegmentTable(tmp_path, SIZE, 0), loop.post, lambda *_: None).stop()
    assert threading.active_count() == threads
    assert list(tmp_path.iterdir()) == []


# -- records ---------------------------------------------------------------------------------------


def test_records_are_as_their_jobs_said(bench: Bench) -> None:
    plain, empty, large = bench.job(5000), bench.job(0), bench.job(10**9 // 1000, flags=FLAG_LARGE)
    copy = bench.job(100, flags=FLAG_MOVED)
    copy.origin = 1
    bench.commit(plain, empty, large, copy)
    found = bench.found()
    for job in (plain, empty, large, copy):
        record = found[job.id]
        assert (record.ref, record.end) == (job.ref, job.end)
        assert record.meta == meta(job.id)
    assert (found[copy.id].moved, found[copy.id].origin) == (True, 1)
    assert found[plain.id].ref.crc == crc32(payload(plain.id, 5000))
    assert "missing" in found[large.id].damage
    assert large.ref.large


def test_copies_do_not_count_as_acknowledged(bench: Bench) -> None:
    bench.commit(plain := bench.job())
    bench.commit(bench.job(flags=FLAG_MOVED))
    active = bench.segments.active
    assert active.acked == plain.end.offset < active.used


def test_a_block_of_an_acknowledged_record_is_not_written_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: list[tuple[int, int]] = []
    real = system.write_all

    def writing(fd: int, buffers: list[bytes], offset: int, flags: int = 0) -> int:
        count = real(fd, buffers, offset, flags)
        if Path(f"/proc/self/fd/{fd}").readlink().suffix == ".seg":
            places.append((offset, offset + count))
        return count

    monkeypatch.setattr(system, "write_all", writing)
    for size in (1, 4000, 4096, 10_000, 0):
        bench.commit(bench.job(size))
    places.sort()
    assert all(offset % BLOCK == 0 for offset, _ in places)
    assert all(end <= after for (_, end), (after, _) in itertools.pairwise(places))
