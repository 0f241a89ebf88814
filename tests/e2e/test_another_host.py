"""A destination's name stands for another host from a moment on: what that one is given."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from perf.processes import free_port, wait_until
from tests.cli.support import Peer, run
from tests.e2e.running import LIMIT, MEDIUM, SMALL, Start, destination, route_to, send, settled

MANY = range(12)
"""So many that a segment is worth keeping."""

pytestmark = pytest.mark.timeout(120)


def settings(port: int) -> dict[str, Any]:
    return route_to(port) | {"remotes": {"sink": destination(port)}}


def test_a_power_cut_that_takes_the_note_of_the_new_host(start_gateway: Start) -> None:
    with Peer() as old:
        gateway = start_gateway(settings(old.port))
        send(gateway, MEDIUM, MANY)
        assert settled(gateway, len(MANY))
        gateway.stop()
        assert old.stored.qsize() == len(MANY)
    with Peer() as new:
        gateway.configure(settings(free_port()))  # nobody is there yet
        gateway.start()
        assert set(send(gateway, MEDIUM, MANY).values()) == {0}
        assert wait_until(lambda: gateway.account()["received"] == 2 * len(MANY), LIMIT)
        gateway.kill()
        # Of the index's log nothing was synced.
        for part in ("-wal", "-shm"):
            Path(gateway.data_dir / f"index.sqlite{part}").unlink()
        gateway.configure(settings(new.port))
        gateway.start()
        assert settled(gateway, 2 * len(MANY))
        assert new.stored.qsize() == len(MANY)


def test_the_same_comes_again_while_the_host_of_before_has_yet_to_answer(
    start_gateway: Start,
) -> None:
    go_on, asked = threading.Event(), threading.Event()

    def slow(_: object) -> int:
        asked.set()
        go_on.wait(LIMIT)
        return 0

    with Peer(on_store=slow) as old, Peer() as new:
        gateway = start_gateway(settings(old.port))
        send(gateway, SMALL, [1])
        assert asked.wait(LIMIT)
        gateway.configure(settings(new.port))
        assert run("reload", "--config", gateway.config).exit_code == 0
        assert set(send(gateway, SMALL, [1]).values()) == {0}
        assert wait_until(lambda: gateway.account()["received"] == 2, LIMIT)
        go_on.set()
        assert settled(gateway, 2)
        time.sleep(1)
        assert (old.stored.qsize(), new.stored.qsize()) == (1, 1)
