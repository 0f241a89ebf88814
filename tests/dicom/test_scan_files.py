"""The scanner against pydicom: every real file to full depth, as it is and in other encodings."""

import random
import warnings
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import pydicom
import pytest

from router.dicom.part10 import FileMeta
from router.dicom.scan import Scanner
from router.dicom.values import is_ambiguous
from router.dicom.wanted import Key
from rules.attributes import Private
from tests.dicom.build import BIG, EXPLICIT, IMPLICIT
from tests.dicom.files import data_set, dicom_files
from tests.dicom.oracle import Expected, differences, expected
from tests.dicom.rewrite import ENCODINGS, written

FILES = [
    pytest.param(path, meta, id=f"{path.parent.name}/{path.name}") for path, meta in dicom_files()
]
# What is wrong with those of them that are damaged; pydicom reads on.
DAMAGED = {
    "MR_truncated.dcm": "element (7FE0,0010) at byte 1154 claims 8192 bytes of 9296",
    "rtplan_truncated.dcm": "element (300A,012C) at byte 1792 claims 50 bytes of 1829",
    "DICOMDIR-nooffset": "element (FFFE,E000) at byte 10530 claims 248 bytes, past the end of its "
    "sequence at byte 10762",
}


def scan(syntax: str, wanted: Collection[Key], pieces: Iterable[bytes | memoryview]) -> Scanner:
    limits = {"value_limit": 2**30, "byte_limit": 2**30, "parts_limit": 2**30}
    scanner = Scanner(syntax, frozenset(wanted), **limits)
    for piece in pieces:
        if scanner.feed(piece):
            break
    scanner.finish()
    return scanner


def of_size(data: bytes, size: int) -> Iterable[memoryview]:
    return (memoryview(data)[at : at + size] for at in range(0, len(data), size))


def at_random(data: bytes, seed: str) -> Iterable[memoryview]:
    chance = random.Random(seed)
    at = 0
    while at < len(data):
        size = chance.choice((1, 2, 7, 8, 9, 12, 30, 200, 5000))
        yield memoryview(data)[at : at + size]
        at += size


def everything(scanner: Scanner) -> tuple[Any, ...]:
    return scanner.found, scanner.attributes(), scanner.too_large, scanner.error


def keys_of(data: pydicom.Dataset) -> dict[Key, Expected]:
    return {
        key: entry
        for key, entry in expected(data).items()
        if not (isinstance(key, int) and key >> 16 == 2)
    }


@pytest.mark.parametrize(("path", "meta"), FILES)
def test_values_are_those_of_pydicom(path: Path, meta: FileMeta) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = keys_of(pydicom.dcmread(path, force=True))
    data = data_set(path, meta)
    syntax = meta.transfer_syntax_uid
    whole = scan(syntax, wanted, (data,))
    assert whole.error == DAMAGED.get(path.name, "")
    wrong = differences(whole.attributes(), wanted)
    if whole.error:
        found = whole.attributes()
        short = {repr(key) for key, e in wanted.items() if len(found.get(key, ())) < len(e.values)}
        wrong = {key: wrong[key] for key in wrong.keys() - short - {repr(0x7FE00010)}}
    assert not wrong
    assert all(vr for vr, _ in whole.found.values())
    cuts = [of_size(data, 1000), at_random(data[:50_000], path.name)]
    if len(data) < 12_000:
        cuts.append(of_size(data, 1))
    if len(data) > 50_000:
        cuts[1] = [*cuts[1], memoryview(data)[50_000:]]
    for pieces in cuts:
        assert everything(scan(syntax, wanted, pieces)) == everything(whole)


@pytest.mark.parametrize(("path", "meta"), FILES)
def test_values_are_those_of_pydicom_in_every_encoding(path: Path, meta: FileMeta) -> None:
    del meta
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = pydicom.dcmread(path, force=True)
        for tag in [tag for tag in data if tag.tag.group == 0x7FE0]:
            del data[tag.tag]
        for element in data.iterall():
            assert element.value is element.value  # read before it is written otherwise
        for name, encoding in ENCODINGS.items():
            encoded, again = written(data, encoding)
            wanted = keys_of(again)
            if name == "implicit, undefined lengths":
                # Here pydicom does not look at the Pixel Representation around the sequence.
                for key, entry in wanted.items():
                    if isinstance(key, tuple) and isinstance(key[-1], int):
                        entry.known &= not is_ambiguous(key[-1])
            scanner = scan(encoding.syntax, wanted, (encoded,))
            assert scanner.error == "", name
            assert not differences(scanner.attributes(), wanted), name


def test_the_files_cover_what_they_should() -> None:
    files = dicom_files()
    assert len(files) > 200
    syntaxes = {meta.transfer_syntax_uid for _, meta in files}
    assert {IMPLICIT, EXPLICIT, BIG, f"{EXPLICIT}.99", "1.2.840.10008.1.2.5"} <= syntaxes
    keys: list[Key] = []
    terms = set()
    for path, _ in files:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = pydicom.dcmread(path, force=True, stop_before_pixels=True)
        keys += keys_of(data)
        terms.add(str(data.get("SpecificCharacterSet")))
    paths = [key for key in keys if isinstance(key, tuple)]
    assert len(paths) > 1500
    assert max(map(len, paths)) >= 6
    assert sum(isinstance(key, Private) for key in keys) > 1000
    assert any(isinstance(step, Private) for path in paths for step in path[:-1])
    assert len(terms) > 10
