"""What would cost without end, or keeps a privacy rule from ever holding, is refused."""

import pytest

from rules import load
from rules.known import Known
from rules.review import warnings
from rules.source import Problems, parse


def _refused(rules: str, conditions: dict[str, str] | None = None) -> str:
    nodes = {name: parse(text, "r.yaml") for name, text in (conditions or {}).items()}
    known = Known(("pacs",), ("pacs",), conditions=nodes)
    with pytest.raises(Problems) as caught:
        load(rules, file="r.yaml", known=known)
    return "\n".join(map(str, caught.value.problems))


@pytest.mark.parametrize("order", [1, -1])
def test_a_chain_of_300_conditions_is_a_problem_and_no_recursion(order: int) -> None:
    names = {f"c{n}": f"is: c{n + 1}" for n in range(300)} | {"c300": "Modality: CT"}
    told = _refused("- {to: pacs, when: {is: c0}}", dict([*names.items()][::order]))
    assert "conditions in each other more than 32 deep" in told


def test_nesting_inside_of_named_conditions_counts_too() -> None:
    deep = "{not: " * 25
    names = {f"c{n}": f"{deep}{{is: c{n + 1}}}{'}' * 25}" for n in range(20)}
    told = _refused("- {to: pacs, when: {is: c0}}", names | {"c20": "Modality: CT"})
    assert "more than 32 deep" in told


def test_references_that_double_are_refused_before_they_are_written_out() -> None:
    names = {f"c{n}": f"is: [{', '.join([f'c{n + 1}'] * 4)}]" for n in range(7)}
    told = _refused("- {to: pacs, when: {is: c0}}", names | {"c7": "Modality: CT"})
    assert "is 16384 comparisons with its named conditions written out" in told


@pytest.mark.parametrize(
    "when",
    [
        'BurnedInAnnotation: "!= yes"',
        "not: {BurnedInAnnotation: yes}",
        "BurnedInAnnotation: {not: [YES, yes]}",
        "not: {is: burned}",
    ],
)
def test_a_code_that_cannot_be_is_refused_where_it_must_not_be(when: str) -> None:
    told = _refused(f"- {{to: pacs, when: {{{when}}}}}", {"burned": "BurnedInAnnotation: yes"})
    assert "under a negation, BurnedInAnnotation (0028,0301) can hardly match 'yes'" in told
    assert "write YES" in told


@pytest.mark.parametrize("when", ["not: {not: {Modality: ct}}", "Modality: ct"])
def test_elsewhere_it_is_no_error(when: str) -> None:
    assert load(f"- {{to: pacs, when: {{{when}}}}}").rules


@pytest.mark.parametrize("key", ["discard", "hold", "disabled"])
@pytest.mark.parametrize("word", ["0", "n", "never", "none", '"null"', "--"])
def test_a_word_for_no_is_no_reason(key: str, word: str) -> None:
    does = "to: pacs, " if key == "disabled" else ""
    told = _refused(f"- {{{does}{key}: {word}}}")
    assert "write a reason in words" in told
    assert "leave it out for no" in told


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (f"{{name: {'x' * 201}, to: pacs}}", "has 201 characters; 200 are the most"),
        ('{name: "a\\eb", to: pacs}', "control character U+001B"),
        ('{name: "a\\u202eb", to: pacs}', "control character U+202E"),
        (f"{{hold: {'x' * 501}}}", "the reason of 'hold' has 501 characters; 500 are the most"),
        ('{to: pacs, disabled: "a\\nb"}', "control character U+000A"),
    ],
)
def test_names_and_reasons_are_bounded(rule: str, told: str) -> None:
    assert told in _refused(f"- {rule}")


@pytest.mark.parametrize(
    ("when", "told"),
    [
        ('SeriesNumber: "> 1e400"', "'1e400' is beyond all numbers"),
        ('calling_ae: "CT1, CT2"', "is several AE titles in one text; write [CT1, CT2]"),
    ],
)
def test_what_can_never_match_is_refused(when: str, told: str) -> None:
    assert told in _refused(f"- {{to: pacs, when: {{{when}}}}}")


def test_an_ipv4_address_in_ipv6_is_that_address() -> None:
    mapped, plain = (
        load(f'- {{to: pacs, when: {{source: "{text}"}}}}').version
        for text in ("::ffff:10.0.0.5", "10.0.0.5")
    )
    assert mapped == plain


@pytest.mark.parametrize(
    ("when", "told"),
    [
        ('StudyDate: "2026-11-*"', "can hardly match '2026-11-*': a value of VR DA has no '-'"),
        ("StudyTime: {starts: 18h}", "a value of VR TM has no 'h'"),
        ('PatientAge: "18 *"', "a value of VR AS has no ' '"),
        ('"(0008,9990)": x', "(0008,9990) is in no dictionary of the standard; check the tag"),
        ('Modality: {count: "> 1"}', "has one value at most, so it never has 2"),
        ("PatientName: /DOE^JOHN/", "a ^ means the start of the name; write \\^"),
    ],
)
def test_what_can_hardly_match_is_told(when: str, told: str) -> None:
    rules = load(f"- {{to: pacs, when: {{{when}}}}}")
    assert told in "\n".join(map(str, warnings(rules, "r.yaml")))


@pytest.mark.parametrize(
    "when",
    [
        'StudyDate: "202611*"',
        'StudyTime: "18*"',
        '"(0009,1001)": x',
        'ImageType: {count: "> 1"}',
        "PatientName: '/^DOE\\^[^J]/'",
    ],
)
def test_what_can_match_is_not_told(when: str) -> None:
    rules = load(f"- {{to: pacs, when: {{{when}}}}}")
    assert list(warnings(rules, "r.yaml")) == []
