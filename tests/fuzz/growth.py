"""Ten times as much of the same must cost ten times as much, and not a hundred.

Owns the shapes of input in which a square would hide, and how cost is taken: lines of Python, which
are the same on every machine, and processor time, which also sees what is copied inside C.
"""

import struct
import time
from collections.abc import Callable
from functools import partial

from router.dicom.charset import character_set
from router.dicom.errors import DicomError
from router.dicom.part10 import read_file_meta
from router.dicom.scan import Scanner
from router.dicom.values import text_values
from router.dicom.wanted import Key
from router.dimse.assemble import Assembler
from router.dimse.command import decode_command, encode_command
from router.dimse.fragment import encode_message
from router.dimse.messages import MESSAGES
from router.ul import RemoteProtocolError, decode_pdu
from rules.attributes import Private
from rules.load import load
from rules.source import Problems
from tests.dicom.build import (
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    ITEM_END,
    SEQUENCE_END,
    UNDEFINED,
    deflate,
    explicit,
    implicit,
    item,
)
from tests.dimse.samples import full
from tests.fuzz.runner import lines_of
from tests.ul.support import associated, data_pdu, in_state

Shape = Callable[[int], Callable[[], object]]
"""Of a size, makes the input, and returns what is to be measured."""

_FIRST = explicit(0x00080008, "CS", b"ORIGINAL")
_IMPLICIT_FIRST = implicit(0x00080008, b"ORIGINAL")
_WANTED = (0x00080016, 0x0040A124)
_DEEP = (*_WANTED, (0x00081140, 0x00081150), (0x00081140,) * 70, Private(9, "A", 1))


def _fed(state: int, data: bytes, step: int) -> Callable[[], object]:
    one = associated()[1] if state == 6 else in_state(state)
    return lambda: one.feed(data, step)


def _associate(items: bytes) -> bytes:
    body = b"\0\1" + bytes(66) + items
    return b"\1\0" + struct.pack(">I", len(body)) + body


def _spread(one: bytes, times: int, kind: int) -> bytes:
    """``one`` as often as asked for, in items of up to 64 KB."""
    fit = 65000 // len(one)
    values = [one * min(fit, times - at) for at in range(0, times, fit)]
    return b"".join(struct.pack(">BxH", kind, len(value)) + value for value in values)


def _contexts(count: int) -> bytes:
    return b"".join(b"\x20\0\0\4" + bytes((2 * n + 1, 0, 0, 0)) for n in range(count))


def _refused(data: bytes) -> Callable[[], object]:
    def decode() -> None:
        try:
            decode_pdu(data)
        except RemoteProtocolError:
            return

    return decode


def _scan(
    data: bytes, step: int, syntax: str = EXPLICIT, wanted: tuple[Key, ...] = _WANTED
) -> Callable[[], object]:
    view = memoryview(data)

    def run() -> None:
        scanner = Scanner(syntax, wanted, value_limit=1 << 20, byte_limit=1 << 30)
        for at in range(0, len(data), step):
            scanner.feed(view[at : at + step])
        scanner.finish()
        scanner.attributes()

    return run


def _fragments(size: int) -> Callable[[], object]:
    command = _command(size)

    def run() -> None:
        assembler = Assembler(lambda *_: None, lambda _: None, lambda: None)
        for at in range(len(command)):
            last = at == len(command) - 1
            assembler.fragment(1, 3 if last else 1, memoryview(command)[at : at + 1], True)

    return run


