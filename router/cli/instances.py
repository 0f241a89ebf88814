"""``instances``: what is in the spool; looking at it and taking it out as Part 10 files."""

import contextlib
import errno
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from router.cli.desk import Desk, Json, open_desk
from router.cli.failures import FAILED, Failure, Misuse, os_error
from router.cli.known import check_known
from router.cli.lists import limit_option, paged, pages, print_more
from router.cli.options import (
    conditions,
    config_option,
    instance_filter_options,
    json_option,
    socket_option,
)
from router.cli.output import age, plural, print_json, print_table, safe, seconds, size, until
from router.cli.queue import all_option, in_words, print_redone


@click.group()
def instances() -> None:
    """What is in the spool, delivered or not, until its retention is over.

    The commands speak to the running gateway, and work on its directory at rest without one.
    """


@instances.command("list")
@config_option
@socket_option
@instance_filter_options
@limit_option
@json_option
def list_(
    config_path: Path | None,
    socket_path: Path | None,
    limit: int,
    as_json: bool,
    **given: object,
) -> None:
    """Instances by their numbers, oldest first."""
    with open_desk(config_path, socket_path) as desk:
        check_known(desk, given["destination"])
        entries, more = paged(desk, "instances", conditions(given), limit)
    if as_json:
        print_json({"entries": entries, "more": more})
        return
    print_table(
        (
            *(">instance", ">age", ">size", "from", "modality", "disposition"),
            *("SOP instance", "study", "why"),
        ),
        [
            (
                e["id"],
                age(e["received_at"]),
                size(e["length"]),
                e["calling_ae"],
                e["modality"],
                e["disposition"],
                e["sop_instance_uid"],
                e["study_instance_uid"],
                e["reason"],
            )
            for e in entries
        ],
        empty="no such instances",
    )
    print_more(more)


@instances.command()
@config_option
@socket_option
@click.argument("number", type=click.IntRange(min=1))
@json_option
def show(config_path: Path | None, socket_path: Path | None, number: int, as_json: bool) -> None:
    """One instance: what it is, where it goes, and what operators did to it."""
    with open_desk(config_path, socket_path) as desk:
        found = desk.instance(number)
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        if name in ("deliveries", "events", "routes", "attempts"):
            continue
        if name.endswith("_at"):
            value = f"{age(value)} ago" if value else ""
        if name == "keep":  # what a rule says; 0 when none does
            value = f"{seconds(value)} once it is settled" if value else ""
        if isinstance(value, list | tuple):
            value = ", ".join(map(str, value))
        if value not in ("", None):
            click.echo(f"{name.replace('_', ' '):20} {safe(value)}")
    print_table(
        ("destination", "state", ">tries", "next try", "status", "rule", "why"),
        [
            (
                d["destination"],
                d["situation"]["state"],
                d["attempts"],
                until(d["situation"]["until"]),
                d["status"],
                d["rule"],
                in_words(d),
            )
            for d in found["deliveries"]
        ],
        empty="it goes nowhere",
    )
    if found["attempts"]:
        print_table(
            (">ago", "destination", "outcome", ">took", "association", "status", "answer"),
            [
                (
                    age(a["at"]),
                    a["destination"],
                    a["outcome"],
                    seconds(a["seconds"]),
                    a["association"],
                    a["status"],
                    a["reason"],
                )
                for a in found["attempts"]
            ],
            title="attempts",
        )
    if found["events"]:
        print_table(
            (">ago", "who", "action", "detail"),
            [(age(e["at"]), e["who"], e["action"], e["detail"]) for e in found["events"]],
            title="operators",
        )


