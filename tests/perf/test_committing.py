"""The witness as an SCP of storage commitment, against a gateway that is written out by hand."""

import asyncio
import contextlib
import random
import struct
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import pytest

from perf import wire
from perf.committing import BOTH, LOST, NEW, SAME, Committer
from perf.wire import Reference, WireError
from perf.witness import Witness
from router.commitment import dataset

MR = "1.2.840.10008.5.1.4.1.1.4"
CT = "1.2.840.10008.5.1.4.1.1.2"
ONE, TWO = ((MR, f"2.25.{number}") for number in (1, 2))
REFUSED = 0x0213


class Dice(random.Random):
    """A committer with it reports at once, in one way, and refuses all or nothing at first."""

    def __init__(self, way: str = SAME, *, refuses: bool = False) -> None:
        super().__init__(1)
        self.way = way
        self.refuses = refuses

    def uniform(self, a: float, b: float) -> float:
        return 0.0

    def choices(self, population: Sequence[str], *_: object, **__: object) -> list[str]:  # type: ignore[override]
        assert self.way in population
        return [self.way]

    def random(self) -> float:
        return 0.0 if self.refuses else 1.0


class Watched(Committer):
    """Its faults are kept."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__("STEADY", dice)
        self.faults: list[str] = []
        self.on_fault = self.faults.append

    async def reported(self) -> None:
        """Until all reports are out."""
        await asyncio.gather(*self._tasks)


def committer(way: str = SAME, *, refuses: bool = False) -> Watched:
    return Watched(Dice(way, refuses=refuses))


# -- the data sets


@pytest.mark.parametrize("cut", [1, 7, 20, 60, 100])
def test_a_data_set_that_is_cut_short_is_told(cut: int) -> None:
    with pytest.raises(WireError):
        wire.parse_commitment(wire.action("2.25.9", [ONE, TWO])[:-cut])


def test_a_data_set_without_its_transaction_is_told() -> None:
    with pytest.raises(WireError, match="Transaction UID"):
        wire.parse_commitment(b"")


def test_a_reference_without_its_instance_is_told() -> None:
    broken = wire.action("2.25.9", [ONE]).replace(b"\x08\x00\x55\x11", b"\x08\x00\x56\x11")
    with pytest.raises(WireError, match="00081155"):
        wire.parse_commitment(broken)


def test_the_product_reads_what_is_written_here_and_the_other_way_round() -> None:
    action = dataset.decode_action(wire.action("2.25.9", [ONE, TWO]), dataset.IMPLICIT)
    assert action == dataset.Action("2.25.9", (dataset.Item(*ONE), dataset.Item(*TWO)))
    data = wire.report("2.25.9", [ONE], [(TWO, 0x0112)])
    report = dataset.decode_report(data, dataset.IMPLICIT)
    assert report.committed == (dataset.Item(*ONE),)
    assert report.failed == (dataset.Failure(dataset.Item(*TWO), 0x0112),)
    asked = dataset.encode_action(action.transaction_uid, action.items)
    assert wire.parse_commitment(asked) == ("2.25.9", [ONE, TWO], [])
    assert wire.parse_commitment(data) == ("2.25.9", [ONE], [(TWO, 0x0112)])


def test_commitment_is_accepted_in_implicit_vr_alone() -> None:
    contexts = [
        wire.Context(1, wire.COMMITMENT, (wire.EXPLICIT_LE,)),
        wire.Context(3, wire.COMMITMENT, (wire.EXPLICIT_LE, wire.IMPLICIT_LE)),
        wire.Context(5, MR, (wire.EXPLICIT_LE,)),
    ]
    rq = wire.associate_rq("STEADY", "ROUTER", contexts, 0)
    answer = wire.associate_ac(rq[6:], 0)
    assert wire.parse_accept(answer[6:])[0] == {1: 4, 3: 0, 5: 0}
    syntax = wire.IMPLICIT_LE.encode()
    head = struct.pack(">BxHB3xBxH", 0x21, 8 + len(syntax), 3, 0x40, len(syntax))
    assert head + syntax in answer


# -- what is committed


def test_what_never_came_is_refused_and_a_fault() -> None:
    one = committer()
    one.took(ONE)
    assert one.verdict([TWO]) == ([], [(TWO, 0x0112)])
    assert one.verdict([(CT, ONE[1])]) == ([], [((CT, ONE[1]), 0x0112)])
    assert len(one.faults) == 2
    assert not one.committed


def test_what_came_is_committed_and_the_commitment_stands() -> None:
    one = committer()
    told: list[str] = []
    one.on_committed = told.append
    one.took(ONE)
    one.took(TWO)
    assert one.verdict([ONE, TWO]) == ([ONE, TWO], [])
    one._dice = Dice(refuses=True)
    assert one.verdict([TWO]) == ([TWO], [])
    assert one.committed == {ONE[1], TWO[1]}
    assert Counter(told) == {ONE[1]: 1, TWO[1]: 2}
    assert not one.faults


def test_what_was_refused_once_is_committed_when_it_is_asked_for_again() -> None:
    one = committer(refuses=True)
    one.took(ONE)
    assert one.verdict([ONE]) == ([], [(ONE, REFUSED)])
    assert not one.committed
    assert one.verdict([ONE]) == ([ONE], [])


def test_a_transaction_that_the_gateway_has_forgotten_is_a_fault() -> None:
    one = committer()
    one.answered(0x0110)
    assert not one.faults
    one.answered(0x0115)
    assert "0115" in one.faults[0]
    assert one.answers == {"0110": 1, "0115": 1}


# -- on the wire


class Stream:
    """One end of an association, PDU by PDU."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def pdu(self) -> tuple[int, bytes]:
        kind, length = struct.unpack(">BxI", await self.reader.readexactly(6))
        return kind, await self.reader.readexactly(length)

    async def message(self) -> tuple[dict[int, bytes], bytes]:
        """Command set and data set; each PDU of these has one PDV."""
        command, data = b"", b""
        while True:
            kind, body = await self.pdu()
            assert kind == wire.P_DATA_TF
            if body[5] & 1:
                command += body[6:]
                if wire.parse_command(command)[0x0800] == b"\x01\x01":
                    return wire.parse_command(command), b""
            else:
                data += body[6:]
                if body[5] & 2:
                    return wire.parse_command(command), data

    def action(self, transaction: str, references: Sequence[Reference]) -> None:
        data = wire.action(transaction, references)
        self.writer.write(wire.action_rq(1, 1) + b"".join(wire.data_pdus(1, memoryview(data), 512)))


