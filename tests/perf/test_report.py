"""Statistics, ratios, verdicts and the form of the JSON."""

import io
import json
from pathlib import Path
from typing import Literal

import pytest
from rich.console import Console

from perf.report import Outcome, RowResult, Sample, Target, print_table, to_json, write_json


def samples(*values: float) -> tuple[Sample, ...]:
    return tuple(
        Sample(v, cpu_seconds=0.5, work=100, command="run PORT", extra={"seconds": 2.0})
        for v in values
    )


def row(
    *targets: Target,
    better: Literal["higher", "lower"] = "higher",
    **outcomes: Outcome,
) -> RowResult:
    return RowResult(
        "r", "a row", "things/s", better, ("dcmrouter",), targets, outcomes, {"startup": 0.25}
    )


OURS = Outcome("ok", samples(90, 100, 200))
THEIRS = Outcome("ok", samples(100, 100, 100))


@pytest.mark.parametrize(
    ("at_least", "stretch", "verdict"),
    [
        (0.8, 1.0, "stretch"),
        (0.8, 1.1, "at least"),
        (1.2, 1.5, "short"),
        (None, 2.0, "short"),
        (None, None, "unknown"),
    ],
)
def test_verdicts_when_more_is_better(
    at_least: float | None, stretch: float | None, verdict: str
) -> None:
    result = row(Target("peer", at_least, stretch), dcmrouter=OURS, peer=THEIRS)
    [ratio] = result.ratios()
    assert (ratio.value, ratio.paired, ratio.verdict) == (1.0, 1.0, verdict)


@pytest.mark.parametrize(
    ("median", "verdict"), [(150, "stretch"), (200, "stretch"), (250, "at least"), (301, "short")]
)
def test_verdicts_of_a_figure_when_less_is_better(median: float, verdict: str) -> None:
    outcome = Outcome("ok", samples(median))
    [ratio] = row(Target("", 300, 200), better="lower", dcmrouter=outcome).ratios()
    assert (ratio.value, ratio.verdict) == (median, verdict)


def test_a_missing_contender_leaves_the_ratio_unknown() -> None:
    gone = Outcome("missing", reason="not installed")
    [ratio] = row(Target("peer", 1, 2), dcmrouter=OURS, peer=gone).ratios()
    assert (ratio.value, ratio.verdict) == (None, "unknown")


def test_a_contender_that_failed_half_way_is_not_compared() -> None:
    failed = Outcome("failed", samples(100), "round 2: received 9 of 10")
    result = row(Target("peer", 1, 2), dcmrouter=failed, peer=THEIRS)
    assert result.failed
    assert result.ratios()[0].verdict == "unknown"


def test_the_json_has_what_scripts_read(tmp_path: Path) -> None:
    gone = Outcome("missing", reason="not installed")
    result = row(Target("peer", 0.8, 1.1), dcmrouter=OURS, peer=THEIRS, other=gone)
    head = {"started": "2024-01-01T00:00:00+00:00", "machine": {"cores": 2}}
    path = tmp_path / "new" / "latest.json"

    write_json(path, to_json(head, [result]))
    found = json.loads(path.read_text())

    assert found["schema"] == 1
    assert found["machine"] == {"cores": 2}
    written = found["rows"]["r"]
    assert written["unit"] == "things/s"
    assert written["notes"] == {"startup": 0.25}
    assert written["contenders"]["other"] == {"status": "missing", "reason": "not installed"}
    assert written["contenders"]["dcmrouter"] == {
        "status": "ok",
        "median": 100,
        "min": 90,
        "max": 200,
        "rounds": [90, 100, 200],
        "cpu_ms_per_unit": 5.0,
        "seconds": 2.0,
        "command": "run PORT",
    }
    assert written["ratios"] == [
        {
            "subject": "dcmrouter",
            "against": "peer",
            "value": 1.0,
            "paired": 1.0,
            "at_least": 0.8,
            "stretch": 1.1,
            "verdict": "at least",
        }
    ]
    assert [p.name for p in path.parent.iterdir()] == ["latest.json"]


def test_the_table_names_everybody_and_says_who_is_missing() -> None:
    gone = Outcome("missing", reason="not installed")
    console = Console(width=140, record=True, file=io.StringIO())
    print_table(
        [row(Target("peer", 0.8, 1.1), dcmrouter=OURS, peer=THEIRS, other=gone)],
        {"peer": "The Peer"},
        console,
    )
    text = console.export_text()
    assert "The Peer" in text
    assert "90.0 – 200" in text
    assert "1.00 ×" in text
    assert "missing: other: not installed (r)" in text


def test_details_have_a_table_of_their_own() -> None:
    outcome = Outcome("ok", samples(90, 100, 200))
    result = RowResult(
        "r",
        "a row",
        "ms",
        "lower",
        ("a", "b"),
        (Target("", 150, 50),),
        {"a": outcome, "b": Outcome("failed", reason="gone")},
        details=(("took", "seconds"), ("else", "nothing")),
    )
    console = Console(width=140, record=True, file=io.StringIO())
    print_table([result], {"a": "The First"}, console)
    table = console.export_text().rpartition("a row, ms")[2]
    [line] = [line for line in table.splitlines() if "The First" in line]
    assert [cell.strip() for cell in line.strip("│ ").split("│")] == [
        "The First",
        "100",
        "2.00",
        "–",
    ]


def test_a_figure_of_several_subjects_stands_on_the_line_of_each() -> None:
    result = RowResult(
        "r",
        "a row",
        "ms",
        "lower",
        ("a", "b"),
        (Target("", 150, 50),),
        {"a": Outcome("ok", samples(100)), "b": Outcome("ok", samples(300))},
    )
    console = Console(width=140, record=True, file=io.StringIO())
    print_table([result], {"a": "The First", "b": "The Second"}, console)
    text = console.export_text()
    assert text.count("The Second") == 1
    [line] = [line for line in text.splitlines() if "The Second" in line]
    assert line.count("300") == 4
