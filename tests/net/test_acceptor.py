"""What peers of every kind do to the acceptor, byte by byte."""

import re
import struct

import pytest

from router.net.settings import Remote
from router.ul import (
    AAbort,
    AAssociateRJ,
    AReleaseRQ,
    PresentationContextRQ,
    RoleSelection,
    UserInformation,
    encode_pdu,
)
from tests.net.support import (
    CT,
    CT_CONTEXT,
    EXPLICIT,
    IMPLICIT,
    VERIFICATION,
    Runner,
    echo_rq,
    gate,
    request,
    silent,
    store_rq,
)

ABORT = encode_pdu(AAbort(0, 0))


# -- before the association ----------------------------------------------------------------------


@pytest.mark.parametrize("first", [b"", b"\x01", encode_pdu(request())[:-1]])
def test_who_asks_for_nothing_is_closed_by_artim(run: Runner, first: bytes) -> None:
    async def scenario() -> None:
        async with gate(artim_timeout=0.1) as subject:
            wire = await subject.wire()
            await wire.send(first)
            await silent(0.1, wire)
            await subject.quiet()
            assert subject.observer.rejected == {"artim": 1}
            assert subject.observer.opened == 0

    run(scenario)
    assert len(run.said("asked for no association in time")) == 1


def test_a_health_check_that_connects_and_closes_is_not_worth_a_line(run: Runner) -> None:
    async def scenario() -> None:
        async with gate() as subject:
            for _ in range(5):
                wire = await subject.wire()
                await wire.close()
            await subject.quiet()
            assert not subject.observer.rejected
            assert subject.observer.unused == {"silent": 5}

    run(scenario)
    assert run.logs == []


@pytest.mark.parametrize(
    ("first", "name"),
    [
        (b"GET / HTTP/1.1\r\nHost: ct\r\n\r\n", "HTTP request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "TLS bytes"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH"),
        (b"\xff" * 40, "unknown"),
        (struct.pack(">BxI", 1, 0x7FFFFFFF) + bytes(80), "2147483647 bytes"),
        (struct.pack(">BxI", 4, 100) + bytes(100), "unexpected"),
        (encode_pdu(AReleaseRQ()), "unexpected"),
    ],
)
def test_what_is_not_dicom_is_counted_named_and_closed(
    run: Runner, first: bytes, name: str
) -> None:
    async def scenario() -> None:
        async with gate() as subject:
            wire = await subject.wire()
            await wire.send(first)
            assert isinstance(await wire.pdu(), AAbort)
            await wire.ended()  # at once, not by ARTIM: such a client waits for more otherwise
            await wire.close()
            await subject.quiet()
            assert subject.observer.rejected == {"protocol": 1}
            assert sum(subject.observer.errors.values()) == 1

    run(scenario)
    [line] = run.logs
    assert name in line["why"]
    assert line["peer"].startswith("127.0.0.1:")


def test_such_a_peer_that_stays_is_closed_by_artim(run: Runner) -> None:
    async def scenario() -> None:
        async with gate(artim_timeout=0.1) as subject:
            wire = await subject.wire()
            await wire.send(b"GET / HTTP/1.1\r\n\r\n")
            await subject.quiet()
            await wire.close()
            assert subject.observer.rejected == {"protocol": 1}

    run(scenario)


def test_silent_connections_do_not_stop_a_proper_one(run: Runner) -> None:
    async def scenario() -> None:
        async with gate(max_associations=100) as subject:
            crowd = [await subject.wire() for _ in range(300)]
            wire = await subject.associated()
            await wire.send(echo_rq())
            assert (await wire.answer()).status == 0
            await wire.release()
            for one in crowd:
                await one.close()
            await subject.quiet()

    run(scenario)


REMOTES = {"ct": Remote(ae_title="CT1", max_associations=2), "mr": Remote(ae_title="MR1")}


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ({"max_associations": 2}, "network.max_associations"),
        ({"local": {"max_associations": 2}}, "with ROUTER"),
        ({"remotes": REMOTES}, "of ct"),
    ],
)
def test_associations_beyond_a_cap_are_rejected_for_now(
    run: Runner, options: dict[str, object], setting: str
) -> None:
    async def scenario() -> None:
        async with gate(**options) as subject:  # type: ignore[arg-type]
            wires = [await subject.associated() for _ in range(2)]
            late = await subject.wire()
            await late.send(request())
            assert await late.pdu() == AAssociateRJ(2, 3, 2)
            await late.close()
            assert subject.observer.rejected == {"limit": 1}
            await wires.pop().release()
            await subject.listeners.until_open(1)
            wires.append(await subject.associated())
            for wire in wires:
                await wire.release()
            await subject.quiet()

    run(scenario)
    assert len(run.said("association refused", setting)) == 1


