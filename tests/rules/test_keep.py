"""`keep`: for how long a rule wants an instance kept."""

import pytest

from rules import Facts, load
from rules.interpret import explain
from rules.rule import Rule, version_of
from rules.words import span_words

DAY = 86400.0
FACTS = Facts("CT1", "ROUTER", "10.0.0.1", attributes={0x00080060: ("CT",)})


def _kept(text: str) -> tuple[str, float]:
    rules = load(text)
    decision = rules.decide(FACTS)
    assert explain(rules, FACTS).decision == decision
    return decision.disposition, decision.keep_for


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ("[{to: a}]", ("route", 0.0)),
        ("[{to: a, keep: 30d}]", ("route", 30 * DAY)),
        ("[{to: a, keep: 90}]", ("route", 90.0)),
        ("[{to: a, keep: 2d}, {to: b, keep: 1d}]", ("route", 2 * DAY)),
        ("[{to: a, keep: 1d}, {to: b, keep: 2d}]", ("route", 2 * DAY)),
        ("[{to: a, keep: 1d}, {to: a, keep: 2d}]", ("route", 2 * DAY)),
        ("[{keep: 3d}, {to: a}]", ("route", 3 * DAY)),
        ("[{to: a, final: true, keep: 1d}, {to: b, keep: 2d}]", ("route", DAY)),
        ("[{when: {Modality: MR}, keep: 3d}, {to: a}]", ("route", 0.0)),
        ("[{to: a}, {disabled: not now, keep: 3d}]", ("route", 0.0)),
        ("[{keep: 3d}]", ("hold", 3 * DAY)),
        ("[{keep: 3d}, {hold: ask}]", ("hold", 3 * DAY)),
        ("[{hold: ask, keep: 3d}]", ("hold", 3 * DAY)),
        ("[{keep: 3d}, {discard: junk}]", ("discard", 0.0)),
        ("[{to: [a, {balance: [b, c]}], keep: 3d}]", ("route", 3 * DAY)),
    ],
)
def test_the_longest_of_the_rules_that_match_counts(
    rules: str, expected: tuple[str, float]
) -> None:
    assert _kept(rules) == expected


def test_the_explanation_says_so() -> None:
    rules = load("[{to: a, keep: 30d}, {to: b, keep: 1d}]")
    effects = [trace.effect for trace in explain(rules, FACTS).rules]
    assert effects == ["keeps it for 30 d once it is settled; routes to a", "routes to b"]


def test_rules_without_it_are_of_the_version_that_they_were() -> None:
    assert version_of([Rule("a")]) == version_of([Rule("a", keep_for=0.0)])
    assert version_of([Rule("a")]) != version_of([Rule("a", keep_for=1.0)])


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1.0, "1 s"), (90.0, "1.5 min"), (100.0, "100 s"), (5400.0, "1.5 h"), (30 * DAY, "30 d")],
)
def test_a_time_in_words(seconds: float, words: str) -> None:
    assert span_words(seconds) == words
