"""Our sending side, whole, on a real spool and a real index, and what was seen of it.

Owns the wiring: spool, index, forwarder and requestor are the product's, with waits of a fraction
of a second.  Must not know faults.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from time import time
from typing import Self

import structlog

from perf.proxy import FaultProxy, Script
from perf.witness import Seen, Witness
from router.forward import DestinationConfig, Forwarder
from router.net.connector import connect
from router.net.errors import AssociationError
from router.net.pool import Association, Proposal
from router.net.requestor import Target
from router.net.settings import Retry
from router.spool.errors import SpoolError
from router.spool.index import Index
from router.spool.index_types import DeliveryState, Filter, Outcome, Settled, Waiting
from router.spool.reader import Reader
from router.spool.rebuild import rebuild
from router.spool.record import InstanceMeta, Position, Ref, RouteMeta
from router.spool.settings import SpoolSettings
from router.spool.spool import Spool
from tests.forward.fakes import CT, EXPLICIT, Counts

RETRY = Retry(first=0.05, factor=2.0, cap=0.2, jitter=0.0, max_attempts=3)
_SEGMENT = 4 * 2**20


class Books:
    """The index on the event loop, and a list of every outcome that it was given."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self.history: dict[tuple[int, str], list[Outcome]] = defaultdict(list)
        self.changed = asyncio.Event()

    async def lease(
        self,
        destination: str,
        limit: int,
        now: float,
        exclude: Collection[int],
        least_priority: int | None = None,
    ) -> list[Waiting]:
        return self._index.lease(destination, limit, now, exclude, least_priority)

    async def next_due(
        self, destination: str, exclude: Collection[int], least_priority: int | None = None
    ) -> float | None:
        return self._index.next_due(destination, exclude, least_priority)

    async def settle(self, outcomes: Sequence[Outcome]) -> Settled:
        for outcome in outcomes:
            self.history[outcome.instance_id, outcome.destination].append(outcome)
        settled = self._index.settle(outcomes)
        assert settled.applied == len(outcomes), "an outcome for what was settled before"
        self.changed.set()
        return settled


