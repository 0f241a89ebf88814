"""``commitments``: what remotes asked to have committed, and whether they were told."""

from pathlib import Path

import click

from router.cli.desk import open_desk
from router.cli.options import config_option, json_option, socket_option
from router.cli.output import age, print_json, print_table, until

_MOST = 10_000


@click.group()
def commitments() -> None:
    """What remotes asked to have committed (storage commitment), and whether they were told."""


@commitments.command("list")
@config_option
@socket_option
@click.option("--all", "everything", is_flag=True, help="Those that are over as well.")
@click.option(
    "--limit",
    type=click.IntRange(min=1, max=_MOST),
    default=100,
    show_default=True,
    metavar="N",
    help="At most so many, the latest first.",
)
@json_option
def list_(
    config_path: Path | None,
    socket_path: Path | None,
    everything: bool,
    limit: int,
    as_json: bool,
) -> None:
    """Requests of remotes: `weighing` while an instance is not decided, `reporting` until the
    remote was told, `reported`, or `given up`."""
    with open_desk(config_path, socket_path) as desk:
        found = desk.promises(limit, everything)
    if as_json:
        print_json({"commitments": found})
        return
    print_table(
        (
            *("remote", "state", ">age", ">instances", ">committed", ">failed"),
            *(">tries", "next", "transaction", "why"),
        ),
        [
            (
                one["remote"],
                one["state"],
                age(one["asked_at"]),
                one["instances"],
                one["committed"],
                one["failed"],
                one["attempts"],
                "" if one["due_at"] is None else until(one["due_at"]),
                one["transaction_uid"],
                one["reason"],
            )
            for one in found
        ],
        empty="no remote waits for a report"
        if not everything
        else "no remote asked for commitment",
    )
