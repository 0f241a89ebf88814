"""One instance on its way in: memory, files of their own, and what is given back at the end."""

import errno
import os
import threading
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.spool import system, writer
from router.spool.blocks import BLOCK_SIZE
from router.spool.errors import SpoolError, SpoolFull
from router.spool.layout import META_LIMIT
from router.spool.record import Ref
from tests.spool.spool_samples import KIB, PATIENCE, Outcome, Rig, meta, payload, settle
from tests.spool.writing import Held, check_clean, files

MIB = 1 << 20


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize(
    ("place", "name"),
    [
        (writer.os, "open"),
        (system, "write_all"),
        (system, "sync_data"),
        (system, "sync_directory"),
    ],
)
def test_a_large_file_that_cannot_be_written_is_refused_and_removed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, place: object, name: str, code: int
) -> None:
    with monkeypatch.context() as patch:
        Held(patch, place, name, error=code).go.set()
        outcome = rig.commit(payload(1, 3 * MIB), meta(1))
        assert outcome.ref is None
        assert isinstance(outcome.error, SpoolFull) == (code == errno.ENOSPC)
        check_clean(rig)
    assert files(rig) == []
    assert not outcome.told > 1
    data = payload(2, 3 * MIB)
    assert rig.read(rig.commit(data, meta(2)).kept) == data


