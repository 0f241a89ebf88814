"""Requests that we make, and every answer that they can have but the right one."""

import asyncio
import contextlib

import pytest

from router.dimse.command import Command, encode_command
from router.dimse.fragment import encode_message
from router.net import requestor as requestor_module
from router.net.answers import Request
from router.net.errors import (
    AssociationBroken,
    AssociationError,
    AssociationTimeout,
)
from router.net.requestor import Requestor, StoreResult
from router.ul import (
    PDV,
    AAbort,
    AReleaseRP,
    AReleaseRQ,
    PDataTF,
    encode_pdu,
)
from tests.net.acceptors import accept_any, echo_rsp, message, scripted, store_rsp, to_the_end
from tests.net.support import (
    CT,
    CT_PAIR,
    Data,
    Recorder,
    Runner,
    Wire,
    call,
    gate,
    store,
)

ECHO = Command(0x0030, affected_sop_class_uid="1.2.840.10008.1.1", message_id=7)

# -- requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "text"),
    [
        (store_rsp(7), "message 7, which is not outstanding"),
        (echo_rsp(1), "C-ECHO-RSP for message 1"),
        (store_rsp(1, context_id=9), "context 9"),
        (b"\x99" * 20, "unknown"),
        (encode_pdu(AAbort(2, 6)), "aborted"),
        (encode_pdu(AReleaseRQ()), "released"),
        (b"", "closed the connection"),
        (store_rsp(1)[:-1], "closed the connection"),
        (encode_pdu(PDataTF((PDV(3, 3, b"garbage"),))), "protocol"),
        (encode_pdu(PDataTF((PDV(3, 2, b"data"),))), "protocol"),
    ],
)
def test_answers_to_a_store_that_are_none(run: Runner, answers: bytes, text: str) -> None:
    async def handler(wire: Wire) -> None:
        await accept_any(wire)
        assert await message(wire) == b"abcd"
        await wire.send(answers)

    async def scenario() -> None:
        observer = Recorder()
        async with scripted(handler) as port:
            requestor = await call(port, observer)
            with pytest.raises(AssociationError, match=text):
                await store(requestor, b"abcd")
            assert requestor.closed
            with pytest.raises(AssociationError, match=text):
                await store(requestor, b"never sent")
        await observer.all_closed()

    run(scenario)


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB007, 0xA700, 0xC000])
def test_an_answer_for_another_instance_was_taken_for_ours(run: Runner, status: int) -> None:
    """Regression: the Message ID was right, the SOP Instance UID was that of the one before."""

    async def handler(wire: Wire) -> None:
        await accept_any(wire)
        for number in (1, 2):
            await message(wire)
            await wire.send(store_rsp(number, status, affected_sop_instance_uid="1.2.3.99"))
        await to_the_end(wire)

    async def scenario() -> None:
        async with scripted(handler) as port:
            requestor = await call(port)
            assert await store(requestor, b"abc", uid="1.2.3.99") == status
            with pytest.raises(AssociationBroken, match=r"for another instance: 1\.2\.3\.99"):
                await store(requestor, b"abc", uid="1.2.3.1")
            assert requestor.closed

    run(scenario)


@pytest.mark.parametrize("status", [0x0000, 0xB007, 0xA700, 0xC000])
def test_an_archive_that_answers_with_uids_of_its_own_got_nothing_delivered(
    run: Runner, status: int
) -> None:
    """Regression: every association was aborted at its first answer."""

    async def handler(wire: Wire) -> None:
        await accept_any(wire)
        for number in (1, 2, 3):
            await message(wire)
            answer = store_rsp(number, status, affected_sop_instance_uid=f"1.2.99.{number}")
            await wire.send(answer)
        await to_the_end(wire)

    async def scenario() -> None:
        async with scripted(handler) as port:
            requestor = await call(port)
            for number in (1, 2, 3):
                assert await store(requestor, b"abc", uid=f"1.2.3.{number}") == status
            await requestor.release()

    run(scenario)
    (line,) = run.said("UID that it was not sent")
    assert line["named"] == "1.2.99.1"


def test_what_is_remembered_of_an_association_is_bounded(run: Runner) -> None:
    async def handler(wire: Wire) -> None:
        await accept_any(wire)
        for number in range(1, 101):
            await message(wire)
            await wire.send(store_rsp(number))
        await to_the_end(wire)

    async def scenario() -> None:
        async with scripted(handler) as port:
            requestor = await call(port)
            for number in range(1, 101):
                await store(requestor, b"abc", uid=f"1.2.3.{number}")
            assert len(requestor._names.recent) == 64
            await requestor.release()

    run(scenario)


