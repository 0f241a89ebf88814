"""Reloads, versions and the way back, on a gateway that runs and on its files at rest."""

import json
import os
import signal
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from router.config import durable, load
from router.config.durable import Owner
from router.config.versions import File, Versions
from tests.cli.support import Peer, Served, Site, ok, ok_json, run, write_dicom

EXTRA = '- {name: extra, when: {calling_ae: "X*"}, to: archive}\n'


class House(Site):
    """A site whose rules lie in two files; `${SITE_SECRET}` stays as it is written."""

    def __init__(self, directory: Path, archive: int = 9) -> None:
        super().__init__(directory, archive)
        self.included = directory / "rules.d" / "10.yaml"
        self.included.parent.mkdir()
        self.included.write_text(EXTRA)
        self.text = self.text.replace("spool:", "  - include: rules.d/*.yaml\nspool:")
        self.config.write_text(self.text)

    def change(self, old: str, new: str) -> None:
        text = self.config.read_text()
        assert text.count(old) == 1
        self.config.write_text(text.replace(old, new))

    def numbers(self) -> list[tuple[int, str]]:
        """Number and outcome of each version, the newest first."""
        found = ok_json("rules", "versions", "--config", self.config)
        return [(each["number"], each["outcome"]) for each in found["versions"]]

    def files(self) -> dict[str, bytes]:
        """All files of the configuration, hidden ones included."""
        return {
            str(p.relative_to(self.config.parent)): p.read_bytes()
            for p in self.config.parent.rglob("*")
            if p.is_file() and not p.is_relative_to(self.data_dir)
        }


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.fixture
def served(house: House) -> Iterator[Served]:
    with house.running() as served:
        yield served
        assert served.end() == 0
        assert "Traceback" not in json.dumps(served.lines)


def refused(house: House, *args: object, code: int) -> str:
    result = run(*args, "--config", house.config)
    assert result.exit_code == code, result.output
    return result.stderr


# -- what goes wrong ---------------------------------------------------------------------------


def test_a_version_that_would_not_load_now_is_refused_with_its_problems(
    house: House, served: Served
) -> None:
    house.change("to: [archive, broken]", "to: archive")
    ok("reload", "--config", house.config)
    house.change("to: archive", "to: archiv")
    before = house.files()
    # The version that the gateway is to go back to names a file that is gone meanwhile.
    assert "did you mean 'archive'?" in refused(house, "reload", "--config", house.config, code=2)
    said = refused(house, "rules", "rollback", "3", code=2)
    first, problem, *_ = said.splitlines()
    assert first == (
        "version 3 was refused when it was tried and cannot take effect; nothing has changed; "
        "in its files:"
    )
    assert "did you mean 'archive'?" in problem
    assert house.files() == before
    assert house.numbers() == [(3, "refused"), (2, "took effect"), (1, "took effect")]


@pytest.mark.parametrize("running", [True, False], ids=["running", "at rest"])
def test_a_version_that_there_is_not(house: House, running: bool) -> None:
    with house.running() as served:
        if not running:
            served.end()
        said = refused(house, "rules", "rollback", "17", code=1)
        assert "there is no version '17'; see `dcmrouter rules versions`" in said
        assert "no version '../1'" in refused(house, "rules", "show", "../1", code=1)
        assert "no version before" in refused(house, "rules", "diff", "previous", code=1)


def test_no_gateway_ever_ran_here(house: House) -> None:
    said = refused(house, "rules", "versions", code=1)
    assert f"there are no versions in {house.data_dir}/versions" in said
    assert "there are no versions yet" in refused(house, "rules", "show", code=1)
    assert "no version '1'" in refused(house, "rules", "rollback", "1", code=1)


def test_which_gateway_must_be_said(house: House, tmp_path: Path) -> None:
    result = run("rules", "versions")
    assert result.exit_code == 2
    assert "--config FILE" in result.stderr
    result = run("rules", "versions", "--socket", tmp_path / "none.sock")
    assert result.exit_code == 1
    assert "no gateway answers" in result.stderr
    result = run("rules", "versions", "--config", tmp_path / "none.yaml")
    assert result.exit_code == 2
    assert (
        "none.yaml cannot be read: No such file or directory; is the directory right? "
        "--config names the file; or say where its versions are with --data-dir DIR"
    ) in " ".join(result.stderr.split())


