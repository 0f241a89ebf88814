"""A copy of which the index is not told yet: its own write may have failed without a word."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from router.spool.record import Ref
from router.spool.recovery import generation_of
from tests.spool.conftest import OpenRig
from tests.spool.keeping import deliver, fill, lives
from tests.spool.spool_samples import KIB, Rig, check_all, segment_of
from tests.spool.test_lost_by_restart import unreadable
from tests.spool.test_rebuild import forget_index, save_index


def _name_of(fd: int) -> str:
    return os.path.realpath(f"/proc/self/fd/{fd}")


@contextmanager
def noted(done: list[tuple[str, int]], refused: Path | None = None) -> Iterator[None]:
    """What is written and synced (-1), in order; one segment cannot be read."""
    reading, writing, syncing = os.pread, os.pwritev, os.fdatasync

    def refusing(fd: int, count: int, offset: int) -> bytes:
        if _name_of(fd) == str(refused):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return reading(fd, count, offset)

    def noting(fd: int, buffers: list[bytes], offset: int, flags: int = 0) -> int:
        done.append((_name_of(fd), offset))
        return writing(fd, buffers, offset, flags)

    def noting_sync(fd: int) -> None:
        done.append((_name_of(fd), -1))
        syncing(fd)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pread", refusing)
        patch.setattr(os, "pwritev", noting)
        patch.setattr(os, "fdatasync", noting_sync)
        yield


def test_a_copy_that_is_needed_is_written_once_more(open_rig: OpenRig) -> None:
    """Regression: the disk did not give the first place at one start, and a power cut took the
    copy."""
    rig = open_rig(spare_segments=2)
    (first,) = fill(rig, 1, 12_000, "pacs")
    place = rig.relocate(first)
    copied, origin = segment_of(rig, place), segment_of(rig, first)
    rig.close()
    done: list[tuple[str, int]] = []
    with noted(done, origin):
        again = open_rig(spare_segments=2)
    written = done.index((str(copied), place.offset))
    assert (str(copied), -1) in done[written:]
    assert again.row(first.id).ref == place
    again.acked.update(rig.acked)
    check_all(again)


def _compacted(open_rig: OpenRig, copies: int = 1) -> tuple[Rig, Path]:
    """The first instances were copied and the segment of their first places recycled; and the index
    of before that."""
    rig = open_rig(spare_segments=2)
    refs = fill(rig, 6 * copies, 40 * KIB // copies, "pacs")
    fill(rig, 6, 40 * KIB, "pacs")
    saved = save_index(rig)
    deliver(rig, refs[copies:])
    for _ in range(10):
        rig.step()
    assert refs[0].generation not in lives(rig)
    return rig, saved


def _copied(open_rig: OpenRig, which: str) -> tuple[Rig, Ref, Path]:
    """The same at rest, with the index of before or none; where the copy is, and in which file."""
    rig, saved = _compacted(open_rig)
    place = rig.row(1).ref
    copied = segment_of(rig, place)
    rig.close()
    forget_index(rig, saved if which == "yesterday" else None)
    return rig, place, copied


@pytest.mark.parametrize("which", ["yesterday", "none"])
def test_a_copy_whose_first_place_is_gone_is_written_once_more(
    open_rig: OpenRig, which: str
) -> None:
    rig, place, copied = _copied(open_rig, which)
    done: list[tuple[str, int]] = []
    with noted(done):
        again = open_rig(spare_segments=2)
    written = done.index((str(copied), place.offset))
    assert (str(copied), -1) in done[written:]
    assert again.row(1).ref == place
    assert again.read(place) == rig.acked[1][0]


def test_one_copy_that_cannot_be_written_once_more_keeps_no_other_from_it(
    open_rig: OpenRig,
) -> None:
    """Regression: those behind it in its segment were neither written nor synced, and counted."""
    rig, _ = _compacted(open_rig, copies=2)
    first, second = sorted((rig.row(1).ref, rig.row(2).ref), key=lambda ref: ref.offset)
    copied = segment_of(rig, second)
    assert segment_of(rig, first) == copied
    rig.close()
    forget_index(rig, None)
    done: list[tuple[str, int]] = []
    with noted(done), pytest.MonkeyPatch.context() as patch:
        reading = os.pread

        def refusing(fd: int, count: int, offset: int) -> bytes:
            if (_name_of(fd), offset) == (str(copied), first.offset) and count > first.length:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return reading(fd, count, offset)

        patch.setattr(os, "pread", refusing)
        again = open_rig(spare_segments=2)
    assert (str(copied), first.offset) not in done
    (told,) = (line for line in again.report.damage if "once more" in line)
    assert told.startswith(f"segment {copied.name}: ")
    assert told.endswith("Input/output error")
    written = done.index((str(copied), second.offset))
    assert (str(copied), -1) in done[written:]
    for number, ref in ((first.id, first), (second.id, second)):
        assert again.row(number).ref == ref
        assert again.read(ref) == rig.acked[number][0]


def test_a_copy_that_the_kernel_shows_no_more_is_told(open_rig: OpenRig) -> None:
    """It was sound when it was found, and what is written again is what the disk has instead."""
    _, place, copied = _copied(open_rig, "none")
    writing = os.pwritev

    def as_on_disk(fd: int, buffers: list[bytes], offset: int, flags: int = 0) -> int:
        if (_name_of(fd), offset) == (str(copied), place.offset):
            buffers = [bytes(sum(map(len, buffers)))]
        return writing(fd, buffers, offset, flags)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pwritev", as_on_disk)
        again = open_rig(spare_segments=2)
    assert any(line.startswith("instance 1: ") for line in again.report.damage)
    row = again.row(1)
    assert row.meta.quarantined
    assert "no sound record" in row.meta.reason


@pytest.mark.parametrize("which", ["yesterday", "none"])
def test_a_copy_that_cannot_be_looked_at_again_now_is_kept(open_rig: OpenRig, which: str) -> None:
    """Regression: it was left where nobody looks any more, or held, and its segment used again."""
    rig, place, copied = _copied(open_rig, which)
    done: list[tuple[str, int]] = []
    with noted(done), pytest.MonkeyPatch.context() as patch:
        reading = os.pread

        def refusing(fd: int, count: int, offset: int) -> bytes:
            if (_name_of(fd), offset) == (str(copied), place.offset) in done:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return reading(fd, count, offset)

        patch.setattr(os, "pread", refusing)
        again = open_rig(spare_segments=2)
    assert any(line.startswith("instance 1: ") for line in again.report.damage)
    for _ in range(3):
        again.step()
    row = again.row(1)
    assert row.ref == place
    assert [route.destination for route in row.meta.routes] == ["pacs"]
    assert again.read(place) == rig.acked[1][0]


def _free_one(rig: Rig) -> Path:
    """The segment of the first places, of which the header says that it is free."""
    (origin,) = [
        path
        for path in sorted((rig.directory / "spool" / "segments").glob("*.seg"))
        if generation_of(path) == 1
    ]
    return origin


@contextmanager
def _unopened(refused: Path) -> Iterator[None]:
    opening = Path.open

    def refusing(path: Path, *arguments: Any, **more: Any) -> IO[Any]:
        if path == refused:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return opening(path, *arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", refusing)
        yield


def test_a_copy_is_taken_where_the_life_of_its_first_place_may_be_over(open_rig: OpenRig) -> None:
    """Regression: it was left where its segment was for a start that could not read its header; the
    next one found that it was free, and used it again."""
    rig, saved = _compacted(open_rig)
    place = rig.row(1).ref
    origin = _free_one(rig)
    rig.close()
    forget_index(rig, saved)
    with _unopened(origin):
        again = open_rig(spare_segments=2)
    again.close()
    last = open_rig(spare_segments=2)
    assert last.row(1).ref == place
    assert last.read(place) == rig.acked[1][0]


def test_a_place_that_the_index_knows_is_not_given_up_for_one_whose_life_may_be_over(
    open_rig: OpenRig,
) -> None:
    """An index of yesterday, of a start that could not read some segment: what came since then is
    read again, also the first place of what was copied, in a segment that is free."""
    rig = open_rig(spare_segments=2)
    (first,) = fill(rig, 1, 40 * KIB, "pacs")
    hidden = segment_of(rig, first)
    rig.close()
    with unreadable(hidden.name):
        rig = open_rig(spare_segments=2)
    refs = fill(rig, 6, 40 * KIB, "pacs")
    fill(rig, 6, 40 * KIB, "pacs")
    origin = segment_of(rig, refs[0])
    deliver(rig, refs[1:])
    for _ in range(10):
        rig.step()
    assert refs[0].generation not in lives(rig)
    place = rig.row(refs[0].id).ref
    saved = save_index(rig)
    rig.close()
    open_rig(spare_segments=2).close()
    forget_index(rig, saved)
    with _unopened(origin):
        open_rig(spare_segments=2).close()
    last = open_rig(spare_segments=2)
    assert last.row(refs[0].id).ref == place
    assert last.read(place) == rig.acked[refs[0].id][0]


def test_a_free_segment_that_could_not_be_read_once_is_not_waited_for(open_rig: OpenRig) -> None:
    """Regression: every start from then on left numbers out and answered peers as one that misses
    something."""
    rig, _ = _compacted(open_rig)
    origin = _free_one(rig)
    rig.close()
    with _unopened(origin):
        again = open_rig(spare_segments=2)
    assert again.spool.gap is not None
    again.close()
    last = open_rig(spare_segments=2)
    assert last.spool.gap is None
    assert not last.spool.log_damaged
    generation = last.spool.segments.next_generation
    last.close()
    assert open_rig(spare_segments=2).spool.segments.next_generation == generation
