"""Attributes in sequences, on data sets made by hand: wrong, hostile, and right."""

import struct
import tracemalloc

import pytest

from router.dicom.gather import MANY
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
from tests.dicom.depth import (
    ACQUISITION,
    CHARACTERS,
    CODE,
    CODES,
    DEEP,
    FORMS,
    HEAD,
    LAST,
    MEANING,
    MODALITY,
    NAME,
    REQUEST,
    STEP,
    STEP_ID,
    TAIL,
    check,
    scan,
    sequence,
    step,
    values,
)

# -- what is wrong -----------------------------------------------------------------------------


def test_a_path_needs_steps() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        Scanner(EXPLICIT, (MODALITY, ()))


@pytest.mark.parametrize(
    ("middle", "error"),
    [
        (
            sequence(step(b"A1")[:-2]),
            "element (0040,0009) at byte 30 claims 2 bytes, past the end of its item at byte 38",
        ),
        (
            sequence(explicit(MEANING, "LO", b"nobody's")[:-2]),
            "element (0008,0104) at byte 30 claims 8 bytes, past the end of its item at byte 44",
        ),
        (
            explicit(REQUEST, "SQ", item(step(b"A1"))[:-2]),
            "element (FFFE,E000) at byte 22 claims 10 bytes, past the end of its sequence at",
        ),
        (
            sequence(step(b"A1") + b"\0\0\0"),
            "the item that ends at byte 43 does so inside the header at byte 40",
        ),
        (
            explicit(REQUEST, "SQ", item(step(b"A1")) + bytes(4)),
            "the sequence that ends at byte 44 does so inside the header at byte 40",
        ),
        (
            sequence(explicit(CODES, "SQ", item(b""), UNDEFINED)),
            "(0040,0008) of undefined length at byte 30 has no end",
        ),
        (
            explicit(REQUEST, "SQ", step(b"A1")),
            "(0040,0009) at byte 22, where an item of a sequence should be",
        ),
        (
            explicit(REQUEST, "SQ", item(step(b"A1")), UNDEFINED),
            "(0040,0300) at byte 40, where an item of a sequence should be",
        ),
        (
            sequence(implicit(0x00080100, b"", 0xF0000001)),
            "element (0008,0100) at byte 30 has 01 00 where its VR should be",
        ),
        (
            sequence(item(b"")),
            "(FFFE,E000) at byte 30, outside a sequence",
        ),
    ],
)
def test_what_is_wrong_is_said(middle: bytes, error: str) -> None:
    scanner = check(HEAD + middle + TAIL, MODALITY, STEP, DEEP, LAST)
    assert scanner.error.startswith(error)
    assert scanner.attributes()[MODALITY] == ("CT",)
    # Nobody looks into it: its length counts.
    if "(0040,0300)" not in error:
        assert check(HEAD + middle + TAIL, MODALITY, LAST).error == ""


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (
            explicit(REQUEST, "SQ", item(step(b"A1")), 18 + 9),
            "(0040,0275) at byte 10 goes on to byte 49, and the data set has 40",
        ),
        (
            explicit(REQUEST, "SQ", item(step(b"A1"), 12), 20),
            "(FFFE,E000) at byte 22 goes on to byte 42, and the data set has 40",
        ),
        (
            explicit(REQUEST, "SQ", item(step(b"A1"), 18), 26)[:-1],
            "element (0040,0009) at byte 30 claims 2 bytes of 39",
        ),
        (
            explicit(REQUEST, "SQ", item(step(b"A1"), UNDEFINED), 18) + b"",
            "",
        ),
        (
            explicit(REQUEST, "SQ", item(step(b"A1"), UNDEFINED), UNDEFINED),
            "(FFFE,E000) of undefined length at byte 22 has no end",
        ),
    ],
)
def test_a_data_set_that_ends_inside_a_sequence(data: bytes, error: str) -> None:
    assert check(HEAD + data, STEP).error == error


