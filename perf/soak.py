"""Hours of a hospital in minutes: whether what the gateway uses stays level under a mixed load.

``python -m perf.soak --minutes 30``.  Small and large instances, long and short associations, idle
ones, broken ones; of three destinations one is slow and one goes away and comes back; the
configuration is reloaded, metrics and pages are read.  Every few seconds it is noted what the
process holds.  Exit 0 only when nothing of it grew (`perf.series`) and everything that was
acknowledged arrived, with its bytes, wherever it was to go.  Owns the course of it and what is
measured; figures go to ``--out`` as CSV and SVG.
"""

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop

from perf import series
from perf.book import Book, settled
from perf.gateway import GatewayProcess
from perf.processes import BenchError
from perf.series import Bound, Verdict
from perf.soak_traffic import DESTINATIONS, FINE, FLAPPING, PACES, SLOW, Traffic
from perf.witness import Witness

_MIB = 2**20
# Seconds without an arrival after which there will be none, and when nothing waits any more.
_SLOWNESS = 0.02
_TICK = os.sysconf("SC_CLK_TCK")
# Of the longest course; a shorter one has all of them more often, so that its parts are alike.
_FLAP, _RELOAD, _IDLE, _SAMPLE = 30.0, 60.0, 60.0, 5.0
_SHARE = {_FLAP: 15, _RELOAD: 12, _IDLE: 10, _SAMPLE: 60}

BOUNDS = (
    Bound("rss_bytes", 24 * _MIB, 0.1),
    Bound("pss_bytes", 24 * _MIB, 0.1),
    Bound("descriptors", 12, 0.1),
    Bound("threads", 2),
    Bound("tasks", 20, 0.2),
    # Segments are left out of these two: the pool keeps as many as were needed at once, and how
    # many that is the longest absence of a destination decides.
    Bound("other_files", 24, 0.3),
    Bound("live_bytes", 128 * _MIB, 0.3),
    Bound("index_bytes", 8 * _MIB, 0.2),
    Bound(f"queue_{FINE}", 100),
    Bound(f"queue_{SLOW}", 200),
    Bound(f"queue_{FLAPPING}", 500, 0.5),
)
_DRAWN = (
    *(bound.column for bound in BOUNDS),
    *(
        "segments",
        "spool_bytes",
        "associations",
        "cpu_percent",
        "stall_max_ms",
        "scrape_ms",
        "page_ms",
    ),
    *("acknowledged", *(f"delivered_{name}" for name in DESTINATIONS)),
)


def settings(ports: dict[str, int], *, other: bool) -> dict[str, Any]:
    """Segments that are soon recycled; with ``other``, what a reload may change is changed."""
    retry = {"first": "200ms", "cap": "2s", "max_attempts": 1_000_000}
    rules = [
        {"name": "everything to two", "to": [FINE, FLAPPING]},
        {"name": "reports to the slow one", "when": {"Modality": "SR"}, "to": SLOW},
    ]
    return {
        "remotes": {
            name: {
                "ae_title": name.upper(),
                "host": "127.0.0.1",
                "port": port,
                "associations": 3 if other else 2,
                "retry": retry,
            }
            for name, port in ports.items()
        },
        "rules": rules[::-1] if other else rules,
        "spool": {
            "segment_size": "16MiB",
            "keep_settled": "5s" if other else "4s",
            "low_disk": "64MiB",
        },
        "log": {"format": "json", "level": "warning"},
    }


