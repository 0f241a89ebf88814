"""``remotes list``, ``presets`` and ``probe``."""

import json
from pathlib import Path

import pytest

from tests.cli.support import CT_IMAGE, MR_IMAGE, Peer, free_ports, ok, ok_json, run

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"


def written(path: Path, port: int = 11112) -> Path:
    path /= "config.yaml"
    path.write_text(
        "local: [{ae_title: ROUTER, listen: 127.0.0.1:0, accept: any}]\n"
        "remotes:\n"
        f"  pacs: {{ae_title: PEER, host: 127.0.0.1, port: {port}, preset: dcmtk, linger: 5s}}\n"
        "  trial: {ae_title: TRIAL, host: trial.example, transfer_syntaxes: [implicit-vr-le],\n"
        "          never_send: ['*PresentationState*'], retry: {cap: 10m}}\n"
        "  scanner: {ae_title: CT1}\n"
        "rules: [{to: [pacs, trial]}]\n"
    )
    return path


def test_the_remotes_with_what_is_unusual(tmp_path: Path) -> None:
    text = ok("remotes", "list", "--config", written(tmp_path))
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert "127.0.0.1:11112" in lines["pacs"]
    assert "dcmtk" in lines["pacs"]
    assert "associations: 1, asynchronous_operations: 1" in lines["pacs"], "the preset's, too"
    assert "linger: 5" in lines["pacs"]
    assert "transfer_syntaxes: [1.2.840.10008.1.2]" in lines["trial"]
    assert "never_send: [*PresentationState*]" in lines["trial"]
    assert "retry: {cap: 600}" in lines["trial"]
    assert "calls us" in lines["scanner"]
    found = ok_json("remotes", "list", "--config", tmp_path / "config.yaml")
    assert [remote["name"] for remote in found] == ["pacs", "trial", "scanner"]
    assert found[0]["associations"] == 1
    assert found[0]["dimse_timeout"] == 60.0


def test_settings_are_shown_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "local: [{ae_title: ROUTER, listen: 127.0.0.1:0, accept: any}]\n"
        "remotes:\n"
        "  fast: {ae_title: A, host: a.example, commitment: true, bandwidth: 20Mbit/s}\n"
        "  slow: {ae_title: B, host: b.example, bandwidth: {'08:00-18:00': 64kbit/s,\n"
        "         else: unlimited}}\n"
        "rules: [{to: [fast, slow]}]\n"
    )
    text = ok("remotes", "list", "--config", path)
    assert "commitment: true" in text
    assert "bandwidth: 20Mbit/s" in text
    assert "bandwidth: {08:00-18:00: 64kbit/s, else: unlimited}" in text


def test_presets_have_their_reasons() -> None:
    text = ok("remotes", "presets")
    assert "dcm4che/dcm4che#1120" in text
    assert "    asynchronous_operations: 1\n" in text
    found = {preset["name"]: preset for preset in ok_json("remotes", "presets")}
    assert found["ge"]["settings"] == {"asynchronous_operations": 1}
    assert all(preset["reason"] and preset["source"] for preset in found.values())


def test_a_probe_tells_what_the_peer_accepts(tmp_path: Path) -> None:
    contexts = ((CT_IMAGE, [IMPLICIT, EXPLICIT]), (MR_IMAGE, [EXPLICIT]))
    with Peer(contexts) as peer:
        config = written(tmp_path, peer.port)
        text = ok("remotes", "probe", "pacs", "--config", config)
        found = ok_json("remotes", "probe", peer.address)
    assert f"pacs (PEER at 127.0.0.1:{peer.port}) answers" in text
    assert "PYNETDICOM" in text
    assert "services: Verification\n" in text
    assert "storage: 2 of " in text
    assert "implicit-vr-le, explicit-vr-le 1 CT Image Storage" in " ".join(text.split())
    assert found["storage"] == {CT_IMAGE: [IMPLICIT, EXPLICIT], MR_IMAGE: [EXPLICIT]}
    assert found["storage_classes_asked"] > 150
    assert found["echo_status"] == "0000"
    assert 0 < found["echo_seconds"] < 5
    assert found["trouble"] == []
    assert found["sent"] is None
    assert "'asynchronous_operations: 1' loses nothing" in found["hints"][0]
    assert not peer.stored.qsize(), "a probe stores nothing"


def test_only_some_classes_and_a_file(tmp_path: Path) -> None:
    from pydicom.data import get_testdata_file

    sample = get_testdata_file("MR_small.dcm")
    with Peer() as peer:
        found = ok_json(
            "remotes",
            "probe",
            peer.address,
            "--class",
            "MRImage*",
            "--class",
            "1.2.3",
            "--send",
            sample,
        )
        text = run("remotes", "probe", peer.address, "--class", "MRImage*", "--send", sample).stdout
        assert peer.stored.qsize() == 2
    assert found["storage_classes_asked"] == 2
    assert list(found["storage"]) == [MR_IMAGE]
    assert found["sent"]["outcome"] == "sent"
    assert found["sent"]["bytes"] > 8000
    assert found["sent"]["store_seconds"] <= found["sent"]["seconds"]
    assert "MR_small.dcm: sent" in text
    assert "MB/s" in text


def test_a_file_that_is_not_taken(tmp_path: Path) -> None:
    from pydicom.data import get_testdata_file

    with Peer(((CT_IMAGE, [IMPLICIT]),)) as peer:
        sample = get_testdata_file("MR_small.dcm")
        text = ok("remotes", "probe", peer.address, "--class", "CTImageStorage", "--send", sample)
    assert "MR_small.dcm: failed, the remote does not accept MR Image Storage" in text


def test_nobody_there() -> None:
    (port,) = free_ports(1)
    result = run("remotes", "probe", f"PEER@127.0.0.1:{port}")
    assert result.exit_code == 1
    assert "could not be connected to" in result.stderr
    found = run("remotes", "probe", f"PEER@127.0.0.1:{port}", "--json")
    assert found.exit_code == 1
    assert json.loads(found.stdout)["answered"] is False


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("probe", "pacs"), "use --config FILE"),
        (("probe", "P@h", "--class", "CTImageStorag"), "did you mean 'CTImageStorage'?"),
        (("probe", "P@h", "--class", "Verification"), "is no storage class that is known here"),
        (("probe", "P@h", "--send", __file__), "--send: "),
        (("probes",), "did you mean 'probe'?"),
        (("list",), "no configuration is given"),
    ],
)
def test_bad_usage(args: tuple[str, ...], why: str) -> None:
    result = run("remotes", *args)
    assert result.exit_code == 2, result.output
    assert why in result.stderr
