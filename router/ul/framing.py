"""Judges a PDU by its six header bytes, before a byte of it is kept.

Owns the caps on length and the words for what is not DICOM.  Must not know states.
"""

from router.ul.errors import AbortReason, RemoteProtocolError
from router.ul.foreign import describe_foreign
from router.ul.items import invalid
from router.ul.pdu import (
    A_ASSOCIATE_AC,
    A_ASSOCIATE_RQ,
    ASSOCIATE_MINIMUM,
    P_DATA_TF,
    PDU_HEADER,
    PDU_NAMES,
    PDV_HEADER,
    describe_pdu_type,
)

DEFAULT_PDU_CAP = 16 * 2**20
ASSOCIATE_CAP = 2**20  # 128 contexts of 40 transfer syntaxes are 340 KB


def check_header(header: bytes, *, data_limit: int, associate_limit: int, first: bool) -> None:
    """Raises RemoteProtocolError for an unknown type or a length that its type does not allow.

    ``first`` says that the peer has not spoken before: then it may be speaking something else.
    """
    kind, length = PDU_HEADER.unpack_from(header)
    name = PDU_NAMES.get(kind)
    if name is None:
        what = (describe_foreign(header) if first else "") or f"unknown {describe_pdu_type(kind)}"
        raise RemoteProtocolError(
            f"{what} (first bytes {header.hex(' ')})", reason=AbortReason.UNRECOGNIZED_PDU
        )
    if kind == P_DATA_TF:
        check_data_length(length, data_limit)
    elif kind in (A_ASSOCIATE_RQ, A_ASSOCIATE_AC):
        if length > associate_limit:
            raise invalid(f"{name} of {length} bytes, at most {associate_limit} are taken")
        if length < ASSOCIATE_MINIMUM:
            raise invalid(f"{name} of {length} bytes, it has {ASSOCIATE_MINIMUM} at least")
    elif length != 4:
        raise invalid(f"{name} of {length} bytes, it has 4")


def check_data_length(length: int, limit: int) -> None:
    """The same for P-DATA-TF alone; ``limit`` is in bytes of its variable field."""
    if length > limit:
        raise invalid(f"P-DATA-TF of {length} bytes, at most {limit} are taken")
    if length < PDV_HEADER.size:
        raise invalid(f"P-DATA-TF of {length} bytes, too short for a presentation data value")
