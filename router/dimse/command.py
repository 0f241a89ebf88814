"""Command sets: reading them, writing them, answering them.

Owns the encoding of group 0000, implicit VR little endian whatever was negotiated for data sets.
Must not know PDVs, presentation contexts or what a service does.  PS3.7 §6.3.1, §9.3, §10.3,
Annex E; padding after PS3.5 §6.2.
"""

import struct
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from router.dimse.messages import (
    COMMAND_DATA_SET_TYPE,
    COMMAND_FIELD,
    ELEMENT_BY_KEYWORD,
    ELEMENTS,
    MESSAGES,
    NO_DATA_SET,
    RESPONSE,
    UNRECOGNISED_RESPONSE,
    DataSet,
    Element,
    Message,
    message_name,
)
from router.ul.errors import AbortSource, LocalProtocolError, RemoteProtocolError

ABSENT = -1
"""Value of a Message ID or Status that was not given; no 16-bit number, so never sent."""

_ERROR_COMMENT_LENGTH = 64
_DATA_SET_PRESENT = 0x0001
_AE_PADDING = bytes(range(0x21))
_HEADER = struct.Struct("<HHI")
_US_ELEMENT = struct.Struct("<HHIH")
_UL_ELEMENT = struct.Struct("<HHII")


class Command(NamedTuple):
    """A command set; the names are the standard's keywords in snake case.

    ``field`` is the Command Field (0000,0100), which need not be one of the table.  A decoded
    message holds every element that its row in `messages` requires.  What is optional and absent
    is None, "" or (); ``priority`` is then MEDIUM (0).  Tags are ints (``0x00100020``), and what
    an element number of group 0000 means nothing to is left out.

    A tuple because one is built for every message: a frozen dataclass costs four times as much.
    """

    field: int
    has_data_set: bool = False
    affected_sop_class_uid: str = ""
    requested_sop_class_uid: str = ""
    message_id: int = ABSENT
    message_id_being_responded_to: int = ABSENT
    move_destination: str = ""
    priority: int = 0
    status: int = ABSENT
    offending_element: tuple[int, ...] = ()
    error_comment: str = ""
    error_id: int | None = None
    affected_sop_instance_uid: str = ""
    requested_sop_instance_uid: str = ""
    event_type_id: int | None = None
    attribute_identifier_list: tuple[int, ...] = ()
    action_type_id: int | None = None
    number_of_remaining_suboperations: int | None = None
    number_of_completed_suboperations: int | None = None
    number_of_failed_suboperations: int | None = None
    number_of_warning_suboperations: int | None = None
    move_originator_application_entity_title: str = ""
    move_originator_message_id: int | None = None

    @property
    def known(self) -> bool:
        """Whether the Command Field is one of PS3.7; otherwise the answer is 0211H."""
        return self.field in MESSAGES

    @property
    def is_response(self) -> bool:
        """Whether this answers a request."""
        return bool(self.field & RESPONSE)

    @property
    def name(self) -> str:
        """``C-STORE-RQ``, or ``command 1234H``."""
        return message_name(self.field)

    @property
    def data_set_fault(self) -> str:
        """What is wrong with having, or not having, a data set; "" when nothing is.

        The message can be read to its end either way, so this is for the service to answer, not
        a reason to abort.
        """
        row = MESSAGES.get(self.field)
        if row is None or row.data_set is DataSet.MAY:
            return ""
        if self.has_data_set and row.data_set is DataSet.NEVER:
            return f"{row.name} with a data set"
        if not self.has_data_set and row.data_set is DataSet.MUST:
            return f"{row.name} without a data set"
        return ""

    def __repr__(self) -> str:
        given = (
            f"{name}={value!r}"
            for name, value in zip(self._fields[1:], self[1:], strict=True)
            if value != self._field_defaults[name]
        )
        return f"<{self.name} {' '.join(given)}>"


def _malformed(message: str) -> RemoteProtocolError:
    # PS3.8 §9.3.8: whoever finds fault with a DIMSE message is the user of the upper layer.
    return RemoteProtocolError(message, source=AbortSource.SERVICE_USER)


# -- reading -----------------------------------------------------------------------------------


def _read_uid(value: bytes, name: str) -> str:
    # Senders that copy C strings leave behind the NUL what was there before.
    try:
        text = value.partition(b"\0")[0].decode("ascii").rstrip(" ")
    except UnicodeDecodeError:
        text = "\n"
    if not text.isprintable():
        raise _malformed(f"{name} is not text: {value[:64]!r}")
    return text


