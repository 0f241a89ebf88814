"""The mixed load of a soak: what modalities do in a day, good and bad, at a stated pace.

Owns the senders and their pace.  Every instance is in the `Book` before it leaves; an association
that breaks although nobody wanted it to is a fault.
"""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass

from pydicom.uid import (
    BasicTextSRStorage,
    CTImageStorage,
    KeyObjectSelectionDocumentStorage,
    MRImageStorage,
    XRayAngiographicImageStorage,
)

from perf import data, wire
from perf.book import Book, Goods, pdus
from perf.load import Association

Job = Callable[[], Coroutine[None, None, None]]

FINE, SLOW, FLAPPING = "fine", "slow", "flapping"
DESTINATIONS = (FINE, SLOW, FLAPPING)
_MOST = (FINE, FLAPPING)
_TROUBLE = (wire.WireError, OSError, TimeoutError, asyncio.IncompleteReadError)

# The small ones are as small as structured reports; the slow destination gets the first alone.
SR = data.Kind("soak-sr", 20, BasicTextSRStorage, "SR", 16, 16, 16)
KO = data.Kind("soak-ko", 24, KeyObjectSelectionDocumentStorage, "KO", 16, 16, 16)
MR = data.Kind("soak-mr", 21, MRImageStorage, "MR", 256, 256, 16)
CT = data.Kind("soak-ct", 22, CTImageStorage, "CT", 512, 512, 16)
XA = data.Kind("soak-xa", 23, XRayAngiographicImageStorage, "XA", 1024, 1024, 8, frames=8)


@dataclass(frozen=True, slots=True)
class Pace:
    """A sender: ``rate`` associations a second on average, each of ``instances``."""

    kind: data.Kind
    destinations: Sequence[str]
    rate: float
    instances: int

    @property
    def instances_per_second(self) -> float:
        return self.rate * self.instances

    @property
    def bytes_per_second(self) -> float:
        return self.instances_per_second * self.kind.pixel_bytes


PACES = (
    Pace(SR, DESTINATIONS, rate=10.0, instances=2),
    Pace(KO, _MOST, rate=30.0, instances=2),
    Pace(MR, _MOST, rate=16.0, instances=1),
    Pace(MR, _MOST, rate=0.4, instances=120),
    Pace(CT, _MOST, rate=0.2, instances=80),
    Pace(XA, _MOST, rate=0.6, instances=1),
)
# Associations a second that end in the middle of a data set, and those that lie idle.
_ABORTS = 1.0
_IDLE = 8
_SPREAD = 0.02
_AT_ONCE = 64


class Traffic:
    """Runs until `stop` is set; `scale` is for all rates alike."""

    def __init__(self, port: int, book: Book, *, scale: float, seed: int, idle: float) -> None:
        self._port = port
        self._book = book
        self._scale = scale
        self._idle = idle
        self._random = random.Random(seed)
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._numbers = itertools.count(1)
        self.stop = asyncio.Event()
        self.done: Counter[str] = Counter()

    async def run(self) -> None:
        """All of it, and then the end of what was under way."""
        async with asyncio.TaskGroup() as group:
            for number, pace in enumerate(PACES):
                group.create_task(self._at(pace.rate, self._store_job(number, pace), group))
            group.create_task(self._at(_ABORTS, self._break_off, group))
            for _ in range(_IDLE):
                group.create_task(self._lie_idle())

    async def _at(self, rate: float, job: Job, group: asyncio.TaskGroup) -> None:
        """Begin a job at moments that are as independent as patients are."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not self.stop.is_set():
            due += self._random.expovariate(rate * self._scale)
            await self._pause(due - loop.time())
            if self.stop.is_set():
                return
            await self._room.acquire()
            group.create_task(self._one(job))

    async def _one(self, job: Job) -> None:
        try:
            await job()
        except _TROUBLE as error:
            self._book.fault(f"an association broke: {type(error).__name__}: {error}")
        finally:
            self._room.release()

    async def _pause(self, seconds: float) -> None:
        if seconds <= 0:
            return
        try:
            async with asyncio.timeout(seconds):
                await self.stop.wait()
        except TimeoutError:
            return

    def _store_job(self, sender: int, pace: Pace) -> Job:
        goods = Goods(pace.kind, pace.destinations)

        async def store() -> None:
            association = Association(self._port, "ROUTER", pace.kind.sop_class_uid)
            await association.open()
            self.done["associations"] += 1
            for _ in range(pace.instances):
                uid, body = goods.make(sender, next(self._numbers))
                self._book.send(uid, body, goods.destinations)
                status = await association.store(uid, pdus(body, association.maximum_length))
                self._book.answer(uid, status)
                if pace.instances > 1:
                    # A modality makes its images one after the other.
                    await asyncio.sleep(self._random.uniform(0.0, 2 * _SPREAD))
                if self.stop.is_set():
                    break
            await association.release()

        return store

    async def _break_off(self) -> None:
        """Somewhere in a data set the association is aborted, or the cable pulled."""
        goods = _BROKEN
        association = Association(self._port, "ROUTER", goods.kind.sop_class_uid)
        await association.open()
        uid, body = goods.make(99, next(self._numbers))
        pieces = list(wire.data_pdus(1, memoryview(body), association.maximum_length))
        await association.begin(uid, pieces[: self._random.randrange(len(pieces))])
        association.abort(politely=self._random.random() < 0.5)
        self.done["broken off"] += 1

    async def _lie_idle(self) -> None:
        while not self.stop.is_set():
            association = Association(self._port, "ROUTER", MR.sop_class_uid)
            try:
                await association.open()
                self.done["idle"] += 1
                await self._pause(self._random.uniform(0.2, 1.0) * self._idle)
                await association.release()
            except _TROUBLE as error:
                self._book.fault(f"an idle association broke: {type(error).__name__}: {error}")
                return


_BROKEN = Goods(CT, ())
