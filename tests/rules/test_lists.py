"""Values kept in files: what is read, and what is refused."""

import pytest

from rules import lists
from rules.lists import parse_list


def _complaints(data: bytes, column: str | int | None = None) -> list[str]:
    read = parse_list(data, "trial.csv", column)
    return [str(problem) for problem in read.problems]


@pytest.mark.parametrize(
    ("data", "column", "message"),
    [
        (b"a\nb\xe9\n", None, "trial.csv:2:1: is not UTF-8; save the file as UTF-8"),
        (
            b"1\n2\n\0\0\0",
            None,
            "trial.csv:3:1: holds NUL bytes; write the file anew, as UTF-8",
        ),
        (
            b"patient_id,arm\n1,a\n",
            "patientid",
            "trial.csv:1:1: has no column 'patientid'; did you mean 'patient_id'?",
        ),
        (
            b"# trial\n\narm;id\n1;a\n",
            "patient",
            "trial.csv:3:1: has no column 'patient'; its first row must name the columns",
        ),
        (
            b"id,arm\n1,a\n\n2\n",
            "arm",
            (
                "trial.csv:4:1: has 1 column here, and the values are in column 2; "
                "part the columns by commas, or by what the first row has"
            ),
        ),
        (
            b"1,a\n",
            3,
            (
                "trial.csv:1:1: has 2 columns here, and the values are in column 3; "
                "part the columns by commas, or by what the first row has"
            ),
        ),
        (
            b'id\n"1\n2\n',
            "id",
            "trial.csv:3:1: cannot be read as a table: unexpected end of data; check the quotes",
        ),
        (
            b'id\n"1"2\n',
            "id",
            "trial.csv:2:1: cannot be read as a table: ',' expected after '\"'; check the quotes",
        ),
    ],
)
def test_what_is_no_list(data: bytes, column: str | int | None, message: str) -> None:
    assert _complaints(data, column) == [message]


def test_a_file_with_many_bad_rows_does_not_flood() -> None:
    assert len(_complaints(b"id,arm\n" + b"1\n" * 1000, "arm")) == 10


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "MAX_VALUES", 2)
    assert _complaints(b"1\n2\n") == []
    assert _complaints(b"1\n2\n3\n") == ["trial.csv: has more than 2 values"]
    monkeypatch.setattr(lists, "MAX_BYTES", 2 << 20)
    assert _complaints(b" " * ((2 << 20) + 1)) == ["trial.csv: is larger than 2 MiB"]


@pytest.mark.parametrize(
    ("data", "column", "values"),
    [
        (b"1\n 2 \r\n\n# 3\n  # 4\n5", None, {"1", "2", "5"}),
        (b"1\r2\r3", None, {"1", "2", "3"}),
        ("\ufeff\u00c5SA^EVA\nB\u2028C\n".encode(), None, {"\u00c5SA^EVA", "B\u2028C"}),
        (b"arm,patient_id\na,1\nb, 2 \nc,\n", "patient_id", {"1", "2"}),
        (b'arm;patient_id\n"a;b";"1 ""2"""\n', "patient_id", {'1 "2"'}),
        (b"arm\tid\nx\t1\n", "id", {"1"}),
        (b"arm,id\nx,1\n", 2, {"id", "1"}),
        (b"id\n1\n2,3\n", "id", {"1", "2"}),
        (b'id,note\n1,"two\nlines"\n2,\n', "id", {"1", "2"}),
    ],
)
def test_what_is_read(data: bytes, column: str | int | None, values: set[str]) -> None:
    read = parse_list(data, "trial.csv", column)
    assert read.values == values
    assert read.problems == read.warnings == ()


@pytest.mark.parametrize("column", [None, 1, "id"])
@pytest.mark.parametrize("data", [b"", b"\n# nobody yet\n"])
def test_an_empty_list_is_allowed_with_a_warning(data: bytes, column: str | int | None) -> None:
    read = parse_list(data, "trial.csv", column)
    assert read.values == frozenset()
    assert read.problems == ()
    expected = "trial.csv: has no values; nothing is in this list"
    assert [str(warning) for warning in read.warnings] == [expected]


def test_a_table_without_a_column_is_hardly_meant() -> None:
    read = parse_list(b"1;a\n2;b\n", "trial.csv")
    assert [str(warning) for warning in read.warnings] == [
        (
            "trial.csv: has semicolons in every line; "
            "say which column holds the values, as in 'column: 1'"
        )
    ]
    assert parse_list(b"1;a\n2\n", "trial.csv").warnings == ()


def test_no_message_shows_a_value() -> None:
    data = b'id,arm\nSECRET-1,a\nSECRET-2\n"SECRET-3"x,b\n'
    read = parse_list(data, "trial.csv", "arm")
    assert read.problems
    assert "SECRET" not in "".join(map(str, (*read.problems, *read.warnings)))
