"""Just enough of PS3.8 and PS3.7 to send and to receive C-STORE, and for the messages of storage
commitment (PS3.4 annex J), encoded by hand.

Shares nothing with the product on purpose: a mistake that both ends made alike would
otherwise never show.  Owns byte layouts; no sockets.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ = 0x01, 0x02, 0x03
P_DATA_TF, RELEASE_RQ, RELEASE_RP, ABORT = 0x04, 0x05, 0x06, 0x07

RELEASE_RQ_PDU = struct.pack(">BxI4x", RELEASE_RQ, 4)
RELEASE_RP_PDU = struct.pack(">BxI4x", RELEASE_RP, 4)
ABORT_PDU = struct.pack(">BxI4x", ABORT, 4)

EXPLICIT_LE = "1.2.840.10008.1.2.1"
IMPLICIT_LE = "1.2.840.10008.1.2"
COMMITMENT = "1.2.840.10008.1.20.1"
_COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
_APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
_IMPLEMENTATION = b"2.25.1000"

C_STORE_RQ, C_STORE_RSP, C_ECHO_RQ, C_ECHO_RSP = 0x0001, 0x8001, 0x0030, 0x8030
N_EVENT_REPORT_RQ, N_EVENT_REPORT_RSP, N_ACTION_RQ = 0x0100, 0x8100, 0x0130
NO_DATA_SET = 0x0101
RESPONSE = 0x8000
"""This bit of the command field is set in every response (PS3.7 §E.1)."""
_ACCEPTED, _NO_TRANSFER_SYNTAX = 0, 4
_SEQUENCE_ITEM = 0xFFFEE000


Reference = tuple[str, str]
"""SOP Class UID and SOP Instance UID."""


class WireError(Exception):
    """The peer refused, aborted or sent what this small implementation does not expect."""


@dataclass(frozen=True, slots=True)
class Context:
    """A presentation context: proposed with one abstract syntax, or accepted."""

    id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


def associate_rq(
    called: str,
    calling: str,
    contexts: list[Context],
    maximum_length: int,
    scp_of: tuple[str, ...] = (),
) -> bytes:
    """A-ASSOCIATE-RQ (PS3.8 §9.3.2); it asks to be the SCP of some (PS3.7 §D.3.3.4)."""
    items = _item(0x10, _APPLICATION_CONTEXT)
    for context in contexts:
        body = struct.pack(">B3x", context.id) + _item(0x30, context.abstract_syntax.encode())
        for syntax in context.transfer_syntaxes:
            body += _item(0x40, syntax.encode())
        items += _item(0x20, body)
    roles = b"".join(
        _item(0x54, struct.pack(">H", len(uid)) + uid.encode() + b"\0\1") for uid in scp_of
    )
    return _associate(ASSOCIATE_RQ, called, calling, items, maximum_length, roles)


def associate_ac(rq: bytes, maximum_length: int) -> bytes:
    """A-ASSOCIATE-AC (PS3.8 §9.3.3): everything accepted, the first transfer syntax of each.

    Storage commitment is taken in Implicit VR Little Endian alone, which is all that PS3.4 §J.3
    asks of an SCP.
    """
    called, calling, contexts = parse_associate(rq)
    items = _item(0x10, _APPLICATION_CONTEXT)
    for context in contexts:
        result, syntax = _ACCEPTED, context.transfer_syntaxes[0]
        if context.abstract_syntax == COMMITMENT:
            syntax = IMPLICIT_LE
            result = _ACCEPTED if IMPLICIT_LE in context.transfer_syntaxes else _NO_TRANSFER_SYNTAX
        answer = struct.pack(">BxBx", context.id, result) + _item(0x40, syntax.encode())
        items += _item(0x21, answer)
    return _associate(ASSOCIATE_AC, called, calling, items, maximum_length)


def parse_associate(body: bytes) -> tuple[str, str, list[Context]]:
    """Called and calling AE title and the contexts of a request, given without its header."""
    contexts = []
    for kind, value in _items(body, 68):
        if kind == 0x20:
            sub = [(k, v.rstrip(b"\0").decode()) for k, v in _items(value, 4)]
            abstract = next(v for k, v in sub if k == 0x30)
            contexts.append(Context(value[0], abstract, tuple(v for k, v in sub if k == 0x40)))
    return body[4:20].decode().strip(), body[20:36].decode().strip(), contexts


def parse_accept(body: bytes) -> tuple[dict[int, int], int]:
    """Result by context id, and the maximum length (0 = unlimited) of an A-ASSOCIATE-AC."""
    results, maximum = {}, 0
    for kind, value in _items(body, 68):
        if kind == 0x21:
            results[value[0]] = value[2]
        elif kind == 0x50:
            for sub, content in _items(value, 0):
                if sub == 0x51:
                    maximum = int.from_bytes(content, "big")
    return results, maximum


def parse_roles(body: bytes) -> dict[str, tuple[bool, bool]]:
    """SCU and SCP role of the requestor by SOP Class UID, of an A-ASSOCIATE-RQ or -AC."""
    roles = {}
    for kind, value in _items(body, 68):
        for sub, content in _items(value, 0) if kind == 0x50 else ():
            if sub == 0x54:
                uid = content[2 : 2 + int.from_bytes(content[:2], "big")]
                scu, scp = content[2 + len(uid) :][:2]
                roles[uid.decode()] = (scu == 1, scp == 1)
    return roles


def store_rq(context_id: int, message_id: int, sop_class: str, sop_instance: str) -> bytes:
    """The P-DATA-TF with the command set of a C-STORE-RQ (PS3.7 §9.3.1.1)."""
    command = (
        _element(0x0002, _uid(sop_class))
        + _element(0x0100, _us(C_STORE_RQ))
        + _element(0x0110, _us(message_id))
        + _element(0x0700, _us(0))
        + _element(0x0800, _us(0x0001))
        + _element(0x1000, _uid(sop_instance))
    )
    return _command_pdu(context_id, command)


def response(context_id: int, request: dict[int, bytes]) -> bytes:
    """The success response to a C-STORE-RQ, C-ECHO-RQ or N-ACTION-RQ."""
    field = int.from_bytes(request[0x0100], "little") | RESPONSE
    command = (
        _element(0x0002, request.get(0x0002) or request.get(0x0003, b""))
        + _element(0x0100, _us(field))
        + _element(0x0120, request[0x0110])
        + _element(0x0800, _us(NO_DATA_SET))
        + _element(0x0900, _us(0))
    )
    if instance := request.get(0x1000) or request.get(0x1001):
        command += _element(0x1000, instance)
    if 0x1008 in request:
        command += _element(0x1008, request[0x1008])
    return _command_pdu(context_id, command)


def event_report_rq(context_id: int, message_id: int, event: int) -> bytes:
    """The P-DATA-TF with the command set of an N-EVENT-REPORT-RQ of storage commitment (PS3.7
    §10.3.1.1); a data set follows."""
    command = (
        _element(0x0002, _uid(COMMITMENT))
        + _element(0x0100, _us(N_EVENT_REPORT_RQ))
        + _element(0x0110, _us(message_id))
        + _element(0x0800, _us(0x0001))
        + _element(0x1000, _uid(_COMMITMENT_INSTANCE))
        + _element(0x1002, _us(event))
    )
    return _command_pdu(context_id, command)


def action_rq(context_id: int, message_id: int) -> bytes:
    """The same of an N-ACTION-RQ (PS3.7 §10.3.5.1, PS3.4 §J.3.2); a data set follows."""
    command = (
        _element(0x0003, _uid(COMMITMENT))
        + _element(0x0100, _us(N_ACTION_RQ))
        + _element(0x0110, _us(message_id))
        + _element(0x0800, _us(0x0001))
        + _element(0x1001, _uid(_COMMITMENT_INSTANCE))
        + _element(0x1008, _us(1))
    )
    return _command_pdu(context_id, command)


def action(transaction: str, references: Sequence[Reference]) -> bytes:
    """The data set of an N-ACTION-RQ in Implicit VR Little Endian (PS3.4 table J.3-1)."""
    items = b"".join(_reference(reference) for reference in references)
    return _tagged(0x00081195, _uid(transaction)) + _tagged(0x00081199, items)


def report(
    transaction: str, committed: Sequence[Reference], failed: Sequence[tuple[Reference, int]]
) -> bytes:
    """The data set of an N-EVENT-REPORT-RQ in Implicit VR Little Endian (PS3.4 table J.3-2), each
    failure with its reason."""
    data = _tagged(0x00081195, _uid(transaction))
    if failed:
        refused = (_reference(one, _tagged(0x00081197, _us(why))) for one, why in failed)
        data += _tagged(0x00081198, b"".join(refused))
    if committed:
        data += _tagged(0x00081199, b"".join(_reference(one) for one in committed))
    return data


def parse_commitment(
    data: bytes,
) -> tuple[str, list[Reference], list[tuple[Reference, int]]]:
    """Transaction UID, references, and failures with their reasons of one of the two, in Implicit
    VR Little Endian with lengths.  Raises WireError."""
    found = dict(_tags(data))
    if 0x00081195 not in found:
        raise WireError("a data set of storage commitment without its Transaction UID")
    references, failures = (
        [
            dict(_tags(item))
            for tag, item in _tags(found.get(sequence, b""))
            if tag == _SEQUENCE_ITEM
        ]
        for sequence in (0x00081199, 0x00081198)
    )
    try:
        return (
            _text(found[0x00081195]),
            [(_text(item[0x00081150]), _text(item[0x00081155])) for item in references],
            [
                (
                    (_text(item[0x00081150]), _text(item[0x00081155])),
                    int.from_bytes(item[0x00081197], "little"),
                )
                for item in failures
            ],
        )
    except KeyError as error:
        raise WireError(f"a reference without its {error.args[0]:08X}") from None


def parse_command(data: bytes) -> dict[int, bytes]:
    """Element number in group 0000 to value (PS3.7 §6.3.1: Implicit VR Little Endian)."""
    found, at = {}, 0
    while at + 8 <= len(data):
        group, element, length = struct.unpack_from("<HHI", data, at)
        if group != 0 or at + 8 + length > len(data):
            raise WireError(f"malformed command set at byte {at}")
        found[element] = data[at + 8 : at + 8 + length]
        at += 8 + length
    return found


def data_pdu_header(context_id: int, length: int, *, last: bool) -> bytes:
    """The twelve bytes before ``length`` bytes of data set in a P-DATA-TF of one PDV."""
    return struct.pack(
        ">BxIIBB", P_DATA_TF, length + 6, length + 2, context_id, 0x02 if last else 0x00
    )


def data_pdus(context_id: int, data: memoryview, maximum_length: int) -> Iterator[bytes]:
    """The data set as P-DATA-TF PDUs no longer than the maximum, the last one marked."""
    step = maximum_length - 6
    for at in range(0, len(data), step):
        piece = data[at : at + step]
        yield data_pdu_header(context_id, len(piece), last=at + step >= len(data)) + piece


def _command_pdu(context_id: int, command: bytes) -> bytes:
    command = _element(0x0000, struct.pack("<I", len(command))) + command
    n = len(command)
    return struct.pack(">BxIIBB", P_DATA_TF, n + 6, n + 2, context_id, 0x03) + command


def _associate(
    kind: int, called: str, calling: str, items: bytes, maximum_length: int, roles: bytes = b""
) -> bytes:
    user = _item(0x51, struct.pack(">I", maximum_length)) + _item(0x52, _IMPLEMENTATION) + roles
    body = (
        struct.pack(">H2x16s16s32x", 1, called.ljust(16).encode(), calling.ljust(16).encode())
        + items
        + _item(0x50, user)
    )
    return struct.pack(">BxI", kind, len(body)) + body


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def _items(data: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    while at + 4 <= len(data):
        kind, length = struct.unpack_from(">BxH", data, at)
        yield kind, data[at + 4 : at + 4 + length]
        at += 4 + length


def _element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, number, len(value)) + value


def _reference(reference: Reference, more: bytes = b"") -> bytes:
    sop_class, sop_instance = reference
    value = _tagged(0x00081150, _uid(sop_class)) + _tagged(0x00081155, _uid(sop_instance)) + more
    return _tagged(_SEQUENCE_ITEM, value)


def _tagged(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value


def _tags(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        if at + 8 > len(data):
            raise WireError(f"malformed data set at byte {at}")
        group, element, length = struct.unpack_from("<HHI", data, at)
        if at + 8 + length > len(data):
            raise WireError(f"malformed data set at byte {at}")
        yield group << 16 | element, data[at + 8 : at + 8 + length]
        at += 8 + length


def _text(value: bytes) -> str:
    return value.rstrip(b"\0 ").decode()


def _us(value: int) -> bytes:
    return struct.pack("<H", value)


def _uid(value: str) -> bytes:
    raw = value.encode()
    return raw + b"\0" * (len(raw) % 2)
