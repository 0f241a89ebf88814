"""The receivers that are compared, all driven alike: start, port, count, stop.

Owns how each is started: its command, its configuration, its data directory.  Every one gets
an empty directory on the same disk, a port of its own, and ``TCP_NODELAY=1``, without which a
DCMTK or Orthanc process holds each response back for 40 ms.
"""

import contextlib
import json
import os
import re
import select
import shutil
import signal
import sys
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

from perf.processes import BenchError, Child, accepts, free_port, wait_until

ENVIRONMENT = {"TCP_NODELAY": "1"}
_START_LIMIT = 60.0
_METRIC = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)$")


def program(name: str) -> str | None:
    """Path of a program; Debian keeps Orthanc where only root looks."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def http_get(url: str, timeout: float = 5.0) -> str:
    """Body of a 200 answer.  Raises OSError for everything else."""
    with urllib.request.urlopen(url, timeout=timeout) as answer:
        return str(answer.read().decode())


class Contender(ABC):
    """A receiver under test; a context manager that leaves neither process nor directory."""

    name: ClassVar[str]
    title: ClassVar[str]
    # Whether not ending on SIGTERM is a failure of the measurement.
    must_stop: ClassVar[bool] = False

    def __init__(self, work: Path, *, forward_port: int = 0) -> None:
        """``forward_port``: where every instance is to be sent on to; 0 = only receive."""
        self.home = work / "run" / self.name
        self.forward_port = forward_port
        self.port = 0
        self.child: Child | None = None
        self._log = work / "logs" / f"{self.name}.log"

    @classmethod
    @abstractmethod
    def missing(cls) -> str:
        """Why it cannot take part; "" when it can."""

    @abstractmethod
    def command(self) -> list[str]:
        """Command line; called with ``home`` empty and present and ``port`` set."""

    @abstractmethod
    def count(self) -> int:
        """Instances that it has received since its start, by its own account."""

    @property
    def called_ae(self) -> str:
        return "ROUTER"

    @property
    def pid(self) -> int:
        if self.child is None:
            raise BenchError(f"{self.title} is not running")
        return self.child.pid

    def start(self) -> None:
        """Start it on an empty directory and wait until it accepts."""
        self._clear()
        self.home.mkdir(parents=True)
        self._log.unlink(missing_ok=True)
        # What the round before left to write is written before this one is timed.
        os.sync()
        self.port = free_port()
        self.child = Child(self.command(), self._log, env=ENVIRONMENT)
        if not wait_until(self._ready_or_dead, _START_LIMIT) or self._dead():
            raise BenchError(f"{self.title} did not start: {self.child.tail()}")
        self.settle()

    def settle(self) -> None:
        """Wait for what it does in the background after the start."""
        return

    def ready(self) -> bool:
        return accepts(self.port)

    def stop(self) -> None:
        """End it and empty its directory.  Raises BenchError when it did not obey SIGTERM."""
        clean = self.child.stop() if self.child else True
        self.child = None
        self._clear()
        if not clean and self.must_stop:
            raise BenchError(f"{self.title} did not end within 30 s of SIGTERM")

    def shown_command(self) -> str:
        """The command with what differs from run to run and machine to machine left out."""
        words = self.child.command if self.child else []
        text = " ".join([Path(words[0]).name, *words[1:]] if words else [])
        text = text.replace(str(self.home), "DIR").replace(str(self.home.parent.parent), "WORK")
        return text.replace(str(self.port), "PORT")

    def settings(self) -> str:
        """Text of its configuration file, "" when it has none."""
        return ""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.stop()
        else:
            # The first error is the one to be read.
            with contextlib.suppress(BenchError):
                self.stop()

    def _ready_or_dead(self) -> bool:
        return self._dead() or self.ready()

    def _dead(self) -> bool:
        return self.child is None or self.child.popen.poll() is not None

    def _clear(self) -> None:
        if self.home.exists():
            shutil.rmtree(self.home)


class Storescp(Contender):
    """DCMTK's storescp: a process per association, files, no sync and no index."""

    name = "storescp"
    title = "DCMTK storescp"

    @classmethod
    def missing(cls) -> str:
        return "" if program("storescp") else "storescp (Debian package dcmtk) is not installed"

    def command(self) -> list[str]:
        options = ["-q", "--fork", "-pdu", "131072", "+xa", "-dhl", "-aet", self.called_ae]
        return [str(program("storescp")), *options, "-od", str(self.home), str(self.port)]

    def count(self) -> int:
        return count_files(self.home)


