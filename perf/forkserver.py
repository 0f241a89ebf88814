"""Starts gateways quickly: a process that has imported the product, and forks itself.

Owns that process and its children.  Importing takes most of a gateway's start, and is the same
each time; from the fork on a child runs the product's own ``main``, as a new process would.  A
child can be given a `Failpoint`.  The children die with the server, and that with its owner.

The server reads a JSON line for each thing to do and answers each with one.
"""

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from perf import failpoints, processes
from perf.failpoints import Failpoint
from perf.gateway import GatewayProcess
from perf.processes import BenchError

_ROOT = Path(__file__).parent.parent
# What `serve` imports, early or late; asked for by name so that none of it is left to the child.
_PRELOADED = (
    "router.cli.serve",
    "router.app",
    "router.config",
    "router.observe.log",
    "prometheus_client.process_collector",
    "structlog.dev",
    "uvloop",
    "encodings.idna",
    "concurrent.futures.thread",
    "uvicorn.lifespan.off",
    "uvicorn.protocols.http.h11_impl",
)


class ForkServer:
    """Runs from its making to `close`."""

    def __init__(self, log: Path) -> None:
        with log.open("ab") as sink:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "perf.forkserver"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                cwd=_ROOT,
                start_new_session=True,
                preexec_fn=processes.die_with_parent,
            )
        self._log = log
        self._lock = threading.Lock()

    def spawn(self, arguments: Sequence[str], log: Path, point: Failpoint | None) -> "Forked":
        """A process that runs ``dcmrouter`` with these arguments."""
        given = None if point is None else asdict(point)
        pid = self._ask({"argv": list(arguments), "log": str(log), "point": given})
        return Forked(self, pid, log)

    def reap(self, pid: int) -> int:
        """Exit status of a child that has ended; once only."""
        return self._ask({"reap": pid})

    def close(self) -> None:
        """End it, and with it whatever child is still there."""
        for stream in (self._popen.stdin, self._popen.stdout):
            if stream is not None:
                stream.close()
        try:
            self._popen.wait(5.0)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, request: dict[str, Any]) -> int:
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        with self._lock:
            self._popen.stdin.write(json.dumps(request).encode() + b"\n")
            self._popen.stdin.flush()
            answer = self._popen.stdout.readline()
        if not answer:
            raise BenchError(f"the fork server has ended: {processes.tail(self._log)}")
        return int(answer)


class Forked:
    """A child of the fork server; see `perf.processes.Child`.

    It stays unreaped until its status was asked for, so its number means nobody else until then.
    """

    def __init__(self, server: ForkServer, pid: int, log: Path) -> None:
        self.pid = pid
        self._server = server
        self._log = log
        self._status: int | None = None
        self._lock = threading.Lock()
        self.handle = os.pidfd_open(pid)
        """Readable once the process has ended (pidfd_open(2)); closed when it was reaped."""

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self._look(0.0) is not None

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        self.wait(processes.GRACE)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens when it is gone."""
        with self._lock:
            if self._status is None:
                signal.pidfd_send_signal(self.handle, number)

    def wait(self, timeout: float) -> int:
        """Exit status; killed, and so negative, when it takes longer."""
        status = self._look(timeout)
        if status is None:
            self.signal(signal.SIGKILL)
            status = self._look(processes.GRACE)
        if status is None:
            raise BenchError(f"process {self.pid} outlived a SIGKILL")
        return status

    def stop(self, grace: float = processes.GRACE) -> bool:
        """SIGTERM, then SIGKILL after ``grace`` seconds; False when that was needed."""
        self.signal(signal.SIGTERM)
        clean = self._look(grace) is not None
        self.wait(0.0)
        return clean

    def tail(self, lines: int = 5) -> str:
        """The last lines of its log, for an error text."""
        return processes.tail(self._log, lines)

    def _look(self, timeout: float) -> int | None:
        with self._lock:
            if self._status is None:
                poll = select.poll()
                poll.register(self.handle, select.POLLIN)
                if poll.poll(timeout * 1000):
                    self._status = self._server.reap(self.pid)
                    os.close(self.handle)
            return self._status


class ForkedGateway(GatewayProcess):
    """A gateway from a fork server; ``point`` is where its next life ends by itself."""

    def __init__(self, server: ForkServer, home: Path, settings: dict[str, Any]) -> None:
        super().__init__(home, settings)
        self._server = server
        self.point: Failpoint | None = None

    def spawn(self) -> None:
        """See `GatewayProcess`."""
        arguments = ["serve", "--config", str(self.config)]
        self.child = self._server.spawn(arguments, self.log, self.point)


def _serve() -> bool:
    """The server's life.  Returns True in a child, which has yet to run; False at the end."""
    for module in _PRELOADED:
        importlib.import_module(module)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if "reap" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["reap"], 0)[1])
        else:
            answer = os.fork()
            if not answer:
                _become(request)
                return True
        os.write(1, b"%d\n" % answer)
    return False


def _become(request: dict[str, Any]) -> None:
    """Everything about the process that a start by hand would have made so."""
    os.setsid()
    processes.die_with_parent()
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for given, standard in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(given, standard)
    os.close(nothing)
    os.close(log)
    sys.argv = ["dcmrouter", *request["argv"]]
    if request["point"] is not None:
        failpoints.arm(Failpoint(**request["point"]))


if __name__ == "__main__" and _serve():
    from router.cli import main

    main()
