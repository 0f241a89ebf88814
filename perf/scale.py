"""The running gateway with a million instances waiting, against a thousand.

``python -m perf.scale`` prints, for each case, how long the gateway takes from the start of its
process to ``/readyz`` (after a clean end and after ``kill -9``, with nothing of its directory in
the page cache), what memory it holds, what it does while nothing happens, and how fast it
receives or delivers beside what waits:

- *waiting*: so many instances wait for one destination that refuses connections; received are
  more for the same one;
- *dead*: as many wait for a hundred such destinations; received are instances for a live one;
- *shut*: the same, but half of the hundred are not tried at all, since their windows are shut;
- *alone*: the live one, nothing waits.

Exit 0 when all was measured and nothing lost, 1 otherwise.
"""

import argparse
import contextlib
import datetime
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from perf import machine
from perf.backlog import Backlog
from perf.contenders import Sink
from perf.gateway import GatewayProcess
from perf.processes import (
    BenchError,
    cpu_seconds,
    peak_resident_bytes,
    reset_peak,
    resident_bytes,
    wait_until,
)
from perf.report import write_json
from perf.steps import DELIVERY_LIMIT, run_sender

_HERE = Path(__file__).parent
_MB = 1e6
_READY = "dcmrouter_queue_instances"
_SENDERS = 4
_AGREED = 30.0
"""Seconds in which the queues show what was received."""
_LIVE = "live"


