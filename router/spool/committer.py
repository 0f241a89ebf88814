"""Group commit: many instances, one sync.

Owns the one thread that appends records to the active segment.  A job is *done* only after a
durable write (RWF_DSYNC, as a write and an fdatasync) that covers it.  While one group is being
written the next gathers; a lone job waits for nobody.  After a failed write nothing of the group
is done and the segment is left: what the kernel still holds of it is in an unknown state
(PostgreSQL learnt this in 2018).
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ParamSpec

from router.spool.batch import Batch, in_place, padded
from router.spool.errors import SpoolError
from router.spool.layout import (
    BLOCK,
    FLAG_LARGE,
    RecordHeader,
    crc32,
    record_size,
)
from router.spool.record import Position, Ref
from router.spool.segment import Segment
from router.spool.segments import SegmentTable

P = ParamSpec("P")

GROUP_LIMIT = 256
"""A group that has as many waits for no more of them."""
_BREATH = 0.01
"""Seconds until something is tried again for which there was no memory."""


@dataclass(slots=True)
class Job:
    """One record to be written: `buffers` hold the data set, unless it is in its own file.

    Buffers that are `page_aligned` may be longer than the data set: to the block boundary behind
    it they are ours until the job is done.  `crc` is given for a data set in its own file and
    computed for the others.  After the group, either `ref` and `end` (the position behind the
    record) or `error` is set, then `done(job)` runs on the thread that `post` leads to.
    `origin` is for copies, see `RecordHeader`.
    """

    id: int
    meta: bytes
    buffers: Sequence[memoryview]
    length: int
    done: Callable[["Job"], None]
    flags: int = 0
    crc: int = 0
    origin: int = 0
    page_aligned: bool = False
    ref: Ref | None = None
    end: Position | None = None
    error: SpoolError | None = None
    header: RecordHeader | None = field(default=None, repr=False)


class Committer:
    """Runs from `start` to `stop`.

    `post` carries a call to the owner's thread, as ``loop.call_soon_threadsafe`` does.
    `on_group(count, seconds)` is called there after every group.  `reserve(number, generation)`
    is called on the committer's before anything is written of an instance: see `Numbers.reserve`.
    """

    def __init__(
        self,
        segments: SegmentTable,
        post: Callable[[Callable[[], None]], object],
        on_group: Callable[[int, float], None],
        reserve: Callable[[int, int], None] = lambda number, generation: None,
    ) -> None:
        self._segments = segments
        self._post = post
        self._on_group = on_group
        self._reserve = reserve
        self._queue: queue.SimpleQueue[Sequence[Job] | None] = queue.SimpleQueue()
        self._batch = Batch()
        self.trouble = ""
        """Why the latest group could not be written, "" when it could."""
        self._thread = threading.Thread(target=self._run, name="spool-commit", daemon=True)

    def start(self) -> None:
        """Begin to take jobs."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what was submitted, then end.  Blocking."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def submit(self, job: Job) -> None:
        """Write `job` with the next group.  From any thread."""
        self._queue.put((job,))

    def submit_all(self, jobs: Sequence[Job]) -> None:
        """Write `jobs` with the next group; of more than `GROUP_LIMIT` some with the one after.

        From any thread; who submits changes them no more.
        """
        for start in range(0, len(jobs), GROUP_LIMIT):
            self._queue.put(jobs[start : start + GROUP_LIMIT])

    def _run(self) -> None:
        running = True
        while running:
            try:
                running = self._turn()
            except MemoryError:  # with nothing in hand
                time.sleep(_BREATH)

    def _turn(self) -> bool:
        """One group; False after the last one."""
        group: list[Job] = []
        first = self._queue.get()
        if first is None:
            return False
        running = True
        _insist(group.extend, first)
        while len(group) < GROUP_LIMIT:
            try:
                more = self._queue.get_nowait()
            except queue.Empty:
                break
            if more is None:
                running = False
                break
            _insist(group.extend, more)
        started = time.perf_counter()
        self._write_group(group)
        _insist(self._tell, group, started)
        return running

    def _tell(self, group: list[Job], started: float) -> None:
        self._post(_Finished(group, time.perf_counter() - started, self._on_group))

    def _write_group(self, group: list[Job]) -> None:
        touched: dict[int, Segment] = {}
        try:
            jobs = [job for job in group if self._fits(job)]
            self._write_and_sync(jobs, touched)
            for job in jobs:
                self._note_place(job, touched)
            self.trouble = ""
        except Exception as error:  # noqa: BLE001 - the thread must outlive any fault
            _insist(self._leave, group, error)
        finally:
            for segment in touched.values():
                try:
                    self._segments.unpin(segment)
                except MemoryError:
                    continue  # it counts as in use until the next start

    def _leave(self, group: list[Job], error: Exception) -> None:
        """Nothing of the group is done, and nothing more is written to the segment."""
        self._batch.clear()
        self._segments.seal()
        known = error if isinstance(error, SpoolError) else _internal(error)
        for job in group:
            job.ref = None
            job.error = job.error or known
        self.trouble = str(known)

    def _fits(self, job: Job) -> bool:
        """One that fits no segment must not take the others of its group down."""
        large = bool(job.flags & FLAG_LARGE)
        if not large and in_place(job.length, page_aligned=job.page_aligned):
            job.meta = padded(job.meta)
        size = record_size(len(job.meta), 0 if large else job.length)
        if BLOCK + size > self._segments.size:
            job.error = SpoolError(f"a record of {size} bytes does not fit a segment")
        return job.error is None

    def _write_and_sync(self, jobs: list[Job], touched: dict[int, Segment]) -> None:
        for job in jobs:
            segment = self._append(job)
            if segment.generation not in touched:
                # Sealed by a later job of the group, it must keep its descriptor and its life.
                self._segments.pin(segment.generation)
                touched[segment.generation] = segment
        self._batch.flush()

    @staticmethod
    def _note_place(job: Job, touched: dict[int, Segment]) -> None:
        header = job.header
        assert header is not None
        job.ref, job.end = header.ref, header.end
        if not header.moved:
            touched[header.generation].acked = job.end.offset

    def _append(self, job: Job) -> Segment:
        large = bool(job.flags & FLAG_LARGE)
        size = record_size(len(job.meta), 0 if large else job.length)
        segment = self._segments.active
        if segment is None or segment.used + size > segment.size:
            self._batch.flush()
            self._reserve(job.id, self._segments.next_generation)
            segment = self._segments.activate()
        else:
            self._reserve(job.id, segment.generation)
        data: list[memoryview] = []
        crc = job.crc
        if not large:
            data = _exactly(job.buffers, job.length)
            crc = 0
            for piece in data:
                crc = crc32(piece, crc)
        job.header = header = RecordHeader(
            flags=job.flags,
            generation=segment.generation,
            offset=segment.used,
            id=job.id,
            length=job.length,
            crc=crc,
            meta_length=len(job.meta),
            meta_crc=crc32(job.meta),
            origin=job.origin,
        )
        if not large and in_place(job.length, page_aligned=job.page_aligned):
            self._batch.add(segment, header, job.meta, job.buffers)
        else:
            self._batch.add_copied(segment, header, job.meta, data)
        segment.used += size
        return segment


