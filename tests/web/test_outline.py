"""Rules in words for the port that anybody may reach: what must not be there comes first."""

from datetime import UTC, datetime

import pytest

from router.web.outline import condition, line_of
from rules import load
from rules.known import Known
from rules.rule import Rule, Target
from rules.window import parse_windows

KNOWN = Known(
    ("pacs",),
    ("pacs",),
    lists={"trial": frozenset({"SECRET"})},
    schedules={"night": parse_windows(["18:00-07:00"], "UTC")},
)


def words(when: str) -> str:
    rules = load(f"- {{name: r, to: pacs, when: {{{when}}}}}", known=KNOWN).rules
    return condition(rules[0].condition)


@pytest.mark.parametrize(
    "when",
    [
        "PatientID: SECRET",
        "PatientID: [SECRET, SECRET2]",
        "PatientName: 'SECRET*'",
        "PatientName: /SECRET/",
        "ReferringPhysicianName: SECRET",
        "PatientBirthDate: '19701122'",
        "AccessionNumber: {starts: SECRET}",
        "PatientID: {contains: SECRET, ignore_case: true}",
        "PatientID: {in: trial}",
        "StudyInstanceUID: 1.2.19701122",
        "not: {any: [{PatientID: SECRET}, {OtherPatientIDs: SECRET}]}",
        "RequestAttributesSequence.ScheduledProcedureStepID: SECRET",
        "'(0019,\"SECRET OWNER\",10)': x",
        "PatientComments: '!= SECRET'",
        "PatientBirthDate: '< 19701122'",
        "PatientAge: '> 019Y'",
    ],
)
def test_no_value_that_could_identify_a_patient_is_shown(when: str) -> None:
    text = words(when)
    for secret in ("SECRET2", "SECRET*", "19701122", "019Y", "SECRET/"):
        assert secret not in text
    assert "SECRET" not in text.replace("SECRET OWNER", "")


@pytest.mark.parametrize(
    ("when", "text"),
    [
        ("Modality: CT", "Modality is CT"),
        ("calling_ae: 'CT*', Modality: [CT, MR]", "calling AE is CT* and Modality is CT, MR"),
        ("PatientID: [A, B]", "PatientID is one of 2 values"),
        ("PatientID: {in: trial}", "PatientID is in the list trial"),
        ("not: {Modality: CT}", "not (Modality is CT)"),
        (
            "any: [{Modality: CT, source: 10.0.0.0/8}, {'ImageType[3]': LOCALIZER}]",
            "(Modality is CT and source is 10.0.0.0/8) or ImageType[3] is LOCALIZER",
        ),
        ("PatientID: {present: true}", "PatientID is there"),
        ("ImageType: {count: '> 2'}", "ImageType has 3 values or more"),
        (
            "received: 'mon,tue 18:00-07:00'",
            "received mon,tue 18:00-07:00 (UTC)",
        ),
        (
            "StudyDescription: {starts: [Head], ignore_case: true}",
            "StudyDescription is what starts with Head",
        ),
        ("StationName: {same_as: PatientID}", "StationName is the same as PatientID"),
    ],
)
def test_conditions_in_words(when: str, text: str) -> None:
    assert words(when) == text


def test_a_rule_without_conditions_always_holds() -> None:
    assert line_of(load("- {name: r, to: pacs}").rules[0], 0.0).when == ""


def test_a_rule_that_does_not_count_says_why() -> None:
    def rule(**more: object) -> Rule:
        return Rule("r", targets=(Target("one", ("pacs",)),), **more)  # type: ignore[arg-type]

    day = datetime(2026, 11, 21, tzinfo=UTC)
    at = day.timestamp()
    assert line_of(rule(), at).state == ""
    assert line_of(rule(disabled="VPN"), at).state == "disabled: VPN"
    assert line_of(rule(valid_from=day), at - 1).state == "valid from 2026-11-21 00:00+00:00"
    assert line_of(rule(valid_from=day), at).state == ""
    assert line_of(rule(until=day), at).state == "expired 2026-11-21 00:00+00:00"
    assert line_of(rule(until=day), at - 1).state == ""
