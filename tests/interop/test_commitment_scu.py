"""Commitment of an archive of others, Orthanc, that reports on an association of its own."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perf.gateway import GatewayProcess
from perf.processes import wait_until
from tests.e2e.running import SMALL, destination, route_to, send
from tests.interop.peers import LIMIT, Orthanc

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]


class Archive(Orthanc):
    """Orthanc that knows the gateway."""

    def knows(self, gateway: GatewayProcess) -> None:
        modality = {"AET": "ROUTER", "Host": "127.0.0.1", "Port": gateway.port}
        self._rest("PUT", "/modalities/router", json.dumps(modality).encode())

    def stored(self) -> list[str]:
        return list(json.loads(self._rest("GET", "/instances")))

    def forget(self, identity: str) -> None:
        self._rest("DELETE", f"/instances/{identity}")


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive(tmp_path / "archive") as running:
        yield running


def settings(port: int, **commitment: Any) -> dict[str, Any]:
    return route_to(port) | {"remotes": {"sink": destination(port, commitment=commitment)}}


def line(gateway: GatewayProcess) -> dict[str, Any]:
    (found,) = gateway.account()["destinations"]
    return dict(found)


def delivered(gateway: GatewayProcess, count: int) -> bool:
    return wait_until(lambda: line(gateway)["delivered"] == count, LIMIT)


def test_orthanc_commits_what_it_has_and_gets_again_what_it_lost(
    archive: Archive, tmp_path: Path
) -> None:
    asked = settings(archive.port, after="3s", linger="0s")
    with GatewayProcess(tmp_path / "gw", asked) as gateway:
        archive.knows(gateway)
        send(gateway, SMALL, range(6))
        assert wait_until(lambda: len(archive.stored()) == 6, LIMIT)
        archive.forget(archive.stored()[0])
        assert line(gateway)["delivered"] == 0
        assert line(gateway)["uncommitted"] == 6
        assert delivered(gateway, 6), (line(gateway), gateway.tail())
        assert len(archive.stored()) == 6
        outcomes = gateway.metrics()["dcmrouter_proofs_total"]
        assert sorted(outcomes.values()) == [1.0, 6.0]
        found = gateway.ask("/api/v1/queue/list?state=delivered")["entries"]
        reasons = [item["reason"] for item in found]
        assert len(reasons) == 6
        assert all("committed, transaction 2.25." in reason for reason in reasons)


def test_orthanc_lists_what_it_has(archive: Archive, tmp_path: Path) -> None:
    asked = settings(archive.port, confirm="find", after="200ms")
    with GatewayProcess(tmp_path / "gw", asked) as gateway:
        send(gateway, SMALL, range(4))
        assert delivered(gateway, 4), (line(gateway), gateway.tail())
