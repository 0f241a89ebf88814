"""Conversations of a requestor that end at every byte."""

from router.dimse.command import Command
from router.net.errors import (
    AssociationError,
)
from router.ul import (
    AAssociateAC,
    AAssociateRQ,
    AReleaseRP,
    PresentationContextAC,
    UserInformation,
    encode_pdu,
)
from tests.net.acceptors import echo_rsp, message, scripted, store_rsp
from tests.net.support import (
    CT_PAIR,
    ECHO_PAIR,
    Recorder,
    Runner,
    Wire,
    call,
    store,
)

ECHO = Command(0x0030, affected_sop_class_uid="1.2.840.10008.1.1", message_id=7)


def answers() -> list[bytes]:
    """What the peer says in answer to the request, a C-ECHO, a C-STORE and the release."""
    rq = AAssociateRQ("ROUTER", "CT1", (), UserInformation())
    contexts = (
        PresentationContextAC(1, 0, ECHO_PAIR[1]),
        PresentationContextAC(3, 0, CT_PAIR[1]),
    )
    ac = AAssociateAC(rq.called_ae_title, rq.calling_ae_title, contexts, UserInformation(16384))
    return [encode_pdu(ac), echo_rsp(1), store_rsp(2), encode_pdu(AReleaseRP())]


async def use(port: int, observer: Recorder) -> int:
    """Connect, echo, store: how many of the three succeeded."""
    succeeded = 0
    try:
        requestor = await call(port, observer, negotiation_timeout=5.0)
        succeeded += 1
        assert await requestor.echo() == 0
        succeeded += 1
        assert await store(requestor, b"abc") == 0
        succeeded += 1
        await requestor.release()
    except AssociationError as error:
        if not (error.temporary and str(error).startswith("pacs (ROUTER at 127.0.0.1:")):
            raise
    return succeeded


def test_a_peer_that_closes_at_every_byte_of_its_answers(run: Runner) -> None:
    """Nothing succeeds before its answer is whole, and nothing waits for more."""
    said = answers()
    limit = 0

    async def handler(wire: Wire) -> None:
        left = limit
        for part in said:
            if part is said[1] or part is said[2]:
                await message(wire)
            elif await wire.pdu() is None:
                return
            await wire.send(part[:left])
            left -= len(part)
            if left <= 0:
                return
        await wire.ended()

    async def scenario() -> None:
        nonlocal limit
        observer = Recorder()
        async with scripted(handler) as port:
            for limit in range(1, sum(map(len, said)) + 1):
                whole = sum(limit >= sum(map(len, said[: n + 1])) for n in range(3))
                assert await use(port, observer) == whole, limit
        await observer.all_closed()

    run(scenario)
