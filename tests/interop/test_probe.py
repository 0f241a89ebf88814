"""What a probe finds out of DCMTK's storescp and of Orthanc, and what the presets say of them."""

import asyncio
from pathlib import Path

import pytest

from router.dicom.uids import TRANSFER_SYNTAXES, storage_sop_classes
from router.net.presets import PRESETS
from router.net.probe import Findings, Probe
from router.net.target import Target
from tests.interop.peers import Orthanc, StorescpReceiver

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]
CT = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"


def probed(ae_title: str, port: int) -> Findings:
    target = Target("peer", ae_title, "127.0.0.1", port, "DCMROUTER")
    subject = Probe(
        target, classes=tuple(storage_sop_classes()), syntaxes=tuple(TRANSFER_SYNTAXES), echoes=2
    )

    async def ask() -> Findings:
        async with asyncio.timeout(100):
            return await subject.run()

    return asyncio.run(ask())


def test_storescp(tmp_path: Path) -> None:
    with StorescpReceiver(tmp_path / "storescp") as receiver:
        found = probed("ANY", receiver.port)
    assert found.trouble == []
    assert found.echo_status == 0
    assert found.implementation_version_name.startswith("OFFIS_DCMTK_")
    assert {IMPLICIT, EXPLICIT} <= set(found.accepted[CT])
    assert len(found.accepted) > 120
    assert found.window == 1 == PRESETS["dcmtk"].values["asynchronous_operations"]


def test_orthanc(tmp_path: Path) -> None:
    with Orthanc(tmp_path / "orthanc") as running:
        found = probed("ORTHANC", running.port)
    assert found.trouble == []
    assert found.echo_status == 0
    assert found.implementation_version_name.startswith("Orthanc") or (
        found.implementation_version_name.startswith("OFFIS_DCMTK_")
    )
    assert {IMPLICIT, EXPLICIT, "1.2.840.10008.1.2.4.80"} <= set(found.accepted[CT])
    assert "1.2.840.10008.5.1.4.1.2.2.1" in found.services
    assert "1.2.840.10008.1.20.1" in found.services
    assert found.maximum_length == 16384
    assert found.window == 1 == PRESETS["orthanc"].values["asynchronous_operations"]
