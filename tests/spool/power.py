"""A disk that loses its power.

Owns a record of what the spool asked of the operating system, in order, and the making of what
a disk may hold when the power fails at any point of it:

- what was written before a sync of its file began is there when that sync has ended, and what
  was written through (O_DSYNC, RWF_DSYNC) when the call has ended;
- of what was written since, by O_DIRECT or not, each block of 4 KiB is there or not, in any of
  its versions, and sometimes torn: any of its sectors may be old; a block may be older or newer
  than its neighbour, whatever the order of writing;
- what a write left that failed, or a sync that failed did not write, the kernel goes on to show,
  and takes for written: later syncs do nothing for it;
- a name that was made, changed or removed in a directory is as it was or as it is until that
  directory was synced, directories among them.  A synced file may lack its name: POSIX promises
  no more.

What the spool asks and this does not know fails the test, loudly: at once where it can be seen,
and at the end of a recording in any case, when what is really on the disk is compared with what
was recorded.  The file system itself and SQLite are taken to be sound; the files of the index
are left alone.
"""

import functools
import io
import operator
import os
import random
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest

BLOCK = 4096
SECTOR = 512

# The functions as they are before anything stands in for them.
_REAL = {name: getattr(os, name) for name in dir(os)}
_OPEN = Path.open

_WRITES = os.O_WRONLY | os.O_RDWR
_THROUGH = os.O_DSYNC | os.O_SYNC
_OPEN_FLAGS = (
    *(os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_CLOEXEC, os.O_DIRECTORY),
    *(os.O_DIRECT, os.O_NOATIME, os.O_NOFOLLOW, os.O_LARGEFILE, os.O_NONBLOCK, os.O_NOCTTY),
    *(os.O_DSYNC, os.O_SYNC),
)
_KNOWN_OPEN = functools.reduce(operator.or_, _OPEN_FLAGS)
_WRITE_THROUGH = os.RWF_DSYNC | os.RWF_SYNC
_KNOWN_WRITE = _WRITE_THROUGH | os.RWF_HIPRI

# They change files, and nobody has said here what a power cut makes of it.
_UNKNOWN = (
    *("write", "writev", "ftruncate", "truncate", "link", "symlink", "sendfile", "splice"),
    *("copy_file_range", "dup", "dup2", "mknod", "mkfifo", "rmdir", "setxattr", "lseek"),
)


class Unmodelled(AssertionError):
    """The spool asks something of the system that the simulation does not know."""


@dataclass(slots=True)
class Write:
    """One change of a file's bytes; an allocation writes nothing at the new end."""

    at: int
    offset: int
    data: bytes
    through: int = 0
    """When it was durable by itself; 0 is never."""
    truncates: bool = False
    lost: bool = False
    """It failed, or a sync of it did: the kernel shows it, and no later sync makes it durable."""


@dataclass(eq=False)
class File:
    """One inode: the bytes at the start, and the writes since."""

    base: bytes = b""
    writes: list[Write] = field(default_factory=list)
    syncs: list[tuple[int, int]] = field(default_factory=list)
    """(time of the beginning, of the end)."""


