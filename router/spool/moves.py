"""Where compaction put what somebody may still look for at its first place.

Owns the latest place of each instance that was copied, as long as its segment lives and there is
room.  The index has all of it; this is for those who asked it before.
"""

from router.spool.record import Ref

_MOST = 1 << 16
"""Places, however long the queues are: those of more are forgotten, the oldest first."""


class Moves:
    """By instance number; ``complete`` until a place had to be forgotten."""

    def __init__(self) -> None:
        self._places: dict[int, Ref] = {}
        self.complete = True

    def __len__(self) -> int:
        return len(self._places)

    def latest(self, instance_id: int) -> Ref | None:
        """Where it was copied to last; None when it was not, or that is forgotten."""
        return self._places.get(instance_id)

    def add(self, ref: Ref) -> None:
        """From now on who looks for this instance at an older place is led to `ref`."""
        self._places[ref.id] = ref
        if len(self._places) > _MOST:
            del self._places[next(iter(self._places))]
            self.complete = False

    def forget(self, generation: int) -> None:
        """Those that led into a segment whose life is over."""
        for instance_id in [i for i, r in self._places.items() if r.generation == generation]:
            del self._places[instance_id]
