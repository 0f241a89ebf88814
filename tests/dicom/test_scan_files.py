"""The scanner against pydicom on every real file, however the bytes are cut."""

import math
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from router.dicom.part10 import FileMeta
from router.dicom.scan import Scanner
from tests.dicom.files import data_set, dicom_files

TEXT = {"AE", "AS", "CS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
NUMBERS = {"AT", "DS", "IS", "FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"}
BOTH_ENDS = {"AE", "CS", "LO", "SH"}


def readable() -> Iterator[tuple[Path, FileMeta]]:
    return iter(dicom_files())


def oracle(path: Path) -> dict[int, tuple[str, list[Any]]]:
    """VR and values of the top-level text and number elements, as pydicom has them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        elements = {}
        data = pydicom.dcmread(path, force=True)
        for tag in data:
            if tag.VR not in TEXT | NUMBERS or isinstance(tag.value, bytes):
                continue
            value = tag.value
            if value is None or (tag.VR in TEXT and str(value) == ""):
                values = []
            else:
                several = isinstance(value, list | pydicom.multival.MultiValue)
                values = list(value) if several else [value]
            elements[int(tag.tag)] = (tag.VR, values)
    return elements


def same(vr: str, text: str, value: Any) -> bool:
    if vr == "AT":
        return text == f"{int(value):08X}"
    if vr == "FL":
        packed = struct.pack("<f", value)
        return struct.pack("<f", float(text)) == packed
    if vr in NUMBERS:
        if isinstance(value, str):
            return text == value
        return float(text) == float(value) or math.isnan(value)
    expected = str(value).rstrip(" \0")
    if vr in BOTH_ENDS:
        expected = expected.strip(" \0")
    if vr == "PN":
        return text.rstrip("=") == expected.rstrip("=")
    return text == expected


def scan(meta: FileMeta, data: bytes, wanted: frozenset[int], size: int) -> Scanner:
    scanner = Scanner(meta.transfer_syntax_uid, wanted, value_limit=2**30, byte_limit=2**30)
    view = memoryview(data)
    for at in range(0, len(data), size):
        if scanner.feed(view[at : at + size]):
            break
    scanner.finish()
    return scanner


@pytest.mark.parametrize(
    ("path", "meta"), [pytest.param(*f, id=f"{f[0].parent.name}/{f[0].name}") for f in readable()]
)
def test_values_are_those_of_pydicom(path: Path, meta: FileMeta) -> None:
    expected = oracle(path)
    wanted = frozenset(expected)
    data = data_set(path, meta)
    whole = scan(meta, data, wanted, len(data) or 1)
    wrong = {}
    for tag, (vr, values) in expected.items():
        texts = whole.text(tag)
        if tag >> 16 & 1 and whole.found.get(tag, ("",))[0] == "UN":
            continue  # pydicom knows some private tags; without their VR they are left alone
        texts = texts or ()
        pairs = zip(texts, values, strict=False)
        if len(texts) != len(values) or not all(same(vr, *pair) for pair in pairs):
            wrong[f"{tag:08X}"] = (vr, texts, values)
    assert not wrong, whole.error
    for size in (1000, *([1] if len(data) < 12_000 else [])):
        cut = scan(meta, data, wanted, size)
        assert (cut.found, cut.error) == (whole.found, whole.error), f"in pieces of {size}"
    assert all(vr for vr, _ in whole.found.values())


def test_the_files_cover_the_encodings() -> None:
    syntaxes = {meta.transfer_syntax_uid for _, meta in readable()}
    assert len(list(readable())) > 200
    assert {f"1.2.840.10008.1.2{tail}" for tail in ("", ".1", ".1.99", ".2", ".5")} <= syntaxes