def test_every_cut_of_a_data_set_is_told_or_harmless() -> None:
    data = HEAD + sequence(step(b"A1"), sequence(explicit(CODE, "SH", b"C1"), tag=CODES)) + TAIL
    whole = scan(data, (STEP, DEEP, LAST))
    assert whole.error == ""
    ends = {len(HEAD), len(data) - len(TAIL)}
    for end in range(1, len(data)):
        assert (check(data[:end], STEP, DEEP, LAST).error == "") == (end in ends), end


def nested(depth: int, inner: bytes, form: str) -> bytes:
    for _ in range(depth):
        inner = sequence(inner, tag=CODES, form=form)
    return inner


@pytest.mark.parametrize("form", FORMS)
def test_depth_has_a_cap(form: str) -> None:
    inner = explicit(CODE, "SH", b"C1")
    path = (CODES,) * 64 + (CODE,)
    assert values(HEAD + nested(64, inner, form), path) == ("C1",)
    longer = (CODES,) * 65 + (CODE,)
    scanner = check(HEAD + nested(65, inner, form), longer)
    assert "more than 64 sequences deep" in scanner.error
    assert values(HEAD + nested(63, inner, form), path) is None


def test_text_where_the_dictionary_has_a_sequence_is_passed() -> None:
    for text in (b"no sequence ", b"short ", b"", bytes(70000)):
        data = implicit(MODALITY, b"CT") + implicit(REQUEST, text) + implicit(LAST, b"\1\0")
        scanner = check(data, STEP, LAST, syntax=IMPLICIT)
        assert (scanner.error, scanner.text(LAST), scanner.text(STEP)) == ("", ("1",), None)
        for vr in ("LO", "UN"):
            if vr == "UN" or len(text) < 0x10000:
                data = HEAD + explicit(REQUEST, vr, text) + TAIL
                scanner = check(data, STEP, LAST)
                assert (scanner.error, scanner.text(LAST), scanner.text(STEP)) == ("", ("1",), None)


def test_what_follows_text_in_place_of_a_sequence_may_be_cut() -> None:
    data = implicit(MODALITY, b"CT") + implicit(REQUEST, b"no sequence", 400)
    error = "element (0040,0275) at byte 10 claims 400 bytes of 29"
    assert check(data, STEP, syntax=IMPLICIT).error == error


def test_the_values_of_all_items_together_are_limited() -> None:
    items = [step(b"x" * 10)] * 11
    assert values(HEAD + sequence(*items[:10]) + TAIL, STEP) == ("x" * 10,) * 10
    scanner = check(HEAD + sequence(*items) + TAIL, STEP, LAST, value_limit=100)
    assert (scanner.error, scanner.too_large) == ("", {STEP})
    assert scanner.attributes() == {STEP: (), LAST: ("1",)}
    assert scanner.gathered == {}
    long = sequence(step(b"y" * 101), step(b"z"))
    assert check(HEAD + long, STEP, value_limit=100).too_large == {STEP}


