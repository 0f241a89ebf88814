"""Upkeep: what may go goes, what may not stays, in an order in which a crash costs nothing."""

import errno
import os
import threading
from pathlib import Path

import apsw
import pytest

from router.spool import segments as segments_module
from router.spool import system
from router.spool.errors import SpoolError, SpoolFull
from router.spool.index_types import DeliveryState, Filter, Outcome
from router.spool.segment import Segment
from tests.spool.conftest import OpenRig
from tests.spool.keeping import LARGE, T0, deliver, fill, gone, large_files, lives
from tests.spool.spool_samples import KIB, Rig, check_all, meta, payload, settle


@pytest.fixture
def rig(open_rig: OpenRig) -> Rig:
    """With room for compaction."""
    made = open_rig(spare_segments=3)
    made.step()
    return made


# -- nothing acknowledged may go -------------------------------------------------------------------


def test_instances_that_the_index_does_not_know_yet_are_kept(rig: Rig) -> None:
    # The index is written behind the answer; it may be slow, or fail for hours.
    refs = rig.commit_many(12, 60_000, "pacs")
    assert len({ref.generation for ref in refs}) == 4
    for _ in range(3):
        upkeep = rig.step()
        assert (upkeep.recycled, upkeep.purged) == (0, 0)
    for n, ref in enumerate(refs):
        assert rig.read(ref) == payload(n, 60_000)
    rig.feed()
    rig.step()
    check_all(rig)


def test_a_segment_half_known_to_the_index_is_kept(rig: Rig) -> None:
    first = rig.commit(payload(1, 1000), meta(1, "pacs")).kept
    rig.feed()
    second = rig.commit(payload(2, 1000), meta(2, "pacs")).kept
    rig.spool.segments.seal()
    deliver(rig, [first])
    assert rig.step().purged == 1
    assert rig.read(second) == payload(2, 1000)
    rig.feed()
    gone(rig, [first])
    check_all(rig)
    deliver(rig, [second])
    assert rig.step().recycled == 1


