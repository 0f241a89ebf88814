"""What a remote's settings for its peculiarities change, from receiving to another's SCP."""

from pathlib import Path
from typing import Any

import pytest

from perf.gateway import GatewayProcess
from tests.cli.support import MR_IMAGE, Peer, run, write_dicom
from tests.e2e.running import LIMIT, Start, destination, route_to, settled

pytestmark = pytest.mark.timeout(120)

STUDIES, EACH = 3, 4


def files(folder: Path) -> Path:
    for number in range(STUDIES * EACH):
        study = number // EACH
        write_dicom(folder / f"{number}.dcm", number + 1, StudyInstanceUID=f"1.2.{study + 1}")
    return folder


def sent_to(gateway: GatewayProcess, path: Path, count: int) -> None:
    result = run("send", f"ROUTER@127.0.0.1:{gateway.port}", path)
    assert result.exit_code == 0, result.output
    assert settled(gateway, count)


def settings(port: int, **remote: Any) -> dict[str, Any]:
    return route_to(port) | {"remotes": {"sink": destination(port, **remote)}}


@pytest.mark.parametrize(
    ("remote", "associations"),
    [
        ({"association_per": "study", "associations": 2, "linger": "20s"}, STUDIES),
        ({"association_per": "instance"}, STUDIES * EACH),
        ({"preset": "one-at-a-time", "linger": "20s"}, 1),
    ],
    ids=["study", "instance", "one-at-a-time"],
)
def test_how_many_associations(
    start_gateway: Start, tmp_path: Path, remote: dict[str, Any], associations: int
) -> None:
    with Peer() as peer:
        gateway = start_gateway(settings(peer.port, **remote))
        sent_to(gateway, files(tmp_path / "files"), STUDIES * EACH)
        assert peer.stored.qsize() == STUDIES * EACH
        assert peer.associations == associations


def test_what_is_never_sent_is_a_dead_letter_until_a_reload_says_otherwise(
    start_gateway: Start, tmp_path: Path
) -> None:
    write_dicom(tmp_path / "mr.dcm", 1, sop_class=MR_IMAGE, Modality="MR")
    write_dicom(tmp_path / "ct.dcm", 2)
    with Peer() as peer:
        gateway = start_gateway(settings(peer.port, never_send=["MRImageStorage"]))
        sent_to(gateway, tmp_path, 2)
        (dead,) = [item for item in gateway.queue() if item["state"] == "dead"]
        assert "never_send of the remote has 'MRImageStorage'" in dead["reason"]
        assert peer.stored.get(timeout=LIMIT)[0].endswith(".2")
        gateway.configure(settings(peer.port))
        result = run("reload", "--config", gateway.config)
        assert result.exit_code == 0, result.output
        result = run("queue", "retry", "-d", "sink", "--config", gateway.config)
        assert result.exit_code == 0, result.output
        assert settled(gateway, 2)
        assert peer.stored.get(timeout=LIMIT)[0].endswith(".1")
