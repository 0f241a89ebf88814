"""Commitments that peers asked of us: what for, what came of each instance, who was told.

Owns their tables, and the search for instances by UID alone.  Must not know what makes an instance
safe, nor associations.  A promise that is kept here is lost with the index, as the fates of
deliveries are: the peer has to ask again.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from typing import Any

from router.spool.index_commitments import PROVEN
from router.spool.index_database import Database, clean, id_list, microseconds, ref_of, seconds
from router.spool.index_names import Names
from router.spool.index_schema import sop_key
from router.spool.index_types import STATES, DeliveryState, Disposition
from router.spool.index_unkept import OUTDATED, SUPERSEDED
from router.spool.record import DAMAGED, Ref

_STEP = 20_000
"""Rows of the index of instances that are looked through at a time: two to ten milliseconds, in
which nobody else is kept from running."""
_KEPT = 10_000
"""Promises that are over and still told of."""
_FIRST = (2**62, 2**62, 2**62, 2**62)
_DAMAGED = f"{DAMAGED}*"
_DAMAGED_ELSEWHERE = f"in place of *; {DAMAGED}*"
"""As the reason of a delivery to another member of its plan; see `index_deliver`."""
_TAKEN = (DeliveryState.DELIVERED, DeliveryState.UNCOMMITTED)
_WANTED = "CREATE TEMP TABLE IF NOT EXISTS wanted(sop_key INTEGER PRIMARY KEY) STRICT"
_ROW = "(study_order, sop_key, crc, id)"
_STEP_END = f"""
SELECT json_array(study_order, sop_key, crc, id) FROM instance INDEXED BY instance_sop
WHERE {_ROW} < (?, ?, ?, ?)
ORDER BY study_order DESC, sop_key DESC, crc DESC, id DESC LIMIT 1 OFFSET ?
"""
# What is wanted is picked out in one statement: what it passes over never becomes an object.
_IN_STEP = f"""
SELECT json_group_array(id) FROM (
    SELECT sop_key, id FROM instance INDEXED BY instance_sop WHERE {_ROW} < (?, ?, ?, ?)
    ORDER BY study_order DESC, sop_key DESC, crc DESC, id DESC LIMIT ?
) WHERE sop_key IN (SELECT sop_key FROM temp.wanted)
"""
_AFTER_END = "SELECT id FROM instance WHERE id > ? AND id <= ? ORDER BY id LIMIT 1 OFFSET ?"
_AFTER = """
SELECT json_group_array(id) FROM instance NOT INDEXED
WHERE id > ? AND id <= ? AND sop_key IN (SELECT sop_key FROM temp.wanted)
"""


class PromiseState(IntEnum):
    """How far it is."""

    WEIGHING = 0
    """Of some instance it is not decided yet."""
    REPORTING = 1
    """Decided; the peer is to be told."""
    REPORTED = 2
    GIVEN_UP = 3
    """The peer could not be told."""


_STATES = tuple(PromiseState)
_OPEN = "state <= 1"


@dataclass(frozen=True, slots=True)
class Promise:
    """One transaction of a peer.

    ``peer_ae`` is its AE title and ``own_ae`` the one of ours that it asked; ``remote`` is its
    name in the configuration, ``association`` the one on which it asked.  ``attempts`` to report
    were in vain, ``reason`` is why the last one was.  ``committed`` and ``failed`` count what is
    decided; ``settled_at`` is when it was over.
    """

    id: int
    transaction_uid: str
    remote: str
    peer_ae: str
    own_ae: str
    association: str
    asked_at: float
    state: PromiseState
    due_at: float | None
    attempts: int
    reason: str
    items: int
    committed: int
    failed: int
    settled_at: float | None


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: ``items`` are pairs of SOP Class and SOP Instance UID."""

    transaction_uid: str
    remote: str
    peer_ae: str
    own_ae: str
    association: str
    items: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class PromiseItem:
    """One reference; ``verdict`` is 0 when it is committed, a Failure Reason when it is not, None
    when that is not decided."""

    number: int
    sop_class_uid: str
    sop_instance_uid: str
    verdict: int | None


