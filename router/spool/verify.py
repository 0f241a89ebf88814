"""Reads everything that the spool holds and compares it with the index.

Owns what is called sound, damaged, missing, orphaned and stale.  Changes nothing and takes no
lock, so it may run beside a gateway: then segments are written, recycled and compacted meanwhile,
and whatever looks wrong is looked at again, with the index asked anew, before it is told.
Blocking; in memory there are one segment's findings and a page of the index at a time.
"""

import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from router.spool import recovery, system, unread
from router.spool.errors import IndexDamaged, SpoolError
from router.spool.index_types import Disposition
from router.spool.index_view import IndexView, Row
from router.spool.layout import BLOCK, SegmentHeader
from router.spool.rebuild import was_purged
from router.spool.record import Position, Ref
from router.spool.recovery import Damage, Recovered
from router.spool.roll import Roll
from router.spool.segment import Segment
from router.spool.verify_report import FINDINGS_KEPT, Finding, Report, SegmentReport
from router.spool.writer import large_number, large_path

_LOOKS = 3


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    size: int
    header: SegmentHeader | None
    trouble: str = ""
    blank: bool = False
    """The header was not written yet: it is being made, or that was broken off."""


@dataclass(slots=True)
class _Pass:
    """What one reading of a segment found, before it is looked at again."""

    report: SegmentReport
    suspects: list[int] = field(default_factory=list)
    strays: list[Recovered] = field(default_factory=list)
    gaps: list[Damage] = field(default_factory=list)


