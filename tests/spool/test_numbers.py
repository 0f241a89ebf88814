"""No number is given twice, whatever becomes of the index; and what shares one is not lost."""

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest

from router.spool import numbers, rebuild, system
from router.spool.errors import SpoolError
from router.spool.index import Index
from router.spool.index_types import Filter
from router.spool.index_view import IndexView
from router.spool.look import Lookout
from router.spool.record import Ref
from router.spool.verify import verify
from tests.spool.conftest import OpenRig
from tests.spool.keeping import deliver, lives
from tests.spool.spool_samples import KIB, Outcome, Rig, meta, payload
from tests.spool.test_rebuild import forget_index, save_index

CRASHES = pytest.mark.parametrize("crashes", [False, True], ids=["stopped", "killed"])
SIZES = pytest.mark.parametrize("size", [7000, 300 * KIB], ids=["small", "large"])


def _eio() -> OSError:
    return OSError(errno.EIO, "Input/output error")


def _file(rig: Rig) -> Path:
    return rig.directory / "spool" / numbers.NAME


def _delivered_and_overwritten(rig: Rig, size: int = 5000) -> Path:
    """Five instances of which nothing is left but a copy of the index."""
    refs = rig.commit_many(5, size, "pacs")
    rig.feed()
    deliver(rig, refs)
    saved = save_index(rig)
    rig.acked.clear()
    rig.spool.segments.seal()
    for _ in range(2):
        rig.step()
    assert not lives(rig)
    return saved


def _ended(rig: Rig, crash: Path | None) -> Path:
    """It is stopped, or goes on elsewhere as after a kill; the directory."""
    if crash is None:
        rig.close()
        return rig.directory
    shutil.copytree(rig.directory, crash)
    return crash


def _waits(rig: Rig, data: bytes) -> Ref:
    """The one that has these bytes, still there after some upkeep."""
    for _ in range(3):
        rig.step()
    rows = [w.ref for w in rig.index.lease("pacs", 100, 3e9, ()) if w.ref.length == len(data)]
    (ref,) = (ref for ref in rows if rig.read(ref) == data)
    return ref


def _broken_off(rig: Rig, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """A start that is killed: early, when the index has some; before or after its position is
    noted."""
    add = Index.add

    def adding(self: Index, entries: Any, *args: Any, **kwargs: Any) -> Any:
        before = self.indexed_position()
        last = not entries and (before is None or before < args[0])
        if not (last and when == "before"):
            result = add(self, entries, *args, **kwargs)
            if when != "early" and not (last and when == "after"):
                return result
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Index, "add", adding)
        with pytest.raises(RuntimeError, match="killed"):
            rig.start()
    rig.close()


# -- the file is damaged, missing, or cannot be written --------------------------------------------


@pytest.mark.parametrize("text", ["", "5", "5 x\n", "5 6 7\n", "\x00" * 12])
def test_a_damaged_note_is_told_and_nothing_is_given_again(open_rig: OpenRig, text: str) -> None:
    rig = open_rig()
    rig.commit_many(3, 500, "pacs")
    rig.feed()
    generation = rig.spool.segments.next_generation
    rig.close()
    _file(rig).write_text(text)
    again = open_rig()
    assert any("numbers" in note for note in again.spool.notes)
    assert again.begin().id > 1 << 32
    assert again.spool.segments.next_generation > generation + 1000


def test_an_unreadable_note_is_told(open_rig: OpenRig) -> None:
    rig = open_rig()
    rig.close()
    _file(rig).mkdir()
    assert any("numbers" in note for note in open_rig().spool.notes)


def test_what_cannot_be_noted_is_refused(open_rig: OpenRig, monkeypatch: Any) -> None:
    rig = open_rig()

    def failing(self: Path, target: Path) -> Path:
        raise _eio()

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", failing)
        refused = rig.commit(payload(1, 500), meta(1, "pacs"))
    assert isinstance(refused.error, SpoolError)
    assert "numbers" in str(refused.error)
    assert rig.commit(payload(2, 500), meta(2, "pacs")).kept