def _read_ae(value: bytes, name: str) -> str:
    # What is not ASCII names nobody, and it is for the service to say so in its answer.
    title = value.strip(_AE_PADDING).partition(b"\0")[0]
    return _printable(title.decode("ascii", "replace"))


def _read_comment(value: bytes, name: str) -> str:
    # Some send kilobytes; it goes into logs and into the reason of every delivery.
    return _printable(value[:_ERROR_COMMENT_LENGTH].decode("ascii", "replace").rstrip("\0 "))


def _read_us(value: bytes, name: str) -> int | None:
    if not value:
        return None
    if len(value) < 2:
        raise _malformed(f"{name} has a length of {len(value)}, not 2")
    return value[0] | value[1] << 8


def _read_tags(value: bytes, name: str) -> tuple[int, ...]:
    numbers = struct.unpack_from(f"<{len(value) // 4 * 2}H", value)
    return tuple(g << 16 | e for g, e in zip(numbers[::2], numbers[1::2], strict=True))


def _printable(text: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if " " <= c <= "~" else "?" for c in text)


_READERS: dict[str, Callable[[bytes, str], Any]] = {
    "UI": _read_uid,
    "US": _read_us,
    "AE": _read_ae,
    "LO": _read_comment,
    "AT": _read_tags,
}
_DECODERS = {
    e.element: (e.keyword, f"{e.name} (0000,{e.element:04X})", _READERS[e.vr]) for e in ELEMENTS
}


def decode_command(data: bytes | bytearray | memoryview) -> Command:
    """The command set that ``data`` is, whole.

    Tolerates elements out of order, a missing or wrong group length, odd lengths and padding;
    passes over unknown elements of group 0000.  Raises RemoteProtocolError for an element that
    does not fit, one of another group, and one that is required and missing, which it names.
    """
    data = bytes(data)
    command = _decode_store_request(data)
    return command if command is not None else _decode_any(data)


def _decode_any(data: bytes) -> Command:
    values: dict[str, Any] = {}
    field: int | None = None
    data_set_type: int | None = None
    offset, end = 0, len(data)
    while offset < end:
        if end - offset < 8:
            raise _malformed(f"command set ends inside an element header at byte {offset}")
        group, element, length = _HEADER.unpack_from(data, offset)
        if group:
            raise _malformed(
                f"element ({group:04X},{element:04X}) in a command set at byte {offset}"
            )
        start, offset = offset + 8, offset + 8 + length
        if offset > end:
            raise _malformed(
                f"element (0000,{element:04X}) of length {length} runs past the end of the "
                f"command set at byte {end}"
            )
        decoder = _DECODERS.get(element)
        if decoder is not None:
            keyword, name, read = decoder
            value = read(data[start:offset], name)
            if value is not None:
                values[keyword] = value
        elif element == COMMAND_FIELD:
            field = _read_us(data[start:offset], "Command Field (0000,0100)")
        elif element == COMMAND_DATA_SET_TYPE:
            data_set_type = _read_us(data[start:offset], "Command Data Set Type (0000,0800)")
    if field is None:
        raise _malformed("command set without Command Field (0000,0100)")
    if data_set_type is None:
        raise _malformed(f"{message_name(field)} without Command Data Set Type (0000,0800)")
    if row := MESSAGES.get(field):
        for keyword in row.required:
            if keyword not in values:
                missing = ELEMENT_BY_KEYWORD[keyword]
                raise _malformed(f"{row.name} without {missing.name} (0000,{missing.element:04X})")
    return Command(field, data_set_type != NO_DATA_SET, **values)


# What nearly every C-STORE-RQ looks like: these elements in the order of their tags, behind a
# class UID of any length.  Numbers: tag and length of each, as one 32-bit word each.
_STORE_MIDDLE = struct.Struct("<IIHIIHIIHIIHII")
_STORE_UP_TO_CLASS = struct.Struct("<IIIII")
_UL_PAIR = struct.Struct("<II")
_US_TAIL = struct.Struct("<IIH")


