"""Whatever the bytes: no exception, bounded work, and the same answer however they are cut."""

from collections.abc import Iterable
from pathlib import Path

import pydicom
from hypothesis import given, settings
from hypothesis import strategies as st

from router.dicom.scan import Scanner
from router.dicom.wanted import Key
from rules.attributes import Private
from tests.dicom.build import (
    BIG,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    ITEM_END,
    SEQUENCE_END,
    UNDEFINED,
    deflate,
    explicit,
    implicit,
    item,
)
from tests.dicom.files import data_set, dicom_files
from tests.dicom.oracle import expected

SYNTAXES = st.sampled_from([IMPLICIT, EXPLICIT, BIG, DEFLATED])
TAGS_WANTED = (
    *(0x00080005, 0x00080016, 0x00080060, 0x00100010, 0x00181310, 0x0020000E, 0x00280106),
    *(0x00081140, 0x00091001, 0x00090010),
)
PRIVATE = Private(0x0009, "AB", 0x01)
STEPS = st.sampled_from([*TAGS_WANTED, PRIVATE, Private(0x0021, "MFSPLIT", 0x01)])
KEYS = st.one_of(STEPS, st.lists(STEPS, min_size=2, max_size=4).map(tuple))
WANTED = st.lists(KEYS, max_size=8).map(lambda keys: (0x00080016, 0x0020000E, *keys))
VRS = st.sampled_from(
    ["CS", "LO", "PN", "UI", "US", "FL", "FD", "AT", "DS", "UN", "OB", "SQ", "UT"]
)


def scan(syntax: str, data: bytes, wanted: tuple[Key, ...], cuts: list[int], limit: int) -> Scanner:
    scanner = Scanner(syntax, wanted, value_limit=100, byte_limit=limit)
    at = 0
    for size in cuts:
        if scanner.feed(memoryview(data)[at : at + size]):
            break
        at += size
    scanner.feed(data[at:])
    scanner.finish()
    return scanner


def check(
    syntax: str, data: bytes, wanted: tuple[Key, ...], cuts: list[int], limit: int = 10_000
) -> Scanner:
    whole = scan(syntax, data, wanted, [], limit)
    cut = scan(syntax, data, wanted, cuts, limit)
    # zlib keeps back what it inflated just before the damage: there the cuts may tell.
    if not any("deflated data set is damaged" in scanner.error for scanner in (whole, cut)):
        assert cut.found == whole.found
        assert cut.attributes() == whole.attributes()
        assert cut.too_large == whole.too_large
        assert cut.error == whole.error
    assert whole.done
    assert all(len(value) <= 100 for _, value in whole.found.values())
    assert all(values.size <= 100 for values in whole.gathered.values())
    found = whole.found.keys() | whole.gathered.keys() | whole.too_large
    assert whole.attributes().keys() == found
    assert found <= {*wanted, 0x00080005, 0x00280103}
    return whole


CUTS = st.lists(st.integers(0, 40), max_size=60)


@given(SYNTAXES, st.binary(max_size=400), WANTED, CUTS)
@settings(max_examples=300, deadline=None)
def test_any_bytes(syntax: str, data: bytes, wanted: tuple[Key, ...], cuts: list[int]) -> None:
    check(syntax, data, wanted, cuts)


@given(SYNTAXES, st.binary(max_size=300), WANTED, CUTS)
@settings(max_examples=150, deadline=None)
def test_any_bytes_behind_a_good_element(
    syntax: str, data: bytes, wanted: tuple[Key, ...], cuts: list[int]
) -> None:
    head = {
        IMPLICIT: implicit(0x00080008, b"ORIGINAL"),
        BIG: explicit(0x00080008, "CS", b"ORIGINAL", order=">"),
    }.get(syntax, explicit(0x00080008, "CS", b"ORIGINAL"))
    whole = head + data
    check(syntax, deflate(whole) if syntax == DEFLATED else whole, wanted, cuts)


TAGS = st.one_of(st.sampled_from(TAGS_WANTED), st.integers(0x00080001, 0x00300000))
SMALL = st.binary(max_size=24)


