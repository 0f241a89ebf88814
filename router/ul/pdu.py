"""The seven PDUs of PS3.8 §9.3: values, encoding and decoding, and their codes in words.

Owns the layout of whole PDUs.  Must not know states or sockets; a connection does not use
`decode_pdu` for P-DATA-TF, whose bytes it hands on as they come.
"""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from router.ul import items
from router.ul.errors import (
    AbortReason,
    AbortSource,
    LocalProtocolError,
    RemoteProtocolError,
)
from router.ul.items import (
    MAX_CONTEXTS,
    PresentationContextAC,
    PresentationContextRQ,
    Reader,
    UserInformation,
    invalid,
)

APPLICATION_CONTEXT_NAME = "1.2.840.10008.3.1.1.1"

A_ASSOCIATE_RQ = 0x01
A_ASSOCIATE_AC = 0x02
A_ASSOCIATE_RJ = 0x03
P_DATA_TF = 0x04
A_RELEASE_RQ = 0x05
A_RELEASE_RP = 0x06
A_ABORT = 0x07

PDU_NAMES = {
    A_ASSOCIATE_RQ: "A-ASSOCIATE-RQ",
    A_ASSOCIATE_AC: "A-ASSOCIATE-AC",
    A_ASSOCIATE_RJ: "A-ASSOCIATE-RJ",
    P_DATA_TF: "P-DATA-TF",
    A_RELEASE_RQ: "A-RELEASE-RQ",
    A_RELEASE_RP: "A-RELEASE-RP",
    A_ABORT: "A-ABORT",
}

