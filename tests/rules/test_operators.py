"""Every operator: what it takes, what holds, what does not."""

from datetime import UTC, datetime

import pytest

from rules import Facts, Known, load
from rules.attributes import Key, Private
from rules.interpret import explain

MODALITY, IMAGE_TYPE, NAME, THICKNESS = 0x00080060, 0x00080008, 0x00100010, 0x00180050
SERIES, DATE, TIME, ACQUIRED, AGE = 0x00200011, 0x00080020, 0x00080030, 0x0008002A, 0x00101010
PATIENT, OTHER, DESCRIPTION = 0x00100020, 0x00101000, 0x00081030
SATURDAY = datetime(2026, 11, 21, 12, 0, tzinfo=UTC).timestamp()
KNOWN = Known(
    ("ct-1", "pacs"),
    ("pacs",),
    lists={
        "trial": frozenset({"17", "Doe^John", "1.50", "20261121"}),
        "folded": frozenset({"Straße"}),
    },
    folded=("folded",),
)


def holds(when: str, attributes: dict[Key, tuple[str, ...]], **facts: str) -> bool:
    """Whether both ways of deciding say that a condition holds; they must agree."""
    rules = load(f"- {{name: r, to: pacs, when: {when}}}", known=KNOWN)
    given = Facts("CT1", "ROUTER", "10.1.2.3", attributes=attributes, received_at=SATURDAY, **facts)
    decision = rules.decide(given)
    assert explain(rules, given).decision == decision
    # Beneath a group that has no table, the same condition is a closure.
    nested = load(
        f"- {{name: r, to: pacs, when: {{any: [{when}, {{StudyID: never}}]}}}}", known=KNOWN
    )
    assert nested.decide(given).disposition == decision.disposition
    return decision.disposition == "route"


