"""Compiled rules decide as the slow interpreter, over random rules and random instances."""

import ipaddress
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rules import Facts, Route, RuleSet
from rules.attributes import Attribute, Private
from rules.interpret import explain
from rules.pattern import (
    Affix,
    Bound,
    Exact,
    Folded,
    Glob,
    Interval,
    Listed,
    Name,
    Network,
    Pattern,
    Regex,
    Today,
)
from rules.rule import (
    AllOf,
    AnyOf,
    Condition,
    Count,
    Has,
    Match,
    Named,
    Not,
    Received,
    Rule,
    SameAs,
    Send,
    Target,
)
from rules.ruleset import NO_ROUTE, NO_RULE
from rules.values import Kind, read_age, read_date, read_moment, read_number, read_time
from rules.window import Span, Windows, zone_of

STOCKHOLM = zone_of("Europe/Stockholm")
MODALITY = Attribute((0x00080060,))
IMAGE_TYPE = Attribute((0x00080008,))
THIRD = Attribute((0x00080008,), 3)
PATIENT_NAME = Attribute((0x00100010,))
OTHER_NAME = Attribute((0x00081070,))
THICKNESS = Attribute((0x00180050,))
NUMBER = Attribute((0x00200011,))
STUDY_DATE = Attribute((0x00080020,))
STUDY_TIME = Attribute((0x00080030,))
ACQUIRED = Attribute((0x0008002A,))
AGE = Attribute((0x00101010,))
STEP_ID = Attribute((0x00400275, 0x00400009))
PRIVATE = Attribute((Private(0x0019, "GEMS_ACQU_01", 0x10),))
TEXTS = [MODALITY, IMAGE_TYPE, THIRD, STEP_ID, PRIVATE]
DAYS = [
    datetime(2026, 11, 20, 22, 59, 59, tzinfo=UTC).timestamp(),
    datetime(2026, 11, 20, 23, 30, tzinfo=UTC).timestamp(),  # the 21st in Stockholm
    datetime(2026, 3, 29, 1, 0, tzinfo=UTC).timestamp(),  # the hour that daylight saving takes
    datetime(2024, 2, 29, 12, 0, tzinfo=UTC).timestamp(),
]

WORDS = st.sampled_from(["A", "AB", "a", "ab", "B", "BA", "Straße", "STRASSE", "", "10.1.2.3"])
GLOBS = st.sampled_from(["A*", "*B", "?", "*", "*A*", "1*", "a?*b", "?A", "*ss*"])
REGEXES = st.sampled_from(["^A", "B$", "A|b", "[ab]{2}", ".", "^$", "(?i)strasse"])
NAMES = st.sampled_from(
    [
        *("DOE^JOHN", "Doe^John^^^", "doe", "DOE^", "Doe ^ John", "ROE^J", "^JOHN", "Strauß^A", ""),
        *("DOE^JOHN=山田^太郎", "=山田^太郎"),
    ]
)
NAME_GLOBS = st.sampled_from(["Doe^*", "*john", "DOE*", "*=山田*", "?OE", "*", "=*", "*^J*^*"])
LITERALS: dict[Kind, list[str]] = {
    "number": ["1", "1.50", "1.5", "01", "-2", "1e1", "10", "abc", "", "0.1", "9" * 20],
    "date": ["20261121", "2026.11.20", "20261114", "20261313", "20250228", "x", "00010101"],
    "time": ["18", "1800", "180000", "180030.5", "18:00:30", "2561", "235960", "00"],
    "moment": ["2026", "20261121", "20261120233000+0000", "202611210030", "20261121003000.5", "z"],
    "age": ["018Y", "216M", "001D", "010W", "18Y", "99Q", "000D"],
}
ORDERED = {
    THICKNESS: "number",
    NUMBER: "number",
    STUDY_DATE: "date",
    STUDY_TIME: "time",
    ACQUIRED: "moment",
    AGE: "age",
    MODALITY: "number",
}
LISTS = {"trial": frozenset({"A", "ab", "1.5", "Doe^John", "20261121"}), "none": frozenset[str]()}


def _scalars(kind: Kind) -> list[int | float]:
    readers = {
        "number": read_number,
        "date": read_date,
        "time": read_time,
        "age": read_age,
        "moment": lambda text: read_moment(text, STOCKHOLM),
    }
    found = [readers[kind](text) for text in LITERALS[kind]]
    return [scalar for scalar in found if scalar is not None]


@st.composite
def _bounds(draw: st.DrawFn, kind: Kind) -> Bound | None:
    if draw(st.integers(0, 3)) == 0:
        return None
    if kind in ("date", "moment") and draw(st.booleans()):
        today = Today(draw(st.sampled_from([-7, -1, 0, 1, 7])), draw(st.sampled_from([0, -1, 4])))
        return Bound(today, draw(st.booleans()))
    return Bound(draw(st.sampled_from(_scalars(kind))), draw(st.booleans()))


