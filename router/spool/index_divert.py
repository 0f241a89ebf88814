"""Diversion: a delivery goes to another member of its plan while its destination is down.

Owns how a delivery and what repeats it change their destination, gate and counts with them.  Must
not know who is up, nor why: it is told.

It goes as well while its destination is up, when that has refused it for good and the plan says so,
or its back-off has passed a limit; where it went so it does not go back to while another is up.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from router.spool.index_changes import REPEATS, Changes, DeliveryRow, inherit
from router.spool.index_database import (
    GATED,
    Counts,
    Database,
    count,
    id_list,
    microseconds,
    new_counts,
)
from router.spool.index_gates import SCHEDULE, Arrivals, GateKey, GateRow, Gates
from router.spool.index_names import Names
from router.spool.index_plans import Plans
from router.spool.index_spent import bit_of
from router.spool.index_together import Together
from router.spool.index_types import STATES, DeliveryState, Moved, Tally
from router.spool.plan import Plan


@dataclass(frozen=True, slots=True)
class _Page:
    """Deliveries of one plan that move: (instance id, length, gate id, id of the target).

    With ``giving`` they leave one that is up, which has had its try: their attempts are forgotten.
    """

    number: int
    plan_id: int
    plan: Plan
    at: int
    rows: list[tuple[int, int, int | None, int]]
    giving: bool = False


@dataclass(frozen=True, slots=True)
class _Look:
    """For what deliveries of one plan at one destination another is looked for.

    ``targets`` are destination ids, the best first, and ``bits`` theirs in `index_spent`; where
    ``down`` those that have had their try may be asked once more.  ``least`` are the priorities
    that each takes, and what has ``keeps`` or more stays.  ``whole``: a study that was begun stays.
    """

    number: int
    plan_id: int
    plan: Plan
    excluded: str
    targets: tuple[int, ...]
    bits: tuple[int, ...]
    least: tuple[int, ...]
    keeps: int
    down: bool
    whole: bool

    @property
    def wanted(self) -> str:
        """The targets with their bits, as statements take them."""
        bits = (0,) * len(self.bits) if self.down else self.bits
        return json.dumps(list(zip(self.targets, bits, self.least, strict=True)))

    @property
    def whom(self) -> tuple[tuple[int, int], ...]:
        """The targets, and from which priority on."""
        return tuple(zip(self.targets, self.least, strict=True))

    def chosen(self, rows: Iterable[list[Any]]) -> list[tuple[int, int, int | None, int]]:
        """Rows of instance id, length, gate id, ids of the destinations that have it, spent, study,
        priority; each with its target."""
        found = []
        members = list(zip(self.targets, self.bits, self.least, strict=True))
        for instance, length, gate, there, spent, _, priority in rows:
            open_to = [
                (bool((spent or 0) & bit), place, target)
                for place, (target, bit, least) in enumerate(members)
                if target not in there and priority >= least
            ]
            found.append((instance, length, gate, min(open_to)[2]))
        return found


@dataclass
class _Repeats:
    """Of those that repeat what moves: rows that go along with the id of their target, and the
    changes of those that stay."""

    along: list[tuple[DeliveryRow, int]] = field(default_factory=list)
    staying: Changes = field(default_factory=Changes)
    gated: int = 0


@dataclass(frozen=True, slots=True)
class _Stuck:
    """So many have nobody that they are not looked through again, before ``until``, for the same
    targets: of those that are due, only the instances above ``highest`` are."""

    targets: tuple[tuple[int, int], ...]
    highest: int
    since: int
    until: int


class Diversion:
    """Behind `Index.divert`.

    Keeps in memory where many have nobody: where rules send to the others anyway.
    """

    def __init__(self, db: Database, destinations: Names, plans: Plans, gates: Gates) -> None:
        self._db = db
        self._destinations = destinations
        self._plans = plans
        self._gates = gates
        self._stuck: dict[tuple[int, int], _Stuck] = {}
        self._together = Together(db, destinations)

    def divert(
        self,
        destination: str,
        up: Collection[str],
        exclude: Collection[int],
        at: float,
        limit: int,
        give_way: float | None = None,
        *,
        urgent: Mapping[str, int] = MappingProxyType({}),
        gone: bool = False,
    ) -> Moved:
        """See `Index.divert`."""
        number = self._destinations.find(destination)
        if number is None:
            return Moved()
        excluded = id_list(exclude)
        ready: dict[str, int] = {}
        gated: dict[str, int] = {}
        left = max(limit, 1)
        ready_to = {*up, *urgent} - ({destination} - set(up))
        for plan_id in self._gates.plans_at(number):
            plan = self._plans.plan(plan_id)
            for giving in (True, False):
                better = (_others if giving else _better)(plan, destination, ready_to)
                if not better:
                    continue
                self._destinations.ensure(better)
                look = _Look(
                    *(number, plan_id, plan, excluded),
                    targets=tuple(self._destinations.id(name) for name in better),
                    bits=tuple(bit_of(plan, name) for name in better),
                    least=tuple(_ANY if name in up else urgent[name] for name in better),
                    keeps=_ALL if destination in up else urgent.get(destination, _ALL),
                    down=destination not in up,
                    whole=bool(plan.keep) and not gone,
                )
                if giving:
                    found = self._giving(look, bit_of(plan, destination), give_way, left + 1)
                else:
                    found = self._found(look, left + 1, microseconds(at), len(exclude))
                more, found = len(found) > left, found[:left]
                if found:
                    page = _Page(number, plan_id, plan, microseconds(at), found, giving)
                    self._move(page, ready, gated)
                    left -= len(found)
                if more:
                    return Moved(ready, gated, more=True)
        return Moved(ready, gated)

    def _found(
        self, look: "_Look", limit: int, at: int, excluded: int
    ) -> list[tuple[int, int, int | None, int]]:
        """What moves since its destination is down, or a better one is up."""
        key = (look.number, look.plan_id)
        above = self._above(key, look.whom, at)
        found = self._movable(look, limit, above)
        # Where only the urgent ones move the others are not looked through for each of those.
        some = any(least != _ANY for least in look.least) and len(found) < limit
        if (some or not found) and not above:
            self._note_stuck(key, look.whom, at, excluded)
        return found

    def _giving(
        self, look: "_Look", bit: int, give_way: float | None, limit: int
    ) -> list[tuple[int, int, int | None, int]]:
        """What one that is up has had its try at."""
        longest = None if give_way is None else microseconds(give_way)
        where = (look.number, look.plan_id, look.excluded, look.wanted, limit, bit, longest)
        begun: set[int] = set()
        while True:
            rows = self._db.json(_GIVING, *where, id_list(begun))
            if not look.whole:
                return look.chosen(rows)
            # What was refused for good goes all the same: it would never be whole here.
            waits = {row[5] for row in rows if not (row[4] or 0) & bit}
            more = self._together.begun(look.number, waits - begun, look.excluded)
            if not more:
                return look.chosen(rows)
            begun |= more

    def _movable(
        self, look: "_Look", limit: int, above: int
    ) -> list[tuple[int, int, int | None, int]]:
        """Each with the first target that has no delivery of the instance; of a study that is to
        be whole nothing when some of it was delivered."""
        begun: set[int] = set()
        while True:
            where = (look.number, look.plan_id, look.excluded, look.wanted, limit, above)
            rows = self._db.json(_MOVABLE, *where, id_list(begun), look.keeps)
            if not look.whole:
                return look.chosen(rows)
            more = self._together.begun(
                look.number, {row[5] for row in rows} - begun, look.excluded
            )
            if not more:
                return look.chosen(rows)
            begun |= more

    def _above(self, key: tuple[int, int], targets: tuple[tuple[int, int], ...], at: int) -> int:
        """The id from which on instances are to be looked at."""
        stuck = self._stuck.get(key)
        if stuck is None or stuck.targets != targets or not stuck.since <= at < stuck.until:
            self._stuck.pop(key, None)
            return 0
        return stuck.highest

    def _note_stuck(
        self, key: tuple[int, int], targets: tuple[tuple[int, int], ...], at: int, excluded: int
    ) -> None:
        if self._db.value(_MANY, *key, excluded + _STUCK):
            highest = self._db.value(_HIGHEST, *key)
            self._stuck[key] = _Stuck(targets, highest, at, at + _LOOKED_AGAIN)

    def _move(self, page: _Page, ready: dict[str, int], gated: dict[str, int]) -> None:
        """One transaction; adds to the numbers by destination."""
        repeats = self._repeats(page)
        counts = new_counts()
        for _, length, gate, target in page.rows:
            _count_moved(counts, DeliveryState.READY, page.number, target, length)
            if gate is not None:
                count(counts, Tally.GATED, page.number, -1, -length)
                count(counts, Tally.GATED, target, 1, length)
            by_name = ready if gate is None else gated
            name = self._destinations.name(target)
            by_name[name] = by_name.get(name, 0) + 1
        for row, target in repeats.along:
            _count_moved(counts, DeliveryState.DUPLICATE, page.number, target, row.length)
        with self._db.transaction():
            gates = self._move_gates(page)
            rows = self._rows(page, gates)
            if page.giving:
                by = self._destinations.name(page.number)
                spent = [(*row, f"not taken by {by}", bit_of(page.plan, by)) for row in rows]
                self._db.run_rows(_GIVE_WAY, spent)
            else:
                self._db.run_rows(_DIVERT, rows)
            self._db.run_rows(
                _ALONG, [(row.instance_id, page.number, t) for row, t in repeats.along]
            )
            repeats.staying.write(self._db)
            self._db.tally(counts)
            self._leave_empty(page)
        revived = sum(row.state is DeliveryState.READY for row in repeats.staying.rows)
        name = self._destinations.name(page.number)
        if revived > repeats.gated:
            ready[name] = ready.get(name, 0) + revived - repeats.gated
        if repeats.gated:
            gated[name] = gated.get(name, 0) + repeats.gated

    def _rows(
        self, page: _Page, gates: dict[tuple[int, int], int]
    ) -> list[tuple[int | str | None, ...]]:
        first = page.plan.members[0]
        rows: list[tuple[int | str | None, ...]] = []
        for instance, _, gate, target in page.rows:
            home = self._destinations.name(target) == first
            rows.append(
                (
                    *(instance, page.number, target, None if gate is None else GATED),
                    None if gate is None else gates[gate, target],
                    *(None if home else f"in place of {first}", page.at),
                )
            )
        return rows

    # -- gates

    def _move_gates(self, page: _Page) -> dict[tuple[int, int], int]:
        """By (gate, target), the gate there that is like it; in the open transaction."""
        numbers: dict[tuple[int, int], int] = defaultdict(int)
        for _, _, gate, target in page.rows:
            if gate is not None:
                numbers[gate, target] += 1
        if not numbers:
            return {}
        gates = self._gates.rows({gate for gate, _ in numbers})
        keys: dict[tuple[int, int], GateKey] = {}
        arrivals: dict[GateKey, Arrivals] = {}
        for (gate, target), n in numbers.items():
            row = gates[gate]
            key = keys[gate, target] = (target, row.kind, row.key, row.plan_id)
            arrivals[key] = Arrivals(
                row.study, row.first_at, row.last_at, n, row.supplement, row.earlier
            )
            self._db.run(_FEWER, n, gate)
        ids = self._gates.shut_for(arrivals)
        return {which: ids[key] for which, key in keys.items()}

    def _leave_empty(self, page: _Page) -> None:
        """Gates that have nothing behind them now were not opened: their study is elsewhere."""
        ids = {gate for _, _, gate, _ in page.rows if gate is not None}
        for gate in self._gates.rows(ids).values():
            if not self._db.value(_ANY_BEHIND, gate.id):
                self._remember_or_delete(gate)

    def _remember_or_delete(self, gate: GateRow) -> None:
        if gate.kind == SCHEDULE:
            self._db.run("DELETE FROM gate WHERE id = ?", gate.id)
        else:
            self._db.run("UPDATE gate SET shut = 0 WHERE id = ?", gate.id)

    # -- what repeats them

    def _repeats(self, page: _Page) -> _Repeats:
        """What becomes of them; gates of those that stay are made in a transaction of its own."""
        targets = {instance: target for instance, _, _, target in page.rows}
        by_earlier: dict[int, list[DeliveryRow]] = defaultdict(list)
        keys = [(instance, page.number) for instance in targets]
        for earlier, *row in self._db.json_rows(REPEATS, keys):
            found = DeliveryRow(row[0], row[1], STATES[row[2]], *row[3:])
            by_earlier[earlier].append(found)
        wanted = [(row.instance_id, targets[e]) for e, rows in by_earlier.items() for row in rows]
        taken = {(instance, there) for instance, there in self._db.json_rows(_TAKEN, wanted)}
        result = _Repeats()
        for earlier, rows in by_earlier.items():
            target = targets[earlier]
            name = self._destinations.name(target)
            staying: list[DeliveryRow] = []
            for row in sorted(rows, key=lambda row: row.instance_id):
                allowed = name in self._plans.plan(row.plan_id).members
                if allowed and (row.instance_id, target) not in taken:
                    result.along.append((row, target))
                else:
                    staying.append(row)
            if staying:
                heir, *others = staying
                heir.reason = f"in place of instance {earlier}, which went to {name}"
                inherit(result.staying, heir, at=page.at)
                result.staying.repeat(heir, None)
                for row in others:
                    result.staying.repeat(row, heir.instance_id)
        result.gated = self._gates.place(result.staying)
        return result


def _better(plan: Plan, destination: str, up: Collection[str]) -> list[str]:
    """Where deliveries at ``destination`` would rather be, best first."""
    if plan.mode == "one":
        return []
    members = list(dict.fromkeys(plan.members))
    if destination in up:
        if plan.mode == "first_available":
            return []
        if destination in members:
            members = members[: members.index(destination)]
    return [name for name in members if name in up and name != destination]


def _others(plan: Plan, destination: str, up: Collection[str]) -> list[str]:
    """Who else may have what ``destination``, which is up, has had its try at; best first."""
    if plan.mode == "one" or destination not in up or destination not in plan.members:
        return []
    return [name for name in dict.fromkeys(plan.members) if name in up and name != destination]


def _count_moved(
    counts: Counts, state: DeliveryState, origin: int, target: int, length: int
) -> None:
    for what in (Tally.STATE + state, Tally.ROUTED):
        count(counts, what, origin, -1, -length)
        count(counts, what, target, 1, length)


_ANY, _ALL = -(2**31), 2**31
_STUCK = 1000
_LOOKED_AGAIN = microseconds(60.0)
_HAS_ONE = """
        AND EXISTS (
            SELECT 1 FROM json_each(?4) AS t
            WHERE coalesce(p.spent, 0) & json_extract(t.value, '$[1]') = 0
                AND p.priority >= json_extract(t.value, '$[2]') AND NOT EXISTS (
                SELECT 1 FROM delivery AS o
                WHERE o.instance_id = p.instance_id
                    AND o.destination_id = json_extract(t.value, '$[0]')
            )
        )
