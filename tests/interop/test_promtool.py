"""Prometheus' own checker has nothing to say about what the gateway exports."""

import socket
import subprocess

import pytest

from perf.gateway import GatewayProcess
from perf.processes import free_port, wait_until
from perf.witness import WitnessThread
from tests.e2e.running import Start
from tests.interop.corpus import samples
from tests.interop.peers import dcmsend
from tests.interop.settings import LIMIT, destination, route_to_all
from tests.interop.tools import require

pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore:Invalid value for VR UI"),
]

# Of each kind that the gateway has something to say about in this test.
EXPECTED = (
    "dcmrouter_instances_received_total",
    "dcmrouter_bytes_received_total",
    "dcmrouter_associations",
    "dcmrouter_association_rejects_total",
    "dcmrouter_store_seconds_count",
    "dcmrouter_commit_seconds_count",
    "dcmrouter_commit_batch_instances_count",
    "dcmrouter_deliveries_total",
    "dcmrouter_delivery_seconds_count",
    "dcmrouter_queue_instances",
    "dcmrouter_queue_bytes",
    "dcmrouter_queue_oldest_seconds",
    "dcmrouter_destination_up",
    "dcmrouter_held_instances",
    "dcmrouter_dead_instances",
    "dcmrouter_spool_bytes",
    "dcmrouter_spool_free_bytes",
    "dcmrouter_event_loop_stall_seconds_count",
    "dcmrouter_build_info",
)


def _send_http(gateway: GatewayProcess) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=LIMIT) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        while connection.recv(4096):
            pass


def test_promtool_accepts_the_metrics_of_a_gateway_at_work(start_gateway: Start) -> None:
    promtool = require("promtool")
    with WitnessThread() as sink:
        gateway = start_gateway(
            route_to_all({"sink": destination(sink.port), "nobody-there": destination(free_port())})
        )
        dcmsend(gateway.port, [sample.path for sample in samples()[:40]])
        _send_http(gateway)
        assert wait_until(lambda: _delivered_to_one_of_two(gateway), LIMIT)
        metrics = gateway.metrics()
        text = gateway.get("/metrics")[1]
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, timeout=60
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
    assert [name for name in EXPECTED if name not in metrics] == []


def _delivered_to_one_of_two(gateway: GatewayProcess) -> bool:
    lines = {d["destination"]: d for d in gateway.account()["destinations"]}
    return {"sink", "nobody-there"} == set(lines) and (
        lines["sink"]["delivered"] == lines["nobody-there"]["waiting"] > 30
    )
