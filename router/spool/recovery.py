"""Finds the records of a segment again after a restart.

Owns the reading of a log that may end in the middle of a record, have bits flipped, or hold
what an earlier life of the segment left behind.  Blocking; used before the gateway accepts.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from router.spool import system
from router.spool.errors import SpoolDamaged, SpoolError
from router.spool.layout import BLOCK, RECORD_HEADER_SIZE, RECORD_MAGIC, RecordHeader, align, crc32
from router.spool.record import InstanceMeta, Position, Ref
from router.spool.segment import Segment
from router.spool.writer import large_path

_CHUNK = 1 << 20
_MAY_PASS = ("unreadable at byte", "cannot be opened", "cannot be synced", "reading ")
_FLIPPED = "no sound header, but for a bit of it what it was: it is read as that"


@dataclass(frozen=True, slots=True)
class Recovered:
    """A record that was found.  `damage` says what is wrong with it, "" if nothing.

    Where that is the description, `meta` has nothing but a time: that of the latest write to the
    segment.
    """

    ref: Ref
    meta: InstanceMeta
    end: Position
    moved: bool
    damage: str = ""
    origin: int = 0
    """Generation in which a moved one was first committed."""
    noted: Position | None = None
    """How far the index was when the segment could not be read, of one that is made up for."""
    unsure: bool = False
    """The disk did not give its bytes now, or may not keep them; they may be sound, and reading it
    will tell."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A stretch of a segment, before its last sound record, that holds no sound record."""

    segment: str
    offset: int
    length: int
    what: str


def scan(
    segment: Segment, start: int, large_directory: Path, *, sync: bool = True
) -> Iterator[Recovered | Damage]:
    """The records of a segment from offset `start` on, in order, and what lies damaged between.

    A damaged stretch at the end is the tail of a group that was never acknowledged and is not
    reported: nothing behind it proves that there was more.  But no tail is torn so that one bit of
    a header is another: such a record is `unsure`.  What the disk cannot read is damage
    wherever it lies; a segment that it cannot sync is told and read all the same, but its copies
    are `unsure`.  Without `sync` nothing is asked of the disk but to read.  Raises SpoolError when
    the segment cannot be opened.
    """
    with system.translated(f"reading segment {segment.path.name}"):
        fd = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # After a crash of the process alone, the page cache may show what is not on disk yet;
            # what gets into the index from here must not be gone after the next power cut.
            unsynced = ""
            try:
                if sync:
                    system.sync_data(fd)
            except OSError as error:
                unsynced = f"its segment cannot be synced: {error.strerror}"
                what = f"cannot be synced, the disk may not have all of it: {error.strerror}"
                yield Damage(segment.path.name, 0, 0, what)
            offset = max(align(start), BLOCK)
            while offset < segment.size:
                what = "no sound header"
                header, flipped = None, False
                try:
                    header = _header_at(fd, segment, offset)
                    if header is None:
                        header, flipped = _header_at(fd, segment, offset, mend=True), True
                except OSError as error:
                    what = f"unreadable: {error.strerror}"
                if header is not None:
                    try:
                        found = _record(fd, header, large_directory, sync=sync)
                    except OSError as error:  # of its description: another time it may be told
                        what = f"unreadable: {error.strerror}"
                        yield Damage(segment.path.name, offset, header.size, what)
                        offset += header.size
                        continue
                    if flipped and not found.damage:
                        found = dataclasses.replace(found, damage=_FLIPPED, unsure=True)
                    if unsynced and header.moved and not found.damage:
                        # Its first place, if that is there still, is on the disk for certain.
                        found = dataclasses.replace(found, damage=unsynced, unsure=True)
                    yield found
                    offset += header.size
                    continue
                following = _next_record(fd, segment, offset + BLOCK)
                if following is None and what == "no sound header":
                    return
                end = segment.size if following is None else following
                yield Damage(segment.path.name, offset, end - offset, what)
                offset = end
        finally:
            system.close(fd)


def generation_of(path: Path) -> int:
    """Generation that the first sound records of a segment name; 0 when there is none.

    For a segment whose own header is damaged: the highest generation among records that lie
    where they say is that of its last life.
    """
    with system.translated(f"reading segment {path.name}"):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            best = 0
            for offset in _magic_offsets(fd, BLOCK, size):
                try:
                    header = RecordHeader.from_bytes(os.pread(fd, RECORD_HEADER_SIZE, offset))
                except OSError:
                    continue  # the others may be sound
                if header is not None and header.offset == offset:
                    best = max(best, header.generation)
            return best
        finally:
            system.close(fd)


def count_sound(segment: Segment, large_directory: Path) -> int:
    """How many records of a segment are sound.  Raises SpoolError."""
    found = scan(segment, 0, large_directory, sync=False)
    return sum(isinstance(record, Recovered) and not record.damage for record in found)


def _header_at(
    fd: int, segment: Segment, offset: int, *, mend: bool = False
) -> RecordHeader | None:
    """With ``mend`` one of which a bit was flipped."""
    raw = os.pread(fd, RECORD_HEADER_SIZE, offset)
    header = RecordHeader.mended(raw) if mend else RecordHeader.from_bytes(raw)
    if header is None or header.generation != segment.generation or header.offset != offset:
        return None
    if offset + header.size > segment.size:
        return None
    return header


def _next_record(fd: int, segment: Segment, start: int) -> int | None:
    for offset in _magic_offsets(fd, start, segment.size):
        with contextlib.suppress(OSError):
            if _header_at(fd, segment, offset) is not None:
                return offset
    return None


