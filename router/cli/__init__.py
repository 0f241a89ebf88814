"""The command line.

Owns arguments, exit codes and the forms in which people and scripts read results.  Must not know
how anything is done: each command asks a part of the gateway, or the running gateway itself.

Exit codes: 0 done, 1 the job failed, 2 bad usage or configuration.

Commands are imported when they are run: `dcmrouter check` must not wait for a web server's code.
"""

from router.cli.root import root


def main() -> None:
    """The entry point `dcmrouter`."""
    root(prog_name="dcmrouter")


__all__ = ["main"]
