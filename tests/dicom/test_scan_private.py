"""UN, private elements, and what around a value says how it is read."""

import struct

import pytest
from pydicom.charset import python_encoding

from rules.attributes import Private
from tests.dicom.build import BIG, EXPLICIT, IMPLICIT, explicit, implicit, item
from tests.dicom.depth import (
    ACQUISITION,
    CHARACTERS,
    CODE,
    CODES,
    FORMS,
    HEAD,
    LAST,
    MODALITY,
    NAME,
    REQUEST,
    STEP,
    STEP_ID,
    TAIL,
    check,
    sequence,
    step,
    values,
)

# -- UN ----------------------------------------------------------------------------------------

IN_UN = implicit(STEP_ID, b"A1") + implicit(0x00280010, b"\1\2")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("form", FORMS)
def test_un_holds_an_implicit_sequence_that_the_dictionary_knows(form: str, order: str) -> None:
    un = sequence(IN_UN, form=form, vr="UN")
    if order == ">":
        size = struct.unpack_from("<I", un, 8)[0]
        un = explicit(REQUEST, "UN", un[12:], size, order=">")
    head = explicit(MODALITY, "CS", b"CT", order=order)
    tail = explicit(LAST, "US", struct.pack(f"{order}H", 1), order=order)
    syntax = EXPLICIT if order == "<" else BIG
    scanner = check(head + un + tail, STEP, (REQUEST, 0x00280010), LAST, syntax=syntax)
    assert scanner.error == ""
    assert scanner.attributes() == {STEP: ("A1",), (REQUEST, 0x00280010): ("513",), LAST: ("1",)}


def test_un_that_is_explicit_inside() -> None:
    for form in FORMS:
        un = sequence(step(b"A1"), step(b"B1"), form=form, vr="UN")
        assert values(HEAD + un + TAIL, STEP, LAST) == ("A1", "B1")


# -- private elements --------------------------------------------------------------------------

CREATOR = explicit(0x00190010, "LO", b"GEMS_ACQU_01")
OTHER = explicit(0x00190011, "LO", b"OTHER ")


@pytest.mark.parametrize("block", [0x10, 0x11, 0x42, 0xFF])
def test_wherever_the_block_is(block: int) -> None:
    creator = explicit(0x00190000 | block, "LO", b" GEMS_ACQU_01 \0")
    first = explicit(0x00190001, "LO", b"no creator's")
    element = explicit(0x00190010 | block << 8, "SH", b"A1")
    decoy = explicit(0x00190011 | block << 8, "SH", b"no")
    data = HEAD + first + creator + element + decoy + TAIL
    assert values(data, ACQUISITION) == ("A1",)
    assert values(data, ACQUISITION, 0x00190010 | block << 8) == ("A1",)
    assert values(data, Private(0x0019, "gems_acqu_01", 0x10)) is None
    assert values(data, Private(0x0019, "GEMS_ACQU_01", 0x12)) is None
    assert values(data, Private(0x0021, "GEMS_ACQU_01", 0x10)) is None


def test_other_creators_and_several_blocks() -> None:
    creators = explicit(0x00190012, "LO", b"GEMS_ACQU_01") + explicit(0x00190012, "LO", b"OTHER ")
    texts = (b"A", b"B", b"C")
    elements = [explicit(0x00191010 + (n << 8), "SH", text) for n, text in enumerate(texts)]
    data = HEAD + CREATOR + OTHER + creators + b"".join(elements) + elements[0] + TAIL
    assert values(data, ACQUISITION, Private(0x0019, "OTHER", 0x10)) == ("A", "C")
    assert values(data, Private(0x0019, "OTHER", 0x10)) == ("B",)


def test_a_creator_that_is_wanted_itself_and_one_that_comes_late() -> None:
    element = explicit(0x00191010, "SH", b"A1")
    assert values(HEAD + CREATOR + element + TAIL, 0x00190010, ACQUISITION) == ("GEMS_ACQU_01",)
    assert values(HEAD + element + CREATOR + TAIL, ACQUISITION) is None
    assert values(HEAD + element + TAIL, ACQUISITION) is None


def test_a_creator_counts_for_its_level_alone() -> None:
    inside = explicit(0x00191010, "SH", b"in")
    wanted = (ACQUISITION, (REQUEST, ACQUISITION))
    data = HEAD + CREATOR + explicit(0x00191010, "SH", b"out") + sequence(inside) + TAIL
    assert check(data, *wanted).attributes() == {ACQUISITION: ("out",)}
    data = HEAD + sequence(CREATOR + inside, OTHER + inside, OTHER + CREATOR + inside) + TAIL
    assert check(data, *wanted).attributes() == {(REQUEST, ACQUISITION): ("in", "in")}
    assert values(data, (REQUEST, Private(0x0019, "OTHER", 0x10))) is None


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("vr", ["SQ", "UN"])
def test_private_sequences(form: str, vr: str) -> None:
    inside = implicit(STEP_ID, b"A1") if vr == "UN" else step(b"A1")
    data = HEAD + CREATOR + sequence(inside, tag=0x00191010, vr=vr, form=form) + TAIL
    assert values(data, (ACQUISITION, STEP_ID)) == ("A1",)
    # By its tag and by its creator at once: both lead to it.
    scanner = check(data, (ACQUISITION, STEP_ID), (0x00191010, STEP_ID), (0x00191010, CODE))
    assert scanner.attributes() == {
        (ACQUISITION, STEP_ID): ("A1",),
        (0x00191010, STEP_ID): ("A1",),
    }


