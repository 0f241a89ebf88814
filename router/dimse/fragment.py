"""Cutting messages into P-DATA-TF PDUs.

Owns the arithmetic of the peer's maximum length.  Must not know what the bytes mean, nor where a
data set comes from: `DataSetFramer` leaves gaps for it.  PS3.8 §9.3.5, Annexes D.1 and E.

The maximum length counts what follows the PDU's 6-byte header: for each PDV 4 bytes of length,
1 of context id, 1 of message control header, and the fragment.
"""

import struct

from router.ul.errors import LocalProtocolError

PDU_CAP = 1024 * 1024
"""Variable field of our P-DATA-TF PDUs at most, however much the peer allows."""

HEADER_LENGTH = 12
"""Bytes before the fragment in a PDU with one PDV."""

_PDU_TYPE = 0x04
_PDU_HEADER = struct.Struct(">BxI")
_PDV_HEADER = struct.Struct(">IBB")
_HEADERS = struct.Struct(">BxIIBB")
_COMMAND = 0x01
_LAST = 0x02

_LONGEST_GAP_LIST = 512
"""Half of what Linux takes in one preadv (IOV_MAX is 1024)."""

_SHORTEST_CUT = 4096
"""A PDU is cut short to fill up a buffer only when its fragment keeps at least this length."""


def fragment_room(maximum_length: int, cap: int = PDU_CAP) -> int:
    """Longest fragment, even, that a PDU with one PDV may hold.

    ``maximum_length`` is the peer's, 0 for unlimited.  Raises LocalProtocolError when there is no
    room for a fragment of two bytes.
    """
    limit = min(maximum_length, cap) if maximum_length else cap
    if limit < 8:
        raise LocalProtocolError(
            f"a maximum length of {limit} has no room for a PDV: the least that can be used is 8"
        )
    return (limit - 6) & ~1


def encode_message(
    context_id: int,
    command: bytes,
    data: bytes | bytearray | memoryview | None,
    maximum_length: int,
    *,
    one_pdv_per_pdu: bool = True,
    cap: int = PDU_CAP,
) -> bytes:
    """The P-DATA-TF PDUs of a message that lies in memory; ``data`` is None without a data set.

    ``one_pdv_per_pdu=False`` lets command and data set share a PDU, which some peers refuse.
    Raises LocalProtocolError as `fragment_room`.
    """
    room = fragment_room(maximum_length, cap)
    if data is None and len(command) <= room:
        return _one_pdu(context_id, _COMMAND | _LAST, command)
    limit = room + 6
    pdus = bytearray()
    body = bytearray()
    for kind, value in ((_COMMAND, command), (0, data)):
        if value is None:
            continue
        view = memoryview(value)
        while True:
            free = (limit - len(body) - 6) & ~1
            if free < 2:
                _flush(pdus, body)
                continue
            piece, view = view[:free], view[free:]
            control = kind if len(view) else kind | _LAST
            body += _PDV_HEADER.pack(len(piece) + 2, context_id, control)
            body += piece
            if one_pdv_per_pdu:
                _flush(pdus, body)
            if not len(view):
                break
    _flush(pdus, body)
    return bytes(pdus)


def encode_command_pdu(
    context_id: int, command: bytes, maximum_length: int, cap: int = PDU_CAP
) -> bytes:
    """The PDUs, nearly always one, of a command set alone: what goes before a data set's."""
    return encode_message(context_id, command, None, maximum_length, cap=cap)


def _one_pdu(context_id: int, control: int, piece: bytes) -> bytes:
    length = len(piece)
    return _HEADERS.pack(_PDU_TYPE, length + 6, length + 2, context_id, control) + piece


def _flush(pdus: bytearray, body: bytearray) -> None:
    if body:
        pdus += _PDU_HEADER.pack(_PDU_TYPE, len(body))
        pdus += body
        body.clear()


class DataSetFramer:
    """Lays the headers of a data set's P-DATA-TF PDUs, so that its bytes are read into place.

    ``length`` is that of the data set, of which 0 makes one empty last fragment; the other
    arguments are those of `fragment_room`, which may raise LocalProtocolError.
    """

    __slots__ = ("_context_id", "_done", "_remaining", "_room")

    def __init__(
        self, context_id: int, length: int, maximum_length: int, cap: int = PDU_CAP
    ) -> None:
        if length < 0:
            raise LocalProtocolError(f"a data set has no length of {length}")
        self._context_id = context_id
        self._remaining = length
        self._room = fragment_room(maximum_length, cap)
        self._done = False

    @property
    def remaining(self) -> int:
        """Bytes of the data set that no gap was laid out for yet."""
        return self._remaining

    @property
    def done(self) -> bool:
        """Whether the last fragment was laid out; an empty data set needs one `fill` too."""
        return self._done

    def fill(self, buffer: memoryview) -> tuple[int, list[memoryview]]:
        """Stamp headers into ``buffer``: bytes used, and the gaps to fill in, in order.

        PDUs never continue in the next buffer; the last may be cut short to use the space.  Once
        done, (0, []).  Raises LocalProtocolError when not even a short one fits; 14 bytes do.
        """
        gaps: list[memoryview] = []
        if self._done:
            return 0, gaps
        context_id, remaining, room = self._context_id, self._remaining, self._room
        size = len(buffer)
        at = 0
        while len(gaps) < _LONGEST_GAP_LIST:
            start = at + HEADER_LENGTH
            length = room if room < remaining else remaining
            if start + length > size:
                length = (size - start) & ~1
                if at and length < _SHORTEST_CUT:
                    break
                if length < 2:
                    raise LocalProtocolError(f"a buffer of {size} bytes holds no P-DATA-TF PDU")
            remaining -= length
            control = 0 if remaining else _LAST
            _HEADERS.pack_into(buffer, at, _PDU_TYPE, length + 6, length + 2, context_id, control)
            at = start + length
            if length:
                gaps.append(buffer[start:at])
            if not remaining:
                self._done = True
                break
        self._remaining = remaining
        return at, gaps