@st.composite
def trees(draw: st.DrawFn, depth: int = 0) -> bytes:
    """Elements and sequences of explicit VR, well formed or nearly so."""
    kinds = ["plain", "plain", "implicit", "lying", "creator"] + ["defined", "undefined"] * (
        depth < 3
    )
    made = b""
    for kind in draw(st.lists(st.sampled_from(kinds), max_size=4)):
        tag = draw(TAGS)
        if kind == "plain":
            made += explicit(tag, draw(VRS), draw(st.binary(max_size=120)))
        elif kind == "creator":
            made += explicit(0x00090000 + draw(st.sampled_from([0x10, 0x11])), "LO", b"AB")
        elif kind == "implicit":
            made += implicit(tag, draw(SMALL))
        elif kind == "lying":
            length = draw(st.sampled_from([0, 1, 0x1000, 0xFFFF, UNDEFINED]))
            vr = draw(VRS) if length < 0x10000 else draw(st.sampled_from(["UT", "UN", "OB", "SQ"]))
            made += explicit(tag, vr, draw(SMALL), length)
        else:
            inside = b""
            for ending in draw(st.lists(st.sampled_from(["", "end", "none"]), max_size=3)):
                value = draw(trees(depth + 1))
                inside += item(value, UNDEFINED if ending else None)
                inside += ITEM_END if ending == "end" else b""
            if kind == "defined":
                made += explicit(tag, draw(st.sampled_from(["SQ", "SQ", "UN"])), inside)
            else:
                vr = draw(st.sampled_from(["SQ", "UN", "OB"]))
                made += explicit(tag, vr, inside, UNDEFINED) + SEQUENCE_END
    return made


@given(trees(), WANTED, CUTS, st.sampled_from([100, 10_000]))
@settings(max_examples=400, deadline=None)
def test_trees_of_elements(
    data: bytes, wanted: tuple[Key, ...], cuts: list[int], limit: int
) -> None:
    check(EXPLICIT, explicit(0x00080008, "CS", b"ORIGINAL") + data, wanted, cuts, limit)


def read_keys(path: Path) -> Iterable[Key]:
    """What is in a file, what its sequences hold first."""
    data = pydicom.dcmread(path, stop_before_pixels=True)
    return sorted(expected(data), key=lambda key: not isinstance(key, tuple))


REAL = [
    (meta.transfer_syntax_uid, data_set(path, meta)[:3000], tuple(read_keys(path)))
    for path, meta in dicom_files()
    if path.name
    in {
        "CT_small.dcm",
        "MR_small_implicit.dcm",
        "MR_small_bigendian.dcm",
        "image_dfl.dcm",
        "chrH31.dcm",
        "nested_priv_SQ.dcm",
        "reportsi.dcm",
    }
]


@given(st.sampled_from(REAL), st.data(), CUTS)
@settings(max_examples=250, deadline=None)
def test_damaged_files(
    file: tuple[str, bytes, tuple[Key, ...]], draw: st.DataObject, cuts: list[int]
) -> None:
    syntax, original, keys = file
    wanted = tuple(draw.draw(st.lists(st.sampled_from(keys), min_size=1, max_size=20)))
    data = bytearray(original)
    for _ in range(draw.draw(st.integers(0, 6))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    check(syntax, bytes(data[: draw.draw(st.integers(0, len(data)))]), wanted, cuts)


@given(st.lists(st.tuples(st.integers(0x00080018, 0x0020000D), st.binary(max_size=90))))
@settings(max_examples=100, deadline=None)
def test_what_was_written_is_found(values: list[tuple[int, bytes]]) -> None:
    wanted = {0x00080016: b"1.2", **dict(values)}
    data = b"".join(explicit(tag, "LO", value) for tag, value in wanted.items())
    scanner = Scanner(EXPLICIT, tuple(wanted))
    scanner.feed(data)
    scanner.finish()
    assert scanner.error == ""
    assert {tag: value for tag, (_, value) in scanner.found.items()} == wanted
