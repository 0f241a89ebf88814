"""The whole configuration as one value.

Owns what belongs to no service: where data lie, the web listener, the log.  Everything else is
composed of the services' own settings, which are the one place of their defaults.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SkipValidation

from router.ingest.settings import StorageSettings
from router.net.settings import LocalAE, NetworkSettings, Remote, parse_address
from router.spool.settings import SpoolSettings
from rules import Rule


def _listen(value: str) -> str:
    parse_address(value)
    return value


class HttpSettings(BaseModel):
    """``http:`` in the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    listen: Annotated[str, AfterValidator(_listen)] = Field(
        default="127.0.0.1:8080",
        description="Address of metrics, health, API and pages. They ask for no password: put "
        "what leaves the machine behind a proxy that does.",
    )


class LogSettings(BaseModel):
    """``log:`` in the configuration; the log goes to standard error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least severe entries that are written."
    )
    format: Literal["auto", "console", "json"] = Field(
        default="auto", description="`auto` is console on a terminal and JSON otherwise."
    )
    patient_data: bool = Field(
        default=False, description="Whether entries may hold what identifies a patient."
    )


class Config(BaseModel):
    """The configuration file.

    ``rules`` holds the rules as read; their compiled form is `router.config.load.Loaded.rules`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path = Field(
        default=Path("./data"),
        description="Spool and index; created if missing. A relative path is taken from the "
        "directory that the gateway is started in, `~` is the home directory.",
    )
    http: HttpSettings = Field(default_factory=HttpSettings)
    local: tuple[LocalAE, ...] = Field(
        min_length=1, description="The AEs that this gateway answers as; at least one."
    )
    remotes: Mapping[str, Remote] = Field(
        default_factory=dict, description="Every other system, by the name that rules use."
    )
    rules: SkipValidation[tuple[Rule, ...]] = Field(
        default=(), description="Where instances go; what no rule matches is held."
    )
    spool: SpoolSettings = Field(default_factory=SpoolSettings)
    storage: StorageSettings = Field(default_factory=StorageSettings)
    network: NetworkSettings = Field(default_factory=NetworkSettings)
    log: LogSettings = Field(default_factory=LogSettings)


RESERVED_KEYS: Mapping[str, frozenset[str]] = {
    "Config": frozenset({"schedules"}),
    "Remote": frozenset({"schedule", "bandwidth", "transfer_syntaxes"}),
}
"""By model, the keys that a coming version has: refused by name rather than as unknown."""
