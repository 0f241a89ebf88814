"""What people read: tables, ages, sizes.  And what scripts read: JSON.

Owns the forms.  Whatever goes into a table is made harmless first: names and reasons are what
strangers sent, and must neither colour the terminal nor be taken for markup.
"""

import json
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import datetime

import click

_WIDE = 100_000
"""Columns when the output is not a terminal: nothing is cut for a file or a pipe, and each row is
one line, as wide as it needs."""


def print_json(value: object) -> None:
    """One JSON value, indented."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=True))


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "", empty: str = ""
) -> None:
    """A table; a column whose name starts with ``>`` is set to the right.

    ``empty`` is printed instead when there are no rows.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for name in columns:
        right = name.startswith(">")
        table.add_column(
            Text(name.removeprefix(">")),
            justify="right" if right else "left",
            overflow="fold",
            no_wrap=right,
        )
    for row in rows:
        table.add_row(*(Text(safe(value)) for value in row))
    if not table.row_count and empty:
        click.echo(empty)
        return
    width = None if sys.stdout.isatty() else _WIDE
    console = Console(highlight=False, markup=False, emoji=False, width=width)
    with console.capture() as capture:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in capture.get().strip("\n").splitlines()))


def safe(value: object) -> str:
    """Text with everything unprintable made visible; "" for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def size(count: object) -> str:
    """``1.2 MB`` of a number of bytes."""
    if not isinstance(count, int | float):
        return ""
    number = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def seconds(value: object) -> str:
    """``3.2 ms``, ``4.1 s``, ``5 m``, ``2.5 h`` or ``3 d``."""
    if not isinstance(value, int | float):
        return ""
    if value < 1:
        return f"{value * 1000:.3g} ms"
    for unit, length, limit in (("s", 1, 120), ("m", 60, 7200), ("h", 3600, 172800)):
        if value < limit:
            return f"{value / length:.3g} {unit}"
    return f"{value / 86400:.3g} d"


def age(moment: object, now: float | None = None) -> str:
    """How long ago a time (seconds since the epoch) is; "" for None."""
    if not isinstance(moment, int | float):
        return ""
    return seconds(max(0.0, (time.time() if now is None else now) - moment))


def moment(at: float) -> str:
    """A time (seconds since the epoch) as the clock on the wall here shows it."""
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M %Z")


def until(moment: object, now: float | None = None) -> str:
    """How far ahead a time is: ``now`` or ``in 5 m``; "" for None."""
    if not isinstance(moment, int | float):
        return ""
    ahead = moment - (time.time() if now is None else now)
    return "now" if ahead <= 0 else f"in {seconds(ahead)}"


def plural(count: int, word: str) -> str:
    """``1 delivery``, ``3 deliveries``."""
    if count == 1:
        return f"1 {word}"
    return f"{count} {word[:-1]}ies" if word.endswith("y") else f"{count} {word}s"