def test_of_a_time_without_the_note_numbers_go_on(open_rig: OpenRig) -> None:
    rig = open_rig()
    last = rig.commit_many(3, 500, "pacs")[-1].id
    rig.feed()
    rig.close()
    _file(rig).unlink()
    assert open_rig().begin().id == last + 1


@pytest.mark.parametrize("killed", ["", "early", "before", "after", "early after"])
def test_without_note_and_index_numbers_go_far_behind(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch, killed: str
) -> None:
    rig = open_rig()
    rig.commit_many(3, 500, "pacs")
    rig.close()
    _file(rig).unlink()
    forget_index(rig, None)
    for when in killed.split():
        _broken_off(open_rig(start=False), monkeypatch, when)
    assert open_rig().begin().id > 1 << 32


# -- the index is lost -----------------------------------------------------------------------------


def test_after_a_crash_what_was_noted_is_left_out(open_rig: OpenRig, tmp_path: Path) -> None:
    rig = open_rig()
    rig.commit_many(3, 500, "pacs")
    writer = rig.begin()
    crashed = tmp_path / "crashed"
    shutil.copytree(rig.directory / "spool", crashed / "spool")
    assert open_rig(crashed).begin().id > writer.id


def test_the_note_is_raised_before_it_is_passed(
    open_rig: OpenRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numbers, "_NUMBERS", 2)
    rig = open_rig()
    for n in range(8):
        ref = rig.commit(payload(n, 500), meta(n, "pacs")).kept
        assert int(_file(rig).read_text().split()[0]) >= ref.id


@SIZES
@CRASHES
def test_an_older_copy_takes_nothing_for_known(
    open_rig: OpenRig, tmp_path: Path, size: int, crashes: bool
) -> None:
    rig = open_rig(tmp_path / "first")
    saved = _delivered_and_overwritten(rig, size)
    directory = _ended(rig, tmp_path / "second" if crashes else None)
    for path in directory.glob("index.sqlite*"):
        path.unlink()
    second = open_rig(directory)
    data = payload(77, size)
    second.commit(data, meta(77, "pacs"))
    second.feed()
    second.close()
    forget_index(second, saved)
    assert _waits(open_rig(directory), data).id > 5


def test_nor_when_no_segment_was_left(open_rig: OpenRig) -> None:
    rig = open_rig()
    saved = _delivered_and_overwritten(rig)
    rig.close()
    forget_index(rig, None)
    for path in (rig.directory / "spool" / "segments").iterdir():
        path.unlink()  # as the pool is trimmed when the disk runs low
    (rig.directory / "spool" / "segments.roll").unlink()  # what is trimmed is not missed
    second = open_rig()
    data = payload(77, 7000)
    second.commit(data, meta(77, "pacs"))
    second.feed()
    second.close()
    forget_index(second, saved)
    _waits(open_rig(), data)


@CRASHES
@pytest.mark.parametrize("batch", [1, 1000])
def test_a_refused_one_that_is_on_the_disk_keeps_its_number(
    open_rig: OpenRig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch: int,
    crashes: bool,
) -> None:
    """A group fails though all of it was written; a lower number is committed behind it."""
    monkeypatch.setattr(rebuild, "_BATCH", batch)
    rig = open_rig(tmp_path / "first")
    slow = rig.begin()
    assert slow.id == 1
    write = system.write_blocks

    def failing(*args: Any, **kwargs: Any) -> int:
        write(*args, **kwargs)
        raise _eio()

    with monkeypatch.context() as patch:
        patch.setattr(system, "write_blocks", failing)
        assert rig.commit(payload(3, 5000), meta(3, "pacs")).error
    outcome = Outcome()
    slow.append(memoryview(payload(2, 5000)))

    def done(*what: Any) -> None:
        outcome(*what)
        rig.ends.append((outcome.kept, meta(2, "pacs"), what[1]))

    slow.commit(meta(2, "pacs").to_bytes(), done)
    rig.loop.run_until(lambda: outcome.told)
    rig.feed()
    directory = _ended(rig, tmp_path / "second" if crashes else None)
    second = open_rig(directory)
    data = payload(4, 7000)
    assert second.commit(data, meta(4, "pacs")).kept.id > 2
    second.feed()
    second.close()
    forget_index(second, None)
    last = open_rig(directory)
    _waits(last, data)
    assert not last.report.damage


