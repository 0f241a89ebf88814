"""A disk that loses its power.

Owns a record of what the spool asked of the operating system, in order, and the making of what
a disk may hold when the power fails at any point of it:

- what was written before a sync of its file began is there when that sync has ended;
- of what was written since, each block of 4 KiB is there or not, in any of its versions, and
  sometimes torn at a sector; a block may be older or newer than its neighbour, whatever the
  order of writing;
- a name that was made, changed or removed in a directory is as it was or as it is until that
  directory was synced.  A synced file may lack its name: POSIX promises no more.

The file system itself and SQLite are taken to be sound.
"""

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from router.spool import segments, spool, system, writer

BLOCK = 4096
SECTOR = 512


@dataclass
class File:
    """One inode: the bytes at the start, and the writes since."""

    base: bytes = b""
    writes: list[tuple[int, int, bytes]] = field(default_factory=list)
    """(time, offset, bytes); an allocation is a write of nothing at the new end."""
    syncs: list[tuple[int, int]] = field(default_factory=list)
    """(time of the beginning, of the end)."""


@dataclass
class Name:
    """What a path stood for, over time; None is nothing."""

    was: list[tuple[int, File | None]]


class Recorder:
    """Stands between the spool and the real files below `root`, from `recording` on."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.time = 0
        self.names: dict[Path, Name] = {}
        self.directory_syncs: dict[Path, list[tuple[int, int]]] = {}
        self.directories = [path for path in root.rglob("*") if path.is_dir()]
        self._open: dict[int, File | Path] = {}
        self._lock = threading.RLock()
        for path in root.rglob("*"):
            if path.is_file():
                self.names[path] = Name([(0, File(path.read_bytes()))])

    def now(self) -> int:
        """A new moment, later than all before."""
        with self._lock:
            self.time += 1
            return self.time

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Everything that the spool does inside is recorded."""
        with pytest.MonkeyPatch.context() as patch:
            fake = _Os(self)
            for module in (system, segments, writer, spool):
                patch.setattr(module, "os", fake)
            unlink = Path.unlink

            def unlinking(path: Path, missing_ok: bool = False) -> None:
                with self._lock:
                    unlink(path, missing_ok)
                    self._rename(path, None)

            patch.setattr(Path, "unlink", unlinking)
            yield

    def _rename(self, path: Path, to: File | None) -> None:
        if self.root in path.parents:
            self.names.setdefault(path, Name([(0, None)])).was.append((self.now(), to))

    # -- what the modules call ---------------------------------------------------------------------

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        path = Path(path)
        with self._lock:
            existed = path.exists()
            fd = os.open(path, flags, mode)
            if self.root in path.parents or path == self.root:
                if path.is_dir():
                    self._open[fd] = path
                else:
                    if not existed:
                        self._rename(path, File())
                    file = self.names[path].was[-1][1]
                    assert file is not None
                    self._open[fd] = file
            return fd

    def close(self, fd: int) -> None:
        with self._lock:
            self._open.pop(fd, None)
            os.close(fd)

    def pwritev(self, fd: int, buffers: Any, offset: int) -> int:
        with self._lock:
            count = os.pwritev(fd, buffers, offset)
            file = self._open.get(fd)
            if isinstance(file, File):
                data = b"".join(bytes(buffer) for buffer in buffers)[:count]
                file.writes.append((self.now(), offset, data))
            return count

    def posix_fallocate(self, fd: int, offset: int, length: int) -> None:
        with self._lock:
            os.posix_fallocate(fd, offset, length)
            file = self._open.get(fd)
            if isinstance(file, File):
                file.writes.append((self.now(), offset + length, b""))

    def sync(self, fd: int) -> None:
        """Nothing is really synced: what it means is worked out afterwards."""
        began = self.now()
        with self._lock:
            what = self._open.get(fd)
        ended = self.now()
        if isinstance(what, File):
            what.syncs.append((began, ended))
        elif what is not None:
            self.directory_syncs.setdefault(what, []).append((began, ended))

    # -- the cut -----------------------------------------------------------------------------------

    def cut(self, at: int, chance: random.Random, to: Path) -> None:
        """Make under `to` what the disk may hold when the power fails at the moment `at`."""
        for path in self.directories:
            (to / path.relative_to(self.root)).mkdir(parents=True, exist_ok=True)
        for path, name in sorted(self.names.items()):
            file = self._stands_for(path, name, at, chance)
            if file is not None:
                (to / path.relative_to(self.root)).write_bytes(contents(file, at, chance))

    def _stands_for(self, path: Path, name: Name, at: int, chance: random.Random) -> File | None:
        syncs = self.directory_syncs.get(path.parent, [])
        durable = max((began for began, ended in syncs if ended <= at), default=0)
        past = [what for when, what in name.was if when <= durable]
        since = [what for when, what in name.was if durable < when <= at]
        return chance.choice([past[-1], *since])


class _Os(ModuleType):
    """The `os` of the modules of the spool."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__("os")
        self.open = recorder.open
        self.close = recorder.close
        self.pwritev = recorder.pwritev
        self.posix_fallocate = recorder.posix_fallocate
        self.fsync = recorder.sync
        self.fdatasync = recorder.sync

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def contents(file: File, at: int, chance: random.Random) -> bytes:
    """What may be read back of a file when the power fails at the moment `at`."""
    durable = max((began for began, ended in file.syncs if ended <= at), default=0)
    data = bytearray(file.base)
    loose: list[tuple[int, bytes]] = []
    for when, offset, piece in file.writes:
        if when <= durable:
            _put(data, offset, piece)
        elif when <= at:
            loose.append((offset, piece))
    mood = chance.random()
    if mood < 0.1:
        return bytes(data)  # the kernel had written nothing back
    for offset, piece in loose:
        end = offset + len(piece)
        if mood > 0.9 or (not piece and chance.random() < 0.5):
            _put(data, offset, piece)  # the kernel had written back everything
            continue
        for start in range(offset - offset % BLOCK, end, BLOCK):
            fate = chance.random()
            if fate < 0.45:
                continue
            first, last = max(start, offset), min(start + BLOCK, end)
            if fate < 0.55:  # torn
                last = min(last, start + SECTOR * chance.randrange(1, 8))
            if first < last:
                _put(data, first, piece[first - offset : last - offset])
    return bytes(data)


def _put(data: bytearray, offset: int, piece: bytes) -> None:
    end = offset + len(piece)
    if len(data) < end:
        data.extend(bytes(end - len(data)))
    data[offset:end] = piece
