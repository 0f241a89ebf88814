"""``find``: what does an archive have?"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.cli.failures import FAILED, Failure, Misuse
from router.cli.options import config_option, json_option
from router.cli.output import print_json, print_table
from router.cli.remotes import calling_option, find_target

if TYPE_CHECKING:
    from router.net.requestor import Target
    from router.query.find import Found
    from router.query.identifier import Level, Query


@click.command()
@click.argument("remote", metavar="REMOTE")
@click.argument("keys", nargs=-1, metavar="[KEY[=VALUE]]...")
@click.option(
    "--level",
    type=click.Choice(("study", "series", "image")),
    default="study",
    show_default=True,
    help="What is looked for; below study level the UIDs of the levels above are needed.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1, max=100_000),
    default=500,
    show_default=True,
    metavar="N",
    help="Stop after so many matches.",
)
@config_option
@calling_option
@click.option(
    "--timeout", default="60s", show_default=True, metavar="TIME", help="For the whole query."
)
@json_option
def find(
    remote: str,
    keys: tuple[str, ...],
    level: "Level",
    limit: int,
    config_path: Path | None,
    calling: str | None,
    timeout: str,
    as_json: bool,
) -> None:
    """Ask REMOTE what it has (C-FIND): a configured name, or AE@host:port.

    KEY=VALUE is what has to match, as in PatientID=123, PatientName='DOE*' or
    StudyDate=20260101-20260131; KEY alone is what is to be told. A KEY is a keyword of the
    standard or gggg,eeee.

    Exit code 0 when it answered, with matches or without.
    """
    target = find_target(remote, config_path, calling)
    query = _query(level, keys)
    seconds = _seconds(timeout)
    # None of the steps may take longer than all of it.
    target = replace(
        target,
        connect_timeout=min(target.connect_timeout, seconds),
        negotiation_timeout=min(target.negotiation_timeout, seconds),
    )
    import uvloop

    from router.net.errors import AssociationError
    from router.observe.log import configure
    from router.query.find import QueryRefused

    configure("error", "console")
    try:
        found = uvloop.run(_find(target, query, limit, seconds))
    except (AssociationError, QueryRefused) as error:
        text = str(error) if isinstance(error, AssociationError) else f"{target}: {error}"
        if not as_json:
            raise Failure(text) from None
        print_json({"remote": target.name, "answered": False, "error": text})
        raise SystemExit(FAILED) from None
    _tell(target, query, found, as_json)


def _query(level: "Level", keys: tuple[str, ...]) -> "Query":
    from router.query.identifier import KeyProblem, parse_keys

    try:
        return parse_keys(level, keys)
    except KeyProblem as error:
        raise Misuse(str(error), error.fix) from None


def _seconds(text: str) -> float:
    from router.units import parse_duration

    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise Misuse(f"--timeout: {error}") from None
    if seconds <= 0:
        raise Misuse("--timeout must be more than 0")
    return seconds


async def _find(target: "Target", query: "Query", limit: int, seconds: float) -> "Found":
    from router.net.connector import connect
    from router.net.errors import AssociationError
    from router.query.find import PROPOSALS, find

    association = await connect(replace(target, asynchronous_operations=1), PROPOSALS)
    try:
        found = await find(association, query, most=limit, seconds=seconds)
    except BaseException:
        association.abort()
        raise
    try:
        await association.release()
    except AssociationError as error:
        click.echo(f"dcmrouter: it answered, but then: {error}", err=True)
    return found


def _tell(target: "Target", query: "Query", found: "Found", as_json: bool) -> None:
    columns = list(query.keys)
    if as_json:
        print_json(
            {
                "remote": target.name,
                "answered": True,
                "level": query.level,
                "complete": found.complete,
                "matches": [
                    {k: list(match.get(k, ())) for k in columns} for match in found.matches
                ],
            }
        )
        return
    rows = [["\\".join(match.get(name, ())) for name in columns] for match in found.matches]
    print_table(columns, rows, empty=f"{target} has nothing that matches")
    if not found.complete:
        click.echo(f"there are more than these {len(rows)}; see --limit", err=True)
