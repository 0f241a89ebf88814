"""The known word that a mistyped one probably meant.

Owns the one notion of "near" for all messages about the configuration.  Must not know what
the words stand for.
"""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_FOLD = str.maketrans("", "", "_-. ")
_MANY = 200
_CUTOFF = 0.7
_left: ContextVar[list[int] | None] = ContextVar("suggestions left", default=None)


@contextmanager
def rationed(count: int = 100) -> Iterator[None]:
    """Within it only the first ``count`` words are looked for among many.

    That takes a hundredth of a second each, and nobody reads so many suggestions.
    """
    token = _left.set([count])
    try:
        yield
    finally:
        _left.reset(token)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The member of ``known`` most like ``word``, or None when nothing is like it.

    Letter case, hyphens, underscores and spaces do not count as differences.  None, too, when
    those are used up that are `rationed`.
    """
    words = tuple(known)
    left = _left.get()
    if left is not None and len(words) > _MANY:
        if not left[0]:
            return None
        left[0] -= 1
    folded: dict[str, str] = {}
    for candidate in words:
        folded.setdefault(_fold(candidate), candidate)
    typed = _fold(word)
    close = difflib.get_close_matches(typed, _worth_a_look(typed, folded), n=1, cutoff=_CUTOFF)
    return folded[close[0]] if close else None


def _worth_a_look(typed: str, known: Iterable[str]) -> list[str]:
    """Those that are of about its length and share most of its letters: comparing costs a lot."""
    kinds = set(typed)
    letters = [(letter, typed.count(letter)) for letter in kinds]
    length, most = len(typed), len(kinds) * 0.6
    shortest, longest = length * 0.53, length * 1.86
    found = []
    for each in known:
        if shortest <= len(each) <= longest and len(kinds.intersection(each)) >= most:
            # The most that any order of the letters could have in common.
            shared = sum([min(count, each.count(letter)) for letter, count in letters])
            if 2 * shared >= _CUTOFF * (length + len(each)):
                found.append(each)
    return found


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?`` for the nearest known word, or ""."""
    close = nearest(word, known)
    return f"did you mean {close!r}?" if close is not None else ""


def _fold(word: str) -> str:
    return word.lower().translate(_FOLD)