CASES: list[tuple[str, Key, list[str], list[str]]] = [
    # What the condition is, which attribute it looks at, values that hold, values that do not.
    ("Modality: CT", MODALITY, ["CT"], ["ct", "CTX", ""]),
    ("Modality: [CT, MR]", MODALITY, ["CT", "MR"], ["US"]),
    ("Modality: 'C?'", MODALITY, ["CT", "CR"], ["C", "CTX"]),
    ("Modality: '!= CT'", MODALITY, ["MR", "ct"], ["CT", ""]),
    ("Modality: '!= C*'", MODALITY, ["MR"], ["CT", "CR"]),
    ("PatientID: '= C*'", PATIENT, ["C*"], ["CT"]),
    ("PatientID: '= /x/'", PATIENT, ["/x/"], ["x"]),
    ("PatientID: '= today'", PATIENT, ["today"], ["20261121"]),
    ("PatientID: {equals: 'C*'}", PATIENT, ["C*"], ["CT"]),
    ("Modality: {equals: [A, B]}", MODALITY, ["A", "B"], ["AB"]),
    ("Modality: {equals: ct, ignore_case: true}", MODALITY, ["CT", "ct", "Ct"], ["MR"]),
    ("Modality: {not: [CT, 'M*']}", MODALITY, ["US"], ["CT", "MR", ""]),
    ("Modality: {not: ct, ignore_case: true}", MODALITY, ["US"], ["CT", "ct"]),
    ("Modality: {not: /c/, ignore_case: true}", MODALITY, ["US"], ["CT", "ct"]),
    ("Modality: {glob: '*T'}", MODALITY, ["CT", "T"], ["TC"]),
    ("Modality: {glob: '*t', ignore_case: true}", MODALITY, ["CT", "ct"], ["MR"]),
    ("PatientID: {ignore_case: false, equals: ct}", PATIENT, ["ct"], ["CT"]),
    ("StudyDescription: /head/", DESCRIPTION, ["head", "a head CT"], ["HEAD", "hea d"]),
    ("StudyDescription: /head/i", DESCRIPTION, ["HEAD", "ahEAd"], ["hea"]),
    ("StudyDescription: '/^head$/'", DESCRIPTION, ["head"], ["a head", "head\n"]),
    ("StudyDescription: '/a|b/'", DESCRIPTION, ["xa", "b"], ["c"]),
    ("StudyDescription: [/head/, NECK, '< 3']", DESCRIPTION, ["head", "NECK", "2"], ["neck", "4"]),
    ("StudyDescription: {regex: '^h.*d$'}", DESCRIPTION, ["head"], ["headx"]),
    ("StudyDescription: {regex: STRASSE, ignore_case: true}", DESCRIPTION, ["strasse"], ["x"]),
    ("StudyDescription: {regex: 'å', ignore_case: true}", DESCRIPTION, ["Å", "å"], ["a"]),
    ("StudyDescription: {starts: he}", DESCRIPTION, ["head", "he"], ["Head", "the", "h"]),
    ("StudyDescription: {starts: [he, ne]}", DESCRIPTION, ["neck"], ["knee"]),
    ("StudyDescription: {starts: HE, ignore_case: true}", DESCRIPTION, ["head"], ["the"]),
    ("StudyDescription: {ends: ad}", DESCRIPTION, ["head", "ad"], ["heads", "d"]),
    ("StudyDescription: {contains: ea}", DESCRIPTION, ["head"], ["hEad"]),
    ("StudyDescription: {contains: 'e*'}", DESCRIPTION, ["he*d"], ["head"]),
    ("StudyDescription: {contains: straße, ignore_case: true}", DESCRIPTION, ["ASTRASSE"], ["a"]),
    ("StudyDescription: {starts: h, ends: d}", DESCRIPTION, ["head"], ["heads", "ahead"]),
    ("SliceThickness: 1.5", THICKNESS, ["1.5", "1.50", "+1.5", "15e-1", "01.5"], ["1.51", "x", ""]),
    ("SliceThickness: {equals: 1.50}", THICKNESS, ["1.5"], ["1.51"]),
    ("SliceThickness: '!= 1.5'", THICKNESS, ["2", "x"], ["1.50", ""]),
    ("SliceThickness: '< 1.5'", THICKNESS, ["1.49", "-7"], ["1.5", "2", "nan", "-inf", "1_0"]),
    ("SliceThickness: '<= 1.5'", THICKNESS, ["1.50"], ["1.500001"]),
    ("SliceThickness: '> 1.5'", THICKNESS, ["1.51", "1e3"], ["1.5"]),
    ("SliceThickness: '>= 1.5'", THICKNESS, ["1.5"], ["1.49"]),
    ("SliceThickness: 1..2.5", THICKNESS, ["1", "2.50"], ["0.99", "2.51"]),
    ("SliceThickness: -2..-1", THICKNESS, ["-1.5"], ["1.5", "-3"]),
    ("SliceThickness: ['< 1', 5, '8..9']", THICKNESS, ["0", "5.0", "8.5"], ["1", "6", "10"]),
    ("SliceThickness: [1..5, 3..8, 4..4.5]", THICKNESS, ["2", "4", "5", "6", "8"], ["0", "9"]),
    ("SliceThickness: {between: [1, 2]}", THICKNESS, ["1", "2"], ["3"]),
    ("SliceThickness: {less: 3, more: 1}", THICKNESS, ["2"], ["1", "3"]),
    ("SliceThickness: {at_most: 3, at_least: 1}", THICKNESS, ["1", "3"], ["0", "4"]),
    ("SliceThickness: {not: ['< 3']}", THICKNESS, ["3"], ["2", ""]),
    ("SliceThickness: '1*'", THICKNESS, ["1.5", "12"], ["2"]),
    ("SeriesNumber: 3", SERIES, ["3", "003", "3.0"], ["30"]),
    ("SeriesNumber: '> 9007199254740992'", SERIES, ["9007199254740993"], ["9007199254740992"]),
    ("StudyDate: 2026-11-21", DATE, ["20261121", "2026.11.21"], ["20261120", "20261321"]),
    ("StudyDate: 20261121", DATE, ["20261121"], ["20261122"]),
    ("StudyDate: '2026*'", DATE, ["20260101"], ["20250101"]),
    ("StudyDate: '>= 20260101'", DATE, ["20260101"], ["20251231"]),
    ("StudyDate: 2026-01-01..2026-12-31", DATE, ["20260101", "20261231"], ["20270101"]),
    ("StudyDate: today", DATE, ["20261121"], ["20261120"]),
    ("StudyDate: '>= today-7d'", DATE, ["20261114", "20300101"], ["20261113"]),
    ("StudyDate: '< today - 1 week'", DATE, ["20261113"], ["20261114"]),
    ("StudyDate: today-1w..today+1w", DATE, ["20261114", "20261128"], ["20261113", "20261129"]),
    ("PatientBirthDate: '> today-18y'", 0x00100030, ["20081122"], ["20081121"]),
    ("AcquisitionDateTime: 2026-11-20", ACQUIRED, ["20261121003000+0100"], ["20261120233000-0100"]),
    ("StudyDate: {between: [today-7d, today]}", DATE, ["20261121"], ["20261122"]),
    ("StudyTime: 18:00", TIME, ["18", "1800", "180059.999999", "18:00:00"], ["1801", "175959"]),
    ("StudyTime: 18:00:30", TIME, ["180030", "180030.5"], ["180031", "1800"]),
    ("StudyTime: '< 7:30'", TIME, ["072959"], ["073000", "7", "bad"]),
    ("StudyTime: 07:00..18:00", TIME, ["070000", "180030"], ["065959", "180100"]),
    ("StudyTime: ['>= 22:00', '<= 06:00']", TIME, ["230000", "0600", "00"], ["0601", "2159"]),
    (
        "AcquisitionDateTime: 2026-11-21",
        ACQUIRED,
        ["20261121", "20261121235959.9", "20261122003000+0100"],
        ["20261122", "20261121000000+0100", "2026"],
    ),
    ("AcquisitionDateTime: '> 2026-11-21'", ACQUIRED, ["20261122"], ["20261121235959"]),
    ("AcquisitionDateTime: '>= 2026-11-21T18:00'", ACQUIRED, ["202611211800"], ["202611211759"]),
    ("AcquisitionDateTime: '<= 2026-11-21 18:00'", ACQUIRED, ["20261121180059"], ["202611211801"]),
    ("AcquisitionDateTime: today", ACQUIRED, ["202611211200"], ["202611200000"]),
    ("AcquisitionDateTime: '< today-1d'", ACQUIRED, ["20261119235959"], ["20261120"]),
    ("PatientAge: 18Y", AGE, ["018Y", "18Y", "216M"], ["017Y", "18"]),
    ("PatientAge: '< 18y'", AGE, ["017Y", "200M", "900D", "017M"], ["018Y", "019Y"]),
    ("PatientAge: 1M..2Y", AGE, ["024M", "031D", "104W"], ["002W", "003Y"]),
    (
        "PatientName: Doe^John",
        NAME,
        ["DOE^JOHN", "doe^john^^", "Doe ^ John", "X=Doe^John"],
        ["Doe"],
    ),
    ("PatientName: 'DOE^JOHN^^^'", NAME, ["Doe^John"], ["Doe^John^M"]),
    ("PatientName: Doe", NAME, ["DOE", "doe^^", "Doe^"], ["Doe^John"]),
    ("PatientName: 'Doe*'", NAME, ["DOE", "doe^john", "Y=Doering"], ["Roe", ""]),
    ("PatientName: 'Doe^*'", NAME, ["DOE", "doe^john"], ["Doering"]),
    ("PatientName: '*^J*'", NAME, ["Doe^John", "Doe^Jane^X"], ["Doe^Ann", "J"]),
    ("PatientName: 'D?e'", NAME, ["Doe", "DIE^"], ["Drone"]),
    ("PatientName: '=山田*'", NAME, ["Yamada^Taro=山田^太郎"], ["山田^太郎", "Yamada"]),
    ("PatientName: 'Yamada^Taro=山田^太郎'", NAME, ["YAMADA^TARO=山田^太郎=x"], ["Yamada^Taro"]),
    ("PatientName: '= D*e'", NAME, ["d*E"], ["Doe"]),
    ("PatientName: '!= Doe'", NAME, ["Roe"], ["DOE", ""]),
    ("PatientName: {starts: doe}", NAME, ["Doe^John", "X=DOE"], ["A^Doe"]),
    ("PatientName: {ends: '^JOHN'}", NAME, ["Doe^John^^"], ["John^Doe"]),
    ("PatientName: {contains: OH}", NAME, ["Doe^John"], ["Doe"]),
    ("PatientName: /^doe\\^j/", NAME, ["DOE^JOHN", "X=Doe^Jane"], ["Doe"]),
    ("PatientName: {in: trial}", NAME, ["DOE^JOHN^", "X=doe^john"], ["Doe^J"]),
    ("PatientID: {in: trial}", PATIENT, ["17", "1.50"], ["1.5", "18"]),
    ("PatientID: {in: [trial, folded]}", PATIENT, ["17", "STRASSE"], ["x"]),
    ("PatientID: {in: trial, ignore_case: true}", PATIENT, ["doe^john"], ["x"]),
    ("SliceThickness: {in: trial}", THICKNESS, ["1.5", "17.0"], ["2"]),
    ("StudyDate: {in: trial}", DATE, ["20261121"], ["20261122"]),
    ("StudyInstanceUID: '1.2.*'", 0x0020000D, ["1.2.3"], ["1.20"]),
    ("StudyInstanceUID: {starts: '1.2'}", 0x0020000D, ["1.2.3", "1.20"], ["2.1.2"]),
]


