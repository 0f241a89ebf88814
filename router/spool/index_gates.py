"""Gates: what keeps deliveries back until a study is complete or a schedule opens.

Owns the gates' rows, and which delivery is behind which.  Must not know when a study is complete
or a window open: it is told to open and to shut.

A delivery is behind a gate when it is READY, has the time GATED and names the gate: never due,
so nothing that looks for what is due ever meets it.  Whatever else becomes of it, it leaves the
gate; when it becomes READY again `Gates.place` says where it belongs.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from router.spool.index_changes import Changes, DeliveryRow
from router.spool.index_database import GATED, Database, clean, count, id_list, new_counts
from router.spool.index_names import Names
from router.spool.index_plans import Plans, plans_at
from router.spool.index_types import DeliveryState, Gate, GateKind, Moved, Tally
from router.spool.plan import Plan
from router.spool.record import InstanceMeta

KINDS: tuple[GateKind, ...] = ("study", "series", "schedule")
"""By their number in the table."""
STUDY, SERIES, SCHEDULE = range(3)

GateKey = tuple[int, int, str, int]
"""Destination id, kind, key, plan id."""


@dataclass(slots=True)
class Arrivals:
    """What goes behind a gate; times in microseconds.  ``supplement`` and ``earlier`` are those
    of the gate at another destination that it was behind."""

    study: str
    first_at: int
    last_at: int
    instances: int = 1
    supplement: int = 0
    earlier: int = 0

    def join(self, other: "Arrivals") -> None:
        """Take in more of them."""
        self.instances += other.instances
        self.first_at = min(self.first_at, other.first_at)
        self.last_at = max(self.last_at, other.last_at)


@dataclass(frozen=True, slots=True)
class GateRow:
    """A gate as it lies in its table."""

    id: int
    destination_id: int
    kind: int
    key: str
    plan_id: int
    study: str
    shut: int
    supplement: int
    instances: int
    earlier: int
    first_at: int
    last_at: int


class Gates:
    """Behind `Index.gates`, `open_gate` and `shut_gate`.

    Keeps in memory the schedules that were shut and not opened since.
    """

    def __init__(self, db: Database, destinations: Names, plans: Plans) -> None:
        self._db = db
        self._destinations = destinations
        self._plans = plans
        self._shut: set[str] = set()

    def gates(self) -> list[Gate]:
        """See `Index.gates`."""
        return [self._gate(row) for row in map(_row, self._db.json(_ALL_SHUT))]

    def shut_among(self, ids: str) -> list[Gate]:
        """Those of a JSON array of ids that are shut, in its order."""
        return [self._gate(row) for row in map(_row, self._db.json(_BY_ID, ids)) if row.shut]

    def _gate(self, row: GateRow) -> Gate:
        return Gate(
            id=row.id,
            destination=self._destinations.name(row.destination_id),
            kind=KINDS[row.kind],
            key=row.key,
            plan=self._plans.plan(row.plan_id),
            study_instance_uid=row.study,
            instances=row.instances,
            earlier=row.earlier,
            first_at=row.first_at / 1e6,
            last_at=row.last_at / 1e6,
            supplement=row.supplement,
        )

    def waits(self, destination: int) -> tuple[str, ...]:
        """What the gates of a destination wait for, in words."""
        kinds = self._db.json(_WAITS, destination, SCHEDULE)
        schedules = self._db.json(_SCHEDULES, destination, SCHEDULE)
        return tuple([in_words(kind, "") for kind in kinds if kind != SCHEDULE]) + tuple(
            in_words(SCHEDULE, name) for name in schedules
        )

    # -- opening and shutting

    def open(self, gate_id: int, limit: int) -> Moved:
        """See `Index.open_gate`."""
        gate = self.rows([gate_id]).get(gate_id)
        if gate is None or not gate.shut:
            return Moved()
        limit = max(limit, 1)
        found = self._db.json(_BEHIND, gate_id, limit + 1)
        more, found = len(found) > limit, found[:limit]
        onward = None
        if gate.kind == SCHEDULE:
            self._shut.discard(gate.key)
        else:
            plan = self._plans.plan(gate.plan_id)
            onward = _schedule(plan, gate.destination_id, gate.plan_id)
        ids = id_list([instance for instance, _ in found])
        name = self._destinations.name(gate.destination_id)
        counts = new_counts()
        with self._db.transaction():
            if found and onward:
                arrivals = Arrivals("", gate.first_at, gate.last_at, len(found))
                behind = self.shut_for({onward: arrivals})[onward]
                self._db.run(_TO_GATE, behind, GATED, gate.destination_id, ids)
            elif found:
                self._db.run(_TO_GATE, None, None, gate.destination_id, ids)
                size = sum(length for _, length in found)
                count(counts, Tally.GATED, gate.destination_id, -len(found), -size)
                self._db.tally(counts)
            if more:
                self._db.run(_OPENING, gate.id)
            else:
                self._close(gate, opened=bool(found) or gate.shut > 1)
        moved = {name: len(found)} if found else {}
        return Moved(gated=moved, more=more) if onward else Moved(ready=moved, more=more)

    def _close(self, gate: GateRow, *, opened: bool) -> None:
        """Nothing is behind it any more; in the open transaction."""
        if gate.kind == SCHEDULE:
            self._db.run("DELETE FROM gate WHERE id = ?", gate.id)
            return
        self._db.run(_GONE, int(opened), gate.id)
        others = (self._destinations.find(m) for m in self._plans.plan(gate.plan_id).members)
        # Those that may have what comes late are to know that it is late.
        rows = [
            (
                *(number, gate.kind, gate.key, gate.plan_id, gate.study, 0),
                *(gate.supplement + opened, 0, gate.earlier + gate.instances),
                *(gate.first_at, gate.last_at),
            )
            for number in others
            if opened and number is not None and number != gate.destination_id
        ]
        self._db.run_rows(_REMEMBER, rows)
        self._db.run(_FORGET, gate.study)

    def shut(
        self, destination: str | None, schedule: str, exclude: Collection[int], limit: int
    ) -> Moved:
        """See `Index.shut_gate`."""
        schedule = clean(schedule)
        self._shut.add(schedule)
        numbers = dict(self._destinations.items())
        if destination is not None:
            numbers = {name: number for name, number in numbers.items() if name == destination}
        limit = max(limit, 1)
        excluded = id_list(exclude)
        gated: dict[str, int] = {}
        left = limit
        for name, number in numbers.items():
            for plan_id in self.plans_at(number):
                if self._plans.plan(plan_id).schedule != schedule:
                    continue
                found = self._db.json(_PASSED, number, plan_id, excluded, left + 1)
                more, found = len(found) > left, found[:left]
                if found:
                    self._put_back((number, SCHEDULE, schedule, plan_id), found)
                    gated[name] = gated.get(name, 0) + len(found)
                    left -= len(found)
                if more:
                    return Moved(gated=gated, more=True)
        return Moved(gated=gated)

    def _put_back(self, key: GateKey, found: list[list[int]]) -> None:
        times = [received for _, _, received in found]
        counts = new_counts()
        count(counts, Tally.GATED, key[0], len(found), sum(length for _, length, _ in found))
        with self._db.transaction():
            gate = self.shut_for({key: Arrivals("", min(times), max(times), len(found))})[key]
            ids = id_list([instance for instance, *_ in found])
            self._db.run(_TO_GATE, gate, GATED, key[0], ids)
            self._db.tally(counts)

    def plans_at(self, destination: int) -> list[int]:
        """The plans that READY deliveries of a destination have; a look-up for each."""
        return plans_at(self._db, destination)

    # -- for those that put deliveries behind gates

    def key_for(self, meta: InstanceMeta, destination: int, plan_id: int) -> GateKey | None:
        """The gate that a new delivery starts behind; None when it may go at once."""
        plan = self._plans.plan(plan_id)
        study, series = clean(meta.study_instance_uid), clean(meta.series_instance_uid)
        return _completeness(plan, destination, plan_id, study, series) or _schedule(
            plan, destination, plan_id
        )

    def shut_for(self, arrivals: Mapping[GateKey, Arrivals]) -> dict[GateKey, int]:
        """Ids of the gates that these go behind, made or shut anew where they are gone; in the
        open transaction."""
        self._db.run_rows(
            _ARRIVE,
            [
                (
                    *(*key, a.study, 1, a.supplement, a.instances, a.earlier),
                    *(a.first_at, a.last_at),
                )
                for key, a in arrivals.items()
            ],
        )
        return self._ids(list(arrivals))

    def touch(self, latest: Mapping[GateKey, int]) -> None:
        """Something that repeats another came: a gate that is shut notes when; in the open
        transaction."""
        self._db.run_rows(_TOUCH, [(*key, at) for key, at in latest.items()])

    def rows(self, ids: Iterable[int]) -> dict[int, GateRow]:
        """Gates, also those that are gone and remembered."""
        return {row[0]: _row(row) for row in self._db.json(_BY_ID, id_list(ids))}

    def _ids(self, keys: list[GateKey]) -> dict[GateKey, int]:
        """Of those that are shut."""
        rows = [(n, *key) for n, key in enumerate(keys)]
        return {keys[n]: gate for n, gate in self._db.json_rows(_IDS, rows)}

    def place(self, changes: Changes) -> int:
        """Where deliveries go that become READY; the number of those behind gates.

        Behind the gate of their study when that is shut here or at another member, since more of
        it comes; else behind that of their schedule, which is opened again at once in its
        windows.  One that was READY already keeps its time while its schedule is open.  Before
        the transaction: gates are made in one of their own.
        """
        ready = [
            (row, self._plans.plan(row.plan_id), changes.before(row) is not DeliveryState.READY)
            for row in changes.rows
            if row.plan_id is not None and row.gate_id is None and row.state is DeliveryState.READY
        ]
        if not ready:
            return 0
        self._behind_studies([(row, plan) for row, plan, new in ready if new])
        wanted: dict[GateKey, Arrivals] = {}
        rows: list[tuple[DeliveryRow, GateKey]] = []
        for row, plan, new in ready:
            key = _schedule(plan, row.destination_id, row.plan_id)
            if key and row.gate_id is None and (new or plan.schedule in self._shut):
                arrivals = Arrivals("", row.updated_at, row.updated_at)
                if key in wanted:
                    wanted[key].join(arrivals)
                else:
                    wanted[key] = arrivals
                rows.append((row, key))
        self._put_behind(rows, wanted)
        return sum(row.gate_id is not None for row, _, _ in ready)

    def _behind_studies(self, rows: list[tuple[DeliveryRow, Plan]]) -> None:
        """Those whose study or series is not complete; they are no arrivals."""
        rows = [(row, plan) for row, plan in rows if plan.after != "at-once"]
        if not rows:
            return
        ids = id_list({row.instance_id for row, _ in rows})
        known = {row[0]: row[1:] for row in self._db.json(_STUDIES, ids)}
        wanted: dict[GateKey, list[GateKey]] = {}
        keyed: list[tuple[DeliveryRow, GateKey]] = []
        for row, plan in rows:
            key = _completeness(plan, row.destination_id, row.plan_id, *known[row.instance_id])
            if key is not None:
                keyed.append((row, key))
                numbers = map(self._destinations.find, plan.members)
                wanted[key] = [key, *((n, *key[1:]) for n in numbers if n is not None)]
        gates = self._ids(list({key for keys in wanted.values() for key in keys}))
        found = {
            key: next((gates[k] for k in keys if k in gates), None) for key, keys in wanted.items()
        }
        like = self.rows({gate for gate in found.values() if gate is not None})
        arrivals = {
            key: Arrivals(g.study, g.first_at, g.last_at, 0, g.supplement, g.earlier)
            for key, gate in found.items()
            if gate is not None and (g := like[gate])
        }
        self._put_behind([(row, key) for row, key in keyed if key in arrivals], arrivals)

    def _put_behind(
        self, rows: list[tuple[DeliveryRow, GateKey]], arrivals: Mapping[GateKey, Arrivals]
    ) -> None:
        if not rows:
            return
        with self._db.transaction():
            gates = self.shut_for(arrivals)
        for row, key in rows:
            row.gate_id, row.due_at = gates[key], GATED


def gate_study(key: GateKey, meta: InstanceMeta) -> str:
    """The study that goes with a gate; "" for that of a schedule."""
    return "" if key[1] == SCHEDULE else clean(meta.study_instance_uid)


def in_words(kind: int, key: str) -> str:
    """What one behind a gate waits for."""
    return f"schedule {key} shut" if kind == SCHEDULE else f"{KINDS[kind]} not complete"


def _completeness(
    plan: Plan, destination: int, plan_id: int | None, study: str, series: str
) -> GateKey | None:
    if plan_id is None or plan.after == "at-once" or not study:
        return None
    if plan.after == "study-complete":
        return (destination, STUDY, study, plan_id)
    return (destination, SERIES, series, plan_id) if series else None


def _schedule(plan: Plan, destination: int, plan_id: int | None) -> GateKey | None:
    if plan_id is None or not plan.schedule:
        return None
    return (destination, SCHEDULE, clean(plan.schedule), plan_id)


def _row(row: list[Any]) -> GateRow:
    return GateRow(*row)


_GATE = """
json_array(
    g.id, g.destination_id, g.kind, g.key, g.plan_id, g.study, g.shut, g.supplement, g.instances,
    g.earlier, g.first_at, g.last_at
)
"""
_ALL_SHUT = f"""
SELECT json_group_array({_GATE}) FROM (
    SELECT * FROM gate INDEXED BY gate_shut WHERE shut > 0 ORDER BY id
) AS g
"""
_BY_ID = f"""
SELECT json_group_array({_GATE})
FROM json_each(?) AS j CROSS JOIN gate AS g ON g.id = j.value
"""
_IDS = """
WITH wanted(n, destination_id, kind, key, plan_id) AS (VALUES {values})
SELECT json_group_array(json_array(n, g.id))
FROM wanted CROSS JOIN gate AS g INDEXED BY gate_key
    ON g.destination_id = wanted.destination_id AND g.kind = wanted.kind
    AND g.key = wanted.key AND g.plan_id = wanted.plan_id
