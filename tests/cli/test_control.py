"""The commands that speak to a gateway: running, and at rest."""

import contextlib
import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from router.cli.queue import waiting
from router.spool.spool import lock_directory
from tests.cli.support import CT_IMAGE, Event, Peer, Site, ok, ok_json, run, write_dicom

COUNT = 6
HELD = 2
REFUSED = "1.2.3.4.5"
"""What the first destination refuses, once."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    directory = tmp_path_factory.mktemp("files")
    paths = [write_dicom(directory / f"{n}.dcm", n) for n in range(COUNT)]
    return paths + [
        write_dicom(directory / f"{n}.dcm", n, PatientID="OTHER") for n in (100, 101)[:HELD]
    ]


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    refused: list[str] = []

    def answer(event: Event) -> int:
        uid = event.request.AffectedSOPInstanceUID
        if uid != REFUSED or refused:
            return 0x0000
        refused.append(uid)
        return 0xA900

    with Peer(on_store=answer) as peer:
        yield peer


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory, peer: Peer, files: list[Path]) -> Site:
    """A gateway at rest that delivered to one destination all but one; the other was down."""
    site = Site(tmp_path_factory.mktemp("history"), peer.port)
    with site.running() as served:
        site.send(*files)
        for _ in range(COUNT - 1):
            peer.stored.get(timeout=20)
        _wait(site, "dead", 1)
        _wait(site, "ready", 0)
        assert served.end() == 0
    return site


@contextlib.contextmanager
def _copied(history: Site, directory: Path, state: str) -> Iterator[Site]:
    site = Site(directory, history.archive)
    shutil.copytree(history.data_dir, site.data_dir)
    if state == "at rest":
        yield site
        return
    with site.running() as served:
        yield site
        assert served.end() == 0


@pytest.fixture(scope="module", params=["running", "at rest"])
def site(
    request: pytest.FixtureRequest, history: Site, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Only to be looked at."""
    with _copied(history, tmp_path_factory.mktemp("site"), request.param) as copy:
        yield copy


@pytest.fixture(params=["running", "at rest"])
def fresh(request: pytest.FixtureRequest, history: Site, tmp_path: Path) -> Iterator[Site]:
    """To be changed."""
    with _copied(history, tmp_path, request.param) as copy:
        yield copy


def _wait(site: Site, state: str, count: int) -> None:
    """What the peer has was answered a moment before it is noted; each question is an event."""
    for _ in range(2000):
        if _numbers(site, "archive")[state] == count:
            return
    raise AssertionError(_numbers(site, "archive"))


def _states(site: Site, destination: str) -> dict[str, Any]:
    queues = ok_json("queue", "list", "-c", site.config, "-d", destination)["queues"]
    return {q["state"]: q for q in queues}


def _numbers(site: Site, destination: str = "broken") -> dict[str, int]:
    return {state: q["instances"] for state, q in _states(site, destination).items()}


def test_the_account_balances(site: Site) -> None:
    config = site.config
    found = ok_json("account", "-c", config)
    assert (found["received"], found["routed"], found["held"]) == (COUNT + HELD, COUNT, HELD)
    assert found["balanced"] is True
    assert {d["destination"]: d["delivered"] for d in found["destinations"]} == {
        "archive": COUNT - 1,
        "broken": 0,
    }
    assert "the account balances" in ok("account", "-c", config)


def test_a_queue_says_that_its_destination_is_down(history: Site, tmp_path: Path) -> None:
    with _copied(history, tmp_path, "running") as site:
        for _ in range(2000):
            states = {d["name"]: d for d in ok_json("status", "-c", site.config)["destinations"]}
            if not states["broken"]["up"]:
                break
        reason = states["broken"]["reason"]
        assert reason
        text = ok("queue", "list", "-c", site.config, "-d", "broken")
        assert f"DOWN: {reason}" in text


