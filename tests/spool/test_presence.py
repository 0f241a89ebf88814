"""Whether instances are still where they were written, while the spool is open."""

import errno
import os
from pathlib import Path

import pytest

from router.spool import moves
from router.spool.presence import present
from router.spool.record import Ref
from tests.spool.conftest import OpenRig
from tests.spool.spool_samples import KIB, Rig, meta, payload


def segment_of(rig: Rig, ref: Ref) -> Path:
    segment = rig.spool.segments.pin(ref.generation)
    assert segment is not None
    rig.spool.segments.unpin(segment)
    return segment.path


def file_of(rig: Rig, ref: Ref) -> Path:
    return rig.spool.large_directory / f"{ref.id:016x}.dat"


@pytest.fixture
def refs(rig: Rig) -> list[Ref]:
    """Three in the first segment, one of which is large, and two in the next; all were read, so
    that the files are open."""
    sizes = (50 * KIB, 200 * KIB, 60 * KIB, 60 * KIB, 60 * KIB, 60 * KIB)
    kept = [rig.commit(payload(n, size), meta(n)).kept for n, size in enumerate(sizes, 1)]
    for ref in kept:
        reader = rig.spool.open_reader(ref)
        reader.read([memoryview(bytearray(ref.length))])
        reader.close()
    assert len({ref.generation for ref in kept}) == 2
    assert [ref.large for ref in kept].count(True) == 1
    return kept


def test_all_is_there(rig: Rig, refs: list[Ref]) -> None:
    assert present(rig.spool, refs) == {ref.id: True for ref in refs}
    assert present(rig.spool, []) == {}


def test_a_segment_is_removed_under_the_running_spool(rig: Rig, refs: list[Ref]) -> None:
    segment_of(rig, refs[0]).unlink()
    lost = refs[0].generation
    assert present(rig.spool, refs) == {ref.id: ref.generation != lost for ref in refs}


@pytest.mark.parametrize("with_what", [b"\0", b"\xff"])
def test_a_segment_is_overwritten(rig: Rig, refs: list[Ref], with_what: bytes) -> None:
    path = segment_of(rig, refs[0])
    path.write_bytes(with_what * path.stat().st_size)
    lost = refs[0].generation
    assert present(rig.spool, refs) == {ref.id: ref.generation != lost for ref in refs}


def test_a_segment_has_the_name_of_another(rig: Rig, refs: list[Ref]) -> None:
    one, other = segment_of(rig, refs[0]), segment_of(rig, refs[-1])
    one.write_bytes(other.read_bytes())
    lost = refs[0].generation
    assert present(rig.spool, refs) == {ref.id: ref.generation != lost for ref in refs}


def test_a_segment_is_cut_within_the_last_data_set(rig: Rig, refs: list[Ref]) -> None:
    first = [ref for ref in refs if ref.generation == refs[0].generation and not ref.large]
    last = max(first, key=lambda ref: ref.offset)
    os.truncate(segment_of(rig, last), last.data_offset + last.length - 1)
    assert present(rig.spool, refs) == {ref.id: ref != last for ref in refs}


def test_only_what_is_at_its_place_counts(rig: Rig, refs: list[Ref]) -> None:
    first = refs[0]
    wrong = [
        first._replace(offset=first.offset + 4096),
        first._replace(crc=first.crc ^ 1),
        first._replace(length=first.length - 1),
        first._replace(large=True),
        first._replace(generation=999),
    ]
    for ref in wrong:
        assert present(rig.spool, [ref]) == {first.id: False}, ref
    assert present(rig.spool, [first]) == {first.id: True}


@pytest.mark.parametrize("how", ["removed", "cut"])
def test_the_file_of_a_large_one(rig: Rig, refs: list[Ref], how: str) -> None:
    (large,) = [ref for ref in refs if ref.large]
    path = file_of(rig, large)
    path.unlink() if how == "removed" else os.truncate(path, large.length - 1)
    assert present(rig.spool, refs) == {ref.id: not ref.large for ref in refs}


def test_a_large_one_whose_record_is_gone(rig: Rig, refs: list[Ref]) -> None:
    (large,) = [ref for ref in refs if ref.large]
    segment_of(rig, large).unlink()
    assert present(rig.spool, [large]) == {large.id: False}


def test_one_that_was_moved_is_where_it_was_moved_to(rig: Rig, refs: list[Ref]) -> None:
    first, *others = refs
    rig.spool.moves.add(first)
    before = first._replace(generation=999)
    assert present(rig.spool, [before, *others]) == {ref.id: True for ref in refs}
    segment_of(rig, first).unlink()
    assert present(rig.spool, [before])[first.id] is False


def test_what_may_be_in_a_file_that_could_not_be_read_is_not_known(
    rig: Rig, refs: list[Ref]
) -> None:
    rig.spool.segments.unreadable = 1
    gone = refs[0]._replace(generation=999)
    assert present(rig.spool, [gone]) == {gone.id: None}


def test_what_may_have_been_copied_to_a_place_that_is_forgotten_is_not_known(
    rig: Rig, refs: list[Ref], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moves, "_MOST", 1)
    first, second, *_ = refs
    for ref in (first, second):
        rig.spool.moves.add(ref)
    before = [ref._replace(generation=999) for ref in (first, second)]
    assert present(rig.spool, before) == {first.id: None, second.id: True}


@pytest.mark.parametrize("call", ["open", "pread"])
def test_trouble_of_ours_is_no_loss(
    rig: Rig, refs: list[Ref], call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> int:
        raise OSError(errno.EMFILE if call == "open" else errno.EIO, "trouble")

    with monkeypatch.context() as patch:
        patch.setattr(f"router.spool.presence.os.{call}", fails)
        assert present(rig.spool, refs[:1]) == {refs[0].id: None}
    assert present(rig.spool, refs[:1]) == {refs[0].id: True}


def test_nothing_stays_open_or_pinned(open_rig: OpenRig) -> None:
    rig = open_rig()
    kept = [rig.commit(payload(n, 1000), meta(n)).kept for n in range(5)]
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        present(rig.spool, kept)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    segment = rig.spool.segments.pin(kept[0].generation)
    assert segment is not None
    assert segment.pins == 2, "the committer's own, and this one"
    rig.spool.segments.unpin(segment)
