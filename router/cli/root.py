"""The tree of commands, without what they do.

Owns the names and one-line helps; a command's module is imported when it is run.
"""

import importlib
from collections.abc import Mapping
from typing import Any

import click

from router import __version__

_COMMANDS: Mapping[str, tuple[str, str]] = {
    "serve": ("router.cli.serve:serve", "Run the gateway in the foreground."),
    "check": ("router.cli.check:check", "Check a configuration file."),
    "demo": ("router.cli.demo:demo", "The gateway between a sender and two sinks, real files."),
    "echo": ("router.cli.echo:echo", "Ask a remote for a sign of life (C-ECHO)."),
    "find": ("router.cli.find:find", "Ask a remote what it has (C-FIND)."),
    "send": ("router.cli.send:send", "Send DICOM files to a remote (C-STORE)."),
    "remotes": ("router.cli.remotes_group:remotes", "The other systems, and what they accept."),
    "status": ("router.cli.gateway:status", "The running gateway at a glance."),
    "account": ("router.cli.gateway:account", "Where everything ever received is."),
    "reload": ("router.cli.gateway:reload", "Make the running gateway read its configuration."),
    "queue": ("router.cli.queue:queue", "What waits for the destinations, and acting on it."),
    "instances": ("router.cli.instances:instances", "What is in the spool."),
    "commitments": (
        "router.cli.commitments:commitments",
        "What remotes asked to have committed, and whether they were told.",
    ),
    "rules": ("router.cli.rules:rules", "The rules: try them, compare versions, go back."),
    "spool": ("router.cli.spool:spool", "The spool on disk: is all of it sound?"),
}


class LazyGroup(click.Group):
    """A group whose commands live in modules that are not imported before they are needed.

    ``table`` has the place (``module:name``) and the one-line help of each, by its name.
    """

    def __init__(self, *args: Any, table: Mapping[str, tuple[str, str]], **more: Any) -> None:
        super().__init__(*args, **more)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table, which is that of a day's work."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; None for an unknown name."""
        if cmd_name not in self.table:
            return None
        module, _, name = self.table[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with the nearest name for a mistyped one."""
        if args and args[0] not in self.table and not args[0].startswith("-"):
            from rules.nearest import did_you_mean

            fix = did_you_mean(args[0], self.table) or f"commands are {', '.join(self.table)}"
            ctx.fail(f"no command {args[0]!r}; {fix}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, from the table: `--help` imports none of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.table.items()])


@click.group(
    cls=LazyGroup,
    table=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="dcmrouter")
def root() -> None:
    """A DICOM router: receives, decides by rules, keeps safe, forwards.

    Exit codes: 0 done, 1 the job failed, 2 bad usage or configuration.
    """
