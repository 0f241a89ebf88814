"""Data sets with sequences and private elements, and the scanner on them, whole and cut."""

from typing import Any

from router.dicom.scan import Scanner
from router.dicom.wanted import Key
from rules.attributes import Private
from tests.dicom.build import EXPLICIT, ITEM_END, SEQUENCE_END, UNDEFINED, explicit, item

CHARACTERS, MODALITY, NAME, PATIENT_ID = 0x00080005, 0x00080060, 0x00100010, 0x00100020
REQUEST, STEP_ID, CODES, CODE, MEANING = 0x00400275, 0x00400009, 0x00400008, 0x00080100, 0x00080104
STEP = (REQUEST, STEP_ID)
DEEP = (REQUEST, CODES, CODE)
ACQUISITION = Private(0x0019, "GEMS_ACQU_01", 0x10)
HEAD = explicit(MODALITY, "CS", b"CT")
TAIL = explicit(0x00400300, "US", b"\1\0")
LAST = 0x00400300


def scan(
    data: bytes, wanted: tuple[Key, ...], syntax: str = EXPLICIT, size: int = 0, **limits: int
) -> Scanner:
    scanner = Scanner(syntax, wanted, **limits)
    step = size or len(data) or 1
    for at in range(0, len(data), step):
        if scanner.feed(memoryview(data)[at : at + step]):
            break
    scanner.finish()
    return scanner


def check(data: bytes, *wanted: Key, syntax: str = EXPLICIT, **limits: int) -> Scanner:
    """Scan whole and cut in several ways; all must agree."""
    whole = scan(data, wanted, syntax, **limits)
    for size in (1, 2, 3, 7, 8, 9, 11, 13, 64):
        cut = scan(data, wanted, syntax, size, **limits)
        assert (cut.found, cut.attributes()) == (whole.found, whole.attributes()), size
        assert (cut.too_large, cut.error) == (whole.too_large, whole.error), size
    return whole


def values(data: bytes, *wanted: Key, syntax: str = EXPLICIT) -> Any:
    """What is found under the first key, in a data set that is sound."""
    scanner = check(data, *wanted, syntax=syntax)
    assert scanner.error == ""
    assert scanner.text(wanted[0]) == scanner.attributes().get(wanted[0])
    return scanner.attributes().get(wanted[0])


def step(text: bytes) -> bytes:
    return explicit(STEP_ID, "SH", text)


def sequence(*items: bytes, tag: int = REQUEST, vr: str = "SQ", form: str = "") -> bytes:
    """Of defined lengths, or ``items``, ``all`` or ``outer`` of undefined length."""
    if form in ("items", "all"):
        inside = b"".join(item(one, UNDEFINED) + ITEM_END for one in items)
    else:
        inside = b"".join(map(item, items))
    if form in ("outer", "all"):
        return explicit(tag, vr, inside, UNDEFINED) + SEQUENCE_END
    return explicit(tag, vr, inside)


FORMS = ["", "items", "outer", "all"]
