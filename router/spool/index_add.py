"""Puts new instances into the index.

Owns the rows that an instance begins with.  Must not know which of its deliveries repeat an
earlier one: that is `index_duplicates`.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from router.spool.index_database import (
    GATED,
    Counts,
    clean,
    count,
    microseconds,
    new_counts,
    stored_tags,
    sum_of,
)
from router.spool.index_duplicates import Context, Earlier, Entry, SameBytes
from router.spool.index_gates import Arrivals, GateKey, gate_study
from router.spool.index_hour import hour_of
from router.spool.index_keep import Keep
from router.spool.index_routes import disposition_of, routes_of
from router.spool.index_schema import sop_key
from router.spool.index_tables import Tables
from router.spool.index_together import Together
from router.spool.index_types import AddResult, DeliveryState, Disposition, Tally
from router.spool.record import InstanceMeta, Position, RouteMeta

_CONTEXTS_KEPT = 4096
_OVERTAKEN_KEPT = 4096
_TOLD = (1, 5, 6, 7)
"""Of the values of a context those that a lease gives."""

_Planned = tuple[list[object], int, GateKey | None]
"""The row of a delivery that has a plan, the plan's id, and the gate that it is behind."""


@dataclass
class _Batch:
    """The rows of one `add`, before they are written."""

    instances: list[tuple[object, ...]] = field(default_factory=list)
    deliveries: list[list[object]] = field(default_factory=list)
    planned: list[_Planned] = field(default_factory=list)
    arrivals: dict[GateKey, Arrivals] = field(default_factory=dict)
    touched: dict[GateKey, int] = field(default_factory=dict)
    contexts: list[list[object]] = field(default_factory=list)
    kept: list[tuple[int, int]] = field(default_factory=list)
    """Instances that a rule keeps for a time of its own, with the seconds."""
    used_contexts: dict[tuple[object, ...], Context] = field(default_factory=dict)
    counts: Counts = field(default_factory=new_counts)
    ready: dict[str, int] = field(default_factory=dict)
    gated: dict[str, int] = field(default_factory=dict)
    duplicates: int = 0


