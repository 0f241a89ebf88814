"""The whole configuration as one value.

Owns what belongs to no service: where data lie, the web listener, the log.  Everything else is
composed of the services' own settings, which are the one place of their defaults.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SkipValidation,
)

from router.commitment.settings import CommitmentSetting
from router.config.versions import KEEP
from router.ingest.settings import StorageSettings
from router.net.settings import LocalAE, NetworkSettings, Remote, parse_address
from router.spool.settings import SpoolSettings
from rules import Rule
from rules.holidays import HolidayText
from rules.window import Dated, Holidays, Span, Windows, check_zone, parse_spans, parse_windows


def _listen(value: str) -> str:
    parse_address(value)
    return value


def _zone(value: str) -> str:
    check_zone(value)
    return value


def _window(value: str) -> str:
    parse_spans(value)
    return value


def _holiday_window(value: str) -> str:
    text = value.strip()
    if text in ("open", "closed"):
        return text
    plain = {tuple(range(7))}
    for span in parse_spans(text):
        if isinstance(span, Dated) or {span.days} != plain:
            raise ValueError(
                f"{value!r} has days: it is for holidays", "leave them out: 08:00-12:00"
            )
    return text


def one_or_more(value: object) -> object:
    """A list of what may be written without one when it is alone."""
    return value if isinstance(value, list | tuple) else (value,)


def _path(value: str) -> str:
    if not value.strip() or "\0" in value:
        raise ValueError(f"{value!r} is not the name of a file", "file: trial.csv")
    return value.strip()


def _column(value: str) -> str:
    text = value.strip()
    if text.isascii() and text.isdigit() and int(text) == 0:
        raise ValueError("columns count from 1", "the first one is 'column: 1'")
    if not text:
        raise ValueError("a column has a name or a number", "leave it out: a value on each line")
    return text


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


class VersionSettings(BaseModel):
    """``versions:`` in the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep: int = Field(
        default=KEEP,
        ge=2,
        le=10_000,
        description="How many configurations that took effect are kept in `data_dir`, to be "
        "compared and gone back to; the oldest go.",
    )


class Schedule(BaseModel):
    """One entry of ``schedules:``, windows of time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    timezone: Annotated[str, AfterValidator(_zone)] | None = Field(
        default=None,
        description="Time zone of the IANA data base; that of the file when absent.",
    )
    open: Annotated[
        tuple[Annotated[str, AfterValidator(_window)], ...], BeforeValidator(one_or_more)
    ] = Field(
        min_length=1,
        description="A window such as `mon-fri 18:00-07:00`, or a list of them; without days it is "
        "that of every day. The days are those on which it begins; an end that is not after the "
        "beginning lies on the next day, 24:00 is the end of the day. `at 19:00` opens then for an "
        "hour, `mon-fri at 19:00 for 2h` for two, `every 2h` each two hours from midnight on for "
        "ten minutes, `every 2h for 30m` for thirty; `2026-12-24 12:00-24:00` is of one day, "
        "`2026-12-24..2026-12-31 08:00-12:00` of several.",
    )
    holidays: Annotated[str, AfterValidator(_path)] | None = Field(
        default=None,
        description="Text file in UTF-8, taken from the directory of the configuration file: on "
        "each line a date, `2026-12-25`, or `12-25` for every year; what follows it, and lines "
        "that start with `#`, are for people. Read anew at each reload.",
    )
    on_holidays: Annotated[
        tuple[Annotated[str, AfterValidator(_holiday_window)], ...], BeforeValidator(one_or_more)
    ] = Field(
        default=(),
        description="What begins on a holiday instead: `open` all day, `closed`, or windows "
        "without days such as `10:00-14:00`. Needed with `holidays`. Windows of single dates hold "
        "on holidays too, and one that began the day before goes on.",
    )
    _dates: HolidayText = PrivateAttr(default=HolidayText())

    def with_holidays(self, dates: HolidayText) -> "Schedule":
        """The same with what its file of holidays holds."""
        copy = self.model_copy()
        copy._dates = dates
        return copy

    @property
    def dates(self) -> HolidayText:
        """What its file of holidays held when the configuration was read."""
        return self._dates

    def windows(self, zone: str) -> Windows:
        """When it is open; ``zone`` is the file's, for one that names none."""
        holidays = None
        if self.holidays is not None:
            holidays = Holidays(self._dates.dates, self._dates.yearly, self._on_holidays())
        return parse_windows(self.open, self.timezone or zone, holidays)

    def _on_holidays(self) -> tuple[Span, ...]:
        if self.on_holidays == ("open",):
            return (Span(tuple(range(7)), 0, 1440),)
        texts = [text for text in self.on_holidays if text not in ("open", "closed")]
        return parse_windows(texts, "UTC").spans


