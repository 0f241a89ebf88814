"""``check``: is this configuration one that would take effect?"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.cli.excerpt import told
from router.cli.failures import MISUSED, ConfigurationRefused
from router.cli.options import config_option, json_option, load_config
from router.cli.output import plural, print_json, safe

if TYPE_CHECKING:
    from router.config import Loaded
    from rules import Problem


@click.command()
@config_option
@json_option
def check(config_path: Path | None, as_json: bool) -> None:
    """Check a configuration file: every problem and warning at once.

    The files that it includes and its lists are checked with it.  Exit code 0 when it would take
    effect, 2 when it would not.  Nothing is opened for writing or contacted.
    """
    try:
        loaded = load_config(config_path)
    except ConfigurationRefused as refused:
        problems = [problem for problem in refused.problems if not isinstance(problem, str)]
        if as_json:
            found = [asdict(problem) for problem in problems]
            print_json({"valid": False, "problems": found, "warnings": [], "notes": []})
        else:
            _print(problems, refused.texts)
            many = plural(len(problems), "problem")
            click.echo(f"{safe(config_path)}: not valid, {many}", err=True)
        raise SystemExit(MISUSED) from None
    if as_json:
        warnings, notes = map(_dicts, (loaded.warnings, loaded.notes))
        print_json({"valid": True, "problems": [], "warnings": warnings, "notes": notes})
        return
    _print(loaded.warnings, dict(loaded.files), "warning")
    for note in loaded.notes:
        click.echo(f"note: {safe(note)}", err=True)
    click.echo(_summary(loaded))


def _dicts(problems: "Iterable[Problem]") -> list[dict[str, object]]:
    return [asdict(problem) for problem in problems]


def _print(problems: "Iterable[Problem]", texts: Mapping[str, bytes], sort: str = "") -> None:
    for problem in problems:
        for line in told(problem, texts, sort):
            click.echo(line, err=True)


def _summary(loaded: "Loaded") -> str:
    config = loaded.config
    destinations = sum(remote.host is not None for remote in config.remotes.values())
    counts = [
        plural(len(config.local), "local AE"),
        plural(len(config.remotes), "remote"),
        plural(destinations, "destination"),
        plural(len(loaded.rules.rules), "rule"),
    ]
    if len(loaded.files) > 1:
        counts[-1] += f" in {plural(len(loaded.files), 'file')}"
    warnings = plural(len(loaded.warnings), "warning") if loaded.warnings else "no warnings"
    return f"{safe(loaded.file)}: valid, {warnings}; {', '.join(counts)}"