@dataclass(frozen=True, slots=True)
class Kept:
    """An instance that the index knows; ``deliveries`` by destination.  Of one that repeats
    another the state is that one's, DELIVERED when it is gone.

    ``content`` is the length and the CRC of its data set: those of one UID may differ.
    ``damaged``: the bytes in the spool are known not to be those, and no destination has them.
    ``torn``: a start found them so already, and it may never have been acknowledged.
    ``present``: whether they are there at all, where that was looked at; None: nobody can tell now.
    ``outdated``: another content of its UID came later, and was given up (see `index_unkept`);
    ``superseded``: that was taken by somebody, and is purged.
    ``proven``: the destinations that it is DELIVERED to and that have said that they keep it.
    """

    instance_id: int
    sop_class_uid: str
    sop_instance_uid: str
    disposition: Disposition
    deliveries: Mapping[str, DeliveryState]
    content: tuple[int, int] = (0, 0)
    damaged: bool = False
    present: bool | None = True
    outdated: bool = False
    proven: frozenset[str] = frozenset()
    superseded: bool = False
    torn: bool = False


Place = tuple[int, int, int, int]
"""How far a search is."""


class Promises:
    """Behind `Index.promises`; may raise as its other methods do."""

    def __init__(
        self, db: Database, destinations: Names, overtaken: Collection[tuple[int, int]] = ()
    ) -> None:
        self._db = db
        self._destinations = destinations
        self._overtaken = overtaken
        self._wanted: set[str] = set()

    def ask(self, asked: Asked, at: float, due_at: float) -> tuple[str, int]:
        """Note a request: ``new``, ``known`` when the same is under way, or ``conflict`` when its
        transaction UID stands for other instances that are; and its id.

        One that is over makes room for a new one with its UID.
        """
        digest = _digest(asked.items)
        with self._db.transaction():
            row = self._db.value(
                "SELECT json_array(id, state, digest) FROM promise"
                " WHERE remote = ? AND transaction_uid = ?",
                clean(asked.remote),
                clean(asked.transaction_uid),
            )
            if row is not None:
                number, state, known = json.loads(row)
                if state <= PromiseState.REPORTING:
                    return "known" if known == digest else "conflict", number
                self._forget([number])
            self._db.run(
                "INSERT INTO promise(transaction_uid, remote, peer_ae, own_ae, association, digest,"
                " asked_at, state, due_at, attempts, reason, items, committed, failed)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, 0, '', ?, 0, 0)",
                clean(asked.transaction_uid),
                clean(asked.remote),
                clean(asked.peer_ae),
                clean(asked.own_ae),
                clean(asked.association),
                digest,
                microseconds(at),
                microseconds(due_at),
                len(asked.items),
            )
            number = self._db.value("SELECT last_insert_rowid()")
            self._db.run_rows(
                "INSERT INTO promise_item(promise_id, number, sop_class_uid, sop_instance_uid)"
                " VALUES {values}",
                [
                    [number, n, clean(class_uid), clean(instance_uid)]
                    for n, (class_uid, instance_uid) in enumerate(asked.items)
                ],
            )
        return "new", number

    def due(self, now: float, busy: Collection[str], limit: int) -> list[Promise]:
        """Open ones that are due, all of one remote that is not among ``busy``: the one of whom
        one has been due longest."""
        remote = self._db.value(
            f"SELECT remote FROM promise WHERE {_OPEN} AND due_at <= ?"
            " AND remote NOT IN (SELECT value FROM json_each(?)) ORDER BY due_at, id LIMIT 1",
            microseconds(now),
            json.dumps(list(busy)),
        )
        if remote is None:
            return []
        rest = f"{_OPEN} AND due_at <= ? AND remote = ? ORDER BY due_at, id LIMIT ?"
        return self._rows(rest, microseconds(now), remote, limit)

    def next_due(self, busy: Collection[str]) -> float | None:
        """When an open one is due whose remote is not among ``busy``; None when there is none."""
        sql = f"SELECT min(due_at) FROM promise WHERE {_OPEN}"
        names = json.dumps(list(busy))
        return seconds(
            self._db.value(f"{sql} AND remote NOT IN (SELECT value FROM json_each(?))", names)
        )

    def mend_times(self, now: float, longest: float) -> None:
        """Open ones that are due later than that from now, as the clock was ahead, are due now."""
        last = self._db.value(f"SELECT max(due_at) FROM promise WHERE {_OPEN}")
        if last is not None and last > microseconds(now + longest):
            self._db.run(
                "UPDATE promise SET due_at = ?1, asked_at = min(asked_at, ?1)"
                f" WHERE {_OPEN} AND due_at > ?2",
                microseconds(now),
                microseconds(now + longest),
            )

    def open(self) -> int:
        """How many are not over."""
        return int(self._db.value(f"SELECT count(*) FROM promise WHERE {_OPEN}"))

    def open_items(self) -> int:
        """How many references those have."""
        return int(self._db.value(f"SELECT coalesce(sum(items), 0) FROM promise WHERE {_OPEN}"))

    def listing(self, limit: int, *, everything: bool = False) -> list[Promise]:
        """Those that are not over, or ``everything`` that is still known; the latest first."""
        where = "1" if everything else _OPEN
        return self._rows(f"{where} ORDER BY id DESC LIMIT ?", limit)

    def items(self, promise_id: int) -> list[PromiseItem]:
        """Its references in their order; none once it is over."""
        rows = self._db.json(
            "SELECT json_group_array(json_array(number, sop_class_uid, sop_instance_uid, verdict))"
            " FROM (SELECT * FROM promise_item WHERE promise_id = ? ORDER BY number)",
            promise_id,
        )
        return [PromiseItem(*row) for row in rows]

    def weighed(
        self, promise_id: int, verdicts: Mapping[int, int], state: PromiseState, due_at: float
    ) -> None:
        """Note what was decided of its references, by number, and when to look at it again."""
        with self._db.transaction():
            if verdicts:
                self._db.run(
                    "UPDATE promise_item SET verdict = v.value FROM json_each(?) AS v"
                    " WHERE promise_id = ? AND number = CAST(v.key AS INTEGER)"
                    " AND (v.value <> 0 OR coalesce(verdict, 0) = 0)",
                    _json_object(verdicts),
                    promise_id,
                )
            self._db.run(
                "UPDATE promise SET state = ?, due_at = ?, (committed, failed) ="
                " (SELECT count(*) FILTER (WHERE verdict = 0), count(*) FILTER (WHERE verdict > 0)"
                "  FROM promise_item WHERE promise_id = promise.id) WHERE id = ?",
                int(state),
                microseconds(due_at),
                promise_id,
            )

    def hasten(self, promise_id: int, due_at: float) -> None:
        """It is due then."""
        self._db.run(
            f"UPDATE promise SET due_at = ? WHERE id = ? AND {_OPEN}",
            microseconds(due_at),
            promise_id,
        )

    def put_off(self, promise_id: int, reason: str, due_at: float) -> None:
        """An attempt to report was in vain."""
        self._db.run(
            "UPDATE promise SET attempts = attempts + 1, reason = ?, due_at = ?"
            f" WHERE id = ? AND {_OPEN}",
            clean(reason),
            microseconds(due_at),
            promise_id,
        )

    def settle(self, promise_id: int, state: PromiseState, reason: str, at: float) -> None:
        """It is over; its references are forgotten, and the oldest that are over with them."""
        with self._db.transaction():
            self._db.run(
                "UPDATE promise SET state = ?, reason = ?, due_at = NULL, settled_at = ?"
                " WHERE id = ?",
                int(state),
                clean(reason),
                microseconds(at),
                promise_id,
            )
            self._db.run("DELETE FROM promise_item WHERE promise_id = ?", promise_id)
            self._db.run(f"DELETE FROM promise WHERE NOT ({_OPEN}) AND id <= ?", promise_id - _KEPT)

    def _forget(self, ids: Sequence[int]) -> None:
        for table, column in (("promise_item", "promise_id"), ("promise", "id")):
            self._db.run(
                f"DELETE FROM {table} WHERE {column} IN (SELECT value FROM json_each(?))",
                id_list(ids),
            )

    def _rows(self, rest: str, *parameters: object) -> list[Promise]:
        rows = self._db.json(
            "SELECT json_group_array(json_array(id, transaction_uid, remote, peer_ae, own_ae,"
            " association, asked_at, state, due_at, attempts, reason, items, committed, failed,"
            f" settled_at)) FROM (SELECT * FROM promise WHERE {rest})",
            *parameters,
        )
        return [_promise(row) for row in rows]

    # -- finding instances ---------------------------------------------------------------------

    def want(self, uids: Sequence[str], *, anew: bool) -> None:
        """`look` and `look_after` are for the instances with these UIDs from now on; ``anew``: no
        longer for others."""
        if anew:
            self._db.run(_WANTED)
            self._db.run("DELETE FROM temp.wanted")
            self._wanted.clear()
        self._wanted.update(uids)
        self._db.run(
            "INSERT OR IGNORE INTO temp.wanted SELECT value FROM json_each(?)",
            id_list([sop_key(uid) for uid in uids]),
        )

    def newest(self) -> int:
        """The highest id of an instance, 0 without any; for lower ones see `overtaken`."""
        return int(self._db.value("SELECT coalesce(max(id), 0) FROM instance"))

    def look(self, place: Place | None) -> tuple[list[Kept], Place | None]:
        """Some of the instances that are wanted, and where to go on; None at the end.

        From the study that came last back to the first, a bounded part at each call: without
        its study an instance can only be found so (see `index_schema`).
        """
        begin = place or _FIRST
        end = self._db.value(_STEP_END, *begin, _STEP - 1)
        ids = self._db.json(_IN_STEP, *begin, _STEP)
        return self._named(ids), None if end is None else tuple(json.loads(end))

    def look_after(self, after: int, until: int) -> tuple[list[Kept], int]:
        """Some of those that are wanted and have an id above ``after``, up to ``until``; and up to
        which one it looked."""
        end = self._db.value(_AFTER_END, after, until, _STEP - 1)
        last = until if end is None else int(end)
        return self._named(self._db.json(_AFTER, after, last)), last

    def overtaken(self, uids: Collection[str]) -> list[Kept]:
        """Those with these UIDs that came behind one of a higher number, where `look_after` may not
        look any more; as far as is known."""
        if not self._overtaken:
            return []
        keys = set(map(sop_key, uids))
        found = self.kept([number for key, number in self._overtaken if key in keys])
        return [one for one in found if one.sop_instance_uid in uids]

    def _named(self, ids: Sequence[int]) -> list[Kept]:
        return [one for one in self.kept(ids) if one.sop_instance_uid in self._wanted]

    def kept(self, ids: Sequence[int]) -> list[Kept]:
        """Those of these instances that there are."""
        if not ids:
            return []
        deliveries: dict[int, dict[str, DeliveryState]] = {number: {} for number in ids}
        damaged: set[int] = set()
        proven: dict[int, set[str]] = {number: set() for number in ids}
        for number, destination, state, original, gone, bad, kept in self._deliveries(ids):
            name = self._destinations.name(destination)
            deliveries[number][name] = _state(state, original, gone)
            if bad:
                damaged.add(number)
            if kept and deliveries[number][name] is DeliveryState.DELIVERED:
                proven[number].add(name)
        rows = self._db.json(
            "SELECT json_group_array(json_array(i.id, c.sop_class_uid, i.sop_instance_uid,"
            " i.disposition, i.length, i.crc, coalesce(i.reason, c.reason) GLOB ?,"
            " coalesce(i.reason, '') GLOB ?, coalesce(i.reason, '') GLOB ?))"
            " FROM json_each(?) AS j CROSS JOIN instance AS i ON i.id = j.value"
            " CROSS JOIN context AS c ON c.id = i.context_id",
            *(_DAMAGED, OUTDATED, SUPERSEDED),
            id_list(ids),
        )
        return [
            Kept(
                *(number, class_uid, uid, Disposition(disposition), deliveries[number]),
                content=(length, crc),
                # What a destination took was whole: the CRC is checked before it has all of it.
                damaged=(bool(bad) or number in damaged)
                and not any(state in _TAKEN for state in deliveries[number].values()),
                outdated=bool(old),
                proven=frozenset(proven[number]),
                superseded=bool(late),
                torn=bool(bad),
            )
            for number, class_uid, uid, disposition, length, crc, bad, old, late in rows
        ]

    def refs(self, ids: Collection[int]) -> dict[int, Ref]:
        """Where the records of these instances lie; of those that there are."""
        rows = self._db.json(
            "SELECT json_group_array(json_array(i.id, i.generation, i.offset, i.data_offset,"
            " i.length, i.crc, i.large))"
            " FROM json_each(?) AS j CROSS JOIN instance AS i ON i.id = j.value",
            id_list(ids),
        )
        return {row[0]: ref_of(row) for row in rows}

    def _deliveries(
        self, ids: Sequence[int]
    ) -> list[tuple[int, int, int, int | None, int, int, int]]:
        """Instance, destination, state, that of what it repeats, whether that is gone, whether it
        ended as the bytes are damaged, and whether its destination has said that it keeps it, or
        what it repeats.  Of what is gone nobody knows that any more: it counts as said."""
        rows = self._db.json(
            "SELECT json_group_array(json_array(d.instance_id, d.destination_id, d.state, o.state,"
            " d.duplicate_of IS NOT NULL AND NOT EXISTS"
            "  (SELECT 1 FROM instance WHERE id = d.duplicate_of),"
            " coalesce(d.reason, '') GLOB ? OR coalesce(d.reason, '') GLOB ?,"
            f" {_is_proven('d')} OR d.state = {int(DeliveryState.DUPLICATE)} AND ("
            f"  {_is_proven('o')}"
            "  OR NOT EXISTS (SELECT 1 FROM instance WHERE id = d.duplicate_of))))"
            " FROM json_each(?) AS j CROSS JOIN delivery AS d ON d.instance_id = j.value"
            " LEFT JOIN delivery AS o ON o.instance_id = d.duplicate_of"
            "  AND o.destination_id = d.destination_id",
            *(_DAMAGED, _DAMAGED_ELSEWHERE),
            id_list(ids),
        )
        return [(row[0], row[1], row[2], row[3], row[4], row[5], row[6]) for row in rows]


