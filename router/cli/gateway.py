"""``status``, ``account`` and ``reload``: the gateway as a whole."""

from pathlib import Path

import click

from router.cli.desk import Json, open_desk
from router.cli.failures import FAILED, ConfigurationRefused
from router.cli.options import config_option, json_option, origin_options, socket_option
from router.cli.output import age, plural, print_json, print_table, safe, size, until


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
    if as_json:
        print_json(now)
        return
    moment = now["now"]
    click.echo(f"dcmrouter {safe(now['version'])}, up for {age(now['started_at'], moment)}")
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
        click.echo(f"spool {size(disk['spool_bytes'])}, free {size(disk['free_bytes'])}{low}")
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
                "not configured" if state is None else "up" if state["up"] else "DOWN",
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


def _why(state: Json | None, moment: float) -> str:
    if state is None or state["up"]:
        return ""
    probe = until(state["next_probe_at"], moment)
    return f"{state['reason']}; tried again {probe}" if probe else str(state["reason"])


@click.command()
@config_option
@socket_option
@json_option
def account(config_path: Path | None, socket_path: Path | None, as_json: bool) -> None:
    """Where everything ever received is; exit code 1 when it does not add up.

    Works without a running gateway too.
    """
    with open_desk(config_path, socket_path) as desk:
        found = desk.account()
    if as_json:
        print_json(found)
    else:
        _print_account(found)
    if not found["balanced"]:
        raise SystemExit(FAILED)


def _print_account(found: Json) -> None:
    print_table(
        (">received", ">routed", ">held", ">quarantined", ">discarded"),
        [[found[n] for n in ("received", "routed", "held", "quarantined", "discarded")]],
    )
    names = ("delivered", "waiting", "held", "dead", "dropped", "duplicate", "difference")
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
