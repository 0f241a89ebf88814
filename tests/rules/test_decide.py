"""What a rule set decides, against cases in words and against a slow, obvious interpreter."""

import ipaddress
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules import Decision, Facts, Known, Problems, Route, RuleSet, load
from rules.pattern import Exact, Glob, Network, Pattern
from rules.rule import AllOf, AnyOf, Condition, Match, Not, Rule
from rules.ruleset import NO_RULE

MODALITY, BODY_PART, IMAGE_TYPE = 0x00080060, 0x00180015, 0x00080008


def _facts(calling: str = "CT1", source: str = "10.1.2.3", **attributes: str) -> Facts:
    tags = {"modality": MODALITY, "body": BODY_PART, "image_type": IMAGE_TYPE}
    values = {tags[name]: tuple(v.split("\\")) if v else () for name, v in attributes.items()}
    return Facts(
        calling,
        "ROUTER",
        source,
        remote="ct-room-1",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        attributes=values,
    )


def _decide(text: str, facts: Facts) -> tuple[str, list[str]]:
    decision = load(text).decide(facts)
    return decision.disposition, [route.destination for route in decision.routes]


def _holds(when: str, facts: Facts) -> bool:
    return _decide(f"[{{when: {when}, to: a}}]", facts)[0] == "route"


@pytest.mark.parametrize(
    ("when", "facts", "expected"),
    [
        ("{Modality: CT}", _facts(modality="CT"), True),
        ("{Modality: CT}", _facts(modality="ct"), False),
        ("{Modality: [CT, MR]}", _facts(modality="MR"), True),
        ("{Modality: CT}", _facts(), False),
        ("{not: {Modality: CT}}", _facts(), True),
        ("{not: {Modality: CT}}", _facts(modality=""), True),
        ("{Modality: '*'}", _facts(modality=""), False),
        ("{Modality: '*'}", _facts(modality="CT"), True),
        ("{not: {Modality: [SR, KO]}}", _facts(modality="KO"), False),
        ("{'(0008,0060)': 'C?'}", _facts(modality="CT"), True),
        ("{ImageType: PRIMARY}", _facts(image_type="ORIGINAL\\PRIMARY"), True),
        ("{not: {ImageType: PRIMARY}}", _facts(image_type="ORIGINAL\\PRIMARY"), False),
        (
            "{all: [{ImageType: PRIMARY}, {ImageType: AXIAL}]}",
            _facts(image_type="ORIGINAL\\PRIMARY"),
            False,
        ),
        (
            "{all: [{ImageType: PRIMARY}, {ImageType: ORIGINAL}]}",
            _facts(image_type="ORIGINAL\\PRIMARY"),
            True,
        ),
        ("{any: [{Modality: MR}, {calling_ae: 'CT*'}]}", _facts(modality="CT"), True),
        (
            "{not: {Modality: CT, BodyPartExamined: HEAD}}",
            _facts(modality="CT", body="HEAD"),
            False,
        ),
        ("{not: {Modality: CT, BodyPartExamined: HEAD}}", _facts(modality="CT", body="KNEE"), True),
        ("{not: {any: [{Modality: MR}, {BodyPartExamined: HEAD}]}}", _facts(modality="CT"), True),
        ("{not: {not: {Modality: CT}}}", _facts(modality="CT"), True),
        ("{calling_ae: CT1}", _facts(calling=" CT1 "), True),
        ("{calling_ae: CT1}", _facts(calling="CT11"), False),
        ("{called_ae: ROUTER}", _facts(), True),
        ("{remote: 'ct-*'}", _facts(), True),
        ("{source: 10.1.0.0/16}", _facts(), True),
        ("{source: 10.1.2.3}", _facts(source="::ffff:10.1.2.3"), True),
        ("{source: [10.2.0.0/16, 'fd00::/8']}", _facts(source="fd00::7"), True),
        ("{source: 10.1.0.0/16}", _facts(source="nonsense"), False),
        ("{sop_class: CTImageStorage}", _facts(), True),
        ("{sop_class: '*CTImageStorage'}", _facts(), True),
        ("{sop_class: 1.2.840.10008.5.1.4.1.1.4}", _facts(), False),
        ("{sop_class: '1.2.840.10008.5.*'}", _facts(), True),
        ("{transfer_syntax: explicit-vr-le}", _facts(), True),
        ("{transfer_syntax: [jpeg-2000, JPEGLSLossless]}", _facts(), False),
    ],
)
def test_conditions(when: str, facts: Facts, expected: bool) -> None:
    assert _holds(when, facts) is expected


def test_every_matching_rule_adds_its_routes_until_one_is_final() -> None:
    text = """
    - {name: one, to: a}
    - {name: other, when: {Modality: MR}, to: x}
    - {name: two, to: [b, a], final: true}
    - {name: three, to: c}
    """
    rules = load(text)
    assert rules.decide(_facts(modality="CT")) == Decision(
        "route", (Route("a", "one"), Route("b", "two")), "", rules.version
    )
    assert rules.tags == {MODALITY}
    assert rules.destinations == {"a", "b", "c", "x"}


def test_what_nothing_matches_is_held() -> None:
    for rules in (load(None), load("[]"), load("[{when: {Modality: MR}, to: a}]")):
        assert rules.decide(_facts(modality="CT")) == Decision("hold", (), NO_RULE, rules.version)


def test_a_discard_ends_the_matter_unless_something_was_routed() -> None:
    discard = "{name: junk, when: {Modality: SR}, discard: not wanted}"
    rules = load(f"[{discard}, {{to: a}}]")
    assert rules.decide(_facts(modality="SR")) == Decision(
        "discard", (), "rule 'junk': not wanted", rules.version
    )
    assert _decide(f"[{discard}, {{to: a}}]", _facts(modality="CT")) == ("route", ["a"])
    # Later rules are still asked: once it is kept, what else would be sent is sent.
    assert _decide(f"[{{to: a}}, {discard}, {{to: b}}]", _facts(modality="SR")) == (
        "route",
        ["a", "b"],
    )


def test_a_bare_discard_is_named_by_its_rule() -> None:
    assert load("[{discard: yes}]").decide(_facts()).reason == "rule 'rule 1'"


def test_final_stops_even_where_a_discard_came_too_late() -> None:
    text = "[{to: a}, {discard: true, final: true}, {to: b}]"
    assert _decide(text, _facts()) == ("route", ["a"])


def test_the_version_follows_the_meaning_alone() -> None:
    base = load("[{name: x, when: {Modality: [CT, MR], calling_ae: A}, to: a}]").version
    same = "- name: 'x'   # why\n  when: {calling_ae: A, 00080060: [MR, CT]}\n  to: [a]\n"
    assert load(same).version == base
    assert re.fullmatch("[0-9a-f]{12}", base)
    others = [
        "[{name: x, when: {Modality: [CT, MR], calling_ae: A}, to: b}]",
        "[{name: x, when: {Modality: [CT, MR], calling_ae: A}, to: a, final: true}]",
        "[{name: x, when: {Modality: [CT, 'MR*'], calling_ae: A}, to: a}]",
        "[{name: x, when: {not: {Modality: [CT, MR]}, calling_ae: A}, to: a}]",
        "[{name: y, when: {Modality: [CT, MR], calling_ae: A}, to: a}]",
    ]
    assert len({load(text).version for text in others} | {base}) == 6


def test_known_remotes_are_checked_only_when_they_are_told() -> None:
    assert load("[{to: a}]").destinations == {"a"}
    with pytest.raises(Problems, match="no remote is called 'a'"):
        load("[{to: a}]", known=Known((), ()))


SUBJECTS = ["calling_ae", "source", MODALITY, IMAGE_TYPE]
VALUES = st.sampled_from(["A", "AB", "B", "BA", "10.1.2.3", "10.9.9.9"])
PATTERNS: st.SearchStrategy[Pattern] = st.one_of(
    VALUES.map(Exact),
    st.sampled_from(["A*", "*B", "?", "*", "*A*", "1*"]).map(Glob),
)
NETWORKS: st.SearchStrategy[Pattern] = st.sampled_from(
    [Network(ipaddress.ip_network(text)) for text in ("10.1.0.0/16", "10.9.9.9/32")]
)


