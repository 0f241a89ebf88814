"""``check``: is this configuration one that would take effect?"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.cli.failures import MISUSED, ConfigurationRefused
from router.cli.options import config_option, json_option, load_config
from router.cli.output import plural, print_json, safe

if TYPE_CHECKING:
    from router.config import Loaded


@click.command()
@config_option
@json_option
def check(config_path: Path | None, as_json: bool) -> None:
    """Check a configuration file: every problem and warning at once.

    Exit code 0 when it would take effect, 2 when it would not.  Nothing is opened or contacted.
    """
    try:
        loaded = load_config(config_path)
    except ConfigurationRefused as refused:
        if not as_json:
            raise
        problems = [asdict(p) for p in refused.problems if not isinstance(p, str)]
        print_json({"valid": False, "problems": problems, "warnings": []})
        raise SystemExit(MISUSED) from None
    if as_json:
        warnings = [asdict(warning) for warning in loaded.warnings]
        print_json({"valid": True, "problems": [], "warnings": warnings})
        return
    for warning in loaded.warnings:
        click.echo(f"warning: {safe(warning)}", err=True)
    click.echo(_summary(loaded))


def _summary(loaded: "Loaded") -> str:
    config = loaded.config
    destinations = sum(remote.host is not None for remote in config.remotes.values())
    counts = (
        plural(len(config.local), "local AE"),
        plural(len(config.remotes), "remote"),
        plural(destinations, "destination"),
        plural(len(loaded.rules.rules), "rule"),
    )
    warnings = plural(len(loaded.warnings), "warning") if loaded.warnings else "no warnings"
    return f"{safe(loaded.file)}: valid, {warnings}; {', '.join(counts)}"
