"""The Storage SCP: when an instance is acknowledged, and what a peer that leaves leaves behind."""

import asyncio
import hashlib
import threading
from pathlib import Path
from typing import Any

import pytest

from router.net.acceptor import AcceptedAssociation
from router.spool import system
from tests.ingest.support import (
    data_set,
    reception,
    recovered,
    store_rq,
)
from tests.net.support import VERIFICATION, Runner, Wire, echo_rq


class Held:
    """A system call that waits until it is let go."""

    def __init__(self, patch: pytest.MonkeyPatch, call: str) -> None:
        self.entered = threading.Event()
        self.go = threading.Event()
        real = getattr(system, call)

        def held(*args: Any) -> Any:
            self.entered.set()
            assert self.go.wait(15)
            return real(*args)

        patch.setattr(system, call, held)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self.entered.wait, 15)


@pytest.mark.parametrize("pixels", [100, 600_000])
def test_success_is_answered_after_the_sync_not_before(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pixels: int
) -> None:
    """An echo that is sent later is answered first, as long as the disk has not answered."""

    async def scenario() -> None:
        async with reception(tmp_path) as subject:
            wire = await subject.associated()
            with monkeypatch.context() as patch:
                sync = Held(patch, "sync_data")
                await wire.send(store_rq(data_set(pixels=pixels), 1))
                await sync.reached()
                for number in (2, 3):
                    await wire.send(echo_rq(number))
                    answer = await wire.answer()
                    assert (answer.field, answer.message_id_being_responded_to) == (0x8030, number)
                assert subject.counted.stored == []
                assert subject.feed.entries == []
                sync.go.set()
                answer = await wire.answer()
            assert (answer.field, answer.status) == (0x8001, 0)
            assert len(subject.feed.entries) == 1
            await wire.release()

    run(scenario)


