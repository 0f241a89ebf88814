"""A name that nobody uses is told at its place; one that has a part in anything is not."""

from pathlib import Path

import pytest

from router.config import loads

HEAD = """\
timezone: Europe/Stockholm
local: [{{ae_title: ROUTER, listen: "127.0.0.1:11112", accept: {accept}}}]
remotes:
  pacs: {{ae_title: PACS, host: pacs.example}}
{remotes}conditions: {{head: {{BodyPartExamined: HEAD}}, ct head: {{is: head, Modality: CT}}}}
lists: {{trial: {{file: trial.txt}}}}
schedules: {{night: {{open: "18:00-07:00"}}}}
rules:
  - {{when: {{is: ct head, PatientID: {{in: trial}}}}, send: {{schedule: night}}, to: pacs}}
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "trial.txt").write_text("4711\n")
    (tmp_path / "other.txt").write_text("4712\n")
    return tmp_path


def _unused(
    directory: Path, *changes: tuple[str, str], remotes: str = "", accept: str = "any"
) -> list[str]:
    """The warnings that are of this kind, each with line and column."""
    text = HEAD.format(remotes=remotes, accept=accept)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    file = str(directory / "c.yaml")
    found = [str(problem).removeprefix(f"{file}:") for problem in loads(text, file, {}).warnings]
    return [each for each in found if "no rule " in each or "has no host" in each]


def test_every_kind_is_told_at_its_key_and_the_used_ones_are_not(directory: Path) -> None:
    found = _unused(
        directory,
        ("head: {B", "spine: {BodyPartExamined: SPINE}, head: {B"),
        ("lists: {", "lists: {other: {file: other.txt}, "),
        ("schedules: {", 'schedules: {noon: {open: "12:00-13:00"}, '),
        ("rules:", "rules:\n  - {when: {Modality: SR}, discard: true}"),
        remotes="  old: {ae_title: OLD, host: old.example}\n",
    )
    assert found == [
        "5:8: no rule sends to remote 'old'",
        "6:14: no rule uses the condition 'spine'",
        "7:9: no rule uses the list 'other'",
        "8:13: no rule uses the schedule 'noon'",
    ]


def test_where_everything_is_used_nothing_is_told(directory: Path) -> None:
    assert _unused(directory) == []


def test_a_condition_that_only_an_unused_one_names_is_unused_too(directory: Path) -> None:
    assert _unused(directory, ("is: ct head, ", "")) == [
        "5:14: no rule uses the condition 'head'",
        "5:46: no rule uses the condition 'ct head'",
    ]


@pytest.mark.parametrize(
    "use",
    [
        "when: {any: [{is: spine}, {Modality: MR}]}",
        "when: {all: [{any: [{not: {is: spine}}]}]}",
        "when: {not: {is: spine}}",
        "disabled: later, when: {is: spine}",
    ],
)
def test_conditions_are_used_however_deep(directory: Path, use: str) -> None:
    spine = ("head: {B", "spine: {BodyPartExamined: SPINE}, head: {B")
    assert _unused(directory, spine) == ["5:14: no rule uses the condition 'spine'"]
    assert _unused(directory, spine, ("rules:", f"rules:\n  - {{{use}, to: pacs}}")) == []


@pytest.mark.parametrize(
    "use",
    [
        "PatientID: {in: other}",
        "not: {PatientID: {in: other}}",
        "any: [{AccessionNumber: {in: other}}, {Modality: MR}]",
    ],
)
def test_lists_are_used_however_deep(directory: Path, use: str) -> None:
    other = ("lists: {", "lists: {other: {file: other.txt}, ")
    assert _unused(directory, other) == ["6:9: no rule uses the list 'other'"]
    rule = ("rules:", f"rules:\n  - {{when: {{{use}}}, to: pacs}}")
    assert _unused(directory, other, rule) == []


def test_a_list_of_a_condition_that_no_rule_names_is_unused(directory: Path) -> None:
    found = _unused(
        directory,
        ("lists: {", "lists: {other: {file: other.txt}, "),
        ("head: {B", "on trial: {PatientID: {in: other}}, head: {B"),
    )
    assert found == [
        "5:14: no rule uses the condition 'on trial'",
        "6:9: no rule uses the list 'other'",
    ]


@pytest.mark.parametrize(
    "use",
    [
        "send: {schedule: noon}, to: pacs",
        "when: {received: {in: noon}}, to: pacs",
        "when: {not: {received: {in: noon}}}, to: pacs",
    ],
)
def test_schedules_are_used_by_sending_and_by_conditions(directory: Path, use: str) -> None:
    noon = ("schedules: {", 'schedules: {noon: {open: "12:00-13:00"}, ')
    assert _unused(directory, noon) == ["7:13: no rule uses the schedule 'noon'"]
    assert _unused(directory, noon, ("rules:", f"rules:\n  - {{{use}}}")) == []


def test_another_zone_makes_another_schedule_of_the_same_hours(directory: Path) -> None:
    noon = ("schedules: {", 'schedules: {noon: {timezone: Asia/Tokyo, open: "12:00-13:00"}, ')
    rule = ("rules:", 'rules:\n  - {when: {received: "12:00-13:00"}, to: pacs}')
    assert _unused(directory, noon, rule) == ["7:13: no rule uses the schedule 'noon'"]


def test_an_archive_that_is_asked_is_used(directory: Path) -> None:
    remotes = "  vna: {ae_title: VNA, host: vna.example}\n"
    assert _unused(directory, remotes=remotes) == ["5:8: no rule sends to remote 'vna'"]
    expect = (
        "{schedule: night}",
        "{schedule: night, after: study-complete, expect: {archive: vna}}",
    )
    assert _unused(directory, expect, remotes=remotes) == []


def test_every_member_of_a_target_is_sent_to(directory: Path) -> None:
    remotes = "  vna: {ae_title: VNA, host: vna.example}\n"
    target = ("to: pacs", "to: {failover: [pacs, vna]}")
    assert _unused(directory, target, remotes=remotes) == []


CT = "  ct.1: {ae_title: CT_ROOM, addresses: [10.1.2.3]}\n"
OTHER = "  other.room: {ae_title: MR}\n"


@pytest.mark.parametrize(
    ("accept", "told"),
    [
        ("[]", True),
        ("[pacs]", True),
        ("['MR*']", True),
        ("['ct*']", True),  # globs are over AE titles, in their letter case
        # Regression: a name with a dot in it was taken for a network that may hold anyone.
        ("[other.room]", True),
        ("any", False),
        ("[ct.1]", False),
        ("[pacs, ct.1]", False),
        ("['CT*']", False),
        ("[10.0.0.0/8]", False),
        ("[10.1.2.3]", False),
        ("['fd00::/8']", False),
    ],
)
def test_remotes_without_a_host_that_cannot_call(directory: Path, accept: str, told: bool) -> None:
    accepted = _unused(directory, remotes=CT + OTHER, accept=accept)
    message = (
        "5:9: remote 'ct.1' has no host, and no local AE accepts its calls; "
        "name it under 'accept', or give it a host"
    )
    # Columns and wording as a whole, and only of this one: the other may be told as well.
    assert [each for each in accepted if "'ct.1'" in each] == ([message] if told else [])


def test_one_local_ae_that_accepts_it_is_enough(directory: Path) -> None:
    second = ("local: [", 'local: [{ae_title: B, listen: "127.0.0.1:105", accept: [ct.1]}, ')
    assert len(_unused(directory, remotes=CT, accept="[pacs]")) == 1
    assert _unused(directory, second, remotes=CT, accept="[pacs]") == []


@pytest.mark.parametrize(
    ("remote", "told"),
    [("ct.1", False), ("'ct.*'", False), ("[pacs, ct.1]", False), ("'p*'", True), ("pacs", True)],
)
def test_a_remote_that_rules_name_has_a_part_in_them(
    directory: Path, remote: str, told: bool
) -> None:
    rule = ("rules:", f"rules:\n  - {{when: {{remote: {remote}}}, to: pacs}}")
    assert len(_unused(directory, rule, remotes=CT, accept="[pacs]")) == told
