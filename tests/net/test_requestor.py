"""What acceptors of every kind do to the requestor."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from router.net.connector import connect
from router.net.errors import (
    AssociationAborted,
    AssociationBroken,
    AssociationError,
    AssociationRejected,
    AssociationTimeout,
    ConnectFailed,
)
from router.net.requestor import Requestor, Target
from router.net.settings import Remote
from router.ul import (
    PDV,
    AAbort,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    PDataTF,
    PresentationContextAC,
    UserInformation,
    accept_request,
    encode_pdu,
)
from tests.net.acceptors import accept_any, scripted, to_the_end
from tests.net.support import (
    ECHO_PAIR,
    EXPLICIT,
    Recorder,
    Runner,
    Wire,
    call,
    target,
)

Handler = Callable[[Wire], Awaitable[None]]


async def failing(handler: Handler, error: type[AssociationError], text: str, **how: Any) -> None:
    """Connecting to such a peer fails so, and leaves nothing open."""
    observer = Recorder()
    async with scripted(handler) as port:
        with pytest.raises(error, match=text):
            await call(port, observer, **how)
    await observer.all_closed()


# -- connecting ----------------------------------------------------------------------------------


def test_nobody_listens(run: Runner) -> None:
    async def scenario() -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
            with pytest.raises(ConnectFailed, match=f"pacs .ROUTER at 127.0.0.1:{port}.") as caught:
                await call(port)
        assert caught.value.temporary

    run(scenario)


@pytest.mark.parametrize("host", ["nobody.invalid", "not a host", "\u00fc" * 70, ""])
def test_a_host_that_does_not_exist(run: Runner, host: str) -> None:
    async def scenario() -> None:
        # The empty host is this machine to the resolver; no one listens at port 1 either.
        with pytest.raises(ConnectFailed, match="could not be connected to"):
            await connect(replace(target(1), host=host, connect_timeout=2.0), [ECHO_PAIR])

    run(scenario)


def test_a_host_that_does_not_answer(run: Runner) -> None:
    async def scenario() -> None:
        with socket.socket() as full, socket.socket() as one, socket.socket() as two:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            for client in (one, two):
                client.setblocking(False)
                client.connect_ex(full.getsockname())
            with pytest.raises(ConnectFailed, match=r"within 0.1 s"):
                await call(full.getsockname()[1], connect_timeout=0.1)

    run(scenario)


def test_cancelled_while_negotiating(run: Runner) -> None:
    async def scenario() -> None:
        asked = asyncio.Event()

        async def handler(wire: Wire) -> None:
            await wire.pdu()
            asked.set()
            await to_the_end(wire)

        async with scripted(handler) as port:
            calling = asyncio.ensure_future(call(port))
            await asked.wait()
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling

    run(scenario)


# -- negotiation ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rejection", "temporary", "text"),
    [
        (AAssociateRJ(1, 1, 7), False, "called"),
        (AAssociateRJ(1, 1, 3), False, "calling"),
        (AAssociateRJ(2, 3, 2), True, "limit"),
        (AAssociateRJ(9, 9, 9), False, "rejected"),
    ],
)
def test_rejected(run: Runner, rejection: AAssociateRJ, temporary: bool, text: str) -> None:
    async def handler(wire: Wire) -> None:
        await wire.pdu()
        await wire.send(rejection)
        await to_the_end(wire)

    async def scenario() -> None:
        async with scripted(handler) as port:
            with pytest.raises(AssociationRejected, match=text) as caught:
                await call(port)
        assert caught.value.temporary is caught.value.transient is temporary

    run(scenario)


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (encode_pdu(AAbort(2, 1)), AssociationAborted, "aborted"),
        (b"", AssociationBroken, "closed the connection"),
        (encode_pdu(AAbort(2, 1))[:5], AssociationBroken, "closed the connection"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", AssociationBroken, "HTTP response"),
        (b"\x15\x03\x03\x00\x02\x02\x46", AssociationBroken, "TLS alert"),
        (encode_pdu(AReleaseRP()), AssociationBroken, "unexpected"),
        (encode_pdu(PDataTF((PDV(1, 3, b"abc"),))), AssociationBroken, "unexpected"),
        (b"\x02\x00\xff\xff\xff\xff" + bytes(80), AssociationBroken, "4294967295 bytes"),
        (b"\x02\x00\x00\x00\x00\x50" + b"\x77" * 80, AssociationBroken, "protocol"),
    ],
)
def test_answers_to_the_request_that_are_none(
    run: Runner, answer: bytes, error: type[AssociationError], text: str
) -> None:
    async def handler(wire: Wire) -> None:
        await wire.pdu()
        await wire.send(answer)

    run(lambda: failing(handler, error, text))


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9.2\r\n", encode_pdu(AAbort(0, 0)), b""])
def test_a_server_that_speaks_first(run: Runner, greeting: bytes) -> None:
    async def handler(wire: Wire) -> None:
        await wire.send(greeting)

    run(lambda: failing(handler, AssociationError, "pacs"))


def test_a_server_that_never_answers_the_request(run: Runner) -> None:
    run(lambda: failing(to_the_end, AssociationTimeout, r"within 0.1 s", negotiation_timeout=0.1))


def test_only_what_was_proposed_counts_as_accepted(run: Runner) -> None:
    async def handler(wire: Wire) -> None:
        rq = await wire.pdu()
        assert isinstance(rq, AAssociateRQ)
        answers = (
            PresentationContextAC(1, 0, EXPLICIT),  # not proposed for it
            PresentationContextAC(3, 4, ""),
            PresentationContextAC(9, 0, EXPLICIT),  # nobody proposed it
        )
        await wire.send(accept_request(rq, answers, UserInformation(0)))
        await to_the_end(wire)

    async def scenario() -> None:
        async with scripted(handler) as port:
            requestor = await call(port)
            assert requestor.accepted == {}
            with pytest.raises(AssociationBroken, match="no context for Verification"):
                await requestor.echo()
            assert not requestor.closed
            await requestor.release()

    run(scenario)


@pytest.mark.parametrize(
    ("proposed", "granted", "window"),
    [(4, None, 1), (4, (2, 1), 2), (4, (0, 1), 4), (4, (9, 1), 4), (1, (5, 5), 1)],
)
def test_the_window_is_what_the_peer_grants(
    run: Runner, proposed: int, granted: tuple[int, int] | None, window: int
) -> None:
    async def handler(wire: Wire) -> None:
        rq = await accept_any(wire, asynchronous_operations=granted)
        wanted = rq.user_information.asynchronous_operations
        assert wanted == ((proposed, 1) if proposed > 1 else None)
        await to_the_end(wire)

    async def scenario() -> None:
        async with scripted(handler) as port:
            requestor = await call(port, asynchronous_operations=proposed)
            assert requestor.window == window
            await requestor.release()

    run(scenario)


def test_a_target_is_made_of_a_remote() -> None:
    remote = Remote(ae_title="PACS", host="pacs.example.org", port=11112, calling_ae="GW")
    made = Target.of("pacs", remote, "ROUTER")
    assert str(made) == "pacs (PACS at pacs.example.org:11112)"
    assert made.calling_ae == "GW"
    assert Target.of("x", Remote(ae_title="X", host="h"), "ROUTER").calling_ae == "ROUTER"
    with pytest.raises(ValueError, match="x has no host"):
        Target.of("x", Remote(ae_title="X"), "ROUTER")


def test_a_peer_that_leaves_before_it_is_asked(run: Runner) -> None:
    class Gone(asyncio.Transport):
        """The transport of a connection that ends as soon as it is made."""

        def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
            assert high == 0

        def get_extra_info(self, name: str, default: object = None) -> object:
            return default

    async def scenario() -> None:
        requestor = Requestor(target(1), None)
        requestor.connection_made(Gone())
        requestor.connection_lost(None)
        with pytest.raises(AssociationBroken, match="closed the connection"):
            requestor.associate(AAssociateRQ("ROUTER", "CT1", (), UserInformation()))
        assert requestor.closed

    run(scenario)


def test_requestors_have_ids_of_their_own(run: Runner) -> None:
    async def scenario() -> None:
        first = Requestor(target(1), None)
        second = Requestor(target(1), None)
        assert first.id != second.id

    run(scenario)
