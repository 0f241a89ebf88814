"""Acceptors that a test scripts, and the parts that they are made of."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from router.dimse.command import Command, encode_command
from router.dimse.fragment import encode_message
from router.ul import (
    AAbort,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    PDataTF,
    UserInformation,
    accept_request,
    negotiate,
)
from tests.net.support import CT, VERIFICATION, Wire


@contextlib.asynccontextmanager
async def scripted(handler: Callable[[Wire], Awaitable[None]]) -> AsyncIterator[int]:
    """A server that treats each connection as `handler` does, then closes it; its port."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(reader, writer)
        try:
            await handler(wire)
        finally:
            await wire.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.get_running_loop().create_task(serve(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    except BaseException:
        for task in tasks:  # what failed may be what they wait for
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    finally:
        server.close()
    await asyncio.gather(*tasks)


async def accept_any(wire: Wire, **information: Any) -> AAssociateRQ:
    """The part of an acceptor that takes whatever is proposed."""
    rq = await wire.pdu()
    assert isinstance(rq, AAssociateRQ)
    answers = negotiate(rq, lambda context: (0, context.transfer_syntaxes[0]))
    values = {"maximum_length": 16384} | information
    await wire.send(accept_request(rq, answers, UserInformation(**values)))
    return rq


async def message(wire: Wire) -> bytes:
    """The bytes of a message's data set, b"" when it has none."""
    data = b""
    command = b""
    while True:
        pdu = await wire.pdu()
        assert isinstance(pdu, PDataTF), pdu
        for pdv in pdu.pdvs:
            if pdv.control & 1:
                command += pdv.data
            else:
                data += pdv.data
            if pdv.control == 2 or (pdv.control == 3 and b"\x00\x08\x02\0\0\0\x01\x01" in command):
                return data


async def to_the_end(wire: Wire) -> None:
    """Answer a release, close after an abort, or wait until the requestor is gone."""
    while not isinstance(pdu := await wire.pdu(), AAbort | None):
        if isinstance(pdu, AReleaseRQ):
            await wire.send(AReleaseRP())
    await wire.close()


def echo_rsp(message_id: int = 1) -> bytes:
    command = Command(
        0x8030,
        affected_sop_class_uid=VERIFICATION,
        message_id_being_responded_to=message_id,
        status=0,
    )
    return encode_message(1, encode_command(command), None, 0)


def store_rsp(message_id: int = 1, status: int = 0, context_id: int = 3, **changes: Any) -> bytes:
    values = {
        "message_id_being_responded_to": message_id,
        "status": status,
        "affected_sop_class_uid": CT,
    }
    return encode_message(
        context_id, encode_command(Command(0x8001, **(values | changes))), None, 0
    )