@instances.command()
@config_option
@socket_option
@click.argument("numbers", type=click.IntRange(min=1), nargs=-1, metavar="[INSTANCE]...")
@instance_filter_options
@click.option(
    "--to", multiple=True, required=True, metavar="NAME", help="Where to; may be repeated."
)
@json_option
def resend(
    config_path: Path | None,
    socket_path: Path | None,
    numbers: tuple[int, ...],
    to: tuple[str, ...],
    as_json: bool,
    **given: object,
) -> None:
    """Send instances that are still in the spool again, or to somewhere else as well.

    By number, or by conditions as `instances list` has them, such as --study.  They wait for
    nothing but their turn.  What waits for that destination already, is held there, or has the
    same bytes as one that does, is left.
    """
    which = _chosen(numbers, conditions(given))
    with open_desk(config_path, socket_path) as desk:
        check_known(desk, which.get("destination"))
        result = desk.resend(which, to)
    if as_json:
        print_json(result)
    else:
        rest = "" if desk.running else "; the gateway is not running and goes by it when it starts"
        print_redone(result, f"to be sent to {', '.join(to)}", rest)
    _all_there(numbers, result, len(set(to)))


@instances.command()
@config_option
@socket_option
@click.argument("numbers", type=click.IntRange(min=1), nargs=-1, metavar="[INSTANCE]...")
@instance_filter_options
@all_option
@json_option
def reroute(
    config_path: Path | None,
    socket_path: Path | None,
    numbers: tuple[int, ...],
    everything: bool,
    as_json: bool,
    **given: object,
) -> None:
    """Decide instances that no rule matched anew, by the rules that are in force now.

    By number, or by conditions as `instances list` has them, or --all.  Those that still match no
    rule stay held.  Try it first with `dcmrouter rules replay`.
    """
    which: Json = {"all": True} if everything else _chosen(numbers, conditions(given))
    if everything and (numbers or conditions(given)):
        raise Misuse("--all goes with no condition", "leave one of them out")
    with open_desk(config_path, socket_path) as desk:
        check_known(desk, which.get("destination"))
        result = desk.reroute(which)
    if as_json:
        print_json(result)
    else:
        print_redone(result, "sent where the rules say, or discarded by them", "", "instance")
    _all_there(numbers, result, 1)


def _all_there(numbers: tuple[int, ...], result: Json, each: int) -> None:
    """Raises Failure when of instances that were asked for by number some are not there, or not of
    that kind; ``each`` is how many deliveries there were to be of one."""
    asked = len(set(numbers))
    if (missing := asked * each - result["count"] - result["left"]) > 0:
        raise Failure(
            f"{missing // each} of {plural(asked, 'instance')} not there, or not of that kind",
            "see `dcmrouter instances show NUMBER`; what was purged is in the archive, if anywhere",
        )


def _chosen(numbers: tuple[int, ...], which: Json) -> Json:
    """Numbers or conditions, one of them."""
    if bool(numbers) == bool(which):
        raise Misuse(
            "it is not clear which instances are meant",
            "give their numbers, or conditions such as --study",
        )
    return {"ids": list(dict.fromkeys(numbers))} if numbers else which


@instances.command()
@config_option
@socket_option
@click.argument("numbers", type=click.IntRange(min=1), nargs=-1, metavar="[INSTANCE]...")
@instance_filter_options
@all_option
@click.option(
    "--to",
    "directory",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where to; made if missing.",
)
@json_option
def export(
    config_path: Path | None,
    socket_path: Path | None,
    numbers: tuple[int, ...],
    everything: bool,
    directory: Path,
    as_json: bool,
    **given: object,
) -> None:
    """Write instances as DICOM files (Part 10), named by their numbers.

    By number, or by conditions as `instances list` has them.  A file that exists is never
    overwritten; the data set in it has the very bytes that were received.
    """
    which = conditions(given)
    if bool(numbers) + bool(which) + everything != 1:
        raise Misuse(
            "it is not clear which instances are meant",
            "give their numbers, or conditions such as --study, or --all",
        )
    written: list[Json] = []
    failed: list[Json] = []
    with open_desk(config_path, socket_path) as desk:
        check_known(desk, which.get("destination"))
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Failure(f"cannot make {directory}: {os_error(error)}") from None
        for number in _meant(desk, numbers, which):
            try:
                path = _export(desk, number, directory)
            except (Failure, OSError) as error:
                text = os_error(error) if isinstance(error, OSError) else error.message
                failed.append({"id": number, "error": text})
                click.echo(f"dcmrouter: instance {number}: {safe(text)}", err=True)
                continue
            written.append({"id": number, "path": os.fspath(path), "bytes": path.stat().st_size})
            if not as_json:
                click.echo(safe(os.fspath(path)))
    if as_json:
        print_json({"written": written, "failed": failed})
    else:
        total = size(sum(entry["bytes"] for entry in written))
        click.echo(f"{plural(len(written), 'file')} ({total}) in {directory}", err=True)
    if failed:
        raise SystemExit(FAILED)


