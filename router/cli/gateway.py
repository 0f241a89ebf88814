"""``status``, ``account`` and ``reload``: the gateway as a whole."""

from pathlib import Path

import click

from router.cli.desk import Json, open_desk
from router.cli.drain import in_words
from router.cli.failures import FAILED, ConfigurationRefused
from router.cli.options import config_option, json_option, origin_options, socket_option
from router.cli.output import age, moment, plural, print_json, print_table, safe, size, until


@click.command()
@config_option
@socket_option
@json_option
def status(config_path: Path | None, socket_path: Path | None, as_json: bool) -> None:
    """The running gateway at a glance: listeners, destinations, queues, disk.

    Exit code 1 when no gateway answers.
    """
    with open_desk(config_path, socket_path, offline=False) as desk:
        now = desk.status()
        pauses = [] if as_json else desk.pauses()
    for pause in pauses:
        for state in now["destinations"]:
            if state["name"] == pause["destination"]:
                state["paused"] = in_words(pause)
    if as_json:
        print_json(now)
        return
    running = age(now["started_at"], now["now"])
    click.echo(f"dcmrouter {safe(now['version'])}, up for {running}")
    if now["reload_error"]:
        click.echo("the configuration on disk is not in effect:")
        for line in str(now["reload_error"]).splitlines():
            click.echo(f"  {safe(line)}")
    for listener in now["listeners"]:
        word = "listens" if listener["listening"] else "DOES NOT LISTEN"
        click.echo(f"{safe(listener['local_ae'])} {word} at {safe(listener['address'])}")
    click.echo(f"{plural(len(now['associations']), 'association')} open from outside")
    disk = now["disk"]
    if disk:
        low = ": LOW, C-STORE is answered A700" if disk["low"] else ""
        spare = f"of which {size(disk['spare_bytes'])} spare"
        free = f"free {size(disk['free_bytes'])}"
        click.echo(f"spool {size(disk['spool_bytes'])}, {spare}; {free}{low}")
    click.echo(f"{plural(now['held_instances'], 'instance')} held as no rule sent them")
    _print_destinations(now)
    for scope, difference in now["account_differences"].items():
        click.echo(f"THE ACCOUNT DOES NOT BALANCE: {safe(scope)}: {difference}")


def _print_destinations(now: Json) -> None:
    numbers = {(q["destination"], q["state"]): q for q in now["queues"]}
    states = {d["name"]: d for d in now["destinations"]}
    names = sorted(states.keys() | {destination for destination, _ in numbers})
    rows = []
    for name in names:
        state = states.get(name)
        ready = numbers.get((name, "ready"), {})
        rows.append(
            (
                name,
                _word(state),
                ready.get("instances", 0),
                size(ready.get("bytes", 0)),
                age(ready.get("oldest_received_at"), now["now"]),
                numbers.get((name, "held"), {}).get("instances", 0),
                numbers.get((name, "dead"), {}).get("instances", 0),
                _why(state, now["now"]),
            )
        )
    columns = ("destination", "state", ">waiting", ">bytes", ">oldest", ">held", ">dead", "why")
    print_table(columns, rows, empty="no destinations are configured")


def _word(state: Json | None) -> str:
    if state is None:
        return "not configured"
    if state["paused"]:
        return "PAUSED"
    if state.get("shut") or state["opens_at"] is not None:
        return "shut"
    return "up" if state["up"] else "DOWN"


def _why(state: Json | None, now: float) -> str:
    if state is not None and state["paused"]:
        return str(state["paused"])
    if state is None:
        return ""
    if opens := until(state["opens_at"], now):
        return f"its schedule opens {opens}"
    if state.get("shut"):
        return f"{state['shut']}, and does not open again"
    if state["up"]:
        return str(state["limited"])
    probe = until(state["next_probe_at"], now)
    return f"{state['reason']}; tried again {probe}" if probe else str(state["reason"])


@click.command()
@config_option
@socket_option
@click.option(
    "--since",
    default="",
    metavar="TIME",
    help="Of what was received in the last 24h, 7d …, from the full hour on; 35 days at most.",
)
@json_option
def account(config_path: Path | None, socket_path: Path | None, since: str, as_json: bool) -> None:
    """Where everything ever received is; exit code 1 when it does not add up.

    Works without a running gateway too.
    """
    with open_desk(config_path, socket_path) as desk:
        found = desk.account(since)
    if as_json:
        print_json(found)
    else:
        if since:
            _print_since(found)
        _print_account(found)
    if not found["balanced"]:
        raise SystemExit(FAILED)


def _print_since(found: Json) -> None:
    click.echo(f"received since {moment(found['since'])}")
    if found["known_from"] is not None:
        click.echo(
            f"what came before {moment(found['known_from'])} and was purged is not counted any more"
        )


def _print_account(found: Json) -> None:
    print_table(
        (">received", ">routed", ">held", ">quarantined", ">discarded"),
        [[found[n] for n in ("received", "routed", "held", "quarantined", "discarded")]],
    )
    names = (
        *("delivered", "uncommitted", "waiting", "held", "dead", "dropped", "duplicate"),
        "difference",
    )
    print_table(
        ("destination", ">routed", *(f">{name}" for name in names)),
        [
            [line["destination"], line["received"], *(line[name] for name in names)]
            for line in found["destinations"]
        ],
        empty="nothing was routed yet",
    )
    if found["balanced"]:
        click.echo("the account balances")
    for scope, difference in found["differences"].items():
        click.echo(f"THE ACCOUNT DOES NOT BALANCE: {safe(scope)}: {difference}")


@click.command()
@config_option
@socket_option
@origin_options
@json_option
def reload(
    config_path: Path | None, socket_path: Path | None, author: str, note: str, as_json: bool
) -> None:
    """Make the running gateway read its configuration file anew, all or nothing.

    Exit code 2 when the file has problems; the old configuration stays in effect then.
    """
    with open_desk(config_path, socket_path, offline=False) as desk:
        result = desk.reload(author, note)
    if as_json:
        print_json(result)
    if not result["applied"]:
        if as_json:
            raise SystemExit(ConfigurationRefused.exit_code)
        raise ConfigurationRefused(result["problems"])
    if not as_json:
        changes = ", ".join(result["changes"])
        click.echo(f"reloaded; changed: {safe(changes)}" if changes else "reloaded; no changes")
        for text in result["notes"]:
            click.echo(f"note: {safe(text)}")
