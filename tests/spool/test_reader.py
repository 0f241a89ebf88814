"""Reading back: what is served is what was committed, or it is not served to its end."""

import errno
import os
from pathlib import Path

import pytest

from router.spool import moves, recovery
from router.spool import reader as module
from router.spool.errors import SpoolDamaged, SpoolError
from router.spool.layout import crc32
from router.spool.reader import Reader
from router.spool.record import Ref
from tests.spool.conftest import OpenRig
from tests.spool.spool_samples import KIB, Rig, meta, payload

SMALL, LARGE = 100_000, 500_000


def place(rig: Rig, ref: Ref) -> tuple[Path, int]:
    """File and offset of the data set."""
    if ref.large:
        return rig.spool.large_directory / f"{ref.id:016x}.dat", 0
    segment = rig.spool.segments.pin(ref.generation)
    assert segment is not None
    rig.spool.segments.unpin(segment)
    return segment.path, ref.data_offset


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def views(*sizes: int) -> list[memoryview]:
    return [memoryview(bytearray(size)) for size in sizes]


def must(reader: Reader, how: str, buffers: list[memoryview]) -> None:
    """Read by `read`, or by `try_read` with `read` when the page cache has it not."""
    if how == "read" or not reader.try_read(buffers):
        reader.read(buffers)


