"""What happens to a spool over its lives, one mishap after the other, and what is so in the end.

Owns the mishaps at rest, by name: what a disk or an operator does to the files between two lives.
Those of a start and of the life behind it are in `failing`.  All else is real;
the disk forgets what was not synced, over several lives, as `power` says, and the files of the
index as `lives_disk` says.
"""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

from router.spool.errors import SpoolError
from router.spool.index_seal import unseal
from router.spool.layout import RECORD_HEADER_SIZE, RecordHeader, SegmentHeader
from router.spool.roll import Roll
from tests.spool.failing import IN_LIFE, MANY_CALLS, Failing, FailingSeam
from tests.spool.index_copies import index_bytes
from tests.spool.lives_disk import IndexDisk
from tests.spool.power import BLOCK, Recorder
from tests.spool.scenario import Truth, lost
from tests.spool.short_life import ShortLife
from tests.spool.spool_samples import Loop

_BYTE_20 = 20
"""Of the index's first page: SQLite has no sum over how much of a page is kept free."""
_HEADER = 36


class Patient:
    """One spool, from its first life to its last."""

    def __init__(self, directory: Path, loop: Loop, random: Random) -> None:
        self.home = directory / "home"
        self.home.mkdir(parents=True)
        self.truth = Truth()
        self.history: list[str] = []
        self._directory = directory
        self._loop = loop
        self._random = random
        self._disk = Recorder(self.home)
        self._index_disk: IndexDisk | None = None
        self.told: list[str] = []
        self._flipped: dict[str, str] = {}
        """Of instances of which somebody changed a byte: what a word about it names."""
        self._away: dict[str, Path] = {}
        """Segments that come back, by their names."""
        self._put_back: set[str] = set()
        """Of those, what has one of an earlier time in its place."""
        self._earlier: dict[str, dict[int, bytes]] = {}
        """Segments as they once were, by name and generation."""
        self._yesterday = b""

    # -- lives

    def live(self, acts: int, failing: Failing = IN_LIFE["nothing"]) -> bool:
        """One start and what follows; whether it could start.

        Raises what a start, a life or a stop must not.
        """
        random = self._random
        first = int(random.random() ** 2 * failing.skip)
        seam = FailingSeam(self._disk, failing.picked, first, failing.count)
        seam.kills = failing.kills
        passes = failing.count == MANY_CALLS and random.random() < 0.8
        started = False
        with self._disk.recording(), seam.watching():
            try:
                life = ShortLife(self.home, self._loop, self.truth)
            except SpoolError as error:
                self.told.append(str(error))
                self._index_disk = None
            except Exception:
                if not seam.dead:
                    raise
                self._index_disk = None
            else:
                started = True
                self._live(life, seam, acts, passes=passes)
        if seam.dead and failing.cuts:
            self._cut()
        self.history.append(f"life of {acts}, {'' if started else 'not '}started")
        return started

    def _live(self, life: ShortLife, seam: FailingSeam, acts: int, *, passes: bool) -> None:
        self._watch(life, seam)
        if passes:
            seam.mend()
        for _ in range(acts):
            try:
                life.act(self._random)
            except SpoolError as error:
                self.told.append(str(error))
            except Exception:
                if not seam.dead:
                    raise
            if seam.dead:
                break
        self.told += [text for _, text in life.told]
        _close(life, seam)

    def _watch(self, life: ShortLife, seam: FailingSeam) -> None:
        """What the index's files are on the disk for certain is known from now on."""
        with seam.looking():
            disk = self._index_disk = IndexDisk(self.home)
        barrier = life.index.barrier

        def barring() -> None:
            barrier()
            with seam.looking():
                disk.synced()

        life.index.barrier = barring  # type: ignore[method-assign]

    def _cut(self) -> None:
        after = self._directory / "after"
        self._disk.cut(self._disk.now(), self._random, after)
        index = [path for path in self.home.glob("index.sqlite*") if path.suffix != ".sqlite-shm"]
        for path in index:
            shutil.copy2(path, after / path.name)
        if self._index_disk is not None:
            (after / "index.sqlite-wal").unlink(missing_ok=True)
            self._index_disk.files().cut(self._random, after)
        shutil.rmtree(self.home)
        after.rename(self.home)
        self._at_rest()

    # -- what happens at rest

    def happens(self, name: str) -> None:
        """Between two lives; nothing when there is nothing that it could happen to."""
        what = AT_REST[name](self)
        self.history.append(f"{name}: {what}")
        self._at_rest()

    def remember(self) -> None:
        """What is to be put back later, as of now."""
        for path, header in self._segments():
            life = max(header.generation, header.past)
            self._earlier.setdefault(path.name, {})[life] = path.read_bytes()
        self._yesterday = index_bytes(self.home / "index.sqlite")
        self._at_rest()

    def heal(self) -> None:
        """What was away is back."""
        for name, kept in self._away.items():
            place = self.home / "spool/segments" / name
            if name not in self._put_back:
                assert not place.exists(), f"{name} is away, and was given to another"
            shutil.copy2(kept, place)
        self._away.clear()
        self._put_back.clear()
        self._at_rest()

    def wrong(self) -> list[str]:
        """Two lives more, in which nothing happens: what is lost, or was served wrong."""
        for acts in (5, 0):
            life = self._surely()
            for _ in range(acts):
                life.act(self._random)
            self.told += [text for _, text in life.told]
            found = [line for line in lost(life) if not self._excused(line)]
            life.close()
        return found

    def _surely(self) -> ShortLife:
        """A start that succeeds, if need be after what it says is to be done."""
        try:
            return ShortLife(self.home, self._loop, self.truth)
        except SpoolError as error:
            if "unread: it is damaged; move it away together with index.sqlite" not in str(error):
                raise
            self.told.append(str(error))
        (self.home / "spool/unread").unlink()
        self._without_index()
        return ShortLife(self.home, self._loop, self.truth)

    def _excused(self, line: str) -> bool:
        """One of which a byte was changed may be held or gone, and somebody was told, or is now."""
        uid, _, what = line.partition(" ")
        name = self._flipped.get(uid.rstrip(":"))
        if name is None or "other bytes" in what:
            return False
        if "cannot be read" in what:
            return True
        instance = re.compile(rf"instance {self.truth.acked[uid.rstrip(':')].id}\b")
        return any(name in text or instance.search(text) for text in self.told)

    def _at_rest(self) -> None:
        """Nothing is open: what is there now is on the disk."""
        self._disk = Recorder(self.home)
        self._index_disk = None

    def _segments(self) -> list[tuple[Path, SegmentHeader]]:
        found = []
        for path in sorted((self.home / "spool/segments").glob("*.seg")):
            header = SegmentHeader.from_bytes(path.read_bytes()[:BLOCK])
            if header is not None and path.name not in self._away:
                found.append((path, header))
        return found

    def _used(self) -> list[tuple[Path, SegmentHeader]]:
        return [(path, header) for path, header in self._segments() if header.generation]

    def _records(self) -> list[tuple[Path, RecordHeader]]:
        found = []
        for path, segment in self._used():
            data = path.read_bytes()
            for at in range(BLOCK, len(data), BLOCK):
                header = RecordHeader.from_bytes(data[at : at + RECORD_HEADER_SIZE])
                if header and (header.generation, header.offset) == (segment.generation, at):
                    found.append((path, header))
        return found

    def _flip(self, path: Path, at: int) -> str:
        """A bit of one byte, by the disk itself: the time of the file stays."""
        before = path.stat()
        data = bytearray(path.read_bytes())
        data[at] ^= 1 << self._random.randrange(8)
        path.write_bytes(data)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return f"{path.name} at {at}"

    def _aside(self, path: Path) -> None:
        kept = self._away[path.name] = self._directory / "aside" / path.name
        kept.parent.mkdir(exist_ok=True)
        shutil.copy2(path, kept)

    def _missing(self) -> str:
        used = self._used()
        if not used:
            return ""
        path, _ = self._random.choice(used[-3:] if self._random.random() < 0.5 else used)
        self._aside(path)
        path.unlink()
        return path.name

    def _earlier_one(self) -> str:
        """Of a life before the latest in which anything was acknowledged: the roll knows that."""
        roll = Roll(self.home / "spool/segments.roll")
        roll.load()
        used = [
            (path, data)
            for path, header in self._used()
            for generation, data in self._earlier.get(path.name, {}).items()
            if generation < min(header.generation, roll.generations.get(int(path.stem), 0))
        ]
        if not used:
            return ""
        path, data = self._random.choice(used)
        self._aside(path)
        self._put_back.add(path.name)
        path.write_bytes(data)
        return path.name

    def _record_flips(self) -> str:
        records = self._records()
        if not records:
            return ""
        path, header = self._random.choice(records)
        size = RECORD_HEADER_SIZE + header.meta_length + (0 if header.large else header.length)
        within = RECORD_HEADER_SIZE if self._random.random() < 0.6 else size
        self._excuse(header.id, path.name)
        return self._flip(path, header.offset + self._random.randrange(within))

    def _excuse(self, number: int, name: str) -> None:
        for uid, ref in self.truth.acked.items():
            if ref.id == number:
                self._flipped[uid] = name

    def _large_flips(self) -> str:
        files = [path for path in (self.home / "spool/large").glob("*.dat") if path.stat().st_size]
        if not files:
            return ""
        path = self._random.choice(files)
        self._excuse(int(path.stem, 16), path.name)
        return self._flip(path, self._random.randrange(path.stat().st_size))

    def _header_flips(self) -> str:
        segments = self._segments()
        if not segments:
            return ""
        path, _ = self._random.choice(segments)
        return self._flip(path, self._random.randrange(_HEADER))

    def _file_flips(self, name: str) -> str:
        path = self.home / name
        size = path.stat().st_size if path.exists() else 0
        if name == "spool/segments.roll" and size:
            return self._flip(path, self._entry(path) + self._random.randrange(20))
        at = self._random.randrange(size) if size else 0
        if not size or (name == "index.sqlite" and at == _BYTE_20):
            return ""
        return self._flip(path, at)

    def _entry(self, roll: Path) -> int:
        """Where one of the roll is; rather that of a file that is away."""
        data = roll.read_bytes()
        entries = [at for at in range(0, len(data), 32) if any(data[at : at + 32])]
        numbers = {int(name.removesuffix(".seg")) for name in self._away}
        away = [at for at in entries if int.from_bytes(data[at : at + 8], "little") in numbers]
        return self._random.choice(away if away and self._random.random() < 0.7 else entries)

    def _without_index(self, data: bytes = b"") -> str:
        for path in self.home.glob("index.sqlite*"):
            path.unlink()
        if data:
            (self.home / "index.sqlite").write_bytes(data)
            unseal(self.home / "index.sqlite")
        return "of yesterday" if data else "gone"

    def _met_damaged(self) -> str:
        (self.home / "index.sqlite-damaged").write_text("a page")
        return "marked"


def _close(life: ShortLife, seam: FailingSeam) -> None:
    try:
        life.close()
    except Exception:
        if not seam.dead:
            raise


AT_REST: dict[str, Callable[[Patient], str]] = {
    "a segment is missing": Patient._missing,
    "a segment of earlier is put back": Patient._earlier_one,
    "a bit of a record flips": Patient._record_flips,
    "a bit of a large file flips": Patient._large_flips,
    "a bit of a segment's header flips": Patient._header_flips,
    "a bit of the roll flips": lambda one: one._file_flips("spool/segments.roll"),
    "a bit of the numbers flips": lambda one: one._file_flips("spool/numbers"),
    "a bit of what is unread flips": lambda one: one._file_flips("spool/unread"),
    "a bit of the index flips": lambda one: one._file_flips("index.sqlite"),
    "an index of yesterday": lambda one: one._without_index(one._yesterday),
    "no index": Patient._without_index,
    "an index that was met damaged": Patient._met_damaged,
}