@contextlib.asynccontextmanager
async def asking(one: Committer) -> AsyncIterator[Stream]:
    """An association on which a witness with this committer is asked; it stored `ONE`."""
    witness = Witness(committer=one)
    await witness.open()
    stream = Stream(*await asyncio.open_connection("127.0.0.1", witness.port))
    contexts = [
        wire.Context(1, wire.COMMITMENT, (wire.IMPLICIT_LE,)),
        wire.Context(3, MR, (wire.EXPLICIT_LE,)),
    ]
    try:
        async with asyncio.timeout(10.0):
            stream.writer.write(wire.associate_rq("STEADY", "ROUTER", contexts, 0))
            assert (await stream.pdu())[0] == wire.ASSOCIATE_AC
            stream.writer.write(wire.store_rq(3, 7, *ONE))
            stream.writer.write(b"".join(wire.data_pdus(3, memoryview(b"data"), 512)))
            response, _ = await stream.message()
            assert response[0x0100] == struct.pack("<H", wire.C_STORE_RSP)
            yield stream
    finally:
        stream.writer.close()
        await witness.shut()


class Gateway:
    """Takes one association of a witness, grants the role that it is given, answers a report."""

    def __init__(self, roles: tuple[str, ...] = (wire.COMMITMENT,), status: int = 0) -> None:
        self._roles = roles
        self._status = status
        self.proposed: dict[str, tuple[bool, bool]] = {}
        self.report: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = Stream(reader, writer)
        _, rq = await stream.pdu()
        self.proposed = wire.parse_roles(rq)
        accept = wire.associate_ac(rq, 0)
        if not self._roles:
            writer.write(accept)
            return
        # The answer to the selection is the same item; PS3.7 §D.3.3.4.
        role = wire.associate_rq("A", "B", [], 0, self._roles)
        item = role[role.index(b"\x54\0") :]
        at = accept.index(b"\x50\0")
        length = struct.unpack_from(">H", accept, at + 2)[0] + len(item)
        body = accept[6:at] + b"\x50\0" + struct.pack(">H", length) + accept[at + 4 :] + item
        writer.write(struct.pack(">BxI", wire.ASSOCIATE_AC, len(body)) + body)
        command, data = await stream.message()
        assert command[0x0100] == struct.pack("<H", wire.N_EVENT_REPORT_RQ)
        answer = wire.response(1, command)
        before = struct.pack("<HHIH", 0, 0x0900, 2, 0)
        assert answer.count(before) == 1
        writer.write(answer.replace(before, struct.pack("<HHIH", 0, 0x0900, 2, self._status)))
        self.report.set_result(data)
        assert (await stream.pdu())[0] == wire.RELEASE_RQ
        writer.write(wire.RELEASE_RP_PDU)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]


