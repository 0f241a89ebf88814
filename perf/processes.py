"""Child processes of the benchmarks: started in a group of their own, measured, and ended.

Owns every process that a benchmark starts.  A child dies with the benchmark (parent death
signal), and only groups that were started here are ever signalled.
"""

import contextlib
import ctypes
import itertools
import os
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
# Our own programs are started as modules, which are found from here.
_ROOT = Path(__file__).parent.parent
_LIBC = ctypes.CDLL(None, use_errno=True)
GRACE = 30.0
"""Seconds that a process has to obey a signal."""
_TICK = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """A measurement that cannot be made or that lost something; the text says which."""


def die_with_parent() -> None:
    """Runs in the child between fork and exec: SIGKILL when the benchmark dies."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


_LOWEST, _SHARE = 12_000, 5_000
_ports = itertools.count(os.getpid())
_given: deque[int] = deque(maxlen=100)


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on now, and no late one of ours.

    Where tests run side by side each process has a range of its own, below those that the kernel
    gives to connections: else what is free now may be another's before our server has it.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    while True:
        port = _LOWEST + int(worker[2:]) % 4 * _SHARE + next(_ports) % _SHARE if worker else 0
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found = int(probe.getsockname()[1])
            if found not in _given:
                _given.append(found)
                return found


def held_port() -> socket.socket:
    """A free TCP port of the loopback interface that stays ours until the socket is closed.

    Nobody listens on it, so connecting is refused; whoever binds it with SO_REUSEADDR, as
    servers do, may listen.  Without this a port whose server is down for a moment could be given
    to any other program, or to a connection.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


class Child:
    """One process and whatever it forks.

    Standard error (and output, unless ``pipe``) goes to ``log``.  `stop` is safe to call twice.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        pipe: bool = False,
    ) -> None:
        self.command = list(command)
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as sink:
            self.popen = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipe else sink,
                stderr=sink,
                env={**os.environ, **(env or {})},
                cwd=_ROOT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self.pid = self.popen.pid

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self.popen.poll() is not None

    def kill(self) -> None:
        """SIGKILL to the process, and wait until it is gone."""
        self.popen.kill()
        self.popen.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens when it is gone."""
        self.popen.send_signal(number)

    def tail(self, lines: int = 5) -> str:
        """The last lines of its log, for an error text."""
        return tail(self.log, lines)

    def wait(self, timeout: float) -> int:
        """Exit status; the group is killed when it takes longer than ``timeout`` seconds.

        Blocks in waitpid with a watchdog, since `Popen.wait` with a time limit polls and
        would add up to 50 ms to what is being measured.
        """
        watchdog = threading.Timer(timeout, self._kill_group, (signal.SIGKILL,))
        watchdog.daemon = True
        watchdog.start()
        try:
            return self.popen.wait()
        finally:
            watchdog.cancel()

    def stop(self, grace: float = GRACE) -> bool:
        """SIGTERM, then SIGKILL to the group after ``grace``; False when it had to be killed."""
        clean = True
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(grace)
            except subprocess.TimeoutExpired:
                clean = False
        self._kill_group(signal.SIGKILL)
        self.popen.wait()
        if self.popen.stdout is not None:
            self.popen.stdout.close()
        return clean

    def _kill_group(self, number: int) -> None:
        # The group outlives its leader as long as it has members; once it is empty there is
        # nothing left to signal.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


def tail(log: Path, lines: int = 5) -> str:
    """The last lines of a log, for an error text."""
    with contextlib.suppress(OSError):
        text = log.read_bytes()[-4096:].decode(errors="replace")
        text = text.replace(f"{_ROOT}/", "")
        return " | ".join(text.strip().splitlines()[-lines:])
    return ""


def group_members(group: int) -> list[int]:
    """Process ids of the group, from /proc."""
    found = []
    for entry in os.listdir("/proc"):  # noqa: PTH208 - a thousand Path objects per sample
        if entry.isdigit():
            fields = _stat(int(entry))
            if fields and int(fields[2]) == group:
                found.append(int(entry))
    return found


def cpu_seconds(group: int) -> float:
    """CPU used by the living members of the group and by their children that were reaped."""
    ticks = 0
    for pid in group_members(group):
        if fields := _stat(pid):
            ticks += sum(int(value) for value in fields[11:15])
    return ticks / _TICK


def resident_bytes(pid: int) -> int:
    """Resident memory now (VmRSS)."""
    return _status(pid, "VmRSS")


def peak_resident_bytes(pid: int) -> int:
    """Largest resident memory since the start or since `reset_peak` (VmHWM)."""
    return _status(pid, "VmHWM")


def reset_peak(pid: int) -> None:
    """Makes VmHWM start again from the present resident memory (proc(5), clear_refs 5)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def stolen_ticks() -> tuple[int, int]:
    """(stolen, total) ticks of the machine: what a hypervisor gave to others in between."""
    fields = [int(v) for v in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return fields[7], sum(fields)


def wait_until(condition: Callable[[], bool], timeout: float, interval: float = 0.05) -> bool:
    """Ask until it is true; False after ``timeout`` seconds."""
    limit = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > limit:
            return False
        time.sleep(interval)
    return True


def accepts(port: int) -> bool:
    """Whether something listens on the port of the loopback interface."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
    except OSError:
        return False


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third (state) on; empty when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text[text.rindex(")") + 2 :].split()


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise BenchError(f"process {pid} has no {name}: it has ended")
