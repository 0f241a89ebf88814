"""What destinations took and have not committed yet, and what they were asked.

Owns the transactions of storage commitment that we ask for, by which a delivery goes from
UNCOMMITTED to what the destination says of it.  Must not know how a destination is asked, nor the
reasons of the standard: it is told whether to send again.  PS3.4 annex J.

A transaction is in the index before the destination is asked, so that an answer is known whenever
it comes.  Each time that it is asked again it has one more UID; an answer to any of them counts.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from router.spool.index_changes import Changes, DeliveryRow, follow
from router.spool.index_database import Database, clean, id_list, microseconds, seconds
from router.spool.index_gates import Gates
from router.spool.index_names import Names
from router.spool.index_types import STATES, DeliveryState

COMMITTED = "committed, transaction"
"""As the reason of a delivery, with the Transaction UID behind it."""
LISTED = "listed by the destination (C-FIND)"
"""Likewise, where it was asked what it has."""
PROVEN = (f"*{COMMITTED} 2.25.*[0-9]", f"*{LISTED}")
"""At its end: what stands before that may be a peer's words, which end otherwise."""
_PAGE = 2000
_PAST_KEPT = microseconds(7 * 86400.0)
"""Transactions that are over are known for so long: an answer may come twice."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An instance as a destination is asked for it."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str


Name = str | Reference
"""An instance in an answer: by its SOP Instance UID, whatever its study, or as it was asked for."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """What a destination is asked to commit, in one request; ``asked`` times, this one counted.
    Of instances with one SOP Instance UID there is one reference in each series."""

    id: int
    uid: str
    made_at: float
    asked: int
    references: tuple[Reference, ...]


@dataclass(frozen=True, slots=True)
class Uncommitted:
    """What a destination has still to be asked: ``unasked`` instances (the caller's limit at
    most), one of which it has had since ``oldest``; ``due_at``: when the first transaction is
    asked again."""

    unasked: int = 0
    oldest: float | None = None
    due_at: float | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an instance is not committed, and whether to send it ``again`` may help."""

    reason: str
    again: bool


@dataclass(frozen=True, slots=True)
class Committed:
    """What an answer did.  ``known``: its transaction was asked for.  ``left``: deliveries of it
    that the answer says nothing of; ``foreign``: instances that it names and that were not asked
    for."""

    known: bool
    destination: str = ""
    committed: int = 0
    resent: int = 0
    dead: int = 0
    left: int = 0
    foreign: int = 0


