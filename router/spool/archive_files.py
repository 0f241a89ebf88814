"""The folder into which settled instances are moved as Part 10 files.

Owns the names there, and that they, the files and the manifests' lines are durable before anybody
is told.  Blocking; must not know the index, nor what a file begins with: it is given that.

``FOLDER/2026-11-21/1f0c…/0000000000000011-9ae41c02.dcm``: the day of reception (UTC), a hash of the
Study Instance UID, the instance's number and the CRC-32 of its data set.  No UID is part of a
path; ``manifest.jsonl`` beside the files has a line for each with all that the gateway knew.
"""

import contextlib
import errno
import itertools
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from router.spool import system
from router.spool.archive_manifest import add_lines, describe, moment, open_manifest
from router.spool.errors import SpoolDamaged, SpoolError, SpoolFull
from router.spool.index_types import InstanceRow
from router.spool.reader import Reader
from router.spool.record import Ref

NO_STUDY = "no-study"
_PIECE = 1 << 20


# What one study's folder may have as well; these are the whole file system's.
_OF_ALL = (
    *system.FULL,
    errno.EROFS,
    errno.ENODEV,
    errno.ENXIO,
    errno.ENOTCONN,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ETIMEDOUT,
)


@dataclass(slots=True)
class Stored:
    """What came of a batch: ``ids`` are durably in the archive, ``bytes`` of data sets;
    ``unreadable`` cannot be read from the spool, and why, for good but for those in ``passing``;
    ``put_back`` are the folders, of a study or of a day, that alone cannot be written to, and why;
    ``trouble`` is what kept all others."""

    ids: list[int] = field(default_factory=list)
    bytes: int = 0
    unreadable: dict[int, str] = field(default_factory=dict)
    put_back: dict[Path, str] = field(default_factory=dict)
    trouble: str = ""
    passing: set[int] = field(default_factory=set)


class _FolderError(Exception):
    """``place`` below the archive's folder cannot be written to; the others may be."""

    def __init__(self, place: Path, error: OSError) -> None:
        super().__init__(place, error)
        self.place = place
        self.error = error


