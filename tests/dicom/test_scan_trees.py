"""Random nested data sets that pydicom writes in every encoding: what it reads is found."""

import random
import warnings
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import DataElement, Dataset, Sequence

from router.dicom.scan import Scanner
from router.dicom.values import is_ambiguous
from rules.attributes import Private
from tests.dicom.oracle import differences, expected
from tests.dicom.rewrite import ENCODINGS, written

# Letters that only one of the sets has.
SETS = {
    "ISO_IR 100": "éüß",
    "ISO_IR 101": "Łłő",
    "ISO_IR 144": "ДЖя",
    "ISO_IR 126": "Ωαβ",
    "ISO_IR 192": "王é日Д",
    "GB18030": "王小东",
    "": "",
}
TEXT = ["text"]
NUMBERS = [0, 1, 0x7FFF, 0xFFFF]
ELEMENTS: dict[int, tuple[str, list[Any]]] = {
    0x00080060: ("CS", ["CT", "MR", "", ["CT", "MR"]]),
    0x00081150: ("UI", ["1.2.3", "1.2.840.10008.1.1", ""]),
    0x00100020: ("LO", TEXT),
    0x00100010: ("PN", TEXT),
    0x00104000: ("LT", TEXT),
    0x00101020: ("DS", ["1.5", "-2e10", ["1", "2.50"], None]),
    0x00200013: ("IS", ["12", ["1", "2"], None]),
    0x00100030: ("DA", ["20260101", ""]),
    0x00189087: ("FD", [0.1, -2.5e300, 3.0]),
    0x00189074: ("DT", ["20260101120000.5"]),
    0x00280010: ("US", NUMBERS),
    0x00280103: ("US", [0, 1]),
    0x00280106: ("US", NUMBERS[:3]),
    0x00209157: ("UL", [[], [1], [0, 1, 2**32 - 1]]),
    0x00089459: ("FL", [0.5, 1e20]),
    0x00420011: ("OB", [b"", b"ab", bytes(300)]),
    0x00091001: ("SL", [-1, 2**31 - 1]),
    0x00091110: ("LO", TEXT),
    0x00191002: ("SL", [-5, 7]),
    0x001910FE: ("SH", TEXT),
}
SEQUENCES = (0x00081140, 0x00400275, 0x00400008, 0x52009230, 0x00091020, 0x001911F0)
CREATORS = {
    0x00090010: ["ACME 1.1", "GEMS_IDEN_01"],
    0x00090011: ["ACME 1.1", "OTHER"],
    0x00190010: ["GEMS_ACQU_01", "ACME 1.1"],
    0x00190011: ["GEMS_ACQU_01", "SIEMENS MR HEADER"],
}


def data_set(chance: random.Random, letters: str = "", depth: int = 0) -> Dataset:
    """A data set or an item; ``letters`` are those that the one around it can hold."""
    data = Dataset()
    if depth == 0 or chance.random() < 0.25:
        term = chance.choice(sorted(SETS))
        letters = SETS[term]
        data.add(DataElement(0x00080005, "CS", term or None))
    for tag, creators in CREATORS.items():
        if chance.random() < 0.5:
            data.add(DataElement(tag, "LO", chance.choice(creators)))
    for tag in chance.sample(sorted(ELEMENTS), chance.randrange(8)):
        vr, values = ELEMENTS[tag]
        value = chance.choice(values)
        if value == "text":
            value = "".join(chance.choices(f"ABc 12{letters}", k=chance.randrange(8))).strip()
        data.add(DataElement(tag, vr, value))
    if depth < 3:
        for tag in chance.sample(SEQUENCES, chance.randrange(4 - depth)):
            items = [data_set(chance, letters, depth + 1) for _ in range(chance.randrange(4))]
            data.add(DataElement(tag, "SQ", Sequence(items)))
    return data


@given(st.integers(0, 2**32), st.sampled_from(sorted(ENCODINGS)))
@settings(max_examples=300, deadline=None)
def test_what_pydicom_wrote_is_found(seed: int, name: str) -> None:
    chance = random.Random(seed)
    data = data_set(chance)
    encoding = ENCODINGS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        encoded, again = written(data, encoding)
    wanted = expected(again)
    if name.startswith("implicit"):
        # pydicom does not always look at the Pixel Representation around a sequence.
        for key, entry in wanted.items():
            entry.known &= not (isinstance(key, tuple) and _sign(key[-1]))
    chosen = chance.sample(sorted(wanted, key=repr), chance.randint(0, len(wanted)))
    for keys in (frozenset(wanted), frozenset(chosen)):
        scanner = Scanner(encoding.syntax, keys, parts_limit=2**16)
        size = chance.choice([1, 7, 50, 10_000])
        for at in range(0, len(encoded), size):
            if scanner.feed(encoded[at : at + size]):
                break
        scanner.finish()
        assert scanner.error == ""
        found = scanner.attributes()
        assert not differences(found, {key: wanted[key] for key in keys})
        assert found.keys() - {0x00080005, 0x00280103} <= keys


def _sign(step: int | Private) -> bool:
    return isinstance(step, int) and is_ambiguous(step)
