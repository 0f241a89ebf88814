"""Values as text, by value representation."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.dicom.charset import DEFAULT
from router.dicom.values import dictionary_vr, text_values

PRIVATE = 0x00191082


def read(vr: str, value: bytes, tag: int = PRIVATE, **options: bool) -> tuple[str, ...]:
    return text_values(tag, vr, value, DEFAULT, **options)


@pytest.mark.parametrize(
    ("vr", "value", "texts"),
    [
        ("CS", b" HEAD \\ BRAIN ", ("HEAD", "BRAIN")),
        ("CS", b"", ()),
        ("CS", b"  ", ()),
        ("CS", b"A\\", ("A", "")),
        ("CS", b"\\A", ("", "A")),
        ("UI", b"1.2.3\0", ("1.2.3",)),
        ("UI", b"1.2.3\0\0 ", ("1.2.3",)),
        ("UI", b"1.2\\1.3\0", ("1.2", "1.3")),
        ("AE", b"  PACS1 ", ("PACS1",)),
        ("LO", b" a \\b\0", ("a", "b")),
        ("PN", b" Doe^John ", (" Doe^John",)),
        ("ST", b" a\\b ", (" a\\b",)),
        ("UT", b"  ", ()),
        ("UR", b"http://x/\\y ", ("http://x/\\y",)),
        ("UC", b" a\\b ", (" a", "b")),
        ("IS", b" 1.0 ", ("1.0",)),
        ("DS", b"0.50 \\-1e3", ("0.50", "-1e3")),
        ("DA", b"20240131", ("20240131",)),
        ("US", b"\1\0\xff\xff", ("1", "65535")),
        ("US", b"\1\0\xff", ("1",)),
        ("SS", b"\xff\xff", ("-1",)),
        ("UL", b"\xff\xff\xff\xff", ("4294967295",)),
        ("SV", b"\xff" * 8, ("-1",)),
        ("FL", struct.pack("<ff", 0.1, 3.0), ("0.1", "3")),
        ("FL", struct.pack("<f", 3.4028234663852886e38), ("3.4028235e+38",)),
        ("FD", struct.pack("<dd", 0.1, -2.0), ("0.1", "-2")),
        ("AT", b"\x10\0\x20\0\x08\0", ("00100020",)),
        ("OB", b"text", ()),
        ("SQ", b"text", ()),
        ("UN", b"d\0", ()),
        ("UN", b"\1\2\3\4", ()),
        ("UN", b"HEAD \\NECK", ("HEAD", "NECK")),
        ("UN", b"1.2.840.10008\0", ("1.2.840.10008",)),
    ],
)
def test_texts(vr: str, value: bytes, texts: tuple[str, ...]) -> None:
    assert read(vr, value) == texts


def test_big_endian() -> None:
    assert read("US", b"\1\0", big_endian=True) == ("256",)
    assert read("AT", b"\0\x10\0\x20", big_endian=True) == ("00100020",)


def test_ambiguous_sign() -> None:
    assert read("US or SS", b"\xff\xff", 0x00280106) == ("65535",)
    assert read("US or SS", b"\xff\xff", 0x00280106, signed=True) == ("-1",)


@pytest.mark.parametrize(
    ("tag", "vr"),
    [
        (0x00100010, "PN"),
        (0x00100000, "UL"),
        (0x00190010, "LO"),
        (PRIVATE, "UN"),
        (0x00080003, "UN"),
        (0x60020010, "US"),
        (0x00280106, "US or SS"),
    ],
)
def test_dictionary(tag: int, vr: str) -> None:
    assert dictionary_vr(tag) == vr


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_float_reads_back_as_itself(number: float) -> None:
    (text,) = read("FL", struct.pack("<f", number))
    assert struct.pack("<f", float(text)) == struct.pack("<f", number)


@given(st.sampled_from(["FL", "FD", "US", "AT", "SV", "UN", "OB"]), st.binary(max_size=40))
def test_no_bytes_raise(vr: str, value: bytes) -> None:
    assert isinstance(read(vr, value), tuple)