class _Directory(File):
    """Stands where a name is that of a directory."""


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
        self.unmodelled: list[str] = []
        self.failing = 0
        """The thread whose write or sync fails now: it takes effect in the memory of the kernel."""
        self._lost_names: set[tuple[Path, int]] = set()
        """Changes of names whose sync failed, by path and time."""
        self._open: dict[int, File | Path] = {}
        self._through: set[int] = set()
        self._lock = threading.RLock()
        for path in root.rglob("*"):
            if self._ours(path):
                what = _Directory() if path.is_dir() else File(path.read_bytes())
                self.names[path] = Name([(0, what)])

    def now(self) -> int:
        """A new moment, later than all before."""
        with self._lock:
            self.time += 1
            return self.time

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Everything that is done to files inside is recorded.

        Raises Unmodelled at the end when something was done that was not.
        """
        with pytest.MonkeyPatch.context() as patch:
            for name in _MODELLED:
                patch.setattr(os, name, getattr(self, name))
            for name in _UNKNOWN:
                patch.setattr(os, name, self._refusing(name))
            for name in ("fsync", "fdatasync"):
                patch.setattr(os, name, self.sync)
            patch.setattr(os, "remove", self.unlink)
            patch.setattr(os, "replace", self.rename)
            patch.setattr(Path, "open", self._path_open())
            yield
        self._check_complete()

    def _ours(self, path: Path) -> bool:
        return self.root in path.parents and not path.name.startswith("index.sqlite")

    def _unknown(self, what: str) -> Unmodelled:
        self.unmodelled.append(what)  # whoever asks may swallow the error
        return Unmodelled(f"not modelled: {what}")

    def _refusing(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            for what in arguments[:2]:
                fd = isinstance(what, int) and what in self._open
                if fd or (isinstance(what, str | Path) and self._ours(Path(what))):
                    raise self._unknown(f"os.{name}{arguments}")
            return _REAL[name](*arguments, **more)

        return call

    def _check_complete(self) -> None:
        if self.unmodelled:
            raise Unmodelled(f"not modelled: {'; '.join(self.unmodelled[:5])}")
        for path, name in self.names.items():
            file = name.was[-1][1]
            there = path.exists()
            if there != (file is not None):
                raise Unmodelled(f"{path.name} {'appeared' if there else 'is gone'} unrecorded")
            if file is None or isinstance(file, _Directory):
                continue
            if path.read_bytes() != _all_of(file):
                raise Unmodelled(f"{path.name} was written unrecorded")
        for path in self.root.rglob("*"):
            if self._ours(path) and path not in self.names:
                raise Unmodelled(f"{path.name} appeared unrecorded")

    # -- names -------------------------------------------------------------------------------------

    def _note(self, path: Path, to: File | None) -> None:
        if self._ours(path):
            self.names.setdefault(path, Name([(0, None)])).was.append((self.now(), to))

    def mkdir(self, path: Any, *arguments: Any, **more: Any) -> None:
        with self._lock:
            _REAL["mkdir"](path, *arguments, **more)
            self._note(Path(path), _Directory())

    def unlink(self, path: Any, **more: Any) -> None:
        with self._lock:
            _REAL["unlink"](path, **more)
            self._note(Path(path), None)

    def rename(self, source: Any, target: Any, **more: Any) -> None:
        source, target = Path(source), Path(target)
        with self._lock:
            if self._ours(source) and source.is_dir():
                raise self._unknown(f"renaming the directory {source.name}")
            _REAL["rename"](source, target, **more)
            if self._ours(source):
                moved = self.names[source].was[-1][1]
                self._note(source, None)
                self._note(target, moved)

    # -- files -------------------------------------------------------------------------------------

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if isinstance(path, int) or dir_fd is not None:
            return int(_REAL["open"](path, flags, mode, dir_fd=dir_fd))
        path = Path(os.fsdecode(path))
        with self._lock:
            ours = self._ours(path)
            if ours and flags & ~_KNOWN_OPEN:
                raise self._unknown(f"opening {path.name} with flags {flags & ~_KNOWN_OPEN:#o}")
            existed = bool(_mode(path))
            fd: int = _REAL["open"](path, flags, mode)
            self._open.pop(fd, None)
            self._through.discard(fd)
            if path == self.root or (ours and stat.S_ISDIR(_mode(path))):
                self._open[fd] = path
            elif ours:
                self._open_file(fd, path, flags, existed=existed)
            return fd

    def _open_file(self, fd: int, path: Path, flags: int, *, existed: bool) -> None:
        if not existed:
            self._note(path, File())
        file = self.names[path].was[-1][1]
        assert file is not None
        self._open[fd] = file
        if flags & _THROUGH:
            self._through.add(fd)
        if existed and flags & os.O_TRUNC and flags & _WRITES:
            file.writes.append(Write(self.now(), 0, b"", truncates=True))

    def _path_open(self) -> Callable[..., IO[Any]]:
        def opening(path: Path, mode: str = "r", *arguments: Any, **more: Any) -> IO[Any]:
            if not set(mode) & set("wax+") or not self._ours(path):
                return _OPEN(path, mode, *arguments, **more)
            if mode not in ("w", "wb"):
                raise self._unknown(f"opening {path.name} with mode {mode}")
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            # By way of `os`: another seam may stand in front of this one.
            buffered = io.BufferedWriter(_Raw(os.open(path, flags, 0o666)))
            return buffered if mode == "wb" else io.TextIOWrapper(buffered)

        return opening

    def close(self, fd: int) -> None:
        with self._lock:
            self._open.pop(fd, None)
            self._through.discard(fd)
            _REAL["close"](fd)

    def pwritev(self, fd: int, buffers: Any, offset: int, flags: int = 0) -> int:
        with self._lock:
            file = self._open.get(fd)
            if file is not None and flags & ~_KNOWN_WRITE:
                raise self._unknown(f"pwritev with flags {flags & ~_KNOWN_WRITE:#x}")
            # Nothing needs to be really durable.
            count: int = _REAL["pwritev"](fd, buffers, offset, flags & ~_WRITE_THROUGH)
            if isinstance(file, File):
                data = b"".join(bytes(buffer) for buffer in buffers)[:count]
                write = Write(self.now(), offset, data, lost=self._fails())
                file.writes.append(write)
                if (flags & _WRITE_THROUGH or fd in self._through) and not write.lost:
                    write.through = self.now()
            return count

    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        return self.pwritev(fd, [data], offset)

    def posix_fallocate(self, fd: int, offset: int, length: int) -> None:
        with self._lock:
            _REAL["posix_fallocate"](fd, offset, length)
            file = self._open.get(fd)
            if isinstance(file, File):
                file.writes.append(Write(self.now(), offset + length, b""))

    def sync(self, fd: Any) -> None:
        """Nothing is really synced: what it means is worked out afterwards."""
        began = self.now()
        with self._lock:
            what = self._open.get(fd if isinstance(fd, int) else fd.fileno())
        ended = self.now()
        if self._fails():
            self._lose(what)
        elif isinstance(what, File):
            what.syncs.append((began, ended))
        elif what is not None:
            self.directory_syncs.setdefault(what, []).append((began, ended))

    def _fails(self) -> bool:
        return self.failing == threading.get_ident()

    def _lose(self, what: File | Path | None) -> None:
        """What was not durable yet, of a file or a directory whose sync fails."""
        if isinstance(what, File):
            durable = _durable(what.syncs, self.time)
            for write in what.writes:
                write.lost |= write.at > durable and not write.through
        elif what is not None:
            durable = _durable(self.directory_syncs.get(what, []), self.time)
            for path, name in self.names.items():
                if path.parent == what:
                    self._lost_names |= {(path, when) for when, _ in name.was if when > durable}

    # -- the cut -----------------------------------------------------------------------------------

    def cut(self, at: int, chance: random.Random, to: Path) -> None:
        """Make under `to` what the disk may hold when the power fails at the moment `at`."""
        to.mkdir(parents=True, exist_ok=True)
        for path, name in sorted(self.names.items()):
            file = self._stands_for(path, name, at, chance)
            made = to / path.relative_to(self.root)
            if file is None or not made.parent.is_dir():
                continue
            if isinstance(file, _Directory):
                made.mkdir()
            else:
                made.write_bytes(contents(file, at, chance))

    def _stands_for(self, path: Path, name: Name, at: int, chance: random.Random) -> File | None:
        durable = _durable(self.directory_syncs.get(path.parent, []), at)
        choices = []
        for when, what in name.was:
            if when <= durable and (path, when) not in self._lost_names:
                choices.clear()
            if when <= at:
                choices.append(what)
        return chance.choice(choices)


_MODELLED = (
    *("open", "close", "pwritev", "pwrite", "posix_fallocate"),
    *("mkdir", "unlink", "rename"),
)


class _Raw(io.RawIOBase):
    """What `Path.open` gives for writing."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._at = 0

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def write(self, data: Any) -> int:
        count = os.pwritev(self._fd, [data], self._at)
        self._at += count
        return count

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
            super().close()


