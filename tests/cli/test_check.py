"""``check``, and how every command is told its configuration."""

import json
from pathlib import Path

import pytest

from tests.cli.support import Site, ok, ok_json, run

EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"


def test_the_example_is_valid() -> None:
    assert "valid, no warnings; 1 local AE, 2 remotes, 2 destinations, 3 rules" in ok(
        "check", "--config", EXAMPLE
    )
    assert ok_json("check", "--config", EXAMPLE) == {
        "valid": True,
        "problems": [],
        "warnings": [],
        "notes": [],
    }


def test_every_problem_at_once_with_its_place_and_its_fix(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.config.write_text(
        site.text.replace("ae_title: ROUTER", "ae_titel: ROUTER").replace(
            "[archive, broken]", "[archiv, broken]"
        )
    )
    result = run("check", "--config", site.config)
    assert result.exit_code == 2
    assert result.stdout == ""
    (first, line, carets, fix, second, *_, last) = result.stderr.splitlines()
    assert first.startswith(f"{site.config}:5:")
    assert first.endswith("unknown key 'ae_titel' in local[0]")
    assert "ae_titel: ROUTER" in line
    assert line.index("ae_titel") == carets.index("^^^^^^^^")
    assert fix == "      = did you mean 'ae_title'?"
    assert second.startswith(f"{site.config}:11:")
    assert last == f"{site.config}: not valid, 2 problems"
    found = run("check", "--config", site.config, "--json")
    assert found.exit_code == 2
    problems = json.loads(found.stdout)["problems"]
    assert [p["line"] for p in problems] == [5, 11]
    assert problems[0]["fix"] == "did you mean 'ae_title'?"


def test_without_a_configuration_it_is_bad_usage() -> None:
    for command in (("check",), ("serve",), ("status",), ("queue", "list")):
        result = run(*command)
        assert result.exit_code == 2
        assert "--config FILE" in result.stderr
        assert "DCMROUTER_CONFIG" in result.stderr


def test_the_environment_names_it_too(tmp_path: Path) -> None:
    ok("check", env={"DCMROUTER_CONFIG": str(EXAMPLE)})
    result = run("check", env={"DCMROUTER_CONFIG": str(tmp_path / "none.yaml")})
    assert result.exit_code == 2
    assert "none.yaml: cannot be read: No such file" in result.stderr


@pytest.mark.parametrize("command", [("serve",), ("echo", "x"), ("queue", "list"), ("reload",)])
def test_every_command_refuses_a_bad_configuration(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("remotes: {}\n")
    result = run(*command, "--config", path)
    assert result.exit_code == 2
    assert f"{path}:1:1: the file needs 'local'" in result.stderr


def _files(tmp_path: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path / "c.yaml"


def test_problems_of_all_files_and_nothing_of_a_list(tmp_path: Path) -> None:
    path = _files(
        tmp_path,
        c="local: [{ae_title: A, listen: 0.0.0.0:104, accept: any}]\n"
        "lists: {trial: {file: trial.csv, column: arm}}\n"
        "rules:\n  - include: a.yaml\n",
        a="- {to: pacs}\n",
    )
    (tmp_path / "trial.csv").write_text("patient_id,arm\nSECRET-77\n")
    result = run("check", "--config", path)
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        f"{tmp_path}/a.yaml:1:8: no remote is called 'pacs'",
        "    1 | - {to: pacs}",
        "      |        ^^^^",
        "      = add it under 'remotes'",
        f"{tmp_path}/trial.csv:2:1: has 1 column here, and the values are in column 2",
        "      = part the columns by commas, or by what the first row has",
        f"{path}: not valid, 2 problems",
    ]


def test_warnings_and_notes(tmp_path: Path) -> None:
    path = _files(
        tmp_path,
        c="local: [{ae_title: A, listen: 0.0.0.0:104, accept: any}]\n"
        "remotes: {pacs: {ae_title: P, host: p}}\n"
        "rules:\n"
        "  - include: a.yaml\n"
        "  - {name: late, to: pacs}\n",
        a="- {name: off, to: pacs, disabled: no VPN}\n- {name: all, to: pacs, final: true}\n",
    )
    result = run("check", "--config", path)
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        f"warning: {path}:5:5: rule 'late' is never reached",
        "    5 |   - {name: late, to: pacs}",
        "      |     ^",
        f"      = rule 'all' ends every decision in {tmp_path}/a.yaml:2",
        f"note: {tmp_path}/a.yaml:1:3: rule 'off' is disabled: no VPN",
    ]
    assert "valid, 1 warning; 1 local AE, 1 remote, 1 destination, 3 rules in 2 files" in (
        result.stdout
    )
    found = ok_json("check", "--config", path)
    assert [each["message"] for each in found["warnings"]] == ["rule 'late' is never reached"]
    assert [each["line"] for each in found["notes"]] == [1]
