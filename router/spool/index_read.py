"""What people and gauges read from the index.

Owns the forms of queues, instances and the account; writes nothing.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from router.spool.index_attempts import attempts_of
from router.spool.index_commitments import oldest_uncommitted, what_for
from router.spool.index_database import GATED, clean, id_list, ref_of, seconds
from router.spool.index_gates import GateRow, in_words
from router.spool.index_select import Key
from router.spool.index_tables import Tables
from router.spool.index_types import (
    OPEN_STATES,
    Account,
    Delivery,
    DeliveryState,
    DestinationAccount,
    Disposition,
    Event,
    Filter,
    InstanceRow,
    QueueItem,
    QueueLine,
    Tally,
)
from router.spool.index_words import check_words
from router.spool.record import InstanceMeta, RouteMeta

Tallies = dict[tuple[int, int], tuple[int, int]]


class Reading:
    """Behind the reading methods of `Index`."""

    def __init__(self, tables: Tables) -> None:
        self._db = tables.db
        self._destinations = tables.destinations
        self._rules = tables.rules
        self._plans = tables.plans
        self._gates = tables.gates
        self._select = tables.select

    def queue_summary(self) -> list[QueueLine]:
        """See `Index.queue_summary`."""
        tallies = self._tallies()
        lines = []
        for name, number in sorted(self._destinations.items()):
            for state in OPEN_STATES:
                n, size = tallies.get((Tally.STATE + state, number), (0, 0))
                oldest = next_due = None
                gated = 0
                waits: tuple[str, ...] = ()
                if n:
                    oldest = seconds(self._db.value(_OLDEST, number, int(state)))
                if n and state is DeliveryState.READY:
                    next_due = seconds(self._db.value(_NEXT_DUE, number))
                    gated = tallies.get((Tally.GATED, number), (0, 0))[0]
                    waits = self._gates.waits(number) if gated else ()
                lines.append(QueueLine(name, state, n, size, oldest, next_due, gated, waits))
            n, size = tallies.get((Tally.STATE + DeliveryState.UNCOMMITTED, number), (0, 0))
            if n:
                oldest, waits = oldest_uncommitted(self._db, number), what_for(self._db, number)
                line = DeliveryState.UNCOMMITTED
                lines.append(QueueLine(name, line, n, size, oldest, None, waits=waits))
        return lines

    def came(self, study: str, series: str) -> int:
        """See `Index.came`."""
        if series:
            return int(self._db.value(_CAME_OF_SERIES, clean(study), clean(series)))
        return int(self._db.value(_CAME, clean(study)))

    def queue_list(self, which: Filter, limit: int, after: Key | None) -> list[QueueItem]:
        """See `Index.queue_list`."""
        states = OPEN_STATES if which.state is None else (which.state,)
        keys = self._select.deliveries(which, states, limit, after)
        deliveries = {
            (d.instance_id, row[1]): d
            for row, d in self._deliveries(self._db.json_rows(_DELIVERIES, keys))
        }
        instances = self._rows([instance for instance, _ in keys])
        items = []
        for key in keys:
            row = instances[key[0]]
            delivery = deliveries[key]
            meta = row.meta._replace(routes=(_route(delivery),))
            items.append(QueueItem(delivery, row.ref, meta, key))
        return items

    def instances(self, which: Filter, limit: int, after: int) -> list[InstanceRow]:
        """See `Index.instances`."""
        ids = self._select.instances(which, limit, after)
        rows = self._rows(ids)
        return [rows[number] for number in ids]

    def instance(self, number: int) -> InstanceRow | None:
        """See `Index.instance`."""
        row = self._rows([number]).get(number)
        if row is None:
            return None
        found = self._deliveries(self._db.json(_DELIVERIES_OF, number))
        deliveries = tuple(delivery for _, delivery in found)
        events = tuple(
            Event(event[0], event[1] / 1e6, *event[2:])
            for event in self._db.json(_EVENTS_OF, number)
        )
        meta = row.meta._replace(routes=tuple(map(_route, deliveries)))
        attempts = attempts_of(self._db, self._destinations, number)
        return replace(row, meta=meta, deliveries=deliveries, events=events, attempts=attempts)

    def events(self, limit: int) -> list[Event]:
        """See `Index.events`."""
        return [
            Event(event[0], event[1] / 1e6, *event[2:]) for event in self._db.json(_EVENTS, limit)
        ]

    def _rows(self, ids: Sequence[int]) -> dict[int, InstanceRow]:
        rows = self._db.json(_INSTANCES, id_list(ids))
        for row in rows:
            check_words(self._db, *row[26:28], *(row[8], row[13], row[17], row[18], row[19]))
        return {row[0]: _instance(row) for row in rows}

    def _deliveries(self, rows: list[Any]) -> list[tuple[list[Any], Delivery]]:
        """Each with the row that it is made of."""
        gates = self._gates.rows({row[12] for row in rows if row[12] is not None})
        return [(row, self._delivery(row, gates.get(row[12]))) for row in rows]

    def _delivery(self, row: Sequence[Any], gate: GateRow | None) -> Delivery:
        return Delivery(
            instance_id=row[0],
            destination=self._destinations.name(row[1]),
            state=DeliveryState(row[2]),
            priority=row[3],
            due_at=seconds(row[4]),
            attempts=row[5],
            updated_at=row[6] / 1e6,
            status=row[7],
            reason=row[8] or "",
            rule=self._rules.name(row[9]),
            duplicate_of=row[10],
            plan=self._plans.text(row[11]),
            waits="" if gate is None else in_words(gate.kind, gate.key),
        )

    # -- the account

    def destinations(self) -> list[str]:
        """See `Index.destinations`."""
        return sorted(name for name, _ in self._destinations.items())

    def account(self, audit: bool) -> Account:
        """See `Index.account`."""
        tallies = self._tallies()

        def n(what: int, key: int = 0) -> int:
            return tallies.get((what, key), (0, 0))[0]

        destinations = {
            name: DestinationAccount.of_states(
                n(Tally.ROUTED, number),
                {state: n(Tally.STATE + state, number) for state in DeliveryState},
            )
            for name, number in sorted(self._destinations.items())
        }
        dispositions = {d: n(Tally.DISPOSITION + d) for d in Disposition}
        received = n(Tally.RECEIVED)
        found = {f"destination {name}": line.difference for name, line in destinations.items()}
        found["instances"] = received - sum(dispositions.values())
        if audit:
            found |= self._audit(tallies)
        return Account(
            received=received,
            routed=dispositions[Disposition.ROUTED],
            held=dispositions[Disposition.HELD],
            quarantined=dispositions[Disposition.QUARANTINED],
            discarded=dispositions[Disposition.DISCARDED],
            destinations=destinations,
            differences={what: difference for what, difference in found.items() if difference},
        )

    def _tallies(self) -> Tallies:
        rows = self._db.json(
            "SELECT json_group_array(json_array(what, key, n, bytes)) FROM tally WHERE what < ?",
            int(Tally.GENERATION),
        )
        return {(what, key): (n, size) for what, key, n, size in rows}

    def _audit(self, tallies: Tallies) -> dict[str, int]:
        """Every count against the rows that it counts, and each instance against its deliveries."""
        counted: dict[tuple[int, int], int] = {}
        for destination, state, n in self._db.json(_COUNT_DELIVERIES):
            counted[Tally.STATE + state, destination] = n
        for disposition, n in self._db.json(_COUNT_INSTANCES):
            counted[Tally.DISPOSITION + disposition, 0] = n
        for what, key in [k for k in tallies if Tally.PURGED_STATE <= k[0] < Tally.GENERATION]:
            part = what - Tally.PURGED_STATE + Tally.STATE
            if what >= Tally.PURGED_DISPOSITION:
                part = what - Tally.PURGED_DISPOSITION + Tally.DISPOSITION
            counted[part, key] = counted.get((part, key), 0) + tallies[what, key][0]
        found: dict[str, int] = {}
        names = {number: name for name, number in self._destinations.items()}
        for state in DeliveryState:
            for number, name in names.items():
                entry = (Tally.STATE + state, number)
                difference = tallies.get(entry, (0, 0))[0] - counted.get(entry, 0)
                found[f"rows of destination {name}, {state.name.lower()}"] = difference
        for disposition in Disposition:
            entry = (Tally.DISPOSITION + disposition, 0)
            difference = tallies.get(entry, (0, 0))[0] - counted.get(entry, 0)
            found[f"rows of instances, {disposition.name.lower()}"] = difference
        for number, name in names.items():
            difference = tallies.get((Tally.GATED, number), (0, 0))[0]
            difference -= self._db.value(_COUNT_GATED, number)
            found[f"rows of destination {name}, behind gates"] = difference
        found["deliveries behind a gate that is gone"] = self._db.value(_ASTRAY)
        found["instances whose deliveries differ from their count"] = self._db.value(_UNEQUAL)
        found["deliveries without an instance"] = self._db.value(_ORPHANS)
        found["instances without a context"] = self._db.value(_NO_CONTEXT)
        return found


def _route(delivery: Delivery) -> RouteMeta:
    return RouteMeta(delivery.destination, delivery.rule, delivery.priority, delivery.plan)


def _instance(row: Sequence[Any]) -> InstanceRow:
    disposition = Disposition(row[10])
    meta = InstanceMeta(
        received_at=row[7] / 1e6,
        association=row[12],
        calling_ae=row[13],
        called_ae=row[14],
        source=row[15],
        remote=row[16],
        sop_class_uid=row[17],
        sop_instance_uid=row[8],
        transfer_syntax_uid=row[18],
        study_instance_uid=row[19],
        series_instance_uid=row[20],
        modality=row[21],
        disposition=_WORDS[disposition],
        reason=row[11],
        quarantined=bool(row[22]),
        rules_version=row[23],
        tags=tuple(row[24].split()),
        keep=float(row[25]),
    )
    return InstanceRow(ref_of(row), meta, disposition, seconds(row[9]))


_WORDS = {
    Disposition.ROUTED: "route",
    Disposition.HELD: "hold",
    Disposition.QUARANTINED: "hold",
    Disposition.DISCARDED: "discard",
}

_CAME = (
    "SELECT COUNT(DISTINCT i.sop_key) FROM context c JOIN instance i ON i.context_id = c.id "
    "WHERE c.study_instance_uid = ? AND c.study_instance_uid <> ''"
)
_CAME_OF_SERIES = f"{_CAME} AND c.series_instance_uid = ?"
_OLDEST = """
SELECT received_at FROM instance WHERE id = (
    SELECT min(instance_id) FROM delivery INDEXED BY delivery_open
    WHERE destination_id = ? AND state = ? AND state + 0 <= 2
)
"""
_NEXT_DUE = """
SELECT CASE WHEN EXISTS (
    SELECT 1 FROM delivery INDEXED BY delivery_ready
    WHERE destination_id = ?1 AND state = 0 AND due_at IS NULL
) THEN 0 ELSE (
    SELECT min(due_at) FROM delivery INDEXED BY delivery_due
    WHERE destination_id = ?1 AND state = 0 AND due_at IS NOT NULL
) END
"""
_DELIVERY = """
json_array(
    d.instance_id, d.destination_id, d.state, d.priority, d.due_at, d.attempts, d.updated_at,
    d.status, d.reason, d.rule_id, d.duplicate_of, d.plan_id, d.gate_id
)
"""
_DELIVERIES = f"""
WITH wanted(instance_id, destination_id) AS (VALUES {{values}})
SELECT json_group_array({_DELIVERY})
FROM wanted CROSS JOIN delivery AS d
    ON d.instance_id = wanted.instance_id AND d.destination_id = wanted.destination_id