@st.composite
def _intervals(draw: st.DrawFn, kind: Kind) -> Interval:
    low = draw(_bounds(kind))
    if low is not None and draw(st.integers(0, 2)) == 0:
        included = draw(st.booleans())
        return Interval(kind, Bound(low.value, included), Bound(low.value, included))
    return Interval(kind, low, draw(_bounds(kind)))


PLAIN: st.SearchStrategy[Exact | Glob | Affix] = st.one_of(
    WORDS.map(Exact),
    GLOBS.map(Glob),
    st.builds(Affix, st.sampled_from(["starts", "ends", "contains"]), WORDS),
)
TEXT: st.SearchStrategy[Pattern] = st.one_of(
    PLAIN,
    PLAIN.map(Folded),
    st.builds(Regex, REGEXES, st.booleans()),
    st.builds(
        Listed, st.sampled_from(["trial", "none", "gone"]), st.sampled_from(["text", "fold"])
    ),
)
NAMED: st.SearchStrategy[Pattern] = st.one_of(
    NAMES.map(Exact).map(Name),
    NAME_GLOBS.map(Glob).map(Name),
    st.builds(Affix, st.sampled_from(["starts", "ends", "contains"]), WORDS).map(Name),
    REGEXES.map(Regex).map(Name),
    st.just(Listed("trial", "name")),
)
NETWORKS: st.SearchStrategy[Pattern] = st.sampled_from(
    [Network(ipaddress.ip_network(text)) for text in ("10.1.0.0/16", "10.9.9.9/32", "fd00::/8")]
)
TAGS: st.SearchStrategy[Pattern] = st.sampled_from(
    [Exact("red"), Exact("blue"), Glob("r*"), Regex("l", False), Affix("ends", "d")]
)


def _patterns(one: st.SearchStrategy[Pattern]) -> st.SearchStrategy[tuple[Pattern, ...]]:
    return st.lists(one, min_size=1, max_size=3).map(tuple)


@st.composite
def _ordered(draw: st.DrawFn) -> Match:
    subject = draw(st.sampled_from(list(ORDERED)))
    kind = ORDERED[subject]
    listed = st.just(Listed("trial", kind))
    return Match(subject, draw(_patterns(st.one_of(_intervals(kind), listed, GLOBS.map(Glob)))))


MATCHES: st.SearchStrategy[Condition] = st.one_of(
    st.builds(Match, st.sampled_from(["calling_ae", "remote", *TEXTS]), _patterns(TEXT)),
    st.builds(Match, st.sampled_from([PATIENT_NAME, OTHER_NAME]), _patterns(NAMED)),
    st.builds(Match, st.just("source"), _patterns(NETWORKS)),
    st.builds(Match, st.just("tag"), _patterns(TAGS)),
    _ordered(),
)
EVERY = [*TEXTS, *ORDERED, PATIENT_NAME, OTHER_NAME]
LEAVES: st.SearchStrategy[Condition] = st.one_of(
    MATCHES,
    MATCHES,
    st.builds(
        Has, st.sampled_from(EVERY), st.sampled_from(["present", "absent", "empty", "valued"])
    ),
    st.builds(
        Count, st.sampled_from([IMAGE_TYPE, STEP_ID]), st.integers(0, 2), st.just(2) | st.none()
    ),
    st.builds(SameAs, st.sampled_from(EVERY), st.sampled_from(EVERY), st.booleans()),
    st.builds(
        Received,
        st.sampled_from(
            [
                Windows((Span((4,), 0, 1440),), "Europe/Stockholm"),
                Windows((Span(tuple(range(7)), 1380, 30),), "UTC"),
                Windows((), "UTC"),
            ]
        ),
    ),
)


