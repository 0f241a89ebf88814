"""The running gateway with a million instances that an archive has still to commit.

``python -m perf.uncommitted`` prints what that many cost: the start of the process to ``/readyz``
(after a clean end and after ``kill -9``, with cold files) and what it does and holds while the
archive is dead; then, with an archive that commits at once on the association of the request, how
long a request of 10,000 takes to be made, how long a report of 10,000 takes to be answered, CPU
and memory.

Exit 0 when all was measured and every instance was delivered in the end, 1 otherwise.
"""

import argparse
import contextlib
import datetime
import os
import random
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from perf import machine, wire
from perf.backlog import Backlog
from perf.committing import Committer, Write
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
from perf.scale import forget, refusing_port
from perf.witness import WitnessThread
from router.spool.index import Index
from router.spool.index_types import DeliveryState, Outcome

_HERE = Path(__file__).parent
_MB = 1e6
_NAME = "archive"
_BATCH = 2000
_PIECE = 16 * 1024
_PATIENCE = 3600.0


@dataclass(frozen=True, slots=True)
class Figures:
    """``ask_ms``: from the answer to a report to the next request; ``report_ms``: from a report to
    its answer; each the median and the longest.  ``rate`` in instances a second."""

    instances: int
    batch: int
    start_seconds: float
    start_after_kill_seconds: float
    idle_share: float
    resident_mb: float
    requests: int
    ask_ms: float
    longest_ask_ms: float
    report_ms: float
    longest_report_ms: float
    rate: float
    cpu_ms: float
    peak_mb: float


class Archive(Committer):
    """Commits whatever it is asked for, at once, on the same association."""

    def __init__(self) -> None:
        super().__init__("SINK", random.Random(0))
        self.asks: list[float] = []
        self.reports: list[float] = []
        self.statuses: set[int] = set()
        self._began = 0.0
        self._ended = 0.0

    def asked(self, data: bytes, context_id: int, write: Write) -> None:
        """See `Committer`."""
        if self._ended:
            self.asks.append(time.monotonic() - self._ended)
        transaction, references, _ = wire.parse_commitment(data)
        report = wire.report(transaction, references, [])
        number = len(self.reports) % 0xFFFF + 1
        pdus = wire.data_pdus(context_id, memoryview(report), _PIECE)
        message = wire.event_report_rq(context_id, number, 1) + b"".join(pdus)
        self._began = time.monotonic()
        write(message)

    def answered(self, status: int) -> None:
        """See `Committer`."""
        self._ended = time.monotonic()
        self.reports.append(self._ended - self._began)
        self.statuses.add(status)


def make(directory: Path, instances: int, segments: int) -> None:
    """A data directory with so many instances that were taken and not committed."""
    now = time.time()
    Backlog(instances, [_NAME], now).make(directory, segments=segments)
    index = Index.open(directory / "index.sqlite")
    try:
        for begin in range(1, instances + 1, _BATCH):
            ids = range(begin, min(begin + _BATCH, instances + 1))
            index.settle([Outcome(n, _NAME, DeliveryState.UNCOMMITTED, now, status=0) for n in ids])
    finally:
        index.close()


