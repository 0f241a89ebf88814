"""Values kept in a file beside the rules: one on each line, or a column of a CSV table.

Owns the reading of such a file.  Must not open it.  Its values identify patients: no message here
shows one.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass

from rules.nearest import did_you_mean
from rules.source import Problem

MAX_BYTES = 64 * 2**20
MAX_VALUES = 1_000_000
_DELIMITERS = ",;\t"


@dataclass(frozen=True, slots=True)
class ListText:
    """What a file holds.

    ``problems`` is empty when ``values`` are all of them; ``warnings`` keep nothing from taking
    effect.
    """

    values: frozenset[str]
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()


def parse_list(data: bytes, file: str, column: str | int | None = None) -> ListText:
    """The values in a file of UTF-8 text; blank lines and those that start with # are passed over.

    Without ``column`` each line is a value, without the space around it.  With one the file is a
    table, its columns parted by commas, semicolons or tabs, whichever its first row has most of;
    a text names the column by the head of that row, a number (from 1) by its place, and then the
    first row is a value as well.  An empty cell is no value.  ``file`` is the name that problems
    carry.
    """
    if len(data) > MAX_BYTES:
        return _failed(file, 0, f"is larger than {MAX_BYTES >> 20} MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return _failed(file, line, "is not UTF-8", "save the file as UTF-8")
    if (at := text.find("\0")) >= 0:
        # What a power cut leaves of a file that was being written; or UTF-16.
        line = text.count("\n", 0, at) + 1
        return _failed(file, line, "holds NUL bytes", "write the file anew, as UTF-8")
    lines = _Lines(text)
    read = _plain(lines, file) if column is None else _table(lines, file, column)
    if len(read.values) > MAX_VALUES:
        return _failed(file, 0, f"has more than {MAX_VALUES} values")
    if not read.problems and not read.values:
        empty = Problem(file, 0, 0, "has no values", "nothing is in this list")
        return ListText(read.values, (), (*read.warnings, empty))
    return read


def _failed(file: str, line: int, message: str, fix: str = "") -> ListText:
    return ListText(frozenset(), (Problem(file, line, min(line, 1), message, fix),))


class _Lines:
    """The lines that count; ``number`` is that of the last one taken, as an editor counts."""

    def __init__(self, text: str) -> None:
        # Not splitlines(): it also splits at characters that may stand within a value.
        self._lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        for number, line in enumerate(self._lines, 1):
            if line.strip() and not line.lstrip().startswith("#"):
                self.number = number
                yield line + "\n"

    def first(self) -> str:
        return next(iter(self), "")


def _plain(lines: _Lines, file: str) -> ListText:
    values = frozenset(line.strip() for line in lines)
    for delimiter, name in zip(_DELIMITERS, ("commas", "semicolons", "tabs"), strict=True):
        if values and all(delimiter in value for value in values):
            fix = "say which column holds the values, as in 'column: 1'"
            warning = Problem(file, 0, 0, f"has {name} in every line", fix)
            return ListText(values, (), (warning,))
    return ListText(values)


def _table(lines: _Lines, file: str, column: str | int) -> ListText:
    first = lines.first()
    if not first:
        return ListText(frozenset())
    delimiter = max(_DELIMITERS, key=first.count)
    values: set[str] = set()
    problems: list[Problem] = []
    place = column - 1 if isinstance(column, int) else -1
    head = isinstance(column, str)
    try:
        for row in csv.reader(lines, delimiter=delimiter, strict=True):
            if head:
                names = [cell.strip() for cell in row]
                if column not in names:
                    # The row is not shown: without heads it is a patient's.
                    fix = did_you_mean(str(column), names) or "its first row must name the columns"
                    return _failed(file, lines.number, f"has no column {column!r}", fix)
                place, head = names.index(str(column)), False
            elif place < len(row):
                values.add(row[place].strip())
            else:
                problems.append(_short(file, lines.number, len(row), place + 1))
                if len(problems) == 10:
                    break
    except csv.Error as error:
        problems.append(
            Problem(
                file, lines.number, 1, f"cannot be read as a table: {error}", "check the quotes"
            )
        )
    values.discard("")
    return ListText(frozenset(values), tuple(problems))


def _short(file: str, line: int, cells: int, column: int) -> Problem:
    count = "1 column" if cells == 1 else f"{cells} columns"
    fix = "part the columns by commas, or by what the first row has"
    return Problem(file, line, 1, f"has {count} here, and the values are in column {column}", fix)