class ArchiveFolder:
    """``head`` gives what comes before the data set in a file; ``open_reader`` may raise
    SpoolError."""

    def __init__(
        self,
        folder: Path,
        open_reader: Callable[[Ref], Reader],
        head: Callable[[InstanceRow], bytes],
    ) -> None:
        self._folder = folder
        self._open_reader = open_reader
        self._head = head
        self.steps = 0
        """Calls of the system that came back, so that others see whether it gets on."""

    def write(self, batch: Sequence[InstanceRow], stop: threading.Event) -> Stored:
        """Write them; what was written before, and not told of, is written again in its place.

        Never raises for what is wrong with the folder; ends early once ``stop`` is set.
        """
        stored = Stored()
        groups: dict[Path, list[InstanceRow]] = {}
        for row in batch:
            groups.setdefault(place_of(row), []).append(row)
        for place, group in groups.items():
            if stop.is_set() or stored.trouble:
                break
            if place.parent in stored.put_back:
                continue
            try:
                self._write_group(place, group, stored, stop)
            except _FolderError as failed:
                path = self._folder / failed.place
                stored.put_back[failed.place] = f"{path}: {failed.error.strerror or failed.error}"
            except OSError as error:
                stored.trouble = f"{self._folder}: {error.strerror or error}"
                if error.errno in system.FULL:
                    stored.trouble += "; nothing leaves the spool until there is room"
        return stored

    def _write_group(
        self, place: Path, group: Sequence[InstanceRow], stored: Stored, stop: threading.Event
    ) -> None:
        """The instances of one study; told of as soon as their lines are durable.

        Raises _FolderError for the study's or the day's folder, OSError for all of the archive.
        """
        self._check_there()
        directory = self._folder / place
        with contextlib.suppress(FileExistsError):
            directory.parent.mkdir(mode=0o700)
        with self._trouble_of(place.parent), contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        lines: list[str] = []
        written: list[InstanceRow] = []
        again = False
        failure: OSError | None = None
        for row in group:
            if stop.is_set() or stored.trouble:
                break
            try:
                name, replaced = self._write_file(directory, row)
            except SpoolFull as error:
                stored.trouble = str(error)
                continue
            except (SpoolError, ValueError) as error:  # also a value that no file can have
                stored.unreadable[row.ref.id] = str(error)
                if not isinstance(error, SpoolDamaged | ValueError):
                    stored.passing.add(row.ref.id)
                continue
            except OSError as error:
                failure = error
                break
            lines.append(json.dumps(describe(name, row)))
            written.append(row)
            again = again or replaced
        if written:
            self._write_lines(place, lines, again=again)
            stored.ids += [row.ref.id for row in written]
            stored.bytes += sum(row.ref.length for row in written)
        if failure is not None:
            with self._trouble_of(place):
                raise failure

    def _write_lines(self, place: Path, lines: Sequence[str], *, again: bool) -> None:
        """Names first, that of the manifest too, then what it says of them.  Raises as above."""
        directory = self._folder / place
        with self._trouble_of(place.parent):
            _sync_directory(directory.parent)
        _sync_directory(self._folder)
        with self._trouble_of(place), open_manifest(directory) as manifest:
            _sync_directory(directory)
            add_lines(manifest, lines, again=again)

    def _check_there(self) -> None:
        if not system.is_directory(self._folder):
            why = "no such folder; make it, or mount its file system"
            raise FileNotFoundError(errno.ENOENT, why, str(self._folder))

    @contextlib.contextmanager
    def _trouble_of(self, place: Path) -> Iterator[None]:
        """Raises _FolderError in place of an OSError that need not be the whole archive's."""
        try:
            yield
        except OSError as error:
            if error.errno in _OF_ALL:
                raise
            self._check_there()
            raise _FolderError(place, error) from error

    def _write_file(self, directory: Path, row: InstanceRow) -> tuple[str, bool]:
        """The name of the file, which is durable but for its entry in the directory, and whether
        it was there before."""
        ref = row.ref
        stem = f"{ref.id:016x}-{ref.crc:08x}"
        aside = directory / f".{stem}.part"
        try:
            with _created(aside) as fd:
                head = self._head(row)
                offset = system.write_all(fd, [head], 0)
                for piece in self._pieces(ref):
                    offset += system.write_all(fd, [piece], offset)
                    self.steps += 1
                system.sync_data(fd)
            self.steps += 1
            for n in itertools.count():
                target = directory / (f"{stem}-{n}.dcm" if n else f"{stem}.dcm")
                # Of an earlier try it is replaced: whether that was synced nobody knows.  What
                # another spool put there under the same number stays.
                there = system.exists(target)
                if not there or _same(aside, target):
                    aside.replace(target)
                    return target.name, there
        except BaseException:
            with contextlib.suppress(OSError):
                aside.unlink()
            raise
        raise AssertionError("there is always another name")

    def _pieces(self, ref: Ref) -> Iterator[memoryview]:
        reader = self._open_reader(ref)
        try:
            buffer = memoryview(bytearray(min(_PIECE, max(1, ref.length))))
            while reader.remaining:
                piece = buffer[: min(len(buffer), reader.remaining)]
                reader.read([piece])
                yield piece
        finally:
            reader.close()


def place_of(row: InstanceRow) -> Path:
    """The folder of an instance below the archive's: always the same for the same one."""
    day = moment(row.meta.received_at).strftime("%Y-%m-%d")
    return Path(day) / study_folder(row.meta.study_instance_uid)


def study_folder(study_instance_uid: str) -> str:
    """The name of a study's folder."""
    if not study_instance_uid:
        return NO_STUDY
    return blake2b(study_instance_uid.encode(errors="replace"), digest_size=8).hexdigest()


@contextlib.contextmanager
def _created(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        system.close(fd)


def _same(one: Path, two: Path) -> bool:
    """Whether two files have equal bytes.  Raises OSError."""
    if one.stat().st_size != two.stat().st_size:
        return False
    with one.open("rb") as left, two.open("rb") as right:
        while piece := left.read(_PIECE):
            if piece != right.read(_PIECE):
                return False
    return True


def _sync_directory(path: Path) -> None:
    try:
        system.sync_directory(path)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise  # else a file system that has no such thing, as some over the network
