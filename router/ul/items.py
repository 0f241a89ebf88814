"""Items and sub-items of the A-ASSOCIATE PDUs: presentation contexts and user information.

Owns their values and their encoding (PS3.8 §9.3.2, §9.3.3 and annex D; PS3.7 annex D.3.3).  Must
not know PDUs, states, or which values are agreed on.

Reading is strict about lengths and bounded in count, and lenient about text: UIDs and names lose
their padding and are read as Latin-1, which no byte breaks and which encodes back as it came.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from router.ul.errors import AbortReason, LocalProtocolError, RemoteProtocolError

MAX_CONTEXTS = 128  # presentation context IDs are the odd numbers of one byte
MAX_ITEMS = 8192  # in one PDU at all levels; 128 contexts of 40 syntaxes need 5,500
USER_ITEM_WEIGHT = 8  # a sub-item of user information takes that many times as long to read

APPLICATION_CONTEXT = 0x10
PRESENTATION_CONTEXT_RQ = 0x20
PRESENTATION_CONTEXT_AC = 0x21
ABSTRACT_SYNTAX = 0x30
TRANSFER_SYNTAX = 0x40
USER_INFORMATION = 0x50

_ITEM_HEADER = struct.Struct(">BxH")


class UserItem(IntEnum):
    """Types of the user-information sub-items (PS3.8 annex D.1, PS3.7 annex D.3.3)."""

    MAXIMUM_LENGTH = 0x51
    IMPLEMENTATION_CLASS_UID = 0x52
    ASYNCHRONOUS_OPERATIONS = 0x53
    ROLE_SELECTION = 0x54
    IMPLEMENTATION_VERSION_NAME = 0x55
    EXTENDED = 0x56
    COMMON_EXTENDED = 0x57
    USER_IDENTITY_RQ = 0x58
    USER_IDENTITY_AC = 0x59


@dataclass(frozen=True, slots=True)
class PresentationContextRQ:
    """A proposal (PS3.8 §9.3.2.2).  A peer's may lack its abstract or its transfer syntaxes."""

    id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PresentationContextAC:
    """The answer to a proposal (PS3.8 §9.3.3.2, results in table 9-18).

    ``transfer_syntax`` is "" when the sub-item is missing, and means nothing unless ``result``
    is 0.
    """

    id: int
    result: int
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class RoleSelection:
    """PS3.7 §D.3.3.4: the roles of the requestor, proposed or (in the answer) agreed to."""

    sop_class_uid: str
    scu: bool
    scp: bool


@dataclass(frozen=True, slots=True)
class ExtendedNegotiation:
    """PS3.7 §D.3.3.5: service-class application information, kept as bytes."""

    sop_class_uid: str
    data: bytes


@dataclass(frozen=True, slots=True)
class CommonExtendedNegotiation:
    """PS3.7 §D.3.3.6."""

    sop_class_uid: str
    service_class_uid: str
    related: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class UserIdentityRQ:
    """PS3.7 §D.3.3.7: 1 name, 2 name and passcode, 3 Kerberos ticket, 4 SAML, 5 JSON web token."""

    type: int
    positive_response_requested: bool
    primary: bytes
    secondary: bytes = b""

    def __repr__(self) -> str:
        # The fields are credentials and reach tracebacks and logs only by their size.
        return (
            f"UserIdentityRQ(type={self.type}, "
            f"positive_response_requested={self.positive_response_requested}, "
            f"primary=<{len(self.primary)} bytes>, secondary=<{len(self.secondary)} bytes>)"
        )


@dataclass(frozen=True, slots=True)
class UserInformation:
    """The user-information item (PS3.8 §9.3.2.3); of several sub-items of a kind the last counts.

    ``maximum_length`` is the longest variable field of a P-DATA-TF that its sender takes, in
    bytes; 0 is unlimited, and what a missing sub-item is read as.  ``asynchronous_operations``
    is (invoked, performed), 0 being unlimited.  ``unknown`` keeps the others as (type, value).
    """

    maximum_length: int = 0
    implementation_class_uid: str = ""
    implementation_version_name: str = ""
    asynchronous_operations: tuple[int, int] | None = None
    role_selections: tuple[RoleSelection, ...] = ()
    extended: tuple[ExtendedNegotiation, ...] = ()
    common_extended: tuple[CommonExtendedNegotiation, ...] = ()
    user_identity: UserIdentityRQ | None = None
    user_identity_response: bytes | None = None
    unknown: tuple[tuple[int, bytes], ...] = ()


def invalid(message: str) -> RemoteProtocolError:
    """An error that is answered with "invalid PDU parameter value"."""
    return RemoteProtocolError(message, reason=AbortReason.INVALID_PDU_PARAMETER)


