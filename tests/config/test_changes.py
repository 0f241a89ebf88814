"""What a reload would change, and what it cannot."""

from pathlib import Path

import pytest

from router.config import Changes, diff, loads, restart_problems
from router.config.changes import names_of

BASE = """\
local: [{ae_title: ROUTER, listen: 0.0.0.0:104, accept: any}]
remotes:
  pacs: {ae_title: PACS, host: pacs.example}
  old: {ae_title: OLD}
rules: [{to: pacs}]
"""


def _changes(old: str, new: str) -> Changes:
    return diff(loads(old, "c.yaml", {}).config, loads(new, "c.yaml", {}).config)


def test_nothing_changes_by_comments_quotes_and_written_defaults() -> None:
    same = (
        "# the same\n" + BASE.replace("to: pacs", "to: 'pacs'") + "spool: {segment_size: 64MiB}\n"
    )
    changes = _changes(BASE, same)
    assert not changes
    assert changes == Changes()


def test_moved_rules_are_the_same_rules() -> None:
    assert not _changes(BASE, BASE.replace("rules:", "\n\nrules:"))


def test_every_part_is_named() -> None:
    other = "{ae_title: B, listen: 0.0.0.0:105, accept: any}"
    new = BASE.replace("any}]", f"any, max_associations: 9}}, {other}]")
    new = new.replace("  old: {ae_title: OLD}", "  new: {ae_title: NEW}")
    new = new.replace("pacs.example", "pacs2.example").replace("to: pacs", "to: [pacs], final: yes")
    new += "spool: {low_disk: 2GiB}\nlog: {level: debug}\n"
    assert _changes(BASE, new) == Changes(
        locals_added=frozenset({("B", "0.0.0.0:105")}),
        locals_changed=frozenset({("ROUTER", "0.0.0.0:104")}),
        remotes_added=frozenset({"new"}),
        remotes_removed=frozenset({"old"}),
        remotes_changed=frozenset({"pacs"}),
        rules=True,
        settings=frozenset({"spool.low_disk", "log.level"}),
    )


@pytest.mark.parametrize(
    ("addition", "problem"),
    [
        ("data_dir: elsewhere\n", "c.yaml:6:11: data_dir"),
        ("spool:\n  segment_size: 32MiB\n", "c.yaml:7:17: spool.segment_size"),
        ("http: {listen: 127.0.0.1:1}\n", "c.yaml:6:16: http.listen"),
    ],
)
def test_what_needs_a_restart_is_refused_at_its_place(addition: str, problem: str) -> None:
    new = loads(BASE + addition, "c.yaml", {})
    changes = diff(loads(BASE, "c.yaml", {}).config, new.config)
    assert [str(p) for p in restart_problems(changes, new)] == [
        f"{problem} cannot change while the gateway runs; restart it, or put the old value back"
    ]


def test_back_to_a_default_has_no_place_of_its_own() -> None:
    old = loads(BASE + "data_dir: elsewhere\n", "c.yaml", {})
    new = loads(BASE, "c.yaml", {})
    (problem,) = restart_problems(diff(old.config, new.config), new)
    assert (problem.line, problem.column) == (1, 1)


NAMED = (
    BASE
    + """\
timezone: Europe/Stockholm
lists: {trial: {file: trial.txt}, old: {file: old.txt}, same: {file: same.txt}}
schedules: {night: {open: "18:00-07:00"}, noon: {open: "12:00-13:00"}, same: {open: "1:00-2:00"}}
"""
)


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory in which lists are looked for."""
    monkeypatch.chdir(tmp_path)
    for name in ("trial.txt", "old.txt", "same.txt", "new.txt"):
        (tmp_path / name).write_text("4711\n")
    return tmp_path


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("trial: {file: trial.txt}", "trial: {file: new.txt}", {"trial"}),
        ("trial: {file: trial.txt}", "trial: {file: trial.txt, column: 1}", {"trial"}),
        ("trial: {file: trial.txt}", "trial: {file: trial.txt, ignore_case: yes}", {"trial"}),
        ("old: {file: old.txt}", "new: {file: old.txt}", {"old", "new"}),
        (", old: {file: old.txt}", "", {"old"}),
        ("old: {file: old.txt}", "old: {file: old.txt, ignore_case: no}", set()),
    ],
)
def test_lists_added_removed_and_changed(
    directory: Path, old: str, new: str, expected: set[str]
) -> None:
    assert old in NAMED
    changes = _changes(NAMED, NAMED.replace(old, new))
    assert changes == Changes(lists=frozenset(expected))
    assert names_of(changes) == tuple(f"lists: {name}" for name in sorted(expected))


def test_what_a_list_holds_is_no_change_of_the_configuration(directory: Path) -> None:
    before = loads(NAMED, "c.yaml", {})
    (directory / "trial.txt").write_text("4712\n")
    after = loads(NAMED, "c.yaml", {})
    assert before.lists["trial"] != after.lists["trial"]
    assert not diff(before.config, after.config)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('night: {open: "18:00-07:00"}', 'night: {open: "19:00-07:00"}', {"night"}),
        (
            'night: {open: "18:00-07:00"}',
            'night: {open: ["18:00-07:00", "sat 9:00-12:00"]}',
            {"night"},
        ),
        ("night: {open", "night: {timezone: Asia/Tokyo, open", {"night"}),
        ("noon: {", "midday: {", {"noon", "midday"}),
        (', noon: {open: "12:00-13:00"}', "", {"noon"}),
        ('night: {open: "18:00-07:00"}', 'night: {open: ["18:00-07:00"]}', set()),
    ],
)
def test_schedules_added_removed_and_changed(
    directory: Path, old: str, new: str, expected: set[str]
) -> None:
    assert old in NAMED
    changes = _changes(NAMED, NAMED.replace(old, new))
    assert changes == Changes(schedules=frozenset(expected))
    assert names_of(changes) == tuple(f"schedules: {name}" for name in sorted(expected))
    assert changes.restart == ()


@pytest.mark.parametrize(
    ("line", "settings"),
    [
        ("timezone: Asia/Tokyo\n", {"timezone"}),
        # What the machine says counts as if it were written.
        ("", {"timezone"}),
        ("timezone: 'Europe/Stockholm'  # here\n", set()),
    ],
)
def test_the_time_zone_is_a_setting_that_needs_no_restart(
    directory: Path, line: str, settings: set[str]
) -> None:
    new = loads(NAMED.replace("timezone: Europe/Stockholm\n", line), "c.yaml", {"TZ": "UTC"})
    changes = diff(loads(NAMED, "c.yaml", {}).config, new.config)
    assert changes == Changes(settings=frozenset(settings))
    assert restart_problems(changes, new) == []


def test_the_time_zone_of_the_machine_is_compared_with_the_one_written(directory: Path) -> None:
    written = loads(NAMED, "c.yaml", {})
    unwritten = NAMED.replace("timezone: Europe/Stockholm\n", "")
    same = loads(unwritten, "c.yaml", {"TZ": "Europe/Stockholm"})
    assert not diff(written.config, same.config)
