"""The head of a DICOM file: preamble, prefix and file meta information.

Owns writing it for a data set that is kept as sent, and reading it however it was written.  Must
not know the spool or the network, and leaves the data set itself to `scan`.

PS3.10 §7.1 (file meta information); read with more tolerance than that asks for.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from router.dicom import elements
from router.dicom.elements import HEADER, LONG_HEADER, UNDEFINED, BadHeader, show
from router.dicom.errors import DicomError
from router.dicom.scan import Scanner
from router.dicom.uids import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

_PREFIX_AT = 128
_META_GROUP = 2
_MEDIA_SOP_CLASS = 0x00020002
_MEDIA_SOP_INSTANCE = 0x00020003
_TRANSFER_SYNTAX = 0x00020010
_SOP_CLASS = 0x00080016
_SOP_INSTANCE = 0x00080018
_UID_LIMIT = 1024  # far above the 64 of PS3.5 §9.1: what is wrong in a value is not our concern
_META_LIMIT = 16 * 1024 * 1024
_PIECE = 64 * 1024


@dataclass(frozen=True, slots=True)
class FileMeta:
    """What is needed to send a file; ``data_set_offset`` is in bytes from its start."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set_offset: int


def write_file_meta(
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax_uid: str,
    *,
    source_ae: str = "",
) -> bytes:
    """Preamble, "DICM" and group 0002, to be followed by the data set as it was sent.

    ``source_ae`` is the AE title that the instance came from, (0002,0016).  Characters outside
    ISO 8859-1 become "?".  Raises ValueError for a value of 64 KiB or more.
    """
    body = b"".join(
        [
            struct.pack("<HH2sHI", 2, 1, b"OB", 0, 2) + b"\0\1",
            _element(0x0002, "UI", sop_class_uid),
            _element(0x0003, "UI", sop_instance_uid),
            _element(0x0010, "UI", transfer_syntax_uid),
            _element(0x0012, "UI", IMPLEMENTATION_CLASS_UID),
            _element(0x0013, "SH", IMPLEMENTATION_VERSION_NAME),
            _element(0x0016, "AE", source_ae) if source_ae else b"",
        ]
    )
    length = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(body))
    return bytes(_PREFIX_AT) + b"DICM" + length + body


def _element(element: int, vr: str, text: str) -> bytes:
    value = text.encode("latin_1", "replace")
    if len(value) % 2:
        value += b"\0" if vr == "UI" else b" "
    if len(value) > 0xFFFF:
        raise ValueError(f"{show(2 << 16 | element)} would have {len(value)} bytes")
    return struct.pack("<HH2sH", 2, element, vr.encode(), len(value)) + value


def read_file_meta(source: BinaryIO | bytes | memoryview) -> FileMeta:
    """Read the head of a DICOM file, from its start.

    A file without preamble, without file meta information, with a wrong group length or with
    gaps in group 0002 is read too: the transfer syntax is then guessed among the uncompressed
    ones and the UIDs come from the data set.  Raises DicomError, which says what is wrong and
    where; errors of the file itself (OSError) pass through.
    """
    reader = _Reader(source)
    start = _meta_start(reader)
    values, at = _read_meta(reader, start)
    meta = FileMeta(
        sop_class_uid=values.get(_MEDIA_SOP_CLASS, ""),
        sop_instance_uid=values.get(_MEDIA_SOP_INSTANCE, ""),
        transfer_syntax_uid=values.get(_TRANSFER_SYNTAX, "") or _guess_syntax(reader, at),
        data_set_offset=at,
    )
    if meta.sop_class_uid and meta.sop_instance_uid:
        return meta
    return _complete(reader, meta)


class _Reader:
    """Bytes at an offset, of a file or of memory; fewer than asked for at the end."""

    def __init__(self, source: BinaryIO | bytes | memoryview) -> None:
        self._source = source

    def read(self, at: int, count: int) -> bytes:
        source = self._source
        if isinstance(source, bytes | memoryview):
            return bytes(source[at : at + count])
        source.seek(at)
        return source.read(count)

    def pieces(self, at: int) -> Iterator[bytes]:
        while piece := self.read(at, _PIECE):
            yield piece
            at += len(piece)


