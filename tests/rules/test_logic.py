"""What follows from a condition and what it rules out: never claimed wrongly."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rules import Facts, Rule, RuleSet, load
from rules.attributes import Attribute
from rules.logic import implies, impossible, parts_of
from rules.pattern import Affix, Bound, Exact, Folded, Glob, Interval
from rules.rule import AllOf, AnyOf, Condition, Count, Has, Match, Not, Received
from rules.window import parse_windows

MODALITY, IMAGE_TYPE, NUMBER = 0x00080060, 0x00080008, 0x00200011
TEXTS = ("CT", "ct", "MR", "CTA", "", "x")


def _when(text: str) -> AllOf:
    return load(f"[{{tag: x, when: {text}}}]").rules[0].condition


@pytest.mark.parametrize(
    ("given_", "wanted"),
    [
        ("{Modality: CT, calling_ae: A}", "{Modality: CT}"),
        ("{Modality: CT}", "{Modality: [CT, MR]}"),
        ("{Modality: [CT, CR]}", "{Modality: 'C*'}"),
        ("{Modality: CT}", "{Modality: /^c/i}"),
        ("{Modality: CT}", "{Modality: {present: true}}"),
        ("{Modality: CT}", "{Modality: {empty: false}}"),
        ("{Modality: {empty: true}}", "{Modality: {present: true}}"),
        ("{Modality: CT}", "{any: [{Modality: CT}, {Modality: MR}]}"),
        ("{any: [{Modality: CT}, {Modality: MR}]}", "{Modality: [CT, MR]}"),
        ("{not: {Modality: [CT, MR]}}", "{not: {Modality: CT}}"),
        ("{Modality: MR}", "{not: {Modality: CT}}"),
        ("{SeriesNumber: '> 5'}", "{SeriesNumber: '>= 5'}"),
        ("{SeriesNumber: 2..4}", "{SeriesNumber: '< 10'}"),
        ("{ImageType: {count: '> 3'}}", "{ImageType: {count: '> 2'}}"),
        ("{source: 10.1.0.0/16}", "{source: 10.0.0.0/8}"),
        ("{all: [{Modality: CT}, {calling_ae: A}]}", "{calling_ae: A, Modality: CT}"),
    ],
)
def test_what_follows(given_: str, wanted: str) -> None:
    assert implies(parts_of(_when(given_)), _when(wanted))
    # And only that way round, or the two are the same.
    assert (
        not implies(parts_of(_when(wanted)), _when(given_))
        or "all:" in given_ + wanted
        or ("any:" in given_)
    )


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        ("{Modality: CT, not: {Modality: CT}}", "Modality (0008,0060)"),
        ("{Modality: CT, not: {Modality: [MR, 'C*']}}", "Modality (0008,0060)"),
        ("{all: [{Modality: CT}, {Modality: MR}]}", "Modality (0008,0060)"),
        ("{all: [{Modality: CT}, {Modality: 'M*'}]}", "Modality (0008,0060)"),
        ("{all: [{Modality: CT}, {Modality: {absent: true}}]}", "Modality (0008,0060)"),
        ("{all: [{Modality: {empty: true}}, {Modality: CT}]}", "Modality (0008,0060)"),
        ("{all: [{calling_ae: A}, {calling_ae: B}]}", "calling_ae"),
        ("{all: [{source: 10.0.0.0/8}, {source: 192.168.0.0/16}]}", "source"),
        ("{SeriesNumber: {less: 3, more: 5}}", "SeriesNumber (0020,0011)"),
        ("{'ImageType[3]': {equals: A}, all: [{'ImageType[3]': B}]}", "ImageType (0008,0008)[3]"),
        ("{ImageType: {count: 2}, all: [{ImageType: {count: '> 2'}}]}", "ImageType (0008,0008)"),
        ("{received: 8:00-9:00, all: [{received: 9:00-10:00}]}", "received"),
    ],
)
def test_what_can_never_hold(condition: str, why: str) -> None:
    assert impossible(_when(condition)) == f"its conditions on {why} exclude each other"


def test_an_any_without_a_way_out() -> None:
    condition = _when("{Modality: CT, any: [{Modality: MR}, {Modality: {absent: true}}]}")
    assert impossible(condition) == "nothing under its 'any' can hold with the rest"


@pytest.mark.parametrize(
    "condition",
    [
        "{all: [{ImageType: A}, {ImageType: B}]}",  # several values
        "{all: [{'A.Modality': CT}, {Modality: MR}]}".replace("A.", "RelatedSeriesSequence."),
        "{all: [{Modality: 'C*'}, {Modality: '*T'}]}",
        "{Modality: CT, not: {Modality: MR}}",
        "{ImageType: A, not: {all: [{ImageType: A}, {ImageType: B}]}}",
        "{Modality: {present: true, empty: false}}",
        "{Modality: {present: true, empty: true}}",
        "{received: 22:00-9:00, all: [{received: 8:00-10:00}]}",
        "{all: [{PatientName: Doe}, {PatientName: Roe}]}",  # groups of a name
    ],
)
def test_what_may_hold(condition: str) -> None:
    assert impossible(_when(condition)) is None


def test_a_monster_is_left_alone() -> None:
    deep = "{Modality: CT}"
    for _ in range(12):
        deep = f"{{any: [{deep}, {deep.replace('CT', 'MR')}]}}" if len(deep) < 500 else deep
    assert impossible(_when(deep)) is None
    wide = ", ".join(f"{{Modality: '*{n}*'}}" for n in range(200))
    assert impossible(_when(f"{{all: [{wide}], not: {{Modality: '*7*'}}}}")) is None


_PATTERNS = st.one_of(
    st.sampled_from(TEXTS[:4]).map(Exact),
    st.sampled_from(["C*", "*T", "?T", "*", "C*A"]).map(Glob),
    st.sampled_from(["C", "T"]).flatmap(
        lambda t: st.sampled_from(["starts", "ends", "contains"]).map(lambda w: Affix(w, t))  # type: ignore[arg-type]
    ),
    st.sampled_from(["CT", "mr"]).map(lambda text: Folded(Exact(text))),
)
_BOUNDS = st.one_of(st.none(), st.builds(Bound, st.integers(0, 4), st.booleans()))
_INTERVALS = st.builds(lambda low, high: Interval("number", low, high), _BOUNDS, _BOUNDS)
_SUBJECTS = st.sampled_from(
    [Attribute((MODALITY,)), Attribute((IMAGE_TYPE,)), Attribute((IMAGE_TYPE,), 2)]
)
_LEAVES: st.SearchStrategy[Condition] = st.one_of(
    st.builds(
        Match,
        st.one_of(_SUBJECTS, st.just("calling_ae")),
        st.lists(_PATTERNS, min_size=1, max_size=2).map(tuple),
    ),
    st.builds(
        Match,
        st.just(Attribute((NUMBER,))),
        st.lists(_INTERVALS, min_size=1, max_size=2).map(tuple),
    ),
    st.builds(Has, _SUBJECTS, st.sampled_from(["present", "absent", "empty", "valued"])),
    st.builds(
        Count,
        st.just(Attribute((IMAGE_TYPE,))),
        st.integers(0, 2),
        st.one_of(st.none(), st.integers(2, 3)),
    ),
    st.sampled_from(["0:00-12:00", "10:00-14:00", "22:00-2:00"]).map(
        lambda text: Received(parse_windows([text], "UTC"))
    ),
)
_CONDITIONS = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda c: AllOf(tuple(c))),
        st.lists(inner, min_size=1, max_size=3).map(lambda c: AnyOf(tuple(c))),
        inner.map(Not),
    ),
    max_leaves=5,
)
_ONE = st.one_of(st.just(()), st.sampled_from(TEXTS[:4]).map(lambda text: (text,)))
_FACTS = st.builds(
    lambda calling, modality, image, number, hour: Facts(
        calling,
        "ROUTER",
        "10.0.0.1",
        attributes={
            key: value
            for key, value in ((MODALITY, modality), (IMAGE_TYPE, image), (NUMBER, number))
            if value is not None
        },
        received_at=hour * 3600.0,
    ),
    st.sampled_from(TEXTS[:4]),
    st.one_of(st.none(), _ONE),
    st.one_of(st.none(), st.lists(st.sampled_from(TEXTS[:4]), max_size=3).map(tuple)),
    st.one_of(st.none(), st.just(()), st.integers(0, 4).map(lambda n: (str(n),))),
    st.integers(0, 23),
)


def _holds(condition: Condition, facts: Facts) -> bool:
    rules = RuleSet([Rule("a", AllOf((condition,)), tags=("x",))])
    return rules.decide(facts).tags == ("x",)


def _about(attribute: Attribute) -> st.SearchStrategy[Condition]:
    leaf: st.SearchStrategy[Condition] = st.one_of(
        st.builds(
            Match, st.just(attribute), st.lists(_PATTERNS, min_size=1, max_size=2).map(tuple)
        ),
        st.builds(
            Has, st.just(attribute), st.sampled_from(["present", "absent", "empty", "valued"])
        ),
        st.builds(
            Count, st.just(attribute), st.integers(0, 2), st.one_of(st.none(), st.integers(2, 3))
        ),
    )
    return st.one_of(leaf, leaf.map(Not))


_PAIRS = st.one_of(
    st.sampled_from([Attribute((MODALITY,)), Attribute((IMAGE_TYPE,))]).flatmap(
        lambda attribute: st.tuples(_about(attribute), _about(attribute))
    ),
    st.tuples(_CONDITIONS, _CONDITIONS),
)


@settings(max_examples=500, deadline=None)
@given(_PAIRS, st.lists(_FACTS, min_size=1, max_size=8))
def test_nothing_is_claimed_that_an_instance_refutes(
    pair: tuple[Condition, Condition], many: list[Facts]
) -> None:
    one, other = pair
    follows = implies(parts_of(one), other)
    never = impossible(AllOf((one, other))) is not None
    assume(follows or never)
    for facts in many:
        if _holds(one, facts):
            assert not follows or _holds(other, facts)
            assert not never or not _holds(other, facts)
