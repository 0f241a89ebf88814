"""Values that a sender made long, many or in another spelling."""

from dataclasses import replace
from unicodedata import normalize

import pytest

from rules import Facts, Known, Problems, load
from rules import tables as tables_module
from rules.attributes import Private, keywords
from rules.balance import cached_order
from rules.interpret import explain
from rules.nearest import nearest, rationed
from rules.pattern import Matcher, Textual, matcher
from rules.values import cached_groups, fold, name_groups

NAME, PATIENT_ID, STUDY, BURNED_IN = 0x00100010, 0x00100020, 0x0020000D, 0x00280301
COMMENTS, DESCRIPTION, SOP_CLASS = 0x00104000, 0x00081030, 0x00080016


def _facts(too_large: tuple[object, ...] = (), **values: tuple[str, ...]) -> Facts:
    tags = {"name": NAME, "burned_in": BURNED_IN, "comments": COMMENTS, "description": DESCRIPTION}
    return Facts(
        "CT1",
        "ROUTER",
        "10.0.0.1",
        attributes={tags[name]: each for name, each in values.items()},
        too_large=frozenset(too_large),  # type: ignore[arg-type]
    )


# -- too large to compare ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "when",
    [
        "{not: {PatientComments: '*secret*'}}",
        "{PatientComments: {not: secret}}",
        "{PatientComments: {empty: true}}",
        "{not: {PatientComments: {same_as: StudyDescription}}}",
        "{not: {PatientComments: {count: 1}}}",
        "{any: [{calling_ae: CT1}, {PatientComments: x}]}",
    ],
)
def test_not_sends_nothing_of_which_it_cannot_tell(when: str) -> None:
    rules = load(f"[{{when: {when}, to: a}}]")
    facts = _facts((COMMENTS,), comments=())
    decision = rules.decide(facts)
    assert (decision.disposition, decision.routes) == ("hold", ())
    assert decision.reason == (
        "PatientComments (0010,4000), which rules look at, is too large to be compared"
    )
    explanation = explain(rules, facts)
    assert explanation.decision == decision
    assert [trace.verdict for trace in explanation.rules] == ["not reached"]


def test_what_is_too_large_is_named_with_the_number_of_others() -> None:
    creator = '"(0019,\\"ACME\\",10)"'
    text = f"[{{when: {{PatientComments: x, StudyDescription: y, {creator}: z}}, to: a}}]"
    facts = _facts((COMMENTS, DESCRIPTION, Private(0x0019, "ACME", 0x10)))
    reason = load(text).decide(facts).reason
    assert reason.startswith('(0019,"ACME",10) (and 2 more), which rules look at, is too large')
    path = (0x00400275, 0x00400009)
    facts = _facts((path,))
    text = "[{when: {RequestAttributesSequence.ScheduledProcedureStepID: x}, to: a}]"
    assert (
        load(text)
        .decide(facts)
        .reason.startswith(
            "RequestAttributesSequence (0040,0275).ScheduledProcedureStepID (0040,0009), which"
        )
    )


@pytest.mark.parametrize(
    "when",
    [
        "{PatientComments: {present: true}}",
        "{not: {PatientComments: {absent: true}}}",
        "{Modality: CT}",
        "{calling_ae: CT1}",
    ],
)
def test_what_only_needs_to_be_there_may_be_of_any_size(when: str) -> None:
    rules = load(f"[{{when: {when}, to: a}}, {{when: {{calling_ae: CT1}}, to: b}}]")
    facts = _facts((COMMENTS,), comments=())
    decision = rules.decide(facts)
    assert decision.disposition == "route"
    assert explain(rules, facts).decision == decision


def test_a_disabled_rule_holds_nothing_back() -> None:
    text = "[{when: {PatientComments: x}, to: a, disabled: not yet}, {to: b}]"
    assert load(text).decide(_facts((COMMENTS,), comments=())).disposition == "route"


# -- many values -------------------------------------------------------------------------------