def test_a_version_that_needs_a_restart_is_refused_while_it_runs(house: House) -> None:
    with house.running() as served:
        assert served.end() == 0
    house.change("segment_size: 1MiB", "segment_size: 2MiB")
    with house.running() as served:
        before = house.files()
        said = refused(house, "rules", "rollback", "1", code=2)
        assert "spool.segment_size cannot change while the gateway runs" in said
        assert said.startswith("version 1 cannot take effect; nothing has changed; in its files:\n")
        assert house.files() == before
        assert served.end() == 0
    ok("rules", "rollback", "1", "--config", house.config)
    assert house.config.read_text() == house.text


def test_a_port_that_is_taken_leaves_the_old_configuration_in_force_whole(
    house: House, served: Served
) -> None:
    ok("rules", "versions", "--config", house.config)
    with socket.socket() as first, socket.socket() as taken:
        for sock in (first, taken):
            sock.bind(("127.0.0.1", 0))
        taken.listen()
        free, port = first.getsockname()[1], taken.getsockname()[1]
        first.close()
        old = f"listen: 127.0.0.1:{house.listen}, accept: ["
        others = "".join(
            f"  - {{ae_title: R{p}, listen: 127.0.0.1:{p}, accept: any}}\n" for p in (free, port)
        )
        house.change("remotes:\n", f"{others}remotes:\n")
        house.change('name: all, when: {PatientID: "PAT*"}', "name: others")
        assert old in house.config.read_text()
        said = refused(house, "reload", code=2)
        assert f"cannot listen on 127.0.0.1:{port}" in said
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", free)):
            pass
        status = ok_json("status", "--config", house.config)
        assert [each["address"] for each in status["listeners"]] == [f"127.0.0.1:{house.listen}"]
        assert f"cannot listen on 127.0.0.1:{port}" in status["reload_error"]
        assert status["rules_version"] == _rules(house.text, house)


def test_a_disk_that_is_full_keeps_no_reload_from_taking_effect(
    house: House, served: Served
) -> None:
    (house.data_dir / "versions").rename(house.data_dir / "aside")
    (house.data_dir / "versions").write_text("no directory")
    house.change("name: all", "name: most")
    assert "reloaded" in ok("reload", "--config", house.config)
    status = ok_json("status", "--config", house.config)
    assert status["rules_version"] == _rules(house.config.read_text(), house)
    served.wait_for("configuration reloaded")
    metrics = _metrics(house)
    assert metrics["dcmrouter_config_version_failures_total"] == 1
    assert metrics['dcmrouter_config_reloads_total{outcome="applied"}'] == 1
    assert metrics["dcmrouter_config_reload_success"] == 1
    # There would be no way back from the way back.
    result = run("rules", "rollback", "1", "--config", house.config)
    assert result.exit_code == 1


# -- versions ----------------------------------------------------------------------------------


