"""The load generator, against pynetdicom and against the sink."""

import asyncio
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, MRImageStorage
from pynetdicom import AE, evt

from perf import data, wire
from perf.load import Plan, Report, big_pdus, run_plan, send_big
from perf.sink import SinkProtocol, Tally


class Received:
    """What a pynetdicom SCP was given."""

    def __init__(self, status: int = 0) -> None:
        self.status = status
        self.instances: list[Dataset] = []

    def store(self, event: evt.Event) -> int:
        self.instances.append(event.dataset)
        return self.status


@contextmanager
def pynetdicom_scp(received: Received, sop_class: str, called: str = "") -> Iterator[int]:
    ae = AE(ae_title="ROUTER")
    ae.require_called_aet = bool(called)
    ae.add_supported_context(sop_class)
    server = ae.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, received.store)]
    )
    assert server is not None
    assert server.socket is not None
    try:
        yield server.socket.getsockname()[1]
    finally:
        server.shutdown()


def plan(port: int, **changes: object) -> Plan:
    values: dict[str, object] = {
        "port": port,
        "called": "ROUTER",
        "kind": "mr",
        "associations": 3,
        "at_once": 2,
        "instances": 2,
    }
    return Plan(**{**values, **changes})  # type: ignore[arg-type]


def send(what: Plan) -> Report:
    return asyncio.run(run_plan(what))


def test_every_instance_reaches_another_implementation_whole_and_distinct() -> None:
    received = Received()
    with pynetdicom_scp(received, MRImageStorage) as port:
        report = send(plan(port))

    assert (report.associations, report.sent, report.acknowledged) == (3, 6, 6)
    assert report.failures == {}
    assert len({ds.SOPInstanceUID for ds in received.instances}) == 6
    assert len({ds.PixelData for ds in received.instances}) == 6
    assert {len(ds.PixelData) for ds in received.instances} == {131_072}


def test_a_failure_status_is_counted_and_not_acknowledged() -> None:
    received = Received(status=0xA700)
    with pynetdicom_scp(received, MRImageStorage) as port:
        report = send(plan(port, associations=1))

    assert (report.sent, report.acknowledged) == (2, 0)
    assert report.failures == {"status A700": 2}


def test_a_refused_context_is_a_failure() -> None:
    with pynetdicom_scp(Received(), CTImageStorage) as port:
        report = send(plan(port, associations=1))

    assert report.acknowledged == 0
    assert ["presentation context" in why for why in report.failures] == [True]


def test_a_rejected_association_is_a_failure_and_the_barrier_still_opens() -> None:
    with pynetdicom_scp(Received(), MRImageStorage, called="ROUTER") as port:
        report = send(plan(port, called="OTHER", barrier=True, associations=2))

    assert sum(report.failures.values()) == 2
    assert all("rejected" in why for why in report.failures)


@pytest.mark.parametrize("barrier", [False, True])
async def test_the_sink_counts_what_the_generator_sends(barrier: bool) -> None:
    tally, port, server = await _sink()
    async with server:
        report = await run_plan(plan(port, associations=4, at_once=4, barrier=barrier))

    assert report.acknowledged == tally.stores == len(tally.instances) == 8
    assert tally.data_bytes == 8 * len(data.template(data.KINDS["mr"]).data)
    assert report.began <= tally.first <= tally.last <= report.ended


async def test_a_big_instance_is_made_on_the_way() -> None:
    tally, port, server = await _sink()
    async with server:
        report = await send_big(port, "ROUTER", 5_000_000)

    template = data.big_template(5_000_000)
    assert report.acknowledged == 1
    assert tally.data_bytes == len(template.data) + template.pixel_bytes


async def test_only_the_last_fragment_of_a_big_instance_is_marked() -> None:
    template = data.big_template(3_000_000)
    uid = data.instance_uid(template.kind, 1, 1)
    pdus = [bytes(pdu) async for pdu in big_pdus(template, uid, 65536)]

    assert [pdu[11] for pdu in pdus] == [0] * (len(pdus) - 1) + [2]
    assert all(len(pdu) == 6 + struct.unpack(">I", pdu[2:6])[0] <= 6 + 65536 for pdu in pdus)
    assert uid.encode() in pdus[0]


async def test_the_sink_answers_whatever_the_pieces_are() -> None:
    """Byte by byte: association, echo, a store in two fragments, release."""
    tally = Tally()
    transport = _Transport()
    protocol = SinkProtocol(tally)
    protocol.connection_made(transport)
    context = wire.Context(1, MRImageStorage, (wire.EXPLICIT_LE,))
    uid = data.instance_uid(data.KINDS["mr"], 1, 1)
    stream = (
        wire.associate_rq("SINK", "TEST", [context], 0)
        + wire.store_rq(1, 7, MRImageStorage, uid)
        + b"".join(wire.data_pdus(1, memoryview(b"x" * 100), 66))
        + wire.RELEASE_RQ_PDU
    )

    for byte in stream:
        protocol.get_buffer(1)[0] = byte
        protocol.buffer_updated(1)

    kinds = [written[0] for written in transport.written]
    assert kinds == [wire.ASSOCIATE_AC, wire.P_DATA_TF, wire.RELEASE_RP]
    answer = wire.parse_command(transport.written[1][12:])
    assert answer[0x0100] == struct.pack("<H", wire.C_STORE_RSP)
    assert answer[0x0120] == struct.pack("<H", 7)
    assert (tally.stores, tally.data_bytes) == (1, 100)


class _Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"socket": self})
        self.written: list[bytes] = []

    def setsockopt(self, *args: object) -> None:
        """The protocol switches Nagle's algorithm off; there is no socket here."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))


async def _sink() -> tuple[Tally, int, asyncio.Server]:
    tally = Tally()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SinkProtocol(tally), "127.0.0.1", 0)
    return tally, server.sockets[0].getsockname()[1], server
