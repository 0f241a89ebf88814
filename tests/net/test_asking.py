"""C-FIND on the wire: matches, C-CANCEL, and peers that break the rules."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from router.dimse.command import Command, encode_command
from router.dimse.fragment import encode_message
from router.net.connector import connect
from router.net.errors import AssociationBroken, AssociationError, AssociationTimeout
from tests.net.acceptors import accept_any, echo_rsp, scripted, to_the_end
from tests.net.support import ECHO_PAIR, Runner, Wire, target

FIND = "1.2.840.10008.5.1.4.1.2.2.1"
PAIR = (FIND, "1.2.840.10008.1.2")
C_FIND_RQ, C_FIND_RSP, C_CANCEL_RQ = 0x0020, 0x8020, 0x0FFF


def find_rsp(status: int, identifier: bytes | None = None, message_id: int = 1) -> bytes:
    command = Command(
        C_FIND_RSP,
        affected_sop_class_uid=FIND,
        message_id_being_responded_to=message_id,
        status=status,
        has_data_set=identifier is not None,
    )
    return encode_message(1, encode_command(command), identifier, 0)


def asking(
    run: Runner,
    server: Callable[[Wire], Awaitable[None]],
    *,
    most: int = 1000,
    longest: int = 1000,
    **changes: float,
) -> tuple[list[bytes], Command]:
    """What one question to a scripted server brings."""
    matches: list[bytes] = []

    def on_match(identifier: bytes) -> bool:
        matches.append(identifier)
        return len(matches) < most

    async def scenario() -> Command:
        async with scripted(server) as port:
            requestor = await connect(target(port, **changes), [PAIR, ECHO_PAIR])
            try:
                response = await requestor.ask(
                    requestor.accepted[PAIR], C_FIND_RQ, FIND, b"asked", on_match, longest=longest
                )
                assert await requestor.echo() == 0, "it is of use afterwards"
                await requestor.release()
            finally:
                requestor.close()
            return response

    return matches, run(scenario)


async def asked(wire: Wire) -> Command:
    await accept_any(wire)
    command = await wire.answer()
    assert command.field == C_FIND_RQ
    assert command.affected_sop_class_uid == FIND
    assert command.has_data_set
    return command


async def and_an_echo(wire: Wire) -> None:
    command = await wire.answer()
    await wire.send(
        encode_message(
            3,
            encode_command(
                Command(0x8030, message_id_being_responded_to=command.message_id, status=0)
            ),
            None,
            0,
        )
    )
    await to_the_end(wire)


def test_matches_come_one_by_one_and_whole(run: Runner) -> None:
    async def server(wire: Wire) -> None:
        await asked(wire)
        long = find_rsp(0xFF01, bytes(range(256)) * 3)
        await wire.send(find_rsp(0xFF00, b"one "))
        for at in range(0, len(long), 7):
            await wire.send(long[at : at + 7])
        await wire.send(find_rsp(0xFF00, b""), find_rsp(0x0000))
        await and_an_echo(wire)

    matches, response = asking(run, server)
    assert matches == [b"one ", bytes(range(256)) * 3, b""]
    assert response.status == 0


def test_a_last_response_with_an_identifier_is_no_match(run: Runner) -> None:
    async def server(wire: Wire) -> None:
        await asked(wire)
        await wire.send(find_rsp(0xA900, b"what did not match"))
        await and_an_echo(wire)

    matches, response = asking(run, server)
    assert (matches, response.status) == ([], 0xA900)


def test_when_it_is_enough_the_peer_is_told_and_what_still_comes_is_dropped(run: Runner) -> None:
    async def server(wire: Wire) -> None:
        command = await asked(wire)
        await wire.send(find_rsp(0xFF00, b"1 "), find_rsp(0xFF00, b"2 "), find_rsp(0xFF00, b"3 "))
        cancel = await wire.answer()
        assert cancel.field == C_CANCEL_RQ
        assert cancel.message_id_being_responded_to == command.message_id
        assert not cancel.has_data_set
        await wire.send(find_rsp(0xFF00, b"4 "), find_rsp(0xFE00))
        await and_an_echo(wire)

    matches, response = asking(run, server, most=2)
    assert (matches, response.status) == ([b"1 ", b"2 "], 0xFE00)


def test_an_end_that_crosses_the_cancel_is_the_end(run: Runner) -> None:
    async def server(wire: Wire) -> None:
        await asked(wire)
        await wire.send(find_rsp(0xFF00, b"1 "), find_rsp(0x0000))
        await and_an_echo(wire)

    matches, response = asking(run, server, most=1)
    assert (matches, response.status) == ([b"1 "], 0x0000)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (find_rsp(0xFF00, b"x" * 1001), "an identifier of more than 1000 bytes"),
        (find_rsp(0xFF00), "without an identifier"),
        (find_rsp(0xFF00, b"x", message_id=9), "message 9, which is not outstanding"),
        (echo_rsp(1), "C-ECHO-RSP for message 1"),
        (find_rsp(0x0000) + find_rsp(0xFF00, b"late"), "which is not outstanding"),
        (b"", "closed the connection"),
    ],
)
def test_a_peer_that_breaks_the_rules_loses_the_association(
    run: Runner, answer: bytes, text: str
) -> None:
    async def server(wire: Wire) -> None:
        await asked(wire)
        await wire.send(answer)
        if answer:
            while await wire.pdu() is not None:
                pass

    with pytest.raises(AssociationBroken, match=text):
        asking(run, server)


def test_a_silent_peer_is_waited_for_no_longer_than_configured(run: Runner) -> None:
    async def server(wire: Wire) -> None:
        await asked(wire)
        await wire.send(find_rsp(0xFF00, b"1 "))
        while await wire.pdu() is not None:
            pass

    with pytest.raises(AssociationTimeout, match="silent for"):
        asking(run, server, dimse_timeout=0.2)


def test_a_question_that_is_given_up_ends_the_association(run: Runner) -> None:
    async def server(wire: Wire) -> None:
        await asked(wire)
        await wire.aborted()

    async def scenario() -> None:
        async with scripted(server) as port:
            requestor = await connect(target(port), [PAIR])
            task = asyncio.ensure_future(
                requestor.ask(1, C_FIND_RQ, FIND, b"asked", lambda _: True, longest=10)
            )
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert requestor.closed
            with pytest.raises(AssociationError):
                await requestor.echo()
            requestor.close()

    run(scenario)
