"""Transitions of deliveries, written as one, and what they mean for those that repeat them.

Owns the counts that follow from a transition, and that no bytes are lost to a duplicate: a
delivery that repeats another (DUPLICATE) counts as unsettled while that one is READY, HELD or
UNCOMMITTED, is settled when that one is delivered, and goes in its place when it ends otherwise.
Must not know who asks for a transition.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from router.spool.index_database import Database, count, new_counts
from router.spool.index_types import KEEPING_STATES, STATES, DeliveryState, Tally

_WAITING = (DeliveryState.READY, DeliveryState.HELD, DeliveryState.UNCOMMITTED)

Matching = Callable[[Sequence[int]], Collection[tuple[int, int]]]
"""Of these instances, the DUPLICATE deliveries that an operator drops with what they repeat, as
(instance id, destination id)."""


@dataclass
class DeliveryRow:
    """A delivery that is being changed; times in microseconds.

    ``gate_id`` is None unless it is READY and has the time GATED.
    """

    instance_id: int
    destination_id: int
    state: DeliveryState
    length: int
    attempts: int
    status: int | None
    reason: str | None
    due_at: int | None
    updated_at: int
    plan_id: int | None = None
    gate_id: int | None = None


class Changes:
    """Transitions of deliveries, gathered to be written as one."""

    def __init__(self) -> None:
        self.counts = new_counts()
        self._rows: dict[tuple[int, int], DeliveryRow] = {}
        self._before: dict[tuple[int, int], DeliveryState] = {}
        self._planned: dict[tuple[int, int], tuple[int, int | None]] = {}
        self._unsettled: dict[int, tuple[int, int]] = {}
        self._repeats: list[tuple[int, int, int | None]] = []

    @property
    def rows(self) -> Iterable[DeliveryRow]:
        """What changed, each once."""
        return self._rows.values()

    def before(self, row: DeliveryRow) -> DeliveryState:
        """The state in which one of `rows` was."""
        return self._before[row.instance_id, row.destination_id]

    def ended(self) -> dict[tuple[int, int], DeliveryRow]:
        """Those that were READY, HELD or UNCOMMITTED and are no more, by (instance id, destination
        id)."""
        return {
            key: row
            for key, row in self._rows.items()
            if self._before[key] in _WAITING and row.state not in _WAITING
        }

    def uncommitted(self, keys: Iterable[tuple[int, int]]) -> dict[tuple[int, int], DeliveryRow]:
        """Those of ``keys`` that changed and are UNCOMMITTED now."""
        rows = {key: self._rows[key] for key in keys}
        return {k: row for k, row in rows.items() if row.state is DeliveryState.UNCOMMITTED}

    def note(self, row: DeliveryRow) -> None:
        """Before its plan or gate is changed by others than `move`."""
        if row.plan_id is not None:
            key = (row.instance_id, row.destination_id)
            self._planned.setdefault(key, (row.plan_id, row.gate_id))

    def move(self, row: DeliveryRow, state: DeliveryState, *, at: int) -> None:
        """``row``, whose other fields the caller has set, goes to ``state``.

        A DUPLICATE only from `follow`, with one that it waited for.
        """
        key = (row.instance_id, row.destination_id)
        self._rows[key] = row
        self._before.setdefault(key, row.state)
        if row.plan_id is not None:
            self._planned.setdefault(key, (row.plan_id, row.gate_id))
        row.updated_at = at
        if state is row.state:
            return
        if row.gate_id is not None:
            row.gate_id = row.due_at = None
        count(self.counts, Tally.STATE + row.state, row.destination_id, -1, -row.length)
        count(self.counts, Tally.STATE + state, row.destination_id, 1, row.length)
        kept_before = row.state in KEEPING_STATES or row.state is DeliveryState.DUPLICATE
        self._count_unsettled(row.instance_id, (state in KEEPING_STATES) - kept_before, at)
        row.state = state

    def let_go(self, instance_id: int, *, at: int) -> None:
        """One DUPLICATE of the instance is settled: what it repeats was delivered."""
        self._count_unsettled(instance_id, -1, at)

    def keep(self, instance_id: int, *, at: int) -> None:
        """One DUPLICATE of the instance waits once more, as what it repeats does."""
        self._count_unsettled(instance_id, 1, at)

    def repeat(self, row: DeliveryRow, earlier: int | None) -> None:
        """``row`` repeats ``earlier`` from now on, or nothing."""
        self._repeats.append((row.instance_id, row.destination_id, earlier))

    def _count_unsettled(self, instance_id: int, change: int, at: int) -> None:
        if change:
            before, _ = self._unsettled.get(instance_id, (0, 0))
            self._unsettled[instance_id] = (before + change, at)

    def write(self, db: Database) -> None:
        """Into the open transaction."""
        rows = [
            (
                *(r.instance_id, r.destination_id, int(r.state), r.due_at, r.attempts),
                *(r.updated_at, r.status, r.reason or None),
            )
            for r in self.rows
        ]
        db.run_rows(_UPDATE_DELIVERIES, rows)
        db.run_rows(_UPDATE_GATES, self._regated())
        db.run_rows(_UPDATE_REPEATS, self._repeats)
        answered = [key for key, row in self._rows.items() if self._was_asked_for(key, row)]
        db.run_rows(_UPDATE_ASKED, answered)
        unsettled = [[i, change, at] for i, (change, at) in self._unsettled.items() if change]
        db.run_rows(_UPDATE_UNSETTLED, unsettled)
        db.tally(self.counts)

    def _was_asked_for(self, key: tuple[int, int], row: DeliveryRow) -> bool:
        """Taken, and now whatever else: if it is taken once more it is asked for anew."""
        uncommitted = DeliveryState.UNCOMMITTED
        return self._before[key] is uncommitted and row.state is not uncommitted

    def _regated(self) -> list[tuple[object, ...]]:
        """Those whose plan or gate is another than in the index, now counted there."""
        found: list[tuple[object, ...]] = []
        for key, (plan, gate) in self._planned.items():
            row = self._rows[key]
            if (plan, gate) == (row.plan_id, row.gate_id):
                continue
            found.append((*key, row.plan_id, row.gate_id))
            change = (row.gate_id is not None) - (gate is not None)
            count(self.counts, Tally.GATED, row.destination_id, change, change * row.length)
        return found


@dataclass
class Followed:
    """``dropped``: repeats that went with what they repeat; ``repeated``: the instance that each of
    these did, by its (instance id, destination id); ``revived``: how many are READY."""

    dropped: list[DeliveryRow] = field(default_factory=list)
    repeated: dict[tuple[int, int], int] = field(default_factory=dict)
    revived: int = 0


def follow(
    db: Database,
    changes: Changes,
    matching: Matching | None = None,
    elsewhere: Collection[tuple[int, int]] = (),
) -> Followed:
    """Add to ``changes`` what they mean for the deliveries that repeat those that ended.

    One that became DEAD or DROPPED is not coming.  Of its repeats the first goes in its place
    and the rest repeat that one; those that ``matching`` names are dropped as it was.  So it is
    with those in ``elsewhere``, delivered to a peer that the destination is no more.
    """
    done = Followed()
    # Those that another peer took, and has still to commit, stand for nothing here either.
    ended = changes.ended() | changes.uncommitted(elsewhere)
    repeats: dict[tuple[int, int], list[DeliveryRow]] = defaultdict(list)
    for earlier, *row in db.json_rows(REPEATS, list(ended)):
        found = DeliveryRow(row[0], row[1], STATES[row[2]], *row[3:])
        repeats[earlier, found.destination_id].append(found)
    there = {k for k in repeats if ended[k].state is DeliveryState.DELIVERED and k not in elsewhere}
    lost = [key for key in repeats if key not in there]
    meant: Collection[tuple[int, int]] = ()
    if matching is not None and lost:
        meant = matching([row.instance_id for key in lost for row in repeats[key]])
    for key, rows in repeats.items():
        earlier = ended[key]
        at = earlier.updated_at
        if key in there:
            for row in rows:
                changes.let_go(row.instance_id, at=at)
            continue
        left: list[DeliveryRow] = []
        for row in sorted(rows, key=lambda row: row.instance_id):
            if (row.instance_id, row.destination_id) in meant:
                row.reason = earlier.reason
                changes.move(row, DeliveryState.DROPPED, at=at)
                done.dropped.append(row)
                done.repeated[row.instance_id, row.destination_id] = earlier.instance_id
            else:
                left.append(row)
        if not left:
            continue
        heir, *others = left
        heir.reason = f"in place of instance {earlier.instance_id}, {earlier.state.name.lower()}"
        if key in elsewhere:
            heir.reason += " to another peer"
        inherit(changes, heir, at=at)
        changes.repeat(heir, None)
        for row in others:
            changes.repeat(row, heir.instance_id)
        done.revived += 1
    return done


def inherit(changes: Changes, heir: DeliveryRow, *, at: int) -> None:
    """A DUPLICATE goes by itself; it has waited since it came, and is no younger now."""
    since = heir.updated_at
    changes.move(heir, DeliveryState.READY, at=at)
    heir.updated_at = since


REPEATS = f"""
WITH wanted(instance_id, destination_id) AS (VALUES {{values}})
SELECT json_group_array(json_array(
    d.duplicate_of, d.instance_id, d.destination_id, d.state, i.length, d.attempts, d.status,
    d.reason, d.due_at, d.updated_at, d.plan_id, d.gate_id
))
FROM wanted
CROSS JOIN delivery AS d INDEXED BY delivery_repeat
    ON d.duplicate_of = wanted.instance_id AND d.destination_id = wanted.destination_id
