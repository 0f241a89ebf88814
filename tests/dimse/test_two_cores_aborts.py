"""Two cores wired in memory: every abort, in every phase, by either side."""

from collections.abc import Callable

import pytest

from router.dimse.command import Command, encode_command, respond
from router.dimse.fragment import encode_command_pdu, encode_message
from router.dimse.messages import MESSAGES
from router.ul import AbortReason, AbortSource, PeerAborted, ProtocolFailed, State, TransportClosed
from tests.dimse.pair import CLOSED, CUTS, NOW, ROLES, Pair, Side
from tests.dimse.samples import full

SOURCES = list(AbortSource)

STORE = full(MESSAGES[0x0001])
DATA = bytes(range(256)) * 8


def _aborted(pair: Pair, by: Side, other: Side, source: int, reason: int = 0) -> None:
    """Both sides are at rest, and only the other one was told."""
    pair.pump()
    assert other.events[-2:] == [PeerAborted(source, reason), CLOSED]
    assert by.events[-1] == CLOSED
    assert not any(isinstance(event, PeerAborted | TransportClosed) for event in by.events)
    assert by.state is other.state is State.STA1_IDLE
    assert not by.connection.can_send_data
    assert not other.connection.can_send_data


def _idle(pair: Pair) -> None:
    pair.associate()


def _waiting_for_the_response(pair: Pair) -> None:
    pair.associate()
    pair.requestor.send(1, STORE, DATA)
    pair.pump()
    assert len(pair.acceptor.messages) == 1


def _between_command_and_data_set(pair: Pair) -> None:
    pair.associate()
    pair.requestor.send_raw(encode_command_pdu(1, encode_command(STORE), 16384))
    pair.pump()
    assert pair.acceptor.assembler.under_way


def _between_fragments_of_the_data_set(pair: Pair) -> None:
    pair.associate()
    pair.requestor.send(1, STORE, DATA)
    data_pdu = len(encode_command_pdu(1, encode_command(STORE), 1024))
    del pair.requestor.out[data_pdu + 6 + 1024 :]
    pair.pump()
    assert pair.acceptor.assembler.under_way
    assert pair.acceptor.received == 1018


def _in_the_pending_responses(pair: Pair) -> None:
    pair.associate()
    find = full(MESSAGES[0x0020])
    pair.requestor.send(3, find, DATA)
    pair.pump()
    pair.acceptor.send(3, respond(find, 0xFF00, has_data_set=True), DATA)
    pair.pump()
    assert pair.requestor.messages[-1][1].status == 0xFF00


_PHASES = [
    _idle,
    _waiting_for_the_response,
    _between_command_and_data_set,
    _between_fragments_of_the_data_set,
    _in_the_pending_responses,
]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("phase", _PHASES)
def test_abort_in_every_phase_of_an_association(
    phase: Callable[[Pair], None], role: str, source: AbortSource, cut: int
) -> None:
    pair = Pair(cut, maximum_length=1024)
    phase(pair)
    by, other = pair.roles(role)
    heard = len(other.messages)
    by.abort(source, AbortReason.UNEXPECTED_PDU)
    reason = AbortReason.UNEXPECTED_PDU if source is AbortSource.SERVICE_PROVIDER else 0
    _aborted(pair, by, other, source, reason)
    assert len(other.messages) == heard


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("limit", [40, 500])
def test_the_receiver_aborts_inside_a_pdu(limit: int, source: AbortSource) -> None:
    pair = Pair()
    pair.associate()
    pair.requestor.send(1, STORE, DATA)
    pair.step(pair.requestor, pair.acceptor, limit=limit)
    assert pair.acceptor.messages == []
    pair.acceptor.abort(source)
    _aborted(pair, pair.acceptor, pair.requestor, source)
    assert pair.acceptor.messages == [], "what came after the abort was not read"
    assert pair.acceptor.received < len(DATA)


@pytest.mark.parametrize("cut", CUTS)
def test_the_receiver_aborts_from_within_a_piece_of_the_data_set(cut: int) -> None:
    pair = Pair(cut, maximum_length=256)
    pair.associate()
    lengths = []

    def full_disk(received: int) -> None:
        lengths.append(received)
        if received >= 100:
            pair.acceptor.abort(AbortSource.SERVICE_USER)

    pair.acceptor.on_piece = full_disk
    pair.requestor.send(1, STORE, DATA)
    _aborted(pair, pair.acceptor, pair.requestor, AbortSource.SERVICE_USER)
    assert [length for length in lengths if length >= 100] == lengths[-1:]
    assert pair.acceptor.messages == []


@pytest.mark.parametrize("source", SOURCES)
def test_the_requestor_aborts_before_the_transport_is_there(source: AbortSource) -> None:
    pair = Pair()
    pair.ask()
    asked: State = pair.requestor.state
    assert asked == State.STA4_AWAITING_TRANSPORT_CONNECTION
    pair.requestor.abort(source)
    pair.pump()
    assert pair.requestor.state is State.STA1_IDLE
    assert pair.requestor.events == [CLOSED]
    assert pair.acceptor.messages == []