class Pynetdicom(Contender):
    """pynetdicom's storescp application: files, no sync and no index."""

    name = "pynetdicom"
    title = "pynetdicom storescp"

    @classmethod
    def missing(cls) -> str:
        return ""

    def command(self) -> list[str]:
        options = ["-q", "-pdu", "131072", "-aet", self.called_ae, "-ba", "127.0.0.1"]
        application = [sys.executable, "-m", "pynetdicom", "storescp"]
        return [*application, *options, "-od", str(self.home), str(self.port)]

    def count(self) -> int:
        return count_files(self.home)


class Orthanc(Contender):
    """Orthanc with its defaults (SQLite, synced), forwarding by a Lua script when asked to."""

    name = "orthanc"
    title = "Orthanc"

    _ROUTE = """\
function OnStoredInstance(instanceId, tags, metadata, origin)
  if origin["RequestOrigin"] ~= "Lua" then
    SendToModality(instanceId, "sink")
  end
end
"""

    @classmethod
    def missing(cls) -> str:
        return "" if program("Orthanc") else "Orthanc (Debian package orthanc) is not installed"

    def command(self) -> list[str]:
        self._http = free_port()
        storage = self.home / "storage"
        values: dict[str, object] = {
            "Name": "bench",
            "StorageDirectory": str(storage),
            "IndexDirectory": str(storage),
            "DicomAet": self.called_ae,
            "DicomPort": self.port,
            "HttpPort": self._http,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomCheckCalledAet": False,
            "DicomAlwaysAllowStore": True,
        }
        if self.forward_port:
            script = self.home / "route.lua"
            script.write_text(self._ROUTE)
            values["LuaScripts"] = [str(script)]
            values["DicomModalities"] = {"sink": ["SINK", "127.0.0.1", self.forward_port]}
        file = self.home / "orthanc.json"
        file.write_text(json.dumps(values, indent=1))
        return [str(program("Orthanc")), str(file)]

    def ready(self) -> bool:
        with contextlib.suppress(OSError):
            http_get(f"http://127.0.0.1:{self._http}/system")
            return accepts(self.port)
        return False

    def count(self) -> int:
        answer = json.loads(http_get(f"http://127.0.0.1:{self._http}/statistics"))
        return int(answer["CountInstances"])


class Dcmrouter(Contender):
    """The product, as installed, on an empty data directory.

    Only receiving: one rule that looks at an attribute and matches nothing here, so every
    instance is parsed as far as rules need, decided, kept and indexed, and held.
    """

    name = "dcmrouter"
    title = "dcmrouter"
    must_stop = True
    spare_segments: ClassVar[int | None] = None
    max_associations: ClassVar[int] = 1200

    @classmethod
    def missing(cls) -> str:
        script = Path(sys.executable).with_name("dcmrouter")
        if not script.exists():
            return "the dcmrouter command is not installed in this environment"
        if not (Path(__file__).parent.parent / "router" / "app.py").exists():
            return "router/app.py does not exist: this version cannot serve yet"
        return ""

    def command(self) -> list[str]:
        self._http = free_port()
        file = self.home / "config.yaml"
        file.write_text(self.settings())
        script = Path(sys.executable).with_name("dcmrouter")
        return [str(script), "serve", "--config", str(file)]

    def settings(self) -> str:
        when = "" if self.forward_port else "\n    when: {Modality: XC}"
        spool = f"spool: {{spare_segments: {self.spare_segments}}}\n" * bool(self.spare_segments)
        return f"""\
data_dir: {self.home / "data"}
http: {{listen: 127.0.0.1:{self._http}}}
log: {{level: warning}}
{spool}network: {{max_associations: {self.max_associations}}}
local:
  - ae_title: {self.called_ae}
    listen: 127.0.0.1:{self.port}
    accept: any
    max_associations: {self.max_associations}
remotes:
  sink: {{ae_title: SINK, host: 127.0.0.1, port: {self.forward_port or 104}}}
rules:
  - name: to the sink{when}
    to: sink
"""

    def ready(self) -> bool:
        with contextlib.suppress(OSError):
            http_get(f"http://127.0.0.1:{self._http}/readyz")
            return True
        return False

    def settle(self) -> None:
        """Until the pool of segments has its size, so that its zeroing is not timed."""
        sizes: list[int] = []

        def steady() -> bool:
            sizes.append(allocated_bytes(self.home))
            return len(sizes) > 4 and len(set(sizes[-5:])) == 1

        if not wait_until(steady, _START_LIMIT, interval=0.1):
            raise BenchError(f"{self.title} still grows its spool {_START_LIMIT:.0f} s after start")
        os.sync()

    def count(self) -> int:
        return int(sum(self.metrics().get("dcmrouter_instances_received_total", {}).values()))

    def metrics(self) -> dict[str, dict[str, float]]:
        """Samples by metric name and by the text of their labels."""
        return parse_metrics(http_get(f"http://127.0.0.1:{self._http}/metrics"))