async def test_it_answers_and_reports_on_the_same_association() -> None:
    one = committer()
    async with asking(one) as stream:
        stream.action("2.25.9", [ONE, TWO])
        response, _ = await stream.message()
        assert response[0x0100] == b"\x30\x81"
        assert response[0x0900] == b"\0\0"
        assert response[0x0002].rstrip(b"\0").decode() == wire.COMMITMENT
        request, data = await stream.message()
        assert request[0x1002] == struct.pack("<H", 2)
        assert wire.parse_commitment(data) == ("2.25.9", [ONE], [(TWO, 0x0112)])
        stream.writer.write(wire.response(1, request))
        stream.writer.write(wire.RELEASE_RQ_PDU)
        assert (await stream.pdu())[0] == wire.RELEASE_RP
    assert one.answers == {"0000": 1}
    assert one.ways == {SAME: 1}
    assert one.faults == [f"asked to commit {TWO[1]}, which never came"]


async def test_what_is_asked_for_counts_neither_as_stored_nor_as_data() -> None:
    one = committer()
    async with asking(one) as stream:
        stream.action("2.25.9", [ONE])
        await stream.message()
        await stream.message()
    assert one.committed == {ONE[1]}
    assert not one.faults


async def test_it_reports_on_a_new_association_as_scp() -> None:
    one, gateway = committer(NEW), Gateway(status=0x0110)
    async with gateway.listening() as one.port, asking(one) as stream:
        stream.action("2.25.9", [ONE])
        await stream.message()
        assert wire.parse_commitment(await gateway.report) == ("2.25.9", [ONE], [])
        await one.reported()
    assert gateway.proposed == {wire.COMMITMENT: (False, True)}
    assert one.answers == {"0110": 1}
    assert not one.faults


async def test_it_reports_on_both() -> None:
    one, gateway = committer(BOTH), Gateway()
    async with gateway.listening() as one.port, asking(one) as stream:
        stream.action("2.25.9", [ONE])
        await stream.message()
        _, data = await stream.message()
        assert data == await gateway.report
        await one.reported()
    assert one.answers == {"0000": 1}


async def test_a_role_that_is_not_granted_is_a_fault() -> None:
    one, gateway = committer(NEW), Gateway(roles=())
    async with gateway.listening() as one.port, asking(one) as stream:
        stream.action("2.25.9", [ONE])
        await stream.message()
        await one.reported()
    assert one.faults == ["reporting commitment: the role of SCP was answered with {}"]
    assert not one.answers


async def test_a_gateway_that_is_not_there_is_no_fault() -> None:
    one = committer(NEW)
    async with Gateway().listening() as one.port:
        pass
    async with asking(one) as stream:
        stream.action("2.25.9", [ONE])
        await stream.message()
        await one.reported()
    assert one.answers == {"": 1}
    assert not one.faults


async def test_a_report_that_is_lost_commits_nothing() -> None:
    one = committer(LOST)
    async with asking(one) as stream:
        stream.action("2.25.9", [ONE])
        await stream.message()
        await one.reported()
    assert one.ways == {LOST: 1}
    assert not one.committed
    assert not one.answers