@pytest.mark.parametrize(
    ("when", "key", "good", "bad"), CASES, ids=[case[0].replace(" ", "") for case in CASES]
)
def test_single_values(when: str, key: Key, good: list[str], bad: list[str]) -> None:
    text = f"{{{when}}}"
    for value in good:
        assert holds(text, {key: (value,)}), value
        assert holds(f"{{not: {text}}}", {key: (value,)}) is False, value
    for value in bad:
        assert not holds(text, {key: (value,) if value else ()}), value
    assert not holds(text, {}), "nothing holds for a missing attribute"
    assert holds(f"{{not: {text}}}", {}), "but its negation"


SEVERAL: list[tuple[str, dict[Key, tuple[str, ...]], bool]] = [
    ("{ImageType: PRIMARY}", {IMAGE_TYPE: ("ORIGINAL", "PRIMARY")}, True),
    ("{'ImageType[1]': PRIMARY}", {IMAGE_TYPE: ("ORIGINAL", "PRIMARY")}, False),
    ("{'ImageType[2]': PRIMARY}", {IMAGE_TYPE: ("ORIGINAL", "PRIMARY")}, True),
    ("{'ImageType[3]': PRIMARY}", {IMAGE_TYPE: ("ORIGINAL", "PRIMARY")}, False),
    ("{'ImageType[3]': '!= PRIMARY'}", {IMAGE_TYPE: ("ORIGINAL", "PRIMARY")}, False),
    ("{'ImageType[3]': {absent: true}}", {IMAGE_TYPE: ("ORIGINAL", "PRIMARY")}, True),
    ("{'ImageType[2]': {present: true}}", {IMAGE_TYPE: ("ORIGINAL", "")}, True),
    ("{'ImageType[2]': {empty: true}}", {IMAGE_TYPE: ("ORIGINAL", "")}, True),
    ("{'ImageType[2]': {empty: false}}", {IMAGE_TYPE: ("ORIGINAL", "")}, False),
    ("{ImageType: '!= PRIMARY'}", {IMAGE_TYPE: ("ORIGINAL", "PRIMARY")}, False),
    ("{ImageType: {present: true}}", {IMAGE_TYPE: ()}, True),
    ("{ImageType: {present: true}}", {}, False),
    ("{ImageType: {present: false}}", {}, True),
    ("{ImageType: {absent: true}}", {}, True),
    ("{ImageType: {absent: true}}", {IMAGE_TYPE: ()}, False),
    ("{ImageType: {absent: false}}", {IMAGE_TYPE: ()}, True),
    ("{ImageType: {empty: true}}", {IMAGE_TYPE: ()}, True),
    ("{ImageType: {empty: true}}", {IMAGE_TYPE: ("", "")}, True),
    ("{ImageType: {empty: true}}", {IMAGE_TYPE: ("", "A")}, False),
    ("{ImageType: {empty: true}}", {}, False),
    ("{ImageType: {empty: false}}", {IMAGE_TYPE: ("A",)}, True),
    ("{ImageType: {empty: false}}", {}, False),
    ("{ImageType: {empty: false}}", {IMAGE_TYPE: ()}, False),
    ("{ImageType: {count: 2}}", {IMAGE_TYPE: ("A", "B")}, True),
    ("{ImageType: {count: 2}}", {IMAGE_TYPE: ("A",)}, False),
    ("{ImageType: {count: '> 2'}}", {IMAGE_TYPE: ("A", "B", "C")}, True),
    ("{ImageType: {count: '>= 3'}}", {IMAGE_TYPE: ("A", "B")}, False),
    ("{ImageType: {count: '< 3'}}", {IMAGE_TYPE: ("A", "B", "C")}, False),
    ("{ImageType: {count: '<= 3'}}", {IMAGE_TYPE: ("A", "B", "C")}, True),
    ("{ImageType: {count: '2..3'}}", {IMAGE_TYPE: ("A", "B", "C", "D")}, False),
    ("{ImageType: {count: 0}}", {IMAGE_TYPE: ()}, True),
    ("{ImageType: {count: 0}}", {}, False),
    ("{ImageType: {starts: O, ends: Y}}", {IMAGE_TYPE: ("ORIGINAL", "PRIMARY")}, True),
    ("{SliceThickness: {more: 1, less: 2}}", {THICKNESS: ("0", "3")}, True),
    ("{SliceThickness: {between: [1, 2]}}", {THICKNESS: ("0", "3")}, False),
    ("{PatientID: {same_as: OtherPatientIDs}}", {PATIENT: ("1",), OTHER: ("2", "1")}, True),
    ("{PatientID: {same_as: OtherPatientIDs}}", {PATIENT: ("1",), OTHER: ("2",)}, False),
    ("{PatientID: {same_as: OtherPatientIDs}}", {PATIENT: ("1",)}, False),
    ("{PatientID: {same_as: OtherPatientIDs}}", {PATIENT: ("",), OTHER: ("",)}, False),
    ("{PatientID: {same_as: OtherPatientIDs}}", {PATIENT: ("a",), OTHER: ("A",)}, False),
    (
        "{PatientID: {same_as: OtherPatientIDs, ignore_case: true}}",
        {PATIENT: ("a",), OTHER: ("A",)},
        True,
    ),
    (
        "{PatientName: {same_as: OperatorsName}}",
        {NAME: ("DOE^J",), 0x00081070: ("Doe^J^",)},
        True,
    ),
    ("{StudyDate: {same_as: SeriesDate}}", {DATE: ("20261121",), 0x80021: ("2026.11.21",)}, True),
    ("{SliceThickness: {same_as: SeriesNumber}}", {THICKNESS: ("3.0",), SERIES: ("3",)}, True),
    ("{SliceThickness: {same_as: PatientID}}", {THICKNESS: ("3.0",), PATIENT: ("3",)}, False),
    ("{'(0019,\"GEMS\",10)': x}", {Private(0x19, "GEMS", 0x10): ("x",)}, True),
    ("{'(0019,\"GEMS\",10)': x}", {Private(0x19, "SIEMENS", 0x10): ("x",)}, False),
    ("{'(0019,\"GEMS\",10)': '> 2'}", {Private(0x19, "GEMS", 0x10): ("10",)}, True),
    (
        "{RequestAttributesSequence.ScheduledProcedureStepID: S2}",
        {(0x00400275, 0x00400009): ("S1", "S2")},
        True,
    ),
    (
        "{'(0040,0275).(0019,\"GEMS\",10)': a}",
        {(0x00400275, Private(0x19, "GEMS", 0x10)): ("a",)},
        True,
    ),
]


