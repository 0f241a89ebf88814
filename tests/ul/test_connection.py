"""Two connections wired in memory through every way an association begins and ends."""

import pytest

from router.ul import (
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AbortReason,
    AbortSource,
    ArtimExpired,
    AssociateAccepted,
    AssociateRefused,
    AssociateRejected,
    AssociateRequested,
    Connection,
    LocalProtocolError,
    NegotiatedContext,
    PeerAborted,
    PresentationContextAC,
    ProtocolFailed,
    ReleaseReplied,
    ReleaseRequested,
    RemoteProtocolError,
    State,
    TransportClosed,
    UserInformation,
    decode_pdu,
    encode_pdu,
)

from .support import (
    ARTIM,
    CT,
    EXPLICIT,
    IMPLICIT,
    VERIFICATION,
    Side,
    accept_all,
    associated,
    data_pdu,
    exchange,
    pair,
    request,
    side,
)

USER, PROVIDER = AbortSource.SERVICE_USER, AbortSource.SERVICE_PROVIDER


@pytest.mark.parametrize("step", [0, 1, 7])
def test_accept_and_release_by_the_requestor(step: int) -> None:
    requestor, acceptor = pair()
    requestor.connection.associate(request(), 0.0)
    exchange(requestor, acceptor, step)
    assert acceptor.events == [AssociateRequested(request())]
    accept_all(acceptor)
    exchange(requestor, acceptor, step)
    assert [type(event) for event in requestor.events] == [AssociateAccepted]
    assert requestor.connection.contexts == {
        1: NegotiatedContext(1, VERIFICATION, IMPLICIT, scu_role=True, scp_role=False),
        3: NegotiatedContext(3, CT, EXPLICIT, scu_role=True, scp_role=False),
    }
    assert acceptor.connection.contexts[3] == NegotiatedContext(3, CT, EXPLICIT, False, True)
    assert requestor.connection.peer_maximum_length == 32768
    assert acceptor.connection.peer_maximum_length == 16384

    acceptor.feed(data_pdu(b"abc", b"", b"defg") + data_pdu(b"h", context_id=1), step)
    assert acceptor.values.done == [(3, 2, b"abc"), (3, 2, b""), (3, 2, b"defg"), (1, 2, b"h")]

    _release(requestor, acceptor, step)


@pytest.mark.parametrize("step", [0, 1])
def test_release_by_the_acceptor(step: int) -> None:
    requestor, acceptor = associated(step)
    _release(acceptor, requestor, step)


def _release(asks: Side, answers: Side, step: int) -> None:
    asks.events.clear()
    answers.events.clear()
    asks.connection.release(5.0)
    assert not asks.connection.can_send_data
    exchange(asks, answers, step)
    assert answers.events == [ReleaseRequested(collision=False)]
    assert answers.connection.can_send_data
    answers.connection.reply_release(5.0)
    exchange(asks, answers, step)
    assert asks.events == [ReleaseReplied()]
    assert asks.connection.want_close
    assert not answers.connection.want_close
    assert answers.connection.deadline == 5.0 + ARTIM
    assert asks.connection.transport_closed(6.0) == []
    assert answers.connection.transport_closed(6.0) == []
    assert answers.connection.state is asks.connection.state is State.STA1_IDLE
    assert answers.connection.deadline is None


def test_data_still_comes_while_the_answer_to_a_release_is_awaited() -> None:
    requestor, _ = associated()
    requestor.connection.release(0.0)
    requestor.feed(data_pdu(b"late answer"))
    assert requestor.values.done == [(3, 2, b"late answer")]


