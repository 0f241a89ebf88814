"""Stopping a whole gateway: one bound for all of it, and no way back."""

import asyncio
import os
import signal
from pathlib import Path

from structlog.testing import capture_logs

from router.app import Gateway
from router.cli.serve import note_signals
from router.config import loads
from router.config.versions import Origin
from router.signals import PAUSING
from tests.net.support import Wire, request

TEXT = """
data_dir: {data_dir}
local: [{{ae_title: ROUTER, listen: "127.0.0.1:0", accept: any}}]
http: {{listen: "127.0.0.1:0"}}
network: {{stop_timeout: {timeout}, artim_timeout: 30s}}
spool: {{segment_size: 4MiB, large_instance: 1MiB, low_disk: 1MiB}}
"""


def gateway(directory: Path, timeout: str) -> Gateway:
    text = TEXT.format(data_dir=directory / "data", timeout=timeout)
    return Gateway(loads(text, "c.yaml", os.environ), lambda _: loads(text, "c.yaml", os.environ))


async def association(subject: Gateway) -> Wire:
    wire = await Wire.open(subject.listeners.listening["127.0.0.1:0"])
    await wire.send(request())
    assert await wire.pdu() is not None
    return wire


def test_instances_under_way_for_ever_held_up_the_stop(tmp_path: Path) -> None:
    """Regression: nothing bounded the wait for the spool, and each part took the whole time."""

    async def scenario() -> None:
        subject = gateway(tmp_path, "300ms")
        await subject.start()
        writer = subject.spool.begin(lambda: None)  # whose end never comes
        loop = asyncio.get_running_loop()
        began = loop.time()
        await subject.stop()
        assert loop.time() - began < 5
        writer.abandon()

    with capture_logs() as lines:
        asyncio.run(scenario())
    assert any("still being written at stop" in line["event"] for line in lines)


def test_a_peer_that_does_not_close_does_not_hold_up_the_stop(tmp_path: Path) -> None:
    async def scenario() -> None:
        subject = gateway(tmp_path, "20s")
        await subject.start()
        wire = await association(subject)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await subject.stop()
        assert loop.time() - began < 8
        await wire.close()

    asyncio.run(scenario())


def test_a_reload_while_stopping_opened_the_listeners_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        subject = gateway(tmp_path, "5s")
        await subject.start()
        # The file is being read when the gateway is told to stop.
        reloading = asyncio.create_task(subject.reloader.reload(Origin()))
        await asyncio.sleep(0)
        await subject.stop()
        result = await reloading
        assert (result.changes, subject.listeners.listening) == ((), {})
        assert "being stopped" in str(result.problems[0])
        result = await subject.reloader.reload(Origin())
        assert "being stopped" in str(result.problems[0])
        assert subject.listeners.listening == {}

    asyncio.run(scenario())


def test_a_hangup_during_the_start_was_forgotten(tmp_path: Path) -> None:
    """Regression: the file had changed after it was read, and the old one stayed in force."""

    async def scenario() -> None:
        subject = gateway(tmp_path, "5s")
        await subject.start()
        serving = asyncio.create_task(subject.serve(reload=lambda: True))
        async with asyncio.timeout(10):
            while not subject.counters.config.reloads.of("applied").value:
                await asyncio.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
        await serving
        assert subject.counters.config.reloads.of("applied").value == 1
        assert subject.listeners.listening == {}

    asyncio.run(scenario())


def test_a_pause_by_signal_during_the_start_is_obeyed_after_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        kept = {number: signal.getsignal(number) for number in PAUSING}
        try:
            before = note_signals()
            for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1):
                os.kill(os.getpid(), number)
            assert before == [signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1], "and it lives"
            subject = gateway(tmp_path, "5s")
            with capture_logs() as log:
                await subject.start()
                serving = asyncio.create_task(subject.serve(before=before))
                await asyncio.sleep(0)
                os.kill(os.getpid(), signal.SIGTERM)
                await serving
            assert [e["event"].partition(":")[0] for e in log if "SIGUSR" in e["event"]] == [
                "SIGUSR1",
                "SIGUSR2",
                "SIGUSR1",
            ], "in their order, also when it stops at once"
            os.kill(os.getpid(), signal.SIGUSR1)  # as it stops: for nothing, and harmless
            await asyncio.sleep(0)
        finally:
            for number, handler in kept.items():
                asyncio.get_running_loop().remove_signal_handler(number)
                signal.signal(number, handler)

    asyncio.run(scenario())


def test_a_hangup_in_the_first_moments_ended_the_process(tmp_path: Path) -> None:
    async def scenario() -> None:
        kept = {number: signal.getsignal(number) for number in (signal.SIGHUP, *PAUSING)}
        try:
            before = note_signals()
            os.kill(os.getpid(), signal.SIGHUP)
            assert before == [signal.SIGHUP], "and it lives"
            subject = gateway(tmp_path, "5s")
            await subject.start()
            serving = asyncio.create_task(subject.serve(before=before))
            async with asyncio.timeout(10):
                while not subject.counters.config.reloads.of("applied").value:
                    await asyncio.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)
            await serving
            assert subject.counters.config.reloads.of("applied").value == 1
        finally:
            for number, handler in kept.items():
                asyncio.get_running_loop().remove_signal_handler(number)
                signal.signal(number, handler)

    asyncio.run(scenario())


def test_signals_that_were_heard_but_not_told_yet_as_the_start_ended_were_lost(
    tmp_path: Path,
) -> None:
    """Regression: the loop calls handlers later, and those of the start were asked too early."""

    async def scenario() -> None:
        subject = gateway(tmp_path, "5s")
        await subject.start()
        hung_up = asyncio.Event()
        loop = asyncio.get_running_loop()

        async def main() -> None:
            loop.call_soon(hung_up.set)  # as the loop does with a handler of the start
            await subject.serve(reload=hung_up.is_set)

        serving = asyncio.create_task(main())
        async with asyncio.timeout(10):
            while not subject.counters.config.reloads.of("applied").value:
                await asyncio.sleep(0.01)
        serving.cancel()  # what a SIGTERM during the start does
        await serving
        assert subject.listeners.listening == {}

    asyncio.run(scenario())