@dataclass(frozen=True, slots=True)
class Case:
    """``waiting`` instances over ``dead`` destinations, of which ``shut`` are not called at this
    time of the week; ``live``: what is received goes to one
    that takes it, and the rate is that of delivering; otherwise it waits too."""

    name: str
    waiting: int
    dead: int
    segments: int
    live: bool
    shut: int = 0


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one life of a gateway; ``rate`` in instances a second, ``cpu_ms`` of the gateway for
    each of them, ``idle_share`` of a core."""

    start_seconds: float
    start_after_kill_seconds: float
    resident_mb: float
    peak_mb: float
    idle_share: float
    metrics_ms: float
    rate: float
    cpu_ms: float
    index_mb: float


@dataclass(frozen=True, slots=True)
class Amount:
    """Seconds of receiving, instances that are delivered, and seconds of doing nothing: as many
    again go before them, in which what starting leaves behind is done."""

    seconds: float = 5.0
    delivered: int = 4_000
    quiet: float = 1.5


class Scale:
    """One case, measured as often as wanted on the directory that is made first.

    What earlier measurements received stays there: a few thousand beside a million; with a
    thousand waiting a new directory is made each time.
    """

    def __init__(self, work: Path, case: Case, amount: Amount) -> None:
        self._home = work / "run" / f"scale-{case.name}"
        self._work = work
        self._case = case
        self._amount = amount
        self._names = [f"dead-{number:03d}" for number in range(case.dead)]
        self._loads = 0
        self._received = 0
        self._kept = 0

    def measure(self) -> Figures:
        """Raises BenchError when anything was lost or took too long."""
        if self._received * 20 > self._case.waiting:
            self.close()
        if not self._home.exists():
            self._make()
        with contextlib.ExitStack() as stack:
            sink = None
            if self._case.live:
                sink = stack.enter_context(Sink(self._work, self._delivered))
            dead = stack.enter_context(refusing_port())
            settings = self._settings(dead, sink.port if sink else 0)
            gateway = GatewayProcess(self._home, settings)
            stack.callback(gateway.stop)
            start = self._start(gateway)
            gateway.kill()
            killed = self._start(gateway)
            self._check(gateway)
            idle = self._idle(gateway)
            began = time.monotonic()
            gateway.metrics()
            scrape = (time.monotonic() - began) * 1000
            resident = resident_bytes(gateway.pid) / _MB
            reset_peak(gateway.pid)
            before, cpu = self._received, cpu_seconds(gateway.pid)
            rate = self._deliver(gateway, sink) if sink else self._receive(gateway)
            cpu_ms = (cpu_seconds(gateway.pid) - cpu) * 1000 / (self._received - before)
            peak = peak_resident_bytes(gateway.pid) / _MB
            self._check(gateway)
            if not gateway.stop():
                raise BenchError("the gateway did not end within 30 s of SIGTERM")
        index = (self._home / "data" / "index.sqlite").stat().st_size / _MB
        return Figures(start, killed, resident, peak, idle, scrape, rate, cpu_ms, index)

    def close(self) -> None:
        """Remove the directory."""
        shutil.rmtree(self._home, ignore_errors=True)
        self._received = self._kept = 0

    @property
    def _delivered(self) -> int:
        return self._amount.delivered // _SENDERS * _SENDERS

    def _make(self) -> None:
        self._home.mkdir(parents=True)
        if self._case.waiting:
            backlog = Backlog(self._case.waiting, self._names, time.time())
            backlog.make(self._home / "data", segments=self._case.segments)
        self._kept = self._case.waiting

    def _settings(self, dead: int, live: int) -> dict[str, Any]:
        remotes: dict[str, dict[str, Any]] = {
            name: {"ae_title": name.upper(), "host": "127.0.0.1", "port": dead}
            for name in self._names
        }
        for name in self._names[: self._case.shut]:
            remotes[name]["schedule"] = "another day"
        if self._case.live:
            remotes[_LIVE] = {"ae_title": "SINK", "host": "127.0.0.1", "port": live}
        to = _LIVE if self._case.live else self._names[0]
        return {
            "timezone": "UTC",
            "schedules": {"another day": {"open": f"{_another_day()} 03:00-03:01"}},
            "remotes": remotes,
            "rules": [{"name": "everything", "to": to}],
            "log": {"level": "warning"},
        }

    def _start(self, gateway: GatewayProcess) -> float:
        """Seconds to readiness, as after a restart of the machine: with cold files."""
        os.sync()
        forget(self._home)
        began = time.monotonic()
        gateway.start()
        return time.monotonic() - began

    def _idle(self, gateway: GatewayProcess) -> float:
        # The pool of segments is made first, and the dead ones are tried for the first time.
        time.sleep(self._amount.quiet)
        cpu = cpu_seconds(gateway.pid)
        time.sleep(self._amount.quiet)
        return (cpu_seconds(gateway.pid) - cpu) / self._amount.quiet

    def _check(self, gateway: GatewayProcess) -> None:
        """Everything that was to wait does, and the gateway's own account agrees."""

        def waits() -> bool:
            queues = gateway.metrics()[_READY]
            found = sum(n for labels, n in queues.items() if 'state="ready"' in labels)
            return found == self._kept

        if self._kept and not wait_until(waits, _AGREED, 0.1):
            raise BenchError(f"{self._kept} were to wait: {gateway.metrics()[_READY]}")
        if differences := gateway.account().get("differences"):
            raise BenchError(f"the account does not balance: {differences}")

    def _receive(self, gateway: GatewayProcess) -> float:
        """Instances a second, of which each joins those that wait."""
        report = self._load(gateway, "--seconds", self._amount.seconds)
        self._kept += int(report["acknowledged"])
        return report["acknowledged"] / report["seconds"]

    def _deliver(self, gateway: GatewayProcess, sink: Sink) -> float:
        """Instances a second, from the first sent to the last delivered."""
        report = self._load(gateway, "--instances", self._delivered // _SENDERS)
        return self._delivered / (sink.wait(DELIVERY_LIMIT)["last"] - report["began"])

    def _load(self, gateway: GatewayProcess, *options: object) -> Mapping[str, float]:
        """Four associations of MR; raises BenchError unless all was acknowledged."""
        target = ("--port", gateway.port, "--called", "ROUTER", "--kind", "mr")
        # Associations are numbered on, so that no two loads send the same UIDs.
        number = ("--associations", _SENDERS, "--at-once", _SENDERS, "--first", self._loads)
        report = run_sender(self._work, "perf.load", *target, *number, *options)
        self._loads += _SENDERS
        self._received += int(report["acknowledged"])
        return report


def _another_day() -> str:
    """Three days from now: no window of it opens while this runs."""
    day = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=3)
    return day.strftime("%a").lower()


