"""The data sets of storage commitment, against pydicom and against bad bytes."""

import struct
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from router.commitment import dataset as module
from router.commitment.dataset import (
    EXPLICIT,
    IMPLICIT,
    MISSING_ATTRIBUTE,
    MISSING_ATTRIBUTE_VALUE,
    MOST_ITEMS,
    NO_SUCH_OBJECT_INSTANCE,
    PROCESSING_FAILURE,
    RESOURCE_LIMITATION,
    TRANSFER_SYNTAXES,
    Failure,
    Item,
    MalformedCommitment,
    decode_action,
    decode_report,
    describe_reason,
    encode_action,
    encode_report,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
A, B, C = Item(CT, "1.2.3"), Item(CT, "1.2.34"), Item("1.2.840.10008.5.1.4.1.1.4", "2.25.7")
BIG = "1.2.840.10008.1.2.2"


def pydicom_of(data: bytes, syntax: str) -> Dataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = meta.MediaStorageSOPInstanceUID = "1.2"
    head = BytesIO()
    dcmwrite(head, _with_meta(meta), enforce_file_format=True)
    return dcmread(BytesIO(head.getvalue() + data))


def _with_meta(meta: FileMetaDataset) -> Dataset:
    empty = Dataset()
    empty.file_meta = meta
    return empty


def encoded(data: Dataset, syntax: str) -> bytes:
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = syntax != BIG, syntax == IMPLICIT
    write_dataset(out, data)
    return out.getvalue()


def references(*items: Item) -> list[Dataset]:
    result = []
    for one in items:
        item = Dataset()
        item.ReferencedSOPClassUID = one.sop_class_uid
        item.ReferencedSOPInstanceUID = one.sop_instance_uid
        result.append(item)
    return result


# -- mistakes ----------------------------------------------------------------------------------


def test_no_transaction_uid() -> None:
    data = Dataset()
    data.ReferencedSOPSequence = references(A)
    with pytest.raises(MalformedCommitment, match=r"no Transaction UID \(0008,1195\)") as caught:
        decode_action(encoded(data, IMPLICIT), IMPLICIT)
    assert caught.value.status == MISSING_ATTRIBUTE


def test_no_sequence_and_an_empty_one() -> None:
    data = Dataset()
    data.TransactionUID = "1.2"
    with pytest.raises(MalformedCommitment, match="no Referenced SOP Sequence") as caught:
        decode_action(encoded(data, IMPLICIT), IMPLICIT)
    assert caught.value.status == MISSING_ATTRIBUTE
    data.ReferencedSOPSequence = []
    with pytest.raises(MalformedCommitment, match="has no items") as caught:
        decode_action(encoded(data, IMPLICIT), IMPLICIT)
    assert caught.value.status == MISSING_ATTRIBUTE_VALUE


def test_an_item_without_an_instance() -> None:
    data = Dataset()
    data.TransactionUID = "1.2"
    data.ReferencedSOPSequence = references(A, B)
    del data.ReferencedSOPSequence[1].ReferencedSOPInstanceUID
    with pytest.raises(MalformedCommitment, match="no Referenced SOP Instance UID"):
        decode_action(encoded(data, EXPLICIT), EXPLICIT)


@pytest.mark.parametrize("uid", ["", "a.b", "1" * 66, "1.2\\1.3"])
def test_uids_that_are_none(uid: str) -> None:
    value = uid.encode() + b"\0" * (len(uid) % 2)
    data = struct.pack("<HHI", 8, 0x1195, len(value)) + value
    with pytest.raises(MalformedCommitment, match="Transaction UID"):
        decode_report(data, IMPLICIT)
    with pytest.raises(ValueError, match="is no UID"):
        encode_action(uid, [A])


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_cut_off_anywhere(syntax: str) -> None:
    whole = encode_action("1.2.3", [A, B, C], syntax)
    for length in range(len(whole)):
        with pytest.raises(MalformedCommitment):
            decode_action(whole[:length], syntax)


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_more_items_than_bearable(syntax: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode_action("1.2", [A] * 11, syntax)
    monkeypatch.setattr(module, "MOST_ITEMS", 10)
    with pytest.raises(MalformedCommitment, match="more than 10 items") as caught:
        decode_action(data, syntax)
    assert caught.value.status == RESOURCE_LIMITATION
    with pytest.raises(ValueError, match="10 references at most, not 11"):
        encode_report("1.2", [A] * 5, [Failure(A, 0x110)] * 6)


def test_more_bytes_than_bearable(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode_action("1.2", [A, B])
    monkeypatch.setattr(module, "LARGEST", len(data) - 1)
    with pytest.raises(MalformedCommitment, match="more than"):
        decode_action(data, IMPLICIT)


def test_items_in_items_without_end() -> None:
    nested = struct.pack("<HHI", 8, 0x1140, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, ~0 & 0xFFFFFFFF
    )
    with pytest.raises(MalformedCommitment, match="sequences more than 16 deep"):
        decode_action(nested * 1000, IMPLICIT)


def test_none_asked_for() -> None:
    with pytest.raises(ValueError, match="one instance at least"):
        encode_action("1.2", [])


def test_a_transfer_syntax_that_is_not_read() -> None:
    with pytest.raises(ValueError, match="not encoded in"):
        decode_action(b"", "1.2.840.10008.1.2.4.70")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(TRANSFER_SYNTAXES))
def test_anything_is_read_or_malformed(data: bytes, syntax: str) -> None:
    for decode in (decode_action, decode_report):
        try:
            assert decode(data, syntax).transaction_uid
        except MalformedCommitment as error:
            assert str(error)  # noqa: PT017 - that nothing else is raised is the point


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 200), st.integers(0, 255), st.sampled_from(TRANSFER_SYNTAXES), st.booleans())
def test_one_byte_changed_is_read_or_malformed(
    at: int, value: int, syntax: str, report: bool
) -> None:
    data = bytearray(
        encode_report("1.2.3", [A, B], [Failure(C, 0x112)], syntax)
        if report
        else encode_action("1.2.3", [A, B, C], syntax)
    )
    data[at % len(data)] = value
    try:
        decoded = (decode_report if report else decode_action)(bytes(data), syntax)
    except MalformedCommitment:
        return
    assert decoded.transaction_uid


