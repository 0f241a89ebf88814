"""Upkeep: what may go goes, what may not stays, in an order in which a crash costs nothing."""

import threading
from pathlib import Path

import pytest

from router.spool import segments as segments_module
from router.spool import system
from router.spool.errors import SpoolDamaged, SpoolError, SpoolFull
from router.spool.index_types import DeliveryState, Filter, Outcome
from router.spool.record import Ref
from router.spool.segments import Segment
from tests.spool.conftest import OpenRig
from tests.spool.spool_samples import KIB, Rig, check_all, meta, payload

T0 = 1_700_000_000.0
LARGE = 300 * KIB


@pytest.fixture
def rig(open_rig: OpenRig) -> Rig:
    """With room for compaction."""
    made = open_rig(spare_segments=3)
    made.step()
    return made


def deliver(rig: Rig, refs: list[Ref], at: float = T0) -> None:
    rig.index.settle([Outcome(ref.id, "pacs", DeliveryState.DELIVERED, at) for ref in refs])


def fill(rig: Rig, count: int, size: int, *destinations: str) -> list[Ref]:
    """Instances, known to the index, in a segment that is then left."""
    refs = rig.commit_many(count, size, *destinations)
    rig.feed()
    rig.spool.segments.seal()
    return refs


def lives(rig: Rig) -> list[int]:
    return [segment.generation for segment in rig.spool.segments.sealed()]


def large_files(rig: Rig) -> set[int]:
    return {number for number, _ in rig.spool.large_files()}


def gone(rig: Rig, refs: list[Ref]) -> None:
    for ref in refs:
        rig.acked.pop(ref.id)


# -- nothing acknowledged may go -------------------------------------------------------------------


def test_instances_that_the_index_does_not_know_yet_are_kept(rig: Rig) -> None:
    # The index is written behind the answer; it may be slow, or fail for hours.
    refs = rig.commit_many(12, 60_000, "pacs")
    assert len({ref.generation for ref in refs}) == 3
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
    real = system.sync_data
    stepped: list[int] = []

    def stepping(fd: int) -> None:
        if threading.current_thread().name == "spool-commit" and not stepped:
            stepped.append(rig.keeper.step(2e9).recycled)
        real(fd)

    monkeypatch.setattr(system, "sync_data", stepping)
    blocker = threading.Event()
    first = rig.spool._committer._write_group

    def gathering(group: list[object]) -> None:
        blocker.wait(20)
        first(group)  # type: ignore[arg-type]

    monkeypatch.setattr(rig.spool._committer, "_write_group", gathering)
    outcomes = [rig.submit(payload(n, 100_000), meta(n, "pacs")) for n in range(1, 5)]
    blocker.set()
    rig.loop.run_until(lambda: all(outcome.told for outcome in outcomes))
    assert stepped == [0]
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
    assert rig.spool.segments.spare_bytes == 4 * 256 * KIB


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
    assert rig.keeper.sweep() == 1  # as the next start does


def test_wiping_is_done_when_asked(open_rig: OpenRig) -> None:
    rig = open_rig(wipe=True)
    ref = rig.commit(b"patient name" * 1000, meta(1, "pacs")).kept
    rig.feed()
    rig.spool.segments.seal()
    deliver(rig, [ref])
    assert rig.step().recycled == 1
    for path in (rig.spool.directory / "segments").iterdir():
        assert b"patient" not in path.read_bytes()


# -- compaction ------------------------------------------------------------------------------------


def sparse(rig: Rig, keep: int = 1) -> tuple[list[Ref], list[Ref]]:
    """A sealed segment of which only `keep` small instances live on."""
    refs = fill(rig, 10, 12_000, "pacs")
    deliver(rig, refs[keep:])
    gone(rig, refs[keep:])
    return refs[:keep], refs[keep:]


def test_live_records_are_copied_out_of_a_mostly_dead_segment(rig: Rig) -> None:
    kept, _ = sparse(rig, 3)
    large = fill(rig, 1, LARGE, "pacs")
    before = rig.spool.open_reader(kept[0])
    started = [memoryview(bytearray(5000))]
    before.read(started)
    moved = sum(rig.step().moved for _ in range(3))
    assert moved == 4
    for ref in (*kept, *large):
        assert rig.row(ref.id).ref.generation > ref.generation
        assert rig.read(ref) == rig.acked[ref.id][0], "a place of before leads nowhere"
    rest = [memoryview(bytearray(7000))]
    before.read(rest)
    assert bytes(started[0]) + bytes(rest[0]) == payload(0, 12_000)
    assert kept[0].generation in lives(rig), "recycled while it was being read"
    before.close()
    rig.step()
    assert kept[0].generation not in lives(rig)
    check_all(rig)
    assert rig.keeper.sweep() == 0
    check_all(rig)


def test_compaction_ends(rig: Rig) -> None:
    sparse(rig, 2)
    moved = [rig.step().moved for _ in range(6)]
    assert sum(moved) == 2
    assert moved[-1] == 0
    rig.spool.segments.seal()
    assert sum(rig.step().moved for _ in range(5)) == 2, "of the next sparse segment, once"