@pytest.mark.parametrize("nested", [False, True])
def test_repeated_values_are_tried_once_against_each_of_500_rules(
    monkeypatch: pytest.MonkeyPatch, nested: bool
) -> None:
    calls = 0

    def counting(pattern: Textual) -> Matcher:
        matches = matcher(pattern)

        def counted(value: str) -> bool:
            nonlocal calls
            calls += 1
            return matches(value)

        return counted

    monkeypatch.setattr(tables_module, "matcher", counting)
    monkeypatch.setattr("rules.compile.matcher", counting)
    condition = "{StudyDescription: '/x%d/'}"
    if nested:
        condition = "{any: [{calling_ae: NO}, {StudyDescription: '/x%d/'}]}"
    lines = "\n".join(f"- {{when: {condition % n}, to: a}}" for n in range(500))
    rules = load(lines)
    values = tuple(f"v{n % 10}" for n in range(32_767))
    assert rules.decide(_facts(description=values)).disposition == "hold"
    assert calls == 500 * 10


# -- memory ------------------------------------------------------------------------------------


def test_long_values_are_not_kept_in_memory() -> None:
    rules = load("[{when: {PatientName: '*DOE*'}, to: {balance: [a, b], by: patient}}]")
    cached_groups.cache_clear()
    cached_order.cache_clear()
    long = "x" * 60_000
    for number in range(10):
        facts = _facts(name=(f"DOE^{long}{number}",))
        facts = replace(facts, attributes={**facts.attributes, PATIENT_ID: (f"{long}{number}",)})
        assert rules.decide(facts).disposition == "route"
        assert rules.decide(facts) == explain(rules, facts).decision
    assert cached_groups.cache_info().currsize == 0
    assert cached_order.cache_info().currsize == 0
    name_groups("DOE^JOHN")
    assert cached_groups.cache_info().currsize == 1


# -- spellings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "when",
    [
        "{PatientName: 'Müller^René'}",
        "{PatientName: 'Müller^*'}",
        "{PatientName: 'M?ller^René'}",
        "{PatientName: '/^müller/'}",
        "{PatientName: {starts: 'Mü'}}",
        "{PatientName: {contains: 'ÉNÉ'}}",
        "{StudyDescription: {equals: 'SCHÄDEL', ignore_case: true}}",
        "{StudyDescription: {starts: 'SCHÄ', ignore_case: true}}",
        "{StudyDescription: {in: trial, ignore_case: true}}",
        "{PatientName: {in: names}}",
    ],
)
def test_an_umlaut_is_one_however_it_was_typed(when: str) -> None:
    name = "Müller^RenéNé" if "contains" in when else "Müller^René"
    lists = {"trial": frozenset({"SchÄdel"}), "names": frozenset({"Müller^René"})}
    for of_rule in ("NFC", "NFD"):
        known = Known(
            ("a",),
            ("a",),
            lists={k: frozenset(normalize(of_rule, e) for e in v) for k, v in lists.items()},
        )
        rules = load(normalize(of_rule, f"[{{when: {when}, to: a}}]"), known=known)
        for of_value in ("NFC", "NFD"):
            facts = _facts(
                name=(normalize(of_value, name),), description=(normalize(of_value, "Schädel"),)
            )
            decision = rules.decide(facts)
            assert decision.disposition == "route", (of_rule, of_value)
            assert explain(rules, facts).decision == decision


def test_composing_takes_no_longer_than_a_name_is_worth() -> None:
    hostile = "\u0300\u0323" * 16_000  # their order takes the square of their number
    assert fold(hostile) == hostile
    assert fold("E\u0301") == "é"


def test_equals_takes_a_star_of_a_class_for_itself() -> None:
    for text in ("1.2.840.*", "CT*"):
        with pytest.raises(Problems, match=r"'equals' takes a \* or \? for itself"):
            load(f"[{{when: {{sop_class: {{equals: '{text}'}}}}, to: a}}]")
        assert load(f"[{{when: {{sop_class: '{text}'}}, to: a}}]").rules
    assert load("[{when: {sop_class: {equals: CTImageStorage}}, to: a}]").rules


# -- typos -------------------------------------------------------------------------------------


def test_after_a_hundred_suggestions_there_are_no_more() -> None:
    lines = "\n".join(f"- {{when: {{Modalitie{n:03}: CT}}, to: a}}" for n in range(150))
    with pytest.raises(Problems) as raised:
        load(lines)
    problems = raised.value.problems
    assert len(problems) == 150
    told = ["Modalit" in problem.fix for problem in problems]
    assert told == [True] * 100 + [False] * 50
    assert nearest("Modalty", keywords()) == "Modality"


def test_few_words_are_always_compared() -> None:
    with rationed(0):
        assert nearest("pasc", ["pacs"]) == "pacs"
        assert nearest("Modalty", keywords()) is None
    assert nearest("Modalty", keywords()) == "Modality"