class Commitments:
    """Of an `Index`, with its errors.  Times are seconds since the epoch."""

    def __init__(self, db: Database, destinations: Names, gates: Gates) -> None:
        self._db = db
        self._destinations = destinations
        self._gates = gates

    def uncommitted(self, destination: str, most: int) -> Uncommitted:
        """What a destination has still to be asked, counted up to ``most``."""
        number = self._destinations.find(destination)
        if number is None:
            return Uncommitted()
        unasked, oldest = self._db.json(_UNASKED, number, most)
        due = self._db.value(_NEXT_DUE, number)
        return Uncommitted(unasked, seconds(oldest), seconds(due))

    def ask(
        self, destination: str, uid: str, limit: int, at: float, due_at: float
    ) -> Transaction | None:
        """Make a transaction of up to ``limit`` UNCOMMITTED deliveries that are in none, the oldest
        first, to be asked again at ``due_at``; None when there are none."""
        number = self._destinations.find(destination)
        if number is None:
            return None
        keys = self._db.json(_FIRST_UNASKED, number, limit)
        if not keys:
            return None
        moment = microseconds(at)
        with self._db.transaction():
            made = self._db.value(_MAKE, number, moment, microseconds(due_at), len(keys))
            self._db.run(_NAME, uid, made)
            self._db.run(_ASSIGN, made, number, id_list(keys))
            self._db.run(_FORGET_UIDS, moment - _PAST_KEPT)
            self._db.run(_FORGET, moment - _PAST_KEPT)
        return self._transaction(made, uid)

    def ask_again(self, destination: str, uid: str, at: float, due_at: float) -> Transaction | None:
        """The first transaction that is due by ``at``, under one more UID; None when none is."""
        number = self._destinations.find(destination)
        moment = microseconds(at)
        while number is not None:
            found = self._db.value(_FIRST_DUE, number, moment)
            if found is None:
                return None
            with self._db.transaction():
                if self._finish(found):
                    continue
                self._db.run(_NAME, uid, found)
                self._db.run(_ASKED_AGAIN, moment, microseconds(due_at), found)
            return self._transaction(found, uid)
        return None

    def note(self, number: int, due_at: float, trouble: str) -> None:
        """When a transaction is to be asked again, and what stood in the way now."""
        self._db.run(_NOTE, microseconds(due_at), clean(trouble) or None, number)

    def answer(
        self,
        uid: str,
        committed: Iterable[Name],
        refused: Mapping[Name, Refusal],
        *,
        at: float,
        most: Mapping[str, int],
        words: str,
    ) -> Committed:
        """What the destination says of a transaction.

        What it has committed is DELIVERED, ``words`` being the reason that is noted.  What it
        refused is READY again where that may help, up to ``most`` times (by destination), else
        DEAD; so is what it names in both ways.
        """
        found = self._db.json(_BY_UID, clean(uid))
        if not found:
            return Committed(known=False)
        number, destination = found[0]
        name_of = self._destinations.name(destination)
        rows = self._deliveries(_OF_TRANSACTION, destination, number)
        times = self._times(destination, [row.instance_id for row, _ in rows])
        kept = {_clean(name) for name in committed}
        refusals = {_clean(name): refusal for name, refusal in refused.items()}
        changes, counts = Changes(), Counter[str]()
        failed: list[tuple[object, ...]] = []
        ended: list[int] = []
        for row, reference in rows:
            name = reference.sop_instance_uid
            refusal = refusals.get(name) or refusals.get(reference)
            if refusal is not None:
                sent = times.get(row.instance_id, 0)
                again = refusal.again and sent < most.get(name_of, 0)
                counts["resent" if again else "dead"] += 1
                self._refuse(changes, row, refusal.reason, again=again, at=at)
                if again:
                    failed.append((row.instance_id, destination, sent + 1))
            elif name in kept or reference in kept:
                counts["committed"] += 1
                row.reason = clean(f"{row.reason}; {words}" if row.reason else words)
                changes.move(row, DeliveryState.DELIVERED, at=microseconds(at))
            else:
                counts["left"] += 1
                continue
            ended.append(row.instance_id)
        references = {reference for _, reference in rows}
        names = {reference.sop_instance_uid for reference in references}
        foreign = len((kept | refusals.keys()) - names - references)
        if ended:
            self._write(changes, destination, ended, failed, number)
        return Committed(
            known=True,
            destination=name_of,
            committed=counts["committed"],
            resent=counts["resent"],
            dead=counts["dead"],
            left=counts["left"],
            foreign=foreign if rows else 0,
        )

    def give_up(self, destination: str, made_before: float, reason: str, at: float) -> int:
        """Those of the oldest transaction that was made before a time become DEAD; how many."""
        number = self._destinations.find(destination)
        if number is None:
            return 0
        rows: list[tuple[DeliveryRow, Reference]] = []
        found = None
        while not rows:  # of some an operator may have left nothing
            found = self._db.value(_OLDEST_MADE, number, microseconds(made_before))
            if found is None:
                return 0
            rows = self._deliveries(_OF_TRANSACTION, number, found)
            if not rows:
                with self._db.transaction():
                    self._finish(found)
        changes = Changes()
        for row, _ in rows:
            self._refuse(changes, row, reason, again=False, at=at)
        self._write(changes, number, [row.instance_id for row, _ in rows], [], found)
        return len(rows)

    def accept(self, destination: str, reason: str, at: float, limit: int) -> int:
        """UNCOMMITTED ones become DELIVERED without proof; how many did at this call."""
        number = self._destinations.find(destination)
        if number is None:
            return 0
        rows = self._deliveries(_ANY, number, min(limit, _PAGE))
        changes = Changes()
        for row, _ in rows:
            row.reason = clean(f"{row.reason}; {reason}" if row.reason else reason)
            changes.move(row, DeliveryState.DELIVERED, at=microseconds(at))
        if rows:
            self._write(changes, number, [row.instance_id for row, _ in rows], [], None)
        return len(rows)

    def waiting_at(self) -> list[str]:
        """Destinations that have UNCOMMITTED deliveries."""
        return [
            name for name, number in self._destinations.items() if self._db.value(_SOME, number)
        ]

    # -- one transaction

    def _transaction(self, number: int, uid: str) -> Transaction:
        row = self._db.json(_TRANSACTION, number)
        references = tuple(
            Reference(*reference) for reference in self._db.json(_REFERENCES, number)
        )
        return Transaction(number, uid, row[0] / 1e6, row[1], references)

    def _refuse(
        self, changes: Changes, row: DeliveryRow, reason: str, *, again: bool, at: float
    ) -> None:
        row.due_at = None
        row.reason = clean(reason)
        state = DeliveryState.READY if again else DeliveryState.DEAD
        changes.move(row, state, at=microseconds(at))

    def _deliveries(self, sql: str, *parameters: int) -> list[tuple[DeliveryRow, Reference]]:
        """Each with what its instance is referred to as."""
        return [
            (DeliveryRow(row[4], row[5], STATES[row[6]], *row[7:]), Reference(*row[:4]))
            for row in self._db.json(sql, *parameters)
        ]

    def _times(self, destination: int, ids: Iterable[int]) -> dict[int, int]:
        return dict(self._db.json(_TIMES, destination, id_list(ids)))

    def _write(
        self,
        changes: Changes,
        destination: int,
        ended: Sequence[int],
        failed: Sequence[Sequence[Any]],
        number: int | None,
    ) -> None:
        follow(self._db, changes)
        self._gates.place(changes)
        done = [row.instance_id for row in changes.rows if row.state is not DeliveryState.READY]
        with self._db.transaction():
            changes.write(self._db)
            self._db.run(_UNASSIGN, destination, id_list(ended))
            self._db.run(_FORGET_FAILURES, destination, id_list(done))
            if failed:
                self._db.run_rows(_NOTE_FAILURES, failed)
            if number is not None:
                self._finish(number)

    def _finish(self, number: int) -> bool:
        """Into the open transaction: whether nothing of it is left to answer."""
        return bool(self._db.run(_FINISH, number))


