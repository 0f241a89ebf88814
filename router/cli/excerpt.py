"""A problem as compilers show it: its place, what is wrong, the line of the file, what mends it.

Owns the form.  Whatever a file holds is made harmless first: it must not colour the terminal.
"""

import re
import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING

from router.cli.output import safe

if TYPE_CHECKING:
    from rules import Problem

MAX_WIDTH = 100
"""Columns of a line that are shown."""
_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # where a YAML reader counts a line
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"' + r"|'(?:[^']|'')*'")
_PLAIN = re.compile(r"(?:[^\s,\[\]{}:#]|:(?=\S)|(?<=\S)#|\s+(?=[^\s,\[\]{}:#]))+")


def told(problem: "Problem", texts: Mapping[str, bytes], sort: str = "") -> list[str]:
    """The lines to print; ``texts`` are the files that may be shown, ``sort`` such as "warning"."""
    place = problem.file
    if problem.line:
        place += f":{problem.line}:{problem.column}"
    lines = [safe(f"{sort}: {place}: {problem.message}" if sort else f"{place}: {problem.message}")]
    margin = ""
    if (line := _line(problem, texts)) is not None:
        number = f"{problem.line:>5}"
        margin = " " * len(number)
        shown, at, width = _cut(line, problem.column - 1, _extent(line, problem.column - 1))
        lines.append(f"{number} | {shown}".rstrip())
        lines.append(f"{margin} | {' ' * at}{'^' * width}")
    if problem.fix:
        lines.append(safe(f"{margin or '     '} = {problem.fix}"))
    return lines


def _line(problem: "Problem", texts: Mapping[str, bytes]) -> str | None:
    data = texts.get(problem.file)
    if data is None or not problem.line:
        return None
    lines = _BREAK.split(data.decode("utf-8-sig", "replace"))
    return lines[problem.line - 1] if problem.line <= len(lines) else None


def _extent(line: str, start: int) -> int:
    """How many characters from ``start`` on are meant: a word, a quoted text, or one mark."""
    for form in (_QUOTED, _PLAIN):
        if match := form.match(line, start):
            return max(1, len(match[0].rstrip()))
    return 1


def _cut(line: str, start: int, length: int) -> tuple[str, int, int]:
    """What of the line is shown, and where in it, in columns, the carets stand."""
    start = min(start, len(line))
    begin = 0
    if len(line) > MAX_WIDTH:
        begin = max(0, min(start - MAX_WIDTH // 3, len(line) - MAX_WIDTH))
    end = begin + MAX_WIDTH
    before, meant = line[begin:start], line[start : min(start + length, end)]
    head, tail = "…" if begin else "", "…" if end < len(line) else ""
    shown = head + _harmless(line[begin:end]) + tail
    return shown, len(head) + _columns(before), max(1, _columns(meant))


def _harmless(text: str) -> str:
    return "".join(
        c if c.isprintable() else " " if c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def _columns(text: str) -> int:
    """Columns of a terminal that a text takes."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )
