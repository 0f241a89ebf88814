"""Addresses that are listened on, and the log of what was refused there."""

import asyncio
import resource
import socket

import pytest

from router.ingest.verification import VerificationService
from router.net import listener
from router.net.admission import Admission
from router.net.connector import connect
from router.net.listener import Listeners
from router.net.service import ServiceRegistry
from router.net.settings import LocalAE, NetworkSettings
from router.ul import AAssociateRJ
from tests.net.support import ECHO_PAIR, Recorder, Runner, Wire, call, gate, request, target

V4, V6, OTHER = "127.0.0.1:0", "[::1]:0", "127.0.0.2:0"


def listeners(*aes: LocalAE, admit: object = lambda key: 0) -> Listeners:
    settings = NetworkSettings()
    return Listeners(
        ServiceRegistry((VerificationService(),)),
        Admission(aes, {}, settings),
        settings,
        Recorder(),
        admit,  # type: ignore[arg-type]
    )


def ae(title: str, listen: str) -> LocalAE:
    return LocalAE(ae_title=title, listen=listen, accept=("127.0.0.0/8", "::1"))


def test_several_aes_at_shared_and_own_addresses(run: Runner) -> None:
    async def scenario() -> None:
        subject = listeners(ae("ROUTER", V4), ae("SECOND", V4), ae("THIRD", V6))
        await subject.open([V4, V4, V6])
        assert set(subject.listening) == {V4, V6}
        for listen, host, title in (
            (V4, "127.0.0.1", "ROUTER"),
            (V4, "127.0.0.1", "SECOND"),
            (V6, "::1", "THIRD"),
        ):
            at = target(subject.listening[listen])
            at = type(at)("x", title, host, at.port, "CT1")
            requestor = await connect(at, [ECHO_PAIR])
            assert await requestor.echo() == 0
            [association] = subject.associations
            assert association.called_ae == title
            assert association.peer_address == host
            assert association.peer.startswith("[::1]:" if listen == V6 else "127.0.0.1:")
            await requestor.release()
            while subject.associations:
                await asyncio.sleep(0)
        await subject.stop(1.0)

    run(scenario)


def test_an_address_that_is_taken_opens_none(run: Runner) -> None:
    async def scenario() -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            taken = f"127.0.0.1:{other.getsockname()[1]}"
            subject = listeners(ae("ROUTER", V4))
            with pytest.raises(OSError, match=f"cannot listen on {taken}: .*another process"):
                await subject.open([V4, taken])
            assert subject.listening == {}
            await subject.open([V4])
            await subject.open([V4])
            assert list(subject.listening) == [V4]
            await subject.stop(0.0)

    run(scenario)


def test_shutting_an_address_leaves_its_associations(run: Runner) -> None:
    async def scenario() -> None:
        subject = listeners(ae("ROUTER", V4), ae("ROUTER", OTHER))
        await subject.open([V4, OTHER])
        port = subject.listening[V4]
        requestor = await call(port)
        subject.shut([V4, "[::1]:104"])
        assert list(subject.listening) == [OTHER]
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        assert await requestor.echo() == 0
        await requestor.release()
        await subject.stop(1.0)
        assert subject.listening == {}

    run(scenario)


@pytest.mark.parametrize("while_opening", [False, True])
def test_an_address_that_a_reload_removed_was_opened_again(
    run: Runner, monkeypatch: pytest.MonkeyPatch, while_opening: bool
) -> None:
    """Regression: it was removed while nothing was listened on for want of descriptors."""
    left = 0
    monkeypatch.setattr(listener, "descriptors_left", lambda: (left, 40))

    async def scenario() -> None:
        nonlocal left
        subject = listeners(ae("ROUTER", V4), ae("ROUTER", OTHER))
        await subject.open([V4, OTHER])
        await subject.relieve()
        assert subject.listening == {}
        left = 1000
        if while_opening:
            opening = subject._open

            async def opened(listen: str) -> asyncio.Server:
                subject.shut_all_but({OTHER})
                return await opening(listen)

            monkeypatch.setattr(subject, "_open", opened)
        else:
            subject.shut_all_but({OTHER})
        await subject.relieve()
        assert list(subject.listening) == [OTHER]
        await subject.stop(0.0)

    run(scenario)


def test_without_a_descriptor_for_it_an_address_was_taken_for_open(
    run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: the last one went between the look and the socket, and nobody tried again."""
    left = 0
    monkeypatch.setattr(listener, "descriptors_left", lambda: (left, 40))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def scenario() -> None:
        nonlocal left
        subject = listeners(ae("ROUTER", V4))
        await subject.open([V4])
        await subject.relieve()
        left = 1000
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            await subject.relieve()
            with pytest.raises(OSError, match="Too many open files; raise LimitNOFILE"):
                await subject.open([OTHER])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert subject.listening == {}
        assert not run.said("listening again")
        await subject.relieve()
        assert list(subject.listening) == [V4]
        await subject.stop(0.0)

    run(scenario)


def test_addresses_that_wait_were_forgotten_when_descriptors_ran_out_again(
    run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: a reload had opened another one meanwhile."""
    left = 0
    monkeypatch.setattr(listener, "descriptors_left", lambda: (left, 40))

    async def scenario() -> None:
        nonlocal left
        subject = listeners(ae("ROUTER", V4), ae("ROUTER", OTHER))
        await subject.open([V4])
        await subject.relieve()
        await subject.open([OTHER])
        await subject.relieve()
        assert subject.listening == {}
        left = 1000
        await subject.relieve()
        assert set(subject.listening) == {V4, OTHER}
        await subject.stop(0.0)

    run(scenario)


def test_refusals_that_are_held_back_are_counted_all_the_same(run: Runner) -> None:
    asked: list[str] = []

    def admit(key: str) -> int | None:
        asked.append(key)
        return (0, None, None, 2)[len(asked) - 1]

    async def scenario() -> None:
        subject = listeners(ae("ROUTER", V4), admit=admit)
        await subject.open([V4])
        for _ in range(4):
            wire = await Wire.open(subject.listening[V4])
            await wire.send(request(called_ae_title="NOBODY"))
            assert await wire.pdu() == AAssociateRJ(1, 1, 7)
            await wire.close()
        await subject.stop(1.0)
        assert isinstance(subject.observer, Recorder)
        assert subject.observer.rejected == {"called_ae": 4}

    run(scenario)
    assert asked == ["called_ae 127.0.0.1"] * 4
    assert [line.get("held_back") for line in run.logs] == [None, 2]


def test_a_reload_counts_for_the_next_request(run: Runner) -> None:
    async def scenario() -> None:
        async with gate() as subject:
            first = await call(subject.port)
            new = LocalAE(ae_title="RENAMED", listen=V4, accept="any")
            subject.listeners.admission = Admission([new], {}, NetworkSettings())
            wire = await subject.wire()
            await wire.send(request())
            assert await wire.pdu() == AAssociateRJ(1, 1, 7)
            await wire.close()
            assert await first.echo() == 0
            await first.release()

    run(scenario)
