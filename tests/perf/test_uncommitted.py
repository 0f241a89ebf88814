"""What is made up as uncommitted is committed in the end, in the batches that are asked for."""

import json
from pathlib import Path

import pytest

from perf import uncommitted

pytestmark = pytest.mark.timeout(120)


def test_all_is_committed(tmp_path: Path) -> None:
    output = tmp_path / "found.json"
    work = tmp_path / "w"  # short, as the path of a socket has to be
    words = ["--quick", "--work", str(work), "--output", str(output)]
    assert uncommitted.main(words) == 0
    found = json.loads(output.read_text())
    assert (found["instances"], found["requests"]) == (400, 4)
    assert found["report_ms"] > 0
    assert found["peak_mb"] > 10
    assert not (work / "run" / "uncommitted").exists()


def test_what_is_not_committed_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(uncommitted, "_PATIENCE", 0.5)
    monkeypatch.setattr(uncommitted.Archive, "asked", lambda *_: None)
    assert uncommitted.main(["--quick", "--work", str(tmp_path)]) == 1
    assert "400 were to be delivered" in capsys.readouterr().out