def _command(size: int) -> bytes:
    """A good command behind elements that nobody knows."""
    echo = encode_command(full(MESSAGES[0x0030]))
    return struct.pack("<HHI", 0, 0x5555, 0) * (size // 8) + echo


def _text(vr: str, value: bytes, terms: bytes = b"") -> Callable[[], object]:
    characters = character_set(terms)
    return lambda: text_values(0x00100010, vr, value, characters)


def _meta(count: int) -> Callable[[], object]:
    data = bytes(128) + b"DICM" + explicit(0x00020102, "OB", b"") * count + _FIRST

    def run() -> None:
        try:
            read_file_meta(data)
        except DicomError:
            return

    return run


def _loaded(text: str) -> Callable[[], object]:
    def run() -> None:
        try:
            load(text)
        except Problems as problems:
            str(problems)

    return run


def _sequence(items: bytes, vr: str = "SQ") -> bytes:
    return _FIRST + explicit(0x00081140, vr, items, UNDEFINED) + SEQUENCE_END


_LONG = explicit(0x00090001, "OB", b"")
_SMALL = explicit(0x00081150, "UI", b"1.2.3\0")
_ITEM = item(_SMALL, UNDEFINED) + ITEM_END
_OWNED = explicit(0x00090010, "LO", b"A") + explicit(0x00091001, "LO", b"text")

SHAPES: dict[str, tuple[int, Shape]] = {
    "PDUs": (700, lambda n: _fed(6, data_pdu(b"x") * n, 1 << 30)),
    "PDUs by the byte": (100, lambda n: _fed(6, data_pdu(b"x") * n, 1)),
    "values in one PDU": (2000, lambda n: _fed(6, data_pdu(*[b""] * n), 1 << 30)),
    "a long value by the byte": (2000, lambda n: _fed(6, data_pdu(bytes(n)), 1)),
    "a request by the byte": (6000, lambda n: _fed(2, _associate(_spread(b"x", n, 0x99)), 1)),
    "bytes behind our abort": (5000, lambda n: _fed(13, b"\x63" * n, 1)),
    "items": (800, lambda n: _refused(_associate(b"\x99\0\0\0" * n))),
    "sub-items": (90, lambda n: _refused(_associate(_spread(b"\x99\0\0\0", n, 0x50)))),
    "contexts": (12, lambda n: _refused(_associate(_contexts(n)))),
    "roles": (90, lambda n: _refused(_associate(_spread(b"\x54\0\0\5\0\1x\1\1", n, 0x50)))),
    "elements of a command": (6000, lambda n: partial(decode_command, _command(n))),
    "fragments of a command": (3000, _fragments),
    "an answer in small PDUs": (6000, lambda n: partial(encode_message, 3, bytes(n), None, 8)),
    "elements": (2000, lambda n: _scan(_FIRST + _SMALL * n, 1 << 30)),
    "elements by the byte": (100, lambda n: _scan(_FIRST + _SMALL * n, 1)),
    "implicit elements by the byte": (
        100,
        lambda n: _scan(_IMPLICIT_FIRST + implicit(0x00081150, b"1.2") * n, 1, IMPLICIT),
    ),
    "long headers by the byte": (
        100,
        lambda n: _scan(_FIRST + explicit(0x90001, "OB", b"") * n, 1),
    ),
    "unknown VRs": (1000, lambda n: _scan(_FIRST + explicit(0x90001, "ZZ", b"ab") * n, 1 << 30)),
    "items of a sequence": (500, lambda n: _scan(_sequence(_ITEM * n), 1 << 30)),
    "items by the byte": (80, lambda n: _scan(_sequence(_ITEM * n), 1)),
    "items that are looked into": (
        300,
        lambda n: _scan(_sequence(_ITEM * n), 1 << 30, wanted=_DEEP),
    ),
    "items that are looked into, by the byte": (
        60,
        lambda n: _scan(_sequence(_ITEM * n), 1, wanted=_DEEP),
    ),
    "items with creators and character sets": (
        150,
        lambda n: _scan(
            _sequence(item(explicit(0x00080005, "CS", b"GBK") + _SMALL + _OWNED) * n),
            64,
            wanted=_DEEP,
        ),
    ),
    "private creators": (
        24,
        lambda n: _scan(
            _FIRST + b"".join(explicit(0x90010 + i, "LO", b"A") + _OWNED for i in range(n)),
            1 << 30,
            wanted=_DEEP,
        ),
    ),
    "items inside UN": (500, lambda n: _scan(_sequence(_ITEM * n, "UN"), 64)),
    "delimiters": (1000, lambda n: _scan(_FIRST + (ITEM_END + SEQUENCE_END) * n, 1 << 30)),
    "a wanted value by the byte": (
        2000,
        lambda n: _scan(_FIRST + explicit(0x0040A124, "UT", b"x" * n), 1),
    ),
    "deflated by the byte": (10_000, lambda n: _scan(deflate(_FIRST + _SMALL * n), 1, DEFLATED)),
    "elements of a file's head": (1000, _meta),
    "backslashes": (6000, lambda n: _text("LO", b"\\" * n)),
    "components of a name": (1500, lambda n: _text("PN", b"\x1b-F\xe1^=" * n)),
    "escapes": (1500, lambda n: _text("PN", b"\x1b-F\xe1" * n, b"\\ISO 2022 IR 126")),
    "escapes to kanji": (1500, lambda n: _text("LO", b"\x1b$B!!\x1b(B" * n, b"\\ISO 2022 IR 87")),
    "half an escape": (6000, lambda n: _text("LO", b"\x1b$" * n, b"\\ISO 2022 IR 87")),
    "binary floats": (1500, lambda n: _text("FL", b"\1\2\3\4" * n)),
    "text of an unknown element": (6000, lambda n: _text("UN", b"1\\2 " * n)),
    "rules": (10, lambda n: _loaded("- {name: a, when: {Modality: [CT, MR]}, to: b}\n" * n)),
    "keys": (30, lambda n: _loaded("".join(f"k{i}: v\n" for i in range(n)))),
    "a long plain text": (500, lambda n: _loaded("- " + "a b " * n)),
    "a text that does not close": (500, lambda n: _loaded('- "' + "a\n  " * n)),
}


def seconds(make: Callable[[], Callable[[], object]]) -> float:
    """Processor time of the faster of two."""
    best = float("inf")
    for _ in range(2):
        work = make()
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def line_ratio(name: str) -> float:
    """How many times as many lines are executed for ten times the size."""
    size, shape = SHAPES[name]
    return lines_of(shape(10 * size)) / lines_of(shape(size))


def time_ratio(name: str) -> float:
    """How many times as long ten times the size takes: what is copied again and again in one line
    shows here alone, and so does all that the machine does besides."""
    size, shape = SHAPES[name]
    return seconds(lambda: shape(10 * size)) / max(seconds(lambda: shape(size)), 1e-9)
