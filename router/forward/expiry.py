"""When what waits for a destination that is down is given up.

Owns the two reasons: it waits for longer than `retry.max_age`, or the destination rejects every
association and `retry.failures` calls that permanent.  Must not know how a destination came to be
down, nor which deliveries are how old: the index does.

What is up keeps what is old: it is tried, and is dead when that fails (`router.forward.fates`).
"""

from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from router.forward.destination import Destination
from router.forward.fates import in_words
from router.forward.ports import ExpireIndex, Observer

_SOONEST = 1.0
_LONGEST = 3600.0
"""Ages are by the wall clock, which may be set: nothing is looked at later than this."""
_FEW, _REST = 1, 1.0
"""Where more calls than that were for nothing, seconds for each of them until the next look."""


class Expiry:
    """``clock`` gives seconds since the epoch.  ``given_up(destination)`` is called when something
    was: what repeats it goes in its place, and may be behind a gate."""

    def __init__(
        self,
        index: ExpireIndex,
        *,
        clock: Callable[[], float],
        observer: Observer,
        log: FilteringBoundLogger,
        given_up: Callable[[str], None] = lambda destination: None,
    ) -> None:
        self._index = index
        self._clock = clock
        self._observer = observer
        self._logger = log
        self._given_up = given_up
        self._not_before: dict[str, float] = {}

    async def look(self, destination: Destination) -> float | None:
        """Gives up what is too old now; in how many seconds to look again while it is down."""
        due = self._due(destination)
        if due is None:
            return None
        before, reason = due
        if (wait := self._too_soon(destination.name)) > 0:
            return wait
        count, calls = 0, 0
        oldest: float | None = None
        after: int | None = -1
        try:
            while after is not None:
                async with destination.at_rest(clear=False) as in_hand:
                    if destination.up:
                        break
                    expired = await self._index.expire(
                        destination.name, before, reason, tuple(in_hand), self._clock(), after
                    )
                calls += 1
                count, after = count + expired.count, expired.after
                if expired.oldest is not None:
                    oldest = min(expired.oldest, expired.oldest if oldest is None else oldest)
                for _ in range(expired.count):
                    self._observer.on_failed(destination.name, "dead")
        finally:
            # Also when the index failed on the way: what was given up before stays so.
            if count:
                self._logger.warning(
                    "given up", destination=destination.name, instances=count, reason=reason
                )
                self._given_up(destination.name)
        if calls > _FEW and not count:
            self._not_before[destination.name] = self._clock() + calls * _REST
        return self._again(destination, oldest)

    def _too_soon(self, name: str) -> float:
        """Seconds for which it is not looked at again: of many that are old enough all were behind
        gates."""
        wait = self._not_before.get(name, 0.0) - self._clock()
        if 0.0 < wait <= _LONGEST:
            return wait
        self._not_before.pop(name, None)
        return 0.0

    def _due(self, destination: Destination) -> tuple[float, str] | None:
        """Before which time what came is given up, and why; None when nothing ever is."""
        retry, fallen = destination.retry, destination.fallen
        if retry is None or fallen is None:
            return None
        final = retry.failures.rejected == "permanent"
        if final and fallen.rejected >= retry.permanent_after:
            # What came since has not been tried; when it is, that tells.
            return fallen.at, f"the destination is down: {fallen.reason}"
        if retry.max_age is None:
            return None
        age = in_words(retry.max_age)
        return self._clock() - retry.max_age, f"older than {age}; {fallen.reason}"

    def _again(self, destination: Destination, oldest: float | None) -> float | None:
        retry = destination.retry
        if destination.up or retry is None or retry.max_age is None:
            return None
        if oldest is None:
            return min(retry.max_age, _LONGEST)
        return min(max(oldest + retry.max_age - self._clock(), _SOONEST), _LONGEST)
