"""The tables of transfer syntaxes and SOP classes."""

import csv
import uuid
from importlib import resources

import pytest
from pydicom.uid import UID, AllTransferSyntaxes
from pynetdicom import AllStoragePresentationContexts

from router.dicom import uids
from router.dicom.uids import is_storage, parse_transfer_syntax, storage_sop_classes


def test_our_own_identity() -> None:
    root, _, number = uids.IMPLEMENTATION_CLASS_UID.rpartition(".")
    assert root == "2.25"
    assert uuid.UUID(int=int(number)).version == 4
    assert len(uids.IMPLEMENTATION_CLASS_UID) <= 64
    assert len(uids.IMPLEMENTATION_VERSION_NAME) <= 16


def test_every_transfer_syntax_of_the_library_is_known_and_described_alike() -> None:
    for uid in AllTransferSyntaxes:
        syntax = uids.TRANSFER_SYNTAXES[uid]
        video_over_ip = uid.startswith("1.2.840.10008.1.2.7.")  # of PS3.22, not for associations
        assert syntax.short_name or UID(uid).is_retired or video_over_ip, syntax
        assert syntax.is_explicit == (not uid.is_implicit_VR), syntax
        assert syntax.is_big_endian == (not uid.is_little_endian), syntax
        if syntax.uid.startswith("1.2.840.10008.1.2.4.5"):
            assert syntax.is_encapsulated
    assert uids.transfer_syntax(uids.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN).is_deflated
    assert not uids.transfer_syntax(uids.EXPLICIT_VR_LITTLE_ENDIAN).is_encapsulated


def test_an_unknown_syntax_is_explicit_little_endian() -> None:
    private = uids.transfer_syntax("1.2.3.4")
    assert private.is_explicit
    assert private.is_encapsulated
    assert not private.is_big_endian
    assert not private.is_deflated


def test_names_are_unique() -> None:
    names = [s.short_name for s in uids.TRANSFER_SYNTAXES.values() if s.short_name]
    assert len(names) == len(set(names))
    for syntax in uids.TRANSFER_SYNTAXES.values():
        for name in (syntax.short_name, syntax.keyword):
            assert not name or parse_transfer_syntax(name) == syntax.uid


@pytest.mark.parametrize(
    ("text", "uid"),
    [
        ("implicit-vr-le", "1.2.840.10008.1.2"),
        ("explicit-vr-le", "1.2.840.10008.1.2.1"),
        ("explicit-vr-be", "1.2.840.10008.1.2.2"),
        ("deflated", "1.2.840.10008.1.2.1.99"),
        ("jpeg-baseline", "1.2.840.10008.1.2.4.50"),
        ("jpeg-lossless", "1.2.840.10008.1.2.4.70"),
        ("jpeg-ls-lossless", "1.2.840.10008.1.2.4.80"),
        ("jpeg-2000-lossless", "1.2.840.10008.1.2.4.90"),
        ("htj2k-lossless", "1.2.840.10008.1.2.4.201"),
        (" RLE ", "1.2.840.10008.1.2.5"),
        ("JPEGLosslessSV1", "1.2.840.10008.1.2.4.70"),
        ("explicitvrlittleendian", "1.2.840.10008.1.2.1"),
        ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.50"),
        ("1.3.6.1.4.1.9999.1", "1.3.6.1.4.1.9999.1"),
    ],
)
def test_parse(text: str, uid: str) -> None:
    assert parse_transfer_syntax(text) == uid


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("jpeg-ls-lossles", "jpeg-ls-lossless"),
        ("explicit-vr-lee", "explicit-vr-le"),
        ("jpeg2000-lossless", "jpeg-2000-lossless"),
        ("", ""),
        ("1", ""),
        ("1." * 40 + "1", ""),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(text: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"the nearest known is '{nearest}"):
        parse_transfer_syntax(text)


def test_storage_classes_are_those_of_every_table() -> None:
    classes = storage_sop_classes()
    table = resources.files("router.dicom").joinpath("data/storage-classes.csv").read_text()
    rows = [row["sop_class_uid"] for row in csv.DictReader(table.splitlines())]
    assert len(rows) == len(set(rows)) == 151
    assert set(rows) <= set(classes)
    assert {str(c.abstract_syntax) for c in AllStoragePresentationContexts} <= set(classes)
    assert all(any(c.isalpha() for c in name) for name in classes.values())


@pytest.mark.parametrize(
    ("uid", "storage"),
    [
        ("1.2.840.10008.5.1.4.1.1.2", True),
        ("1.2.840.10008.5.1.4.1.1.5", True),  # retired
        ("1.3.12.2.1107.5.9.1", True),  # private
        ("1.2.840.10008.5.1.4.1.1.501.1", True),  # DICOS
        ("1.2.840.10008.5.1.4.1.1.66.7", True),  # newer than the dictionary
        ("1.2.840.10008.5.1.4.38.1", True),  # without a patient
        ("1.2.840.10008.1.1", False),
        ("1.2.840.10008.5.1.4.1.2.2.1", False),
        ("1.2.840.10008.5.1.4.31", False),
        ("1.2.840.10008.3.1.2.3.3", False),
        ("1.2.840.10008.1.20.1", False),
        ("1.2.840.10008.5.1.1.9", False),
        ("1.2.840.10008.1.3.10", False),
        ("1.2.840.10008.1.2", False),
        ("1.2.3.4", None),
        ("", None),
    ],
)
def test_is_storage(uid: str, storage: bool | None) -> None:
    assert is_storage(uid) is storage


def test_names_of_classes() -> None:
    classes = storage_sop_classes()
    assert classes["1.2.840.10008.5.1.4.1.1.2"] == "CT Image Storage"
    assert classes["1.2.840.10008.5.1.4.1.1.5"] == "Nuclear Medicine Image Storage (Retired)"
    assert classes["1.3.12.2.1107.5.9.1"] == "Siemens Private CSA Non-Image Storage"
