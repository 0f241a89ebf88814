"""The thread of the index, as those see it who call the index from the event loop.

Owns the name of it and no more; see `router.app`.
"""

from collections.abc import Awaitable, Callable
from typing import ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Thread(Protocol):
    """Where the index lives."""

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        """The result of ``work``, done there."""
        ...
