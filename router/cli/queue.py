"""``queue``: what waits for the destinations, and acting on it."""

import sys
from pathlib import Path

import click

from router.cli.desk import Desk, Json, open_desk
from router.cli.drain import drain
from router.cli.drain import in_words as paused_in_words
from router.cli.failures import Misuse
from router.cli.known import check_known
from router.cli.lists import PAGE, limit_option, paged, print_more
from router.cli.options import (
    conditions,
    config_option,
    filter_options,
    instance_filter_options,
    json_option,
    redirect_filter_options,
    socket_option,
)
from router.cli.output import age, plural, print_json, print_table, safe, seconds, size, until
from router.units import parse_duration

_DONE = {
    "retry": "to be retried",
    "hasten": "to be sent without waiting",
    "drop": "dropped",
    "hold": "held",
    "release": "released",
}
_NOT_RUNNING = "; the gateway is not running and goes by it when it starts"

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
        check_known(desk, destination)
        queues = [q for q in desk.queues() if destination in (None, q["destination"])]
        status = desk.status() if desk.running and not as_json else None
        pauses = [p for p in desk.pauses() if destination in (None, p["destination"])]
    if as_json:
        print_json({"queues": queues, "pauses": pauses})
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
    for pause in pauses:
        text = f"{pause['destination']} is paused {paused_in_words(pause)}"
        click.echo(f"{safe(text)} ({age(pause['at'])} ago)")


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
    if state.get("paused"):
        return "", [f"PAUSED {state['paused']}", *why]
    if state.get("shut") or state.get("opens_at") is not None:
        return until(state["opens_at"], status["now"]), ["schedule shut", *why]
    if not state["up"]:
        return until(state["next_probe_at"], status["now"]), [f"DOWN: {state['reason']}", *why]
    if state.get("limited"):
        why = [state["limited"], *why]
    return until(queue["next_due_at"]), why


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
        check_known(desk, given["destination"])
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
                e["situation"]["state"],
                size(e["length"]),
                age(e["received_at"]),
                e["attempts"],
                until(e["situation"]["until"]),
                e["status"],
                e["modality"],
                e["study_instance_uid"],
                in_words(e),
            )
            for e in entries
        ],
        empty="nothing waits",
    )
    print_more(more)


def in_words(delivery: Json) -> str:
    """Why it is in its state: what it waits for, and the rest."""
    found = delivery["situation"]
    why, detail = found["why"], found["detail"]
    if not detail or not why or detail.startswith(why):
        return str(detail or why)
    return f"{why} {detail}" if why == "paused" else f"{why}: {detail}"


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
    """Dead and deferred deliveries are due now, their attempts forgotten.  A destination that
    has not committed what it took is asked for it again now."""
    _act("retry", config_path, socket_path, _which(given, everything), as_json)


@queue.command()
@config_option
@socket_option
@filter_options
@all_option
@json_option
def hasten(
    config_path: Path | None,
    socket_path: Path | None,
    everything: bool,
    as_json: bool,
    **given: object,
) -> None:
    """Deliveries that wait for their study or a schedule are due now."""
    _act("hasten", config_path, socket_path, _which(given, everything), as_json)


@queue.command()
@config_option
@socket_option
@click.argument("destination")
@click.option("--because", default="", metavar="TEXT", help="The reason, for the record.")
@json_option
def pause(
    config_path: Path | None,
    socket_path: Path | None,
    destination: str,
    because: str,
    as_json: bool,
) -> None:
    """Nothing more goes to DESTINATION until it is resumed, restarts or not.

    What is being sent is finished; what is received for it waits.
    """
    with open_desk(config_path, socket_path) as desk:
        changed = desk.pause(destination, because.strip())
    if as_json:
        print_json({"destination": destination, "changed": changed})
        return
    rest = "" if desk.running else _NOT_RUNNING
    if changed:
        click.echo(f"{safe(destination)} is paused{rest}")
    else:
        click.echo(f"{safe(destination)} was paused already; it stays so")


@queue.command()
@config_option
@socket_option
@click.argument("destination")
@json_option
def resume(
    config_path: Path | None, socket_path: Path | None, destination: str, as_json: bool
) -> None:
    """What waits for DESTINATION, which was paused, goes on."""
    with open_desk(config_path, socket_path) as desk:
        changed = desk.resume(destination)
    if as_json:
        print_json({"destination": destination, "changed": changed})
        return
    rest = "" if desk.running else _NOT_RUNNING
    click.echo(
        f"{safe(destination)} goes on{rest}" if changed else f"{safe(destination)} was not paused"
    )


