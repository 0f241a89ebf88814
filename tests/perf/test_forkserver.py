"""Gateways from the fork server are gateways: they serve, obey, and die where they are told."""

import select
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from perf.failpoints import AFTER, Failpoint
from perf.forkserver import Forked, ForkedGateway, ForkServer
from perf.processes import wait_until

SETTINGS = {
    "remotes": {"sink": {"ae_title": "SINK", "host": "127.0.0.1", "port": 1}},
    "rules": [{"name": "everything", "to": "sink"}],
    "spool": {"segment_size": "4MiB", "large_instance": "1MiB", "spare_segments": 1},
    "log": {"format": "json"},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    with ForkServer(tmp_path_factory.mktemp("forkserver") / "log") as running:
        yield running


def test_a_gateway_serves_stops_and_comes_again(server: ForkServer, tmp_path: Path) -> None:
    gateway = ForkedGateway(server, tmp_path, SETTINGS)

    def begun(times: int) -> bool:
        events = [line.get("event") for line in gateway.log_lines()]
        return events.count("gateway started") == times

    for life in (1, 2):
        gateway.start()
        assert gateway.account()["balanced"]
        # It answers a little before it has started; a signal then only ends the start.
        assert wait_until(partial(begun, life), 10.0)
        gateway.signal(signal.SIGTERM)
        assert gateway.wait(30.0) == 0
    assert begun(2)


def test_a_kill_is_seen_and_lets_the_spool_go(server: ForkServer, tmp_path: Path) -> None:
    gateway = ForkedGateway(server, tmp_path, SETTINGS)
    for _ in range(2):
        gateway.start()
        assert not gateway.ended
        gateway.kill()
        assert gateway.ended
        assert gateway.wait(0.0) == -signal.SIGKILL


def test_a_signal_to_one_that_is_gone_goes_to_nobody(server: ForkServer, tmp_path: Path) -> None:
    gateway = ForkedGateway(server, tmp_path, SETTINGS)
    gateway.start()
    gateway.kill()
    gateway.signal(signal.SIGTERM)
    assert gateway.stop()


def test_it_dies_at_its_failpoint_and_only_in_that_life(server: ForkServer, tmp_path: Path) -> None:
    gateway = ForkedGateway(server, tmp_path, SETTINGS)
    gateway.point = Failpoint("router.spool.spool:Spool.start", AFTER)
    gateway.spawn()
    assert gateway.wait(30.0) == -signal.SIGKILL
    assert (gateway.data_dir / "index.sqlite").exists()
    gateway.point = None
    gateway.start()
    assert gateway.stop()


def test_a_wrong_configuration_ends_with_its_own_status(server: ForkServer, tmp_path: Path) -> None:
    gateway = ForkedGateway(server, tmp_path, {"nonsense": True})
    gateway.spawn()
    assert gateway.wait(30.0) == 2
    assert "nonsense" in gateway.tail()


def test_a_place_that_the_product_lost_is_told(server: ForkServer, tmp_path: Path) -> None:
    gateway = ForkedGateway(server, tmp_path, SETTINGS)
    gateway.point = Failpoint("router.app:Gateway.levitate", AFTER)
    gateway.spawn()
    assert gateway.wait(30.0) == 1
    assert "levitate" in gateway.tail()


def test_children_end_with_their_server(tmp_path: Path) -> None:
    server = ForkServer(tmp_path / "log")
    gateway = ForkedGateway(server, tmp_path, SETTINGS)
    gateway.start()
    child = gateway.child
    assert isinstance(child, Forked)
    server.close()
    # Its parent, which would have told its status, is gone too: the kernel tells of its end.
    poll = select.poll()
    poll.register(child.handle, select.POLLIN)
    assert poll.poll(10_000)