"""
_CANDIDATES = f"""
SELECT * FROM (
    SELECT p.instance_id, p.gate_id, p.spent, p.study_order, p.priority
    FROM delivery AS p INDEXED BY delivery_plan
    WHERE p.destination_id = ?1 AND p.plan_id = ?2 AND p.state = 0 AND p.plan_id IS NOT NULL
        AND p.priority < ?8
        AND {{which}}
        AND p.instance_id NOT IN (SELECT value FROM json_each(?3))
        AND p.study_order NOT IN (SELECT value FROM json_each(?7))
        {_HAS_ONE}
    LIMIT ?5
)
"""
_ROW = """
SELECT json_group_array(json_array(d.instance_id, i.length, d.gate_id, json((
    SELECT json_group_array(o.destination_id) FROM delivery AS o
    WHERE o.instance_id = d.instance_id
)), d.spent, d.study_order, d.priority)) FROM (
"""
_MOVABLE = f"""
{_ROW}
    {_CANDIDATES.format(which="p.gate_id IS NULL AND p.instance_id > ?6")}
    UNION ALL
    {_CANDIDATES.format(which="p.gate_id IS NOT NULL")}
    LIMIT ?5
) AS d
CROSS JOIN instance AS i ON i.id = d.instance_id
"""
# What waits for a time: a refusal (the bit of the destination is set), or a long back-off.
_GIVING = f"""
{_ROW}
    SELECT p.instance_id, p.gate_id, p.spent, p.study_order, p.priority
    FROM delivery AS p INDEXED BY delivery_due
    WHERE p.destination_id = ?1 AND p.plan_id = ?2 AND p.state = 0 AND p.due_at IS NOT NULL
        AND (
            coalesce(p.spent, 0) & ?6 <> 0
            OR (p.gate_id IS NULL AND p.due_at - p.updated_at >= ?7
                AND p.study_order NOT IN (SELECT value FROM json_each(?8)))
        )
        AND p.instance_id NOT IN (SELECT value FROM json_each(?3))
        {_HAS_ONE}
    LIMIT ?5
) AS d
CROSS JOIN instance AS i ON i.id = d.instance_id
"""
_MANY = """
SELECT 1 FROM delivery INDEXED BY delivery_plan
WHERE destination_id = ? AND plan_id = ? AND gate_id IS NULL AND state = 0
    AND plan_id IS NOT NULL