# -- what is right -----------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_pydicom_reads_what_we_ask(syntax: str) -> None:
    read = pydicom_of(encode_action("1.2.3", [A, B], syntax), syntax)
    assert read.TransactionUID == "1.2.3"
    assert [
        Item(one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID)
        for one in read.ReferencedSOPSequence
    ] == [A, B]
    assert list(read.keys()) == sorted(read.keys())


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_pydicom_reads_what_we_report(syntax: str) -> None:
    read = pydicom_of(encode_report("1.2.3", [A], [Failure(B, 0x112)], syntax), syntax)
    assert [one.ReferencedSOPInstanceUID for one in read.ReferencedSOPSequence] == ["1.2.3"]
    assert [one.FailureReason for one in read.FailedSOPSequence] == [0x112]
    all_well = pydicom_of(encode_report("1.2.3", [A], [], syntax), syntax)
    assert "FailedSOPSequence" not in all_well


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
@pytest.mark.parametrize("undefined", [False, True])
def test_what_pydicom_writes_is_read(syntax: str, undefined: bool) -> None:
    data = Dataset()
    data.RetrieveAETitle = "ARCHIVE"
    data.TransactionUID = "1.2.3"
    data.ReferencedSOPSequence = references(A, B)
    data.ReferencedSOPSequence[0].PurposeOfReferenceCodeSequence = references(C)
    data.FailedSOPSequence = references(C)
    data.FailedSOPSequence[0].FailureReason = NO_SUCH_OBJECT_INSTANCE
    data.StorageMediaFileSetID = "DISK"
    if undefined:
        for sequence in ("ReferencedSOPSequence", "FailedSOPSequence"):
            data[sequence].is_undefined_length = True
            for item in data[sequence].value:
                item.is_undefined_length_sequence_item = True
        inner = data.ReferencedSOPSequence[0]
        inner["PurposeOfReferenceCodeSequence"].is_undefined_length = True
    report = decode_report(encoded(data, syntax), syntax)
    assert report.transaction_uid == "1.2.3"
    assert report.committed == (A, B)
    assert report.failed == (Failure(C, NO_SUCH_OBJECT_INSTANCE),)
    assert report.event_type == 2
    assert decode_action(encoded(data, syntax), syntax).items == (A, B)


def test_a_failure_without_a_reason_is_a_processing_failure() -> None:
    data = Dataset()
    data.TransactionUID = "1.2.3"
    data.FailedSOPSequence = references(C)
    report = decode_report(encoded(data, IMPLICIT), IMPLICIT)
    assert report.failed == (Failure(C, PROCESSING_FAILURE),)


def test_the_largest() -> None:
    items = [Item(CT, f"2.25.{n}") for n in range(MOST_ITEMS)]
    assert list(decode_action(encode_action("1.2", items), IMPLICIT).items) == items


def test_reasons_in_words() -> None:
    assert describe_reason(0x112) == "0112H, no such object instance"
    assert describe_reason(0xC001) == "C001H, a reason that the standard does not name"
