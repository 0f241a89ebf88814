"""A gateway that runs out of file descriptors goes on, and says so."""

import asyncio
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from perf.processes import cpu_seconds, wait_until
from perf.witness import WitnessThread
from tests.e2e.faulty import FaultyGateway, Traffic
from tests.e2e.running import LARGE, LIMIT, MEDIUM, association, instance, route_to, store
from tests.interop.tools import require

pytestmark = pytest.mark.timeout(120)

LIMITED = 128
CROWD = 300


@pytest.fixture
def traffic(tmp_path: Path) -> Iterator[Traffic]:
    """A gateway with LIMITED descriptors at the most."""
    with ExitStack() as stack:
        sink = stack.enter_context(WitnessThread())
        wrapped = [require("prlimit"), f"--nofile={LIMITED}:{LIMITED}", "--"]
        gateway = FaultyGateway(tmp_path / "gw", route_to(sink.port), wrapped=wrapped)
        stack.enter_context(gateway)
        yield Traffic(gateway, sink)


def _cpu_share(pid: int, seconds: float) -> float:
    """Share of a processor that a process takes for a while."""
    began, used = time.monotonic(), cpu_seconds(pid)
    time.sleep(seconds)  # what is measured is that nothing happens
    return (cpu_seconds(pid) - used) / (time.monotonic() - began)


def _crowd(port: int, stack: ExitStack) -> None:
    """Connections that ask for nothing, as many as there are to be had."""
    for _ in range(CROWD):
        one = socket.create_connection(("127.0.0.1", port), timeout=5.0)
        stack.callback(one.close)


def _gets_in(traffic: Traffic) -> bool:
    """In the middle of the rush a newcomer may be turned away; who tries again is not."""
    try:
        return traffic.send(MEDIUM) == [0]
    except (ConnectionError, asyncio.IncompleteReadError):
        return False


def test_a_crowd_of_connections_leaves_room_for_who_has_something_to_send(
    traffic: Traffic,
) -> None:
    gateway = traffic.gateway
    assert gateway.said("fewer file descriptors than connections are allowed")
    with ExitStack() as stack:
        _crowd(gateway.port, stack)
        assert wait_until(lambda: _gets_in(traffic), LIMIT)
        assert set(traffic.send(MEDIUM, 5)) | set(traffic.send(LARGE, 2)) == {0}
        assert gateway.get("/healthz")[0] == 200
        assert gateway.ready()
        assert _cpu_share(gateway.pid, 1.0) < 0.3
    rejects = gateway.metrics()["dcmrouter_association_rejects_total"]
    assert rejects['reason="descriptors"'] > CROWD - LIMITED
    lines = gateway.said("file descriptors are left", "LimitNOFILE")
    assert 0 < len(lines) < 20
    traffic.check()


def test_large_instances_for_which_there_is_no_descriptor_are_refused(traffic: Traffic) -> None:
    gateway = traffic.gateway

    async def send_large() -> list[int]:
        to = association(gateway)
        await to.open()
        gateway.limit(resource.RLIMIT_NOFILE, gateway.descriptors())
        first = await store(to, *instance(LARGE, 500))
        gateway.limit(resource.RLIMIT_NOFILE, LIMITED)
        second = await store(to, *instance(LARGE, 501))
        await to.release()
        return [first, second]

    assert set(traffic.send(MEDIUM, 3)) == {0}
    assert asyncio.run(send_large()) == [0xA700, 0]
    assert gateway.said("instance refused", "Too many open files")
    assert set(traffic.send(MEDIUM, 3)) == {0}
    assert wait_until(lambda: gateway.account()["received"] == 7, LIMIT)


def test_without_any_descriptor_it_neither_ends_nor_spins(traffic: Traffic) -> None:
    gateway = traffic.gateway
    assert set(traffic.send(MEDIUM, 3)) == {0}
    gateway.limit(resource.RLIMIT_NOFILE, 5)  # fewer than it has; none of these is free
    with ExitStack() as stack:
        _knock(gateway.port, stack)
        assert wait_until(lambda: bool(gateway.said("not listening until")), LIMIT)
        assert _cpu_share(gateway.pid, 1.0) < 0.3
    gateway.limit(resource.RLIMIT_NOFILE, LIMITED)
    assert wait_until(lambda: bool(gateway.said("listening again")), LIMIT)
    assert wait_until(gateway.ready, LIMIT)
    assert set(traffic.send(MEDIUM, 3)) == {0}
    assert traffic.accepts(LARGE)
    traffic.check()


def _knock(port: int, stack: ExitStack) -> None:
    for _ in range(10):
        one = socket.socket()
        stack.callback(one.close)
        one.setblocking(False)
        one.connect_ex(("127.0.0.1", port))
