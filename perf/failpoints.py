"""Exact moments at which a gateway kills itself, put into it from outside.

Owns the places (`SITES`), sorted by what the gateway is doing there, and the wrapping of the
functions that they name.  `arm` runs in the process that is to die, before the product's own
``main``; the product knows nothing of it, and without `arm` nothing is different.

A place is told by the name of a function of the product and by where in it: ``before`` and
``after`` the call, ``inside`` at a system call or a database call that it makes, or ``torn``: one
of its writes reaches the file in part only.
"""

import contextlib
import functools
import importlib
import inspect
import itertools
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

BEFORE, INSIDE, TORN, AFTER = "before", "inside", "torn", "after"
_SYSTEM_MODULES = frozenset({"posix", "fcntl", "apsw"})
# What O_DIRECT writes in; a torn write must stay one that the kernel takes.
_BLOCK = 4096

Function = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Site:
    """A function (``module:Class.method``) and where in it to die.

    ``calls``: at one of its first so many calls.  ``steps``: at one of so many system calls or
    writes from there on.  ``thread``: counts only calls from threads whose name starts so.
    """

    target: str
    where: tuple[str, ...] = (BEFORE, AFTER)
    calls: int = 1
    steps: int = 1
    thread: str = ""


@dataclass(frozen=True, slots=True)
class Failpoint:
    """One moment: the ``call``-th call, and in it the ``step``-th step; both from 1."""

    target: str
    where: str
    call: int = 1
    step: int = 1
    thread: str = ""


_ALL = (BEFORE, INSIDE, TORN, AFTER)
_NOT_TORN = (BEFORE, INSIDE, AFTER)
# The functions of `router.spool.system` are those of which its tests make a disk that fails.
SITES: dict[str, tuple[Site, ...]] = {
    "starting": (
        Site("router.spool.spool:Spool.open", _ALL, steps=40),
        Site("router.spool.segments:SegmentTable.load", _NOT_TORN, steps=40),
        Site("router.spool.index:Index.open", _NOT_TORN, steps=40),
        Site("router.opening:rebuild", _NOT_TORN, steps=60),
        Site("router.spool.spool:Spool.start", _NOT_TORN, steps=10),
        Site("router.spool.keeper:Keeper.sweep", _NOT_TORN, steps=4),
        Site("router.net.listener:Listeners.open"),
    ),
    "receiving": (
        Site("router.spool.writer:Writer.append", calls=200),
        Site("router.spool.writer:Writer.commit", calls=60),
        Site("router.spool.system:write_all", _ALL, calls=6, thread="spool-large"),
        Site("router.spool.system:sync_data", calls=4, thread="spool-large"),
    ),
    "committing": (
        Site("router.spool.system:write_all", _ALL, calls=60, thread="spool-commit"),
        Site("router.spool.system:sync_data", calls=60, thread="spool-commit"),
        Site("router.ingest.feed:IndexFeed.add", calls=100),
        Site("router.observe.counters:Counters.on_committed", calls=60),
    ),
    "beginning a segment": (
        Site("router.spool.segments:SegmentTable.activate", _ALL, calls=3, steps=8),
        Site("router.spool.roll:Roll.note", _ALL, calls=3, steps=3),
    ),
    "growing the pool": (
        # Only where it makes one: most calls find enough of them.
        Site("router.spool.segments:SegmentTable.refill", (INSIDE, TORN), steps=13),
    ),
    "recycling a segment": (
        Site("router.spool.segments:SegmentTable.recycle", (INSIDE, TORN), steps=8),
        Site("router.spool.segments:SegmentTable.recycle", calls=2),
        Site("router.spool.index:Index.barrier", _NOT_TORN, steps=3),
        Site("router.spool.spool:Spool.remove_large", _NOT_TORN, calls=3, steps=4),
    ),
    "purging": (
        Site("router.spool.keeper:Keeper.step", calls=2),
        Site("router.spool.index:Index.purge", _NOT_TORN, calls=2, steps=40),
        Site("router.spool.index_keep:Keep._delete", _NOT_TORN, calls=2, steps=30),
    ),
    "archiving": (
        Site("router.spool.archive_files:ArchiveFolder._write_file", _ALL, calls=60, steps=40),
        # After the files and before the lines, and once the lines are durable.
        Site("router.spool.archive_files:ArchiveFolder._write_lines", _NOT_TORN, calls=8, steps=20),
        Site("router.spool.archive_files:add_lines", _ALL, calls=8, steps=3),
        # The mark that they are archived is that they are purged.
        Site("router.spool.keeper:Keeper.archived", _NOT_TORN, calls=2, steps=40),
    ),
    "compacting": (
        Site("router.spool.spool:Spool.relocate", _NOT_TORN, steps=40),
        Site("router.spool.index:Index.move", _NOT_TORN, steps=30),
        Site("router.spool.moves:Moves.add", calls=10),
    ),
    "indexing": (Site("router.spool.index:Index.add", _NOT_TORN, calls=12, steps=60),),
    "sending": (
        Site("router.net.requestor:Requestor.store", calls=80),
        Site("router.spool.reader:Reader.try_read", calls=80),
        Site("router.forward.clerk:Clerk.attempt", calls=80),
        Site("router.forward.clerk:Clerk.answered", calls=80),
    ),
    "settling": (Site("router.spool.index:Index.settle", _NOT_TORN, calls=12, steps=60),),
    "asking for commitment": (
        Site("router.spool.index_commitments:Commitments.ask", _NOT_TORN, calls=3, steps=40),
        Site("router.spool.index_commitments:Commitments.ask_again", (INSIDE,), steps=30),
        Site("router.commitment.scu:Asker._request", calls=3),
        Site("router.commitment.scu:Asker._perform", calls=3),
    ),
    "taking a report": (
        Site("router.commitment.reports:Reports.take", calls=3),
        Site("router.spool.index_commitments:Commitments.answer", _NOT_TORN, calls=3, steps=40),
        Site("router.commitment.reports:Reports.tell", calls=3),
    ),
    "reloading": (
        Site("router.reload:Reloader._reload"),
        Site("router.ingest.storage:StorageService.apply"),
        Site("router.forward.forwarder:Forwarder.configure"),
        Site("router.spool.spool:Spool.apply"),
    ),
    "stopping": (
        Site("router.app:Gateway.stop"),
        Site("router.net.listener:Listeners.stop"),
        Site("router.forward.forwarder:Forwarder.stop"),
        Site("router.ingest.feed:IndexFeed.stop"),
        Site("router.spool.spool:Spool.close", _NOT_TORN, steps=8),
        Site("router.spool.index:Index.close", _NOT_TORN, steps=6),
    ),
}


