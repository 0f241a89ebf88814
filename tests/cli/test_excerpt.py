"""How a problem is shown: the line of the file, and carets under what is meant."""

import pytest

from router.cli.excerpt import MAX_WIDTH, told
from rules import Problem


def _shown(line: str, column: int, name: str = "c.yaml") -> list[str]:
    problem = Problem("c.yaml", 1, column, "wrong", "right")
    return told(problem, {name: line.encode()})


@pytest.mark.parametrize(
    ("line", "column", "carets"),
    [
        ("a: pasc  # no", 4, "   ^^^^"),
        ("a: [pasc, b]", 5, "    ^^^^"),
        ("a: {to: x}", 4, "   ^"),
        ("a: 'it''s', b", 4, "   ^^^^^^^"),
        ('a: "x\\"y" z', 4, "   ^^^^^^"),
        ("a: 12:30-13:00, b", 4, "   ^^^^^^^^^^^"),
        ("a: two words", 4, "   ^^^^^^^^^"),
        ("a: b#c", 4, "   ^^^"),
        ("a:", 3, "  ^"),
        ("a: 'open", 4, "   ^^^^^"),
        ("\ta: x", 5, "    ^"),
        ("日本: x", 5, "      ^"),
    ],
)
def test_carets_stand_under_what_is_meant(line: str, column: int, carets: str) -> None:
    _, _, marks, fix = _shown(line, column)
    assert marks == f"      | {carets}"
    assert fix == "      = right"


def test_a_long_line_is_cut_about_the_place() -> None:
    line = "x" * 300 + " , wrong, " + "y" * 300
    _, shown, marks, _ = _shown(line, 304)
    text = shown.removeprefix("    1 | ")
    assert len(text) == MAX_WIDTH + 2
    assert text[0] == text[-1] == "…"
    at = marks.removeprefix("      | ").index("^")
    assert text[at : at + 5] == "wrong"
    assert marks.count("^") == 5


def test_a_long_value_has_carets_no_longer_than_the_line() -> None:
    _, shown, marks, _ = _shown("a: " + "x" * 5000, 4)
    assert len(marks) <= len(shown)


def test_what_a_file_holds_does_not_reach_the_terminal() -> None:
    lines = _shown("a: \x1b[31mred\u202e", 4)
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("name", ["other.yaml", "c.yaml"])
def test_without_the_text_or_the_line_there_is_the_message_alone(name: str) -> None:
    problem = Problem("c.yaml", 7, 1, "wrong")
    assert told(problem, {name: b"one line"}) == ["c.yaml:7:1: wrong"]
    whole = Problem("c.yaml", 0, 0, "wrong", "right")
    assert told(whole, {name: b"x"}, "warning") == ["warning: c.yaml: wrong", "      = right"]


def test_lines_are_counted_as_the_reader_of_yaml_counts() -> None:
    problem = Problem("c.yaml", 3, 4, "wrong")
    for ends in ("\n", "\r\n", "\r", "\u2028", "\x85"):
        text = ends.join(("a: 1", "b: 2", "c: pasc", ""))
        assert told(problem, {"c.yaml": b"\xef\xbb\xbf" + text.encode()})[1:] == [
            "    3 | c: pasc",
            "      |    ^^^^",
        ]
