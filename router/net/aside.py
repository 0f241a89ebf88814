"""Reads the bytes of a data set in a thread.

Owns the waiting for that thread.  Must not know associations.
"""

import asyncio
import threading

from router.net.pool import Readable

_LOOK = 0.001
"""Seconds between two looks whether a read has ended that nobody tells us of."""


async def read_aside(reader: Readable, gaps: list[memoryview]) -> None:
    """Fills ``gaps``; once this ends, however it does, nobody uses ``reader`` any more.

    Raises RuntimeError when no thread can be started.
    """
    turn, ended = threading.Lock(), threading.Event()

    def read() -> None:
        if turn.acquire(blocking=False):
            try:
                reader.read(gaps)
            finally:
                ended.set()

    try:
        reading = asyncio.get_running_loop().run_in_executor(None, read)
    except RuntimeError:
        # It stands in the line all the same, and other threads may come to it.
        while not turn.acquire(blocking=False) and not ended.is_set():  # noqa: ASYNC110 - see `_LOOK`
            await asyncio.sleep(_LOOK)
        raise
    try:
        await asyncio.shield(reading)
    except asyncio.CancelledError:
        # The caller closes the reader next, which must not happen under the thread's hands.
        await asyncio.wait([reading])
        raise
