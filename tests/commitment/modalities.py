"""Commitment as SCP in virtual time, and the modalities that ask it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, ParamSpec, TypeVar

import structlog
from structlog.testing import capture_logs

from router.commitment.dataset import (
    IMPLICIT,
    STORAGE_COMMITMENT_PUSH_MODEL,
    Item,
    Report,
    decode_report,
    encode_action,
)
from router.commitment.scp import PROPOSALS, CommitmentSCP
from router.commitment.settings import CommitmentSettings
from router.dimse.command import Command
from router.net.errors import AssociationError, ConnectFailed
from router.net.normalized import N_ACTION_RQ, Received
from router.net.pool import Proposal
from router.net.target import Target
from router.spool.index import Index
from router.spool.index_promises import Promise
from router.spool.record import Ref
from tests.commitment.threads import SlowThread
from tests.forward.virtual import run, wall

P = ParamSpec("P")
T = TypeVar("T")
CT = "1.2.840.10008.5.1.4.1.1.2"
INSTANCE = "1.2.840.10008.1.20.1.1"


@dataclass
class Peer:
    """Reports that it got, when and as whom; ``faults`` is what happens to the next ones."""

    reports: list[tuple[float, Report, str]] = field(default_factory=list)
    faults: list[AssociationError | int] = field(default_factory=list)
    down: bool = False
    hears: bool = True
    associations: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)


class Association:
    def __init__(self, peer: Peer, target: Target) -> None:
        self.accepted: dict[Proposal, int] = {PROPOSALS[0]: 1} if peer.hears else {}
        self.closed = False
        self._peer = peer
        self._target = target

    async def perform(
        self, context_id: int, command: Command, data: bytes | None, *, longest: int
    ) -> tuple[Command, bytes]:
        await asyncio.sleep(0.01)
        assert not self.closed
        assert data is not None
        fault = self._peer.faults.pop(0) if self._peer.faults else 0
        if isinstance(fault, AssociationError):
            self.closed = True
            raise fault
        report = decode_report(data, IMPLICIT)
        assert command.event_type_id == report.event_type
        assert command.affected_sop_instance_uid == INSTANCE
        self._peer.reports.append((wall(), report, self._target.calling_ae))
        self._peer.arrived.set()
        return Command(0x8100, status=fault), b""

    async def release(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


class Counted:
    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def on_promise(self, remote: str, outcome: str) -> None:
        self.counts[outcome] = self.counts.get(outcome, 0) + 1

    def on_promised(self, remote: str, committed: int, failed: int) -> None:
        self.counts["committed"] = self.counts.get("committed", 0) + committed
        self.counts["failed"] = self.counts.get("failed", 0) + failed


class Desk:
    """A gateway's part that is tested, and the remotes around it."""

    def __init__(self, index: Index, **settings: Any) -> None:
        self.index = index
        self.thread = SlowThread()
        self.peers: dict[str, Peer] = {"ct": Peer(), "mr": Peer()}
        self.counted = Counted()
        self.absent: dict[int, bool | None] = {}
        self.looked: list[list[int]] = []
        self.behind: Callable[[], Awaitable[None]] | None = None
        self.scp = CommitmentSCP(
            CommitmentSettings.model_validate(settings),
            index,
            self.thread,
            self._connect,
            self._target,
            self.counted,
            structlog.get_logger("commitment"),
            clock=wall,
            random=Random(1),
            present=self._present,
            caught_up=self._caught_up,
        )

    async def _caught_up(self) -> None:
        if self.behind is not None:
            await self.behind()

    async def _present(self, refs: Sequence[Ref]) -> dict[int, bool | None]:
        """All of it is there but what is ``absent``."""
        await asyncio.sleep(0.001)
        self.looked.append([ref.id for ref in refs])
        return {ref.id: self.absent.get(ref.id, True) for ref in refs}

    def _target(self, name: str, own_ae: str) -> Target | None:
        if name not in self.peers:
            return None
        return Target(name, name.upper(), "127.0.0.1", 104, own_ae)

    async def _connect(self, target: Target) -> Association:
        peer = self.peers[target.name]
        peer.associations += 1
        await asyncio.sleep(0.01)
        if peer.down:
            raise ConnectFailed(f"{target} could not be connected to: refused")
        return Association(peer, target)

    async def ask(
        self, *numbers: int, uid: str = "2.25.1", remote: str = "ct", own_ae: str = "ROUTER"
    ) -> int:
        items = [Item(CT, f"1.2.3.4.{number}") for number in numbers]
        return await self.scp.take(request(encode_action(uid, items), remote, own_ae))

    def listed(self) -> list[Promise]:
        return self.index.promises.listing(100, everything=True)


def request(data: bytes, remote: str = "ct", own_ae: str = "ROUTER", **changes: Any) -> Received:
    command = Command(
        N_ACTION_RQ,
        message_id=1,
        requested_sop_class_uid=STORAGE_COMMITMENT_PUSH_MODEL,
        requested_sop_instance_uid=INSTANCE,
        action_type_id=1,
    )
    received = Received("a1", remote, remote.upper(), own_ae, "::1", IMPLICIT, command, data)
    return replace(received, command=command._replace(**changes))


def scenario(
    index: Index, act: Callable[[Desk], Awaitable[None]], **settings: Any
) -> tuple[Desk, list[dict[str, Any]]]:
    async def main() -> Desk:
        desk = Desk(index, **settings)
        desk.scp.start()
        try:
            await act(desk)
        finally:
            await desk.scp.stop()
        return desk

    with capture_logs() as logs:
        return run(main()), [dict(line) for line in logs]
