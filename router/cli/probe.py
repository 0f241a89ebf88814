"""``remotes probe``: asks a remote what it accepts, and how fast it is.

Owns how the findings are told, and what they mean for the settings of the remote.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from router.cli.failures import FAILED, Failure, Misuse
from router.cli.options import config_option, json_option
from router.cli.output import plural, print_json, print_table, safe, seconds, size
from router.cli.remotes import calling_option, find_target

if TYPE_CHECKING:
    from router.cli.files import DicomFile
    from router.cli.sending import Outcome
    from router.net.probe import Findings
    from router.net.requestor import Target

_IMAGES = "1.2.840.10008.5.1.4.1.1."
_NAMED = 4
"""Classes of a row that are named; the rest is counted, and in --json."""


@click.command()
@click.argument("remote", metavar="REMOTE")
@config_option
@calling_option
@click.option(
    "--class",
    "wanted",
    metavar="CLASS",
    multiple=True,
    help="Ask for these storage classes alone: a UID, a keyword or a glob; may be repeated.",
)
@click.option(
    "--send",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Store this file too, and tell how fast that went.",
)
@json_option
def probe(
    remote: str,
    config_path: Path | None,
    calling: str | None,
    wanted: tuple[str, ...],
    file: Path | None,
    as_json: bool,
) -> None:
    """Ask REMOTE what it accepts: a configured name, or AE@host:port.

    It connects, echoes and proposes every storage class in every transfer syntax, over many
    associations, one after the other. Nothing is stored there but what --send names. Exit code 0
    when the remote answered, whatever it accepts.
    """
    target = find_target(remote, config_path, calling)
    classes = _classes(wanted)
    sample = None if file is None else _sample(file)
    import uvloop

    from router.dicom.uids import TRANSFER_SYNTAXES
    from router.net.errors import AssociationError
    from router.net.probe import Probe
    from router.observe.log import configure

    configure("error", "console")
    with _progress(show=not as_json) as told:
        subject = Probe(target, classes=classes, syntaxes=tuple(TRANSFER_SYNTAXES), told=told)
        try:
            findings = uvloop.run(subject.run())
        except AssociationError as error:
            if not as_json:
                raise Failure(str(error)) from None
            print_json({"remote": target.name, "answered": False, "error": str(error)})
            raise SystemExit(FAILED) from None
        sent = None if sample is None else _send(target, sample)
    if as_json:
        print_json(_report(target, findings, sent))
    else:
        _tell(target, findings, sent)


def _classes(wanted: tuple[str, ...]) -> tuple[str, ...]:
    from router.dicom.uids import storage_sop_classes
    from router.net.offer import Offer, check_sop_class
    from rules.uids import is_uid

    known = tuple(storage_sop_classes())
    if not wanted:
        return known
    try:
        asked = Offer(never=tuple(map(check_sop_class, wanted)))
    except ValueError as error:
        raise Misuse(f"--class: {error.args[0]}", *error.args[1:]) from None
    private = [text for text in asked.never if is_uid(text)]
    found = [uid for uid in dict.fromkeys([*known, *private]) if asked.names(uid)]
    if not found:
        raise Misuse(f"--class: {' '.join(wanted)} is no storage class that is known here")
    return tuple(found)


def _sample(path: Path) -> "DicomFile":
    from router.cli.files import DicomFile, look

    found = look(path)
    if not isinstance(found, DicomFile):
        raise Misuse(f"--send: {safe(found.path)}: {safe(found.reason)}")
    return found


def _send(target: "Target", sample: "DicomFile") -> tuple["Outcome", float]:
    import uvloop

    from router.cli.sending import Sender

    outcomes: list[Outcome] = []
    began = time.perf_counter()
    uvloop.run(Sender(target, [sample], associations=1, on_outcome=outcomes.append).run())
    return outcomes[0], time.perf_counter() - began


@contextlib.contextmanager
def _progress(*, show: bool) -> Iterator[Callable[[str], None]]:
    """A line on standard error when that is a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not (show and console.is_terminal):
        yield lambda what: None
        return
    with console.status("asking") as status:
        yield lambda what: status.update(f"asking {what}")