class Sampler:
    """What the process holds now.  Blocking."""

    def __init__(self, gateway: GatewayProcess, book: Book) -> None:
        self._gateway = gateway
        self._book = book
        self._began = time.monotonic()
        self._cpu = (self._began, 0.0)

    def sample(self) -> dict[str, float]:
        """One row."""
        row = {series.TIME: time.monotonic() - self._began}
        began = time.monotonic()
        metrics = self._gateway.metrics()
        row["scrape_ms"] = (time.monotonic() - began) * 1e3
        began = time.monotonic()
        for path in ("/", "/readyz"):
            status, _ = self._gateway.get(path)
            if status != 200:
                self._book.fault(f"{path} answered {status}")
        row["page_ms"] = (time.monotonic() - began) * 1e3
        row |= self._process()
        row |= self._disk()
        row |= self._counted(metrics)
        return row

    def _process(self) -> dict[str, float]:
        pid = self._gateway.pid
        status = _fields(Path(f"/proc/{pid}/status"))
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        now, used = time.monotonic(), (int(stat[11]) + int(stat[12])) / _TICK
        before, used_before = self._cpu
        self._cpu = (now, used)
        return {
            "rss_bytes": status["VmRSS"] * 1024,
            "pss_bytes": _fields(Path(f"/proc/{pid}/smaps_rollup"))["Pss"] * 1024,
            "threads": status["Threads"],
            "descriptors": sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()),
            "cpu_percent": 100 * (used - used_before) / max(now - before, 0.001),
        }

    def _disk(self) -> dict[str, float]:
        files = segments = 0
        for _, _, names in os.walk(self._gateway.data_dir):
            files += len(names)
            segments += sum(name.endswith(".seg") for name in names)
        index = 0
        for part in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                index += (self._gateway.data_dir / f"index.sqlite{part}").stat().st_size
        return {"other_files": files - segments, "segments": segments, "index_bytes": index}

    def _counted(self, metrics: dict[str, dict[str, float]]) -> dict[str, float]:
        queues = metrics["dcmrouter_queue_instances"]
        spool = metrics["dcmrouter_spool_bytes"][""]
        row = {
            "tasks": metrics["dcmrouter_tasks"][""],
            "spool_bytes": spool,
            "live_bytes": spool - metrics["dcmrouter_spool_spare_bytes"][""],
            "associations": sum(
                value
                for labels, value in metrics["dcmrouter_associations"].items()
                if 'direction="in"' in labels
            ),
            "stall_max_ms": metrics["dcmrouter_event_loop_stall_max_seconds"][""] * 1e3,
            "acknowledged": len(self._book.acknowledged),
        }
        for labels, value in metrics["dcmrouter_gc_collections_total"].items():
            generation = labels.split('"')[1]
            row[f"gc_{generation}"] = value
        for name in DESTINATIONS:
            row[f"queue_{name}"] = queues.get(f'destination="{name}",state="ready"', 0.0)
            row[f"delivered_{name}"] = len(self._book.arrived[name])
        return row


def _fields(path: Path) -> dict[str, int]:
    """``Name: number`` lines of a file of /proc."""
    found = {}
    for line in path.read_text().splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            found[name] = int(words[0])
    return found


