"""One instance on its way into the spool.

Owns the bytes of an instance until they are committed: in blocks of memory while it is small,
in a file of its own from the moment it grows beyond `large_instance` or memory is scarce.
Everything here runs on the event loop's thread; disk work goes to the executor.
"""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import NamedTuple, Protocol

from router.spool import system
from router.spool.batch import padded
from router.spool.blocks import BLOCK_SIZE, SMALL_BLOCK, BlockPool
from router.spool.committer import Job
from router.spool.errors import SpoolError
from router.spool.layout import FLAG_LARGE, META_LIMIT, crc32
from router.spool.recent import Recent
from router.spool.record import Position, Ref

Done = Callable[[Ref | None, Position | None, SpoolError | None], None]

_HAND_OVER = 1 << 20
_IN_FLIGHT = 4 << 20
_AT_ONCE = 1 << 20
_SCARCE_IN_FLIGHT = 256 << 10
_NOTHING = memoryview(bytearray())
_NOT_TAKEN = (RuntimeError, MemoryError)
"""What an executor raises that is closed, or that can start no thread."""


class WriterHost(Protocol):
    """What a writer needs of its spool."""

    blocks: BlockPool
    recent: Recent
    large_names: system.NewNames
    large_instance: int

    @property
    def executor(self) -> Executor:
        """Where disk work is done; RuntimeError once the spool is closed, or without a thread."""

    def submit(self, job: Job) -> None:
        """Give a job to the committer."""

    def post(self, call: Callable[[], None]) -> object:
        """Run `call` on the event loop's thread."""

    def writer_ended(self, writer: "Writer") -> None:
        """The writer is committed or abandoned."""

    def large_began(self) -> None:
        """A large file is going to be written."""

    def large_ended(self) -> None:
        """It is whole or gone, and no work on it is under way."""

    def large_grew(self, count: int) -> None:
        """The files under ``large/`` take `count` bytes more.  From any thread."""

    def large_wrote(self, error: SpoolError | None) -> None:
        """A piece of a large file was written, or could not be."""

    def large_left(self, instance_id: int, counted: int) -> None:
        """A file of no use, of which `counted` bytes were told, could not be removed.  From any
        thread."""


class Writer:
    """Takes the data set of one instance.

    `append` copies, so the piece may be a view of a buffer that is about to be reused.  When
    `congested` is True the caller stops reading from the peer until `on_drain` is called.
    """

    __slots__ = (
        "_blocks",
        "_current",
        "_fill",
        "_host",
        "_large",
        "_limit",
        "_on_drain",
        "_over",
        "congested",
        "id",
        "length",
    )

    def __init__(self, host: WriterHost, instance_id: int, on_drain: Callable[[], None]) -> None:
        self.id = instance_id
        self.length = 0
        self.congested = False
        self._host = host
        self._on_drain = on_drain
        self._limit = host.large_instance
        self._large: _LargeFile | None = None
        # No block before the first byte, and a small one while that is enough: many may wait.
        self._current = _NOTHING
        self._blocks: list[memoryview] = []
        self._fill = 0
        self._over = False

    def append(self, piece: memoryview) -> None:
        """Take the next bytes of the data set."""
        size = len(piece)
        self.length += size
        at = 0
        while True:
            room = len(self._current) - self._fill
            if size - at <= room:
                end = self._fill + size - at
                self._current[self._fill : end] = piece[at:] if at else piece
                self._fill = end
                return
            if len(self._current) < BLOCK_SIZE:
                self._grow(size - at)
                continue
            self._current[self._fill :] = piece[at : at + room]
            at += room
            self._next_block()

    def _grow(self, more: int) -> None:
        """The first block, or a larger one in place of a small first one."""
        fill, pool = self._fill, self._host.blocks
        block = pool.take_small() if fill + more <= SMALL_BLOCK else pool.take()
        if self._blocks:
            block[:fill] = self._current[:fill]
        small, self._blocks = self._blocks, [block]  # given back once, whatever fails then
        self._current = block
        pool.give_back(small)

    def _next_block(self) -> None:
        blocks = self._blocks
        full = len(blocks) * BLOCK_SIZE
        scarce = self._host.blocks.scarce
        if self._large is None and (full > self._limit or scarce):
            self._large = _LargeFile(self._host, self.id, self._drained)
        large = self._large
        if large is not None and (full >= _HAND_OVER or scarce):
            self._blocks = []  # they are its own now, whatever fails there
            large.write(blocks, full)
            self.congested = large.in_flight > (_SCARCE_IN_FLIGHT if scarce else _IN_FLIGHT)
        self._current = self._host.blocks.take()
        self._blocks.append(self._current)
        self._fill = 0

    def _drained(self) -> None:
        if self.congested:
            self.congested = False
            self._on_drain()

    def commit(self, meta: bytes, done: Done, readers: int = 0) -> None:
        """Make the instance durable under the description `meta`, then call `done`.

        So many `readers` are going to read it soon: a small one is kept in memory for them.
        `done(ref, end, None)` after the sync; `done(None, None, error)` when nothing was kept.
        """
        blocks, self._blocks = self._blocks, []
        self._over = True
        host = self._host

        def committed(job: Job) -> None:
            host.recent.keep(self.id, blocks, readers if job.error is None else 0)
            host.writer_ended(self)
            done(job.ref, job.end, job.error)

        if len(padded(meta)) > META_LIMIT:
            error = SpoolError(f"the description of instance {self.id} has {len(meta)} bytes")
            host.blocks.give_back(blocks)
            self._remove_large()
            host.writer_ended(self)
            done(None, None, error)
            return
        large = self._large
        if large is None:
            job = Job(self.id, meta, blocks, self.length, committed)
            job.page_aligned = True
            host.submit(job)
            return

        def synced(crc: int, error: SpoolError | None) -> None:
            if error is None:
                host.submit(Job(self.id, meta, (), self.length, committed_large, FLAG_LARGE, crc))
            else:
                large.remove()
                host.writer_ended(self)
                done(None, None, error)

        def committed_large(job: Job) -> None:
            if job.error is not None:
                large.remove()
            else:
                host.large_ended()
            host.writer_ended(self)
            done(job.ref, job.end, job.error)

        if self._fill:
            large.write(blocks, (len(blocks) - 1) * BLOCK_SIZE + self._fill)
        else:
            host.blocks.give_back(blocks)
        large.finish(synced)

    def abandon(self) -> None:
        """Forget the instance: its peer went away.  After `commit` it does nothing."""
        if self._over:
            return
        self._over = True
        blocks, self._blocks = self._blocks, []
        self._host.blocks.give_back(blocks)
        self._remove_large()
        self._host.writer_ended(self)

    def _remove_large(self) -> None:
        if self._large is not None:
            self._large.remove()