def _groups(inner: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    several = st.lists(inner, min_size=1, max_size=3).map(tuple)
    differs = MATCHES.filter(lambda m: isinstance(m, Match) and isinstance(m.subject, Attribute))
    return st.one_of(
        st.builds(AllOf, several),
        st.builds(AnyOf, several),
        st.builds(Not, inner),
        st.builds(Named, st.just("n"), inner),
        differs.map(lambda m: AllOf((Has(m.subject, "valued"), Not(m)))),  # type: ignore[union-attr,arg-type]
    )


CONDITIONS: st.SearchStrategy[Condition] = st.recursive(LEAVES, _groups, max_leaves=6)
NODES = st.lists(st.sampled_from("abcd"), min_size=2, max_size=3, unique=True).map(tuple)
TARGETS = st.one_of(
    st.builds(Target, st.just("one"), st.sampled_from("abcd").map(lambda name: (name,))),
    st.builds(Target, st.sampled_from(["failover", "first_available"]), NODES),
    st.builds(
        lambda members, by, weights: Target("balance", members, by, weights[: len(members)]),
        NODES,
        st.sampled_from(["study", "patient", "instance"]),
        st.sampled_from([(), (1, 9, 3)]),
    ),
)
MOMENTS = st.none() | st.sampled_from([datetime.fromtimestamp(day, UTC) for day in DAYS])


@st.composite
def _rules(draw: st.DrawFn) -> tuple[Rule, ...]:
    found = []
    for number in range(draw(st.integers(0, 7))):
        action = draw(st.sampled_from(["to", "to", "to", "discard", "hold", "tag"]))
        labels = draw(st.lists(st.sampled_from(["red", "blue"]), max_size=2)) or ["x"] * (
            action == "tag"
        )
        found.append(
            Rule(
                f"r{number}",
                AllOf(tuple(draw(st.lists(CONDITIONS, max_size=3)))),
                tuple(draw(st.lists(TARGETS, min_size=1, max_size=2))) if action == "to" else (),
                draw(st.sampled_from([Send(), Send("study-complete", 120.0, priority=5)])),
                draw(st.integers(0, 4)) == 0,
                draw(st.sampled_from(["", "junk"])) if action == "discard" else None,
                draw(st.sampled_from(["", "ask"])) if action == "hold" else None,
                tuple(labels),
                "why" if draw(st.integers(0, 9)) == 0 else None,
                draw(MOMENTS),
                draw(MOMENTS),
                keep_for=draw(st.sampled_from([0.0, 0.0, 60.0, 86400.0])),
            )
        )
    return tuple(found)


def _values(subject: Attribute) -> st.SearchStrategy[list[str]]:
    if subject in (PATIENT_NAME, OTHER_NAME):
        return st.lists(NAMES, max_size=2)
    kind = ORDERED.get(subject)
    words = WORDS if kind is None else WORDS | st.sampled_from(LITERALS[kind])
    return st.lists(words, max_size=3)


@st.composite
def _facts(draw: st.DrawFn) -> Facts:
    attributes = {}
    for subject in draw(st.lists(st.sampled_from(EVERY), max_size=8, unique=True)):
        attributes[subject.key] = tuple(draw(_values(subject)))
    if draw(st.booleans()):
        attributes[0x0020000D] = (draw(st.sampled_from(["1.2.3", "1.2.4", "1.2.5"])),)
    return Facts(
        draw(st.sampled_from(["A", " AB ", "b"])),
        "R",
        draw(st.sampled_from(["10.1.2.3", "::ffff:10.1.2.3", "10.9.9.9", "fd00::1", "nonsense"])),
        draw(st.sampled_from(["", "A", "ct-1"])),
        attributes=attributes,
        received_at=draw(st.sampled_from(DAYS)),
    )


@pytest.mark.parametrize("zone", ["UTC", "Europe/Stockholm"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_rules(), st.lists(_facts(), min_size=1, max_size=4))
def test_compiled_rules_decide_as_the_interpreter(
    zone: str, rules: tuple[Rule, ...], instances: list[Facts]
) -> None:
    compiled = RuleSet(rules, zone=zone, lists=LISTS)
    for facts in instances:
        decision = compiled.decide(facts)
        explained = explain(compiled, facts)
        assert decision == explained.decision
        assert (decision.disposition == "route") == bool(decision.routes) == (not decision.reason)
        assert [trace.rule for trace in explained.rules] == list(rules)


@settings(max_examples=200, deadline=None)
@given(st.lists(CONDITIONS, min_size=1, max_size=12), _facts())
def test_each_condition_holds_as_the_interpreter_finds(
    conditions: list[Condition], facts: Facts
) -> None:
    rules = [
        Rule(f"r{at}", AllOf((condition,)), (Target("one", (f"d{at}",)),))
        for at, condition in enumerate(conditions)
    ]
    compiled = RuleSet(rules, zone="Europe/Stockholm", lists=LISTS)
    traces = explain(compiled, facts).rules
    assert [at for at, trace in enumerate(traces) if trace.verdict == "holds"] == list(
        compiled.matching(facts)
    )
    for trace in traces:
        # What is explained is what decides: the clauses of the first depth must all hold.
        top = [clause.held for clause in trace.clauses if clause.depth == 0]
        assert all(top) == (trace.verdict == "holds")
        assert all(clause.text for clause in trace.clauses)


def test_the_generator_reaches_every_outcome() -> None:
    """Else the two tests above would prove little."""
    reasons: set[str] = set()
    dispositions: set[str] = set()

    @settings(max_examples=150, deadline=None, database=None, derandomize=True)
    @given(_rules(), _facts())
    def gather(rules: tuple[Rule, ...], facts: Facts) -> None:
        decision = RuleSet(rules, lists=LISTS).decide(facts)
        dispositions.add(decision.disposition)
        reasons.add(decision.reason)

    gather()
    assert dispositions == {"route", "hold", "discard"}
    assert {NO_RULE, NO_ROUTE} < reasons


def test_a_route_says_who_may_have_it_instead() -> None:
    rule = Rule("r", AllOf(), (Target("failover", ("a", "b")),), Send(priority=10))
    (route,) = RuleSet([rule]).decide(Facts("A", "R", "10.0.0.1")).routes
    assert route == Route("a", "r", 10, "failover", ("a", "b"), Send(priority=10))
