"""The spool: where every instance is safe until it is settled everywhere.

Owns the spool directory, its lock and its threads, and hands out writers and readers.  Must not
know DICOM, destinations or the index: whoever opens it feeds the index and the keeper.

Directory: ``lock``, ``format``, ``segments/NNNNNNNN.seg``, ``large/ID.dat``.
"""

import asyncio
import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from router.spool import recovery, system, unread
from router.spool.arrears import SKIPPED_GENERATIONS, SKIPPED_IDS, Arrears
from router.spool.blocks import BlockPool
from router.spool.committer import Committer, Job
from router.spool.directory import Lock, capacity_bytes, check_format, lock_directory
from router.spool.errors import SpoolDamaged, SpoolError
from router.spool.gather import Gatherer
from router.spool.index_types import Gap
from router.spool.layout import BLOCK, FLAG_LARGE, FLAG_MOVED, align
from router.spool.moves import Moves
from router.spool.numbers import Numbers
from router.spool.reader import Reader, same_data
from router.spool.recent import Recent, RecentReader
from router.spool.record import Position, Ref
from router.spool.recovery import Damage, Recovered
from router.spool.segments import SegmentTable, free_bytes
from router.spool.settings import SpoolSettings
from router.spool.threads import start_all
from router.spool.writer import Writer, large_number, large_path

_LARGE_THREADS = 4
# Metadata of the file system, the index and its journal need room after segments are made.
_RESERVE = 16 << 20
_COMPARED = 64 << 20