class Soak:
    """One run.  `home` is empty."""

    def __init__(self, home: Path, *, seconds: float, scale: float, seed: int) -> None:
        self.seconds = seconds
        self.book = Book(DESTINATIONS)
        self.rows: list[dict[str, float]] = []
        self.verdicts: list[Verdict] = []
        self.reloads = self.flaps = 0
        self._home = home
        self._scale = scale
        self._seed = seed
        self._flapping_open = True
        self._other = False
        self._witnesses = {
            name: Witness(pause=_SLOWNESS if name == SLOW else 0.0) for name in DESTINATIONS
        }

    async def run(self) -> bool:
        """The whole course; True when nothing is wrong."""
        for name, witness in self._witnesses.items():
            witness.on_seen = self.book.receiver(name)
            await witness.open()
        self.gateway = GatewayProcess(self._home, self._settings())
        try:
            # Spawned here and not in a thread: the child is to die with this thread.
            self.gateway.spawn()
            await asyncio.to_thread(self.gateway.await_ready)
            await self._course()
            await self._drain()
            await self._conclude()
        except* (BenchError, OSError, KeyError) as group:
            for error in group.exceptions:
                self.book.fault(f"{type(error).__name__}: {error}; {self.gateway.tail()}")
        finally:
            if not await asyncio.to_thread(self.gateway.stop):
                self.book.fault("the gateway did not end within 30 s of SIGTERM")
            for witness in self._witnesses.values():
                await witness.shut()
        self._judge()
        return not self.book.faults and all(verdict.flat for verdict in self.verdicts)

    def every(self, longest: float) -> float:
        """How often something is done: a share of the time, but no more seldom than that."""
        return min(longest, self.seconds / _SHARE[longest])

    def _settings(self) -> dict[str, Any]:
        ports = {name: witness.port for name, witness in self._witnesses.items()}
        return settings(ports, other=self._other)

    async def _course(self) -> None:
        self.traffic = Traffic(
            self.gateway.port,
            self.book,
            scale=self._scale,
            seed=self._seed,
            idle=self.every(_IDLE),
        )
        sampler = Sampler(self.gateway, self.book)

        async def sample() -> None:
            self.rows.append(await asyncio.to_thread(sampler.sample))

        async def reload() -> None:
            self._other = not self._other
            self.gateway.configure(self._settings())
            self.gateway.signal(signal.SIGHUP)
            self.reloads += 1

        async with asyncio.TaskGroup() as group:
            group.create_task(self.traffic.run())
            group.create_task(self._again(self.every(_SAMPLE), sample))
            group.create_task(self._again(self.every(_RELOAD), reload))
            group.create_task(self._again(self.every(_FLAP), self._flap))
            try:
                await asyncio.sleep(self.seconds)
            finally:
                self.traffic.stop.set()

    async def _again(self, interval: float, work: Callable[[], Awaitable[None]]) -> None:
        """Do it at even moments until the traffic ends."""
        began = time.monotonic()
        for number in range(1, 1 + int(self.seconds / interval)):
            try:
                async with asyncio.timeout(began + number * interval - time.monotonic()):
                    await self.traffic.stop.wait()
                return
            except TimeoutError:
                await work()

    async def _flap(self) -> None:
        flapping = self._witnesses[FLAPPING]
        await (flapping.shut() if self._flapping_open else flapping.open())
        self._flapping_open = not self._flapping_open
        self.flaps += 1

    async def _drain(self) -> None:
        """Until nothing waits any longer, or nothing moves."""
        if not self._flapping_open:
            await self._flap()
        await settled(self.book, lambda: asyncio.to_thread(self.gateway.waiting))

    async def _conclude(self) -> None:
        book = self.book
        for name, owed in book.owed.items():
            if owed:
                book.fault(f"{len(owed)} acknowledged never came to {name}, such as {min(owed)}")
        if book.refused:
            book.fault(f"refused: {dict(book.refused)}")
        account = await asyncio.to_thread(self.gateway.account)
        if not account["balanced"]:
            book.fault(f"the account does not balance: {account['differences']}")
        metrics = await asyncio.to_thread(self.gateway.metrics)
        for labels, value in metrics["dcmrouter_associations"].items():
            if 'direction="in"' in labels and value:
                book.fault(f"{value:.0f} associations are counted that nobody has: {labels}")
        for line in self.gateway.log_lines():
            if "text" in line or line.get("level") in ("error", "critical"):
                book.fault(f"in the log: {line}")

    def _judge(self) -> None:
        try:
            self.verdicts = series.judge(self.rows, BOUNDS)
        except ValueError as error:
            self.book.fault(str(error))

    # -- telling -------------------------------------------------------------------------------

    def table(self) -> str:
        """What was done and found, for people."""
        done: Counter[str] = self.traffic.done
        instances = sum(pace.instances_per_second for pace in PACES)
        size = sum(pace.bytes_per_second for pace in PACES)
        rows: list[tuple[str, object]] = [
            ("seconds", f"{self.seconds:.0f}"),
            ("instances/s wanted", f"{self._scale * instances:.0f}"),
            ("MB/s wanted", f"{self._scale * size / 1e6:.1f}"),
            ("associations with instances", done["associations"]),
            ("  idle", done["idle"]),
            ("  broken off in a data set", done["broken off"]),
            ("reloads", self.reloads),
            ("gateway's share of a core, %", f"{self._median('cpu_percent'):.0f}"),
            ("times a destination came or went", self.flaps),
            *self.book.lines(),
        ]
        lines = [f"{name:<36}{value!s:>12}" for name, value in rows]
        lines += ["", f"{'resource':<20}{'2nd fifth':>16}{'last fifth':>16}{'may rise by':>16}"]
        for verdict in self.verdicts:
            allowed = verdict.bound.allowance(verdict.before)
            lines.append(
                f"{verdict.bound.column:<20}{verdict.before:>16,.0f}{verdict.after:>16,.0f}"
                f"{allowed:>16,.0f}  {'flat' if verdict.flat else 'GROWS'}"
            )
        lines += [f"WRONG: {fault}" for fault in self.book.faults]
        if self.book.more_faults:
            lines.append(f"WRONG: and {self.book.more_faults} more")
        return "\n".join(lines)

    def _median(self, column: str) -> float:
        values = [row[column] for row in self.rows]
        return statistics.median(values) if values else 0.0

    def write(self, out: Path) -> None:
        """The figures and their drawing, as ``out`` with .csv and .svg."""
        out.parent.mkdir(parents=True, exist_ok=True)
        series.write_csv(out.with_suffix(".csv"), self.rows)
        title = f"soak of {self.seconds / 60:.3g} minutes"
        out.with_suffix(".svg").write_text(series.svg(self.rows, _DRAWN, title))


def main() -> int:
    """Command line; exit 0 only when nothing grew and nothing was lost."""
    parser = argparse.ArgumentParser(prog="python -m perf.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--scale", type=float, default=1.0, help="of all rates of the load")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--work", type=Path, default=None, help="directory; default: a new one")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "work" / "soak", help="without suffix"
    )
    args = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if args.seed is None else args.seed
    if args.work is not None:
        args.work.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="soak-", dir=args.work))
    print(f"seed {seed}, work in {home}", flush=True)
    soak = Soak(home, seconds=args.minutes * 60, scale=args.scale, seed=seed)
    fine = uvloop.run(soak.run())
    if soak.rows:
        soak.write(args.out)
    print(soak.table())
    print("sound" if fine else "NOT sound")
    if fine:
        shutil.rmtree(home)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
