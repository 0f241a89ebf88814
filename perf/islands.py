"""What a dead destination costs a live one: the design says nothing, and allows a tenth.

``python -m perf.islands``.  Four times dcmsend over 1,000 mixed files, to a live destination
alone, and to the live one and a dead one; in turns, on the same files.  Measured is the time from
the first file sent to the last one delivered to the live destination.  The dead one refuses
connections, or takes them and never says a word; in the end it is raised, and must get everything.
Needs dcmsend; exit 0 only when nothing was lost and the live one was not slowed by more.
"""

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from perf import data
from perf.contenders import ENVIRONMENT, program
from perf.gateway import GatewayProcess
from perf.processes import BenchError, free_port
from perf.witness import WitnessThread

_SENDERS = 4
_LIMIT = 300.0
_ALLOWED = 1.1
_KINDS = ("mr", "ct")
# What stands beside the live destination.
ALONE, REFUSING, SILENT = "alone", "refusing", "silent"


def settings(ports: dict[str, int]) -> dict[str, Any]:
    """Everything to every one of the destinations, which are called again soon."""
    retry = {"first": "200ms", "cap": "1s", "max_attempts": 100_000}
    return {
        "remotes": {
            name: {"ae_title": "SINK", "host": "127.0.0.1", "port": port, "retry": retry}
            for name, port in ports.items()
        },
        "rules": [{"name": "everything everywhere", "to": list(ports)}],
        "log": {"level": "warning"},
    }


@contextlib.contextmanager
def dead_port(case: str) -> Iterator[int]:
    """A port that refuses connections, or one that takes them and stays silent."""
    if case == REFUSING:
        yield free_port()
        return
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield int(listener.getsockname()[1])


class Run:
    """One measurement in an empty directory."""

    def __init__(self, home: Path, files: list[list[Path]], case: str) -> None:
        self._home = home
        self._files = files
        self._case = case
        self._count = sum(map(len, files))

    def seconds(self) -> float:
        """Until all was delivered to the live one.  Raises BenchError when anything is lost."""
        os.sync()
        with WitnessThread() as live:
            if self._case == ALONE:
                return self._measure(live, {"live": live.port})
            with dead_port(self._case) as port:
                ports = {"live": live.port, "dead": port}
                gateway = GatewayProcess(self._home, settings(ports))
                with gateway:
                    seconds = self._send(gateway, live)
            self._raise_the_dead(gateway, port)
            return seconds

    def _measure(self, live: WitnessThread, ports: dict[str, int]) -> float:
        with GatewayProcess(self._home, settings(ports)) as gateway:
            return self._send(gateway, live)

    def _send(self, gateway: GatewayProcess, live: WitnessThread) -> float:
        command = [str(program("dcmsend")), "-q", "-aec", "ROUTER", "127.0.0.1", str(gateway.port)]
        began = time.monotonic()
        senders = [
            subprocess.Popen(
                [*command, *map(str, paths)],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **ENVIRONMENT},
            )
            for paths in self._files
        ]
        try:
            arrived = live.wait(lambda seen: len(seen) >= self._count, _LIMIT)
            ended = time.monotonic()
            codes = [sender.wait(_LIMIT) for sender in senders]
        finally:
            for sender in senders:
                if sender.poll() is None:
                    sender.kill()
                    sender.wait()
        if not arrived or any(codes):
            raise BenchError(f"{len(live.seen())} of {self._count} delivered, dcmsend: {codes}")
        return ended - began

    def _raise_the_dead(self, gateway: GatewayProcess, port: int) -> None:
        """The same gateway, started again, delivers all of it once the destination lives."""
        with WitnessThread(port) as raised, gateway:
            if not raised.wait(lambda seen: len(seen) >= self._count, _LIMIT):
                raise BenchError(f"{len(raised.seen())} of {self._count} came to the raised one")


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m perf.islands", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work")
    args = parser.parse_args()
    if program("dcmsend") is None:
        print("dcmsend (Debian package dcmtk) is not installed", file=sys.stderr)
        return 2
    # Half of each kind, mixed, for every sender.
    each = args.files // _SENDERS // len(_KINDS)
    made = [data.make_files(args.work / "data", data.KINDS[k], _SENDERS, each) for k in _KINDS]
    files = [
        [path for pair in zip(*(lists[n] for lists in made), strict=True) for path in pair]
        for n in range(_SENDERS)
    ]
    data.warm(files)
    times: dict[str, list[float]] = {ALONE: [], REFUSING: [], SILENT: []}
    for number in range(args.rounds):
        for case, found in times.items():
            home = Path(tempfile.mkdtemp(prefix="islands-", dir=args.work))
            try:
                found.append(Run(home / case, files, case).seconds())
            finally:
                shutil.rmtree(home)
            print(f"round {number + 1} of {args.rounds}, {case}: {found[-1]:.2f} s", flush=True)
    return _conclude(times, sum(map(len, files)))


def _conclude(times: dict[str, list[float]], count: int) -> int:
    base = statistics.median(times[ALONE])
    print(f"\n{count} files, {_SENDERS} senders, seconds to the last one at the live destination")
    for case, found in times.items():
        middle = statistics.median(found)
        spread = f"{min(found):.2f}–{max(found):.2f}"
        print(f"{case:<10}{middle:>8.2f} s   {spread:>12}   {middle / base:>5.2f} ×")
    ratios = {case: statistics.median(found) / base for case, found in times.items()}
    print(json.dumps({"files": count, "seconds": times, "ratios": ratios}))
    return 0 if max(ratios.values()) <= _ALLOWED else 1


if __name__ == "__main__":
    sys.exit(main())
