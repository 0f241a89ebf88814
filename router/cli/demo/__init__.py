"""``demo``: the gateway between a sender and two sinks of its own, with real files.

Owns the command and what it shows.
"""

import asyncio
import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.cli.failures import FAILED, Failure, os_error
from router.cli.options import json_option
from router.cli.output import plural, print_json, print_table, safe, seconds, size

if TYPE_CHECKING:
    from router.cli.demo.place import Place
    from router.cli.demo.run import Result
    from router.cli.demo.sinks import Identity
    from router.cli.files import DicomFile

_SHOWN = 10


@click.command()
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo-data"),
    show_default=True,
    metavar="DIR",
    help="Where the gateway keeps its data meanwhile; made, and removed at the end.",
)
@click.option(
    "--base-port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Use ports from this one on instead of the example's; 0 takes free ones.",
)
@click.option("--keep", is_flag=True, help="Leave everything running at the end, until Ctrl-C.")
@json_option
def demo(directory: Path, base_port: int | None, keep: bool, as_json: bool) -> None:
    """Start the gateway between a sender and two sinks, and send it a few hundred real files.

    It runs on the example configuration, and sends the test files that come with pydicom and
    pydicom-data.  At the end it compares the SHA-256 of every data set and says what went
    where and how fast.  Exit code 1 if anything was lost.
    """
    import uvloop

    from router.cli.demo.material import collect, identities
    from router.cli.demo.place import prepared
    from router.cli.demo.run import Result, demonstrate
    from router.observe.log import configure

    configure("error", "console")
    say = _silent if as_json else _say
    with prepared(directory, base_port) as place:
        files = collect(place.directory)
        wanted = identities(files)
        total = sum(file.length for file in files)
        say(f"{plural(len(files), 'DICOM file')}, {size(total)}; gateway in {directory}")

        def stay(result: Result) -> bool:
            _show(result, wanted, as_json)
            if keep:
                say(_addresses(place))
            return keep

        with _progress(len(files), show=not as_json) as progress:
            try:
                result = uvloop.run(demonstrate(place, files, wanted, progress, stay))
            except OSError as error:
                raise Failure(os_error(error)) from None
            except asyncio.CancelledError:
                raise Failure("ended by a signal; nothing is left behind") from None
    if result.lost:
        raise SystemExit(FAILED)


def _say(text: str) -> None:
    click.echo(safe(text), err=True)


def _silent(_: str) -> None:
    """With --json nothing but JSON is printed."""


@contextlib.contextmanager
def _progress(total: int, *, show: bool) -> Iterator[Callable[["Result"], None]]:
    """Bars on a terminal, for what is sent and what each sink has; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    bars = Progress(
        TextColumn("{task.description:10}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        console=console,
        transient=True,
        disable=not (show and console.is_terminal),
    )
    with bars:
        tasks = {"sent": bars.add_task("sent", total=total)}

        def tell(result: "Result") -> None:
            bars.update(tasks["sent"], completed=len(result.sent))
            for name, sink in result.sinks.items():
                if name not in tasks:
                    tasks[name] = bars.add_task(name, total=total)
                bars.update(tasks[name], completed=sink.instances)
            if result.ended:
                bars.stop()  # before the table is printed

        yield tell


def _addresses(place: "Place") -> str:
    url = f"http://{place.config.http.listen}"
    return (
        f"still running, until Ctrl-C: {url}/ (page), {url}/metrics, {url}/readyz; "
        f"dcmrouter status --config {place.config_path}"
    )


# -- what it came to


def _show(result: "Result", wanted: dict["DicomFile", "Identity"], as_json: bool) -> None:
    from router.cli.demo.run import transit_times

    transit = transit_times(result, wanted)
    if as_json:
        print_json(_report(result, transit))
        return
    sys.stderr.flush()
    print_table(
        (
            *("what went where", ">instances", ">bytes", ">instances/s", ">MB/s"),
            *(">p50", ">p99"),
        ),
        _rows(result, transit),
    )
    reasons = Counter(result.elsewhere.values())
    for (disposition, reason), count in reasons.most_common(_SHOWN):
        click.echo(f"{disposition}, {count}: {safe(reason)}")
    for line in result.lost[:_SHOWN]:
        click.echo(f"LOST: {safe(line)}")
    if len(result.lost) > _SHOWN:
        click.echo(f"LOST: {len(result.lost) - _SHOWN} more")
    if not result.lost:
        click.echo(
            f"nothing lost: all {len(result.sent)} are accounted for, and the SHA-256 of every "
            "data set is that of the file"
        )
    click.echo("p50, p99: from the sender's first byte to the sink's last")


def _rows(result: "Result", transit: dict[str, list[float]]) -> list[Sequence[object]]:
    taken = [outcome.file.length for outcome in result.sent if outcome.verdict != "failed"]
    took = result.send_ended - result.began
    rows: list[Sequence[object]] = [
        ("received by the gateway", len(taken), size(sum(taken)), *_rates(taken, took), "", "")
    ]
    for name, sink in result.sinks.items():
        took = (sink.last or 0.0) - (sink.first or 0.0)
        rates = ("", "") if not took else _speed(sink.instances, sink.bytes, took)
        times = transit[name]
        rows.append(
            (
                f"delivered to {name}",
                sink.instances,
                size(sink.bytes),
                *rates,
                seconds(_share(times, 0.5)),
                seconds(_share(times, 0.99)),
            )
        )
    account = result.account
    for line in account["destinations"]:
        for what in ("duplicate", "waiting", "dead"):
            if line[what]:
                text = _WORDS[what].format(line["destination"])
                rows.append((text, line[what], "", "", "", "", ""))
    rest = [what for what in ("held", "quarantined", "discarded") if account[what]]
    return rows + [(_WORDS[what], account[what], "", "", "", "", "") for what in rest]


_WORDS = {
    "duplicate": "not sent to {} again: the same bytes",
    "waiting": "STILL WAITING for {}",
    "dead": "DEAD LETTERS of {}",
    "held": "held: no rule matched",
    "quarantined": "quarantined: cannot be parsed",
    "discarded": "discarded by a rule",
}


def _rates(lengths: Sequence[int], took: float) -> tuple[str, str]:
    return _speed(len(lengths), sum(lengths), took)


def _speed(count: int, total: int, took: float) -> tuple[str, str]:
    return f"{count / took:.0f}", f"{total / took / 1e6:.1f}"


def _share(times: list[float], share: float) -> float | None:
    return times[min(len(times) - 1, int(len(times) * share))] if times else None


def _report(result: "Result", transit: dict[str, list[float]]) -> dict[str, object]:
    return {
        "sent": len(result.sent),
        "send_seconds": result.send_ended - result.began,
        "total_seconds": result.ended - result.began,
        "sinks": {
            name: {
                "instances": sink.instances,
                "bytes": sink.bytes,
                "p50_seconds": _share(transit[name], 0.5),
                "p99_seconds": _share(transit[name], 0.99),
            }
            for name, sink in result.sinks.items()
        },
        "account": result.account,
        "elsewhere": [
            {"sop_instance_uid": uid, "disposition": disposition, "reason": reason}
            for (uid, _), (disposition, reason) in result.elsewhere.items()
        ],
        "lost": result.lost,
    }
