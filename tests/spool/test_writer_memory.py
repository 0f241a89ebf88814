"""One instance on its way in where memory is scarce, or where little of it comes; and the end."""

import errno
import fcntl
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from router.spool import system
from router.spool.blocks import BLOCK_SIZE, SMALL_BLOCK, BlockPool
from router.spool.record import Ref
from tests.spool.conftest import OpenRig
from tests.spool.spool_samples import KIB, PATIENCE, Loop, Outcome, Rig, meta, payload, settle
from tests.spool.writing import Held, check_clean, files

MIB = 1 << 20


# -- scarce memory ---------------------------------------------------------------------------------


def test_congestion_ends_when_the_disk_has_caught_up(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch, system, "write_all")
    arriving = rig.begin()
    sent = 0
    while not arriving.congested:
        arriving.append(memoryview(payload(1, 64 * KIB)))
        sent += 64 * KIB
        assert sent < 16 * MIB, "never congested"
    assert rig.drained == []
    held.go.set()
    rig.loop.run_until(lambda: rig.drained)
    assert rig.drained == [arriving]
    assert not arriving.congested
    arriving.abandon()
    check_clean(rig)


def test_what_is_written_makes_room_while_the_rest_is_being_written(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the peer waits for the disk, and then the disk for the peer."""
    data = payload(1, 16 * MIB)
    go = threading.Event()
    real = system.write_past_cache

    def write(fd: int, pieces: list[memoryview], offset: int) -> None:
        if offset + sum(map(len, pieces)) > 3 * MIB:
            assert go.wait(PATIENCE)
        real(fd, pieces, offset)

    monkeypatch.setattr(system, "write_past_cache", write)
    arriving = rig.begin()
    sent = 0
    while not arriving.congested:
        arriving.append(memoryview(data)[sent : sent + 64 * KIB])
        sent += 64 * KIB
    taken = rig.spool.blocks.in_use
    rig.loop.run_until(lambda: rig.drained)
    assert rig.drained == [arriving]
    assert rig.spool.blocks.in_use <= taken - 2 * MIB
    assert not go.is_set()
    # What comes now is put into the memory that was given back.
    arriving.append(memoryview(data)[sent:])
    outcome = Outcome()
    arriving.commit(meta(1).to_bytes(), outcome)
    go.set()
    rig.loop.run_until(lambda: outcome.told)
    assert rig.read(outcome.kept) == data
    check_clean(rig)
    assert _once_each(rig)


def test_a_write_that_fails_between_others_gives_blocks_back_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = system.write_past_cache

    def write(fd: int, pieces: list[memoryview], offset: int) -> None:
        if offset >= 2 * MIB:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd, pieces, offset)

    with monkeypatch.context() as patch:
        patch.setattr(system, "write_past_cache", write)
        outcome = rig.commit(payload(1, 9 * MIB), meta(1))
        assert outcome.ref is None
        assert "Input/output error" in str(outcome.error)
        check_clean(rig)
    assert files(rig) == []
    assert _once_each(rig)


@pytest.mark.parametrize("ending", ["commit", "abandon"])
def test_who_was_congested_at_the_end_is_told_of_the_drain(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    # The association goes on to its next message: it must not stay paused.
    held = Held(monkeypatch, system, "write_all")
    arriving = rig.begin()
    while not arriving.congested:
        arriving.append(memoryview(payload(1, 64 * KIB)))
    told: list[object] = []
    if ending == "commit":
        arriving.commit(meta(1).to_bytes(), lambda *what: told.append(what))
    else:
        arriving.abandon()
    held.go.set()
    rig.loop.run_until(lambda: rig.drained and (told or ending == "abandon"))
    check_clean(rig)


def test_many_writers_share_little_memory(open_rig: OpenRig) -> None:
    rig = open_rig(receive_memory=4 * MIB, large_instance=MIB, segment_size=4 * MIB)
    count = 60
    writers = [rig.begin() for _ in range(count)]
    most = 0
    chunks = [payload(n, 16 * KIB) for n in range(count)]
    for _ in range(40):  # 640 KiB each, 37 MiB in all
        for arriving, chunk in zip(writers, chunks, strict=True):
            while arriving.congested:
                rig.loop.calls.get(timeout=PATIENCE)()
            arriving.append(memoryview(chunk))
            most = max(most, rig.spool.blocks.in_use)
    # The limit, and for each writer the block at hand, one on its way and what may be in flight.
    assert most <= 4 * MIB + count * (256 + 3 * 64) * KIB
    told: list[Ref | None] = []
    for n, arriving in enumerate(writers):
        arriving.commit(meta(n).to_bytes(), lambda ref, _, __: told.append(ref))
    rig.loop.run_until(lambda: len(told) == count)
    refs = sorted((ref for ref in told if ref is not None), key=lambda ref: ref.id)
    assert len(refs) == count
    for ref, chunk in zip(refs, chunks, strict=True):
        assert rig.read(ref) == chunk * 40
    check_clean(rig)


async def test_quiet_waits_for_the_last_writer(rig: Rig, loop: Loop) -> None:
    first, second = rig.begin(), rig.begin()
    waiting = rig.spool.quiet()
    waiting.send(None)
    first.abandon()
    assert not rig.spool._quiet.is_set()
    second.abandon()
    assert rig.spool._quiet.is_set()
    with pytest.raises(StopIteration):
        waiting.send(None)
    await rig.spool.quiet()


# -- little of it ----------------------------------------------------------------------------------


def test_small_instances_under_way_take_little_memory(rig: Rig) -> None:
    # A peer may have hundreds of requests without an answer: 64 KiB each is too much.
    writers = [rig.begin() for _ in range(500)]
    assert rig.spool.blocks.in_use == 0
    for n, arriving in enumerate(writers):
        for byte in payload(n, 3):
            arriving.append(memoryview(bytes([byte])))
    assert rig.spool.blocks.in_use == 500 * SMALL_BLOCK
    assert not rig.spool.blocks.scarce
    kept: list[Ref | None] = []
    for n, arriving in enumerate(writers):
        arriving.commit(meta(n).to_bytes(), lambda ref, _, __: kept.append(ref))
    rig.loop.run_until(lambda: len(kept) == 500)
    for n, ref in enumerate(kept):
        assert ref is not None
        assert rig.read(ref) == payload(n, 3)
    check_clean(rig)


@pytest.mark.parametrize("first", [0, 1, SMALL_BLOCK - 1, SMALL_BLOCK])
@pytest.mark.parametrize("then", [1, SMALL_BLOCK, BLOCK_SIZE, 4 * BLOCK_SIZE])
def test_an_instance_that_outgrows_its_small_block_keeps_its_bytes(
    rig: Rig, first: int, then: int
) -> None:
    data = payload(first, first + then)
    arriving = rig.begin()
    arriving.append(memoryview(data)[:first])
    arriving.append(memoryview(data)[first:])
    kept: list[Ref | None] = []
    arriving.commit(meta(1).to_bytes(), lambda ref, _, __: kept.append(ref))
    rig.loop.run_until(lambda: kept)
    assert kept[0] is not None
    assert rig.read(kept[0]) == data
    check_clean(rig)


def test_nothing_more_is_taken_while_what_is_under_way_fills_twice_the_memory(
    open_rig: OpenRig,
) -> None:
    rig = open_rig(receive_memory=4 * MIB)
    writers = []
    while not rig.spool.refusal:
        arriving = rig.begin()
        arriving.append(memoryview(payload(1, BLOCK_SIZE)))
        writers.append(arriving)
        assert len(writers) <= 129, "nothing bounds the memory"
    assert rig.spool.blocks.in_use == 129 * BLOCK_SIZE
    assert "receive_memory (4 MiB)" in rig.spool.refusal
    writers.pop().abandon()
    assert rig.spool.refusal == ""
    rig.spool.refuse("low disk")
    assert rig.spool.refusal == "low disk"
    for arriving in writers:
        arriving.abandon()
    check_clean(rig)


# -- the end ---------------------------------------------------------------------------------------


async def test_quiet_waits_for_the_file_of_an_abandoned_instance(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch, system, "write_all")
    arriving = rig.begin()
    arriving.append(memoryview(payload(1, 3 * MIB)))
    assert held.reached.wait(PATIENCE)
    other = rig.begin()
    arriving.abandon()
    waiting = rig.spool.quiet()
    waiting.send(None)
    other.abandon()
    assert not rig.spool._quiet.is_set()
    held.go.set()
    rig.loop.run_until(rig.spool._quiet.is_set)
    assert files(rig) == []
    with pytest.raises(StopIteration):
        waiting.send(None)
    committed = rig.commit(payload(2, 3 * MIB), meta(2)).kept
    assert committed.large
    await rig.spool.quiet()


@pytest.mark.parametrize("ending", ["abandon", "commit", "append"])
def test_what_comes_after_closing_raises_nothing_on_the_loop(
    open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    rig = open_rig()
    held = Held(monkeypatch, system, "write_all")
    arriving = rig.begin()
    arriving.append(memoryview(payload(1, 3 * MIB)))
    assert held.reached.wait(PATIENCE)
    outcome = Outcome()
    if ending == "abandon":
        arriving.abandon()
    held.go.set()
    rig.close()  # runs what the executor posted, after it was shut down
    if ending == "append":
        arriving.append(memoryview(payload(1, 3 * MIB)))
    if ending != "abandon":
        arriving.commit(meta(1).to_bytes(), outcome)
    rig.loop.run_ready()
    if ending != "abandon":
        assert "closed" in str(outcome.error)
    assert rig.spool._large_files == 0
    assert rig.spool.blocks.in_use == 0
    again = open_rig()
    again.keeper.sweep()
    assert files(again) == []


@pytest.mark.parametrize("length", [1, 4095, 4096, 4097, 65536, 3 * 65536 + 5])
@pytest.mark.parametrize("direct", [True, False], ids=["O_DIRECT", "no O_DIRECT"])
def test_past_the_cache_every_length_arrives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int, direct: bool
) -> None:
    if not direct:
        monkeypatch.setattr(system, "_set_direct", lambda fd, *, on: False)
    data = payload(7, length)
    pool = BlockPool(1 << 20)
    pieces = []
    for at in range(0, length, BLOCK_SIZE):
        part = data[at : at + BLOCK_SIZE]
        block = pool.take()
        block[: len(part)] = part
        pieces.append(block[: len(part)])
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    try:
        system.write_past_cache(fd, pieces, 8192)
        assert os.pread(fd, length + 1, 8192) == data
        assert not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT
    finally:
        os.close(fd)


def test_memory_that_is_not_aligned_goes_through_the_cache(tmp_path: Path) -> None:
    data = bytearray(payload(8, 3 * 4096 + 1))
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    try:
        system.write_past_cache(fd, [memoryview(data)[1:]], 0)
        assert os.pread(fd, len(data), 0) == data[1:]
    finally:
        os.close(fd)


def _once_each(rig: Rig) -> bool:
    """Whether no block is in the pool twice: two instances would be written into one."""
    pool = rig.spool.blocks
    idle = [id(block) for block in (*pool._free, *pool._free_small)]
    return len(set(idle)) == len(idle)


def test_without_a_thread_for_the_disk_blocks_are_given_back_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The executor has the work in its line when it raises that it can start no thread for it."""

    def full(_: object) -> None:
        raise RuntimeError("can't start new thread")

    outcome = Outcome()
    writer = rig.begin()
    with monkeypatch.context() as patch:
        patch.setattr(ThreadPoolExecutor, "_adjust_thread_count", full)
        writer.append(memoryview(payload(1, 3 << 20)))
    rig.spool.executor.submit(lambda: None).result()
    writer.commit(meta(1).to_bytes(), outcome)
    rig.loop.run_until(lambda: outcome.told and not rig.spool.blocks.in_use)
    assert "can't start new thread" in str(outcome.error)
    assert _once_each(rig)
    assert rig.commit(data := payload(2, 3 << 20), meta(2, "pacs")).error is None
    assert rig.read(rig.ends[-1][0]) == data


@pytest.mark.parametrize("size", [9000, 3 << 20])
def test_what_fails_for_want_of_memory_gives_blocks_back_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    real = BlockPool.give_back

    def short(pool: BlockPool, blocks: list[memoryview]) -> None:
        real(pool, blocks)
        raise MemoryError

    writer = rig.begin()
    writer.append(memoryview(payload(1, 1000)))
    with monkeypatch.context() as patch:
        patch.setattr(BlockPool, "give_back", short)
        patch.setattr(
            "router.spool.writer._LargeFile._pump", lambda _: short(writer._host.blocks, [])
        )
        with pytest.raises(MemoryError):
            writer.append(memoryview(payload(1, size)))
    writer.abandon()
    settle(rig)
    assert _once_each(rig)