def _magic_offsets(fd: int, start: int, size: int) -> Iterator[int]:
    for base in range(start, size, _CHUNK):
        count = min(_CHUNK, size - base)
        try:
            chunk = system.read_all(fd, count, base)
        except OSError:
            yield from _magic_blocks(fd, base, base + count)
            continue
        for at in range(0, len(chunk), BLOCK):
            if chunk.startswith(RECORD_MAGIC, at):
                yield base + at


def _magic_blocks(fd: int, start: int, end: int) -> Iterator[int]:
    """Block by block, where a block cannot be read: the others may be sound."""
    for offset in range(start, end, BLOCK):
        with contextlib.suppress(OSError):
            if os.pread(fd, len(RECORD_MAGIC), offset) == RECORD_MAGIC:
                yield offset


def _record(fd: int, header: RecordHeader, large_directory: Path, *, sync: bool) -> Recovered:
    meta, damage = _description(fd, header)
    ref = header.ref
    if header.large:
        damaged_data = _check_large(large_path(large_directory, header.id), ref, sync=sync)
    else:
        damaged_data = _check(fd, ref)
    unsure = not damage and may_pass(damaged_data)
    damage = ", ".join(filter(None, (damage, damaged_data)))
    return Recovered(ref, meta, header.end, header.moved, damage, header.origin, unsure=unsure)


def _description(fd: int, header: RecordHeader) -> tuple[InstanceMeta, str]:
    """What is stored beside the data set, and what is wrong with it.  Raises OSError."""
    try:
        raw = system.read_all(fd, header.meta_length, header.offset + RECORD_HEADER_SIZE)
        if len(raw) == header.meta_length and crc32(raw) == header.meta_crc:
            return InstanceMeta.from_bytes(raw), ""
        damage = "damaged description"
    except ValueError as error:
        damage = str(error)
    # Whose it was and where it was to go is lost, not that it was here: it must stay visible.
    return InstanceMeta(os.fstat(fd).st_mtime, "", "", "", "", "", "", "", ""), damage


def _check_large(path: Path, ref: Ref, *, sync: bool) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return f"its file {path.name} is missing"
    except OSError as error:
        return f"its file {path.name} cannot be opened: {error.strerror}"
    try:
        if sync:
            system.sync_data(fd)
        return _check(fd, ref)
    except OSError as error:
        return f"its file {path.name} cannot be synced: {error.strerror}"
    finally:
        system.close(fd)


def _check(fd: int, ref: Ref) -> str:
    crc, at, end = 0, ref.data_offset, ref.data_offset + ref.length
    while at < end:
        try:
            chunk = os.pread(fd, min(_CHUNK, end - at), at)
        except OSError as error:
            return f"unreadable at byte {at - ref.data_offset}: {error.strerror}"
        if not chunk:
            return f"ends after {at - ref.data_offset} of {ref.length} bytes"
        crc = crc32(chunk, crc)
        at += len(chunk)
    return "" if crc == ref.crc else f"CRC-32 is {crc:08x}, {ref.crc:08x} was committed"


def check_record(path: Path | None, ref: Ref, large_directory: Path) -> str:
    """What is wrong with the record and the data set of `ref`; "" when both are sound.

    `path` is the segment of its generation, None where there is none.
    """
    file = large_path(large_directory, ref.id)
    trouble = f"the segment of generation {ref.generation} is missing"
    if path is not None:
        try:
            with system.translated(f"reading segment {path.name}"):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                header, _ = read_header_and_meta(fd, ref)
                figures = (header.generation, header.data_offset, header.length, header.crc)
                if figures != (ref.generation, ref.data_offset, ref.length, ref.crc):
                    return "the index has other figures of it than its record"
                if not ref.large:
                    return _check(fd, ref)
                trouble = ""
            finally:
                system.close(fd)
        except SpoolError as error:
            trouble = str(error).removeprefix(f"instance {ref.id}: ")
    damaged_data = _check_large(file, ref, sync=False) if ref.large else ""
    return ", ".join(filter(None, (trouble, damaged_data)))


def may_pass(damage: str) -> bool:
    """Whether that is what the disk did not give now, and may give another time."""
    return any(why in damage for why in _MAY_PASS)


def write_again(path: Path, stretches: Sequence[tuple[int, int]]) -> str:
    """Write what a segment shows, from one offset to another, to where it is, durably; why not all
    of it is on the disk for certain, "" where it is."""
    why = ""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            for start, end in stretches:
                try:
                    system.write_all(fd, [system.read_all(fd, end - start, start)], start)
                except OSError as error:  # the others are written all the same, and synced
                    why = error.strerror or str(error)
            system.sync_data(fd)
        finally:
            system.close(fd)
    except OSError as error:
        why = error.strerror or str(error)
    return why


def is_of(header: RecordHeader, ref: Ref) -> bool:
    """Whether a record is the one that was given another number, since its own was another's."""
    figures = (header.generation, header.offset, header.length, header.crc, header.large)
    return figures == (ref.generation, ref.offset, ref.length, ref.crc, ref.large)


def read_header_and_meta(segment_fd: int, ref: Ref) -> tuple[RecordHeader, bytes]:
    """The header of a record and its description, both checked.  Raises SpoolError."""
    with system.translated(f"reading instance {ref.id}"):
        header = RecordHeader.from_bytes(os.pread(segment_fd, RECORD_HEADER_SIZE, ref.offset))
        if header is None or (header.id != ref.id and not is_of(header, ref)):
            raise SpoolDamaged(f"instance {ref.id}: no sound record at its place")
        raw = system.read_all(segment_fd, header.meta_length, ref.offset + RECORD_HEADER_SIZE)
    if crc32(raw) != header.meta_crc:
        raise SpoolDamaged(f"instance {ref.id}: damaged description")
    return header, raw
