"""The queues: what a destination is to send next, and how that ended.

Owns the order of a queue and the transitions of a delivery that the gateway makes by itself;
those that people make are in `index_control`.  Must not know associations or retry policies.
"""

import contextlib
import sys
from collections.abc import Collection, Sequence

from router.spool.errors import SpoolFull
from router.spool.index_attempts import Attempts
from router.spool.index_changes import Changes, DeliveryRow, follow
from router.spool.index_database import (
    GATED,
    Database,
    clean,
    id_list,
    microseconds,
    ref_of,
    seconds,
)
from router.spool.index_gates import Gates
from router.spool.index_names import Names
from router.spool.index_peers import Peers
from router.spool.index_plans import Plans
from router.spool.index_spent import Refusals
from router.spool.index_types import STATES, DeliveryState, Outcome, Settled, Waiting
from router.spool.index_words import check_words

_PROMOTED_AT_ONCE = 2000
_NEVER = microseconds(float("inf"))
_LONG_WAIT = microseconds(300.0)
_CLOCK_SLACK = microseconds(60.0)


class Queues:
    """Behind `Index.lease`, `next_due` and `settle`.

    Keeps in memory, by destination, a time before which nothing that was deferred is due, and
    the last time that it was asked at.
    """

    def __init__(
        self, db: Database, destinations: Names, gates: Gates, plans: Plans, peers: Peers
    ) -> None:
        self._db = db
        self._destinations = destinations
        self._plans = plans
        self._gates = gates
        self._peers = peers
        self._due: dict[int, int] = {}
        self._seen: dict[int, int] = {}
        self._clock_set: set[int] = set()

    def lease(
        self,
        destination: str,
        limit: int,
        now: float,
        exclude: Collection[int],
        least_priority: int | None = None,
    ) -> list[Waiting]:
        """See `Index.lease`."""
        number = self._destinations.find(destination)
        if number is None or limit <= 0:
            return []
        moment = microseconds(now)
        statement = _LEASE_READY
        self._watch_clock(number, moment)
        if self._due.get(number, 0) <= moment:
            try:
                self._promote(number, moment)
            except SpoolFull:
                # A full disk must not stop what would empty it: sort what is due instead.
                statement = _LEASE_ALL
        if least_priority is not None:
            # Only the head of the queue, which is sorted by it: what is left out costs nothing.
            statement = statement.replace(_ALIKE, f"{_ALIKE} AND priority >= {least_priority:d}")
        rows = self._db.json(statement, number, id_list(exclude), limit, moment)
        for row in rows:
            check_words(self._db, *row[15:17], *(row[8], row[12], row[7], row[9], row[10]))
        return [
            Waiting(
                ref=ref_of(row),
                sop_class_uid=row[7],
                sop_instance_uid=row[8],
                transfer_syntax_uid=row[9],
                study_instance_uid=row[10],
                received_at=row[11] / 1e6,
                calling_ae=row[12],
                attempts=row[13],
                priority=row[14],
            )
            for row in rows
        ]

    def _promote(self, destination: int, moment: int) -> None:
        """Put what was deferred and is due among what may go, so many at a time."""
        promoted = self._db.run(_PROMOTE, destination, moment, _PROMOTED_AT_ONCE)
        if promoted < _PROMOTED_AT_ONCE:
            earliest = self._db.value(_EARLIEST, destination)
            self._due[destination] = _NEVER if earliest is None else earliest

    def _watch_clock(self, destination: int, moment: int) -> None:
        """Free what a clock that was ahead deferred: it would wait until that time comes."""
        if moment < self._seen.get(destination, moment + 1):
            self._clock_set.add(destination)
        self._seen[destination] = moment
        if destination in self._clock_set:
            far, ahead = moment + _LONG_WAIT, moment + _CLOCK_SLACK
            with contextlib.suppress(SpoolFull):  # another time
                freed = self._db.run(_FREE, destination, far, ahead, _PROMOTED_AT_ONCE)
                if freed < _PROMOTED_AT_ONCE:
                    self._clock_set.discard(destination)

    def next_due(
        self, destination: str, exclude: Collection[int], least_priority: int | None = None
    ) -> float | None:
        """See `Index.next_due`."""
        number = self._destinations.find(destination)
        if number is None:
            return None
        excluded = id_list(exclude)
        least = -sys.maxsize if least_priority is None else least_priority
        if self._db.value(_ANY_READY, number, least, excluded):
            return 0.0
        earliest = self._db.value(_EARLIEST_BUT, number, least, excluded)
        return seconds(earliest)

    def settle(self, outcomes: Sequence[Outcome]) -> Settled:
        """See `Index.settle`."""
        repeated: list[tuple[int, str]] = []
        unknown: list[tuple[int, str]] = []
        changes, attempts = Changes(), Attempts()
        refusals = Refusals(self._db, self._destinations, self._plans)
        numbers = {o.destination: self._destinations.find(o.destination) for o in outcomes}
        keys = {(o.instance_id, numbers[o.destination]) for o in outcomes}
        rows = self.rows([(i, number) for i, number in keys if number is not None])
        elsewhere: set[tuple[int, int]] = set()
        applied = 0
        for outcome in outcomes:
            key = (outcome.instance_id, outcome.destination)
            row = rows.get((outcome.instance_id, numbers[outcome.destination]))
            if row is None:
                unknown.append(key)
                continue
            state = _next_state(row.state, outcome.state)
            if state is None:
                repeated.append(key)
                continue
            applied += 1
            attempts.note(row, outcome)
            if row.gate_id is None:  # else it was put behind one while it was being sent
                due = outcome.due_at if state is DeliveryState.READY else None
                row.due_at = None if due is None else microseconds(due)
            if state is DeliveryState.DEAD and row.plan_id is not None:
                state = refusals.turn(row, outcome)
            if state in _ARRIVED and self._peers.is_past(outcome.destination, outcome.peer):
                elsewhere.add((row.instance_id, row.destination_id))
            row.attempts += outcome.attempted
            row.status = outcome.status
            if state is not DeliveryState.HELD:
                row.reason = clean(_reason(row, outcome))
            changes.move(row, state, at=microseconds(outcome.at))
        revived = gated = 0
        if applied:
            revived = follow(self._db, changes, elsewhere=elsewhere).revived
            gated = self._gates.place(changes)
            with self._db.transaction():
                changes.write(self._db)
                attempts.write(self._db)
                refusals.write()
                self._peers.write()
            self._peers.written()
            self.note_due(changes)
        return Settled(
            *(applied, tuple(repeated), tuple(unknown), revived, gated, tuple(refusals.names))
        )

    def rows(self, keys: Sequence[tuple[int, int]]) -> dict[tuple[int, int | None], DeliveryRow]:
        """Deliveries as they are, by (instance id, destination id)."""
        return {
            (row[0], row[1]): DeliveryRow(row[0], row[1], STATES[row[2]], *row[3:])
            for row in self._db.json_rows(_ROWS, keys)
        }

    def note_due(self, changes: Changes) -> None:
        """Keep the times in memory a lower bound after deliveries were deferred."""
        for row in changes.rows:
            due = row.due_at
            if due is not None and due < self._due.get(row.destination_id, 0):
                self._due[row.destination_id] = due


