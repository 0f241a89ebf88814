"""Filters as SQL.

Owns the choice of the index that a filter is answered from, so that a list of a hundred lines
costs the same with a million rows as with a thousand.  SQLite is told with ``INDEXED BY`` and
``CROSS JOIN``: it has no statistics to choose by.  Only numbers that come from here are written
into a statement; what a filter holds is bound.
"""

from collections.abc import Collection, Iterable, Sequence

from router.spool.index_database import GATED, Database, clean, id_list, microseconds, stored_tags
from router.spool.index_names import Names
from router.spool.index_schema import sop_key
from router.spool.index_types import OPEN_STATES, DeliveryState, Disposition, Filter

Key = tuple[int, int]
"""Instance id and destination id."""

_LAST = 2**62
_COMPOUND = 100
_HELD = (Disposition.HELD, Disposition.QUARANTINED)


class Selector:
    """Finds the keys of what a filter means, a page at a time."""

    def __init__(self, db: Database, destinations: Names) -> None:
        self._db = db
        self._destinations = destinations

    def deliveries(
        self,
        which: Filter,
        states: Collection[DeliveryState],
        limit: int,
        after: Key | None = None,
    ) -> list[Key]:
        """Deliveries in one of ``states``, by instance and destination, from behind ``after``."""
        wanted = [s for s in states if which.state is None or s is which.state]
        numbers = self._numbers(which)
        if not wanted or not numbers:
            return []
        rest, bound = _delivery_conditions(which)
        if after is not None:
            rest += " AND d.instance_id >= ? AND (d.instance_id, d.destination_id) > (?, ?)"
            bound += [after[0], *after]
        candidates, named = _candidates(which)
        if not candidates and all(state in OPEN_STATES for state in wanted):
            return self._open_deliveries(numbers, wanted, rest, bound, limit)
        otherwise = ""
        if not candidates and wanted == [DeliveryState.UNCOMMITTED]:
            otherwise, rest = "INDEXED BY delivery_uncommitted", f"{rest} AND d.state = 6"
        sql = f"""
            SELECT d.instance_id AS a, d.destination_id AS b
            FROM {_deliveries_of(candidates, otherwise)}
            CROSS JOIN instance AS i ON i.id = d.instance_id
            WHERE d.state IN {_literal(wanted)} AND d.destination_id IN {_literal(numbers)} {rest}
            ORDER BY a, b LIMIT ?
        """
        return self._keys(sql, [*named, *bound, limit])

    def _open_deliveries(
        self,
        numbers: Sequence[int],
        states: Sequence[DeliveryState],
        rest: str,
        bound: Sequence[object],
        limit: int,
    ) -> list[Key]:
        """Merged from the index of open deliveries, which has each queue in order."""
        branches = [
            f"""
            SELECT d.instance_id AS a, d.destination_id AS b
            FROM delivery AS d INDEXED BY delivery_open
            CROSS JOIN instance AS i ON i.id = d.instance_id
            WHERE d.destination_id = {number} AND d.state = {int(state)} AND d.state + 0 <= 2 {rest}
            """
            for number in numbers
            for state in states
        ]
        keys: list[Key] = []
        for at in range(0, len(branches), _COMPOUND):
            some = branches[at : at + _COMPOUND]
            sql = " UNION ALL ".join(some) + " ORDER BY a, b LIMIT ?"
            keys += self._keys(sql, [*(list(bound) * len(some)), limit])
        return sorted(keys)[:limit]

    def deferred(self, which: Filter, after: int, limit: int) -> list[Key]:
        """Deliveries that wait for a time after ``after`` (microseconds), in no order."""
        return self._waiting(which, f"d.due_at > ? AND d.due_at < {GATED}", after, limit)

    def gated(self, which: Filter, limit: int) -> list[Key]:
        """Deliveries behind gates, in no order."""
        return self._waiting(which, "d.due_at = ?", GATED, limit)

    def _waiting(self, which: Filter, time: str, bound_to: int, limit: int) -> list[Key]:
        numbers = self._numbers(which)
        if which.state not in (None, DeliveryState.READY) or not numbers:
            return []
        rest, bound = _delivery_conditions(which)
        candidates, named = _candidates(which)
        sql = f"""
            SELECT d.instance_id AS a, d.destination_id AS b
            FROM {_deliveries_of(candidates, "INDEXED BY delivery_due")}
            CROSS JOIN instance AS i ON i.id = d.instance_id
            WHERE d.destination_id IN {_literal(numbers)} AND d.state = 0
                AND d.due_at IS NOT NULL AND {time} {rest}
            LIMIT ?
        """
        return self._keys(sql, [*named, bound_to, *bound, limit])

    def instances(self, which: Filter, limit: int, after: int = 0) -> list[int]:
        """Ids of instances, rising, from behind ``after``."""
        candidates, named = _candidates(which)
        by_queue = which.destination is not None or which.state is not None
        if by_queue and not candidates and which.state in OPEN_STATES:
            return self._instances_of_queue(which, limit, after)
        rest, bound = _instance_conditions(which, by_queue)
        if by_queue:
            states = list(DeliveryState) if which.state is None else [which.state]
            rest += f""" AND EXISTS (
                SELECT 1 FROM delivery AS d
                WHERE d.instance_id = i.id AND d.state IN {_literal(states)}
                    AND d.destination_id IN {_literal(self._numbers(which))}
                    {"" if which.reason is None else "AND coalesce(d.reason, '') GLOB ?"}
            )"""
            bound += [] if which.reason is None else [clean(which.reason)]
        source = "instance AS i NOT INDEXED"
        if candidates:
            source = f"{candidates} CROSS JOIN instance AS i ON i.id = candidate.id"
        elif which.disposition in _HELD:
            source = "instance AS i INDEXED BY instance_held"
            rest += " AND i.disposition IN (1, 2)"
        sql = f"""
            SELECT i.id AS a FROM {source} CROSS JOIN context AS c ON c.id = i.context_id
            WHERE i.id > ? {rest} ORDER BY a LIMIT ?
        """
        text = f"SELECT json_group_array(a) FROM ({sql})"
        return list(self._db.json(text, *named, after, *bound, limit))

    def _instances_of_queue(self, which: Filter, limit: int, after: int) -> list[int]:
        """By way of their deliveries; one instance may wait for several destinations."""
        found: dict[int, None] = {}
        cursor: Key | None = (after, _LAST)
        while len(found) < limit:
            keys = self.deliveries(which, OPEN_STATES, limit, cursor)
            found.update((instance, None) for instance, _ in keys)
            if len(keys) < limit:
                break
            cursor = keys[-1]
        return list(found)[:limit]

    def _numbers(self, which: Filter) -> list[int]:
        if which.destination is None:
            return [number for _, number in self._destinations.items()]
        number = self._destinations.find(which.destination)
        return [] if number is None else [number]

    def _keys(self, sql: str, bound: Sequence[object]) -> list[Key]:
        text = f"SELECT json_group_array(json_array(a, b)) FROM ({sql})"
        return [(a, b) for a, b in self._db.json(text, *bound)]


