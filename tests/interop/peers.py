"""DCMTK, Orthanc and pynetdicom as senders and as receivers.

Owns their processes, their configuration and what each of them says that it received.  Every one
gets a free port and a directory of its own, and is gone when its context ends.
"""

import contextlib
import hashlib
import json
import os
import subprocess
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification

from perf.processes import Child, accepts, free_port, wait_until
from tests.interop.corpus import Sample, read_sample, rounds
from tests.interop.tools import ENVIRONMENT, require

LIMIT = 60.0
_CONTEXTS = 128


@dataclass(frozen=True, slots=True, order=True)
class Arrival:
    """A data set that a peer has, by the SHA-256 of its bytes."""

    sop_instance_uid: str
    transfer_syntax_uid: str
    digest: str

    @classmethod
    def of(cls, uid: str, syntax: str, data: bytes) -> "Arrival":
        """With the digest of `data`."""
        return cls(uid, syntax, hashlib.sha256(data).hexdigest())

    @classmethod
    def of_sample(cls, sample: Sample) -> "Arrival":
        """What a file holds."""
        return cls.of(sample.sop_instance_uid, sample.transfer_syntax_uid, sample.data_set())


class Receiver(Protocol):
    """Something that can be sent to."""

    name: str
    port: int

    def arrivals(self) -> Counter[Arrival]:
        """What it has received so far, with how often."""
        ...


# -- receivers ---------------------------------------------------------------------------------


class PynetdicomReceiver:
    """pynetdicom's SCP; also the reference, since it gives the bytes of the data set as sent.

    What it accepts is set for all tests here by a fixture, since pynetdicom knows no other way.
    """

    name = "pynetdicom"

    def __init__(self, port: int = 0) -> None:
        self._wanted_port = port
        self._changed = threading.Condition()
        self._arrivals: Counter[Arrival] = Counter()

    def __enter__(self) -> Self:
        ae = AE("SINK")
        ae.maximum_associations = 50
        ae.add_supported_context(Verification)
        self._server = ae.start_server(
            ("127.0.0.1", self._wanted_port),
            block=False,
            evt_handlers=[(evt.EVT_C_STORE, self._store)],
        )
        self.port = int(self._server.socket.getsockname()[1])
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()

    def arrivals(self) -> Counter[Arrival]:
        """See `Receiver`."""
        with self._changed:
            return Counter(self._arrivals)

    def wait(self, count: int, timeout: float) -> bool:
        """Until that many data sets arrived; False when they did not in `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._arrivals.total() >= count, timeout)

    def _store(self, event: Event) -> int:
        request: Any = event.request  # a C_STORE, which the type of an event does not say
        data = request.DataSet.getvalue()
        uid = str(request.AffectedSOPInstanceUID)
        arrival = Arrival.of(uid, str(event.context.transfer_syntax), data)
        with self._changed:
            self._arrivals[arrival] += 1
            self._changed.notify_all()
        return 0x0000


class StorescpReceiver:
    """DCMTK's storescp, which writes the bytes as they came."""

    name = "storescp"

    def __init__(self, home: Path) -> None:
        self._program = require("storescp")
        self._home = home
        self._output = home / "received"

    def __enter__(self) -> Self:
        self._output.mkdir(parents=True)
        self.port = free_port()
        options = ["-q", "+xa", "-pm", "+B", "+uf", "-dhl", "-aet", "SINK", "-pdu", "131072"]
        command = [self._program, *options, "-od", str(self._output), str(self.port)]
        self._child = Child(command, self._home / "storescp.log", env=ENVIRONMENT)
        assert wait_until(lambda: accepts(self.port), LIMIT), self._child.tail()
        return self

    def __exit__(self, *_: object) -> None:
        self._child.stop()

    def arrivals(self) -> Counter[Arrival]:
        """See `Receiver`."""
        read = (read_sample(path) for path in self._output.iterdir())
        return Counter(Arrival.of_sample(sample) for sample in read if sample is not None)


