"""Just enough of PS3.8 and PS3.7 to send and to receive C-STORE, encoded by hand.

Shares nothing with the product on purpose: a mistake that both ends made alike would
otherwise never show.  Owns byte layouts; no sockets.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ = 0x01, 0x02, 0x03
P_DATA_TF, RELEASE_RQ, RELEASE_RP, ABORT = 0x04, 0x05, 0x06, 0x07

RELEASE_RQ_PDU = struct.pack(">BxI4x", RELEASE_RQ, 4)
RELEASE_RP_PDU = struct.pack(">BxI4x", RELEASE_RP, 4)
ABORT_PDU = struct.pack(">BxI4x", ABORT, 4)

EXPLICIT_LE = "1.2.840.10008.1.2.1"
_APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
_IMPLEMENTATION = b"2.25.1000"

C_STORE_RQ, C_STORE_RSP, C_ECHO_RQ, C_ECHO_RSP = 0x0001, 0x8001, 0x0030, 0x8030
_NO_DATA_SET = 0x0101


class WireError(Exception):
    """The peer refused, aborted or sent what this small implementation does not expect."""


@dataclass(frozen=True, slots=True)
class Context:
    """A presentation context: proposed with one abstract syntax, or accepted."""

    id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


def associate_rq(called: str, calling: str, contexts: list[Context], maximum_length: int) -> bytes:
    """A-ASSOCIATE-RQ (PS3.8 §9.3.2)."""
    items = _item(0x10, _APPLICATION_CONTEXT)
    for context in contexts:
        body = struct.pack(">B3x", context.id) + _item(0x30, context.abstract_syntax.encode())
        for syntax in context.transfer_syntaxes:
            body += _item(0x40, syntax.encode())
        items += _item(0x20, body)
    return _associate(ASSOCIATE_RQ, called, calling, items, maximum_length)


def associate_ac(rq: bytes, maximum_length: int) -> bytes:
    """A-ASSOCIATE-AC (PS3.8 §9.3.3): everything accepted, the first transfer syntax of each."""
    called, calling, contexts = parse_associate(rq)
    items = _item(0x10, _APPLICATION_CONTEXT)
    for context in contexts:
        syntax = _item(0x40, context.transfer_syntaxes[0].encode())
        items += _item(0x21, struct.pack(">BxBx", context.id, 0) + syntax)
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
    """The success response to a C-STORE-RQ or C-ECHO-RQ."""
    field = int.from_bytes(request[0x0100], "little") | 0x8000
    command = (
        _element(0x0002, request.get(0x0002, b""))
        + _element(0x0100, _us(field))
        + _element(0x0120, request[0x0110])
        + _element(0x0800, _us(_NO_DATA_SET))
        + _element(0x0900, _us(0))
    )
    if 0x1000 in request:
        command += _element(0x1000, request[0x1000])
    return _command_pdu(context_id, command)


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


def _associate(kind: int, called: str, calling: str, items: bytes, maximum_length: int) -> bytes:
    user = _item(0x51, struct.pack(">I", maximum_length)) + _item(0x52, _IMPLEMENTATION)
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


def _us(value: int) -> bytes:
    return struct.pack("<H", value)


def _uid(value: str) -> bytes:
    raw = value.encode()
    return raw + b"\0" * (len(raw) % 2)
