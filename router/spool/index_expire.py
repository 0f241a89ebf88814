"""What waits too long for a destination that is down: dead letters, a page at a time.

Owns which deliveries are that old.  Must not know that the destination is down, nor why: it is
told.
"""

from collections.abc import Collection

from router.spool.index_changes import Changes, DeliveryRow, follow
from router.spool.index_database import Database, Names, clean, microseconds
from router.spool.index_gates import Gates
from router.spool.index_types import STATES, DeliveryState, Expired

_PAGE = 1000


class Expiry:
    """Behind `Index.expire`."""

    def __init__(self, db: Database, destinations: Names, gates: Gates) -> None:
        self._db = db
        self._destinations = destinations
        self._gates = gates

    def expire(
        self,
        destination: str,
        before: float,
        reason: str,
        exclude: Collection[int],
        at: float,
        limit: int,
    ) -> Expired:
        """See `Index.expire`."""
        number = self._destinations.find(destination)
        if number is None:
            return Expired()
        old, oldest = self._older(number, microseconds(before), set(exclude), max(limit, 1) + 1)
        more, old = len(old) > limit, old[: max(limit, 1)]
        if not old:
            return Expired(oldest=oldest)
        changes = Changes()
        for row in old:
            row.due_at, row.status, row.reason = None, None, clean(reason)
            changes.move(row, DeliveryState.DEAD, at=microseconds(at))
        follow(self._db, changes)
        self._gates.place(changes)
        with self._db.transaction():
            changes.write(self._db)
        return Expired(len(old), more, oldest)

    def _older(
        self, number: int, before: int, exclude: Collection[int], limit: int
    ) -> tuple[list[DeliveryRow], float | None]:
        """Those that came before a time, the oldest first, and when the next one came.

        Instances are numbered as they come, so the first page that has none of them is the last;
        one among them may be younger, as somebody had it tried again.
        """
        old: list[DeliveryRow] = []
        after, younger = -1, None
        while len(old) < limit:
            page = self._db.json(_OLDEST, number, after, _PAGE)
            older = False
            for since, gate, *row in page:
                if since >= before:
                    younger = since if younger is None else min(younger, since)
                    continue
                older = True
                if gate is None and row[0] not in exclude:
                    old.append(DeliveryRow(row[0], row[1], STATES[row[2]], *row[3:]))
            if not older or len(page) < _PAGE:
                break
            after = page[-1][2]
        return old[:limit], None if younger is None else younger / 1e6


# An operator's retry takes the attempts away and notes its time.
_OLDEST = """
SELECT json_group_array(json_array(
    CASE d.attempts WHEN 0 THEN max(d.updated_at, i.received_at) ELSE i.received_at END, d.gate_id,
    d.instance_id, d.destination_id, d.state, i.length, d.attempts, d.status, d.reason, d.due_at,
    d.updated_at, d.plan_id
)) FROM (
    SELECT * FROM delivery INDEXED BY delivery_open
    WHERE destination_id = ?1 AND state = 0 AND state + 0 <= 2 AND instance_id > ?2
    ORDER BY instance_id LIMIT ?3
) AS d
CROSS JOIN instance AS i ON i.id = d.instance_id
"""