class _LargeFile:
    """The file of one large instance, written ahead of its commit.

    One piece of work is in the executor at a time, so the order of writes is that of `write`;
    what comes meanwhile goes together into the next.
    """

    __slots__ = (
        "_begun",
        "_blocks",
        "_busy",
        "_counted",
        "_crc",
        "_error",
        "_fd",
        "_finished",
        "_gone",
        "_host",
        "_id",
        "_made",
        "_offset",
        "_on_drain",
        "_path",
        "_pieces",
        "_removed",
        "in_flight",
    )

    def __init__(self, host: WriterHost, instance_id: int, on_drain: Callable[[], None]) -> None:
        self._host = host
        self._counted = 0
        self._id = instance_id
        self._path = large_path(host.large_names.directory, instance_id)
        self._begun = host.large_names.begin()
        self._on_drain = on_drain
        self._offset = 0
        self._crc = 0
        self._fd = -1
        self._made = False
        self._error: SpoolError | None = None
        self._finished: Callable[[int, SpoolError | None], None] | None = None
        self._removed = False
        self._gone = False
        self._busy = False
        self._blocks: list[memoryview] = []
        self._pieces: list[memoryview] = []
        self.in_flight = 0
        host.large_began()

    def write(self, blocks: list[memoryview], length: int) -> None:
        """Write the first `length` bytes of `blocks`, then give the blocks back.

        All but the last block are full.
        """
        last = length - (len(blocks) - 1) * BLOCK_SIZE
        self._blocks += blocks
        self._pieces += [*blocks[:-1], blocks[-1][:last]]
        self.in_flight += length
        self._pump()

    def finish(self, synced: Callable[[int, SpoolError | None], None]) -> None:
        """Sync what was written and its name, then call `synced(crc, error)`."""
        self._finished = synced
        self._pump()

    def remove(self) -> None:
        """Delete the file, once what is being written has ended."""
        self._removed = True
        self._pump()

    def _pump(self) -> None:
        if self._busy:
            return
        if self._removed or self._error is not None:
            self._discard()
        elif self._pieces:
            self._write_pending()
        elif self._finished is not None:
            self._start(self._sync, self._tell)

    def _discard(self) -> None:
        blocks, self._blocks, self._pieces = self._blocks, [], []
        self._host.blocks.give_back(blocks)
        self.in_flight = 0
        if not self._gone:  # at once: after an error, the peer may never come to an end
            self._gone = True
            self._unlink_later()
        self._tell()
        self._on_drain()

    def _unlink_later(self) -> None:
        turn = threading.Lock()

        def run() -> None:
            if not turn.acquire(blocking=False):
                return
            try:
                self._unlink()
            except OSError:
                self._host.large_left(self._id, self._counted)
            finally:
                self._host.post(self._host.large_ended)

        try:
            self._host.executor.submit(run)
        except _NOT_TAKEN:
            if turn.acquire(blocking=False):  # else it is done all the same
                self._close()
                if self._made:  # as in `_unlink`; the next step of the keeper removes it
                    self._host.large_left(self._id, self._counted)
                self._host.large_ended()

    def _tell(self) -> None:
        finished, self._finished = self._finished, None
        if finished is not None:
            finished(self._crc, self._error)

    def _write_pending(self) -> None:
        blocks, self._blocks = self._blocks, []
        pieces, self._pieces = self._pieces, []
        waiting = deque(_parted(blocks, pieces))
        parts = tuple(waiting)

        def free() -> None:
            part = waiting.popleft()
            self._host.blocks.give_back(part.blocks)
            self.in_flight -= part.size
            if self.in_flight <= _IN_FLIGHT // 2:
                self._on_drain()

        def work() -> None:
            if self._fd < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                self._fd = os.open(self._path, flags, 0o600)
                self._made = True
            for part in parts:
                crc = self._crc
                for piece in part.pieces:  # here, since the loop has more to do than this thread
                    crc = crc32(piece, crc)
                self._crc = crc
                system.write_past_cache(self._fd, part.pieces, self._offset)
                self._offset += part.size
                self._counted += part.size
                self._host.large_grew(part.size)
                if part is not parts[-1]:
                    # Its memory goes back while the next part is written: the peer is read from
                    # meanwhile.
                    self._host.post(free)

        def then() -> None:
            while waiting:
                free()

        self._start(work, then)

    def _sync(self) -> None:
        system.sync_data(self._fd)
        self._host.large_names.sync(self._begun)
        self._close()

    def _start(self, work: Callable[[], None], then: Callable[[], None]) -> None:
        """Do `work` in the executor, then `then` and whatever waits, on the loop's thread."""
        self._busy = True
        turn = threading.Lock()

        def run() -> None:
            if not turn.acquire(blocking=False):
                return
            error: SpoolError | None = None
            try:
                with system.translated(f"writing {self._path.name}"):
                    work()
            except SpoolError as caught:
                error = caught
            except Exception as caught:  # noqa: BLE001 - else its owner would wait for ever
                error = SpoolError(f"writing {self._path.name}: {caught!r}")
            self._host.post(lambda: self._ended(error, then))

        try:
            self._host.executor.submit(run)
        except _NOT_TAKEN as caught:
            # One that has no thread for it has it in its line, and may do it all the same; the
            # blocks are to be given back once.
            if turn.acquire(blocking=False):
                why = "the spool is closed" if "shutdown" in str(caught) else caught
                error = SpoolError(f"writing {self._path.name}: {why}")
                self._host.post(lambda: self._ended(error, then))

    def _ended(self, error: SpoolError | None, then: Callable[[], None]) -> None:
        self._busy = False
        if error is not None:
            self._error = error
        self._host.large_wrote(error)
        then()
        self._pump()

    def _close(self) -> None:
        descriptor, self._fd = self._fd, -1
        system.close(descriptor)

    def _unlink(self) -> None:
        self._close()
        if self._made:  # else it is somebody else's that was in the way
            self._path.unlink(missing_ok=True)
        self._host.large_grew(-self._counted)


