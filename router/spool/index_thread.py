"""The thread of the index, and what those see of it who call the index from the event loop.

Owns the thread.  Must not know what is asked of the index.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Thread(Protocol):
    """Where the index lives."""

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        """The result of ``work``, done there."""
        ...


class IndexThread:
    """The one thread that the index lives in."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "index")

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `work`, done there."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, functools.partial(work, *args, **kwargs))

    def post(self, work: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Have `work` done there, before all that is asked from now on; it must not raise."""
        self._executor.submit(work, *args, **kwargs)

    def close(self) -> None:
        """End it, after what was asked of it."""
        self._executor.shutdown()
