"""What waits too long for a destination that is down: dead letters, a page at a time.

Owns which deliveries are that old.  Must not know that the destination is down, nor why: it is
told.
"""

from collections.abc import Collection

from router.spool.index_changes import Changes, DeliveryRow, follow
from router.spool.index_database import Database, clean, microseconds
from router.spool.index_gates import Gates
from router.spool.index_names import Names
from router.spool.index_types import STATES, DeliveryState, Expired

_PAGE, _PAGES = 1000, 20
"""Rows that are looked through at a time, and how often in one call: some 40 ms."""


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
        after: int,
    ) -> Expired:
        """See `Index.expire`."""
        number = self._destinations.find(destination)
        if number is None:
            return Expired()
        limit = max(limit, 1)
        where = number, microseconds(before), set(exclude)
        old, oldest, reached = self._older(*where, limit + 1, after)
        if len(old) > limit:
            old = old[:limit]
            reached = old[-1].instance_id
        if not old:
            return Expired(0, oldest, reached)
        changes = Changes()
        for row in old:
            row.due_at, row.status, row.reason = None, None, clean(reason)
            changes.move(row, DeliveryState.DEAD, at=microseconds(at))
        follow(self._db, changes)
        self._gates.place(changes)
        with self._db.transaction():
            changes.write(self._db)
        return Expired(len(old), oldest, reached)

    def _older(
        self, number: int, before: int, exclude: Collection[int], limit: int, after: int
    ) -> tuple[list[DeliveryRow], float | None, int | None]:
        """Those that came before a time, the oldest first, when the next one came, and the instance
        behind which to go on.

        Instances are numbered as they come, so the first page that has none of them is the last;
        one among them may be younger, as somebody had it tried again.  There may be any number of
        old ones behind gates, which is why it ends after some pages.
        """
        old: list[DeliveryRow] = []
        younger, reached = None, None
        for _ in range(_PAGES):
            page = self._db.json(_OLDEST, number, after, _PAGE)
            older = False
            for since, gate, *row in page:
                if since >= before:
                    younger = since if younger is None else min(younger, since)
                    continue
                older = True
                if gate is None and row[0] not in exclude:
                    old.append(DeliveryRow(row[0], row[1], STATES[row[2]], *row[3:]))
            reached = None
            if not older or len(page) < _PAGE:
                break
            after = reached = page[-1][2]
            if len(old) >= limit:
                break
        return old, None if younger is None else younger / 1e6, reached


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
