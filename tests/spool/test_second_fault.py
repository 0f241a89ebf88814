"""Two faults in a row: what one start could not read, and what the next must not make of it."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from router.spool.errors import SpoolError, SpoolFull
from router.spool.index import Index
from router.spool.index_types import Disposition, Filter
from router.spool.layout import BLOCK
from tests.spool.conftest import OpenRig
from tests.spool.index_copies import index_bytes
from tests.spool.keeping import fill, lives
from tests.spool.spool_samples import KIB, Rig, check_all, meta, payload, segment_of
from tests.spool.test_lost_by_restart import settle, uids, unreadable
from tests.spool.test_rebuild import forget_index, save_index
from tests.spool.test_recovery import fail_for

LARGE = 300 * KIB


def _eio() -> OSError:
    return OSError(errno.EIO, "Input/output error")


@contextmanager
def bad_blocks(name: str, where: Callable[[int], bool], *, header: bool = False) -> Iterator[None]:
    """Reads of a segment fail at the offsets that ``where`` holds for; with it the header's.

    One that begins before such a block gives what lies before it, as the kernel does."""
    pread, opening = os.pread, Path.open

    def failing(fd: int, count: int, offset: int) -> bytes:
        if Path(f"/proc/self/fd/{fd}").readlink().name != name:
            return pread(fd, count, offset)
        if where(offset):
            raise _eio()
        blocks = range(offset // BLOCK * BLOCK + BLOCK, offset + count, BLOCK)
        bad = next(filter(where, blocks), offset + count)
        return pread(fd, bad - offset, offset)

    def not_opening(self: Path, *args: Any, **kwargs: Any) -> Any:
        if header and self.name == name:
            raise _eio()
        return opening(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pread", failing)
        patch.setattr(Path, "open", not_opening)
        yield


@dataclass
class _Unindexed:
    """An acknowledged instance of which the index was not told, in a file that one start could
    not read."""

    rig: Rig
    path: Path


@pytest.fixture(params=[6000, LARGE], ids=["small", "large"])
def unindexed(open_rig: OpenRig, request: pytest.FixtureRequest) -> _Unindexed:
    rig = open_rig()
    rig.commit(payload(1, 5000), meta(1, "pacs"))
    rig.feed()
    path = segment_of(rig, rig.commit(payload(2, request.param), meta(2, "pacs")).kept)
    rig.close()
    return _Unindexed(rig, path)


def _bad_start(open_rig: OpenRig, path: Path, number: int) -> Rig:
    with unreadable(path.name):
        rig = open_rig()
        rig.commit(payload(number, 5000), meta(number, "pacs"))
        rig.feed()
        rig.close()
    return rig


def _good_start(open_rig: OpenRig, *earlier: Rig) -> Rig:
    rig = open_rig()
    rig.keeper.sweep()
    for _ in range(3):
        rig.step()
    for each in earlier:
        rig.acked.update(each.acked)
    check_all(rig)
    return rig


@pytest.mark.parametrize("begin", [1, BLOCK], ids=["all of it", "from its second block on"])
def test_one_whose_description_could_not_be_read_once_was_held_for_good(
    open_rig: OpenRig, begin: int
) -> None:
    """Regression: where it was to go is on the disk, and was never asked for again."""
    rig = open_rig()
    rig.commit(payload(1, 5000), meta(1, "pacs"))
    rig.feed()
    what = meta(2, *(f"a destination with a long name {n}" for n in range(200)))
    ref = rig.commit(payload(2, 5000), what).kept
    path = segment_of(rig, ref)
    rig.close()
    with bad_blocks(path.name, lambda offset: ref.offset + begin <= offset < ref.data_offset):
        bad = open_rig()
        assert any("unreadable" in line for line in bad.report.damage)
        assert bad.index.instance(ref.id) is None
        bad.close()
    _good_start(open_rig, rig)


def test_what_lies_behind_a_second_bad_block_waited_for_the_first(open_rig: OpenRig) -> None:
    """Regression: the search for the next record gave up where a read was cut short."""
    rig = open_rig()
    first = rig.commit(payload(1, 20_000), meta(1, "pacs")).kept
    second = rig.commit(payload(2, 5000), meta(2, "pacs")).kept
    path = segment_of(rig, first)
    rig.close()
    bad = {first.offset, first.offset + 3 * BLOCK}
    with bad_blocks(path.name, lambda offset: offset // BLOCK * BLOCK in bad):
        there = open_rig()
        assert there.index.instance(first.id) is None
        assert there.index.instance(second.id) is not None
        there.close()
    _good_start(open_rig, rig)


def test_what_was_made_up_for_was_forgotten_before_the_index_had_it(
    open_rig: OpenRig, unindexed: _Unindexed, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = _bad_start(open_rig, unindexed.path, 3)
    add = Index.add

    def adding(self: Index, entries: Any, *args: Any, **kwargs: Any) -> Any:
        if entries:
            raise SpoolFull("index: database or disk is full")
        return add(self, entries, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Index, "add", adding)
        third = open_rig(start=False)
        with pytest.raises(SpoolError, match="full"):
            third.start()
        third.close()
    assert "1.2.3.4.2" in uids(_good_start(open_rig, unindexed.rig, second))


def test_what_was_made_up_for_was_forgotten_before_a_power_cut_spared_it(
    open_rig: OpenRig, unindexed: _Unindexed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = _bad_start(open_rig, unindexed.path, 3)

    def state() -> bytes:
        return index_bytes(tmp_path / "index.sqlite")

    durable = [state()]
    barrier = Index.barrier

    def barring(self: Index) -> None:
        barrier(self)
        durable.append(state())

    with monkeypatch.context() as patch:
        patch.setattr(Index, "barrier", barring)
        third = open_rig()
        assert "1.2.3.4.2" in uids(third)
        third.close()
    (tmp_path / "index.sqlite").write_bytes(durable[-1])
    assert "1.2.3.4.2" in uids(_good_start(open_rig, unindexed.rig, second))


def test_a_file_that_was_noted_and_is_away_for_one_start_was_forgotten(
    open_rig: OpenRig, unindexed: _Unindexed, tmp_path: Path
) -> None:
    """An operator copies it to a sound disk, and brings it back."""
    second = _bad_start(open_rig, unindexed.path, 3)
    away = tmp_path / "rescued.seg"
    unindexed.path.rename(away)
    third = open_rig()
    third.keeper.sweep()
    third.close()
    away.rename(unindexed.path)
    assert "1.2.3.4.2" in uids(_good_start(open_rig, unindexed.rig, second))


def test_what_could_not_be_read_is_read_from_a_copy_of_another_name(open_rig: OpenRig) -> None:
    """Regression: an operator rescued the file, and left the one with the bad block where it is."""
    rig = open_rig()
    rig.commit(payload(1, 5000), meta(1, "pacs"))
    rig.feed()
    ref = rig.commit(payload(2, 5000), meta(2, "pacs")).kept  # and the index is not told
    path = segment_of(rig, ref)
    rig.close()
    rescued = path.read_bytes()
    with bad_blocks(path.name, lambda offset: offset >= ref.offset):
        second = open_rig()
        assert any("unreadable" in line for line in second.report.damage)
        second.commit(payload(3, 5000), meta(3, "pacs"))
        second.feed()
        second.close()
        path.with_name("00000099.seg").write_bytes(rescued)
        third = _good_start(open_rig, rig, second)
        assert uids(third) == {f"1.2.3.4.{n}" for n in (1, 2, 3)}
        third.close()
        assert open_rig().spool.gap is None


def test_two_starts_in_a_row_gave_out_the_same_numbers_and_generations(open_rig: OpenRig) -> None:
    rig = open_rig()
    path = segment_of(rig, rig.commit(payload(1, 5000), meta(1, "pacs")).kept)
    rig.close()
    lives_ = [rig]
    for first in (20, 30):
        with unreadable(path.name):
            other = open_rig()
            kept = [
                other.commit(payload(n, 5000), meta(n, "pacs")).kept
                for n in range(first, first + 3)
            ]
            other.close()
        path = segment_of(other, kept[0])
        lives_.append(other)
    last = _good_start(open_rig, *lives_)
    assert uids(last) == {f"1.2.3.4.{n}" for n in (1, 20, 21, 22, 30, 31, 32)}


@pytest.mark.parametrize("size", [3000, LARGE])
def test_copies_out_of_reach_when_the_index_was_lost_were_taken_for_purged(
    open_rig: OpenRig, tmp_path: Path, size: int
) -> None:
    rig = open_rig()
    kept = rig.commit(payload(1, size), meta(1, "pacs")).kept
    others = [rig.commit(payload(n, 50000), meta(n, "vna")).kept for n in (2, 3)]
    rig.feed()
    settle(rig, [ref.id for ref in others], "vna")
    rig.spool.segments.seal()
    for _ in range(4):
        rig.step()
    copy = rig.row(kept.id).ref
    assert copy.generation > kept.generation
    assert kept.generation not in lives(rig)
    rig.close()
    (tmp_path / "index.sqlite").unlink()
    second = _bad_start(open_rig, segment_of(rig, copy), 9)
    rig.acked = {kept.id: rig.acked[kept.id]}
    _good_start(open_rig, rig, second)


@pytest.mark.parametrize("size", [6000, LARGE])
def test_the_first_blocks_of_a_segment_used_again_were_out_of_reach_once(
    open_rig: OpenRig, size: int
) -> None:
    """What an earlier life left deeper down names an older generation."""
    rig = open_rig(large_instance=64 * KIB)
    refs = [rig.commit(payload(n, 20000), meta(n, "pacs")).kept for n in range(1, 8)]
    rig.feed()
    settle(rig, [ref.id for ref in refs], "pacs")
    rig.spool.segments.seal()
    old = segment_of(rig, refs[0])
    for number in range(50, 70):  # until that segment is used again
        rig.step()
        ref = rig.commit(payload(number, size), meta(number, "pacs")).kept
        rig.feed()
        settle(rig, [ref.id], "pacs")
        if segment_of(rig, ref) == old:
            break
        rig.spool.segments.seal()
    lost = rig.commit(payload(77, size), meta(77, "pacs")).kept
    assert segment_of(rig, lost) == old
    rig.close()
    with bad_blocks(old.name, lambda offset: offset < lost.offset + 4096, header=True):
        second = open_rig()
        second.keeper.sweep()
        second.step()
        second.close()
    rig.acked = {lost.id: rig.acked[lost.id]}
    _good_start(open_rig, rig)


def test_a_sound_copy_was_given_up_for_its_rotten_original(open_rig: OpenRig) -> None:
    rig = open_rig()
    rig.commit(payload(1, 5000), meta(1, "pacs"))
    rig.feed()
    bad = rig.commit(payload(2, 6000), meta(2, "pacs")).kept
    kept = rig.commit(payload(3, 6000), meta(3, "pacs")).kept
    path = segment_of(rig, kept)
    rig.close()
    with bad_blocks(path.name, lambda offset: offset == bad.offset):  # one block, for good
        second = open_rig()
        for _ in range(4):
            second.step()
        copy = second.row(kept.id).ref
        assert copy.generation != kept.generation, "compaction has copied it"
        second.commit(payload(9, 5000), meta(9, "pacs"))  # the index gets on, past the copy
        second.feed()
        second.close()
        with path.open("r+b") as file:  # and the disk decays
            file.seek(kept.data_offset + 100)
            file.write(bytes(512))
        third = open_rig()
        third.acked = {kept.id: rig.acked[kept.id]}
        check_all(third)
        third.close()


def test_what_an_operator_dropped_came_back_with_each_start_beside_a_bad_block(
    open_rig: OpenRig,
) -> None:
    rig = open_rig()
    rig.commit(payload(1, 5000), meta(1, "pacs"))
    rig.feed()
    bad = rig.commit(payload(2, 6000), meta(2, "pacs")).kept
    kept = rig.commit(payload(3, 6000), meta(3, "pacs")).kept
    path = segment_of(rig, kept)
    rig.close()
    with bad_blocks(path.name, lambda offset: offset == bad.offset):
        second = open_rig()
        second.index.drop(Filter(ids=(kept.id,)), "wrong patient", at=1.0)
        second.step()
        assert second.index.instance(kept.id) is None, "settled and purged"
        second.close()
        third = open_rig()
        assert third.index.instance(kept.id) is None
        third.close()
    fourth = open_rig()
    assert fourth.index.instance(kept.id) is None
    assert fourth.index.instance(bad.id) is not None, "the bad block was read at last"


@pytest.mark.parametrize("note", [bytes(40), b"0000p003.seg 1 4096\n", b"00000003.sdg 1 4096\n"])
def test_a_damaged_note_was_a_fault_of_the_program(
    open_rig: OpenRig, tmp_path: Path, note: bytes
) -> None:
    open_rig().close()
    (tmp_path / "spool" / "unread").write_bytes(note)
    with pytest.raises(SpoolError, match=r"unread.*move it away together with index\.sqlite"):
        open_rig()


def test_an_instance_whose_file_could_not_be_read_once_was_held_for_good(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = open_rig()
    kept = rig.commit(payload(3, LARGE), meta(3, "pacs")).kept
    rig.close()
    opening = os.open

    def failing(path: Any, *args: Any, **kwargs: Any) -> int:
        if str(path).endswith(".dat"):
            raise _eio()
        return opening(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing)
        second = open_rig()
    assert second.row(kept.id).disposition is Disposition.ROUTED
    assert second.read(second.row(kept.id).ref) == payload(3, LARGE)


def test_one_record_of_larger_segments_stopped_all_compaction(open_rig: OpenRig) -> None:
    rig = open_rig(segment_size=1024 * KIB, large_instance=256 * KIB)
    rig.commit(payload(1, 200 * KIB), meta(1, "pacs"))
    rig.feed()
    rig.close()
    small = open_rig(segment_size=128 * KIB, large_instance=32 * KIB)
    for number in range(20):
        small.commit(payload(100 + number, 5000), meta(100 + number, "pacs"))
        fill = [
            small.commit(payload(n, 25000), meta(n, "vna")).kept
            for n in range(1000 + 10 * number, 1003 + 10 * number)
        ]
        small.feed()
        settle(small, [ref.id for ref in fill], "vna")
        small.spool.segments.seal()
        small.step()
    for _ in range(30):
        small.step()
    assert len(lives(small)) < 10


@pytest.mark.parametrize("index_is_lost", [False, True])
def test_a_copy_that_the_disk_may_not_have_took_the_place_of_one_that_it_has(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch, index_is_lost: bool
) -> None:
    """The process was killed as compaction wrote the copy, before the disk had flushed it."""
    rig = open_rig(spare_segments=2)
    (first,) = fill(rig, 1, 12_000, "pacs")
    rig.relocate(first)
    copied = segment_of(rig, rig.commit(payload(2, 40_000), meta(2, "pacs")).kept)
    rig.close()
    if index_is_lost:
        for path in rig.directory.glob("index.sqlite*"):
            path.unlink()
    with monkeypatch.context() as patch:
        fail_for(patch, "sync", copied)
        again = open_rig(spare_segments=2)
    assert again.row(first.id).ref == first
    again.acked.update(rig.acked)
    check_all(again)


def test_a_copy_that_the_disk_may_not_have_is_taken_where_there_is_nothing_else(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an index of before the copy was made, the first place of which is used again."""
    rig = open_rig(spare_segments=2)
    (first,) = fill(rig, 1, 12_000, "pacs")
    saved = save_index(rig)
    rig.index.move([place := rig.relocate(first)])
    copied = segment_of(rig, rig.commit(payload(2, 80_000), meta(2, "pacs")).kept)
    rig.feed()
    rig.step()
    assert first.generation not in lives(rig)
    rig.close()
    forget_index(rig, saved)
    with monkeypatch.context() as patch:
        fail_for(patch, "sync", copied)
        again = open_rig(spare_segments=2)
    assert again.row(first.id).ref == place
    again.acked.update(rig.acked)
    check_all(again)