def test_implicit_private_elements_have_the_vr_of_pydicoms_dictionary() -> None:
    creator = implicit(0x00190010, b"GEMS_ACQU_01")
    number = implicit(0x00191002, struct.pack("<i", -5))  # SL
    ascii_text = implicit(0x001910FD, b"text of nobody")
    binary = implicit(0x001910FE, b"\1\2\3\4")
    data = implicit(MODALITY, b"CT") + creator + number + ascii_text + binary
    keys = [Private(0x0019, "GEMS_ACQU_01", element) for element in (0x02, 0xFD, 0xFE)]
    found = check(data, *keys, syntax=IMPLICIT).attributes()
    assert found == dict(zip(keys, [("-5",), ("text of nobody",), ()], strict=True))
    explicit_un = HEAD + CREATOR + explicit(0x00191002, "UN", struct.pack("<i", -5))
    assert values(explicit_un, keys[0]) == ("-5",)
    assert values(HEAD + CREATOR + explicit(0x00191002, "SH", b"-7"), keys[0]) == ("-7",)


def test_an_implicit_private_sequence_of_defined_length() -> None:
    creator = implicit(0x00190010, b"NOBODY KNOWS")
    known = Private(0x0019, "NOBODY KNOWS", 0x01)
    private = implicit(0x00191001, item(implicit(STEP_ID, b"A1")))
    data = implicit(MODALITY, b"CT") + creator + private
    assert values(data, (known, STEP_ID), syntax=IMPLICIT) == ("A1",)
    data = implicit(MODALITY, b"CT") + creator + implicit(0x00191001, b"just some text")
    assert values(data, (known, STEP_ID), syntax=IMPLICIT) is None
    assert values(data, known, syntax=IMPLICIT) == ("just some text",)


# -- what is around a value --------------------------------------------------------------------


def test_the_character_set_of_an_item_counts_for_it_and_below() -> None:
    def name(text: str, codec: str) -> bytes:
        return explicit(NAME, "PN", text.encode(codec))

    def characters(term: bytes) -> bytes:
        return explicit(CHARACTERS, "CS", term)

    inner = sequence(name("Д", "iso8859_5"), characters(b"ISO_IR 126") + name("Ω", "iso8859_7"),
                     name("Ж", "iso8859_5"), tag=CODES)  # fmt: skip
    items = (
        name("é", "latin_1"),
        characters(b"ISO_IR 144") + name("Б", "iso8859_5") + inner,
        name("ü", "latin_1") + sequence(name("ö", "latin_1"), tag=CODES),
        characters(b"") + name("ß", "latin_1"),
        characters(b"ISO_IR 192") + name("é", "utf_8"),
        characters(b"nonsense") + name("å", "latin_1"),
    )
    data = characters(b"ISO_IR 100") + HEAD + sequence(*items) + TAIL
    assert values(data, (REQUEST, NAME), (REQUEST, CODES, NAME)) == ("é", "Б", "ü", "ß", "é", "å")
    assert values(data, (REQUEST, CODES, NAME)) == ("Д", "Ω", "Ж", "ö")
    assert values(data, (REQUEST, CHARACTERS))[1:3] == ("ISO_IR 192", "nonsense")


@pytest.mark.parametrize("term", [term for term in python_encoding if term])
def test_every_character_set_in_an_item(term: str) -> None:
    codec = python_encoding[term]
    # Python's iso2022_jp_2 has Korean too, by an escape that DICOM has not.
    letters = "éĄĦĒДعΩאĞกｱ日本中" + "한" * (codec != "iso2022_jp_2")
    text = "".join(c for c in letters if _holds(codec, c)) or "x"
    item_of = explicit(CHARACTERS, "CS", term.encode()) + step(text.encode(codec))
    data = explicit(CHARACTERS, "CS", b"ISO_IR 100") + HEAD + sequence(item_of, step(b"\xe9"))
    assert values(data, STEP) == (text, "é")


def _holds(codec: str, character: str) -> bool:
    try:
        return character.encode(codec).decode(codec) == character
    except UnicodeError:
        return False


def test_the_sign_of_an_item_counts_for_it_and_below() -> None:
    smallest, representation = 0x00280106, 0x00280103
    number = implicit(smallest, b"\xff\xff")
    unsigned, signed = (implicit(representation, bytes((n, 0))) for n in (0, 1))
    inner = implicit(CODES, item(number) + item(unsigned + number))
    items = item(number + inner) + item(signed + number + inner)
    data = implicit(MODALITY, b"CT") + unsigned + implicit(REQUEST, items)
    wanted = ((REQUEST, smallest), (REQUEST, CODES, smallest))
    found = check(data, *wanted, syntax=IMPLICIT).attributes()
    # (0040,0008) stands behind the numbers of its item.
    assert found[wanted[0]] == ("65535", "-1")
    assert found[wanted[1]] == ("65535", "65535", "-1", "65535")
    whole = implicit(MODALITY, b"CT") + implicit(REQUEST, item(number)) + signed
    assert values(whole, wanted[0], 0x00400280, syntax=IMPLICIT) == ("-1",)
