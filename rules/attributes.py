"""Attributes by keyword or tag, and which of them a rule can compare.

Owns the way a tag is written.  Keywords and value representations are those of PS3.6, from
pydicom's dictionary.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from pydicom.datadict import dictionary_VR, keyword_dict, keyword_for_tag, tag_for_keyword


@dataclass(frozen=True, slots=True)
class Private:
    """A private element by its creator, wherever that has its block (PS3.5 §7.8.1).

    ``element`` is the low byte of the element number, 0x00 to 0xFF.
    """

    group: int
    creator: str
    element: int


Step: TypeAlias = int | Private
"""One element: a tag such as ``0x00080060``, or a private one."""
Key: TypeAlias = Step | tuple[Step, ...]
"""How `Facts.attributes` names an attribute: the step alone at the top level; from a sequence
down, the steps (two or more), all but the last of them sequences."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """What a condition looks at in the data set.

    ``path`` has one step for an attribute at the top level.  Through sequences the values of all
    items count.  ``position`` is that of the one value that is meant, from 1 as the standard
    counts (Value 3 of Image Type); 0 means any of them.
    """

    path: tuple[Step, ...]
    position: int = 0

    @property
    def key(self) -> Key:
        """As in `Facts.attributes`."""
        return self.path[0] if len(self.path) == 1 else self.path


_TAG = re.compile(r"\(([0-9A-Fa-f]{4}),\s*([0-9A-Fa-f]{4})\)|([0-9A-Fa-f]{4}),?([0-9A-Fa-f]{4})")

BULK = frozenset(
    ("SQ", "OB", "OD", "OF", "OL", "OV", "OW", "UN", "OB or OW", "US or OW", "US or SS or OW")
)
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


def label_of_step(step: Step) -> str:
    """``Modality (0008,0060)``, or ``(0019,"GEMS_ACQU_01",10)``."""
    if isinstance(step, Private):
        return f'({step.group:04X},"{step.creator}",{step.element:02X})'
    return label(step)


def label_of_key(key: Key) -> str:
    """The same of an attribute without a position."""
    return ".".join(map(label_of_step, key if isinstance(key, tuple) else (key,)))


def label_of(attribute: Attribute) -> str:
    """An attribute as messages and explanations name it."""
    text = ".".join(map(label_of_step, attribute.path))
    return f"{text}[{attribute.position}]" if attribute.position else text