def _exactly(buffers: Sequence[memoryview], length: int) -> list[memoryview]:
    """The first `length` bytes of `buffers`."""
    pieces = []
    for buffer in buffers:
        size = len(buffer)
        pieces.append(buffer[:length] if length < size else buffer)
        length -= size
        if length <= 0:
            break
    return pieces


def _insist(work: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    """Do what others wait for, as soon as there is memory for it."""
    while True:
        try:
            return work(*args, **kwargs)
        except MemoryError:
            time.sleep(_BREATH)


def _internal(error: Exception) -> SpoolError:
    return SpoolError(f"committing failed: {type(error).__name__}: {error}")


class _Finished:
    """Tells the jobs of a group, on the owner's thread."""

    __slots__ = ("_group", "_on_group", "_seconds")

    def __init__(
        self, group: list[Job], seconds: float, on_group: Callable[[int, float], None]
    ) -> None:
        self._group = group
        self._seconds = seconds
        self._on_group = on_group

    def __call__(self) -> None:
        failures = []
        try:
            self._on_group(len(self._group), self._seconds)
        except Exception as error:  # noqa: BLE001 - nor must an observer
            failures.append(error)
        for job in self._group:
            try:
                job.done(job)
            except Exception as error:  # noqa: BLE001 - one job's owner must not silence the others
                failures.append(error)
        if failures:
            raise ExceptionGroup("owners of committed records failed", failures)