def test_when_and_why_a_queue_waits() -> None:
    queue: dict[str, Any] = {
        "destination": "pacs",
        "state": "ready",
        "instances": 3,
        "next_due_at": 0.0,
        "waits": ["schedule night shut"],
    }
    down = {"name": "pacs", "up": False, "reason": "refused", "next_probe_at": 130.0}
    status = {"now": 100.0, "destinations": [down]}
    assert waiting(queue, None) == ("now", ["schedule night shut"])
    assert waiting(queue, status) == ("in 30 s", ["DOWN: refused", "schedule night shut"])
    assert waiting(queue | {"instances": 0}, status) == ("now", ["schedule night shut"])
    assert waiting(queue | {"state": "dead", "waits": []}, status) == ("now", [])
    assert waiting(queue, status | {"destinations": [down | {"up": True}]})[0] == "now"
    shut = down | {"shut": "schedule night is shut", "opens_at": 160.0}
    for each, when in ((shut, "in 60 s"), (shut | {"opens_at": None}, "")):
        why = ["schedule shut", "schedule night shut"]
        assert waiting(queue, status | {"destinations": [each]}) == (when, why)
    assert waiting(queue, status | {"destinations": []}) == (
        "",
        ["not configured", "schedule night shut"],
    )


def test_queues_are_listed_and_shown(site: Site) -> None:
    config = site.config
    assert _numbers(site) == {"ready": COUNT, "held": 0, "dead": 0}
    text = ok("queue", "list", "-c", config)
    assert [line.split()[:3] for line in text.splitlines() if "broken" in line] == [
        ["broken", "ready", str(COUNT)]
    ]
    found = ok_json("queue", "show", "-c", config)
    assert found["more"] is False
    assert Counter(e["destination"] for e in found["entries"]) == {"broken": COUNT, "archive": 1}
    some = ok_json("queue", "show", "-c", config, "--limit", "4")
    assert some["more"] is True
    keys = [[(e["instance_id"], e["destination"]) for e in f["entries"]] for f in (some, found)]
    assert keys[0] == keys[1][:4]
    assert "… and more" in ok("queue", "show", "-c", config, "--limit", "4")
    dead = ok("queue", "show", "-c", config, "-d", "archive")
    assert "A900" in dead
    assert "nothing waits" in ok("queue", "show", "-c", config, "--study", "9.9.9")
    assert run("queue", "show", "-c", config, "-d", "xyz").exit_code == 2


def test_filters(site: Site) -> None:
    config = site.config

    def count(*args: str) -> int:
        return len(ok_json("queue", "show", "-c", config, *args)["entries"])

    assert count("--instance", "1.2.3.4.2") == 1
    assert count("--study", "1.2.3") == COUNT + 1
    assert count("--study", "1.2.9") == 0
    assert count("--state", "delivered") == COUNT - 1
    assert count("--older-than", "1h") == 0
    assert count("--newer-than", "1h") == COUNT + 1
    assert count("--id", "1", "--id", "3", "--id", "999") == 2
    assert count("--destination", "archive", "--state", "ready") == 0
    assert count("--reason", "*A900*", "--state", "dead") == 1
    assert count("--reason", "zzz*") == 0
    bad = run("queue", "show", "-c", config, "--older-than", "soon")
    assert bad.exit_code == 2
    assert "a duration such as" in bad.stderr


def test_hold_and_release(fresh: Site) -> None:
    config = fresh.config
    said = ok("queue", "hold", "-c", config, "-d", "broken", "--id", "1", "--id", "2")
    assert said.startswith("2 deliveries (")
    assert _numbers(fresh) == {"ready": COUNT - 2, "held": 2, "dead": 0}
    released = ok_json("queue", "release", "-c", config, "--state", "held")
    assert released["changed"] == 2
    assert _numbers(fresh)["held"] == 0
    assert "nothing to release" in ok("queue", "release", "-c", config, "--state", "held")


def test_retry_sends_a_dead_letter_again(fresh: Site, peer: Peer) -> None:
    config = fresh.config
    said = ok("queue", "retry", "-c", config, "--state", "dead")
    assert said.startswith("1 delivery (")
    assert _numbers(fresh, "archive")["dead"] == 0
    if "the gateway is not running" in said:
        assert _numbers(fresh, "archive")["ready"] == 1
        with fresh.running() as served:
            assert peer.stored.get(timeout=20)[0] == REFUSED
            assert served.end() == 0
    else:
        assert peer.stored.get(timeout=20)[0] == REFUSED
    assert "nothing to retry" in ok("queue", "retry", "-c", config, "--state", "dead")


