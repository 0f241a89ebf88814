"""What a proper sender notices of peers that mean no good.

``python -m perf.hostile``.  Four associations send MR images to a gateway: alone, beside an attack
of `perf.attacks`, and alone again, for each attack and in several rounds.  Wanted: nine tenths of
the speed, memory within its bound, every connection of the attacker counted, a bounded number of
log lines, and nothing left over afterwards.  Exit 0 only when all of that holds.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from perf.attacks import ATTACKS
from perf.gateway import GatewayProcess
from perf.processes import (
    BenchError,
    Child,
    cpu_seconds,
    peak_resident_bytes,
    reset_peak,
    resident_bytes,
    wait_until,
)

WANTED = 0.9
MEMORY_BOUND = 64 * 2**20
"""Bytes that strangers may add: 16 MiB of requests that are still arriving (REQUEST_MEMORY of
`router.net.listener`), which take twice as much while they grow, 512 waiting
connections (network.max_waiting) of 16 KiB, 200 associations (network.max_per_address) of 64 KiB of
an instance that arrives, and the rest for the allocator."""
LINES_BOUND = 200
"""Log lines of one attack: 5 a minute for a kind and address, of at most 20 kinds; and what those
say that come and go as they should (600 a minute for an address) is only for the admitted."""
LINES_ADMITTED = 1300
_SENDERS = 4
_AFTER = 60.0
_ADMITTED = ("endless", "vanished", "unread", "burst", "flood", "loris", "cuts")


def settings() -> dict[str, Any]:
    """Defaults, but for shorter times and a data set's length, so that a run shows what they do.

    The proper sender is a remote by name, as in a hospital; anybody else may call as well, or
    most attacks would end at the door.
    """
    return {
        "remotes": {"modality": {"ae_title": "LOAD", "addresses": ["127.0.0.1"]}},
        "rules": [{"name": "all of it", "discard": "only received"}],
        "spool": {"keep_settled": "0s"},
        "storage": {"max_instance": "32MiB"},
        "network": {"artim_timeout": "5s", "dimse_timeout": "5s", "idle_timeout": "10s"},
    }


def counted(gateway: GatewayProcess) -> dict[str, int]:
    """How the connections of strangers ended, or that they have an association: by reason."""
    metrics = gateway.metrics()
    found = {}
    for name in ("association_rejects", "connections_unused"):
        for labels, value in metrics.get(f"dcmrouter_{name}_total", {}).items():
            found[labels.partition('"')[2].rstrip('"')] = int(value)
    granted = metrics.get("dcmrouter_associations_total", {})
    found["granted"] = int(sum(v for k, v in granted.items() if 'peer="unknown"' in k))
    return {reason: count for reason, count in found.items() if count}


def cuts(gateway: GatewayProcess) -> dict[str, int]:
    """Associations that the gateway ended itself, by reason."""
    found = gateway.metrics().get("dcmrouter_association_cuts_total", {})
    return {labels.partition('"')[2].rstrip('"'): int(value) for labels, value in found.items()}


@dataclass(frozen=True, slots=True)
class State:
    """What a gateway holds now."""

    descriptors: int
    tasks: int
    associations: int
    resident: int

    @classmethod
    def of(cls, gateway: GatewayProcess) -> "State":
        """Read it."""
        metrics = gateway.metrics()
        return cls(
            len(os.listdir(f"/proc/{gateway.pid}/fd")),  # noqa: PTH208 - only their number
            int(sum(metrics.get("dcmrouter_tasks", {}).values())),
            int(sum(metrics.get("dcmrouter_associations", {}).values())),
            resident_bytes(gateway.pid),
        )

    def back_to(self, before: "State") -> bool:
        """Whether nothing was left over; memory has its own bound."""
        return (
            # Segments are opened as they are needed, and SQLite keeps its journal.
            self.descriptors <= before.descriptors + 8
            and self.tasks <= before.tasks + 2
            and self.associations == 0
        )


@dataclass(slots=True)
class Found:
    """One attack in one round.  ``attacker`` is how many cores it took for itself."""

    name: str
    ratio: float
    attacker: float
    alone: float
    added: int
    left: int
    made: int
    opening: int
    counted: dict[str, int]
    cut: dict[str, int]
    lines: int
    clean: bool
    troubles: list[str] = field(default_factory=list)

    @property
    def of_the_rest(self) -> float:
        """The speed as a share of what the cores that the attacker left would have given.

        In a hospital an attacker brings a machine of its own; here it takes from the sender and
        the gateway, which alone keep all cores busy.
        """
        return self.ratio / (1.0 - min(0.9, self.attacker / (os.cpu_count() or 1)))

    def judge(self) -> None:
        """Everything but the speed, which is judged over the rounds."""
        if self.added > MEMORY_BOUND:
            self.troubles.append(f"{self.added >> 20} MiB added")
        if self.left > MEMORY_BOUND:
            self.troubles.append(f"{self.left >> 20} MiB left")
        if not 0 <= sum(self.counted.values()) - self.made <= self.opening:
            self.troubles.append(f"{sum(self.counted.values())} counted of {self.made}")
        if self.lines > (LINES_ADMITTED if self.name in _ADMITTED else LINES_BOUND):
            self.troubles.append(f"{self.lines} log lines")
        if not self.clean:
            self.troubles.append("descriptors, tasks or associations left over")


class Round:
    """One attack on a gateway of its own."""

    def __init__(self, home: Path, name: str, seconds: float) -> None:
        self._home = home
        self._name = name
        self._seconds = seconds

    def run(self) -> Found:
        """Alone, beside the attack, alone.  Raises BenchError when the sender is refused."""
        with GatewayProcess(self._home / "gateway", settings()) as gateway:
            self._rate(gateway)  # pool, caches and the interpreter are warm afterwards
            before = State.of(gateway)
            reset_peak(gateway.pid)
            alone = self._rate(gateway)
            peak_alone = peak_resident_bytes(gateway.pid)
            lines = len(gateway.log_lines())
            reset_peak(gateway.pid)
            attacked, cores, attacker = self._beside(gateway)
            made, opening = attacker["made"], attacker["opening"]
            added = peak_resident_bytes(gateway.pid) - peak_alone
            lines = len(gateway.log_lines()) - lines

            def over() -> bool:
                return sum(counted(gateway).values()) >= made and State.of(gateway).back_to(before)

            clean = wait_until(over, _AFTER, 0.25)
            again = self._rate(gateway)
            left = State.of(gateway).resident - before.resident
            found = Found(
                self._name,
                attacked / statistics.mean((alone, again)),
                cores,
                alone,
                max(0, added),
                max(0, left),
                made,
                opening,
                counted(gateway),
                cuts(gateway),
                lines,
                clean,
            )
        found.judge()
        return found

    def _rate(self, gateway: GatewayProcess) -> float:
        """Instances a second that the proper sender gets acknowledged."""
        command = [sys.executable, "-m", "perf.load", "--port", str(gateway.port), "--kind", "mr"]
        command += ["--associations", str(_SENDERS), "--at-once", str(_SENDERS)]
        command += ["--seconds", str(self._seconds)]
        report = _answer(Child(command, self._home / "sender.log", pipe=True), self._seconds + 60)
        if report["failures"] or not report["acknowledged"]:
            raise BenchError(f"the proper sender beside {self._name}: {report['failures']}")
        return float(report["acknowledged"] / report["seconds"])

    def _beside(self, gateway: GatewayProcess) -> tuple[float, float, dict[str, int]]:
        """The same while the attack goes on, how many cores the attacker takes meanwhile, and what
        it says of its connections."""
        command = [sys.executable, "-m", "perf.attacks", self._name, "--port", str(gateway.port)]
        command += ["--seconds", str(self._seconds + 60)]
        attacker = Child(command, self._home / "attacker.log", pipe=True)
        try:
            stream = attacker.popen.stdout
            if stream is None or stream.readline().strip() != b"up":
                raise BenchError(f"the attack {self._name} failed: {attacker.tail()}")
            used, began = cpu_seconds(attacker.pid), time.monotonic()
            rate = self._rate(gateway)
            cores = (cpu_seconds(attacker.pid) - used) / (time.monotonic() - began)
            attacker.popen.terminate()
            return rate, cores, _answer(attacker, 60.0)
        finally:
            attacker.stop()


def _answer(child: Child, limit: float) -> dict[str, Any]:
    """The JSON line that a child ends with."""
    try:
        child.wait(limit)
        output = child.popen.stdout.read() if child.popen.stdout is not None else b""
    finally:
        child.stop()
    try:
        values: dict[str, Any] = json.loads(output.splitlines()[-1])
    except (IndexError, ValueError):
        raise BenchError(f"{child.command[2]} failed: {child.tail()}") from None
    return values


def conclude(results: dict[str, list[Found]], console: Console) -> bool:
    """The table; whether everything is as it is wanted."""
    table = Table(title=f"a proper sender ({_SENDERS} associations, MR) beside strangers")
    for column in (
        "attack",
        "pace",
        "speed",
        "attacker",
        "of the rest",
        "memory",
        "made",
        "counted",
        "lines",
    ):
        table.add_column(column, overflow="fold")
    fine = True
    for name, rounds in results.items():
        kind = ATTACKS[name]
        last = rounds[-1]
        ratio = statistics.median(found.ratio for found in rounds)
        how = ", ".join(f"{reason} {count}" for reason, count in sorted(last.counted.items()))
        how += "".join(f"; cut {reason} {count}" for reason, count in sorted(last.cut.items()))
        table.add_row(
            kind.title,
            f"{kind.at_once} open, {kind.pace:g}/s",
            f"{ratio:.2f} ×",
            f"{statistics.median(found.attacker for found in rounds):.2f} cores",
            f"{statistics.median(found.of_the_rest for found in rounds):.2f} ×",
            f"+{max(found.added for found in rounds) / 2**20:.1f} MiB",
            str(last.made),
            how,
            str(max(found.lines for found in rounds)),
        )
        troubles = {trouble for found in rounds for trouble in found.troubles}
        if ratio < WANTED:
            troubles.add(f"{ratio:.2f} of the speed, {WANTED} is wanted")
        for trouble in sorted(troubles):
            console.print(f"short: {kind.title}: {trouble}", markup=False, soft_wrap=True)
        fine = fine and not troubles
    console.print(table)
    console.print(
        "speed: median of the rounds, and as a share of what the cores that the attacker itself "
        f"did not take would have given; memory: the most that it added, at most "
        f"{MEMORY_BOUND >> 20} MiB are allowed; lines: the most in the log of one attack"
    )
    return fine


def run(names: Sequence[str], rounds: int, seconds: float, work: Path) -> dict[str, list[Found]]:
    """Every attack once in each round."""
    results: dict[str, list[Found]] = {name: [] for name in names}
    work.mkdir(parents=True, exist_ok=True)
    for number in range(rounds):
        for name, found in results.items():
            home = Path(tempfile.mkdtemp(prefix="hostile-", dir=work))
            began = time.monotonic()
            try:
                found.append(Round(home, name, seconds).run())
            finally:
                shutil.rmtree(home)
            last = found[-1]
            print(
                f"round {number + 1} of {rounds}, {name}: {last.ratio:.2f} × of "
                f"{last.alone:.0f}/s in {time.monotonic() - began:.0f} s "
                f"{'; '.join(last.troubles)}",
                flush=True,
            )
    return results


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m perf.hostile", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each of the three times")
    parser.add_argument("--quick", action="store_true", help="one short round: only that it runs")
    parser.add_argument("--only", choices=ATTACKS, action="append", metavar="ATTACK")
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work")
    args = parser.parse_args()
    rounds, seconds = (1, 1.0) if args.quick else (args.rounds, args.seconds)
    try:
        results = run(args.only or list(ATTACKS), rounds, seconds, args.work)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    fine = conclude(results, Console(width=None if sys.stdout.isatty() else 160))
    figures = {
        name: {
            "speed": [round(found.ratio, 3) for found in rounds_],
            "attacker_cores": [round(found.attacker, 3) for found in rounds_],
            "alone_per_second": [round(found.alone) for found in rounds_],
            "memory_added": [found.added for found in rounds_],
            "made": [found.made for found in rounds_],
            "counted": [found.counted for found in rounds_],
            "cut": [found.cut for found in rounds_],
            "lines": [found.lines for found in rounds_],
        }
        for name, rounds_ in results.items()
    }
    print(json.dumps(figures))
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
