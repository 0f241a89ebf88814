"""How long a sender waits for its answer, and a destination for the instance.

``python -m perf.latency`` prints for MR and CT, at 10, 50 and 90 % of the highest rate, the
distribution of

- *answer*: last byte of the C-STORE-RQ taken by the kernel, to C-STORE-RSP 0000, at the sender;
- *answer, from due*: the same from the moment at which the timetable wanted the instance sent,
  so that what would have waited behind a stall counts;
- *delivery*: C-STORE-RSP at the sender, to the last byte of the data set at the destination;
- *delivery, from due*: from the timetable to that last byte;

and the stall of the event loop meanwhile.  The highest rate is found first, in the same run: as
fast as answers come (a closed loop over the same associations), counted until the destination has
everything, so it is one that receiving and delivering both sustain.  Exit 0 when all was measured
and nothing lost, 1 otherwise.
"""

import argparse
import datetime
import json
import math
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from perf import data, machine, openloop, sink
from perf.contenders import Dcmrouter, Sink
from perf.processes import BenchError, cpu_seconds
from perf.report import write_json
from perf.steps import await_delivered, histogram_buckets, quantile, run_sender

SHARES = (0.1, 0.5, 0.9)
STALL = "dcmrouter_event_loop_stall_seconds_bucket"
_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Distribution:
    """Milliseconds.  Quantiles by nearest rank, so each is one that was measured."""

    count: int
    p50: float
    p99: float
    p999: float
    max: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> "Distribution":
        """Raises BenchError for nothing.  Below 0 counts as 0: a destination may have the last
        byte before the sender has read its answer."""
        ordered = sorted(max(0.0, value) * 1000 for value in seconds)
        if not ordered:
            raise BenchError("nothing was measured")

        def rank(q: float) -> float:
            return ordered[max(0, math.ceil(q * len(ordered)) - 1)]

        return cls(len(ordered), rank(0.5), rank(0.99), rank(0.999), ordered[-1])


@dataclass(frozen=True, slots=True)
class Level:
    """One load.  ``rate`` is what the timetable said, ``reached`` what was answered a second."""

    share: float
    rate: float
    reached: float
    answer: Distribution
    answer_from_due: Distribution
    delivery: Distribution
    delivery_from_due: Distribution
    stall_p999_ms: float
    cpu_share: float
    """Processor time of the gateway per second, 1.0 being one core."""


@dataclass(frozen=True, slots=True)
class Latencies:
    """One kind of instance.  ``highest`` in instances a second, received and delivered."""

    kind: str
    highest: float
    levels: tuple[Level, ...]

    def at(self, share: float) -> Level:
        """The level of that share; raises KeyError when it was not measured."""
        return {level.share: level for level in self.levels}[share]


@dataclass(frozen=True, slots=True)
class Settings:
    """How a measurement is made: seconds of each load, and associations that share it."""

    peak_seconds: float = 5.0
    seconds: float = 30.0
    associations: int = 8
    shares: tuple[float, ...] = SHARES


@dataclass(frozen=True, slots=True)
class _Load:
    """What was seen of one load while it ran."""

    share: float
    rate: float
    report: Mapping[str, float]
    notes: Path
    stall_p999_ms: float
    cpu_share: float


class Latency:
    """Measures one kind with one gateway and one destination."""

    def __init__(self, work: Path, kind: str, settings: Settings) -> None:
        self._work = work
        self._kind = kind
        self._settings = settings
        self._sent = 0
        self._runs = 0

    def measure(self) -> Latencies:
        """Raises BenchError when anything was refused or lost."""
        (self._work / "run").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._work / "run") as folder:
            arrived = Path(folder) / "arrived"
            with (
                Sink(self._work, notes=arrived) as destination,
                Dcmrouter(self._work, forward_port=destination.port) as gateway,
            ):
                highest = self._highest(gateway, destination, Path(folder))
                loads = [
                    self._load(gateway, destination, share, share * highest, Path(folder))
                    for share in self._settings.shares
                ]
                destination.close()
            times = sink.read_notes(arrived)
            levels = tuple(_level(load, times) for load in loads)
        return Latencies(self._kind, highest, levels)

    def _highest(self, gateway: Dcmrouter, destination: Sink, folder: Path) -> float:
        # What any first traffic fills (caches, the pool of the destination) is not measured.
        self._send(gateway, destination, 0.0, min(1.0, self._settings.peak_seconds), folder)
        report, last = self._send(gateway, destination, 0.0, self._settings.peak_seconds, folder)
        return report["acknowledged"] / (last - report["began"])

    def _load(
        self, gateway: Dcmrouter, destination: Sink, share: float, rate: float, folder: Path
    ) -> _Load:
        notes = folder / f"sent-{share}"
        stalls, cpu = gateway.metrics().get(STALL, {}), cpu_seconds(gateway.pid)
        report, last = self._send(gateway, destination, rate, self._settings.seconds, folder, notes)
        used = cpu_seconds(gateway.pid) - cpu
        now = gateway.metrics().get(STALL, {})
        during = {labels: count - stalls.get(labels, 0.0) for labels, count in now.items()}
        stall = quantile(histogram_buckets(during), 0.999) * 1000
        return _Load(share, rate, report, notes, stall, used / (last - report["began"]))

    def _send(
        self,
        gateway: Dcmrouter,
        destination: Sink,
        rate: float,
        seconds: float,
        folder: Path,
        notes: Path | None = None,
    ) -> tuple[Mapping[str, float], float]:
        """Send, and wait until all is delivered: the sender's report, the last arrival."""
        self._runs += 1
        options: list[object] = ["--port", gateway.port, "--called", gateway.called_ae]
        options += ["--kind", self._kind, "--associations", self._settings.associations]
        options += ["--rate", rate, "--seconds", seconds, "--sender", self._runs]
        options += ["--notes", notes or folder / "unused"]
        report = run_sender(self._work, "perf.openloop", *options)
        self._sent += int(report["acknowledged"])
        return report, await_delivered(destination, self._sent)["last"]


