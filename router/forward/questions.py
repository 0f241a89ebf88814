"""Asks archives how many instances of a study or series there are.

Owns the order of the questions: one at a time to each archive, straight after each other, first
what was not asked for longest, and none for a while to one that does not answer.  So no study is
forgotten over thousands that the archive does not have.  Must not know how they are put, nor what
the answers are for.
"""

import asyncio
from collections.abc import Callable, Iterable

from structlog.typing import FilteringBoundLogger

from router.forward.backoff import delay
from router.forward.ports import Ask, GateIndex, NotAnswered
from router.forward.vigil import Vigil
from router.net.settings import Retry
from router.spool.errors import SpoolError

_AGAIN = Retry(first=15.0, factor=2.0, cap=300.0, jitter=0.0)


class _Archive:
    __slots__ = ("due", "failures", "not_before", "task")

    def __init__(self) -> None:
        self.failures = 0
        self.not_before = 0.0
        self.task: asyncio.Task[None] | None = None
        self.due: list[Vigil] = []
        """What is to be asked as of the latest turn, the next one last."""


class Questions:
    """``now`` gives seconds of a steady clock; ``wake`` is called after each answer."""

    def __init__(
        self,
        index: GateIndex,
        ask: Ask,
        now: Callable[[], float],
        wake: Callable[[], None],
        log: FilteringBoundLogger,
    ) -> None:
        self._index = index
        self._ask = ask
        self._now = now
        self._wake = wake
        self._logger = log
        self._archives: dict[str, _Archive] = {}

    def ask(self, vigils: Iterable[Vigil]) -> float | None:
        """Takes on the questions that are due, of which one is put to each archive that is free.

        Seconds until one may be put that was held back; None when none was, or when an answer
        will wake whoever waits.
        """
        now = self._now()
        for archive in self._archives.values():
            archive.due = []
        for vigil in vigils:
            self._archives.setdefault(vigil.gate.plan.expect, _Archive()).due.append(vigil)
        held_back: list[float] = []
        for archive in self._archives.values():
            # From the end is cheap; of those never asked, the one that waits longest.
            archive.due.reverse()
            archive.due.sort(key=lambda vigil: -vigil.asked_at)
            self._next(archive)
            if archive.due and archive.task is None:
                held_back.append(archive.not_before - now)
        return min(held_back, default=None)

    def _next(self, archive: _Archive) -> None:
        """Puts the next question to it, if it is free."""
        if archive.task is not None or self._now() < archive.not_before:
            return
        while archive.due:
            vigil = archive.due.pop()
            if vigil.due(self._now()):  # more may have come since the turn
                put = self._put(archive, vigil)
                archive.task = asyncio.get_running_loop().create_task(put)
                return

    def stop(self) -> None:
        """Nobody waits for an answer any more."""
        for archive in self._archives.values():
            archive.due = []
            if archive.task is not None:
                archive.task.cancel()

    async def _put(self, archive: _Archive, vigil: Vigil) -> None:
        gate = vigil.gate
        name = gate.plan.expect
        try:
            expected = await self._ask(name, gate)
            came = await self._index.came(gate)
        except Exception as error:
            known = isinstance(error, NotAnswered | SpoolError)
            if not known:
                self._logger.exception("asking an archive failed", archive=name)
            reason = str(error) if known else f"internal error: {type(error).__name__}"
            if not archive.failures:
                self._logger.warning("an archive was not asked", archive=name, reason=reason)
            archive.failures += 1
            archive.not_before = self._now() + delay(_AGAIN, archive.failures, 0.0)
            vigil.not_answered(reason, self._now())
        else:
            archive.failures = 0
            if vigil.gate == gate:  # else more came in the meantime, and the answer is of before
                vigil.answered(expected, came, self._now())
        finally:
            archive.task = None
            self._next(archive)
            self._wake()