def test_a_peer_that_leaves_before_the_sync_has_its_instance_kept(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with reception(tmp_path) as subject:
            wire = await subject.associated()
            with monkeypatch.context() as patch:
                sync = Held(patch, "sync_data")
                await wire.send(store_rq(data_set()))
                await sync.reached()
                [association] = subject.listeners.associations
                await wire.close()
                while not association.half_closed:
                    await asyncio.sleep(0)
                sync.go.set()
                await subject.spool.quiet()
                await subject.quiet()
            assert subject.bytes_of(0) == data_set()

    run(scenario)


def test_a_release_behind_the_data_waits_for_the_answer(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with reception(tmp_path) as subject:
            wire = await subject.associated()
            with monkeypatch.context() as patch:
                sync = Held(patch, "sync_data")
                releasing = asyncio.ensure_future(_store_and_release(wire))
                await sync.reached()
                sync.go.set()
                await releasing
            assert not subject.observer.aborted

    run(scenario)


async def _store_and_release(wire: Wire) -> None:
    from router.ul import AReleaseRP, AReleaseRQ

    await wire.send(store_rq(data_set()), AReleaseRQ())
    assert (await wire.answer()).status == 0
    assert isinstance(await wire.pdu(), AReleaseRP)
    await wire.close()


@pytest.mark.parametrize("pixels", [1000, 100_000, 600_000, 3_000_000])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_half_an_instance_leaves_nothing(
    run: Runner, tmp_path: Path, pixels: int, how: str
) -> None:
    async def scenario() -> None:
        async with reception(tmp_path) as subject:
            wire = await subject.associated()
            message = store_rq(data_set(pixels=pixels), maximum=16384 if pixels > 16384 else 500)
            await wire.send(message[:-300])
            if how == "reset":
                wire.writer.transport.abort()
            await wire.close()
            await subject.quiet()
            await subject.spool.quiet()
            assert subject.feed.entries == []
            assert subject.counted.stored == []

    run(scenario)
    assert recovered(tmp_path) == []
    assert list((tmp_path / "large").iterdir()) == []


def test_associations_interleave(run: Runner, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with reception(tmp_path) as subject:
            wires = [await subject.associated() for _ in range(6)]
            rest = []
            for n, wire in enumerate(wires):
                data = data_set(f"1.2.{n}", pixels=70_000 * n + n * 2)
                rest.append((wire, store_rq(data, n + 1, f"1.2.{n}")))
            while rest:
                for wire, message in rest:
                    await wire.send(message[:10_000])
                rest = [(wire, message[10_000:]) for wire, message in rest if message[10_000:]]
            for n, wire in enumerate(wires):
                answer = await wire.answer()
                assert (answer.status, answer.message_id_being_responded_to) == (0, n + 1)
                assert answer.affected_sop_instance_uid == f"1.2.{n}"
            for wire in wires:
                await wire.release()
            for number, meta in enumerate(subject.metas):
                n = int(meta.sop_instance_uid.rpartition(".")[2])
                assert subject.bytes_of(number) == data_set(f"1.2.{n}", pixels=70_000 * n + n * 2)
            assert len(subject.metas) == 6

    run(scenario)


def test_many_small_ones_without_waiting_for_answers(run: Runner, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with reception(tmp_path) as subject:
            wire = await subject.associated()
            data = data_set()
            await wire.send(*(store_rq(data, n + 1, f"1.2.{n}") for n in range(120)))
            answers = [await wire.answer() for _ in range(120)]
            assert {answer.status for answer in answers} == {0}
            assert [a.message_id_being_responded_to for a in answers] == list(range(1, 121))
            await wire.release()
            assert [m.sop_instance_uid for m in subject.metas] == [f"1.2.{n}" for n in range(120)]

    run(scenario)


@pytest.mark.parametrize("memory", [{}, {"receive_memory": 4 * 2**20}])
def test_a_slow_disk_stops_the_reading_and_memory_stays_bounded(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: dict[str, int]
) -> None:
    data = data_set(pixels=0)[:-4] + (24_000_000).to_bytes(4, "little")
    block = hashlib.sha256(b"pixels").digest() * 31_250
    message_head = store_rq(data, maximum=0)

    async def scenario() -> None:
        paused = asyncio.Event()
        pause = AcceptedAssociation.pause_reading

        def pause_and_tell(association: AcceptedAssociation) -> None:
            pause(association)
            paused.set()

        async with reception(tmp_path, spool_settings=memory) as subject:
            wire = await subject.associated()
            with monkeypatch.context() as patch:
                patch.setattr(AcceptedAssociation, "pause_reading", pause_and_tell)
                disk = Held(patch, "write_all")
                sending = asyncio.ensure_future(_send_pixels(wire, message_head, block, 24))
                await paused.wait()
                assert subject.spool.blocks.in_use <= 8 * 2**20
                assert not sending.done()
                disk.go.set()
                answer = await wire.answer()
                await sending
            assert answer.status == 0
            await wire.release()
            assert subject.digest_of(0) == hashlib.sha256(data + block * 24).hexdigest()

    run(scenario)


async def _send_pixels(wire: Wire, head: bytes, block: bytes, count: int) -> None:
    """A data set whose last element is `count` blocks long, behind what `head` ends with."""
    # The head's data PDV is not the last after all.
    at = head.rindex(b"\x03\x02")
    await wire.send(head[:at] + b"\x03\x00" + head[at + 2 :])
    half = len(block) // 10
    for number in range(count):
        for start in range(0, len(block), half):
            piece = block[start : start + half]
            last = number == count - 1 and start + half >= len(block)
            size = len(piece)
            await wire.send(
                b"\x04\0"
                + (size + 6).to_bytes(4)
                + (size + 2).to_bytes(4)
                + bytes((3, 2 if last else 0))
                + piece
            )


def test_verification_on_the_same_association(run: Runner, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with reception(tmp_path) as subject:
            wire = await subject.associated()
            await wire.send(echo_rq(4))
            answer = await wire.answer()
            assert (answer.field, answer.status) == (0x8030, 0)
            assert answer.affected_sop_class_uid == VERIFICATION
            await wire.release()

    run(scenario)
