"""``send``: files to a remote, each with its answer."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.cli.failures import FAILED, Failure
from router.cli.options import config_option, json_option
from router.cli.output import plural, print_json, print_table, safe, seconds, size
from router.cli.remotes import calling_option, find_target

if TYPE_CHECKING:
    from router.cli.files import DicomFile, Skipped
    from router.cli.sending import Outcome
    from router.net.requestor import Target

_SHOWN = 20


@click.command()
@click.argument("remote", metavar="REMOTE")
@click.argument(
    "paths",
    type=click.Path(exists=True, path_type=Path),
    nargs=-1,
    required=True,
    metavar="PATH...",
)
@config_option
@calling_option
@click.option(
    "--associations",
    "-n",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    metavar="N",
    help="So many at once.",
)
@json_option
def send(
    remote: str,
    paths: tuple[Path, ...],
    config_path: Path | None,
    calling: str | None,
    associations: int,
    as_json: bool,
) -> None:
    """Send DICOM files to REMOTE (C-STORE): a configured name, or AE@host:port.

    Directories are searched through.  What is not DICOM is named and left out.  Exit code 1
    when any file was not taken, or when there was none to send.
    """
    target = find_target(remote, config_path, calling)
    files, skipped = _find(paths)
    if not files and not as_json:
        _print_skipped(skipped)
        raise Failure("there is no DICOM file to send")
    from router.observe.log import configure

    configure("error", "console")
    began = time.perf_counter()
    outcomes = _send(target, files, associations, show=not as_json)
    took = time.perf_counter() - began
    if as_json:
        print_json(_report(target, outcomes, skipped, took))
    else:
        _print_skipped(skipped)
        _print_outcomes(target, outcomes, took)
    if not files or any(outcome.verdict == "failed" for outcome in outcomes):
        raise SystemExit(FAILED)


def _find(paths: Sequence[Path]) -> tuple[list["DicomFile"], list["Skipped"]]:
    from router.cli.files import DicomFile, find

    files: list[DicomFile] = []
    skipped: list[Skipped] = []
    for found in find(paths):
        if isinstance(found, DicomFile):
            files.append(found)
        else:
            skipped.append(found)
    return files, skipped


def _send(
    target: "Target", files: Sequence["DicomFile"], associations: int, *, show: bool
) -> list["Outcome"]:
    import uvloop

    from router.cli.sending import Sender

    outcomes: list[Outcome] = []
    with _progress(len(files), show) as advance:

        def told(outcome: "Outcome") -> None:
            outcomes.append(outcome)
            advance()

        sender = Sender(target, files, associations=associations, on_outcome=told)
        uvloop.run(sender.run())
    return outcomes


@contextlib.contextmanager
def _progress(total: int, show: bool) -> Iterator[Callable[[], None]]:
    """A bar on standard error when that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    bar = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (show and console.is_terminal),
    )
    with bar:
        task = bar.add_task("sending", total=total)
        yield lambda: bar.advance(task)


def _print_skipped(skipped: Sequence["Skipped"]) -> None:
    for entry in skipped[:_SHOWN]:
        click.echo(f"left out: {safe(entry.path)}: {safe(entry.reason)}", err=True)
    if len(skipped) > _SHOWN:
        click.echo(f"left out: {len(skipped) - _SHOWN} more; --json names them all", err=True)


def _print_outcomes(target: "Target", outcomes: Sequence["Outcome"], took: float) -> None:
    failed = [outcome for outcome in outcomes if outcome.verdict == "failed"]
    for outcome in failed[:_SHOWN]:
        click.echo(f"failed: {safe(outcome.file.path)}: {safe(outcome.reason)}", err=True)
    if len(failed) > _SHOWN:
        click.echo(f"failed: {len(failed) - _SHOWN} more; --json names them all", err=True)
    kinds = Counter(
        (o.verdict, _status(o), "" if o.verdict == "sent" else o.reason) for o in outcomes
    )
    sizes: Counter[tuple[str, str | None, str]] = Counter()
    for o in outcomes:
        sizes[o.verdict, _status(o), "" if o.verdict == "sent" else o.reason] += o.file.length
    print_table(
        ("outcome", "status", ">files", ">bytes", "why"),
        [
            (verdict, status, count, size(sizes[verdict, status, why]), why)
            for (verdict, status, why), count in kinds.most_common()
        ],
    )
    taken = [outcome for outcome in outcomes if outcome.verdict != "failed"]
    count = sum(outcome.file.length for outcome in taken)
    click.echo(
        f"{plural(len(taken), 'instance')} to {safe(target)} in {seconds(took)}: "
        f"{len(taken) / took:.0f} instances/s, {count / took / 1e6:.1f} MB/s"
    )


def _report(
    target: "Target", outcomes: Sequence["Outcome"], skipped: Sequence["Skipped"], took: float
) -> dict[str, object]:
    counts = Counter(outcome.verdict for outcome in outcomes)
    return {
        "remote": target.name,
        "sent": counts["sent"],
        "warnings": counts["warning"],
        "failed": counts["failed"],
        "bytes": sum(o.file.length for o in outcomes if o.verdict != "failed"),
        "seconds": took,
        "files": [
            {
                "path": str(o.file.path),
                "sop_instance_uid": o.file.sop_instance_uid,
                "outcome": o.verdict,
                "status": _status(o),
                "reason": o.reason,
            }
            for o in outcomes
        ],
        "skipped": [{"path": str(s.path), "reason": s.reason} for s in skipped],
    }


def _status(outcome: "Outcome") -> str | None:
    return None if outcome.status is None else f"{outcome.status:04X}"