def _is_proven(delivery: str) -> str:
    """Whether its destination has said that it keeps the instance; see `index_commitments`."""
    reason = f"coalesce({delivery}.reason, '')"
    return f"({' OR '.join(f'{reason} GLOB {pattern!r}' for pattern in PROVEN)})"


def is_amid(place: Place, uids: Iterable[str]) -> bool:
    """Whether a step of `Promises.look` that found these ended between instances of one UID."""
    return place[1] in map(sop_key, uids)


def _promise(row: Sequence[Any]) -> Promise:
    number, transaction, remote, peer_ae, own_ae, association, asked_at, state, due_at = row[:9]
    attempts, reason, items, committed, failed, settled_at = row[9:]
    return Promise(
        id=number,
        transaction_uid=transaction,
        remote=remote,
        peer_ae=peer_ae,
        own_ae=own_ae,
        association=association,
        asked_at=asked_at / 1e6,
        state=_STATES[state],
        due_at=seconds(due_at),
        attempts=attempts,
        reason=reason,
        items=items,
        committed=committed,
        failed=failed,
        settled_at=seconds(settled_at),
    )


def _state(state: int, original: int | None, gone: int) -> DeliveryState:
    if STATES[state] is not DeliveryState.DUPLICATE:
        return STATES[state]
    if gone:  # it went only once it was delivered: else this would have gone in its place
        return DeliveryState.DELIVERED
    return DeliveryState.DUPLICATE if original is None else STATES[original]


def _digest(items: Iterable[tuple[str, str]]) -> str:
    """The same for the same references, in whatever order."""
    text = "\n".join(sorted(f"{class_uid} {uid}" for class_uid, uid in items))
    return blake2b(text.encode(errors="replace"), digest_size=16).hexdigest()


def _json_object(verdicts: Mapping[int, int]) -> str:
    return "{" + ",".join(f'"{number}":{verdict}' for number, verdict in verdicts.items()) + "}"
