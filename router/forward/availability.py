"""Whether a destination is up, as operators are told.

Owns the lines of the log and the metric about it, once for each change.  What makes it go down, and
when it is tried again, is the breaker's.
"""

from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from router.forward.breaker import Breaker
from router.forward.ports import Observer


class Availability:
    """``on_up`` and ``on_down`` are called after a change was told; ``on_up`` too when one that was
    found to be there has taken an instance."""

    def __init__(
        self,
        name: str,
        breaker: Breaker,
        *,
        observer: Observer,
        log: FilteringBoundLogger,
        on_up: Callable[[], None],
        on_down: Callable[[], None],
    ) -> None:
        self._name = name
        self._breaker = breaker
        self._observer = observer
        self._logger = log
        self._on_up = on_up
        self._on_down = on_down
        self._up = True

    def answering(self, token: int, *, weakly: bool = False) -> None:
        """The peer answered whoever holds ``token`` of the breaker; see `Breaker.succeeded`."""
        unproven = self._breaker.unproven
        if self._breaker.succeeded(token, weakly=weakly):
            self._up = True
            self._logger.info("destination is up", destination=self._name)
            self._observer.on_availability(self._name, True)
            self._on_up()
        elif unproven and not self._breaker.unproven:
            self._on_up()

    def anew(self) -> None:
        """Another peer stands behind the name; it is taken to be up."""
        if not self._up:
            self._up = True
            self._observer.on_availability(self._name, True)

    def fallen(self, opened: bool) -> None:
        """The breaker took note of a failure, and ``opened`` by it or not."""
        if not opened:
            return
        if self._up:
            self._up = False
            self._observer.on_availability(self._name, False)
            self._logger.warning(
                "destination is down", destination=self._name, reason=self._breaker.reason
            )
        self._on_down()
