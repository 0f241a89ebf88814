"""``queue``: what waits for the destinations, and acting on it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from router.cli.desk import Desk, Json, open_desk
from router.cli.failures import Misuse
from router.cli.options import (
    conditions,
    config_option,
    filter_options,
    instance_filter_options,
    json_option,
    socket_option,
)
from router.cli.output import age, plural, print_json, print_table, size, until

_PAGE = 1000
_DONE = {"retry": "to be retried", "drop": "dropped", "hold": "held", "release": "released"}

limit_option = click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    metavar="N",
    help="At most so many; 0 for all.",
)
all_option = click.option("--all", "everything", is_flag=True, help="All of them, no condition.")


@click.group()
def queue() -> None:
    """What waits for the destinations, and acting on it.

    The commands speak to the running gateway; without one they work on its directory at rest,
    and what they change takes effect when the gateway starts.
    """


@queue.command("list")
@config_option
@socket_option
@click.option("--destination", "-d", metavar="NAME", help="Of this destination alone.")
@json_option
def list_(
    config_path: Path | None, socket_path: Path | None, destination: str | None, as_json: bool
) -> None:
    """The queues: how many instances wait for each destination, and for what."""
    with open_desk(config_path, socket_path) as desk:
        queues = [q for q in desk.queues() if destination in (None, q["destination"])]
        status = desk.status() if desk.running and not as_json else None
    if as_json:
        print_json({"queues": queues})
        return
    print_table(
        ("destination", "state", ">instances", ">bytes", ">oldest", "next try", "waits for"),
        [
            (
                q["destination"],
                q["state"],
                q["instances"],
                size(q["bytes"]),
                age(q["oldest_received_at"]),
                next_try,
                "; ".join(why),
            )
            for q in queues
            for next_try, why in (waiting(q, status),)
            if q["instances"] or q["state"] == "ready"
        ],
        empty="there are no queues: nothing was routed yet",
    )


def waiting(queue: Json, status: Json | None) -> tuple[str, list[str]]:
    """When it is tried next, and why it waits: for a destination that is down the next probe
    counts, not when its deliveries are due.  ``status`` is None at rest, where nobody knows."""
    why = [", ".join(queue["waits"])] if queue.get("waits") else []
    states = {state["name"]: state for state in status["destinations"]} if status else {}
    if status is None or queue["state"] != "ready" or not queue["instances"]:
        return until(queue["next_due_at"]), why
    state = states.get(queue["destination"])
    if state is None:
        return "", ["not configured", *why]
    if state["up"]:
        return until(queue["next_due_at"]), why
    return until(state["next_probe_at"], status["now"]), [f"DOWN: {state['reason']}", *why]


@queue.command()
@config_option
@socket_option
@filter_options
@limit_option
@json_option
def show(
    config_path: Path | None,
    socket_path: Path | None,
    limit: int,
    as_json: bool,
    **given: object,
) -> None:
    """Deliveries one by one: since when, how often tried, and why they wait."""
    with open_desk(config_path, socket_path) as desk:
        entries, more = paged(desk, "queue", conditions(given), limit)
    if as_json:
        print_json({"entries": entries, "more": more})
        return
    print_table(
        (
            *(">instance", "destination", "state", ">size", ">age", ">tries", "next try"),
            *("status", "modality", "study", "why"),
        ),
        [
            (
                e["instance_id"],
                e["destination"],
                e["state"],
                size(e["length"]),
                age(e["received_at"]),
                e["attempts"],
                until(e["due_at"]),
                e["status"],
                e["modality"],
                e["study_instance_uid"],
                e.get("waits") or e["reason"],
            )
            for e in entries
        ],
        empty="nothing waits",
    )
    print_more(more)


@queue.command()
@config_option
@socket_option
@filter_options
@all_option
@json_option
def retry(
    config_path: Path | None,
    socket_path: Path | None,
    everything: bool,
    as_json: bool,
    **given: object,
) -> None:
    """Dead and deferred deliveries are due now, their attempts forgotten."""
    _act("retry", config_path, socket_path, _which(given, everything), as_json)


@queue.command()
@config_option
@socket_option
@filter_options
@all_option
@json_option
def hold(
    config_path: Path | None,
    socket_path: Path | None,
    everything: bool,
    as_json: bool,
    **given: object,
) -> None:
    """Waiting deliveries stay until they are released."""
    _act("hold", config_path, socket_path, _which(given, everything), as_json)


@queue.command()
@config_option
@socket_option
@instance_filter_options
@all_option
@click.option(
    "--to",
    multiple=True,
    metavar="NAME",
    help="Send instances that no rule matched, or that are quarantined, there; may be repeated.",
)
@json_option
def release(
    config_path: Path | None,
    socket_path: Path | None,
    everything: bool,
    to: tuple[str, ...],
    as_json: bool,
    **given: object,
) -> None:
    """Held deliveries wait to be sent again; with --to, held instances go there after all."""
    which = _which(given, everything)
    if to:
        which["to"] = list(to)
    _act("release", config_path, socket_path, which, as_json, "instance" if to else "delivery")


@queue.command()
@config_option
@socket_option
@filter_options
@all_option
@click.option("--because", required=True, metavar="TEXT", help="The reason, for the record.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def drop(
    config_path: Path | None,
    socket_path: Path | None,
    everything: bool,
    because: str,
    yes: bool,
    as_json: bool,
    **given: object,
) -> None:
    """Deliveries that are never to be made; each stays on record with the reason."""
    which = _which(given, everything)
    if not because.strip():
        raise Misuse("--because is empty", "say why, it is kept on record")
    if not yes and (as_json or not sys.stdin.isatty()):
        raise Misuse("drop asks before it does anything", "add --yes where nobody can answer")
    which["because"] = because
    _act("drop", config_path, socket_path, which, as_json, ask=not yes)


def _act(
    action: str,
    config_path: Path | None,
    socket_path: Path | None,
    which: Json,
    as_json: bool,
    word: str = "delivery",
    ask: bool = False,
) -> None:
    with open_desk(config_path, socket_path) as desk:
        if ask:
            _confirm(desk, which)
        result = desk.act(action, which)
    if as_json:
        print_json(result)
        return
    if not result["changed"]:
        click.echo(f"nothing to {action}: no {word} is of that kind")
        return
    rest = "" if desk.running else "; the gateway is not running and goes by it when it starts"
    done = f"{plural(result['changed'], word)} ({size(result['bytes'])}) {_DONE[action]}{rest}"
    click.echo(done)


def _confirm(desk: Desk, which: Json) -> None:
    meant = {k: v for k, v in which.items() if k not in ("because", "all")}
    page = desk.queue(meant, _PAGE, "")
    number = len(page["entries"])
    if not number:
        return
    count = f"{_PAGE} deliveries and more" if page["next"] else plural(number, "delivery")
    click.confirm(f"Drop {count}? They will never be made.", abort=True, err=True)


def _which(given: dict[str, object], everything: bool) -> Json:
    which: Json = conditions(given)
    if not which and not everything:
        raise Misuse(
            "no condition is given, which would mean everything",
            "give one such as --destination, or --all to mean it",
        )
    if everything:
        if which:
            raise Misuse("--all goes with no condition", "leave one of them out")
        which["all"] = True
    return which


def pages(desk: Desk, what: str, which: Json, size_: int = _PAGE) -> Iterator[Json]:
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
    for entry in pages(desk, what, which, min(limit + 1, _PAGE) if limit else _PAGE):
        if limit and len(entries) == limit:
            return entries, True
        entries.append(entry)
    return entries, False


def print_more(more: bool) -> None:
    """The line under a list that was cut."""
    if more:
        click.echo("… and more: --limit N shows so many, --limit 0 all")