LIMIT 1 OFFSET ?
"""
_HIGHEST = """
SELECT max(instance_id) FROM delivery INDEXED BY delivery_plan
WHERE destination_id = ? AND plan_id = ? AND gate_id IS NULL AND state = 0
    AND plan_id IS NOT NULL
"""
_TAKEN = """
WITH wanted(instance_id, destination_id) AS (VALUES {values})
SELECT json_group_array(json_array(d.instance_id, d.destination_id))
FROM wanted CROSS JOIN delivery AS d
    ON d.instance_id = wanted.instance_id AND d.destination_id = wanted.destination_id
"""
# Its age (index_expire) goes on where it goes: that of one that was not tried counts from its time.
_DIVERT = """
WITH o(instance_id, origin, target, due_at, gate_id, reason, at) AS (VALUES {values})
UPDATE delivery
SET destination_id = o.target, due_at = o.due_at, gate_id = o.gate_id, reason = o.reason,
    status = NULL, updated_at = CASE attempts WHEN 0 THEN updated_at ELSE o.at END
FROM o
WHERE delivery.instance_id = o.instance_id AND delivery.destination_id = o.origin
"""
_GIVE_WAY = """
WITH o(instance_id, origin, target, due_at, gate_id, reason, at, by, bit) AS (VALUES {values})
UPDATE delivery
SET destination_id = o.target, due_at = o.due_at, gate_id = o.gate_id,
    updated_at = CASE attempts WHEN 0 THEN updated_at ELSE (
        SELECT i.received_at FROM instance AS i WHERE i.id = delivery.instance_id
    ) END,
    reason = coalesce(o.reason || '; ', '') || o.by || coalesce(': ' || delivery.reason, ''),
    status = NULL, attempts = 0, spent = coalesce(spent, 0) | o.bit
FROM o
WHERE delivery.instance_id = o.instance_id AND delivery.destination_id = o.origin
"""
_ALONG = """
WITH o(instance_id, origin, target) AS (VALUES {values})
UPDATE delivery SET destination_id = o.target
FROM o
WHERE delivery.instance_id = o.instance_id AND delivery.destination_id = o.origin
"""
_FEWER = "UPDATE gate SET instances = max(instances - ?, 0) WHERE id = ?"
_ANY_BEHIND = "SELECT 1 FROM delivery INDEXED BY delivery_gate WHERE gate_id = ? LIMIT 1"
