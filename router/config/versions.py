"""The configurations that took effect, kept on disk: ``versions/`` in ``data_dir``.

Owns the form of an entry, their numbers and their bound.  An entry holds the files as they were
written, never with ``${NAME}`` put in, and is written once: durably, whole or not at all.  What
cannot be read any more is told and passed over.  Must not know how a configuration is read.

An entry is a file ``000007.version``: a line with the SHA-256 of the rest of the line and what
is known of the version as JSON, then a JSON list of the files.
"""

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from router.config import durable
from router.spool import system

Outcome: TypeAlias = Literal["took effect", "rolled back", "refused", "kept"]
"""``rolled back``: took effect by going back to a version before it.  ``kept``: what lay on the
disk when another version was put in its place."""

KEEP = 200
MAX_BYTES = 256 << 20
"""Of all entries; the oldest go, whatever their number."""
MAX_REFUSED = 20
"""Refused ones that are kept: a script that asks again and again must not push out the others."""
_MAX_HEAD = 1 << 20
_MAX_PROBLEMS = 50
_MAX_TEXT = 500
_NAME = re.compile(r"(\d{6,12})\.version")


class VersionsError(Exception):
    """What was asked of the versions cannot be had; ``fix`` says what to do."""

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.fix = fix


@dataclass(frozen=True, slots=True)
class File:
    """A file of a configuration.

    ``name`` is its path from the directory of the configuration file, with slashes, or an
    absolute one where it lies elsewhere.  The configuration file itself comes first.
    """

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Version:
    """What is known of an entry besides its files.

    ``rules`` is the version of the rules, "" where they could not be read; ``digest`` is that of
    the files.  ``at`` is in seconds since the epoch.  ``author`` is who asked for it, as far as
    that was said or could be told, ``via`` how.  ``of`` is the number of the version that was
    gone back to, 0 for none.
    """

    number: int
    at: float
    outcome: Outcome
    rules: str
    digest: str
    author: str = ""
    via: str = ""
    note: str = ""
    of: int = 0
    problems: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def was_in_force(self) -> bool:
        """Whether a gateway ran with it."""
        return self.outcome in ("took effect", "rolled back")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a version comes from; see `Version`."""

    author: str = ""
    via: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """The entries, oldest first, and in words those that cannot be read."""

    versions: tuple[Version, ...] = ()
    damaged: tuple[str, ...] = ()

    @property
    def in_force(self) -> Version | None:
        """The last one that took effect."""
        return next((v for v in reversed(self.versions) if v.was_in_force), None)


@dataclass(frozen=True, slots=True)
class Added:
    """``new`` is False when the last entry was the same; ``trouble`` is what did not work out
    besides, such as making room."""

    version: Version
    new: bool
    trouble: str = ""


def digest_of(files: Sequence[File]) -> str:
    """SHA-256 (hexadecimal) of the names and bytes of files."""
    total = hashlib.sha256()
    for file in files:
        name = file.name.encode("utf-8", "surrogateescape")
        total.update(b"%d %d\n" % (len(name), len(file.data)) + name + file.data)
    return total.hexdigest()


class Versions:
    """The entries in ``directory``, which is made when the first is added.

    For one process at a time to add to; any may read meanwhile.  Blocking: not for the event loop.
    """

    def __init__(self, directory: Path, keep: int = KEEP) -> None:
        self.directory = directory
        self.keep = keep

    def listing(self) -> Listing:
        """All that is there, without the files.  Raises OSError."""
        versions, damaged = [], []
        for number, path in self._paths():
            try:
                versions.append(_read_head(path, number)[0])
            except FileNotFoundError:
                continue  # its turn to go came in between
            except (OSError, ValueError) as error:
                damaged.append(f"{path}: {_words(error)}")
        return Listing(tuple(versions), tuple(damaged))

    def files(self, number: int) -> tuple[File, ...]:
        """The files of a version.  Raises VersionsError when they cannot be had."""
        path = self._path(number)
        try:
            version, rest = _read_head(path, number, whole=True)
            return _read_files(rest, version)
        except FileNotFoundError:
            raise VersionsError(f"there is no version {number}", _LIST_THEM) from None
        except (OSError, ValueError) as error:
            raise VersionsError(f"version {number} is damaged: {_words(error)}") from None

    def find(self, text: str) -> Version:
        """The version that a person means.

        By its number; by the version of its rules, or how that begins, the newest that took
        effect; ``previous`` is the one in force before.  Raises VersionsError or OSError.
        """
        listing = self.listing()
        if text == "previous":
            return _previous(listing)
        if text.isascii() and text.isdigit() and len(text) < 12:
            for version in listing.versions:
                if version.number == int(text):
                    return version
            if system.exists(self._path(int(text))):
                raise VersionsError(f"version {int(text)} is damaged")
        if re.fullmatch("[0-9a-f]{4,12}", text):
            for version in reversed(listing.versions):
                if version.rules.startswith(text) and version.was_in_force:
                    return version
        raise VersionsError(f"there is no version {text!r}", _LIST_THEM)

    def add(
        self,
        files: Sequence[File],
        *,
        outcome: Outcome,
        rules: str,
        at: float,
        origin: Origin = Origin(),
        of: int = 0,
        problems: Sequence[str] = (),
    ) -> Added:
        """Keep a configuration; not again when it is the one in force, or the last was refused
        for the same.  Raises OSError when it cannot be kept."""
        assert files
        self._make()
        with self._locked():
            listing = self.listing()
            digest = digest_of(files)
            if (last := _same(listing, digest, outcome)) is not None:
                return Added(last, new=False)
            version = Version(
                number=max((n for n, _ in self._paths()), default=0) + 1,
                at=at,
                outcome=outcome,
                rules=rules,
                digest=digest,
                author=origin.author[:_MAX_TEXT],
                via=origin.via[:_MAX_TEXT],
                note=origin.note[:_MAX_TEXT],
                of=of,
                problems=tuple(text[:_MAX_TEXT] for text in problems[:_MAX_PROBLEMS]),
                names=tuple(file.name for file in files),
            )
            self._write(version, files)
            return Added(version, new=True, trouble=self._make_room(version))

    def _write(self, version: Version, files: Sequence[File]) -> None:
        path = self._path(version.number)
        new = path.with_suffix(".new")
        durable.write(new, _entry(version, files), 0o600, self._owner())
        try:
            durable.replace(new, path)
        except OSError:
            with contextlib.suppress(OSError):
                durable.remove(new)
            raise
        durable.sync_directory(self.directory)

    def _make_room(self, kept: Version) -> str:
        """Take away what is too much; what kept us from it, or ""."""
        try:
            for left in self.directory.glob("*.new"):
                durable.remove(left)
            for path in self._surplus(kept):
                durable.remove(path)
        except OSError as error:
            return f"old versions could not be removed: {_words(error)}"
        return ""

    def _surplus(self, kept: Version) -> Iterator[Path]:
        paths = self._paths()
        listing = self.listing()
        spared = {kept.number}
        if (in_force := listing.in_force) is not None:
            spared.add(in_force.number)
        refused = [v.number for v in listing.versions if v.outcome == "refused"]
        first = set(refused[: max(0, len(refused) - MAX_REFUSED)])
        sizes = {n: path.stat().st_size for n, path in paths}
        count, total = len(paths), sum(sizes.values())
        for number, path in sorted(paths, key=lambda item: (item[0] not in first, item[0])):
            too_much = count > self.keep or total > MAX_BYTES or number in first
            if not too_much or number in spared:
                continue
            count, total = count - 1, total - sizes[number]
            yield path

    def _paths(self) -> list[tuple[int, Path]]:
        try:
            names = os.listdir(self.directory)  # noqa: PTH208 - names are what is wanted
        except FileNotFoundError:
            return []
        found = ((_NAME.fullmatch(name), name) for name in names)
        return sorted((int(match[1]), self.directory / name) for match, name in found if match)

    def _path(self, number: int) -> Path:
        return self.directory / f"{number:06d}.version"

    def _make(self) -> None:
        if not system.is_directory(self.directory):
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if (owner := self._owner()) is not None:
                os.chown(self.directory, *owner)
            durable.sync_directory(self.directory.parent)

    def _owner(self) -> durable.Owner | None:
        """Whose the data are, when root works on them: the gateway must be able to go on."""
        if os.geteuid() != 0:
            return None
        status = self.directory.parent.stat()
        return status.st_uid, status.st_gid

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


_LIST_THEM = "see `dcmrouter rules versions`"


def _same(listing: Listing, digest: str, outcome: Outcome) -> Version | None:
    """The entry that says the same already."""
    if outcome == "refused":
        last = listing.versions[-1] if listing.versions else None
        return last if last and (last.outcome, last.digest) == (outcome, digest) else None
    last = listing.in_force
    return last if last and last.digest == digest else None


def _previous(listing: Listing) -> Version:
    in_force = [v for v in listing.versions if v.was_in_force]
    if len(in_force) < 2:
        raise VersionsError("there is no version before the present one", _LIST_THEM)
    return in_force[-2]


def _entry(version: Version, files: Sequence[File]) -> bytes:
    rest = json.dumps([_file(file) for file in files]).encode()
    known = asdict(version) | {"length": len(rest), "sha256": hashlib.sha256(rest).hexdigest()}
    head = json.dumps(known).encode()
    return hashlib.sha256(head).hexdigest().encode() + b" " + head + b"\n" + rest


def _file(file: File) -> dict[str, str]:
    try:
        return {"name": file.name, "text": file.data.decode()}
    except UnicodeDecodeError:
        return {"name": file.name, "base64": base64.b64encode(file.data).decode()}


def _read_head(path: Path, number: int, *, whole: bool = False) -> tuple[Version, bytes]:
    """An entry's first line and, if wanted, what follows.  Raises OSError or ValueError."""
    with path.open("rb") as file:
        line = file.readline(_MAX_HEAD)
        rest = file.read(MAX_BYTES + 1) if whole else b""
        length = os.fstat(file.fileno()).st_size - len(line)
    check, _, head = line.removesuffix(b"\n").partition(b" ")
    if check.decode("latin-1") != hashlib.sha256(head).hexdigest():
        raise ValueError("its first line is not what was written")
    known = json.loads(head)
    try:
        digest, expected = known.pop("sha256"), known.pop("length")
        lists = {name: tuple(known[name]) for name in ("problems", "names")}
        version = Version(**known | lists)
    except (KeyError, TypeError):
        raise ValueError("it is of another version of dcmrouter") from None
    if length != expected or (whole and hashlib.sha256(rest).hexdigest() != digest):
        raise ValueError("its files are not what was written")
    if version.number != number or version.outcome not in get_args(Outcome):
        raise ValueError("it is not the entry that its name says")
    return version, rest


def _read_files(rest: bytes, version: Version) -> tuple[File, ...]:
    files = tuple(
        File(item["name"], item["text"].encode() if "text" in item else _bytes(item["base64"]))
        for item in json.loads(rest)
    )
    if digest_of(files) != version.digest:
        raise ValueError("its files are not what was written")
    return files


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _words(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)
