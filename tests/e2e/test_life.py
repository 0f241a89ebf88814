"""Starting, reloading and stopping the gateway as an operator does, with signals."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from perf.gateway import GatewayProcess
from perf.processes import accepts, free_port, wait_until
from perf.wire import WireError
from perf.witness import Seen, WitnessThread
from tests.e2e.running import (
    LIMIT,
    SMALL,
    Start,
    association,
    data_pdus,
    destination,
    instance,
    route_to,
    send,
    settled,
    store,
)

pytestmark = pytest.mark.timeout(120)


def _logged(gateway: GatewayProcess, event: str) -> list[dict[str, Any]]:
    return [line for line in gateway.log_lines() if line.get("event") == event]


def _hang_up(gateway: GatewayProcess, event: str) -> dict[str, Any]:
    """SIGHUP, then wait for a new log line; that line."""
    before = len(_logged(gateway, event))
    gateway.signal(signal.SIGHUP)
    assert wait_until(lambda: len(_logged(gateway, event)) > before, LIMIT), gateway.tail()
    return _logged(gateway, event)[-1]


def test_a_reload_takes_new_rules_without_breaking_an_association(start_gateway: Start) -> None:
    with WitnessThread() as first, WitnessThread() as second:
        gateway = start_gateway(route_to(first.port))

        async def across_the_reload() -> list[int]:
            to = association(gateway)
            await to.open()
            before = await store(to, *instance(SMALL, 1))
            both = {"sink": destination(first.port), "other": destination(second.port)}
            rules = [{"name": "all to the other", "to": "other"}]
            gateway.configure(route_to(first.port) | {"remotes": both, "rules": rules})
            await asyncio.to_thread(_hang_up, gateway, "configuration reloaded")
            after = await store(to, *instance(SMALL, 2))
            await to.release()
            return [before, after]

        assert asyncio.run(across_the_reload()) == [0, 0]
        assert settled(gateway, 2)
        assert [seen.sop_instance_uid for seen in first.seen()] == [instance(SMALL, 1)[0]]
        assert [seen.sop_instance_uid for seen in second.seen()] == [instance(SMALL, 2)[0]]


@pytest.mark.parametrize(
    "mistake",
    [
        {"rules": [{"name": "nowhere", "to": "no-such-remote"}]},
        {"rulez": []},
        {"storage": {"duplicates": "perhaps"}},
        {"data_dir": "elsewhere"},
    ],
    ids=["unknown destination", "unknown key", "bad value", "needs a restart"],
)
def test_a_bad_configuration_never_takes_effect(
    start_gateway: Start, mistake: dict[str, Any]
) -> None:
    with WitnessThread() as sink, WitnessThread() as unwanted:
        gateway = start_gateway(route_to(sink.port))
        version = gateway.ask("/api/v1/status")["rules_version"]
        wrong = route_to(unwanted.port) | mistake
        gateway.configure(wrong)
        problem = _hang_up(gateway, "configuration not reloaded")
        assert str(gateway.config) in problem["problem"]
        status = gateway.ask("/api/v1/status")
        assert status["rules_version"] == version
        assert status["reload_error"]
        assert set(send(gateway, SMALL, [1]).values()) == {0}
        assert settled(gateway, 1)
        assert sink.seen().total() == 1
        assert unwanted.seen().total() == 0


def test_a_reload_moves_a_listener_all_or_nothing(start_gateway: Start) -> None:
    with WitnessThread() as sink, socket.socket() as taken:
        gateway = start_gateway(route_to(sink.port))
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        old, new = gateway.port, free_port()

        def listening(*ports: int) -> list[dict[str, Any]]:
            accept = {"accept": "any"}
            return [
                {"ae_title": f"AE{n}", "listen": f"127.0.0.1:{port}", **accept}
                for n, port in enumerate(ports)
            ]

        busy = taken.getsockname()[1]
        gateway.configure(route_to(sink.port) | {"local": listening(new, busy)})
        _hang_up(gateway, "configuration not reloaded")
        assert accepts(old)
        assert not accepts(new)
        gateway.configure(route_to(sink.port) | {"local": listening(new)})
        _hang_up(gateway, "configuration reloaded")
        assert accepts(new)
        assert wait_until(lambda: not accepts(old), LIMIT)


def test_sigterm_lets_a_message_finish_and_loses_nothing(start_gateway: Start) -> None:
    with WitnessThread() as sink:
        gateway = start_gateway(route_to(sink.port))

        async def across_the_stop() -> list[int]:
            to = association(gateway)
            await to.open()
            first = await store(to, *instance(SMALL, 1))
            uid, data = instance(SMALL, 2)

            async def slowly() -> AsyncIterator[bytes]:
                pdus = list(data_pdus(to, data, 4096))
                yield b"".join(pdus[:-1])
                gateway.signal(signal.SIGTERM)
                await asyncio.to_thread(wait_until, lambda: not accepts(gateway.port), LIMIT)
                yield pdus[-1]

            second = await to.store(uid, slowly())
            await to.close()
            return [first, second]

        assert asyncio.run(across_the_stop()) == [0, 0]
        assert gateway.wait(LIMIT) == 0
        gateway.start()
        assert settled(gateway, 2)
        assert sink.seen() == {Seen.of(*instance(SMALL, n)): 1 for n in (1, 2)}
        assert gateway.account()["balanced"]


def test_sigterm_ends_within_its_time_though_peers_do_not(start_gateway: Start) -> None:
    """One peer stands still in the middle of a message, another has not said anything yet."""
    with WitnessThread() as sink:
        gateway = start_gateway(route_to(sink.port) | {"network": {"stop_timeout": "300ms"}})

        async def stand_still() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            to = association(gateway)
            await to.open()
            assert await store(to, *instance(SMALL, 1)) == 0
            uid, data = instance(SMALL, 2)

            async def half() -> AsyncIterator[bytes]:
                yield next(iter(data_pdus(to, data, 4096)))
                gateway.signal(signal.SIGTERM)

            with pytest.raises((WireError, OSError, asyncio.IncompleteReadError)):
                await to.store(uid, half())
            await to.close()
            assert await reader.read() == b""
            writer.close()

        asyncio.run(stand_still())
        assert gateway.wait(10) == 0
        gateway.start()
        assert settled(gateway, 1)
        assert sink.seen() == {Seen.of(*instance(SMALL, 1)): 1}
        assert gateway.account()["received"] == 1


def test_two_processes_on_one_data_directory_are_refused(start_gateway: Start) -> None:
    with WitnessThread() as sink:
        gateway = start_gateway(route_to(sink.port))
        other = GatewayProcess(
            gateway.home / "second", route_to(sink.port), data_dir=gateway.data_dir
        )
        other.spawn()
        try:
            assert other.wait(LIMIT) == 1
        finally:
            other.stop()
        said = other.log.read_text()
        assert f"in use by process {gateway.pid}" in said
        assert "Traceback" not in said
        assert set(send(gateway, SMALL, [1]).values()) == {0}


def test_a_taken_port_ends_the_start_with_a_reason(start_gateway: Start) -> None:
    with WitnessThread() as sink:
        gateway = start_gateway(route_to(sink.port))
        other = GatewayProcess(gateway.home / "second", route_to(sink.port))
        other.port = gateway.port
        other.configure(route_to(sink.port))
        other.spawn()
        try:
            assert other.wait(LIMIT) == 1
        finally:
            other.stop()
        assert str(gateway.port) in other.log.read_text()
        assert "Traceback" not in other.log.read_text()
