"""``make bench``: every figure of the design, against the others, in one run.

``python -m perf.bench [--only ROW] [--rounds N] [--quick] [--output FILE] [--list]``.  Exit 0
when everything that could be measured was and nothing was lost, 1 when something failed or was
lost, 2 for bad usage.  A figure that falls short is reported, not an error.
"""

import argparse
import datetime
import fcntl
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from rich.console import Console

from perf import machine, report
from perf.processes import BenchError
from perf.report import Outcome, RowResult, Sample
from perf.rows import ROWS, TITLES, Row
from perf.steps import QUICK, Bench, Sizes

_HERE = Path(__file__).parent
WORK = _HERE / "work"
RESULTS = _HERE / "results"


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """The command line; exits with 2 when it is wrong."""
    parser = argparse.ArgumentParser(prog="python -m perf.bench", description=__doc__)
    names = [row.name for row in ROWS]
    parser.add_argument("--only", action="append", choices=names, metavar="ROW", help="repeatable")
    parser.add_argument("--rounds", type=int, default=None, help="3 unless told, at least 1")
    parser.add_argument("--quick", action="store_true", help="tiny counts: that it runs, no more")
    parser.add_argument("--output", type=Path, default=None, help="where the JSON goes")
    parser.add_argument("--work", type=Path, default=WORK, help="scratch space on a real disk")
    parser.add_argument("--list", action="store_true", help="print the rows and end")
    args = parser.parse_args(words)
    if args.rounds is not None and args.rounds < 1:
        parser.error("--rounds wants at least 1")
    return args


def default_output(args: argparse.Namespace) -> Path:
    """Only a whole run at full size replaces the published result."""
    whole = not args.quick and not args.only and (args.rounds or 3) >= 3
    if whole:
        return RESULTS / "latest.json"
    return Path(args.work) / ("quick.json" if args.quick else "partial.json")


def measure_row(row: Row, bench: Bench, rounds: int, console: Console) -> RowResult:
    """All rounds of one row, its contenders taking turns: A B C, A B C, and so on.

    A contender that fails in one round is not tried again; the others go on.
    """
    bench.notes = {}
    reasons = {name: row.missing(name) for name in row.contenders}
    samples: dict[str, list[Sample]] = {name: [] for name in row.contenders}
    failures: dict[str, str] = {}
    if not all(reasons.values()):
        row.prepare(bench)
    for number in range(min(rounds, row.most_rounds or rounds)):
        for name in row.contenders:
            if reasons[name] or name in failures:
                continue
            try:
                sample = row.measure(bench, name, number)
            except (BenchError, OSError, TimeoutError) as error:
                failures[name] = f"round {number + 1}: {str(error) or type(error).__name__}"
                console.print(f"  {number + 1} {TITLES[name]}: failed", highlight=False)
                continue
            samples[name].append(sample)
            figure = f"{sample.value:,.4g} {row.unit}"
            console.print(f"  {number + 1} {TITLES[name]}: {figure}", highlight=False)
    outcomes = {}
    for name in row.contenders:
        if reasons[name]:
            outcomes[name] = Outcome("missing", reason=reasons[name])
        elif name in failures:
            outcomes[name] = Outcome("failed", tuple(samples[name]), failures[name])
        else:
            outcomes[name] = Outcome("ok", tuple(samples[name]))
    return RowResult(
        row.name,
        row.title,
        row.unit,
        row.better,
        row.subjects,
        row.targets,
        outcomes,
        dict(bench.notes),
        row.details,
    )


def run(args: argparse.Namespace, console: Console) -> int:
    """The whole run; the exit status."""
    work: Path = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    if machine.in_memory(work):
        console.print(
            f"{work} lies in memory ({machine.file_system(work)}): nothing would be synced to a "
            "disk. Give --work a directory on one."
        )
        return 2
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print(
                f"another run works in {work}: two would measure each other, and each remove the "
                "other's files. Wait until it has ended."
            )
            return 2
        return _measure(args, work, console)


def _measure(args: argparse.Namespace, work: Path, console: Console) -> int:
    rounds = args.rounds or (1 if args.quick else 3)
    bench = Bench(work, QUICK if args.quick else Sizes())
    head = {
        "started": _now(),
        "command": " ".join(["python -m perf.bench", *_shown(args)]),
        "quick": args.quick,
        "rounds": rounds,
        "machine": machine.describe(work),
        "versions": machine.versions(),
    }
    began = time.monotonic()
    rows = [row for row in ROWS if not args.only or row.name in args.only]
    results = []
    try:
        for row in rows:
            console.print(f"{row.title}, {row.unit}")
            results.append(measure_row(row, bench, rounds, console))
    finally:
        bench.close()
        shutil.rmtree(work / "run", ignore_errors=True)
    head["finished"] = _now()
    head["seconds"] = round(time.monotonic() - began, 1)
    output = args.output or default_output(args)
    report.write_json(output, report.to_json(head, results))
    report.print_table(results, TITLES, console)
    console.print(f"written to {output}", soft_wrap=True)
    if args.quick:
        console.print("A quick run: it shows that everything works; its figures mean nothing.")
    return 1 if any(result.failed for result in results) else 0


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _shown(args: argparse.Namespace) -> list[str]:
    """The options that change what is measured; paths are nobody's business."""
    words = ["--quick"] if args.quick else []
    if args.rounds:
        words += ["--rounds", str(args.rounds)]
    for name in args.only or ():
        words += ["--only", name]
    return words


def _terminate(number: int, frame: FrameType | None) -> None:
    # An exception, so that every `finally` ends the processes that it started.
    raise SystemExit(128 + number)


def main(words: Sequence[str] | None = None) -> int:
    """Command line."""
    args = parse_arguments(sys.argv[1:] if words is None else words)
    # Wide enough for the table when the output goes to a file.
    console = Console() if sys.stdout.isatty() else Console(width=120)
    if args.list:
        for row in ROWS:
            console.print(f"{row.name:22} {row.title}, {row.unit}", soft_wrap=True)
        return 0
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return run(args, console)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