def test_a_directory_that_could_not_be_synced_fails_all_whose_names_it_may_have_lost(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The kernel tells of it once; the next sync says that all is well.
    unsure = rig.begin()
    unsure.append(memoryview(payload(1, 3 * MIB)))
    settle(rig)
    assert len(files(rig)) == 1
    with monkeypatch.context() as patch:
        Held(patch, system, "sync_directory", error=errno.EIO).go.set()
        told = rig.commit(payload(2, 3 * MIB), meta(2))
        settle(rig)
    not_told = Outcome()
    unsure.commit(meta(1).to_bytes(), not_told)
    rig.loop.run_until(lambda: not_told.told)
    assert told.error is not None
    assert "a sync of large/ failed" in str(not_told.error)
    check_clean(rig)
    assert files(rig) == []
    data = payload(3, 3 * MIB)
    assert rig.read(rig.commit(data, meta(3)).kept) == data


def test_the_descriptor_of_a_failed_file_is_closed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for name in ("write_all", "sync_data"):
        with monkeypatch.context() as patch:
            Held(patch, system, name, error=errno.EIO).go.set()
            rig.commit(payload(1, 3 * MIB), meta(1))
            settle(rig)
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # noqa: PTH208 - a segment, perhaps


def test_a_fault_that_is_no_error_of_the_disk_is_told(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> int:
        raise MemoryError

    monkeypatch.setattr(system, "write_past_cache", failing)
    outcome = rig.commit(payload(1, 3 * MIB), meta(1))
    assert type(outcome.error) is SpoolError
    check_clean(rig)
    assert files(rig) == []


def test_a_writer_goes_on_after_its_file_failed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        Held(patch, system, "write_all", error=errno.ENOSPC).go.set()
        arriving = rig.begin()
        for _ in range(20):
            arriving.append(memoryview(payload(1, MIB)))
            settle(rig)
            assert rig.spool.blocks.in_use <= MIB + BLOCK_SIZE
            assert not arriving.congested
    arriving.abandon()
    check_clean(rig)
    assert files(rig) == []


def test_a_failing_commit_removes_the_large_file(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.commit(b"x", meta(0))
    real = system.write_all

    def failing(fd: int, buffers: list[memoryview], offset: int) -> int:
        if threading.current_thread().name == "spool-commit":
            raise OSError(errno.EIO, "commit")
        return real(fd, buffers, offset)

    with monkeypatch.context() as patch:
        patch.setattr(system, "write_all", failing)
        outcome = rig.commit(payload(1, 3 * MIB), meta(1))
    assert outcome.error is not None
    check_clean(rig)
    assert files(rig) == []


@pytest.mark.parametrize("size", [1000, 3 * MIB])
def test_a_description_over_the_limit_is_refused(rig: Rig, size: int) -> None:
    arriving = rig.begin()
    arriving.append(memoryview(payload(1, size)))
    told: list[tuple[object, object, SpoolError | None]] = []
    arriving.commit(bytes(META_LIMIT + 1), lambda *what: told.append(what))
    ((ref, end, error),) = told
    assert (ref, end) == (None, None)
    assert str(META_LIMIT + 1) in str(error)
    check_clean(rig)
    assert files(rig) == []


def test_a_file_in_the_way_is_not_overwritten(rig: Rig) -> None:
    arriving = rig.begin()
    in_the_way = writer.large_path(rig.spool.large_directory, arriving.id)
    in_the_way.write_bytes(b"somebody's")
    arriving.append(memoryview(payload(1, 2 * MIB)))
    settle(rig)
    assert in_the_way.read_bytes() == b"somebody's"
    arriving.abandon()
    check_clean(rig)
    assert in_the_way.read_bytes() == b"somebody's"


def test_what_a_full_disk_cut_off_kept_its_room_until_its_peer_ended(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: a data set that never ends filled the disk and kept it full."""
    arriving = rig.begin()
    arriving.append(memoryview(payload(1, 2 * MIB)))
    settle(rig)
    assert len(files(rig)) == 1

    def full(fd: int, pieces: object, offset: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(system, "write_past_cache", full)
    arriving.append(memoryview(payload(2, 2 * MIB)))
    settle(rig)
    assert files(rig) == []
    arriving.append(memoryview(payload(3, 2 * MIB)))
    arriving.abandon()
    check_clean(rig)


# -- abandoning ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, BLOCK_SIZE, BLOCK_SIZE + 1, 200 * KIB, MIB, 6 * MIB])
def test_abandoning_gives_everything_back(rig: Rig, size: int) -> None:
    arriving = rig.begin()
    arriving.append(memoryview(payload(1, size)))
    arriving.abandon()
    check_clean(rig)
    assert files(rig) == []


@pytest.mark.parametrize("name", ["write_all", "write_past_cache"])
@pytest.mark.parametrize("code", [0, errno.EIO])
def test_abandoning_while_the_file_is_being_written(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    held = Held(monkeypatch, system, name, error=code)
    arriving = rig.begin()
    arriving.append(memoryview(payload(1, 3 * MIB)))
    assert held.reached.wait(PATIENCE)
    arriving.abandon()
    assert rig.spool.blocks.in_use > 0, "blocks that are being written were given back"
    held.go.set()
    check_clean(rig)
    assert files(rig) == []


def test_abandoning_before_the_file_is_opened(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch, writer.os, "open")
    arriving = rig.begin()
    arriving.append(memoryview(payload(1, 3 * MIB)))
    assert held.reached.wait(PATIENCE)
    arriving.abandon()
    arriving.abandon()
    held.go.set()
    check_clean(rig)
    assert files(rig) == []


@pytest.mark.parametrize("size", [1000, 3 * MIB])
def test_abandoning_after_commit_does_nothing(rig: Rig, size: int) -> None:
    data = payload(1, size)
    arriving = rig.begin()
    arriving.append(memoryview(data))
    kept: list[Ref | None] = []
    arriving.commit(meta(1).to_bytes(), lambda ref, _, __: kept.append(ref))
    arriving.abandon()
    rig.loop.run_until(lambda: kept)
    assert kept[0] is not None
    assert rig.read(kept[0]) == data
    check_clean(rig)


# -- sizes -----------------------------------------------------------------------------------------

SIZES = [
    *(0, 1, 4095, 4096, 4097),
    *(n * BLOCK_SIZE + d for n in (1, 2, 3, 15, 16, 17, 32) for d in (-1, 0, 1)),
    9 * MIB + 7,
]


def test_instances_of_all_sizes_come_back_byte_for_byte(rig: Rig) -> None:
    refs = []
    for n, size in enumerate(SIZES):
        ref = rig.commit(payload(n, size), meta(n), piece=100_003).kept
        assert ref.length == size
        # The limit is looked at when a block is full: one block more may stay in memory.
        assert ref.large == (size > 2 * BLOCK_SIZE)
        refs.append(ref)
    for n, (ref, size) in enumerate(zip(refs, SIZES, strict=True)):
        assert rig.read(ref) == payload(n, size)
    check_clean(rig)
    assert len(files(rig)) == sum(ref.large for ref in refs)


@given(st.lists(st.integers(0, 3 * BLOCK_SIZE), max_size=12), st.integers(0, 2**32))
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_pieces_of_any_size_make_the_same_instance(rig: Rig, pieces: list[int], seed: int) -> None:
    data = payload(seed, sum(pieces))
    arriving = rig.begin()
    buffer = bytearray(3 * BLOCK_SIZE)
    at = 0
    for size in pieces:
        buffer[:size] = data[at : at + size]
        arriving.append(memoryview(buffer)[:size])
        buffer[:size] = bytes(size)  # the caller's buffer is used again at once
        at += size
    assert arriving.length == len(data)
    kept: list[Ref | None] = []
    arriving.commit(meta(1).to_bytes(), lambda ref, _, __: kept.append(ref))
    rig.loop.run_until(lambda: kept)
    assert kept[0] is not None
    assert rig.read(kept[0]) == data
    check_clean(rig)


def test_a_large_instance_is_written_while_it_arrives(rig: Rig) -> None:
    arriving = rig.begin()
    for _ in range(64):
        arriving.append(memoryview(payload(1, MIB)))
        settle(rig)
        assert rig.spool.blocks.in_use <= MIB + BLOCK_SIZE
    (path,) = files(rig)
    assert path.stat().st_size >= 62 * MIB
    arriving.abandon()
    check_clean(rig)


def test_the_data_is_on_disk_before_the_record_is_written(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    for name in ("write_all", "write_blocks", "sync_data", "sync_directory"):
        real = getattr(system, name)

        def call(
            *arguments: object,
            real: Callable[..., object] = real,
            name: str = name,
            **options: object,
        ) -> object:
            result = real(*arguments, **options)
            who = threading.current_thread().name.split("_")[0]
            order.append(f"{who} {name}")
            return result

        monkeypatch.setattr(system, name, call)
    rig.commit(payload(1, 2 * MIB), meta(1))
    record = order.index("spool-commit write_all")
    assert order.index("spool-large sync_data") < record
    assert order.index("spool-large sync_directory") < record
    last_write = max(n for n, what in enumerate(order) if what == "spool-large write_all")
    assert last_write < order.index("spool-large sync_data")
    assert order[-1] == "spool-commit write_blocks"