def test_a_group_under_way_keeps_the_segment_that_it_left(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = rig.commit(payload(0, 1000), meta(0, disposition="discard")).kept
    rig.feed()
    real = system.write_blocks
    stepped: list[int] = []

    def stepping(fd: int, buffers: list[memoryview], offset: int, *, durably: bool = False) -> None:
        if threading.current_thread().name == "spool-commit":
            stepped.append(rig.keeper.step(2e9).recycled)
        real(fd, buffers, offset, durably=durably)

    monkeypatch.setattr(system, "write_blocks", stepping)
    blocker = threading.Event()
    first = rig.spool._committer._write_group

    def gathering(group: list[object]) -> None:
        blocker.wait(20)
        first(group)  # type: ignore[arg-type]

    monkeypatch.setattr(rig.spool._committer, "_write_group", gathering)
    outcomes = [rig.submit(payload(n, 100_000), meta(n, "pacs")) for n in range(1, 5)]
    blocker.set()
    rig.loop.run_until(lambda: all(outcome.told for outcome in outcomes))
    assert len(stepped) > 1
    assert not any(stepped)
    gone(rig, [old])
    rig.feed()
    check_all(rig)


@pytest.mark.parametrize("state", [DeliveryState.READY, DeliveryState.DEAD, DeliveryState.HELD])
def test_what_is_not_settled_stays_under_any_pressure(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch, state: DeliveryState
) -> None:
    rig = open_rig(max_size=1)
    refs = [*fill(rig, 3, 1000, "pacs"), *fill(rig, 1, LARGE, "pacs")]
    if state is DeliveryState.DEAD:
        rig.index.settle([Outcome(r.id, "pacs", DeliveryState.DEAD, T0) for r in refs])
    if state is DeliveryState.HELD:
        rig.index.hold(Filter(), at=T0)
    monkeypatch.setattr(rig.spool, "free_bytes", lambda: 0)
    for _ in range(3):
        assert rig.step().purged == 0
    rig.acked = {k: v for k, v in rig.acked.items() if k in {r.id for r in refs}}
    check_all(rig)


# -- retention -------------------------------------------------------------------------------------


def test_settled_instances_are_kept_for_their_time(open_rig: OpenRig) -> None:
    rig = open_rig(keep_settled=100.0)
    refs = [*fill(rig, 2, 1000, "pacs"), *fill(rig, 2, LARGE, "pacs")]
    deliver(rig, refs)
    assert rig.step(T0 + 99.9).purged == 0
    check_all(rig)
    upkeep = rig.step(T0 + 100.1)
    assert (upkeep.purged, upkeep.recycled) == (4, 2)
    assert upkeep.trouble == ""
    assert large_files(rig) == set()
    assert lives(rig) == []


def test_pressure_takes_settled_instances_early(open_rig: OpenRig) -> None:
    rig = open_rig(keep_settled=1e6, max_size=10 * KIB)
    settled, waiting = fill(rig, 2, 1000, "pacs"), fill(rig, 2, 2000, "pacs")
    deliver(rig, settled)
    upkeep = rig.step(T0 + 1)
    assert upkeep.purged == 2
    gone(rig, settled)
    check_all(rig)
    assert "max_size" in upkeep.refusal
    deliver(rig, waiting)
    assert rig.step(T0 + 1).refusal == ""


@pytest.mark.parametrize("max_size", [10 * KIB, None])
def test_a_clock_that_was_set_back_keeps_nothing_under_pressure(
    open_rig: OpenRig, max_size: int | None
) -> None:
    rig = open_rig(keep_settled=0.0, max_size=max_size)
    deliver(rig, fill(rig, 2, 1000, "pacs"), at=T0 + 3600)
    upkeep = rig.step(T0)
    assert upkeep.purged == (2 if max_size else 0)
    assert upkeep.refusal == "", "refused until the clock has caught up"


def test_max_size_refuses_and_recovers(open_rig: OpenRig) -> None:
    rig = open_rig(max_size=600 * KIB)
    assert rig.step(T0).refusal == ""
    refs = fill(rig, 1, 2 * LARGE, "pacs")
    upkeep = rig.step(T0)
    assert "max_size" in upkeep.refusal
    assert upkeep.used >= 2 * LARGE
    deliver(rig, refs)
    upkeep = rig.step(T0)
    assert (upkeep.purged, upkeep.refusal) == (1, "")
    assert large_files(rig) == set()


def test_low_disk_refuses_and_recovers_by_itself(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = open_rig(low_disk=10 << 20, spare_segments=3)
    rig.step(T0)
    assert rig.spool.segments.spare_bytes == 3 * 256 * KIB
    free = 9 << 20
    monkeypatch.setattr(rig.spool, "free_bytes", lambda: free)
    monkeypatch.setattr(segments_module, "free_bytes", lambda _: free)
    upkeep = rig.step(T0)
    assert "low disk" in upkeep.refusal
    assert upkeep.free == free
    free = 10 << 20
    assert rig.step(T0).refusal == ""
    free = 0
    refs = fill(rig, 2, 1000, "pacs")  # what is under way is still taken, from the pool
    assert rig.step(T0).refusal != ""
    deliver(rig, refs)
    assert rig.step(T0).purged == 2
    free = 50 << 20
    assert rig.step(T0).refusal == ""


def test_recycled_segments_above_the_pool_are_given_back_when_the_disk_is_low(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = open_rig(low_disk=10 << 20)
    refs = [ref for _ in range(5) for ref in fill(rig, 2, 1000, "pacs")]
    deliver(rig, refs)
    assert rig.step(T0).recycled == 5
    assert len(list((rig.spool.directory / "segments").iterdir())) == 5
    monkeypatch.setattr(rig.spool, "free_bytes", lambda: 0)
    rig.step(T0)
    assert len(list((rig.spool.directory / "segments").iterdir())) == 1


def test_max_size_is_not_filled_with_spares(open_rig: OpenRig) -> None:
    rig = open_rig(max_size=1100 * KIB, spare_segments=50)
    upkeep = rig.step()
    assert upkeep.used <= 1100 * KIB
    assert upkeep.refusal == ""
    assert rig.spool.segments.spare_bytes == 2 * 256 * KIB, "half of it at most"


def test_max_size_with_room_for_two_spares_only_gets_two(open_rig: OpenRig) -> None:
    rig = open_rig(max_size=600 * KIB, spare_segments=50)
    assert rig.step().used <= 600 * KIB
    assert rig.spool.segments.spare_bytes == 2 * 256 * KIB


def spares(rig: Rig) -> int:
    return rig.spool.segments.spare_bytes // (256 * KIB)


def test_while_instances_come_in_only_two_spares_are_made(open_rig: OpenRig) -> None:
    rig = open_rig(spare_segments=6)
    rig.step(T0)
    assert spares(rig) == 6
    rig.commit_many(20, 60_000, "pacs")  # more than five segments of them
    assert spares(rig) <= 1
    rig.step(T0)
    assert spares(rig) == 2
    rig.commit(payload(1, 1000), meta(1))  # little is no reason to wait
    rig.step(T0)
    assert spares(rig) == 6


def test_a_disk_with_little_room_gets_two_spares_and_keeps_them(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = open_rig(low_disk=10 << 20, spare_segments=6)
    size = rig.spool.segments.size

    def free() -> int:
        return (10 << 20) + 4 * size - rig.spool.segments.total_bytes

    monkeypatch.setattr(rig.spool, "free_bytes", free)
    rig.step(T0)
    assert spares(rig) == 4, "as many as leave low_disk free"
    monkeypatch.setattr(rig.spool, "free_bytes", lambda: free() - 2 * size)
    for _ in range(4):  # no segment is made only to be removed again
        rig.step(T0)
        assert spares(rig) == 2


def test_at_a_start_on_a_full_disk_spares_give_way_to_the_index(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: SQLite could not open the index, and nothing was sent that would have made
    room."""
    rig = open_rig(spare_segments=6)
    (ref,) = fill(rig, 1, 1000, "pacs")
    for _ in range(2):
        rig.step(T0)
    assert spares(rig) == 6
    rig.close()
    with monkeypatch.context() as patch:
        patch.setattr(segments_module, "free_bytes", lambda _: 1 << 20)
        again = open_rig(spare_segments=6)
    assert spares(again) == 0
    assert any("6 spare segments were removed" in note for note in again.spool.notes)
    again.acked = rig.acked
    check_all(again, [ref.id])


def test_at_a_start_no_more_spares_give_way_than_it_takes(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others on the disk would fill what is given up, and nothing could come in."""
    rig = open_rig(spare_segments=6)
    rig.step(T0)
    assert spares(rig) == 6
    size = rig.spool.segments.size
    rig.close()

    def free(directory: Path) -> int:
        return (16 << 20) - (len(list(directory.glob("*.seg"))) - 4) * size

    with monkeypatch.context() as patch:
        patch.setattr(segments_module, "free_bytes", free)
        again = open_rig(spare_segments=6)
    assert spares(again) == 4
    assert any("2 spare segments were removed" in note for note in again.spool.notes)


def test_a_short_pool_is_told(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.spool.segments.trim(0)
    monkeypatch.setattr(segments_module, "free_bytes", lambda _: 0)
    with pytest.raises(SpoolFull, match="the pool of segments is short"):
        rig.keeper.supply()


# -- order -----------------------------------------------------------------------------------------


def test_rows_are_gone_durably_before_their_bytes(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = [*fill(rig, 2, 1000, "pacs"), *fill(rig, 1, LARGE, "pacs")]
    deliver(rig, refs)
    order: list[str] = []

    def noting(place: object, name: str) -> None:
        real = getattr(place, name)

        def call(*arguments: object, **more: object) -> object:
            order.append(name)
            return real(*arguments, **more)

        monkeypatch.setattr(place, name, call)

    noting(rig.index, "purge")
    noting(rig.index, "barrier")
    noting(rig.spool, "remove_large")
    noting(rig.spool.segments, "recycle")
    rig.step()
    assert order == ["purge", "barrier", "remove_large", "recycle", "recycle"]
    order.clear()
    rig.step()
    assert order == ["purge"], "a barrier costs a sync: none without need"


def test_without_the_barrier_nothing_is_given_up(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    refs = [*fill(rig, 2, 1000, "pacs"), *fill(rig, 1, LARGE, "pacs")]
    deliver(rig, refs)

    def failing() -> None:
        raise SpoolError("the journal cannot be synced")

    with monkeypatch.context() as patch:
        patch.setattr(rig.index, "barrier", failing)
        upkeep = rig.step()
    assert upkeep.trouble == "the journal cannot be synced"
    assert upkeep.recycled == 0
    assert large_files(rig) == {refs[2].id}
    for ref in refs:
        assert len(rig.read(ref)) == ref.length
    rig.step()
    assert lives(rig) == []
    assert large_files(rig) == set()
    assert rig.keeper.sweep() == 0


def test_files_of_purged_instances_are_not_forgotten_when_one_cannot_be_removed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = fill(rig, 4, LARGE, "pacs")
    deliver(rig, refs)
    real = Path.unlink
    failing = {f"{refs[n].id:016x}.dat" for n in (0, 2)}

    def unlinking(path: Path, missing_ok: bool = False) -> None:
        if path.name in failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlinking)
        upkeep = rig.step()
        assert upkeep.purged == 4
        assert upkeep.recycled == 1, "a file that stays keeps a segment from being used again"
        assert f"instance {refs[0].id}" in upkeep.trouble
        assert f"instance {refs[2].id}" in upkeep.trouble
        assert large_files(rig) == {refs[0].id, refs[2].id}
        failing.pop()
        assert len(large_files(rig)) == 2
        assert rig.step().trouble != ""
        assert len(large_files(rig)) == 1
    assert rig.step().trouble == ""
    assert large_files(rig) == set()
    assert rig.spool.large_bytes() == 0


def test_a_segment_that_cannot_be_recycled_does_not_keep_the_others(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = fill(rig, 1, 1000, "pacs"), fill(rig, 1, 1000, "pacs")
    deliver(rig, [*first, *second])
    real = rig.spool.segments._end_life

    def ending(segment: Segment, *, wipe: bool) -> None:
        if segment.generation == first[0].generation:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(segment, wipe=wipe)

    monkeypatch.setattr(rig.spool.segments, "_end_life", ending)
    upkeep = rig.step()
    assert upkeep.recycled == 1
    assert "recycling segment" in upkeep.trouble
    assert lives(rig) == [first[0].generation]


def test_wiping_is_done_when_asked(open_rig: OpenRig) -> None:
    rig = open_rig(wipe=True)
    ref = rig.commit(b"patient name" * 1000, meta(1, "pacs")).kept
    rig.feed()
    rig.spool.segments.seal()
    deliver(rig, [ref])
    assert rig.step().recycled == 1
    for path in (rig.spool.directory / "segments").iterdir():
        assert b"patient" not in path.read_bytes()


# -- files of their own ----------------------------------------------------------------------------


def test_files_that_were_never_committed_are_swept_at_start(open_rig: OpenRig) -> None:
    rig = open_rig()
    kept = rig.commit(payload(1, LARGE), meta(1, "pacs")).kept
    rig.close()
    large = rig.spool.large_directory
    (large / f"{99:016x}.dat").write_bytes(b"half of one")
    (large / "notes.dat").write_text("mine")
    again = open_rig()
    assert again.keeper.sweep() == 1
    assert large_files(again) == {kept.id}
    (line,) = [note for note in again.spool.notes if "no record names them" in note]
    assert line.endswith("instances 99"), "it was removed without a word"
    assert (large / "notes.dat").exists()
    for _ in range(3):
        again.step()
    assert len([note for note in again.spool.notes if "notes.dat" in note]) == 1
    again.acked = rig.acked
    check_all(again)


def test_a_file_that_cannot_be_swept_does_not_keep_the_gateway_from_starting(
    open_rig: OpenRig,
) -> None:
    rig = open_rig(start=False)
    large = rig.spool.large_directory
    (large / f"{8:016x}.dat").mkdir()
    (large / f"{9:016x}.dat").write_bytes(b"half of one")
    rig.start()
    assert rig.keeper.sweep() == 1
    assert any(f"{8:016x}.dat" in note for note in rig.spool.notes)
    assert rig.step().trouble == ""


def test_files_are_swept_only_when_it_is_durable_that_nobody_has_them(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: of what was purged just before a kill a power cut could bring the row back, as of
    something that waits, and its file was gone."""
    rig = open_rig()
    (rig.spool.large_directory / f"{9:016x}.dat").write_bytes(b"of one that was purged")

    def broken() -> None:
        raise SpoolError("cannot sync the index")

    with monkeypatch.context() as patch:
        patch.setattr(rig.index, "barrier", broken)
        assert rig.keeper.sweep() == 0
        assert "cannot sync the index" in rig.step().trouble
    assert large_files(rig) == {9}
    assert "not gone yet" in rig.spool.notes[-1]
    assert rig.step().trouble == ""
    assert large_files(rig) == set()


def test_the_bytes_of_large_files_are_counted_not_looked_up(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def there(rig: Rig) -> int:
        return sum(path.stat().st_size for path in rig.spool.large_directory.iterdir())

    rig = open_rig()
    refs = fill(rig, 3, LARGE, "pacs")
    arriving = rig.begin()
    arriving.append(memoryview(payload(9, 3 * LARGE)))
    arriving.append(memoryview(payload(9, 3 * LARGE)))
    settle(rig)
    assert rig.spool.large_bytes() == there(rig) > 3 * LARGE
    arriving.abandon()
    settle(rig)
    assert rig.spool.large_bytes() == there(rig) == 3 * LARGE
    deliver(rig, refs[:1])
    rig.step()
    assert rig.spool.large_bytes() == there(rig) == 2 * LARGE
    real = system.write_all

    def failing(fd: int, buffers: list[memoryview], offset: int) -> int:
        if threading.current_thread().name.startswith("spool-large"):
            real(fd, [memoryview(bytes(100))], offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, buffers, offset)

    with monkeypatch.context() as patch:
        patch.setattr(system, "write_all", failing)
        assert rig.commit(payload(1, LARGE), meta(1)).error is not None
        settle(rig)
    assert rig.spool.large_bytes() == there(rig) == 2 * LARGE
    rig.close()
    (rig.spool.large_directory / f"{99:016x}.dat").write_bytes(b"half of one")
    again = open_rig()
    assert again.spool.large_bytes() == there(again) == 2 * LARGE + 11
    again.keeper.sweep()
    assert again.spool.large_bytes() == there(again) == 2 * LARGE
    with monkeypatch.context() as patch:
        patch.setattr(Path, "glob", None)
        assert again.step().used >= 2 * LARGE


def test_a_file_that_goes_meanwhile_stops_no_upkeep(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An abandoned instance's file is removed by another thread at any time.
    ghost = rig.spool.large_directory / f"{5:016x}.dat"
    real = Path.stat

    def stat(self: Path, **more: bool) -> object:
        if self == ghost:
            ghost.unlink(missing_ok=True)
        return real(self, **more)

    ghost.write_bytes(b"x")
    monkeypatch.setattr(Path, "stat", stat)
    assert rig.step().trouble == ""
    assert not ghost.exists()


def test_segments_are_told_apart_by_what_the_index_knows() -> None:
    segment = Segment(Path("x"), 1, 1 << 20, 5)
    assert segment.indexed(None)


class _NoWayBack:
    """A connection whose checkpoints fail; those that SQLite makes by itself say nothing."""

    def __init__(self, real: apsw.Connection) -> None:
        self._real = real

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    def execute(self, sql: str, *parameters: object) -> apsw.Cursor:
        if "wal_checkpoint" in sql:
            raise apsw.IOError("disk I/O error")
        return self._real.execute(sql, *parameters)


def test_a_log_that_only_grows_is_told_of_by_the_upkeep(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.commit(payload(1, 100), meta(1, "pacs"))
    rig.feed()
    assert rig.step().trouble == ""
    monkeypatch.setattr("router.spool.index_database._LONG_LOG", 0)
    assert rig.step().trouble == ""
    database = rig.index._db
    with monkeypatch.context() as patch:
        patch.setattr(database, "_connection", _NoWayBack(database._connection))
        assert "disk I/O error" in rig.step().trouble
    assert rig.step().trouble == ""