class _Watched:
    """A reader of the spool that tells whether it was closed."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.closed = False

    @property
    def length(self) -> int:
        return self._reader.length

    @property
    def remaining(self) -> int:
        return self._reader.remaining

    def try_read(self, buffers: list[memoryview]) -> bool:
        return self._reader.try_read(buffers)

    def read(self, buffers: list[memoryview]) -> None:
        self._reader.read(buffers)

    def close(self) -> None:
        self.closed = True
        self._reader.close()


class Shop:
    """Spool, index and forwarder; all of it ends with the block that it is entered for."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._kept: list[tuple[Ref, InstanceMeta, Position]] = []
        self._readers: list[_Watched] = []
        self._pinned: dict[int, int] = {}
        self.counts = Counts()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        values = {"segment_size": _SEGMENT, "large_instance": 2**20, "spare_segments": 1}
        settings = SpoolSettings().model_copy(update={**values, "low_disk": 0})
        self.index = Index.open(self._directory / "index.sqlite")
        self.books = Books(self.index)

        def start() -> Spool:
            spool = Spool.open(
                self._directory / "spool", settings, loop.call_soon_threadsafe, lambda *_: None
            )
            report = rebuild(spool, self.index, suppress_duplicates=False)
            spool.start(report.last_id)
            return spool

        self.spool = await asyncio.to_thread(start)
        self.forwarder = Forwarder(
            index=self.books,
            open_reader=self._open_reader,
            clock=time,
            random=Random(7),
            observer=self.counts,
            log=structlog.get_logger(),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        # Whatever failed: threads of the spool would keep the tests from ending.
        try:
            await self.forwarder.stop(5.0)
        finally:
            await asyncio.to_thread(self.spool.close)
            self.index.close()

    def _open_reader(self, ref: Ref) -> "_Watched":
        reader = _Watched(self.spool.open_reader(ref))
        self._readers.append(reader)
        return reader

    def _pins(self) -> dict[int, int]:
        """How often each segment is held, this look left out."""
        pins = {}
        for generation in self.index.generations_in_use():
            segment = self.spool.segments.pin(generation)
            assert segment is not None
            self.spool.segments.unpin(segment)
            pins[generation] = segment.pins
        return pins

    async def keep(self, data: bytes, meta: InstanceMeta) -> Ref:
        """An acknowledged instance, as a receiver leaves it."""
        committed: asyncio.Future[tuple[Ref, Position]] = asyncio.get_running_loop().create_future()

        def done(ref: Ref | None, end: Position | None, error: SpoolError | None) -> None:
            if ref is None or end is None:
                committed.set_exception(error or SpoolError("not committed"))
            else:
                committed.set_result((ref, end))

        writer = self.spool.begin(lambda: None)
        for at in range(0, len(data), 64 * 1024):
            writer.append(memoryview(data)[at : at + 64 * 1024])
        writer.commit(meta.to_bytes(), done)
        ref, end = await committed
        self._kept.append((ref, meta, end))
        return ref

    def feed(self) -> None:
        """Tells the index of what was kept, in the order of the spool."""
        self._kept.sort(key=lambda entry: entry[2])
        entries, self._kept = self._kept, []
        self.index.add(
            [(ref, meta) for ref, meta, _ in entries],
            entries[-1][2],
            suppress_duplicates=False,
            same_bytes=self.spool.same_bytes,
        )
        self._pinned = self._pins()

    async def until_settled(self, destinations: Collection[str]) -> None:
        """Until nothing waits for these any more."""
        while any(
            line.count and line.state is DeliveryState.READY and line.destination in destinations
            for line in self.index.queue_summary()
        ):
            self.books.changed.clear()
            await self.books.changed.wait()

    def retry_dead(self, destination: str) -> int:
        """What an operator does once the cause is mended."""
        changed = self.index.retry(
            Filter(destination=destination, state=DeliveryState.DEAD), at=time()
        )
        self.forwarder.refresh(destination)
        return changed.count

    async def finish(self) -> None:
        """Stops sending; nothing may be left open, held or out of balance."""
        await self.forwarder.stop(5.0)
        assert self.index.account(audit=True).balanced
        left = sum(not reader.closed for reader in self._readers)
        assert not left, f"{left} of {len(self._readers)} readers were left open"
        assert self._pins() == self._pinned, "segments are still held"


@dataclass(frozen=True, slots=True)
class Parcel:
    """An instance as the sink has to see it."""

    ref: Ref
    seen: Seen


class Lane:
    """One destination: a line with faults, and behind it an acceptor that keeps count.

    Both listen for as long as the block that it is entered for.
    """

    def __init__(
        self,
        shop: Shop,
        name: str,
        scripts: Sequence[Script],
        *,
        astray: Sequence[dict[str, object]] = (),
        window: int = 1,
        linger: float = 0.0,
        retry: Retry = RETRY,
        patience: float = 1.0,
    ) -> None:
        self.name = name
        self.witness = Witness()
        self.parcels: list[Parcel] = []
        self.calls: list[float] = []
        self.refusals: list[AssociationError] = []
        self._shop = shop
        self._scripts = scripts
        self._astray = list(astray)
        self._window = window
        self._linger = linger
        self._retry = retry
        self._patience = patience

    async def __aenter__(self) -> Self:
        await self.witness.open()
        self.proxy = FaultProxy(self.witness.port, self._scripts)
        await self.proxy.open()
        self._target = Target(
            self.name,
            "SINK",
            "127.0.0.1",
            self.proxy.port,
            "ROUTER",
            asynchronous_operations=self._window,
            connect_timeout=self._patience,
            negotiation_timeout=self._patience,
            dimse_timeout=self._patience,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.proxy.close()
        await self.witness.shut()

    @property
    def config(self) -> DestinationConfig:
        """For the forwarder."""
        return DestinationConfig(
            name=self.name,
            connect=self._connect,
            identity=self._target,
            associations=1,
            asynchronous_operations=self._window,
            linger=self._linger,
            retry=self._retry,
        )

    async def _connect(self, proposals: Sequence[Proposal]) -> Association:
        self.calls.append(asyncio.get_running_loop().time())
        changes = self._astray.pop(0) if self._astray else {}
        try:
            return await connect(replace(self._target, **changes), proposals)  # type: ignore[arg-type]
        except AssociationError as error:
            self.refusals.append(error)
            raise

    async def keep(self, number: int, size: int, sop_class: str = CT) -> Parcel:
        """One more instance for it, in the spool."""
        data = Random(f"{self.name} {number}").randbytes(size)
        uid = f"1.2.3.{sum(self.name.encode())}.{number}"
        meta = InstanceMeta(
            received_at=time(),
            association="in-1",
            calling_ae="CT1",
            called_ae="ROUTER",
            source="10.0.0.1",
            remote="ct-room-1",
            sop_class_uid=sop_class,
            sop_instance_uid=uid,
            transfer_syntax_uid=EXPLICIT,
            study_instance_uid="1.5.1",
            disposition="route",
            routes=(RouteMeta(self.name, "all", 0),),
        )
        parcel = Parcel(await self._shop.keep(data, meta), Seen.of(uid, data))
        self.parcels.append(parcel)
        return parcel

    def copies(self, parcel: Parcel) -> int:
        """How often it arrived, whole and with the right bytes."""
        return self.witness.seen[parcel.seen]

    def history(self, parcel: Parcel) -> list[Outcome]:
        """What was recorded of each attempt."""
        return self._shop.books.history[parcel.ref.id, self.name]

    @property
    def strange(self) -> bool:
        """Whether anything came that was not sent."""
        return not set(self.witness.seen) <= {parcel.seen for parcel in self.parcels}


async def carry(shop: Shop, lanes: Sequence[Lane]) -> None:
    """Tells of what was kept, waits until nothing waits for any lane, and finishes."""
    shop.feed()
    for lane in lanes:
        shop.forwarder.notify(lane.name, len(lane.parcels))
    await shop.until_settled([lane.name for lane in lanes])
    await shop.finish()


__all__ = ["RETRY", "Books", "Lane", "Parcel", "Shop", "carry"]