@pytest.mark.parametrize("source", SOURCES)
def test_the_requestor_aborts_before_the_answer(source: AbortSource) -> None:
    pair = Pair()
    pair.request()
    pair.requestor.flush()
    assert pair.requestor.state is State.STA5_AWAITING_ASSOCIATE_REPLY
    pair.requestor.abort(source)
    _aborted(pair, pair.requestor, pair.acceptor, source)


@pytest.mark.parametrize("source", SOURCES)
def test_the_acceptor_aborts_instead_of_answering(source: AbortSource) -> None:
    pair = Pair()
    pair.request()
    pair.requestor.flush()
    wire = bytes(pair.requestor.out)
    pair.requestor.out.clear()
    pair.acceptor.connection.receive(memoryview(wire), NOW)
    assert pair.acceptor.state is State.STA3_AWAITING_LOCAL_ASSOCIATE_RESPONSE
    pair.acceptor.abort(source)
    _aborted(pair, pair.acceptor, pair.requestor, source)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("role", ROLES)
def test_abort_while_a_release_waits(role: str, source: AbortSource) -> None:
    pair = Pair()
    pair.associate()
    by, other = pair.roles(role)
    other.connection.release(NOW)
    other.flush()
    by.connection.receive(memoryview(bytes(other.out)), NOW)
    other.out.clear()
    assert other.state is State.STA7_AWAITING_RELEASE_RP
    assert by.state is State.STA8_AWAITING_LOCAL_RELEASE_RESPONSE
    by.abort(source)
    _aborted(pair, by, other, source)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("role", ROLES)
def test_abort_by_the_side_that_asked_for_the_release(role: str, source: AbortSource) -> None:
    pair = Pair()
    pair.associate()
    by, other = pair.roles(role)
    by.connection.release(NOW)
    by.flush()
    other.connection.receive(memoryview(bytes(by.out)), NOW)
    by.out.clear()
    by.abort(source)
    _aborted(pair, by, other, source)


def test_both_sides_abort_at_once() -> None:
    pair = Pair()
    pair.associate()
    pair.requestor.abort(AbortSource.SERVICE_USER)
    pair.acceptor.abort(AbortSource.SERVICE_PROVIDER)
    pair.pump()
    assert pair.requestor.state is pair.acceptor.state is State.STA1_IDLE
    assert pair.requestor.events == [CLOSED]
    assert pair.acceptor.events == [CLOSED]


_BROKEN_MESSAGES = {
    "data without a command": encode_message(1, b"", b"ab", 0)[12:],
    "a command that cannot be read": encode_command_pdu(1, b"\0\0\0\1", 0),
    "a command without its message id": encode_command_pdu(
        1, encode_command(Command(0x0030, message_id=1, affected_sop_class_uid="1.2"))[:-20], 0
    ),
    "a command in the middle of a data set": 2 * encode_command_pdu(1, encode_command(STORE), 0),
    "a data set on another context": encode_command_pdu(1, encode_command(STORE), 0)
    + encode_message(3, b"", b"ab", 0)[12:],
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", _BROKEN_MESSAGES)
def test_a_broken_message_aborts_the_association(name: str, role: str, cut: int) -> None:
    pair = Pair(cut)
    pair.associate()
    sender, receiver = pair.roles(role)
    sender.send_raw(_BROKEN_MESSAGES[name])
    sender.send(1, STORE, DATA)
    _aborted(pair, receiver, sender, AbortSource.SERVICE_USER)
    assert isinstance(receiver.events[0], ProtocolFailed)
    assert receiver.messages == [], "nothing behind the fault was read"


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("role", ROLES)
def test_a_message_on_a_context_that_was_not_accepted_aborts(role: str, cut: int) -> None:
    pair = Pair(cut)
    pair.associate()
    sender, receiver = pair.roles(role)
    sender.send(99, STORE, DATA)
    pair.pump()
    [failed, _] = receiver.events
    assert isinstance(failed, ProtocolFailed)
    assert "context 99" in str(failed.error)
    [told, _] = sender.events
    assert told == PeerAborted(AbortSource.SERVICE_PROVIDER, failed.error.reason)
    assert receiver.messages == []


@pytest.mark.parametrize("role", ROLES)
def test_the_transport_is_lost_in_the_middle_of_a_data_set(role: str) -> None:
    pair = Pair()
    pair.associate()
    sender, receiver = pair.roles(role)
    sender.send(1, STORE, DATA)
    pair.step(sender, receiver, limit=1000)
    assert receiver.assembler.under_way
    pair.close()
    assert sender.events == receiver.events == [TransportClosed(), CLOSED]
    assert receiver.messages == []
