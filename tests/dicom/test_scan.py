"""The scanner on data sets made by hand: encodings, nesting, what is tolerated and what is not."""

import tracemalloc

import pytest

from router.dicom.scan import Scanner
from tests.dicom.build import (
    BIG,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    ITEM_END,
    JPEG,
    SEQUENCE_END,
    UNDEFINED,
    deflate,
    explicit,
    implicit,
    item,
)

MODALITY, STATION, NAME, PATIENT_ID, SERIES = (
    0x00080060,
    0x00081010,
    0x00100010,
    0x00100020,
    0x0020000E,
)
SEQUENCE = 0x00081140
WANTED = (MODALITY, NAME, SERIES)
HEAD = explicit(0x00080008, "CS", b"ORIGINAL") + explicit(MODALITY, "CS", b"CT")
TAIL = explicit(NAME, "PN", b"Doe^Jo") + explicit(SERIES, "UI", b"1.2.3\0")
PIXELS = explicit(0x7FE00010, "OW", bytes(4096))
EXPECTED = {MODALITY: ("CT",), NAME: ("Doe^Jo",), SERIES: ("1.2.3",)}


def scan(
    data: bytes,
    syntax: str = EXPLICIT,
    wanted: tuple[int, ...] = WANTED,
    size: int = 0,
    **limits: int,
) -> Scanner:
    scanner = Scanner(syntax, wanted, **limits)
    step = size or len(data) or 1
    for at in range(0, len(data), step):
        if scanner.feed(memoryview(data)[at : at + step]):
            break
    scanner.finish()
    return scanner


def check(data: bytes, syntax: str = EXPLICIT, wanted: tuple[int, ...] = WANTED) -> Scanner:
    """Scan whole and cut in several ways; all must agree."""
    whole = scan(data, syntax, wanted)
    for size in (1, 3, 7, 8, 11, 64):
        cut = scan(data, syntax, wanted, size)
        assert (cut.found, cut.error, cut.done) == (whole.found, whole.error, whole.done), size
    return whole


def assert_found(data: bytes, syntax: str = EXPLICIT) -> None:
    scanner = check(data, syntax)
    assert scanner.error == ""
    assert scanner.attributes() == EXPECTED


@pytest.mark.parametrize("syntax", [EXPLICIT, JPEG, "1.2.3.4.5"])
def test_explicit_and_unknown_syntaxes(syntax: str) -> None:
    assert_found(HEAD + TAIL + PIXELS, syntax)


def test_implicit() -> None:
    parts = [(0x00080008, b"ORIGINAL"), (MODALITY, b"CT"), (NAME, b"Doe^Jo"), (SERIES, b"1.2.3\0")]
    scanner = check(b"".join(implicit(*part) for part in parts), IMPLICIT)
    assert scanner.attributes() == EXPECTED
    assert scanner.found[NAME] == ("PN", b"Doe^Jo")


def test_big_endian() -> None:
    pixel_value = 0x00280106
    parts = [
        explicit(MODALITY, "CS", b"CT", order=">"),
        explicit(SEQUENCE, "SQ", b"", 0, order=">"),
        explicit(NAME, "PN", b"Doe^Jo", order=">"),
        explicit(SERIES, "UI", b"1.2.3\0", order=">"),
        explicit(pixel_value, "US", b"\x01\x02", order=">"),
    ]
    scanner = check(b"".join(parts), BIG, (*WANTED, pixel_value))
    assert scanner.attributes() == {**EXPECTED, pixel_value: ("258",)}


def test_deflated() -> None:
    assert_found(deflate(HEAD + TAIL + PIXELS), DEFLATED)


def test_it_stops_at_the_first_tag_above_the_highest_wanted() -> None:
    scanner = Scanner(EXPLICIT, WANTED)
    assert not scanner.feed(HEAD)
    assert scanner.feed(explicit(0x00200010, "SH", b"1") + b"rubbish")
    assert (scanner.done, scanner.error) == (True, "")
    assert scanner.feed(b"more")
    assert scanner.text(SERIES) is None


def test_it_stops_when_everything_was_found() -> None:
    data = explicit(0x00080005, "CS", b"ISO_IR 100") + HEAD + TAIL
    scanner = Scanner(EXPLICIT, WANTED)
    assert scanner.feed(data)


def test_nothing_wanted_is_done_at_once() -> None:
    assert Scanner(EXPLICIT, ()).feed(b"whatever")


def test_the_view_is_not_kept() -> None:
    scanner = Scanner(EXPLICIT, WANTED)
    data = HEAD + TAIL
    buffer = bytearray(40)
    for at in range(0, len(data), 40):
        piece = data[at : at + 40]
        buffer[: len(piece)] = piece
        with memoryview(buffer) as view:
            scanner.feed(view[: len(piece)])
        buffer[:] = b"\xff" * 40
    scanner.finish()
    assert scanner.attributes() == EXPECTED