def test_the_number_of_values_is_limited() -> None:
    few = sequence(*[step(b"x")] * (MANY - 40))
    assert len(scan(HEAD + few, (STEP,)).text(STEP) or ()) == MANY - 40
    many = sequence(*[step(b"x")] * (MANY + 1))
    assert scan(HEAD + many, (STEP,)).too_large == {STEP}
    # Each read in its own way: that costs more.
    mixed = [explicit(STEP_ID, vr, b"x") for vr in ("SH", "LO")] * (MANY // 60)
    assert scan(HEAD + sequence(*mixed), (STEP,)).too_large == {STEP}


def test_the_number_of_different_values_is_limited() -> None:
    few = sequence(*[step(b"%04d" % (n % 1000)) for n in range(3000)])
    assert len(scan(HEAD + few, (STEP,)).text(STEP) or ()) == 3000
    many = sequence(*[step(b"%04d" % n) for n in range(1001)])
    assert scan(HEAD + many, (STEP,)).too_large == {STEP}
    one = sequence(step(b"x\\" * 1001))
    assert scan(HEAD + one, (STEP,)).too_large == {STEP}


def test_hostile_sequences_cost_bounded_memory_and_time() -> None:
    item_of = item(step(b"x") + explicit(CHARACTERS, "CS", b"ISO_IR 192"))
    data = HEAD + explicit(REQUEST, "SQ", item_of * 200_000, UNDEFINED)
    tracemalloc.start()
    try:
        scanner = Scanner(EXPLICIT, (STEP, DEEP, ACQUISITION), byte_limit=2**21)
        for at in range(0, len(data), 16384):
            if scanner.feed(memoryview(data)[at : at + 16384]):
                break
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "after 2097152 bytes" in scanner.error
    assert peak < 2**20
    bomb = explicit(CODES, "SQ", item(b"", UNDEFINED), UNDEFINED) * 100_000
    scanner = scan(HEAD + bomb, ((CODES,) * 70,), size=4096)
    assert "more than 64 sequences deep" in scanner.error


def test_the_byte_limit_counts_inside_sequences() -> None:
    data = HEAD + sequence(*[explicit(CODE, "SH", b"C1")] * 500) + TAIL
    assert check(data, DEEP, LAST, byte_limit=20000).error == ""
    error = "after 4000 bytes the scan has not come to (0040,0300)"
    assert check(data, STEP, LAST, byte_limit=4000).error.startswith(error)
    assert scan(data, (LAST,), byte_limit=10_000).error == ""


def test_a_creator_of_any_length_is_not_kept() -> None:
    data = HEAD + explicit(0x00190010, "UN", b"G" * 70_000) + explicit(0x00191010, "SH", b"A1")
    assert values(data + TAIL, ACQUISITION, LAST) is None


# -- sequences ---------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_values_of_all_items_in_order(form: str) -> None:
    items = (step(b"A1\\A2"), b"", explicit(NAME, "PN", b"Doe"), step(b""), step(b"B"))
    data = HEAD + step(b"top") + sequence(*items, form=form) + TAIL
    wanted = (STEP, STEP_ID, LAST)
    assert values(data, *wanted) == ("A1", "A2", "B")
    scanner = check(data, *wanted)
    assert (scanner.text(STEP_ID), scanner.text(LAST)) == (("top",), ("1",))
    assert scanner.found.keys() == {STEP_ID, LAST}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("inner", FORMS)
def test_deeper(form: str, inner: str) -> None:
    codes = sequence(
        explicit(CODE, "SH", b"C1"), explicit(CODE, "SH", b"C2"), tag=CODES, form=inner
    )
    other = sequence(explicit(CODE, "SH", b"no"), tag=0x00400100, form=inner)
    data = HEAD + sequence(codes + step(b"S") + other, step(b"T"), codes, form=form) + TAIL
    assert values(data, DEEP, STEP) == ("C1", "C2", "C1", "C2")
    assert values(data, STEP) == ("S", "T")
    assert values(data, (REQUEST, CODES, MEANING)) is None
    assert values(data, (CODES, CODE)) is None


@pytest.mark.parametrize("form", FORMS)
def test_present_without_a_value(form: str) -> None:
    assert values(HEAD + sequence(step(b""), form=form) + TAIL, STEP) == ()
    assert values(HEAD + sequence(b"", form=form) + TAIL, STEP) is None
    assert values(HEAD + sequence(form=form) + TAIL, STEP) is None
    assert values(HEAD + TAIL, STEP) is None


@pytest.mark.parametrize("form", FORMS)
def test_a_sequence_itself_and_what_is_in_it(form: str) -> None:
    data = HEAD + sequence(step(b"S") + sequence(b"", tag=CODES, form=form), form=form) + TAIL
    scanner = check(data, REQUEST, STEP, (REQUEST, CODES), DEEP)
    assert scanner.error == ""
    assert scanner.attributes() == {REQUEST: (), STEP: ("S",), (REQUEST, CODES): ()}
    assert scanner.found[REQUEST][0] == "SQ"


def test_binary_values_have_no_text() -> None:
    data = HEAD + sequence(explicit(0x00420011, "OB", b"\1\2"), explicit(STEP_ID, "OB", b"AB"))
    scanner = check(data, STEP, (REQUEST, 0x00420011))
    assert scanner.attributes() == {STEP: (), (REQUEST, 0x00420011): ()}


def test_of_two_the_first_counts_in_each_item() -> None:
    items = (step(b"A") + step(b"no"), step(b"B"))
    data = HEAD + sequence(*items) + sequence(step(b"no")) + TAIL
    assert values(data, STEP) == ("A", "B")


def test_elements_out_of_order_and_delimiters_too_many_or_few() -> None:
    stray = step(b"A") + ITEM_END + SEQUENCE_END + explicit(CODE, "SH", b"C")
    data = HEAD + sequence(stray) + SEQUENCE_END + ITEM_END + TAIL
    assert values(data, STEP, LAST) == ("A",)
    assert values(data, (REQUEST, CODE), LAST) == ("C",)
    missing = explicit(REQUEST, "SQ", item(step(b"A"), UNDEFINED), UNDEFINED) + SEQUENCE_END
    assert values(HEAD + missing + TAIL, STEP, LAST) == ("A",)
    missing = explicit(REQUEST, "SQ", item(step(b"A"), UNDEFINED))
    assert values(HEAD + missing + TAIL, STEP, LAST) == ("A",)


def test_the_scan_ends_behind_the_last_sequence() -> None:
    scanner = Scanner(EXPLICIT, (STEP,))
    assert not scanner.feed(HEAD + sequence(step(b"A")))
    assert scanner.feed(TAIL + b"rubbish")
    assert (scanner.error, scanner.text(STEP)) == ("", ("A",))


def test_the_view_is_not_kept() -> None:
    data = HEAD + sequence(step(b"A1"), step(b"B1")) + TAIL
    scanner = Scanner(EXPLICIT, (STEP,))
    buffer = bytearray(21)
    for at in range(0, len(data), 21):
        piece = data[at : at + 21]
        buffer[: len(piece)] = piece
        with memoryview(buffer) as view:
            scanner.feed(view[: len(piece)])
        buffer[:] = b"\xff" * 21
    scanner.finish()
    assert scanner.text(STEP) == ("A1", "B1")


def test_implicit_big_endian_and_deflated() -> None:
    both = implicit(REQUEST, item(implicit(STEP_ID, b"A1")) + item(implicit(STEP_ID, b"B ")))
    data = implicit(MODALITY, b"CT") + both + implicit(LAST, b"\1\0")
    assert values(data, STEP, syntax=IMPLICIT) == ("A1", "B")
    assert values(deflate(HEAD + sequence(step(b"A1")) + TAIL), STEP, syntax=DEFLATED) == ("A1",)
    rows = 0x00280010
    inner = explicit(rows, "US", b"\1\2", order=">")
    head = struct.pack(">HHI", 0xFFFE, 0xE000, len(inner))
    data = explicit(MODALITY, "CS", b"CT", order=">")
    data += explicit(REQUEST, "SQ", head + inner, order=">")
    assert values(data, (REQUEST, rows), syntax=BIG) == ("258",)


def test_a_path_through_what_is_no_sequence_finds_nothing() -> None:
    pixels = 0x7FE00010
    fragments = item(b"") + item(b"\x10\0\x10\0no elements") + SEQUENCE_END
    data = HEAD + explicit(pixels, "OB", fragments, UNDEFINED)
    assert values(data, (pixels, NAME), MODALITY) is None


def test_an_undefined_length_makes_a_sequence_where_no_vr_is_given() -> None:
    uid = 0x00081150
    inside = implicit(STEP_ID, b"A1")
    data = implicit(uid, item(inside), UNDEFINED) + SEQUENCE_END + implicit(LAST, b"\1\0")
    assert values(data, (uid, STEP_ID), LAST, syntax=IMPLICIT) == ("A1",)
