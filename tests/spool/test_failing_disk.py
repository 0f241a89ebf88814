"""Faults of the disk and what they had led to, each by the name of what happened."""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from router.spool import keeper as keeper_module
from router.spool import sqlite
from router.spool.errors import SpoolDamaged, SpoolError, SpoolFull, SpoolLocked
from router.spool.index import Filter, Index
from router.spool.index_types import AddResult
from router.spool.record import Ref
from router.spool.spool import Spool, lock_directory
from tests.spool.conftest import OpenRig
from tests.spool.faults import Call, Fault, Seam
from tests.spool.keeping import deliver, fill, lives
from tests.spool.spool_samples import (
    KIB,
    Loop,
    Rig,
    check_all,
    meta,
    payload,
    settings,
    settle,
)


def failing(rig: Rig, what: str, where: str, code: int = errno.EIO, **more: Any) -> Seam:
    """A seam under which the first such call fails."""
    return Seam(rig.directory, Fault(Call("", what, where, 1), code, **more))


# -- at the start


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.EMFILE])
@pytest.mark.parametrize("name", ["segments", "large"])
def test_a_directory_that_could_not_be_listed_was_taken_for_an_empty_one(
    open_rig: OpenRig, tmp_path: Path, loop: Loop, name: str, code: int
) -> None:
    rig = open_rig()
    rig.commit_many(2, 100_000, "pacs")
    rig.close()
    seam = Seam(tmp_path, Fault(Call("", "list", f"spool/{name}", 1), code))
    with seam.watching(), pytest.raises(SpoolError, match=f"reading .*{name}"):
        Rig(tmp_path, loop, settings()).start()
    assert seam.struck


def test_a_lock_that_cannot_be_had_was_taken_for_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", no_locks)
        with pytest.raises(SpoolError, match=r"locking the spool in .*: No locks") as caught:
            lock_directory(tmp_path)
    assert not isinstance(caught.value, SpoolLocked)
    lock = lock_directory(tmp_path)
    with pytest.raises(SpoolLocked, match=f"in use by process {os.getpid()}"):
        lock_directory(tmp_path)
    lock.close()


@pytest.mark.parametrize(
    ("code", "fix"),
    [(errno.EROFS, "mount its file system writable"), (errno.EACCES, "give the user")],
)
def test_a_start_where_nothing_can_be_written_says_what_to_do(
    tmp_path: Path, code: int, fix: str
) -> None:
    seam = Seam(tmp_path, Fault(Call("", "create", "spool/lock", 1), code))
    with seam.watching(), pytest.raises(SpoolError, match=fix) as caught:
        lock_directory(tmp_path / "spool")
    assert os.strerror(code) in str(caught.value)
    assert "or set another data_dir" in str(caught.value)


def test_what_lay_in_a_file_unread_at_the_start_went_to_the_dead_letters(
    open_rig: OpenRig, tmp_path: Path
) -> None:
    rig = open_rig()
    (ref,) = rig.commit_many(1, 5000, "pacs")
    rig.feed()
    rig.close()
    with Seam(tmp_path, Fault(Call("", "stat", "a segment", 1))).watching():
        again = open_rig()
    with pytest.raises(SpoolError, match="could not be read at the start") as caught:
        again.read(ref)
    assert not isinstance(caught.value, SpoolDamaged), "that is for what is lost for good"
    again.close()
    again = open_rig()
    again.acked = rig.acked
    check_all(again)


# -- writing


def test_the_thread_that_commits_ended_with_a_close_that_failed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[int] = []
    real = os.close

    def closing(descriptor: int) -> None:
        closed.append(descriptor)
        real(descriptor)  # raises for one that is closed already
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", closing)
        for number in range(4):  # more than a segment takes
            assert rig.commit(payload(number, 60_000), meta(number, "pacs")).error is None
        assert rig.commit(payload(9, 300_000), meta(9, "pacs")).error is None
        abandoned = rig.begin()
        abandoned.append(memoryview(payload(10, 2_000_000)))
        abandoned.abandon()
        settle(rig)
    assert len(closed) > 4
    assert rig.commit(payload(11, 10), meta(11, "pacs")).error is None
    rig.feed()
    check_all(rig)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EROFS])
def test_spare_segments_were_destroyed_one_by_one_for_no_fault_of_theirs(
    rig: Rig, code: int
) -> None:
    before = sorted((rig.directory / "spool" / "segments").iterdir())
    for _ in range(3):
        with failing(rig, "open", "a segment", code).watching():
            error = rig.commit(b"x", meta(1)).error
        assert isinstance(error, SpoolFull) == (code == errno.EMFILE)
    assert sorted((rig.directory / "spool" / "segments").iterdir()) == before
    assert rig.commit(b"x", meta(1)).error is None


