"""The values of one wanted attribute that can come in several places: items, private blocks.

Owns keeping them in little memory until the scan has ended.  Must not know where they were.
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from router.dicom.charset import CharacterSet, character_set
from router.dicom.values import parts_of, text_values

MANY = 8192
"""The weight above which values are too many to be kept: that of so many read in one way."""
_RUN = 32  # the weight of values that are read otherwise than those before


@dataclass(frozen=True, slots=True)
class Reading:
    """How a value is to be read.

    ``characters`` is the value of Specific Character Set, and ``sign`` that of Pixel
    Representation, in the item or one around it; None where that of the data set counts.
    """

    tag: int
    vr: str
    big_endian: bool
    characters: bytes | None
    sign: bytes | None


class Gathered:
    """Values in the order of their arrival.

    Those that are read in one way lie together, so that thousands of items cost a few bytes
    each.  ``size`` is that of the values in bytes, ``weight`` stands for what they cost besides;
    ``parts`` is how many different ones there are, or somewhat more.
    """

    __slots__ = ("_different", "_runs", "parts", "size", "weight")

    def __init__(self) -> None:
        self._runs: list[tuple[Reading, bytearray, array[int]]] = []
        self._different: set[bytes] = set()
        self.size = self.weight = self.parts = 0

    def add(self, reading: Reading, value: bytes) -> None:
        """Take the value of one more element; an empty one adds nothing."""
        if not value:
            return
        if not self._runs or self._runs[-1][0] != reading:
            self._runs.append((reading, bytearray(), array("I")))
            self.weight += _RUN
        _, values, lengths = self._runs[-1]
        values += value
        lengths.append(len(value))
        self.size += len(value)
        self.weight += 1
        if value not in self._different:
            self._different.add(value)
            self.parts += parts_of(reading.tag, reading.vr, value)

    def __iter__(self) -> Iterator[tuple[Reading, bytes]]:
        for reading, values, lengths in self._runs:
            at = 0
            for length in lengths:
                yield reading, bytes(values[at : at + length])
                at += length

    def texts(self, characters: CharacterSet, *, signed: bool) -> tuple[str, ...]:
        """All values as text (see `text_values`).

        ``characters`` and ``signed`` count where no item says otherwise.
        """
        texts: list[str] = []
        for reading, value in self:
            own = characters if reading.characters is None else character_set(reading.characters)
            sign = signed if reading.sign is None else is_signed(reading.sign)
            big = reading.big_endian
            texts += text_values(reading.tag, reading.vr, value, own, big_endian=big, signed=sign)
        return tuple(texts)


def is_signed(value: bytes) -> bool:
    """What a value of Pixel Representation (0028,0103) says, in either byte order."""
    return value.strip(b"\0") == b"\1"
