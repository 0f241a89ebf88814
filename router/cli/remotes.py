"""Which remote a command means: a name of the configuration, or an AE title with an address.

Owns the form ``AE@host:port``.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from router.cli.failures import Misuse
from router.cli.options import load_config

if TYPE_CHECKING:
    from router.net.requestor import Target

DEFAULT_CALLING_AE = "DCMROUTER"

calling_option = click.option(
    "--calling", metavar="AE", help="The AE title to present; else the configuration's."
)


def find_target(remote: str, config_path: Path | None, calling: str | None) -> "Target":
    """The remote that was named, and whom we say to be.

    ``AE@host:port`` needs no configuration; one is used for our own AE title when it is given.
    Raises Misuse and ConfigurationRefused.
    """
    from pydantic import ValidationError

    from router.net.requestor import Target
    from router.net.settings import LocalAE, Remote

    if calling is not None:
        try:
            calling = LocalAE(ae_title=calling, listen="[::]:0", accept="any").ae_title
        except ValidationError as error:
            raise Misuse(f"--calling: {_first(error)}") from None
    if "@" in remote:
        ae_title, host, port = _parse(remote)
        try:
            settings = Remote(ae_title=ae_title, host=host, port=port)
        except ValidationError as error:
            raise Misuse(f"{remote}: {_first(error)}") from None
        if calling is None and config_path is not None:
            calling = load_config(config_path).config.local[0].ae_title
        return Target.of(ae_title, settings, calling or DEFAULT_CALLING_AE)
    if config_path is None:
        raise Misuse(
            f"{remote!r} is the name of a remote in a configuration, and none is given",
            "use --config FILE, set DCMROUTER_CONFIG, or write AE@host:port",
        )
    config = load_config(config_path).config
    found = config.remotes.get(remote)
    if found is None:
        from rules.nearest import did_you_mean

        fix = did_you_mean(remote, config.remotes)
        known = ", ".join(config.remotes) or "none"
        raise Misuse(
            f"no remote is called {remote!r}",
            fix or f"there are: {known}; or write AE@host:port",
        )
    if found.host is None:
        raise Misuse(
            f"remote {remote} has no host: it calls us, nobody calls it",
            "give it a host and port in the configuration, or write AE@host:port",
        )
    if calling is not None:
        found = found.model_copy(update={"calling_ae": calling})
    return Target.of(remote, found, config.local[0].ae_title)


def _parse(text: str) -> tuple[str, str, int]:
    ae_title, _, address = text.rpartition("@")
    host, port = address, "104"
    bracketed = address.endswith("]")
    if not bracketed and ":" in address:
        host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not ae_title or not host or not (port.isascii() and port.isdigit()):
        raise Misuse(f"{text!r} is not of the form AE@host:port", "as in PACS@10.0.0.5:104")
    return ae_title, host, int(port)


def _first(error: object) -> str:
    errors = error.errors(include_url=False)  # type: ignore[attr-defined]
    return str(errors[0]["msg"]).removeprefix("Value error, ")
