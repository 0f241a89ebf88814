"""Every page of the index ends in a check sum; an index of an older version gets them."""

from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from router.spool import sqlite
from router.spool.errors import IndexDamaged, SpoolError
from router.spool.index import Index
from tests.spool import index_version_2
from tests.spool.index_samples import T0, audited, fill, leased

_RESERVED = 20
"""Where the file says how many bytes at the end of each page are not SQLite's."""


def _size_of_sum(path: Path) -> int:
    return path.read_bytes()[_RESERVED]


def _flip(path: Path, what: bytes) -> None:
    raw = path.read_bytes()
    at = raw.index(what)
    path.write_bytes(raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :])


def test_a_new_index_has_them(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    with audited(path) as index:
        fill(index, range(1, 100), "pacs")
    assert _size_of_sum(path) == 8
    with closing(sqlite.connect(path, read_only=True)) as connection:
        assert sqlite.has_sums(connection)


def test_an_older_index_gets_them(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    index_version_2.build(path)
    assert _size_of_sum(path) == 0
    with audited(path) as index:
        assert sqlite.has_sums(index._db._connection)
        assert leased(index, "pacs", now=T0 + 10) == [10]
    assert _size_of_sum(path) == 8
    Index.open(path).close()  # what was closed is as it was noted


def test_without_room_to_write_it_anew_it_is_used_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "index.db"
    index_version_2.build(path)

    def full(connection: apsw.Connection) -> None:
        raise apsw.exception_for(apsw.SQLITE_FULL)

    with monkeypatch.context() as patch:
        patch.setattr(sqlite, "add_sums", full)
        with audited(path) as index:
            assert leased(index, "pacs", now=T0 + 10) == [10]
    assert _size_of_sum(path) == 0
    with audited(path) as index:
        assert leased(index, "pacs", now=T0 + 10) == [10]
    assert _size_of_sum(path) == 8


def test_what_a_full_disk_gave_for_it_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: the log kept all that was left of the disk, so that nothing could come in."""
    path = tmp_path / "index.db"
    index_version_2.build(path)
    connect = sqlite.connect

    class Full(apsw.Connection):
        def execute(self, sql: str, *parameters: Any) -> apsw.Cursor:
            if sql != "VACUUM":
                return super().execute(sql, *parameters)
            super().execute("BEGIN")
            super().execute("CREATE TABLE more(value)")
            super().execute("INSERT INTO more VALUES (zeroblob(1 << 20))")
            super().execute("PRAGMA cache_spill = 1")
            super().execute("PRAGMA cache_size = 1")
            super().execute("INSERT INTO more VALUES (zeroblob(1 << 20))")
            super().execute("ROLLBACK")
            assert path.with_name("index.db-wal").stat().st_size > 1 << 20
            raise apsw.exception_for(apsw.SQLITE_FULL)

    monkeypatch.setattr(sqlite, "connect", lambda path, **more: connect(path, kind=Full, **more))
    with audited(path):
        assert path.with_name("index.db-wal").stat().st_size == 0


def test_what_is_damaged_gets_none(tmp_path: Path) -> None:
    """They would make right what is wrong."""
    path = tmp_path / "index.db"
    index_version_2.build(path)
    _flip(path, b"delivery_ready")
    before = path.read_bytes()
    with pytest.raises(SpoolError):
        Index.open(path)
    assert _size_of_sum(path) == 0
    assert len(path.read_bytes()) >= len(before)


def test_a_reader_beside_the_gateway_uses_no_damaged_page(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    with audited(path) as index:
        fill(index, range(1, 3000), "pacs")
    _flip(path, b"1.2.3.4.1500")
    connection = sqlite.connect(path, read_only=True, immutable=True)
    with closing(connection), pytest.raises(sqlite.Error) as met:
        connection.execute("SELECT sum(length(sop_instance_uid)) FROM instance").fetchall()
    assert sqlite.is_damage(met.value)


def test_a_bit_that_no_tree_and_no_sum_of_a_row_has_is_told(tmp_path: Path) -> None:
    """Where an instance lies, and how long it is, is written once."""
    path = tmp_path / "index.db"
    with audited(path) as index:
        fill(index, range(1, 3000), "pacs")
    index = Index.open(path)
    index._db.run("PRAGMA shrink_memory")
    _flip(path, b"1.2.3.4.1500")
    with pytest.raises(IndexDamaged, match=r"SQLITE_IOERR_DATA.*restart the gateway"):
        leased(index, "pacs", limit=3000)
    index.close()
    with pytest.raises(IndexDamaged):
        Index.open(path)


def test_without_the_extension_nothing_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(connection: apsw.Connection, name: str) -> None:
        raise LookupError(f"{name} is not known")

    monkeypatch.setattr(sqlite, "_VFS", "another")
    monkeypatch.setattr(apsw.sqlite_extra, "load", missing)
    with pytest.raises(SpoolError, match="install apsw from PyPI"):
        sqlite.connect(tmp_path / "index.db")
    assert list(tmp_path.iterdir()) == []
