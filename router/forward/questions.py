"""Asks archives how many instances of a study or series there are.

Owns the order of the questions: one at a time to each archive, and none for a while to one that
does not answer.  Must not know how they are put, nor what the answers are for.
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
    __slots__ = ("failures", "not_before", "task")

    def __init__(self) -> None:
        self.failures = 0
        self.not_before = 0.0
        self.task: asyncio.Task[None] | None = None


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
        """Puts one of the questions that are due to each archive that is free.

        Seconds until one may be put that was held back; None when none was, or when an answer
        will wake whoever waits.
        """
        now = self._now()
        held_back: list[float] = []
        for vigil in vigils:
            archive = self._archives.setdefault(vigil.gate.plan.expect, _Archive())
            if archive.task is not None:
                continue
            if now >= archive.not_before:
                archive.task = asyncio.get_running_loop().create_task(self._put(archive, vigil))
            else:
                held_back.append(archive.not_before - now)
        return min(held_back, default=None)

    def stop(self) -> None:
        """Nobody waits for an answer any more."""
        for archive in self._archives.values():
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
            self._wake()
