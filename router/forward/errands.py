"""Associations with destinations that carry nothing of their queues.

Owns that they count among those that all destinations have together, for as long as they stand.
Must not know what they are for.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from router.forward.places import Places


class Ends(Protocol):
    """An association, as far as it matters here."""

    async def ended(self) -> None:
        """Until it is over."""
        ...


E = TypeVar("E", bound=Ends)


class Errands:
    """To be used on one event loop."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._watches: set[asyncio.Task[None]] = set()

    async def open(self, name: str, connect: Callable[[], Awaitable[E]]) -> E:
        """What ``connect`` gives, once there is a place for it; raises what that raises."""
        give_back = await self._places.errand(name)
        try:
            association = await connect()
        except BaseException:
            give_back()
            raise
        watch = asyncio.get_running_loop().create_task(association.ended())
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)
        watch.add_done_callback(lambda _: give_back())
        return association
