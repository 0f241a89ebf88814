"""Valid data sets as trees, in every encoding, and the texts that values hold.

Owns the writing of elements with what fuzzing wants in them: nesting of both kinds, private
elements, encapsulated pixels.  Must not know what is done to them.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pydicom.data

from router.dicom.part10 import read_file_meta
from tests.fuzz.tree import Node

CT = b"1.2.840.10008.5.1.4.1.1.2\0"
_LONG = frozenset("OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())  # noqa: SIM905
_UNDEFINED = 0xFFFFFFFF
_SAMPLES = (
    "CT_small.dcm",
    "MR_small_implicit.dcm",
    "MR_small_bigendian.dcm",
    "image_dfl.dcm",
    "reportsi.dcm",
    "chrH31.dcm",
    "JPEG2000.dcm",
)
_SAMPLE_BYTES = 900


@dataclass(frozen=True, slots=True)
class Writer:
    """Elements in one encoding."""

    explicit: bool = True
    little: bool = True

    def tag(self, tag: int) -> bytes:
        return struct.pack("<HH" if self.little else ">HH", tag >> 16, tag & 0xFFFF)

    def element(self, tag: int, vr: str, value: bytes = b"") -> Node:
        head = self.tag(tag)
        if not self.explicit:
            return Node(head, 4, self.little, value=value)
        if vr in _LONG:
            return Node(head + vr.encode() + b"\0\0", 4, self.little, value=value)
        return Node(head + vr.encode(), 2, self.little, value=value)

    def sequence(
        self, tag: int, items: Iterable[list[Node]], *, undefined: bool = False, vr: str = "SQ"
    ) -> Node:
        """Items and sequence both of undefined length, or both of a defined one."""
        node = self.element(tag, vr)
        node.parts = [self._item(parts, undefined) for parts in items]
        if undefined:
            node.length, node.tail = _UNDEFINED, self.tag(0xFFFEE0DD) + bytes(4)
        return node

    def _item(self, parts: list[Node], undefined: bool) -> Node:
        node = Node(self.tag(0xFFFEE000), 4, self.little, parts)
        if undefined:
            node.length, node.tail = _UNDEFINED, self.tag(0xFFFEE00D) + bytes(4)
        return node

    def number(self, value: int) -> bytes:
        return value.to_bytes(2, "little" if self.little else "big")

    def data_set(self) -> list[Node]:
        """A small image with all that a scan may meet before and between what it wants."""
        element, sequence = self.element, self.sequence
        code = [element(0x00080100, "SH", b"T-D1100 "), element(0x00080104, "LO", b"Head")]
        inner = sequence(0x0008103F, [code, code], undefined=True)
        implicit = Writer(explicit=False)
        unknown = implicit.sequence(0x00091001, [implicit.small()], undefined=True)
        un = Node(
            self.tag(0x00091001) + b"UN\0\0", 4, self.little, unknown.parts, b"", unknown.tail
        )
        un.length = _UNDEFINED
        return [
            element(0x00080005, "CS", b"ISO 2022 IR 100\\ISO 2022 IR 126 "),
            element(0x00080008, "CS", b"ORIGINAL\\PRIMARY"),
            element(0x00080016, "UI", CT),
            element(0x00080018, "UI", b"1.2.3.4.5\0"),
            element(0x00080060, "CS", b"CT"),
            sequence(0x00081140, [[element(0x00081150, "UI", CT)]]),
            sequence(0x00081032, [[*code, inner]], undefined=True),
            element(0x00090010, "LO", b"PRIVATE "),
            un if self.explicit else unknown,
            element(0x00100010, "PN", b"M\xfcller^J\x1b-F\xe1\xe2"),
            element(0x00181310, "US", self.number(512) * 4),
            element(0x00189087, "FD", b"\0" * 7 + b"\x40"),
            element(0x0020000D, "UI", b"1.2.3\0"),
            element(0x0020000E, "UI", b"1.2.3.4\0"),
            element(0x00204000, "LT", b"text " * 30),
            element(0x00280103, "US", self.number(1)),
            element(0x00280106, "SS", b"\xff\xff"),
            element(0x0040A124, "UT", b"long form"),
            self._encapsulated() if self.explicit else element(0x7FE00010, "OW", bytes(60)),
        ]

    def small(self) -> list[Node]:
        return [self.element(0x00080016, "UI", CT), self.element(0x00100020, "LO", b"1234")]

    def _encapsulated(self) -> Node:
        fragments = [
            [Node(value=b"")],
            [Node(value=b"\xff\xd8" + bytes(20))],
            [Node(value=b"\1\2")],
        ]
        node = self.sequence(0x7FE00010, fragments, vr="OB")
        node.length, node.tail = _UNDEFINED, self.tag(0xFFFEE0DD) + bytes(4)
        return node


EXPLICIT = Writer()
IMPLICIT = Writer(explicit=False)
BIG = Writer(little=False)


@cache
def samples() -> tuple[tuple[str, bytes, bytes], ...]:
    """Real files: transfer syntax, the whole beginning, the beginning of the data set."""
    root = Path(pydicom.data.__file__).parent
    found = []
    for name in _SAMPLES:
        places = (root / kind / name for kind in ("test_files", "charset_files"))
        path = next(place for place in places if place.is_file())
        data = path.read_bytes()
        meta = read_file_meta(data)
        at = meta.data_set_offset
        found.append((meta.transfer_syntax_uid, data[: at + 300], data[at : at + _SAMPLE_BYTES]))
    return tuple(found)


VRS = (
    *"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split(),  # noqa: SIM905
    *sorted(_LONG),
    "??",
)
CHARACTER_SETS = (
    b"",
    b"ISO_IR 100",
    b"ISO_IR 192",
    b"GB18030",
    b"GBK",
    b"ISO_IR 13",
    b"ISO_IR 166",
    b"\\ISO 2022 IR 87",
    b"\\ISO 2022 IR 149",
    b"\\ISO 2022 IR 58",
    b"ISO 2022 IR 13\\ISO 2022 IR 87\\ISO 2022 IR 159",
    b"ISO_IR 144",
    b"ISO_IR 127",
    b"iso-ir-138",
    b"unknown",
)
TEXTS = (
    b"",
    b"plain",
    b" padded \0",
    b"1.5\\-2e10\\3 ",
    b"Buc^J\xe9r\xf4me",
    b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
    b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J",
    b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
    b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=",
    "Wang^XiaoDong=王^小東=".encode(),
    "Wang^XiaoDong=王^小东=".encode("gb18030"),
    b"\x1b-F\xc4\xe9\xef\xed\x1b-L\xbb\xee",
    b"line\r\n\x1b$(D\x30\x21\f\x1b$@\x21\x21",
    b"\x00\x00\x80\x3f\x00\x00\xc0\x7f\xff\xff\x7f\x7f\x00\x00\x80\xff",
    b"\x01\x00\x02\x00\xff\xff\x00\x80",
    b"<script>alert(1)</script>",
)