class ListFile(BaseModel):
    """One entry of ``lists:``, values kept in a file of their own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Annotated[str, AfterValidator(_path)] = Field(
        description="Text or CSV file in UTF-8, taken from the directory of the configuration "
        "file. Blank lines and those that start with `#` are passed over."
    )
    column: Annotated[str, AfterValidator(_column)] | None = Field(
        default=None,
        description="Which column of a CSV file holds the values: the name that its first row "
        "gives it, or its number from 1, and then the first row counts as well. Without it each "
        "line is a value.",
    )
    ignore_case: bool = Field(
        default=False, description="Whether upper and lower case are the same in this list."
    )

    @property
    def place(self) -> str | int | None:
        """`column`, as a number when it is one."""
        text = self.column
        return int(text) if text is not None and text.isascii() and text.isdigit() else text


class Config(BaseModel):
    """The configuration file.

    ``rules`` and ``conditions`` hold what was read; the compiled form of both is
    `router.config.load.Loaded.rules`.  ``timezone`` is never empty once a file was loaded.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path = Field(
        default=Path("./data"),
        description="Spool and index; created if missing. A relative path is taken from the "
        "directory that the gateway is started in, `~` is the home directory.",
    )
    timezone: Annotated[str, AfterValidator(_zone)] = Field(
        default="",
        description="Time zone of the IANA data base, such as `Europe/Stockholm`, in which "
        "windows and dates of rules are meant; that of the machine when absent, UTC where that "
        "cannot be told.",
    )
    http: HttpSettings = Field(default_factory=HttpSettings)
    local: tuple[LocalAE, ...] = Field(
        min_length=1, description="The AEs that this gateway answers as; at least one."
    )
    remotes: Mapping[str, Remote] = Field(
        default_factory=dict, description="Every other system, by the name that rules use."
    )
    conditions: SkipValidation[Mapping[str, Any]] = Field(
        default_factory=dict,
        description="Conditions by name, for `is` in rules: each a mapping as under `when`.",
    )
    lists: Mapping[str, ListFile] = Field(
        default_factory=dict,
        description="Lists of values by name, for `in` in conditions; read again when their "
        "files change.",
    )
    schedules: Mapping[str, Schedule] = Field(
        default_factory=dict,
        description="Weekly windows by name, for `send: {schedule: NAME}` and `received: {in: "
        "NAME}` in rules.",
    )
    rules: SkipValidation[tuple[Rule, ...]] = Field(
        default=(), description="Where instances go; what no rule matches is held."
    )
    spool: SpoolSettings = Field(default_factory=SpoolSettings)
    storage: StorageSettings = Field(default_factory=StorageSettings)
    network: NetworkSettings = Field(default_factory=NetworkSettings)
    commitment: CommitmentSetting = Field(
        default=None,
        description="Storage commitment for those who send to us (PS3.4 annex J); not offered when "
        "absent, `true` takes the defaults.",
    )
    log: LogSettings = Field(default_factory=LogSettings)
    versions: VersionSettings = Field(default_factory=VersionSettings)


RESERVED_KEYS: Mapping[str, frozenset[str]] = {}
"""By model, the keys that a coming version has: refused by name rather than as unknown."""