class _Part(NamedTuple):
    """What one call writes: the blocks, what is written of them, and how many bytes that is."""

    blocks: list[memoryview]
    pieces: list[memoryview]
    size: int


def _parted(blocks: list[memoryview], pieces: list[memoryview]) -> Iterator[_Part]:
    many = _AT_ONCE // BLOCK_SIZE
    for at in range(0, len(blocks), many):
        part = pieces[at : at + many]
        yield _Part(blocks[at : at + many], part, sum(map(len, part)))


def link_large(directory: Path, instance_id: int, another: int) -> None:
    """Make the file of a large instance that of another too, if it is there.  Raises SpoolError."""
    with system.translated(f"giving the file of instance {instance_id} to {another}"):
        with contextlib.suppress(FileNotFoundError):
            large_path(directory, another).hardlink_to(large_path(directory, instance_id))
        system.sync_directory(directory)


def large_path(directory: Path, instance_id: int) -> Path:
    """The file of a large instance, named by its number: never by anything a peer sent."""
    return directory / f"{instance_id:016x}.dat"


def large_number(path: Path) -> int | None:
    """The reverse of `large_path`; None for a name that it gives to no instance."""
    try:
        number = int(path.stem, 16)
    except ValueError:
        return None
    known = 0 < number < 1 << 63 and path.name == large_path(path.parent, number).name
    return number if known else None