WHERE g.shut > 0
"""
_WAITS = """
SELECT json_group_array(kind) FROM (
    SELECT DISTINCT k.value AS kind FROM json_each('[0, 1]') AS k
    WHERE EXISTS (
        SELECT 1 FROM gate INDEXED BY gate_shut
        WHERE destination_id = ?1 AND kind = k.value AND kind < ?2 AND shut > 0
    )
    ORDER BY kind
)
"""
_SCHEDULES = """
SELECT json_group_array(key) FROM (
    SELECT DISTINCT key FROM gate INDEXED BY gate_shut
    WHERE destination_id = ? AND kind = ? AND shut > 0 ORDER BY key
)
"""
_ARRIVE = """
INSERT INTO gate(
    destination_id, kind, key, plan_id, study, shut, supplement, instances, earlier, first_at,
    last_at
) VALUES {values}
ON CONFLICT(destination_id, kind, key, plan_id) DO UPDATE SET
    supplement = max(supplement, excluded.supplement),
    earlier = max(CASE shut WHEN 0 THEN earlier + instances ELSE earlier END, excluded.earlier),
    instances = CASE shut WHEN 0 THEN 0 ELSE instances END + excluded.instances,
    first_at = CASE shut WHEN 0 THEN excluded.first_at ELSE min(first_at, excluded.first_at) END,
    last_at = CASE shut WHEN 0 THEN excluded.last_at ELSE max(last_at, excluded.last_at) END,
    shut = max(shut, 1)