def test_release_collision() -> None:
    requestor, acceptor = associated()
    requestor.connection.release(0.0)
    acceptor.connection.release(0.0)
    exchange(requestor, acceptor)
    assert requestor.events == [ReleaseRequested(collision=True)]
    assert acceptor.events == [ReleaseRequested(collision=True)]
    assert requestor.connection.state.value == 9
    assert acceptor.connection.state.value == 10
    assert not acceptor.connection.can_reply_release
    with pytest.raises(LocalProtocolError):
        acceptor.connection.reply_release(0.0)
    requestor.connection.reply_release(0.0)
    exchange(requestor, acceptor)
    assert acceptor.events[1:] == [ReleaseReplied()]
    assert acceptor.connection.state.value == 12
    assert acceptor.connection.can_reply_release
    acceptor.connection.reply_release(0.0)
    exchange(requestor, acceptor)
    assert requestor.events[1:] == [ReleaseReplied()]
    assert requestor.connection.want_close
    assert acceptor.connection.state is State.STA13_AWAITING_TRANSPORT_CLOSE


@pytest.mark.parametrize("result", [1, 2])
@pytest.mark.parametrize(
    ("source", "reason"), [(1, 1), (1, 2), (1, 3), (1, 7), (2, 1), (2, 2), (3, 1), (3, 2)]
)
def test_reject(result: int, source: int, reason: int) -> None:
    requestor, acceptor = pair()
    requestor.connection.associate(request(), 0.0)
    exchange(requestor, acceptor)
    acceptor.connection.reject(AAssociateRJ(result, source, reason), 1.0)
    exchange(requestor, acceptor)
    assert requestor.events == [AssociateRejected(AAssociateRJ(result, source, reason))]
    assert requestor.connection.want_close
    assert not acceptor.connection.want_close
    assert acceptor.connection.timer_expired(1.0 + ARTIM)
    assert acceptor.connection.want_close


def test_a_protocol_version_without_bit_0_is_refused_by_the_provider() -> None:
    requestor, acceptor = pair()
    requestor.connection.associate(request(protocol_version=6), 2.0)
    acceptor.feed(requestor.connection.data_to_send(), now=2.0)
    (event,) = acceptor.events
    assert isinstance(event, AssociateRefused)
    assert event.rejection == AAssociateRJ(1, 2, 2)
    assert acceptor.connection.state is State.STA13_AWAITING_TRANSPORT_CLOSE
    assert acceptor.connection.deadline == 2.0 + ARTIM
    exchange(requestor, acceptor)
    assert requestor.events == [AssociateRejected(AAssociateRJ(1, 2, 2))]


@pytest.mark.parametrize("version", [1, 3, 0xFFFF])
def test_a_protocol_version_with_bit_0_is_taken(version: int) -> None:
    requestor, acceptor = pair()
    requestor.connection.associate(request(protocol_version=version), 0.0)
    exchange(requestor, acceptor)
    assert acceptor.connection.state is State.STA3_AWAITING_LOCAL_ASSOCIATE_RESPONSE


def _to(number: int) -> tuple[Side, Side]:
    """A pair of which the first is in the given state, its bytes not yet carried over."""
    if number == 3:
        requestor, acceptor = pair()
        requestor.connection.associate(request(), 0.0)
        exchange(requestor, acceptor)
        return acceptor, requestor
    if number == 5:
        requestor, acceptor = pair()
        requestor.connection.associate(request(), 0.0)
        exchange(requestor, acceptor)
        return requestor, acceptor
    requestor, acceptor = associated()
    if number in (7, 8):
        requestor.connection.release(0.0)
        exchange(requestor, acceptor)
        return (requestor, acceptor) if number == 7 else (acceptor, requestor)
    if number > 8:
        requestor.connection.release(0.0)
        acceptor.connection.release(0.0)
        exchange(requestor, acceptor)
        if number > 10:
            requestor.connection.reply_release(0.0)
            exchange(requestor, acceptor)
        return (requestor, acceptor) if number in (9, 11) else (acceptor, requestor)
    return requestor, acceptor


