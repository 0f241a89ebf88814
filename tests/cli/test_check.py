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
    first, second = result.stderr.splitlines()
    assert first.startswith(f"{site.config}:5:")
    assert "'ae_titel'" in first
    assert "did you mean 'ae_title'?" in first
    assert second.startswith(f"{site.config}:11:")
    assert "did you mean 'archive'?" in second
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