def _tell(target: "Target", found: "Findings", sent: tuple["Outcome", float] | None) -> None:
    from router.net.probe import SERVICES

    click.echo(f"{safe(target)} answers")
    click.echo(
        f"  connection in {seconds(found.connected)}, association in {seconds(found.associated)}, "
        + (f"echo in {seconds(found.round_trip)}" if found.round_trips else "no echo")
    )
    name = " ".join(filter(None, (found.implementation_version_name, _parenthesised(found))))
    click.echo(f"  implementation: {safe(name) or 'not said'}")
    most = f"{found.maximum_length} bytes" if found.maximum_length else "without a limit"
    click.echo(f"  takes PDUs of {most}, operations at once: {_window(found)}")
    for uid, role in found.roles.items():
        click.echo(f"  roles granted to us for {_name(uid)}: {_role(role)}")
    click.echo(f"  services: {', '.join(SERVICES[uid] for uid in found.services) or 'none'}")
    click.echo(f"  storage: {len(found.accepted)} of {found.asked} classes that were asked for")
    click.echo()
    print_table(
        ("transfer syntaxes", ">classes", "which"),
        [
            (", ".join(map(_syntax, syntaxes)), len(classes), _some(classes))
            for syntaxes, classes in sorted(_grouped(found).items(), key=lambda e: -len(e[1]))
        ],
        empty="it accepts no storage class",
    )
    if sent is not None:
        click.echo(_told_of(*sent))
    for line in (*found.trouble, *_hints(target, found)):
        click.echo(f"note: {safe(line)}", err=True)


def _hints(target: "Target", found: "Findings") -> Iterator[str]:
    """What the findings say of the settings that are in force."""
    if found.window == 1 and target.asynchronous_operations > 1:
        yield "it grants no asynchronous operations: 'asynchronous_operations: 1' loses nothing"
    if found.window is None and target.asynchronous_operations > 1:
        yield "set 'asynchronous_operations: 1': asked for more, it did not answer properly"
    if found.doubtful:
        yield (
            f"{plural(found.doubtful, 'presentation context')} refused for no reason of their "
            "own: it may take few at once"
        )
    if found.echo_status:
        yield f"it answered the echo with status {found.echo_status:04X}"


def _told_of(outcome: "Outcome", took: float) -> str:
    line = f"{safe(outcome.file.path)}: {outcome.verdict}"
    if outcome.reason:
        line += f", {safe(outcome.reason)}"
    if outcome.verdict == "failed":
        return line
    inside = max(outcome.ended - outcome.began, 1e-6)
    return (
        f"{line}: {size(outcome.file.length)} in {seconds(inside)}, "
        f"{outcome.file.length / inside / 1e6:.1f} MB/s ({seconds(took)} with its association)"
    )


def _report(
    target: "Target", found: "Findings", sent: tuple["Outcome", float] | None
) -> Mapping[str, Any]:
    return {
        "remote": target.name,
        "answered": True,
        "connection_seconds": found.connected,
        "association_seconds": found.associated,
        "echo_seconds": found.round_trip,
        "echo_status": None if found.echo_status is None else f"{found.echo_status:04X}",
        "maximum_length": found.maximum_length,
        "implementation_class_uid": found.implementation_class_uid,
        "implementation_version_name": found.implementation_version_name,
        "asynchronous_operations": found.window,
        "roles": {
            uid: None if role is None else {"scu": role[0], "scp": role[1]}
            for uid, role in found.roles.items()
        },
        "services": found.services,
        "storage_classes_asked": found.asked,
        "storage": found.accepted,
        "refused_without_reason": found.doubtful,
        "associations": found.associations,
        "trouble": found.trouble,
        "hints": list(_hints(target, found)),
        "sent": None
        if sent is None
        else {
            "outcome": sent[0].verdict,
            "reason": sent[0].reason,
            "bytes": sent[0].file.length,
            "store_seconds": sent[0].ended - sent[0].began,
            "seconds": sent[1],
        },
    }


def _grouped(found: "Findings") -> dict[tuple[str, ...], list[str]]:
    groups: dict[tuple[str, ...], list[str]] = {}
    for uid, syntaxes in found.accepted.items():
        groups.setdefault(tuple(syntaxes), []).append(uid)
    return groups


def _some(classes: list[str]) -> str:
    # Image classes of old have the shortest UIDs, and are those that people know.
    known = sorted(classes, key=lambda uid: (not uid.startswith(_IMAGES), len(uid), uid))
    named = ", ".join(map(_name, known[:_NAMED]))
    return named if len(classes) <= _NAMED else f"{named} and {len(classes) - _NAMED} more"


def _name(uid: str) -> str:
    from router.dicom.uids import storage_sop_classes
    from router.net.probe import SERVICES

    return storage_sop_classes().get(uid) or SERVICES.get(uid, uid)


def _syntax(uid: str) -> str:
    from router.dicom.uids import transfer_syntax

    known = transfer_syntax(uid)
    return known.short_name or known.name


def _role(role: tuple[bool, bool] | None) -> str:
    if role is None:
        return "it did not say, so SCU"
    return (
        " and ".join(name for name, has in zip(("SCU", "SCP"), role, strict=True) if has) or "none"
    )


def _window(found: "Findings") -> str:
    if found.window is None:
        return "unknown"
    return "without a limit" if not found.window else str(found.window)


def _parenthesised(found: "Findings") -> str:
    return f"({found.implementation_class_uid})" if found.implementation_class_uid else ""