def test_drop_is_on_record_with_its_reason(fresh: Site) -> None:
    config = fresh.config
    found = ok_json(
        "queue", "drop", "-c", config, "--id", "3", "--because", "sent by hand", "--yes"
    )
    assert found["changed"] == 1
    shown = ok_json("instances", "show", "-c", config, "3")
    states = {d["destination"]: (d["state"], d["reason"]) for d in shown["deliveries"]}
    assert states["broken"] == ("dropped", "sent by hand")
    assert shown["events"][-1]["action"] == "drop"
    assert "sent by hand" in ok("instances", "show", "-c", config, "3")
    assert ok_json("account", "-c", config)["balanced"] is True


def test_nothing_happens_without_a_condition_a_reason_and_a_yes(site: Site) -> None:
    config = site.config
    for args, why in (
        (("retry",), "no condition is given"),
        (("hold", "--all", "-d", "broken"), "--all goes with no condition"),
        (("drop", "--all"), "Missing option '--because'"),
        (("drop", "--all", "--because", " ", "--yes"), "--because is empty"),
        (("drop", "--all", "--because", "x"), "add --yes"),
        (("drop", "--all", "--because", "x", "--json"), "add --yes"),
        (("release", "--all", "--to", "nowhere"), "nowhere is not a destination"),
        (("release", "--all", "--to", "scanner"), "scanner is not a destination"),
    ):
        result = run("queue", *args, "-c", config)
        assert result.exit_code == 2, args
        assert why in result.stderr
    assert _numbers(site) == {"ready": COUNT, "held": 0, "dead": 0}