@pytest.mark.parametrize("index_is_lost", [False, True])
def test_a_copy_whose_write_failed_takes_the_place_of_nothing_at_the_next_start(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch, index_is_lost: bool
) -> None:
    """Regression: the kernel shows what it could not write, and takes it for written from then on.
    So the next start's sync succeeded, the first place was given up, and a power cut took the
    copy."""
    rig = open_rig(spare_segments=2)
    (first,) = fill(rig, 1, 12_000, "pacs")
    writing = os.pwritev

    def forgetting(fd: int, buffers: list[bytes], offset: int, flags: int = 0) -> int:
        count = writing(fd, buffers, offset)
        if flags & os.RWF_DSYNC:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return count

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", forgetting)
        assert "Input/output error" in rig.step().trouble
    rig.close()
    if index_is_lost:
        for path in rig.directory.glob("index.sqlite*"):
            path.unlink()
    again = open_rig(spare_segments=2)
    assert again.row(first.id).ref == first
    assert again.step().moved == 1, "once more, durably"
    again.acked.update(rig.acked)
    check_all(again)


def test_a_copy_takes_the_place_of_a_record_that_is_damaged(open_rig: OpenRig) -> None:
    """Of one that the index was not told of, as the process was killed before."""
    rig = open_rig(spare_segments=2)
    (first,) = fill(rig, 1, 12_000, "pacs")
    place = rig.relocate(first)
    rotten = segment_of(rig, first)
    rig.close()
    with rotten.open("r+b") as file:
        file.seek(first.data_offset)
        file.write(b"rot")
    again = open_rig(spare_segments=2)
    assert again.row(first.id).ref == place
    again.acked.update(rig.acked)
    check_all(again)