class Adder:
    """Behind `Index.add`.

    Keeps in memory the last id, the position, and the latest contexts by their values.
    """

    def __init__(self, tables: Tables, keep: Keep) -> None:
        self._db = tables.db
        self._destinations = tables.destinations
        self._rules = tables.rules
        self._plans = tables.plans
        self._gates = tables.gates
        self._keep = keep
        self._duplicates = tables.duplicates
        self._together = Together(self._db, self._destinations)
        self._contexts: dict[tuple[object, ...], Context] = {}
        self.last_id = 0
        self.highest = 0
        """Of those that may be in the index: one that was added by a transaction that seemed to
        fail is not up to `last_id`."""
        self.overtaken: deque[tuple[int, int]] = deque(maxlen=_OVERTAKEN_KEPT)
        """The latest that came behind one of a higher number, as (key of the SOP Instance UID, id):
        long ones, which are numbered as they begin."""
        self.position: Position | None = None
        self._next_context = 0
        self._received = 0
        self._doubtful = False
        """The latest transaction failed: whether it is in the index must be looked up."""
        self._look_up()

    def _look_up(self) -> None:
        db = self._db
        meta = dict(db.json("SELECT json_group_array(json_array(key, value)) FROM meta"))
        self.last_id = meta.get("last_id", 0)
        self.highest = max(self.highest, self.last_id)
        self._received = db.value(_RECEIVED, int(Tally.RECEIVED)) or 0
        if "generation" in meta:
            self.position = Position(meta["generation"], meta.get("offset", 0))
            # What lies behind the position is not read, and no row tells how far it had come.
            figures = (*self.position, self.last_id, meta.get("next_context", 0), self._received)
            if meta.get("position_sum", sum_of(*figures)) != sum_of(*figures):
                raise db.met_damaged("its position is not what was noted")
        # Never an id that was: what still named a deleted context would take on another's values.
        self._next_context = max(meta.get("next_context", 0), db.value(_NEXT_CONTEXT))
        self._contexts.clear()

    def look_again(self) -> None:
        """Raises IndexDamaged when the file knows less than it was told: the parts of one that has
        forgotten whole transactions agree."""
        told = position, last_id, received = self.position, self.last_id, self._received
        try:
            self._look_up()
            behind = position is not None and (self.position is None or self.position < position)
            behind |= self.last_id < last_id or self._received < received
        finally:  # a look that fails half-way must not pass for what it was told
            self.position, self.last_id, self._received = told
        if behind:
            raise self._db.met_damaged("it has forgotten what was added to it")

    def add(
        self, entries: Sequence[Entry], position: Position, suppress: bool, same_bytes: SameBytes
    ) -> AddResult:
        """See `Index.add`."""
        unique = list({ref.id: (ref, meta) for ref, meta in entries}.values())
        again = self._doubtful
        if again:
            self._look_up()
        # Ids rise, so above the last one there is nothing to ask for.
        known = self._keep.known([ref.id for ref, _ in unique if ref.id <= self.last_id])
        fresh = self._together.placed([entry for entry in unique if entry[0].id not in known])
        moved = [ref for ref, _ in unique if ref.id in known]
        routes = [route for _, meta in fresh for route in routes_of(meta)]
        self._destinations.ensure(dict.fromkeys(route.destination for route in routes))
        self._rules.ensure(dict.fromkeys(route.rule for route in routes))
        # Those that are known were perhaps never told of.
        untold = [route for _, meta in unique for route in routes_of(meta)] if again else []
        self._plans.ensure({route.plan for route in (*routes, *untold) if route.plan})
        rows = _Batch()
        contexts = self._find_contexts(fresh, rows)
        sop_keys = [sop_key(clean(meta.sop_instance_uid)) for _, meta in fresh]
        duplicate_of = {}
        if suppress:
            duplicate_of = self._duplicates.find(fresh, contexts, sop_keys, same_bytes)
        self._fill(rows, fresh, contexts, sop_keys, duplicate_of)
        last_id = max([self.last_id, *(ref.id for ref, _ in unique)])
        next_context = self._next_context + len(rows.contexts)
        received = self._received + len(fresh)
        if self.position is not None and position < self.position:
            position = self.position
        self._doubtful = True
        self.highest = max(self.highest, last_id)
        with self._db.transaction():
            self._db.run_rows(_ADD_CONTEXTS, rows.contexts)
            self._db.run_rows(_ADD_INSTANCES, rows.instances)
            self._db.run_rows(_ADD_DELIVERIES, rows.deliveries)
            if rows.planned:
                self._add_planned(rows)
            if rows.kept:
                self._db.run_rows(_KEEP, rows.kept)
            if moved:
                self._keep.move_rows(moved, rows.counts)
            self._db.tally(rows.counts)
            self._db.run(
                _SET_META,
                *("generation", position.generation),
                *("offset", position.offset),
                *("last_id", last_id),
                *("next_context", next_context),
                *("position_sum", sum_of(*position, last_id, next_context, received)),
            )
        self._note_overtaken(unique if again else fresh)
        self.last_id = last_id
        self.position = position
        self._next_context = next_context
        self._received = received
        if len(self._contexts) > _CONTEXTS_KEPT:
            self._contexts.clear()
        self._contexts.update(rows.used_contexts)
        self._tell_of(untold, rows)
        result = AddResult(rows.ready, rows.duplicates, len(fresh), len(known), rows.gated)
        self._doubtful = False  # not before all of it is noted and told: memory may be short
        return result

    def _note_overtaken(self, entries: Sequence[Entry]) -> None:
        """Before `last_id` is that of these."""
        self.overtaken.extend(
            (sop_key(clean(meta.sop_instance_uid)), ref.id)
            for ref, meta in entries
            if ref.id < self.last_id
        )

    def _tell_of(self, untold: Sequence[RouteMeta], rows: _Batch) -> None:
        """That something may be due to them, though nothing is known to have been added."""
        for route in untold:
            # With a plan it may be at another of its members.
            plan = self._plans.plan(self._plans.id(route.plan))
            for name in {route.destination, *plan.members}:
                rows.ready.setdefault(name, 1)
                if route.plan:
                    rows.gated.setdefault(name, 1)

    def _add_planned(self, rows: _Batch) -> None:
        """Deliveries with a plan, and the gates that they are behind; in the open transaction."""
        gates = self._gates.shut_for(rows.arrivals)
        self._gates.touch(rows.touched)
        self._db.run_rows(
            _ADD_PLANNED,
            [
                (*row, plan, *((None, None) if key is None else (gates[key], GATED)))
                for row, plan, key in rows.planned
            ],
        )

    def forget_contexts(self) -> None:
        """Rows of contexts were deleted: make new ones from now on."""
        self._contexts.clear()

    def _fill(
        self,
        rows: _Batch,
        entries: Sequence[Entry],
        contexts: Sequence[Context],
        sop_keys: Sequence[int],
        duplicate_of: dict[tuple[int, str], Earlier],
    ) -> None:
        for (ref, meta), (context, study_order), key in zip(
            entries, contexts, sop_keys, strict=True
        ):
            disposition = disposition_of(meta)
            received = microseconds(meta.received_at)
            unsettled = 0
            for route in routes_of(meta):
                repeated = duplicate_of.get((ref.id, route.destination))
                unsettled += repeated is None or repeated[1]
                # Without a study, one of its own in the order of arrival.
                self._delivery(rows, (ref, meta), route, study_order or ref.id, received, repeated)
            held = disposition in (Disposition.HELD, Disposition.QUARANTINED)
            settled = None if held or unsettled else received
            uid = clean(meta.sop_instance_uid)
            rows.instances.append(
                (
                    *(ref.id, context, study_order, received),
                    *(ref.generation, ref.offset, ref.data_offset),
                    *(ref.length, ref.crc, int(ref.large), key, uid, int(disposition)),
                    *(unsettled, settled),
                )
            )
            if meta.keep and disposition != Disposition.DISCARDED:
                rows.kept.append((ref.id, math.ceil(meta.keep)))
            count(rows.counts, Tally.DISPOSITION + disposition, 0, 1, ref.length)
            count(rows.counts, Tally.RECEIVED, 0, 1, ref.length)
            count(rows.counts, Tally.HOUR_RECEIVED, hour_of(received), 1, ref.length)
            in_segment = 0 if ref.large else ref.length
            count(rows.counts, Tally.GENERATION, ref.generation, 1, in_segment)

    def _delivery(
        self,
        rows: _Batch,
        entry: Entry,
        route: RouteMeta,
        study_order: int,
        at: int,
        repeated: Earlier | None,
    ) -> None:
        ref, meta = entry
        earlier, _, name = repeated or (None, True, route.destination)
        destination = self._destinations.id(name)
        state = DeliveryState.READY if earlier is None else DeliveryState.DUPLICATE
        rule = self._rules.id(route.rule)
        row: list[object] = [
            *(ref.id, destination, int(state), route.priority, study_order, at, rule, earlier, 0)
        ]
        gate = None
        if route.plan:
            gate = self._planned(rows, row, meta, route.plan, destination)
        else:
            rows.deliveries.append(row)
        if earlier is not None:
            rows.duplicates += 1
        elif gate is None:
            rows.ready[name] = rows.ready.get(name, 0) + 1
        else:
            rows.gated[name] = rows.gated.get(name, 0) + 1
            count(rows.counts, Tally.GATED, destination, 1, ref.length)
        count(rows.counts, Tally.STATE + state, destination, 1, ref.length)
        count(rows.counts, Tally.ROUTED, destination, 1, ref.length)

    def _planned(
        self, rows: _Batch, row: list[object], meta: InstanceMeta, text: str, destination: int
    ) -> GateKey | None:
        """Add the row of a delivery that has a plan; the gate that it is behind."""
        plan = self._plans.id(text)
        assert plan is not None
        gate = self._gates.key_for(meta, destination, plan)
        at = microseconds(meta.received_at)
        if row[2] != DeliveryState.READY:
            rows.planned.append((row, plan, None))
            if gate is not None:
                rows.touched[gate] = max(at, rows.touched.get(gate, at))
            return None
        rows.planned.append((row, plan, gate))
        if gate is not None:
            new = Arrivals(gate_study(gate, meta), at, at)
            if gate in rows.arrivals:
                rows.arrivals[gate].join(new)
            else:
                rows.arrivals[gate] = new
        return gate

    def _find_contexts(self, entries: Sequence[Entry], rows: _Batch) -> list[Context]:
        """The context of each entry; those that are new become rows of the batch."""
        wanted = [_context_values(meta) for _, meta in entries]
        missing: dict[tuple[object, ...], Entry] = {}
        for values, entry in zip(wanted, entries, strict=True):
            context = self._contexts.get(values)
            if context is not None:
                rows.used_contexts[values] = context
            else:
                missing.setdefault(values, entry)
        studies = {clean(meta.study_instance_uid) for _, meta in missing.values()} - {""}
        orders: dict[str, int] = {"": 0}
        orders.update(self._db.json_rows(_STUDY_ORDERS, [[study] for study in sorted(studies)]))
        for number, (values, (ref, meta)) in enumerate(missing.items(), self._next_context):
            order = orders.setdefault(clean(meta.study_instance_uid), ref.id)
            rows.used_contexts[values] = (number, order)
            stored = [clean(value) if isinstance(value, str) else value for value in values]
            told = sum_of(*map(stored.__getitem__, _TOLD))
            rows.contexts.append([number, order, *stored, told])
        return [rows.used_contexts[values] for values in wanted]


