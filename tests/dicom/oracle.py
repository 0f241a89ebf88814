"""What pydicom finds in a data set, by the keys of the scanner, and whether a text is the same.

Owns the obvious walk over pydicom's data sets.  Must not know the scanner.
"""

import math
import struct
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydicom import DataElement, Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

from rules.attributes import Key, Private, Step

TEXT = {"AE", "AS", "CS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
NUMBERS = {"AT", "DS", "IS", "FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"}
BOTH_ENDS = {"AE", "CS", "LO", "SH"}


@dataclass
class Expected:
    """The values of one key with their VRs; ``known`` is False where pydicom left bytes."""

    values: list[tuple[str, Any]] = field(default_factory=list)
    known: bool = True


def expected(data: Dataset) -> dict[Key, Expected]:
    """Every attribute to full depth, values of all items one after the other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: dict[Key, Expected] = {}
        encoded = _with_vr(data)
        for path, element, has_vr in _elements(data, (), encoded):
            key: Key = path[0] if len(path) == 1 else path
            values = _values(element)
            entry = found.setdefault(key, Expected())
            by_tag = isinstance(path[-1], int) and element.tag.is_private
            if values is None or (by_tag and not has_vr):
                entry.known = False
            else:
                entry.values += [(element.VR, value) for value in values]
    return found


def _with_vr(data: Dataset) -> set[tuple[int, int]]:
    """Item and tag of every element whose VR is in the encoding; before pydicom fills it in."""
    found = set()
    for tag in sorted(data.keys()):
        if data.get_item(tag).VR not in (None, "UN"):
            found.add((id(data), int(tag)))
        element = _element(data, tag)
        if element is not None and element.VR == "SQ" and not isinstance(element.value, bytes):
            for item in element.value:
                found |= _with_vr(item)
    return found


def _element(data: Dataset, tag: BaseTag) -> DataElement | None:
    try:
        return data[tag]
    except (ValueError, TypeError, NotImplementedError, struct.error, EOFError, AttributeError):
        return None  # pydicom cannot read it


def _elements(
    data: Dataset, above: tuple[Step, ...], encoded: set[tuple[int, int]]
) -> Iterator[tuple[tuple[Step, ...], DataElement, bool]]:
    """Every element under each of its names, and whether its VR is in the encoding."""
    for tag in sorted(data.keys()):
        element = _element(data, tag)
        if element is None:
            continue
        for step in _steps(data, element.tag):
            yield (*above, step), element, (id(data), int(tag)) in encoded
            if element.VR == "SQ" and not isinstance(element.value, bytes):
                for item in element.value:
                    yield from _elements(item, (*above, step), encoded)


def _steps(data: Dataset, tag: BaseTag) -> list[Step]:
    """The tag, and for a private element that has a creator also that."""
    block = tag.elem >> 8
    if tag.is_private and block >= 0x10:
        creator = data.get((tag.group, block))
        if creator is not None and isinstance(creator.value, str) and creator.value.strip(" \0"):
            return [int(tag), Private(tag.group, creator.value.strip(" \0"), tag.elem & 0xFF)]
    return [int(tag)]


def _values(element: DataElement) -> list[Any] | None:
    value = element.value
    if element.VR not in TEXT | NUMBERS:
        return None if element.VR == "UN" else []
    if isinstance(value, bytes):
        return None
    if value is None or value == "" or (element.VR in TEXT and str(value) == ""):
        return []
    return list(value) if isinstance(value, list | MultiValue) else [value]


def same(vr: str, text: str, value: Any) -> bool:
    """Whether a text of the scanner is what pydicom has for it."""
    if vr == "AT":
        return text == f"{int(value):08X}"
    if vr == "FL":
        packed = struct.pack("<f", value)
        return struct.pack("<f", float(text)) == packed
    if vr in NUMBERS:
        if isinstance(value, str):
            return text == value
        return float(text) == float(value) or math.isnan(value)
    wanted = str(value).rstrip(" \0")
    if vr in BOTH_ENDS:
        wanted = wanted.strip(" \0")
    if vr == "PN":
        return text.rstrip("=") == wanted.rstrip("=")
    return text == wanted


def differences(
    found: Mapping[Any, tuple[str, ...]], wanted: Mapping[Any, Expected]
) -> dict[str, Any]:
    """The keys whose texts are not what is expected, with both."""
    wrong: dict[str, Any] = {}
    for key, entry in wanted.items():
        texts = found.get(key)
        if texts is None:
            wrong[repr(key)] = ("not found", entry)
        elif entry.known and not (
            len(texts) == len(entry.values)
            and all(same(vr, t, v) for t, (vr, v) in zip(texts, entry.values, strict=True))
        ):
            wrong[repr(key)] = (texts, entry)
    return wrong
