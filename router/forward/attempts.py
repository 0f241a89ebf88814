"""The attempts under way at a destination: on which association, and since when.

Owns what is to be told of an attempt beside its outcome.  Must not know what came of it.
"""

from collections.abc import Callable

_LIMIT = 65_536
"""Of those that nobody heard of again."""


class Attempts:
    """``monotonic`` gives the seconds that attempts are measured by."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._begun: dict[int, tuple[str, float]] = {}

    def begun(self, instance_id: int, association: str) -> None:
        """The request is about to go out; what was begun before with this instance is void."""
        if len(self._begun) >= _LIMIT:
            self._begun.clear()
        self._begun[instance_id] = association, self._monotonic()

    def ended(self, instance_id: int) -> tuple[str, float | None]:
        """The association and the seconds since; "" and None when none was begun."""
        found = self._begun.pop(instance_id, None)
        return ("", None) if found is None else (found[0], self._monotonic() - found[1])