@queue.command("drain")
@config_option
@socket_option
@click.argument("destination")
@click.option(
    "--within",
    default="10m",
    show_default=True,
    metavar="TIME",
    help="At most so long: 30s, 10m, 2h.",
)
@json_option
def drain_(
    config_path: Path | None,
    socket_path: Path | None,
    destination: str,
    within: str,
    as_json: bool,
) -> None:
    """Wait until nothing waits for DESTINATION; exit code 1 when the time is over before.

    Changes nothing: what comes meanwhile is waited for too.  Dead and held deliveries are told at
    the end, and not waited for.
    """
    try:
        limit = parse_duration(within)
    except ValueError as error:
        raise Misuse(f"--within: {error}", "as in --within 10m") from None
    with open_desk(config_path, socket_path, offline=False) as desk:
        found = drain(desk, destination, limit)
    if as_json:
        print_json(found)
        return
    rest = [f"{found[state]} {state}" for state in ("held", "dead") if found[state]]
    text = f"{destination} is drained, {plural(found['sent'], 'delivery')} in "
    click.echo(safe(f"{text}{seconds(found['seconds'])}" + "".join(f"; {r}" for r in rest)))


@queue.command()
@config_option
@socket_option
@click.option("--from", "origin", required=True, metavar="NAME", help="The one that it waits for.")
@click.option("--to", "target", required=True, metavar="NAME", help="The one that gets it.")
@redirect_filter_options
@click.option("--because", default="", metavar="TEXT", help="The reason, for the record.")
@json_option
def redirect(
    config_path: Path | None,
    socket_path: Path | None,
    origin: str,
    target: str,
    because: str,
    as_json: bool,
    **given: object,
) -> None:
    """What waits for one destination goes to another one instead.

    With --state dead or held those.  At the first they stay on record as dropped, with the
    reason; what is being sent at the moment is left.
    """
    which: Json = {**conditions(given), "destination": origin}
    if because.strip():
        which["because"] = because.strip()
    with open_desk(config_path, socket_path) as desk:
        check_known(desk, origin)
        result = desk.act("redirect", which, to=target)
    if as_json:
        print_json(result)
        return
    print_redone(result, f"redirected to {target}", "" if desk.running else _NOT_RUNNING)


def print_redone(result: Json, done: str, rest: str, word: str = "delivery") -> None:
    """What was sent elsewhere, again or decided anew."""
    if not result["count"]:
        click.echo(f"nothing was {safe(done)}: no {word} is of that kind")
    else:
        count = f"{plural(result['count'], word)} ({size(result['bytes'])})"
        click.echo(f"{count} {safe(done)}{rest}")
    if result["left"]:
        click.echo(f"{plural(result['left'], word)} left as before")


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
    """Deliveries that are never to be made; each stays on record with the reason.

    With --state uncommitted, what the destination took is not waited for any more.
    """
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
        check_known(desk, which.get("destination"))
        if ask:
            _confirm(desk, which)
        result = desk.act(action, which)
        taken = action == "drop" and not result["changed"] and _taken(desk, which)
    if as_json:
        print_json(result)
        return
    if not result["changed"]:
        hint = ", but for what was taken and is not committed: --state uncommitted" if taken else ""
        click.echo(f"nothing to {action}: no {word} is of that kind{hint}")
        return
    rest = "" if desk.running else _NOT_RUNNING
    done = f"{plural(result['changed'], word)} ({size(result['bytes'])}) {_DONE[action]}{rest}"
    click.echo(done)


def _confirm(desk: Desk, which: Json) -> None:
    meant = {k: v for k, v in which.items() if k not in ("because", "all")}
    page = desk.queue(meant, PAGE, "")
    number = len(page["entries"])
    if not number:
        return
    count = f"{PAGE} deliveries and more" if page["next"] else plural(number, "delivery")
    taken = meant.get("state") == "uncommitted"
    end = "It will not be known whether they are kept." if taken else "They will never be made."
    click.confirm(f"Drop {count}? {end}", abort=True, err=True)


def _taken(desk: Desk, which: Json) -> bool:
    """Whether it would mean something with the state that `drop` wants to be named."""
    meant = {k: v for k, v in which.items() if k not in ("because", "all")}
    if "state" in meant:
        return False
    return bool(desk.queue({**meant, "state": "uncommitted"}, 1, "")["entries"])


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
