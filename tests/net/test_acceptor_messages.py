"""What peers do in an association that stands, and how it ends."""

import asyncio
import contextlib
import socket
import struct

import pytest

from router.dimse.command import Command, encode_command
from router.dimse.fragment import encode_message
from router.net.link import RECEIVE_BUFFER_SIZE
from router.net.settings import NetworkSettings
from router.ul import (
    PDU,
    PDV,
    AAbort,
    AReleaseRP,
    AReleaseRQ,
    PDataTF,
    PresentationContextAC,
    UserInformation,
    encode_pdu,
)
from tests.net.support import (
    CT,
    EXPLICIT,
    IMPLICIT,
    VERIFICATION,
    Gate,
    Runner,
    Shelved,
    Wire,
    echo_rq,
    gate,
    request,
    silent,
    store_rq,
)

ABORT = encode_pdu(AAbort(0, 0))


# -- messages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("maximum", [8, 9, 50, 4096, 0])
def test_answers_keep_to_the_peers_maximum_length(run: Runner, maximum: int) -> None:
    async def scenario() -> None:
        async with gate() as subject:
            subject.shelf.policy = lambda one: one.answer(0xA700, "the disk is full")
            wire = await subject.wire()
            await wire.associate(user_information=UserInformation(maximum))
            await wire.send(store_rq(b"abc", 7))
            answer = await wire.answer()
            assert answer.message_id_being_responded_to == 7
            assert answer.status == 0xA700
            await wire.send(echo_rq(8))
            while True:
                pdu = await wire.pdu()
                assert isinstance(pdu, PDataTF)
                assert not maximum or len(encode_pdu(pdu)) - 6 <= maximum
                if pdu.pdvs[-1].control & 2:
                    break
            await wire.release()

    run(scenario)


def pdvs_of(message: bytes) -> list[PDV]:
    from router.ul import decode_pdu

    found = []
    while message:
        size = 6 + int.from_bytes(message[2:6])
        pdu = decode_pdu(message[:size])
        assert isinstance(pdu, PDataTF)
        found += pdu.pdvs
        message = message[size:]
    return found


@pytest.mark.parametrize("cut", ["one pdu", "small pdvs", "byte by byte"])
def test_messages_however_they_are_cut(run: Runner, cut: str) -> None:
    message = store_rq(bytes(range(200)), maximum=16 if cut == "small pdvs" else 0)
    if cut != "byte by byte":
        message = encode_pdu(PDataTF(tuple(pdvs_of(message))))

    async def scenario() -> None:
        async with gate() as subject:
            wire = await subject.associated()
            step = 1 if cut == "byte by byte" else len(message)
            for at in range(0, len(message), step):
                await wire.send(message[at : at + step])
            assert (await wire.answer()).status == 0
            assert bytes(subject.shelf.ended[0].bytes) == bytes(range(200))
            await wire.release()

    run(scenario)


def command(number: int, **fields: object) -> bytes:
    values = {"affected_sop_class_uid": CT, "message_id": 5} | fields
    return encode_message(3, encode_command(Command(number, **values)), None, 0)  # type: ignore[arg-type]


def unknown_command() -> bytes:
    body = struct.pack("<HHIHHHIH", 0, 0x0100, 2, 0x0999, 0, 0x0110, 2, 5)
    body += struct.pack("<HHIH", 0, 0x0800, 2, 0x0101)
    return encode_message(3, struct.pack("<HHII", 0, 0, 4, len(body)) + body, None, 0)


def test_requests_that_nobody_serves_are_answered_and_the_association_goes_on(run: Runner) -> None:
    find = encode_message(
        3,
        encode_command(Command(0x0020, affected_sop_class_uid=CT, message_id=5, has_data_set=True)),
        b"query",
        0,
    )

    async def scenario() -> None:
        async with gate() as subject:
            wire = await subject.associated()
            for message in (unknown_command(), find):
                await wire.send(message)
                answer = await wire.answer()
                assert (answer.status, answer.message_id_being_responded_to) == (0x0211, 5)
            on_echo = encode_message(
                1, encode_command(Command(0x0020, True, VERIFICATION, message_id=6)), b"q", 0
            )
            await wire.send(on_echo)
            assert (await wire.answer()).status == 0x0211
            await wire.send(store_rq())
            assert (await wire.answer()).status == 0
            await wire.release()

    run(scenario)


