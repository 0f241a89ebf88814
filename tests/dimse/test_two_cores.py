"""Two cores wired in memory: every service, the release, and no event loop anywhere.

The aborts are in `test_two_cores_aborts`.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import router.dimse
import router.ul
from router.dimse.command import Command, encode_command, respond
from router.dimse.fragment import DataSetFramer, encode_command_pdu
from router.dimse.messages import MESSAGES, DataSet, Message
from router.dimse.responder import StoreResponder
from router.ul import (
    ReleaseReplied,
    ReleaseRequested,
    State,
)
from tests.dimse.pair import CLOSED, CUTS, NOW, ROLES, Pair, Side
from tests.dimse.pair import Message as Received
from tests.dimse.samples import CT_IMAGE_STORAGE, full

REQUESTS = [row for row in MESSAGES.values() if row.field | 0x8000 in MESSAGES]


def _variants(row: Message) -> list[bool]:
    return {DataSet.NEVER: [False], DataSet.MAY: [False, True], DataSet.MUST: [True]}[row.data_set]


_EXCHANGES = [
    pytest.param(
        row,
        asked,
        answered,
        id=f"{row.name[:-3]}{'+data' if asked else ''}-answered{'+data' if answered else ''}",
    )
    for row in REQUESTS
    if not row.is_response
    for asked in _variants(row)
    for answered in _variants(MESSAGES[row.field | 0x8000])
]


def _released(pair: Pair) -> None:
    pair.release()
    assert pair.requestor.events == [ReleaseReplied(), CLOSED]
    assert pair.acceptor.events == [ReleaseRequested(), CLOSED]
    assert pair.requestor.state is pair.acceptor.state is State.STA1_IDLE
    assert not pair.requestor.assembler.under_way
    assert not pair.acceptor.assembler.under_way


# -- every service -----------------------------------------------------------------------------


@pytest.mark.parametrize(("maximum_length", "one_pdv_per_pdu"), [(32, True), (0, False)])
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("invoker", ROLES)
@pytest.mark.parametrize(("row", "asked", "answered"), _EXCHANGES)
def test_a_request_and_its_response(
    row: Message,
    asked: bool,
    answered: bool,
    invoker: str,
    cut: int,
    maximum_length: int,
    one_pdv_per_pdu: bool,
) -> None:
    pair = Pair(cut, maximum_length, one_pdv_per_pdu)
    pair.associate()
    user, provider = pair.roles(invoker)
    request = full(row, asked)
    response = respond(request, 0x0000, has_data_set=answered)
    question = b"\x08\x00\x52\x00" * 25 if asked else None
    answer = b"\x10\x00\x10\x00" * 30 if answered else None

    def service(side: Side, message: Received) -> None:
        context_id, command, _ = message
        side.send(context_id, respond(command, 0x0000, has_data_set=answered), answer)

    provider.service = service
    user.send(3, request, question)
    pair.pump()
    assert provider.messages == [(3, request, question)]
    assert user.messages == [(3, response, answer)]
    _released(pair)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("field", [0x0020, 0x0021, 0x0010])
def test_pending_responses_until_a_cancel(field: int, cut: int) -> None:
    pair = Pair(cut)
    pair.associate()
    request = full(MESSAGES[field])
    match = b"\x10\x00\x20\x00\x02\x00\x00\x001 "
    is_find = field == 0x0020

    def provide(side: Side, message: Received) -> None:
        context_id, command, _ = message
        if command.name == "C-CANCEL-RQ":
            assert command.message_id_being_responded_to == request.message_id
            side.send(context_id, respond(request, 0xFE00))
        elif command.field == field:
            for _ in range(3):
                pending = respond(command, 0xFF00, has_data_set=is_find)
                side.send(context_id, pending, match if is_find else None)

    def use(side: Side, message: Received) -> None:
        context_id, command, _ = message
        if len(side.messages) == 2:
            cancel = Command(
                0x0FFF, message_id_being_responded_to=command.message_id_being_responded_to
            )
            side.send(context_id, cancel)

    pair.acceptor.service = provide
    pair.requestor.service = use
    pair.requestor.send(3, request, match)
    pair.pump()
    statuses = [command.status for _, command, _ in pair.requestor.messages]
    assert statuses == [0xFF00, 0xFF00, 0xFF00, 0xFE00]
    data = [value for _, _, value in pair.requestor.messages]
    assert data == [match if is_find else None] * 3 + [None]
    assert [c.name for _, c, _ in pair.acceptor.messages] == [
        MESSAGES[field].name,
        "C-CANCEL-RQ",
    ]
    _released(pair)


@pytest.mark.parametrize("cut", CUTS)
def test_a_cancel_right_behind_its_request(cut: int) -> None:
    pair = Pair(cut)
    pair.associate()
    request = full(MESSAGES[0x0020])
    pair.requestor.send(3, request, b"\0\0")
    pair.requestor.send(3, Command(0x0FFF, message_id_being_responded_to=request.message_id))
    pair.pump()
    assert [c.name for _, c, _ in pair.acceptor.messages] == ["C-FIND-RQ", "C-CANCEL-RQ"]
    _released(pair)


@pytest.mark.parametrize("cut", CUTS)
def test_c_get_with_store_suboperations_on_the_same_association(cut: int) -> None:
    pair = Pair(cut)
    pair.associate()
    get = full(MESSAGES[0x0010])
    instances = {f"1.2.3.{number}": bytes([number]) * 700 for number in range(4)}
    left = list(instances.items())

    def next_instance(side: Side) -> None:
        if not left:
            side.send(3, respond(get, 0x0000, number_of_completed_suboperations=len(instances)))
            return
        uid, data = left.pop(0)
        store = Command(
            0x0001,
            True,
            message_id=len(left) + 100,
            affected_sop_class_uid=CT_IMAGE_STORAGE,
            affected_sop_instance_uid=uid,
        )
        side.send(1, store, data)

    def provide(side: Side, message: Received) -> None:
        _, command, _ = message
        if command.name == "C-STORE-RSP":
            side.send(3, respond(get, 0xFF00, number_of_remaining_suboperations=len(left)))
        next_instance(side)

    def use(side: Side, message: Received) -> None:
        context_id, command, _ = message
        if command.name == "C-STORE-RQ":
            side.send(context_id, respond(command, 0x0000))

    pair.acceptor.service = provide
    pair.requestor.service = use
    pair.requestor.send(3, get, b"\0\0")
    pair.pump()
    stored = {
        command.affected_sop_instance_uid: data
        for _, command, data in pair.requestor.messages
        if command.name == "C-STORE-RQ"
    }
    assert stored == instances
    last = pair.requestor.messages[-1][1]
    assert (last.name, last.status, last.number_of_completed_suboperations) == ("C-GET-RSP", 0, 4)
    _released(pair)


def _frames(command: bytes, data: bytes, maximum_length: int) -> Iterator[bytes]:
    """A C-STORE-RQ as the forwarder writes it: the command, then buffers with gaps."""
    yield encode_command_pdu(1, command, maximum_length)
    framer = DataSetFramer(1, len(data), maximum_length)
    at = 0
    while not framer.done:
        buffer = memoryview(bytearray(5000))
        used, gaps = framer.fill(buffer)
        for gap in gaps:
            gap[:] = data[at : at + len(gap)]
            at += len(gap)
        yield bytes(buffer[:used])


@pytest.mark.parametrize("maximum_length", [4096, 0, 50])
@pytest.mark.parametrize("cut", [61, 1 << 30])
def test_several_stores_outstanding_by_way_of_framer_and_responder(
    cut: int, maximum_length: int
) -> None:
    pair = Pair(cut, maximum_length)
    pair.associate()
    responder = StoreResponder(1, pair.acceptor.connection.peer_maximum_length)

    def provide(side: Side, message: Received) -> None:
        _, command, _ = message
        side.send_raw(
            responder.response(
                command.message_id,
                command.affected_sop_class_uid,
                command.affected_sop_instance_uid,
            )
        )

    pair.acceptor.service = provide
    sent = []
    for number in range(5):
        command = Command(
            0x0001,
            True,
            message_id=number,
            affected_sop_class_uid=CT_IMAGE_STORAGE,
            affected_sop_instance_uid=f"1.2.{number}",
        )
        data = bytes(range(256)) * 3 * number
        for buffer in _frames(encode_command(command), data, maximum_length):
            pair.requestor.send_raw(buffer)
        sent.append((1, command, data))
    pair.pump()
    assert pair.acceptor.messages == sent
    assert pair.requestor.messages == [(1, respond(c, 0x0000), None) for _, c, _ in sent]
    _released(pair)


@settings(max_examples=60)
@given(st.data())
def test_messages_both_ways_at_once_cut_anywhere(data: st.DataObject) -> None:
    pair = Pair(
        data.draw(st.integers(1, 400)),
        data.draw(st.sampled_from([0, 8, 33, 128, 16384])),
        data.draw(st.booleans()),
    )
    pair.associate()
    sent: dict[str, list[Received]] = {"requestor": [], "acceptor": []}
    for _ in range(data.draw(st.integers(1, 6))):
        role = data.draw(st.sampled_from(ROLES))
        row = data.draw(st.sampled_from(list(MESSAGES.values())))
        command = full(row, data.draw(st.sampled_from(_variants(row))))
        value = data.draw(st.binary(max_size=200)) if command.has_data_set else None
        context_id = data.draw(st.sampled_from([1, 3]))
        pair.roles(role)[0].send(context_id, command, value)
        sent[role].append((context_id, command, value))
    pair.pump()
    assert pair.acceptor.messages == sent["requestor"]
    assert pair.requestor.messages == sent["acceptor"]
    _released(pair)


# -- release -----------------------------------------------------------------------------------


def test_a_response_still_arrives_while_the_release_waits() -> None:
    pair = Pair()
    pair.associate()
    find = full(MESSAGES[0x0020])
    pair.requestor.send(3, find, b"\0\0")
    pair.pump()
    pair.requestor.connection.release(NOW)
    pair.requestor.flush()
    pair.acceptor.connection.receive(memoryview(bytes(pair.requestor.out)), NOW)
    pair.requestor.out.clear()
    assert not pair.requestor.connection.can_send_data
    pair.acceptor.send(3, respond(find, 0x0000))
    pair.acceptor.connection.reply_release(NOW)
    pair.pump()
    assert pair.requestor.messages == [(3, respond(find, 0x0000), None)]
    assert pair.requestor.events == [ReleaseReplied(), CLOSED]


def test_both_sides_release_at_once() -> None:
    pair = Pair()
    pair.associate()
    pair.requestor.connection.release(NOW)
    pair.acceptor.connection.release(NOW)
    wires = []
    for side in (pair.requestor, pair.acceptor):
        side.flush()
        wires.append(bytes(side.out))
        side.out.clear()
    pair.acceptor.take(pair.acceptor.connection.receive(memoryview(wires[0]), NOW))
    pair.requestor.take(pair.requestor.connection.receive(memoryview(wires[1]), NOW))
    pair.step(pair.requestor, pair.acceptor)
    assert pair.acceptor.connection.can_reply_release
    pair.acceptor.connection.reply_release(NOW)
    pair.pump()
    assert pair.requestor.events == [ReleaseRequested(collision=True), ReleaseReplied(), CLOSED]
    assert pair.acceptor.events == [ReleaseRequested(collision=True), ReleaseReplied(), CLOSED]
    assert pair.requestor.state is pair.acceptor.state is State.STA1_IDLE


# -- sans-IO -----------------------------------------------------------------------------------

_FORBIDDEN = {"asyncio", "uvloop", "socket", "ssl", "select", "selectors", "threading", "time"}
_SOURCES = [
    source
    for package in (router.ul, router.dimse)
    for directory in package.__path__
    for source in sorted(Path(directory).glob("**/*.py"))
]


@pytest.mark.parametrize("source", _SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_source_imports_a_loop_a_socket_or_a_clock(source: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert not imported & _FORBIDDEN


def test_asyncio_is_not_loaded_by_way_of_anything_imported() -> None:
    modules = [
        f"router.{source.parent.name}.{source.stem}"
        for source in _SOURCES
        if source.stem != "__init__"
    ]
    assert len(modules) > 8
    program = (
        f"import sys, importlib\nfor name in {modules!r}: importlib.import_module(name)\n"
        f"print(sorted({{'asyncio', 'uvloop', 'socket'}} & sys.modules.keys()))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