def _decode_store_request(data: bytes) -> Command | None:
    """The short way for C-STORE-RQ; None when it is not laid out as expected."""
    end = len(data)
    if end < 86:
        return None
    group_length, four, _, class_tag, class_length = _STORE_UP_TO_CLASS.unpack_from(data)
    middle = 20 + class_length
    if middle + 48 > end:
        return None
    # fmt: off
    (t1, l1, field, t2, l2, message_id, t3, l3, priority, t4, l4, data_set_type,
     instance_tag, instance_length) = _STORE_MIDDLE.unpack_from(data, middle)
    # fmt: on
    start = middle + 48
    after = start + instance_length
    if (
        field != 0x0001
        or after > end
        or group_length != 0
        or four != 4
        or class_tag != 0x00020000
        or (t1, t2, t3, t4, instance_tag)
        != (0x01000000, 0x01100000, 0x07000000, 0x08000000, 0x10000000)
        or not l1 == l2 == l3 == l4 == 2
    ):
        return None
    originator, originator_message = "", None
    if after != end:
        # Sub-operation of a C-MOVE: the originator's AE title and message ID, else the long way.
        if end - after < 18:
            return None
        ae_tag, ae_length = _UL_PAIR.unpack_from(data, after)
        last = after + 8 + ae_length
        if ae_tag != 0x10300000 or last + 10 != end:
            return None
        tag, length, originator_message = _US_TAIL.unpack_from(data, last)
        if tag != 0x10310000 or length != 2:
            return None
        originator = _read_ae(data[after + 8 : last], "")
    return Command(
        field,
        data_set_type != NO_DATA_SET,
        _read_uid(data[20:middle], "Affected SOP Class UID (0000,0002)"),
        "",
        message_id,
        ABSENT,
        "",
        priority,
        ABSENT,
        (),
        "",
        None,
        _read_uid(data[start:after], "Affected SOP Instance UID (0000,1000)"),
        move_originator_application_entity_title=originator,
        move_originator_message_id=originator_message,
    )


# -- writing -----------------------------------------------------------------------------------


def clean_error_comment(text: str) -> str:
    """``text`` as an Error Comment may hold it: 64 printable ASCII characters, no backslash.

    The backslash separates values (PS3.5 §6.2); it becomes a slash, anything else that is not
    allowed a question mark, a line break a space.
    """
    flat = " ".join(text.split()).replace("\\", "/")
    return _printable(flat)[:_ERROR_COMMENT_LENGTH].rstrip()


def _write_text(element: int, text: str, padding: bytes) -> bytes:
    try:
        value = text.encode("ascii")
    except UnicodeEncodeError:
        raise LocalProtocolError(f"(0000,{element:04X}) is not ASCII: {text!r}") from None
    if len(value) & 1:
        value += padding
    return _HEADER.pack(0, element, len(value)) + value


def _write_us(element: int, value: int) -> bytes:
    if not 0 <= value <= 0xFFFF:
        raise LocalProtocolError(f"(0000,{element:04X}) is no 16-bit number: {value}")
    return _US_ELEMENT.pack(0, element, 2, value)


def _write_tags(element: int, tags: tuple[int, ...]) -> bytes:
    if any(not 0 <= tag <= 0xFFFFFFFF for tag in tags):
        raise LocalProtocolError(f"(0000,{element:04X}) holds what is no tag: {tags}")
    numbers = [half for tag in tags for half in (tag >> 16, tag & 0xFFFF)]
    return _HEADER.pack(0, element, len(tags) * 4) + struct.pack(f"<{len(numbers)}H", *numbers)


def _write(element: Element, value: Any) -> bytes:
    match element.vr:
        case "UI":
            return _write_text(element.element, value, b"\0")
        case "AE":
            return _write_text(element.element, value, b" ")
        case "LO":
            return _write_text(element.element, clean_error_comment(value), b" ")
        case "AT":
            return _write_tags(element.element, value)
        case _:
            return _write_us(element.element, value)


@cache
def _plan(row: Message) -> tuple[tuple[Element | None, int, bool], ...]:
    """The elements to write, by tag: None for those that every message has; number; required."""
    fixed = [(None, COMMAND_FIELD, True), (None, COMMAND_DATA_SET_TYPE, True)]
    listed = [(e, e.element, e.keyword in row.required) for e in row.elements]
    return tuple(sorted([*fixed, *listed], key=lambda entry: entry[1]))