class Spool:
    """Open with `open`, then `recover`, then `start`; `close` at the end.

    `post` carries a call to the event loop's thread, as ``loop.call_soon_threadsafe``;
    `on_group(count, seconds)` is called there after every group commit.
    """

    def __init__(
        self,
        directory: Path,
        settings: SpoolSettings,
        lock: Lock,
        post: Callable[[Callable[[], None]], object],
        on_group: Callable[[int, float], None],
    ) -> None:
        self.directory = directory
        self.settings = settings
        self.large_directory = directory / "large"
        self.large_names = system.NewNames(self.large_directory)
        self.large_instance = settings.large_instance
        self.blocks = BlockPool(settings.receive_memory)
        self.recent = Recent(self.blocks)
        self.executor = ThreadPoolExecutor(_LARGE_THREADS, "spool-large")
        self.segments = SegmentTable(directory / "segments", settings.segment_size, _RESERVE)
        self.notes: list[str] = []
        self._lock = lock
        self._post = post
        self._numbers = Numbers(directory)
        self._committer = Committer(self.segments, post, on_group, self._numbers.reserve)
        self.gatherer = Gatherer(self._committer.submit_all)
        self._started = False
        self._without_index = False
        self._ids = itertools.count(1)
        self._writers = 0
        self._large_files = 0
        self._large_bytes = 0
        self._large_lock = threading.Lock()
        self._left: list[int] = []
        self._large_trouble = ""
        self._quiet = asyncio.Event()
        self.log_damaged = False
        """Records are lost or out of reach: a stretch of a segment, or a whole file."""
        self.moves = Moves()
        self._refusal = ""
        self._arrears = Arrears(directory, self.large_directory)

    @classmethod
    def open(
        cls,
        directory: Path,
        settings: SpoolSettings,
        post: Callable[[Callable[[], None]], object],
        on_group: Callable[[int, float], None],
    ) -> "Spool":
        """Take the directory, made if missing.  Blocking.

        Raises SpoolLocked when another process has it, SpoolError when it is of a newer format
        or cannot be read.
        """
        lock = lock_directory(directory)
        try:
            check_format(directory)
            spool = cls(directory, settings, lock, post, on_group)
            with system.translated(f"opening the spool in {directory}"):
                spool.large_directory.mkdir(exist_ok=True)
            spool.notes = spool.segments.load(
                recovery.generation_of,
                lambda segment: recovery.count_sound(segment, spool.large_directory),
                {name: noted.begun for name, noted in unread.load(directory).segments.items()},
            )
            spool.log_damaged = spool.segments.unreadable > 0
            spool._numbers.load()
            spool.segments.reserve_generations(spool._numbers.generation)
            if spool._numbers.trouble:
                spool.notes.append(spool._numbers.trouble)
            # Of one that was killed as it made a file, and had not synced its name.
            with system.translated(f"opening the spool in {directory}"):
                for made in (spool.segments.directory, spool.large_directory, directory):
                    system.sync_directory(made)
            spool.notes += spool.segments.make_room()
        except BaseException:
            lock.close()
            raise
        return spool

    def recover(self, after: Position | None) -> Iterator[Recovered | Damage]:
        """Records past `after`, the last position that the index knows, in order, and those that
        earlier starts could not read.  Blocking.

        A segment that cannot be opened is reported as damage, and left alone while this runs.
        """
        # One that is being made anew is at the beginning until it has all.
        self._without_index = after is None or not after.generation
        yield from self._arrears.recover(self.segments, after)
        self.log_damaged |= self._arrears.damaged

    def known(self, after: Position | None, gap: Gap | None) -> Position | None:
        """Where to `recover` from with an index at ``after``, with that gap: earlier where the
        notes of what could not be read are no longer those that the index goes with."""
        if after is not None:
            self.segments.reserve_generations(after.generation)
        return self._arrears.known(after, gap)

    @property
    def gap(self) -> Gap | None:
        """What an index does not have that has all that `recover` gave."""
        return self._arrears.gap

    @property
    def made_up_for(self) -> bool:
        """Something was read that an earlier start could not, or could not be that it could."""
        return self._arrears.changed

    def forget_unread(self) -> None:
        """The index durably has what earlier starts could not read and `recover` gave."""
        self._arrears.save()

    def start(self, last_id: int) -> None:
        """Begin to accept; instances are numbered from `last_id` + 1.

        Makes the first spare segment if there is none (blocking); the keeper makes the others.
        Without space for it nothing is accepted, but what is kept can be forwarded.  Raises
        SpoolError when the threads for large instances cannot be started.
        """
        start_all(self.executor, _LARGE_THREADS, "large instances")
        last_id = self._last_given(last_id)
        for _, path in self.large_files():
            try:
                self._large_bytes += path.stat().st_size
            except OSError as error:
                self.notes.append(f"large/{path.name}: its size cannot be read: {error.strerror}")
        last_id = self._arrears.go_past(self.segments, last_id)
        self._ids = itertools.count(last_id + 1)
        self.doubted = last_id if self.gap else 0  # numbers that a start could not read may bear
        self._started = True
        if self.segments.spare_bytes == 0:
            try:
                self.segments.refill(1)
            except SpoolError as error:
                self._refusal = str(error)
        self._committer.start()

    def _last_given(self, last_id: int) -> int:
        """The largest number that any instance may have had."""
        last_id = max([last_id, self._numbers.number, *(n for n, _ in self.large_files())])
        if self._numbers.found:
            return last_id
        # Of a time without the file, or it is lost: what the index and the segments tell is all
        # there is, and without an index, or with a file that was there, it may be too little.
        had_lives = self.segments.next_generation > 1
        if self._numbers.trouble or (self._without_index and had_lives):
            self.segments.skip_generations(SKIPPED_GENERATIONS)
            return last_id + SKIPPED_IDS
        return last_id

    def reserve_numbers(self, last_id: int, count: int) -> int:
        """The number after which as many are free that no instance has had, durably theirs;
        `last_id` is the largest that is known.  Before `start`.  Raises SpoolError."""
        last_id = self._last_given(last_id)
        self._numbers.reserve(last_id + count, self.segments.next_generation - 1)
        self._numbers.found, self._numbers.trouble = True, ""
        return last_id

    def close(self) -> None:
        """Commit what was submitted, then let the directory go.  Blocking."""
        self.gatherer.flush()
        self._committer.stop()
        self.executor.shutdown()
        if self._started:
            self._numbers.end(next(self._ids) - 1, self.segments.next_generation - 1)
        self.segments.close()
        self._lock.close()

    # -- writing -------------------------------------------------------------------------------

    def begin(self, on_drain: Callable[[], None]) -> Writer:
        """A writer for one instance.  `on_drain` is called when it is no longer congested."""
        self._writers += 1
        return Writer(self, next(self._ids), on_drain)

    def submit(self, job: Job) -> None:
        """For writers: give a job to the committer."""
        self.gatherer.add(job)

    def post(self, call: Callable[[], None]) -> object:
        """For writers: run `call` on the event loop's thread."""
        return self._post(call)

    def writer_ended(self, writer: Writer) -> None:
        """For writers: one fewer is open."""
        self._writers -= 1
        self._look_quiet()

    def large_began(self) -> None:
        """For writers: one file of a large instance more is being written."""
        self._large_files += 1

    def large_ended(self) -> None:
        """For writers: it is whole or gone."""
        self._large_files -= 1
        self._look_quiet()

    def large_grew(self, count: int) -> None:
        """For writers: files of large instances take `count` bytes more.  From any thread."""
        with self._large_lock:
            self._large_bytes += count

    def large_wrote(self, error: SpoolError | None) -> None:
        """For writers: a piece of a large file was written, or could not be."""
        self._large_trouble = "" if error is None else str(error)

    def large_left(self, instance_id: int, counted: int) -> None:
        """For writers: a file of no use could not be removed.  From any thread."""
        with contextlib.suppress(OSError):  # then it is not accounted for exactly, or is gone
            self.large_grew(large_path(self.large_directory, instance_id).stat().st_size - counted)
        with self._large_lock:
            self._left.append(instance_id)

    def take_left(self) -> list[int]:
        """Instances that were never committed and whose files are still there, to be removed."""
        with self._large_lock:
            left, self._left = self._left, []
        return left

    def _look_quiet(self) -> None:
        if not self._writers and not self._large_files:
            self._quiet.set()

    async def quiet(self) -> None:
        """Until no instance is arriving, being committed, or being removed half-written."""
        if self._writers or self._large_files:
            self._quiet.clear()
            await self._quiet.wait()

    @property
    def refusal(self) -> str:
        """Why no instance may come in at present, "" when one may.

        What the keeper set; or the blocks of instances that are arriving and being committed take
        more than twice `receive_memory`, since the disk does not keep up.
        """
        if not self._refusal and self.blocks.exhausted:
            return (
                f"instances under way take {self.blocks.in_use >> 20} MiB, more than twice "
                f"receive_memory ({self.settings.receive_memory >> 20} MiB)"
            )
        return self._refusal

    @property
    def no_room(self) -> str:
        """Why even what is arriving may not grow on, "" when it may: what the keeper set."""
        return self._refusal

    @property
    def trouble(self) -> str:
        """Why the disk did not take the latest instance, "" when it did."""
        return self._committer.trouble or self._large_trouble

    def probe(self) -> None:
        """If the disk failed to take something, see whether it does now.  Blocking.

        Those who send may wait for that: without it nobody would find out.
        """
        if not self.trouble:
            return
        path = self.directory / "probe"
        try:
            with system.translated("trying the disk"):
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    system.write_all(fd, [bytes(BLOCK)], 0)
                    system.sync_data(fd)
                finally:
                    system.close(fd)
                path.unlink()
        except SpoolError:
            return
        if self.segments.spare_bytes:
            self._committer.trouble = self._large_trouble = ""

    def refuse(self, why: str) -> None:
        """Refuse new instances from now on; "" ends it."""
        self._refusal = why

    def apply(self, settings: SpoolSettings) -> None:
        """Go by other settings from now on; segment and instance sizes stay until a restart."""
        self.settings = settings

    # -- reading -------------------------------------------------------------------------------

    def open_reader(self, ref: Ref) -> Reader:
        """A reader of the data set of `ref`; does not touch the disk.

        Raises SpoolDamaged when the record's segment has begun another life, SpoolError when it
        may be in a file that could not be read at the start, or elsewhere as the index has it now.
        """
        if ref.large:
            return Reader(ref, self.segments, None, large_path(self.large_directory, ref.id))
        segment = self.segments.pin(ref.generation)
        if segment is None:
            ref = self.moves.latest(ref.id) or ref
            segment = self.segments.pin(ref.generation)
        if segment is None:
            what = f"instance {ref.id}: segment generation {ref.generation} is gone"
            if self.segments.unreadable:
                # Not its death: the file may be sound, and read at the next start.
                raise SpoolError(
                    f"{what}, or is in a file that is missing or could not be read at the start: "
                    "see the log of it, then restart"
                )
            if not self.moves.complete:
                raise SpoolError(f"{what}; perhaps it was copied, and the index knows where to")
            raise SpoolDamaged(what)
        return Reader(ref, self.segments, segment, segment.path)

    def open_recent(self, ref: Ref) -> Reader | RecentReader:
        """As `open_reader`, from memory when it was committed a moment ago.

        On the event loop's thread only.
        """
        return self.recent.open(ref) or self.open_reader(ref)

    def same_bytes(self, first: Ref, second: Ref) -> bool:
        """Whether two instances are known to have equal data sets.  Blocking.

        Unreadable ones are not, nor are those of more than 64 MiB: to read them takes longer than
        the queues should wait, and length and CRC are no proof.  Such a one is sent again.
        """
        if (first.length, first.crc) != (second.length, second.crc) or first.length > _COMPARED:
            return False
        one = two = None
        try:
            one, two = self.open_reader(first), self.open_reader(second)
            return same_data(one, two)
        except SpoolError:
            return False
        finally:
            for reader in (one, two):
                if reader is not None:
                    reader.close()

    # -- upkeep --------------------------------------------------------------------------------

    def relocate(self, refs: Sequence[Ref]) -> list[Ref | SpoolError]:
        """Copy records to the active segment, all with one wait.  Blocking, off the loop.

        All data sets that are not in files of their own are in memory meanwhile.  For each of
        `refs` the new place, or what was in the way: SpoolDamaged when it cannot be read whole,
        another SpoolError when the copy could not be written.  An old place stays readable until
        its segment is recycled.
        """
        results: list[Ref | SpoolError | None] = [None] * len(refs)
        jobs: dict[int, Job] = {}
        ended = threading.Semaphore(0)
        for n, ref in enumerate(refs):
            try:
                jobs[n] = self._copy_of(ref, ended)
            except SpoolDamaged as error:
                results[n] = error
        for job in jobs.values():
            self._committer.submit(job)
        for _ in jobs:
            ended.acquire()
        for n, job in jobs.items():
            results[n] = job.ref or job.error
        return [
            result or SpoolError(f"instance {ref.id} could not be moved")
            for ref, result in zip(refs, results, strict=True)
        ]

    def _copy_of(self, ref: Ref, ended: threading.Semaphore) -> Job:
        segment = self.segments.pin(ref.generation)
        if segment is None:
            raise SpoolDamaged(f"instance {ref.id}: segment generation {ref.generation} is gone")
        try:
            header, meta = recovery.read_header_and_meta(self.segments.open(segment), ref)
            if not recovery.is_of(header, ref):
                raise SpoolDamaged(f"instance {ref.id}: the index says otherwise than its record")
            data = bytearray() if ref.large else self._read_whole(ref)
        except SpoolError as error:
            raise SpoolDamaged(str(error)) from error
        finally:
            self.segments.unpin(segment)
        flags = FLAG_MOVED | (FLAG_LARGE if ref.large else 0)
        buffers = [memoryview(data)] if data else []
        job = Job(ref.id, meta, buffers, ref.length, lambda _: ended.release(), flags, ref.crc)
        job.origin = header.origin or ref.generation
        return job

    def record_bytes(self, refs: Sequence[Ref]) -> int:
        """Bytes that records take in their segments; of an unreadable one a block.  Blocking."""
        total = 0
        for ref in refs:
            if not ref.large:
                total += align(ref.data_offset - ref.offset + ref.length)
                continue
            total += BLOCK
            segment = self.segments.pin(ref.generation)
            if segment is not None:
                try:
                    fd = self.segments.open(segment)
                    total += recovery.read_header_and_meta(fd, ref)[0].size - BLOCK
                except SpoolError:
                    continue
                finally:
                    self.segments.unpin(segment)
        return total

    def _read_whole(self, ref: Ref) -> bytearray:
        reader = self.open_reader(ref)
        try:
            data = bytearray(ref.length)
            reader.read([memoryview(data)])
            return data
        finally:
            reader.close()

    def free_bytes(self) -> int:
        """Free space on the file system of the spool."""
        return free_bytes(self.directory)

    def capacity_bytes(self) -> int:
        """What the file system of the spool holds, whoever uses it."""
        return capacity_bytes(self.directory)

    def large_files(self) -> Iterator[tuple[int, Path]]:
        """Instance number and path of every file under ``large/``.  Raises SpoolError."""
        # Not by glob: it takes a directory that cannot be read for an empty one.
        with system.translated(f"reading {self.large_directory}"):
            paths = [path for path in self.large_directory.iterdir() if path.suffix == ".dat"]
        for path in paths:
            number = large_number(path)
            if number is not None:
                yield number, path
                continue
            note = f"large/{path.name} is not a file of this spool; left alone"
            if note not in self.notes:
                self.notes.append(note)

    def large_bytes(self) -> int:
        """Bytes under ``large/``: counted at the start, then kept up with what comes and goes."""
        return self._large_bytes

    def used_bytes(self) -> int:
        """What it takes of the disk, spare segments included."""
        return self.segments.total_bytes + self.large_bytes()

    def remove_large(self, instance_id: int) -> None:
        """Delete the file of a large instance, if it is there.  Blocking.  Raises SpoolError."""
        path = large_path(self.large_directory, instance_id)
        with system.translated(f"removing the file of instance {instance_id}"):
            try:
                size = path.stat().st_size
                path.unlink()
            except FileNotFoundError:
                return
        self.large_grew(-size)
