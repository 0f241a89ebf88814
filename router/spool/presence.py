"""Whether what the index says of instances is still on the disk.

Owns the look at the files: is the one that a record lies in there under its name, as long as it has
to be, and does the record begin where it should.  64 bytes of each are read, not its data set,
whose damage only `verify` and those who send it find.  Blocking; safe on any thread.

The file is opened by its name: one that is open already is read well after it was removed, and its
instances are gone with the next restart.
"""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from router.spool import system
from router.spool.layout import RECORD_HEADER_SIZE, RecordHeader
from router.spool.moves import Moves
from router.spool.record import Ref
from router.spool.recovery import is_of
from router.spool.segments import SegmentTable
from router.spool.writer import large_path


class Places(Protocol):
    """What it needs of the spool; ``moves`` leads from an instance to its latest place."""

    segments: SegmentTable
    large_directory: Path
    moves: Moves


def present(spool: Places, refs: Sequence[Ref]) -> Mapping[int, bool | None]:
    """By id, whether each is there; None when that cannot be told now."""
    found: dict[int, bool | None] = {}
    by_generation: dict[int, list[Ref]] = defaultdict(list)
    for ref in refs:
        by_generation[ref.generation].append(ref)
    led: set[int] = set()
    while by_generation:
        generation, some = by_generation.popitem()
        segment = spool.segments.pin(generation)
        if segment is not None:
            try:
                found |= _in_segment(segment.path, some)
            finally:
                spool.segments.unpin(segment)
            continue
        for ref in some:
            moved = spool.moves.latest(ref.id)
            if moved is not None and ref.id not in led:
                led.add(ref.id)
                by_generation[moved.generation].append(moved)
            else:  # a file that could not be read at the start may be it, or a copy of it
                told = spool.moves.complete and not spool.segments.unreadable
                found[ref.id] = False if told else None
    for ref in refs:  # a record that is moved leaves the file of a large one where it was
        if ref.large and found[ref.id]:
            found[ref.id] = _is_long(large_path(spool.large_directory, ref.id), ref.length)
    return found


def _in_segment(path: Path, refs: list[Ref]) -> dict[int, bool | None]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return {ref.id: False for ref in refs}
    except OSError:
        return {ref.id: None for ref in refs}
    try:
        # A little of each record is read, so reading ahead would be for nothing.
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        size = os.fstat(fd).st_size
        # By place, since a disk likes that.
        return {ref.id: _begins(fd, size, ref) for ref in sorted(refs, key=lambda r: r.offset)}
    except OSError:
        return {ref.id: None for ref in refs}
    finally:
        system.close(fd)


def _begins(fd: int, size: int, ref: Ref) -> bool | None:
    if not ref.large and size < ref.data_offset + ref.length:
        return False
    try:
        header = RecordHeader.from_bytes(os.pread(fd, RECORD_HEADER_SIZE, ref.offset))
    except OSError:
        return None
    # Not by its id: one whose number was another's as well has that still in its record.
    return header is not None and is_of(header, ref)


def _is_long(path: Path, length: int) -> bool | None:
    try:
        return path.stat().st_size == length
    except FileNotFoundError:
        return False
    except OSError:
        return None
