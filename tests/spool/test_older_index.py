"""An index that is put back from a copy, of a time when a start could not read everything."""

import shutil
from pathlib import Path

import pytest

from router.spool.errors import IndexDamaged
from router.spool.index import Index, move_aside
from tests.spool.conftest import OpenRig
from tests.spool.keeping import deliver, lives
from tests.spool.spool_samples import KIB, Rig, check_all, meta, payload, segment_of
from tests.spool.test_lost_by_restart import unreadable
from tests.spool.test_rebuild import forget_index, save_index


@pytest.fixture(params=[6000, 300 * KIB], ids=["small", "large"])
def copy(open_rig: OpenRig, request: pytest.FixtureRequest) -> tuple[Rig, Path]:
    """Of the index, from behind a segment that could not be read; by now it was read, and what is
    in it waits."""
    rig = open_rig()
    first = rig.commit(payload(1, request.param), meta(1, "pacs")).kept  # not in the index
    rig.close()
    with unreadable(segment_of(rig, first).name):
        again = open_rig()
        again.commit(payload(2, 6000), meta(2, "pacs"))
        again.feed()
        saved = save_index(again)
        again.close()
    found = open_rig()
    found.acked = rig.acked | again.acked
    check_all(found)
    return found, saved


@pytest.mark.parametrize("later", [False, True], ids=["as it lay", "copied since"])
def test_has_what_was_read_since(open_rig: OpenRig, copy: tuple[Rig, Path], later: bool) -> None:
    rig, saved = copy
    if later:
        rows = [rig.row(number) for number in rig.acked]
        rig.index.move([rig.relocate(row.ref) for row in rows])
        rig.feed()
        rig.step()
        assert not set(lives(rig)) & {row.ref.generation for row in rows}
    rig.close()
    forget_index(rig, saved)
    last = open_rig()
    last.loop.in_thread(last.keeper.sweep)
    for _ in range(3):
        last.step()
    last.acked = rig.acked
    check_all(last)


def test_a_start_that_knows_the_notes_reads_nothing_twice(
    open_rig: OpenRig, copy: tuple[Rig, Path]
) -> None:
    rig, _ = copy
    assert rig.index.gap() is None
    rig.commit(payload(3, 6000), meta(3, "pacs"))
    rig.feed()
    deliver(rig, [rig.row(number).ref for number in rig.acked])
    rig.keeper._index.purge(2e9, 100)
    rig.close()
    assert open_rig().report.added == 0


def test_beside_a_log_that_is_not_its_own_is_made_anew(open_rig: OpenRig, tmp_path: Path) -> None:
    """Somebody puts index.sqlite back from a copy and leaves index.sqlite-wal where it is."""
    rig = open_rig()
    now, after = rig.directory / "index.sqlite", tmp_path / "after"
    for n in range(200):
        rig.commit(payload(n, 500), meta(n, "pacs"))
        rig.feed()
        if n == 60:
            saved = now.read_bytes()
        if n in (50, 190):
            rig.index._db.run("PRAGMA wal_checkpoint(PASSIVE)")
    shutil.copytree(rig.directory, after)  # so the power fails
    (after / now.name).write_bytes(saved)
    with pytest.raises(IndexDamaged):
        Index.open(after / now.name)
    # The end was not clean, which only the first look saw: what ended it may have come at once.
    with pytest.raises(IndexDamaged):
        Index.open(after / now.name)
    move_aside(after / now.name, "damaged")
    again = open_rig(after)
    again.acked = rig.acked
    check_all(again)