def test_the_whole_way_while_it_runs(house: House, served: Served) -> None:
    original = house.files()
    later = house.included.with_name("20.yaml")
    later.write_text("- {name: later, discard: not kept}\n")
    house.included.write_text(EXTRA.replace("archive", "broken"))
    house.change("PAT*", "PATI*")
    house.config.chmod(0o640)
    found = ok_json("rules", "diff", "--config", house.config)
    assert (found["old"], found["new"], found["note"]) == ("1", "disk", "")
    assert found["rules"] == [
        "rule 'all' was changed: its condition is another",
        "rule 'extra' was changed: it sends to broken, before it sends to archive",
        "rule 'later' was added behind 'extra': discards (not kept)",
    ]
    assert "+- {name: later, discard: not kept}" in found["text"]
    changed = house.files()
    ok("reload", "--config", house.config, "--author", "anna", "--note", "for the new scanner")
    assert house.numbers() == [(2, "took effect"), (1, "took effect")]
    version = ok_json("rules", "versions", "--config", house.config)["versions"][0]
    assert (version["author"], version["note"]) == ("anna", "for the new scanner")
    assert version["via"].startswith("control socket, user ")

    said = ok("rules", "rollback", "1", "--config", house.config, "--note", "wrong")
    assert "3 files put back, and reloaded; changed: rules" in said
    assert "note:" not in said, "what lay there is version 2"
    assert house.files() == original
    assert house.config.stat().st_mode & 0o7777 == 0o640
    status = ok_json("status", "--config", house.config)
    assert status["rules_version"] == _rules(house.text, house)
    assert house.numbers()[0] == (3, "rolled back")
    version = ok_json("rules", "versions", "--config", house.config)["versions"][0]
    assert version["of"] == 1
    assert version["author"] != ""

    ok("rules", "rollback", "previous", "--config", house.config)
    assert house.files() == changed
    assert "version 2" in ok("rules", "show", "2", "--config", house.config)
    shown = ok_json("rules", "show", "1", "--config", house.config)
    assert {each["name"]: each["text"].encode() for each in shown["files"]} == original


def test_an_edit_that_a_version_is_put_in_place_of_is_kept_and_told(house: House) -> None:
    with house.running() as served:
        house.change("PAT*", "PATI*")
        edited = house.files()
        said = ok("rules", "rollback", "current", "--config", house.config)
        assert "note: what lay on the disk, and had not taken effect, is kept as version 2" in said
        result = ok_json("rules", "rollback", "1", "--config", house.config)
        assert (result["files"], result["notes"]) == ([], [])
        shown = ok_json("rules", "show", "2", "--config", house.config)
        assert {each["name"]: each["text"].encode() for each in shown["files"]} == edited
        assert served.end() == 0


def test_the_whole_way_at_rest(house: House) -> None:
    with house.running() as served:
        assert served.end() == 0
    original = house.files()
    house.change("PAT*", "PATI*")
    with house.running() as served:
        assert served.end() == 0
    changed = house.files()
    house.config.write_text(f"{house.config.read_text()}\nbroken: [\n")
    broken = house.files()
    said = ok("rules", "rollback", "1", "--config", house.config, "--author", "bo")
    assert "1 file put back; no gateway runs" in said
    assert "what lay on the disk, and had not taken effect, is kept as version 3: see dcm" in said
    assert house.files() == original
    assert house.numbers() == [
        (4, "rolled back"),
        (3, "kept"),
        (2, "took effect"),
        (1, "took effect"),
    ]
    shown = ok_json("rules", "show", "3", "--config", house.config)
    assert shown["problems"] != []
    assert {each["name"]: each["text"].encode() for each in shown["files"]} == broken
    with house.running() as served:
        assert served.end() == 0
    assert house.numbers()[0] == (4, "rolled back")
    ok("rules", "rollback", "2", "--config", house.config)
    assert house.files() == changed


def test_starts_and_reloads_without_a_change_are_one_version(house: House) -> None:
    for _ in range(2):
        with house.running() as served:
            ok("reload", "--config", house.config)
            served.kill(signal.SIGHUP)
            served.wait_for("configuration reloaded")
            assert served.end() == 0
    assert house.numbers() == [(1, "took effect")]


def test_secrets_are_kept_as_they_are_written(house: House, monkeypatch: Any) -> None:
    monkeypatch.setenv("SITE_SECRET", "ARCHIVE7")
    house.change("ae_title: PEER", "ae_title: '${SITE_SECRET}'")
    with house.running() as served:
        assert served.end() == 0
    [entry] = (house.data_dir / "versions").iterdir()
    assert b"${SITE_SECRET}" in entry.read_bytes()
    assert b"ARCHIVE7" not in entry.read_bytes()
    monkeypatch.delenv("SITE_SECRET")
    said = refused(house, "rules", "rollback", "1", code=2)
    assert "the environment variable 'SITE_SECRET' is not set" in said


