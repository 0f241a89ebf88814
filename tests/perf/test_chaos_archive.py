"""The check of the archive finds what it is there to find."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

from perf import data
from perf.book import Book, Goods
from perf.chaos_archive import ArchiveCheck, part_10
from router.spool.archive_manifest import MANIFEST

GOODS = Goods(data.Kind("chaos-small", 4, MRImageStorage, "MR", 8, 8, 16), ("steady",))


@pytest.fixture
def check(tmp_path: Path) -> ArchiveCheck:
    return ArchiveCheck(tmp_path / "archive", Book(("steady",)))


def put(check: ArchiveCheck, number: int, **wrong: Any) -> Path:
    """An instance that was sent, as a file with its line; ``wrong`` is what the line says else."""
    uid, body = GOODS.make(0, number)
    check._book.send(uid, body, GOODS.destinations)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = UID(uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    content = BytesIO()
    content.write(b"\0" * 128 + b"DICM")
    pydicom.filewriter.write_file_meta_info(content, meta)
    path = check.folder / "2023-11-14" / "1f0adb19a75aedd1" / f"{number:016x}.dcm"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.getvalue() + body)
    line = json.dumps({"file": path.name, "sop_instance_uid": uid} | wrong)
    with (path.parent / MANIFEST).open("a") as manifest:
        manifest.write(f"{line}\n")
    return path


def faults(check: ArchiveCheck) -> list[str]:
    check.collect()
    return check._book.faults


def test_a_file_with_other_bytes_is_found(check: ArchiveCheck) -> None:
    path = put(check, 1)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    (fault,) = faults(check)
    assert "other bytes" in fault
    assert check.archived == set()


@pytest.mark.parametrize("length", [0, 100, 140, 150, 200])
def test_a_file_that_was_cut_short_is_found(check: ArchiveCheck, length: int) -> None:
    path = put(check, 1)
    path.write_bytes(path.read_bytes()[:length])
    (fault,) = faults(check)
    assert str(path) in fault
    assert check.archived == set()


def test_a_line_without_a_file_is_found(check: ArchiveCheck) -> None:
    put(check, 1).unlink()
    (fault,) = faults(check)
    assert "is not there" in fault


def test_a_line_about_another_is_found(check: ArchiveCheck) -> None:
    put(check, 1, sop_instance_uid="1.2.3")
    (fault,) = faults(check)
    assert "its line says 1.2.3" in fault


def test_a_line_that_is_none_is_found_and_a_torn_last_one_is_not(check: ArchiveCheck) -> None:
    manifest = put(check, 1).parent / MANIFEST
    whole = manifest.read_bytes()
    manifest.write_bytes(whole + whole[:30])
    assert faults(check) == []
    manifest.write_bytes(whole + whole[:30] + b"\n")
    (fault,) = faults(check)
    assert "has a line that is none" in fault


def test_what_is_sound_is_counted_and_removed_and_once_more_when_it_came_again(
    check: ArchiveCheck,
) -> None:
    paths = [put(check, number) for number in (1, 2)]
    assert faults(check) == []
    assert check.archived == {GOODS.make(0, number)[0] for number in (1, 2)}
    assert not any(path.exists() for path in paths)
    put(check, 1)
    put(check, 3)
    assert faults(check) == []
    assert len(check.archived) == 3
    assert check.again == 1


def test_a_file_without_a_line_counts_for_nothing(check: ArchiveCheck) -> None:
    path = put(check, 1)
    (path.parent / MANIFEST).write_bytes(b"")
    assert faults(check) == []
    assert check.archived == set()
    assert path.exists()


def test_the_data_set_of_a_file_is_what_was_sent(check: ArchiveCheck) -> None:
    uid, body = GOODS.make(0, 1)
    assert part_10(put(check, 1).read_bytes()) == (uid, body)
