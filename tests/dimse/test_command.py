"""Reading, writing and answering command sets."""

import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.dimse.command import (
    Command,
    _decode_any,
    clean_error_comment,
    decode_command,
    encode_command,
    encode_store_request,
    respond,
)
from router.dimse.messages import ELEMENTS, MESSAGES, Message
from router.ul.errors import AbortSource, LocalProtocolError, RemoteProtocolError
from tests.dimse.samples import CT_IMAGE_STORAGE, NAMES, ROWS, full, least


def _element(number: int, value: bytes, group: int = 0) -> bytes:
    return struct.pack("<HHI", group, number, len(value)) + value


def _us(number: int, value: int) -> bytes:
    return _element(number, struct.pack("<H", value))


def _split(data: bytes) -> list[bytes]:
    parts = []
    while data:
        end = 8 + int.from_bytes(data[4:8], "little")
        parts.append(data[:end])
        data = data[end:]
    return parts


_ECHO = [
    _element(0x0002, b"1.2.840.10008.1.1\0"),
    _us(0x0100, 0x0030),
    _us(0x0110, 5),
    _us(0x0800, 0x0101),
]
_ECHO_COMMAND = Command(0x0030, affected_sop_class_uid="1.2.840.10008.1.1", message_id=5)


@pytest.mark.parametrize("sample", [full, least])
@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_every_message_comes_back_as_it_was(row: Message, sample: Any) -> None:
    command: Command = sample(row)
    data = encode_command(command)
    assert decode_command(data) == command
    assert decode_command(memoryview(data)) == command
    assert decode_command(bytearray(data)) == command
    assert len(data) % 2 == 0
    assert int.from_bytes(data[8:12], "little") == len(data) - 12
    tags = [part[2:4][::-1] for part in _split(data)]
    assert tags == sorted(tags)


def test_bytes_of_a_c_echo_request() -> None:
    assert encode_command(_ECHO_COMMAND) == _element(0, struct.pack("<I", 56)) + b"".join(_ECHO)


def test_tolerates_elements_out_of_order() -> None:
    assert decode_command(b"".join(reversed(_ECHO))) == _ECHO_COMMAND


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_order_does_not_matter_to_any_message(row: Message) -> None:
    command = full(row)
    parts = _split(encode_command(command))
    assert decode_command(b"".join(reversed(parts))) == command


@pytest.mark.parametrize("group_length", [b"", _element(0, b"\xff\xff\xff\x7f"), _element(0, b"")])
def test_tolerates_a_missing_or_wrong_group_length(group_length: bytes) -> None:
    assert decode_command(group_length + b"".join(_ECHO)) == _ECHO_COMMAND
    store = encode_command(full(MESSAGES[0x0001]))
    assert decode_command(group_length + store[12:]) == full(MESSAGES[0x0001])


@pytest.mark.parametrize("padding", [b"", b"\0", b" ", b"\0\0\0", b"  ", b"\0.99\xff"])
def test_trims_the_padding_of_uids(padding: bytes) -> None:
    parts = [_element(0x0002, b"1.2.840.10008.1.1" + padding), *_ECHO[1:]]
    assert decode_command(b"".join(parts)) == _ECHO_COMMAND


@pytest.mark.parametrize(
    "raw", [b"STORE", b"STORE\0\0", b"  STORE ", b"STORE \0\x01", b"\0STORE\0X"]
)
def test_trims_the_padding_of_ae_titles(raw: bytes) -> None:
    move = _split(encode_command(least(MESSAGES[0x0021], True)))
    parts = [part for part in move if part[2:4] != b"\x00\x06"] + [_element(0x0600, raw)]
    assert decode_command(b"".join(parts)).move_destination == "STORE"


def test_ignores_unknown_elements_of_group_0000() -> None:
    retired = _element(0x0001, b"\0\0\0\0") + _element(0x5010, b"anything at all")
    assert decode_command(b"".join(_ECHO) + retired) == _ECHO_COMMAND


def test_takes_the_first_of_several_numbers() -> None:
    parts = [*_ECHO[:2], _element(0x0110, b"\x05\x00\x09\x00"), _ECHO[3]]
    assert decode_command(b"".join(parts)) == _ECHO_COMMAND


def test_any_value_but_0101_announces_a_data_set() -> None:
    for value in (0x0000, 0x0001, 0x0102, 0xFEFE):
        assert decode_command(b"".join([*_ECHO[:3], _us(0x0800, value)])).has_data_set


def test_a_store_request_without_priority_means_medium() -> None:
    command = full(MESSAGES[0x0001])
    parts = [p for p in _split(encode_command(command)) if p[2:4] != b"\x00\x07"]
    assert decode_command(b"".join(parts)) == command._replace(priority=0)


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_names_the_required_element_that_is_missing(row: Message) -> None:
    parts = _split(encode_command(full(row)))
    for element in ELEMENTS:
        if element.keyword not in row.required:
            continue
        rest = [p for p in parts if p[2:4] != struct.pack("<H", element.element)]
        assert len(rest) == len(parts) - 1
        with pytest.raises(RemoteProtocolError) as caught:
            decode_command(b"".join(rest))
        assert (
            str(caught.value) == f"{row.name} without {element.name} (0000,{element.element:04X})"
        )
        assert caught.value.source is AbortSource.SERVICE_USER


