"""Compaction: live records are copied out of mostly-dead segments, and that comes to an end."""

import errno
import shutil
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import apsw
import pytest

from router.spool import segments as segments_module
from router.spool import spool as spool_module
from router.spool import system
from router.spool.errors import SpoolDamaged, SpoolError
from router.spool.index import Index
from router.spool.record import Ref
from tests.spool.conftest import OpenRig
from tests.spool.keeping import LARGE, deliver, fill, gone, lives
from tests.spool.spool_samples import KIB, Rig, check_all, meta, payload


@pytest.fixture
def rig(open_rig: OpenRig) -> Rig:
    """With room for compaction."""
    made = open_rig(spare_segments=3)
    made.step()
    return made


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


def test_sparse_segments_came_up_faster_than_one_was_copied_a_second(rig: Rig) -> None:
    # One small instance in each waits for a destination that is away, all others are delivered.
    for _ in range(6):
        refs = fill(rig, 8, 12_000, "pacs")
        deliver(rig, refs[1:])
        gone(rig, refs[1:])
    steps = [rig.step()]
    while steps[-1].again and len(steps) < 50:
        steps.append(rig.step())
    assert sum(step.moved for step in steps) == 6
    assert len(lives(rig)) <= 1, "what was copied out of is not waited for"
    assert steps[-1].moved == 0
    check_all(rig)


def test_a_fuller_segment_is_left_alone(rig: Rig) -> None:
    refs = fill(rig, 8, 12_000, "pacs")
    deliver(rig, refs[6:])
    assert rig.step().moved == 0


@pytest.mark.parametrize(
    ("count", "size", "room"),
    [(60, 200, 256), (60, 80_000, 256), (20, 3000, 40_000), (14, 80_000, 40_000)],
    ids=["small", "large", "small with long descriptions", "large with long descriptions"],
)
def test_fully_live_segments_are_not_copied_for_ever(
    rig: Rig, count: int, size: int, room: int
) -> None:
    # A block each, or a long description, fills a segment that has hardly a byte of data sets.
    refs = []
    for n in range(count):
        large = size > 64 * KIB
        what = meta(n, "pacs")._replace(reason="x" * (room - 256))
        done = rig.submit(payload(n, 3 * size if large else size), what)
        rig.loop.run_until(lambda done=done: done.told)
        refs.append(done.kept)
    rig.feed()
    if room == 256:
        assert len({ref.generation for ref in refs}) == 1
    moved = [rig.step().moved for _ in range(6)]
    rig.spool.segments.seal()
    moved += [rig.step().moved for _ in range(6)]
    assert moved == [0] * 12
    check_all(rig)


