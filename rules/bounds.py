"""How much rules may hold: the length of names and reasons, and what conditions expand to.

Owns the limits on what a person names and nests.  Named conditions may stand in each other, so a
short text can mean a condition that is very deep or very large; both are measured without writing
it out.
"""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from rules.rule import AllOf, AnyOf, Condition, Named, Not

MAX_NAME = 200
"""Characters of a rule's or condition's name."""
MAX_REASON = 500
"""Characters of the reason of `discard`, `hold` or `disabled`."""
MAX_NESTED = 32
"""Conditions inside each other, named ones included."""
MAX_LEAVES = 10_000
"""Comparisons of one condition, named ones written out."""
MAX_ALL_LEAVES = 200_000
"""Comparisons of all rules together."""
_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They turn the text behind them round, so that a name reads as another."""


@dataclass(frozen=True, slots=True)
class Size:
    """How many comparisons a condition has, and how deep they lie."""

    leaves: int
    levels: int

    @property
    def too_much(self) -> tuple[str, str]:
        """What is wrong with a condition of this size and what would mend it; ("", "")."""
        if self.levels > MAX_NESTED:
            return TOO_DEEP
        if self.leaves > MAX_LEAVES:
            what = f"is {self.leaves} comparisons with its named conditions written out"
            return what, f"{MAX_LEAVES} are the most: put values in a list under 'lists'"
        return "", ""


TOO_DEEP = (
    f"has conditions in each other more than {MAX_NESTED} deep",
    "write some of the named ones out",
)


def size_of(condition: Condition, named: Mapping[str, Size]) -> Size:
    """The size of a condition; ``named`` has those of the named ones in it."""
    match condition:
        case Named(name, _):
            inside = named[name]
            return Size(inside.leaves, inside.levels + 1)
        case Not(inner):
            inside = size_of(inner, named)
            return Size(inside.leaves, inside.levels + 1)
        case AllOf(conditions) | AnyOf(conditions):
            sizes = [size_of(inner, named) for inner in conditions]
            own = 1 if isinstance(condition, AnyOf) else 0
            levels = (
                size.levels + (1 if isinstance(inner, AllOf) else own)
                for inner, size in zip(conditions, sizes, strict=True)
            )
            return Size(sum(size.leaves for size in sizes), max(levels, default=0))
        case _:
            return Size(1, 0)


def unfit(text: str, most: int) -> tuple[str, str] | None:
    """Why ``text`` cannot stand in logs, tables and records, and what would mend it."""
    if len(text) > most:
        return f"has {len(text)} characters", f"{most} are the most"
    for character in text:
        if unicodedata.category(character) in ("Cc", "Zl", "Zp") or character in _DIRECTIONS:
            what = f"has the control character U+{ord(character):04X}"
            return what, "write it in one line, of letters that can be seen"
    return None
