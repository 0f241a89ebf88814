"""Small notes in text that know whether they are what was written.

Owns the last line of such a file, ``= `` and the CRC-32 of all before it: a digit of which a bit
flipped is a digit still, and would be believed.  Must not know what a note says.
"""

from router.spool.layout import crc32

_MARK = "= "


def with_sum(text: str) -> bytes:
    """A note whose last line has ended, as it is written."""
    return f"{text}{_line(text)}".encode()


def without_sum(text: str) -> str:
    """The note, as it is read.

    Raises ValueError when it is not what was written.  A note of an older version has no such line,
    and is taken as it is.
    """
    note, mark, _ = text.rpartition(_MARK)
    if mark and text != f"{note}{_line(note)}":
        raise ValueError("its check sum differs")
    return note if mark else text


def _line(text: str) -> str:
    return f"{_MARK}{crc32(text.encode()):08x}\n"
