"""The log of the index: what rests on it, when it cannot be synced, after a crash."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from router.spool.errors import IndexDamaged, SpoolError, SpoolFull
from router.spool.index import Index
from router.spool.index_add import Adder
from router.spool.index_database import Database
from tests.spool import index_version_1
from tests.spool.index_samples import (
    DELIVERED,
    audited,
    fill,
    leased,
    outcome,
    ref,
)


def test_what_was_committed_is_there_after_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    index = Index.open(path)
    fill(index, range(1, 50), "pacs")
    index.settle([outcome(1, "pacs", DELIVERED)])
    index.barrier()
    copy = tmp_path / "copy"
    copy.mkdir()
    for part in tmp_path.glob("index.db*"):  # as a process that was killed leaves it
        if not part.name.endswith("-shm"):
            (copy / part.name).write_bytes(part.read_bytes())
    index.close()
    with audited(copy / "index.db") as index:
        assert leased(index, "pacs", limit=100) == list(range(2, 50))


def test_the_barrier_syncs_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "index.db"
    synced: list[int] = []
    with audited(path) as index:
        fill(index, range(1, 50), "pacs")
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", lambda fd: synced.append(os.fstat(fd).st_ino))
            index.barrier()
        assert synced == [path.with_name("index.db-wal").stat().st_ino]

        def broken(_: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", broken)
            with pytest.raises(SpoolError, match="cannot sync"):
                index.barrier()


def test_an_error_that_only_a_commit_was_told_of_is_the_barriers_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells it once to each descriptor that was open then, and to no later one; what
    SQLite is told of at a checkpoint within a commit, nobody hears."""
    path = tmp_path / "index.db"
    log = str(path.with_name("index.db-wal"))
    with audited(path) as index:
        fill(index, range(1, 50), "pacs")
        entries = Path("/proc/self/fd")
        untold = {int(p.name) for p in entries.iterdir() if os.path.realpath(p) == log}

        def sync(fd: int) -> None:
            if fd in untold:
                untold.remove(fd)
                raise OSError(errno.EIO, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", sync)
            with pytest.raises(SpoolError, match="cannot sync"):
                index.barrier()
        index.barrier()
        assert path.with_name("index.db-wal").stat().st_size == 0, "all of it is written back"
    assert not [p for p in entries.iterdir() if os.path.realpath(p) == log]


def test_a_log_that_could_not_be_opened_in_time_is_written_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: of an error that SQLite was told of before, a descriptor that is opened after it
    is told nothing."""
    path = tmp_path / "index.db"
    opening = os.open

    def full(where: Path, *arguments: int) -> int:
        if str(where).endswith("-wal"):
            raise OSError(errno.EMFILE, "Too many open files")
        return opening(where, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", full)
        index = Index.open(path)
        fill(index, range(1, 50), "pacs")
        with pytest.raises(SpoolFull, match="cannot sync"):
            index.barrier()
    index.barrier()
    assert path.with_name("index.db-wal").stat().st_size == 0, "all of it is written back"
    fill(index, [50], "pacs")
    index.barrier()
    assert path.with_name("index.db-wal").stat().st_size > 0, "once"
    index.close()


def test_what_an_upgrade_wrote_is_written_back_before_anything_rests_on_it(tmp_path: Path) -> None:
    """Regression: what SQLite is told of at a checkpoint within a commit nobody hears, nor does a
    descriptor of the log that is opened after it."""
    index_version_1.build(tmp_path / "index.db")
    with audited(tmp_path / "index.db") as index:
        index.barrier()
        assert (tmp_path / "index.db-wal").stat().st_size == 0, "all of it is written back"
        fill(index, range(50, 60), "pacs")
        index.barrier()
        assert (tmp_path / "index.db-wal").stat().st_size > 0, "once"


def test_a_log_of_before_a_kill_is_written_back_before_anything_rests_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: a sync of it may have failed, of which the kernel tells no later process."""
    path, after = tmp_path / "index.db", tmp_path / "after"
    after.mkdir()

    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with audited(path) as index:
        fill(index, range(1, 50), "pacs")
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", broken)
            with pytest.raises(SpoolError, match="cannot sync"):
                index.barrier()
        for part in (path, path.with_name("index.db-wal")):
            shutil.copy(part, after)
    with audited(after / "index.db") as index:
        index.barrier()
        assert (after / "index.db-wal").stat().st_size == 0, "all of it is written back"
        fill(index, [50], "pacs")
        index.barrier()
        assert (after / "index.db-wal").stat().st_size > 0, "once"


def test_what_a_log_of_before_a_kill_is_later_was_written_back_unseen(tmp_path: Path) -> None:
    """Regression: it was looked through at the start, and written back by the first barrier, when
    the kernel may not have had it any more."""
    path, after = tmp_path / "index.db", tmp_path / "after"
    after.mkdir()
    with audited(path) as index:
        fill(index, range(1, 50), "pacs")
        index._db.run("PRAGMA wal_checkpoint(RESTART)")
        log = path.with_name("index.db-wal")
        before = log.read_bytes()
        fill(index, range(50, 60), "pacs")
        for part in (path, log):
            shutil.copy(part, after)
    with audited(after / "index.db") as index:
        log = after / "index.db-wal"
        if log.stat().st_size:
            log.write_bytes(before)
        index.barrier()
        index._db.run("PRAGMA shrink_memory")
        assert index.instance(59) is not None


def _forgotten(path: Path, index: Index) -> None:
    """More is written to a log that was written before, and then the kernel has none of it: it
    could not write it, tells so to who syncs next, and needed the memory."""
    fill(index, range(1, 50), "pacs")
    index._db.run("PRAGMA wal_checkpoint(RESTART)")
    log = path.with_name("index.db-wal")
    before = log.read_bytes()
    fill(index, range(50, 60), "pacs")
    with log.open("r+b") as file:
        file.write(before)


def _failing_once(patch: pytest.MonkeyPatch) -> None:
    syncing, failures = os.fdatasync, [OSError(errno.EIO, "Input/output error")]

    def sync(fd: int) -> None:
        if failures and Path(f"/proc/self/fd/{fd}").readlink().name.endswith("-wal"):
            raise failures.pop()
        syncing(fd)

    patch.setattr(os, "fdatasync", sync)


def test_what_a_log_is_after_a_sync_that_failed_was_taken_for_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: it was written back, and what the index knew then was given up."""
    path = tmp_path / "index.db"
    index = Index.open(path)
    _forgotten(path, index)
    _failing_once(monkeypatch)
    with pytest.raises(SpoolError, match="cannot sync"):
        index.barrier()
    with pytest.raises(IndexDamaged):
        index.barrier()
    with monkeypatch.context() as patch:
        patch.delattr(Database, "look_through")  # once is enough
        with pytest.raises(IndexDamaged):
            index.barrier()
    index.close()
    with pytest.raises(IndexDamaged):
        Index.open(path)


@pytest.mark.parametrize(
    ("act", "what"),
    [
        (lambda index, n: fill(index, [n], "pacs"), "what was added to it"),
        (lambda index, n: index.move([ref(1, generation=n)]), "where a record was copied to"),
    ],
    ids=["added", "copied"],
)
def test_a_transaction_that_a_log_has_forgotten_whole_was_taken_for_none(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    act: Callable[[Index, int], object],
    what: str,
) -> None:
    """Regression: in front of it in the log lay one that wrote the same pages: the index was sound
    without it, and the segments were given up in which it had what it did not know of.  And so it
    was after a look that failed half-way, which had taken over what the file said."""
    look_up = Adder._look_up

    def half_way(adder: Adder) -> None:
        look_up(adder)
        raise SpoolError("a bad block")

    path = tmp_path / "index.db"
    index = Index.open(path)
    fill(index, range(1, 50), "pacs")
    log = path.with_name("index.db-wal")
    for number in (50, 51):
        before = log.read_bytes()
        index._db.run("PRAGMA wal_checkpoint(RESTART)")
        act(index, number)
    log.write_bytes(before)
    _failing_once(monkeypatch)
    with pytest.raises(SpoolError, match="cannot sync"):
        index.barrier()
    with monkeypatch.context() as patch:
        patch.setattr(Adder, "_look_up", half_way)
        with pytest.raises(SpoolError, match="a bad block"):
            index.barrier()
    with pytest.raises(IndexDamaged, match=what):
        index.barrier()
    index.close()


def test_an_index_that_is_closed_after_a_sync_that_failed_was_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: the next start took it for sound without a look."""
    path = tmp_path / "index.db"
    index = Index.open(path)
    _forgotten(path, index)
    _failing_once(monkeypatch)
    index.close()
    assert not path.with_name("index.db-sealed").exists()
    with pytest.raises(IndexDamaged):
        Index.open(path)


def test_an_index_that_is_sound_after_a_sync_that_failed_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "index.db"
    with audited(path) as index:
        fill(index, range(1, 50), "pacs")
        _failing_once(monkeypatch)
        with pytest.raises(SpoolError, match="cannot sync"):
            index.barrier()
        fill(index, range(50, 60), "pacs")
        index.barrier()
    assert path.with_name("index.db-sealed").exists()
