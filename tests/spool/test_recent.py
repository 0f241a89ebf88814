"""What was committed a moment ago is read from memory, and memory stays bounded."""

import errno

import pytest

from router.spool import system
from router.spool.blocks import BLOCK_SIZE, BlockPool
from router.spool.errors import SpoolDamaged
from router.spool.reader import Reader
from router.spool.recent import Recent, RecentReader
from router.spool.record import Ref
from tests.spool.conftest import OpenRig
from tests.spool.spool_samples import KIB, Rig, meta, payload

SIZE = 100_000


def take(reader: Reader | RecentReader, *sizes: int) -> bytes:
    buffers = [memoryview(bytearray(size)) for size in sizes]
    assert reader.try_read(buffers)
    return b"".join(map(bytes, buffers))


def kept_in(pool: BlockPool, recent: Recent, number: int, blocks: int, uses: int = 1) -> Ref:
    taken = [pool.take() for _ in range(blocks)]
    recent.keep(number, taken, uses)
    return Ref(number, 1, 4096, 8192, blocks * BLOCK_SIZE, 0)


@pytest.mark.parametrize("size", [1, 4096, 4097, BLOCK_SIZE, 2 * BLOCK_SIZE, 250_000])
def test_the_bytes_are_those_committed(open_rig: OpenRig, size: int) -> None:
    rig = open_rig(large_instance=1 << 20, segment_size=1 << 20)
    data = payload(1, size)
    ref = rig.commit(data, meta(1, "pacs"), readers=1).kept
    reader = rig.spool.open_recent(ref)
    assert isinstance(reader, RecentReader)
    first = min(size, 70_001)
    assert (reader.length, reader.remaining) == (size, size)
    got = take(reader, first // 2, first - first // 2)
    got += take(reader, size - first)
    assert got == data
    assert reader.remaining == 0
    reader.close()
    assert rig.read(ref) == data, "and those on the disk are the same"


def test_each_destination_reads_it_once_from_memory(rig: Rig) -> None:
    ref = rig.commit(payload(1, SIZE), meta(1, "a", "b"), readers=2).kept
    pool = rig.spool.blocks
    for left in (1, 0):
        broken = rig.spool.open_recent(ref)
        assert isinstance(broken, RecentReader)
        take(broken, SIZE // 2)
        broken.close()  # its association broke: it will be read again
        reader = rig.spool.open_recent(ref)
        assert isinstance(reader, RecentReader)
        take(reader, SIZE)
        reader.close()
        reader.close()
        assert bool(pool.kept) == bool(left)
    after = rig.spool.open_recent(ref)
    assert isinstance(after, Reader)
    after.close()
    assert (pool.in_use, pool.kept) == (0, 0)


def test_what_nobody_reads_is_not_kept(rig: Rig) -> None:
    ref = rig.commit(payload(1, SIZE), meta(1)).kept
    assert rig.spool.blocks.kept == 0
    assert rig.spool.recent.open(ref) is None


def test_what_could_not_be_committed_is_not_kept(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int) -> None:
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(system, "sync_data", broken)
    outcome = rig.commit(payload(1, SIZE), meta(1, "pacs"), readers=1)
    assert outcome.error is not None
    assert (rig.spool.blocks.kept, rig.spool.blocks.in_use) == (0, 0)


def test_a_flipped_bit_in_memory_is_told_before_the_last_bytes(rig: Rig) -> None:
    ref = rig.commit(payload(1, SIZE), meta(1, "pacs"), readers=1).kept
    reader = rig.spool.open_recent(ref)
    assert isinstance(reader, RecentReader)
    reader._kept.blocks[1][5] ^= 1
    take(reader, SIZE - 1)
    with pytest.raises(SpoolDamaged, match=f"instance {ref.id}: CRC-32 in memory"):
        reader.try_read([memoryview(bytearray(1))])
    reader.close()


def test_more_than_there_is_is_not_read(rig: Rig) -> None:
    ref = rig.commit(payload(1, SIZE), meta(1, "pacs"), readers=1).kept
    reader = rig.spool.open_recent(ref)
    buffers = [memoryview(bytearray(SIZE + 1))]
    assert not reader.try_read(buffers)
    with pytest.raises(SpoolDamaged, match="wanted"):
        reader.read(buffers)
    assert reader.remaining == SIZE
    reader.close()


def test_no_more_than_a_third_of_the_pool_is_kept_and_the_oldest_goes_first() -> None:
    pool = BlockPool(30 * BLOCK_SIZE)
    recent = Recent(pool)
    refs = [kept_in(pool, recent, n, 2) for n in range(1, 9)]
    assert pool.kept == 10 * BLOCK_SIZE
    assert [recent.open(ref) is not None for ref in refs] == [False] * 3 + [True] * 5
    kept_in(pool, recent, 99, 11)
    assert pool.in_use == 0, "larger than the share: given back"


def test_what_arrives_takes_the_room_of_what_is_kept() -> None:
    pool = BlockPool(12 * BLOCK_SIZE)
    recent = Recent(pool)
    for n in range(1, 5):
        kept_in(pool, recent, n, 1)
    blocks = [pool.take() for _ in range(12)]
    assert pool.kept == 0
    assert pool.in_use == 12 * BLOCK_SIZE
    assert len({id(block) for block in blocks}) == 12
    assert not pool.scarce


def test_blocks_that_are_being_read_are_used_again_only_afterwards() -> None:
    pool = BlockPool(12 * BLOCK_SIZE)
    recent = Recent(pool)
    ref = kept_in(pool, recent, 1, 3)
    reader = recent.open(ref)
    assert reader is not None
    mine = {id(block) for block in reader._kept.blocks}
    for n in range(2, 8):
        kept_in(pool, recent, n, 2)
    assert recent.open(ref) is None, "dropped meanwhile"
    taken = [pool.take() for _ in range(12)]
    assert not mine & {id(block) for block in taken}
    pool.give_back(taken)
    reader.close()
    assert (pool.in_use, pool.kept) == (0, 0)
    assert pool._idle <= pool.limit


def test_small_blocks_are_kept_too(rig: Rig) -> None:
    ref = rig.commit(payload(1, KIB), meta(1, "pacs"), readers=1).kept
    assert 0 < rig.spool.blocks.kept <= 4 * KIB
    reader = rig.spool.open_recent(ref)
    assert take(reader, KIB) == payload(1, KIB)
    reader.close()
    assert rig.spool.blocks.kept == 0
