"""Text that no value of an attribute can be: codes with small letters, curly quotes.

Owns what a conforming code is (PS3.5 §6.2, VR CS) and what a person meant who wrote another.
Must not know how rules are written.
"""

import re
from collections.abc import Iterator
from typing import cast

from rules.attributes import Attribute, label_of
from rules.pattern import Affix, Exact, Glob, Name, Regex
from rules.rule import Count, Leaf, Match, Received, SameAs
from rules.source import CURLY_FIX, curly
from rules.subjects import most_values, vr_of_attribute

MAX_CODE = 16
"""Characters of a code."""
_LOOKED_AT = 1000
"""Characters of a text in which several codes are looked for."""
_CODE = re.compile(r"[A-Z0-9 _]*")
_ALPHABETS = {
    "DA": ("0123456789.", "write 2026*, or a range: 2026-11-01..2026-11-30"),
    "TM": ("0123456789.:", 'write 18*, or a range: "18:00..19:00"'),
    "DT": ("0123456789.+-", "write 2026*, or a range: 2026-11-01..2026-11-30"),
    "AS": ("0123456789DWMY", "write 018Y, or a comparison: '>= 18Y'"),
}
"""The characters of VRs (PS3.5 §6.2, and those of before 1993), and what to write."""
_CARET = re.compile(r"[A-Za-z0-9]\^[A-Za-z0-9]")
_SEVERAL = re.compile(r"\s*[,;|/&+]\s*|\s+(?:or|and)\s+", re.IGNORECASE)
_NOT = re.compile(r"not\s+(?P<rest>\S.*)", re.IGNORECASE)


def unlikely(leaf: Match) -> Iterator[tuple[str, str]]:
    """What is wrong with each text that no conforming value can hold, and what would mend it."""
    if not isinstance(leaf.subject, Attribute):
        return
    for pattern in leaf.patterns:
        inner = pattern.pattern if isinstance(pattern, Name) else pattern
        if isinstance(inner, Exact | Glob | Affix) and curly(inner.text):
            yield f"{label_of(leaf.subject)} is compared with {inner.text!r}", CURLY_FIX
    for text, what, fix in never(leaf):
        if not curly(text):
            yield what, fix


def never(leaf: Match) -> Iterator[tuple[str, str, str]]:
    """Each text that is no code where codes stand: it, what is wrong with it, and the fix."""
    if not isinstance(leaf.subject, Attribute):
        return
    vr = vr_of_attribute(leaf.subject)
    if vr in _ALPHABETS:
        yield from _misspelt(leaf, vr)
    if vr != "CS":
        return
    for pattern in leaf.patterns:
        if isinstance(pattern, Exact | Glob | Affix) and (what := _fault(pattern, pattern.text)):
            yield (
                pattern.text,
                f"{label_of(leaf.subject)} can hardly match {pattern.text!r}: {what}",
                _meant(pattern.text, plain=isinstance(pattern, Exact)),
            )


def _misspelt(leaf: Match, vr: str) -> Iterator[tuple[str, str, str]]:
    letters, example = _ALPHABETS[vr]
    for pattern in leaf.patterns:
        if not isinstance(pattern, Glob | Affix):
            continue
        if strange := set(pattern.text) - set(letters) - set("*?"):
            what = f"a value of VR {vr} has no {min(strange)!r}"
            where = label_of(cast(Attribute, leaf.subject))
            yield pattern.text, f"{where} can hardly match {pattern.text!r}: {what}", example


def oddities(leaf: Leaf) -> Iterator[tuple[str, str]]:
    """What is allowed and hardly meant, of an attribute rather than of a text."""
    if isinstance(leaf, Received | SameAs) or not isinstance(leaf.subject, Attribute):
        return
    where = label_of(leaf.subject)
    for step in leaf.subject.path:
        if (
            isinstance(step, int)
            and not (step >> 16) % 2
            and not vr_of_attribute(Attribute((step,)))
        ):
            yield f"{where} is in no dictionary of the standard", "check the tag"
    if isinstance(leaf, Count) and len(leaf.subject.path) == 1:
        most = most_values(leaf.subject.path[0])
        if most is not None and leaf.least > most:
            count = "one value" if most == 1 else f"{most} values"
            yield f"{where} has {count} at most, so it never has {leaf.least}", ""
    for pattern in leaf.patterns if isinstance(leaf, Match) else ():
        inner = pattern.pattern if isinstance(pattern, Name) else None
        if isinstance(inner, Regex) and _CARET.search(inner.text):
            fix = r"write \^ for the caret between components"
            yield f"in the regex for {where} a ^ means the start of the name", fix


def _fault(pattern: Exact | Glob | Affix, text: str) -> str:
    letters = re.sub(r"[*?]", "", text) if isinstance(pattern, Glob) else text
    if not _CODE.fullmatch(letters):
        return "a code has only A-Z, 0-9, space and _"
    length = len(text.replace("*", "")) if isinstance(pattern, Glob) else len(text)
    return f"a code has {MAX_CODE} characters at most" if length > MAX_CODE else ""


def _meant(text: str, plain: bool) -> str:
    if len(text) > _LOOKED_AT:
        return ""
    if not plain:
        upper = text.upper()
        sound = upper != text and _CODE.fullmatch(re.sub(r"[*?]", "", upper))
        return f"write {upper}" if sound else ""
    if (negated := _NOT.fullmatch(text)) is not None:
        rest = _codes(negated["rest"])
        if len(rest) == 1:
            return f'write "!= {rest[0]}"'
        return f"write {{not: [{', '.join(rest)}]}}" if rest else ""
    codes = _codes(text)
    if len(codes) > 1:
        return f"write [{', '.join(codes)}]"
    if codes and codes[0] != text:
        return f"write {codes[0]}, or {{equals: {text}, ignore_case: true}} for either case"
    return ""


def _codes(text: str) -> list[str]:
    """The codes of a text that lists them; none when one of them is none."""
    found = [part.strip().upper() for part in _SEVERAL.split(text)]
    sound = all(0 < len(each) <= MAX_CODE and _CODE.fullmatch(each) for each in found)
    return found if sound else []
