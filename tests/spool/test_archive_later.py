"""One folder of the archive that cannot be written to holds up no other."""

import asyncio
import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from router.observe.counters import Counters
from router.observe.retention import Retention
from router.spool import archive_files, archive_later, archive_task, keeper, system
from router.spool.archive_files import Stored, place_of
from router.spool.archive_later import ANEW, BETWEEN_TRIES, LONGEST_WAIT, PutBack
from router.spool.archive_manifest import MANIFEST
from router.spool.archive_task import Archivist, Moved
from router.spool.index_types import InstanceRow
from router.spool.record import Ref
from router.spool.settings import ArchiveSettings
from tests.spool.archiving import archivist, files, left, rows, write
from tests.spool.conftest import OpenRig
from tests.spool.keeping import T0, deliver
from tests.spool.spool_samples import Rig, meta, payload

DAY = "2023-11-14"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "archive"
    made.mkdir()
    return made


@pytest.fixture
def rig(open_rig: OpenRig, folder: Path) -> Rig:
    return open_rig(archive=ArchiveSettings(folder=str(folder), after=100.0), spare_segments=3)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_task, "_BETWEEN", 0.0)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def settled(rig: Rig, *studies: str, at: float = T0) -> list[Ref]:
    """One of each study; the first was settled first."""
    refs = []
    for n, study in enumerate(studies):
        number = len(rig.acked)
        what = meta(number, "pacs")._replace(study_instance_uid=study)
        refs.append(rig.commit(payload(number, 1000), what).kept)
        rig.feed()
        deliver(rig, refs[-1:], at + n / 1000)
    return refs


def block(rig: Rig, folder: Path, ref: Ref) -> Path:
    """Make the folder of a study one that cannot be written to."""
    (row,) = rows(rig, [ref])
    path = folder / place_of(row)
    path.parent.mkdir(exist_ok=True)
    path.write_text("in the way")
    return path


def once(worker: Archivist) -> Moved | None:
    return asyncio.run(worker.once())


# -- what is told of, and what goes on -------------------------------------------------------------


def test_the_folder_that_fails_is_put_back_and_told_and_the_others_go_on(
    rig: Rig, folder: Path
) -> None:
    bad, good, more, other = settled(rig, "1.1", "1.2", "1.1", "1.3")
    path = block(rig, folder, bad)
    clock = Clock()
    worker = archivist(rig, elapsed=clock)
    moved = once(worker)
    assert moved is not None
    assert (moved.count, moved.trouble, moved.behind) == (2, "", 1)
    assert moved.put_back == (f"{path}: {os.strerror(errno.ENOTDIR)}",)
    assert left(rig) == [bad.id, more.id]
    assert len(files(folder)) == 3, "two, and what is in the way"
    assert once(worker) is None, "there is nothing else"
    (late,) = settled(rig, "1.4", at=T0 + 5)
    moved = once(worker)
    assert moved is not None
    assert (moved.count, moved.put_back, moved.behind) == (1, (), 1)
    path.unlink()
    assert once(worker) is None, "not before its time"
    clock.now += 1.0
    moved = once(worker)
    assert moved is not None
    assert (moved.count, moved.behind, moved.back) == (2, 0, (str(path),))
    assert left(rig) == []
    assert {good.id, other.id, late.id}.isdisjoint(left(rig))


