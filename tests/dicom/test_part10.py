"""Heads of files: what is written is valid, and what is out there is read."""

import io
import warnings
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.dicom.errors import DicomError
from router.dicom.part10 import FileMeta, read_file_meta, write_file_meta
from router.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from tests.dicom.build import BIG, EXPLICIT, IMPLICIT, JPEG, explicit, implicit
from tests.dicom.files import dicom_files

CT = "1.2.840.10008.5.1.4.1.1.2"
CLASS = explicit(0x00080016, "UI", CT.encode() + b"\0")
INSTANCE = explicit(0x00080018, "UI", b"1.2.30")
DATA = CLASS + INSTANCE + explicit(0x00100020, "LO", b"ID")


def test_what_is_written_is_read_by_pydicom_and_by_us() -> None:
    head = write_file_meta(CT, "1.2.3", JPEG, source_ae="CT1")
    meta = pydicom.dcmread(io.BytesIO(head + DATA)).file_meta
    assert meta.FileMetaInformationVersion == b"\0\1"
    assert meta.FileMetaInformationGroupLength == len(head) - 144
    assert meta.MediaStorageSOPClassUID == CT
    assert meta.MediaStorageSOPInstanceUID == "1.2.3"
    assert meta.TransferSyntaxUID == JPEG
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert meta.ImplementationVersionName == IMPLEMENTATION_VERSION_NAME
    assert meta.SourceApplicationEntityTitle == "CT1"
    assert len(meta) == 8
    pydicom.dataset.validate_file_meta(meta, enforce_standard=True)
    assert read_file_meta(head + DATA) == FileMeta(CT, "1.2.3", JPEG, len(head))
    assert len(head) % 2 == 0


def test_the_source_is_left_out_when_it_is_not_known() -> None:
    meta = pydicom.dcmread(io.BytesIO(write_file_meta(CT, "1.2.3", EXPLICIT) + DATA)).file_meta
    assert "SourceApplicationEntityTitle" not in meta


def test_odd_values_are_written() -> None:
    head = write_file_meta("not a uid \u20ac", "x" * 65, EXPLICIT)
    assert read_file_meta(head).sop_class_uid == "not a uid ?"
    with pytest.raises(ValueError, match="0002,0003"):
        write_file_meta(CT, "1" * 65536, EXPLICIT)


HEAD = write_file_meta(CT, "1.2.30", EXPLICIT)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (DATA, FileMeta(CT, "1.2.30", EXPLICIT, 0)),
        (
            implicit(0x00080016, CT.encode() + b"\0") + implicit(0x00080018, b"1.2.30"),
            FileMeta(CT, "1.2.30", IMPLICIT, 0),
        ),
        (
            explicit(0x00080016, "UI", CT.encode() + b"\0", order=">")
            + explicit(0x00080018, "UI", b"1.2.30", order=">"),
            FileMeta(CT, "1.2.30", BIG, 0),
        ),
        (HEAD[132:] + DATA, FileMeta(CT, "1.2.30", EXPLICIT, len(HEAD) - 132)),
        (bytes(128) + HEAD[132:] + DATA, FileMeta(CT, "1.2.30", EXPLICIT, len(HEAD) - 4)),
        (bytes(128) + b"DICM" + DATA, FileMeta(CT, "1.2.30", EXPLICIT, 132)),
        (
            bytes(128) + b"DICM" + explicit(0x00020010, "UI", JPEG.encode()) + DATA,
            FileMeta(CT, "1.2.30", JPEG, 132 + 8 + len(JPEG)),
        ),
        (
            HEAD[:140] + b"\xff\xff\0\0" + HEAD[144:] + DATA,
            FileMeta(CT, "1.2.30", EXPLICIT, len(HEAD)),
        ),
        (
            bytes(128) + b"DICM" + implicit(0x00020010, IMPLICIT.encode()) + DATA,
            FileMeta(CT, "1.2.30", IMPLICIT, 132 + 8 + len(IMPLICIT)),
        ),
    ],
)
def test_tolerance(file: bytes, expected: FileMeta) -> None:
    if expected.transfer_syntax_uid == IMPLICIT and file.endswith(DATA):
        file = (
            file[: -len(DATA)] + implicit(0x00080016, CT.encode()) + implicit(0x00080018, b"1.2.30")
        )
    assert read_file_meta(file) == expected
    assert read_file_meta(memoryview(file)) == expected
    assert read_file_meta(io.BytesIO(file)) == expected


@pytest.mark.parametrize(
    ("file", "error"),
    [
        (b"", "not a DICOM file: no data set at byte 0"),
        (b"\x89PNG\r\n\x1a\n" + bytes(200), "no element at byte 0, which begins 89 50 4E 47"),
        (b"a text file that is no DICOM at all", "not a DICOM file"),
        (HEAD[:140], r"the file ends before byte 144, where \(0002,0000\) should end"),
        (HEAD[:170], r"element \(0002,0002\) at byte 158 claims 26 bytes of 170"),
        (HEAD[:160], "inside a header"),
        (
            bytes(128) + b"DICM" + explicit(0x00020010, "UT", b"", 2**31),
            r"element \(0002,0010\) at byte 132 claims 2147483648 bytes",
        ),
        (bytes(128) + b"DICM" + CLASS, r"no \(0008,0018\) in the data set at byte 132"),
        (
            bytes(128) + b"DICM" + CLASS + explicit(0x00080018, "UI", b"1.2", 400),
            r"no \(0008,0018\) .*: element \(0008,0018\) at byte 34 claims 400 bytes of 45",
        ),
    ],
)
def test_what_is_wrong_is_said(file: bytes, error: str) -> None:
    with pytest.raises(DicomError, match=error):
        read_file_meta(file)


def test_a_file_that_ends_inside_its_meta_information_is_no_empty_data_set() -> None:
    # The three values that are wanted stand before the cut; the offset was past the end.
    cut = HEAD[:-4]
    with pytest.raises(DicomError, match=r"ends before byte \d+, where \(0002,0013\) should end"):
        read_file_meta(cut)
    with pytest.raises(DicomError, match="ends before byte"):
        read_file_meta(io.BytesIO(cut))
    assert read_file_meta(HEAD).data_set_offset == len(HEAD)


def test_real_files_agree_with_pydicom() -> None:
    compared = 0
    warnings.simplefilter("ignore")  # pytest puts the filters back
    for path, meta in dicom_files():
        if "DICOMDIR" not in path.name:
            compared += agrees(path, meta)
    assert compared > 200


def agrees(path: Path, meta: FileMeta) -> bool:
    data = pydicom.dcmread(path, force=True, stop_before_pixels=True)
    syntax = data.file_meta.get("TransferSyntaxUID")
    if syntax:
        assert meta.transfer_syntax_uid == syntax, path
    classes = {data.file_meta.get("MediaStorageSOPClassUID"), data.get("SOPClassUID")}
    instances = {data.file_meta.get("MediaStorageSOPInstanceUID"), data.get("SOPInstanceUID")}
    assert meta.sop_class_uid in classes, path
    assert meta.sop_instance_uid in instances, path
    return True


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for file in (data, bytes(128) + b"DICM" + data, HEAD[:200] + data):
        try:
            meta = read_file_meta(file)
        except DicomError:
            continue
        assert meta.sop_class_uid
        assert meta.sop_instance_uid
