"""What must not harm us: other protocols, huge lengths, many items, arbitrary bytes."""

import contextlib
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.ul import (
    AAbort,
    AbortReason,
    Event,
    PeerAborted,
    ProtocolFailed,
    RemoteProtocolError,
    decode_pdu,
    encode_pdu,
)
from router.ul.items import MAX_ITEMS
from router.ul.pdu import PDU

from . import strategies
from .support import Side, accept_all, associated, data_pdu, in_state, pair, request, side

MIB = 2**20

FOREIGN = [
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", "TLS bytes"),
    (b"\x15\x03\x03\x00\x02\x02\x28", "TLS alert"),
    (b"GET / HTTP/1.1\r\n", "HTTP request"),
    (b"POST /wado HTTP/1.1\r\n", "HTTP request"),
    (b"HEAD / HTTP/1.0\r\n", "HTTP request"),
    (b"PUT /x HTTP/1.1\r\n", "HTTP request"),
    (b"OPTIONS * HTTP/1.1\r\n", "HTTP request"),
    (b"DELETE /x HTTP/1.1\r\n", "HTTP request"),
    (b"PRI * HTTP/2.0\r\n\r\nSM", "HTTP/2"),
    (b"HTTP/1.1 400 Bad Request", "HTTP response"),
    (b"SSH-2.0-OpenSSH_9.2p1", "SSH"),
    (b"PROXY TCP4 10.0.0.1", "PROXY protocol"),
    (b"\r\n\r\n\x00\r\nQUIT\n", "PROXY protocol"),
    (b"\x0bMSH|^~\\&|", "HL7"),
    (b"\xff\xfe\xfd\xfc\xfb\xfa", "unknown PDU of type FFH"),
]


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("state", [1, 2, 5])
@pytest.mark.parametrize(("first", "named"), FOREIGN)
def test_other_protocols_are_named(first: bytes, named: str, state: int, step: int) -> None:
    one = in_state(state)
    (event,) = one.feed(first, step)
    assert isinstance(event, ProtocolFailed)
    assert named in str(event.error)
    assert first[:6].hex(" ") in str(event.error)
    assert event.error.reason is AbortReason.UNRECOGNIZED_PDU


def test_other_protocols_are_only_looked_for_at_the_start() -> None:
    _, acceptor = associated()
    (event,) = acceptor.feed(b"GET / HTTP/1.1\r\n")
    assert isinstance(event, ProtocolFailed)
    assert "HTTP" not in str(event.error)


@pytest.mark.parametrize("kind", range(256))
def test_a_huge_length_is_refused_at_the_header(kind: int) -> None:
    for number in (2, 5, 6, 7):
        one = in_state(number)
        (event,) = one.feed(bytes((kind, 0)) + b"\xff" * 4)
        assert isinstance(event, ProtocolFailed)


@pytest.mark.parametrize(
    ("kind", "length"),
    [(1, MIB + 1), (1, 67), (1, 0), (2, MIB + 1), (3, 5), (5, 3), (6, 0), (7, 5), (7, 0)],
)
def test_lengths_that_a_type_does_not_have(kind: int, length: int) -> None:
    one = in_state(5 if kind in (2, 3) else 2 if kind == 1 else 7)
    (event,) = one.feed(bytes((kind, 0)) + length.to_bytes(4, "big"))
    assert isinstance(event, ProtocolFailed)
    assert event.error.reason is AbortReason.INVALID_PDU_PARAMETER
    assert str(length) in str(event.error)


@pytest.mark.parametrize(
    ("maximum", "cap", "limit"), [(16384, MIB, 16384), (0, MIB, MIB), (2 * MIB, MIB, MIB)]
)
@pytest.mark.parametrize("step", [0, 1])
def test_p_data_up_to_what_we_announced(maximum: int, cap: int, limit: int, step: int) -> None:
    def acceptor() -> Side:
        one = side("acceptor", maximum, pdu_cap=cap)
        one.connection.transport_connected(0.0)
        one.feed(encode_pdu(request()))
        accept_all(one)
        one.connection.data_to_send()
        return one

    exact, over = acceptor(), acceptor()
    value = bytes(limit - 6)
    exact.feed(data_pdu(value))
    assert exact.values.done == [(3, 2, value)]
    (event,) = over.feed(data_pdu(value + b"\0")[:6], step)
    assert isinstance(event, ProtocolFailed)
    assert f"{limit + 1} bytes, at most {limit}" in str(event.error)
    assert over.values.pieces == 0


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize(
    "body",
    [
        "00000000 03 02",  # no room for context and control
        "00000001 03 02",
        "00000003 03 02",  # past the end
        "FFFFFFFF 03 02",
        "00000002 03 02 00",  # a stray byte
        "00000002 03 02 00000001 03",
        "00000003 03",  # no whole header
        "",
    ],
)
def test_bad_value_lengths(body: str, step: int) -> None:
    _, acceptor = associated()
    value = bytes.fromhex(body)
    (event,) = acceptor.feed(b"\x04\x00" + len(value).to_bytes(4, "big") + value, step)
    assert isinstance(event, ProtocolFailed)
    assert event.error.reason is AbortReason.INVALID_PDU_PARAMETER
    assert decode_pdu(acceptor.connection.data_to_send()) == AAbort(2, 6)


