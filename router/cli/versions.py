"""``rules versions``, ``show``, ``diff`` and ``rollback``: the configurations that took effect.

Owns how they are shown, and the choice between the running gateway and the directory at rest. A
configuration that is broken must not keep anybody from going back, so that only its `data_dir`
is needed of it.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from router.cli.desk import Json, SocketDesk
from router.cli.failures import ConfigurationRefused, Failure, Misuse
from router.cli.options import (
    ENVIRONMENT,
    config_option,
    data_dir_of,
    json_option,
    origin_options,
    socket_option,
)
from router.cli.output import plural, print_json, print_table, safe

if TYPE_CHECKING:
    from router.config import Loaded
    from router.config.files import Overlay

F = TypeVar("F", bound=Callable[..., Any])


class _Keeper(Protocol):
    """Has the versions: the gateway, or its directory.  Answers as the control API does."""

    def versions(self) -> Json: ...

    def version(self, text: str) -> Json: ...

    def difference(self, old: str, new: str) -> Json: ...

    def rollback(self, version: str, author: str, note: str) -> Json: ...


def _where(function: F) -> F:
    function = socket_option(function)
    function = click.option(
        "--data-dir",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="The gateway's data_dir, where the configuration cannot tell it any more.",
    )(function)
    return config_option(function)


@click.command()
@_where
@json_option
def versions(
    config_path: Path | None, data_dir: Path | None, socket_path: Path | None, as_json: bool
) -> None:
    """The configurations that took effect, the newest first.

    With what was refused, and what lay on the disk when another version was put in its place.
    """
    found = _keeper(config_path, data_dir, socket_path).versions()
    if as_json:
        print_json(found)
        return
    print_table(
        ("", ">version", "at", "rules", "outcome", "author", "via", "note"),
        [
            (
                "*" if each["number"] == found["in_force"] else "",
                each["number"],
                _local(each["at"]),
                each["rules"],
                _outcome(each),
                each["author"],
                each["via"],
                each["note"],
            )
            for each in found["versions"]
        ],
        empty="no versions are kept yet",
    )
    if found["in_force"]:
        click.echo("* in force")
    for line in (*found["damaged"], *filter(None, [found["trouble"]])):
        click.echo(f"warning: {safe(line)}", err=True)


@click.command()
@click.argument("version", default="current")
@_where
@json_option
def show(
    version: str,
    config_path: Path | None,
    data_dir: Path | None,
    socket_path: Path | None,
    as_json: bool,
) -> None:
    """The files of a version as they were.

    VERSION is a number, the version of its rules, `current` (when left out) or `previous`.
    """
    found = _keeper(config_path, data_dir, socket_path).version(version)
    if as_json:
        print_json(found)
        return
    click.echo(f"# version {found['number']}, {_local(found['at'])}, {safe(_outcome(found))}")
    for problem in found["problems"]:
        click.echo(f"# {safe(problem)}")
    for file in found["files"]:
        click.echo(f"# ---- {safe(file['name'])}")
        text = file.get("text")
        if text is None:
            click.echo(f"# not text; in base64: {file['base64']}")
            continue
        for line in text.split("\n")[: -1 if text.endswith("\n") else None]:
            click.echo(_visible(line))


@click.command()
@click.argument("old", default="current")
@click.argument("new", default="")
@_where
@json_option
def diff(
    old: str,
    new: str,
    config_path: Path | None,
    data_dir: Path | None,
    socket_path: Path | None,
    as_json: bool,
) -> None:
    """What differs between two versions, line by line and rule by rule.

    OLD and NEW are as in `show`, or `disk` for what lies on the disk.  Without any: what a reload
    would change.  With OLD alone: what has changed from there to the one in force.
    """
    given = click.get_current_context().get_parameter_source("old")
    alone = given is not click.core.ParameterSource.DEFAULT
    keeper = _keeper(config_path, data_dir, socket_path)
    found = keeper.difference(old, new or ("current" if alone else "disk"))
    if as_json:
        print_json(found)
        return
    if not found["text"]:
        click.echo(f"no difference between {_side(found['old'])} and {_side(found['new'])}")
        return
    for line in found["text"].split("\n")[:-1]:
        click.secho(_visible(line), fg=_COLOURS.get(line[:1]))
    click.echo()
    for line in found["rules"]:
        click.echo(safe(line))
    for line in found["settings"]:
        click.echo(f"changed: {safe(line)}")
    if found["note"]:
        click.echo(safe(found["note"]))
    elif not found["rules"] and not found["settings"]:
        click.echo("both mean the same")


@click.command()
@click.argument("version")
@_where
@origin_options
@json_option
def rollback(
    version: str,
    config_path: Path | None,
    data_dir: Path | None,
    socket_path: Path | None,
    author: str,
    note: str,
    as_json: bool,
) -> None:
    """Put the files of a version back where they were, and reload: all of it or nothing.

    VERSION is as in `show`; `current` puts back what is in force, after an edit that was refused.
    It is checked first, as if it lay there; what lies there now is kept as a version of its own.
    Without a running gateway only the files are put back.

    Exit code 2 when it would not take effect any more; nothing has changed then.
    """
    keeper = _keeper(config_path, data_dir, socket_path)
    result = keeper.rollback(version, author, note)
    if as_json:
        print_json(result)
    if not result["applied"]:
        if as_json:
            raise SystemExit(ConfigurationRefused.exit_code)
        raise ConfigurationRefused(result["problems"], because=_because(keeper.version(version)))
    if as_json:
        return
    for file in result["files"]:
        click.echo(f"changed {safe(file)}")
    count = plural(len(result["files"]), "file")
    if isinstance(keeper, SocketDesk):
        changes = f"; changed: {safe(', '.join(result['changes']))}" if result["changes"] else ""
        click.echo(f"{count} put back, and reloaded{changes}")
    else:
        click.echo(f"{count} put back; no gateway runs: it takes effect when one is started")
    for text in result["notes"]:
        click.echo(f"note: {safe(text)}")


def _because(version: Json) -> str:
    """Before problems whose lines are the version's, not those of the file that lies there."""
    tried = " was refused when it was tried and" if version["outcome"] == "refused" else ""
    told = f"version {version['number']}{tried} cannot take effect; nothing has changed"
    return f"{told}; in its files:"


