"""Studies that are to be whole: where each was begun.

Owns which members of a plan have taken some of a study, as far as the spool still knows.  Must not
know which of them are up.
"""

import json
from collections.abc import Collection, Sequence
from typing import TypeVar

from router.spool.index_database import Database, clean, id_list
from router.spool.index_names import Names
from router.spool.index_types import DeliveryState
from router.spool.plan import Plan
from router.spool.record import InstanceMeta, RouteMeta

Which = TypeVar("Which")

_TAKEN = f"({int(DeliveryState.DELIVERED)}, {int(DeliveryState.UNCOMMITTED)})"


class Together:
    """Behind `Index.add`, `Index.divert` and `Index.route_anew`."""

    def __init__(self, db: Database, destinations: Names) -> None:
        self._db = db
        self._destinations = destinations

    def begun(self, destination: int, studies: Collection[int], in_hand: str) -> set[int]:
        """Of these studies (their orders), those of which a destination has taken some, or has some
        ``in_hand``: a JSON list of instance ids."""
        if not studies:
            return set()
        return set(self._db.json(_BEGUN, destination, id_list(studies), in_hand))

    def placed(
        self, entries: Sequence[tuple[Which, InstanceMeta]]
    ) -> list[tuple[Which, InstanceMeta]]:
        """Instances that were decided just now, those of a study that is to be whole routed to
        where it was begun."""
        found: dict[tuple[str, str], list[str]] = {}
        result: list[tuple[Which, InstanceMeta]] = []
        for which, meta in entries:
            if not any('"keep"' in route.plan for route in meta.routes):
                result.append((which, meta))
                continue
            taken = {route.destination for route in meta.routes}
            routes: list[RouteMeta] = []
            for route in meta.routes:
                placed = self._placed(route, meta, taken, found)
                taken.add(placed.destination)  # two that end at one place would be one delivery
                routes.append(placed)
            result.append((which, meta._replace(routes=tuple(routes))))
        return result

    def _placed(
        self,
        route: RouteMeta,
        meta: InstanceMeta,
        taken: Collection[str],
        found: dict[tuple[str, str], list[str]],
    ) -> RouteMeta:
        if '"keep"' not in route.plan:
            return route
        key = (meta.study_instance_uid, route.plan)
        if key not in found:
            found[key] = self._begun_at(meta.study_instance_uid, route.plan)
        names = found[key]
        if not names or route.destination in names or names[0] in taken:
            return route
        return route._replace(destination=names[0])

    def _begun_at(self, study: str, text: str) -> list[str]:
        """The members of a plan that have some of a study that is to be whole."""
        try:
            plan = Plan.from_text(text)
        except ValueError:
            return []
        ids = {self._destinations.find(name): name for name in plan.members}
        if not plan.keep or not study:
            return []
        numbers = [number for number in ids if number is not None]
        return [ids[n] for n in self._db.json(_BEGUN_AT, clean(study), json.dumps(numbers))]


_BEGUN = f"""
SELECT json_group_array(wanted.value) FROM json_each(?2) AS wanted
WHERE EXISTS (
    SELECT 1 FROM instance AS i INDEXED BY instance_sop
    CROSS JOIN delivery AS d ON d.instance_id = i.id AND d.destination_id = ?1
    WHERE i.study_order = wanted.value AND d.state IN {_TAKEN}
) OR wanted.value IN (
    SELECT d.study_order FROM json_each(?3) AS h
    CROSS JOIN delivery AS d ON d.instance_id = h.value AND d.destination_id = ?1
)
"""
_BEGUN_AT = f"""
SELECT json_group_array(wanted.value) FROM json_each(?2) AS wanted
WHERE EXISTS (
    SELECT 1 FROM instance AS i INDEXED BY instance_sop
    CROSS JOIN delivery AS d ON d.instance_id = i.id AND d.destination_id = wanted.value
    WHERE i.study_order = (
        SELECT min(study_order) FROM context INDEXED BY context_study
        WHERE study_instance_uid = ?1 AND study_instance_uid <> ''
    ) AND d.state IN {_TAKEN}
)
"""
