"""``echo``: does a remote answer?"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.cli.failures import FAILED, Failure, Misuse
from router.cli.options import config_option, json_option
from router.cli.output import print_json, seconds
from router.cli.remotes import calling_option, find_target

if TYPE_CHECKING:
    from router.net.requestor import Target


@dataclass(frozen=True, slots=True)
class Answer:
    """A C-ECHO: its status, the seconds until the association stood, and of the echo itself."""

    status: int
    associated: float
    round_trip: float


@click.command()
@click.argument("remote", metavar="REMOTE")
@config_option
@calling_option
@click.option("--timeout", metavar="TIME", help="Wait no longer for each step, as in 5s.")
@json_option
def echo(
    remote: str,
    config_path: Path | None,
    calling: str | None,
    timeout: str | None,
    as_json: bool,
) -> None:
    """Ask REMOTE for a sign of life (C-ECHO): a configured name, or AE@host:port.

    Exit code 0 when it answered with success.
    """
    target = find_target(remote, config_path, calling)
    if timeout is not None:
        target = _hurried(target, timeout)
    import uvloop

    from router.net.errors import AssociationError
    from router.observe.log import configure

    configure("error", "console")
    try:
        answer = uvloop.run(_echo(target))
    except AssociationError as error:
        if not as_json:
            raise Failure(str(error)) from None
        print_json({"remote": target.name, "answered": False, "error": str(error)})
        raise SystemExit(FAILED) from None
    _tell(target, answer, as_json)


async def _echo(target: "Target") -> Answer:
    from router.net.connector import connect
    from router.net.errors import AssociationError
    from router.net.requestor import IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION

    began = time.perf_counter()
    association = await connect(target, [(VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN)])
    associated = time.perf_counter()
    status = await association.echo()
    answered = time.perf_counter()
    try:
        await association.release()
    except AssociationError as error:
        click.echo(f"dcmrouter: it answered, but then: {error}", err=True)
    return Answer(status, associated - began, answered - associated)


def _tell(target: "Target", answer: Answer, as_json: bool) -> None:
    from router.dimse.status import SUCCESS, Service, describe_status

    text = describe_status(answer.status, Service.GENERAL)
    if as_json:
        print_json(
            {
                "remote": target.name,
                "answered": True,
                "status": f"{answer.status:04X}",
                "association_seconds": answer.associated,
                "round_trip_seconds": answer.round_trip,
                "error": "" if answer.status == SUCCESS else text,
            }
        )
    elif answer.status == SUCCESS:
        click.echo(
            f"{target} answered in {seconds(answer.round_trip)}; "
            f"the association took {seconds(answer.associated)}"
        )
    else:
        click.echo(f"dcmrouter: {target} answered {text}", err=True)
    if answer.status != SUCCESS:
        raise SystemExit(FAILED)


def _hurried(target: "Target", timeout: str) -> "Target":
    from router.units import parse_duration

    try:
        limit = parse_duration(timeout)
    except ValueError as error:
        raise Misuse(f"--timeout: {error}") from None
    if limit <= 0:
        raise Misuse("--timeout must be more than 0")
    return replace(target, connect_timeout=limit, negotiation_timeout=limit, dimse_timeout=limit)
