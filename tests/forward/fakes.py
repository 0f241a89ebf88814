"""A queue in a dictionary and a peer without a network, for tests of forwarding."""

import asyncio
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

import structlog

from router.forward import DestinationConfig, Forwarder, IndexGateway
from router.forward.ports import DivertIndex, ExpireIndex
from router.net.errors import (
    AssociationAborted,
    AssociationBroken,
    AssociationError,
    AssociationTimeout,
    ConnectFailed,
)
from router.net.pool import Pace, Proposal, Readable
from router.net.settings import Retry
from router.spool.errors import SpoolDamaged, SpoolError
from router.spool.index_types import DeliveryState, Outcome, Settled, Waiting
from router.spool.record import Ref
from tests.forward.virtual import wall

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
CT_PAIR = (CT, EXPLICIT)
MR_PAIR = (MR, EXPLICIT)


def waiting(
    number: int,
    *,
    sop_class: str = CT,
    syntax: str = EXPLICIT,
    study: str = "1.2.3",
    priority: int = 0,
    length: int = 1000,
    attempts: int = 0,
    received_at: float = 1_700_000_000.0,
) -> Waiting:
    return Waiting(
        Ref(number, 1, 0, 0, length, 0),
        sop_class,
        f"1.2.3.{number}",
        syntax,
        study,
        received_at,
        "CT1",
        attempts,
        priority,
    )


@dataclass
class Row:
    item: Waiting
    state: DeliveryState = DeliveryState.READY
    due_at: float | None = None
    history: list[Outcome] = field(default_factory=list)


class FakeIndex:
    """`broken` makes every call fail; `latency` is how long each takes."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[int, Row]] = {}
        self.broken: Exception | None = None
        self.latency = 0.0005
        self.settles: list[int] = []
        self.leases = 0
        self.leased = 0
        """Instances that the leases gave, together."""
        self.changed = asyncio.Event()

    def add(self, destination: str, *items: Waiting) -> None:
        rows = self.rows.setdefault(destination, {})
        for item in items:
            rows[item.ref.id] = Row(item)

    async def _call(self) -> None:
        await asyncio.sleep(self.latency)
        if self.broken is not None:
            raise self.broken

    def _ready(self, destination: str, exclude: Collection[int]) -> list[Row]:
        rows = self.rows.get(destination, {})
        return [
            row
            for number, row in rows.items()
            if row.state is DeliveryState.READY and number not in set(exclude)
        ]

    async def lease(
        self,
        destination: str,
        limit: int,
        now: float,
        exclude: Collection[int],
        least_priority: int | None = None,
    ) -> list[Waiting]:
        await self._call()
        self.leases += 1
        due = [r for r in self._ready(destination, exclude) if r.due_at is None or r.due_at <= now]
        due = [r for r in due if least_priority is None or r.item.priority >= least_priority]
        due.sort(key=lambda row: (-row.item.priority, row.item.ref.id))
        self.leased += len(due[:limit])
        return [row.item for row in due[:limit]]

    async def next_due(
        self, destination: str, exclude: Collection[int], least_priority: int | None = None
    ) -> float | None:
        await self._call()
        ready = [
            row
            for row in self._ready(destination, exclude)
            if least_priority is None or row.item.priority >= least_priority
        ]
        return min((row.due_at or 0.0 for row in ready), default=None)

    async def settle(self, outcomes: Sequence[Outcome]) -> Settled:
        await self._call()
        self.settles.append(len(outcomes))
        for outcome in outcomes:
            row = self.rows[outcome.destination][outcome.instance_id]
            assert row.state is DeliveryState.READY, "settled twice"
            row.state = outcome.state
            row.due_at = outcome.due_at
            row.history.append(outcome)
            row.item = replace(row.item, attempts=row.item.attempts + outcome.attempted)
        self.changed.set()
        return Settled(len(outcomes), (), ())

    def count(self, destination: str, state: DeliveryState) -> int:
        return sum(row.state is state for row in self.rows.get(destination, {}).values())

    def last(self, destination: str, number: int) -> Outcome:
        return self.rows[destination][number].history[-1]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until an outcome has made ``condition`` true."""
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    async def until_closed(self, destination: str) -> None:
        """Waits until nothing waits for the destination any more."""
        await self.until(lambda: self.count(destination, DeliveryState.READY) == 0)


class FakeReader:
    """One that is ``torn`` is never read to its end: the line ends in the data set."""

    def __init__(self, ref: Ref, damaged: bool = False, torn: bool = False) -> None:
        self.length = self.remaining = ref.length
        self.damaged = damaged
        self.torn = torn
        self.closed = False

    def try_read(self, buffers: list[memoryview]) -> bool:
        self.read(buffers)
        return True

    def read(self, buffers: list[memoryview]) -> None:
        self.remaining -= sum(map(len, buffers)) - self.torn
        if self.damaged and self.remaining <= 0:
            raise SpoolDamaged("CRC-32 is 00000001, 00000002 was committed")

    def close(self) -> None:
        self.closed = True


