"""A disk and an SQLite that fail at a chosen call.

Owns the seam: every call that reaches below a directory through `os`, `io.open`, `fcntl.flock` or
an SQLite connection is named, counted and, when its turn has come, made to fail.  A call is named
by what is done, to which kind of file, and in which phase of the scenario, so that the names
outlive a change of how the spool goes about it.
"""

import errno
import fcntl
import functools
import io
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import pytest

from router.spool import sqlite

CHANGING = frozenset(
    {"write", "write and sync", "sync", "create", "allocate", "remove", "rename", "mkdir"}
)
"""What a disk that takes nothing any more refuses; it may still be read."""
_TABLE = re.compile(r"\b(?:INTO|UPDATE|FROM|INDEX|TABLE)\s+(?:IF NOT EXISTS\s+)?\"?([a-z]\w*)")


@dataclass(frozen=True, order=True)
class Call:
    """One call of a scenario: the ``number``-th that does ``what`` to ``where`` in ``phase``."""

    phase: str
    what: str
    where: str
    number: int

    def __str__(self) -> str:
        return f"{self.phase}: {self.what} {self.where} #{self.number}"


@dataclass(frozen=True)
class Fault:
    """What is to go wrong.

    ``code`` is an errno or, for SQLite, an extended result code.  ``lasting``: from that call on
    every call that changes something fails, until `Seam.mend`.  ``late``: the call does its work
    and then says that it failed.  ``half``: a write leaves half of its bytes before it fails.
    """

    at: Call
    code: int = errno.EIO
    lasting: bool = False
    late: bool = False
    half: bool = False


