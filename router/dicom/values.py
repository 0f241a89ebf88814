"""Values of elements as text, one string per value.

Owns what each VR means for text: padding, the backslash, binary numbers.  Must not know where
the value came from.  Nothing here raises for bytes.

PS3.5 §6.2 (value representations), §6.4 (value multiplicity); PS3.18 F.2.2 (form of AT).
"""

import struct
from collections.abc import Callable
from functools import lru_cache

from pydicom.datadict import dictionary_VR, private_dictionary_VR

from router.dicom.charset import CharacterSet

MANY_PARTS = 1000
"""How many different values of one attribute are compared at most: each costs as much as the
rules have patterns, and the bytes of one instance can hold tens of thousands."""
_PAD = " \0"
_LINES = b"\r\n\t\f"
_SEVERAL = b"\\" + _LINES
_NAME = b"\\^=" + _LINES

# Leading spaces carry meaning only where PS3.5 table 6.2-1 does not call them padding.
_PLAIN_BOTH_ENDS = frozenset({"AE", "CS", "DS", "IS"})
_PLAIN = frozenset({"AS", "DA", "DT", "TM", "UI"})
_TEXT_BOTH_ENDS = frozenset({"LO", "SH"})
_TEXT_SINGLE = frozenset({"LT", "ST", "UT"})
_WHOLE = _TEXT_SINGLE | {"UR"}
_NUMBERS = {
    "FD": "d",
    "FL": "f",
    "SL": "i",
    "SS": "h",
    "SV": "q",
    "UL": "I",
    "US": "H",
    "UV": "Q",
}
BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ"})
# VRs that the dictionary leaves to Pixel Representation (0028,0103); unsigned unless told.
_EITHER = frozenset({"US or SS", "US or SS or OW"})


@lru_cache(maxsize=8192)
def dictionary_vr(tag: int) -> str:
    """VR of the data dictionary (PS3.6); "UN" for private and unknown tags.

    Group lengths are "UL", private creators "LO" (PS3.5 §7.2, §7.8.1).
    """
    if tag & 0xFFFF == 0:
        return "UL"
    if tag >> 16 & 1:
        return "LO" if 0x10 <= tag & 0xFFFF <= 0xFF else "UN"
    try:
        return dictionary_VR(tag)
    except KeyError:
        return "UN"


@lru_cache(maxsize=1024)
def private_vr(group: int, creator: str, element: int) -> str:
    """VR of a private element (its low byte) in pydicom's private dictionary, else "UN"."""
    try:
        vr = private_dictionary_VR(group << 16 | 0x1000 | element, creator)
    except (KeyError, ValueError, OverflowError):
        return "UN"
    return "OW" if vr == "OB_OW" else vr


def is_ambiguous(tag: int) -> bool:
    """True where the dictionary leaves the sign to Pixel Representation."""
    return dictionary_vr(tag) in _EITHER


def parts_of(tag: int, vr: str, value: bytes) -> int:
    """How many values `text_values` makes of an element, or somewhat more; at once."""
    vr = _meant(tag, vr, signed=False)
    if vr in _NUMBERS:
        return len(value) // struct.calcsize(f"<{_NUMBERS[vr]}")
    if vr == "AT":
        return len(value) // 4
    if vr in BINARY or vr in _WHOLE:
        return 1
    return value.count(b"\\") + 1


def text_values(
    tag: int,
    vr: str,
    value: bytes,
    characters: CharacterSet,
    *,
    big_endian: bool = False,
    signed: bool = False,
) -> tuple[str, ...]:
    """The values of an element as text, without padding; ``()`` when there are none.

    Text of several values is split on the backslash, except ST, LT, UT and UR.  Numbers are
    decimal, in the shortest form that reads back as the same number (``1.5``, and ``3`` for a
    float without a fraction); AT is eight hexadecimal digits.  A known tag in UN has its VR
    of the dictionary; an unknown one is text when all of it is printable.  Sequences and other
    binary values have no text: ``()``.
    """
    if vr in _PLAIN and b"\\" not in value:  # as nearly all that the index wants: at once
        text = value.decode("latin_1").rstrip(_PAD)
        return (text,) if text else ()
    vr = _meant(tag, vr, signed=signed)
    reader = _READERS.get(vr)
    if reader is not None:
        return reader(vr, value, characters, big_endian)
    return _unknown(value, characters) if vr == "UN" else ()