def verify(
    directory: Path, index: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> Report:
    """Read the spool in `directory` and compare it with the file `index`.

    `progress(done, total)` is told bytes.  Raises SpoolError when the directory cannot be read or
    the index is of another version.
    """
    report = Report()
    view = _view(index, report)
    try:
        _Verification(directory, view, report, progress).run()
    finally:
        if view is not None:
            view.close()
    return report


def _view(index: Path, report: Report) -> IndexView | None:
    if not system.exists(index):
        return None
    view = None
    try:
        view = IndexView(index)
        report.index = view.damage()
    except IndexDamaged as error:
        report.index = str(error)
    if report.index and view is not None:
        view.close()
        view = None
    return view


class _Verification:
    """One run of `verify`."""

    def __init__(
        self,
        directory: Path,
        view: IndexView | None,
        report: Report,
        progress: Callable[[int, int], None],
    ) -> None:
        self._segments = directory / "segments"
        self._large = directory / "large"
        self._view = view
        self._report = report
        self._progress = progress
        self._lives: dict[int, Path] = {}
        self._looked = False
        self._orphans: list[tuple[SegmentReport, Finding, Recovered]] = []
        self._orphaned_ids: set[int] = set()
        self._done = self._total = 0

    def run(self) -> None:
        with system.translated(f"reading the spool in {self._segments.parent}"):
            files = self._look(told=True)
            large = self._large_files()
        self._total = sum(f.size for f in files) + sum(size for _, size in large.values())
        self._report.large_files = len(large)
        self._report.large_bytes = sum(size for _, size in large.values())
        for file in files:
            self._looked = False
            part = self._segment(file)
            if part is not None:
                self._report.segments.append(part)
            self._step(file.size)
        for generation in sorted(self._view.generations()) if self._view is not None else ():
            if generation not in self._lives:
                self._missing_segment(generation)
        self._tell_missed()
        self._tell_orphans()
        self._orphaned_files(large)
        orphaned = any(part.orphaned for part in self._report.segments)
        if self._view is None and not self._report.index and orphaned:
            self._report.index = "there is none"

    def _step(self, count: int) -> None:
        self._done = min(self._done + count, self._total)
        self._progress(self._done, self._total)

    # -- what there is -------------------------------------------------------------------------

    def _look(self, *, told: bool = False) -> list[_File]:
        """The segment files, and anew the lives that they are in.  Raises OSError."""
        lives: dict[int, Path] = {}
        files: list[_File] = []
        for path in sorted(self._segments.iterdir()):
            if path.suffix != ".seg" or not path.stem.isdecimal():
                if told:
                    self._stale(f"segments/{path.name}", "is not a file of this spool")
                continue
            file = _open(path)
            if file is None:
                continue  # given back meanwhile
            files.append(file)
            generation = self._generation(file)
            if generation:
                other = lives.setdefault(generation, path)
                if other != path and self._sound_in(path, generation) > self._sound_in(
                    other, generation
                ):
                    lives[generation] = path  # as the gateway chooses
        self._lives = lives
        return files

    def _sound_in(self, path: Path, generation: int) -> int:
        segment = Segment(path, 0, path.stat().st_size, generation)
        try:
            return recovery.count_sound(segment, self._large)
        except SpoolError:
            return 0

    @staticmethod
    def _generation(file: _File) -> int:
        """That of its header, or else of its records; 0 for none."""
        if file.header is not None:
            return file.header.generation
        try:
            return recovery.generation_of(file.path)
        except SpoolError:
            return 0

    def _large_files(self) -> dict[int, tuple[Path, int]]:
        found: dict[int, tuple[Path, int]] = {}
        for path in sorted(self._large.iterdir()) if system.is_directory(self._large) else ():
            number = large_number(path)
            if number is None:
                self._stale(f"large/{path.name}", "is not a file of this spool")
                continue
            try:
                found[number] = path, path.stat().st_size
            except FileNotFoundError:
                continue  # purged meanwhile
        return found

    def _stale(self, where: str, what: str) -> None:
        self._report.add(Finding("stale", where, what))

    # -- a segment -----------------------------------------------------------------------------

    def _segment(self, file: _File) -> SegmentReport | None:
        """Read until it stays the same meanwhile; None when it is gone."""
        name = file.path.name
        for _ in range(_LOOKS):
            generation = self._generation(file)
            if not generation and (file.header is not None or file.blank):
                return SegmentReport(name, 0, file.size, "spare")
            trouble = file.trouble
            found = None
            try:
                if generation and self._lives.get(generation, file.path) == file.path:
                    found = self._read(file, generation)
            except SpoolError as error:
                trouble = str(error)
            now = _open(file.path)
            if now is None:
                return None
            if now.header == file.header:
                self._tell_header(file, generation, trouble)
                if found is not None:
                    self._judge(file, found)
                    return found.report
                if not generation or trouble:
                    return SegmentReport(name, generation, file.size, "unreadable", damaged=1)
                twin = self._lives[generation].name
                self._stale(f"segment {name}", f"is in generation {generation}, as {twin} is")
                return SegmentReport(name, generation, file.size, "left alone")
            file = now
        return SegmentReport(name, 0, file.size, "spare")  # in another life at every look

    def _tell_header(self, file: _File, generation: int, trouble: str) -> None:
        if trouble:
            what = f"cannot be read: {trouble}"
        elif file.header is None and generation:
            what = f"damaged header; its records are of generation {generation}"
        elif file.header is None:
            what = "damaged header, and no sound record"
        elif file.size < file.header.size:
            what = f"has been cut to {file.size} of {file.header.size} bytes"
        else:
            return
        self._report.add(Finding("damaged", f"segment {file.path.name}", what))

    def _read(self, file: _File, generation: int) -> _Pass:
        segment = Segment(file.path, 0, file.size, generation)
        found = _Pass(SegmentReport(file.path.name, generation, file.size, "in use"))
        part = found.report
        rows = self._view.instances(generation) if self._view is not None else iter(())
        row = next(rows, None)
        for record in recovery.scan(segment, 0, self._large, sync=False):
            offset = record.ref.offset if isinstance(record, Recovered) else record.offset
            end = offset + (record.length if isinstance(record, Damage) else 0)
            while row is not None and (row.ref.offset < offset or row.ref.offset < end):
                found.suspects.append(row.ref.id)  # nothing is at its place
                row = next(rows, None)
            if isinstance(record, Damage):
                found.gaps.append(record)
                continue
            if record.ref.large:
                self._step(record.ref.length)
            if row is None or row.ref.offset != offset:
                found.strays.append(record)
                continue
            if record.damage or record.ref != row.ref:
                found.suspects.append(row.ref.id)
            else:
                part.records += 1
                part.bytes += record.ref.length
                self._look_for_more(record.ref)
            row = next(rows, None)
        while row is not None:
            found.suspects.append(row.ref.id)
            row = next(rows, None)
        return found

    def _look_for_more(self, ref: Ref) -> None:
        """What somebody appended to a file costs nothing: it is never read."""
        path = large_path(self._large, ref.id)
        if not ref.large:
            return
        try:
            more = path.stat().st_size - ref.length
        except FileNotFoundError:  # purged meanwhile, or missed where that is told
            return
        if more > 0:
            self._stale(f"large/{path.name}", f"is {more} bytes longer than what was written")

    # -- what is to be made of it --------------------------------------------------------------

    def _judge(self, file: _File, found: _Pass) -> None:
        part = found.report
        if file.header is None or file.size < file.header.size:
            part.damaged += 1
        for instance_id in found.suspects:
            finding = self._look_again(instance_id)
            if finding is not None:
                self._report.add(finding)
                part.damaged += finding.kind == "damaged"
                part.missing += finding.kind == "missing"
        view = self._view
        position = view.position() if view is not None else None
        copied = view.copied_position() if view is not None else None
        for record in found.strays:
            self._stray(part, record, position, copied)
        for gap in found.gaps:
            self._gap(part, gap, position)
        if not (part.records or part.orphaned or part.damaged or part.missing):
            part.state = "ended"

    def _look_again(self, instance_id: int) -> Finding | None:
        """What is wrong with an instance, if it is twice, in one place and by one account of it."""
        assert self._view is not None
        seen: tuple[Row, Path | None] | None = None
        what = ""
        while True:  # ends: a gateway moves a record from segment to segment, not for ever
            row = self._view.instance(instance_id)
            if row is None or row.disposition is Disposition.DISCARDED:
                return None  # nobody is to have it
            path = self._path(row.ref.generation)
            what = recovery.check_record(path, row.ref, self._large)
            if not what:
                return None
            if seen == (row, path):
                break
            seen = row, path
        name = path.name if path is not None else f"of generation {row.ref.generation}"
        missing = "is missing" in what or "no sound record" in what
        return Finding(
            "missing" if missing else "damaged",
            f"segment {name}, byte {row.ref.offset}",
            what,
            instance_id,
            row.sop_instance_uid,
        )

    def _path(self, generation: int) -> Path | None:
        """The segment of a generation, by headers that are not older than the generation."""
        path = self._lives.get(generation)
        file = _open(path) if path is not None else None
        if file is not None and file.header is not None and file.header.generation == generation:
            return path
        new = generation > max(self._lives, default=0)
        if new or not self._looked:
            self._looked = True
            self._look()
        return self._lives.get(generation)

    def _stray(
        self,
        part: SegmentReport,
        record: Recovered,
        position: Position | None,
        copied: Position | None,
    ) -> None:
        """A record that the index did not name when its segment was read."""
        ref = record.ref
        row = self._view.instance(ref.id) if self._view is not None else None
        if row is not None and row.ref == ref and not record.damage:
            part.records += 1  # added meanwhile
            part.bytes += ref.length
            return
        let_go = position is not None and not position < record.end
        if row is not None or let_go or was_purged(record, position, copied):
            part.past += not record.damage
            return
        where = f"segment {part.name}, byte {ref.offset}"
        uid = record.meta.sop_instance_uid
        if record.damage and record.meta.disposition != "discard":
            part.damaged += 1
            what = f"{record.damage}; not in the index, and perhaps never acknowledged"
            self._report.add(Finding("damaged", where, what, ref.id, uid))
            return
        what = "not in the index: the gateway takes it up when it starts"
        finding = Finding("orphaned", where, what, ref.id, uid)
        part.orphaned += 1
        if ref.large:
            self._orphaned_ids.add(ref.id)
        if self._view is None or len(self._orphans) >= FINDINGS_KEPT:
            self._report.add(finding)
        else:
            self._orphans.append((part, finding, record))

    def _tell_orphans(self) -> None:
        """Those that the index has still not been told of, now that all has been read."""
        for part, finding, record in self._orphans:
            assert self._view is not None
            position = self._view.position()
            if position is not None and not position < record.end:
                part.orphaned -= 1
                part.records += 1
                part.bytes += record.ref.length
            else:
                self._report.add(finding)

    def _gap(self, part: SegmentReport, gap: Damage, position: Position | None) -> None:
        """A stretch without a sound record; instances that the index has there are told apart."""
        end = Position(part.generation, gap.offset + gap.length)
        if position is not None and not position < end:
            return  # the index knows of all that matters there
        if self._closed(part, gap):
            return
        part.damaged += 1
        where = f"segment {part.name}, byte {gap.offset}"
        what = f"{gap.length} bytes: {gap.what}; perhaps never acknowledged"
        self._report.add(Finding("damaged", where, what))

    def _closed(self, part: SegmentReport, gap: Damage) -> bool:
        """Whether a record has been written there since: a gateway was at it."""
        segment = Segment(self._segments / part.name, 0, part.size, part.generation)
        try:
            first = next(recovery.scan(segment, gap.offset, self._large, sync=False), None)
        except SpoolError:
            return False
        return isinstance(first, Recovered) and first.ref.offset == gap.offset

    # -- beside the segments -------------------------------------------------------------------

    def _missing_segment(self, generation: int) -> None:
        assert self._view is not None
        self._looked = False
        part = SegmentReport("", generation, 0, "missing")
        for row in self._view.instances(generation):
            finding = self._look_again(row.ref.id)
            if finding is not None:
                self._report.add(finding)
                part.missing += 1
        if part.missing:
            self._report.segments.append(part)

    def _tell_missed(self) -> None:
        """Files that the roll names and that are not there, or of an earlier time."""
        roll = Roll(self._segments.with_name(f"{self._segments.name}.roll"))
        try:
            notes = roll.load()
        except SpoolError as error:
            notes = [str(error)]
        for note in notes:
            self._report.add(Finding("damaged", "the roll", note))
        waited: Collection[str] = ()
        try:
            waited = unread.load(self._segments.parent).segments
        except SpoolError as error:
            self._report.add(Finding("damaged", unread.NAME, str(error)))
        for number, noted in sorted(roll.generations.items()):
            file = _open(self._segments / f"{number:08d}.seg")
            where = f"segment {number:08d}.seg"
            if file is None:
                again = Roll(roll.path)  # an entry goes before its file
                with contextlib.suppress(SpoolError):
                    again.load()
                waits = f"{number:08d}.seg" in waited
                if (noted or waits) and number in again.generations:
                    begun = f"in which generation {noted} was begun"
                    what = f"is missing, {begun if noted else 'which could not be read before'}"
                    self._report.add(Finding("missing", where, what))
            elif file.header and max(file.header.generation, file.header.past) < noted:
                what = f"is of an earlier time: generation {noted} was begun in it"
                self._report.add(Finding("missing", where, what))
            elif file.size < BLOCK and not file.trouble:
                self._report.add(Finding("damaged", where, f"has been cut to {file.size} bytes"))

    def _orphaned_files(self, large: dict[int, tuple[Path, int]]) -> None:
        """Files of instances that are neither in the index nor in a record that it will take."""
        if self._view is None:
            return
        for number, (path, size) in large.items():
            if number in self._orphaned_ids or self._view.instance(number) is not None:
                continue
            if system.exists(path):  # else it was purged meanwhile
                what = f"{size} bytes of no known instance: arriving, or never committed"
                self._report.add(Finding("orphaned", f"large/{path.name}", what, number))


def _open(path: Path) -> _File | None:
    """A segment's size and header; None when it is gone."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            block = file.read(BLOCK)
        return _File(path, size, SegmentHeader.from_bytes(block), blank=not any(block))
    except FileNotFoundError:
        return None
    except OSError as error:
        return _File(path, 0, None, error.strerror or str(error))
