"""The table against the standard's numbering, and against pynetdicom in both directions."""

from io import BytesIO
from typing import Any

import pytest
from pynetdicom import dimse_messages as oracle
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import P_DATA

from router.dimse.command import Command, decode_command, encode_command
from router.dimse.fragment import encode_message
from router.dimse.messages import ELEMENTS, MESSAGES, DataSet, Message
from tests.dimse.samples import NAMES, ROWS, full, least

_KEYWORDS = {
    e.keyword: "".join(word.replace("-", "").title() for word in e.name.split()) for e in ELEMENTS
}
_SPELT_APART = {
    "AffectedSopClassUid": "AffectedSOPClassUID",
    "RequestedSopClassUid": "RequestedSOPClassUID",
    "AffectedSopInstanceUid": "AffectedSOPInstanceUID",
    "RequestedSopInstanceUid": "RequestedSOPInstanceUID",
    "MessageId": "MessageID",
    "MessageIdBeingRespondedTo": "MessageIDBeingRespondedTo",
    "ErrorId": "ErrorID",
    "EventTypeId": "EventTypeID",
    "ActionTypeId": "ActionTypeID",
    "MoveOriginatorMessageId": "MoveOriginatorMessageID",
}
_PYNETDICOM = {ours: _SPELT_APART.get(theirs, theirs) for ours, theirs in _KEYWORDS.items()}
_IN_EVERY_MESSAGE = {"CommandGroupLength", "CommandField", "CommandDataSetType"}


def test_the_table_has_the_messages_of_pynetdicom_and_no_others() -> None:
    theirs = {field: name for field, (name, _) in oracle._MESSAGE_TYPES.items()}
    assert {row.field: row.name for row in ROWS} == theirs


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_a_row_has_every_element_that_pynetdicom_knows_of_the_message(row: Message) -> None:
    theirs = set(oracle._COMMAND_SET_KEYWORDS[row.name]) - _IN_EVERY_MESSAGE
    ours = {_PYNETDICOM[element.keyword] for element in row.elements}
    assert theirs <= ours
    if not row.is_response:
        assert theirs == ours


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_a_data_set_may_follow_where_pynetdicom_has_one(row: Message) -> None:
    has_one = row.name.replace("-", "_") in oracle._DATASET_KEYWORDS
    assert has_one == (row.data_set is not DataSet.NEVER)


def test_elements_stand_in_the_order_of_their_tags() -> None:
    numbers = [element.element for element in ELEMENTS]
    assert numbers == sorted(set(numbers))


def test_every_request_has_its_response_and_only_cancel_has_none() -> None:
    unanswered = [r.name for r in ROWS if not r.is_response and r.field | 0x8000 not in MESSAGES]
    assert unanswered == ["C-CANCEL-RQ"]


def _their_value(value: Any) -> Any:
    if isinstance(value, int | str):
        return value
    if value is None:
        return None
    return tuple(int(item) for item in value)


def _read_by_pynetdicom(pdus: bytes) -> oracle.DIMSEMessage:
    message = oracle.DIMSEMessage()
    complete = False
    while pdus:
        assert not complete
        length = int.from_bytes(pdus[2:6], "big")
        body, pdus = pdus[6 : 6 + length], pdus[6 + length :]
        primitive = P_DATA()
        while body:
            end = 4 + int.from_bytes(body[:4], "big")
            primitive.presentation_data_value_list.append((body[4], body[5:end]))
            body = body[end:]
        complete = message.decode_msg(primitive)
    assert complete
    return message


@pytest.mark.parametrize("sample", [full, least])
@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_pynetdicom_reads_what_we_write(row: Message, sample: Any) -> None:
    command: Command = sample(row)
    data = b"\x08\x00\x05\x00\x00\x00\x00\x00" if command.has_data_set else None
    message = _read_by_pynetdicom(encode_message(3, encode_command(command), data, 64))
    assert type(message).__name__ == row.name.replace("-", "_")
    assert message.context_id == 3
    for element in row.elements:
        value = getattr(command, element.keyword)
        present = _PYNETDICOM[element.keyword] in message.command_set
        if value in (None, "", ()):
            assert not present
        else:
            assert _their_value(message.command_set[_PYNETDICOM[element.keyword]].value) == value
    assert isinstance(message.data_set, BytesIO)
    assert message.data_set.getvalue() == (data or b"")
    group_length = message.command_set.CommandGroupLength
    assert group_length == len(encode_command(command)) - 12
    message.message_to_primitive()


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_we_read_what_pynetdicom_writes(row: Message) -> None:
    command = full(row)
    message = oracle._MESSAGE_TYPES[row.field][1]()
    message.command_set.CommandField = row.field
    message.command_set.CommandDataSetType = 0x0102 if command.has_data_set else 0x0101
    for element in row.elements:
        value = getattr(command, element.keyword)
        theirs = list(value) if isinstance(value, tuple) else value
        setattr(message.command_set, _PYNETDICOM[element.keyword], theirs)
    message._set_command_group_length()
    fragments = list(message.encode_msg(1, 0))
    [(context_id, value)] = fragments[0].presentation_data_value_list
    assert (context_id, value[0]) == (1, 0x03)
    assert decode_command(value[1:]) == command


def test_we_read_a_c_store_primitive_of_pynetdicom() -> None:
    primitive = C_STORE()
    primitive.MessageID = 17
    primitive.AffectedSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    primitive.AffectedSOPInstanceUID = "1.2.3.4"
    primitive.Priority = 1
    primitive.DataSet = BytesIO(b"\0\0")
    message = oracle.C_STORE_RQ()
    message.primitive_to_message(primitive)
    [(_, value)] = next(message.encode_msg(1, 0)).presentation_data_value_list
    assert decode_command(value[1:]) == Command(
        0x0001,
        True,
        affected_sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
        affected_sop_instance_uid="1.2.3.4",
        message_id=17,
        priority=1,
    )
