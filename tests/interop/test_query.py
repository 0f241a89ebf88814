"""Queries to archives of others: Orthanc and DCMTK's dcmqrscp."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from pydicom import dcmread
from pydicom.data import get_testdata_file

from perf.processes import Child, accepts, free_port, wait_until
from router.net.connector import connect
from router.net.target import Target
from router.query.find import PROPOSALS, count_instances
from tests.interop.corpus import Sample, read_sample
from tests.interop.peers import LIMIT, Orthanc, storescu
from tests.interop.tools import ENVIRONMENT, require

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]


@contextmanager
def dcmqrscp(home: Path) -> Iterator[int]:
    """DCMTK's archive; its port."""
    program = require("dcmqrscp")
    (home / "db").mkdir(parents=True)
    port = free_port()
    config = home / "dcmqrscp.cfg"
    config.write_text(
        'NetworkType = "tcp"\n'
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        "HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nROUTER {home / 'db'} RW (200, 1024mb) ANY\nAETable END\n"
    )
    child = Child([program, "-c", str(config)], home / "log", env=ENVIRONMENT)
    try:
        assert wait_until(lambda: accepts(port), LIMIT), child.tail()
        yield port
    finally:
        child.stop()


@contextmanager
def orthanc(home: Path) -> Iterator[int]:
    with Orthanc(home) as running:
        yield running.port


@pytest.fixture(params=[dcmqrscp, orthanc], ids=["dcmqrscp", "orthanc"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    """The port of an archive."""
    with request.param(tmp_path / "archive") as port:
        yield port


STUDY, SERIES = "1.2.3.4.5", ("1.2.3.4.5.1", "1.2.3.4.5.2")


def a_study(home: Path) -> list[Sample]:
    """Three instances of one series and two of another."""
    chosen = []
    for number in range(5):
        dataset = dcmread(get_testdata_file("CT_small.dcm"))
        dataset.StudyInstanceUID = STUDY
        dataset.SeriesInstanceUID = SERIES[number > 2]
        dataset.SOPInstanceUID = f"{STUDY}.9.{number}"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.SpecificCharacterSet = "ISO_IR 100"
        dataset.PatientName = "MÜLLER^JÖRG"
        dataset.save_as(home / f"{number}.dcm")
        sample = read_sample(home / f"{number}.dcm")
        assert sample is not None
        chosen.append(sample)
    return chosen


def find(port: int, *arguments: str) -> Any:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "router.cli",
            "find",
            f"ROUTER@127.0.0.1:{port}",
            "--json",
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_what_was_stored_is_found_at_every_level_and_counted(archive: int, tmp_path: Path) -> None:
    storescu(archive, a_study(tmp_path))
    studies = find(archive, f"StudyInstanceUID={STUDY}", "PatientName", "PatientID")
    assert [match["PatientName"] for match in studies["matches"]] == [["MÜLLER^JÖRG"]]
    both = (f"StudyInstanceUID={STUDY}", "--level")
    found = find(archive, *both, "series", "Modality")
    assert {m["SeriesInstanceUID"][0] for m in found["matches"]} == set(SERIES)
    images = find(archive, *both, "image", f"SeriesInstanceUID={SERIES[0]}", "InstanceNumber")
    uids = {m["SOPInstanceUID"][0] for m in images["matches"]}
    assert uids == {f"{STUDY}.9.{number}" for number in range(3)}
    assert find(archive, "PatientID=nobody has it")["matches"] == []

    assert counted(archive, STUDY) == 5
    assert counted(archive, STUDY, SERIES[1]) == 2
    assert counted(archive, "1.2.3.4.5.6.7.8.9") is None


def counted(port: int, study: str, series: str = "") -> int | None:
    async def main() -> int | None:
        target = Target("archive", "ROUTER", "127.0.0.1", port, "ROUTER")
        association = await connect(target, PROPOSALS)
        number = await count_instances(association, study, series)
        await association.release()
        return number

    return uvloop.run(main())
