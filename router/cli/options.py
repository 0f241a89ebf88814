"""Options that several commands share, and the configuration behind them.

Owns `--config`, `--json` and the filters of queues and instances.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from router.cli.failures import ConfigurationRefused, Misuse

if TYPE_CHECKING:
    from router.config import Loaded

F = TypeVar("F", bound=Callable[..., Any])

ENVIRONMENT = "DCMROUTER_CONFIG"
STATES = ("ready", "held", "dead", "delivered", "dropped", "duplicate")
DISPOSITIONS = ("routed", "held", "quarantined", "discarded")

config_option = click.option(
    "--config",
    "-c",
    "config_path",
    type=click.Path(path_type=Path),
    envvar=ENVIRONMENT,
    show_envvar=True,
    metavar="FILE",
    help="The configuration file.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
socket_option = click.option(
    "--socket",
    "socket_path",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The gateway's control socket, instead of the one in the configuration's data_dir.",
)


def load_config(path: Path | None) -> "Loaded":
    """The configuration; every problem of it at once when it has any.

    Raises Misuse without a file, ConfigurationRefused for problems; both end with exit code 2.
    """
    if path is None:
        raise Misuse("no configuration is given", f"use --config FILE or set {ENVIRONMENT}")
    from router.config import Problems, load

    try:
        return load(path)
    except Problems as error:
        raise ConfigurationRefused(error.problems) from None


_FILTERS = (
    click.option("--destination", "-d", metavar="NAME", help="Deliveries to this destination."),
    click.option("--state", type=click.Choice(STATES), help="Deliveries in this state."),
    click.option("--study", metavar="UID", help="Of this Study Instance UID."),
    click.option("--instance", "sop_instance_uid", metavar="UID", help="This SOP Instance UID."),
    click.option("--reason", metavar="GLOB", help="Whose reason matches, as in '*timeout*'."),
    click.option("--older-than", metavar="TIME", help="Received longer ago than 30m, 2h, 7d."),
    click.option("--newer-than", metavar="TIME", help="Received since then."),
    click.option(
        "--id",
        "ids",
        type=click.IntRange(min=1),
        multiple=True,
        metavar="N",
        help="The instance of this number; may be repeated.",
    ),
)
_DISPOSITION = click.option(
    "--disposition", type=click.Choice(DISPOSITIONS), help="What became of the instance."
)


def filter_options(function: F) -> F:
    """The conditions on deliveries; the command gets them as keyword arguments."""
    for option in reversed(_FILTERS):
        function = option(function)
    return function


def instance_filter_options(function: F) -> F:
    """The conditions on instances."""
    return filter_options(_DISPOSITION(function))


def conditions(given: Mapping[str, object]) -> dict[str, object]:
    """The conditions that were given, under the names of the API."""
    found = {name: value for name, value in given.items() if value not in (None, ())}
    if "ids" in found:
        found["ids"] = list(given["ids"])  # type: ignore[call-overload]
    return found