def _durable(syncs: list[tuple[int, int]], at: int) -> int:
    """What was done up to this time was synced at the moment `at`."""
    return max((began for began, ended in syncs if ended <= at), default=0)


def _mode(path: Path) -> int:
    """0 when nothing is there; by no call that another seam stands in front of."""
    try:
        return int(_REAL["stat"](path).st_mode)
    except FileNotFoundError:
        return 0


def contents(file: File, at: int, chance: random.Random) -> bytes:
    """What may be read back of a file when the power fails at the moment `at`."""
    durable = _durable(file.syncs, at)
    data = bytearray(file.base)
    mood = chance.random()
    for write in file.writes:
        if write.at > at:
            break
        synced = write.at <= durable and not write.lost
        if synced or 0 < write.through <= at or mood > 0.9:
            _put(data, write)  # or the kernel had written back everything
        elif mood >= 0.1:  # below, it had written nothing back
            _put_some(data, write, chance)
    return bytes(data)


def _put_some(data: bytearray, write: Write, chance: random.Random) -> None:
    """What became of one write that nobody synced, block by block."""
    offset, piece = write.offset, write.data
    if not piece:
        if chance.random() < 0.5:
            _put(data, write)
        return
    end = offset + len(piece)
    for start in range(offset - offset % BLOCK, end, BLOCK):
        fate = chance.random()
        if fate < 0.45:
            continue
        step = BLOCK if fate > 0.55 else SECTOR
        for sector in range(start, start + BLOCK, step):
            first, last = max(sector, offset), min(sector + step, end)
            if first < last and (step == BLOCK or chance.random() < 0.5):
                _put(data, Write(0, first, piece[first - offset : last - offset]))


def _all_of(file: File) -> bytes:
    data = bytearray(file.base)
    for write in file.writes:
        _put(data, write)
    return bytes(data)


def _put(data: bytearray, write: Write) -> None:
    if write.truncates:
        del data[write.offset :]
    end = write.offset + len(write.data)
    if len(data) < end:
        data.extend(bytes(end - len(data)))
    data[write.offset : end] = write.data