class FakeSpool:
    def __init__(self) -> None:
        self.damaged: set[int] = set()
        self.gone: set[int] = set()
        self.unreadable: set[int] = set()
        self.torn: set[int] = set()
        self.readers: list[FakeReader] = []

    def open_reader(self, ref: Ref) -> Readable:
        if ref.id in self.gone:
            raise SpoolDamaged(f"instance {ref.id}: segment generation 1 is gone")
        if ref.id in self.unreadable:
            raise SpoolError("input/output error")
        reader = FakeReader(ref, ref.id in self.damaged, ref.id in self.torn)
        self.readers.append(reader)
        return reader


@dataclass(frozen=True)
class Answer:
    status: int
    comment: str = ""


@dataclass
class Stored:
    uid: str
    association: "FakeAssociation"
    at: float


class FakePeer:
    """What a destination does: ``answer`` gives the reply to each SOP Instance UID.

    An exception given as the answer ends the association with it.  ``poison`` tells which pairs
    make it drop a whole association request.
    """

    def __init__(self) -> None:
        self.connect_error: AssociationError | None = None
        self.poison: Callable[[Proposal], bool] = lambda pair: False
        self.accepts: Callable[[Proposal], bool] = lambda pair: True
        self.doubts: Callable[[Proposal], bool] = lambda pair: False
        self.answer: Callable[[str], Answer | Exception] = lambda uid: Answer(0)
        self.latency: Callable[[str], float] = lambda uid: 0.001
        self.connect_latency = 0.01
        self.window = 1
        self.one_at_a_time = False
        self.leaves_at_once = False
        self.left_before_the_end = False
        self.stalled: asyncio.Event | None = None
        self.connects: list[float] = []
        self.proposed: list[list[Proposal]] = []
        self.associations: list[FakeAssociation] = []
        self.asked: list[str] = []
        self.echoes: list[float] = []
        self.stored: list[Stored] = []
        self.most_open = 0
        self.most_connecting = 0
        self._connecting = 0

    @property
    def delivered(self) -> list[str]:
        return [one.uid for one in self.stored]

    def down(self) -> None:
        self.connect_error = ConnectFailed("10.0.0.5:104: connection refused")
        for association in self.associations:
            association.closed = True

    async def connect(self, proposals: Sequence[Proposal]) -> "FakeAssociation":
        self.connects.append(asyncio.get_running_loop().time())
        self._connecting += 1
        self.most_connecting = max(self.most_connecting, self._connecting)
        try:
            await asyncio.sleep(self.connect_latency)
        finally:
            self._connecting -= 1
        if self.connect_error is not None:
            raise self.connect_error
        assert len(proposals) == len(set(proposals)) <= 128
        self.proposed.append(list(proposals))
        if any(map(self.poison, proposals)):
            raise AssociationAborted("PACS", 2, 6)
        association = FakeAssociation(self, proposals, f"out-{len(self.connects)}")
        if self.leaves_at_once:
            asyncio.get_running_loop().call_soon(association.end)
        self.associations.append(association)
        self.most_open = max(self.most_open, sum(not a.closed for a in self.associations))
        return association