@pytest.mark.parametrize("number", [3, 5, 6, 7, 8, 9, 10, 11, 12])
@pytest.mark.parametrize(
    ("source", "reason", "sent"), [(USER, 2, (0, 0)), (PROVIDER, 0, (2, 0)), (PROVIDER, 6, (2, 6))]
)
def test_abort(number: int, source: AbortSource, reason: int, sent: tuple[int, int]) -> None:
    aborts, hears = _to(number)
    assert aborts.connection.state.value == number
    aborts.connection.abort(source, AbortReason(reason), 3.0)
    assert aborts.connection.state is State.STA13_AWAITING_TRANSPORT_CLOSE
    assert aborts.connection.deadline == 3.0 + ARTIM
    hears.events.clear()
    exchange(aborts, hears)
    assert hears.events == [PeerAborted(*sent)]
    assert hears.connection.want_close
    assert hears.connection.state is State.STA1_IDLE
    assert aborts.connection.transport_closed(3.0) == []


@pytest.mark.parametrize("number", [3, 5, 6, 7, 8, 9, 10, 11, 12])
def test_nonsense_at_any_state_is_answered_with_an_abort(number: int) -> None:
    victim, peer = _to(number)
    victim.events.clear()
    peer.events.clear()
    (event,) = victim.feed(b"\x63nonsense", now=4.0)
    assert isinstance(event, ProtocolFailed)
    assert victim.connection.deadline == 4.0 + ARTIM
    exchange(victim, peer)
    assert peer.events == [PeerAborted(2, AbortReason.UNRECOGNIZED_PDU)]
    assert victim.feed(data_pdu(b"more")) == []
    assert victim.values.done == []
    assert victim.connection.data_to_send() == b""


def test_no_request_within_artim() -> None:
    acceptor = side("acceptor")
    acceptor.connection.transport_connected(100.0)
    assert acceptor.connection.deadline == 130.0
    acceptor.feed(encode_pdu(request())[:50], now=110.0)
    assert acceptor.connection.timer_expired(129.9) == []
    assert acceptor.connection.timer_expired(130.0) == [
        ArtimExpired(State.STA2_AWAITING_ASSOCIATE_RQ)
    ]
    assert acceptor.connection.want_close
    assert acceptor.connection.data_to_send() == b""
    assert acceptor.feed(encode_pdu(request())[50:]) == []


def test_a_health_check_that_connects_and_closes_causes_nothing() -> None:
    acceptor = side("acceptor")
    acceptor.connection.transport_connected(0.0)
    assert acceptor.connection.transport_closed(0.1) == []
    assert acceptor.connection.deadline is None


def test_connect_given_up() -> None:
    requestor = side("requestor")
    requestor.connection.associate(request(), 0.0)
    requestor.connection.abort(USER, AbortReason.NOT_SPECIFIED, 0.0)
    assert requestor.connection.want_close
    requestor.connection.transport_connected(0.0)  # the connect had just come through
    assert requestor.connection.data_to_send() == b""
    assert requestor.feed(b"SSH-2.0-server") == []
    with pytest.raises(LocalProtocolError):
        requestor.connection.associate(request(), 0.0)


def test_an_abort_while_the_acceptance_arrives() -> None:
    requestor, acceptor = pair()
    requestor.connection.associate(request(), 0.0)
    exchange(requestor, acceptor)
    accept_all(acceptor)
    data = acceptor.connection.data_to_send()
    requestor.feed(data[:50])
    requestor.connection.abort(USER, AbortReason.NOT_SPECIFIED, 0.0)
    assert requestor.feed(data[50:]) == []
    assert requestor.connection.contexts == {}
    assert requestor.connection.state is State.STA13_AWAITING_TRANSPORT_CLOSE


def test_connect_failed() -> None:
    requestor = side("requestor")
    requestor.connection.associate(request(), 0.0)
    assert requestor.connection.transport_closed(0.0) == [TransportClosed()]
    with pytest.raises(LocalProtocolError):
        requestor.connection.associate(request(), 0.0)


def test_associate_before_or_after_the_transport() -> None:
    early, late = side("requestor"), side("requestor")
    early.connection.associate(request(), 0.0)
    assert early.connection.state is State.STA4_AWAITING_TRANSPORT_CONNECTION
    assert early.connection.data_to_send() == b""
    early.connection.transport_connected(0.0)
    late.connection.transport_connected(0.0)
    late.connection.associate(request(), 0.0)
    assert early.connection.state is late.connection.state is State.STA5_AWAITING_ASSOCIATE_REPLY
    assert early.connection.data_to_send() == late.connection.data_to_send() != b""


