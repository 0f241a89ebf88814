"""``send``: what becomes of each file."""

import hashlib
import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import ALL_TRANSFER_SYNTAXES

from router.cli.files import DicomFile, FileReader, Skipped, find, look
from router.cli.sending import _batches
from router.dicom.part10 import read_file_meta
from tests.cli.support import (
    CT_IMAGE,
    MR_IMAGE,
    Peer,
    Site,
    free_ports,
    ok,
    ok_json,
    run,
    write_dicom,
)


def _digest(path: Path) -> str:
    whole = path.read_bytes()
    return hashlib.sha256(whole[read_file_meta(whole).data_set_offset :]).hexdigest()


def test_everything_under_a_directory_arrives_as_it_is(tmp_path: Path) -> None:
    paths = [write_dicom(tmp_path / "a" / f"{n}.dcm", n) for n in range(12)]
    paths.append(write_dicom(tmp_path / "b" / "large", 99, EncapsulatedDocument=b"\1\2" * 500_000))
    (tmp_path / "b" / "readme.txt").write_text("not an image, and long enough to be looked at")
    with Peer() as peer:
        result = run("send", peer.address, tmp_path, "-n", "3")
        assert result.exit_code == 0, result.output
        got = [peer.stored.get_nowait() for _ in paths]
    assert peer.associations == 3
    assert Counter(hashlib.sha256(data).hexdigest() for _, data in got) == Counter(
        map(_digest, paths)
    )
    assert "left out: " in result.stderr
    assert "readme.txt: not a DICOM file" in result.stderr
    assert "13 instances to PEER" in result.stdout


def test_failures_and_warnings_are_told_apart(tmp_path: Path) -> None:
    statuses = {"1.2.3.4.1": 0x0000, "1.2.3.4.2": 0xB007, "1.2.3.4.3": 0xA700}
    for number in (1, 2, 3):
        write_dicom(tmp_path / f"{number}.dcm", number)
    write_dicom(tmp_path / "4.dcm", 4, sop_class=MR_IMAGE)

    def answer(event: Any) -> int:
        return statuses[event.request.AffectedSOPInstanceUID]

    with Peer([(CT_IMAGE, ALL_TRANSFER_SYNTAXES)], on_store=answer) as peer:
        shown = run("send", peer.address, tmp_path)
        found = run("send", peer.address, tmp_path, "--json")
    assert shown.exit_code == found.exit_code == 1
    assert "failed: " in shown.stderr
    assert "3.dcm: A700H failure" in shown.stderr
    assert "does not accept MR Image Storage in Explicit VR Little Endian" in shown.stderr
    report = json.loads(found.stdout)
    assert (report["sent"], report["warnings"], report["failed"]) == (1, 1, 2)
    by_name = {Path(f["path"]).name: f for f in report["files"]}
    assert by_name["2.dcm"]["outcome"] == "warning"
    assert by_name["2.dcm"]["status"] == "B007"
    assert by_name["4.dcm"]["status"] is None


def test_nothing_to_send_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("text")
    result = run("send", "PEER@127.0.0.1:9", tmp_path)
    assert result.exit_code == 1
    assert "there is no DICOM file to send" in result.stderr
    assert run("send", "PEER@127.0.0.1:9", tmp_path / "none").exit_code == 2