def _clean(name: Name) -> Name:
    return clean(name) if isinstance(name, str) else name


def oldest_uncommitted(db: Database, destination_id: int) -> float | None:
    """When the first came that is UNCOMMITTED at a destination; cheap at any number of them."""
    return seconds(db.value(_OLDEST, destination_id))


def what_for(db: Database, destination_id: int) -> tuple[str, ...]:
    """What UNCOMMITTED deliveries wait for, and why a destination could not be asked."""
    return ("to be committed", *db.json(_TROUBLES, destination_id))


_TROUBLES = """
SELECT json_group_array(trouble) FROM (
    SELECT DISTINCT trouble FROM commitment INDEXED BY commitment_due
    WHERE destination_id = ? AND due_at IS NOT NULL AND trouble IS NOT NULL LIMIT 3
)
"""
_UNASKED = """
SELECT json_array(count(*), min(d.updated_at)) FROM (
    SELECT updated_at FROM delivery INDEXED BY delivery_uncommitted
    WHERE destination_id = ? AND commitment_id IS NULL AND state = 6 LIMIT ?
) AS d
"""
_NEXT_DUE = """
SELECT min(due_at) FROM commitment INDEXED BY commitment_due
WHERE destination_id = ? AND due_at IS NOT NULL
"""
_FIRST_UNASKED = """
SELECT json_group_array(instance_id) FROM (
    SELECT instance_id FROM delivery INDEXED BY delivery_uncommitted
    WHERE destination_id = ? AND commitment_id IS NULL AND state = 6
    ORDER BY instance_id LIMIT ?
)
"""
_MAKE = """
INSERT INTO commitment(destination_id, made_at, asked_at, due_at, asked, instances)
VALUES (?1, ?2, ?2, ?3, 1, ?4) RETURNING id
"""
_NAME = "INSERT INTO commitment_uid(uid, commitment_id) VALUES (?, ?)"
_ASSIGN = """
UPDATE delivery SET commitment_id = ?
WHERE destination_id = ? AND instance_id IN (SELECT value FROM json_each(?))
"""
_UNASSIGN = """
UPDATE delivery SET commitment_id = NULL
WHERE destination_id = ? AND instance_id IN (SELECT value FROM json_each(?))
"""
_FIRST_DUE = """
SELECT id FROM commitment INDEXED BY commitment_due
WHERE destination_id = ? AND due_at IS NOT NULL AND due_at <= ? ORDER BY due_at, id LIMIT 1
"""
# What was made while the clock was ahead would be late, or too old, only when that time comes.
_ASKED_AGAIN = """
UPDATE commitment
SET made_at = min(made_at, ?1), asked_at = ?1, due_at = ?2, asked = asked + 1, trouble = NULL
WHERE id = ?3
"""
_NOTE = "UPDATE commitment SET due_at = ?, trouble = ? WHERE id = ? AND due_at IS NOT NULL"
_BY_UID = """
SELECT json_group_array(json_array(c.id, c.destination_id))
FROM commitment_uid AS u CROSS JOIN commitment AS c ON c.id = u.commitment_id
WHERE u.uid = ?
"""
_ROW = """
SELECT json_group_array(json_array(
    c.sop_class_uid, i.sop_instance_uid, c.study_instance_uid, c.series_instance_uid,
    d.instance_id, d.destination_id, d.state, i.length, d.attempts, d.status, d.reason, d.due_at,
    d.updated_at, d.plan_id, d.gate_id
)) FROM (
    SELECT * FROM delivery INDEXED BY delivery_uncommitted
    WHERE destination_id = ? AND state = 6 {which}
) AS d CROSS JOIN instance AS i ON i.id = d.instance_id
CROSS JOIN context AS c ON c.id = i.context_id
"""
_OF_TRANSACTION = _ROW.format(which="AND commitment_id = ? ORDER BY instance_id")
_ANY = _ROW.format(which="LIMIT ?")
_TIMES = """
SELECT json_group_array(json_array(instance_id, times)) FROM commitment_failure
WHERE destination_id = ? AND instance_id IN (SELECT value FROM json_each(?))
"""
_NOTE_FAILURES = """
INSERT OR REPLACE INTO commitment_failure(instance_id, destination_id, times) VALUES {values}
"""
_FORGET_FAILURES = """
DELETE FROM commitment_failure
WHERE destination_id = ? AND instance_id IN (SELECT value FROM json_each(?))
"""
_FINISH = """
UPDATE commitment SET due_at = NULL
WHERE id = ?1 AND due_at IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM delivery INDEXED BY delivery_uncommitted
    WHERE destination_id = commitment.destination_id AND commitment_id = ?1 AND state = 6
)
"""
_OLDEST_MADE = """
SELECT id FROM commitment INDEXED BY commitment_due
WHERE destination_id = ? AND due_at IS NOT NULL AND made_at < ? ORDER BY made_at LIMIT 1
"""
_TRANSACTION = "SELECT json_array(made_at, asked) FROM commitment WHERE id = ?"
_REFERENCES = """
SELECT json_group_array(json_array(sop, uid, study, series)) FROM (
    SELECT c.sop_class_uid AS sop, i.sop_instance_uid AS uid, c.study_instance_uid AS study,
        c.series_instance_uid AS series
    FROM commitment AS m
    CROSS JOIN delivery AS d INDEXED BY delivery_uncommitted
        ON d.destination_id = m.destination_id AND d.commitment_id = m.id AND d.state = 6
    CROSS JOIN instance AS i ON i.id = d.instance_id
    CROSS JOIN context AS c ON c.id = i.context_id
    WHERE m.id = ? GROUP BY sop, uid, study, series ORDER BY min(i.id)
)
"""
_SOME = """
SELECT 1 FROM delivery INDEXED BY delivery_uncommitted
WHERE destination_id = ? AND state = 6 LIMIT 1
"""
# The first of each transaction and of what was not asked for yet: the transactions are few.
_OLDEST = """
SELECT i.received_at FROM instance AS i WHERE i.id = (
    SELECT min(first) FROM (
        SELECT (
            SELECT min(instance_id) FROM delivery INDEXED BY delivery_uncommitted
            WHERE destination_id = ?1 AND commitment_id = m.id AND state = 6
        ) AS first
        FROM commitment AS m INDEXED BY commitment_due
        WHERE m.destination_id = ?1 AND m.due_at IS NOT NULL
        UNION ALL
        SELECT min(instance_id) FROM delivery INDEXED BY delivery_uncommitted
        WHERE destination_id = ?1 AND commitment_id IS NULL AND state = 6
    )
)
"""
_FORGET_UIDS = """
DELETE FROM commitment_uid WHERE commitment_id IN (
    SELECT id FROM commitment INDEXED BY commitment_past WHERE due_at IS NULL AND asked_at < ?
)
"""
_FORGET = "DELETE FROM commitment WHERE due_at IS NULL AND asked_at < ?"