def _context_values(meta: InstanceMeta) -> tuple[object, ...]:
    return (
        meta.association,
        meta.calling_ae,
        meta.called_ae,
        meta.source,
        meta.remote,
        meta.sop_class_uid,
        meta.transfer_syntax_uid,
        meta.study_instance_uid,
        meta.series_instance_uid,
        meta.modality,
        meta.reason,
        int(meta.quarantined),
        meta.rules_version,
        stored_tags(meta.tags) if meta.tags else "",
    )


_ADD_CONTEXTS = """
INSERT INTO context(
    id, study_order, association, calling_ae, called_ae, source, remote, sop_class_uid,
    transfer_syntax_uid, study_instance_uid, series_instance_uid, modality, reason, quarantined,
    rules_version, tags, sum
) VALUES {values}
"""
_ADD_INSTANCES = """
INSERT INTO instance(
    id, context_id, study_order, received_at, generation, offset, data_offset, length, crc,
    large, sop_key, sop_instance_uid, disposition, unsettled, settled_at
) VALUES {values}
"""
_KEEP = """
WITH o(id, keep) AS (VALUES {values})
UPDATE instance SET keep = o.keep FROM o WHERE instance.id = o.id
"""
_ADD_DELIVERIES = """
INSERT INTO delivery(
    instance_id, destination_id, state, priority, study_order, updated_at, rule_id,
    duplicate_of, attempts
) VALUES {values}
"""
_ADD_PLANNED = """
INSERT INTO delivery(
    instance_id, destination_id, state, priority, study_order, updated_at, rule_id,
    duplicate_of, attempts, plan_id, gate_id, due_at
) VALUES {values}
"""
_SET_META = "INSERT OR REPLACE INTO meta(key, value) VALUES (?, ?), (?, ?), (?, ?), (?, ?), (?, ?)"
_RECEIVED = "SELECT n FROM tally WHERE what = ? AND key = 0"
_NEXT_CONTEXT = """
SELECT 1 + max(
    coalesce((SELECT max(id) FROM context), 0),
    coalesce((SELECT max(context_id) FROM instance INDEXED BY instance_context), 0)
)
"""
_STUDY_ORDERS = """
WITH wanted(study) AS (VALUES {values})
SELECT json_group_array(json_array(study, first)) FROM (
    SELECT study, (
        SELECT min(study_order) FROM context INDEXED BY context_study
        WHERE study_instance_uid = study AND study_instance_uid <> ''
    ) AS first
    FROM wanted
) WHERE first IS NOT NULL
"""
