"""Other protocols at the DICOM port: named in the log, answered by an end, harmless."""

import http.client
import socket
import ssl
from collections.abc import Callable

import pytest

from perf.gateway import GatewayProcess
from perf.processes import wait_until
from perf.witness import WitnessThread
from tests.e2e.running import LIMIT, SMALL, Start, route_to, send, settled

pytestmark = pytest.mark.timeout(120)


def _http(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    try:
        connection.request("GET", "/healthz")
        with pytest.raises((http.client.HTTPException, OSError)):
            connection.getresponse()
    finally:
        connection.close()


def _tls(port: int) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as plain,
        pytest.raises((ssl.SSLError, OSError)),
    ):
        context.wrap_socket(plain)


def _huge_pdu(port: int) -> None:
    """An A-ASSOCIATE-RQ that says it has 4 GiB."""
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as connection:
        connection.sendall(b"\x01\x00\xff\xff\xff\xff")
        while connection.recv(4096):
            pass


def _refusals(gateway: GatewayProcess) -> list[str]:
    lines = (line for line in gateway.log_lines() if line.get("event") == "association refused")
    return [str(line["why"]) for line in lines]


@pytest.mark.parametrize(
    ("call", "says"),
    [(_http, "HTTP request"), (_tls, "TLS bytes"), (_huge_pdu, "4294967295")],
    ids=["HTTP", "TLS", "huge PDU"],
)
def test_a_stranger_is_named_and_sent_away(
    start_gateway: Start, call: Callable[[int], None], says: str
) -> None:
    with WitnessThread() as sink:
        gateway = start_gateway(route_to(sink.port))
        call(gateway.port)
        assert wait_until(lambda: bool(_refusals(gateway)), LIMIT)
        assert says in _refusals(gateway)[0]
        assert sum(gateway.metrics()["dcmrouter_association_rejects_total"].values()) == 1
        assert set(send(gateway, SMALL, [1]).values()) == {0}
        assert settled(gateway, 1)


def test_a_health_check_that_only_connects_leaves_no_trace(start_gateway: Start) -> None:
    with WitnessThread() as sink:
        gateway = start_gateway(route_to(sink.port))
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", gateway.port), timeout=LIMIT):
                pass
        assert set(send(gateway, SMALL, [1]).values()) == {0}
        assert settled(gateway, 1)
        levels = {line.get("level") for line in gateway.log_lines()}
        assert levels <= {"info", "debug"}
