"""Sends what waits, one queue per destination.

A destination is an island: its own bounded set of leased instances, associations, back-off and
breaker.  Every attempt ends in one outcome that is recorded in the index.
"""

from router.forward.forwarder import Forwarder
from router.forward.ports import (
    NOT_CONFIGURED,
    DestinationConfig,
    DestinationStatus,
    IndexGateway,
    Observer,
    OpenReader,
)

__all__ = [
    "NOT_CONFIGURED",
    "DestinationConfig",
    "DestinationStatus",
    "Forwarder",
    "IndexGateway",
    "Observer",
    "OpenReader",
]
