"""A destination's dealings with the index: what it leases, and how it settles.

Owns the outcomes that are not recorded yet, the times at which something falls due, and the
waiting while the index is in trouble.  Must not know associations or statuses.

An outcome is kept until the index has it.  While the index is in trouble `Ledger.trouble` says
so and nothing more is to be sent: what is sent and never settled is sent again.
"""

from collections.abc import Callable
from random import Random

from structlog.typing import FilteringBoundLogger

from router.forward.backoff import delay
from router.forward.board import Board
from router.forward.ports import IndexGateway
from router.net.settings import Retry
from router.spool.errors import SpoolError
from router.spool.index_types import DeliveryState, Outcome

_BATCH = 64
"""Outcomes that are settled without waiting for company."""
_BATCH_WAIT = 0.02
"""Longest that an outcome waits for company, in seconds; a crash sends those again."""
_TROUBLE = Retry(first=0.5, factor=2.0, cap=30.0, jitter=0.25)
_STRAY = 1.0
_LOOK = 1.0
"""Seconds between two looks for what is more urgent than what was leased."""
_LONGEST_WAIT = 300.0
"""Due times are of the wall clock, which may be set: no timer for them runs longer."""


class Ledger:
    """``clock`` gives seconds since the epoch, ``monotonic`` those that timers run by.

    ``more`` tells that the queue may hold something that is due and not on the board.
    """

    def __init__(
        self,
        destination: str,
        index: IndexGateway,
        board: Board,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        random: Random,
        log: FilteringBoundLogger,
    ) -> None:
        self._destination = destination
        self._index = index
        self._board = board
        self._clock = clock
        self._monotonic = monotonic
        self._random = random
        self._logger = log
        self._outcomes: list[Outcome] = []
        self._first_at = 0.0
        self._due: float | None = None
        self._leased_at = monotonic()
        self._failures = 0
        self._retry_at = 0.0
        self._fallen_back = False
        self._came = False
        self._looked_at = -_LOOK
        self._look_again: float | None = None
        self.more = True
        self.trouble = ""

    @property
    def unsettled(self) -> int:
        """Outcomes that the index does not have yet."""
        return len(self._outcomes)

    def record(self, outcome: Outcome) -> bool:
        """Notes how an attempt ended.  True when the owner should wake to settle, or plan to."""
        self._outcomes.append(outcome)
        if len(self._outcomes) == 1:
            self._first_at = self._monotonic()
            return True
        return len(self._outcomes) == _BATCH

    def came(self) -> None:
        """Something may be in the queue that was not before."""
        self.more = self._came = True

    def advance(self) -> None:
        """Notes what has fallen due by now."""
        self._look_again = None
        if self._due is not None and (
            self._due <= self._clock() or self._monotonic() >= self._leased_at + _LONGEST_WAIT
        ):
            # The second: should the clock have been set back, the index knows what that means.
            self._due = None
            self.came()
        if self.trouble and not self._outcomes and not self._blocked():
            # With nothing to settle nothing else may be due that would tell that it is over.
            self.trouble = ""

    def take_fallen_back(self) -> bool:
        """Whether something that was tried waits again, since the last call."""
        fallen_back, self._fallen_back = self._fallen_back, False
        return fallen_back

    def retry_now(self) -> None:
        """In trouble: try again without waiting for the time."""
        self._retry_at = self._monotonic()

    def close(self) -> None:
        """No more is settled; what is lost by that is told."""
        if self._outcomes:
            self._logger.error(
                "outcomes are lost, these instances will be sent again",
                destination=self._destination,
                instances=len(self._outcomes),
                reason=self.trouble,
            )

    def next_wake(self) -> float | None:
        """When, by the monotonic clock, the owner should call again if nothing else happens."""
        now = self._monotonic()
        if self.trouble:
            return self._retry_at
        times = [] if self._look_again is None else [self._look_again]
        if self._outcomes:
            times.append(self._first_at + _BATCH_WAIT)
        if self._due is not None:
            times.append(now + min(max(0.0, self._due - self._clock()), _LONGEST_WAIT))
        return min(times) if times else None

    async def settle(self, *, idle: bool) -> None:
        """Records what has gathered, if that is worth a transaction; at once when ``idle``."""
        if not self._outcomes or self._blocked():
            return
        now = self._monotonic()
        if not idle and len(self._outcomes) < _BATCH and now < self._first_at + _BATCH_WAIT:
            return
        batch = tuple(self._outcomes)
        try:
            settled = await self._index.settle(batch)
        except SpoolError as error:
            self.in_trouble(f"outcomes cannot be recorded: {error}")
            return
        except Exception as error:
            self._logger.exception("settling failed", destination=self._destination)
            self.in_trouble(f"outcomes cannot be recorded: {type(error).__name__}")
            return
        self._well()
        del self._outcomes[: len(batch)]
        self._first_at = self._monotonic()
        self._board.settled(outcome.instance_id for outcome in batch)
        for outcome in batch:
            if outcome.state is DeliveryState.READY:
                self._fallen_back = True
                self._plan(outcome.due_at if outcome.due_at is not None else outcome.at)
        if settled.revived or settled.repeated:
            # What was settled before may have been so by a call that said that it failed: what it
            # revived then nobody was told of.
            self.came()
        if settled.repeated or settled.unknown:
            # An operator was quicker, or retention: the index keeps what it had.
            self._logger.info(
                "outcomes of deliveries that were settled before",
                destination=self._destination,
                repeated=len(settled.repeated),
                unknown=len(settled.unknown),
            )

    async def lease(self, least: int | None = None, most: int | None = None) -> None:
        """Fills the board from the queue, if it is hungry and there may be more; with what has the
        priority ``least`` or more, and ``most`` instances, if these are given."""
        if self._blocked():
            return
        asked = False
        try:
            if self._came:
                asked = await self._make_way()
            if self.more and self._board.hungry and most != 0:
                asked = True
                await self._fill(least, most)
        except SpoolError as error:
            self.came()
            self.in_trouble(f"the queue cannot be read: {error}")
        except Exception as error:
            self.came()
            self._logger.exception("leasing failed", destination=self._destination)
            self.in_trouble(f"the queue cannot be read: {type(error).__name__}")
        else:
            if asked:
                self._well()

    async def _fill(self, least: int | None, most: int | None) -> None:
        self.more = False
        self._leased_at = self._monotonic()
        room = self._board.limit - len(self._board.ids)
        room = room if most is None else min(room, most)
        items = await self._index.lease(
            self._destination, room, self._clock(), tuple(self._board.ids), least
        )
        if not self._board.add(items) or len(items) >= room:
            self.more = True
        else:
            await self._look_ahead(least, found=bool(items))

    async def _make_way(self) -> bool:
        """Leaves what waits on a full board to the queue, which has its order, once something more
        urgent is there: to a slow destination it would stand behind all of it.  True when the
        index was asked."""
        lowest, now = self._board.lowest, self._monotonic()
        if lowest is None or self._board.hungry:  # then it is leased in its order
            self._came = False
            return False
        if now < self._looked_at + _LOOK:
            self._look_again = self._looked_at + _LOOK
            return False
        self._came, self._looked_at = False, now
        ids = tuple(self._board.ids)
        if await self._index.lease(self._destination, 1, self._clock(), ids, lowest + 1):
            self._board.clear()
            self.more = True
        return True

    def in_trouble(self, reason: str) -> None:
        """Something on our side is broken: pauses, longer each time."""
        self._failures += 1
        self._retry_at = self._monotonic() + delay(_TROUBLE, self._failures, self._random.random())
        if self._failures == 1:
            self._logger.error("index trouble", destination=self._destination, reason=reason)
        self.trouble = reason

    def _well(self) -> None:
        if self._failures:
            self._logger.info("index works again", destination=self._destination)
        self.trouble = ""
        self._failures = 0

    def _blocked(self) -> bool:
        return bool(self.trouble) and self._monotonic() < self._retry_at

    def _plan(self, due: float) -> None:
        self._due = due if self._due is None else min(self._due, due)

    async def _look_ahead(self, least: int | None, *, found: bool) -> None:
        """There was no more than that: when will there be?"""
        due = await self._index.next_due(self._destination, tuple(self._board.ids), least)
        if due is None:
            return
        now = self._clock()
        if due > now:
            self._plan(due)
        elif found:
            self.more = True
        else:
            # Due, and yet not leased: it fell due in between.  Not at once again, in case the
            # two answers contradict each other for longer.
            self._plan(now + _STRAY)