def test_what_is_optional_may_be_missing() -> None:
    for row in ROWS:
        assert decode_command(encode_command(least(row))) == least(row)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "without Command Field"),
        (_us(0x0100, 0x0030), "C-ECHO-RQ without Command Data Set Type"),
        (_us(0x0100, 0x1234), "command 1234H without Command Data Set Type"),
        (b"".join(_ECHO) + b"\0\0\0", "ends inside an element header at byte 56"),
        (b"".join(_ECHO)[:-1], "runs past the end"),
        (_element(0x0110, b"\0")[:-1], "runs past the end"),
        (struct.pack("<HHI", 0, 2, 0xFFFFFFFF), "of length 4294967295 runs past the end"),
        (_element(0x0018, b"1.2", group=8), r"\(0008,0018\) in a command set at byte 0"),
        (b"".join(_ECHO) + _element(0x0110, b"\1"), r"Message ID \(0000,0110\) has a length of 1"),
        (_element(0x0002, b"1.2\xff4"), r"Affected SOP Class UID \(0000,0002\) is not text"),
        (_element(0x0002, b"1.2\n4"), r"Affected SOP Class UID \(0000,0002\) is not text"),
    ],
)
def test_refuses_what_is_malformed(data: bytes, message: str) -> None:
    with pytest.raises(RemoteProtocolError, match=message):
        decode_command(data)


def test_every_truncation_of_a_store_request_is_refused() -> None:
    data = encode_command(full(MESSAGES[0x0001]))
    optional = {len(data) - 10, len(data) - 24}
    for end in range(len(data)):
        if end not in optional:
            with pytest.raises(RemoteProtocolError):
                decode_command(data[:end])


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_properly(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_command(data)


@given(st.sampled_from(ROWS), st.data())
def test_damaged_commands_are_read_or_refused(row: Message, data: st.DataObject) -> None:
    command = bytearray(encode_command(full(row)))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(command) - 1))
        command[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(command)))
    for damaged in (command, command[:cut], command[cut:]):
        try:
            decoded = decode_command(damaged)
        except RemoteProtocolError:
            continue
        assert isinstance(decoded, Command)
        repr(decoded)


_UIDS = st.text("0123456789.", min_size=1, max_size=64)


@given(
    st.integers(0, 65535),
    _UIDS,
    _UIDS,
    st.integers(0, 2),
    st.text("ABC_1", max_size=16),
    st.none() | st.integers(0, 65535),
)
def test_the_short_ways_of_c_store_agree_with_the_long(
    message_id: int, sop_class: str, instance: str, priority: int, ae: str, originator: int | None
) -> None:
    command = Command(
        0x0001,
        True,
        message_id=message_id,
        affected_sop_class_uid=sop_class,
        affected_sop_instance_uid=instance,
        priority=priority,
        move_originator_application_entity_title=ae,
        move_originator_message_id=originator,
    )
    data = encode_store_request(message_id, sop_class, instance, priority, ae, originator)
    assert data == encode_command(command)
    assert decode_command(data) == command
    assert decode_command(data + _element(0x5010, b"")) == command


def _outcome(decode: Callable[[bytes], Command], data: bytes) -> Command | str:
    try:
        return decode(data)
    except RemoteProtocolError as error:
        return str(error)


@pytest.mark.parametrize("originator", [("", None), ("MOVER", 3)])
def test_the_short_way_of_reading_sees_damage_as_the_long_one_does(originator: Any) -> None:
    whole = encode_store_request(1, CT_IMAGE_STORAGE, "1.2.3.4", 0, *originator)
    for position in range(len(whole)):
        for value in (0, 1, 2, 3, 4, 6, 8, 16, 0x30, 0xFF):
            damaged = whole[:position] + bytes([value]) + whole[position + 1 :]
            assert _outcome(decode_command, damaged) == _outcome(_decode_any, damaged)
    for end in range(len(whole)):
        assert _outcome(decode_command, whole[:end]) == _outcome(_decode_any, whole[:end])


def test_an_unknown_command_field_is_for_the_caller_to_answer() -> None:
    data = _us(0x0100, 0x1234) + _us(0x0110, 8) + _us(0x0800, 0x0101)
    command = decode_command(data)
    assert not command.known
    assert command.name == "command 1234H"
    answer = respond(command, 0x0211)
    assert decode_command(encode_command(answer)) == answer
    assert (answer.field, answer.status, answer.message_id_being_responded_to) == (
        0x9234,
        0x0211,
        8,
    )