class Seam:
    """Stands between the code and the files below ``root`` inside `watching`."""

    short_writes = False
    """Every write takes but half of what it is given, in whole blocks where it must."""
    dead = False
    """What is written now is no more: an index that is closed leaves its files as they are."""

    def __init__(self, root: Path, fault: Fault | None = None) -> None:
        self.root = str(root)
        self.phase = ""
        self.calls: list[Call] = []
        self.fault = fault
        self.struck = False
        """The fault happened."""
        self.on_turn: Callable[[str, str], None] = lambda what, where: None
        """Called in front of every call, on its thread; may wait."""
        self._broken = False
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._lock = threading.Lock()

    def mend(self) -> None:
        """From now on nothing fails."""
        self.fault = None
        self._broken = False

    # -- the turn of a call --------------------------------------------------------------------

    def _turn(self, what: str, where: str) -> Fault | None:
        self.on_turn(what, where)
        with self._lock:
            key = (self.phase, what, where)
            self._counts[key] += 1
            call = Call(*key, self._counts[key])
            self.calls.append(call)
            fault = self.fault
            if fault is None:
                return None
            if self._broken:
                return fault if what in CHANGING else None
            if call != fault.at:
                return None
            self.struck = True
            self._broken = fault.lasting
            return fault

    def guard(self, what: str, where: str, real: Callable[[], Any]) -> Any:
        """Do ``real``, unless its turn to fail has come.  Raises OSError."""
        fault = self._turn(what, where)
        if fault is None:
            return real()
        if fault.late or what == "close":  # a descriptor is gone whatever close(2) says
            real()
        raise OSError(fault.code, os.strerror(fault.code))

    def statement(self, connection: "_Connection", sql: str, real: Callable[[], Any]) -> Any:
        """The same for a statement.  Raises apsw.Error."""
        fault = self._turn("execute", label(sql))
        if fault is None:
            return real()
        if fault.late:
            real()
        if fault.code & 0xFF in (apsw.SQLITE_FULL, apsw.SQLITE_IOERR):
            connection.roll_back()  # SQLite does so by itself after these
        raise sqlite_error(fault.code)

    def where(self, target: Any) -> str | None:
        """The kind of a file below the root, by path or descriptor; None for any other."""
        if isinstance(target, int):
            try:
                path = os.readlink(f"/proc/self/fd/{target}")  # noqa: PTH115 - it may be no path
            except OSError:
                return None
        else:
            path = os.fsdecode(target)
        path = path.removesuffix(" (deleted)")
        if path != self.root and not path.startswith(self.root + "/"):
            return None
        return kind_of(path[len(self.root) :].lstrip("/"))

    # -- patching ------------------------------------------------------------------------------

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Everything below the root passes here meanwhile."""
        with pytest.MonkeyPatch.context() as patch:
            for name, what in _PLAIN.items():
                patch.setattr(os, name, self._wrapped(getattr(os, name), what))
            patch.setattr(os, "open", self._opening(os.open))
            patch.setattr(os, "pwritev", self._writing(os.pwritev, vector=True))
            patch.setattr(os, "pwrite", self._writing(os.pwrite, vector=False))
            patch.setattr(fcntl, "flock", self._wrapped(fcntl.flock, "lock"))
            patch.setattr(io, "open", self._file_opening(io.open))
            patch.setattr(sqlite, "connect", self._connecting(sqlite.connect))
            yield

    def _wrapped(self, real: Callable[..., Any], what: str) -> Callable[..., Any]:
        def call(target: Any = ".", *more: Any, **named: Any) -> Any:
            where = self.where(target)
            if where is None:
                return real(target, *more, **named)
            return self.guard(what, where, lambda: real(target, *more, **named))

        return call

    def _opening(self, real: Callable[..., int]) -> Callable[..., int]:
        def call(path: Any, flags: int, mode: int = 0o777, **named: Any) -> int:
            where = self.where(path)
            if where is None:
                return real(path, flags, mode, **named)
            what = "create" if flags & os.O_CREAT else "open"
            fault = self._turn(what, where)
            if fault is None:
                return real(path, flags, mode, **named)
            raise OSError(fault.code, os.strerror(fault.code), str(path))

        return call

    def _writing(self, real: Callable[..., int], *, vector: bool) -> Callable[..., int]:
        def call(fd: int, data: Any, offset: int, flags: int = 0) -> int:
            where = self.where(fd)
            more = (flags,) if vector else ()
            if where is None:
                return real(fd, data, offset, *more)
            durably = flags & os.RWF_DSYNC or fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DSYNC
            fault = self._turn("write and sync" if durably else "write", where)
            if fault is None and not self.short_writes:
                return real(fd, data, offset, *more)
            if vector and (fault is None or fault.half):
                part = _half(data, fd)
                if fault is None or part:
                    count = real(fd, part or data, offset, *more)
                    if fault is None:
                        return count
            elif fault is None or fault.late:
                count = real(fd, data, offset, *more)
                if fault is None:
                    return count
            raise OSError(fault.code, os.strerror(fault.code))

        return call

    def _file_opening(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
            where = None if isinstance(path, int) else self.where(path)
            if where is None:
                return real(path, mode, *more, **named)
            what = "create" if mode[0] in "wax" else "open"
            file = self.guard(what, where, lambda: real(path, mode, *more, **named))
            return _File(file, self, where)

        return call

    def _connecting(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, **named: Any) -> Any:
            where = self.where(path)
            if where is None:
                return real(path, **named)
            fault = self._turn("connect", where)
            if fault is not None:
                raise sqlite_error(apsw.SQLITE_CANTOPEN)
            connection = real(path, kind=_Connection, **named)
            connection.seam = self
            return connection

        return call


class _File:
    """A file object of Python whose reads and writes pass the seam."""

    def __init__(self, file: Any, seam: Seam, where: str) -> None:
        self._file = file
        self._seam = seam
        self._where = where

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, *size: int) -> Any:
        return self._seam.guard("read", self._where, lambda: self._file.read(*size))

    def write(self, data: Any) -> Any:
        return self._seam.guard("write", self._where, lambda: self._file.write(data))


class _Connection(apsw.Connection):
    seam: Seam | None = None

    def execute(self, sql: str, *parameters: Any) -> apsw.Cursor:
        run = super().execute
        if self.seam is None:
            return run(sql, *parameters)
        return self.seam.statement(self, sql, lambda: run(sql, *parameters))  # type: ignore[no-any-return]

    def close(self, force: bool = False) -> None:
        if self.seam is not None and self.seam.dead:
            self.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        super().close(force)

    def roll_back(self) -> None:
        if self.in_transaction:
            super().execute("ROLLBACK")


def _half(data: Any, fd: int) -> list[memoryview]:
    """The first half of some buffers; whole blocks where the descriptor wants them."""
    left = sum(map(len, data)) // 2
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
        left -= left % 4096
    part = []
    for piece in data:
        part.append(memoryview(piece)[:left])
        left -= len(part[-1])
    return [piece for piece in part if len(piece)]


_PLAIN = {
    "fdatasync": "sync",
    "fsync": "sync",
    "posix_fallocate": "allocate",
    "unlink": "remove",
    "remove": "remove",
    "rename": "rename",
    "replace": "rename",
    "mkdir": "mkdir",
    "statvfs": "statvfs",
    "pread": "read",
    "preadv": "read",
    "stat": "stat",
    "scandir": "list",
    "listdir": "list",
    "close": "close",
}


def kind_of(path: str) -> str:
    """What a file below the data directory is for."""
    if path.endswith(".seg"):
        return "a segment"
    if path.startswith("spool/large/"):
        return "a large file"
    if path.startswith("spool/format"):
        return "spool/format"
    if path.startswith("index.sqlite"):
        return {"-wal": "the index's log", "-damaged": "the index's mark"}.get(
            path[len("index.sqlite") :], "the index"
        )
    return path or "data_dir"


@functools.cache
def label(sql: str) -> str:
    """A statement in two or three words."""
    text = " ".join(sql.split())
    if text.startswith(("PRAGMA", "BEGIN")):
        return text.partition("=")[0].strip()
    verb = next((v for v in ("INSERT", "UPDATE", "DELETE", "CREATE", "ALTER") if v in text), None)
    if verb is None:
        verb = text.split(None, 1)[0] if not text.startswith("WITH") else "SELECT"
    table = _TABLE.search(text)
    return f"{verb} {table.group(1)}" if table else verb


def sqlite_error(code: int) -> apsw.Error:
    """As apsw raises it for an extended result code."""
    error = type(apsw.exception_for(code))(_TEXTS[code & 0xFF])
    assert isinstance(error, apsw.Error)
    error.result, error.extendedresult = code & 0xFF, code
    return error


_TEXTS = {
    apsw.SQLITE_BUSY: "database is locked",
    apsw.SQLITE_IOERR: "disk I/O error",
    apsw.SQLITE_FULL: "database or disk is full",
    apsw.SQLITE_READONLY: "attempt to write a readonly database",
    apsw.SQLITE_CORRUPT: "database disk image is malformed",
    apsw.SQLITE_CANTOPEN: "unable to open database file",
}
