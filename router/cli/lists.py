"""Lists of deliveries and instances, a page at a time.

Owns how much of one is asked for and shown.  Must not know what an entry looks like.
"""

from collections.abc import Iterator

import click

from router.cli.desk import Desk, Json

PAGE = 1000
"""Entries that are asked for at once."""

limit_option = click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    metavar="N",
    help="At most so many; 0 for all.",
)


def pages(desk: Desk, what: str, which: Json, size_: int = PAGE) -> Iterator[Json]:
    """Entries of a list (``queue`` or ``instances``), as many as there are."""
    ask = desk.queue if what == "queue" else desk.instances
    after = ""
    while True:
        page = ask(which, size_, after)
        yield from page["entries"]
        after = page["next"]
        if not after:
            return


def paged(desk: Desk, what: str, which: Json, limit: int) -> tuple[list[Json], bool]:
    """Up to ``limit`` entries (0 for all), and whether there are more."""
    entries: list[Json] = []
    for entry in pages(desk, what, which, min(limit + 1, PAGE) if limit else PAGE):
        if limit and len(entries) == limit:
            return entries, True
        entries.append(entry)
    return entries, False


def print_more(more: bool) -> None:
    """The line under a list that was cut."""
    if more:
        click.echo("… and more: --limit N shows so many, --limit 0 all")
