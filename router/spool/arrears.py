"""What starts could not read, until it has been read after all.

Owns the decision which records of a segment a start has to give, beside those that the index
cannot know yet, and what is noted of those that it could not.  Blocking.
"""

import dataclasses
from collections.abc import Generator, Iterator
from pathlib import Path

from router.spool import recovery, unread
from router.spool.errors import SpoolError
from router.spool.index_types import Gap
from router.spool.record import Position
from router.spool.recovery import Damage, Recovered
from router.spool.segment import Segment
from router.spool.segments import SegmentTable
from router.spool.unread import Notes, Stretch, Unread

# More than any file holds or any run began: what a start could not read may bear them.
SKIPPED_IDS = 1 << 32
SKIPPED_GENERATIONS = 1 << 20


class Arrears:
    """Of one spool directory, for one start."""

    def __init__(self, directory: Path, large_directory: Path) -> None:
        self.damaged = False
        """Records are lost or out of reach: a stretch of a segment, or a whole file."""
        self.changed = False
        """What is out of reach now is not what was before."""
        self._directory = directory
        self._large_directory = large_directory
        self._notes = Notes()

    def known(self, after: Position | None, gap: Gap | None) -> Position | None:
        """Up to where an index at ``after`` knows all but what is noted here.

        One that is of another time than the notes goes by its own: what they say was made up for
        since, it does not have.
        """
        if after is None or gap is None:
            return after
        here = unread.gap_of(unread.load(self._directory).segments)
        return after if here == gap else min(after, gap.known)

    def recover(
        self, segments: SegmentTable, after: Position | None
    ) -> Iterator[Recovered | Damage]:
        """See `Spool.recover`."""
        if after is not None:
            segments.reserve_generations(after.generation)
        self._notes = unread.load(self._directory)
        noted = self._notes.segments
        before = dict(noted)
        for name, other in segments.copies.items():
            if name in before:  # what could not be read there is read here
                before[other] = before[name].joined(before.get(other, before[name]))
        origin = after or Position(0, 0)
        # One that is not there may be brought back: an operator saves it to another disk, say.  In
        # one that is free by now there is nothing to be read.
        here = {segment.path.name for segment in segments.sealed()} | segments.free()
        left = {
            name: due
            for name, due in before.items()
            if name not in here and segments.expected(name)
        }
        for name in segments.left:
            earlier = before.get(name, Unread(origin))
            begun = max(segments.begun(name), earlier.begun)
            left[name] = Unread(min(origin, earlier.known), begun=begun)
        for segment in segments.sealed():
            due = yield from self._of(segment, origin, before.get(segment.path.name))
            if due is not None:
                left[segment.path.name] = due
        # What was read now stays noted until the index has it for good: see `save`.
        wider = before | {
            name: due.joined(before[name]) if name in before else due for name, due in left.items()
        }
        if wider != noted:
            unread.save(self._directory, Notes(wider, self._notes.floor))
        self._notes.segments = left
        self.changed = left != noted
        self.damaged |= bool(left)

    def _of(
        self, segment: Segment, origin: Position, before: Unread | None
    ) -> Generator[Recovered | Damage, None, Unread | None]:
        """Of one segment; what could not be read of it and may hold what the index never knew."""
        begin = origin if before is None else min(origin, before.known)
        if segment.generation < begin.generation:
            # Its header cannot be read: it may be in a later life.
            return Unread(begin) if segment.unread else None
        whole = segment.unread
        due = before or Unread(begin, ())
        if segment.generation >= origin.generation:
            due = due.and_from(origin.offset if segment.generation == origin.generation else 0)
        start = begin.offset if segment.generation == begin.generation else 0
        unreadable: list[Stretch] = []
        try:
            for found in recovery.scan(segment, start, self._large_directory):
                if isinstance(found, Damage):
                    self.damaged = True
                    if found.what.startswith("unreadable"):
                        unreadable.append((found.offset, found.offset + found.length))
                elif not due.holds(found.ref.offset):
                    continue
                elif begin < origin:
                    found = dataclasses.replace(found, noted=begin)
                yield found
        except SpoolError as error:
            whole = self.damaged = True
            yield Damage(segment.path.name, start, segment.size - start, str(error))
        segment.unread = whole or bool(unreadable)
        noted = Unread(begin) if whole else Unread(begin, due.still(unreadable).stretches)
        return noted if noted.stretches else None

    @property
    def gap(self) -> Gap | None:
        """What an index lacks that was told of all that could be read."""
        return unread.gap_of(self._notes.segments)

    def save(self) -> None:
        """Note what is out of reach now, and no more than that: what was made up for must be
        durable elsewhere."""
        unread.save(self._directory, self._notes)

    def go_past(self, segments: SegmentTable, last_id: int) -> int:
        """The number after which to go on, and so for the generations: past what may lie where
        it could not be read."""
        if not self._notes.segments:
            return last_id
        floor = self._notes.floor
        last_id = max(last_id, floor.offset) + SKIPPED_IDS
        segments.reserve_generations(floor.generation)
        self._notes.floor = Position(segments.skip_generations(SKIPPED_GENERATIONS), last_id)
        self.save()
        return last_id