def test_more_of_one_folder_than_any_batch_holds_hide_nothing(
    rig: Rig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_ARCHIVE_STEP", 4)
    refs = settled(rig, *["1.1"] * 21, "1.2")
    path = block(rig, folder, refs[0])
    clock = Clock()
    worker = archivist(rig, elapsed=clock)
    moved = once(worker)
    assert moved is not None
    assert (moved.count, moved.behind) == (0, 1)
    moved = once(worker)
    assert moved is not None
    assert moved.count == 1
    assert left(rig) == [ref.id for ref in refs[:-1]]
    path.unlink()
    clock.now += 1.0
    counts = [moved.count for _ in range(6) if (moved := once(worker))]
    assert counts == [4, 4, 4, 4, 4, 1]
    assert left(rig) == []


def test_all_of_a_folder_that_works_again_go_while_another_does_not(
    rig: Rig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_ARCHIVE_STEP", 4)
    refs = settled(rig, *["1.1", "1.2"] * 10)
    mended, _ = block(rig, folder, refs[0]), block(rig, folder, refs[1])
    clock = Clock()
    worker = archivist(rig, elapsed=clock)
    while once(worker):
        pass
    mended.unlink()
    count = 0
    for _ in range(30):
        clock.now += 5.0
        moved = once(worker)
        count += moved.count if moved is not None else 0
    assert count == 10
    assert left(rig) == [ref.id for ref in refs[1::2]]


def test_all_of_one_moment_are_gone_through_one_after_the_other(
    rig: Rig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_ARCHIVE_STEP", 4)
    names = ["1.1"] * 9 + ["1.2"] + ["1.1"] * 9 + ["1.3"]
    refs = [
        rig.commit(payload(n, 1000), meta(n, "pacs")._replace(study_instance_uid=name)).kept
        for n, name in enumerate(names)
    ]
    rig.feed()
    deliver(rig, refs)
    block(rig, folder, refs[0])
    worker = archivist(rig, elapsed=Clock())
    assert sum(moved.count for _ in range(4) if (moved := once(worker))) == 2
    assert len(left(rig)) == 18


def test_what_a_rule_keeps_for_longer_is_gone_through_in_the_same_line(
    rig: Rig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_ARCHIVE_STEP", 2)
    refs = []
    for n, (name, keep) in enumerate(
        [("1.1", None), ("1.2", 200), ("1.1", 200), ("1.3", None)] * 3
    ):
        what = meta(n, "pacs")._replace(study_instance_uid=name)
        refs.append(rig.commit(payload(n, 1000), what).kept)
        rig.feed()
        if keep:
            rig.index._db.run("UPDATE instance SET keep = ? WHERE id = ?", keep, refs[-1].id)
        deliver(rig, refs[-1:])
    block(rig, folder, refs[0])
    worker = archivist(rig, elapsed=Clock())
    assert sum(moved.count for _ in range(9) if (moved := once(worker))) == 6
    assert left(rig) == [ref.id for n, ref in enumerate(refs) if n % 4 in (0, 2)]


def test_a_folder_that_goes_on_failing_is_tried_ever_more_rarely_with_one_file(
    rig: Rig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block(rig, folder, settled(rig, *["1.1"] * 6)[0])
    clock = Clock()
    told: list[Moved] = []
    worker = archivist(rig, told, elapsed=clock)
    tried: list[float] = []
    real = archive_files.ArchiveFolder._write_file

    def counted(self: Any, directory: Path, row: InstanceRow) -> tuple[str, bool]:
        tried.append(clock.now)
        return real(self, directory, row)

    monkeypatch.setattr(archive_files.ArchiveFolder, "_write_file", counted)
    for _ in range(600):
        moved = once(worker)
        assert moved is None or len(moved.put_back) == (1 if clock.now == 1000.0 else 0)
        clock.now += 1.0
    waits = [after - before for before, after in itertools.pairwise(tried)]
    assert waits[0] == 1.0
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_WAIT
    assert len(tried) <= 600 / LONGEST_WAIT + 7
    assert len(left(rig)) == 6


def test_a_day_that_fails_is_put_back_as_one(
    rig: Rig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[Path] = []
    real = archive_files.ArchiveFolder._write_group

    def counted(self: Any, place: Path, *more: Any) -> None:
        groups.append(place)
        real(self, place, *more)

    monkeypatch.setattr(archive_files.ArchiveFolder, "_write_group", counted)
    refs = settled(rig, "1.1", "1.2", "1.3")
    what = meta(9, "pacs")._replace(received_at=T0 + 90_000)
    later = rig.commit(payload(9, 1000), what).kept
    rig.feed()
    deliver(rig, [later])
    (folder / DAY).write_text("in the way")
    clock = Clock()
    worker = archivist(rig, elapsed=clock)
    moved = once(worker)
    assert moved is not None
    assert moved.put_back == (f"{folder / DAY}: {os.strerror(errno.ENOTDIR)}",)
    assert (moved.count, moved.behind) == (1, 1)
    assert left(rig) == [ref.id for ref in refs]
    assert [place.parts[0] for place in groups] == [DAY, "2023-11-15"]
    (folder / DAY).unlink()
    clock.now += 1.0
    moved = once(worker)
    assert moved is not None
    assert (moved.count, moved.behind, moved.back) == (3, 0, (str(folder / DAY),))


def test_those_before_the_one_that_fails_are_stored(
    rig: Rig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = settled(rig, "1.1", "1.1", "1.1")
    real = archive_files.ArchiveFolder._write_file

    def failing(self: Any, directory: Path, row: InstanceRow) -> tuple[str, bool]:
        if row.ref.id == refs[1].id:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(self, directory, row)

    monkeypatch.setattr(archive_files.ArchiveFolder, "_write_file", failing)
    stored = write(rig, folder, refs)
    assert stored.ids == [refs[0].id]
    assert len(stored.put_back) == 1
    assert stored.trouble == ""


# -- what is the whole archive's -------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOTCONN])
@pytest.mark.parametrize("call", ["write_all", "sync_data", "sync_directory"])
def test_what_is_wrong_with_the_disk_stops_all(
    rig: Rig, folder: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    refs = settled(rig, "1.1", "1.2")
    calls = 0

    def broken(*_: object) -> None:
        nonlocal calls
        calls += 1
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(system, call, broken)
    stored = write(rig, folder, refs)
    assert (stored.ids, stored.put_back) == ([], {})
    assert os.strerror(code) in stored.trouble
    assert calls == 1


def test_an_archive_that_goes_away_meanwhile_is_no_folder_s_trouble(
    rig: Rig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = settled(rig, "1.1", "1.2")

    def away(fd: int) -> None:
        folder.rename(folder.with_name("away"))
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(system, "sync_data", away)
    stored = write(rig, folder, refs)
    assert stored.put_back == {}
    assert "no such folder" in stored.trouble


def test_a_root_that_takes_no_day_is_the_whole_archive_s_trouble(
    rig: Rig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = settled(rig, "1.1", "1.2")

    def denied(self: Path, mode: int = 0o777) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "mkdir", denied)
    stored = write(rig, folder, refs)
    assert stored.put_back == {}
    assert stored.trouble == f"{folder}: {os.strerror(errno.EACCES)}"


def test_a_disk_that_is_full_passes_nobody_over(
    rig: Rig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = settled(rig, "1.1", "1.2")
    block(rig, folder, bad)
    worker = archivist(rig, elapsed=Clock())

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(system, "write_all", full)
        moved = once(worker)
    assert moved is not None
    assert "No space left" in moved.trouble
    moved = once(worker)
    assert moved is not None
    assert (moved.count, moved.trouble) == (1, "")
    assert left(rig) == [bad.id]
    assert good.id not in left(rig)


def test_an_index_that_fails_passes_nobody_over(
    rig: Rig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_ARCHIVE_STEP", 1)
    bad, good = settled(rig, "1.1", "1.2")
    block(rig, folder, bad)
    worker = archivist(rig, elapsed=Clock())
    once(worker)
    with monkeypatch.context() as patch:
        patch.setattr(rig.index, "purge_these", lambda _: 1 / 0)
        moved = once(worker)
    assert moved is not None
    assert (moved.trouble, moved.behind) == ("division by zero", 1)
    moved = once(worker)
    assert moved is not None
    assert moved.count == 1
    assert left(rig) == [bad.id]
    assert good.id not in left(rig)


def test_more_folders_than_can_be_remembered_are_the_archive_s_trouble(
    rig: Rig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_later, "MOST_FOLDERS", 2)
    refs = settled(rig, "1.1", "1.2", "1.3", "1.4")
    for ref in refs[:3]:
        block(rig, folder, ref)
    moved = once(archivist(rig, elapsed=Clock()))
    assert moved is not None
    assert len(moved.put_back) == moved.behind == 2
    assert moved.trouble.endswith("Not a directory, as 2 other folders")
    assert left(rig) == [ref.id for ref in refs[:3]], "which was written before that was known"


# -- the line by itself ----------------------------------------------------------------------------


def stored(*put_back: Path, trouble: str = "", ids: list[int] | None = None) -> Stored:
    return Stored(ids or [], 0, {}, {place: f"{place}: broken" for place in put_back}, trouble)


def test_of_many_that_fail_one_is_tried_at_a_time_and_the_line_goes_on_between(rig: Rig) -> None:
    page = rows(rig, settled(rig, "1.1", "1.2", "1.3"))
    bad = [place_of(row) for row in page]
    line = PutBack()
    assert line.next(0.0) == (None, None)
    assert line.choose(page, None) == page
    assert len(line.tried(page, stored(*bad), 0.0)) == 3
    after, folder = line.next(1.0)
    assert folder == min(bad)
    assert line.choose(page, folder) == [row for row in page if place_of(row) == folder]
    assert line.tried([r for r in page if place_of(r) == folder], stored(folder), 1.0) == []
    after, folder = line.next(1.0)
    assert folder is None
    assert after == (page[-1].settled_at, page[-1].ref.id)
    assert line.next(1.0 + BETWEEN_TRIES)[1] == sorted(bad)[1]


def test_a_folder_of_which_nobody_waits_any_more_is_forgotten(rig: Rig, folder: Path) -> None:
    (bad,) = settled(rig, "1.1")
    block(rig, folder, bad)
    clock = Clock()
    worker = archivist(rig, elapsed=clock)
    once(worker)
    rig.index.purge_these([bad.id])
    clock.now += 1.0
    moved = once(worker)
    assert moved is not None
    assert (moved.count, moved.behind, len(moved.back)) == (0, 0, 1)
    assert once(worker) is None


def test_an_index_that_fails_after_a_folder_works_again_passes_nobody_of_it_over(rig: Rig) -> None:
    page = rows(rig, settled(rig, "1.1", "1.2"))
    bad = sorted(place_of(row) for row in page)
    line = PutBack()
    line.next(0.0)
    line.choose(page, None)
    line.tried(page, stored(*bad), 0.0)
    assert line.next(0.5)[0] is not None
    line.choose([], None)  # the end of the line
    assert line.next(1.0)[1] == bad[0]
    (row,) = line.choose(page, bad[0])
    line.tried([row], stored(ids=[row.ref.id]), 1.0)
    assert line.next(1.0)[1] == bad[1]
    line.failed()
    line._folders[bad[1]].due = ANEW
    assert line.next(1.0) == (None, None), "what else waits for the first may go now"


def test_the_line_is_gone_through_anew_from_time_to_time(rig: Rig) -> None:
    page = rows(rig, settled(rig, "1.1", "1.2"))
    bad = place_of(page[0])
    line = PutBack()
    line.next(0.0)
    line.choose(page, None)
    line.tried(page, stored(bad, ids=[page[1].ref.id]), 0.0)
    assert line.next(0.5) == ((page[1].settled_at, page[1].ref.id), None)
    line._folders[bad].due = 2 * ANEW
    assert line.next(ANEW - 1)[0] is not None
    assert line.next(ANEW) == (None, None)


# -- what is seen of it ----------------------------------------------------------------------------


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def __getattr__(self, level: str) -> Callable[..., None]:
        return lambda event, **more: self.lines.append((level, event, more))


def test_a_folder_put_back_is_logged_once_and_the_metric_is_1_until_it_works() -> None:
    log = Log()
    retention = Retention(Counters(), log)
    retention.archived(Moved(put_back=("/a/b: broken",), behind=1))
    retention.archived(Moved(behind=1))
    assert retention.archive_trouble
    (line,) = log.lines
    assert line[0] == "error"
    assert line[1].startswith("a folder of the archive cannot be written to")
    assert line[2] == {"why": "/a/b: broken"}
    retention.archived(Moved(back=("/a/b",)))
    assert retention.archive_trouble == ""
    assert log.lines[1:] == [
        ("warning", "a folder of the archive can be written to again", {"folder": "/a/b"})
    ]
    retention.archived(Moved(trouble="full", behind=1))
    retention.archived(Moved(behind=1))
    assert [line[0] for line in log.lines[2:]] == ["error", "warning"]
    assert retention.archive_trouble


def test_the_manifest_of_a_study_that_is_put_back_is_as_it_was(rig: Rig, folder: Path) -> None:
    one, two = settled(rig, "1.1", "1.1")
    write(rig, folder, [one])
    (row,) = rows(rig, [two])
    path = folder / place_of(row) / MANIFEST
    before = path.read_text()
    path.rename(path.with_suffix(".aside"))
    path.mkdir()
    assert write(rig, folder, [two]).ids == []
    path.rmdir()
    path.with_suffix(".aside").rename(path)
    assert path.read_text() == before
    assert write(rig, folder, [two]).ids == [two.id]
    assert path.read_text().startswith(before)
