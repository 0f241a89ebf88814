"""How the header of a data element is laid out, in each encoding.

Owns the forms of PS3.5 §7.1 (explicit short, explicit long, implicit) and the recognition of
what is none of them, or of what is no data set at all.  Must not know the walk over one.
"""

import struct
from dataclasses import dataclass, field

UNDEFINED = 0xFFFFFFFF
HEADER = 8  # bytes of every header but the explicit long form, which has LONG_HEADER
LONG_HEADER = 12
PREAMBLE = 132  # with its prefix, of a Part 10 file

SHORT_VRS = frozenset(
    "AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()  # noqa: SIM905
)
LONG_VRS = frozenset("OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())  # noqa: SIM905
_SHORT = {vr.encode(): vr for vr in SHORT_VRS}
_LONG = {vr.encode(): vr for vr in LONG_VRS}

# What some writers put for a VR that they do not know.
_PLACEHOLDERS = frozenset({b"??", b"--", b"  "})

# An implicit element inside explicit data is believed up to this length.
_PLAUSIBLE = 2**28


@dataclass(frozen=True, slots=True)
class Encoding:
    """``order`` is that of `struct`: ``<`` or ``>``."""

    explicit: bool
    order: str
    tag: struct.Struct = field(init=False)
    length: struct.Struct = field(init=False)
    short_length: struct.Struct = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tag", struct.Struct(self.order + "HH"))
        object.__setattr__(self, "length", struct.Struct(self.order + "I"))
        object.__setattr__(self, "short_length", struct.Struct(self.order + "H"))


IMPLICIT_LITTLE = Encoding(False, "<")
EXPLICIT_LITTLE = Encoding(True, "<")
EXPLICIT_BIG = Encoding(True, ">")


class BadHeader(Exception):
    """The bytes are no header in any form; the text says why."""


def read_header(
    encoding: Encoding, buffer: bytes | memoryview, at: int, end: int
) -> tuple[str, int, int] | None:
    """VR, length of the value and size of the header that starts at ``at``.

    At least 8 bytes must be there; None when the header needs 12 and ``end`` comes before.
    The VR is "" where the bytes do not tell (implicit, also inside explicit data, and VRs that
    are not of this standard).  Not for items and delimiters.  Raises BadHeader.
    """
    if not encoding.explicit:
        return "", encoding.length.unpack_from(buffer, at + 4)[0], HEADER
    code = bytes(buffer[at + 4 : at + 6])
    (short,) = encoding.short_length.unpack_from(buffer, at + 6)
    if code in _SHORT:
        return _SHORT[code], short, HEADER
    capitals = code.isalpha() and code.isupper()
    if code in _LONG or (capitals and short == 0):
        if end - at < LONG_HEADER:
            return None
        return _LONG.get(code, ""), encoding.length.unpack_from(buffer, at + 8)[0], LONG_HEADER
    if short and (code.isalpha() or code in _PLACEHOLDERS):
        # A VR such as "ZZ", "cs" or "??".  As an implicit length the four bytes would claim
        # more than 64 KiB, and spell this by chance.
        return "", short, HEADER
    length: int = encoding.length.unpack_from(buffer, at + 4)[0]
    if length > _PLAUSIBLE and length != UNDEFINED:
        raise BadHeader(f"has {code.hex(' ').upper()} where its VR should be")
    return "", length, HEADER


def looks_explicit(buffer: bytes | memoryview, at: int) -> bool:
    """True when the header at ``at`` can hardly be implicit VR little endian.

    Its fifth and sixth byte are a VR of the standard, and as an implicit length the four
    bytes would be odd or above 64 KiB.
    """
    code = bytes(buffer[at + 4 : at + 6])
    rest = bytes(buffer[at + 6 : at + 8])
    if code in _LONG:
        return rest == b"\0\0" and code[0] & 1 == 1
    return code in _SHORT and (rest != b"\0\0" or code[0] & 1 == 1)


def wrong_start(
    encoding: Encoding, syntax: str, buffer: bytes | memoryview, *, final: bool
) -> str | None:
    """What is wrong with the very first bytes of a data set, at least a header; "" if nothing.

    None when only `PREAMBLE` bytes will tell and they are not there yet; ``final`` says that no
    more will come.  ``syntax`` is the name of the transfer syntax.
    """
    group, _ = encoding.tag.unpack_from(buffer, 0)
    wrong = ""
    if group != 8:
        # Not what images begin with: a whole file perhaps, whose preamble can be anything.
        if len(buffer) < PREAMBLE and not final:
            return None
        if buffer[128:132] == b"DICM":
            wrong = "a whole Part 10 file, from its preamble on, in place of a data set"
        elif group == 2:
            wrong = "the data set begins with group 0002, file meta information"
        elif group == 0:
            wrong = "the data set begins with group 0000, a command set or a preamble"
        elif group in (0x0200, 0x0400, 0x0800):
            wrong = f"the byte order is not that of {syntax}"
    if not encoding.explicit and looks_explicit(buffer, 0):
        wrong = f"the data set has explicit VRs, which {syntax} has not"
    return wrong


def show(tag: int) -> str:
    """``(0010,0020)``."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