def encode_command(command: Command) -> bytes:
    """The command set's bytes, in the order of tags, with the group length.

    Elements that the message's row does not have are left out.  Raises LocalProtocolError when
    one that the row requires has no value, or a value does not fit.
    """
    row = MESSAGES.get(command.field)
    if row is None:
        if not command.is_response:
            raise LocalProtocolError(f"no message has the Command Field {command.field:04X}H")
        row = UNRECOGNISED_RESPONSE
    parts = []
    for element, number, required in _plan(row):
        if element is None:
            value: Any = command.field
            if number == COMMAND_DATA_SET_TYPE:
                value = _DATA_SET_PRESENT if command.has_data_set else NO_DATA_SET
            parts.append(_write_us(number, value))
            continue
        value = getattr(command, element.keyword)
        if value is not None and value != "" and value != () and value != ABSENT:
            parts.append(_write(element, value))
        elif required:
            raise LocalProtocolError(f"{row.name} without {element.name}")
    body = b"".join(parts)
    return _UL_ELEMENT.pack(0, 0, 4, len(body)) + body


def encode_store_request(
    message_id: int,
    sop_class_uid: str,
    sop_instance_uid: str,
    priority: int = 0,
    move_originator: str = "",
    move_originator_message_id: int | None = None,
) -> bytes:
    """The command set of a C-STORE-RQ with a data set, PS3.7 §9.3.1.1.

    The same bytes as `encode_command`, a few times as fast.  Raises LocalProtocolError when a
    value does not fit.
    """
    try:
        class_uid = sop_class_uid.encode("ascii")
        instance_uid = sop_instance_uid.encode("ascii")
        if len(class_uid) & 1:
            class_uid += b"\0"
        if len(instance_uid) & 1:
            instance_uid += b"\0"
        tail = b""
        if move_originator:
            tail = _write_text(0x1030, move_originator, b" ")
        if move_originator_message_id is not None:
            tail += _write_us(0x1031, move_originator_message_id)
        # fmt: off
        return b"".join((
            _STORE_UP_TO_CLASS.pack(
                0, 4, 56 + len(class_uid) + len(instance_uid) + len(tail),
                0x00020000, len(class_uid)),
            class_uid,
            _STORE_MIDDLE.pack(
                0x01000000, 2, 0x0001, 0x01100000, 2, message_id, 0x07000000, 2, priority,
                0x08000000, 2, _DATA_SET_PRESENT, 0x10000000, len(instance_uid)),
            instance_uid,
            tail,
        ))
        # fmt: on
    except (UnicodeEncodeError, struct.error) as error:
        raise LocalProtocolError(f"C-STORE-RQ cannot be encoded: {error}") from None


def respond(
    request: Command,
    status: int,
    *,
    error_comment: str = "",
    has_data_set: bool = False,
    **fields: Any,
) -> Command:
    """The response to ``request``, with what its row in the table repeats of the request.

    ``fields`` are further elements by keyword (``number_of_remaining_suboperations``,
    ``affected_sop_instance_uid`` of an N-CREATE, ``offending_element`` …).  A request outside the
    table is answered with its own Command Field and the response bit, as 0211H needs.  Raises
    LocalProtocolError for what has no response: a response, a C-CANCEL, a command without
    Message ID, a keyword that the response does not have.
    """
    if request.is_response or request.message_id == ABSENT:
        raise LocalProtocolError(f"{request.name} cannot be responded to")
    row = MESSAGES.get(request.field | RESPONSE, UNRECOGNISED_RESPONSE)
    allowed = {element.keyword for element in row.elements}
    if surplus := fields.keys() - allowed:
        raise LocalProtocolError(f"{row.name} has no {', '.join(sorted(surplus))}")
    if has_data_set and row.data_set is DataSet.NEVER:
        raise LocalProtocolError(f"{row.name} has no data set")
    repeated: dict[str, Any] = {
        "affected_sop_class_uid": request.affected_sop_class_uid or request.requested_sop_class_uid,
        "affected_sop_instance_uid": request.affected_sop_instance_uid
        or request.requested_sop_instance_uid,
        "event_type_id": request.event_type_id,
        "action_type_id": request.action_type_id,
    }
    values = {keyword: value for keyword, value in repeated.items() if keyword in allowed}
    values.update(fields)
    return Command(
        field=request.field | RESPONSE,
        has_data_set=has_data_set,
        message_id_being_responded_to=request.message_id,
        status=status,
        error_comment=error_comment,
        **values,
    )
