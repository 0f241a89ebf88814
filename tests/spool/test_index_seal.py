"""What became of an index while nobody had it open."""

import os
import random
import shutil
from pathlib import Path

import pytest

from router.spool import index as index_module
from router.spool import index_database
from router.spool.errors import IndexDamaged, SpoolError
from router.spool.index import Index, move_aside
from router.spool.index_database import Database
from router.spool.index_seal import is_intact, seal
from tests.spool.index_samples import audited, fill

SEAL = "index.db-sealed"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of an index that was closed."""
    path = tmp_path / "index.db"
    with audited(path) as index:
        fill(index, range(1, 300), "pacs", "vna")
    assert (tmp_path / SEAL).exists()
    return path


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The indexes that were looked through."""
    found: list[Path] = []
    real = Database._check

    def check(database: Database) -> None:
        found.append(database.path)
        real(database)

    monkeypatch.setattr(Database, "_check", check)
    return found


def rot(path: Path, content: bytes) -> None:
    """As a disk does it, which leaves the time of the file alone."""
    written = path.stat().st_mtime_ns
    path.write_bytes(content)
    os.utime(path, ns=(written, written))


def damaged(path: Path) -> str:
    with pytest.raises(IndexDamaged) as met:
        Index.open(path)
    return str(met.value)


def test_a_flipped_bit_is_found_wherever_it_is(path: Path) -> None:
    sound, note = path.read_bytes(), path.with_name(SEAL).read_bytes()
    chance = random.Random(1)
    for _ in range(200):
        at, bit = chance.randrange(len(sound)), 1 << chance.randrange(8)
        rot(path, sound[:at] + bytes([sound[at] ^ bit]) + sound[at + 1 :])
        path.with_name(SEAL).write_bytes(note)
        assert "not what it was when it was closed" in damaged(path), at


def test_so_is_a_value_that_no_look_at_trees_could_find(path: Path, looks: list[Path]) -> None:
    data = path.read_bytes()
    at = data.index(b"1.2.3.4.77")
    rot(path, data[:at] + b"1.2.3.4.78" + data[at + 10 :])
    assert "not what it was" in damaged(path)
    assert "not what it was" in damaged(path)  # until it is moved aside
    move_aside(path, "damaged")
    with audited(path) as index:
        assert index.last_id() == 0
    assert looks == [path]


def test_a_note_tells_nothing_of_a_copy_put_back(
    path: Path, tmp_path: Path, looks: list[Path]
) -> None:
    shutil.copy2(path, tmp_path / "of-before")
    with audited(path) as index:
        fill(index, range(300, 310), "pacs")
    shutil.copy2(tmp_path / "of-before", path)
    with audited(path) as index:
        assert index.last_id() == 299
    assert looks == [path]


def test_what_is_as_it_was_is_not_looked_through(path: Path, looks: list[Path]) -> None:
    with audited(path) as index:
        assert not path.with_name(SEAL).exists()  # from now on it says nothing
        fill(index, [300], "pacs")
    with audited(path) as index:
        assert index.last_id() == 300
    assert looks == []


def test_after_a_crash_all_of_it_is_looked_through(
    path: Path, tmp_path: Path, looks: list[Path]
) -> None:
    left = tmp_path / "left" / "index.db"
    left.parent.mkdir()
    with audited(path) as index:
        fill(index, [300], "pacs")
        for one in tmp_path.glob("index.db*"):
            shutil.copy(one, left.parent)
    assert not left.with_name(SEAL).exists()
    Index.open(left).close()
    assert looks == [left]


@pytest.mark.parametrize("content", ["", "{}", "\0" * 20, "{} 77824 12", "{} "])
def test_a_note_that_was_cut_off_tells_nothing(path: Path, looks: list[Path], content: str) -> None:
    path.with_name(SEAL).write_text(content.format(path.stat().st_mtime_ns))
    Index.open(path).close()
    assert looks == [path]


def test_a_note_without_its_index_tells_nothing(path: Path) -> None:
    path.unlink()
    with audited(path) as index:
        assert index.last_id() == 0


def test_while_another_has_it_open_it_is_not_sealed(path: Path, looks: list[Path]) -> None:
    first = Index.open(path)
    Index.open(path).close()
    assert not path.with_name(SEAL).exists()
    first.close()
    assert is_intact(path)
    assert looks == [path]


def test_what_was_met_damaged_is_not_sealed(path: Path) -> None:
    index = Index.open(path)
    index._db.met_damaged("its rows contradict each other")
    index.close()
    assert not path.with_name(SEAL).exists()
    assert "contradict" in damaged(path)


def test_without_room_for_the_note_the_next_start_looks(
    path: Path, looks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = Index.open(path)
    path.with_name(SEAL).mkdir()
    index.close()
    path.with_name(SEAL).rmdir()
    Index.open(path).close()
    assert looks == [path]


def test_a_large_one_too(path: Path, looks: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_database, "_CHECKED_BYTES", 0)
    data = path.read_bytes()
    rot(path, data[:-1] + bytes([data[-1] ^ 1]))
    assert "not what it was" in damaged(path)


def test_nothing_is_sealed_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        seal(tmp_path / "index.db")
    assert list(tmp_path.iterdir()) == []


def test_one_that_could_not_be_looked_through_was_sealed(
    path: Path, looks: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: the next start took it for sound without a look."""
    (path.parent / SEAL).unlink()

    def failing(_: Database) -> str:
        raise SpoolError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(index_module, "disagreement", failing)
        with pytest.raises(SpoolError, match="disk I/O error"):
            Index.open(path)
    Index.open(path).close()
    assert looks == [path, path]
