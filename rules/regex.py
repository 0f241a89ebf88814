"""Regular expressions whose time grows with the value's length and no faster.

Owns what is a regular expression of the rules: RE2's syntax, which has neither backreferences nor
look-around, so that no value can make one run away.  ``\\d`` and ``\\w`` are ASCII.
"""

from collections.abc import Callable
from functools import lru_cache

import re2  # type: ignore[import-untyped]

MAX_PATTERN = 1000
"""Characters of an expression."""
MAX_VALUE = 64 * 1024
"""Characters of a value that are looked at."""
_MEMORY = 4 * 2**20  # RE2 falls back to a slower automaton, linear too, rather than use more


def complaint(pattern: str) -> tuple[str, str]:
    """What is wrong with an expression and what would mend it; ("", "") when it is sound."""
    if len(pattern) > MAX_PATTERN:
        return f"has more than {MAX_PATTERN} characters", "take two of it"
    try:
        _compiled(pattern, False)
    except re2.error as error:
        said = error.args[0]
        what = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        return f"is no regular expression: {what}", _fix(pattern, what)
    return "", ""


def searcher(pattern: str, ignore_case: bool) -> Callable[[str], bool]:
    """Whether the expression is found anywhere in a value.  ``pattern`` must be sound."""
    search = _compiled(pattern, ignore_case).search

    def found(value: str) -> bool:
        # Half a character, from a damaged character set, has no UTF-8.
        return search(value[:MAX_VALUE].encode("utf-8", "replace")) is not None

    return found


@lru_cache(maxsize=512)
def _compiled(pattern: str, ignore_case: bool) -> "re2._Regexp":
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    options.max_mem = _MEMORY
    options.case_sensitive = not ignore_case
    return re2.compile(pattern, options)


def _fix(pattern: str, what: str) -> str:
    if any(sign in pattern for sign in ("(?=", "(?!", "(?<=", "(?<!")):
        return "look-around is not available, since it can run away; use 'all' and 'not' instead"
    if "invalid escape" in what and any(f"\\{digit}" in pattern for digit in "123456789"):
        return "backreferences are not available, since they can run away; compare with same_as"
    if "repetition" in what and "size" in what:
        return "repeat 1000 times at most, counting repeats inside repeats"
    if "no argument for repetition" in what:
        return r"a glob such as 'CT*' is written without slashes; a literal * as \*"
    if "missing )" in what or "unexpected )" in what:
        return r"close each bracket, or write a literal one as \( or \)"
    if "missing ]" in what:
        return r"close the bracket, or write a literal one as \["
    return ""