def _reason(row: DeliveryRow, outcome: Outcome) -> str:
    """The outcome's, behind the member in whose place the delivery was made (`index_divert`)."""
    before = (row.reason or "").partition("; ")[0]
    if row.plan_id is None or not before.startswith("in place of "):
        return outcome.reason
    return f"{before}; {outcome.reason}" if outcome.reason else before


def _next_state(state: DeliveryState, outcome: DeliveryState) -> DeliveryState | None:
    """Where an outcome takes a delivery; None when its fate was settled before.

    What was delivered was delivered, even if an operator dropped it meanwhile; what was held
    meanwhile stays held when it is to be tried again.  To be UNCOMMITTED is to be delivered, but
    for what the destination has still to say: no attempt says it.
    """
    if outcome not in _OUTCOMES:
        raise ValueError(f"{outcome!r} is not an outcome of a delivery")
    if state is DeliveryState.READY:
        return outcome
    if state is DeliveryState.HELD:
        return DeliveryState.HELD if outcome is DeliveryState.READY else outcome
    late = state in (DeliveryState.DEAD, DeliveryState.DROPPED)
    return outcome if late and outcome in _ARRIVED else None


_ARRIVED = (DeliveryState.DELIVERED, DeliveryState.UNCOMMITTED)
_OUTCOMES = (
    DeliveryState.READY,
    *_ARRIVED,
    DeliveryState.DEAD,
    DeliveryState.DROPPED,
)

