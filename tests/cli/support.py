"""A configuration to run on, a peer to speak to, and the command to speak with."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pydicom
from click.testing import CliRunner, Result
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, evt
from pynetdicom.transport import ThreadedAssociationServer

from perf.processes import free_port
from router.cli.root import root

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
VERIFICATION = "1.2.840.10008.1.1"

Event = Any  # pynetdicom has no types


def run(*args: object, env: dict[str, str] | None = None, **more: Any) -> Result:
    """A command in this process, with nothing from this process's environment."""
    runner = CliRunner(env={"DCMROUTER_CONFIG": None, **(env or {})})
    return runner.invoke(root, [str(arg) for arg in args], **more)


def ok(*args: object, **more: Any) -> str:
    """Standard output of a command that succeeds."""
    result = run(*args, **more)
    assert result.exit_code == 0, result.output
    return result.stdout


def ok_json(*args: object) -> Any:
    """What a command that succeeds says with --json."""
    return json.loads(ok(*args, "--json"))


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on."""
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return list(ports)


class Peer:
    """A pynetdicom SCP: what it got, and the statuses it answers with."""

    def __init__(
        self,
        contexts: Sequence[tuple[str, Sequence[str]]] = (
            (CT_IMAGE, ALL_TRANSFER_SYNTAXES),
            (MR_IMAGE, ALL_TRANSFER_SYNTAXES),
        ),
        *,
        on_store: Callable[[Event], Any] = lambda _: 0x0000,
        echo_status: int = 0x0000,
    ) -> None:
        self.stored: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.associations = 0
        self._on_store = on_store
        self._echo_status = echo_status
        self._lock = threading.Lock()
        self._ae = AE("PEER")
        self._ae.add_supported_context(VERIFICATION)
        for abstract_syntax, transfer_syntaxes in contexts:
            self._ae.add_supported_context(abstract_syntax, list(transfer_syntaxes))
        self.port = 0

    def __enter__(self) -> "Peer":
        handlers = [
            (evt.EVT_C_ECHO, lambda _: self._echo_status),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_ACCEPTED, self._accepted),
        ]
        self._server = self._ae.make_server(
            ("127.0.0.1", 0), evt_handlers=handlers, server_class=ThreadedAssociationServer
        )
        self.port = self._server.socket.getsockname()[1]
        self._ae._servers.append(self._server)  # where its shutdown looks for it
        # Looks often whether it is to end: a test waits for that.
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()

    @property
    def address(self) -> str:
        """As the commands take it."""
        return f"PEER@127.0.0.1:{self.port}"

    def _accepted(self, _: Event) -> None:
        with self._lock:
            self.associations += 1

    def _store(self, event: Event) -> Any:
        status = self._on_store(event)
        if status == 0x0000:
            data = event.request.DataSet.getvalue()
            self.stored.put((event.request.AffectedSOPInstanceUID, data))
        return status


def write_dicom(path: Path, number: int = 1, *, sop_class: str = CT_IMAGE, **elements: Any) -> Path:
    """A small DICOM file of our own."""
    data_set = Dataset()
    data_set.SOPClassUID = sop_class
    data_set.SOPInstanceUID = f"1.2.3.4.{number}"
    data_set.StudyInstanceUID = "1.2.3"
    data_set.PatientID = "PATIENT"
    data_set.Modality = "CT"
    for name, value in elements.items():
        setattr(data_set, name, value)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
    data_set.file_meta = meta
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, data_set, enforce_file_format=True)
    return path


class Site:
    """A directory with a configuration, and the gateway on it when it is started."""

    def __init__(self, directory: Path, archive: int = 9) -> None:
        self.archive = archive
        self.http, self.listen, broken = free_ports(3)
        self.data_dir = directory / "data"
        self.config = directory / "config.yaml"
        self.text = f"""
data_dir: {self.data_dir}
http: {{listen: 127.0.0.1:{self.http}}}
local:
  - {{ae_title: ROUTER, listen: 127.0.0.1:{self.listen}, accept: ["TEST*"]}}
remotes:
  archive: {{ae_title: PEER, host: 127.0.0.1, port: {archive}}}
  broken: {{ae_title: NOBODY, host: 127.0.0.1, port: {broken}, retry: {{first: 1h, cap: 1h}}}}
  scanner: {{ae_title: CT1}}
rules:
  - {{name: all, when: {{PatientID: "PAT*"}}, to: [archive, broken]}}
spool: {{segment_size: 1MiB, large_instance: 256KiB, low_disk: 1MiB, spare_segments: 1}}
"""
        self.config.write_text(self.text)

    @property
    def gateway(self) -> str:
        """As the commands take it."""
        return f"ROUTER@127.0.0.1:{self.listen}"

    @contextlib.contextmanager
    def running(self) -> Iterator["Served"]:
        """The gateway, until its own end or ours."""
        served = Served(self.config)
        try:
            served.wait_for("gateway started")
            yield served
        finally:
            served.end()

    def send(self, *paths: Path) -> None:
        """Files to the gateway, all of which it takes."""
        ok("send", "--calling", "TEST", self.gateway, *paths)


class Served:
    """`dcmrouter serve` as a process."""

    def __init__(self, config: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "router.cli", "serve", "--config", str(config)],
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            text=True,
        )
        assert self._process.stderr is not None
        self._log: IO[str] = self._process.stderr
        self.lines: list[dict[str, Any]] = []

    def wait_for(self, event: str) -> dict[str, Any]:
        """The line of the log that says so; fails when the process ends before."""
        for line in self._log:
            self.lines.append(json.loads(line))
            if self.lines[-1]["event"] == event:
                return self.lines[-1]
        raise AssertionError(f"no {event!r}, but {self.lines}")

    def kill(self, number: signal.Signals) -> None:
        """Send it."""
        self._process.send_signal(number)

    def end(self, number: signal.Signals | None = signal.SIGTERM) -> int:
        """Exit code, after a signal if one is given and it is still running; may be repeated."""
        if not self._log.closed:
            if number is not None and self._process.poll() is None:
                self._process.send_signal(number)
            self.lines += [json.loads(line) for line in self._log]
            self._log.close()
        return self._process.wait(30)
