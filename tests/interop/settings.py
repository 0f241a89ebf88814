"""Configurations of the gateways under test, and waiting until they have done their work."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from perf.gateway import GatewayProcess
from perf.processes import wait_until
from tests.interop.corpus import read_sample
from tests.interop.peers import Arrival

LIMIT = 60.0

SMALL_SPOOL = {"segment_size": "8MiB", "large_instance": "1MiB", "spare_segments": 2}
"""So that a few files fill several segments, and some are large enough for files of their own."""


def destination(port: int, **more: Any) -> dict[str, Any]:
    """A remote on this machine that is called again soon after a failure."""
    retry = {"first": "100ms", "cap": "500ms", "max_attempts": 1000}
    return {"ae_title": "SINK", "host": "127.0.0.1", "port": port, "retry": retry, **more}


def route_to_all(destinations: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Everything goes to every destination, also what came before with the same bytes."""
    return {
        "remotes": dict(destinations),
        "rules": [{"name": "everything everywhere", "to": list(destinations)}],
        "storage": {"duplicates": "send"},
        "spool": SMALL_SPOOL,
        **more,
    }


def settled(gateway: GatewayProcess, received: int, timeout: float = LIMIT) -> bool:
    """Wait until that many instances are in the index and nothing waits for a destination."""
    return wait_until(
        lambda: gateway.account()["received"] >= received and gateway.waiting() == 0, timeout
    )


def dead(gateway: GatewayProcess, destination: str) -> Counter[Arrival]:
    """The data sets that a destination would not have."""
    return Counter(
        _arrival(gateway, entry["instance_id"])
        for entry in gateway.queue()
        if entry["state"] == "dead" and entry["destination"] == destination
    )


def _arrival(gateway: GatewayProcess, number: int) -> Arrival:
    path = gateway.home / "dead.dcm"
    path.write_bytes(gateway.file(number))
    sample = read_sample(path)
    assert sample is not None
    return Arrival.of_sample(sample)


def unidentified(gateway: GatewayProcess) -> Counter[Arrival]:
    """The data sets in quarantine; the only reason is that they say no class and no instance.

    Some of pydicom's test files are fragments for a parser, with a head but no identity.
    """
    found: Counter[Arrival] = Counter()
    for instance in gateway.instances():
        if instance["disposition"] == "quarantined":
            assert "neither a SOP Class UID nor a SOP Instance UID" in instance["reason"]
            found[_arrival(gateway, instance["id"])] += 1
    return found