def test_nobody_there_fails_every_file_and_ends(tmp_path: Path) -> None:
    for number in range(5):
        write_dicom(tmp_path / f"{number}.dcm", number)
    (port,) = free_ports(1)
    result = run("send", f"PEER@127.0.0.1:{port}", tmp_path, "-n", "4", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["failed"] == 5
    assert all("Connection refused" in f["reason"] for f in report["files"])


def test_a_file_under_which_the_association_broke_is_sent_once_more(tmp_path: Path) -> None:
    for number in range(1, 6):
        write_dicom(tmp_path / f"{number}.dcm", number)
    tries: Counter[str] = Counter()
    lock = threading.Lock()

    def answer(event: Any) -> int:
        uid = event.request.AffectedSOPInstanceUID
        with lock:
            tries[uid] += 1
        if (uid == "1.2.3.4.2" and tries[uid] == 1) or uid == "1.2.3.4.4":
            event.assoc.abort()
        return 0x0000

    with Peer(on_store=answer) as peer:
        result = run("send", peer.address, tmp_path, "--json")
    report = json.loads(result.stdout)
    assert (report["sent"], report["failed"]) == (4, 1)
    assert tries == {"1.2.3.4.1": 1, "1.2.3.4.2": 2, "1.2.3.4.3": 1, "1.2.3.4.4": 2, "1.2.3.4.5": 1}
    failed = next(f for f in report["files"] if f["outcome"] == "failed")
    assert failed["sop_instance_uid"] == "1.2.3.4.4"
    assert "aborted" in failed["reason"]


def test_a_peer_that_aborts_every_time_is_given_up(tmp_path: Path) -> None:
    for number in range(40):
        write_dicom(tmp_path / f"{number}.dcm", number)

    def answer(event: Any) -> int:
        event.assoc.abort()
        return 0x0000

    with Peer(on_store=answer) as peer:
        result = run("send", peer.address, tmp_path, "--json")
        assert peer.associations == 3
    assert json.loads(result.stdout)["failed"] == 40


def test_a_peer_with_fewer_associations_than_asked_for_gets_everything(tmp_path: Path) -> None:
    for number in range(8):
        write_dicom(tmp_path / f"{number}.dcm", number)
    with Peer() as peer:
        peer._ae.maximum_associations = 1
        report = ok_json("send", peer.address, tmp_path, "-n", "4")
    assert report["sent"] == 8


def test_more_kinds_than_an_association_has_contexts() -> None:
    files = [
        DicomFile(Path(f"{n}"), f"1.2.{n % 300}", f"1.9.{n}", "1.2.840.10008.1.2", 0, 1)
        for n in range(900)
    ]
    batches = _batches(files)
    assert [len(batch.proposals) for batch in batches] == [128, 128, 44]
    assert sorted(f.sop_instance_uid for b in batches for f in b.files) == sorted(
        f.sop_instance_uid for f in files
    )
    for batch in batches:
        assert {file.proposal for file in batch.files} == set(batch.proposals)


def test_a_configured_remote_is_called_as_the_gateway(tmp_path: Path) -> None:
    callers: list[str] = []

    def answer(event: Any) -> int:
        callers.append(event.assoc.requestor.ae_title)
        return 0x0000

    with Peer(on_store=answer) as peer:
        site = Site(tmp_path, peer.port)
        path = write_dicom(tmp_path / "one.dcm")
        ok("send", "archive", path, "--config", site.config)
        ok("send", "archive", path, "--config", site.config, "--calling", "OTHER")
    assert callers == ["ROUTER", "OTHER"]


# -- files


def test_what_is_found_and_what_is_left_out(tmp_path: Path) -> None:
    write_dicom(tmp_path / "b" / "1.dcm", 1)
    write_dicom(tmp_path / "a" / "2", 2)
    write_dicom(tmp_path / "c" / "DICOMDIR", 3, sop_class="1.2.840.10008.1.3.10")
    (tmp_path / "c" / "empty").touch()
    (tmp_path / "c" / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "c" / "loop").symlink_to(tmp_path)
    found = list(find([tmp_path]))
    names = [f.path.name for f in found if isinstance(f, DicomFile)]
    assert names == ["2", "1.dcm"]
    reasons = {f.path.name: f.reason for f in found if isinstance(f, Skipped)}
    assert set(reasons) == {"DICOMDIR", "empty", "gone"}
    assert "DICOMDIR" in reasons["DICOMDIR"]
    assert reasons["gone"] == "No such file or directory"


def test_a_device_is_not_read() -> None:
    assert look(Path("/dev/zero")) == Skipped(Path("/dev/zero"), "not a regular file")


def test_a_reader_gives_the_data_set_piece_by_piece(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "x.dcm", 1, EncapsulatedDocument=bytes(range(256)) * 40)
    file = look(path)
    assert isinstance(file, DicomFile)
    reader = FileReader(file)
    first, second = bytearray(100), bytearray(file.length - 100)
    if not reader.try_read([memoryview(first)[:60], memoryview(first)[60:]]):
        reader.read([memoryview(first)])
    assert reader.remaining == file.length - 100
    reader.read([memoryview(second)])
    assert reader.remaining == 0
    assert hashlib.sha256(first + second).hexdigest() == _digest(path)
    reader.close()
    reader.close()


def test_a_file_that_became_shorter_fails_and_the_others_go_on(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "x.dcm", 1, EncapsulatedDocument=b"\0" * 100_000)
    file = look(path)
    assert isinstance(file, DicomFile)
    with path.open("r+b") as handle:
        handle.truncate(file.offset + 1000)
    reader = FileReader(file)
    buffer = memoryview(bytearray(file.length))
    assert reader.try_read([buffer]) is False
    with pytest.raises(OSError, match="become shorter"):
        reader.read([buffer])
    reader.close()
