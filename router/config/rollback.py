"""Going back to a version: what it takes, and whether it would take effect today.

Owns the check before anything is changed: the version is read as if its files lay in their
places, with the present environment.  Must not know who asks, nor whether a gateway runs.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from router.config.files import Overlay
from router.config.load import Loaded
from router.config.restore import RestoreError, Step, restore, steps_to
from router.config.versions import File, Origin, Version, Versions
from rules import Problems

Read: TypeAlias = Callable[[Overlay], Loaded]
"""Reads the configuration as it would be; raises Problems."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A version that would take effect: what was read of it, and the steps to put it in place."""

    version: Version
    files: tuple[File, ...]
    loaded: Loaded
    steps: tuple[Step, ...]

    @property
    def changed(self) -> tuple[str, ...]:
        """The files that are written or removed."""
        return tuple(os.fspath(step.path) for step in self.steps)


@dataclass(frozen=True, slots=True)
class Present:
    """What lies on the disk now, whether it would take effect or not."""

    files: tuple[File, ...]
    rules: str = ""
    problems: tuple[str, ...] = ()


def files_of(loaded: Loaded) -> tuple[File, ...]:
    """The files that a configuration was read from, as versions keep them.

    Without the files of `lists:`: those change by themselves, hold what identifies patients, and
    going back to older rules is not to bring back an older list.
    """
    return named(Path(loaded.file), loaded.files)


def named(config: Path, files: Iterable[tuple[str, bytes]]) -> tuple[File, ...]:
    """Files by their path from the directory of the configuration file."""
    base = _absolute(config).parent
    result = []
    for name, data in files:
        path = _absolute(Path(name))
        inside = path.is_relative_to(base)
        result.append(File(path.relative_to(base).as_posix() if inside else os.fspath(path), data))
    return tuple(result)


def trial(config: Path, files: Sequence[File], read: Read) -> tuple[Loaded, list[Path]]:
    """A version as it would be read if its files lay in their places, and the files that must not
    be there then: they came later, and a pattern of this version would include them.

    Raises Problems when it would not take effect today.
    """
    overlay: dict[Path, bytes | None] = dict(_places(config, files))
    loaded = read(overlay)
    extra = [path for path in _paths(loaded) if path not in overlay]
    if extra:
        loaded = read(overlay | dict.fromkeys(extra))
    return loaded, extra


def prepare(config: Path, versions: Versions, version: Version, read: Read) -> Prepared:
    """Read a version as it would be, and find what differs.

    Raises VersionsError, RestoreError, or Problems when it would not take effect today.
    """
    files = versions.files(version.number)
    loaded, extra = trial(config, files, read)
    wanted: list[tuple[Path, bytes | None]] = [*_places(config, files)]
    steps = steps_to([*wanted, *((path, None) for path in extra)], config)
    return Prepared(version, files, loaded, steps)


def put(
    config: Path, versions: Versions, prepared: Prepared, read: Read, origin: Origin, at: float
) -> int:
    """Put a version's files in their places, all or none; what lies there is kept first, else
    there would be no way back.  The number of the version that it is kept as, 0 when it was one
    already.  Raises RestoreError."""
    if not prepared.steps:
        return 0
    paths = [*(step.path for step in prepared.steps), *dict(_places(config, prepared.files))]
    now = present(config, paths, read)
    try:
        added = versions.add(
            now.files,
            outcome="kept",
            rules=now.rules,
            at=at,
            origin=replace(origin, note=f"before going back to {prepared.version.number}"),
            problems=now.problems,
        )
    except OSError as error:
        raise RestoreError(
            f"what lies there now cannot be kept: {words(error)}",
            "see that data_dir can be written, then ask again",
        ) from error
    restore(config, prepared.steps)
    return added.version.number if added.new else 0


def kept_words(number: int) -> tuple[str, ...]:
    """What is said of an edit in the place of which a version was put; () when there was none."""
    if not number:
        return ()
    text = f"what lay on the disk, and had not taken effect, is kept as version {number}"
    return (f"{text}: see dcmrouter rules show {number}",)


def words(error: OSError) -> str:
    """What failed, and at which file."""
    text = error.strerror or str(error)
    return f"{error.filename}: {text}" if error.filename else text


def present(config: Path, paths: Iterable[Path], read: Read) -> Present:
    """All that is there now, those of ``paths`` included that belong to another version."""
    try:
        loaded = read({})
    except Problems as error:
        problems = tuple(map(str, error.problems))
        first = _real(config)
        included = map(_real, map(Path, error.texts))
        known: dict[Path, None] = dict.fromkeys((first, *included, *paths))
        return Present(_files(config, {path: _as_it_is(path) for path in known}), "", problems)
    files = files_of(loaded)
    there = frozenset(_paths(loaded))
    others = {path: _as_it_is(path) for path in paths if path not in there}
    return Present((*files, *_files(config, others)), loaded.rules.version)


def _as_it_is(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RestoreError(f"{path} cannot be read: {error.strerror}") from error


def _files(config: Path, contents: Mapping[Path, bytes | None]) -> tuple[File, ...]:
    real = _real(config)
    there = ((path, data) for path, data in contents.items() if data is not None)
    return named(config, ((os.fspath(config if p == real else p), data) for p, data in there))


def _places(config: Path, files: Sequence[File]) -> list[tuple[Path, bytes]]:
    """Where files go; the configuration file to where it is now, whatever it was called."""
    base = _absolute(config).parent
    first, *others = files
    return [
        (_real(config), first.data),
        *((_real(base / file.name), file.data) for file in others),
    ]


def _paths(loaded: Loaded) -> list[Path]:
    return [_real(Path(name)) for name, _ in loaded.files]


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - links stay in it


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
