"""Character sets: the examples of PS3.5 annexes H to K, code extensions, and nonsense."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.charset import convert_encodings, encode_string

from router.dicom.charset import character_set
from router.dicom.values import text_values

NAME = 0x00100010
COMMENTS = 0x00104000
DESCRIPTION = 0x00081030


def read(terms: bytes, value: bytes, vr: str = "PN", tag: int = NAME) -> tuple[str, ...]:
    return text_values(tag, vr, value, character_set(terms))


@pytest.mark.parametrize(
    ("terms", "value", "text"),
    [
        (b"", b"Doe^John", "Doe^John"),
        (b"ISO_IR 100", b"Buc^J\xe9r\xf4me", "Buc^Jérôme"),
        (b"ISO_IR 101", b"W\xb3os^\xb3", "Włos^ł"),
        (b"ISO_IR 126", b"\xc4\xe9\xef\xed\xf5\xf3\xe9\xef\xf2", "Διονυσιος"),
        (b"ISO_IR 127", b"\xe2\xc8\xc7\xe6\xea^\xe4\xe6\xd2\xc7\xd1", "قباني^لنزار"),
        (b"ISO_IR 138", b"\xf9\xf8\xe5\xef^\xe3\xe1\xe5\xf8\xe4", "שרון^דבורה"),
        (b"ISO_IR 144", b"\xbb\xee\xda\x63\x65\xdc\xd1\x79\x70\xd3", None),
        (b"ISO_IR 148", b"\xc7avu\xfeo\xf0lu", "Çavuşoğlu"),
        (b"ISO_IR 166", b"\xa1\xa2", "กข"),
        (b"ISO_IR 192", "Wang^XiaoDong=王^小東=".encode(), "Wang^XiaoDong=王^小東="),
        (b"GB18030", "Wang^XiaoDong=王^小东=".encode("gb18030"), "Wang^XiaoDong=王^小东="),
        (
            b"\\ISO 2022 IR 87",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
        ),
        (
            b"ISO 2022 IR 13\\ISO 2022 IR 87",
            b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J",
            "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎",
        ),
        (
            b"\\ISO 2022 IR 149",
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
            "Hong^Gildong=洪^吉洞=홍^길동",
        ),
        (
            b"\\ISO 2022 IR 58",
            b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=",
            "Zhang^XiaoDong=张^小东=",
        ),
    ],
)
def test_names(terms: bytes, value: bytes, text: str | None) -> None:
    expected = text or value.decode("iso8859_5")
    assert read(terms, value) == (expected,)


def test_a_backslash_inside_a_character_does_not_split() -> None:
    for terms, codec, character in (
        (b"GB18030", "gb18030", "乗"),
        (b"GBK", "gbk", "乗"),
        (b"ISO_IR 13", "shift_jis", "表"),
    ):
        encoded = character.encode(codec)
        assert b"\\" in encoded
        assert read(terms, encoded + b"\\" + encoded, "LO", DESCRIPTION) == (character, character)
    value = b"\x1b$B\x3d\x5c\x1b(B\\A"
    kanji = b"\x1b$B\x3d\x5c".decode("iso2022_jp")
    assert read(b"\\ISO 2022 IR 87", value, "LO", DESCRIPTION) == (kanji, "A")


def test_a_delimiter_returns_to_the_first_set() -> None:
    terms = b"ISO 2022 IR 100\\ISO 2022 IR 126"
    assert read(terms, b"\x1b-F\xc4\\\xe9", "LO", DESCRIPTION) == ("Δ", "é")
    assert read(terms, b"\x1b-F\xc4^\xe9") == ("Δ^é",)
    assert read(terms, b"\x1b-F\xc4\r\n\xe9", "LT", COMMENTS) == ("Δ\r\né",)
    assert read(terms, b"\x1b-F\xc4^\xe9", "LO", DESCRIPTION) == ("Δ^ι",)


def test_ascii_in_g0_leaves_g1_alone() -> None:
    assert read(b"ISO 2022 IR 126\\ISO 2022 IR 87", b"\x1b$B;3\x1b(B\xc4") == ("山Δ",)


def test_an_escape_that_was_not_declared_is_followed() -> None:
    assert read(b"ISO_IR 100", b"\x1b$B;3ED\x1b(B") == ("山田",)


@pytest.mark.parametrize(
    ("term", "codec"),
    [
        (b"ISO-IR 100", "latin_1"),
        (b"ISO IR 192", "utf_8"),
        (b"iso_ir_192 ", "utf_8"),
        (b"UTF-8", "utf_8"),
        (b"ISO-2022-IR-149", "euc_kr"),
        (b"ISO 2022 IR 58", "gb2312"),
        (b"ISO8859-5", "iso8859_5"),
        (b"ISO_IR 203", "iso8859_15"),
        (b"\\ISO 2022 IR 87", "latin_1"),
        (b"", "latin_1"),
        (b"hex", "latin_1"),
        (b"punycode", "latin_1"),
        (b"NONSENSE\xff", "latin_1"),
    ],
)
def test_spellings_of_the_field(term: bytes, codec: str) -> None:
    assert character_set(term).codec == codec


def test_what_a_set_cannot_hold_is_replaced() -> None:
    assert read(b"ISO_IR 192", b"J\xe9r") == ("J\ufffdr",)
    assert read(b"\\ISO 2022 IR 87", b"\x1b$B\x7f\x7f;\x1b(BA")[0].endswith("A")


def test_an_unknown_set_keeps_every_byte() -> None:
    assert read(b"ISO_IR 999", bytes(range(0xA1, 0x100))) == (
        bytes(range(0xA1, 0x100)).decode("latin_1"),
    )


@given(st.binary(max_size=30), st.binary(max_size=60), st.sampled_from(["PN", "LO", "LT", "UN"]))
@settings(max_examples=300, deadline=None)
def test_no_bytes_raise(terms: bytes, value: bytes, vr: str) -> None:
    assert isinstance(read(terms, value, vr), tuple)


TERMS = [
    ["ISO_IR 100"],
    ["ISO_IR 192"],
    ["GB18030"],
    ["", "ISO 2022 IR 87"],
    ["", "ISO 2022 IR 149"],
    ["ISO 2022 IR 100", "ISO 2022 IR 126"],
    ["ISO 2022 IR 6", "ISO 2022 IR 144"],
]
LETTERS = {
    "ISO_IR 100": "aéô",
    "ISO_IR 192": "aé王😀",
    "GB18030": "a王東乗",
    "ISO 2022 IR 87": "a山田",
    "ISO 2022 IR 149": "a洪홍",
    "ISO 2022 IR 126": "aΔι",
    "ISO 2022 IR 144": "aЖя",
}


@given(st.sampled_from(TERMS), st.data())
@settings(max_examples=200, deadline=None)
def test_what_pydicom_encodes_is_read(terms: list[str], draw: st.DataObject) -> None:
    word = st.text(LETTERS[terms[-1]], min_size=1, max_size=4)
    words = draw.draw(st.lists(word, min_size=1, max_size=3))
    encodings = convert_encodings(list(terms))
    value = b"\\".join(encode_string(w, encodings) for w in words)
    assert read("\\".join(terms).encode(), value, "LO", DESCRIPTION) == tuple(words)
