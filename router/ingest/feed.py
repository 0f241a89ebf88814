"""Writes committed instances to the index, behind the answer and in batches.

Owns the order between the spool's log and the index's position, and trying again when the index
cannot be written: the instances themselves are safe all the while.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import structlog

from router.spool.errors import SpoolError
from router.spool.index_database import clean
from router.spool.index_types import AddResult
from router.spool.record import InstanceMeta, Position, Ref

_log = structlog.get_logger("ingest")

Entry = tuple[Ref, InstanceMeta]
AddEntries = Callable[[Sequence[Entry], Position], Awaitable[AddResult]]

BATCH = 1000
LIMIT = 20_000
GATHER = 0.005
"""Seconds that instances gather for one transaction, at least."""
_GATHER_MOST = 0.025
_GATHER_EACH = 0.0006
"""Seconds for each of the transaction before: where more come than a transaction every few
milliseconds leaves time for, some 1,700 a second, it grows to the longest."""
_RETRY = (0.1, 0.5, 2.0, 5.0)


class IndexFeed:
    """Runs from `start` to `stop`.

    `add_entries` does the work on the index's thread; `notify(destination, count)` is called for
    each destination that got new deliveries, `gated(destination, count)` for each that got some
    which wait for their study, series or schedule.
    """

    def __init__(
        self,
        add_entries: AddEntries,
        notify: Callable[[str, int], None],
        gated: Callable[[str, int], None] = lambda destination, count: None,
    ) -> None:
        self._add_entries = add_entries
        self._notify = notify
        self._gated = gated
        self._studies: Counter[str] = Counter()
        self._entries: list[Entry] = []
        self._ends: list[Position] = []
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._wanted = asyncio.Event()
        self._written = 0
        self._advanced = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.trouble = ""

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="index-feed")

    async def stop(self) -> None:
        """Write what is waiting, then end; what cannot be written is found again at start."""
        self._stop.set()
        self._wanted.set()
        self._wake.set()
        if self._task is not None:
            await self._task

    def add(self, ref: Ref, meta: InstanceMeta, end: Position) -> None:
        """One more instance, in the order of commits; `end` is the position behind it."""
        # In this order: should memory be short for the second, the position falls behind.
        self._ends.append(end)
        self._entries.append((ref, meta))
        if meta.routes:
            self._wanted.set()
            if _planned(meta):
                self._studies[clean(meta.study_instance_uid)] += 1
        self._wake.set()

    def holds(self, study: str) -> bool:
        """Whether instances of this study that have a plan are safe but not in the index yet."""
        return clean(study) in self._studies

    async def caught_up(self) -> None:
        """Until all that was added up to now is in the index, however long that takes."""
        until = self._written + len(self._entries)
        while self._written < until:
            self._advanced.clear()
            await self._advanced.wait()

    @property
    def waiting(self) -> int:
        """Instances that are safe but not in the index yet."""
        return len(self._entries)

    @property
    def refusal(self) -> str:
        """Why no more may come, "" when it may: memory for what waits is bounded."""
        if len(self._entries) < LIMIT:
            return ""
        return f"{len(self._entries)} instances wait for the index: {self.trouble or 'it is slow'}"

    async def _run(self) -> None:
        failures = 0
        while True:
            if not self._entries:
                if self._stop.is_set():
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            count = min(BATCH, len(self._entries))
            batch = self._entries[:count]
            try:
                result = await self._add_entries(batch, self._ends[count - 1])
            except Exception as error:  # noqa: BLE001 - a mistake of ours must not end the feed
                failures += 1
                self.trouble = str(error) or repr(error)
                _log.error(
                    "the index cannot be written",
                    why=self.trouble,
                    waiting=self.waiting,
                    exc_info=not isinstance(error, SpoolError),
                )
                if self._stop.is_set():
                    return
                await self._pause(_RETRY[min(failures, len(_RETRY)) - 1])
                continue
            failures, self.trouble = 0, ""
            del self._entries[:count], self._ends[:count]
            self._written += count
            self._advanced.set()
            self._forget(batch)
            for destination, added in result.deliveries.items():
                self._notify(destination, added)
            for destination, added in result.gated.items():
                self._gated(destination, added)
            # An instance that comes alone is written at once; while they stream in, those of a
            # few milliseconds share a transaction, which costs a fifth per instance of ten, and
            # half of that again where they come so fast that the speed of receiving suffers.
            await self._pause(min(max(GATHER, count * _GATHER_EACH), _GATHER_MOST))
            await self._until_wanted(_GATHER_MOST)

    def _forget(self, batch: Sequence[Entry]) -> None:
        for _, meta in batch:
            if _planned(meta):
                study = clean(meta.study_instance_uid)
                self._studies[study] -= 1
                if not self._studies[study]:
                    del self._studies[study]

    async def _until_wanted(self, seconds: float) -> None:
        """While nobody waits for what has come since, for so long at most.

        What goes nowhere has time, and a transaction costs what thirty instances in it do.
        """
        if not self._stop.is_set() and not any(meta.routes for _, meta in self._entries):
            self._wanted.clear()
            await self._pause(seconds, self._wanted)

    async def _pause(self, seconds: float, until: asyncio.Event | None = None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await (until or self._stop).wait()


def _planned(meta: InstanceMeta) -> bool:
    return any(route.plan for route in meta.routes)