def test_lists_are_not_kept_and_change_by_themselves(house: House, tmp_path: Path) -> None:
    trial = tmp_path / "trial.txt"
    trial.write_text("SOMEBODY\n")
    house.change("rules:\n", "lists: {trial: {file: trial.txt}}\nrules:\n")
    house.change('{PatientID: "PAT*"}', "{PatientID: {in: trial}}")
    with Peer() as peer:
        house.change("port: 9}", f"port: {peer.port}}}")
        with house.running() as served:
            version = ok_json("status", "--config", house.config)["rules_version"]
            house.send(write_dicom(tmp_path / "1.dcm", 1))
            trial.write_text("SOMEBODY\nPATIENT\n")
            assert served.wait_for("list reloaded")["values"] == 2
            house.send(write_dicom(tmp_path / "2.dcm", 2))
            assert peer.stored.get(timeout=20)[0] == "1.2.3.4.2"
            trial.unlink()
            assert (
                "No such file" in served.wait_for("a list is not taken: its old values stay")["why"]
            )
            metrics = _metrics(house)
            assert metrics['dcmrouter_list_values{list="trial"}'] == 2
            assert metrics['dcmrouter_list_failed{list="trial"}'] == 1
            house.send(write_dicom(tmp_path / "3.dcm", 3))
            assert peer.stored.get(timeout=20)[0] == "1.2.3.4.3"
            assert ok_json("status", "--config", house.config)["rules_version"] == version
            assert house.numbers() == [(1, "took effect")]
            assert served.end() == 0
    [entry] = (house.data_dir / "versions").iterdir()
    assert b"SOMEBODY" not in entry.read_bytes()


def test_each_instance_keeps_the_version_that_decided_it(house: House, tmp_path: Path) -> None:
    with house.running() as served:
        versions = []
        for number, pattern in enumerate(("PAT*", "PATI*", "PATIE*"), 1):
            if number > 1:
                house.config.write_text(house.text.replace("PAT*", pattern))
                ok("reload", "--config", house.config)
            house.send(write_dicom(tmp_path / f"{number}.dcm", number))
            versions.append(ok_json("status", "--config", house.config)["rules_version"])
        ok("rules", "rollback", "1", "--config", house.config)
        assert len(set(versions)) == 3
        assert served.end() == 0
    entries = ok_json("instances", "list", "--config", house.config)["entries"]
    assert [each["rules_version"] for each in entries] == versions


def test_a_rollback_that_was_killed_is_finished_by_the_next_start(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    with house.running() as served:
        assert served.end() == 0
    original = house.files()
    house.change("PAT*", "PATI*")
    house.included.write_text(EXTRA.replace("archive", "broken"))
    changed = house.files()
    _killed_between_two_files(house)
    assert house.files() not in (original, changed)
    with house.running() as served:
        assert "configuration was broken off; it is finished" in served.lines[0]["note"]
        assert served.end() == 0
    assert house.files() == original


def _killed_between_two_files(house: House) -> None:
    child = os.fork()
    if not child:
        real = durable.replace
        done: list[Path] = []

        def once(source: Path, target: Path) -> None:
            if target.suffix == ".yaml":
                if done:
                    os.kill(os.getpid(), signal.SIGKILL)
                done.append(target)
            real(source, target)

        durable.replace = once
        run("rules", "rollback", "1", "--config", house.config)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)


def test_entries_that_root_writes_belong_to_the_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[str, Owner]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", lambda path, u, g: given.append((Path(path).name, (u, g))))
    monkeypatch.setattr(os, "fchown", lambda fd, u, g: given.append(("entry", (u, g))))
    Versions(tmp_path / "versions").add(
        [File("config.yaml", b"")], outcome="took effect", rules="", at=0.0
    )
    owner = (tmp_path.stat().st_uid, tmp_path.stat().st_gid)
    assert given == [("versions", owner), ("entry", owner)]


def _rules(text: str, house: House) -> str:
    path = house.config.with_name("other.yaml")
    path.write_text(text)
    try:
        return load(path).rules.version
    finally:
        path.unlink()


def _metrics(house: House) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{house.http}/metrics", timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))
    }
