"""Options that several commands share, and the configuration behind them.

Owns `--config`, `--json` and the filters of queues and instances.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from router.cli.failures import ConfigurationRefused, Misuse

if TYPE_CHECKING:
    from router.config import Loaded
    from rules.source import ScalarNode

F = TypeVar("F", bound=Callable[..., Any])

ENVIRONMENT = "DCMROUTER_CONFIG"
STATES = ("ready", "held", "dead", "delivered", "uncommitted", "dropped", "duplicate")
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


_ORIGIN = (
    click.option(
        "--author",
        default=lambda: os.environ.get("SUDO_USER", ""),
        metavar="NAME",
        help="Who asks for it, to be kept with the version; else the user of this command.",
    ),
    click.option("--note", default="", metavar="TEXT", help="Why, to be kept with the version."),
)


def origin_options(function: F) -> F:
    """Who changes the configuration, and why."""
    for option in reversed(_ORIGIN):
        function = option(function)
    return function


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
        raise ConfigurationRefused(error.problems, error.texts) from None


def data_dir_of(config: Path) -> Path:
    """`data_dir` of a configuration that may be broken otherwise; raises Misuse."""
    from router.config import Config

    try:
        node = _node_of_data_dir(config)
    except OSError as error:
        fix = "say where its versions are with --data-dir DIR"
        if isinstance(error, FileNotFoundError):
            fix = f"is the directory right? --config names the file; or {fix}"
        raise Misuse(f"{config} cannot be read: {error.strerror}", fix) from None
    if node is None:
        default = Config.model_fields["data_dir"].default
        assert isinstance(default, Path)
        return default
    try:
        return Path(node.text).expanduser()
    except RuntimeError as error:  # ~ without a home
        raise Misuse(
            f"{config}: data_dir: {error}", "say where it is with --data-dir DIR"
        ) from None


def _node_of_data_dir(config: Path) -> "ScalarNode | None":
    from router.config import Problems
    from router.config.environment import substitute
    from rules.source import MappingNode, ScalarNode, parse

    data = config.read_bytes()
    line = re.search(rb"^data_dir:.*$", data, re.MULTILINE)
    # The whole, or, when that is no YAML at all, the one line.
    for text in (data, line[0] if line else b""):
        try:
            root, _ = substitute(parse(text, os.fspath(config)), os.environ)
        except Problems:
            continue
        node = root.get("data_dir") if isinstance(root, MappingNode) else None
        return node if isinstance(node, ScalarNode) and not node.is_null else None
    return None


_FILTERS = (
    click.option("--destination", "-d", metavar="NAME", help="Deliveries to this destination."),
    click.option("--state", type=click.Choice(STATES), help="Deliveries in this state."),
    click.option("--study", metavar="UID", help="Of this Study Instance UID."),
    click.option("--instance", "sop_instance_uid", metavar="UID", help="This SOP Instance UID."),
    click.option("--reason", metavar="GLOB", help="Whose reason matches, as in '*timeout*'."),
    click.option("--tag", metavar="LABEL", help="To which the rules gave this label."),
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


def redirect_filter_options(function: F) -> F:
    """The conditions on the deliveries of one destination."""
    for option in reversed(_FILTERS[1:]):
        function = option(function)
    return function


def conditions(given: Mapping[str, object]) -> dict[str, object]:
    """The conditions that were given, under the names of the API."""
    found = {name: value for name, value in given.items() if value not in (None, ())}
    if "ids" in found:
        found["ids"] = list(given["ids"])  # type: ignore[call-overload]
    return found
