"""A gateway process that can be killed and started again on the same directory.

Owns the process, its configuration file and its ports; asks it over HTTP and over its control
socket, as an operator would.  Must not import the product: what it says is checked from outside.
"""

import contextlib
import http.client
import json
import re
import signal
import socket
import sys
import urllib.error
import urllib.request
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, Self

import yaml

from perf.processes import GRACE, BenchError, Child, held_port, wait_until

START_LIMIT = 60.0
_PAGE = 10_000
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")


class Process(Protocol):
    """A running gateway, however it was started; `Child` is one."""

    @property
    def pid(self) -> int: ...
    @property
    def ended(self) -> bool: ...
    def kill(self) -> None: ...
    def signal(self, number: signal.Signals) -> None: ...
    def wait(self, timeout: float) -> int: ...
    def stop(self, grace: float = GRACE) -> bool: ...
    def tail(self, lines: int = 5) -> str: ...


class ControlSocket(http.client.HTTPConnection):
    """HTTP over the unix socket of a gateway."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """See the base class."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class GatewayProcess:
    """``home`` holds the configuration, the log and, unless ``data_dir`` is given, the data.

    ``settings`` is the configuration without ports and data directory: sections are taken as
    they are.  The ports stay the same over restarts, as they do in a hospital.
    """

    def __init__(
        self, home: Path, settings: Mapping[str, Any], *, data_dir: Path | None = None
    ) -> None:
        self.home = home
        self.home.mkdir(parents=True, exist_ok=True)
        self.data_dir = data_dir or home / "data"
        self.port, self.http_port = (self._hold_port() for _ in range(2))
        self.log = home / "gateway.log"
        self.config = home / "config.yaml"
        self.child: Process | None = None
        self.configure(settings)

    def _hold_port(self) -> int:
        held = held_port()
        weakref.finalize(self, held.close)
        return int(held.getsockname()[1])

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Replace the configuration file; takes effect at the next start or reload.

        Whole or not at all, since a gateway may be reading it just now.
        """
        local = {"ae_title": "ROUTER", "listen": f"127.0.0.1:{self.port}", "accept": "any"}
        values = {
            "data_dir": str(self.data_dir),
            "http": {"listen": f"127.0.0.1:{self.http_port}"},
            "local": [local],
            **settings,
        }
        new = self.config.with_suffix(".new")
        new.write_text(yaml.safe_dump(values, sort_keys=False))
        new.replace(self.config)

    def command(self) -> list[str]:
        """How it is started."""
        return [sys.executable, "-m", "router.cli", "serve", "--config", str(self.config)]

    # -- life ----------------------------------------------------------------------------------

    def spawn(self) -> None:
        """Start the process, and wait for nothing."""
        self.child = Child(self.command(), self.log)

    def start(self) -> Self:
        """Start it and wait until it is ready.  Raises BenchError with the end of its log."""
        self.spawn()
        self.await_ready()
        return self

    def await_ready(self) -> None:
        """Until ``/readyz`` says yes.  Raises BenchError when it ends or takes too long."""
        if not wait_until(lambda: self.ended or self.ready(), START_LIMIT, 0.02) or self.ended:
            raise BenchError(f"the gateway did not start: {self.tail()}")

    @property
    def pid(self) -> int:
        """Process id of the present life."""
        if self.child is None:
            raise BenchError("the gateway was not started")
        return self.child.pid

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self.child is None or self.child.ended

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self.child is not None:
            self.child.kill()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self.child is not None:
            self.child.signal(number)

    def wait(self, timeout: float) -> int:
        """Exit status; killed, and so negative, when it takes longer."""
        return self.child.wait(timeout) if self.child is not None else 0

    def stop(self) -> bool:
        """SIGTERM; False when it had to be killed."""
        clean = self.child.stop() if self.child is not None else True
        self.child = None
        return clean

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- what it says --------------------------------------------------------------------------

    def get(self, path: str, timeout: float = 10.0) -> tuple[int, bytes]:
        """Status and body from the TCP port.  Raises OSError when there is no answer."""
        url = f"http://127.0.0.1:{self.http_port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=timeout) as answer:
                return int(answer.status), bytes(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def ready(self) -> bool:
        """Whether ``/readyz`` says yes."""
        try:
            return self.get("/readyz", 5.0)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def metrics(self) -> dict[str, dict[str, float]]:
        """Samples by metric name and by the text of their labels."""
        found: dict[str, dict[str, float]] = {}
        for line in self.get("/metrics")[1].decode().splitlines():
            if match := _SAMPLE.match(line):
                name, labels, value = match.groups()
                found.setdefault(name, {})[labels or ""] = float(value)
        return found

    def control(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, timeout: float = 60.0
    ) -> tuple[int, bytes]:
        """Status and body from the control socket.  Raises OSError when there is no answer."""
        connection = ControlSocket(self.data_dir / "control.sock", timeout)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def ask(self, path: str) -> dict[str, Any]:
        """A 200 answer of the control socket.  Raises BenchError for any other."""
        status, body = self.control("GET", path)
        if status != 200:
            raise BenchError(f"{path}: {status} {body[:500]!r}")
        values: dict[str, Any] = json.loads(body)
        return values

    def account(self) -> dict[str, Any]:
        """Received against delivered, waiting, dead, held and discarded."""
        return self.ask("/api/v1/account")

    def instances(self) -> Iterator[dict[str, Any]]:
        """Every instance in the spool."""
        yield from self._pages("/api/v1/instances")

    def queue(self, state: str = "", destination: str = "") -> Iterator[dict[str, Any]]:
        """Every delivery that is in a state; without one, those that are ready, held or dead."""
        wanted = {"state": state, "destination": destination}
        which = "".join(f"&{name}={value}" for name, value in wanted.items() if value)
        yield from self._pages("/api/v1/queue/list", which)

    def _pages(self, path: str, which: str = "") -> Iterator[dict[str, Any]]:
        after = ""
        while True:
            page = self.ask(f"{path}?limit={_PAGE}{which}" + (f"&after={after}" if after else ""))
            yield from page["entries"]
            after = page["next"]
            if not after:
                return

    def file(self, number: int) -> bytes:
        """An instance as a Part 10 file."""
        status, body = self.control("GET", f"/api/v1/instances/{number}/file")
        if status != 200:
            raise BenchError(f"instance {number}: {status} {body[:500]!r}")
        return body

    def waiting(self) -> int:
        """Deliveries that are still to be made."""
        lines = self.ask("/api/v1/queue")["queues"]
        return sum(q["instances"] for q in lines if q["state"] == "ready")

    def log_lines(self) -> list[dict[str, Any]]:
        """The log of all lives, line by line; what is no JSON is given as ``text``."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            entry: dict[str, Any] = {"text": line}
            with contextlib.suppress(ValueError):
                value = json.loads(line)
                entry = value if isinstance(value, dict) else entry
            found.append(entry)
        return found

    def tail(self) -> str:
        """The end of its log, for an error text."""
        return self.child.tail() if self.child is not None else ""
