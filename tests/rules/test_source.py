"""Nodes and where they stood."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.source import MappingNode, Problem, Problems, ScalarNode, SequenceNode, parse, plain


def test_positions_of_keys_and_values() -> None:
    root = parse("a:\n  - x\n  - 'y'\nb: {c: 1}\n", "f.yaml")
    assert isinstance(root, MappingNode)
    items = root.get("a")
    assert isinstance(items, SequenceNode)
    assert [(i.line, i.column) for i in items.items] == [(2, 5), (3, 5)]
    key = root.key("b")
    assert (key.file, key.line, key.column) == ("f.yaml", 4, 1)
    inner = root.get("b")
    assert isinstance(inner, MappingNode)
    value = inner.get("c")
    assert isinstance(value, ScalarNode)
    assert (value.line, value.column, value.text) == (4, 8, "1")


def test_scalars_stay_text_and_nothing_is_none() -> None:
    text = "[NO, on, 08, 11:12, 1_000, 0x1F, .inf, 2024-01-01, ~, null, '', '~', !!str null]"
    assert plain(parse(text, "f")) == [
        *["NO", "on", "08", "11:12", "1_000", "0x1F", ".inf", "2024-01-01"],
        *[None, None, "", "~", "null"],
    ]
    assert plain(parse("a: |\n  x\nNO: 1\n", "f")) == {"a": "x\n", "NO": "1"}


def test_problems_come_once_and_in_the_order_of_the_text() -> None:
    late, early = Problem("f", 9, 1, "late"), Problem("f", 2, 7, "early", "mend it")
    problems = Problems([late, early, late])
    assert problems.problems == (early, late)
    assert str(problems) == "f:2:7: early; mend it\nf:9:1: late"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            '- "a"\n- "b\\U00110000"',
            r"f:2:5: \U00110000 is no character; the last one is \U0010FFFF",
        ),
        ('"\\UFFFFFFFF"', r"f:1:2: \UFFFFFFFF is no character; the last one is \U0010FFFF"),
        (f"%YAML {'9' * 5000}.1\n--- a", "f: a number that cannot be read: "),
        ('- "\\ud83d\\ude00"', r"f:1:3: \ud83d is half a character; write the character itself"),
    ],
)
def test_numbers_that_the_yaml_library_lets_through(text: str, problem: str) -> None:
    with pytest.raises(Problems) as raised:
        parse(text, "f")
    assert str(raised.value).startswith(problem)


def _problems(text: str | bytes) -> tuple[Problem, ...] | None:
    try:
        parse(text, "f")
    except Problems as error:
        return error.problems
    return None


@settings(max_examples=300, deadline=None)
@given(st.text("ab:-[]{},&*!|>'\"# \n\t?%<~\\0", max_size=40))
def test_any_text_is_a_tree_or_a_problem(text: str) -> None:
    problems = _problems(text)
    assert problems is None or (problems and all(p.file == "f" for p in problems))


@given(st.binary(max_size=40))
def test_any_bytes_are_a_tree_or_a_problem(data: bytes) -> None:
    problems = _problems(data)
    assert problems is None or (problems and all(p.line >= 0 for p in problems))