class Orthanc:
    """Orthanc, as a receiver and, through its REST interface, as a sender."""

    name = "orthanc"

    def __init__(self, home: Path, *, overwrite: bool = True) -> None:
        self._program = require("Orthanc")
        self._home = home
        self._overwrite = overwrite

    def __enter__(self) -> Self:
        self._home.mkdir(parents=True)
        self.port = free_port()
        self._http = free_port()
        values = {
            "Name": "test",
            "StorageDirectory": str(self._home / "storage"),
            "IndexDirectory": str(self._home / "storage"),
            "DicomAet": "SINK",
            "DicomPort": self.port,
            "HttpPort": self._http,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomCheckCalledAet": False,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "UnknownSopClassAccepted": True,
            "AcceptedTransferSyntaxes": ["1.2.840.10008.1.*"],
            "OverwriteInstances": self._overwrite,
            "StorageCompression": False,
        }
        file = self._home / "orthanc.json"
        file.write_text(json.dumps(values))
        command = [self._program, str(file)]
        self._child = Child(command, self._home / "orthanc.log", env=ENVIRONMENT)
        assert wait_until(self._answers, LIMIT), self._child.tail()
        return self

    def __exit__(self, *_: object) -> None:
        self._child.stop()

    def arrivals(self) -> Counter[Arrival]:
        """See `Receiver`: the file that it would give out for each instance."""
        found: Counter[Arrival] = Counter()
        path = self._home / "instance.dcm"
        for identity in json.loads(self._rest("GET", "/instances")):
            path.write_bytes(self._rest("GET", f"/instances/{identity}/file"))
            sample = read_sample(path)
            if sample is not None:
                found[Arrival.of_sample(sample)] += 1
        return found

    def send(self, files: Iterable[Sample], ports: Sequence[int]) -> int:
        """Put the files into it, and have it send them to each of the ports; how many it took."""
        for number, port in enumerate(ports):
            modality = {"AET": "ROUTER", "Host": "127.0.0.1", "Port": port}
            self._rest("PUT", f"/modalities/peer-{number}", json.dumps(modality).encode())
        taken = 0
        for group in rounds(tuple(files)):
            ids = [i for i in map(self._upload, group) if i]
            taken += len(ids)
            for number in range(len(ports)):
                job = {"Resources": ids, "Permissive": True, "Synchronous": True, "Timeout": 30}
                self._rest("POST", f"/modalities/peer-{number}/store", json.dumps(job).encode())
            for identity in ids:
                self._rest("DELETE", f"/instances/{identity}")
        return taken

    def _upload(self, sample: Sample) -> str:
        try:
            answer = self._rest("POST", "/instances", sample.path.read_bytes())
        except urllib.error.HTTPError as error:
            error.close()  # it is none that Orthanc can read
            return ""
        return str(json.loads(answer)["ID"])

    def _rest(self, method: str, path: str, body: bytes | None = None) -> bytes:
        url = f"http://127.0.0.1:{self._http}{path}"
        request = urllib.request.Request(url, body, method=method)
        with urllib.request.urlopen(request, timeout=LIMIT) as answer:
            return bytes(answer.read())

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            self._rest("GET", "/system")
            return accepts(self.port)
        return False


# -- senders -----------------------------------------------------------------------------------

# The option of storescu that proposes a transfer syntax.
STORESCU_OPTIONS = {
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.1": "-xe",
    "1.2.840.10008.1.2.1.99": "-xd",
    "1.2.840.10008.1.2.2": "-xb",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
    "1.2.840.10008.1.2.5": "-xr",
}


def storescu(port: int, files: Iterable[Sample]) -> None:
    """One call for each transfer syntax; files that it will not send are passed over."""
    program = require("storescu")
    groups: dict[str, list[str]] = {}
    for sample in files:
        groups.setdefault(sample.transfer_syntax_uid, []).append(str(sample.path))
    for syntax, paths in groups.items():
        options = ["-q", "-R", "-nh", STORESCU_OPTIONS[syntax], "-aec", "ROUTER"]
        _run([program, *options, "127.0.0.1", str(port), *paths])


def dcmsend(port: int, paths: Iterable[Path]) -> None:
    """All in one call; files that it will not send are passed over."""
    _run(dcmsend_command(port, paths))


def dcmsend_command(port: int, paths: Iterable[Path]) -> list[str]:
    """The command line of `dcmsend`."""
    options = ["-q", "+f", "-dn", "-nh", "-nuc", "-aec", "ROUTER"]
    return [require("dcmsend"), *options, "127.0.0.1", str(port), *map(str, paths)]


def _run(command: list[str]) -> None:
    with Program(command) as program:
        program.wait(120)


class Program:
    """A sender that runs beside the test; killed if it is still there when the context ends."""

    def __init__(self, command: list[str]) -> None:
        self._popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **ENVIRONMENT},
        )

    def wait(self, timeout: float) -> int:
        """Its exit status.  Raises subprocess.TimeoutExpired."""
        return self._popen.wait(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._popen.poll() is None:
            self._popen.kill()
        self._popen.wait()


def pynetdicom_send(port: int, files: Sequence[Sample]) -> None:
    """With an association for the contexts of all; files that are refused are passed over."""
    pairs = sorted({(s.sop_class_uid, s.transfer_syntax_uid) for s in files})
    assert len(pairs) <= _CONTEXTS
    ae = AE("PYNETDICOM")
    ae.requested_contexts = [build_context(UID(c), UID(t)) for c, t in pairs]
    association = ae.associate("127.0.0.1", port, ae_title="ROUTER")
    for sample in files:
        if not association.is_established:
            # A peer may end the association over what it does not like.
            association = ae.associate("127.0.0.1", port, ae_title="ROUTER")
            assert association.is_established
        with contextlib.suppress(ValueError, AttributeError):
            association.send_c_store(sample.path)
    association.release()