def test_out_of_order_and_the_first_of_two_counts() -> None:
    early = explicit(NAME, "PN", b"Doe^Jo")
    later = explicit(MODALITY, "CS", b"CT") + explicit(NAME, "PN", b"Other ")
    assert_found(early + later + explicit(SERIES, "UI", b"1.2.3\0"))


def test_odd_lengths_and_group_lengths() -> None:
    odd = explicit(STATION, "SH", b"A-B") + explicit(0x00100000, "UL", b"\x10\0\0\0")
    assert_found(HEAD + odd + TAIL)


def nested(depth: int, inner: bytes = b"") -> bytes:
    data = inner
    for _ in range(depth):
        open_item = item(data, UNDEFINED) + ITEM_END
        data = explicit(SEQUENCE, "SQ", open_item, UNDEFINED) + SEQUENCE_END
    return data


DECOY = explicit(NAME, "PN", b"Nested") + explicit(0x00400001, "SH", b"above all")


@pytest.mark.parametrize(
    "middle",
    [
        explicit(SEQUENCE, "SQ", item(DECOY)),
        explicit(SEQUENCE, "SQ", item(DECOY), UNDEFINED) + SEQUENCE_END,
        nested(3, DECOY),
        explicit(SEQUENCE, "SQ", item(DECOY, UNDEFINED) + ITEM_END),
        explicit(0x00091010, "SQ", item(DECOY, UNDEFINED) + ITEM_END, UNDEFINED) + SEQUENCE_END,
        explicit(SEQUENCE, "SQ", b"", UNDEFINED) + SEQUENCE_END,
        explicit(SEQUENCE, "SQ", item(b"") + item(b"", UNDEFINED) + ITEM_END, UNDEFINED)
        + SEQUENCE_END,
    ],
)
def test_sequences_are_passed(middle: bytes) -> None:
    assert_found(HEAD + middle + TAIL)


def test_un_of_undefined_length_is_implicit_inside() -> None:
    inner = implicit(NAME, b"Nested") + implicit(
        SEQUENCE, item(b"", UNDEFINED) + ITEM_END, UNDEFINED
    )
    unknown = explicit(0x00091010, "UN", item(inner + SEQUENCE_END, UNDEFINED), UNDEFINED)
    assert_found(HEAD + unknown + ITEM_END + SEQUENCE_END + TAIL)


def test_un_of_undefined_length_that_is_explicit_inside() -> None:
    unknown = explicit(0x00091010, "UN", item(DECOY, UNDEFINED), UNDEFINED)
    assert_found(HEAD + unknown + ITEM_END + SEQUENCE_END + TAIL)


def test_implicit_sequences_of_undefined_length() -> None:
    inner = implicit(NAME, b"Nested") + implicit(0x00400001, b"above all ")
    sequence = implicit(SEQUENCE, item(inner, UNDEFINED) + ITEM_END, UNDEFINED) + SEQUENCE_END
    data = implicit(MODALITY, b"CT") + sequence + implicit(NAME, b"Doe^Jo")
    assert_found(data + implicit(SERIES, b"1.2.3\0"), IMPLICIT)


def test_encapsulated_fragments_before_a_wanted_tag() -> None:
    fragments = item(b"") + item(bytes(100))
    icon = explicit(0x00091010, "OB", fragments, UNDEFINED) + SEQUENCE_END
    assert_found(HEAD + icon + TAIL)


@pytest.mark.parametrize(
    "middle",
    [
        explicit(SEQUENCE, "LO", b"not a sequence"),
        explicit(STATION, "ZZ", b"new"),
        explicit(STATION, "??", b"what"),
        explicit(STATION, "sh", b"low "),
        explicit(STATION, "ZZ", b"\0\0\x08\0\0\0longform"[2:], 0),
        implicit(STATION, b"hides"),
        implicit(STATION, bytes(0x10000)),
        implicit(SEQUENCE, item(b"", UNDEFINED) + ITEM_END, UNDEFINED) + SEQUENCE_END,
        SEQUENCE_END + ITEM_END,
    ],
)
def test_what_the_field_sends(middle: bytes) -> None:
    assert_found(HEAD + middle + TAIL)


def test_a_missing_item_delimiter() -> None:
    broken = explicit(SEQUENCE, "SQ", item(DECOY, UNDEFINED), UNDEFINED) + SEQUENCE_END
    assert_found(HEAD + broken + TAIL)


