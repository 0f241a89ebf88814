"""Whatever the bytes: no exception, bounded work, and the same answer however they are cut."""

from hypothesis import given, settings
from hypothesis import strategies as st

from router.dicom.scan import Scanner
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

SYNTAXES = st.sampled_from([IMPLICIT, EXPLICIT, BIG, DEFLATED])
WANTED = (0x00080005, 0x00080016, 0x00080060, 0x00100010, 0x00181310, 0x0020000E, 0x00280106)
VRS = st.sampled_from(
    ["CS", "LO", "PN", "UI", "US", "FL", "FD", "AT", "DS", "UN", "OB", "SQ", "UT"]
)


def scan(syntax: str, data: bytes, cuts: list[int], limit: int) -> Scanner:
    scanner = Scanner(syntax, WANTED, value_limit=100, byte_limit=limit)
    at = 0
    for size in cuts:
        if scanner.feed(memoryview(data)[at : at + size]):
            break
        at += size
    scanner.feed(data[at:])
    scanner.finish()
    return scanner


def check(syntax: str, data: bytes, cuts: list[int], limit: int = 10_000) -> Scanner:
    whole = scan(syntax, data, [], limit)
    cut = scan(syntax, data, cuts, limit)
    # zlib keeps back what it inflated just before the damage: there the cuts may tell.
    if not any("deflated data set is damaged" in scanner.error for scanner in (whole, cut)):
        assert cut.found == whole.found
        assert cut.too_large == whole.too_large
        assert cut.error == whole.error
    assert whole.done
    assert all(len(value) <= 100 for _, value in whole.found.values())
    assert set(whole.attributes()) == set(whole.found)
    return whole


CUTS = st.lists(st.integers(0, 40), max_size=60)


@given(SYNTAXES, st.binary(max_size=400), CUTS)
@settings(max_examples=300, deadline=None)
def test_any_bytes(syntax: str, data: bytes, cuts: list[int]) -> None:
    check(syntax, data, cuts)


@given(SYNTAXES, st.binary(max_size=300), CUTS)
@settings(max_examples=150, deadline=None)
def test_any_bytes_behind_a_good_element(syntax: str, data: bytes, cuts: list[int]) -> None:
    head = {
        IMPLICIT: implicit(0x00080008, b"ORIGINAL"),
        BIG: explicit(0x00080008, "CS", b"ORIGINAL", order=">"),
    }.get(syntax, explicit(0x00080008, "CS", b"ORIGINAL"))
    whole = head + data
    check(syntax, deflate(whole) if syntax == DEFLATED else whole, cuts)


TAGS = st.one_of(st.sampled_from(WANTED), st.integers(0x00080001, 0x00300000))
SMALL = st.binary(max_size=24)


@st.composite
def trees(draw: st.DrawFn, depth: int = 0) -> bytes:
    """Elements and sequences of explicit VR, well formed or nearly so."""
    kinds = ["plain", "plain", "implicit", "lying"] + ["defined", "undefined"] * (depth < 3)
    made = b""
    for kind in draw(st.lists(st.sampled_from(kinds), max_size=4)):
        tag = draw(TAGS)
        if kind == "plain":
            made += explicit(tag, draw(VRS), draw(st.binary(max_size=120)))
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
                made += explicit(tag, "SQ", inside)
            else:
                vr = draw(st.sampled_from(["SQ", "UN", "OB"]))
                made += explicit(tag, vr, inside, UNDEFINED) + SEQUENCE_END
    return made


@given(trees(), CUTS, st.sampled_from([100, 10_000]))
@settings(max_examples=250, deadline=None)
def test_trees_of_elements(data: bytes, cuts: list[int], limit: int) -> None:
    check(EXPLICIT, explicit(0x00080008, "CS", b"ORIGINAL") + data, cuts, limit)


REAL = [
    (meta.transfer_syntax_uid, data_set(path, meta)[:3000])
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
def test_damaged_files(file: tuple[str, bytes], draw: st.DataObject, cuts: list[int]) -> None:
    syntax, original = file
    data = bytearray(original)
    for _ in range(draw.draw(st.integers(0, 6))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    check(syntax, bytes(data[: draw.draw(st.integers(0, len(data)))]), cuts)


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
