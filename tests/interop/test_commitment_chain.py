"""A modality, the gateway and two archives, one of them Orthanc: committed by all, or not."""

import threading
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pynetdicom.events import Event

from perf.processes import free_port, wait_until
from tests.e2e.running import SMALL, Start, send
from tests.e2e.test_commitment import Archive, answer, archive
from tests.e2e.test_committed import settings
from tests.e2e.test_promises import Modality, listed, outcome, uids
from tests.interop.peers import LIMIT
from tests.interop.test_commitment_scu import Archive as KnowingOrthanc

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]


def test_the_modality_is_told_once_orthanc_and_a_late_archive_have_committed(
    tmp_path: Path, start_gateway: Start
) -> None:
    modality, late = Modality(free_port()), threading.Event()
    refused = uids(2)[0][1]

    def report(sink: Archive, _: Event, info: Dataset) -> None:
        late.wait(LIMIT)
        sink.elsewhere(answer(info, {refused: 0x0213}), 2)

    with (
        KnowingOrthanc(tmp_path / "orthanc") as orthanc,
        archive(report) as other,
        modality.listening(),
    ):
        gateway = start_gateway(settings(modality, {"orthanc": orthanc.port, "other": other.port}))
        orthanc.knows(gateway)
        other.router = gateway.port
        send(gateway, SMALL, range(3))
        assert modality.ask(gateway, [*uids(*range(3)), (uids(0)[0][0], "1.2.3.4")]) == 0

        def states() -> dict[str, int]:
            lines = gateway.account()["destinations"]
            return {line["destination"]: line["delivered"] for line in lines}

        assert wait_until(lambda: states() == {"orthanc": 3, "other": 0}, LIMIT), states()
        assert wait_until(lambda: bool(other.requests), LIMIT)
        gateway.kill()
        gateway.start()
        (entry,) = listed(gateway)
        assert entry["state"] == "weighing"
        assert not modality.reports
        late.set()
        assert modality.reported()
    committed, failed = outcome(modality.reports[0][1])
    assert committed == [uid for _, uid in uids(0, 1)]
    assert failed == {refused: 0x0110, "1.2.3.4": 0x0112}