@pytest.mark.parametrize("row", [r for r in ROWS if not r.is_response], ids=lambda r: r.name)
def test_a_response_repeats_what_its_row_has_of_the_request(row: Message) -> None:
    request = full(row)
    if row.name == "C-CANCEL-RQ":
        with pytest.raises(LocalProtocolError, match="cannot be responded to"):
            respond(request, 0)
        return
    response = respond(request, 0x0110, error_comment="why")
    assert decode_command(encode_command(response)) == response
    assert response.name == row.name.replace("-RQ", "-RSP")
    assert response.message_id_being_responded_to == request.message_id
    assert response.affected_sop_class_uid == (
        request.affected_sop_class_uid or request.requested_sop_class_uid
    )
    if row.name.startswith("N-") or row.name == "C-STORE-RQ":
        assert response.affected_sop_instance_uid == (
            request.affected_sop_instance_uid or request.requested_sop_instance_uid
        )
    assert response.event_type_id == request.event_type_id
    assert response.action_type_id == request.action_type_id
    assert response.error_comment == "why"
    assert response.attribute_identifier_list == ()
    assert not response.has_data_set


def test_a_response_takes_further_elements_of_its_row_only() -> None:
    move = full(MESSAGES[0x0021])
    pending = respond(move, 0xFF00, number_of_remaining_suboperations=4)
    assert pending.number_of_remaining_suboperations == 4
    with pytest.raises(LocalProtocolError, match="C-MOVE-RSP has no action_type_id"):
        respond(move, 0, action_type_id=1)
    with pytest.raises(LocalProtocolError, match="C-STORE-RSP has no data set"):
        respond(full(MESSAGES[0x0001]), 0, has_data_set=True)
    with pytest.raises(LocalProtocolError, match="C-MOVE-RSP cannot be responded to"):
        respond(pending, 0)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (Command(0x0030, affected_sop_class_uid="1.2"), "C-ECHO-RQ without Message ID"),
        (Command(0x0030, message_id=1), "C-ECHO-RQ without Affected SOP Class UID"),
        (Command(0x8030, message_id_being_responded_to=1), "C-ECHO-RSP without Status"),
        (Command(0x1234), "no message has the Command Field 1234H"),
        (_ECHO_COMMAND._replace(message_id=65536), "no 16-bit number: 65536"),
        (_ECHO_COMMAND._replace(affected_sop_class_uid="1.é"), "is not ASCII"),
        (least(MESSAGES[0x0110])._replace(attribute_identifier_list=(1 << 32,)), "no tag"),
    ],
)
def test_does_not_write_what_would_be_refused(command: Command, message: str) -> None:
    with pytest.raises(LocalProtocolError, match=message):
        encode_command(command)


@pytest.mark.parametrize("arguments", [(65536, "1", "1"), (1, "é", "1"), (1, "1", "1", 70000)])
def test_store_request_refuses_values_that_do_not_fit(arguments: Any) -> None:
    with pytest.raises(LocalProtocolError):
        encode_store_request(*arguments)


@given(st.text(max_size=200))
def test_an_error_comment_fits_whatever_was_said(text: str) -> None:
    comment = clean_error_comment(text)
    assert len(comment) <= 64
    assert comment.isascii()
    assert comment.isprintable()
    assert "\\" not in comment
    answer = respond(_ECHO_COMMAND, 0x0110, error_comment=text)
    assert decode_command(encode_command(answer)).error_comment == comment


def test_error_comments_are_replaced_where_they_must_be() -> None:
    assert clean_error_comment("disk\nfull: C:\\spool é") == "disk full: C:/spool ?"
    assert clean_error_comment("x" * 65) == "x" * 64


def test_a_peers_error_comment_is_made_printable() -> None:
    response = [_us(0x0100, 0x8030), _us(0x0120, 1), _us(0x0800, 0x0101), _us(0x0900, 0x0110)]
    raw = _element(0x0902, "förmaß\x1b[1m ".encode("latin-1"))
    assert decode_command(b"".join([*response, raw])).error_comment == "f?rma??[1m"


@pytest.mark.parametrize(
    ("field", "has_data_set", "fault"),
    [
        (0x0001, False, "C-STORE-RQ without a data set"),
        (0x0001, True, ""),
        (0x0030, True, "C-ECHO-RQ with a data set"),
        (0x8020, True, ""),
        (0x8020, False, ""),
        (0x1234, True, ""),
    ],
)
def test_says_when_a_data_set_does_not_belong(field: int, has_data_set: bool, fault: str) -> None:
    assert Command(field, has_data_set).data_set_fault == fault


def test_repr_shows_what_was_given() -> None:
    assert repr(_ECHO_COMMAND) == (
        "<C-ECHO-RQ affected_sop_class_uid='1.2.840.10008.1.1' message_id=5>"
    )
    assert CT_IMAGE_STORAGE in repr(full(MESSAGES[0x0001]))
