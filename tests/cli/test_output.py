"""Tables and numbers for people."""

import pytest

from router.cli import output


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (131_072, "131 kB"),
        (2.5e12, "2.5 TB"),
        (None, ""),
    ],
)
def test_size(count: float | None, text: str) -> None:
    assert output.size(count) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0032, "3.2 ms"),
        (4.1, "4.1 s"),
        (300, "5 m"),
        (9000, "2.5 h"),
        (3 * 86400, "3 d"),
        (None, ""),
    ],
)
def test_seconds(value: float | None, text: str) -> None:
    assert output.seconds(value) == text


def test_times_from_now() -> None:
    assert output.age(90.0, 100.0) == "10 s"
    assert output.age(110.0, 100.0) == "0 ms"  # a clock that was set back
    assert output.until(0.0, 100.0) == "now"
    assert output.until(130.0, 100.0) == "in 30 s"
    assert output.age(None) == output.until(None) == ""


def test_plural() -> None:
    assert output.plural(1, "delivery") == "1 delivery"
    assert output.plural(2, "delivery") == "2 deliveries"
    assert output.plural(0, "rule") == "0 rules"


def test_a_table_shows_what_strangers_sent_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(["who", ">n"], [["[red]\x1b[31mEVIL\n[/red]", 12], ["x" * 200, None]])
    text = capsys.readouterr().out
    assert "[red]\\x1b[31mEVIL\\n[/red]" in text
    assert "\x1b" not in text
    assert "x" * 200 in text  # nothing is cut in a pipe
    output.print_table(["a", "b"], [["x" * 700, "y z " * 200]])
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if "x" in line)
    assert line.split() == ["x" * 700, *("y", "z") * 200], "a row is a line"
    assert all(line == line.rstrip() for line in text.splitlines())


def test_an_empty_table_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(["who"], [], empty="nobody")
    assert capsys.readouterr().out == "nobody\n"
