"""Calls of a start, and of the life behind it, that fail: by the names of what is wrong then.

Owns which calls those are, and what a process that is killed does no more.
"""

import errno
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import apsw

from tests.spool.faults import CHANGING, Call, Fault, Seam
from tests.spool.power import Recorder

_CHANGES = ("INSERT", "UPDATE", "DELETE", "CREATE", "COMMIT")

_SHOWN = ("write", "write and sync", "sync")
"""What the kernel takes, and then cannot bring to the disk."""

Picked = Callable[[str, str], int]
"""The errno with which a call fails, 0 when it does not."""


class FailingSeam(Seam):
    """Fails the calls that are picked, from the ``first`` on: ``count`` of them.

    After a kill nothing is done any more but that descriptors are closed.
    """

    def __init__(self, disk: Recorder, picked: Picked, first: int, count: int) -> None:
        super().__init__(disk.root)
        self._disk = disk
        self._picked = picked
        self._first = first
        self._left = count
        self.kills = False
        self._looker = 0

    @contextmanager
    def looking(self) -> Iterator[None]:
        """What this thread does meanwhile is of the test."""
        self._looker = threading.get_ident()
        try:
            yield
        finally:
            self._looker = 0

    @property
    def dead(self) -> bool:
        return self.kills and self.struck

    def mend(self) -> None:
        if not self.dead:
            self._left = 0

    def _turn(self, what: str, where: str) -> Fault | None:
        if threading.get_ident() == self._looker:
            return None
        with self._lock:
            if self._disk.failing == threading.get_ident():
                self._disk.failing = 0
            if self.dead:
                code = errno.EIO if what != "close" else 0
            else:
                code = self._picked(what, where) if self._left else 0
                if code and self._first:
                    self._first -= 1
                    return None
                self._left -= bool(code)
            if not code:
                return None
            self.struck = True
            if what == "execute":
                code = _sqlite_code(code)
            late = what in _SHOWN and code == errno.EIO and not self.dead
            if late:
                self._disk.failing = threading.get_ident()
            return Fault(Call("", what, where, 0), code, late=late)


def _sqlite_code(code: int) -> int:
    if code == errno.ENOSPC:
        return apsw.SQLITE_FULL
    return apsw.SQLITE_READONLY if code == errno.EROFS else apsw.SQLITE_IOERR


@dataclass(frozen=True)
class Failing:
    """Calls of one life that fail: ``picked`` by what is done to which kind of file."""

    picked: Picked
    skip: int = 0
    """At most so many are let pass first."""
    count: int = 1
    kills: bool = False
    cuts: bool = False
    """And then the power is cut."""


def _any(code: int) -> Picked:
    return lambda what, where: code if what != "close" else 0


def _of(what: str, where: str, code: int = errno.EIO) -> Picked:
    names = what.split("|")
    return lambda done, to: code if done in names and to == where else 0


def _changing(code: int) -> Picked:
    def picked(what: str, where: str) -> int:
        changes = what in CHANGING or (what == "execute" and where.startswith(_CHANGES))
        return code if changes else 0

    return picked


def _descriptors(what: str, where: str) -> int:
    return errno.EMFILE if what in ("open", "create", "connect", "list") else 0


MANY_CALLS = 1 << 30
IN_LIFE: dict[str, Failing] = {
    "nothing": Failing(lambda what, where: 0),
    "one call says EIO": Failing(_any(errno.EIO), 300),
    "one call says ENOSPC": Failing(_changing(errno.ENOSPC), 100),
    "one sync fails": Failing(
        lambda what, where: errno.EIO if what in ("sync", "write and sync") else 0, 25
    ),
    "a segment cannot be written": Failing(
        lambda what, where: errno.EIO if what in _SHOWN and where == "a segment" else 0, 8, 3
    ),
    "a full disk": Failing(_changing(errno.ENOSPC), 60, MANY_CALLS),
    "a file system that is read-only": Failing(_changing(errno.EROFS), 60, MANY_CALLS),
    "no descriptors": Failing(_descriptors, 40, MANY_CALLS),
    "a segment that may not be opened": Failing(_of("open", "a segment", errno.EACCES), 8),
    "a segment with a bad block": Failing(_of("read", "a segment"), 30, 3),
    "segments with bad blocks": Failing(_of("read", "a segment"), 8, MANY_CALLS),
    "the roll cannot be read": Failing(_of("open|read", "spool/segments.roll"), 1),
    "the roll cannot be written": Failing(
        lambda what, where: (
            errno.EIO if what in CHANGING and where.startswith("spool/segments.roll") else 0
        ),
        2,
        MANY_CALLS,
    ),
    "the numbers cannot be read": Failing(_of("open|read", "spool/numbers"), 1),
    "what is unread cannot be read": Failing(_of("open|read", "spool/unread"), 1),
    "what is unread cannot be noted": Failing(
        lambda what, where: errno.EIO if where.startswith("spool/unread") else 0, 3, MANY_CALLS
    ),
    "a large file cannot be read": Failing(_of("open|read|stat", "a large file"), 6),
    "a directory cannot be listed": Failing(
        lambda what, where: errno.EIO if what == "list" else 0, 3
    ),
    "a kill": Failing(_any(errno.EIO), 400, kills=True),
    "a power cut": Failing(_any(errno.EIO), 400, kills=True, cuts=True),
}
