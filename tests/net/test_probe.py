"""What a probe finds out, of peers of every kind."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from router.net.errors import AssociationError, AssociationRejected
from router.net.probe import SERVICES, Findings, Probe
from router.ul import (
    AAbort,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    PDataTF,
    PresentationContextRQ,
    RoleSelection,
    UserInformation,
    accept_request,
)
from router.ul.negotiation import negotiate
from tests.net.acceptors import echo_rsp, scripted
from tests.net.support import Runner, Wire, target

CT, MR, US = (f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("2", "4", "6.1"))
COMMITMENT = "1.2.840.10008.1.20.1"
IMPLICIT, EXPLICIT, JPEG_LS = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.80"
Choose = Callable[[PresentationContextRQ], tuple[int, str]]


def takes(accepted: dict[str, set[str]], otherwise: int = 3) -> Choose:
    """Accepts the first proposed syntax that is in the set of the class."""

    def choose(context: PresentationContextRQ) -> tuple[int, str]:
        syntaxes = accepted.get(context.abstract_syntax)
        if syntaxes is None:
            return otherwise, ""
        chosen = next((s for s in context.transfer_syntaxes if s in syntaxes), None)
        return (0, chosen) if chosen is not None else (4, "")

    return choose


def acceptor(
    choose: Choose,
    *,
    information: UserInformation | None = None,
    refuses: Callable[[AAssociateRQ], bool] = lambda rq: False,
    seen: list[AAssociateRQ] | None = None,
) -> Callable[[Wire], Awaitable[None]]:
    """A peer that echoes and releases; it drops the requests that it ``refuses``."""

    async def serve(wire: Wire) -> None:
        rq = await wire.pdu()
        assert isinstance(rq, AAssociateRQ)
        if seen is not None:
            seen.append(rq)
        if refuses(rq):
            return
        answers = negotiate(rq, choose)
        await wire.send(
            accept_request(rq, answers, information or UserInformation(maximum_length=16384))
        )
        number = 0
        while (pdu := await wire.pdu()) is not None and not isinstance(pdu, AAbort):
            if isinstance(pdu, PDataTF):
                number += 1
                await wire.send(echo_rsp(number))
            elif isinstance(pdu, AReleaseRQ):
                await wire.send(AReleaseRP())

    return serve


async def found(port: int, *classes: str, **settings: object) -> Findings:
    subject = Probe(
        target(port, **settings),
        classes=classes or (CT, MR, US),
        syntaxes=(IMPLICIT, EXPLICIT, JPEG_LS),
        echoes=3,
    )
    async with asyncio.timeout(20):
        return await subject.run()


def test_what_a_peer_accepts(run: Runner) -> None:
    async def scenario() -> None:
        accepted = {CT: {IMPLICIT, JPEG_LS}, US: {JPEG_LS}, **{s: {IMPLICIT} for s in SERVICES}}
        seen: list[AAssociateRQ] = []
        information = UserInformation(
            maximum_length=16384,
            implementation_class_uid="1.2.3",
            implementation_version_name="PEER_7",
            role_selections=(
                RoleSelection(CT, True, False),
                RoleSelection(COMMITMENT, False, True),
            ),
            asynchronous_operations=(5, 1),
        )
        peer = acceptor(takes(accepted), information=information, seen=seen)
        async with scripted(peer) as port:
            findings = await found(port)
        assert findings.accepted == {CT: [IMPLICIT, JPEG_LS], US: [JPEG_LS]}
        assert findings.asked == 3
        assert findings.services == list(SERVICES)
        assert (findings.implementation_class_uid, findings.implementation_version_name) == (
            "1.2.3",
            "PEER_7",
        )
        assert findings.maximum_length == 16384
        assert findings.window == 5
        assert findings.roles == {CT: (True, False), COMMITMENT: (False, True)}
        assert len(findings.round_trips) == 3
        assert findings.echo_status == 0
        assert findings.round_trip is not None
        assert 0 < findings.connected < 5
        assert 0 < findings.associated < 5
        assert findings.trouble == []
        assert findings.associations == len(seen) == 5
        windows = [rq.user_information.asynchronous_operations for rq in seen]
        assert windows == [None] * 4 + [(8, 1)], "the item that some trip over comes last"
        asked = {c.abstract_syntax for c in seen[2].presentation_contexts}
        assert asked == {CT, US}, "what is not accepted as a class is not asked for again"

    run(scenario)


def test_no_association_has_more_than_128_contexts(run: Runner) -> None:
    async def scenario() -> None:
        classes = [f"1.2.3.{n}" for n in range(200)]
        seen: list[AAssociateRQ] = []
        peer = acceptor(takes({uid: {EXPLICIT} for uid in classes}), seen=seen)
        async with scripted(peer) as port:
            findings = await found(port, *classes)
        assert findings.accepted == {uid: [EXPLICIT] for uid in classes}
        counts = [len(rq.presentation_contexts) for rq in seen]
        assert counts == [len(SERVICES), 128, 72, 128, 128, 128, 128, 88, 2, 1]

    run(scenario)


def test_a_peer_that_rejects_is_an_error(run: Runner) -> None:
    async def scenario() -> None:
        async def peer(wire: Wire) -> None:
            await wire.pdu()
            await wire.send(AAssociateRJ(1, 1, 7))

        async with scripted(peer) as port:
            with pytest.raises(AssociationRejected):
                await found(port)

    run(scenario)


def test_a_peer_that_accepts_nothing(run: Runner) -> None:
    async def scenario() -> None:
        async with scripted(acceptor(takes({}))) as port:
            findings = await found(port)
        assert findings.accepted == {}
        assert findings.services == []
        assert findings.round_trips == []
        assert findings.round_trip is None
        assert findings.echo_status is None

    run(scenario)


def test_a_peer_that_drops_requests_with_many_contexts_is_left_alone(run: Runner) -> None:
    async def scenario() -> None:
        seen: list[AAssociateRQ] = []
        peer = acceptor(
            takes({VERIFICATION: {IMPLICIT}}),
            refuses=lambda rq: len(rq.presentation_contexts) > 100,
            seen=seen,
        )
        async with scripted(peer) as port:
            findings = await found(port, *(f"1.2.3.{n}" for n in range(1280)))
        large = [rq for rq in seen if len(rq.presentation_contexts) > 100]
        assert len(large) == 3
        assert len(findings.trouble) == 4
        assert findings.trouble[0].startswith("128 presentation contexts: ")
        assert findings.trouble[3] == "896 presentation contexts were not asked for"
        assert findings.window == 1, "the other questions are asked all the same"

    run(scenario)


def test_a_peer_that_falls_at_the_asynchronous_operations_item(run: Runner) -> None:
    async def scenario() -> None:
        peer = acceptor(
            takes({VERIFICATION: {IMPLICIT}, CT: {EXPLICIT}}),
            refuses=lambda rq: rq.user_information.asynchronous_operations is not None,
        )
        async with scripted(peer) as port:
            findings = await found(port, CT)
        assert findings.accepted == {CT: [EXPLICIT]}
        assert findings.window is None
        assert len(findings.trouble) == 1
        assert "asked for the asynchronous operations window: " in findings.trouble[0]

    run(scenario)


def test_one_that_does_not_release_properly_is_told(run: Runner) -> None:
    async def scenario() -> None:
        async def peer(wire: Wire) -> None:
            rq = await wire.pdu()
            assert isinstance(rq, AAssociateRQ)
            answers = negotiate(rq, takes({CT: {EXPLICIT}}))
            await wire.send(accept_request(rq, answers, UserInformation(maximum_length=0)))
            await wire.ended()

        async with scripted(peer) as port:
            findings = await found(port, CT, negotiation_timeout=0.05)
        assert findings.accepted == {CT: [EXPLICIT]}
        assert findings.trouble
        assert all("did not answer the release" in line for line in findings.trouble)
        assert findings.maximum_length == 0

    run(scenario)


def test_pairs_that_are_refused_for_no_reason_are_counted(run: Runner) -> None:
    async def scenario() -> None:
        def choose(context: PresentationContextRQ) -> tuple[int, str]:
            return (0, EXPLICIT) if EXPLICIT in context.transfer_syntaxes else (2, "")

        async with scripted(acceptor(choose)) as port:
            findings = await found(port, CT, MR)
        assert findings.accepted == {CT: [EXPLICIT], MR: [EXPLICIT]}
        assert findings.doubtful == 4

    run(scenario)


def test_nobody_there_is_an_error(run: Runner) -> None:
    async def scenario() -> None:
        async with scripted(acceptor(takes({}))) as port:
            pass
        with pytest.raises(AssociationError):
            await found(port)

    run(scenario)


VERIFICATION = "1.2.840.10008.1.1"
