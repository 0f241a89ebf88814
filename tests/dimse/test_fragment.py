"""Cutting messages to the peer's maximum length."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.dimse.fragment import (
    HEADER_LENGTH,
    PDU_CAP,
    DataSetFramer,
    encode_command_pdu,
    encode_message,
    fragment_room,
)
from router.ul.errors import LocalProtocolError
from router.ul.pdu import PDV, PDataTF, decode_pdu


def split_pdus(data: bytes) -> list[PDataTF]:
    """The P-DATA-TF PDUs that these bytes are."""
    pdus = []
    while data:
        end = 6 + int.from_bytes(data[2:6], "big")
        pdu = decode_pdu(data[:end])
        assert isinstance(pdu, PDataTF)
        pdus.append(pdu)
        data = data[end:]
    return pdus


def _variable_field(pdu: PDataTF) -> int:
    return sum(6 + len(pdv.data) for pdv in pdu.pdvs)


def _check(pdus: list[PDataTF], context_id: int, command: bytes, data: bytes | None) -> None:
    pdvs = [pdv for pdu in pdus for pdv in pdu.pdvs]
    assert {pdv.context_id for pdv in pdvs} == {context_id}
    commands = [pdv for pdv in pdvs if pdv.control & 1]
    pieces = pdvs[len(commands) :]
    assert b"".join(pdv.data for pdv in commands) == command
    assert [pdv.control for pdv in commands] == [1] * (len(commands) - 1) + [3]
    if data is None:
        assert pieces == []
    else:
        assert b"".join(pdv.data for pdv in pieces) == data
        assert [pdv.control for pdv in pieces] == [0] * (len(pieces) - 1) + [2]
    for pdv in pdvs:
        assert pdv.control & 2 or (len(pdv.data) % 2 == 0 and pdv.data)


@given(
    st.binary(min_size=1, max_size=200),
    st.none() | st.binary(max_size=400),
    st.integers(8, 300) | st.just(0),
    st.booleans(),
)
def test_no_pdu_is_over_the_maximum_and_nothing_is_lost(
    command: bytes, data: bytes | None, maximum_length: int, one: bool
) -> None:
    encoded = encode_message(5, command, data, maximum_length, one_pdv_per_pdu=one)
    pdus = split_pdus(encoded)
    _check(pdus, 5, command, data)
    for pdu in pdus:
        assert _variable_field(pdu) <= (maximum_length or PDU_CAP)
        assert pdu.pdvs
        if one:
            assert len(pdu.pdvs) == 1


def test_command_and_data_set_share_a_pdu_only_when_asked_to() -> None:
    assert len(split_pdus(encode_message(1, b"\0" * 80, b"\1" * 80, 0))) == 2
    assert len(split_pdus(encode_message(1, b"\0" * 80, b"\1" * 80, 0, one_pdv_per_pdu=False))) == 1


def test_pdus_are_filled_to_the_peers_maximum() -> None:
    pdus = split_pdus(encode_message(1, b"\0" * 100, bytes(1000), 106))
    assert [_variable_field(pdu) for pdu in pdus] == [106] * 11


def test_an_unlimited_peer_gets_pdus_up_to_our_own_cap() -> None:
    pdus = split_pdus(encode_message(1, b"\0\0", bytes(3000), 0, cap=1006))
    assert [_variable_field(pdu) for pdu in pdus] == [8, 1006, 1006, 1006]
    assert fragment_room(0) == PDU_CAP - 6
    assert fragment_room(2**32 - 1) == PDU_CAP - 6


def test_an_empty_data_set_is_one_empty_last_fragment() -> None:
    pdus = split_pdus(encode_message(1, b"\0\0", b"", 16384))
    assert pdus[1] == PDataTF((PDV(1, 2, b""),))


@pytest.mark.parametrize("maximum_length", [1, 6, 7, -1])
def test_a_maximum_without_room_is_refused(maximum_length: int) -> None:
    with pytest.raises(LocalProtocolError, match="the least that can be used is 8"):
        encode_message(1, b"\0\0", None, maximum_length)
    with pytest.raises(LocalProtocolError, match="the least that can be used is 8"):
        encode_command_pdu(1, b"\0\0", maximum_length)
    with pytest.raises(LocalProtocolError, match="the least that can be used is 8"):
        DataSetFramer(1, 10, maximum_length)


def test_the_command_alone_is_cut_too() -> None:
    assert len(split_pdus(encode_command_pdu(1, bytes(100), 26))) == 5
    assert encode_command_pdu(3, b"abcd", 0) == b"\4\0\0\0\0\x0a\0\0\0\6\3\3abcd"


def _frame(framer: DataSetFramer, data: bytes, size: int) -> bytes:
    """All PDUs, by way of a buffer of this size that is full of rubbish each time."""
    wire = b""
    position = 0
    while not framer.done:
        buffer = memoryview(bytearray(b"\xaa" * size))
        used, gaps = framer.fill(buffer)
        assert 0 < used <= size
        for gap in gaps:
            gap[:] = data[position : position + len(gap)]
            position += len(gap)
        assert framer.remaining == len(data) - position
        wire += buffer[:used]
    assert position == len(data)
    assert framer.fill(memoryview(bytearray(size))) == (0, [])
    return wire


@given(
    st.binary(max_size=600),
    st.integers(8, 700) | st.just(0),
    st.integers(14, 900),
)
def test_framed_data_sets_are_whole_in_buffers_of_any_size(
    data: bytes, maximum_length: int, size: int
) -> None:
    pdus = split_pdus(_frame(DataSetFramer(7, len(data), maximum_length), data, size))
    pdvs = [pdv for pdu in pdus for pdv in pdu.pdvs]
    assert len(pdvs) == len(pdus)
    assert b"".join(pdv.data for pdv in pdvs) == data
    assert [pdv.control for pdv in pdvs] == [0] * (len(pdvs) - 1) + [2]
    for pdu, pdv in zip(pdus, pdvs, strict=True):
        assert _variable_field(pdu) <= (maximum_length or PDU_CAP)
        assert pdv.control == 2 or (pdv.data and len(pdv.data) % 2 == 0)


@pytest.mark.parametrize("length", [0, 1, 2, 9, 10, 11, 20, 21])
def test_the_framer_agrees_with_the_encoder(length: int) -> None:
    data = bytes(range(length))
    whole = encode_message(9, b"\0\0", data, 16)
    command = encode_command_pdu(9, b"\0\0", 16)
    assert command + _frame(DataSetFramer(9, length, 16), data, 4096) == whole


def test_a_buffer_is_used_up_by_cutting_the_last_pdu_short() -> None:
    framer = DataSetFramer(1, 1_000_000, 131_072)
    buffer = memoryview(bytearray(262_144))
    used, gaps = framer.fill(buffer)
    assert used == 262_144
    assert len(gaps) == 2
    used, gaps = DataSetFramer(1, 1_000_000, 131_072).fill(buffer[: 131_078 + 1000])
    assert (used, len(gaps)) == (131_078, 1), "a runt is not worth its header"


def test_the_list_of_gaps_fits_one_preadv() -> None:
    framer = DataSetFramer(1, 100_000, 8)
    used, gaps = framer.fill(memoryview(bytearray(1_000_000)))
    assert len(gaps) == 512
    assert used == 512 * (HEADER_LENGTH + 2)
    assert framer.remaining == 100_000 - 1024


def test_more_than_4_gib_is_laid_out_piece_by_piece() -> None:
    framer = DataSetFramer(1, 2**33, 0)
    used, gaps = framer.fill(memoryview(bytearray(2**20 + 6)))
    assert used == 2**20 + 6
    assert framer.remaining == 2**33 - len(gaps[0])


def test_misuse_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="no length of -1"):
        DataSetFramer(1, -1, 0)
    with pytest.raises(LocalProtocolError, match="a buffer of 13 bytes holds no"):
        DataSetFramer(1, 100, 0).fill(memoryview(bytearray(13)))
