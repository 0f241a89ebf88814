"""The tree of commands."""

import subprocess
import sys
from pathlib import Path

import click
import pytest

from router import __version__
from router.cli.root import _COMMANDS, root
from tests.cli.support import ok, run

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", list(_COMMANDS))
def test_every_command_is_there_and_says_what_the_list_says(name: str) -> None:
    command = root.get_command(click.Context(root), name)
    assert command is not None
    assert command.name == name
    assert "--help" in ok(name, "--help")


def test_help_lists_them_without_importing_them() -> None:
    script = (
        "import sys; from router.cli.root import root\n"
        "root(['--help'], standalone_mode=False)\n"
        "heavy = {'router.net', 'router.config', 'starlette', 'uvicorn', 'pydantic', 'uvloop'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stderr == ""
    assert all(name in done.stdout for name in _COMMANDS)


def test_version() -> None:
    assert ok("--version") == f"dcmrouter, version {__version__}\n"


def test_a_mistyped_command_is_answered_with_the_nearest() -> None:
    result = run("chekc")
    assert result.exit_code == 2
    assert "did you mean 'check'?" in result.output


def test_a_command_like_no_other_is_answered_with_the_list() -> None:
    result = run("xyzzy")
    assert result.exit_code == 2
    assert "serve, check, demo" in result.output


def test_python_m_runs_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "router.cli", "--version"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0
    assert __version__ in done.stdout