def _level(load: _Load, arrived: Mapping[str, float]) -> Level:
    notes = list(openloop.read_notes(load.notes))
    lost = [note.uid for note in notes if note.uid not in arrived]
    if lost or len(notes) != load.report["due"]:
        raise BenchError(f"{len(lost)} of {load.report['due']:.0f} were acknowledged and are lost")
    return Level(
        share=load.share,
        rate=load.rate,
        reached=len(notes) / (load.report["ended"] - load.report["began"]),
        answer=Distribution.of(n.answered - n.sent for n in notes),
        answer_from_due=Distribution.of(n.answered - n.due for n in notes),
        delivery=Distribution.of(arrived[n.uid] - n.answered for n in notes),
        delivery_from_due=Distribution.of(arrived[n.uid] - n.due for n in notes),
        stall_p999_ms=load.stall_p999_ms,
        cpu_share=load.cpu_share,
    )


_WHAT = {
    "answer": "last byte → RSP",
    "answer_from_due": "due → RSP",
    "delivery": "RSP → delivered",
    "delivery_from_due": "due → delivered",
}


def print_table(found: Sequence[Latencies], console: Console) -> None:
    """A section per kind and load, a line per distribution."""
    table = Table(title="latency, ms; due = by the timetable")
    table.add_column("load")
    for column in ("count", "p50", "p99", "p99.9", "max"):
        table.add_column(column, justify="right", no_wrap=True)
    for each in found:
        for level in each.levels:
            table.add_section()
            head = f"{each.kind.upper()}, {level.share:.0%} of {each.highest:,.0f}/s"
            stall = f"stall p99.9 ≤ {level.stall_p999_ms:g}, cores {level.cpu_share:.2f}"
            table.add_row(f"[bold]{head}[/]: {level.reached:,.0f}/s; {stall}")
            for name, title in _WHAT.items():
                d: Distribution = getattr(level, name)
                figures = [f"{value:,.2f}" for value in (d.p50, d.p99, d.p999, d.max)]
                table.add_row("  " + title, f"{d.count:,}", *figures)
    console.print(table)


def main(words: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m perf.latency", description=__doc__)
    parser.add_argument("--kind", action="append", choices=sorted(data.KINDS), help="repeatable")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each load")
    parser.add_argument("--peak-seconds", type=float, default=5.0, help="of the closed loop")
    parser.add_argument("--associations", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="half a second each: that it runs")
    parser.add_argument("--work", type=Path, default=_HERE / "work", help="on a real disk")
    parser.add_argument("--output", type=Path, default=None, help="where the JSON goes")
    args = parser.parse_args(words)
    settings = Settings(args.peak_seconds, args.seconds, args.associations)
    if args.quick:
        settings = Settings(0.3, 0.5, args.associations)
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    console = Console() if sys.stdout.isatty() else Console(width=120)
    found: list[Latencies] = []
    try:
        # One by one: what was measured is shown even when the next fails.
        kinds = args.kind or ["mr", "ct"]
        found.extend(Latency(work, kind, settings).measure() for kind in kinds)
    except (BenchError, OSError) as error:
        console.print(f"failed: {error}", markup=False, soft_wrap=True)
        return 1
    finally:
        if found:
            print_table(found, console)
    name = "quick-latency.json" if args.quick else "latency.json"
    output = args.output or (work if args.quick else _HERE / "results") / name
    head = {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "settings": asdict(settings),
        "machine": machine.describe(work),
        "versions": machine.versions(),
    }
    rounded = json.loads(json.dumps([asdict(each) for each in found]), parse_float=_rounded)
    write_json(output, {"schema": 1, **head, "latencies": rounded})
    console.print(f"written to {output}", soft_wrap=True)
    return 0


def _rounded(text: str) -> float:
    return float(f"{float(text):.4g}")


if __name__ == "__main__":
    sys.exit(main())
