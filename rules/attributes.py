"""Attributes by keyword or tag, and which of them a rule can compare.

Owns the way a tag is written.  Keywords and value representations are those of PS3.6, from
pydicom's dictionary.
"""

import re
from collections.abc import Iterator

from pydicom.datadict import dictionary_VR, keyword_dict, keyword_for_tag, tag_for_keyword

_TAG = re.compile(r"\(([0-9A-Fa-f]{4}),\s*([0-9A-Fa-f]{4})\)|([0-9A-Fa-f]{4}),?([0-9A-Fa-f]{4})")

BULK = frozenset({"SQ", "OB", "OD", "OF", "OL", "OV", "OW", "UN", "OB or OW"})
"""Value representations whose values are no text that could be compared."""
SINGLE_TEXT = frozenset({"LT", "ST", "UT", "UR"})
"""Those in whose values a backslash is a character and not a separator (PS3.5 §6.4)."""


def tag_of(name: str) -> int | None:
    """The tag of a keyword, of ``(gggg,eeee)`` or of ``ggggeeee``; None for anything else."""
    if match := _TAG.fullmatch(name):
        return int("".join(part for part in match.groups() if part), 16)
    return tag_for_keyword(name) if name else None


def keywords() -> Iterator[str]:
    """The keywords of all attributes."""
    return (keyword for keyword in keyword_dict if keyword)


def vr_of(tag: int) -> str:
    """Value representation, or "" for a tag that is not in the dictionary."""
    try:
        return dictionary_VR(tag)
    except KeyError:
        return ""


def label(tag: int) -> str:
    """``Modality (0008,0060)``, or the tag alone."""
    number = f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
    keyword = keyword_for_tag(tag)
    return f"{keyword} {number}" if keyword else number
