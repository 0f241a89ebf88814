"""An event loop whose clock jumps to the next timer when nothing is left to do."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Stalled(Exception):
    """Nothing is ready and no timer is set: what the test waits for will never happen."""


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.jumps = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stalled
        if timeout > 0:
            self.now += timeout
            self.jumps += 1
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.selector = _JumpingSelector()
        super().__init__(self.selector)
        # After 194 days the least that a float can add to the time is more than asyncio's own
        # nanosecond, and a timer that is due at this very moment would never run.
        self._clock_resolution = 1e-8

    def time(self) -> float:
        return self.selector.now


class CreepingLoop(VirtualLoop):
    """As on a real machine, no two looks at the clock tell the same time."""

    CREEP = 0.001

    def time(self) -> float:
        self.selector.now += self.CREEP
        return self.selector.now


def wall() -> float:
    """Seconds since the epoch, as far as anything in the test is concerned."""
    return 1_700_000_000.0 + asyncio.get_running_loop().time()


def run(main: Coroutine[Any, Any, T], loop: type[VirtualLoop] = VirtualLoop) -> T:
    """Runs a test to its end in virtual time."""
    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(main)
