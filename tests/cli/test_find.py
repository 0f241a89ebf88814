"""``find``, against an archive of pynetdicom's."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.events import Event

from tests.cli.support import Site, free_ports, ok, ok_json, run

STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.2.1"


class Archive:
    """Answers `count` studies to every query; keeps the identifiers."""

    def __init__(self, count: int = 2, status: int = 0x0000) -> None:
        self.count = count
        self.status = status
        self.asked: list[Dataset] = []
        self.cancelled = False
        self._pace = threading.Event()

    def __enter__(self) -> "Archive":
        ae = AE("PEER")
        ae.add_supported_context(STUDY_ROOT)
        handlers: list[Any] = [(evt.EVT_C_FIND, self._find)]
        self._server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port = int(self._server.socket.getsockname()[1])
        self.address = f"PEER@127.0.0.1:{self.port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()

    def _find(self, event: Event) -> Iterator[tuple[int, Dataset | None]]:
        self.asked.append(event.identifier)
        for number in range(self.count):
            if event.is_cancelled:
                self.cancelled = True
                yield 0xFE00, None
                return
            match = Dataset()
            match.SpecificCharacterSet = "ISO_IR 100"
            match.QueryRetrieveLevel = "STUDY"
            match.PatientID = f"P{number}"
            match.PatientName = "MÜLLER^\x1b[31mX" if number else "DOE^JOHN"
            match.StudyInstanceUID = f"1.2.{number}"
            yield 0xFF00, match
            if number > 5:
                self._pace.wait(0.005)  # pynetdicom reads nothing while it has something to send
        if self.status:
            yield self.status, None


def test_a_table_of_what_there_is(tmp_path: Path) -> None:
    with Archive() as archive:
        site = Site(tmp_path, archive.port)
        text = ok("find", "archive", "PatientID=P*", "PatientName", "--config", site.config)
        (asked,) = archive.asked
    head, *rows = [line.split() for line in text.splitlines() if line.strip(" ─")]
    assert head == ["PatientID", "PatientName", "StudyInstanceUID"]
    assert rows[0] == ["P0", "DOE^JOHN", "1.2.0"]
    assert "MÜLLER" in rows[1][1]
    assert "\x1b" not in text, "a name does not colour the terminal"
    assert (asked.QueryRetrieveLevel, asked.PatientID, asked.PatientName) == ("STUDY", "P*", "")


def test_the_same_as_json() -> None:
    with Archive() as archive:
        answer = ok_json("find", archive.address, "PatientID", "StudyDate")
    assert answer["complete"] is True
    assert answer["matches"][1] == {
        "PatientID": ["P1"],
        "StudyDate": [],
        "StudyInstanceUID": ["1.2.1"],
    }


def test_nothing_that_matches_is_an_answer() -> None:
    with Archive(0) as archive:
        assert "has nothing that matches" in ok("find", archive.address, "PatientID=1")


def test_too_many_are_cut_and_that_is_said() -> None:
    with Archive(1_000_000) as archive:
        result = run("find", archive.address, "PatientID", "--limit", "3")
        assert result.exit_code == 0
        assert "P2" in result.stdout
        assert "P3" not in result.stdout
        assert "there are more than these 3; see --limit" in result.stderr
    assert archive.cancelled


def test_a_refusal_is_a_failure_that_names_the_status() -> None:
    with Archive(0, status=0xA900) as archive:
        result = run("find", archive.address)
        assert result.exit_code == 1
        assert "A900" in result.stderr
        answer = run("find", archive.address, "--json")
        assert answer.exit_code == 1
        assert json.loads(answer.stdout)["answered"] is False


def test_nobody_there() -> None:
    (port,) = free_ports(1)
    result = run("find", f"PEER@127.0.0.1:{port}")
    assert result.exit_code == 1
    assert "Connection refused" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["PatientIdd=1"], "did you mean 'PatientID'?"),
        (["--level", "series"], "a query at series level needs one StudyInstanceUID"),
        (["--level", "patient"], "'patient' is not one of 'study', 'series', 'image'"),
        (["StudyInstanceUID=abc"], "'abc' is no UID"),
        (["--timeout", "soon"], "--timeout:"),
        (["--timeout", "0s"], "--timeout must be more than 0"),
        (["--limit", "0"], "--limit"),
    ],
)
def test_bad_usage_is_told_before_anybody_is_called(arguments: list[str], text: str) -> None:
    result = run("find", "PEER@127.0.0.1:9", *arguments)
    assert result.exit_code == 2
    assert text in result.stderr
