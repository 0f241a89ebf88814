"""What seems damaged is looked at once more before the index is given up for it."""

from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from router.spool import sqlite
from router.spool.errors import IndexDamaged
from router.spool.index import Index
from tests.spool.faults import sqlite_error
from tests.spool.index_samples import fill, leased

_DAMAGE = [apsw.SQLITE_CORRUPT, apsw.SQLITE_IOERR_DATA]


class _Disk:
    """What the next statements that name ``table`` meet."""

    times = 0
    code = apsw.SQLITE_CORRUPT
    table = "FROM delivery"


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> _Disk:
    found = _Disk()
    connect = sqlite.connect

    class Reading(apsw.Connection):
        def execute(self, sql: str, *parameters: Any) -> apsw.Cursor:
            if found.times and found.table in sql:
                found.times -= 1
                raise sqlite_error(found.code)
            return super().execute(sql, *parameters)

    monkeypatch.setattr(sqlite, "connect", lambda path, **more: connect(path, kind=Reading, **more))
    return found


@pytest.mark.parametrize("code", _DAMAGE)
def test_a_page_that_is_there_at_the_second_look_is_sound(
    tmp_path: Path, disk: _Disk, code: int
) -> None:
    """Regression: a sound index was made anew for one error of the disk, and all was sent again."""
    index = Index.open(tmp_path / "index.db")
    fill(index, range(1, 20), "pacs")
    disk.times, disk.code = 1, code
    assert leased(index, "pacs") == list(range(1, 20))
    assert disk.times == 0
    index.close()
    Index.open(tmp_path / "index.db").close()


@pytest.mark.parametrize("code", _DAMAGE)
def test_one_that_is_not_is_damaged(tmp_path: Path, disk: _Disk, code: int) -> None:
    index = Index.open(tmp_path / "index.db")
    fill(index, range(1, 20), "pacs")
    disk.times, disk.code = 2, code
    with pytest.raises(IndexDamaged, match="restart the gateway"):
        leased(index, "pacs")
    index.close()
    with pytest.raises(IndexDamaged):
        Index.open(tmp_path / "index.db")


def test_other_errors_are_told_at_once(tmp_path: Path, disk: _Disk) -> None:
    index = Index.open(tmp_path / "index.db")
    fill(index, [1], "pacs")
    disk.times, disk.code = 1, apsw.SQLITE_BUSY
    with pytest.raises(Exception, match="locked"):
        leased(index, "pacs")
    index.close()


def test_nothing_is_done_twice_within_a_transaction(tmp_path: Path, disk: _Disk) -> None:
    """Some errors end it: the second statement would stand alone."""
    index = Index.open(tmp_path / "index.db")
    disk.table, disk.times = "FROM meta", 1
    with pytest.raises(IndexDamaged), index._db.transaction():
        index._db.value("SELECT count(*) FROM meta")
    assert disk.times == 0
    index.close()


@pytest.mark.parametrize(("times", "sound"), [(1, True), (2, False)])
def test_so_is_the_whole_of_it_after_an_unclean_end(
    tmp_path: Path, disk: _Disk, times: int, sound: bool
) -> None:
    path = tmp_path / "index.db"
    index = Index.open(path)
    fill(index, [1], "pacs")
    index.close()
    path.with_name("index.db-sealed").unlink()
    disk.table, disk.times = "integrity_check", times
    if sound:
        Index.open(path).close()
    else:
        with pytest.raises(IndexDamaged):
            Index.open(path)


@pytest.mark.parametrize(("times", "sound"), [(1, True), (2, False)])
@pytest.mark.parametrize("where", ["journal_mode", "user_version", "sqlite_schema"])
def test_so_is_what_a_start_looks_at_first(
    tmp_path: Path, disk: _Disk, where: str, times: int, sound: bool
) -> None:
    """Regression: one error of the disk as its first pages were read had the index made anew."""
    path = tmp_path / "index.db"
    index = Index.open(path)
    fill(index, range(1, 20), "pacs")
    index.close()
    disk.table, disk.times = where, times
    if sound:
        with closing(Index.open(path)) as index:
            assert leased(index, "pacs") == list(range(1, 20))
    else:
        with pytest.raises(IndexDamaged):
            Index.open(path)


@pytest.mark.parametrize("code", _DAMAGE)
def test_so_is_the_log_as_it_is_written_back(tmp_path: Path, disk: _Disk, code: int) -> None:
    index = Index.open(tmp_path / "index.db")
    fill(index, range(1, 20), "pacs")
    index._db._doubtful = True  # as after a sync that failed
    disk.table, disk.times, disk.code = "wal_checkpoint", 1, code
    index.barrier()
    assert disk.times == 0
    index.close()
    Index.open(tmp_path / "index.db").close()
