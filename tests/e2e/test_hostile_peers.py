"""Every attack of `perf.attacks`, small, on a running gateway: a proper peer beside it is served,
each connection is counted under its reason, little is logged, and nothing is left over."""

import asyncio
import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from perf.attacks import ATTACKS, Aim, attack, conversation
from perf.gateway import GatewayProcess
from perf.hostile import State, counted, cuts
from perf.processes import peak_resident_bytes, reset_peak, wait_until
from tests.e2e.running import LIMIT, SMALL, association, instance, starter, store

pytestmark = pytest.mark.timeout(120)

MEMORY = 64 * 2**20
LINES = 60
ADMITTED = 20
SETTINGS = {
    "remotes": {"modality": {"ae_title": "LOAD", "addresses": ["127.0.0.1"]}},
    "rules": [{"name": "all of it", "discard": "only received"}],
    "spool": {"segment_size": "4MiB", "large_instance": "1MiB", "spare_segments": 1},
    "storage": {"max_instance": "2MiB"},
    "network": {
        "artim_timeout": "1s",
        "dimse_timeout": "500ms",
        "idle_timeout": "1s",
        "max_waiting": 64,
        "max_waiting_per_address": 40,
        "max_per_address": ADMITTED,
    },
}
# Connections in all, how they end, and how the gateway ends what it had granted.
EXPECTED: dict[str, tuple[int, set[str], set[str]]] = {
    "silent": (60, {"artim", "waiting_address"}, set()),
    "drip": (30, {"artim"}, set()),
    "http": (30, {"protocol"}, set()),
    "tls": (30, {"protocol"}, set()),
    "random": (30, {"protocol"}, set()),
    "lengths": (32, {"protocol"}, set()),
    "contexts": (10, {"protocol"}, set()),
    "user-information": (10, {"protocol"}, set()),
    "held-requests": (39, {"artim", "request_memory"}, set()),
    "endless": (4, {"granted"}, {"too_large"}),
    "storm": (100, {"silent"}, set()),
    "vanished": (15, {"granted"}, {"silent"}),
    # What a peer sends while it is not heard comes as one piece in the end: protocol.
    "unread": (2, {"granted"}, {"protocol", "unread"}),
    "burst": (10, {"granted"}, {"protocol"}),
    "knock": (50, {"called_ae"}, set()),
    "flood": (30, {"granted", "limit_address"}, {"idle"}),
    "loris": (15, {"granted"}, {"slow"}),
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """One for all attacks: what one left over the next would meet."""
    home: Path = tmp_path_factory.mktemp("hostile")
    with ExitStack() as stack:
        running = starter(home, stack)(SETTINGS)
        asyncio.run(_proper(running))
        yield running


async def _proper(gateway: GatewayProcess) -> list[int]:
    """The statuses of three instances over one association."""
    to = association(gateway)
    await to.open()
    statuses = [await store(to, *instance(SMALL, n)) for n in range(3)]
    await to.release()
    return statuses


async def _beside(gateway: GatewayProcess, name: str, aim: Aim) -> list[int]:
    """What the proper peer is answered while the attack goes on; then its end is awaited."""
    kind = dataclasses.replace(ATTACKS[name], at_once=aim.at_once)
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
        group.create_task(attack(kind, aim))
        await aim.up.wait()
        return await _proper(gateway)


def _risen(now: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    return {what: n - before.get(what, 0) for what, n in now.items() if n > before.get(what, 0)}


class Watch:
    """What a gateway counted, wrote and took since a moment."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self.gateway = gateway
        self.state = State.of(gateway)
        self._counted = counted(gateway)
        self._cut = cuts(gateway)
        self._lines = len(gateway.log_lines())
        reset_peak(gateway.pid)

    @property
    def counted(self) -> dict[str, int]:
        return _risen(counted(self.gateway), self._counted)

    @property
    def cut(self) -> dict[str, int]:
        return _risen(cuts(self.gateway), self._cut)

    @property
    def lines(self) -> int:
        return len(self.gateway.log_lines()) - self._lines

    def settles(self, made: int) -> bool:
        """Wait until all that was made is counted, and gone."""

        def over() -> bool:
            return sum(self.counted.values()) >= made and State.of(self.gateway).back_to(self.state)

        return wait_until(over, 10.0)


def test_each_attack_is_tried() -> None:
    assert {*EXPECTED, "cuts"} == set(ATTACKS)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_proper_peer_is_served_beside(gateway: GatewayProcess, name: str) -> None:
    limit, reasons, cut = EXPECTED[name]
    watch = Watch(gateway)
    aim = Aim(gateway.port, at_once=min(limit, 60), pace=1000.0, limit=limit, tick=0.2)
    assert asyncio.run(_beside(gateway, name, aim)) == [0, 0, 0]
    assert aim.made == limit
    assert watch.settles(limit), (watch.counted, State.of(gateway), watch.state)
    assert sum(watch.counted.values()) == limit
    # Where the machine is busy, one that went is still there when the next come.
    late = {"waiting_address"} if name == "storm" else set()
    assert reasons <= set(watch.counted) <= reasons | late
    assert set(watch.cut) <= cut
    assert bool(watch.cut) == bool(cut)
    assert peak_resident_bytes(gateway.pid) - watch.state.resident <= MEMORY
    # Lines of associations that come and go as they should are held back far later.
    assert watch.lines <= LINES + 2 * watch.counted.get("granted", 0)


def test_a_conversation_may_end_behind_any_byte(gateway: GatewayProcess) -> None:
    watch = Watch(gateway)
    limit = len(conversation("ROUTER", 0))
    assert limit % 37  # so that each of them is come to
    aim = Aim(gateway.port, at_once=60, pace=1000.0, limit=limit)
    assert asyncio.run(_beside(gateway, "cuts", aim)) == [0, 0, 0]
    assert aim.made == limit
    assert watch.settles(limit), (watch.counted, State.of(gateway), watch.state)
    assert sum(watch.counted.values()) == limit
    assert {"granted", "incomplete"} <= set(watch.counted)
    assert watch.lines <= LINES + 2 * watch.counted["granted"]


def test_no_fault_of_ours_was_met(gateway: GatewayProcess) -> None:
    """After all of it: no traceback, and what was acknowledged is accounted for."""
    lines = gateway.log_lines()
    assert [line for line in lines if line.get("level") == "error" or "exception" in line] == []
    assert wait_until(lambda: gateway.account()["balanced"], 10.0)
    # What was said too often was counted instead.
    assert gateway.metrics()["dcmrouter_log_lines_total"]['level="suppressed"'] > 0