def test_odd_values_are_tolerated() -> None:
    _, acceptor = associated()
    acceptor.feed(data_pdu(b"abc", b"d"))
    assert acceptor.values.done == [(3, 2, b"abc"), (3, 2, b"d")]


def _request_of(body: bytes) -> bytes:
    value = b"\x00\x01" + bytes(66) + body
    return b"\x01\x00" + len(value).to_bytes(4, "big") + value


def _spread(kind: int, inner: bytes) -> bytes:
    """As many items of 64 KB with ``inner`` repeated in them as fit 1 MiB."""
    value = inner * (65000 // len(inner))
    return (bytes((kind, 0)) + len(value).to_bytes(2, "big") + value) * 16


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "body",
    [
        b"\x99\x00\x00\x00" * 262_000,
        b"\x20\x00\x00\x04\x01\x00\x00\x00" * 131_000,
        _spread(0x50, b"\x99\x00\x00\x00"),
        _spread(0x50, b"\x54\x00\x00\x05\x00\x011\x01\x01"),
        b"\x50\x00\xea\x70\x57\x00\xea\x6c\x00\x011\x00\x012\xea\x64" + bytes(0xEA64),
        b"\x20\x00\xfd\xec\x01\x00\x00\x00" + b"\x40\x00\x00\x00" * 16250,
    ],
    ids=[
        "unknown items",
        "contexts",
        "unknown sub-items",
        "roles",
        "related classes",
        "transfer syntaxes",
    ],
)
def test_a_million_items_are_refused_at_once(body: bytes) -> None:
    acceptor = side("acceptor")
    acceptor.connection.transport_connected(0.0)
    (event,) = acceptor.feed(_request_of(body))
    assert isinstance(event, ProtocolFailed)
    assert str(MAX_ITEMS) in str(event.error)


def test_memory_is_taken_only_as_bytes_arrive() -> None:
    acceptor = side("acceptor")
    acceptor.connection.transport_connected(0.0)
    header = b"\x01\x00" + MIB.to_bytes(4, "big")
    tracemalloc.start()
    try:
        acceptor.feed(header + bytes(1000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50_000


def test_a_flood_behind_our_abort_is_not_kept() -> None:
    _, acceptor = associated()
    acceptor.feed(b"\x63" * 6)
    block = memoryview(bytes(MIB))
    tracemalloc.start()
    try:
        for _ in range(50):
            assert acceptor.connection.receive(block, 0.0) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50_000


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_a_pdu_or_a_remote_error(data: bytes) -> None:
    _decode(data)


@given(
    st.sampled_from(range(1, 8)),
    st.binary(max_size=200),
)
def test_arbitrary_bytes_behind_a_good_header(kind: int, value: bytes) -> None:
    for body in (value, b"\x00\x01" + bytes(66) + value):
        _decode(bytes((kind, 0)) + len(body).to_bytes(4, "big") + body)


def _decode(data: bytes) -> None:
    """Any other exception than RemoteProtocolError fails the test that calls this."""
    with contextlib.suppress(RemoteProtocolError):
        assert type(decode_pdu(data)) in PDU.__args__


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = bytearray(b"".join(map(encode_pdu, draw(st.lists(strategies.pdus, max_size=3)))))
    for _ in range(draw(st.integers(0, 4))):
        if data:
            at = draw(st.integers(0, len(data) - 1))
            match draw(st.sampled_from(("set", "cut", "insert"))):
                case "set":
                    data[at] = draw(st.integers(0, 255))
                case "cut":
                    del data[at : at + draw(st.integers(1, 8))]
                case "insert":
                    data[at:at] = draw(st.binary(max_size=8))
    return bytes(data)


@settings(max_examples=60)
@given(mutated())
def test_mutated_pdus_are_pdus_or_a_remote_error(data: bytes) -> None:
    _decode(data)


STREAMS = st.one_of(
    mutated(),
    st.binary(max_size=100),
    st.lists(st.binary(max_size=30).map(lambda value: data_pdu(value, value)), max_size=4).map(
        b"".join
    ),
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13]), STREAMS, st.integers(1, 20))
def test_any_bytes_in_any_state_whole_and_cut_alike(number: int, data: bytes, step: int) -> None:
    whole, cut, single = in_state(number), in_state(number), in_state(number)
    events = whole.feed(data)
    assert _as_text(cut.feed(data, step)) == _as_text(single.feed(data, 1)) == _as_text(events)
    assert whole.values.done == cut.values.done == single.values.done
    assert whole.values.part == cut.values.part == single.values.part
    assert (
        whole.connection.data_to_send()
        == cut.connection.data_to_send()
        == single.connection.data_to_send()
    )
    assert whole.connection.state is cut.connection.state is single.connection.state
    assert whole.connection.want_close is cut.connection.want_close


def _as_text(events: list[Event]) -> list[str]:
    """Errors are compared by their words: exceptions have no equality of their own."""
    return [repr(event) for event in events]


@settings(max_examples=40)
@given(st.lists(strategies.pdus, max_size=6))
def test_a_stream_of_pdus_never_raises(pdus: list[PDU]) -> None:
    requestor, acceptor = pair()
    stream = b"".join(map(encode_pdu, pdus))
    acceptor.feed(encode_pdu(request()))
    accept_all(acceptor)
    for one in (requestor, acceptor):
        events = one.feed(stream)
        assert sum(isinstance(event, ProtocolFailed | PeerAborted) for event in events) <= 1
