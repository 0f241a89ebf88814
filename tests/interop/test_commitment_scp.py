"""Storage commitment that Orthanc asks of the gateway."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import MRImageStorage

from perf.processes import free_port, wait_until
from tests.e2e.running import SMALL, Start, instance, route_to, send
from tests.interop.peers import LIMIT, Orthanc

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]


def test_orthanc_asks_and_is_told(tmp_path: Path, start_gateway: Start) -> None:
    with Orthanc(tmp_path / "orthanc") as orthanc:
        values = route_to(free_port())
        values["remotes"]["sink"]["ae_title"] = "NOBODY"
        values["remotes"]["orthanc"] = {
            "ae_title": "SINK",
            "host": "127.0.0.1",
            "port": orthanc.port,
        }
        gateway = start_gateway(values | {"commitment": {"delay": "0s", "grace": "1s"}})
        send(gateway, SMALL, range(3))
        modality = {
            "AET": "ROUTER",
            "Host": "127.0.0.1",
            "Port": gateway.port,
            "AllowStorageCommitment": True,
        }
        orthanc._rest("PUT", "/modalities/router", json.dumps(modality).encode())
        wanted = [instance(SMALL, number)[0] for number in range(3)]
        unknown = "1.2.3.4.5"
        asked = {
            "DicomInstances": [
                {"SOPClassUID": str(MRImageStorage), "SOPInstanceUID": uid}
                for uid in [*wanted, unknown]
            ]
        }
        path = "/modalities/router/storage-commitment"
        transaction = json.loads(orthanc._rest("POST", path, json.dumps(asked).encode()))["ID"]

        def report() -> dict[str, Any]:
            found: dict[str, Any] = json.loads(
                orthanc._rest("GET", f"/storage-commitment/{transaction}")
            )
            return found

        assert wait_until(lambda: report()["Status"] != "Pending", LIMIT)
        told = report()
    assert told["RemoteAET"] == "ROUTER"
    assert [one["SOPInstanceUID"] for one in told["Success"]] == wanted
    (failed,) = told["Failures"]
    assert (failed["SOPInstanceUID"], failed["FailureReason"]) == (unknown, 0x112)
    (entry,) = gateway.ask("/api/v1/commitments?all=true")["commitments"]
    assert (entry["transaction_uid"], entry["remote"]) == (transaction, "orthanc")
    assert (entry["committed"], entry["failed"]) == (3, 1)
    assert entry["state"] == "reported"