@instances.command()
@config_option
@socket_option
@click.argument("numbers", type=click.IntRange(min=1), nargs=-1, metavar="[INSTANCE]...")
@instance_filter_options
@all_option
@click.option("--because", required=True, metavar="TEXT", help="The reason, for the record.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def discard(
    config_path: Path | None,
    socket_path: Path | None,
    numbers: tuple[int, ...],
    everything: bool,
    because: str,
    yes: bool,
    as_json: bool,
    **given: object,
) -> None:
    """Give up instances that are held: no rule matched, or they are quarantined.

    By number, or by conditions as `instances list` has them.  They are on record with the reason,
    and their bytes are let go after spool.keep_settled.  Instances that were routed are not
    touched: `queue drop` is for those.
    """
    which = conditions(given)
    if bool(numbers) + bool(which) + everything != 1:
        raise Misuse(
            "it is not clear which instances are meant",
            "give their numbers, or conditions such as --disposition quarantined, or --all",
        )
    if not because.strip():
        raise Misuse("--because is empty", "say why, it is kept on record")
    if not yes and (as_json or not sys.stdin.isatty()):
        raise Misuse("discard asks before it does anything", "add --yes where nobody can answer")
    numbers = tuple(dict.fromkeys(numbers))
    if numbers:
        which["ids"] = list(numbers)
    elif everything:
        which["all"] = True
    with open_desk(config_path, socket_path) as desk:
        check_known(desk, which.get("destination"))
        if not yes:
            what = plural(len(numbers), "instance") if numbers else "all held instances meant"
            click.confirm(f"Discard {what}? They will never be sent.", abort=True, err=True)
        result = desk.discard(which, because)
    if as_json:
        print_json(result)
    elif result["changed"]:
        click.echo(f"{plural(result['changed'], 'instance')} ({size(result['bytes'])}) discarded")
    else:
        click.echo("nothing to discard: no held instance is of that kind")
    if result["changed"] < len(numbers):
        raise Failure(
            f"{len(numbers) - result['changed']} of {plural(len(numbers), 'instance')} "
            "not discarded: not there, or not held",
            "see `dcmrouter instances show NUMBER`",
        )


def _meant(desk: Desk, numbers: Iterable[int], which: Json) -> Iterator[int]:
    numbers = tuple(dict.fromkeys(numbers))
    if numbers:
        yield from numbers
        return
    for entry in pages(desk, "instances", which):
        yield int(entry["id"])


def _export(desk: Desk, number: int, directory: Path) -> Path:
    """Whole under its name, or not there at all.  Raises Failure or OSError."""
    final = directory / f"{number}.dcm"
    if final.exists():
        raise Failure(f"{final} exists already and is left as it is")
    with desk.file(number) as file:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{number}.", dir=directory)
        try:
            with open(descriptor, "wb") as target:  # noqa: PTH123 - a descriptor, not a path
                count = sum(target.write(piece) for piece in file.pieces)
                target.flush()
                os.fsync(target.fileno())
            if count != file.length:
                raise Failure(
                    f"broken off at byte {count} of {file.length}: it is damaged in the spool, "
                    "or the gateway stopped"
                )
            _publish(Path(temporary), final)
        finally:
            with contextlib.suppress(FileNotFoundError):
                Path(temporary).unlink()
    return final


def _publish(temporary: Path, final: Path) -> None:
    """Give the file its name, which nothing else has."""
    try:
        final.hardlink_to(temporary)
    except FileExistsError:
        raise Failure(f"{final} exists already and is left as it is") from None
    except OSError as error:
        # Some network and memory-stick file systems know no links.
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        if final.exists():
            raise Failure(f"{final} exists already and is left as it is") from None
        temporary.rename(final)