def test_what_fills_up_with_copies_is_not_copied_for_ever(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.spool.keeper._MOVE_STEP", 1)
    # Each guess, made from the next record, falls short of the rest: only what was copied tells.
    refs = fill(rig, 10, 200, "pacs")
    taken = {ref.id: 60 * KIB // (len(refs) - n) for n, ref in enumerate(refs)}
    monkeypatch.setattr(rig.spool, "record_bytes", lambda some: sum(taken[r.id] for r in some))
    moved = sum(rig.step().moved for _ in range(30))
    assert 1 <= moved <= 4
    check_all(rig)


def test_a_step_of_compaction_is_one_group_and_bounded_in_memory(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, _ = sparse(rig, 4)
    monkeypatch.setattr("router.spool.keeper._MOVE_BYTES", 3 * 12_000)
    rig.groups.clear()
    upkeep = rig.loop.in_thread(rig.keeper.step, 2e9)
    assert (upkeep.moved, upkeep.again) == (3, True)
    assert sum(rig.groups) == 3
    assert len(rig.groups) <= 2, "a sync and a round trip for each record"
    assert rig.step().moved == 1
    assert len(kept) == 4
    check_all(rig)


def test_without_room_nothing_is_copied(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    sparse(rig)
    rig.spool.segments.trim(0)
    for module in (segments_module, spool_module):
        monkeypatch.setattr(module, "free_bytes", lambda _: 0)
    assert rig.step().moved == 0
    check_all(rig)


@pytest.mark.parametrize("limit", ["max_size", "low_disk"])
@pytest.mark.parametrize("size", [1000, 40_000])
def test_what_little_waits_for_a_dead_destination_does_not_hold_a_full_spool(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch, limit: str, size: int
) -> None:
    most = 10 * 256 * KIB
    limits = {"max_size": most} if limit == "max_size" else {"low_disk": 1 << 30}
    rig = open_rig(**limits, keep_settled=1e9)
    if limit == "low_disk":

        def free() -> int:
            return (1 << 30) + most - rig.spool.segments.total_bytes

        monkeypatch.setattr(rig.spool, "free_bytes", free)
        monkeypatch.setattr(segments_module, "free_bytes", lambda _: free())
    waiting = []
    refused = ""
    while not refused:
        for _ in range(4):  # so many come in a second
            waiting.append(rig.commit(payload(0, size), meta(0, "pacs")).kept)
            deliver(rig, fill(rig, 3, 60_000, "pacs"))
        refused = rig.step(1e9).refusal
        assert len(waiting) < 200, "it is never full"
    assert limit in refused.replace("low disk", "low_disk")
    for _ in range(3):
        refused = rig.step(1e9).refusal
    assert not refused
    assert rig.spool.segments.total_bytes <= most + 6 * 256 * KIB
    for ref in waiting:
        assert rig.read(rig.row(ref.id).ref) == rig.acked[ref.id][0]


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

    def failing(refs: Sequence[Ref]) -> list[Ref | SpoolError]:
        first = not calls
        calls.extend(ref.id for ref in refs)
        if first:
            return [*real(refs[:2]), *[SpoolError("the disk is gone")] * 2]
        return real(refs)

    monkeypatch.setattr(rig.spool, "relocate", failing)
    assert rig.step().trouble == "the disk is gone"
    places = [rig.row(ref.id).ref.generation > ref.generation for ref in kept]
    assert places == [True, True, False, False]
    rig.step()
    assert calls == [ref.id for ref in (*kept, *kept[2:])]
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
        rig.relocate(ref)


@pytest.mark.parametrize("flags", [False, True])
def test_relocation_keeps_the_bytes_and_the_description(open_rig: OpenRig, flags: bool) -> None:
    rig = open_rig()
    size = LARGE if flags else 0
    ref = rig.commit(payload(1, size), meta(1, "pacs")).kept
    rig.feed()
    for _ in range(3):  # a copy of a copy keeps its origin
        rig.spool.segments.seal()
        ref = rig.relocate(ref)
        rig.index.move([ref])
    rig.spool.segments.seal()
    latest = list(rig.spool.recover(None))[-1]
    assert latest.ref == ref
    assert (latest.moved, latest.origin, latest.damage) == (True, 1, "")
    assert latest.meta == meta(1, "pacs")
    check_all(rig)


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


@pytest.mark.parametrize(
    ("failing", "order"), [(1, ""), (100, ""), (1, "resume")], ids=["once", "on and on", "order"]
)
def test_places_of_which_only_the_log_knew(
    rig: Rig,
    open_rig: OpenRig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failing: int,
    order: str,
) -> None:
    """Regression: of a COMMIT that failed all may be in the log, where the next start finds it.
    Copies of which nobody knew meanwhile were given up, and after a kill the index named them; at
    last where an order came in between that had nothing to change, and so wrote nothing."""
    kept, _ = sparse(rig, 3)
    log, unseen = tmp_path / "index.sqlite-wal", tmp_path / "unseen"
    move = rig.index.move
    written = [b""]

    def moving(refs: Sequence[Ref]) -> None:
        if refs and not unseen.exists():
            unseen.mkdir()
            for path in tmp_path.glob("index.sqlite*"):
                if not path.name.endswith("-shm"):
                    shutil.copy(path, unseen)
            with closing(Index.open(unseen / "index.sqlite")) as index:
                index.move(refs)
            rig.index._db._connection = _NoCommit(rig.index._db._connection, failing)  # type: ignore[assignment]
        try:
            move(refs)
        finally:
            written[0] = log.read_bytes() if refs else written[0]

    monkeypatch.setattr(rig.index, "move", moving)
    assert "disk I/O error" in rig.step().trouble
    if order:
        assert not rig.index.resume("vna", at=1.0), "it was not paused"

    def refusing(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(system, "write_blocks", refusing)
        assert rig.commit(payload(9, 3000), meta(9, "pacs")).error is not None
        with suppress(SpoolError):  # no spare segment can be made either
            rig.step()  # the segment of the copies, which the disk failed, is left
        shutil.copytree(tmp_path / "spool", tmp_path / "after" / "spool")
    survived = unseen if log.read_bytes() == written[0] else tmp_path
    for path in survived.glob("index.sqlite*"):
        if not path.name.endswith("-shm"):
            shutil.copy(path, tmp_path / "after")
    monkeypatch.undo()
    after = open_rig(tmp_path / "after")
    after.acked = rig.acked
    check_all(after, [ref.id for ref in kept])


class _NoCommit:
    """A connection of which so many transactions cannot be committed."""

    def __init__(self, real: apsw.Connection, times: int) -> None:
        self._real, self._times = real, times

    def execute(self, sql: str, *parameters: Any) -> Any:
        if sql == "COMMIT" and self._times:
            self._times -= 1
            raise apsw.IOError("disk I/O error")
        return self._real.execute(sql, *parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)
