"""How fast a destination is sent to: bytes and instances per second.

Owns which bandwidth holds at which hour, and the way through one's own limit and that of all
destinations together.  Must not know what is sent.
"""

import asyncio
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from router.forward.bucket import Bucket
from rules.window import Windows

_LOOK = 60.0
"""Windows are of the wall clock, which may be set: no timer for them runs longer, in seconds."""
_LONG = 86400.0
"""For so long it is believed that no change is near, which is dear to find out."""
_ANY = 2**31
_PIECE = 0.1
_LEAST_PIECE, _MOST_PIECE = 8 * 1024, 256 * 1024
"""A piece is what is written at once: a tenth of a second of the bandwidth, within these bytes."""
_BETWEEN = 5.0
"""Seconds between two pieces on one association, at most, as long as there is more than one: a
peer may give up one on which nothing comes for longer."""
_AHEAD = 1.0
"""Seconds before a turn that an association is opened for it, where turns are rare."""


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Bytes per second: that of the first window that is open, ``otherwise`` when none is."""

    windows: tuple[tuple[Windows, float], ...] = ()
    otherwise: float = math.inf

    def at(self, moment: float) -> float:
        """What holds at ``moment``, in seconds since the epoch."""
        return next((rate for w, rate in self.windows if w.open_at(moment)), self.otherwise)

    def holds_until(self, moment: float) -> float:
        """Until when that holds."""
        changes = [w.next_change(moment) for w, _ in self.windows]
        return min((c for c in changes if c is not None), default=math.inf)


@dataclass(frozen=True, slots=True)
class Speed:
    """``bandwidth:`` and ``rate:`` of a remote; ``rate`` is in instances per second."""

    bandwidth: Bandwidth = field(default_factory=Bandwidth)
    rate: float = math.inf


class Metered:
    """A bucket of bytes whose rate follows the hours."""

    def __init__(self, bandwidth: Bandwidth) -> None:
        self._bandwidth = bandwidth
        self._looked_at = self._holds_until = 0.0
        self.bucket = Bucket()

    def configure(self, bandwidth: Bandwidth) -> None:
        """Takes on another bandwidth, from the next `look` on."""
        self._bandwidth = bandwidth
        self._holds_until = 0.0

    def look(self, now: float) -> None:
        """Sets the rate of this hour; ``now`` in seconds since the epoch."""
        if not self._looked_at <= now < self._holds_until:
            self.bucket.set_rate(self._bandwidth.at(now))
            self._looked_at = now
            self._holds_until = min(now + _LONG, self._bandwidth.holds_until(now))

    def next_look(self, now: float) -> float | None:
        """Seconds until another rate may hold; None when that never is."""
        if not self._bandwidth.windows:
            return None
        return max(0.0, min(self._holds_until - now, _LOOK))


class Throttle:
    """One destination's; ``total`` is that of all together.

    It is the `Pace` of its associations, which stand in one line for its own limit; in that for
    all together each destination stands once, however many associations it has, and with no more
    than a piece: so one that takes nothing, or that takes much, holds up nobody.
    """

    def __init__(self, speed: Speed, total: Metered) -> None:
        self._own = Metered(speed.bandwidth)
        self._total = total
        self._rate = Bucket(speed.rate)
        self._in_line = asyncio.Lock()

    def configure(self, speed: Speed) -> None:
        """Takes on other limits; the bandwidth from the next `look` on."""
        self._own.configure(speed.bandwidth)
        self._rate.set_rate(speed.rate)

    def look(self, now: float) -> None:
        """Sets what holds at this hour."""
        self._own.look(now)
        self._total.look(now)

    def next_look(self, now: float) -> float | None:
        """Seconds until `look` may change something; None when it will not."""
        times = (self._own.next_look(now), self._total.next_look(now))
        return min((each for each in times if each is not None), default=None)

    def hurry(self) -> None:
        """Whoever waits for the turn of an instance waits no longer, nor does anybody after."""
        self._rate.set_rate(math.inf)

    @property
    def counts(self) -> bool:
        """Whether instances have to wait for `turn`."""
        return self._rate.rate != math.inf

    async def turn(self) -> None:
        """Until one more instance may be sent."""
        await self._rate.take(1)

    def early(self, patience: float) -> float:
        """Seconds for which it is too early to have an association for the next turn.

        It may wait ``patience`` seconds on one.  Where turns are rarer than that, each has one of
        its own, which is opened shortly before; else a further one is opened at half of that, so
        that none that stands has to give way to it.
        """
        if not self.counts:
            return 0.0
        rare = self._rate.rate * patience < 1
        return max(0.0, self._rate.wait - (_AHEAD if rare else patience / 2))

    @property
    def next_turn(self) -> float:
        """Seconds until who asks now has its turn."""
        return self._rate.wait if self.counts else 0.0

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return self._rate.waiting

    def pass_on(self) -> None:
        """A turn that was had and not used."""
        self._rate.give_back(1)

    @property
    def worth(self) -> int:
        """How many associations the bandwidth keeps busy."""
        rate = min(self._own.bucket.rate, self._total.bucket.rate)
        return _ANY if rate == math.inf else max(1, int(rate * _BETWEEN / _LEAST_PIECE))

    @property
    def piece(self) -> int:
        """See `Pace`."""
        rate = min(self._own.bucket.rate, self._total.bucket.rate)
        if rate == math.inf:
            return _MOST_PIECE
        return max(_LEAST_PIECE, min(int(rate * _PIECE), _MOST_PIECE))

    async def take(self, count: int) -> None:
        """See `Pace`."""
        await self._own.bucket.take(count)
        if self._total.bucket.rate != math.inf:
            async with self._in_line:
                await self._total.bucket.take(count)

    @property
    def limits(self) -> Iterable[str]:
        """What holds at present, in words for an operator."""
        if (own := self._own.bucket.rate) != math.inf:
            yield f"{_words(own)}"
        if (total := self._total.bucket.rate) < own:
            yield f"{_words(total)} of all destinations"
        if self.counts:
            yield f"{_often(self._rate.rate)}"


def _words(rate: float) -> str:
    bits = rate * 8
    for unit, factor in (("Gbit/s", 1e9), ("Mbit/s", 1e6)):
        if bits >= factor:
            return f"{bits / factor:.4g} {unit}"
    return f"{bits / 1e3:.4g} kbit/s"


def _often(rate: float) -> str:
    for unit, factor in (("s", 1), ("min", 60)):
        if rate * factor >= 1:
            return f"{rate * factor:.4g} instances/{unit}"
    return f"{rate * 3600:.4g} instances/h"
