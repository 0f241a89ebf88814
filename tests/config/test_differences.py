"""What differs, in words: held against rules that were really changed."""

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from router.config import differences
from router.config.differences import of_files, of_rules
from router.config.versions import File
from rules import Rule
from rules.rule import AllOf, Not, Send, Target

PACS = Rule("all", targets=(Target("one", ("pacs",)),))
NIGHT = Rule("night", targets=(Target("failover", ("a", "b")),), send=Send(schedule="after-hours"))
DROP = Rule("drop", AllOf((Not(AllOf()),)), discard="not kept")
LAST = Rule("last", targets=(Target("one", ("vna",)),), final=True)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ([PACS], [PACS], []),
        ([PACS], [dataclasses.replace(PACS, line=9, file="x")], []),
        ([], [PACS], ["rule 'all' was added as the first: sends to pacs"]),
        (
            [PACS],
            [PACS, NIGHT],
            ["rule 'night' was added behind 'all': sends to the first of (a, b) that is up"],
        ),
        ([PACS, DROP], [PACS], ["rule 'drop' was removed: discards (not kept)"]),
        ([DROP], [dataclasses.replace(DROP, name="x")], ["rule 'drop' is now called 'x'"]),
        (
            [PACS, DROP, LAST],
            [DROP, LAST, PACS],
            ["rule 'all' was moved: it now comes behind 'last'"],
        ),
        ([PACS, DROP, LAST], [LAST, PACS, DROP], ["rule 'last' was moved: it now comes first"]),
        (
            [PACS],
            [dataclasses.replace(PACS, targets=(Target("one", ("vna",)),), final=True)],
            ["rule 'all' was changed: it sends to vna; ends the decision, before it sends to pacs"],
        ),
        (
            [PACS],
            [dataclasses.replace(PACS, condition=DROP.condition)],
            ["rule 'all' was changed: its condition is another"],
        ),
        (
            [NIGHT],
            [dataclasses.replace(NIGHT, send=Send("study-complete", 120, "pacs", 60, "", 10))],
            [
                (
                    "rule 'night' was changed: it is sent when the study is complete (quiet for "
                    "120 s), as many as pacs knows, for 60 s at most, with priority 10, "
                    "before at once, while after-hours is open"
                )
            ],
        ),
        (
            [PACS],
            [dataclasses.replace(PACS, disabled="VPN", until=datetime(2027, 1, 1, tzinfo=UTC))],
            [
                (
                    "rule 'all' was changed: it is disabled: VPN; "
                    "it is valid until 2027-01-01 00:00+00:00"
                )
            ],
        ),
        (
            [
                dataclasses.replace(
                    PACS, disabled="VPN", valid_from=datetime(2027, 1, 1, tzinfo=UTC)
                )
            ],
            [PACS],
            ["rule 'all' was changed: it counts again; it has no from any more"],
        ),
    ],
)
def test_rules_in_words(old: Sequence[Rule], new: Sequence[Rule], said: list[str]) -> None:
    assert of_rules(old, new) == said


def test_every_field_of_a_rule_that_counts_is_told() -> None:
    other: dict[str, Any] = {
        "name": "other",
        "condition": DROP.condition,
        "targets": (),
        "send": Send(priority=1),
        "final": True,
        "discard": "x",
        "hold": "x",
        "tags": ("x",),
        "disabled": "x",
        "valid_from": datetime(2026, 1, 1, tzinfo=UTC),
        "until": datetime(2026, 1, 1, tzinfo=UTC),
        "keep_for": 60.0,
    }
    for field in dataclasses.fields(Rule):
        if field.compare:
            changed = dataclasses.replace(PACS, **{field.name: other[field.name]})
            assert len(of_rules([PACS], [changed])) == 1, field.name


def test_a_balanced_group_in_words() -> None:
    assert differences.target(Target("balance", ("a", "b"), "patient", (2, 1))) == (
        "one of (a, b) 2:1 by patient"
    )
    assert differences.target(Target("balance", ("a", "b"), "study", (1, 1))) == (
        "one of (a, b) by study"
    )


def test_files_line_by_line() -> None:
    old = [File("config.yaml", b"a\nb\nc\n"), File("rules.d/1.yaml", b"gone\n")]
    new = [File("config.yaml", b"a\nB\nc"), File("rules.d/2.yaml", b"come\n")]
    assert of_files(old, new, "3", "4") == (
        "--- 3/config.yaml\n+++ 4/config.yaml\n@@ -1,3 +1,3 @@\n a\n-b\n-c\n+B\n+c\n"
        "\\ No newline at end of file\n"
        "--- /dev/null\n+++ 4/rules.d/2.yaml\n@@ -0,0 +1 @@\n+come\n"
        "--- 3/rules.d/1.yaml\n+++ /dev/null\n@@ -1 +0,0 @@\n-gone\n"
    )
    assert of_files(old, old, "3", "4") == ""


def test_files_that_are_no_text_or_have_odd_ends_of_lines() -> None:
    old = [File("c", b"\xff\r\n\x0c\xe2\x80\xa8x\n")]
    new = [File("c", b"\xfe\r\n\x0c\xe2\x80\xa8x\n")]
    assert of_files(old, new, "1", "2").splitlines()[3:5] == ["-\\xff", "+\\xfe"]


def test_a_configuration_that_was_called_otherwise_is_compared_all_the_same() -> None:
    old, new = [File("a.yaml", b"1\n2\n")], [File("b.yaml", b"1\n3\n")]
    assert of_files(old, new, "1", "2") == (
        "--- 1/b.yaml\n+++ 2/b.yaml\n@@ -1,2 +1,2 @@\n 1\n-2\n+3\n"
    )


def test_long_files_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(differences, "MAX_LINES", 3)
    old, new = [File("c", b"1\n2\n3\n4\n")], [File("c", b"1\n")]
    assert "too long to be compared" in of_files(old, new, "1", "2")
