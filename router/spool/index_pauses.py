"""Destinations that an operator paused.

Owns their rows, which outlive a restart, and their events.  Must not know what a destination does
about it.
"""

from router.spool.index_database import Database, clean, microseconds
from router.spool.index_events import record_event
from router.spool.index_types import Pause


class Pauses:
    """Behind `Index.pause`, `resume` and `pauses`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def pause(self, destination: str, reason: str, at: float, who: str) -> bool:
        """See `Index.pause`."""
        moment = microseconds(at)
        detail = {"destination": destination, "because": reason}
        with self._db.transaction():
            row = (clean(destination), moment, clean(who), clean(reason))
            if not self._db.run(_PAUSE, *row):
                return False
            record_event(self._db, "pause", moment, who, detail)
        return True

    def resume(self, destination: str, at: float, who: str) -> bool:
        """See `Index.resume`."""
        with self._db.transaction():
            if not self._db.run("DELETE FROM pause WHERE destination = ?", clean(destination)):
                return False
            record_event(self._db, "resume", microseconds(at), who, {"destination": destination})
        return True

    def pauses(self) -> list[Pause]:
        """See `Index.pauses`."""
        return [
            Pause(name, at / 1e6, who, reason) for name, at, who, reason in self._db.json(_PAUSES)
        ]


# Who paused it first, and why, stays until it is resumed.
_PAUSE = "INSERT OR IGNORE INTO pause(destination, at, who, reason) VALUES (?, ?, ?, ?)"
_PAUSES = """
SELECT json_group_array(json_array(destination, at, who, reason)) FROM (
    SELECT * FROM pause ORDER BY destination
)
"""
