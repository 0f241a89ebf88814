"""What a remote's settings change on the wire."""

import asyncio
from dataclasses import replace

import pytest

from router.net.connector import connect
from router.net.requestor import Requestor
from router.ul import AAssociateRQ, AReleaseRP, AReleaseRQ, PDataTF, RoleSelection
from tests.net.acceptors import accept_any, scripted, store_rsp, to_the_end
from tests.net.support import ECHO_PAIR, EXPLICIT, Data, Runner, Wire, target

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
PRIVATE = "1.2.3.4"


async def _gone(association: Requestor) -> None:
    async with asyncio.timeout(5):
        while not association.lost:
            await asyncio.sleep(0)  # the connection: that the association is over says nothing


@pytest.mark.parametrize("states", [True, False])
def test_our_role_is_stated_for_storage_classes_alone(run: Runner, states: bool) -> None:
    async def scenario() -> None:
        asked: list[AAssociateRQ] = []

        async def peer(wire: Wire) -> None:
            asked.append(await accept_any(wire))
            await to_the_end(wire)

        async with scripted(peer) as port:
            whom = replace(target(port), states_role=states)
            pairs = [ECHO_PAIR, (CT, EXPLICIT), (CT, ECHO_PAIR[1]), (MR, EXPLICIT)]
            more = [(PRIVATE, EXPLICIT)]
            association = await connect(
                whom, [*pairs, *more], roles=[RoleSelection(MR, True, True)]
            )
            assert len(association.accepted) == 5
            await association.release()
        given = asked[0].user_information.role_selections
        assert RoleSelection(MR, True, True) in given, "what the caller asks for stands"
        if states:
            assert set(given) == {
                RoleSelection(MR, True, True),
                RoleSelection(CT, True, False),
                RoleSelection(PRIVATE, True, False),
            }
            assert len(given) == 3, "one for each class"
        else:
            assert len(given) == 1

    run(scenario)


def test_after_a_release_the_peer_may_close_first(run: Runner) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        ends: list[float] = []

        async def peer(wire: Wire) -> None:
            await accept_any(wire)
            assert isinstance(await wire.pdu(), AReleaseRQ)
            await wire.send(AReleaseRP())
            began = loop.time()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await wire.reader.read(1)
            ends.append(loop.time() - began)

        async with scripted(peer) as port:
            association = await connect(replace(target(port), close_delay=30.0), [ECHO_PAIR])
            await association.release()
            assert association.closed
            assert not association.lost, "the connection is still there"
            await _gone(association)
        assert ends

    run(scenario)


@pytest.mark.parametrize("delay", [0.0, 0.05])
def test_a_peer_that_does_not_close_is_closed(run: Runner, delay: float) -> None:
    async def scenario() -> None:
        async def peer(wire: Wire) -> None:
            await accept_any(wire)
            assert isinstance(await wire.pdu(), AReleaseRQ)
            await wire.send(AReleaseRP(), b"and something after the end")
            await wire.ended()

        async with scripted(peer) as port:
            association = await connect(replace(target(port), close_delay=delay), [ECHO_PAIR])
            began = asyncio.get_running_loop().time()
            await association.release()
            await _gone(association)
            if delay:
                assert asyncio.get_running_loop().time() - began >= delay * 0.9

    run(scenario)


@pytest.mark.parametrize("maximum", [0, 4096, 16384])
def test_a_pdu_never_has_two_pdvs(run: Runner, maximum: int) -> None:
    """Some peers refuse several, or read the first one only (fo-dicom#502)."""

    async def scenario() -> None:
        counts: list[int] = []

        async def peer(wire: Wire) -> None:
            await accept_any(wire, maximum_length=maximum)
            while True:
                pdu = await wire.pdu()
                assert isinstance(pdu, PDataTF)
                counts.append(len(pdu.pdvs))
                if pdu.pdvs[-1].control == 2:
                    break
            await wire.send(store_rsp(context_id=1))
            await to_the_end(wire)

        async with scripted(peer) as port:
            association = await connect(target(port), [(CT, EXPLICIT)])
            result = await association.store(1, CT, "1.2.3", Data(b"x" * 50_000))
            assert result.status == 0
            await association.release()
        assert set(counts) == {1}
        assert len(counts) >= 2

    run(scenario)