_ALIKE = "destination_id = ?1 AND state = 0"
_LEASE = """
SELECT json_group_array(json_array(
    i.id, i.generation, i.offset, i.data_offset, i.length, i.crc, i.large,
    c.sop_class_uid, i.sop_instance_uid, c.transfer_syntax_uid, c.study_instance_uid,
    i.received_at, c.calling_ae, d.attempts, d.priority,
    i.sop_key, c.sum
)) FROM (
    SELECT instance_id, attempts, priority FROM delivery {index}
    WHERE destination_id = ?1 AND state = 0 AND {due}
        AND instance_id NOT IN (SELECT value FROM json_each(?2))
    ORDER BY priority DESC, study_order, instance_id LIMIT ?3
) AS d
CROSS JOIN instance AS i ON i.id = d.instance_id
CROSS JOIN context AS c ON c.id = i.context_id
"""
_LEASE_READY = _LEASE.format(
    index="INDEXED BY delivery_ready", due="due_at IS NULL AND ?4 IS NOT NULL"
)
_LEASE_ALL = _LEASE.format(index="", due="(due_at IS NULL OR due_at <= ?4)")
_PROMOTE = """
UPDATE delivery SET due_at = NULL
WHERE destination_id = ?1 AND instance_id IN (
    SELECT instance_id FROM delivery INDEXED BY delivery_due
    WHERE destination_id = ?1 AND state = 0 AND due_at IS NOT NULL AND due_at <= ?2
    ORDER BY due_at LIMIT ?3
)
"""
_FREE = f"""
UPDATE delivery SET due_at = NULL
WHERE destination_id = ?1 AND instance_id IN (
    SELECT instance_id FROM delivery INDEXED BY delivery_due
    WHERE destination_id = ?1 AND state = 0 AND due_at IS NOT NULL AND due_at > ?2
        AND due_at < {GATED} AND updated_at > ?3
    LIMIT ?4
)
"""
_EARLIEST = """
SELECT min(due_at) FROM delivery INDEXED BY delivery_due
WHERE destination_id = ? AND state = 0 AND due_at IS NOT NULL
"""
_EARLIEST_BUT = """
SELECT due_at FROM delivery INDEXED BY delivery_due
WHERE destination_id = ? AND state = 0 AND due_at IS NOT NULL AND priority >= ?
    AND instance_id NOT IN (SELECT value FROM json_each(?))
ORDER BY due_at LIMIT 1
"""
_ANY_READY = """
SELECT 1 FROM delivery INDEXED BY delivery_ready
WHERE destination_id = ? AND state = 0 AND due_at IS NULL AND priority >= ?
    AND instance_id NOT IN (SELECT value FROM json_each(?))
LIMIT 1
"""
_ROWS = """
WITH wanted(instance_id, destination_id) AS (VALUES {values})
SELECT json_group_array(json_array(
    d.instance_id, d.destination_id, d.state, i.length, d.attempts, d.status, d.reason,
    d.due_at, d.updated_at, d.plan_id, d.gate_id
))
FROM wanted
CROSS JOIN delivery AS d
    ON d.instance_id = wanted.instance_id AND d.destination_id = wanted.destination_id
CROSS JOIN instance AS i ON i.id = d.instance_id
"""
