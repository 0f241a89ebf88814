"""As `test_suspects`, with a real acceptor that cannot read one of the proposals."""

import functools
from dataclasses import replace

import pytest

from router.dimse.assemble import Assembler
from router.dimse.command import Command
from router.net.connector import connect
from router.net.requestor import Target
from router.net.settings import Retry
from router.spool.index_types import DeliveryState
from router.ul import (
    AAbort,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    PDataTF,
    UserInformation,
    accept_request,
    negotiate,
)
from tests.forward.fakes import MR, House, waiting
from tests.net.acceptors import scripted, store_rsp
from tests.net.support import Runner, Wire

ODD = "1.2.840.10008.5." + "1" * 49
RETRY = Retry(first=0.02, factor=1.5, cap=0.1, jitter=0.0, max_attempts=3)


async def acceptor(wire: Wire) -> None:
    """Takes what is sent; aborts a request in which a UID is too long."""
    rq = await wire.pdu()
    assert isinstance(rq, AAssociateRQ)
    if any(len(context.abstract_syntax) > 64 for context in rq.presentation_contexts):
        await wire.send(AAbort(2, 6))
        return
    answers = negotiate(rq, lambda context: (0, context.transfer_syntaxes[0]))
    await wire.send(accept_request(rq, answers, UserInformation(maximum_length=16384)))
    commands: list[tuple[int, Command]] = []
    ended: list[tuple[int, Command]] = []
    assembler = Assembler(
        lambda context_id, command: commands.append((context_id, command)),
        lambda piece: None,
        lambda: ended.append(commands.pop()),
    )
    while (pdu := await wire.pdu()) is not None:
        match pdu:
            case PDataTF(pdvs):
                for pdv in pdvs:
                    data = memoryview(pdv.data)
                    assembler.fragment(pdv.context_id, pdv.control, data, end_of_pdv=True)
                while ended:
                    context_id, command = ended.pop()
                    await wire.send(store_rsp(command.message_id, context_id=context_id))
            case AReleaseRQ():
                await wire.send(AReleaseRP())


@pytest.mark.parametrize("associations", [1, 2])
def test_a_real_acceptor_that_aborts_on_one_proposal_gets_everything_else(
    associations: int,
) -> None:
    async def scenario() -> None:
        async with scripted(acceptor) as port:
            house = House("pacs")
            target = Target("pacs", "PACS", "127.0.0.1", port, "ROUTER")
            house.configs["pacs"] = replace(
                house.config("pacs", retry=RETRY, linger=0.0, associations=associations),
                connect=functools.partial(connect, target),
            )
            house.arrive("pacs", waiting(1, sop_class=ODD, study="1.1"))
            house.arrive("pacs", *(waiting(n, study="1.2") for n in range(2, 12)))
            house.arrive("pacs", *(waiting(n, sop_class=MR, study="1.3") for n in range(12, 22)))
            house.start()
            await house.index.until_closed("pacs")
            assert house.index.count("pacs", DeliveryState.DELIVERED) == 20
            assert house.index.last("pacs", 1).state is DeliveryState.DEAD
            assert "aborted" in house.index.last("pacs", 1).reason
            assert house.counts.sent == 20_000
            await house.forwarder.stop(5.0)

    Runner("asyncio")(scenario)