CROSS JOIN instance AS i ON i.id = d.instance_id
WHERE d.duplicate_of IS NOT NULL AND d.state = {int(DeliveryState.DUPLICATE)}
"""
_UPDATE_DELIVERIES = """
WITH o(instance_id, destination_id, state, due_at, attempts, updated_at, status, reason)
    AS (VALUES {values})
UPDATE delivery
SET state = o.state, due_at = o.due_at, attempts = o.attempts, updated_at = o.updated_at,
    status = o.status, reason = o.reason
FROM o
WHERE delivery.instance_id = o.instance_id AND delivery.destination_id = o.destination_id
"""
_UPDATE_GATES = """
WITH o(instance_id, destination_id, plan_id, gate_id) AS (VALUES {values})
UPDATE delivery SET plan_id = o.plan_id, gate_id = o.gate_id
FROM o
WHERE delivery.instance_id = o.instance_id AND delivery.destination_id = o.destination_id
"""
_UPDATE_REPEATS = """
WITH o(instance_id, destination_id, duplicate_of) AS (VALUES {values})
UPDATE delivery SET duplicate_of = o.duplicate_of
FROM o
WHERE delivery.instance_id = o.instance_id AND delivery.destination_id = o.destination_id
"""
_UPDATE_ASKED = """
WITH o(instance_id, destination_id) AS (VALUES {values})
UPDATE delivery SET commitment_id = NULL
FROM o
WHERE delivery.instance_id = o.instance_id AND delivery.destination_id = o.destination_id
"""
_UPDATE_UNSETTLED = """
WITH o(id, change, at) AS (VALUES {values})
UPDATE instance
SET unsettled = unsettled + o.change,
    settled_at = CASE WHEN unsettled + o.change = 0 THEN o.at END
FROM o
WHERE instance.id = o.id
"""