"""
# As remembered: what is shut meanwhile stays so.
_REMEMBER = """
INSERT INTO gate(
    destination_id, kind, key, plan_id, study, shut, supplement, instances, earlier, first_at,
    last_at
) VALUES {values}
ON CONFLICT(destination_id, kind, key, plan_id) DO UPDATE SET
    supplement = max(supplement, excluded.supplement),
    earlier = max(earlier, excluded.earlier)
"""
_TOUCH = """
WITH o(destination_id, kind, key, plan_id, at) AS (VALUES {values})
UPDATE gate SET last_at = max(last_at, o.at)
FROM o
WHERE gate.destination_id = o.destination_id AND gate.kind = o.kind AND gate.key = o.key
    AND gate.plan_id = o.plan_id AND gate.shut > 0
"""
_BEHIND = """
SELECT json_group_array(json_array(d.instance_id, i.length)) FROM (
    SELECT instance_id FROM delivery INDEXED BY delivery_gate
    WHERE gate_id = ? ORDER BY instance_id LIMIT ?
) AS d
CROSS JOIN instance AS i ON i.id = d.instance_id
"""
_PASSED = """
SELECT json_group_array(json_array(d.instance_id, i.length, i.received_at)) FROM (
    SELECT instance_id FROM delivery INDEXED BY delivery_plan
    WHERE destination_id = ? AND plan_id = ? AND gate_id IS NULL AND state = 0
        AND plan_id IS NOT NULL AND instance_id NOT IN (SELECT value FROM json_each(?))
    ORDER BY instance_id LIMIT ?
) AS d
CROSS JOIN instance AS i ON i.id = d.instance_id
"""
_TO_GATE = """
UPDATE delivery SET gate_id = ?, due_at = ?
WHERE destination_id = ? AND instance_id IN (SELECT value FROM json_each(?))
"""
_OPENING = "UPDATE gate SET shut = 2 WHERE id = ?"
_GONE = "UPDATE gate SET shut = 0, supplement = supplement + ? WHERE id = ?"
# Those of a study of which nothing is left, so that they do not pile up.
_FORGET = """
DELETE FROM gate
WHERE study = ?1 AND shut = 0 AND NOT EXISTS (
    SELECT 1 FROM context INDEXED BY context_study
    WHERE study_instance_uid = ?1 AND study_instance_uid <> ''
)
"""
_STUDIES = """
SELECT json_group_array(json_array(i.id, c.study_instance_uid, c.series_instance_uid))
FROM json_each(?) AS j
CROSS JOIN instance AS i ON i.id = j.value
CROSS JOIN context AS c ON c.id = i.context_id
"""
