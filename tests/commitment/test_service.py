"""How much requests may take before they are dealt with."""

import asyncio
from typing import Any
from unittest.mock import Mock

import pytest

from router.commitment.service import CommitmentService
from router.dimse.command import Command
from router.net.normalized import N_ACTION_RQ, Received
from router.ul import NegotiatedContext


class Asking:
    """An association, of which the service needs little."""

    def __init__(self) -> None:
        self.id, self.remote, self.calling_ae, self.called_ae = "a1", "ct", "CT", "ROUTER"
        self.peer_address, self.outbox, self.log, self.maximum_length = "::1", None, Mock(), 0
        self.answers: list[bytes] = []

    def started(self) -> None:
        pass

    def answer(self, pdus: bytes) -> None:
        self.answers.append(pdus)


async def test_one_that_is_too_large_gives_its_room_back() -> None:
    service = CommitmentService(Mock(), Mock(), lambda _: True, lambda: True)
    context: Any = Mock(spec=NegotiatedContext, id=1, transfer_syntax="1.2.840.10008.1.2")
    association: Any = Asking()
    command = Command(N_ACTION_RQ, message_id=1, has_data_set=True)
    operation = service.begin(association, context, command)
    assert operation is not None
    before = service.room
    for _ in range(40):
        operation.data(memoryview(bytes(1 << 20)))
    assert service.room == before


async def test_requests_share_what_they_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.commitment.service.MOST_TOGETHER", 100)
    go, taken = asyncio.Event(), []

    async def take(received: Received) -> int:
        taken.append(len(received.data))
        await go.wait()
        return 0

    service = CommitmentService(take, take, lambda _: True, lambda: True)
    association: Any = Asking()
    context: Any = Mock(spec=NegotiatedContext, id=1, transfer_syntax="1.2.840.10008.1.2")
    command = Command(N_ACTION_RQ, message_id=1, has_data_set=True)

    def begin(size: int) -> Any:
        operation = service.begin(association, context, command)
        assert operation is not None
        operation.data(memoryview(bytes(size)))
        return operation

    begin(60).end()
    cut_off = begin(40)
    too_much = begin(1)
    assert service.room == 0
    cut_off.abandon()
    too_much.data(memoryview(bytes(30)))  # it is passed over for good, and takes nothing
    too_much.end()
    begin(20).end()
    await asyncio.sleep(0)
    assert taken == [60, 20]
    assert len(association.answers) == 1
    go.set()
    await service.close()
    await asyncio.sleep(0)
    assert len(association.answers) == 3
    assert service.room == 100
