"""The identifiers of a query: what is asked for, and what a match says.

Owns their form: the keys of a level, encoding, character sets.  Must not know associations.
PS3.4 §C.4.1.1 and §C.6, PS3.5 §7.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydicom.datadict import dictionary_VR, keyword_dict, keyword_for_tag, tag_for_keyword

from router.dicom.elements import show
from router.dicom.scan import Scanner
from router.dicom.uids import is_uid
from rules.nearest import did_you_mean

Level = Literal["study", "series", "image"]
LEVELS: tuple[Level, ...] = ("study", "series", "image")
UNIQUE: Mapping[Level, str] = {
    "study": "StudyInstanceUID",
    "series": "SeriesInstanceUID",
    "image": "SOPInstanceUID",
}
"""The unique key of each level (PS3.4 §C.6.2.1); those of the levels above have to be given."""
USUAL: Mapping[Level, tuple[str, ...]] = {
    "study": (
        "PatientID",
        "PatientName",
        "StudyDate",
        "StudyTime",
        "AccessionNumber",
        "ModalitiesInStudy",
        "StudyDescription",
        "NumberOfStudyRelatedInstances",
    ),
    "series": (
        "Modality",
        "SeriesNumber",
        "SeriesDescription",
        "NumberOfSeriesRelatedInstances",
    ),
    "image": ("InstanceNumber", "SOPClassUID"),
}
"""What is asked to be told, beside the unique key, when nothing else is."""
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
"""The transfer syntaxes in which `encode` and `decode` work."""
_CHARACTER_SET, _LEVEL = 0x00080005, 0x00080052
_UTF_8 = b"ISO_IR 192"
_NUMBERS = {"US": "<H", "SS": "<h", "UL": "<I", "SL": "<i"}
_TEXT = frozenset(
    [
        "AE",
        "AS",
        "CS",
        "DA",
        "DS",
        "DT",
        "IS",
        "LO",
        "LT",
        "PN",
        "SH",
        "ST",
        "TM",
        "UC",
        "UI",
        "UR",
        "UT",
    ]
)
_LONG_FORM = frozenset({"UC", "UR", "UT"})
_LONGEST = 1024


class KeyProblem(ValueError):
    """A key that cannot be asked for; ``fix`` says what would do, or ""."""

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.fix = fix


@dataclass(frozen=True, slots=True)
class Query:
    """A question at ``level``.

    ``keys`` maps keywords to what has to match, "" for what is to be told; values may hold ``*``,
    ``?``, a range or a list as in PS3.4 §C.2.2.2.
    """

    level: Level
    keys: Mapping[str, str]


Match = Mapping[str, tuple[str, ...]]
"""What one match says: the values of each key by keyword; one that it does not have is missing."""


def parse_keys(level: Level, texts: Sequence[str]) -> Query:
    """A query out of ``Keyword=value``, ``Keyword`` or ``gggg,eeee=value`` each.

    The unique key of the level is asked for always, the usual ones when no other is.  Raises
    KeyProblem.
    """
    given: dict[str, str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        keyword = _keyword(name.strip())
        if keyword in given:
            raise KeyProblem(f"{keyword} is given twice")
        given[keyword] = value.strip()
        _check_value(keyword, given[keyword])
    for above in LEVELS[: LEVELS.index(level)]:
        uid = given.get(UNIQUE[above], "")
        if not uid or "\\" in uid:
            raise KeyProblem(
                f"a query at {level} level needs one {UNIQUE[above]}",
                f"add {UNIQUE[above]}=UID, which a query at {above} level tells",
            )
    if all(value or name == UNIQUE[level] for name, value in given.items()):
        given = dict.fromkeys(USUAL[level], "") | given
    given.setdefault(UNIQUE[level], "")
    return Query(level, given)


def _keyword(name: str) -> str:
    tag = tag_for_keyword(name)
    digits = name.strip("()").replace(",", "")
    if tag is None and len(digits) == 8:
        try:
            tag = int(digits, 16)
        except ValueError:
            tag = None
    keyword = "" if tag is None else keyword_for_tag(tag)
    if tag is None or not keyword:
        near = did_you_mean(name, keyword_dict) if name else ""
        fix = near or "write PatientID=123 or 0010,0020=123"
        raise KeyProblem(f"{name!r} is no attribute of the standard", fix)
    if tag >> 16 < 8 or tag in (_CHARACTER_SET, _LEVEL):
        raise KeyProblem(f"{keyword} {show(tag)} cannot be asked for")
    vr = dictionary_VR(tag)
    if vr not in _TEXT and vr not in _NUMBERS:
        raise KeyProblem(f"{keyword} cannot be asked for: its values are {vr}")
    return keyword


def _check_value(keyword: str, value: str) -> None:
    if len(value) > _LONGEST:
        raise KeyProblem(f"{keyword}: a value has {_LONGEST} characters at most")
    if not value.isprintable():
        raise KeyProblem(f"{keyword}: a value has no control characters")
    tag, vr = _tag_and_vr(keyword)
    for part in value.split("\\") if value else ():
        if vr == "UI" and not is_uid(part):
            raise KeyProblem(f"{keyword}: {part!r} is no UID")
    if vr in _NUMBERS and value:
        try:
            struct.pack(_NUMBERS[vr], int(value))
        except (ValueError, struct.error):
            raise KeyProblem(f"{keyword} {show(tag)}: {value!r} is no number of {vr}") from None


def _tag_and_vr(keyword: str) -> tuple[int, str]:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyProblem(f"{keyword!r} is no attribute of the standard")
    return tag, dictionary_VR(tag)


def encode(query: Query, transfer_syntax: str) -> bytes:
    """The identifier of the request, in one of `IMPLICIT` and `EXPLICIT`.

    Text that is not ASCII goes as UTF-8, and the identifier says so.
    """
    elements = {_LEVEL: ("CS", query.level.upper().encode())}
    for keyword, value in query.keys.items():
        tag, vr = _tag_and_vr(keyword)
        elements[tag] = vr, _encode_value(vr, value)
        if not value.isascii():
            elements[_CHARACTER_SET] = "CS", _UTF_8
    explicit = transfer_syntax == EXPLICIT
    return b"".join(_element(tag, *elements[tag], explicit) for tag in sorted(elements))


def _encode_value(vr: str, value: str) -> bytes:
    if vr in _NUMBERS:
        return struct.pack(_NUMBERS[vr], int(value)) if value else b""
    return value.encode()


def _element(tag: int, vr: str, value: bytes, explicit: bool) -> bytes:
    if len(value) & 1:
        value += b"\0" if vr == "UI" else b" "
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if not explicit:
        return head + struct.pack("<I", len(value)) + value
    if vr in _LONG_FORM:
        return head + vr.encode() + b"\0\0" + struct.pack("<I", len(value)) + value
    return head + vr.encode() + struct.pack("<H", len(value)) + value


def decode(query: Query, identifier: bytes, transfer_syntax: str) -> Match:
    """What a match says of the keys that were asked for.

    Raises ValueError for one that cannot be read.
    """
    keywords = {_tag_and_vr(keyword)[0]: keyword for keyword in query.keys}
    scanner = Scanner(transfer_syntax, frozenset(keywords))
    scanner.feed(memoryview(identifier))
    if not scanner.done:
        scanner.finish()
    if scanner.error:
        raise ValueError(f"a match cannot be read: {scanner.error}")
    found = scanner.attributes()
    return {keyword: found[tag] for tag, keyword in keywords.items() if tag in found}
