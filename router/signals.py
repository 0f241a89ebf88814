"""What signals order of the running gateway: SIGHUP, SIGUSR1, SIGUSR2.

Owns which signal means what, that one that came while the gateway started is obeyed, and that they
are obeyed in the order in which they came.  What a pause is is in `orders`; SIGTERM is `app`'s.
"""

import asyncio
import signal
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import structlog

from router.config.versions import Origin
from router.orders import Orders
from router.spool.errors import SpoolError
from router.web.sources import ControlError

if TYPE_CHECKING:
    from router.app import Gateway

_log = structlog.get_logger("signals")

PAUSING = (signal.SIGUSR1, signal.SIGUSR2)
"""The first pauses all destinations, the second resumes those that the first paused."""
_REASON = "signal"


class Signalled:
    """To be made and used on the event loop."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway
        self._orders = Orders(gateway)
        self._wanted: deque[int] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def listen(self, hung_up: Callable[[], bool], before: Sequence[int]) -> None:
        """From now on.  ``hung_up`` says whether there was a SIGHUP during the start, ``before``
        are those of all three that came before that."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        for number in PAUSING:
            loop.add_signal_handler(number, self.take, number)
        # One of before may have been heard and not told yet: that comes first.
        loop.call_soon(self._take_over, hung_up, before)

    def _take_over(self, hung_up: Callable[[], bool], before: Sequence[int]) -> None:
        if hung_up() or signal.SIGHUP in before:
            self._hang_up()
        for number in before:
            if number in PAUSING:
                self.take(number)

    def _hang_up(self) -> None:
        self._gateway.reloader.soon(Origin(via="SIGHUP"))

    def take(self, number: int) -> None:
        """Obey SIGUSR1 or SIGUSR2, after those that came before."""
        if self._closed:
            return
        self._wanted.append(number)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._obey(), name="signals")

    async def close(self) -> None:
        """Finish what was ordered; what comes from now on is for nothing, and harmless."""
        self._closed = True
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _obey(self) -> None:
        while self._wanted:
            number = self._wanted.popleft()
            name = signal.Signals(number).name
            order = self._pause if number == signal.SIGUSR1 else self._resume
            try:
                await order(Origin(author=name))
            except SpoolError as error:
                _log.error("a signal was not obeyed", signal=name, why=str(error))
            except Exception:  # noqa: BLE001 - the next signal is to be obeyed all the same
                _log.exception("a signal was not obeyed; please report this", signal=name)

    async def _pause(self, origin: Origin) -> None:
        remotes = self._gateway.loaded.config.remotes
        paused = []
        for name in [name for name, remote in remotes.items() if remote.host is not None]:
            try:
                if await self._orders.pause(name, _REASON, origin):
                    paused.append(name)
            except ControlError as error:  # a reload took it away meanwhile
                _log.warning("not paused", destination=name, why=str(error))
            except SpoolError as error:
                _log.error("paused, and not noted", destination=name, why=str(error))
        _log.warning("SIGUSR1: destinations paused; SIGUSR2 resumes them", destinations=paused)

    async def _resume(self, origin: Origin) -> None:
        gateway = self._gateway
        pauses = await gateway.index_thread.run(gateway.index.pauses)
        mine = [p.destination for p in pauses if (p.who, p.reason) == ("SIGUSR1", _REASON)]
        resumed = [name for name in mine if await self._orders.resume(name, origin)]
        _log.warning("SIGUSR2: destinations resumed", destinations=resumed)