def _meta_start(reader: _Reader) -> int:
    head = reader.read(0, _PREFIX_AT + 4 + HEADER)
    if head[_PREFIX_AT : _PREFIX_AT + 4] == b"DICM":
        return _PREFIX_AT + 4
    if head[:2] != b"\2\0" and _is_explicit(head[_PREFIX_AT:]) and head[_PREFIX_AT] == 2:
        return _PREFIX_AT  # a preamble whose prefix was left out
    return 0


def _is_explicit(header: bytes) -> bool:
    if len(header) < HEADER:
        return False
    vr = header[4:6].decode("latin_1")
    return vr in elements.SHORT_VRS or vr in elements.LONG_VRS


def _read_meta(reader: _Reader, at: int) -> tuple[dict[int, str], int]:
    """Texts of the elements of group 0002, and where it ends.

    The group is followed by its elements: its length, (0002,0000), is wrong in many files.
    """
    texts: dict[int, str] = {}
    wanted = (_MEDIA_SOP_CLASS, _MEDIA_SOP_INSTANCE, _TRANSFER_SYNTAX)
    tag = _META_GROUP << 16
    while True:
        header = reader.read(at, LONG_HEADER)
        if len(header) < HEADER:
            if header:
                raise DicomError(f"the file ends at byte {at + len(header)}, inside a header")
            if at and not reader.read(at - 1, 1):
                raise DicomError(f"the file ends before byte {at}, where {show(tag)} should end")
            return texts, at
        group, element = struct.unpack_from("<HH", header)
        if group != _META_GROUP:
            return texts, at
        tag = group << 16 | element
        try:
            form = elements.read_header(elements.EXPLICIT_LITTLE, header, 0, len(header))
        except BadHeader as error:
            raise DicomError(f"element {show(tag)} at byte {at} {error}") from None
        if form is None:
            raise DicomError(f"the file ends at byte {at + len(header)}, inside a header")
        _, length, size = form
        if length == UNDEFINED or at + length > _META_LIMIT:
            raise DicomError(f"element {show(tag)} at byte {at} claims {length} bytes")
        if tag in wanted:
            value = reader.read(at + size, min(length, _UID_LIMIT))
            if len(value) < min(length, _UID_LIMIT):
                end = at + size + len(value)
                raise DicomError(f"element {show(tag)} at byte {at} claims {length} bytes of {end}")
            texts[tag] = value.decode("latin_1").strip(" \0")
        at += size + length


def _guess_syntax(reader: _Reader, at: int) -> str:
    header = reader.read(at, HEADER)
    if len(header) < HEADER:
        raise DicomError(f"not a DICOM file: no data set at byte {at}")
    little, big = struct.unpack("<H", header[:2])[0], struct.unpack(">H", header[:2])[0]
    if _is_explicit(header) and little <= 0xFF:
        return EXPLICIT_VR_LITTLE_ENDIAN
    if _is_explicit(header) and big <= 0xFF:
        return EXPLICIT_VR_BIG_ENDIAN
    element, length = struct.unpack("<HI", header[2:])
    if little in (4, 8) and element <= 0x1000 and length < 0x10000:
        return IMPLICIT_VR_LITTLE_ENDIAN
    raise DicomError(
        f"not a DICOM file: no element at byte {at}, which begins {header.hex(' ').upper()}"
    )


def _complete(reader: _Reader, meta: FileMeta) -> FileMeta:
    """Take from the data set what the file meta information lacks."""
    scanner = Scanner(meta.transfer_syntax_uid, (_SOP_CLASS, _SOP_INSTANCE), value_limit=_UID_LIMIT)
    for piece in reader.pieces(meta.data_set_offset):
        if scanner.feed(piece):
            break
    scanner.finish()
    sop_class = meta.sop_class_uid or next(iter(scanner.text(_SOP_CLASS) or ()), "")
    sop_instance = meta.sop_instance_uid or next(iter(scanner.text(_SOP_INSTANCE) or ()), "")
    if not sop_class or not sop_instance:
        missing = show(_SOP_INSTANCE if sop_class else _SOP_CLASS)
        reason = scanner.error or "the data set does not have it"
        raise DicomError(f"no {missing} in the data set at byte {meta.data_set_offset}: {reason}")
    return replace(meta, sop_class_uid=sop_class, sop_instance_uid=sop_instance)
