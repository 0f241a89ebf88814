"""Reads the bytes of a data set in a thread.

Owns the waiting for that thread.  Must not know associations.
"""

import asyncio

from router.net.pool import Readable


async def read_aside(reader: Readable, gaps: list[memoryview]) -> None:
    """Fills ``gaps``; once this ends, however it does, nobody uses ``reader`` any more."""
    reading = asyncio.get_running_loop().run_in_executor(None, reader.read, gaps)
    try:
        await asyncio.shield(reading)
    except asyncio.CancelledError:
        # The caller closes the reader next, which must not happen under the thread's hands.
        await asyncio.wait([reading])
        raise