def test_roles_are_not_mixed_up() -> None:
    with pytest.raises(LocalProtocolError):
        side("acceptor").connection.associate(request(), 0.0)
    requestor, _ = associated()
    with pytest.raises(LocalProtocolError):
        accept_all(requestor)


@pytest.mark.parametrize(
    "answer",
    [
        PresentationContextAC(5, 0, IMPLICIT),  # a context that was not proposed
        PresentationContextAC(1, 0, EXPLICIT),  # a syntax that was not proposed for it
        PresentationContextAC(1, 0, ""),
    ],
)
def test_accepting_what_was_not_proposed_is_our_mistake(answer: PresentationContextAC) -> None:
    requestor, acceptor = pair()
    requestor.connection.associate(request(), 0.0)
    exchange(requestor, acceptor)
    with pytest.raises(LocalProtocolError):
        acceptor.connection.accept(AAssociateAC("ROUTER", "CT1", (answer,), UserInformation()), 0.0)
    assert acceptor.connection.state is State.STA3_AWAITING_LOCAL_ASSOCIATE_RESPONSE
    assert acceptor.connection.data_to_send() == b""


def test_data_in_the_same_bytes_as_the_acceptance_is_delivered() -> None:
    requestor, acceptor = pair()
    requestor.connection.associate(request(), 0.0)
    exchange(requestor, acceptor)
    accept_all(acceptor)
    requestor.feed(acceptor.connection.data_to_send() + data_pdu(b"event report"))
    assert requestor.values.done == [(3, 2, b"event report")]


def test_many_pdus_in_one_call_in_order() -> None:
    _, acceptor = associated()
    data = b"".join(data_pdu(bytes([n]) * n) for n in range(1, 50)) + encode_pdu(AAbort(0, 0))
    assert acceptor.feed(data) == [PeerAborted(0, 0)]
    assert [value for *_, value in acceptor.values.done] == [bytes([n]) * n for n in range(1, 50)]
    assert acceptor.values.pieces == 49


def test_pieces_are_slices_of_what_was_received() -> None:
    pieces: list[tuple[bool, bool]] = []
    data = bytearray(data_pdu(b"x" * 1000))
    view = memoryview(data)
    connection = Connection(
        "acceptor",
        maximum_length=0,
        on_fragment=lambda _id, _control, piece, end: pieces.append((piece.obj is data, end)),
    )
    connection.transport_connected(0.0)
    connection.receive(memoryview(encode_pdu(request())), 0.0)
    connection.accept(
        AAssociateAC("A", "B", (PresentationContextAC(3, 0, EXPLICIT),), UserInformation()), 0.0
    )
    connection.receive(view[:500], 0.0)
    connection.receive(view[500:], 0.0)
    assert pieces == [(True, False), (True, True)]


def test_no_empty_piece_where_a_cut_falls_behind_a_header() -> None:
    _, acceptor = associated()
    data = data_pdu(b"abc")
    acceptor.feed(data[:12])
    assert acceptor.values.pieces == 0
    acceptor.feed(data[12:])
    assert acceptor.values.done == [(3, 2, b"abc")]
    assert acceptor.values.pieces == 1


@pytest.mark.parametrize("step", [0, 1])
def test_data_for_a_context_that_was_not_accepted(step: int) -> None:
    _, acceptor = associated()
    (event,) = acceptor.feed(data_pdu(b"abc") + data_pdu(b"def", context_id=5), step)
    assert isinstance(event, ProtocolFailed)
    assert "context 5" in str(event.error)
    assert acceptor.values.done == [(3, 2, b"abc")]
    assert decode_pdu(acceptor.connection.data_to_send()) == AAbort(2, 6)


