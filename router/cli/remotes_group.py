"""``remotes``: the other systems, what they accept, and settings that suit them.

Owns the names of the subcommands; a subcommand's module is imported when it is run.
"""

from collections.abc import Mapping

import click

from router.cli.root import LazyGroup

_COMMANDS: Mapping[str, tuple[str, str]] = {
    "list": ("router.cli.remotes_list:list_remotes", "The remotes of the configuration."),
    "presets": ("router.cli.remotes_list:presets", "Settings for known families of systems."),
    "probe": ("router.cli.probe:probe", "What a remote accepts, its limits and its speed."),
}


@click.group(cls=LazyGroup, table=_COMMANDS)
def remotes() -> None:
    """The other systems: which there are, and what they accept."""