# -- damage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["read", "try_read"])
@pytest.mark.parametrize("size", [1, 4096, SMALL, LARGE])
@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_a_flipped_bit_is_told_before_the_last_bytes(
    rig: Rig, how: str, size: int, where: str
) -> None:
    ref = rig.commit(payload(1, size), meta(1)).kept
    path, offset = place(rig, ref)
    flip(path, offset + {"first": 0, "middle": size // 2, "last": size - 1}[where])
    reader = rig.spool.open_reader(ref)
    handed_over: list[int] = []

    def read_on() -> None:
        while reader.remaining:
            count = min(7000, reader.remaining)
            must(reader, how, views(count))
            handed_over.append(count)

    with pytest.raises(SpoolDamaged, match=f"instance {ref.id}: CRC-32"):
        read_on()
    assert sum(handed_over) < size
    reader.close()


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("kept", [0, 1, 50_000])
def test_a_file_that_ends_too_early_is_damage(rig: Rig, size: int, kept: int) -> None:
    ref = rig.commit(payload(1, size), meta(1)).kept
    path, offset = place(rig, ref)
    os.truncate(path, offset + kept)
    reader = rig.spool.open_reader(ref)
    buffers = views(10, 20_000, size - 20_010)
    assert reader.try_read(buffers) is False
    with pytest.raises(SpoolDamaged, match="ends too early"):
        reader.read(buffers)
    reader.close()


def test_a_missing_file_is_damage(rig: Rig) -> None:
    ref = rig.commit(payload(1, LARGE), meta(1)).kept
    place(rig, ref)[0].unlink()
    reader = rig.spool.open_reader(ref)
    with pytest.raises(SpoolDamaged, match="is missing"):
        reader.read(views(10))
    reader.close()


def test_a_recycled_generation_is_damage(rig: Rig) -> None:
    ref = rig.commit(payload(1, SMALL), meta(1)).kept
    rig.spool.segments.seal()
    rig.feed()
    generation = ref.generation
    recycled = rig.spool.segments.recycle(
        generation, wipe=False, indexed=rig.index.indexed_position()
    )
    assert recycled
    with pytest.raises(SpoolDamaged, match=f"generation {generation} is gone"):
        rig.spool.open_reader(ref)


def test_more_than_is_left_is_not_read(rig: Rig) -> None:
    ref = rig.commit(payload(1, 100), meta(1)).kept
    rig.commit(payload(2, 100), meta(2))  # what follows in the segment is another's
    reader = rig.spool.open_reader(ref)
    assert reader.try_read(views(101)) is False
    with pytest.raises(SpoolDamaged, match="101 bytes wanted, 100 are left"):
        reader.read(views(60, 41))
    assert reader.remaining == 100
    reader.close()


def test_an_error_of_the_disk_is_no_damage(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    # It may pass; as damage the instance would be given up.
    data = payload(1, SMALL)
    ref = rig.commit(data, meta(1)).kept
    reader = rig.spool.open_reader(ref)

    def failing(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    buffers = views(SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(module.os, "preadv", failing)
        assert reader.try_read(buffers) is False
        with pytest.raises(SpoolError) as caught:
            reader.read(buffers)
    assert not isinstance(caught.value, SpoolDamaged)
    reader.read(buffers)
    assert bytes(buffers[0]) == data
    reader.close()


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.EOPNOTSUPP, errno.EINTR])
def test_pages_that_are_not_in_memory_consume_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    data = payload(1, SMALL)
    reader = rig.spool.open_reader(rig.commit(data, meta(1)).kept)

    def busy(*_: object) -> int:
        raise OSError(code, "not now")

    first, second = views(60_000), views(40_000)
    reader.read(first)
    with monkeypatch.context() as patch:
        patch.setattr(module.os, "preadv", busy)
        assert reader.try_read(second) is False
    assert reader.remaining == 40_000
    reader.read(second)
    assert bytes(first[0]) + bytes(second[0]) == data
    reader.close()


def test_a_part_of_the_pages_consumes_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    data = payload(1, SMALL)
    reader = rig.spool.open_reader(rig.commit(data, meta(1)).kept)
    real = os.preadv

    def part(fd: int, buffers: list[memoryview], offset: int, *flags: int) -> int:
        return real(fd, [buffers[0][:4096]], offset, *flags)

    buffers = views(50_000, 50_000)
    with monkeypatch.context() as patch:
        patch.setattr(module.os, "preadv", part)
        assert reader.try_read(buffers) is False
        assert reader.remaining == SMALL
        reader.read(buffers)  # short reads are continued
    assert b"".join(map(bytes, buffers)) == data
    reader.close()


# -- reading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["read", "try_read"])
@pytest.mark.parametrize("size", [0, 1, SMALL, LARGE])
@pytest.mark.parametrize("sizes", [(1,), (4096, 3), (30_000, 1, 60_000)])
def test_buffers_are_filled_in_order(rig: Rig, how: str, size: int, sizes: tuple[int, ...]) -> None:
    data = payload(1, size)
    if size and sizes == (1,):
        data = data[:300]
    ref = rig.commit(data, meta(1)).kept
    reader = rig.spool.open_reader(ref)
    assert reader.length == reader.remaining == len(data)
    got = bytearray()
    while reader.remaining:
        buffers = []
        for wanted in sizes:
            left = reader.remaining - sum(map(len, buffers))
            if left:
                buffers += views(min(wanted, left))
        must(reader, how, buffers)
        got += b"".join(map(bytes, buffers))
    assert got == data
    reader.close()


def test_more_buffers_than_a_call_takes(rig: Rig) -> None:
    data = payload(1, 3000)
    reader = rig.spool.open_reader(rig.commit(data, meta(1)).kept)
    buffers = views(*[1] * 3000)
    assert reader.try_read(buffers) is False
    reader.read(buffers)
    assert b"".join(map(bytes, buffers)) == data
    reader.close()


def test_what_was_just_read_needs_no_wait(rig: Rig) -> None:
    if rig.spool.directory.stat().st_dev == os.stat("/dev/shm").st_dev:  # noqa: PTH116
        pytest.skip("this file system may not support RWF_NOWAIT")
    data = payload(1, SMALL)
    ref = rig.commit(data, meta(1)).kept
    assert rig.read(ref) == data
    reader = rig.spool.open_reader(ref)
    buffers = views(1, SMALL - 1)
    assert reader.try_read(buffers)
    assert reader.remaining == 0
    assert b"".join(map(bytes, buffers)) == data
    reader.close()


def test_a_reader_keeps_its_segment(rig: Rig) -> None:
    data = payload(1, SMALL)
    ref = rig.commit(data, meta(1)).kept
    rig.feed()
    rig.spool.segments.seal()
    reader = rig.spool.open_reader(ref)
    position = rig.index.indexed_position()
    assert not rig.spool.segments.recycle(ref.generation, wipe=True, indexed=position)
    buffers = views(SMALL)
    reader.read(buffers)
    assert bytes(buffers[0]) == data
    reader.close()
    reader.close()  # harmless, and takes no other's pin
    other = rig.spool.open_reader(ref)
    reader.close()
    assert not rig.spool.segments.recycle(ref.generation, wipe=True, indexed=position)
    other.close()
    assert rig.spool.segments.recycle(ref.generation, wipe=True, indexed=position)


def test_a_segment_that_was_not_open_is_opened(open_rig: OpenRig) -> None:
    rig = open_rig()
    data = payload(1, SMALL)
    ref = rig.commit(data, meta(1)).kept
    rig.feed()
    rig.close()
    again = open_rig()
    reader = again.spool.open_reader(ref)
    buffers = views(SMALL)
    assert reader.try_read(buffers) is False, "the event loop opened a file"
    reader.read(buffers)
    assert bytes(buffers[0]) == data
    reader.close()


def test_an_old_place_leads_to_the_new_one(rig: Rig) -> None:
    data = payload(1, SMALL)
    ref = rig.commit(data, meta(1)).kept
    rig.feed()
    rig.spool.segments.seal()
    place = rig.relocate(ref)
    rig.index.move([place])
    rig.spool.moves.add(place)
    assert place.generation > ref.generation
    assert rig.read(ref) == data
    position = rig.index.indexed_position()
    assert rig.spool.segments.recycle(ref.generation, wipe=True, indexed=position)
    assert rig.read(ref) == data
    rig.spool.moves.forget(place.generation)
    with pytest.raises(SpoolDamaged):
        rig.spool.open_reader(ref)


def test_of_copies_no_more_places_are_remembered_than_a_bound(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: of a queue that waited for long all of it came to be in memory."""
    monkeypatch.setattr(moves, "_MOST", 2)
    data = [payload(n, SMALL) for n in range(4)]
    refs = [rig.commit(one, meta(n, "pacs")).kept for n, one in enumerate(data)]
    rig.feed()
    rig.spool.segments.seal()
    places = [rig.relocate(ref) for ref in refs]
    rig.index.move(places)
    for place in places:
        rig.spool.moves.add(place)
    assert len(rig.spool.moves) == 2
    position = rig.index.indexed_position()
    assert rig.spool.segments.recycle(refs[0].generation, wipe=True, indexed=position)
    with pytest.raises(SpoolError, match="the index knows where to") as found:
        rig.read(refs[0])
    assert not isinstance(found.value, SpoolDamaged), "it would be a dead letter"
    assert rig.read(rig.row(refs[0].id).ref) == data[0]
    assert rig.read(refs[3]) == data[3]


def test_equal_and_unequal_data_sets(rig: Rig) -> None:
    data = payload(1, SMALL)
    one = rig.commit(data, meta(1)).kept
    same = rig.commit(data, meta(2)).kept
    other = rig.commit(payload(2, SMALL), meta(3)).kept
    collision = Ref(other.id, other.generation, other.offset, other.data_offset, SMALL, one.crc)
    large = [rig.commit(data * 5, meta(n)).kept for n in (4, 5)]
    assert rig.spool.same_bytes(one, same)
    assert rig.spool.same_bytes(*large)
    assert not rig.spool.same_bytes(one, other)
    assert not rig.spool.same_bytes(one, collision), "the checksum alone was compared"
    place(rig, large[0])[0].unlink()
    assert not rig.spool.same_bytes(*large), "unreadable bytes were called equal"
    assert all(segment.pins <= 1 for segment in [rig.spool.segments.active])


def test_comparing_large_instances_does_not_keep_the_queues_waiting(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = payload(1, LARGE)
    one, same = (rig.commit(data, meta(n)).kept for n in (1, 2))
    monkeypatch.setattr("router.spool.spool._COMPARED", LARGE)
    assert rig.spool.same_bytes(one, same)
    monkeypatch.setattr("router.spool.spool._COMPARED", LARGE - 1)
    monkeypatch.setattr(rig.spool, "open_reader", None)  # length and CRC are no proof
    assert not rig.spool.same_bytes(one, same)


def test_a_header_and_a_description_are_read_whole_or_not_at_all(rig: Rig) -> None:
    small = rig.commit(payload(1, SMALL), meta(1)).kept
    large = rig.commit(payload(2, LARGE), meta(2)).kept
    segment = rig.spool.segments.active
    assert segment is not None
    for number, ref in ((1, small), (2, large)):
        header, raw = recovery.read_header_and_meta(segment.fd, ref)
        assert (header.id, raw.rstrip()) == (ref.id, meta(number).to_bytes())
    flip(segment.path, small.offset + 64)
    with pytest.raises(SpoolDamaged, match="damaged description"):
        recovery.read_header_and_meta(segment.fd, small)
    flip(segment.path, small.offset)
    with pytest.raises(SpoolDamaged, match="no sound record"):
        recovery.read_header_and_meta(segment.fd, small)


def test_checksums_are_those_of_zlib(rig: Rig) -> None:
    assert crc32(b"123456789") == 0xCBF43926
    assert crc32(b"6789", crc32(b"12345")) == 0xCBF43926
    assert rig.commit(b"123456789", meta(1)).kept.crc == 0xCBF43926
    assert rig.commit(b"", meta(2)).kept.crc == 0
    assert rig.commit(bytes(300 * KIB), meta(3)).kept.crc == crc32(bytes(300 * KIB))