def test_an_archive_that_coerced_the_uid_has_stored_it(run: Runner) -> None:
    async def handler(wire: Wire) -> None:
        await accept_any(wire)
        await message(wire)
        await wire.send(store_rsp(1, 0xB000, affected_sop_instance_uid="1.2.3.99"))
        await to_the_end(wire)

    async def scenario() -> None:
        async with scripted(handler) as port:
            requestor = await call(port)
            assert await store(requestor, b"abc", uid="1.2.3.1") == 0xB000
            await requestor.release()

    run(scenario)


def test_an_answer_that_comes_twice_ends_the_association(run: Runner) -> None:
    async def handler(wire: Wire) -> None:
        await accept_any(wire)
        await message(wire)
        await wire.send(store_rsp(1) + store_rsp(1))
        await wire.aborted()

    async def scenario() -> None:
        async with scripted(handler) as port:
            requestor = await call(port)
            assert await store(requestor, b"abc") == 0
            with pytest.raises(AssociationBroken, match="message 1, which is not outstanding"):
                await store(requestor, b"abc")

    run(scenario)


def test_an_answer_to_what_was_not_sent_yet_delivers_nothing(run: Runner) -> None:
    """The second request waits behind the first: its number is not given away before."""

    async def handler(wire: Wire) -> None:
        await accept_any(wire, asynchronous_operations=(2, 1))
        await wire.pdu()
        await wire.send(store_rsp(2))
        await to_the_end(wire)

    async def scenario() -> None:
        async with scripted(handler) as port:
            requestor = await call(port, asynchronous_operations=2)
            results = await asyncio.gather(
                store(requestor, bytes(8_000_000)),
                store(requestor, b"abc"),
                return_exceptions=True,
            )
            assert [type(result) for result in results] == [AssociationBroken] * 2

    run(scenario)


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xFF00])
def test_success_before_the_end_of_the_message_is_none(run: Runner, status: int) -> None:
    async def handler(wire: Wire) -> None:
        await accept_any(wire)
        await wire.pdu()
        await wire.send(store_rsp(1, status))
        await to_the_end(wire)

    async def scenario() -> None:
        async with scripted(handler) as port:
            requestor = await call(port)
            with pytest.raises(AssociationBroken, match="before the end of message 1"):
                await store(requestor, bytes(16_000_000))

    run(scenario)


def test_a_refusal_may_come_before_the_end_of_the_message(run: Runner) -> None:
    async def handler(wire: Wire) -> None:
        await accept_any(wire)
        await wire.pdu()
        await wire.send(store_rsp(1, 0xA700, error_comment="the disk is full"))
        await message(wire)
        await message(wire)
        await wire.send(store_rsp(2))
        await to_the_end(wire)

    async def scenario() -> None:
        async with scripted(handler) as port:
            requestor = await call(port)
            data = Data(bytes(4_000_000))
            context_id = requestor.accepted[CT_PAIR]
            result = await requestor.store(context_id, CT, "1.2.3", data)
            assert result == StoreResult(0xA700, "the disk is full")
            assert data.remaining == 0
            assert await store(requestor, b"abc") == 0
            await requestor.release()

    run(scenario)


def test_a_peer_that_never_reads(run: Runner) -> None:
    async def handler(wire: Wire) -> None:
        await accept_any(wire)
        wire.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await given_up.wait()

    async def scenario() -> None:
        nonlocal given_up
        given_up = asyncio.Event()
        async with scripted(handler) as port:
            requestor = await call(port, dimse_timeout=0.2, negotiation_timeout=0.1)
            storing = asyncio.ensure_future(store(requestor, bytes(64_000_000)))
            await asyncio.wait([storing])
            assert isinstance(storing.exception(), AssociationTimeout)
            assert requestor.transport is not None
            assert requestor.transport.get_write_buffer_size() < 300_000
            await requestor._ended.wait()  # though nothing of the A-ABORT can be written
            given_up.set()

    given_up: asyncio.Event
    run(scenario)