# -- a number was given twice nevertheless ---------------------------------------------------------


def _twice(open_rig: OpenRig, size: int) -> tuple[Rig, bytes]:
    """An acknowledged instance that has the number of another, of which the index knows."""
    rig = open_rig()
    saved = _delivered_and_overwritten(rig, size)
    rig.close()
    forget_index(rig, None)
    _file(rig).write_text("0 100\n")
    second = open_rig()
    data = payload(77, size + 1)
    assert second.commit(data, meta(77, "pacs")).kept.id == 1
    second.feed()
    second.close()
    forget_index(second, saved)
    return second, data


@SIZES
def test_it_gets_a_number_of_its_own(open_rig: OpenRig, size: int) -> None:
    _, data = _twice(open_rig, size)
    rig = open_rig()
    assert any("number of another" in line for line in rig.report.damage)
    ref = _waits(rig, data)
    assert ref.id > 5
    assert rig.begin().id > ref.id
    rig.close()
    assert verify(rig.directory / "spool", rig.directory / "index.sqlite").counts["damaged"] == 0
    last = open_rig()
    assert last.report.added == 0
    last.loop.in_thread(last.keeper.sweep)
    assert _waits(last, data).id == ref.id


@SIZES
@pytest.mark.parametrize("when", ["early", "before", "after"])
def test_it_is_there_once_after_a_start_that_was_killed(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch, size: int, when: str
) -> None:
    _, data = _twice(open_rig, size)
    _broken_off(open_rig(start=False), monkeypatch, when)
    _waits(open_rig(), data)


@SIZES
def test_it_can_be_looked_at_beside_the_gateway(open_rig: OpenRig, size: int) -> None:
    """Regression: its record, which has the number of before, was told as damaged."""
    _, data = _twice(open_rig, size)
    rig = open_rig()
    view = IndexView(rig.directory / "index.sqlite")
    look = Lookout(rig.directory / "spool", view)
    (ref,) = (w.ref for w in rig.index.lease("pacs", 100, 3e9, ()) if w.ref.length == len(data))
    seen = look.one(ref, lambda ref, meta, pieces: b"".join(pieces))
    look.close()
    view.close()
    assert (seen.id, seen.damage, seen.result) == (ref.id, "", data)


@SIZES
def test_it_can_be_copied(open_rig: OpenRig, size: int) -> None:
    _, data = _twice(open_rig, size)
    rig = open_rig()
    ref = _waits(rig, data)
    place = rig.relocate(ref)
    rig.index.move([place])
    assert _waits(rig, data).generation == place.generation
    rig.close()
    _waits(open_rig(), data)


@pytest.mark.parametrize("batch", [1, 1000])
def test_both_are_there_in_a_new_index(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(rebuild, "_BATCH", batch)
    rig = open_rig()
    rig.commit(payload(1, 6000), meta(1, "pacs"))
    rig.close()
    forget_index(rig, None)
    hidden = rig.directory / "spool" / "hidden"
    (path,) = (rig.directory / "spool" / "segments").iterdir()
    path.rename(hidden)
    (rig.directory / "spool" / "segments.roll").unlink()  # it would be missed
    _file(rig).write_text("0 100\n")
    second = open_rig()
    assert second.commit(payload(2, 7000), meta(2, "pacs")).kept.id == 1
    second.close()
    forget_index(second, None)
    hidden.rename(path.with_name("00000099.seg"))
    last = open_rig()
    assert last.report.added == 2
    rows = {row.meta.sop_instance_uid: row for row in last.index.instances(Filter(), 10)}
    for n, size in ((1, 6000), (2, 7000)):
        assert last.read(rows[f"1.2.3.4.{n}"].ref) == payload(n, size)
