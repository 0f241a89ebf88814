"""A destination that is asked for commitment, in virtual time, over a real index."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import structlog

from router.commitment.committers import Committers
from router.commitment.dataset import (
    EXPLICIT,
    IMPLICIT,
    STORAGE_COMMITMENT_PUSH_MODEL,
    Action,
    Failure,
    Item,
    decode_action,
    encode_report,
)
from router.commitment.index import CommitmentIndex
from router.commitment.ports import CommitterConfig, Held, NotAsked
from router.dimse.command import Command
from router.net.commitment import Commitment
from router.net.errors import AssociationError, ConnectFailed
from router.net.normalized import Received
from router.net.pool import Proposal
from router.spool.index import Index
from router.spool.index_commitments import (
    Reference,
)
from tests.commitment.threads import SlowThread
from tests.forward.virtual import run, wall
from tests.spool.index_samples import T0, UNCOMMITTED, fill, outcome

PACS = "pacs"


class FakeAssociation:
    """Answers each N-ACTION with what the archive says."""

    def __init__(self, archive: "FakeArchive") -> None:
        self._archive = archive
        self._ended = asyncio.Event()
        self.accepted: dict[Proposal, int] = {
            (STORAGE_COMMITMENT_PUSH_MODEL, syntax): 2 * n + 1
            for n, syntax in enumerate(archive.syntaxes)
        }
        self.closed = False
        self.released_at: float | None = None

    async def perform(
        self, context_id: int, command: Command, data: bytes | None, *, longest: int
    ) -> tuple[Command, bytes]:
        assert data is not None
        assert not self.closed
        (syntax,) = [p[1] for p, number in self.accepted.items() if number == context_id]
        archive = self._archive
        archive.commands.append(command)
        archive.asked.append((asyncio.get_running_loop().time(), decode_action(data, syntax)))
        await asyncio.sleep(archive.takes)
        if archive.breaks:
            self.abort()
            raise archive.breaks.pop()
        status = archive.statuses.pop(0) if archive.statuses else 0
        return Command(0x8130, status=status), b""

    async def ended(self) -> None:
        await self._ended.wait()

    async def release(self) -> None:
        await asyncio.sleep(0)
        self.released_at = asyncio.get_running_loop().time()
        self.abort()

    def abort(self) -> None:
        self.closed = True
        self._ended.set()


class FakeArchive:
    """What a destination does when it is asked."""

    def __init__(self) -> None:
        self.syntaxes: Sequence[str] = (IMPLICIT, EXPLICIT)
        self.up = True
        self.takes = 0.1
        self.breaks: list[AssociationError] = []
        self.statuses: list[int] = []
        self.listed: set[str] | None = None
        """Instances, and series of which it has all."""
        self.looks: list[float] = []
        self.commands: list[Command] = []
        self.asked: list[tuple[float, Action]] = []
        self.associations: list[FakeAssociation] = []
        self.calls = 0

    async def connect(self) -> FakeAssociation:
        self.calls += 1
        await asyncio.sleep(0.01)
        if not self.up:
            raise ConnectFailed("pacs could not be connected to: refused")
        self.associations.append(FakeAssociation(self))
        return self.associations[-1]

    async def look(self, references: Sequence[Reference]) -> Collection[Reference]:
        await asyncio.sleep(0.01)
        self.looks.append(asyncio.get_running_loop().time())
        if self.listed is None:
            raise NotAsked("pacs accepts no Study Root queries (C-FIND)")
        return [
            one
            for one in references
            if one.sop_instance_uid in self.listed or one.series_instance_uid in self.listed
        ]

    @property
    def times(self) -> list[float]:
        return [at for at, _ in self.asked]

    @property
    def actions(self) -> list[Action]:
        return [action for _, action in self.asked]


class Counts:
    """What was counted."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.became: dict[str, int] = {}

    def on_commitment_asked(self, destination: str, outcome: str) -> None:
        assert destination == PACS
        self.asked.append(outcome)

    def on_commitment(self, destination: str, outcome: str, count: int) -> None:
        self.became[outcome] = self.became.get(outcome, 0) + count


class Scene:
    """All of it, running from ``start`` to ``stop``."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.index = Index.open(path)
        self.slow = SlowThread()
        self.archive = FakeArchive()
        self.counts = Counts()
        self.resent: list[tuple[str, int]] = []
        self.held: Held | None = None
        self._uids = iter(f"2.25.{n}" for n in range(1, 10_000))
        self.began = asyncio.get_running_loop().time()
        self.config = CommitterConfig(
            name=PACS,
            settings=Commitment.model_validate({"after": 10, "answer_within": 600} | settings),
            connect=self.archive.connect,
            look=self.archive.look,
            held=lambda: self.held,
        )
        self.committers = Committers(
            CommitmentIndex(lambda: self.index.commitments, self.slow, accepted_at_once=2),
            clock=wall,
            new_uid=lambda: next(self._uids),
            random=Random(7),
            observer=self.counts,
            resent=lambda name, count: self.resent.append((name, count)),
            log=structlog.get_logger(),
        )

    def start(self, *, configured: bool = True) -> None:
        self.committers.start(*(([self.config],) if configured else ([], [PACS])))

    def with_settings(self, **settings: Any) -> CommitterConfig:
        return replace(self.config, settings=self.config.settings.model_copy(update=settings))

    async def took(self, *numbers: int) -> None:
        """The destination took these just now."""
        fill(self.index, numbers, PACS)
        self.index.settle([outcome(n, PACS, UNCOMMITTED, at=wall()) for n in numbers])
        self.committers.notify(PACS)
        await asyncio.sleep(0)

    def hold(self, why: str = "", until: float | None = None) -> None:
        """It is paused or shut, for a reason, until then; with none it is not any more."""
        self.held = Held(why, until) if why else None
        self.committers.held_changed(PACS)

    def ago(self, moment: float) -> float:
        """Seconds from the beginning to a moment of the loop's clock."""
        return moment - self.began

    async def until(self, seconds: float) -> None:
        """So many seconds since the beginning."""
        await asyncio.sleep(self.began + seconds - asyncio.get_running_loop().time())

    async def report(
        self,
        uid: str,
        *kept: str,
        refused: Mapping[str, int] | None = None,
        event_type: int = 1,
        data: bytes | None = None,
        syntax: str = IMPLICIT,
    ) -> int:
        """What the destination reports; the status that it is answered with."""
        sop_class = "1.2.840.10008.5.1.4.1.1.2"
        if data is None:
            failures = [Failure(Item(sop_class, n), why) for n, why in (refused or {}).items()]
            data = encode_report(uid, [Item(sop_class, n) for n in kept], failures, syntax)
        command = Command(
            0x0100,
            affected_sop_class_uid=STORAGE_COMMITMENT_PUSH_MODEL,
            event_type_id=event_type,
            has_data_set=True,
        )
        received = Received("a1", PACS, "PACS", "ROUTER", "10.0.0.5", syntax, command, data)
        return await self.committers.reports.take(received)

    async def stop(self) -> None:
        await self.committers.stop()
        assert self.index.account(audit=True).differences == {}
        self.index.close()


__all__ = ["PACS", "T0", "Scene"]


Play = Callable[[Scene], Awaitable[None]]


def play(path: Path, main: Play, *, configured: bool = True, **settings: object) -> None:
    async def whole() -> None:
        scene = Scene(path / "index.db", **settings)
        scene.start(configured=configured)
        await main(scene)
        await scene.stop()

    run(whole())


def uid(number: int) -> str:
    return f"1.2.3.4.{number}"