@pytest.mark.parametrize("step", [0, 1])
def test_an_error_of_the_fragments_consumer_is_a_protocol_error(step: int) -> None:
    _, acceptor = associated()

    def refuse() -> None:
        raise RemoteProtocolError("no command", source=USER, reason=AbortReason.NOT_SPECIFIED)

    acceptor.values.also = refuse
    (event,) = acceptor.feed(data_pdu(b"abc", b"def") + data_pdu(b"ghi"), step, now=9.0)
    assert isinstance(event, ProtocolFailed)
    assert str(event.error) == "no command"
    assert acceptor.values.pieces == 1
    assert decode_pdu(acceptor.connection.data_to_send()) == AAbort(0, 0)
    assert acceptor.connection.deadline == 9.0 + ARTIM


def test_another_error_of_the_consumer_passes_through_and_nothing_more_is_read() -> None:
    _, acceptor = associated()

    def fail() -> None:
        raise OSError("disk full")

    acceptor.values.also = fail
    with pytest.raises(OSError, match="disk full"):
        acceptor.feed(data_pdu(b"abc", b"def"))
    acceptor.values.also = None
    assert acceptor.feed(data_pdu(b"ghi")) == []
    assert acceptor.values.pieces == 1
    acceptor.connection.abort(PROVIDER, AbortReason.NOT_SPECIFIED, 0.0)
    assert decode_pdu(acceptor.connection.data_to_send()) == AAbort(2, 0)


@pytest.mark.parametrize("step", [0, 1])
def test_an_abort_from_within_a_fragment_ends_the_delivery(step: int) -> None:
    requestor, acceptor = associated()

    def abort() -> None:
        acceptor.connection.abort(USER, AbortReason.NOT_SPECIFIED, 0.0)

    acceptor.values.also = abort
    rest = encode_pdu(AAbort(0, 0))
    assert acceptor.feed(data_pdu(b"abc", b"def") + data_pdu(b"ghi") + rest, step) == []
    assert acceptor.values.pieces == 1
    # The framing was kept through the bytes that nobody wanted: the peer's abort closes at once.
    assert acceptor.connection.want_close
    exchange(acceptor, requestor)
    assert requestor.events == [PeerAborted(0, 0)]


@pytest.mark.parametrize("cut", range(1, 24))
def test_an_abort_in_the_middle_of_a_pdu_keeps_the_framing(cut: int) -> None:
    _, acceptor = associated()
    data = data_pdu(b"abc", b"def") + encode_pdu(AAbort(0, 0))
    acceptor.feed(data[:cut])
    acceptor.connection.abort(USER, AbortReason.NOT_SPECIFIED, 0.0)
    acceptor.feed(data[cut:], step=1)
    assert acceptor.connection.want_close
    assert acceptor.connection.state is State.STA1_IDLE


def test_a_release_from_within_a_fragment_lets_the_delivery_go_on() -> None:
    requestor, _ = associated()

    def release() -> None:
        requestor.values.also = None
        requestor.connection.release(0.0)

    requestor.values.also = release
    requestor.feed(data_pdu(b"abc", b"def") + data_pdu(b"ghi"))
    assert [value for *_, value in requestor.values.done] == [b"abc", b"def", b"ghi"]
    assert requestor.connection.state is State.STA7_AWAITING_RELEASE_RP


def test_a_peer_that_repeats_its_request_while_we_close_is_answered_once() -> None:
    _, acceptor = associated()
    acceptor.connection.abort(USER, AbortReason.NOT_SPECIFIED, 0.0)
    acceptor.connection.data_to_send()
    acceptor.feed(encode_pdu(request()) * 1000)
    assert decode_pdu(acceptor.connection.data_to_send()) == AAbort(2, 2)


def test_transport_lost_in_the_middle_of_a_value() -> None:
    _, acceptor = associated()
    acceptor.feed(data_pdu(b"x" * 1000)[:500])
    assert acceptor.connection.transport_closed(0.0) == [TransportClosed()]
    assert acceptor.values.done == []
