"""How fast a requestor writes, counted at the other end of the connection."""

import asyncio
import contextlib

import pytest

from router.forward.throttle import Bandwidth, Metered, Speed, Throttle
from router.net.connector import connect
from router.net.errors import AssociationError
from router.net.requestor import Requestor
from router.net.target import Target
from router.ul import AAssociateRQ, UserInformation, accept_request, negotiate
from tests.forward.fakes import CT_PAIR, FakeReader, waiting
from tests.forward.virtual import VirtualLoop, run
from tests.net.support import Wire

KILOBIT = 125.0
_ON_THE_WAY = 0.001
"""Seconds that the kernel may need to bring what was sent over to the other socket."""


class PatientLoop(VirtualLoop):
    """Its clock jumps only when nothing is on its way between two real sockets."""

    def __init__(self) -> None:
        super().__init__()
        jump, real = self.selector.select, super(type(self.selector), self.selector).select

        def select(timeout: float | None = None):  # type: ignore[no-untyped-def]
            events = real(0 if timeout == 0 else _ON_THE_WAY)
            return events or jump(timeout)

        self.selector.select = select  # type: ignore[method-assign]


class Meter:
    """An acceptor that counts what it is sent, and answers nothing but the association."""

    def __init__(self) -> None:
        self.count = 0
        self.ended = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(reader, writer)
        rq = await wire.pdu()
        assert isinstance(rq, AAssociateRQ)
        answers = negotiate(rq, lambda context: (0, context.transfer_syntaxes[0]))
        await wire.send(accept_request(rq, answers, UserInformation(maximum_length=16384)))
        try:
            while data := await reader.read(65536):
                self.count += len(data)
        finally:
            # An abort, and what was still on its way, may end in a reset.
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            self.ended.set()


async def _association(meter: Meter, bandwidth: float, timeout: float = 60.0) -> Requestor:
    server = await asyncio.start_server(meter, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    target = Target("pacs", "PACS", "127.0.0.1", port, "ROUTER", dimse_timeout=timeout)
    association = await connect(target, [CT_PAIR])
    server.close()
    throttle = Throttle(Speed(Bandwidth(otherwise=bandwidth)), Metered(Bandwidth()))
    throttle.look(0.0)
    association.pace = throttle
    return association


def _send(association: Requestor, length: int) -> asyncio.Task[object]:
    item = waiting(1, length=length)
    context_id = association.accepted[CT_PAIR]
    return asyncio.ensure_future(
        association.store(
            context_id, item.sop_class_uid, item.sop_instance_uid, FakeReader(item.ref)
        )
    )


@pytest.mark.parametrize("kilobits", [1000, 20_000, 200_000])
def test_bytes_on_the_wire_keep_to_the_bandwidth(kilobits: int) -> None:
    async def scenario() -> None:
        meter = Meter()
        association = await _association(meter, kilobits * KILOBIT)
        sending = _send(association, 10**9)
        await asyncio.sleep(10)
        assert meter.count == pytest.approx(10 * kilobits * KILOBIT, rel=0.05)
        association.abort()
        with pytest.raises(AssociationError):
            await sending
        association.close()
        await meter.ended.wait()

    run(scenario(), PatientLoop)


def test_a_line_as_slow_as_it_is_set_to_be_was_no_silent_peer() -> None:
    async def scenario() -> None:
        meter = Meter()
        association = await _association(meter, 8 * KILOBIT, timeout=4.0)
        sending = _send(association, 100_000)
        await asyncio.sleep(95)
        assert not sending.done(), "8 KiB at a time, one every 8 seconds"
        assert meter.count == pytest.approx(95_000, rel=0.1)
        with pytest.raises(AssociationError, match="was silent for"):
            await sending  # who does not answer in the end is
        association.close()
        await meter.ended.wait()

    run(scenario(), PatientLoop)