PDU_HEADER = struct.Struct(">BxI")  # type, reserved, length of what follows
PDV_HEADER = struct.Struct(">IBB")  # length of the next two and the value, context ID, control
_ASSOCIATE_FIXED = struct.Struct(">H2x16s16s32x")
ASSOCIATE_MINIMUM = _ASSOCIATE_FIXED.size  # of the variable field of A-ASSOCIATE-RQ and -AC
_CONTROL_BYTES = re.compile("[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class AAssociateRQ:
    """PS3.8 §9.3.2.  Titles come without padding, "" when there was nothing else.

    The ``raw_…`` titles are the 16 bytes as they came, for the log; they are never sent.
    """

    called_ae_title: str
    calling_ae_title: str
    presentation_contexts: tuple[PresentationContextRQ, ...]
    user_information: UserInformation
    application_context: str = APPLICATION_CONTEXT_NAME
    protocol_version: int = 1
    raw_called_ae_title: bytes = field(default=b"", compare=False)
    raw_calling_ae_title: bytes = field(default=b"", compare=False)


@dataclass(frozen=True, slots=True)
class AAssociateAC:
    """PS3.8 §9.3.3.  The titles repeat those of the request and are not to be tested."""

    called_ae_title: str
    calling_ae_title: str
    presentation_contexts: tuple[PresentationContextAC, ...]
    user_information: UserInformation
    application_context: str = APPLICATION_CONTEXT_NAME
    protocol_version: int = 1
    raw_called_ae_title: bytes = field(default=b"", compare=False)
    raw_calling_ae_title: bytes = field(default=b"", compare=False)


@dataclass(frozen=True, slots=True)
class AAssociateRJ:
    """PS3.8 §9.3.4, codes in table 9-21; see `describe_rejection`."""

    result: int
    source: int
    reason: int

    @property
    def transient(self) -> bool:
        """The peer says that a later attempt may succeed."""
        return self.result == 2


@dataclass(frozen=True, slots=True)
class PDV:
    """One presentation data value (PS3.8 §9.3.5.1).

    ``control`` is the message control header of §E.2: bit 0 command, bit 1 last fragment.
    """

    context_id: int
    control: int
    data: bytes


@dataclass(frozen=True, slots=True)
class PDataTF:
    """PS3.8 §9.3.5."""

    pdvs: tuple[PDV, ...]


@dataclass(frozen=True, slots=True)
class AReleaseRQ:
    """PS3.8 §9.3.6."""


@dataclass(frozen=True, slots=True)
class AReleaseRP:
    """PS3.8 §9.3.7."""


@dataclass(frozen=True, slots=True)
class AAbort:
    """PS3.8 §9.3.8, codes in table 9-26; see `describe_abort`."""

    source: int
    reason: int


def abort_pdu(source: AbortSource, reason: AbortReason) -> AAbort:
    """The reason is 0 when the service user aborts (PS3.8 table 9-26)."""
    return AAbort(int(source), int(reason) if source == AbortSource.SERVICE_PROVIDER else 0)


PDU = AAssociateRQ | AAssociateAC | AAssociateRJ | PDataTF | AReleaseRQ | AReleaseRP | AAbort

_REJECT_RESULTS = {1: "rejected permanently", 2: "rejected for now"}
_REJECT_SOURCES = {
    1: "by the peer's application",
    2: "by the peer's upper layer (ACSE)",
    3: "by the peer's upper layer (presentation)",
}
_REJECT_REASONS = {
    (1, 1): "no reason given",
    (1, 2): "application context name not supported",
    (1, 3): "calling AE title not recognised",
    (1, 7): "called AE title not recognised",
    (2, 1): "no reason given",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}
_ABORT_SOURCES = {0: "the peer's application", 2: "the peer's upper layer"}
_ABORT_REASONS = {
    0: "no reason given",
    1: "unrecognised PDU",
    2: "unexpected PDU",
    4: "unrecognised PDU parameter",
    5: "unexpected PDU parameter",
    6: "invalid PDU parameter value",
}


def describe_rejection(result: int, source: int, reason: int) -> str:
    """An A-ASSOCIATE-RJ in words, with its numbers (PS3.8 table 9-21)."""
    return (
        f"{_REJECT_RESULTS.get(result, 'rejected with an unknown result')} "
        f"{_REJECT_SOURCES.get(source, 'by an unknown source')}: "
        f"{_REJECT_REASONS.get((source, reason), 'unknown reason')} "
        f"(result {result}, source {source}, reason {reason})"
    )


def describe_abort(source: int, reason: int) -> str:
    """An A-ABORT in words, with its numbers (PS3.8 table 9-26)."""
    by = _ABORT_SOURCES.get(source, "an unknown source")
    why = _ABORT_REASONS.get(reason, "unknown reason")
    if source == AbortSource.SERVICE_USER:
        why = _ABORT_REASONS[0]  # the field means nothing when the user aborts
    return f"aborted by {by}: {why} (source {source}, reason {reason})"


def describe_pdu_type(kind: int) -> str:
    """The name of a PDU type, or its number."""
    return PDU_NAMES.get(kind, f"PDU of type {kind:02X}H")


def clean_ae_title(raw: bytes) -> str:
    """What a title field means: padding and control bytes left out, cut at an embedded NUL.

    Senders that copy C strings pad with NULs and leave behind them what was there before.
    """
    title = raw.lstrip(b"\x00 ").split(b"\x00", 1)[0].decode("latin-1")
    return _CONTROL_BYTES.sub("", title).strip(" ")


def encode_pdu(pdu: PDU) -> bytes:
    """The bytes of a PDU.  Raises LocalProtocolError for values that have no encoding."""
    kind, encode = _ENCODERS[type(pdu)]
    try:
        value = encode(pdu)
    except (struct.error, ValueError) as error:  # a number or a character that does not fit
        raise LocalProtocolError(f"{PDU_NAMES[kind]} cannot be encoded: {error}") from error
    return PDU_HEADER.pack(kind, len(value)) + value


def _encode_associate(pdu: AAssociateRQ | AAssociateAC) -> bytes:
    if len(pdu.presentation_contexts) > MAX_CONTEXTS:
        raise LocalProtocolError(
            f"{len(pdu.presentation_contexts)} presentation contexts, at most {MAX_CONTEXTS} fit"
        )
    ids = {context.id for context in pdu.presentation_contexts}
    if len(ids) != len(pdu.presentation_contexts):
        raise LocalProtocolError("two presentation contexts have the same ID")
    contexts = (
        items.encode_context_rq(context)
        if isinstance(context, PresentationContextRQ)
        else items.encode_context_ac(context)
        for context in pdu.presentation_contexts
    )
    return b"".join(
        (
            _ASSOCIATE_FIXED.pack(
                pdu.protocol_version,
                _title_field(pdu.called_ae_title),
                _title_field(pdu.calling_ae_title),
            ),
            items.encode_text(items.APPLICATION_CONTEXT, pdu.application_context),
            *contexts,
            items.encode_user_information(pdu.user_information),
        )
    )


def _title_field(title: str) -> bytes:
    value = title.encode("latin-1")
    if len(value) > 16:
        raise LocalProtocolError(f"AE title {title!r} is over 16 characters")
    return value.ljust(16)


def _encode_rejection(pdu: AAssociateRJ) -> bytes:
    return bytes((0, pdu.result, pdu.source, pdu.reason))


def _encode_data(pdu: PDataTF) -> bytes:
    return b"".join(
        PDV_HEADER.pack(len(pdv.data) + 2, pdv.context_id, pdv.control) + pdv.data
        for pdv in pdu.pdvs
    )


def _encode_empty(_pdu: AReleaseRQ | AReleaseRP) -> bytes:
    return bytes(4)


def _encode_abort(pdu: AAbort) -> bytes:
    return bytes((0, 0, pdu.source, pdu.reason))


def decode_pdu(data: bytes | memoryview) -> PDU:
    """The PDU of exactly these bytes, header included.

    Raises RemoteProtocolError, and nothing else, whatever the bytes are.
    """
    data = bytes(data)
    if len(data) < PDU_HEADER.size:
        raise invalid(f"{len(data)} bytes are no PDU, its header has {PDU_HEADER.size}")
    kind, length = PDU_HEADER.unpack_from(data)
    decode = _DECODERS.get(kind)
    if decode is None:
        raise RemoteProtocolError(
            f"unknown {describe_pdu_type(kind)}", reason=AbortReason.UNRECOGNIZED_PDU
        )
    if length != len(data) - PDU_HEADER.size:
        raise invalid(
            f"{describe_pdu_type(kind)} says {length} bytes, has {len(data) - PDU_HEADER.size}"
        )
    return decode(data)


def _decode_associate_rq(data: bytes) -> AAssociateRQ:
    contexts: list[PresentationContextRQ] = []
    version, called, calling, name, information = _decode_associate(
        data,
        "A-ASSOCIATE-RQ",
        items.PRESENTATION_CONTEXT_RQ,
        lambda reader, start, end: contexts.append(items.decode_context_rq(reader, start, end)),
    )
    if len({context.id for context in contexts}) != len(contexts):
        raise invalid("A-ASSOCIATE-RQ: two presentation contexts have the same ID")
    return AAssociateRQ(
        clean_ae_title(called),
        clean_ae_title(calling),
        tuple(contexts),
        information,
        name,
        version,
        called,
        calling,
    )


def _decode_associate_ac(data: bytes) -> AAssociateAC:
    contexts: list[PresentationContextAC] = []
    version, called, calling, name, information = _decode_associate(
        data,
        "A-ASSOCIATE-AC",
        items.PRESENTATION_CONTEXT_AC,
        lambda reader, start, end: contexts.append(items.decode_context_ac(reader, start, end)),
    )
    return AAssociateAC(
        clean_ae_title(called),
        clean_ae_title(calling),
        tuple(contexts),
        information,
        name,
        version,
        called,
        calling,
    )


def _decode_associate(
    data: bytes, what: str, context_kind: int, add: Callable[[Reader, int, int], None]
) -> tuple[int, bytes, bytes, str, UserInformation]:
    """Version, titles, application context and user information; contexts go to ``add``."""
    start = PDU_HEADER.size + _ASSOCIATE_FIXED.size
    if len(data) < start:
        raise invalid(f"{what} of {len(data)} bytes, its fixed fields alone have {start}")
    version, called, calling = _ASSOCIATE_FIXED.unpack_from(data, PDU_HEADER.size)
    name = ""
    information = UserInformation()
    count = 0
    reader = Reader(data)
    for kind, first, last in reader.items(start, len(data), what):
        if kind == context_kind:
            count += 1
            if count <= MAX_CONTEXTS:
                add(reader, first, last)
        elif kind == items.APPLICATION_CONTEXT:
            name = items.text(data[first:last])
        elif kind == items.USER_INFORMATION:
            information = items.decode_user_information(reader, first, last)
        # Others are of later versions of the standard and to be ignored (PS3.8 §9.3.1).
    if count > MAX_CONTEXTS:
        raise invalid(f"{what}: {count} presentation contexts, at most {MAX_CONTEXTS} are possible")
    return version, called, calling, name, information


def _four_bytes(data: bytes) -> bytes:
    """The variable field of the PDUs that have four bytes there."""
    if len(data) != PDU_HEADER.size + 4:
        raise invalid(
            f"{describe_pdu_type(data[0])} says {len(data) - PDU_HEADER.size} bytes, it has 4"
        )
    return data[PDU_HEADER.size :]


def _decode_rejection(data: bytes) -> AAssociateRJ:
    return AAssociateRJ(*_four_bytes(data)[1:])


def _decode_data(data: bytes) -> PDataTF:
    pdvs = []
    pos = PDU_HEADER.size
    if pos == len(data):
        raise invalid("P-DATA-TF without a presentation data value")
    while pos < len(data):
        if len(data) - pos < PDV_HEADER.size:
            raise invalid(f"P-DATA-TF: {len(data) - pos} stray bytes at byte {pos}")
        length, context_id, control = PDV_HEADER.unpack_from(data, pos)
        check_pdv_length(length, len(data) - pos)
        pdvs.append(PDV(context_id, control, data[pos + PDV_HEADER.size : pos + 4 + length]))
        pos += 4 + length
    return PDataTF(tuple(pdvs))


def check_pdv_length(length: int, left: int) -> None:
    """Whether a PDV item of this length field fits the ``left`` bytes of its PDU.

    Raises RemoteProtocolError.  Odd lengths break PS3.8 §9.3.5.1, and are harmless.
    """
    if length < 2:
        raise invalid(f"presentation data value of length {length}, its header alone has 2")
    if length + 4 > left:
        raise invalid(f"presentation data value of length {length} in a PDU with {left} bytes left")


def _decode_release_rq(data: bytes) -> AReleaseRQ:
    _four_bytes(data)
    return AReleaseRQ()


def _decode_release_rp(data: bytes) -> AReleaseRP:
    _four_bytes(data)
    return AReleaseRP()


def _decode_abort(data: bytes) -> AAbort:
    return AAbort(*_four_bytes(data)[2:])


_DECODERS: dict[int, Callable[[bytes], PDU]] = {
    A_ASSOCIATE_RQ: _decode_associate_rq,
    A_ASSOCIATE_AC: _decode_associate_ac,
    A_ASSOCIATE_RJ: _decode_rejection,
    P_DATA_TF: _decode_data,
    A_RELEASE_RQ: _decode_release_rq,
    A_RELEASE_RP: _decode_release_rp,
    A_ABORT: _decode_abort,
}

_ENCODERS: dict[type, tuple[int, Callable[..., bytes]]] = {
    AAssociateRQ: (A_ASSOCIATE_RQ, _encode_associate),
    AAssociateAC: (A_ASSOCIATE_AC, _encode_associate),
    AAssociateRJ: (A_ASSOCIATE_RJ, _encode_rejection),
    PDataTF: (P_DATA_TF, _encode_data),
    AReleaseRQ: (A_RELEASE_RQ, _encode_empty),
    AReleaseRP: (A_RELEASE_RP, _encode_empty),
    AAbort: (A_ABORT, _encode_abort),
}
