"""What people do to the queues, and the record of it.

Owns the transitions of a delivery or an instance that an operator asks for.  Each action is done
in transactions of a few thousand deliveries: what was done before an error stays done, and
counted; nothing is ever half done.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from router.spool.index_changes import Changes, DeliveryRow, Matching, follow
from router.spool.index_database import (
    Database,
    clean,
    count,
    id_list,
    new_counts,
)
from router.spool.index_events import Action
from router.spool.index_select import Key
from router.spool.index_spent import forget_spent
from router.spool.index_tables import Tables
from router.spool.index_types import (
    Changed,
    DeliveryState,
    Disposition,
    Filter,
    Rerouted,
    Tally,
)

_AT_ONCE = 5000
_ALL = 2**31
_HELD = (Disposition.HELD, Disposition.QUARANTINED)

Apply = Callable[[DeliveryRow], DeliveryState]


class Control:
    """Behind `Index.retry`, `ask_again`, `hasten`, `drop`, `hold`, `release`, `route_held` and
    `discard_held`."""

    def __init__(self, tables: Tables) -> None:
        self._db = tables.db
        self._destinations = tables.destinations
        self._rules = tables.rules
        self._plans = tables.plans
        self._gates = tables.gates
        self._select = tables.select
        self._queues = tables.queues

    def retry(self, which: Filter, at: float, who: str, limit: int | None) -> Changed:
        """See `Index.retry`."""

        def apply(row: DeliveryRow) -> DeliveryState:
            row.due_at = None
            row.attempts = 0
            return DeliveryState.READY

        action = Action(self._db, "retry", which, at, who, {})

        def dead(n: int, after: Key | None) -> list[Key]:
            return self._select.deliveries(which, [DeliveryState.DEAD], n, after)

        def deferred(n: int, _: Key | None) -> list[Key]:
            return self._select.deferred(which, action.at, n)

        more = False
        for page in (dead, deferred):
            more = more or self._each(action, page, apply, limit, also=forget_spent)
        return action.changed(more=more)

    def ask_again(self, which: Filter, at: float, who: str, after: Key | None) -> Rerouted:
        """See `Index.ask_again`."""
        uncommitted = DeliveryState.UNCOMMITTED
        keys = self._select.deliveries(which, [uncommitted], _AT_ONCE, after)
        if not keys:
            return Rerouted()
        action = Action(self._db, "ask again", which, at, who, {})
        rows = self._queues.rows(keys).values()
        with self._db.transaction():
            for number in {destination for _, destination in keys}:
                ids = id_list(instance for instance, found in keys if found == number)
                self._db.run(_ASK_AGAIN, action.at, number, ids)
            action.record([instance for instance, _ in keys], len(keys))
        size = sum(row.length for row in rows)
        return Rerouted(len(keys), size, more=len(keys) == _AT_ONCE, cursor=keys[-1])

    def hasten(self, which: Filter, at: float, who: str, limit: int | None) -> Changed:
        """See `Index.hasten`."""
        action = Action(self._db, "hasten", which, at, who, {})

        def page(n: int, _: Key | None) -> list[Key]:
            keys = self._select.gated(which, n)
            for number in {number for _, number in keys}:
                self._plans.ensure(map(self._plans.hastened, self._gates.plans_at(number)))
            return keys

        def apply(row: DeliveryRow) -> DeliveryState:
            row.due_at = row.gate_id = None
            if row.plan_id is not None:
                row.plan_id = self._plans.id(self._plans.hastened(row.plan_id))
            return DeliveryState.READY

        more = self._each(action, page, apply, limit)
        return action.changed(more=more)

    def drop(self, which: Filter, reason: str, at: float, who: str, limit: int | None) -> Changed:
        """See `Index.drop`."""
        states: Sequence[DeliveryState]
        states = (DeliveryState.READY, DeliveryState.HELD, DeliveryState.DEAD)
        if which.state is DeliveryState.UNCOMMITTED:
            states = (which.state,)

        def apply(row: DeliveryRow) -> DeliveryState:
            row.due_at = None
            row.reason = clean(reason)
            return DeliveryState.DROPPED

        def matching(ids: Sequence[int]) -> set[Key]:
            asked = set(ids) if which.ids is None else set(ids) & set(which.ids)
            narrowed = replace(which, state=None, ids=tuple(asked))
            return set(self._select.deliveries(narrowed, [DeliveryState.DUPLICATE], _ALL))

        action = Action(self._db, "drop", which, at, who, {"because": reason})
        return self._change(action, which, states, apply, limit, matching)

    def hold(self, which: Filter, reason: str, at: float, who: str, limit: int | None) -> Changed:
        """See `Index.hold`."""

        def apply(row: DeliveryRow) -> DeliveryState:
            row.due_at = None
            row.reason = clean(reason)
            return DeliveryState.HELD

        action = Action(self._db, "hold", which, at, who, {"because": reason} if reason else {})
        return self._change(action, which, (DeliveryState.READY,), apply, limit)

    def release(self, which: Filter, at: float, who: str, limit: int | None) -> Changed:
        """See `Index.release`."""

        def apply(row: DeliveryRow) -> DeliveryState:
            row.reason = None
            return DeliveryState.READY

        action = Action(self._db, "release", which, at, who, {})
        return self._change(action, which, (DeliveryState.HELD,), apply, limit)

    def _change(
        self,
        action: Action,
        which: Filter,
        states: Sequence[DeliveryState],
        apply: Apply,
        limit: int | None,
        matching: Matching | None = None,
    ) -> Changed:
        def page(n: int, after: Key | None) -> list[Key]:
            return self._select.deliveries(which, states, n, after)

        more = self._each(action, page, apply, limit, matching)
        return action.changed(more=more)

    def _each(
        self,
        action: Action,
        page: Callable[[int, Key | None], list[Key]],
        apply: Apply,
        limit: int | None,
        matching: Matching | None = None,
        also: Callable[[Database, Sequence[DeliveryRow]], None] | None = None,
    ) -> bool:
        """Apply to page after page, each in a transaction with what is ``also`` to be written; True
        when the limit ended it."""
        after: Key | None = None
        while limit is None or action.count < limit:
            size = _AT_ONCE if limit is None else min(_AT_ONCE, limit - action.count)
            keys = page(size, after)
            if keys:
                changes = Changes()
                rows = list(self._queues.rows(keys).values())
                for row in rows:
                    changes.note(row)
                    changes.move(row, apply(row), at=action.at)
                rows += follow(self._db, changes, matching).dropped
                gated = self._gates.place(changes)
                with self._db.transaction():
                    changes.write(self._db)
                    if also is not None:
                        also(self._db, rows)
                    action.record([row.instance_id for row in rows], len(rows))
                action.count += len(rows)
                action.gated += gated
                action.bytes += sum(row.length for row in rows)
                after = keys[-1]
            if len(keys) < size:
                return False
        return bool(page(1, after))

    # -- instances that are held as a whole

    def route_held(
        self,
        which: Filter,
        destinations: Sequence[str],
        rule: str,
        priority: int,
        at: float,
        who: str,
        limit: int | None,
    ) -> Changed:
        """See `Index.route_held`."""
        names = list(dict.fromkeys(destinations))
        if not names:
            raise ValueError("no destination to route to")
        self._destinations.ensure(names)
        self._rules.ensure([rule])
        numbers = [self._destinations.id(name) for name in names]
        rule_id = self._rules.id(rule)
        action = Action(self._db, "route", which, at, who, {"to": ", ".join(names)})

        def write(held: list[list[int]]) -> None:
            counts = new_counts()
            rows: list[tuple[object, ...]] = []
            for instance, length, disposition, study_order in held:
                count(counts, Tally.DISPOSITION + disposition, 0, -1, -length)
                count(counts, Tally.DISPOSITION + Disposition.ROUTED, 0, 1, length)
                for number in numbers:
                    rows.append(
                        (
                            *(instance, number, int(DeliveryState.READY), priority, study_order),
                            *(action.at, rule_id, 0),
                        )
                    )
                    count(counts, Tally.STATE + DeliveryState.READY, number, 1, length)
                    count(counts, Tally.ROUTED, number, 1, length)
            self._db.run_rows(_ROUTE, rows)
            ids = id_list(row[0] for row in held)
            self._db.run(_ROUTED, int(Disposition.ROUTED), len(numbers), ids)
            self._db.tally(counts)

        return self._each_held(which, action, write, limit)

    def discard_held(
        self, which: Filter, reason: str, at: float, who: str, limit: int | None
    ) -> Changed:
        """See `Index.discard_held`."""
        action = Action(self._db, "discard", which, at, who, {"because": reason})

        def write(held: list[list[int]]) -> None:
            counts = new_counts()
            for _, length, disposition, *_rest in held:
                count(counts, Tally.DISPOSITION + disposition, 0, -1, -length)
                count(counts, Tally.DISPOSITION + Disposition.DISCARDED, 0, 1, length)
            ids = id_list(row[0] for row in held)
            new = int(Disposition.DISCARDED)
            self._db.run(_DISCARDED, new, action.at, clean(reason) or None, ids)
            self._db.tally(counts)

        return self._each_held(which, action, write, limit)

    def _each_held(
        self,
        which: Filter,
        action: Action,
        write: Callable[[list[list[int]]], None],
        limit: int | None,
    ) -> Changed:
        if which.destination is not None or which.state is not None:
            return Changed(0, 0)  # what is held as a whole has no deliveries that could be meant
        for disposition in _HELD:
            if which.disposition not in (None, disposition):
                continue
            narrowed = replace(which, disposition=disposition)
            after = 0
            while True:
                size = _AT_ONCE if limit is None else min(_AT_ONCE, limit - action.count)
                ids = self._select.instances(narrowed, max(size, 1), after)
                if not ids:
                    break
                if size <= 0:
                    return action.changed(more=True)
                held: list[list[int]] = self._db.json(_HELD_ROWS, id_list(ids))
                with self._db.transaction():
                    write(held)
                    action.record(ids, len(ids))
                action.count += len(held)
                action.bytes += sum(row[1] for row in held)
                after = ids[-1]
        return action.changed()


# One of which nothing is left to answer (no time) stays so.
_ASK_AGAIN = """
UPDATE commitment SET due_at = ?1 WHERE due_at > ?1 AND id IN (
    SELECT d.commitment_id FROM json_each(?3) AS j CROSS JOIN delivery AS d
        ON d.instance_id = j.value AND d.destination_id = ?2
    WHERE d.state = 6
)
"""
# Without a study, one of its own in the order of arrival, as in `index_add`.
_HELD_ROWS = """
SELECT json_group_array(json_array(
    i.id, i.length, i.disposition,
    CASE i.study_order WHEN 0 THEN i.id ELSE i.study_order END
))
FROM json_each(?) AS j CROSS JOIN instance AS i ON i.id = j.value
"""
_ROUTE = """
INSERT INTO delivery(
    instance_id, destination_id, state, priority, study_order, updated_at, rule_id, attempts
) VALUES {values}
"""
_ROUTED = """
UPDATE instance SET disposition = ?, unsettled = ?
WHERE id IN (SELECT value FROM json_each(?))
"""
_DISCARDED = """
UPDATE instance SET disposition = ?, settled_at = ?, reason = coalesce(?, reason)
WHERE id IN (SELECT value FROM json_each(?))
"""
