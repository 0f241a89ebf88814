"""The record of what operators did.

Owns the rows of events and which instances each concerned.  Must not know what an action does.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields

from router.spool.index_database import Database, clean, id_list, microseconds
from router.spool.index_types import Changed, DeliveryState, Disposition, Filter

_EVENTS_KEPT = 10_000


class Action:
    """One call of an operator: a row in the list of events, made when something changes."""

    def __init__(
        self, db: Database, name: str, which: Filter, at: float, who: str, detail: dict[str, object]
    ) -> None:
        self._db = db
        self._name = name
        self._detail = _describe(which) | detail
        self._who = who
        self._id = 0
        self.at = microseconds(at)
        self.count = 0
        self.bytes = 0
        self.gated = 0

    def changed(self, *, more: bool = False) -> Changed:
        """What it did so far."""
        return Changed(self.count, self.bytes, more, self.gated)

    def record(self, instances: Sequence[int], n: int) -> None:
        """Into the open transaction: ``n`` more things were done to these instances."""
        if not self._id:
            self._id = record_event(self._db, self._name, self.at, self._who, self._detail)
        self._db.run("UPDATE event SET count = count + ? WHERE id = ?", n, self._id)
        self._db.run(_ADD_EVENT_INSTANCES, self._id, id_list(instances))


def record_event(db: Database, name: str, at: int, who: str, detail: Mapping[str, object]) -> int:
    """A row of its own, into the open transaction; its id.  ``at`` is in microseconds."""
    text = json.dumps(detail, ensure_ascii=False)
    number: int = db.value(_ADD_EVENT, at, clean(who), name, clean(text))
    db.run("DELETE FROM event WHERE id <= ?", number - _EVENTS_KEPT)
    return number


def _describe(which: Filter) -> dict[str, object]:
    """The conditions that a filter has, as they go into the list of events."""
    given: dict[str, object] = {}
    for name in (f.name for f in fields(which)):
        value = getattr(which, name)
        if value is None:
            continue
        if isinstance(value, DeliveryState | Disposition):
            value = value.name.lower()
        elif isinstance(value, tuple) and len(value) > 20:
            value = f"{len(value)} given"
        given[name] = value
    return given


_ADD_EVENT = """
INSERT INTO event(at, who, action, detail, count) VALUES (?, ?, ?, ?, 0) RETURNING id
"""
_ADD_EVENT_INSTANCES = """
INSERT OR IGNORE INTO event_instance(event_id, instance_id) SELECT ?, value FROM json_each(?)
"""