def measure(work: Path, instances: int, batch: int, segments: int, quiet: float) -> Figures:
    """Raises BenchError when anything was lost or took too long."""
    home = work / "run" / "uncommitted"
    shutil.rmtree(home, ignore_errors=True)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        home.mkdir(parents=True)
        make(home / "data", instances, segments)
        dead = stack.enter_context(refusing_port())
        gateway = GatewayProcess(home, _settings(dead, batch))
        stack.callback(gateway.stop)
        start = _start(gateway)
        gateway.kill()
        killed = _start(gateway)
        _check(gateway, "uncommitted", instances)
        idle = _idle(gateway, quiet)
        resident = resident_bytes(gateway.pid) / _MB
        if not gateway.stop():
            raise BenchError("the gateway did not end within 30 s of SIGTERM")
        archive = Archive()
        witness = stack.enter_context(WitnessThread(committer=archive))
        gateway.configure(_settings(witness.port, batch))
        gateway.start()
        reset_peak(gateway.pid)
        began, cpu = time.monotonic(), cpu_seconds(gateway.pid)
        _check(gateway, "delivered", instances)
        seconds = time.monotonic() - began
        cpu_ms = (cpu_seconds(gateway.pid) - cpu) * 1000 / instances
        peak = peak_resident_bytes(gateway.pid) / _MB
        if archive.statuses != {0}:
            raise BenchError(f"reports were answered with {archive.statuses}")
        asks = archive.asks or [0.0]
        return Figures(
            instances=instances,
            batch=batch,
            start_seconds=start,
            start_after_kill_seconds=killed,
            idle_share=idle,
            resident_mb=resident,
            requests=len(archive.reports),
            ask_ms=statistics.median(asks) * 1000,
            longest_ask_ms=max(asks) * 1000,
            report_ms=statistics.median(archive.reports) * 1000,
            longest_report_ms=max(archive.reports) * 1000,
            rate=instances / seconds,
            cpu_ms=cpu_ms,
            peak_mb=peak,
        )


def _settings(port: int, batch: int) -> dict[str, Any]:
    asked = {"batch": batch, "after": "0s", "linger": "5m"}
    remote = {"ae_title": "SINK", "host": "127.0.0.1", "port": port, "commitment": asked}
    return {
        "remotes": {_NAME: remote},
        "rules": [{"name": "everything", "to": _NAME}],
        "log": {"level": "warning"},
    }


def _start(gateway: GatewayProcess) -> float:
    """Seconds to readiness, as after a restart of the machine: with cold files."""
    os.sync()
    forget(gateway.home)
    began = time.monotonic()
    gateway.start()
    return time.monotonic() - began


def _idle(gateway: GatewayProcess, quiet: float) -> float:
    time.sleep(quiet)  # what starting leaves behind is done first
    cpu = cpu_seconds(gateway.pid)
    time.sleep(quiet)
    return (cpu_seconds(gateway.pid) - cpu) / quiet


def _check(gateway: GatewayProcess, state: str, count: int) -> None:
    """All of them come to be so, and the gateway's own account agrees."""

    def has() -> bool:
        lines = gateway.account()["destinations"]
        return any(one["destination"] == _NAME and one[state] == count for one in lines)

    if not wait_until(has, _PATIENCE, 0.1):
        raise BenchError(f"{count} were to be {state}: {gateway.account()['destinations']}")
    if differences := gateway.account().get("differences"):
        raise BenchError(f"the account does not balance: {differences}")


def main(words: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m perf.uncommitted", description=__doc__)
    parser.add_argument("--instances", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=10_000, help="references of a request")
    parser.add_argument("--segments", type=int, default=200, help="that hold them")
    parser.add_argument("--quick", action="store_true", help="small numbers: that it runs")
    parser.add_argument("--work", type=Path, default=_HERE / "work", help="on a real disk")
    parser.add_argument("--output", type=Path, default=None, help="where the JSON goes")
    args = parser.parse_args(words)
    quiet = 5.0
    if args.quick:
        args.instances, args.batch, args.segments, quiet = 400, 100, 2, 0.2
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    console = Console() if sys.stdout.isatty() else Console(width=120)
    try:
        figures = measure(work, args.instances, args.batch, args.segments, quiet)
    except (BenchError, OSError) as error:
        console.print(f"failed: {error}", markup=False, soft_wrap=True)
        return 1
    table = Table(title=f"{args.instances:,} uncommitted")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in asdict(figures).items():
        table.add_row(name.replace("_", " "), f"{value:,.4g}")
    console.print(table)
    name = "quick-uncommitted.json" if args.quick else "uncommitted.json"
    output = args.output or (work if args.quick else _HERE / "results") / name
    head = {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(work),
        "versions": machine.versions(),
    }
    write_json(output, {"schema": 1, **head, **asdict(figures)})
    console.print(f"written to {output}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
