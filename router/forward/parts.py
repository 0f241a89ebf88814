"""What one destination is made of.

Owns the putting together of what its door, its clerk and its crew all look at.  Must not know what
any of it does, nor other destinations.
"""

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from random import Random
from typing import Protocol

from structlog.typing import FilteringBoundLogger

from router.forward.attempts import Attempts
from router.forward.availability import Availability
from router.forward.board import Board
from router.forward.breaker import Breaker
from router.forward.fates import Fates
from router.forward.ledger import Ledger
from router.forward.ports import DestinationConfig, IndexGateway, Observer, OpenReader
from router.forward.regime import Common, Regime
from router.spool.index_types import Waiting

_ACTIVE_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a destination is given.  To be made on the event loop; ``clock`` gives seconds since the
    epoch, and ``random`` is the destination's own."""

    index: IndexGateway
    open_reader: OpenReader
    clock: Callable[[], float]
    random: Random
    observer: Observer
    log: FilteringBoundLogger
    common: Common


class Owner(Protocol):
    """The destination, as those that work for it see it."""

    @property
    def peer(self) -> Hashable:
        """Whom it calls at present."""
        ...

    def may_send(self) -> bool:
        """Whether anything is to be sent at present."""
        ...

    def put_back(self, item: Waiting) -> None:
        """See `Desk`."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What is shared within one destination; nothing here is shared with another.

    ``monotonic`` is the clock that timers run by; ``wake`` has the destination look again.
    """

    name: str
    regime: Regime
    board: Board
    breaker: Breaker
    availability: Availability
    ledger: Ledger
    fates: Fates
    observer: Observer
    monotonic: Callable[[], float]
    wake: Callable[[], None]
    log: FilteringBoundLogger

    @classmethod
    def of(
        cls,
        config: DestinationConfig,
        around: Surroundings,
        *,
        wake: Callable[[], None],
        on_up: Callable[[], None],
        on_down: Callable[[], None],
    ) -> "Parts":
        """Those of a new destination; to be called on the event loop.  ``on_up`` and ``on_down``
        are called as it changes from one to the other."""
        name, clock, random = config.name, around.clock, around.random
        observer, log = around.observer, around.log
        monotonic = asyncio.get_running_loop().time
        board = Board(limit=1, minimum=1, byte_limit=_ACTIVE_BYTES)
        breaker = Breaker(config.retry, random)
        ledger = Ledger(
            name, around.index, board, clock=clock, monotonic=monotonic, random=random, log=log
        )
        return cls(
            name=name,
            regime=Regime(config, around.common, clock=clock, wake=wake),
            board=board,
            breaker=breaker,
            availability=Availability(
                name, breaker, observer=observer, log=log, on_up=on_up, on_down=on_down
            ),
            ledger=ledger,
            fates=Fates(
                name,
                ledger,
                config.retry,
                clock=clock,
                random=random,
                observer=observer,
                wake=wake,
                attempts=Attempts(monotonic),
            ),
            observer=observer,
            monotonic=monotonic,
            wake=wake,
            log=log,
        )
