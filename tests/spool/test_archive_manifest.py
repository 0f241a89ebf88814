"""The manifest grows by what is added, and survives whatever cuts the last addition short."""

import errno
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from router.spool import system
from router.spool.archive_files import place_of
from router.spool.archive_manifest import MANIFEST, add_lines, open_manifest
from router.spool.settings import ArchiveSettings
from tests.spool.archiving import files, left, manifest, once, rows, write, writer
from tests.spool.conftest import OpenRig
from tests.spool.keeping import deliver, fill
from tests.spool.spool_samples import Rig

LINE = '{"file": "0000000000000001-9ae41c02.dcm", "instance": 1}'
OTHER = '{"file": "0000000000000002-9ae41c02.dcm", "instance": 2}'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "archive"
    made.mkdir()
    return made


@pytest.fixture
def rig(open_rig: OpenRig, folder: Path) -> Rig:
    return open_rig(archive=ArchiveSettings(folder=str(folder), after=100.0), spare_segments=3)


def added(directory: Path, *lines: str, again: bool = False) -> str:
    with open_manifest(directory) as fd:
        add_lines(fd, lines, again=again)
    return (directory / MANIFEST).read_text()


# -- a last line that is not whole -----------------------------------------------------------------


@pytest.mark.parametrize("length", range(1, len(LINE)))
def test_a_torn_last_line_is_dropped_by_the_next(tmp_path: Path, length: int) -> None:
    (tmp_path / MANIFEST).write_text(f"{OTHER}\n{LINE[:length]}")
    assert added(tmp_path, LINE) == f"{OTHER}\n{LINE}\n"


@pytest.mark.parametrize("before", ["", f"{OTHER}\n"])
@pytest.mark.parametrize("torn", [b"\0" * 5000, LINE[:20].encode() + b"\0" * 200_000])
def test_zeros_that_a_power_cut_left_are_dropped(tmp_path: Path, before: str, torn: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(before.encode() + torn)
    assert added(tmp_path, LINE) == f"{before}{LINE}\n"


def test_a_torn_line_longer_than_one_look_is_dropped(tmp_path: Path) -> None:
    long = '{"file": "' + "x" * 300_000
    (tmp_path / MANIFEST).write_text(f"{OTHER}\n{long}")
    assert added(tmp_path, LINE) == f"{OTHER}\n{LINE}\n"


@pytest.mark.parametrize("last", [OTHER, "somebody's note", "[1, 2"])
def test_a_whole_line_without_its_end_and_somebody_s_note_stay(tmp_path: Path, last: str) -> None:
    (tmp_path / MANIFEST).write_text(last)
    assert added(tmp_path, LINE) == f"{last}\n{LINE}\n"


def test_nothing_of_lines_that_could_not_be_written_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added(tmp_path, OTHER)
    real = system.write_all

    def half(fd: int, buffers: Sequence[bytes], offset: int) -> int:
        real(fd, [buffers[0][:30]], offset)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def failing(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    for name, broken in (("write_all", half), ("sync_data", failing)):
        with monkeypatch.context() as patch:
            patch.setattr(system, name, broken)
            with pytest.raises(OSError, match=r"space|Input"):
                added(tmp_path, LINE)
        assert (tmp_path / MANIFEST).read_text() == f"{OTHER}\n"


def test_a_line_of_an_earlier_try_is_not_added_twice(tmp_path: Path) -> None:
    added(tmp_path, OTHER, LINE)
    changed = LINE.replace("1}", "3}")
    assert added(tmp_path, LINE, changed, again=True) == f"{OTHER}\n{LINE}\n{changed}\n"


def test_one_of_an_earlier_try_is_synced_though_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added(tmp_path, LINE)
    synced: list[int] = []
    monkeypatch.setattr(system, "sync_data", synced.append)
    added(tmp_path, LINE, again=True)
    assert len(synced) == 1


# -- what it costs ---------------------------------------------------------------------------------


def test_the_thousandth_batch_costs_what_the_first_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrote: list[int] = []
    looked: list[int] = []
    real_write, real_read = os.pwritev, os.pread

    def pwritev(fd: int, buffers: Sequence[bytes], offset: int, flags: int = 0) -> int:
        wrote.append(count := real_write(fd, buffers, offset, flags))
        return count

    def pread(fd: int, length: int, offset: int) -> bytes:
        looked.append(length)
        return real_read(fd, length, offset)

    monkeypatch.setattr(os, "pwritev", pwritev)
    monkeypatch.setattr(os, "pread", pread)
    monkeypatch.setattr(system, "sync_data", lambda fd: None)
    batch = [OTHER.replace("2}", f"{n}}}") for n in range(1000, 1256)]
    costs = []
    for _ in range(1000):
        wrote.clear()
        looked.clear()
        with open_manifest(tmp_path) as fd:
            add_lines(fd, batch)
        costs.append((sum(wrote), sum(looked)))
    size = sum(len(line) + 1 for line in batch)
    assert costs[0] == (size, 0)
    assert set(costs[1:]) == {(size, 1)}
    assert (tmp_path / MANIFEST).stat().st_size == 1000 * size


# -- with the files --------------------------------------------------------------------------------


def test_the_files_of_a_line_that_was_never_written_are_taken_up_again(
    rig: Rig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a kill between the files and the line leaves it."""
    refs = fill(rig, 2, 1000, "pacs")
    deliver(rig, refs)

    class Killed(BaseException):
        pass

    def killed(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("router.spool.archive_files.add_lines", killed)
        with pytest.raises(Killed):
            write(rig, folder, refs)
    assert len(files(folder)) == 2
    assert manifest(folder) == []
    moved = once(rig)
    assert moved is not None
    assert moved.count == 2
    assert len(files(folder)) == len(manifest(folder)) == 2
    assert left(rig) == []


def test_a_line_that_a_kill_tore_is_written_again(rig: Rig, folder: Path) -> None:
    refs = fill(rig, 3, 1000, "pacs")
    deliver(rig, refs)
    write(rig, folder, refs)
    (place,) = {place_of(row) for row in rows(rig, refs)}
    path = folder / place / MANIFEST
    whole = path.read_bytes()
    path.write_bytes(whole[:-50])
    moved = once(rig)
    assert moved is not None
    assert moved.count == 3
    assert path.read_bytes() == whole


def test_an_index_that_cannot_purge_makes_no_manifest_grow(rig: Rig, folder: Path) -> None:
    refs = fill(rig, 3, 1000, "pacs")
    for _ in range(5):
        assert write(rig, folder, refs).ids == [ref.id for ref in refs]
    assert len(manifest(folder)) == 3


def test_what_was_delivered_meanwhile_is_a_line_of_its_own(rig: Rig, folder: Path) -> None:
    (ref,) = fill(rig, 1, 1000, "pacs")
    write(rig, folder, [ref])
    deliver(rig, [ref])
    write(rig, folder, [ref])
    one, two = manifest(folder)
    assert one["file"] == two["file"]
    states = [json.dumps(entry["deliveries"]) for entry in (one, two)]
    assert "ready" in states[0]
    assert "delivered" in states[1]


def test_a_manifest_that_is_none_is_told_with_its_folder(rig: Rig, folder: Path) -> None:
    refs = fill(rig, 1, 1000, "pacs")
    (row,) = rows(rig, refs)
    (folder / place_of(row) / MANIFEST).mkdir(parents=True)
    stored = writer(rig, folder).write([row], threading.Event())
    assert stored.ids == []
    assert stored.put_back == {
        place_of(row): f"{folder / place_of(row)}: {os.strerror(errno.EISDIR)}"
    }