@contextlib.contextmanager
def refusing_port() -> Iterator[int]:
    """A port at which connections are refused: bound, so that nobody else gets it meanwhile, not
    even the connecting end of a connection."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


def forget(directory: Path) -> None:
    """Put what lies there out of the page cache, as far as it is written (posix_fadvise)."""
    for parent, _, names in os.walk(directory):
        for name in names:
            # Not the socket, nor what vanishes meanwhile.
            with contextlib.suppress(OSError):
                fd = os.open(Path(parent) / name, os.O_RDONLY | os.O_NONBLOCK)
                try:
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(fd)


def cases(large: int, small: int, dead: int, segments: int) -> tuple[Case, ...]:
    """The cases that are compared; the small ones need few segments by themselves."""
    return (
        Case("waiting-large", large, 1, segments, live=False),
        Case("waiting-small", small, 1, segments, live=False),
        Case("dead-large", large, dead, segments, live=True),
        Case("shut-large", large, dead, segments, live=True, shut=dead // 2),
        Case("alone", 0, 0, 0, live=True),
    )


def title(case: Case) -> str:
    """What a table says of it."""
    if not case.waiting:
        return "nothing waiting"
    behind = "" if case.dead == 1 else f" behind {case.dead} dead destinations"
    if case.shut:
        behind += f", {case.shut} of them shut by their schedule"
    return f"{case.waiting:,} waiting{behind}"


_COLUMNS = (
    ("start s", "start_seconds"),
    ("after kill s", "start_after_kill_seconds"),
    ("resident MB", "resident_mb"),
    ("peak MB", "peak_mb"),
    ("idle, cores", "idle_share"),
    ("/metrics ms", "metrics_ms"),
    ("index MB", "index_mb"),
    ("CPU ms each", "cpu_ms"),
    ("rate/s", "rate"),
)


def print_table(found: Sequence[tuple[Case, Figures]], console: Console) -> None:
    """A line per case."""
    table = Table(title="rate: received; with a live destination, delivered to it")
    table.add_column("case")
    for column, _ in _COLUMNS:
        table.add_column(column, justify="right")
    for case, figures in found:
        values = [f"{getattr(figures, name):,.4g}" for _, name in _COLUMNS]
        table.add_row(title(case) + (", delivering" if case.live else ", receiving"), *values)
    console.print(table)


def main(words: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m perf.scale", description=__doc__)
    parser.add_argument("--waiting", type=int, default=1_000_000)
    parser.add_argument("--against", type=int, default=1_000)
    parser.add_argument("--dead", type=int, default=100, help="destinations that refuse")
    parser.add_argument("--segments", type=int, default=2_000, help="that hold what waits")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="small numbers: that it runs")
    parser.add_argument("--work", type=Path, default=_HERE / "work", help="on a real disk")
    parser.add_argument("--output", type=Path, default=None, help="where the JSON goes")
    args = parser.parse_args(words)
    amount = Amount()
    if args.quick:
        args.waiting, args.against, args.segments, args.rounds = 4_000, 100, 4, 1
        amount = Amount(0.5, 40, 0.2)
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    console = Console() if sys.stdout.isatty() else Console(width=150)
    all_cases = cases(args.waiting, args.against, args.dead, args.segments)
    found: list[tuple[Case, Figures]] = []
    with contextlib.ExitStack() as stack:
        scales = [Scale(work, case, amount) for case in all_cases]
        for scale in scales:
            stack.callback(scale.close)
        try:
            for _ in range(args.rounds):
                for case, scale in zip(all_cases, scales, strict=True):
                    found.append((case, scale.measure()))
        except (BenchError, OSError) as error:
            console.print(f"failed: {error}", markup=False, soft_wrap=True)
            return 1
        finally:
            print_table(found, console)
    name = "quick-scale.json" if args.quick else "scale.json"
    output = args.output or (work if args.quick else _HERE / "results") / name
    head = {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(work),
        "versions": machine.versions(),
    }
    measured = [{"case": asdict(case), **asdict(figures)} for case, figures in found]
    write_json(output, {"schema": 1, **head, "measured": measured})
    console.print(f"written to {output}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