class FakeAssociation:
    def __init__(self, peer: FakePeer, proposals: Sequence[Proposal], name: str) -> None:
        self.id = name
        self.window = peer.window
        self.pace: Pace | None = None
        self.closed = False
        self.released = False
        self.aborted = False
        self.outstanding = 0
        self.most_outstanding = 0
        self._peer = peer
        self._gone = asyncio.Event()
        self._turn = asyncio.Semaphore(1 if peer.one_at_a_time else peer.window)
        ids = itertools.count(1, 2)
        self.accepted: Mapping[Proposal, int] = {
            pair: number for pair, number in zip(proposals, ids, strict=False) if peer.accepts(pair)
        }
        self.doubtful: Collection[Proposal] = [
            pair for pair in proposals if pair not in self.accepted and peer.doubts(pair)
        ]
        self._classes = {number: pair[0] for pair, number in self.accepted.items()}

    async def store(
        self,
        context_id: int,
        sop_class_uid: str,
        sop_instance_uid: str,
        reader: Readable,
        *,
        on_sent: Callable[[], None],
    ) -> Answer:
        assert not self.released, "sent on a released association"
        assert self._classes[context_id] == sop_class_uid
        self.outstanding += 1
        self.most_outstanding = max(self.most_outstanding, self.outstanding)
        assert self.outstanding <= self.window
        try:
            async with self._turn:
                return await self._store(sop_instance_uid, reader, on_sent)
        finally:
            self.outstanding -= 1

    async def _store(self, uid: str, reader: Readable, on_sent: Callable[[], None]) -> Answer:
        if self.closed:
            raise AssociationBroken("connection lost")
        self._peer.asked.append(uid)
        while self.pace is not None and reader.remaining > self.pace.piece:
            await self.pace.take(self.pace.piece)
            reader.read([memoryview(bytearray(self.pace.piece))])
        if self.pace is not None:
            await self.pace.take(reader.remaining)
        reader.read([memoryview(bytearray(reader.remaining))])
        if self._peer.left_before_the_end:
            self.end()
            raise AssociationBroken("connection lost")
        if not reader.remaining:
            on_sent()
        waits = [asyncio.ensure_future(self._gone.wait())]
        if self._peer.stalled is not None:
            waits.append(asyncio.ensure_future(self._peer.stalled.wait()))
        else:
            waits.append(asyncio.ensure_future(asyncio.sleep(self._peer.latency(uid))))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self.aborted:
            raise AssociationAborted("PACS", 0, 0)
        if self.closed:
            raise AssociationBroken("connection lost")
        answer = self._peer.answer(uid)
        if isinstance(answer, Exception):
            self.end()
            raise answer
        if answer.status in (0x0000, 0xB000, 0xB006, 0xB007):
            now = asyncio.get_running_loop().time()
            self._peer.stored.append(Stored(uid, self, now))
        return answer

    def end(self) -> None:
        """The connection is gone; whoever waits on it is told."""
        self.closed = True
        self._gone.set()

    async def echo(self) -> int:
        await asyncio.sleep(self._peer.latency(""))
        if self.closed:
            raise AssociationBroken("connection lost")
        self._peer.echoes.append(asyncio.get_running_loop().time())
        return 0

    async def release(self) -> None:
        assert not self.closed
        self.released = True
        await asyncio.sleep(0.001)
        self.end()

    def abort(self) -> None:
        self.aborted = True
        self.end()


def timed_out() -> AssociationTimeout:
    return AssociationTimeout("PACS was silent for 60 s")


class Counts:
    def __init__(self) -> None:
        self.attempts: list[str] = []
        self.delivered: list[tuple[str, str, float]] = []
        self.failed: list[tuple[str, str]] = []
        self.availability: list[tuple[str, bool]] = []
        self.sent = 0
        self.associations_failed: list[tuple[str, str]] = []
        self.diverted: list[tuple[str, str, int]] = []

    def on_attempt(self, destination: str) -> None:
        self.attempts.append(destination)

    def on_delivered(self, destination: str, outcome: str, seconds: float) -> None:
        self.delivered.append((destination, outcome, seconds))

    def on_failed(self, destination: str, outcome: str) -> None:
        self.failed.append((destination, outcome))

    def on_sent(self, destination: str, count: int) -> None:
        self.sent += count

    def on_association_failed(self, destination: str, reason: str) -> None:
        self.associations_failed.append((destination, reason))

    def on_availability(self, destination: str, up: bool) -> None:
        self.availability.append((destination, up))

    def on_diverted(self, destination: str, to: str, count: int) -> None:
        self.diverted.append((destination, to, count))


class House:
    """A forwarder with its surroundings; peers by destination name."""

    def __init__(
        self,
        *names: str,
        index: IndexGateway | None = None,
        divert: DivertIndex | None = None,
        expire: ExpireIndex | None = None,
        clock: Callable[[], float] = wall,
        **options: object,
    ) -> None:
        self.index = FakeIndex()
        self.spool = FakeSpool()
        self.counts = Counts()
        self.gated = 0
        self.peers = {name: FakePeer() for name in names}
        self.configs = {name: self.config(name, **options) for name in names}
        self.forwarder = Forwarder(
            index=index or self.index,
            open_reader=self.spool.open_reader,
            clock=clock,
            random=Random(7),
            observer=self.counts,
            log=structlog.get_logger(),
            divert=divert,
            expire=expire,
            gated=self._gated,
        )

    def _gated(self) -> None:
        self.gated += 1

    @property
    def peer(self) -> FakePeer:
        return next(iter(self.peers.values()))

    def config(self, name: str, identity: object = 0, **options: object) -> DestinationConfig:
        plain = DestinationConfig(
            name=name, connect=self.peers[name].connect, identity=identity, retry=RETRY
        )
        return replace(plain, **options)  # type: ignore[arg-type]

    def start(self, members: Collection[str] = ()) -> None:
        self.forwarder.start(self.configs.values(), members)

    def arrive(self, destination: str, *items: Waiting) -> None:
        self.index.add(destination, *items)
        self.forwarder.notify(destination, len(items))

    async def stop(self, grace: float = 5.0) -> None:
        await self.forwarder.stop(grace)
        assert all(reader.closed for reader in self.spool.readers)
        assert all(a.closed for peer in self.peers.values() for a in peer.associations)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left


RETRY = Retry(first=2.0, factor=2.0, cap=300.0, jitter=0.25, max_attempts=5)