class DcmrouterWarm(Dcmrouter):
    """The product after it has run for a while: recycled segments enough for the whole round."""

    name = "dcmrouter-warm"
    title = "dcmrouter, warm pool"
    spare_segments = 12


class Floor(Contender):
    """`perf.floor`: what the machine allows."""

    name = "floor"
    title = "floor (uvloop, bytes only)"
    size: ClassVar[int] = 768 * 2**20

    @classmethod
    def missing(cls) -> str:
        return ""

    def command(self) -> list[str]:
        # Kept between rounds: a file that was written before is the point of it.
        file = self.home.parent.parent / "floor.bin"
        program = [sys.executable, "-m", "perf.floor", "receive"]
        return [*program, "--file", str(file), "--size", str(self.size)]

    def start(self) -> None:
        os.sync()
        self.child = Child(self.command(), self._log, pipe=True)
        self.port = int(read_line(self.child, _START_LIMIT)["port"])
        os.sync()

    def count(self) -> int:
        """Ends it, since its count is the last thing that it says."""
        if self.child is None:
            raise BenchError("the floor is not running")
        self.child.popen.terminate()
        return int(read_line(self.child, 10.0)["instances"])


class Sink:
    """`perf.sink` in a process of its own, for one measurement."""

    def __init__(self, work: Path, expect: int = 0, *, notes: Path | None = None) -> None:
        """``notes``: where it writes, when it ends, when each instance came."""
        command = [sys.executable, "-m", "perf.sink", "--expect", str(expect)]
        command += ["--notes", str(notes)] if notes else []
        self._child = Child(command, work / "logs" / "sink.log", pipe=True)
        self._expect = expect
        try:
            self.port = int(read_line(self._child, _START_LIMIT)["port"])
        except BaseException:
            self._child.stop()
            raise

    def now(self) -> Mapping[str, float]:
        """What it has at this moment; only for a sink that expects no number."""
        self._child.popen.send_signal(signal.SIGUSR1)
        return read_line(self._child, 10.0)

    def wait(self, timeout: float) -> Mapping[str, float]:
        """What it has when all that was expected arrived.  Raises BenchError when it does not."""
        try:
            return read_line(self._child, timeout)
        except TimeoutError:
            self._child.popen.terminate()
            last = read_line(self._child, 10.0)
            raise BenchError(
                f"{last['instances']:.0f} of {self._expect} delivered after {timeout:.0f} s"
            ) from None

    def close(self) -> None:
        """End it; safe to call twice."""
        self._child.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


CONTENDERS: dict[str, type[Contender]] = {
    kind.name: kind for kind in (Dcmrouter, DcmrouterWarm, Storescp, Orthanc, Pynetdicom, Floor)
}


def read_line(child: Child, timeout: float) -> dict[str, float]:
    """The next JSON line of a program of ours.  Raises TimeoutError, BenchError at its end."""
    stream = child.popen.stdout
    if stream is None:
        raise BenchError("the standard output of this process is not a pipe")
    # One line per call and never two at once, so nothing hides in Python's buffer.
    readable, _, _ = select.select([stream], [], [], timeout)
    if not readable:
        raise TimeoutError
    line = stream.readline()
    if not line:
        raise BenchError(f"{child.command[2]} ended: {child.tail()}")
    values: dict[str, float] = json.loads(line)
    return values


def count_files(folder: Path) -> int:
    """Files in a folder, its own ones only."""
    with os.scandir(folder) as entries:
        return sum(1 for entry in entries if entry.is_file())


def allocated_bytes(folder: Path) -> int:
    """Disk blocks of everything below a folder; what vanishes meanwhile counts as nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(parent) / name).stat().st_blocks * 512
    return total


def parse_metrics(text: str) -> dict[str, dict[str, float]]:
    """The text exposition format, as far as this needs it: name to labels to value."""
    found: dict[str, dict[str, float]] = {}
    for line in text.splitlines():
        if match := _METRIC.match(line):
            name, labels, value = match.groups()
            found.setdefault(name, {})[labels or ""] = float(value)
    return found


def counted(contender: Contender, expected: int, limit: float = 15.0) -> int:
    """Its count, once it reaches what was sent or the time is over."""
    if isinstance(contender, Floor):
        return contender.count()
    end = time.monotonic() + limit
    while (count := contender.count()) != expected and time.monotonic() < end:
        time.sleep(0.1)
    return count