def test_drop_asks_with_the_number_of_what_it_would_drop(
    fresh: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    import click.testing

    monkeypatch.setattr(click.testing._NamedTextIOWrapper, "isatty", lambda _: True)
    args = ("queue", "drop", "-c", fresh.config, "-d", "broken", "--because", "x")
    result = run(*args, input="n\n")
    assert result.exit_code == 1
    assert f"Drop {COUNT} deliveries? They will never be made." in result.stderr
    assert _numbers(fresh)["ready"] == COUNT
    assert run(*args, input="y\n").exit_code == 0
    assert _numbers(fresh)["ready"] == 0


def test_held_instances_are_sent_after_all(fresh: Site) -> None:
    config = fresh.config
    args = ("instances", "list", "-c", config, "--disposition", "held")
    held = ok_json(*args)["entries"]
    assert {e["sop_instance_uid"] for e in held} == {"1.2.3.4.100", "1.2.3.4.101"}
    said = ok("queue", "release", "-c", config, "--disposition", "held", "--to", "broken")
    assert said.startswith(f"{HELD} instances (")
    assert ok_json(*args)["entries"] == []
    assert _numbers(fresh)["ready"] == COUNT + HELD


def test_held_instances_are_given_up_on_purpose(fresh: Site) -> None:
    config = fresh.config
    args = ("instances", "list", "-c", config, "--disposition", "held")
    first, second = (e["id"] for e in ok_json(*args)["entries"])
    why = ("--because", "test images", "--yes")
    partly = run("instances", "discard", "-c", config, first, 1, *why)
    assert partly.exit_code == 1
    assert partly.stdout.startswith("1 instance (")
    assert "1 of 2 instances not discarded" in partly.stderr
    assert [e["id"] for e in ok_json(*args)["entries"]] == [second]
    shown = ok_json("instances", "show", "-c", config, first)
    assert (shown["disposition"], shown["reason"]) == ("discarded", "test images")
    assert shown["events"][-1]["action"] == "discard"
    assert ok_json("instances", "show", "-c", config, 1)["disposition"] == "routed"
    rest = ok_json("instances", "discard", "-c", config, "--disposition", "held", *why)
    assert rest["changed"] == 1
    assert "nothing to discard" in ok("instances", "discard", "-c", config, "--all", *why)
    assert ok_json("account", "-c", config)["balanced"] is True


def test_discarding_wants_to_know_what_and_why(site: Site) -> None:
    for args, said in (
        ((), "it is not clear which instances are meant"),
        (("1", "--all"), "it is not clear which instances are meant"),
        (("--because", " "), "--because is empty"),
        (("--because", "x", "--json"), "add --yes"),
    ):
        why = () if "--because" in args else ("--because", "x", "--yes")
        numbers = ("1",) if "--because" in args else ()
        result = run("instances", "discard", "-c", site.config, *numbers, *args, *why)
        assert result.exit_code == 2, args
        assert said in result.stderr


def test_the_spool_is_verified_beside_the_gateway_and_without(site: Site) -> None:
    found = ok_json("spool", "verify", "-c", site.config)
    assert found["sound"] is True
    assert sum(s["records"] for s in found["segments"]) == COUNT + HELD
    assert found["counts"] == {"damaged": 0, "missing": 0, "orphaned": 0, "stale": 0}
    text = ok("spool", "verify", "-c", site.config)
    assert "the spool is sound" in text
    assert f"{COUNT + HELD} instances sound" in text


def test_damage_in_the_spool_is_told_by_verify(fresh: Site) -> None:
    # In every file: a gateway that has started may just have moved the records to another.
    for path in (fresh.data_dir / "spool" / "segments").glob("*.seg"):
        data = path.read_bytes()
        if (at := data.rfind(b"PATIENT")) >= 0:
            with path.open("r+b") as file:
                file.seek(at)
                file.write(b"p")
    result = run("spool", "verify", "-c", fresh.config)
    assert result.exit_code == 1
    assert "THE SPOOL IS NOT SOUND" in result.stdout
    assert "CRC-32" in result.stdout
    asked = run("spool", "verify", "-c", fresh.config, "--json")
    assert asked.exit_code == 1
    finding = json.loads(asked.stdout)["findings"][0]
    assert finding["kind"] == "damaged"
    shown = ok_json("instances", "show", "-c", fresh.config, finding["instance"])
    assert shown["sop_instance_uid"] == finding["sop_instance_uid"]


def test_a_segment_that_is_gone_is_missed_until_it_is_given_up(fresh: Site) -> None:
    segments = fresh.data_dir / "spool" / "segments"
    for path in segments.glob("*.seg"):
        if b"PATIENT" in path.read_bytes():
            path.unlink()
            break
    result = run("spool", "verify", "-c", fresh.config)
    assert result.exit_code == 1
    assert f"segment {path.name}: is missing, in which generation" in result.stdout
    given_up = run("spool", "forget", "-c", fresh.config, path.name)
    if "in use by process" in given_up.stderr:
        assert given_up.exit_code == 1
        assert "stop the gateway first" in given_up.stderr
        return
    assert f"segment {path.name}, in which generation" in given_up.stdout
    again = run("spool", "forget", "-c", fresh.config, path.name)
    assert again.exit_code == 1
    assert f"nothing was done: {path.name} is not missed" in again.stderr
    text = run("spool", "verify", "-c", fresh.config).stdout
    assert f"segment {path.name}: is missing" not in text
    assert "THE SPOOL IS NOT SOUND" in text, "the index names what was in it"


@pytest.mark.parametrize("command", [("verify",), ("forget", "00000001.seg")])
def test_without_a_spool_it_is_bad_usage(tmp_path: Path, command: tuple[str, ...]) -> None:
    result = run("spool", *command, "-c", Site(tmp_path).config)
    assert result.exit_code == 2
    assert "there is no spool" in result.stderr


def test_export(site: Site, tmp_path: Path, files: list[Path]) -> None:
    config, out = site.config, tmp_path / "out" / "deep"
    found = ok_json("instances", "export", "-c", config, "1", "2", "1", "--to", out)
    assert [w["id"] for w in found["written"]] == [1, 2]
    assert sorted(p.name for p in out.iterdir()) == ["1.dcm", "2.dcm"]
    read = pydicom.dcmread(out / "1.dcm")
    assert read.file_meta.MediaStorageSOPClassUID == CT_IMAGE
    assert read.file_meta.SourceApplicationEntityTitle == "TEST"
    sent = next(f for f in files if pydicom.dcmread(f).SOPInstanceUID == read.SOPInstanceUID)
    assert pydicom.dcmread(sent) == read
    assert (out / "1.dcm").stat().st_mode & 0o077 == 0
    by_study = ok_json(
        "instances", "export", "-c", config, "--study", "1.2.3", "--to", tmp_path / "s"
    )
    assert len(by_study["written"]) == COUNT + HELD


def test_export_overwrites_nothing_and_goes_on(site: Site, tmp_path: Path) -> None:
    config, out = site.config, tmp_path / "out"
    out.mkdir()
    (out / "1.dcm").write_text("mine")
    result = run("instances", "export", "-c", config, "1", "999", "2", "--to", out)
    assert result.exit_code == 1
    assert "1.dcm exists already and is left as it is" in result.stderr
    assert "there is no instance 999" in result.stderr
    assert (out / "1.dcm").read_text() == "mine"
    assert sorted(p.name for p in out.iterdir()) == ["1.dcm", "2.dcm"]
    for args in ((), ("1", "--study", "1.2.3"), ("--all", "1")):
        assert run("instances", "export", "-c", config, "--to", out, *args).exit_code == 2


def test_an_instance_that_is_not_there(site: Site) -> None:
    result = run("instances", "show", "-c", site.config, "999")
    assert result.exit_code == 1
    assert "there is no instance 999" in result.stderr


# -- one or the other


def test_status_of_a_running_gateway(tmp_path: Path) -> None:
    with (site := Site(tmp_path)).running() as served:
        text = ok("status", "-c", site.config)
        assert f"ROUTER listens at 127.0.0.1:{site.listen}" in text
        assert "archive" in text
        by_socket = ok_json("status", "--socket", site.data_dir / "control.sock")
        assert by_socket["listeners"][0]["listening"] is True
        assert served.end() == 0
    for command in ("status", "reload"):
        result = run(command, "-c", site.config)
        assert result.exit_code == 1
        assert "start it with dcmrouter serve" in result.stderr


def test_nothing_was_ever_there(tmp_path: Path) -> None:
    site = Site(tmp_path)
    result = run("queue", "list", "-c", site.config)
    assert result.exit_code == 1
    assert "nothing was ever received there" in result.stderr
    assert not site.data_dir.exists()
    result = run("queue", "list", "--socket", tmp_path / "s")
    assert result.exit_code == 1
    assert "no gateway answers at" in result.stderr


def test_a_directory_in_use_that_does_not_answer(tmp_path: Path) -> None:
    site = Site(tmp_path)
    lock = lock_directory(site.data_dir / "spool")
    try:
        result = run("account", "-c", site.config)
    finally:
        lock.close()
    assert result.exit_code == 1
    assert "a gateway has the directory but does not answer" in result.stderr
    assert f"process {os.getpid()}" in result.stderr


def test_what_was_acked_before_a_kill_is_seen_at_rest(tmp_path: Path, files: list[Path]) -> None:
    site = Site(tmp_path)
    with site.running() as served:
        site.send(*files)
        assert served.end(signal.SIGKILL) == -signal.SIGKILL
    assert (site.data_dir / "control.sock").exists()
    found = ok_json("account", "-c", site.config)
    assert found["received"] == len(files)
    assert found["balanced"] is True


def test_damage_is_told_and_not_exported(tmp_path: Path, files: list[Path]) -> None:
    site = Site(tmp_path)
    with site.running() as served:
        site.send(*files)
        assert served.end() == 0
    (whole,) = [
        p
        for p in (site.data_dir / "spool" / "segments").iterdir()
        if b"1.2.3.4.3" in p.read_bytes()
    ]
    data = bytearray(whole.read_bytes())
    at = data.index(b"PATIENT", data.index(b"1.2.3.4.3\0"))
    data[at] ^= 0xFF
    whole.write_bytes(data)
    result = run(
        "instances", "export", "-c", site.config, "--all", "--to", tmp_path / "out", "--json"
    )
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert len(report["written"]) == len(files) - 1
    (failed,) = report["failed"]
    assert "CRC" in failed["error"]
    assert f"{failed['id']}.dcm" not in {p.name for p in (tmp_path / "out").iterdir()}
    assert len(list((tmp_path / "out").iterdir())) == len(files) - 1


def test_an_account_that_does_not_balance_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from router.cli import gateway

    class Desk:
        def account(self, since: str) -> dict[str, object]:
            assert since == ""
            return {
                "received": 3,
                "routed": 2,
                "held": 0,
                "quarantined": 0,
                "discarded": 0,
                "destinations": [],
                "differences": {"instances": 1},
                "balanced": False,
            }

    @contextlib.contextmanager
    def open_desk(*_: object) -> Iterator[Desk]:
        yield Desk()

    monkeypatch.setattr(gateway, "open_desk", open_desk)
    result = run("account")
    assert result.exit_code == 1
    assert "THE ACCOUNT DOES NOT BALANCE: instances: 1" in result.stdout
