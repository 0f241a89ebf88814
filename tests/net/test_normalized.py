"""DIMSE-N messages in both directions, roles, and peers that break the rules of them."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from router.commitment.dataset import STORAGE_COMMITMENT_PUSH_MODEL as PUSH
from router.commitment.service import CommitmentService
from router.dimse.command import Command, encode_command
from router.dimse.fragment import encode_message
from router.net import normalized
from router.net.connector import connect
from router.net.errors import AssociationBroken, AssociationError, AssociationTimeout
from router.net.normalized import N_ACTION_RQ, N_EVENT_REPORT_RQ, Handler, Received
from router.net.requestor import Requestor
from router.ul import RoleSelection
from tests.net.acceptors import accept_any, scripted, to_the_end
from tests.net.support import ECHO_PAIR, Runner, Wire, gate, target

INSTANCE = "1.2.840.10008.1.20.1.1"
PAIR = (PUSH, "1.2.840.10008.1.2")
ACTION = Command(
    N_ACTION_RQ,
    requested_sop_class_uid=PUSH,
    requested_sop_instance_uid=INSTANCE,
    action_type_id=1,
)
EVENT = Command(
    N_EVENT_REPORT_RQ,
    affected_sop_class_uid=PUSH,
    affected_sop_instance_uid=INSTANCE,
    event_type_id=1,
)
AS_SCP = (RoleSelection(PUSH, False, True),)


def action_rsp(status: int = 0, data: bytes | None = None, message_id: int = 1) -> bytes:
    command = Command(
        0x8130,
        message_id_being_responded_to=message_id,
        status=status,
        has_data_set=data is not None,
    )
    return encode_message(1, encode_command(command), data, 0)


def event_rq(data: bytes | None, message_id: int = 7) -> bytes:
    command = EVENT._replace(message_id=message_id, has_data_set=data is not None)
    return encode_message(1, encode_command(command), data, 0)


def performing(
    run: Runner,
    server: Callable[[Wire], Awaitable[None]],
    *,
    on_request: Handler | None = None,
    after: Callable[[Requestor], Awaitable[None]] | None = None,
    **changes: float,
) -> tuple[Command, bytes]:
    """What one N-ACTION to a scripted server brings."""

    async def scenario() -> tuple[Command, bytes]:
        async with scripted(server) as port:
            requestor = await connect(
                target(port, **changes), [PAIR, ECHO_PAIR], on_request=on_request
            )
            try:
                answer = await requestor.perform(1, ACTION, b"asked!", longest=100)
                if after is not None:
                    await after(requestor)
                await requestor.release()
            finally:
                requestor.close()
            return answer

    return run(scenario)


async def asked(wire: Wire) -> Command:
    await accept_any(wire)
    command = await wire.answer()
    assert command.field == N_ACTION_RQ
    assert command.requested_sop_instance_uid == INSTANCE
    assert command.action_type_id == 1
    assert command.has_data_set
    return command


# -- mistakes of peers -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (action_rsp(data=b"x" * 102), "a data set of more than 100 bytes"),
        (action_rsp(message_id=9), "not outstanding"),
        (
            encode_message(
                1,
                encode_command(Command(0x8110, message_id_being_responded_to=1, status=0)),
                None,
                0,
            ),
            "N-GET-RSP for message 1, which is not outstanding",
        ),
    ],
)
def test_answers_that_fit_no_request(run: Runner, answer: bytes, text: str) -> None:
    async def server(wire: Wire) -> None:
        await asked(wire)
        await wire.send(answer)
        await wire.aborted()

    with pytest.raises(AssociationBroken, match=text):
        performing(run, server)


def test_a_data_set_that_never_ends_does_not_keep_the_request(run: Runner) -> None:
    async def server(wire: Wire) -> None:
        await asked(wire)
        whole = action_rsp(data=b"x" * 50)
        await wire.send(whole[:-10])
        await wire.close()

    with pytest.raises(AssociationError, match="closed the connection"):
        performing(run, server)


def test_silence_after_the_response_is_a_time_out(run: Runner) -> None:
    async def server(wire: Wire) -> None:
        await asked(wire)
        await wire.ended()

    with pytest.raises(AssociationTimeout):
        performing(run, server, dimse_timeout=0.2)


def test_an_event_that_nobody_awaits_is_refused(run: Runner) -> None:
    async def server(wire: Wire) -> None:
        await asked(wire)
        await wire.send(event_rq(b"report"))
        answer = await wire.answer()
        assert (answer.field, answer.status) == (0x8100, 0x0211)
        await wire.send(action_rsp())
        await to_the_end(wire)

    assert performing(run, server)[0].status == 0


def test_a_handler_that_fails_is_a_processing_failure(run: Runner) -> None:
    async def fails(_: Received) -> int:
        raise RuntimeError("no disk")

    async def server(wire: Wire) -> None:
        await asked(wire)
        await wire.send(event_rq(b"report"))
        answer = await wire.answer()
        assert (answer.field, answer.status) == (0x8100, 0x0110)
        await wire.send(action_rsp())
        await to_the_end(wire)

    async def scenario() -> None:
        async with scripted(server) as port:
            requestor = await connect(target(port), [PAIR], on_request=fails)
            assert (await requestor.perform(1, ACTION, b"asked!", longest=10))[0].status == 0
            await requestor.release()

    run(scenario, tracebacks=1)


def test_an_event_that_is_too_large(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normalized, "LARGEST", 10)
    monkeypatch.setattr(normalized.Collected.__init__, "__defaults__", (10,))
    came: list[Received] = []

    async def take(received: Received) -> int:
        came.append(received)
        return 0

    async def server(wire: Wire) -> None:
        await asked(wire)
        await wire.send(event_rq(b"x" * 12), event_rq(b"x" * 10, 8))
        first, second = await wire.answer(), await wire.answer()
        answers = {a.message_id_being_responded_to: a.status for a in (first, second)}
        assert answers == {7: 0x0213, 8: 0}
        await wire.send(action_rsp())
        await to_the_end(wire)

    performing(run, server, on_request=take)
    assert [received.data for received in came] == [b"x" * 10]


# -- what is right -----------------------------------------------------------------------------


@pytest.mark.parametrize("data", [None, b"", b"what it says"])
def test_a_response_and_its_data_set(run: Runner, data: bytes | None) -> None:
    async def server(wire: Wire) -> None:
        await asked(wire)
        whole = action_rsp(0x0001, data)
        for at in range(0, len(whole), 5):
            await wire.send(whole[at : at + 5])
        await to_the_end(wire)

    response, came = performing(run, server)
    assert response.status == 1
    assert came == (data or b"")


def test_a_report_on_the_association_that_asked(run: Runner) -> None:
    came: list[Received] = []
    arrived = asyncio.Event()

    async def take(received: Received) -> int:
        came.append(received)
        arrived.set()
        for _ in range(10):  # the release comes meanwhile
            await asyncio.sleep(0)
        return 0x0110

    async def after(requestor: Requestor) -> None:
        await arrived.wait()

    answers: list[Command] = []

    async def server(wire: Wire) -> None:
        await asked(wire)
        await wire.send(action_rsp(), event_rq(b"report"))
        answers.append(await wire.answer())
        await to_the_end(wire)

    arrived.clear()
    performing(run, server, on_request=take, after=after)
    (received,) = came
    assert (received.data, received.transfer_syntax) == (b"report", PAIR[1])
    assert (received.remote, received.peer_ae, received.own_ae) == ("pacs", "ROUTER", "CT1")
    assert received.command.event_type_id == 1
    assert (answers[0].status, answers[0].event_type_id) == (0x0110, 1)


# -- both of our own sides ---------------------------------------------------------------------


class Desk:
    """Takes what comes."""

    def __init__(self, scu: bool = True, scp: bool = True) -> None:
        self.actions: list[Received] = []
        self.reports: list[Received] = []
        self.service = CommitmentService(self.action, self.report, lambda _: scu, lambda: scp)

    async def action(self, received: Received) -> int:
        self.actions.append(received)
        return 0

    async def report(self, received: Received) -> int:
        self.reports.append(received)
        return 0


def test_roles_as_both_sides_see_them(run: Runner) -> None:
    desk = Desk()

    async def scenario() -> None:
        async with gate(desk.service) as at:
            asking = await connect(target(at.port), [PAIR])
            assert asking.roles == {PUSH: (True, False)}
            response, _ = await asking.perform(1, ACTION, b"asked!", longest=0)
            assert response.status == 0
            await asking.release()
            reporting = await connect(target(at.port), [PAIR], roles=AS_SCP)
            assert reporting.roles == {PUSH: (False, True)}
            response, _ = await reporting.perform(1, EVENT, b"report", longest=0)
            assert (response.status, response.event_type_id) == (0, 1)
            assert response.affected_sop_instance_uid == INSTANCE
            response, _ = await reporting.perform(1, ACTION, b"asked!", longest=0)
            assert response.status == 0x0124, "it is no SCU here"
            await reporting.release()

    run(scenario)
    assert [r.data for r in desk.actions] == [b"asked!"]
    assert [(r.data, r.peer_ae, r.own_ae) for r in desk.reports] == [(b"report", "CT1", "ROUTER")]


def test_roles_that_are_not_wanted(run: Runner) -> None:
    async def scenario() -> None:
        async with gate(Desk(scp=False).service) as at:
            requestor = await connect(target(at.port), [PAIR], roles=AS_SCP)
            assert requestor.roles == {PUSH: (False, False)}
            response, _ = await requestor.perform(1, EVENT, b"report", longest=0)
            assert response.status == 0x0211
            await requestor.release()
        async with gate(Desk(scu=False, scp=False).service) as at:
            requestor = await connect(target(at.port), [PAIR, ECHO_PAIR], roles=AS_SCP)
            assert PAIR not in requestor.accepted
            await requestor.release()

    run(scenario)


def test_a_report_without_a_role_selection_is_taken(run: Runner) -> None:
    desk = Desk()

    async def scenario() -> None:
        async with gate(desk.service) as at:
            requestor = await connect(target(at.port), [PAIR])
            response, _ = await requestor.perform(1, EVENT, b"report", longest=0)
            assert response.status == 0
            await requestor.release()

    run(scenario)
    assert [r.data for r in desk.reports] == [b"report"]


def test_other_services_answer_no_role_selection(run: Runner) -> None:
    async def scenario() -> None:
        async with gate() as at:
            roles = [RoleSelection(ECHO_PAIR[0], True, True)]
            requestor = await connect(target(at.port), [ECHO_PAIR], roles=roles)
            assert requestor.roles == {ECHO_PAIR[0]: (True, False)}
            assert requestor.connection.acceptance is not None
            assert requestor.connection.acceptance.user_information.role_selections == ()
            await requestor.release()

    run(scenario)


def test_a_report_back_to_who_asked(run: Runner) -> None:
    """On the association that the peer opened; an answer too late or never is told so."""
    came: list[Received] = []

    async def take(received: Received) -> int:
        came.append(received)
        return 0

    async def scenario() -> None:
        desk = Desk()
        async with gate(desk.service) as at:
            requestor = await connect(target(at.port), [PAIR], on_request=take)
            await requestor.perform(1, ACTION, b"asked!", longest=0)
            back = desk.actions[0].back
            assert back is not None
            response, _ = await back.perform(EVENT, b"report", longest=10, seconds=5.0)
            assert (response.status, back.closed) == (0, False)
            silent = asyncio.Event()

            async def never(_: Received) -> int:
                await silent.wait()
                return 0

            requestor._inbox._handler = never
            with pytest.raises(AssociationTimeout, match="did not answer within"):
                await back.perform(EVENT, b"report", longest=10, seconds=0.05)
            waiting = asyncio.ensure_future(back.perform(EVENT, b"report", longest=10, seconds=5.0))
            await asyncio.sleep(0)
            requestor.abort()
            silent.set()
            with pytest.raises(AssociationBroken, match="ended before the answer"):
                await waiting
            assert back.closed
            with pytest.raises(AssociationBroken, match="is over"):
                await back.perform(EVENT, None, longest=10, seconds=5.0)
            await requestor.ended()
            await requestor._inbox.settled(5.0)

    run(scenario)
    assert [received.data for received in came] == [b"report"]


def test_a_stranger_to_the_class_gets_0211(run: Runner) -> None:
    desk = Desk()

    async def scenario() -> None:
        async with gate(desk.service) as at:
            requestor = await connect(target(at.port), [PAIR])
            command = Command(
                0x0110, requested_sop_class_uid=PUSH, requested_sop_instance_uid=INSTANCE
            )
            response, _ = await requestor.perform(1, command, None, longest=0)
            assert response.status == 0x0211
            await requestor.release()

    run(scenario)
    assert not desk.actions