def test_a_fuller_segment_is_left_alone(rig: Rig) -> None:
    refs = fill(rig, 8, 12_000, "pacs")
    deliver(rig, refs[6:])
    assert rig.step().moved == 0


def test_without_room_nothing_is_copied(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    sparse(rig)
    rig.spool.segments.trim(0)
    monkeypatch.setattr(segments_module, "free_bytes", lambda _: 0)
    assert rig.step().moved == 0
    check_all(rig)


def test_a_damaged_record_stops_no_compaction(rig: Rig) -> None:
    # Tried with the others again every second, it would fill the disk with their copies.
    kept, _ = sparse(rig, 3)
    segment = rig.spool.segments.pin(kept[1].generation)
    assert segment is not None
    rig.spool.segments.unpin(segment)
    with segment.path.open("r+b") as file:
        file.seek(kept[1].data_offset + 100)
        file.write(b"rot")
    upkeep = rig.step()
    assert upkeep.moved == 2
    assert f"instance {kept[1].id}" in upkeep.trouble
    written = rig.spool.segments.active.used
    for _ in range(5):
        upkeep = rig.step()
        assert upkeep.moved == 0
        assert f"instance {kept[1].id}" in upkeep.trouble
    assert rig.spool.segments.active.used == written
    assert kept[1].generation in lives(rig), "the damaged one keeps its segment"
    rig.acked.pop(kept[1].id)
    check_all(rig)
    (other,), _ = sparse(rig, 1)
    for _ in range(3):
        rig.step()
    assert rig.row(other.id).ref.generation > other.generation, "it waits behind the damaged one"
    deliver(rig, [kept[1]])
    for _ in range(3):
        upkeep = rig.step()
    assert upkeep.trouble == ""
    assert kept[1].generation not in lives(rig)


def test_copies_made_before_a_failure_are_not_made_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, _ = sparse(rig, 4)
    real = rig.spool.relocate
    calls: list[int] = []

    def failing(ref: Ref) -> Ref:
        calls.append(ref.id)
        if len(calls) == 3:
            raise SpoolError("the disk is gone")
        return real(ref)

    monkeypatch.setattr(rig.spool, "relocate", failing)
    assert rig.step().trouble == "the disk is gone"
    places = [rig.row(ref.id).ref.generation > ref.generation for ref in kept]
    assert places == [True, True, False, False]
    rig.step()
    assert calls == [kept[0].id, kept[1].id, kept[2].id, kept[2].id, kept[3].id]
    check_all(rig)


def test_moves_that_the_index_does_not_note_are_no_moves(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, _ = sparse(rig, 2)

    def failing(_: object) -> None:
        raise SpoolError("the index cannot be written")

    with monkeypatch.context() as patch:
        patch.setattr(rig.index, "move", failing)
        assert "the index" in rig.step().trouble
    rig.spool.segments.seal()
    rig.step()
    check_all(rig)
    assert all(ref.id in rig.acked for ref in kept)


def test_relocating_what_is_gone_is_damage(rig: Rig) -> None:
    ref = Ref(1, 99, 4096, 5000, 10, 0)
    with pytest.raises(SpoolDamaged, match="is gone"):
        rig.spool.relocate(ref)


@pytest.mark.parametrize("flags", [False, True])
def test_relocation_keeps_the_bytes_and_the_description(open_rig: OpenRig, flags: bool) -> None:
    rig = open_rig()
    size = LARGE if flags else 0
    ref = rig.commit(payload(1, size), meta(1, "pacs")).kept
    rig.feed()
    for _ in range(3):  # a copy of a copy keeps its origin
        rig.spool.segments.seal()
        ref = rig.loop.in_thread(rig.spool.relocate, ref)
        rig.index.move([ref])
    rig.spool.segments.seal()
    latest = list(rig.spool.recover(None))[-1]
    assert latest.ref == ref
    assert (latest.moved, latest.origin, latest.damage) == (True, 1, "")
    assert latest.meta == meta(1, "pacs")
    check_all(rig)


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
    assert (large / "notes.dat").exists()
    for _ in range(3):
        again.step()
    assert len([note for note in again.spool.notes if "notes.dat" in note]) == 1
    again.acked = rig.acked
    check_all(again)


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


def test_more_than_a_step_is_done_at_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.spool.keeper._PURGE_STEP", 4)
    monkeypatch.setattr("router.spool.keeper._MOVE_STEP", 2)
    kept, _ = sparse(rig, 3)
    done = []
    while True:
        upkeep = rig.step()
        done.append((upkeep.purged, upkeep.moved))
        if not upkeep.again:
            break
    assert sum(purged for purged, _ in done) == 7
    assert sum(moved for _, moved in done) == 3
    assert len(kept) == 3
    check_all(rig)


def test_segments_are_told_apart_by_what_the_index_knows() -> None:
    segment = Segment(Path("x"), 1, 1 << 20, 5)
    assert segment.indexed(None)
