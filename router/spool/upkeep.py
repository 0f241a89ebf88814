"""What one step of the keeper did and found.

Owns the words for it.  Must not know how it is done.
"""

from dataclasses import dataclass
from typing import Literal

from router.spool.marks import Run

Why = Literal["age", "mark", "room"]
"""Why settled instances go: their time is over, the high mark, or no room at all."""


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What one step did and found.  ``again``: there is more to do at once.

    ``bytes`` were purged, for the reason ``why``.  ``share`` of the capacity is in use, None
    without marks; ``run`` is a purge between them that ended or came to nothing more.
    """

    purged: int
    recycled: int
    moved: int
    free: int
    used: int
    refusal: str
    again: bool
    trouble: str = ""
    bytes: int = 0
    why: Why = "age"
    share: float | None = None
    run: Run | None = None
