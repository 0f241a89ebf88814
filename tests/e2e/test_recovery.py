"""Destinations that go away and come back."""

import pytest

from perf.gateway import GatewayProcess
from perf.processes import wait_until
from perf.witness import WitnessThread
from tests.e2e.running import LIMIT, SMALL, Start, destination, route_to, send, settled

pytestmark = pytest.mark.timeout(180)

ROUNDS = 4
PROBES = 20
# The time of one and the same probe is told with an error far below this; seconds.
MOVED = 0.005


def _is_down(gateway: GatewayProcess) -> bool:
    return not gateway.ask("/api/v1/status")["destinations"][0]["up"]


def _next_probe(gateway: GatewayProcess) -> float:
    state = gateway.ask("/api/v1/status")["destinations"][0]
    # None while one is under way.
    return float(state["next_probe_at"] or 0.0)


def _await_probe(gateway: GatewayProcess) -> None:
    planned = _next_probe(gateway)
    probed = wait_until(lambda: _next_probe(gateway) > planned + MOVED, 5.0)
    assert probed, "it is probed no more"


def test_a_destination_that_comes_back_is_found_though_nothing_new_arrives(
    start_gateway: Start,
) -> None:
    """No new instance wakes the queue, so its own timer must not lose a probe."""
    quick = {"first": "15ms", "factor": 1.0, "cap": "15ms", "jitter": 0.5, "max_attempts": 10_000}
    with WitnessThread() as sink:
        gateway = start_gateway(
            route_to(sink.port) | {"remotes": {"sink": destination(sink.port, retry=quick)}}
        )
        for turn in range(ROUNDS):
            sink.shut()
            send(gateway, SMALL, [turn])
            assert wait_until(lambda: _is_down(gateway), LIMIT)
            for _ in range(PROBES):
                _await_probe(gateway)
            sink.open()
            assert settled(gateway, turn + 1, 10.0)
        assert len(sink.seen()) == ROUNDS