def _matches() -> st.SearchStrategy[Match]:
    return st.sampled_from(SUBJECTS).flatmap(
        lambda subject: st.builds(
            Match,
            st.just(subject),
            st.lists(NETWORKS if subject == "source" else PATTERNS, min_size=1, max_size=3).map(
                tuple
            ),
        )
    )


def _groups(inner: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    several = st.lists(inner, min_size=1, max_size=3).map(tuple)
    return st.one_of(st.builds(AllOf, several), st.builds(AnyOf, several), st.builds(Not, inner))


CONDITIONS: st.SearchStrategy[Condition] = st.recursive(_matches(), _groups, max_leaves=5)
ACTIONS = st.one_of(
    st.tuples(st.lists(st.sampled_from("abc"), min_size=1, max_size=2, unique=True), st.none()),
    st.tuples(st.just([]), st.sampled_from(["", "junk"])),
)


@st.composite
def _rules(draw: st.DrawFn) -> tuple[Rule, ...]:
    found = []
    for number in range(draw(st.integers(0, 5))):
        to, discard = draw(ACTIONS)
        conditions = AllOf(tuple(draw(st.lists(CONDITIONS, max_size=3))))
        final = draw(st.booleans())
        found.append(Rule(f"r{number}", conditions, tuple(to), final, discard))
    return tuple(found)


FACTS = st.builds(
    Facts,
    VALUES,
    st.just("R"),
    VALUES,
    attributes=st.dictionaries(
        st.sampled_from([MODALITY, IMAGE_TYPE]), st.lists(VALUES, max_size=3).map(tuple)
    ),
)


def _obvious_pattern(pattern: Pattern, value: str) -> bool:
    if isinstance(pattern, Exact):
        return pattern.text == value
    if isinstance(pattern, Network):
        try:
            return ipaddress.ip_address(value) in pattern.network
        except ValueError:
            return False
    regex = "".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern.text)
    return re.fullmatch(regex, value) is not None


def _obvious(condition: Condition, facts: Facts) -> bool:
    if isinstance(condition, AllOf):
        return all(_obvious(inner, facts) for inner in condition.conditions)
    if isinstance(condition, AnyOf):
        return any(_obvious(inner, facts) for inner in condition.conditions)
    if isinstance(condition, Not):
        return not _obvious(condition.condition, facts)
    values: tuple[str, ...]
    if condition.subject == "calling_ae":
        values = (facts.calling_ae,)
    elif condition.subject == "source":
        values = (facts.source_address,)
    else:
        assert isinstance(condition.subject, int)
        values = facts.attributes.get(condition.subject, ())
    return any(_obvious_pattern(p, v) for p in condition.patterns for v in values)


def _obvious_decision(rules: tuple[Rule, ...], facts: Facts) -> tuple[str, list[tuple[str, str]]]:
    routes: list[tuple[str, str]] = []
    for rule in rules:
        if not _obvious(rule.condition, facts):
            continue
        if rule.discard is not None and not routes:
            return "discard", []
        for name in rule.to:
            if name not in [destination for destination, _ in routes]:
                routes.append((name, rule.name))
        if rule.final:
            break
    return ("route", routes) if routes else ("hold", [])


@settings(max_examples=200, deadline=None)
@given(_rules(), st.lists(FACTS, min_size=1, max_size=4))
def test_compiled_rules_decide_as_the_obvious_interpreter(
    rules: tuple[Rule, ...], instances: list[Facts]
) -> None:
    compiled = RuleSet(rules)
    for facts in instances:
        decision = compiled.decide(facts)
        routes = [(route.destination, route.rule) for route in decision.routes]
        assert (decision.disposition, routes) == _obvious_decision(rules, facts)
        assert (decision.disposition == "route") == bool(decision.routes) == (not decision.reason)
