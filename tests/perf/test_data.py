"""The data maker: valid Part 10 files, all of them distinct, made once."""

from pathlib import Path

import pydicom
import pytest
from pydicom.uid import UID, ExplicitVRLittleEndian

from perf import data


def test_files_are_valid_and_of_their_kind(tmp_path: Path) -> None:
    kind = data.KINDS["mr"]
    [[path]] = data.make_files(tmp_path, kind, senders=1, count=1)

    ds = pydicom.dcmread(path)

    assert ds.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    assert ds.SOPClassUID == kind.sop_class_uid
    assert UID(ds.SOPInstanceUID).is_valid
    assert len(ds.PixelData) == kind.pixel_bytes == 131_072
    assert max(ds.PixelData[1::2]) <= 0x0F, "more than twelve bits stored"


def test_instances_differ_in_uid_and_in_pixels_between_numbers_and_senders(
    tmp_path: Path,
) -> None:
    lists = data.make_files(tmp_path, data.KINDS["mr"], senders=2, count=3)
    read = [pydicom.dcmread(path) for paths in lists for path in paths]

    assert len({ds.SOPInstanceUID for ds in read}) == 6
    assert len({ds.PixelData for ds in read}) == 6
    assert len({ds.StudyInstanceUID for ds in read}) == 2


def test_files_of_an_earlier_run_are_kept(tmp_path: Path) -> None:
    kind = data.KINDS["mr"]
    [[first]] = data.make_files(tmp_path, kind, senders=1, count=1)
    inode = first.stat().st_ino

    [[again, _]] = data.make_files(tmp_path, kind, senders=1, count=2)

    assert again == first
    assert again.stat().st_ino == inode


def test_warm_reads_everything(tmp_path: Path) -> None:
    lists = data.make_files(tmp_path, data.KINDS["mr"], senders=1, count=2)
    assert data.warm(lists) == sum(path.stat().st_size for path in lists[0])


@pytest.mark.parametrize("name", sorted(data.KINDS))
def test_all_uids_of_a_kind_have_one_length_and_are_valid(name: str) -> None:
    kind = data.KINDS[name]
    uids = [
        data.instance_uid(kind, s, n, level)
        for s in (0, 999_999)
        for n in (0, 10**9)
        for level in range(4)
    ]
    assert len({len(uid) for uid in uids}) == 1
    assert all(UID(uid).is_valid for uid in uids)
    assert len(set(uids)) == len(uids)


def test_a_template_says_where_its_uid_and_its_pixels_are() -> None:
    template = data.template(data.KINDS["mr"])
    uid = data.instance_uid(template.kind, 999_999, 0).encode()
    assert template.data[template.uid_offset : template.uid_offset + len(uid)] == uid
    assert len(template.data) - template.pixel_offset == template.pixel_bytes
    assert template.data[template.pixel_offset - 12 : template.pixel_offset - 8] == (
        b"\xe0\x7f\x10\x00"
    )


def test_the_head_of_a_big_instance_announces_its_pixels() -> None:
    template = data.big_template(2_000_000_000)
    assert template.pixel_bytes == int.from_bytes(template.data[-4:], "little")
    assert 1_990_000_000 < template.pixel_bytes <= 2_000_000_000
