"""Upkeep of the spool: retention, recycling, the low-disk mark, compaction.

Owns the order in which rows are deleted, made durable, and only then their bytes given up.
Runs on the index's thread, a bounded step at a time; must not know DICOM or destinations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from router.spool.errors import SpoolDamaged, SpoolError, SpoolFull
from router.spool.index_types import Purged
from router.spool.record import Position, Ref
from router.spool.segments import Segment
from router.spool.spool import Spool

_PURGE_STEP = 5000
_MOVE_STEP = 256
_SPARSE = 0.25
_TROUBLES = 10


class KeeperIndex(Protocol):
    """What the keeper needs of the index."""

    def indexed_position(self) -> Position | None:
        """The end of the last record that was added."""

    def purge(self, settled_before: float, limit: int, *, oldest_first: bool = True) -> Purged:
        """Delete instances that are settled since before `settled_before`."""

    def generations_in_use(self) -> Mapping[int, tuple[int, int]]:
        """Count and bytes of the instances in each generation that has any."""

    def refs_in(self, generation: int, limit: int) -> Sequence[Ref]:
        """Up to `limit` instances of a generation."""

    def move(self, refs: Sequence[Ref]) -> None:
        """Note the new places of instances."""

    def known(self, ids: Sequence[int]) -> set[int]:
        """Those of `ids` that are in the index."""

    def barrier(self) -> None:
        """Make everything committed so far durable."""


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What one step did and found.  ``again``: there is more to do at once."""

    purged: int
    recycled: int
    moved: int
    free: int
    used: int
    refusal: str
    again: bool
    trouble: str = ""


class Keeper:
    """`step` is called every second or so, and again at once while it says so."""

    def __init__(self, spool: Spool, index: KeeperIndex) -> None:
        self._spool = spool
        self._index = index
        self._large_bytes = 0
        self._unmovable: dict[int, str] = {}

    def step(self, now: float) -> Upkeep:
        """One bounded piece of upkeep at `now`, seconds since the epoch.  Blocking.

        Raises SpoolError only from the index; trouble with files is reported in the result.
        """
        settings = self._spool.settings
        self._large_bytes = self._spool.large_bytes()
        pressed = bool(self._pressure())
        before = now if pressed else now - settings.keep_settled
        purged = self._index.purge(before, _PURGE_STEP)
        in_use = self._index.generations_in_use()
        # Of a record that is acknowledged the index may not know yet.
        position = self._index.indexed_position()
        sealed = self._spool.segments.sealed()
        ended = [s for s in sealed if s.generation not in in_use and s.indexed(position)]
        recycled = moved = 0
        trouble = ""
        try:
            if ended or purged.large:
                # Without this a power cut could bring rows back whose bytes are overwritten.
                self._index.barrier()
            for ref in purged.large:
                self._spool.remove_large(ref)
                self._large_bytes -= ref.length
            recycled = self._recycle(ended, position)
            moved = self._compact(in_use)
        except SpoolError as error:
            trouble = str(error)
        if self._unmovable:
            known = self._index.known(list(self._unmovable))
            self._unmovable = {i: why for i, why in self._unmovable.items() if i in known}
        trouble = "; ".join(filter(None, [trouble, *self._unmovable.values()][:_TROUBLES]))
        refusal = self._pressure()
        return Upkeep(
            purged=purged.count,
            recycled=recycled,
            moved=moved,
            free=self._spool.free_bytes(),
            used=self._used(),
            refusal=refusal,
            again=purged.count >= _PURGE_STEP or moved >= _MOVE_STEP,
            trouble=trouble,
        )

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
        for instance_id in orphans:
            files[instance_id].unlink(missing_ok=True)
        return len(orphans)

    def _recycle(self, ended: list[Segment], position: Position | None) -> int:
        wipe = self._spool.settings.wipe
        count = 0
        for segment in ended:
            generation = segment.generation
            if self._spool.segments.recycle(generation, wipe=wipe, indexed=position):
                self._spool.forget_moves(generation)
                count += 1
        return count

    def _compact(self, in_use: Mapping[int, tuple[int, int]]) -> int:
        """Copy what lives out of one mostly-dead segment, so that it can be recycled."""
        for segment in self._spool.segments.sealed():
            _, live = in_use.get(segment.generation, (0, 0))
            if segment.generation not in in_use or live > segment.size * _SPARSE:
                continue
            if self._spool.segments.spare_bytes < live + segment.size:
                continue  # copying needs room of its own
            refs = self._movable(segment.generation)
            if refs:
                return self._move(refs)
        return 0

    def _movable(self, generation: int) -> list[Ref]:
        refs = self._index.refs_in(generation, _MOVE_STEP + len(self._unmovable))
        return [ref for ref in refs if ref.id not in self._unmovable][:_MOVE_STEP]

    def _move(self, refs: Sequence[Ref]) -> int:
        """Copy records; one that is damaged stays where it is, and keeps its segment."""
        places: list[Ref] = []
        try:
            for ref in refs:
                try:
                    places.append(self._spool.relocate(ref))
                except SpoolDamaged as error:
                    self._unmovable[ref.id] = str(error)
        finally:
            # Also when a copy could not be written: those before it are not made again.
            self._index.move(places)
            for ref in places:
                self._spool.moved(ref)
        return len(places)

    def supply(self) -> None:
        """Keep spares ready; give space back when the disk runs low.

        Zeroing takes its time, so this runs on a thread other than the index's.  Raises
        SpoolError.
        """
        segments, settings = self._spool.segments, self._spool.settings
        if self._spool.free_bytes() < settings.low_disk:
            segments.trim(settings.spare_segments)
            return
        try:
            more = True
            while more and not self._over_size(settings.segment_size):
                more = segments.refill(settings.spare_segments)
        except SpoolFull as error:
            raise SpoolFull(f"the pool of segments is short: {error}") from error

    def _used(self) -> int:
        return self._spool.segments.total_bytes + self._large_bytes

    def _over_size(self, more: int) -> bool:
        limit = self._spool.settings.max_size
        return limit is not None and self._used() + more > limit

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
        if limit is not None and self._used() - spare >= limit:
            return f"the spool has reached its max_size of {limit >> 20} MiB"
        return ""