def _meant(tag: int, vr: str, *, signed: bool) -> str:
    """The VR that an element is read by."""
    if vr not in _READERS and vr not in BINARY:
        if vr not in _EITHER:
            vr = dictionary_vr(tag)
        if vr in _EITHER:
            vr = "SS" if signed else "US"
    return vr


_Reader = Callable[[str, bytes, CharacterSet, bool], tuple[str, ...]]


def _split(text: str, strip: Callable[[str, str], str]) -> tuple[str, ...]:
    text = text.rstrip(_PAD)
    if "\\" in text:
        return tuple([strip(part, _PAD) for part in text.split("\\")])
    text = strip(text, _PAD)
    return (text,) if text else ()


def _plain(_vr: str, value: bytes, _characters: CharacterSet, _big: bool) -> tuple[str, ...]:
    return _split(value.decode("latin_1"), str.rstrip)


def _plain_both_ends(
    _vr: str, value: bytes, _characters: CharacterSet, _big: bool
) -> tuple[str, ...]:
    return _split(value.decode("latin_1"), str.strip)


def _text(_vr: str, value: bytes, characters: CharacterSet, _big: bool) -> tuple[str, ...]:
    return _split(characters.decode(value, _SEVERAL), str.rstrip)


def _text_both_ends(
    _vr: str, value: bytes, characters: CharacterSet, _big: bool
) -> tuple[str, ...]:
    return _split(characters.decode(value, _SEVERAL), str.strip)


def _name(_vr: str, value: bytes, characters: CharacterSet, _big: bool) -> tuple[str, ...]:
    return _split(characters.decode(value, _NAME), str.rstrip)


def _single(_vr: str, value: bytes, characters: CharacterSet, _big: bool) -> tuple[str, ...]:
    text = characters.decode(value, _LINES).rstrip(_PAD)
    return (text,) if text else ()


def _uri(_vr: str, value: bytes, _characters: CharacterSet, _big: bool) -> tuple[str, ...]:
    text = value.decode("latin_1").rstrip(_PAD)
    return (text,) if text else ()


def _tags(_vr: str, value: bytes, _characters: CharacterSet, big: bool) -> tuple[str, ...]:
    count = len(value) // 4
    halves = struct.unpack_from(f"{'>' if big else '<'}{2 * count}H", value)
    return tuple([f"{g:04X}{e:04X}" for g, e in zip(halves[::2], halves[1::2], strict=True)])


def _numbers(vr: str, value: bytes, _characters: CharacterSet, big: bool) -> tuple[str, ...]:
    code = _NUMBERS[vr]
    count = len(value) // struct.calcsize(f"<{code}")
    numbers = struct.unpack_from(f"{'>' if big else '<'}{count}{code}", value)
    if vr == "FL":
        return tuple([_float(_shortest(number)) for number in numbers])
    if vr == "FD":
        return tuple([_float(repr(number)) for number in numbers])
    return tuple([str(number) for number in numbers])


def _shortest(number: float) -> str:
    """A 32-bit float without the digits that only its widening to 64 bits brought."""
    packed = struct.pack("<f", number)
    for digits in range(6, 9):
        text = f"{number:.{digits}g}"
        try:
            if struct.pack("<f", float(text)) == packed:
                return repr(float(text))
        except OverflowError:
            continue  # rounded up past the largest float; more digits will do
    return repr(float(f"{number:.9g}"))


def _float(text: str) -> str:
    return text.removesuffix(".0")


def _unknown(value: bytes, characters: CharacterSet) -> tuple[str, ...]:
    # A binary number with a small value looks like a letter padded with NUL: of the text VRs
    # only UI pads so.
    text = characters.decode(value, _SEVERAL)
    text = text.rstrip("\0") if text[:1].isdigit() and len(text) > 8 else text.rstrip(" ")
    if text and all(c.isprintable() and c != "\ufffd" for c in text):
        return _split(text, str.rstrip)
    return ()


_READERS: dict[str, _Reader] = {
    **dict.fromkeys(_PLAIN_BOTH_ENDS, _plain_both_ends),
    **dict.fromkeys(_PLAIN, _plain),
    **dict.fromkeys(_TEXT_BOTH_ENDS, _text_both_ends),
    **dict.fromkeys(_TEXT_SINGLE, _single),
    **dict.fromkeys(_NUMBERS, _numbers),
    "UC": _text,
    "PN": _name,
    "UR": _uri,
    "AT": _tags,
}