def test_a_cancel_and_an_answer_that_nobody_waits_for_are_passed_over(run: Runner) -> None:
    cancel = encode_message(
        3, encode_command(Command(0x0FFF, message_id_being_responded_to=5)), None, 0
    )
    stray = encode_message(
        3,
        encode_command(
            Command(
                0x8020,
                True,
                CT,
                message_id_being_responded_to=5,
                status=0xFF00,
            )
        ),
        b"identifier",
        0,
    )

    async def scenario() -> None:
        async with gate() as subject:
            wire = await subject.associated()
            await wire.send(cancel, stray, echo_rq(9))
            answer = await wire.answer()
            assert (answer.field, answer.message_id_being_responded_to) == (0x8030, 9)
            await wire.release()

    run(scenario)


@pytest.mark.parametrize(
    "mistake",
    [
        encode_pdu(PDataTF((PDV(3, 2, b"data without a command"),))),
        encode_pdu(PDataTF((PDV(5, 3, b"a context that was not accepted"),))),
        encode_pdu(PDataTF((PDV(3, 3, b"not a command set"),))),
        struct.pack(">BxI", 4, 1 << 20) + bytes(100),
        struct.pack(">BxIIBB", 4, 8, 400, 3, 3) + bytes(20),
        encode_pdu(request()),
        encode_pdu(AReleaseRP()),
        b"\x99" + bytes(20),
    ],
)
def test_mistakes_in_an_association_abort_it(run: Runner, mistake: bytes) -> None:
    async def scenario() -> None:
        async with gate() as subject:
            wire = await subject.associated()
            message = store_rq(bytes(1000), maximum=500)
            await wire.send(message[: len(message) // 2])
            await subject.shelf.until(lambda s: bool(s.begun))
            await wire.close()
            await subject.quiet()
            wire = await subject.associated()
            await wire.send(mistake)
            await wire.aborted()
            await wire.close()
            await subject.quiet()
            assert subject.observer.aborted == {("in", "peer"): 1, ("in", "local"): 1}
            assert not subject.observer.rejected
            assert sum(subject.observer.errors.values()) == 1
            assert [one.fate for one in subject.shelf.begun] == ["abandoned"]

    run(scenario)
    assert len(run.said("association aborted by us")) == 1


def test_a_service_that_fails_costs_one_association(run: Runner) -> None:
    async def scenario() -> None:
        async with gate() as subject:

            def fail(_: Shelved) -> None:
                raise ZeroDivisionError

            # The operation is still open then, so it is told of the end of the association.
            subject.shelf.policy = fail
            wire = await subject.associated()
            await wire.send(store_rq())
            await wire.aborted()
            for one in subject.shelf.begun:
                one.fate = ""
            await wire.close()
            await subject.quiet()
            assert [one.fate for one in subject.shelf.begun] == ["abandoned"]
            subject.shelf.policy = Shelved.answer
            wire = await subject.associated()
            await wire.send(store_rq())
            assert (await wire.answer()).status == 0
            await wire.release()

    run(scenario, tracebacks=1)
    assert len(run.said("association failed")) == 1


# -- the end -------------------------------------------------------------------------------------


def test_release_in_the_middle_of_a_message_is_no_release(run: Runner) -> None:
    async def scenario() -> None:
        async with gate() as subject:
            wire = await subject.associated()
            message = store_rq(bytes(1000), maximum=500)
            await wire.send(encode_pdu(PDataTF(tuple(pdvs_of(message)[:-1]))), AReleaseRQ())
            await wire.aborted()
            await wire.close()
            await subject.quiet()
            assert [one.fate for one in subject.shelf.begun] == ["abandoned"]
            assert subject.observer.aborted == {("in", "local"): 1}

    run(scenario)
    assert run.said("release in the middle of a message")


def test_after_the_release_the_peer_is_given_time_to_close(run: Runner) -> None:
    async def scenario() -> None:
        async with gate(artim_timeout=0.1) as subject:
            wire = await subject.associated()
            await wire.send(AReleaseRQ())
            assert isinstance(await wire.pdu(), AReleaseRP)
            await silent(0.1, wire)
            await subject.quiet()
            assert not subject.observer.rejected
            assert not subject.observer.aborted

    run(scenario)


@pytest.mark.parametrize("phase", ["idle", "message", "answer"])
@pytest.mark.parametrize("how", ["abort", "close", "reset"])
def test_a_peer_that_leaves(run: Runner, how: str, phase: str) -> None:
    async def scenario() -> None:
        # Who closed is owed the answer, but not for ever.
        async with gate(dimse_timeout=0.5) as subject:
            subject.shelf.policy = lambda _: None
            wire = await subject.associated()
            if phase == "message":
                message = store_rq(bytes(1000), maximum=500)
                await wire.send(encode_pdu(PDataTF(tuple(pdvs_of(message)[:-1]))))
                await subject.shelf.until(lambda s: bool(s.begun))
            elif phase == "answer":
                await wire.send(store_rq())
                await subject.shelf.until(lambda s: bool(s.ended))
            if how == "abort":
                await wire.send(ABORT)
                await wire.ended()
            elif how == "reset":
                wire.writer.transport.abort()
            await wire.close()
            await subject.quiet()
            fates = {"idle": [], "message": ["abandoned"], "answer": ["ended"]}
            assert [one.fate for one in subject.shelf.begun] == fates[phase]
            assert subject.observer.aborted == {("in", "peer"): 1}

    run(scenario)
    assert len(run.said("warning", "peer")) == 1


def test_an_idle_association_is_aborted(run: Runner) -> None:
    async def scenario() -> None:
        async with gate(idle_timeout=0.1, artim_timeout=0.1) as subject:
            wire = await subject.associated()
            await wire.aborted()
            await subject.quiet()  # by ARTIM: the peer does not close
            await wire.close()
            assert subject.observer.aborted == {("in", "local"): 1}

    run(scenario)
    assert len(run.said("the peer was idle")) == 1


@pytest.mark.parametrize("part", ["header", "command", "data"])
def test_a_peer_that_falls_silent_in_the_middle_of_a_message(run: Runner, part: str) -> None:
    message = store_rq(bytes(1000), maximum=500)
    command_pdv, data_pdv, *_ = pdvs_of(message)
    half = PDV(3, 1, command_pdv.data[:40])
    pieces = {
        "header": encode_pdu(PDataTF((half,))),
        "command": encode_pdu(PDataTF((command_pdv,))),
        "data": encode_pdu(PDataTF((command_pdv, data_pdv))),
    }

    async def scenario() -> None:
        async with gate(dimse_timeout=0.1, artim_timeout=0.1) as subject:
            wire = await subject.associated()
            await wire.send(pieces[part])
            await wire.aborted()
            await subject.quiet()
            await wire.close()
            fates = [] if part == "header" else ["abandoned"]
            assert [one.fate for one in subject.shelf.begun] == fates
            assert subject.observer.aborted == {("in", "local"): 1}

    run(scenario)
    assert len(run.said("silent in the middle of a message")) == 1


def test_a_peer_that_waits_for_us_is_not_silent(run: Runner) -> None:
    async def scenario() -> None:
        async with gate(idle_timeout=0.1, dimse_timeout=0.1) as subject:
            held: list[Shelved] = []
            subject.shelf.policy = held.append
            wire = await subject.associated()
            await wire.send(store_rq())
            late = asyncio.Event()
            asyncio.get_running_loop().call_later(0.3, late.set)
            await late.wait()
            held[0].answer()
            assert (await wire.answer()).status == 0
            await wire.close()
            await subject.quiet()

    run(scenario)


def test_a_peer_that_never_reads_its_answers(run: Runner) -> None:
    """What we cannot write holds nothing for ever, and is bounded by the silence it is."""

    waiting: list[int] = []

    def answer(shelved: Shelved) -> None:
        shelved.answer()
        assert shelved.association.transport is not None
        waiting.append(shelved.association.transport.get_write_buffer_size())

    async def scenario() -> None:
        async with gate(dimse_timeout=0.2, artim_timeout=0.1) as subject:
            subject.shelf.policy = answer
            wire = await subject.associated()
            wire.reader._transport.pause_reading()  # type: ignore[attr-defined]
            # As many as one may have under way, again and again.
            flood = b"".join(store_rq(b"abc", n, "1.2." + "9" * 60) for n in range(1, 17))
            [association] = subject.listeners.associations
            assert association.transport is not None
            sock = association.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            sending = asyncio.ensure_future(_flood(wire, flood))
            await subject.listeners.until_open(0)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            wire.writer.transport.abort()
            await wire.close()
            await subject.quiet()

    run(scenario)
    assert len(run.said("took none of our answers")) == 1
    # No more than the answers to what one filling of the receive buffer holds.
    assert 0 < max(waiting) < RECEIVE_BUFFER_SIZE


def test_the_kernel_takes_few_answers_that_nobody_reads(run: Runner) -> None:
    """Or whoever reads none could have tens of thousands of requests answered first."""
    answered = 0

    def answer(shelved: Shelved) -> None:
        nonlocal answered
        answered += 1
        shelved.answer()

    async def scenario() -> None:
        async with gate(dimse_timeout=0.3, artim_timeout=0.1) as subject:
            subject.shelf.policy = answer
            wire = await subject.associated()
            sock = wire.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            wire.reader._transport.pause_reading()  # type: ignore[attr-defined]
            flood = b"".join(store_rq(b"abc", n, "1.2." + "9" * 60) for n in range(1, 17))
            sending = asyncio.ensure_future(_flood(wire, flood))
            await subject.listeners.until_open(0)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            wire.writer.transport.abort()
            await wire.close()
            await subject.quiet()

    run(scenario)
    assert 0 < answered < 2000


async def _flood(wire: Wire, flood: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            await wire.send(flood)
            await asyncio.sleep(0)


# -- cuts ----------------------------------------------------------------------------------------


def conversation() -> list[tuple[bytes, int]]:
    """What a peer says, and how many PDUs it then waits for."""
    return [
        (encode_pdu(request()), 1),
        (echo_rq(1), 1),
        (store_rq(b"0123456789", 2, maximum=64), 1),
        (encode_pdu(AReleaseRQ()), 1),
    ]


def parts(length: int) -> list[tuple[bytes, int]]:
    """The conversation up to a number of bytes."""
    found = []
    for data, answers in conversation():
        found.append((data[:length], answers if length >= len(data) else 0))
        length -= len(data)
        if length <= 0:
            break
    return found


async def say(subject: Gate, length: int) -> list[PDU]:
    heard = []
    wire = await subject.wire()
    for data, answers in parts(length):
        await wire.send(data)
        for _ in range(answers):
            pdu = await wire.pdu()
            assert pdu is not None
            heard.append(pdu)
    await wire.close()
    return heard


def test_a_conversation_cut_at_every_byte(run: Runner) -> None:
    """Whole messages are taken and answered, half ones leave nothing, and everything ends."""
    total = sum(len(data) for data, _ in conversation())
    associate, echo, whole_store, _ = (len(data) for data, _ in conversation())

    async def scenario() -> None:
        async with gate() as subject:
            for length in range(total + 1):
                await say(subject, length)
                if length % 20 == 0:
                    await subject.quiet()
            await subject.quiet()
            stored = associate + echo + whole_store
            begun = [bytes(one.bytes) for one in subject.shelf.begun]
            assert len(subject.shelf.ended) == total + 1 - stored
            assert {bytes(one.bytes) for one in subject.shelf.ended} == {b"0123456789"}
            assert len(begun) > len(subject.shelf.ended)
            assert subject.observer.opened == total + 1 - associate
            assert not subject.observer.rejected
            # All but the one that was released.
            assert subject.observer.aborted == {("in", "peer"): total - associate}

    run(scenario)


def test_settings_apply_to_the_next_connection(run: Runner) -> None:
    async def scenario() -> None:
        async with gate() as subject:
            subject.listeners.settings = NetworkSettings(max_pdu=8192)
            wire = await subject.wire()
            answer = await wire.associate()
            assert answer.user_information.maximum_length == 8192
            assert answer.presentation_contexts == (
                PresentationContextAC(1, 0, IMPLICIT),
                PresentationContextAC(3, 0, EXPLICIT),
            )
            await wire.release()

    run(scenario)