def test_a_wanted_sequence_is_found_without_text() -> None:
    for middle in (nested(1, DECOY), explicit(SEQUENCE, "SQ", item(DECOY))):
        scanner = check(HEAD + middle + TAIL, wanted=(*WANTED, SEQUENCE))
        assert scanner.found[SEQUENCE][0] == "SQ"
        assert scanner.attributes() == {**EXPECTED, SEQUENCE: ()}


def test_a_known_tag_in_un_has_the_vr_of_the_dictionary() -> None:
    scanner = check(HEAD + explicit(NAME, "UN", b"Doe^Jo "))
    assert scanner.text(NAME) == ("Doe^Jo",)


def test_signed_by_pixel_representation() -> None:
    smallest = 0x00280106
    data = explicit(0x00280103, "US", b"\1\0") + explicit(smallest, "US", b"\xff\xff")
    assert check(data, wanted=(smallest,)).text(smallest) == ("65535",)
    data = implicit(0x00280103, b"\1\0") + implicit(smallest, b"\xff\xff")
    assert check(data, IMPLICIT, (smallest,)).text(smallest) == ("-1",)


def test_a_value_over_the_limit_is_noted_and_not_kept() -> None:
    comment = 0x00104000
    data = HEAD + explicit(NAME, "PN", b"x" * 101) + explicit(comment, "UT", b"y" * 100000) + TAIL
    scanner = scan(data, wanted=(MODALITY, NAME, comment, SERIES), value_limit=100)
    assert scanner.error == ""
    assert scanner.too_large == {NAME, comment}
    # The second Patient's Name is within the limit.  The comments are there, with no text.
    assert scanner.attributes() == {**EXPECTED, comment: ()}
    assert scanner.text(comment) == ()


def test_the_byte_limit_ends_the_scan() -> None:
    data = explicit(STATION, "SH", b"abcdefgh") * 1000 + TAIL
    for size in (0, 100):
        scanner = scan(data, size=size, byte_limit=4000)
        assert "after 4000 bytes" in scanner.error
        assert "(0020,000E)" in scanner.error
        assert scan(data, size=size, byte_limit=20000).error == ""


def test_a_large_value_does_not_count_toward_the_byte_limit() -> None:
    for blob in (explicit(0x00091010, "OB", bytes(10**6)), implicit(0x00091010, bytes(10**6))):
        for size in (0, 4096):
            scanner = scan(HEAD + blob + TAIL, size=size, byte_limit=1000)
            assert (scanner.error, scanner.attributes()) == ("", EXPECTED)


@pytest.mark.parametrize(
    ("data", "syntax", "error"),
    [
        (b"", EXPLICIT, "the data set is empty"),
        (
            HEAD + explicit(NAME, "PN", b"Doe^Jo")[:7],
            EXPLICIT,
            "the data set ends at byte 33, inside the header at byte 26",
        ),
        (
            HEAD + explicit(0x00104000, "LT", b"short", 4000),
            EXPLICIT,
            "element (0010,4000) at byte 26 claims 4000 bytes of 39",
        ),
        (
            HEAD + explicit(0x00104000, "UT", b"short", UNDEFINED - 1),
            EXPLICIT,
            "element (0010,4000) at byte 26 claims 4294967294 bytes of 43",
        ),
        (
            HEAD + explicit(NAME, "PN", b"short", 400),
            EXPLICIT,
            "element (0010,0010) at byte 26 claims 400 bytes of 39",
        ),
        (
            implicit(MODALITY, b"CT") + implicit(0x00104000, b"short", 400),
            IMPLICIT,
            "element (0010,4000) at byte 10 claims 400 bytes of 23",
        ),
        (
            HEAD + explicit(SEQUENCE, "SQ", item(DECOY, UNDEFINED), UNDEFINED),
            EXPLICIT,
            "(FFFE,E000) of undefined length at byte 38 has no end",
        ),
        (
            HEAD + explicit(SEQUENCE, "SQ", DECOY, UNDEFINED),
            EXPLICIT,
            "(0010,0010) at byte 38, where an item of a sequence should be",
        ),
        (HEAD + item(b"1234"), EXPLICIT, "(FFFE,E000) at byte 26, outside a sequence"),
        (
            HEAD + implicit(STATION, b"", 0xF0000001),
            EXPLICIT,
            "element (0008,1010) at byte 26 has 01 00 where its VR should be",
        ),
        (
            bytes(128) + b"DICM" + explicit(0x00020010, "UI", b"1.2"),
            EXPLICIT,
            "a whole Part 10 file, from its preamble on, in place of a data set",
        ),
        (
            b"II*\0" + bytes(124) + b"DICM" + explicit(0x00020010, "UI", b"1.2"),
            IMPLICIT,
            "a whole Part 10 file, from its preamble on, in place of a data set",
        ),
        (
            explicit(0x00020010, "UI", b"1.2") + HEAD,
            EXPLICIT,
            "the data set begins with group 0002, file meta information",
        ),
        (
            implicit(0, b"\x38\0\0\0") + HEAD,
            IMPLICIT,
            "the data set begins with group 0000, a command set or a preamble",
        ),
        (HEAD, IMPLICIT, "the data set has explicit VRs, which Implicit VR Little Endian has not"),
        (HEAD, BIG, "the byte order is not that of Explicit VR Big Endian"),
        (
            explicit(MODALITY, "CS", b"CT", order=">"),
            EXPLICIT,
            "the byte order is not that of Explicit VR Little Endian",
        ),
        (
            deflate(HEAD + TAIL)[:-8],
            DEFLATED,
            "the deflated data set ends early",
        ),
        (b"\xff" * 100, DEFLATED, "the deflated data set is damaged: "),
    ],
)
def test_what_is_wrong_is_said(data: bytes, syntax: str, error: str) -> None:
    scanner = check(data, syntax)
    assert scanner.done
    assert scanner.error.startswith(error)


