"""``remotes list`` and ``remotes presets``: from the configuration, and from the table.

Owns which settings are worth a column.  Nothing here speaks to a remote.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from router.cli.options import config_option, json_option, load_config
from router.cli.output import print_json, print_table

if TYPE_CHECKING:
    from router.net.settings import Remote

_SHOWN_ELSEWHERE = ("ae_title", "host", "port", "preset")


@click.command("list")
@config_option
@json_option
def list_remotes(config_path: Path | None, as_json: bool) -> None:
    """The remotes of the configuration, and what each has that is not the default."""
    config = load_config(config_path).config
    if as_json:
        print_json([{"name": name, **_plain(r)} for name, r in config.remotes.items()])
        return
    print_table(
        ("name", "AE title", "address", "preset", "settings"),
        [
            (
                name,
                remote.ae_title,
                "calls us" if remote.host is None else f"{remote.host}:{remote.port}",
                remote.preset,
                ", ".join(_setting(key, value) for key, value in _unusual(remote).items()),
            )
            for name, remote in config.remotes.items()
        ],
        empty="there are no remotes",
    )


@click.command()
@json_option
def presets(as_json: bool) -> None:
    """Settings for known families of systems: `preset: NAME` under a remote."""
    from router.net.presets import PRESETS

    if as_json:
        print_json(
            [
                {
                    "name": preset.name,
                    "settings": dict(preset.values),
                    "reason": preset.reason,
                    "source": preset.source,
                }
                for preset in PRESETS.values()
            ]
        )
        return
    for preset in PRESETS.values():
        click.echo(f"{preset.name}")
        for key, value in preset.values.items():
            click.echo(f"    {key}: {_written(value)}")
        click.echo(f"    # {preset.reason}")
        click.echo(f"    # {preset.source}")
        click.echo()
    click.echo("What stands under the remote besides wins over its preset.")


def _plain(remote: "Remote") -> dict[str, Any]:
    return remote.model_dump(mode="json")


def _unusual(remote: "Remote") -> Mapping[str, Any]:
    """What differs from the defaults, a preset's values too."""
    values = remote.model_dump(mode="json", exclude_defaults=True)
    return {key: value for key, value in values.items() if key not in _SHOWN_ELSEWHERE}


def _setting(key: str, value: object) -> str:
    """As somebody would write it, the unit included."""
    if key == "bandwidth" and isinstance(value, Mapping):
        value = {hours: _bandwidth(each) for hours, each in value.items()}
        if list(value) == ["else"]:
            value = value["else"]
    return f"{key}: {_written(value)}"


def _bandwidth(speed: object) -> object:
    if not isinstance(speed, int | float) or math.isinf(speed):
        return "unlimited"
    return f"{speed * 8 / 1e6:g}Mbit/s" if speed * 8 >= 1e6 else f"{speed * 8 / 1e3:g}kbit/s"


def _written(value: object) -> str:
    if isinstance(value, Mapping) and not value:
        return "true"  # switched on, with nothing but defaults
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_written(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_written, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
