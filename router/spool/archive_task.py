"""Moves what is settled and old enough to the archive, beside everything else.

Owns when a batch is taken, the thread that writes it, and the wait after a failure.  An archive
that is full, missing or does not answer holds up nothing but this; what could not be written stays
in the spool.  Must not know what is in a file, nor how anything is purged.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Protocol

from router.spool.archive_files import ArchiveFolder, Stored
from router.spool.archive_later import Place, PutBack
from router.spool.index_types import InstanceRow, Purged
from router.spool.reader import Reader
from router.spool.record import Ref
from router.spool.settings import ArchiveSettings

INTERVAL = 1.0
LONGEST_WAIT = 60.0
_LAST_BATCH = 5.0
"""Seconds for a file that is being written when the gateway stops."""
_MAX_UNREADABLE = 10_000
_TRY_AGAIN = 60.0
"""Seconds after which one is read again that the disk did not give."""
_BETWEEN = 0.05
"""Seconds between pages of which nothing can be written now: the index has other things to do."""
_PATIENCE = 60.0
"""Seconds in which the folder gets nothing done until that is told."""

RunOnIndex = Callable[..., Awaitable[Any]]


class ArchiveKeeper(Protocol):
    """What is needed of the keeper, on the index's thread."""

    def to_archive(
        self, now: float, exclude: Collection[int] = (), after: Place | None = None
    ) -> Sequence[InstanceRow]:
        """Some whose time in the spool is over, oldest first, of those that come after one."""

    def archived(self, ids: Collection[int]) -> Purged:
        """Purges them."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What one batch came to, or why there was none.  ``unreadable`` are
    why some cannot be read from the spool: they stay there, and each is told once.  ``put_back``
    are why some folders cannot be written to, each told once; ``behind`` is how many there are now,
    and ``back`` are those that are no more among them."""

    count: int = 0
    bytes: int = 0
    trouble: str = ""
    unreadable: tuple[str, ...] = ()
    put_back: tuple[str, ...] = ()
    back: tuple[str, ...] = ()
    behind: int = 0


class Archivist:
    """``settings`` gives those in force, None without an archive; ``clock`` the time, in seconds
    since the epoch, ``elapsed`` one that is never set; ``tell`` hears of every batch."""

    def __init__(
        self,
        keeper: ArchiveKeeper,
        run: RunOnIndex,
        *,
        settings: Callable[[], ArchiveSettings | None],
        open_reader: Callable[[Ref], Reader],
        head: Callable[[InstanceRow], bytes],
        clock: Callable[[], float],
        tell: Callable[[Moved], None],
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keeper = keeper
        self._run = run
        self._settings = settings
        self._open_reader = open_reader
        self._head = head
        self._clock = clock
        self._tell = tell
        self._elapsed = elapsed
        self._put_back = PutBack()
        self._unreadable: dict[int, float] = {}
        """By id, from when on it may be tried again, in seconds of ``elapsed``."""
        self._folder = ""
        self._stop = threading.Event()

    async def run(self) -> None:
        """Until it is cancelled."""
        wait = INTERVAL
        while True:
            moved = await self.once()
            if moved is not None:
                self._tell(moved)
            if moved is not None and moved.trouble:
                await asyncio.sleep(wait)
                wait = min(LONGEST_WAIT, wait * 2)
                continue
            wait = INTERVAL
            if moved is None or not moved.count:
                await asyncio.sleep(INTERVAL)

    async def once(self) -> Moved | None:
        """One batch; None when there is no archive, or nothing for it."""
        settings = self._settings()
        if settings is None:
            return None
        if settings.folder != self._folder:
            self._folder = settings.folder
            self._unreadable.clear()
            self._put_back = PutBack()
        try:
            batch = await self._next()
            if not batch:
                back = self._put_back.taken_back()
                return self._moved(Stored(), back=back) if back else None
            folder = ArchiveFolder(Path(settings.folder), self._open_reader, self._head)
            stored = await self._in_thread(folder, batch)
            if stored.ids:
                await self._run(self._keeper.archived, stored.ids)
            told = self._put_back.tried(batch, stored, self._elapsed())
        except Exception as error:  # noqa: BLE001 - it ends with the gateway, not before
            self._put_back.failed()
            return Moved(trouble=str(error) or repr(error), behind=len(self._put_back))
        stored.unreadable = self._first_met(stored)
        while len(self._unreadable) > _MAX_UNREADABLE:
            del self._unreadable[next(iter(self._unreadable))]
        return self._moved(stored, told, self._put_back.taken_back())

    async def _next(self) -> Sequence[InstanceRow]:
        """What is to be tried now: the oldest, or else of a folder that may work again."""
        line = self._put_back
        while True:
            after, folder = line.next(self._elapsed())
            now = self._elapsed()
            exclude = tuple(number for number, due in self._unreadable.items() if due > now)
            page = await self._run(self._keeper.to_archive, self._clock(), exclude, after)
            batch = line.choose(page, folder)
            if batch or (not page and folder is None):
                return batch
            await asyncio.sleep(_BETWEEN)

    def _first_met(self, stored: Stored) -> dict[int, str]:
        """Those that could be read until now; puts all off that could not, and forgets the others.

        What is damaged stays so; an error of the disk may pass, and what it hid is to go then.
        """
        new = {n: why for n, why in stored.unreadable.items() if n not in self._unreadable}
        again = self._elapsed() + _TRY_AGAIN
        for number in stored.unreadable:
            self._unreadable[number] = again if number in stored.passing else inf
        for number in stored.ids:
            self._unreadable.pop(number, None)
        return new

    def _moved(
        self, stored: Stored, put_back: Sequence[str] = (), back: Sequence[Path] = ()
    ) -> Moved:
        return Moved(
            len(stored.ids),
            stored.bytes,
            stored.trouble,
            tuple(stored.unreadable.values()),
            tuple(put_back),
            tuple(str(Path(self._folder) / place) for place in back),
            len(self._put_back),
        )

    async def _watched(self, folder: ArchiveFolder, future: asyncio.Future[Stored]) -> None:
        """Until the batch is written; tells once when nothing gets on, as over a network whose
        other end is gone: no call fails then."""
        told = False
        while not future.done():
            before = folder.steps
            await asyncio.wait({future}, timeout=_PATIENCE)
            if not future.done() and folder.steps == before and not told:
                told = True
                why = f"{self._folder}: nothing could be written for {_PATIENCE:g} s"
                self._tell(Moved(trouble=f"{why}, the file system does not answer"))

    async def _in_thread(self, folder: ArchiveFolder, batch: Sequence[InstanceRow]) -> Stored:
        """In a thread that nobody waits for at the end: a file system over the network may hang."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Stored] = loop.create_future()

        def settle(result: Stored | None, error: Exception | None) -> None:
            if future.done():
                return
            if result is not None:
                future.set_result(result)
            elif error is not None:
                future.set_exception(error)

        def body() -> None:
            result: Stored | None = None
            failure: Exception | None = None
            try:
                result = folder.write(batch, self._stop)
            except Exception as error:  # noqa: BLE001 - raised again where it is waited for
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop may be closed by then
                loop.call_soon_threadsafe(settle, result, failure)

        threading.Thread(target=body, name="spool-archive", daemon=True).start()
        try:
            await self._watched(folder, future)
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self._stop.set()
            await asyncio.wait({future}, timeout=_LAST_BATCH)
            raise
