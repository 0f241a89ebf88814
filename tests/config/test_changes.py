"""What a reload would change, and what it cannot."""

import pytest

from router.config import Changes, diff, loads, restart_problems

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
