"""``rules``: what the rules say, tried before they take effect, and their versions.

Owns the names of the subcommands; a subcommand's module is imported when it is run.
"""

from collections.abc import Mapping

import click

from router.cli.root import LazyGroup

_COMMANDS: Mapping[str, tuple[str, str]] = {
    "explain": ("router.cli.rules_explain:explain", "Rule by rule, why an instance goes where."),
    "replay": ("router.cli.rules_replay:replay", "Other rules over what was really received."),
    "test": ("router.cli.rules_test:test", "Expectations kept beside the rules: do they hold?"),
    "versions": ("router.cli.versions:versions", "The versions that took effect, and when."),
    "show": ("router.cli.versions:show", "A version's files as they were."),
    "diff": ("router.cli.versions:diff", "What differs between two versions."),
    "rollback": ("router.cli.versions:rollback", "Back to an earlier version."),
}


@click.group(cls=LazyGroup, table=_COMMANDS)
def rules() -> None:
    """The rules: explained, tried on yesterday's traffic, tested."""