def test_a_data_set_that_does_not_begin_with_group_0008() -> None:
    data = explicit(NAME, "PN", b"Doe^Jo")
    assert check(data).attributes() == {NAME: ("Doe^Jo",)}
    assert check(data).error == ""


def test_depth_has_a_cap() -> None:
    assert_found(HEAD + nested(64) + TAIL)
    assert "more than 64 sequences deep" in check(HEAD + nested(65) + TAIL).error


def test_a_nesting_bomb_costs_little() -> None:
    level = explicit(SEQUENCE, "SQ", item(b"", UNDEFINED), UNDEFINED)
    scanner = scan(HEAD + level * 100_000, size=4096)
    assert "more than 64 sequences deep" in scanner.error


def test_what_is_found_before_the_limit_of_a_deflated_data_set_is_found_however_it_is_cut() -> None:
    # Inflated at once it was scanned past the limit, inflated byte by byte it was not.
    data = deflate(explicit(0x00080007, "OB", bytes(69_980)) + HEAD + TAIL)
    scanners = [scan(data, DEFLATED, size=size, byte_limit=70_000) for size in (0, 1, 7)]
    assert len({str((scanner.found, scanner.error)) for scanner in scanners}) == 1
    assert "after 70000 bytes" in scanners[0].error
    assert scanners[0].found == {}


def test_a_deflate_bomb_costs_bounded_memory() -> None:
    bomb = deflate(HEAD + explicit(0x00091010, "OB", bytes(200 * 2**20)))
    assert len(bomb) < 2**20
    tracemalloc.start()
    try:
        scanner = Scanner(DEFLATED, WANTED, byte_limit=2**20)
        assert scanner.feed(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "after 1048576 bytes" in scanner.error
    assert peak < 2 * 2**20


def test_a_length_is_not_believed_with_memory() -> None:
    tracemalloc.start()
    try:
        scanner = Scanner(EXPLICIT, (0x00104000,), value_limit=2**31)
        scanner.feed(explicit(0x00104000, "UT", b"a little", 2**31 - 2))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**16


def test_more_values_than_are_worth_comparing_are_too_large() -> None:
    study = 0x00081030  # LO
    for vr, value, tag in (
        ("LO", b"x\\" * 1000 + b"x", study),
        ("LO", b"\\" * 32_766, study),
        ("UN", b"x\\" * 1000 + b"x", study),
        ("US", b"\1\0" * 1001, 0x00280106),
        ("FL", b"\0\0\0\1" * 1001, 0x00181063),
        ("AT", b"\x10\0\x20\0" * 1001, 0x00280009),
    ):
        for data, size in ((HEAD + explicit(tag, vr, value) + TAIL, size) for size in (0, 100)):
            scanner = scan(data, wanted=(*WANTED, tag), size=size)
            assert (scanner.error, scanner.too_large) == ("", {tag}), vr
            assert scanner.attributes() == {**EXPECTED, tag: ()}
            assert scanner.unread == {tag}
    for vr, value, tag, count in (
        ("LO", b"x\\" * 999 + b"x", study, 1000),
        ("US", b"\1\0" * 1000, 0x00280106, 1000),
        ("LT", b"x\\" * 1000 + b"x", 0x00104000, 1),
    ):
        scanner = scan(HEAD + explicit(tag, vr, value) + TAIL, wanted=(tag,))
        assert len(scanner.text(tag) or ()) == count
        assert scanner.too_large == set()