def test_a_segment_that_the_disk_failed_came_back_for_another_life(rig: Rig) -> None:
    kept = rig.commit(payload(1, 5000), meta(1, "pacs")).kept
    failed = {path.name for path in (rig.directory / "spool" / "segments").iterdir()}
    with failing(rig, "write and sync", "a segment").watching():
        assert rig.commit(payload(2, 5000), meta(2, "pacs")).error is not None
    after = rig.commit(payload(3, 5000), meta(3, "pacs")).kept
    assert after.generation > kept.generation
    rig.feed()
    rig.step()
    check_all(rig)
    deliver(rig, [kept])
    assert rig.step().recycled == 1
    left = {path.name for path in (rig.directory / "spool" / "segments").iterdir()}
    assert not failed & left


def test_a_segment_half_made_stayed_when_it_could_not_be_removed(rig: Rig) -> None:
    directory = rig.directory / "spool" / "segments"
    seam = failing(rig, "allocate", "a segment", lasting=True)
    rig.commit_many(4, 60_000, "pacs")  # the spare is in use
    with seam.watching(), pytest.raises(SpoolError, match="making segment"):
        rig.loop.in_thread(rig.spool.segments.refill, 3)
    assert sum(p.stat().st_size for p in directory.iterdir()) >= rig.spool.segments.total_bytes
    rig.loop.in_thread(rig.spool.segments.refill, 3)
    assert sum(p.stat().st_size for p in directory.iterdir()) == rig.spool.segments.total_bytes
    assert len(list(directory.iterdir())) == len(lives(rig)) + 2, "one more that nobody knows"


def test_the_file_of_an_abandoned_instance_stayed_until_the_next_start(rig: Rig) -> None:
    with failing(rig, "remove", "a large file").watching():
        writer = rig.begin()
        writer.append(memoryview(payload(1, 2_000_000)))
        settle(rig)
        writer.abandon()
        settle(rig)
    assert len(list(rig.spool.large_files())) == 1
    assert rig.spool.large_bytes() > 0
    rig.step()
    assert not list(rig.spool.large_files())
    assert rig.spool.large_bytes() == 0


# -- readiness


@pytest.mark.parametrize(
    ("what", "where", "size"),
    [("write and sync", "a segment", 100), ("write", "a large file", 200_000)],
)
def test_readiness_said_yes_while_every_instance_was_refused(
    rig: Rig, what: str, where: str, size: int
) -> None:
    rig.commit(b"x", meta(1))
    assert rig.spool.trouble == ""
    seam = failing(rig, what, where, lasting=True)
    with seam.watching():
        error = rig.commit(payload(2, size), meta(2)).error
        assert str(error) == rig.spool.trouble
        upkeep = rig.loop.in_thread(rig.keeper.step, 2e9)
        assert str(error) in upkeep.trouble, "and in the log"
        assert rig.spool.trouble, "the disk was tried, and still takes nothing"
        seam.mend()
        rig.step()  # a spare segment is made behind it
        assert rig.step().trouble == ""
    assert rig.spool.trouble == ""
    assert not (rig.directory / "spool" / "probe").exists()


def test_a_success_ends_the_trouble_without_a_probe(rig: Rig) -> None:
    with failing(rig, "create", "a large file").watching():
        rig.commit(payload(2, 200_000), meta(2))
    assert rig.spool.trouble
    assert rig.commit(payload(2, 200_000), meta(2)).error is None
    assert rig.spool.trouble == ""


# -- upkeep


