"""The attempts at a delivery, each with its answer.

Owns their rows: the latest so many of each delivery, and none of one that was made at the first
try, of which the delivery itself has all there is to tell.  Must not know what an answer means.
"""

from router.spool.index_changes import DeliveryRow
from router.spool.index_database import Database, clean, microseconds
from router.spool.index_names import Names
from router.spool.index_types import STATES, Attempt, DeliveryState, Outcome

ATTEMPTS_KEPT = 20
"""Of each delivery; the first ones go first."""

_Row = tuple[int, int, int, int | None, str, int, int | None, str | None]


class Attempts:
    """What one settling has to tell, gathered to be written with it."""

    def __init__(self) -> None:
        self._rows: list[_Row] = []

    def note(self, before: DeliveryRow, outcome: Outcome) -> None:
        """``before`` is the delivery as it was; nothing of it changes."""
        arrived = outcome.state in (DeliveryState.DELIVERED, DeliveryState.UNCOMMITTED)
        first = not before.attempts and arrived
        asked = outcome.attempted or outcome.status is not None or outcome.association
        if first or not asked:
            return
        took = None if outcome.seconds is None else microseconds(max(outcome.seconds, 0.0))
        self._rows.append(
            (
                *(before.instance_id, before.destination_id, microseconds(outcome.at), took),
                *(clean(outcome.association), int(outcome.state), outcome.status),
                clean(outcome.reason) or None,
            )
        )

    def write(self, db: Database) -> None:
        """Into the open transaction; without attempts it costs nothing."""
        if not self._rows:
            return
        keys = list(dict.fromkeys((row[0], row[1]) for row in self._rows))
        last = {(i, d): n for i, d, n in db.json_rows(_LAST, keys)}
        rows: list[tuple[object, ...]] = []
        for row in self._rows:
            number = last[row[0], row[1]] = last.get((row[0], row[1]), 0) + 1
            rows.append((*row[:2], number, *row[2:]))
        db.run_rows(_ADD, rows)
        old = [(i, d, n - ATTEMPTS_KEPT) for (i, d), n in last.items() if n > ATTEMPTS_KEPT]
        if old:
            db.run_rows(_FORGET, old)


def attempts_of(db: Database, destinations: Names, instance_id: int) -> tuple[Attempt, ...]:
    """Those of one instance that are kept, at whatever destination, in their order."""
    return tuple(
        Attempt(
            destination=destinations.name(row[0]),
            at=row[1] / 1e6,
            seconds=None if row[2] is None else row[2] / 1e6,
            association=row[3],
            outcome=STATES[row[4]],
            status=row[5],
            reason=row[6] or "",
        )
        for row in db.json(_OF, instance_id)
    )


def forget_attempts(db: Database, ids: str) -> None:
    """Those of instances that are purged, into the open transaction."""
    db.run(_PURGE, ids)


_LAST = """
WITH wanted(instance_id, destination_id) AS (VALUES {values})
SELECT json_group_array(json_array(instance_id, destination_id, last)) FROM (
    SELECT w.instance_id, w.destination_id, (
        SELECT max(number) FROM attempt AS a
        WHERE a.instance_id = w.instance_id AND a.destination_id = w.destination_id
    ) AS last
    FROM wanted AS w
) WHERE last IS NOT NULL
"""
_ADD = """
INSERT INTO attempt(
    instance_id, destination_id, number, at, took, association, outcome, status, reason
) VALUES {values}
"""
_FORGET = """
WITH o(instance_id, destination_id, number) AS (VALUES {values})
DELETE FROM attempt WHERE (instance_id, destination_id, number) IN (
    SELECT a.instance_id, a.destination_id, a.number
    FROM o CROSS JOIN attempt AS a
        ON a.instance_id = o.instance_id AND a.destination_id = o.destination_id
        AND a.number <= o.number
)
"""
_OF = """
SELECT json_group_array(json_array(
    destination_id, at, took, association, outcome, status, reason
)) FROM (
    SELECT * FROM attempt WHERE instance_id = ? ORDER BY at, destination_id, number
)
"""
_PURGE = "DELETE FROM attempt WHERE instance_id IN (SELECT value FROM json_each(?))"
