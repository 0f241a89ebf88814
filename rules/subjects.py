"""Attributes as a person names them: keyword, tag, private element, path, position.

Owns the grammar of names: ``Modality``, ``(0008,0060)``, ``(0019,"GEMS_ACQU_01",10)``,
``RequestAttributesSequence.ScheduledProcedureStepID``, ``ImageType[3]``.
"""

import re
from functools import lru_cache

from pydicom.datadict import dictionary_VM

from rules.attributes import (
    BULK,
    SINGLE_TEXT,
    Attribute,
    Private,
    Step,
    keywords,
    label_of,
    label_of_step,
    tag_of,
    vr_of,
)
from rules.nearest import nearest
from rules.refusal import Refusal

MAX_STEPS = 8
_PRIVATE = re.compile(
    r"""\(\s*([0-9A-Fa-f]{4})\s*,\s*(?:"([^"\\]*)"|'([^'\\]*)')\s*,\s*([0-9A-Fa-f]+)\s*\)"""
)
_PLAIN = re.compile(r"\([^()]*\)|[^.\[\]()]+")
_POSITION = re.compile(r"\[([^\]]*)\]")
_FILE_META = {0x00020010: "use transfer_syntax", 0x00020002: "use sop_class"}
_SPELLED_PRIVATE = 'write a private element as (0019,"CREATOR",10), with the last two digits'


def parse_attribute(text: str) -> Attribute:
    """The attribute that ``text`` names.

    Raises Refusal for what is no attribute, and for one that has no values to compare.
    """
    steps: list[Step] = []
    at, position = 0, 0
    while True:
        step, at = _step(text, at)
        steps.append(step)
        if match := _POSITION.match(text, at):
            position, at = _position(match[1]), match.end()
        if at == len(text):
            break
        if position:
            raise Refusal(
                f"{text!r} has a position before its end",
                "items of a sequence have no number: any item counts",
            )
        if text[at] != ".":
            raise Refusal(f"{text!r} cannot be read from {text[at:]!r} on", _leftover(text[at:]))
        at += 1
    attribute = Attribute(tuple(steps), position)
    _check(attribute)
    return attribute


def _step(text: str, at: int) -> tuple[Step, int]:
    if match := _PRIVATE.match(text, at):
        return _private(match), match.end()
    match = _PLAIN.match(text, at)
    word = match[0].strip() if match else text[at:]
    tag = tag_of(word)
    if match is None or tag is None:
        raise Refusal(f"unknown attribute {word!r}", _fix(word))
    return tag, match.end()


def _private(match: re.Match[str]) -> Private:
    group, creator, element = int(match[1], 16), match[2] or match[3] or "", match[4]
    if group % 2 == 0:
        raise Refusal(
            f"group {match[1]} is even, and private elements have odd groups",
            f"a standard attribute has no creator: ({match[1]},....)",
        )
    if not creator.strip():
        raise Refusal(f"{match[0]!r} names no private creator", _SPELLED_PRIVATE)
    if len(element) != 2:
        raise Refusal(
            f"{element!r} is not the last two digits of a private element",
            f'write ({match[1]},"{creator}",{element[-2:].rjust(2, "0")})',
        )
    return Private(group, creator.strip(), int(element, 16))


def _position(text: str) -> int:
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 6:
        raise Refusal(f"[{text}] is no position", "values are counted from 1: [1]")
    if int(digits) == 0:
        raise Refusal("[0] is no position", "values are counted from 1: write [1] for the first")
    return int(digits)


def _fix(word: str) -> str:
    if word.startswith("("):
        if any(mark in word for mark in "\"'xX") or word.count(",") > 1:
            return _SPELLED_PRIVATE
        return "write a tag as (0008,0060)"
    close = nearest(word, keywords())
    return f"did you mean {close!r}?" if close else ""


def _leftover(rest: str) -> str:
    if rest.startswith("["):
        return "close the bracket: [3]"
    return "steps of a path stand between dots: Sequence.Keyword"


def _check(attribute: Attribute) -> None:
    if len(attribute.path) > MAX_STEPS:
        raise Refusal(f"{label_of(attribute)} is deeper than {MAX_STEPS} steps")
    for step in attribute.path:
        if isinstance(step, int) and step < 0x00080000:
            raise Refusal(
                f"{label_of_step(step)} is not an attribute of a data set", _FILE_META.get(step, "")
            )
    for step in attribute.path[:-1]:
        vr = vr_of_step(step)
        if vr not in ("", "SQ"):
            raise Refusal(
                f"{label_of_step(step)} is no sequence: its VR is {vr}",
                "only sequences have attributes inside",
            )
    last = attribute.path[-1]
    vr = vr_of_step(last)
    if vr in BULK:
        fix = "only text, numbers, dates and times can be compared"
        if vr == "SQ":
            fix = "name an attribute inside it: SequenceName.AttributeName"
        raise Refusal(f"{label_of_step(last)} has no text to compare: its VR is {vr}", fix)
    most = most_values(last)
    if len(attribute.path) == 1 and most is not None and attribute.position > most:
        count = "one value" if most == 1 else f"{most} values"
        raise Refusal(
            f"{label_of_step(last)} has {count} at most, so [{attribute.position}] is never there",
            "leave the position out" if most == 1 else f"the last is [{most}]",
        )


def vr_of_step(step: Step) -> str:
    """Value representation, or "" where the dictionary has none: private and unknown ones."""
    return vr_of(step) if isinstance(step, int) else ""


def vr_of_attribute(attribute: Attribute) -> str:
    """That of the last step."""
    return vr_of_step(attribute.path[-1])


@lru_cache(maxsize=1024)
def most_values(step: Step) -> int | None:
    """How many values the dictionary allows, None for no limit or an unknown one."""
    if not isinstance(step, int) or vr_of(step) == "":
        return None
    if vr_of(step) in SINGLE_TEXT:
        return 1
    most = dictionary_VM(step).split("-")[-1]
    return int(most) if most.isdigit() else None