def test_one_read_that_failed_ended_compaction_until_the_next_start(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = open_rig(spare_segments=3)
    monkeypatch.setattr(keeper_module, "_TRY_AGAIN", 3)
    refs = fill(rig, 4, 50_000, "pacs")
    for _ in range(3):
        rig.step()  # there is room for a copy
    deliver(rig, refs[1:])
    (generation,) = lives(rig)
    with failing(rig, "read", "a segment").watching():
        upkeep = rig.step()
    assert (upkeep.moved, "reading instance" in upkeep.trouble) == (0, True)
    steps = [rig.step() for _ in range(6)]
    assert sum(step.moved for step in steps) == 1
    assert steps[-1].trouble == ""
    assert generation not in lives(rig)
    assert rig.read(rig.row(refs[0].id).ref) == rig.acked[refs[0].id][0]


def test_files_of_purged_instances_were_forgotten_when_the_index_failed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = fill(rig, 2, 300 * KIB, "pacs")
    deliver(rig, refs)

    def broken() -> None:
        raise SpoolError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(rig.index, "generations_in_use", broken)
        with pytest.raises(SpoolError):
            rig.step()
    assert len(list(rig.spool.large_files())) == 2
    rig.step()
    assert not list(rig.spool.large_files())


def test_a_second_sync_was_trusted_after_one_that_failed(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = fill(rig, 3, 5000, "pacs")
    deliver(rig, refs)
    with failing(rig, "sync", "the index's log").watching():
        assert "cannot sync" in rig.step().trouble
    assert rig.step().recycled == 1
    # What the kernel dropped from the log is the database's by now: without its log it still says
    # that the rows are gone.
    alone = tmp_path / "alone" / "index.sqlite"
    alone.parent.mkdir()
    shutil.copy(rig.directory / "index.sqlite", alone)
    index = Index.open(alone)
    assert index.instances(Filter(), 10) == []
    assert index.last_id() == refs[-1].id
    index.close()


def test_nothing_is_given_up_while_the_log_cannot_be_written_back(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = fill(rig, 3, 5000, "pacs")
    deliver(rig, refs)
    with failing(rig, "sync", "the index's log").watching():
        rig.step()
    other = sqlite.connect(rig.directory / "index.sqlite")  # it reads, so the log cannot end
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM instance").fetchone()
    rig.index._db._connection.execute("PRAGMA busy_timeout = 10")
    upkeep = rig.step()
    assert (upkeep.recycled, "could not be written back" in upkeep.trouble) == (0, True)
    other.execute("ROLLBACK")
    other.close()
    assert rig.step().recycled == 1


# -- the index


def test_a_transaction_that_failed_late_stopped_the_feed_for_ever(rig: Rig) -> None:
    rig.commit_many(1, 1000, "pacs")
    rig.feed()
    refs = rig.commit_many(3, 1000, "pacs")
    entries = [(ref, what) for ref, what, _ in rig.ends]
    end = rig.ends[-1][2]
    rig.ends.clear()

    def add() -> Any:
        return rig.index.add(
            entries, end, suppress_duplicates=False, same_bytes=rig.spool.same_bytes
        )

    transaction = rig.index._db.transaction
    rig.index._db.transaction = lambda: _Late(transaction())  # type: ignore[method-assign]
    with pytest.raises(SpoolError, match="late"):
        add()
    rig.index._db.transaction = transaction  # type: ignore[method-assign]
    assert rig.index.known([ref.id for ref in refs]), "it was done"
    assert add().deliveries.keys() == {"pacs"}, "or its queue is not woken"
    check_all(rig)
    assert rig.index.account(audit=True).balanced
    assert rig.index.indexed_position() == end


class _Late:
    """A transaction that is committed, and then said to have failed."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __enter__(self) -> None:
        self._real.__enter__()

    def __exit__(self, *what: Any) -> None:
        self._real.__exit__(*what)
        raise SpoolError("late")


def test_a_transaction_that_could_not_be_rolled_back_was_in_the_way_of_all_others(
    rig: Rig,
) -> None:
    rig.index._db._connection.execute("BEGIN IMMEDIATE")  # what a ROLLBACK that failed leaves
    refs = rig.commit_many(2, 1000, "pacs")
    rig.feed()
    check_all(rig)
    assert [type(ref) for ref in refs] == [Ref, Ref]


def test_the_start_named_no_file_when_the_directory_of_the_index_could_not_be_synced(
    tmp_path: Path,
) -> None:
    seam = Seam(tmp_path, Fault(Call("", "sync", "data_dir", 1)))
    with seam.watching(), pytest.raises(SpoolError, match=r"index .*index\.sqlite: Input/output"):
        Index.open(tmp_path / "index.sqlite")
    Index.open(tmp_path / "index.sqlite").close()


def test_a_probe_asks_nothing_of_a_disk_that_is_well(rig: Rig) -> None:
    seam = Seam(rig.directory)
    with seam.watching():
        rig.spool.probe()
    assert seam.calls == []
    assert isinstance(rig.spool, Spool)


def test_a_delivery_slept_after_a_commit_that_lied_and_a_second_trouble(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = open_rig()
    rig.commit(payload(9, 5000), meta(9, "pacs"))
    rig.feed()
    rig.commit(payload(1, 5000), meta(1, "pacs"))
    ((ref, what, end),) = rig.ends
    database, keep = type(rig.index._db), type(rig.index._keep)
    real = database.transaction

    @contextmanager
    def lying(self: Any) -> Iterator[None]:
        with real(self):
            yield
        raise SpoolError("disk I/O error")

    def busy(self: Any, ids: object) -> set[int]:
        raise SpoolError("busy")

    def add() -> AddResult:
        return rig.index.add(
            [(ref, what)], end, suppress_duplicates=False, same_bytes=rig.spool.same_bytes
        )

    faults: list[tuple[type, str, Any]] = [(database, "transaction", lying), (keep, "known", busy)]
    for owner, name, fake in faults:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fake)
            with pytest.raises(SpoolError):
                add()
    assert add().deliveries.get("pacs")
