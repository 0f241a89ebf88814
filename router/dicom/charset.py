"""Specific Character Set (0008,0005) and the decoding of text with it.

Owns the mapping from defined terms to codecs and the ISO 2022 code extensions.  Must not know
elements or VRs.  Nothing here raises for bytes: what a set cannot hold becomes U+FFFD.

PS3.3 C.12.1.1.2 (defined terms), PS3.5 §6.1.2 (character repertoires, code extensions).
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from pydicom.charset import python_encoding

_ESC = 0x1B
_DEFAULT = "latin_1"  # a superset of ISO_IR 6 that holds every byte, so that nothing is lost
_STAND_ALONE = frozenset({"utf_8", "gb18030", "gbk"})

# Where an escape sequence leads: the code element it designates and a codec that reads both
# that element and ASCII (PS3.3 tables C.12-3 and C.12-4).
_G0, _G1 = 0, 1
_ESCAPES: dict[bytes, tuple[int, str]] = {
    b"(B": (_G0, ""),  # ASCII; what is in G1 stays there
    b"(J": (_G0, "shift_jis"),  # JIS X 0201 romaji
    b"$B": (_G0, "iso2022_jp"),
    b"$@": (_G0, "iso2022_jp"),  # the 1978 edition; not in the standard, but in the field
    b"$(D": (_G0, "iso2022_jp_2"),
    b")I": (_G1, "shift_jis"),  # JIS X 0201 katakana
    b"-A": (_G1, "latin_1"),
    b"-B": (_G1, "iso8859_2"),
    b"-C": (_G1, "iso8859_3"),
    b"-D": (_G1, "iso8859_4"),
    b"-F": (_G1, "iso8859_7"),
    b"-G": (_G1, "iso8859_6"),
    b"-H": (_G1, "iso8859_8"),
    b"-L": (_G1, "iso8859_5"),
    b"-M": (_G1, "iso8859_9"),
    b"-T": (_G1, "tis_620"),
    b"-b": (_G1, "iso8859_15"),
    b"$)C": (_G1, "euc_kr"),
    b"$)A": (_G1, "gb2312"),
}
_ESCAPE = re.compile(rb"\x1b(\$[()][A-Za-z]|\$[A-Z@]|[()\-][A-Za-z])")
_DOUBLE_BYTE_G0 = frozenset({"iso2022_jp", "iso2022_jp_2"})


def _key(term: str) -> str:
    return re.sub("[^A-Z0-9]+", "", term.upper())


# Spelling in the field varies in case, spaces, hyphens and underscores: they do not count.
_CODECS = {_key(term): codec for term, codec in python_encoding.items() if term} | {
    "ISOIR203": "iso8859_15",
    "ISO2022IR203": "iso8859_15",
    "UTF8": "utf_8",
    "ISOIR192": "utf_8",
    "ISO2022IR192": "utf_8",
    "GB18030": "gb18030",
    "GBK": "gbk",
    "ISO2022GBK": "gbk",
    "GB2312": "gb2312",
    "ISO2022IR58": "gb2312",
    "SHIFTJIS": "shift_jis",
    "EUCKR": "euc_kr",
    "LATIN1": _DEFAULT,
    "ASCII": _DEFAULT,
    **{f"ISO8859{part}": f"iso8859_{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15)},
}


@dataclass(frozen=True, slots=True)
class CharacterSet:
    """``codec`` is Python's name of the first set; ``extensible`` allows ISO 2022 escapes."""

    codec: str = _DEFAULT
    extensible: bool = True

    def decode(self, value: bytes, delimiters: bytes) -> str:
        """Text of a value; each of ``delimiters`` returns to the first set (PS3.5 §6.1.2.5.3).

        The value is decoded whole and split by the caller: in GB18030, GBK, Shift JIS and
        JIS X 0208 the byte of the backslash is also the second half of characters.
        """
        if value.isascii() and _ESC not in value:
            return value.decode("ascii")
        if not self.extensible or _ESC not in value:
            return value.decode(self.codec, "replace")
        return self._decode_extended(value, delimiters)

    def _decode_extended(self, value: bytes, delimiters: bytes) -> str:
        # An escape that the element does not declare is followed all the same: it can mean
        # nothing else, and equipment that leaves (0008,0005) short is common.
        pieces = _ESCAPE.split(value)
        decoded = [pieces[0].decode(self.codec, "replace")]
        g1 = self.codec
        for code, piece in zip(pieces[1::2], pieces[2::2], strict=True):
            element, codec = _ESCAPES.get(code, (_G0, ""))
            if codec in _DOUBLE_BYTE_G0:
                decoded.append((b"\x1b" + code + piece).decode(codec, "replace"))
                continue
            if element == _G1:
                g1 = codec
            end = _first_of(piece, delimiters)
            decoded.append(piece[:end].decode(codec or g1, "replace"))
            if end < len(piece):
                g1 = self.codec
                decoded.append(piece[end:].decode(g1, "replace"))
        return "".join(decoded)


DEFAULT = CharacterSet()


@lru_cache(maxsize=64)
def character_set(value: bytes) -> CharacterSet:
    """The set that a value of (0008,0005) names.

    An empty first value is the default repertoire; an unknown one is read as ISO 8859-1,
    which keeps every byte visible.
    """
    first = value[:64].split(b"\\")[0].decode("latin_1").strip(" \0")
    codec = _CODECS.get(_key(first), _DEFAULT)
    return CharacterSet(codec, codec.lower() not in _STAND_ALONE)


def _first_of(piece: bytes, delimiters: bytes) -> int:
    found = [at for d in delimiters if (at := piece.find(d)) >= 0]
    return min(found, default=len(piece))
