"""What a destination is allowed at present: when, how fast, over how many associations.

Owns the putting together of its permit, its throttle, its window of associations and its share of
what all destinations have together.  Must not know the queue, nor what comes of a message.
"""

import asyncio
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from router.forward.concurrency import Concurrency
from router.forward.errands import Errands
from router.forward.permit import Permit
from router.forward.places import Places
from router.forward.ports import DestinationConfig
from router.forward.throttle import Bandwidth, Metered, Throttle

_IDLE = 10.0
"""Seconds for which an association may wait for its turn though it would linger for less."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What holds for all destinations together: bytes per second, and associations."""

    bandwidth: Bandwidth = field(default_factory=Bandwidth)
    associations: float = math.inf


class Common:
    """The limits that all destinations share.  To be made on the event loop."""

    def __init__(self) -> None:
        self.total = Metered(Bandwidth())
        self.places = Places()
        self.errands = Errands(self.places)

    def configure(self, outgoing: Outgoing) -> None:
        """Takes on other limits."""
        self.total.configure(outgoing.bandwidth)
        self.places.configure(outgoing.associations)


class Regime:
    """One destination's.  ``clock`` gives seconds since the epoch; ``wake`` is called when it may
    have another association.  ``tried``: it failed since it was last paused or shut; the owner
    says so."""

    def __init__(
        self,
        config: DestinationConfig,
        common: Common,
        *,
        clock: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._name = config.name
        self._clock = clock
        self._wake = wake
        self._places = common.places
        self._known: tuple[str, bool, int | None] = "", False, None
        self._held_since: float | None = None
        self.tried = False
        self.permit = Permit(config.hours)
        self.throttle = Throttle(config.speed, common.total)
        self.concurrency = Concurrency(config.associations)
        self._configured = config.associations
        self._patience = max(config.linger, _IDLE)
        self._places.join(self._name, wake)

    def configure(self, config: DestinationConfig | None, *, anew: bool) -> None:
        """Takes on other settings; ``anew``: of what was learnt of the peer nothing holds."""
        if config is None:
            self._places.leave(self._name)
            return
        self._places.join(self._name, self._wake)
        self.permit.configure(config.hours)
        self.throttle.configure(config.speed)
        self._configured = config.associations
        self._patience = max(config.linger, _IDLE)
        if anew:
            self.concurrency.configure(config.associations)

    def look(self) -> bool:
        """Finds out what holds now.  True when something may go that might not before, or not
        that might, or for another reason."""
        now = self._clock()
        self.permit.look(now)
        self.throttle.look(now)
        if not self.permit.why:
            self._held_since = None
        else:
            self.tried = False
            if self._held_since is None:
                self._held_since = self._loop.time()
        known, self._known = self._known, (self.permit.why, self.permit.nothing, self.permit.least)
        return known != self._known

    @property
    def held_for(self) -> float | None:
        """Seconds since it was paused or shut, as far as `look` found out; None when neither."""
        return None if self._held_since is None else self._loop.time() - self._held_since

    def next_wake(self) -> float | None:
        """When, by the loop's clock, `look` may find something else."""
        now = self._clock()
        times = (self.permit.next_look(now), self.throttle.next_look(now))
        soonest = min((each for each in times if each is not None), default=None)
        return None if soonest is None else self._loop.time() + soonest

    def holds(self, associations: int) -> None:
        """It has so many now."""
        self._places.holds(self._name, associations)

    @property
    def most(self) -> int:
        """Associations for sending that it may have; 0 while an errand has its only place."""
        allowed = self._places.allowed(self._name)
        return self._configured if allowed is None else min(self._configured, allowed)

    @property
    def width(self) -> int:
        """How many associations may be at work."""
        return min(self.concurrency.allowed, self.most, self.throttle.worth)

    @property
    def far(self) -> bool:
        """Whether the next turn is farther away than an association is to wait for it."""
        return self.throttle.next_turn > self._patience

    @property
    def early(self) -> float:
        """Seconds for which it is too early to have an association for the next turn."""
        return self.throttle.early(self._patience)

    @property
    def limits(self) -> Iterator[str]:
        """What holds at present, in words for an operator."""
        yield from self.throttle.limits
        if self.concurrency.shut:
            yield self.concurrency.shut
        if self.most < self._configured:
            yield f"{self.most} of {self._configured} associations, as others have the rest"
        if (worth := self.throttle.worth) < self._configured:
            yield f"{worth} of {self._configured} associations, as the bandwidth keeps no more busy"
