"""Upkeep of the spool: retention, recycling, the low-disk mark, compaction.

Owns the order in which rows are deleted, made durable, and only then their bytes given up.
Runs on the index's thread, a bounded step at a time; must not know DICOM or destinations.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from router.spool.errors import IndexDamaged, SpoolDamaged, SpoolError
from router.spool.index_types import InstanceRow, Purged
from router.spool.layout import BLOCK, align
from router.spool.marks import Marks, Run
from router.spool.record import Position, Ref
from router.spool.segment import Segment
from router.spool.spool import Spool
from router.spool.supply import Supply
from router.spool.upkeep import Upkeep, Why

_PURGE_STEP = 5000
_ARCHIVE_STEP = 256
_ARCHIVE_BYTES = 256 << 20
_MOVE_STEP = 256
_MOVE_BYTES = 16 << 20
_SPARSE = 0.25
_FLOOR = 64 << 20
"""Bytes of a disk that are left to others when a segment is made above the limits."""
_TROUBLES = 10
_TRY_AGAIN = 600
"""Steps, so some minutes: what the disk could not read once it may read another time."""


class KeeperIndex(Protocol):
    """What the keeper needs of the index."""

    def indexed_position(self) -> Position | None:
        """The end of the last record that was added."""

    def purge(
        self,
        settled_before: float,
        limit: int,
        *,
        now: float | None = None,
        most: int | None = None,
        discarded_only: bool = False,
    ) -> Purged:
        """Delete instances that are settled since before `settled_before`, oldest first."""

    def aged(
        self,
        settled_before: float,
        limit: int,
        *,
        now: float | None = None,
        most: int | None = None,
        exclude: Collection[int] = (),
        after: tuple[float, int] | None = None,
    ) -> list[int]:
        """What `purge` would delete, but for discarded ones, after a time of settling and id."""

    def purge_these(self, ids: Collection[int]) -> Purged:
        """Delete those of `ids` that are settled."""

    def instance(self, instance_id: int) -> InstanceRow | None:
        """One instance with its deliveries."""

    def oldest_settled(self) -> float | None:
        """When the one was settled that was settled first of those that are left."""

    def generations_in_use(self) -> Mapping[int, tuple[int, int]]:
        """Count and bytes of the instances in each generation that has any."""

    def check_free(self, generation: int) -> None:
        """Raise IndexDamaged when something is in a generation that is in use by nothing."""

    def refs_in(self, generation: int, limit: int) -> Sequence[Ref]:
        """Up to `limit` instances of a generation."""

    def move(self, refs: Sequence[Ref]) -> None:
        """Note the new places of instances."""

    def known(self, ids: Sequence[int]) -> set[int]:
        """Those of `ids` that are in the index."""

    def look_through(self) -> None:
        """Raise IndexDamaged when it is not sound, if the start took that for granted."""

    def barrier(self) -> None:
        """Make everything committed so far durable."""

    def check_log(self) -> None:
        """Raise SpoolError when its log only grows."""


class Keeper:
    """`step` is called every second or so, and again at once while it says so."""

    def __init__(self, spool: Spool, index: KeeperIndex) -> None:
        self._spool = spool
        self._index = index
        self._steps = 0
        self._unmovable: dict[int, tuple[str, int]] = {}
        """Records that could not be copied: why, and the step from which they may be again."""
        self._doomed: list[int] = []
        """Large instances whose rows are deleted, though perhaps not durably yet."""
        self._removable: list[int] = []
        """Large instances whose rows are durably gone, and whose files are not."""
        self._copied: dict[int, int] = {}
        """Bytes that were copied out of generations that are not empty yet."""
        self._dense: dict[int, int] = {}
        """Generations that looked sparse and are not, and how many instances they had then."""
        self._marks = Marks()
        self._promised = 0
        """Bytes that recycling and copying will give back, as long as they get on."""
        self._supply = Supply(spool)

    def step(self, now: float) -> Upkeep:
        """One bounded piece of upkeep at `now`, seconds since the epoch.  Blocking.

        Raises SpoolError only from the index; trouble with files is reported in the result.
        """
        # With an archive these are the discarded ones: `archive.after` is not for them.
        why, before, most = self._due(now, self._spool.settings.keep_settled)
        purged = self._purge(why, before, most, now)
        # At once: should the index fail now, these are told of once only.
        self._doomed += [ref.id for ref in purged.large]
        in_use = self._index.generations_in_use()
        # Of a record that is acknowledged the index may not know yet.
        position = self._index.indexed_position()
        sealed = self._spool.segments.sealed()
        ended = [s for s in sealed if s.generation not in in_use and s.indexed(position)]
        self._removable += self._spool.take_left()
        self._steps += 1
        recycled = moved = 0
        more = False
        troubles: list[str] = []
        try:
            ended = self._free(ended, troubles)
            if ended or self._doomed:
                # Without this a power cut could bring rows back whose bytes are overwritten.
                self._index.barrier()
                self._removable += self._doomed
                self._doomed.clear()
            self._remove_files(troubles)
            recycled = self._recycle(ended, position, troubles)
            beyond = (
                recycled == len(ended) and len(sealed) > recycled + 1 and bool(self._pressure())
            )
            moved, more = self._compact(in_use, beyond=beyond)
            self._index.check_log()
        except SpoolError as error:
            troubles.append(str(error))
        if self._unmovable:
            known = self._index.known(list(self._unmovable))
            self._unmovable = {
                i: (why, until)
                for i, (why, until) in self._unmovable.items()
                if i in known and until > self._steps
            }
        self._spool.probe()
        troubles += [self._spool.trouble] if self._spool.trouble else []
        troubles += [why for why, _ in self._unmovable.values()]
        trouble = "; ".join(troubles[:_TROUBLES])
        refusal = self._pressure()
        self._promised = self._to_come(in_use, position) if recycled or moved else 0
        busy = purged.count or recycled or moved
        self._supply.gives |= self._marks.running
        run = self._run(idle=most is not None and not busy and not self._to_archive())
        return Upkeep(
            purged=purged.count,
            recycled=recycled,
            moved=moved,
            free=self._spool.free_bytes(),
            used=self._spool.used_bytes(),
            refusal=refusal,
            again=purged.count >= _PURGE_STEP or more or bool(self._marks.running and purged.count),
            trouble=trouble,
            bytes=purged.bytes,
            why=why,
            share=self._marks.share,
            run=run,
        )

    def to_archive(
        self,
        now: float,
        exclude: Collection[int] = (),
        after: tuple[float, int] | None = None,
    ) -> list[InstanceRow]:
        """Some whose time is over at ``now``, oldest first, for `archived` when they are in the
        archive; ``exclude`` and all up to ``after``, a time of settling and an id, are left out.
        On the index's thread.  Raises SpoolError."""
        settings = self._spool.settings
        kept = settings.archive.after if settings.archive is not None else None
        why, before, most = self._due(now, settings.keep_settled if kept is None else kept)
        ids = self._index.aged(
            before,
            _ARCHIVE_STEP,
            now=now if why == "age" else None,
            most=_ARCHIVE_BYTES if most is None else min(most, _ARCHIVE_BYTES),
            exclude=exclude,
            after=after,
        )
        return [row for n in ids if (row := self._index.instance(n)) is not None]

    def archived(self, ids: Collection[int]) -> Purged:
        """They are durably in the archive: purges those of them that are still settled.  On the
        index's thread.  Raises SpoolError."""
        purged = self._index.purge_these(ids)
        self._doomed += [ref.id for ref in purged.large]
        self._marks.purged(purged.count, purged.bytes)
        return purged

    def _to_archive(self) -> bool:
        """Whether anything is to go through the archive."""
        return self._spool.settings.archive is not None and bool(self._index.aged(math.inf, 1))

    def _due(self, now: float, kept: float) -> tuple[Why, float, int | None]:
        """Why instances may go now, those settled until when, and how many bytes of them.
        ``kept`` is for how long they stay where there is room."""
        if self._pressure():
            # Whatever the time: the clock may have been set back since the settling.
            return "room", math.inf, None
        if excess := self._marks.excess(*self._fill(), self._promised):
            # By halves: data sets take more room than their bytes, and come free by segments.
            return (
                "mark",
                math.inf,
                max(excess // 2, min(excess, self._spool.settings.segment_size)),
            )
        return "age", now - kept, None

    def _purge(self, why: Why, before: float, most: int | None, now: float) -> Purged:
        purged = self._index.purge(
            before,
            _PURGE_STEP,
            now=now if why == "age" else None,
            most=most,
            discarded_only=self._spool.settings.archive is not None,
        )
        self._marks.purged(purged.count, purged.bytes)
        return purged

    def _fill(self) -> tuple[tuple[float, float] | None, int, int]:
        """The marks, how many bytes are in use, and of how many."""
        settings, spool = self._spool.settings, self._spool
        if settings.marks is None:
            return None, 0, 0
        spare = spool.segments.spare_bytes
        if settings.max_size is not None:
            return settings.marks, max(0, self._spool.used_bytes() - spare), settings.max_size
        capacity = spool.capacity_bytes()
        return settings.marks, max(0, capacity - spool.free_bytes() - spare), capacity

    def _to_come(self, in_use: Mapping[int, tuple[int, int]], position: Position | None) -> int:
        """Bytes of segments in which little or nothing lives, of what `_compact` gets on with."""
        total = 0
        for segment in self._spool.segments.sealed():
            count, data = in_use.get(segment.generation, (0, 0))
            live = data + count * BLOCK
            sparse = live <= segment.size * _SPARSE and segment.generation not in self._dense
            if sparse and segment.indexed(position):
                total += segment.size - live
        return total

    def _run(self, *, idle: bool) -> Run | None:
        """What there is to tell of a purge between the marks."""
        marks, used, capacity = self._fill()
        told = self._marks.told(marks, used, capacity, idle=idle)
        if told is None:
            return None
        count, size, ended = told
        return Run(count, size, used / capacity, self._index.oldest_settled(), ended)

    def sweep(self) -> int:
        """Remove files of large instances that were never committed; returns how many.

        At start only, after recovery: then nothing is arriving.  Where recovery met records that
        it could not read, a file may belong to one of them: then all are left, with a note.
        """
        files = dict(self._spool.large_files())
        orphans = files.keys() - self._index.known(list(files))
        if orphans and self._spool.log_damaged:
            self._spool.notes.append(
                f"{len(orphans)} files under large/ belong to no known instance; they are left, "
                "since records are damaged"
            )
            return 0
        if not orphans:
            return 0
        try:
            self._index.look_through()
        except SpoolError as error:
            self._spool.notes.append(f"{len(orphans)} files under large/ are left: {error}")
            return 0
        try:
            # Some were purged just before a kill: a power cut could bring their rows back.
            self._index.barrier()
        except SpoolError as error:
            self._spool.notes.append(f"{len(orphans)} files under large/ are not gone yet: {error}")
            self._doomed += sorted(orphans)
            return 0
        removed = []
        for instance_id in sorted(orphans):
            try:
                self._spool.remove_large(instance_id)
                removed.append(instance_id)
            except SpoolError as error:
                self._spool.notes.append(f"large/{files[instance_id].name} is left: {error}")
        if removed:
            # Of nobody who was acknowledged, unless a segment is gone that no index knew of.
            which = ", ".join(map(str, removed[:_TROUBLES]))
            more = ", ..." if len(removed) > _TROUBLES else ""
            self._spool.notes.append(
                f"{len(removed)} files under large/ were removed, as no record names them: "
                f"instances {which}{more}"
            )
        return len(removed)

    def _remove_files(self, troubles: list[str]) -> None:
        """Each that fails is tried again with the next step."""
        left: list[int] = []
        for instance_id in self._removable:
            try:
                self._spool.remove_large(instance_id)
            except SpoolError as error:
                left.append(instance_id)
                troubles.append(str(error))
        self._removable = left

    def _free(self, ended: list[Segment], troubles: list[str]) -> list[Segment]:
        """Those of which the index has nothing, whatever it counts: what lies there goes for
        good."""
        free = []
        for segment in ended:
            try:
                self._index.check_free(segment.generation)
                free.append(segment)
            except IndexDamaged as error:
                troubles.append(str(error))
        return free

    def _recycle(self, ended: list[Segment], position: Position | None, troubles: list[str]) -> int:
        """How many; one that fails is tried again with the next step."""
        wipe = self._spool.settings.wipe
        count = 0
        for segment in ended:
            generation = segment.generation
            try:
                if self._spool.segments.recycle(generation, wipe=wipe, indexed=position):
                    self._spool.moves.forget(generation)
                    count += 1
            except SpoolError as error:
                troubles.append(str(error))
        return count

    def _compact(self, in_use: Mapping[int, tuple[int, int]], *, beyond: bool) -> tuple[int, bool]:
        """Copy what lives out of one mostly-dead segment, so that it can be recycled.

        How many records were copied, and whether there may be more to copy: a segment a second
        is less than a busy gateway fills, and the spool would grow for as long as one
        destination is away.

        ``beyond``: also where that takes a segment more than there may be.  Nothing may come in,
        and each that is copied gives back far more; else the little that waits for a destination
        that is away would hold all of a full spool.
        """
        for kept in (self._copied, self._dense):
            for generation in kept.keys() - in_use.keys():
                del kept[generation]
        for segment in self._spool.segments.sealed():
            generation = segment.generation
            count, data = in_use.get(generation, (0, 0))
            # Of a record that is in a file of its own, the description alone is here; it and the
            # end of a data set take a block or so.
            live = data + count * BLOCK
            if not count or live > segment.size * _SPARSE:
                continue
            if count * 2 > self._dense.get(generation, count * 2):
                continue  # looked at before, and not half of it has gone since
            if self._room() < live + segment.size and not (beyond and self._fits(live)):
                continue  # copying needs room of its own
            refs = self._movable(generation)
            if refs and self._is_sparse(segment, refs, count):
                moved = self._move(generation, refs)
                return moved, moved > 0 or count > len(refs)
        return 0, False

    def _room(self) -> int:
        """Bytes for copies: the spares, of which a busy gateway has none, and new segments."""
        settings = self._spool.settings
        more = self._spool.free_bytes() - settings.low_disk
        if settings.max_size is not None:
            more = min(more, settings.max_size - self._spool.used_bytes())
        return self._spool.segments.spare_bytes + max(0, more)

    def _fits(self, live: int) -> bool:
        """Whether copies of so many bytes can be written at all."""
        segments = self._spool.segments
        return max(segments.spare_bytes, self._spool.free_bytes() - segments.size - _FLOOR) >= live

    def _movable(self, generation: int) -> list[Ref]:
        """What goes in one step: its data sets are in memory at once."""
        refs = self._index.refs_in(generation, _MOVE_STEP + len(self._unmovable))
        step: list[Ref] = []
        room = _MOVE_BYTES
        for ref in refs:
            size = align(ref.data_offset - ref.offset + ref.length)
            too_long = not ref.large and BLOCK + size > self._spool.segments.size
            if too_long or ref.id in self._unmovable:
                continue  # of a time when segments were larger: it would hold up all the others
            room -= 0 if ref.large else ref.length
            if step and (room < 0 or len(step) == _MOVE_STEP):
                break
            step.append(ref)
        return step

    def _is_sparse(self, segment: Segment, refs: Sequence[Ref], count: int) -> bool:
        """Whether a segment is worth copying by what its records really take.

        Many long descriptions may fill one that the index takes for empty.  What was copied out
        of it before counts too: so of no segment more than a share is copied, and copies, copied
        again from a segment that they fill, come to an end.
        """
        generation = segment.generation
        size = self._spool.record_bytes(refs)
        if self._copied.get(generation, 0) + size * count / len(refs) > segment.size * _SPARSE:
            self._dense[generation] = count
            self._copied.pop(generation, None)
            return False
        self._dense.pop(generation, None)
        return True

    def _move(self, generation: int, refs: Sequence[Ref]) -> int:
        """Copy records; one that is damaged stays where it is, and keeps its segment."""
        copied: list[Ref] = []
        places: list[Ref] = []
        failure: SpoolError | None = None
        for ref, result in zip(refs, self._spool.relocate(refs), strict=True):
            if isinstance(result, Ref):
                copied.append(ref)
                places.append(result)
            elif isinstance(result, SpoolDamaged):
                self._unmovable[ref.id] = (str(result), self._steps + _TRY_AGAIN)
            else:
                failure = result
        size = self._spool.record_bytes(copied)
        self._copied[generation] = self._copied.get(generation, 0) + size
        # Before the index, which may say that it failed when it did not: an old place is looked
        # at first as long as there is one.
        for place in places:
            self._spool.moves.add(place)
        # Also when a copy could not be written: the others are not made again.
        self._index.move(places)
        if failure is not None:
            raise failure
        return len(places)

    def supply(self) -> None:
        """Keep spares ready; on another thread, see `Supply.keep`."""
        self._supply.keep()

    def _pressure(self) -> str:
        """Why nothing more may come in, or ""."""
        settings = self._spool.settings
        free = self._spool.free_bytes()
        spare = self._spool.segments.spare_bytes
        if free + spare < settings.low_disk:
            return (
                f"low disk: {(free + spare) >> 20} MiB are left for the spool, "
                f"low_disk is {settings.low_disk >> 20} MiB"
            )
        limit = settings.max_size
        if limit is not None and self._spool.used_bytes() - spare >= limit:
            return f"the spool has reached its max_size of {limit >> 20} MiB"
        return ""