def test_a_peer_that_closes_its_side_and_never_reads(run: Runner) -> None:
    """What it did not take is dropped: a transport that waits for it would wait for ever."""

    async def handler(wire: Wire) -> None:
        await accept_any(wire)
        wire.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await full.wait()
        wire.writer.write_eof()
        await given_up.wait()

    async def scenario() -> None:
        nonlocal full, given_up
        full, given_up = asyncio.Event(), asyncio.Event()
        async with scripted(handler) as port:
            requestor = await call(port)
            paused = requestor.pause_writing
            requestor.pause_writing = lambda: (paused(), full.set())[0]  # type: ignore[method-assign]
            with pytest.raises(AssociationBroken, match="closed the connection"):
                await store(requestor, bytes(64_000_000))
            given_up.set()

    full: asyncio.Event
    given_up: asyncio.Event
    run(scenario)


def test_bytes_that_left_the_transport_were_not_taken_for_progress(
    run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: on a slow line the kernel takes as much as is acknowledged, and its own count
    stands still."""

    class Slow(asyncio.Transport):
        def get_write_buffer_size(self) -> int:
            return held

    async def scenario() -> None:
        nonlocal held
        async with gate() as subject:
            requestor = await call(subject.port)
            monkeypatch.setattr(requestor_module, "unacknowledged", lambda transport: 1000)
            real, requestor.transport = requestor.transport, Slow()
            requestor.on_silent(60.0, idle=False)
            held = 1000
            requestor.on_silent(60.0, idle=False)
            requestor.transport = real
            assert not requestor.closed
            await requestor.release()
            await subject.quiet()

    held = 2000
    run(scenario)


def test_what_was_not_handed_to_the_transport_was_taken_for_sent(run: Runner) -> None:
    """Regression: the peer left while the data set was read, and no byte of it was written."""

    async def handler(wire: Wire) -> None:
        await accept_any(wire)
        await reading.wait()
        await wire.close()
        closed.set()

    class Slow(Data):
        def read(self, buffers: list[memoryview]) -> None:
            loop.call_soon_threadsafe(reading.set)
            asyncio.run_coroutine_threadsafe(gone(), loop).result()
            super().read(buffers)

    async def gone() -> None:
        while not requestor.closed:
            await asyncio.sleep(0)

    async def scenario() -> None:
        nonlocal reading, closed, loop, requestor
        reading, closed, loop = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop()
        async with scripted(handler) as port:
            requestor = await call(port)
            data, sent = Slow(b"abc", cold=True), []
            with pytest.raises(AssociationBroken):
                await requestor.store(
                    requestor.accepted[CT_PAIR],
                    CT,
                    "1.2.3",
                    data,
                    on_sent=lambda: sent.append(True),
                )
            assert (data.remaining, sent) == (0, [])
            await closed.wait()

    reading: asyncio.Event
    closed: asyncio.Event
    loop: asyncio.AbstractEventLoop
    requestor: Requestor
    run(scenario)


@pytest.mark.parametrize("request_", ["echo", "store"])
def test_a_peer_that_never_answers(run: Runner, request_: str) -> None:
    async def handler(wire: Wire) -> None:
        await accept_any(wire)
        await wire.aborted()

    async def scenario() -> None:
        observer = Recorder()
        async with scripted(handler) as port:
            requestor = await call(port, observer, dimse_timeout=0.1)
            with pytest.raises(AssociationTimeout, match="was silent for"):
                await (requestor.echo() if request_ == "echo" else store(requestor, b"abc"))
            assert requestor.closed
        await observer.all_closed()
        assert observer.aborted == {("out", "local"): 1}

    run(scenario)


def test_a_peer_that_asks_and_never_answers_was_waited_for_for_ever(run: Runner) -> None:
    """Regression: every byte of it was a sign of life."""

    async def handler(wire: Wire) -> None:
        await accept_any(wire)
        await message(wire)

        async def ask() -> None:
            while True:
                await wire.send(encode_message(1, encode_command(ECHO), None, 0))
                await asyncio.sleep(0.02)

        asking = asyncio.ensure_future(ask())
        await to_the_end(wire)
        asking.cancel()
        await asyncio.wait([asking])

    async def scenario() -> None:
        async with scripted(handler) as port:
            requestor = await call(port, dimse_timeout=0.2)
            with pytest.raises(AssociationTimeout, match="was silent for"):
                async with asyncio.timeout(1.0):  # fifty requests: fewer than are too many
                    await store(requestor, b"abc")

    run(scenario)


def test_a_peer_that_asks_without_end_filled_the_memory_with_our_answers(run: Runner) -> None:
    async def handler(wire: Wire) -> None:
        await accept_any(wire)
        asked = encode_message(1, encode_command(ECHO), None, 0)
        with contextlib.suppress(ConnectionError):
            await wire.send(asked * 1000)
        await to_the_end(wire)

    async def scenario() -> None:
        async with scripted(handler) as port:
            requestor = await call(port)
            with pytest.raises(AssociationError, match="more than 64 requests, and no answer"):
                await store(requestor, b"abc")
            assert requestor.closed

    run(scenario)


def test_a_peer_that_never_answers_the_release(run: Runner) -> None:
    async def handler(wire: Wire) -> None:
        await accept_any(wire)
        await wire.aborted()

    async def scenario() -> None:
        async with scripted(handler) as port:
            requestor = await call(port, negotiation_timeout=0.1)
            with pytest.raises(AssociationTimeout, match="did not answer the release"):
                await requestor.release()
            assert requestor.closed

    run(scenario)


def test_a_release_that_meets_the_peers_own(run: Runner) -> None:
    async def handler(wire: Wire) -> None:
        await accept_any(wire)
        assert isinstance(await wire.pdu(), AReleaseRQ)
        await wire.send(AReleaseRQ())
        assert isinstance(await wire.pdu(), AReleaseRP)
        await wire.send(AReleaseRP())
        await wire.ended()

    async def scenario() -> None:
        observer = Recorder()
        async with scripted(handler) as port:
            requestor = await call(port, observer)
            await requestor.release()
            assert requestor.closed
        await observer.all_closed()
        assert not observer.aborted

    run(scenario)


def test_a_peer_that_releases_an_idle_association(run: Runner) -> None:
    async def handler(wire: Wire) -> None:
        await accept_any(wire)
        await wire.send(AReleaseRQ())
        assert isinstance(await wire.pdu(), AReleaseRP)

    async def scenario() -> None:
        observer = Recorder()
        async with scripted(handler) as port:
            requestor = await call(port, observer)
            await observer.all_closed()
            assert requestor.closed
            with pytest.raises(AssociationBroken, match="released"):
                await requestor.echo()
            await requestor.release()

    run(scenario)


def test_requests_of_the_peer_are_answered_that_nobody_serves_them(run: Runner) -> None:
    event = Command(
        0x0100, True, affected_sop_class_uid=CT, message_id=9, affected_sop_instance_uid="1.2",
        event_type_id=1,
    )  # fmt: skip
    cancel = Command(0x0FFF, message_id_being_responded_to=1)

    async def handler(wire: Wire) -> None:
        await accept_any(wire)
        await wire.send(encode_message(3, encode_command(cancel), None, 0))
        await wire.send(encode_message(3, encode_command(event), b"report", 0))
        answer = await wire.answer()
        assert (answer.status, answer.message_id_being_responded_to) == (0x0211, 9)
        told.set()
        await message(wire)
        await wire.send(echo_rsp(1))
        await to_the_end(wire)

    async def scenario() -> None:
        nonlocal told
        told = asyncio.Event()
        async with scripted(handler) as port:
            requestor = await call(port)
            await told.wait()
            assert await requestor.echo() == 0
            await requestor.release()

    told: asyncio.Event
    run(scenario)


def test_message_ids_go_round_and_pass_over_those_in_use(run: Runner) -> None:
    async def scenario() -> None:
        async with scripted(server) as port:
            requestor = await call(port, asynchronous_operations=2)
            requestor._last_id = 0xFFFD
            assert await asyncio.gather(*(requestor.echo() for _ in range(4))) == [0] * 4
            assert seen == [0xFFFE, 0xFFFF, 1, 2]

            def another() -> Request:
                return Request(0x0030, "", asyncio.get_running_loop().create_future())

            assert requestor._expect(another()) == 3
            requestor._last_id = 2
            assert requestor._expect(another()) == 4
            requestor._waiting.clear()
            await requestor.release()

    seen: list[int] = []

    async def server(wire: Wire) -> None:
        await accept_any(wire, asynchronous_operations=(2, 1))
        for _ in range(4):
            request = await wire.answer()
            seen.append(request.message_id)
            await wire.send(echo_rsp(request.message_id))
        await to_the_end(wire)

    run(scenario)