class Cursor:
    """Reads the fields of one item; ``pos`` and ``end`` are byte positions in the whole PDU.

    Every reader raises RemoteProtocolError where the item is too short.
    """

    __slots__ = ("_data", "_what", "end", "pos")

    def __init__(self, data: bytes, pos: int, end: int, what: str) -> None:
        self._data = data
        self._what = what
        self.pos = pos
        self.end = end

    def take(self, size: int) -> bytes:
        start, stop = self.pos, self.pos + size
        if stop > self.end:
            raise invalid(
                f"{self._what}: a field of {size} bytes at byte {start}, "
                f"where {self.end - start} are left"
            )
        self.pos = stop
        return self._data[start:stop]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def prefixed(self) -> bytes:
        """A field that its length, in two bytes, comes before."""
        return self.take(self.number(2))

    def rest(self) -> bytes:
        return self.take(self.end - self.pos)

    def done(self) -> None:
        if self.pos != self.end:
            raise invalid(f"{self._what}: {self.end - self.pos} bytes too many at byte {self.pos}")


class Reader:
    """Walks over the items of one PDU and keeps count of them, so that time is bounded."""

    __slots__ = ("_left", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._left = MAX_ITEMS

    def count(self, weight: int = 1) -> None:
        """One item more, or as good as ``weight``.  Raises RemoteProtocolError above MAX_ITEMS."""
        self._left -= weight
        if self._left < 0:
            raise invalid(
                f"more than {MAX_ITEMS} items in one PDU, those of user information counted as "
                f"{USER_ITEM_WEIGHT} each"
            )

    def items(self, pos: int, end: int, what: str) -> Iterator[tuple[int, int, int]]:
        """Type, start and end of each item between two positions.  Raises RemoteProtocolError."""
        while pos < end:
            if end - pos < 4:
                raise invalid(f"{what}: {end - pos} stray bytes at byte {pos}, an item has 4")
            self.count()
            kind, length = _ITEM_HEADER.unpack_from(self.data, pos)
            start = pos + 4
            pos = start + length
            if pos > end:
                raise invalid(
                    f"{what}: item {kind:02X}H at byte {start - 4} is {length} bytes long, "
                    f"where {end - start} are left"
                )
            yield kind, start, pos


def text(value: bytes) -> str:
    """A UID or name without its padding."""
    return value.strip(b"\x00 ").decode("latin-1")


def encode_item(kind: int, value: bytes) -> bytes:
    """Item header and value.  Raises LocalProtocolError above 65,535 bytes."""
    if len(value) > 0xFFFF:
        raise LocalProtocolError(f"item {kind:02X}H of {len(value)} bytes, at most 65535 fit")
    return _ITEM_HEADER.pack(kind, len(value)) + value


def encode_text(kind: int, value: str) -> bytes:
    """An item whose value is a UID or a name."""
    return encode_item(kind, value.encode("latin-1"))


def _prefixed(value: bytes) -> bytes:
    return struct.pack(">H", len(value)) + value


def decode_context_rq(reader: Reader, start: int, end: int) -> PresentationContextRQ:
    """PS3.8 §9.3.2.2; raises RemoteProtocolError."""
    fields = Cursor(reader.data, start, end, "presentation context item")
    context_id = _context_id(fields)
    fields.take(3)
    abstract_syntax = ""
    transfer_syntaxes: list[str] = []
    for kind, first, last in reader.items(fields.pos, end, f"presentation context {context_id}"):
        if kind == ABSTRACT_SYNTAX:
            abstract_syntax = text(reader.data[first:last])
        elif kind == TRANSFER_SYNTAX:
            transfer_syntaxes.append(text(reader.data[first:last]))
    return PresentationContextRQ(context_id, abstract_syntax, tuple(transfer_syntaxes))


def encode_context_rq(context: PresentationContextRQ) -> bytes:
    _check_context_id(context.id)
    parts = [struct.pack(">Bxxx", context.id)]
    if context.abstract_syntax:
        parts.append(encode_text(ABSTRACT_SYNTAX, context.abstract_syntax))
    parts += [encode_text(TRANSFER_SYNTAX, uid) for uid in context.transfer_syntaxes]
    return encode_item(PRESENTATION_CONTEXT_RQ, b"".join(parts))


def decode_context_ac(reader: Reader, start: int, end: int) -> PresentationContextAC:
    """PS3.8 §9.3.3.2; raises RemoteProtocolError."""
    fields = Cursor(reader.data, start, end, "presentation context item")
    context_id = _context_id(fields)
    fields.take(1)
    result = fields.number(1)
    fields.take(1)
    transfer_syntax = ""
    for kind, first, last in reader.items(fields.pos, end, f"presentation context {context_id}"):
        if kind == TRANSFER_SYNTAX:
            transfer_syntax = text(reader.data[first:last])
    return PresentationContextAC(context_id, result, transfer_syntax)


def encode_context_ac(context: PresentationContextAC) -> bytes:
    _check_context_id(context.id)
    value = struct.pack(">BxBx", context.id, context.result)
    if context.transfer_syntax:
        value += encode_text(TRANSFER_SYNTAX, context.transfer_syntax)
    return encode_item(PRESENTATION_CONTEXT_AC, value)


def _context_id(fields: Cursor) -> int:
    at = fields.pos
    context_id = fields.number(1)
    if not context_id & 1:
        raise invalid(f"presentation context ID {context_id} at byte {at} is not odd")
    return context_id


def _check_context_id(context_id: int) -> None:
    if not (context_id & 1 and 0 < context_id < 256):
        raise LocalProtocolError(f"presentation context ID {context_id} is not odd, 1 to 255")


def decode_user_information(reader: Reader, start: int, end: int) -> UserInformation:
    """PS3.8 §9.3.2.3; raises RemoteProtocolError."""
    plain: dict[str, Any] = {}
    roles: list[RoleSelection] = []
    extended: list[ExtendedNegotiation] = []
    common: list[CommonExtendedNegotiation] = []
    unknown: list[tuple[int, bytes]] = []
    for kind, first, last in reader.items(start, end, "user information"):
        reader.count(USER_ITEM_WEIGHT - 1)
        fields = Cursor(reader.data, first, last, f"user information item {kind:02X}H")
        match kind:
            case UserItem.MAXIMUM_LENGTH:
                plain["maximum_length"] = fields.number(4)
            case UserItem.IMPLEMENTATION_CLASS_UID:
                plain["implementation_class_uid"] = text(fields.rest())
            case UserItem.ASYNCHRONOUS_OPERATIONS:
                plain["asynchronous_operations"] = (fields.number(2), fields.number(2))
            case UserItem.ROLE_SELECTION:
                uid = text(fields.prefixed())
                # 0 and 1 are defined; another value of a byte is read as C reads it: true.
                roles.append(RoleSelection(uid, bool(fields.number(1)), bool(fields.number(1))))
            case UserItem.IMPLEMENTATION_VERSION_NAME:
                plain["implementation_version_name"] = text(fields.rest())
            case UserItem.EXTENDED:
                extended.append(ExtendedNegotiation(text(fields.prefixed()), fields.rest()))
            case UserItem.COMMON_EXTENDED:
                common.append(_decode_common_extended(reader, fields))
            case UserItem.USER_IDENTITY_RQ:
                plain["user_identity"] = UserIdentityRQ(
                    fields.number(1), bool(fields.number(1)), fields.prefixed(), fields.prefixed()
                )
            case UserItem.USER_IDENTITY_AC:
                plain["user_identity_response"] = fields.prefixed()
            case _:
                unknown.append((kind, fields.rest()))
        fields.done()
    return UserInformation(
        **plain,
        role_selections=tuple(roles),
        extended=tuple(extended),
        common_extended=tuple(common),
        unknown=tuple(unknown),
    )


def _decode_common_extended(reader: Reader, fields: Cursor) -> CommonExtendedNegotiation:
    sop_class_uid = text(fields.prefixed())
    service_class_uid = text(fields.prefixed())
    listed = fields.prefixed()
    inner = Cursor(listed, 0, len(listed), "related general SOP classes")
    related = []
    while inner.pos < inner.end:
        reader.count()
        related.append(text(inner.prefixed()))
    fields.rest()  # reserved by the standard for what later versions append
    return CommonExtendedNegotiation(sop_class_uid, service_class_uid, tuple(related))


def encode_user_information(information: UserInformation) -> bytes:
    """PS3.8 §9.3.2.3, sub-items in the order of their types.  Raises LocalProtocolError."""
    parts = [encode_item(UserItem.MAXIMUM_LENGTH, struct.pack(">I", information.maximum_length))]
    if uid := information.implementation_class_uid:
        parts.append(encode_text(UserItem.IMPLEMENTATION_CLASS_UID, uid))
    if (window := information.asynchronous_operations) is not None:
        parts.append(encode_item(UserItem.ASYNCHRONOUS_OPERATIONS, struct.pack(">HH", *window)))
    for role in information.role_selections:
        value = _prefixed(role.sop_class_uid.encode("latin-1")) + bytes((role.scu, role.scp))
        parts.append(encode_item(UserItem.ROLE_SELECTION, value))
    if name := information.implementation_version_name:
        if len(name) > 16:
            raise LocalProtocolError(f"implementation version name {name!r} is over 16 characters")
        parts.append(encode_text(UserItem.IMPLEMENTATION_VERSION_NAME, name))
    for negotiation in information.extended:
        value = _prefixed(negotiation.sop_class_uid.encode("latin-1")) + negotiation.data
        parts.append(encode_item(UserItem.EXTENDED, value))
    for common in information.common_extended:
        related = b"".join(_prefixed(uid.encode("latin-1")) for uid in common.related)
        uids = (common.sop_class_uid, common.service_class_uid)
        value = b"".join(_prefixed(uid.encode("latin-1")) for uid in uids) + _prefixed(related)
        parts.append(encode_item(UserItem.COMMON_EXTENDED, value))
    if (identity := information.user_identity) is not None:
        head = bytes((identity.type, identity.positive_response_requested))
        value = head + _prefixed(identity.primary) + _prefixed(identity.secondary)
        parts.append(encode_item(UserItem.USER_IDENTITY_RQ, value))
    if (response := information.user_identity_response) is not None:
        parts.append(encode_item(UserItem.USER_IDENTITY_AC, _prefixed(response)))
    parts += [encode_item(kind, value) for kind, value in information.unknown]
    return encode_item(USER_INFORMATION, b"".join(parts))
