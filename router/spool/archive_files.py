"""The folder into which settled instances are moved as Part 10 files.

Owns the names there, the manifests that say which file is which, and that both are durable before
anybody is told.  Blocking; must not know the index, nor what a file begins with: it is given that.

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
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

from router.spool import system
from router.spool.errors import SpoolError, SpoolFull
from router.spool.index_types import InstanceRow
from router.spool.reader import Reader
from router.spool.record import Ref

MANIFEST = "manifest.jsonl"
NO_STUDY = "no-study"
_PIECE = 1 << 20
_LAST_MOMENT = 253402300799.0  # 9999-12-31


@dataclass(slots=True)
class Stored:
    """What came of a batch: ``ids`` are durably in the archive, ``bytes`` of data sets;
    ``unreadable`` cannot be read from the spool, and why; ``trouble`` is what kept the others."""

    ids: list[int] = field(default_factory=list)
    bytes: int = 0
    unreadable: dict[int, str] = field(default_factory=dict)
    trouble: str = ""


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
            try:
                self._write_group(place, group, stored, stop)
            except OSError as error:
                stored.trouble = f"{self._folder}: {error.strerror or error}"
                if error.errno in system.FULL:
                    stored.trouble += "; nothing leaves the spool until there is room"
                break
        return stored

    def _write_group(
        self, place: Path, group: Sequence[InstanceRow], stored: Stored, stop: threading.Event
    ) -> None:
        """The instances of one study; told of as soon as their manifest is durable."""
        if not self._folder.is_dir():
            why = "no such folder; make it, or mount its file system"
            raise FileNotFoundError(errno.ENOENT, why, str(self._folder))
        directory = self._folder / place
        for level in (directory.parent, directory):
            with contextlib.suppress(FileExistsError):
                level.mkdir(mode=0o700)
        lines: dict[str, str] = {}
        written: list[InstanceRow] = []
        failure: OSError | None = None
        for row in group:
            if stop.is_set() or stored.trouble:
                break
            try:
                name = self._write_file(directory, row)
            except SpoolFull as error:
                stored.trouble = str(error)
                continue
            except (SpoolError, ValueError) as error:  # also a value that no file can have
                stored.unreadable[row.ref.id] = str(error)
                continue
            except OSError as error:
                failure = error
                break
            lines[name] = json.dumps(describe(name, row))
            written.append(row)
        if written:
            # Names first, then the manifest that speaks of them.
            _sync_directory(directory)
            _add_lines(directory, lines)
            for level in (directory, directory.parent, self._folder):
                _sync_directory(level)
            stored.ids += [row.ref.id for row in written]
            stored.bytes += sum(row.ref.length for row in written)
        if failure is not None:
            raise failure

    def _write_file(self, directory: Path, row: InstanceRow) -> str:
        """The name of the file, which is durable but for its entry in the directory."""
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
                if not target.exists() or _same(aside, target):
                    aside.replace(target)
                    return target.name
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
    day = _moment(row.meta.received_at).strftime("%Y-%m-%d")
    return Path(day) / study_folder(row.meta.study_instance_uid)


def study_folder(study_instance_uid: str) -> str:
    """The name of a study's folder."""
    if not study_instance_uid:
        return NO_STUDY
    return blake2b(study_instance_uid.encode(errors="replace"), digest_size=8).hexdigest()


def describe(name: str, row: InstanceRow) -> dict[str, Any]:
    """A line of the manifest."""
    ref, meta = row.ref, row.meta
    return {
        "file": name,
        "instance": ref.id,
        "received_at": _iso(meta.received_at),
        "study_instance_uid": meta.study_instance_uid,
        "series_instance_uid": meta.series_instance_uid,
        "sop_instance_uid": meta.sop_instance_uid,
        "sop_class_uid": meta.sop_class_uid,
        "transfer_syntax_uid": meta.transfer_syntax_uid,
        "modality": meta.modality,
        "bytes": ref.length,
        "crc32": f"{ref.crc:08x}",
        "calling_ae": meta.calling_ae,
        "called_ae": meta.called_ae,
        "source": meta.source,
        "remote": meta.remote,
        "association": meta.association,
        "rules_version": meta.rules_version,
        "tags": list(meta.tags),
        "deliveries": [
            {
                "destination": delivery.destination,
                "state": delivery.state.name.lower(),
                "at": _iso(delivery.updated_at),
                "reason": delivery.reason,
            }
            for delivery in row.deliveries
        ],
    }


def _iso(moment: float) -> str:
    return _moment(moment).isoformat(timespec="milliseconds")


def _moment(seconds: float) -> datetime:
    """Of a clock that was far off too."""
    return datetime.fromtimestamp(min(max(seconds, 0.0), _LAST_MOMENT), UTC)


def _add_lines(directory: Path, lines: dict[str, str]) -> None:
    """Write the manifest anew, with what it had: of an appended one the end could be lost."""
    manifest = directory / MANIFEST
    kept: list[str] = []
    with contextlib.suppress(FileNotFoundError):
        kept = manifest.read_text(encoding="utf-8", errors="replace").splitlines()
    kept = [line for line in kept if line and _file_of(line) not in lines]
    aside = directory / f".{MANIFEST}.part"
    with _created(aside) as fd:
        system.write_all(fd, ["\n".join([*kept, *lines.values(), ""]).encode()], 0)
        system.sync_data(fd)
    aside.replace(manifest)


def _file_of(line: str) -> str | None:
    """What a line is about; None for one that is not ours, which stays as it is."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry.get("file") if isinstance(entry, dict) else None


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