@pytest.mark.parametrize(
    ("changes", "options", "rejection", "kind"),
    [
        ({"called_ae_title": "OTHER"}, {}, AAssociateRJ(1, 1, 7), "called_ae"),
        ({"calling_ae_title": "X"}, {"accept": ("MR*",)}, AAssociateRJ(1, 1, 3), "calling_ae"),
        ({"application_context": "1.2"}, {}, AAssociateRJ(1, 1, 2), "application_context"),
        ({"protocol_version": 2}, {}, AAssociateRJ(1, 2, 2), "protocol_version"),
        ({"user_information": UserInformation(7)}, {}, AAssociateRJ(1, 1, 1), "maximum_length"),
    ],
)
def test_refusals_say_why(
    run: Runner,
    changes: dict[str, object],
    options: dict[str, object],
    rejection: AAssociateRJ,
    kind: str,
) -> None:
    async def scenario() -> None:
        async with gate(artim_timeout=0.1, **options) as subject:  # type: ignore[arg-type]
            wire = await subject.wire()
            await wire.send(request(**changes))
            assert await wire.pdu() == rejection
            await silent(0.1, wire)  # the peer should close; when it does not, ARTIM does
            await subject.quiet()
            assert subject.observer.rejected == {kind: 1}
            assert subject.observer.opened == 0

    run(scenario)
    [line] = run.logs
    assert line["log_level"] == "warning"
    assert line["kind"] == kind
    assert line["why"]


@pytest.mark.parametrize(
    "behind", [ABORT, b"\xff" * 20, store_rq(), encode_pdu(request()), encode_pdu(AReleaseRQ())]
)
def test_a_peer_that_does_not_wait_for_the_answer(run: Runner, behind: bytes) -> None:
    """Both come in one piece: the request is not answered, nor is anything taken."""

    async def scenario() -> None:
        async with gate(artim_timeout=0.1) as subject:
            wire = await subject.wire()
            await wire.send(encode_pdu(request()) + behind)
            pdu = await wire.pdu()
            assert pdu is None if behind == ABORT else isinstance(pdu, AAbort)
            await wire.close()
            await subject.quiet()
            assert subject.observer.opened == 0
            assert subject.shelf.begun == []

    run(scenario)
    assert len(run.logs) == 1


# -- negotiation ---------------------------------------------------------------------------------


def test_an_answer_to_every_context_and_reaping_when_none_is_left(run: Runner) -> None:
    contexts = (
        PresentationContextRQ(1, "1.2.840.10008.9.9", (IMPLICIT,)),
        PresentationContextRQ(3, VERIFICATION, ("1.2.840.10008.1.2.4.50",)),
        PresentationContextRQ(5, CT, ()),
    )

    async def scenario() -> None:
        async with gate(idle_timeout=0.1) as subject:
            wire = await subject.wire()
            answer = await wire.associate(presentation_contexts=contexts)
            assert [context.result for context in answer.presentation_contexts] == [3, 4, 4]
            await wire.aborted()
            await wire.close()
            await subject.quiet()

    run(scenario)
    assert run.said("contexts", "0 of 3")


def test_contexts_with_the_same_id_are_no_reason_to_fall_over(run: Runner) -> None:
    contexts = (
        PresentationContextRQ(1, VERIFICATION, (IMPLICIT,)),
        PresentationContextRQ(3, CT, (EXPLICIT,)),
    )
    rq, changed = re.subn(
        rb"(\x20\x00..)\x03",
        lambda m: m[1] + b"\x01",
        encode_pdu(request(presentation_contexts=contexts)),
    )
    assert changed == 1

    async def scenario() -> None:
        async with gate() as subject:
            wire = await subject.wire()
            await wire.send(rq)
            assert isinstance(await wire.pdu(), AAbort | AAssociateRJ)
            await wire.close()
            await subject.quiet()

    run(scenario)


def test_roles_are_those_of_the_default_whatever_is_proposed(run: Runner) -> None:
    """Left out of the answer, so the requestor is SCU and nothing else (PS3.7 D.3.3.4)."""
    roles = (RoleSelection(CT, scu=False, scp=True), RoleSelection(VERIFICATION, True, True))

    async def scenario() -> None:
        async with gate() as subject:
            wire = await subject.wire()
            information = UserInformation(16384, role_selections=roles)
            answer = await wire.associate(user_information=information)
            assert answer.user_information.role_selections == ()
            await wire.send(store_rq())
            assert (await wire.answer()).status == 0
            for association in subject.listeners.associations:
                contexts = association.connection.contexts.values()
                assert all(c.scp_role and not c.scu_role for c in contexts)
            await wire.release()

    run(scenario)


def test_a_request_in_a_role_that_was_not_agreed_is_refused(run: Runner) -> None:
    async def scenario() -> None:
        async with gate() as subject:
            wire = await subject.associated()
            [association] = subject.listeners.associations
            contexts = association.connection.contexts
            contexts[CT_CONTEXT] = type(contexts[CT_CONTEXT])(3, CT, EXPLICIT, True, False)
            await wire.send(store_rq(), echo_rq(2))
            refused = await wire.answer()
            assert (refused.status, refused.error_comment) == (
                0x0124,
                "SCU role was not negotiated",
            )
            assert (await wire.answer()).status == 0
            assert subject.shelf.begun == []
            await wire.release()

    run(scenario)


@pytest.mark.parametrize(
    ("proposed", "agreed"), [(None, None), ((0, 0), (16, 1)), ((4, 4), (4, 1)), ((99, 1), (16, 1))]
)
def test_the_asynchronous_operations_window(
    run: Runner, proposed: tuple[int, int] | None, agreed: tuple[int, int] | None
) -> None:
    async def scenario() -> None:
        async with gate() as subject:
            wire = await subject.wire()
            answer = await wire.associate(
                user_information=UserInformation(16384, asynchronous_operations=proposed)
            )
            assert answer.user_information.asynchronous_operations == agreed
            await wire.release()

    run(scenario)
