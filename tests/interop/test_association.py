"""Associations with DCMTK and Orthanc beyond the sending of files."""

import subprocess
import sys
from pathlib import Path

import pytest

from perf.gateway import GatewayProcess
from perf.witness import WitnessThread
from tests.e2e.running import Start
from tests.interop.corpus import samples
from tests.interop.peers import Orthanc, StorescpReceiver
from tests.interop.settings import destination, route_to_all, settled
from tests.interop.tools import ENVIRONMENT, require

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        env=ENVIRONMENT,
    )


def _at(gateway: GatewayProcess) -> tuple[str, str]:
    return "127.0.0.1", str(gateway.port)


def test_echoscu_is_answered(start_gateway: Start) -> None:
    gateway = start_gateway(route_to_all({"sink": destination(9)}))
    done = _run(require("echoscu"), "-aec", "ROUTER", "--repeat", "3", *_at(gateway))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_wrong_called_ae_is_told_so(start_gateway: Start) -> None:
    gateway = start_gateway(route_to_all({"sink": destination(9)}))
    done = _run(require("echoscu"), "-aec", "NOBODY", *_at(gateway))
    assert done.returncode != 0
    assert "Called AE Title Not Recognized" in done.stderr


def test_dcmrouter_echo_is_answered_by_dcmtk_and_orthanc(tmp_path: Path) -> None:
    with StorescpReceiver(tmp_path / "scp") as storescp, Orthanc(tmp_path / "orthanc") as orthanc:
        for peer in (storescp, orthanc):
            address = f"SINK@127.0.0.1:{peer.port}"
            done = _run(sys.executable, "-m", "router.cli", "echo", address)
            assert done.returncode == 0, done.stderr


def test_a_proposal_of_128_contexts_is_answered(start_gateway: Start) -> None:
    """storescu proposes every class that it knows, unless told to propose what it needs."""
    sample = next(s for s in samples() if s.path.stem == "CT_small")
    with WitnessThread() as sink:
        gateway = start_gateway(route_to_all({"sink": destination(sink.port)}))
        done = _run(require("storescu"), "-aec", "ROUTER", *_at(gateway), str(sample.path))
        assert (done.returncode, done.stderr) == (0, "")
        assert settled(gateway, 1)
        accepted = [
            line["contexts"]
            for line in gateway.log_lines()
            if line.get("event") == "association accepted"
        ]
        assert accepted == ["128 of 128"]
        assert [seen.sop_instance_uid for seen in sink.seen()] == [sample.sop_instance_uid]
