"""``demo``: it runs, proves what it says, and leaves nothing behind."""

import fcntl
import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from router.cli.demo import place, run
from router.cli.demo.run import Result, transit_times
from router.cli.demo.sinks import Identity, Received
from router.cli.desk import File
from router.cli.failures import Failure, Misuse
from router.cli.files import DicomFile
from router.cli.sending import Outcome
from router.dicom.part10 import write_file_meta

ROOT = Path(__file__).parents[2]


def test_it_sends_real_files_and_loses_none(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "router.cli", "demo", "--base-port", "0", "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["lost"] == []
    assert report["sent"] >= 100
    assert report["sinks"]["sink-a"]["instances"] > report["sinks"]["sink-b"]["instances"] > 10
    account = report["account"]
    assert account["received"] == report["sent"]
    assert account["discarded"] == 2
    dispositions = [e["disposition"] for e in report["elsewhere"]]
    assert dispositions.count("discarded") == 2
    assert dispositions.count("quarantined") == account["quarantined"]
    assert list(tmp_path.iterdir()) == []


# -- the proof


class Desk:
    """A gateway's instances by SOP Instance UID."""

    def __init__(self, **rows: tuple[str, bytes]) -> None:
        self.rows = list(rows.values())
        self.uids = [uid.replace("_", ".") for uid in rows]

    def instances(self, which: dict[str, str], limit: int, after: str) -> dict[str, Any]:
        return {
            "entries": [
                {"id": n, "disposition": row[0], "reason": "so"}
                for n, (uid, row) in enumerate(zip(self.uids, self.rows, strict=True))
                if uid == which["sop_instance_uid"]
            ]
        }

    @contextmanager
    def file(self, number: int) -> Iterator[File]:
        whole = write_file_meta("1.2.3", "1.2.4", "1.2.840.10008.1.2.1") + self.rows[number][1]
        yield File(len(whole), iter([whole[:7], whole[7:]]))


DATA = b"\x08\x00\x16\x00UI\x06\x001.2.3\x00"
DIGEST = hashlib.sha256(DATA).hexdigest()


def _result(*identities: Identity, sink: dict[Identity, float], **account: Any) -> tuple[Any, ...]:
    wanted = {}
    result = Result(began=0.0, sinks={"a": Received(len(sink), 0, dict(sink))})
    for number, identity in enumerate(identities):
        file = DicomFile(Path(f"{number}.dcm"), "1.2", identity[0], "1.2.840.10008.1.2", 0, 1)
        wanted[file] = identity
        result.sent.append(Outcome(file, "sent", 0, "", float(number), float(number)))
    line = {"destination": "a", "delivered": len(sink), "dead": 0, "waiting": 0}
    result.account = {
        "received": len(identities),
        "differences": {},
        "destinations": [line],
        **account,
    }
    return result, wanted


def _lost(desk: Desk, result: Result, wanted: dict[DicomFile, Identity]) -> list[str]:
    run._prove(desk, wanted, result)  # type: ignore[arg-type]
    return result.lost


def test_what_arrived_with_its_bytes_is_not_lost() -> None:
    assert _lost(Desk(), *_result(("1.1", "x"), sink={("1.1", "x"): 1.0})) == []


def test_other_bytes_are_a_loss() -> None:
    lost = _lost(Desk(), *_result(("1.1", "x"), sink={("1.1", "y"): 1.0}))
    assert lost == ["a got other bytes of 1.1", "1.1 is nowhere"]


def test_what_is_nowhere_is_lost() -> None:
    assert _lost(Desk(), *_result(("1.1", "x"), sink={})) == ["1.1 is nowhere"]


def test_what_is_kept_elsewhere_is_looked_at_too() -> None:
    result, wanted = _result(("1.1", DIGEST), sink={})
    assert _lost(Desk(**{"1_1": ("quarantined", DATA)}), result, wanted) == []
    assert result.elsewhere == {("1.1", DIGEST): ("quarantined", "so")}
    result, wanted = _result(("1.1", DIGEST), sink={})
    assert _lost(Desk(**{"1_1": ("quarantined", DATA + DATA)}), result, wanted)
    result, wanted = _result(("1.1", DIGEST), sink={})
    assert _lost(Desk(**{"1_1": ("routed", DATA)}), result, wanted)


@pytest.mark.parametrize(
    ("account", "why"),
    [
        ({"received": 2}, "1 were acknowledged, the gateway counts 2"),
        ({"differences": {"instances": 1}}, "the account does not balance: instances: 1"),
        (
            {"destinations": [{"destination": "a", "delivered": 2, "dead": 1, "waiting": 0}]},
            "a got 1, the gateway counts 2",
        ),
    ],
)
def test_the_gateways_account_must_agree(account: dict[str, Any], why: str) -> None:
    result, wanted = _result(("1.1", "x"), sink={("1.1", "x"): 1.0}, **account)
    assert why in _lost(Desk(), result, wanted)


def test_transit_is_told_of_what_was_sent_once() -> None:
    result, wanted = _result(
        ("1.1", "x"), ("1.2", "x"), ("1.2", "x"), sink={("1.1", "x"): 0.5, ("1.2", "x"): 9.0}
    )
    assert transit_times(result, wanted) == {"a": [0.5]}


# -- directory and ports


def test_a_directory_of_somebody_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with (
        pytest.raises(Misuse, match="not by an earlier demonstration"),
        place.prepared(tmp_path, 0),
    ):
        raise AssertionError
    assert (tmp_path / "thesis.tex").read_text() == "x"


def test_what_a_killed_demonstration_left_is_replaced(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    directory.mkdir()
    (directory / place._MARK).touch()
    (directory / "old").touch()
    with place.prepared(directory, 0):
        assert not (directory / "old").exists()
    assert not directory.exists()


def test_one_that_still_runs_is_left_alone(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    directory.mkdir()
    with (directory / place._MARK).open("w") as mark:
        fcntl.flock(mark, fcntl.LOCK_EX)
        with (
            pytest.raises(Failure, match="another demonstration runs"),
            place.prepared(directory, 0),
        ):
            raise AssertionError
    assert directory.exists()


def test_a_taken_port_is_told_with_its_owner(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Failure) as failure, place.prepared(tmp_path / "d", port):
            raise AssertionError
    assert f"port {port} is taken by " in failure.value.message
    assert f"(process {os.getpid()})" in failure.value.message
    assert "--base-port" in failure.value.fix
    assert not (tmp_path / "d").exists()


def test_the_example_is_run_but_for_directory_and_ports(tmp_path: Path) -> None:
    with place.prepared(tmp_path / "d", 0) as prepared:
        config = prepared.config
        assert [ae.ae_title for ae in config.local] == ["ROUTER"]
        assert [name for name, _, _ in prepared.destinations()] == ["sink-a", "sink-b"]
        assert config.data_dir == tmp_path / "d" / "data"
        ports = [r.port for r in config.remotes.values()]
        assert len({*ports, 11113, 11114}) == 4
    with pytest.raises(Misuse, match="leaves no room"), place.prepared(tmp_path / "d", 65534):
        raise AssertionError
