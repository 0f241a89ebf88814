"""A committer over a disk whose calls can fail, and what its owner is told."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from router.spool import system
from router.spool.blocks import BLOCK_SIZE, aligned
from router.spool.committer import Committer, Job
from router.spool.layout import FLAG_LARGE, crc32
from router.spool.recovery import Recovered, generation_of, scan
from router.spool.segments import SegmentTable
from tests.spool.spool_samples import KIB, PATIENCE, Loop, meta, payload

SIZE = 256 * KIB


class Disk:
    """Stands in for the calls that can fail; `fail_at` counts calls of one kind from 1."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.hold = threading.Event()
        self.hold.set()
        self.reached = threading.Event()
        self.failing: dict[tuple[str, int], OSError] = {}
        self.most_at_once = 1 << 30
        self.synced: list[int] = []
        monkeypatch.setattr(system.os, "fdatasync", self._wrap("sync", os.fdatasync))
        plain = self._wrap("write", self._short(os.pwritev))
        durable = self._wrap("commit", self._short(os.pwritev))
        monkeypatch.setattr(
            system.os, "pwritev", lambda *a: (durable if a[3:] == (os.RWF_DSYNC,) else plain)(*a)
        )

    def _wrap(self, kind: str, real: Callable[..., int]) -> Callable[..., int]:
        def call(*arguments: object) -> int:
            self.calls.append(kind)
            error = self.failing.pop((kind, self.calls.count(kind)), None)
            if error is not None:
                raise error
            if kind == "commit":
                self.reached.set()
                assert self.hold.wait(PATIENCE)
            return real(*arguments)

        return call

    def _short(self, real: Callable[..., int]) -> Callable[..., int]:
        def write(fd: int, buffers: list[memoryview], offset: int, *flags: int) -> int:
            if self.most_at_once >= sum(map(len, buffers)):
                return real(fd, buffers, offset, *flags)
            return real(fd, [memoryview(buffers[0])[: self.most_at_once]], offset, *flags)

        return write

    def fail(self, kind: str, ahead: int, code: int) -> None:
        """The call of that kind after `ahead` more."""
        error = OSError(code, os.strerror(code))
        self.failing[kind, self.calls.count(kind) + ahead + 1] = error


class Bench:
    """A committer, its segments, and what its owner was told."""

    def __init__(self, directory: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop = loop
        self.segments = SegmentTable(directory, SIZE, 0)
        self.segments.load(generation_of)
        for _ in range(3):
            self.segments.refill(3)
        self.disk = Disk(monkeypatch)
        self.groups: list[int] = []
        self.told: list[Job] = []
        self.threads: set[str] = set()
        self.committer = Committer(self.segments, loop.post, self._on_group)
        self.ids = iter(range(1, 10_000))

    def _on_group(self, count: int, seconds: float) -> None:
        assert seconds >= 0
        self.groups.append(count)

    def _done(self, job: Job) -> None:
        self.threads.add(threading.current_thread().name)
        self.told.append(job)

    def job(self, size: int = 1000, *, flags: int = 0, what: bytes | None = None) -> Job:
        number = next(self.ids)
        data = payload(number, size)
        description = meta(number).to_bytes() if what is None else what
        buffers = [] if flags & FLAG_LARGE else [memoryview(data)]
        return Job(number, description, buffers, size, self._done, flags, crc32(data))

    def aligned_job(self, size: int) -> Job:
        """As a writer makes them: in blocks that reach beyond the end of the data set."""
        number = next(self.ids)
        data = payload(number, size)
        blocks = []
        for start in range(0, size, BLOCK_SIZE):
            piece = data[start : start + BLOCK_SIZE]
            blocks.append(aligned(BLOCK_SIZE))
            blocks[-1][: len(piece)] = piece
        job = Job(number, meta(number).to_bytes(), blocks, size, self._done)
        job.page_aligned = True
        return job

    def submit(self, *jobs: Job) -> None:
        for job in jobs:
            self.committer.submit(job)

    def wait(self, count: int) -> None:
        self.loop.run_until(lambda: len(self.told) >= count)

    def commit(self, *jobs: Job) -> None:
        self.submit(*jobs)
        self.wait(len(self.told) + len(jobs))

    def found(self) -> dict[int, Recovered]:
        """What recovery finds in all segments."""
        self.segments.seal()
        result = {}
        for segment in self.segments.sealed():
            for found in scan(segment, 0, Path("/nowhere")):
                if isinstance(found, Recovered):
                    result[found.ref.id] = found
        return result