def _candidates(which: Filter) -> tuple[str, list[object]]:
    """A subquery ``candidate`` of instance ids for a filter that names few; "" for others."""
    parts: list[str] = []
    bound: list[object] = []
    if which.ids is not None:
        parts.append("SELECT value AS id FROM json_each(?)")
        bound.append(id_list(dict.fromkeys(which.ids)))
    if which.study is not None:
        parts.append(
            "SELECT s.id FROM context AS k INDEXED BY context_study "
            "CROSS JOIN instance AS s INDEXED BY instance_context ON s.context_id = k.id "
            "WHERE k.study_instance_uid = ? AND k.study_instance_uid <> ''"
        )
        bound.append(clean(which.study))
    if which.sop_instance_uid is not None and not parts:
        # Read through the index, which is by study first: a tenth of a second for a million.
        parts.append("SELECT id FROM instance INDEXED BY instance_sop WHERE sop_key = ?")
        bound.append(sop_key(clean(which.sop_instance_uid)))
    if not parts:
        return "", []
    return f"({' INTERSECT '.join(parts)}) AS candidate", bound


def _deliveries_of(candidates: str, otherwise: str = "") -> str:
    """Deliveries of the candidates, or all of them by way of the index ``otherwise``."""
    if not candidates:
        return f"delivery AS d {otherwise}"
    return f"{candidates} CROSS JOIN delivery AS d ON d.instance_id = candidate.id"


def _delivery_conditions(which: Filter) -> tuple[str, list[object]]:
    """Further conditions on delivery ``d`` of instance ``i``."""
    sql, bound = _common_conditions(which)
    if which.reason is not None:
        sql += " AND coalesce(d.reason, '') GLOB ?"
        bound.append(clean(which.reason))
    return sql, bound


def _instance_conditions(which: Filter, by_queue: bool) -> tuple[str, list[object]]:
    """Further conditions on instance ``i`` of context ``c``."""
    sql, bound = _common_conditions(which)
    if which.reason is not None and not by_queue:
        sql += " AND coalesce(i.reason, c.reason) GLOB ?"
        bound.append(clean(which.reason))
    return sql, bound


def _common_conditions(which: Filter) -> tuple[str, list[object]]:
    """Conditions on instance ``i``, whatever is asked for."""
    sql = ""
    bound: list[object] = []
    if which.sop_instance_uid is not None:
        sql += " AND i.sop_instance_uid = ?"
        bound.append(clean(which.sop_instance_uid))
    if which.older_than is not None:
        sql += " AND i.received_at < ?"
        bound.append(microseconds(which.older_than))
    if which.newer_than is not None:
        sql += " AND i.received_at > ?"
        bound.append(microseconds(which.newer_than))
    if which.disposition is not None:
        sql += " AND i.disposition = ?"
        bound.append(int(which.disposition))
    if which.tag is not None:
        sql += """ AND EXISTS (
            SELECT 1 FROM context AS t WHERE t.id = i.context_id AND instr(t.tags, ?) > 0
        )"""
        bound.append(stored_tags((which.tag,)))
    return sql, bound


def _literal(numbers: Iterable[int]) -> str:
    return f"({', '.join(str(int(number)) for number in numbers)})"