_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


def _side(name: str) -> str:
    return "what lies on the disk" if name == "disk" else f"version {name}"


def _local(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def _outcome(version: Json) -> str:
    if version["outcome"] == "rolled back":
        return f"went back to {version['of']}"
    if version["outcome"] == "refused":
        return f"refused: {plural(len(version['problems']), 'problem')}"
    return str(version["outcome"])


def _visible(line: str) -> str:
    """A line of a file: tabs stay, what else is unprintable is made visible."""
    return "\t".join(safe(part) for part in line.split("\t"))


# -- which gateway -----------------------------------------------------------------------------


def _keeper(config: Path | None, data_dir: Path | None, socket: Path | None) -> _Keeper:
    if socket is not None:
        desk = SocketDesk(socket)
        if not desk.probe():
            raise Failure(f"no gateway answers at {socket}", "give --config to look at its files")
        return desk
    if config is None:
        raise Misuse(
            "it is not said which gateway is meant",
            f"use --config FILE, set {ENVIRONMENT}, or name its socket with --socket",
        )
    directory = data_dir if data_dir is not None else data_dir_of(config)
    desk = SocketDesk(directory / "control.sock")
    return desk if desk.probe() else _AtRest(config, directory)


_SAY_WHERE = "they are kept from the first start on; if they lie elsewhere, give --data-dir DIR"


class _AtRest:
    """The versions of a gateway that does not run; see `_Keeper`."""

    def __init__(self, config: Path, data_dir: Path) -> None:
        from router.config.versions import Versions

        self._config = config
        self._versions = Versions(data_dir / "versions")

    def versions(self) -> Json:
        """See `_Keeper`."""
        from router.web import encode
        from router.web.sources import VersionsView

        with self._explained():
            listing = self._versions.listing()
        if not listing.versions and not self._versions.directory.is_dir():
            raise Failure(f"there are no versions in {self._versions.directory}", _SAY_WHERE)
        in_force = listing.in_force.number if listing.in_force else 0
        return encode.versions(VersionsView(listing.versions, listing.damaged, in_force))

    def version(self, text: str) -> Json:
        """See `_Keeper`."""
        from router.config.compare import find
        from router.web import encode

        with self._explained():
            version = find(self._versions, text)
            files = self._versions.files(version.number)
        return encode.version(version) | {"files": list(map(encode.version_file, files))}

    def difference(self, old: str, new: str) -> Json:
        """See `_Keeper`."""
        from dataclasses import asdict

        from router.config.compare import compare

        with self._explained():
            return asdict(compare(self._config, self._versions, old, new, self._read))

    def rollback(self, version: str, author: str, note: str) -> Json:
        """See `_Keeper`."""
        from router.config import Problems
        from router.config.compare import find
        from router.config.restore import finish
        from router.config.rollback import kept_words, prepare, put, words
        from router.config.versions import Origin

        origin = Origin(author or _user(), "command line, gateway at rest", note)
        with self._explained():
            if said := finish(self._config):
                click.echo(safe(said), err=True)
            found = find(self._versions, version)
            try:
                prepared = prepare(self._config, self._versions, found, self._read)
            except Problems as error:
                return {"applied": False, "problems": list(map(str, error.problems))}
            self._versions.keep = prepared.loaded.config.versions.keep
            kept = put(self._config, self._versions, prepared, self._read, origin, time.time())
            number = None
            try:
                added = self._versions.add(
                    prepared.files,
                    outcome="rolled back",
                    rules=prepared.loaded.rules.version,
                    at=time.time(),
                    origin=origin,
                    of=found.number,
                )
                number = added.version.number
            except OSError as error:
                click.echo(f"warning: not kept as a version: {safe(words(error))}", err=True)
        return {
            "applied": True,
            "changes": [],
            "problems": [],
            "version": number,
            "files": list(prepared.changed),
            "notes": list(kept_words(kept)),
        }

    def _read(self, overlay: "Overlay") -> "Loaded":
        from router.config import load

        return load(self._config, overlay=overlay)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        from router.config.restore import RestoreError
        from router.config.rollback import words
        from router.config.versions import VersionsError

        try:
            yield
        except (VersionsError, RestoreError) as error:
            raise Failure(str(error), error.fix) from error
        except OSError as error:
            raise Failure(words(error)) from error


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.geteuid())