def choose(phase: str, dice: random.Random) -> Failpoint:
    """A moment of a phase, each of its functions as likely as the others."""
    site = dice.choice(SITES[phase])
    where = dice.choice(site.where)
    return Failpoint(
        site.target,
        where,
        dice.randint(1, site.calls),
        dice.randint(1, site.steps) if where in (INSIDE, TORN) else 1,
        site.thread,
    )


def resolve(target: str) -> tuple[Any, str]:
    """What holds the function, a module or a class, and its name there.

    Raises ImportError or AttributeError when the product has no such function any more.
    """
    module, _, path = target.partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    if not callable(getattr(owner, name)):
        raise AttributeError(f"{target} is not a function")
    return owner, name


def arm(point: Failpoint, die: Callable[[], object] | None = None) -> None:
    """From now on this process dies at ``point``; ``die`` is for tests."""
    owner, name = resolve(point.target)
    raw = inspect.getattr_static(owner, name)
    function = raw.__func__ if isinstance(raw, staticmethod | classmethod) else raw
    wrapped = _Trap(point, die or kill_myself).around(function)
    setattr(owner, name, type(raw)(wrapped) if function is not raw else wrapped)


def kill_myself() -> None:
    """SIGKILL; does not return."""
    os.kill(os.getpid(), signal.SIGKILL)


class _Trap:
    """Counts the calls, and the steps in them, until its moment has come."""

    def __init__(self, point: Failpoint, die: Callable[[], object]) -> None:
        self._point = point
        self._die = die
        self._calls = itertools.count(1)
        self._left = point.step
        self._tearing = threading.local()

    def around(self, function: Function) -> Function:
        """The function with the trap in it."""
        if inspect.iscoroutinefunction(function):
            return self._around_coroutine(function)
        if self._point.where == TORN:
            os.pwritev = self._torn_pwritev(os.pwritev)

        @functools.wraps(function)
        def trapped(*args: Any, **kwargs: Any) -> Any:
            where = self._reached()
            if where == BEFORE:
                self._die()
            inside = {INSIDE: self._profiled, TORN: self._torn}.get(where, contextlib.nullcontext)
            with inside():
                result = function(*args, **kwargs)
            if where == AFTER:
                self._die()
            return result

        return trapped

    def _around_coroutine(self, function: Function) -> Function:
        @functools.wraps(function)
        async def trapped(*args: Any, **kwargs: Any) -> Any:
            where = self._reached()
            if where == BEFORE:
                self._die()
            result = await function(*args, **kwargs)
            if where == AFTER:
                self._die()
            return result

        return trapped

    def _reached(self) -> str:
        """Where to die in this call, "" when not in it."""
        point = self._point
        if not threading.current_thread().name.startswith(point.thread):
            return ""
        number = next(self._calls)
        # Steps are counted on through the calls that follow: this one may make too few.
        many = point.where in (INSIDE, TORN)
        return point.where if number == point.call or (many and number > point.call) else ""

    @contextlib.contextmanager
    def _profiled(self) -> Any:
        def count(_: FrameType, event: str, function: Any) -> None:
            if event in ("c_call", "c_return") and _module(function) in _SYSTEM_MODULES:
                self._left -= 1
                if self._left == 0:
                    self._die()

        sys.setprofile(count)
        try:
            yield
        finally:
            sys.setprofile(None)

    @contextlib.contextmanager
    def _torn(self) -> Any:
        self._tearing.now = True
        try:
            yield
        finally:
            self._tearing.now = False

    def _torn_pwritev(self, pwritev: Function) -> Function:
        def torn(fd: int, buffers: Sequence[Any], offset: int, *flags: int) -> int:
            if getattr(self._tearing, "now", False):
                self._left -= 1
                if self._left == 0:
                    pwritev(fd, _half(buffers), offset, *flags)
                    self._die()
            return int(pwritev(fd, buffers, offset, *flags))

        return torn


def _module(function: Any) -> str:
    """Where a C function comes from; a method of a connection, from apsw."""
    owner = getattr(function, "__self__", None)
    if owner is None or inspect.ismodule(owner):
        return getattr(function, "__module__", None) or ""
    return type(owner).__module__


def _half(buffers: Sequence[Any]) -> list[memoryview]:
    """The first half of it, cut where the blocks of a disk end if it is longer than one."""
    total = sum(len(b) for b in buffers)
    left = total // 2
    if total > _BLOCK:
        left = max(_BLOCK, left & -_BLOCK)
    half = []
    for buffer in buffers:
        piece = memoryview(buffer)[: max(0, left)]
        left -= len(piece)
        half.append(piece)
    return [piece for piece in half if len(piece)]
