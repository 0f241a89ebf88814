"""The index's thread, as a test has it."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from router.spool.errors import SpoolError

P = ParamSpec("P")
T = TypeVar("T")


class SlowThread:
    """The index, a turn of the loop away; ``broken`` calls fail first."""

    def __init__(self) -> None:
        self.broken = 0

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        await asyncio.sleep(0)
        if self.broken:
            self.broken -= 1
            raise SpoolError("the disk is full")
        return work(*args, **kwargs)
