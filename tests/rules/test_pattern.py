"""Globs, networks, tags and names."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom._uid_dict import UID_dictionary

from router.dicom.uids import TRANSFER_SYNTAXES, parse_transfer_syntax
from rules.attributes import keywords, tag_of
from rules.nearest import nearest
from rules.pattern import glob_matcher, parse_address
from rules.uids import SHORT_NAMES, names, resolve


@given(st.text("ab?*", max_size=8), st.text("ab\n", max_size=10))
def test_a_glob_is_the_obvious_regular_expression(glob: str, value: str) -> None:
    obvious = "".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in glob)
    expected = re.fullmatch(obvious, value, re.DOTALL) is not None
    assert bool(glob_matcher(glob)(value)) == expected


def test_brackets_and_dots_are_nothing_special() -> None:
    assert glob_matcher("A[1]*.x")("A[1]bc.x")
    assert not glob_matcher("A[1]*.x")("A1bc.x")
    assert not glob_matcher("a.c*")("abc")


@pytest.mark.timeout(30)  # without atomic groups: longer than the universe
def test_a_hostile_glob_and_value_take_no_time() -> None:
    assert not glob_matcher("*a" * 30 + "*b")("a" * 5000)
    assert not glob_matcher("*?a" * 30 + "*b")("a" * 5000)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.5", "10.0.0.5"),
        ("::ffff:10.0.0.5", "10.0.0.5"),
        ("fe80::1%eth0", "fe80::1"),
        ("FD00:0::1", "fd00::1"),
        ("pacs", None),
        ("", None),
    ],
)
def test_addresses_in_one_spelling(text: str, address: str | None) -> None:
    parsed = parse_address(text)
    assert (None if parsed is None else str(parsed)) == address


@pytest.mark.parametrize(
    "name", ["Modality", "(0008,0060)", "(0008, 0060)", "00080060", "0008,0060"]
)
def test_spellings_of_a_tag(name: str) -> None:
    assert tag_of(name) == 0x00080060


@pytest.mark.parametrize("name", ["modality", "8,60", "(0008,0060", "0x00080060", "", "000800600"])
def test_what_is_no_tag(name: str) -> None:
    assert tag_of(name) is None


def test_every_keyword_is_known() -> None:
    assert all(tag_of(keyword) is not None for keyword in keywords())


def test_uids_by_name() -> None:
    assert resolve("SOP Class", "CTImageStorage") == ("1.2.840.10008.5.1.4.1.1.2",)
    assert resolve("Transfer Syntax", "jpeg-ls-lossless") == ("1.2.840.10008.1.2.4.80",)
    assert resolve("Transfer Syntax", "1.2.3.4") == ("1.2.3.4",)
    assert resolve("SOP Class", "Verification") == ("1.2.840.10008.1.1",)
    assert "1.2.840.10008.5.1.4.1.1.4" in resolve("SOP Class", "*MRImageStorage")
    assert resolve("SOP Class", "ExplicitVRLittleEndian") == ()
    assert resolve("SOP Class", "1." * 40 + "1") == ()


def test_short_names_of_syntaxes_are_of_real_syntaxes() -> None:
    known = names("Transfer Syntax")
    keyworded = {uid for name, uid in known.items() if name[0].isupper()}
    # pynetdicom adds newer syntaxes to the dictionary when something imports it.
    assert {uid for uid in known.values() if uid in UID_dictionary} == keyworded


def test_rules_and_settings_call_a_syntax_by_the_same_names() -> None:
    theirs = {s.short_name: uid for uid, s in TRANSFER_SYNTAXES.items() if s.short_name}
    assert len(theirs) > 30
    assert theirs.items() <= SHORT_NAMES.items()
    for name, uid in names("Transfer Syntax").items():
        if uid not in TRANSFER_SYNTAXES:
            continue  # Newer than the dictionary that is installed.
        assert resolve("Transfer Syntax", name.upper()) == (parse_transfer_syntax(name),)


def test_nearest_looks_past_case_and_hyphens() -> None:
    assert nearest("CT_Room1", ["mr-room-1", "ct-room-1"]) == "ct-room-1"
    assert nearest("zzz", ["mr-room-1", "ct-room-1"]) is None
