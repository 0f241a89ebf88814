"""A spool without an event loop: its calls are run by the test, one after the other."""

import contextlib
import queue
import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from router.spool import recovery
from router.spool.errors import SpoolError, SpoolFull
from router.spool.index import Index
from router.spool.keeper import Keeper
from router.spool.rebuild import Report, rebuild
from router.spool.record import InstanceMeta, Position, Ref, RouteMeta
from router.spool.settings import SpoolSettings
from router.spool.spool import Spool
from router.spool.writer import Writer

T = TypeVar("T")
KIB = 1024
PATIENCE = 20.0  # seconds until a call that never comes fails a test


class Loop:
    """Stands for the event loop: `post` from any thread, run where the test waits."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(2)

    def post(self, call: Callable[[], object]) -> None:
        self.calls.put(call)

    def run_until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self.calls.get(timeout=PATIENCE)()

    def run_ready(self) -> None:
        while True:
            try:
                call = self.calls.get_nowait()
            except queue.Empty:
                return
            call()

    def in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        """The result of blocking work that itself waits for posted calls."""
        future = self._threads.submit(work, *arguments)
        future.add_done_callback(lambda _: self.post(lambda: None))
        self.run_until(future.done)
        return future.result()

    def close(self) -> None:
        self._threads.shutdown()


def settings(**changes: object) -> SpoolSettings:
    """Small segments, which the checks of the configuration would not let pass."""
    values: dict[str, object] = {
        "segment_size": 256 * KIB,
        "large_instance": 64 * KIB,
        "spare_segments": 1,
        "low_disk": 0,
        "receive_memory": 4 << 20,
        "keep_settled": 0.0,
    }
    return SpoolSettings().model_copy(update=values | changes)


def payload(number: int, size: int) -> bytes:
    """Bytes that no other instance has, of a pattern that does not repeat."""
    return random.Random(number).randbytes(size)


def meta(number: int, *destinations: str, disposition: str = "") -> InstanceMeta:
    return InstanceMeta(
        received_at=1_700_000_000.0 + number,
        association=f"a{number}",
        calling_ae="CT1",
        called_ae="ROUTER",
        source="10.0.0.7",
        remote="ct",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid=f"1.2.3.4.{number}",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        study_instance_uid="1.2.3",
        disposition=disposition or ("route" if destinations else "hold"),
        routes=tuple(RouteMeta(name, "a rule") for name in destinations),
    )


class Outcome:
    """What `commit` came to: one of `ref` and `error`."""

    def __init__(self) -> None:
        self.ref: Ref | None = None
        self.end: Position | None = None
        self.error: SpoolError | None = None
        self.told = 0

    def __call__(self, ref: Ref | None, end: Position | None, error: SpoolError | None) -> None:
        self.ref, self.end, self.error = ref, end, error
        self.told += 1

    @property
    def kept(self) -> Ref:
        assert self.ref is not None, self.error
        return self.ref


class Rig:
    """A spool, its index and its keeper in one directory, and what was acknowledged."""

    suppress_duplicates = False

    def __init__(
        self,
        directory: Path,
        loop: Loop,
        spool_settings: SpoolSettings,
        opening: Callable[[Path], Index] = Index.open,
    ) -> None:
        self.directory = directory
        self.loop = loop
        self.groups: list[int] = []
        self.drained: list[Writer] = []
        self.acked: dict[int, tuple[bytes, InstanceMeta]] = {}
        self.ends: list[tuple[Ref, InstanceMeta, Position]] = []
        self.spool = Spool.open(
            directory / "spool",
            spool_settings,
            loop.post,
            lambda count, _: self.groups.append(count),
        )
        self.index = opening(directory / "index.sqlite")
        self.keeper = Keeper(self.spool, self.index)
        self.report = Report()

    def _on_group(self, count: int, _: float) -> None:
        self.groups.append(count)

    def start(self) -> "Rig":
        suppress = self.suppress_duplicates
        self.report = rebuild(self.spool, self.index, suppress_duplicates=suppress)
        self.spool.start(self.report.last_id)
        return self

    def begin(self) -> Writer:
        writer: Writer

        def drained() -> None:
            self.drained.append(writer)

        writer = self.spool.begin(drained)
        return writer

    def submit(
        self, data: bytes, what: InstanceMeta, *, piece: int = 16 * KIB, readers: int = 0
    ) -> Outcome:
        """Append and commit; the outcome comes when the loop runs."""
        writer = self.begin()
        view = memoryview(data)
        for start in range(0, len(data), piece):
            writer.append(view[start : start + piece])
        outcome = Outcome()

        def done(ref: Ref | None, end: Position | None, error: SpoolError | None) -> None:
            outcome(ref, end, error)
            if ref is not None and end is not None:
                self.acked[ref.id] = (data, what)
                self.ends.append((ref, what, end))

        writer.commit(what.to_bytes(), done, readers)
        return outcome

    def commit(
        self, data: bytes, what: InstanceMeta, *, piece: int = 16 * KIB, readers: int = 0
    ) -> Outcome:
        outcome = self.submit(data, what, piece=piece, readers=readers)
        self.loop.run_until(lambda: outcome.told)
        return outcome

    def commit_many(self, count: int, size: int, *destinations: str) -> list[Ref]:
        outcomes = [self.submit(payload(n, size), meta(n, *destinations)) for n in range(count)]
        self.loop.run_until(lambda: all(outcome.told for outcome in outcomes))
        return [outcome.kept for outcome in outcomes]

    def feed(self) -> None:
        """What the feed does: tell the index, in the order of commits."""
        entries, self.ends = self.ends, []
        if entries:
            self.index.add(
                [(ref, what) for ref, what, _ in entries],
                entries[-1][2],
                suppress_duplicates=self.suppress_duplicates,
                same_bytes=self.spool.same_bytes,
            )

    def step(self, now: float = 2e9):
        upkeep = self.loop.in_thread(self.keeper.step, now)
        with contextlib.suppress(SpoolFull):  # a test of its own looks at that
            self.loop.in_thread(self.keeper.supply)
        return upkeep

    def relocate(self, ref: Ref) -> Ref:
        """The new place of one record.  Raises what was in the way."""
        (place,) = self.loop.in_thread(self.spool.relocate, [ref])
        if isinstance(place, SpoolError):
            raise place
        return place

    def read(self, ref: Ref, *, piece: int = 48 * KIB) -> bytes:
        return read(self.spool, ref, piece=piece)

    def row(self, instance_id: int):
        row = self.index.instance(instance_id)
        assert row is not None, f"instance {instance_id} is not in the index"
        return row

    def close(self) -> None:
        self.index.close()
        self.loop.in_thread(self.spool.close)
        self.loop.run_ready()


def segment_of(rig: Rig, ref: Ref) -> Path:
    return next(
        path
        for path in (rig.directory / "spool" / "segments").glob("*.seg")
        if recovery.generation_of(path) == ref.generation
    )


def settle(rig: Rig) -> None:
    """Until the executor and what it posted are done."""
    while True:
        threads = rig.spool.executor._max_workers
        ready = threading.Barrier(threads + 1)
        for _ in range(threads):
            rig.spool.executor.submit(ready.wait, PATIENCE)
        ready.wait(PATIENCE)
        if rig.loop.calls.empty():
            return
        rig.loop.run_ready()


def read(spool: Spool, ref: Ref, *, piece: int = 48 * KIB) -> bytes:
    """All bytes of an instance.  Raises SpoolDamaged."""
    reader = spool.open_reader(ref)
    try:
        data = bytearray(ref.length)
        at = 0
        while reader.remaining:
            count = min(piece, reader.remaining)
            reader.read([memoryview(data)[at : at + count]])
            at += count
        return bytes(data)
    finally:
        reader.close()


def check_all(rig: Rig, ids: Sequence[int] | None = None) -> None:
    """Every acknowledged instance is in the index once, with its bytes and its routes."""
    for number in rig.acked if ids is None else ids:
        data, what = rig.acked[number]
        row = rig.row(number)
        assert rig.read(row.ref) == data
        assert row.meta.sop_instance_uid == what.sop_instance_uid
        assert {r.destination for r in row.meta.routes} == {r.destination for r in what.routes}