"""
_DELIVERIES_OF = f"""
SELECT json_group_array({_DELIVERY}) FROM (
    SELECT * FROM delivery WHERE instance_id = ? ORDER BY destination_id
) AS d
"""
_INSTANCES = """
SELECT json_group_array(json_array(
    i.id, i.generation, i.offset, i.data_offset, i.length, i.crc, i.large, i.received_at,
    i.sop_instance_uid, i.settled_at, i.disposition, coalesce(i.reason, c.reason),
    c.association, c.calling_ae, c.called_ae, c.source, c.remote, c.sop_class_uid,
    c.transfer_syntax_uid, c.study_instance_uid, c.series_instance_uid, c.modality,
    c.quarantined, c.rules_version, c.tags, i.keep, i.sop_key, c.sum
))
FROM json_each(?) AS j
CROSS JOIN instance AS i ON i.id = j.value
CROSS JOIN context AS c ON c.id = i.context_id
"""
_EVENTS_OF = """
SELECT json_group_array(json_array(id, at, who, action, detail, count)) FROM (
    SELECT e.* FROM event_instance AS l CROSS JOIN event AS e ON e.id = l.event_id
    WHERE l.instance_id = ? ORDER BY e.id
)
"""
_EVENTS = """
SELECT json_group_array(json_array(id, at, who, action, detail, count)) FROM (
    SELECT * FROM event ORDER BY id DESC LIMIT ?
)
"""
_COUNT_DELIVERIES = """
SELECT json_group_array(json_array(destination_id, state, n)) FROM (
    SELECT destination_id, state, count(*) AS n FROM delivery GROUP BY destination_id, state
)
"""
_COUNT_GATED = """
SELECT count(*) FROM delivery WHERE destination_id = ? AND gate_id IS NOT NULL
"""
_ASTRAY = f"""
SELECT count(*) FROM delivery AS d
WHERE (d.gate_id IS NOT NULL) <> (d.due_at IS {GATED})
    OR d.gate_id IS NOT NULL AND (d.state <> 0 OR NOT EXISTS (
        SELECT 1 FROM gate AS g WHERE g.id = d.gate_id AND g.shut > 0
            AND g.destination_id = d.destination_id
    ))
"""
_COUNT_INSTANCES = """
SELECT json_group_array(json_array(disposition, n)) FROM (
    SELECT disposition, count(*) AS n FROM instance GROUP BY disposition
)
"""
_UNEQUAL = """
SELECT count(*) FROM instance AS i
WHERE unsettled <> (
    SELECT count(*) FROM delivery AS d
    WHERE d.instance_id = i.id AND (d.state IN (0, 1, 2, 6) OR d.state = 5 AND EXISTS (
        SELECT 1 FROM delivery AS o
        WHERE o.instance_id = d.duplicate_of AND o.destination_id = d.destination_id
            AND o.state IN (0, 1, 2, 6)
    ))
)
"""
_NO_CONTEXT = """
SELECT count(*) FROM instance AS i
WHERE NOT EXISTS (SELECT 1 FROM context WHERE id = i.context_id)
"""
_ORPHANS = """
SELECT count(*) FROM delivery AS d
WHERE NOT EXISTS (SELECT 1 FROM instance WHERE id = d.instance_id)
"""
