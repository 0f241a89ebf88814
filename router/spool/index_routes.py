"""What the description of an instance says of its way.

Owns how it is read when it makes no sense.  Must not know the index.
"""

from router.spool.index_types import Disposition
from router.spool.record import InstanceMeta, RouteMeta


def disposition_of(meta: InstanceMeta) -> Disposition:
    """An unknown word, or a route to nowhere, is held: it must not make an instance vanish."""
    if meta.quarantined:
        return Disposition.QUARANTINED
    if meta.disposition == "route" and meta.routes:
        return Disposition.ROUTED
    return Disposition.DISCARDED if meta.disposition == "discard" else Disposition.HELD


def routes_of(meta: InstanceMeta) -> tuple[RouteMeta, ...]:
    """Where it is to go: nowhere unless it is routed, and nowhere twice."""
    if disposition_of(meta) is not Disposition.ROUTED:
        return ()
    if len(meta.routes) == 1:
        return meta.routes
    return tuple({route.destination: route for route in reversed(meta.routes)}.values())[::-1]
