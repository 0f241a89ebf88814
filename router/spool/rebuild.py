"""Brings the index up to what the spool holds, at start.

Owns what becomes of each record past the index's position: added, moved, or held because its
bytes are damaged.  Blocking; on the index's thread.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from router.spool.index_types import AddResult, Gap
from router.spool.record import DAMAGED, InstanceMeta, Position, Ref
from router.spool.recovery import Damage, Recovered, check_record, may_pass, write_again
from router.spool.spool import Spool
from router.spool.writer import link_large

_BATCH = 1000
MADE_ANEW = (
    "the index knew nothing of what is in the spool, and is made anew: what was delivered "
    "or dropped before may be sent again, and no destination is paused any more"
)


class RebuildIndex(Protocol):
    """What rebuilding needs of the index."""

    def indexed_position(self) -> Position | None:
        """Behind the last record that is in the index."""

    def copied_position(self) -> Position | None:
        """The place of the last copy that the index was told of."""

    def last_id(self) -> int:
        """The largest id that ever was."""

    def figures(self, ids: Sequence[int]) -> Mapping[int, tuple[int, int]]:
        """Length and CRC of those of `ids` that are in the index."""

    def places(self, ids: Sequence[int]) -> Mapping[int, Ref]:
        """Where the records of those of `ids` lie that are in the index."""

    def at(self, places: Sequence[Position]) -> set[Position]:
        """Those where the record of an instance of the index lies."""

    def generations_in_use(self) -> Mapping[int, tuple[int, int]]:
        """Count and bytes of the instances in each generation that has any."""

    def add(
        self,
        entries: Sequence[tuple[Ref, InstanceMeta]],
        position: Position,
        *,
        suppress_duplicates: bool,
        same_bytes: Callable[[Ref, Ref], bool],
    ) -> AddResult:
        """More instances, new places of those that it has, and the position behind them."""

    def gap(self) -> Gap | None:
        """What it may not have of what lies before its position."""

    def note_gap(self, gap: Gap | None) -> None:
        """Note that."""

    def note_anew(self, last_id: int) -> None:
        """Note up to which id it was made anew."""

    def begin_hours(self) -> None:
        """Note that of what was purged before now nothing is counted by hour."""

    def barrier(self) -> None:
        """Make everything committed so far durable."""


@dataclass(slots=True)
class Report:
    """What was found past the index's position; `damage` has a line for each trouble.  ``anew`` is
    how many instances it has where it had no position, though of some a start that was broken off
    may have told it."""

    added: int = 0
    anew: int = 0
    moved: int = 0
    last_id: int = 0
    damage: list[str] = dataclasses.field(default_factory=list)
    namesakes: dict[tuple[int, int, int], Recovered] = dataclasses.field(
        default_factory=dict, repr=False
    )
    """By id, length and CRC: what has the number of another instance, and needs one of its own."""


def rebuild(spool: Spool, index: RebuildIndex, *, suppress_duplicates: bool) -> Report:
    """Read every record past the index's position into the index.

    A record that was copied by compaction updates the place of its instance where the one of before
    is gone or damaged.  A copy of one that the index does not know is left out when the index was
    told of the copy, or was past its first place, since then it was purged; an index that is older,
    or new, never knew it, and the copy may be all there is.
    A record whose data set is damaged is added, held, with the reason: it is never served, and
    never forgotten.  So is one that has the number of another: it gets a number of its own.
    Raises SpoolError.
    """
    position = spool.known(index.indexed_position(), index.gap())
    copied = index.copied_position()
    report = Report(last_id=index.last_id())
    batch: list[Recovered] = []
    end: Position | None = None

    def flush() -> None:
        if batch:
            _add(spool, index, batch, report, (position, copied), suppress_duplicates)
            batch.clear()

    for found in spool.recover(position):
        if isinstance(found, Damage):
            report.damage.append(
                f"segment {found.segment}: {found.length} bytes at {found.offset}: {found.what}"
            )
            continue
        report.last_id = max(report.last_id, found.ref.id)
        if found.damage and found.meta.disposition == "discard":
            # Nobody is to have it, and its file may have been purged before the index was lost.
            found = dataclasses.replace(found, damage="")
        batch.append(found)
        end = found.end if end is None or end < found.end else end
        if len(batch) >= _BATCH:
            flush()
    flush()
    _add_namesakes(spool, index, report, position, suppress_duplicates)
    index.note_gap(spool.gap)
    lost = position is None or not position.generation
    if lost and (end is not None or spool.gap is not None):
        # Before the index has its position: a start that is killed must not forget the loss, nor
        # one that can read nothing now.
        report.last_id = spool.reserve_numbers(report.last_id, 0)
        index.begin_hours()
        index.note_anew(report.last_id)
        report.anew = sum(count for count, _ in index.generations_in_use().values())
    if end is not None and (position is None or position < end):
        # Only now: what is broken off must begin again where it began, see `was_purged`.
        index.add([], end, suppress_duplicates=suppress_duplicates, same_bytes=spool.same_bytes)
    if spool.made_up_for:
        index.barrier()  # first: a power cut must not take what the note would bring back
        spool.forget_unread()
    _look_for_missing(spool, index, report)
    return report


def _look_for_missing(spool: Spool, index: RebuildIndex, report: Report) -> None:
    """Segments that the index names and that are not there: else nobody is told before reading."""
    there = {segment.generation for segment in spool.segments.sealed()}
    for generation, (count, _) in sorted(index.generations_in_use().items()):
        if generation not in there:
            spool.log_damaged = True  # it may be brought back: keep its large files
            report.damage.append(
                f"the segment of generation {generation} is missing, with {count} instances that "
                "the index names"
            )


def _add(
    spool: Spool,
    index: RebuildIndex,
    batch: list[Recovered],
    report: Report,
    began_at: tuple[Position | None, Position | None],
    suppress_duplicates: bool,
) -> None:
    known = index.figures([found.ref.id for found in batch])
    entries: dict[int, tuple[Ref, InstanceMeta]] = {}
    copies: dict[int, Recovered] = {}
    moved = 0
    places = index.places([found.ref.id for found in batch if found.moved])
    sealed = spool.segments.sealed()
    lives = {segment.generation: segment.path for segment in sealed}
    # Of one whose header cannot be read: the next start may find that its life is over.
    sure = {segment.generation: segment.path for segment in sealed if not segment.unread}
    for found in batch:
        ref = found.ref
        meta = _held(found) if found.damage and not found.unsure else found.meta
        figures = known.get(ref.id)
        if ref.id in entries:
            other = entries[ref.id][0]
            figures = other.length, other.crc
        namesake = figures not in (None, (ref.length, ref.crc))
        again = found.moved and figures is not None and not namesake
        began = began_at if found.noted is None else (found.noted, None)
        if not again and was_purged(found, *began):
            continue
        if namesake:
            key = ref.id, ref.length, ref.crc
            if not found.damage or key not in report.namesakes:
                report.namesakes[key] = found
            continue
        if found.damage:
            report.damage.append(f"instance {ref.id}: {found.damage}")
        if again:
            before = entries[ref.id][0] if ref.id in entries else places[ref.id]
            wanted = _takes_place(found, before, sure, spool)
        else:  # one that is known may have been copied since, from a segment that is read again
            wanted = not found.damage or ref.id not in known
        if wanted:
            entries[ref.id] = (ref, meta)
            moved += again
            copies.pop(ref.id, None)
            if found.moved and not found.damage:
                copies[ref.id] = found
    for copy in _not_written_again(copies.values(), lives, spool, report):
        report.damage.append(f"instance {copy.ref.id}: {copy.damage}")
        if copy.ref.id not in known:
            entries[copy.ref.id] = (copy.ref, copy.meta if copy.unsure else _held(copy))
        elif not copy.unsure or places[copy.ref.id].generation in sure:
            del entries[copy.ref.id]  # it stays where it is, and reading it will tell
            moved -= 1
    # One transaction: were the position noted without the new places, they were lost for good.
    result = index.add(
        list(entries.values()),
        began_at[0] or Position(0, 0),
        suppress_duplicates=suppress_duplicates,
        same_bytes=spool.same_bytes,
    )
    report.added += result.added
    report.moved += moved


def _takes_place(copy: Recovered, before: Ref, lives: Mapping[int, Path], spool: Spool) -> bool:
    """Whether a copy is needed: its first place, if there still is a segment of its generation in
    `lives` for certain, is given up only when the index knows the copy.
    """
    if copy.damage and not copy.unsure:
        return False
    path = lives.get(before.generation)
    if path is None or copy.unsure:
        return path is None
    return bool(check_record(path, before, spool.large_directory))


def _not_written_again(
    copies: Collection[Recovered], lives: Mapping[int, Path], spool: Spool, report: Report
) -> Iterator[Recovered]:
    """Writes copies once more, before they count; those that are not there to be written any more.

    One may be of a write that failed, or that a start could not sync: the kernel shows it as long
    as it likes to, and says to the next who syncs that all is well, and the disk does not have it.
    """
    stretches: dict[Path, list[tuple[int, int]]] = {}
    for copy in copies:
        stretch = copy.ref.offset, copy.end.offset
        stretches.setdefault(lives[copy.ref.generation], []).append(stretch)
    for path, of_segment in stretches.items():
        if why := write_again(path, of_segment):  # they count: there is nothing better
            what = "copies in it cannot be written once more, the disk may not have them"
            report.damage.append(f"segment {path.name}: {what}: {why}")
    for copy in copies:
        damage = check_record(lives[copy.ref.generation], copy.ref, spool.large_directory)
        if damage:
            yield dataclasses.replace(copy, damage=damage, unsure=may_pass(damage))


def _add_namesakes(
    spool: Spool,
    index: RebuildIndex,
    report: Report,
    began_at: Position | None,
    suppress_duplicates: bool,
) -> None:
    """What was given the number of another: both may have been acknowledged."""
    twins = list(report.namesakes.values())
    places = [Position(found.ref.generation, found.ref.offset) for found in twins]
    there = index.at(places)  # by a start that was broken off, or before an older copy
    twins = [found for found, at in zip(twins, places, strict=True) if at not in there]
    if not twins:
        return
    last_id = spool.reserve_numbers(report.last_id, len(twins))
    entries = []
    for number, found in enumerate(twins, last_id + 1):
        ref = found.ref._replace(id=number)
        what = f"has the number of another instance, and is instance {number} from now on"
        report.damage.append(f"instance {found.ref.id}: {found.damage or what}")
        if ref.large:
            link_large(spool.large_directory, found.ref.id, number)
        damaged = found.damage and not found.unsure
        entries.append((ref, _held(found) if damaged else found.meta))
    for at in range(0, len(entries), _BATCH):
        result = index.add(
            entries[at : at + _BATCH],
            began_at or Position(0, 0),
            suppress_duplicates=suppress_duplicates,
            same_bytes=spool.same_bytes,
        )
        report.added += result.added
    report.last_id = last_id + len(twins)


def was_purged(found: Recovered, indexed: Position | None, copied: Position | None) -> bool:
    """Whether a record that the index does not know, from behind its position, is a copy of one
    that it knew: of `Index.indexed_position` and `copied_position`."""
    if not found.moved:
        return False
    if copied is not None and not copied < Position(found.ref.generation, found.ref.offset):
        return True
    return indexed is not None and found.origin < indexed.generation


def _held(found: Recovered) -> InstanceMeta:
    return found.meta._replace(
        disposition="hold",
        quarantined=True,
        reason=f"{DAMAGED}{found.damage}; if its sender got no answer it sends again",
        routes=(),
    )