@pytest.mark.parametrize(("when", "attributes", "expected"), SEVERAL)
def test_several_values(when: str, attributes: dict[Key, tuple[str, ...]], expected: bool) -> None:
    assert holds(when, attributes) is expected
    assert holds(f"{{not: {when}}}", attributes) is not expected


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("{calling_ae: CT1}", True),
        ("{calling_ae: ct1}", False),
        ("{calling_ae: {equals: ct1, ignore_case: true}}", True),
        ("{calling_ae: '/^CT[0-9]$/'}", True),
        ("{calling_ae: '!= CT1'}", False),
        ("{calling_ae: {not: ['MR*', US1]}}", True),
        ("{calling_ae: {not: 'ct*', ignore_case: true}}", False),
        ("{called_ae: {starts: R, ends: R}}", True),
        ("{calling_ae: {contains: T}}", True),
        ("{remote: '!= ct-1'}", True),
        ("{remote: {glob: 'ct-*'}}", False),
        ("{source: {not: 10.1.0.0/16}}", False),
        ("{source: '!= 10.2.0.0/16'}", True),
        ("{sop_class: '!= CTImageStorage'}", True),
        ("{sop_class: {equals: MRImageStorage}}", False),
        ("{sop_class: {not: '*MRImageStorage'}}", True),
        ("{transfer_syntax: {equals: [explicit-vr-le, deflated]}}", True),
    ],
)
def test_facts(when: str, expected: bool) -> None:
    facts = {"sop_class_uid": "1.2", "transfer_syntax_uid": "1.2.840.10008.1.2.1"}
    assert holds(when, {}, **facts) is expected


def test_named_conditions_mean_what_they_stand_for() -> None:
    from rules.source import parse

    named = {
        "head": parse("{BodyPartExamined: [HEAD, BRAIN]}", "c.yaml"),
        "head ct": parse("{is: head, Modality: CT}", "c.yaml"),
    }
    known = Known(("pacs",), ("pacs",), conditions=named)
    for when, head, expected in [
        ("{is: head ct}", "HEAD", True),
        ("{is: head ct}", "KNEE", False),
        ("{is: [head ct, head]}", "HEAD", True),
        ("{not: {is: head}}", "KNEE", True),
        ("{not: {is: head}}", "BRAIN", False),
    ]:
        rules = load(f"[{{to: pacs, when: {when}}}]", known=known)
        facts = Facts("A", "R", "1.1.1.1", attributes={MODALITY: ("CT",), 0x00180015: (head,)})
        decision = rules.decide(facts)
        assert (decision.disposition == "route") is expected
        assert explain(rules, facts).decision == decision
