"""The known word that a mistyped one probably meant.

Owns the one notion of "near" for all messages about the configuration.  Must not know what
the words stand for.
"""

import difflib
from collections.abc import Iterable

_FOLD = str.maketrans("", "", "_-. ")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The member of ``known`` most like ``word``, or None when nothing is like it.

    Letter case, hyphens, underscores and spaces do not count as differences.
    """
    folded: dict[str, str] = {}
    for candidate in known:
        folded.setdefault(_fold(candidate), candidate)
    typed = _fold(word)
    close = difflib.get_close_matches(typed, _worth_a_look(typed, folded), n=1, cutoff=0.7)
    return folded[close[0]] if close else None


def _worth_a_look(typed: str, known: Iterable[str]) -> list[str]:
    """Those that are of about its length and share most of its letters: comparing costs a lot."""
    letters = set(typed)
    shortest, longest, shared = len(typed) * 0.53, len(typed) * 1.86, len(letters) * 0.6
    return [
        each
        for each in known
        if shortest <= len(each) <= longest and len(letters.intersection(each)) >= shared
    ]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?`` for the nearest known word, or ""."""
    close = nearest(word, known)
    return f"did you mean {close!r}?" if close is not None else ""


def _fold(word: str) -> str:
    return word.lower().translate(_FOLD)
