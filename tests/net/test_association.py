"""Requestor and acceptor against each other over loopback."""

import asyncio
import threading

import pytest

from router.net.errors import AssociationAborted, AssociationBroken, AssociationError
from router.net.requestor import Requestor
from router.net.settings import NetworkSettings, Remote
from router.ul import AReleaseRQ
from tests.net.support import (
    CT,
    CT_PAIR,
    ECHO_PAIR,
    Data,
    Recorder,
    Runner,
    Shelved,
    call,
    connect,
    gate,
    store,
    target,
)

KIB = 1024
SIZES = [0, 1, 2, 3, 16372, 16378, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 3 * KIB * KIB + 5]


def payload(size: int) -> bytes:
    return bytes(range(251)) * (size // 251) + bytes(range(size % 251))


def test_echo_and_release(run: Runner) -> None:
    async def scenario() -> None:
        out = Recorder()
        async with gate() as subject:
            requestor = await call(subject.port, out)
            assert set(requestor.accepted) == {ECHO_PAIR, CT_PAIR}
            assert out.open == {("out", "CT1", "pacs"): 1}
            assert await requestor.echo() == 0
            assert await requestor.echo() == 0
            await requestor.release()
            assert requestor.closed
            await subject.quiet()
            assert subject.observer.opened == 1
            assert not subject.observer.aborted
        await out.all_closed()
        assert out.opened == 1
        assert not out.aborted

    run(scenario)
    ended = run.said("association ended")
    assert [line["messages"] for line in ended] == [2]


def test_data_sets_of_all_sizes_arrive_as_sent(run: Runner) -> None:
    async def scenario() -> None:
        async with gate() as subject:
            requestor = await call(subject.port)
            for size in SIZES:
                assert await store(requestor, payload(size)) == 0
                assert bytes(subject.shelf.ended[-1].bytes) == payload(size)
            await requestor.release()

    run(scenario)


@pytest.mark.parametrize("length", [0, 8, 9, 4096, 16384, 131072])
def test_the_peers_maximum_length_is_kept(run: Runner, length: int) -> None:
    """The acceptor aborts when a P-DATA-TF is longer than it announced."""

    async def scenario() -> None:
        # Less than 4096 cannot be configured for us, but peers can ask for it.
        settings = NetworkSettings().model_copy(update={"max_pdu": length})
        size = 1001 if 0 < length < 100 else 300_001
        async with gate(settings=settings) as subject:
            requestor = await call(subject.port)
            assert requestor.connection.peer_maximum_length == length
            assert await store(requestor, payload(size)) == 0
            assert await requestor.echo() == 0
            assert bytes(subject.shelf.ended[0].bytes) == payload(size)
            await requestor.release()

    run(scenario)


@pytest.mark.parametrize("length", [1, 7])
def test_a_maximum_length_without_room_ends_at_negotiation(run: Runner, length: int) -> None:
    async def scenario() -> None:
        settings = NetworkSettings().model_copy(update={"max_pdu": length})
        async with gate(settings=settings) as subject:
            with pytest.raises(AssociationBroken, match=f"maximum length of {length} bytes"):
                await call(subject.port)
            await subject.quiet()

    run(scenario)


def test_answers_out_of_order_find_their_requests(run: Runner) -> None:
    async def scenario() -> None:
        async with gate() as subject:
            shelf = subject.shelf

            def hold(_: Shelved) -> None:
                if len(shelf.ended) == 4:
                    for shelved in reversed(shelf.ended):
                        shelved.answer(0xA700 + int(shelved.command.affected_sop_instance_uid))

            shelf.policy = hold
            requestor = await call(subject.port, asynchronous_operations=4)
            assert requestor.window == 4
            statuses = await asyncio.gather(
                *(store(requestor, payload(n * 70_001), uid=str(n)) for n in range(1, 5))
            )
            assert statuses == [0xA701, 0xA702, 0xA703, 0xA704]
            await requestor.release()

    run(scenario)


@pytest.mark.parametrize(("wanted", "window"), [(1, 1), (2, 2), (16, 16), (40, 16)])
def test_the_window_is_what_both_sides_want(run: Runner, wanted: int, window: int) -> None:
    async def scenario() -> None:
        async with gate() as subject:
            requestor = await call(subject.port, asynchronous_operations=wanted)
            assert requestor.window == window
            await requestor.release()

    run(scenario)


def test_a_slow_disk_is_read_off_the_loop(run: Runner) -> None:
    async def scenario() -> None:
        async with gate() as subject:
            requestor = await call(subject.port)
            assert await store(requestor, payload(900_001), cold=True) == 0
            assert bytes(subject.shelf.ended[0].bytes) == payload(900_001)
            await requestor.release()

    run(scenario)


def test_the_peer_is_not_blamed_for_our_own_pauses(run: Runner) -> None:
    """An association that was idle for longer than the DIMSE time-out serves again."""

    async def scenario() -> None:
        async with gate() as subject:
            requestor = await call(subject.port, dimse_timeout=0.2)
            looks = asyncio.Event()
            requestor._loop.call_later(0.3, looks.set)
            await looks.wait()
            shelved: list[Shelved] = []
            answer = asyncio.Event()

            def hold(one: Shelved) -> None:
                shelved.append(one)
                answer.set()

            subject.shelf.policy = hold
            storing = asyncio.ensure_future(store(requestor, b"abc"))
            await answer.wait()
            looks.clear()
            requestor._loop.call_later(0.1, looks.set)
            await looks.wait()
            shelved[0].answer()
            assert await storing == 0
            await requestor.release()

    run(scenario)


class Slow(Data):
    """Every read takes a while."""

    def read(self, buffers: list[memoryview]) -> None:
        threading.Event().wait(0.1)
        super().read(buffers)


def test_the_peer_is_not_blamed_for_a_slow_disk_of_ours(run: Runner) -> None:
    """In all it takes longer than the DIMSE time-out, and the peer has nothing to say meanwhile."""

    async def scenario() -> None:
        async with gate() as subject:
            requestor = await call(subject.port, dimse_timeout=0.3)
            data = Slow(payload(1_500_000), cold=True)
            context_id = requestor.accepted[CT_PAIR]
            assert (await requestor.store(context_id, CT, "1.2.3", data)).status == 0
            assert data.reads >= 5
            await requestor.release()

    run(scenario)


class Stuck(Data):
    """Its first two reads are served from memory, the third waits until it is let go."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.reading = threading.Event()
        self.go = threading.Event()

    def try_read(self, buffers: list[memoryview]) -> bool:
        self.cold = self.reads >= 2
        return super().try_read(buffers)

    def read(self, buffers: list[memoryview]) -> None:
        if self.cold:
            self.reading.set()
            assert self.go.wait(10)
        super().read(buffers)


async def stuck_store(requestor: Requestor) -> tuple[asyncio.Task[object], Stuck]:
    """A store that stands still in the middle of its data set."""
    data = Stuck(payload(2_000_000))
    task: asyncio.Task[object] = asyncio.ensure_future(
        requestor.store(requestor.accepted[CT_PAIR], CT, "1.2.3", data)
    )
    assert await asyncio.to_thread(data.reading.wait, 10)
    return task, data


PHASES = ["idle", "message", "answer"]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("who", ["requestor", "acceptor"])
def test_abort_in_every_phase(run: Runner, who: str, phase: str) -> None:
    async def scenario() -> None:
        out = Recorder()
        async with gate() as subject:
            shelf = subject.shelf
            shelf.policy = lambda _: None
            requestor = await call(subject.port, out)
            task: asyncio.Future[object] | None = None
            data = None
            if phase == "message":
                task, data = await stuck_store(requestor)
                await shelf.until(lambda s: bool(s.begun and s.begun[0].bytes))
            elif phase == "answer":
                task = asyncio.ensure_future(store(requestor, b"abc"))
                await shelf.until(lambda s: bool(s.ended))
            if who == "requestor":
                requestor.abort()
            else:
                for association in subject.listeners.associations:
                    association.abort()
                await until_closed(requestor)
            if data is not None:
                data.go.set()
            if task is not None:
                expected = AssociationBroken if who == "requestor" else AssociationAborted
                with pytest.raises(expected):
                    await task
            assert requestor.closed
            with pytest.raises(AssociationError):
                await requestor.echo()
            await subject.quiet()
            fates = {"idle": [], "message": ["abandoned"], "answer": ["ended"]}
            assert [one.fate for one in shelf.begun] == fates[phase]
            if phase == "answer":
                shelf.ended[0].answer()  # too late: nothing happens
        await out.all_closed()

    run(scenario)


async def until_closed(requestor: Requestor) -> None:
    while not requestor.closed:
        await asyncio.sleep(0)


def test_cancelling_a_request_in_mid_message_ends_the_association(run: Runner) -> None:
    async def scenario() -> None:
        async with gate() as subject:
            requestor = await call(subject.port)
            task, data = await stuck_store(requestor)
            task.cancel()
            for _ in range(3):
                await asyncio.sleep(0)
            assert not task.done(), "the reader is still in use by a thread"
            data.go.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            data.close()
            assert requestor.closed
            with pytest.raises(AssociationBroken):
                await store(requestor, b"abc")
            await subject.quiet()
            assert [one.fate for one in subject.shelf.begun] == ["abandoned"]

    run(scenario)


def test_a_reader_that_fails_costs_the_association_not_the_peer(run: Runner) -> None:
    class Damaged(Data):
        def try_read(self, buffers: list[memoryview]) -> bool:
            raise OSError("damaged")

    async def scenario() -> None:
        async with gate() as subject:
            requestor = await call(subject.port)
            with pytest.raises(OSError, match="damaged"):
                await requestor.store(requestor.accepted[CT_PAIR], CT, "1.2.3", Damaged(b"abc"))
            assert requestor.closed
            await subject.quiet()
            assert subject.shelf.ended == []

    run(scenario)


def test_stop_lets_a_message_finish_and_releases_the_idle(run: Runner) -> None:
    async def scenario() -> None:
        async with gate() as subject:
            idle = await call(subject.port)
            busy = await call(subject.port)
            silent = await subject.wire()
            held: list[Shelved] = []
            subject.shelf.policy = held.append
            task = asyncio.ensure_future(store(busy, b"abc"))
            await subject.shelf.until(lambda s: bool(s.ended))
            stopping = asyncio.ensure_future(subject.listeners.stop(10))
            await until_closed(idle)
            await silent.ended()
            await silent.close()
            assert not stopping.done()
            held[0].answer()
            assert await task == 0
            await stopping
            assert not subject.observer.aborted

    run(scenario)


def test_stop_aborted_a_sender_that_was_between_two_instances(run: Runner) -> None:
    """Regression: whoever had no message under way at that moment lost the rest of its study."""

    async def scenario() -> None:
        async with gate() as subject:
            sender = await call(subject.port)
            assert await store(sender, b"abc") == 0
            stopping = asyncio.ensure_future(subject.listeners.stop(10))
            await asyncio.sleep(0)
            for _ in range(3):
                assert await store(sender, b"abc") == 0
            await sender.release()
            await stopping
            assert len(subject.shelf.ended) == 4
            assert not subject.observer.aborted

    run(scenario)


def test_stop_aborts_a_sender_that_does_not_answer_the_release(run: Runner) -> None:
    async def scenario() -> None:
        async with gate() as subject:
            wire = await subject.associated()
            stopping = asyncio.ensure_future(subject.listeners.stop(10))
            assert isinstance(await wire.pdu(), AReleaseRQ)
            await wire.aborted()
            await wire.close()
            await stopping
            assert subject.observer.aborted == {("in", "local"): 1}

    run(scenario)


def test_stop_cuts_off_what_takes_too_long(run: Runner) -> None:
    async def scenario() -> None:
        async with gate() as subject:
            subject.shelf.policy = lambda _: None
            requestor = await call(subject.port)
            task = asyncio.ensure_future(store(requestor, b"abc"))
            await subject.shelf.until(lambda s: bool(s.ended))
            await subject.listeners.stop(0.05)
            with pytest.raises(AssociationError):
                await task
            await subject.quiet()

    run(scenario)
    assert run.said("cut off at stop")


def test_release_waits_for_answers_that_are_owed(run: Runner) -> None:
    async def scenario() -> None:
        async with gate() as subject:
            held: list[Shelved] = []
            subject.shelf.policy = held.append
            requestor = await call(subject.port)
            storing = asyncio.ensure_future(store(requestor, b"abc"))
            await subject.shelf.until(lambda s: bool(s.ended))
            releasing = asyncio.ensure_future(requestor.release())
            await asyncio.sleep(0)
            held[0].answer(0xB000)
            assert await storing == 0xB000
            await releasing
            await subject.quiet()
            assert not subject.observer.aborted

    run(scenario)


def test_a_cancelled_release_leaves_nothing_open(run: Runner) -> None:
    async def scenario() -> None:
        async with gate() as subject:
            subject.shelf.policy = lambda _: None
            requestor = await call(subject.port)
            storing = asyncio.ensure_future(store(requestor, b"abc"))
            await subject.shelf.until(lambda s: bool(s.ended))
            releasing = asyncio.ensure_future(requestor.release())
            await asyncio.sleep(0)
            releasing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await releasing
            with pytest.raises(AssociationBroken):
                await storing
            await subject.quiet()

    run(scenario)


def test_remotes_are_counted_by_their_name(run: Runner) -> None:
    async def scenario() -> None:
        remotes = {"ct-room-1": Remote(ae_title="CT1", addresses=("127.0.0.0/8",))}
        async with gate(accept=("ct-room-1",), remotes=remotes) as subject:
            requestor = await call(subject.port)
            assert subject.listeners.load().by_remote == {"ct-room-1": 1}
            assert subject.observer.open == {("in", "ROUTER", "ct-room-1"): 1}
            await requestor.release()
            await subject.quiet()

    run(scenario)


def test_one_association_has_at_most_128_contexts(run: Runner) -> None:
    async def scenario() -> None:
        async with gate() as subject:
            pairs = [(f"1.2.840.10008.5.{n}", "1.2.840.10008.1.2") for n in range(128)]
            requestor = await connect(target(subject.port), pairs)
            assert requestor.accepted == {pair: 2 * n + 1 for n, pair in enumerate(pairs)}
            await requestor.release()
            for wrong in ([], [*pairs, CT_PAIR]):
                with pytest.raises(ValueError, match="1 to 128"):
                    await connect(target(subject.port), wrong)

    run(scenario)
