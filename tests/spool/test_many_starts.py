"""Random lives of a spool: starts at which parts cannot be read or that are broken off, power cuts
that take the index back, an index that is lost.  In the end all can be read, and nothing is gone.

``DCMROUTER_STARTS=2000`` plays more of them.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from router.spool.errors import SpoolError
from router.spool.index import Index
from router.spool.index_seal import unseal
from router.spool.index_types import DeliveryState, Disposition, Filter, Outcome
from router.spool.record import Ref
from tests.spool.index_copies import index_bytes
from tests.spool.spool_samples import KIB, Loop, Rig, meta, payload, settings

FOUND = (888, 1119, 1304)
"""Seeds at which something was lost once."""
SEEDS = (*FOUND, *range(1, 1 + int(os.environ.get("DCMROUTER_STARTS", "60"))))
SIZES = (10, 3000, 9000, 15_000, 40_000, 70_000, 200_000)
SEGMENT = 64 * KIB
EVERYWHERE = (0, 1 << 60)


@dataclass
class BadDisk:
    """``blocks``: offsets that cannot be read, by the names of files; ``headers``: files of which
    the header cannot be read either."""

    blocks: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    headers: set[str] = field(default_factory=set)

    def heal(self) -> None:
        self.blocks.clear()
        self.headers.clear()

    def spoil(self, name: str, random: Random) -> None:
        kind = random.random()
        if kind < 0.3:
            self.blocks[name] = [EVERYWHERE]
            if random.random() < 0.5:
                self.headers.add(name)
        elif kind < 0.6:
            self.blocks[name] = [(0, 4096 * random.randint(1, 16))]
            self.headers.add(name)
        else:
            begin = 4096 * random.randint(0, 14)
            self.blocks[name] = [(begin, begin + 4096 * random.randint(1, 3))]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[BadDisk]:
    bad = BadDisk()
    pread, os_open, opening = os.pread, os.open, Path.open

    def failing_pread(fd: int, count: int, offset: int) -> bytes:
        name = Path(f"/proc/self/fd/{fd}").readlink().name if bad.blocks else ""
        if any(offset < end and offset + count > start for start, end in bad.blocks.get(name, ())):
            raise OSError(errno.EIO, "Input/output error")
        return pread(fd, count, offset)

    def failing_open(path: Any, *args: Any, **kwargs: Any) -> int:
        if EVERYWHERE in bad.blocks.get(Path(path).name, ()):
            raise OSError(errno.EIO, "Input/output error")
        return os_open(path, *args, **kwargs)

    def failing_file(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self.name in bad.headers:
            raise OSError(errno.EIO, "Input/output error")
        return opening(self, *args, **kwargs)

    # What is synced is not the matter here, and would cost most of the time.
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, os.fstat)
    monkeypatch.setattr(os, "pread", failing_pread)
    monkeypatch.setattr(os, "open", failing_open)
    monkeypatch.setattr(Path, "open", failing_file)
    yield bad
    bad.heal()


@dataclass
class Game:
    """``truth``: number and size by SOP Instance UID of all that was acknowledged; ``states``: the
    index as a power cut may leave it."""

    directory: Path
    loop: Loop
    disk: BadDisk
    random: Random
    truth: dict[str, tuple[int, int]] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)
    states: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        wipe = {"wipe": True} if self.random.random() < 0.2 else {}
        self.settings = settings(segment_size=SEGMENT, large_instance=16 * KIB, **wipe)

    def note(self) -> None:
        self.states.append(index_bytes(self.directory / "index.sqlite"))

    def start(self, *, bad: bool) -> Rig | None:
        """None when the start was broken off."""
        random, disk = self.random, self.disk
        disk.heal()
        if bad:
            for path in sorted((self.directory / "spool/segments").glob("*.seg")):
                if random.random() < 0.4:
                    disk.spoil(path.name, random)
        rig = Rig(self.directory, self.loop, self.settings)

        def barrier() -> None:
            Index.barrier(rig.index)
            self.states.clear()
            self.note()

        rig.index.barrier = barrier  # type: ignore[method-assign]
        if not self.states:
            self.note()
        if bad and random.random() < 0.4:
            return self._broken_off(rig, random.randint(0, 1))
        rig.start()
        self.note()
        rig.keeper.sweep()
        return rig

    def _broken_off(self, rig: Rig, after: int) -> Rig | None:
        add, left = rig.index.add, after

        def adding(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise SpoolError("full")
            return add(*args, **kwargs)

        rig.index.add = adding  # type: ignore[method-assign]
        try:
            rig.start()
        except SpoolError:
            self.end(rig)
            return None
        rig.index.add = add  # type: ignore[method-assign]
        self.note()
        return rig

    def act(self, rig: Rig) -> None:
        match self.random.choices("cfsuS", (8, 4, 4, 5, 2))[0]:
            case "c":
                for _ in range(self.random.choice((1, 1, 3))):
                    self._commit(rig)
            case "f":
                rig.feed()
                self.note()
            case "s":
                self._settle(rig)
                self.note()
            case "u":
                rig.step()
                self.note()
            case _:
                self.loop.in_thread(rig.spool.segments.seal)

    def _commit(self, rig: Rig) -> None:
        number, size = len(self.truth) + 1, self.random.choice(SIZES)
        what = meta(number, "pacs")
        kept: Ref = rig.commit(payload(number, size), what).kept
        assert rig.acked[kept.id][0] == payload(number, size)
        self.truth[what.sop_instance_uid] = number, size

    def _settle(self, rig: Rig) -> None:
        rows = rig.index.instances(Filter(), 10_000)
        routed = [row for row in rows if row.disposition is Disposition.ROUTED]
        for row in self.random.sample(routed, min(len(routed), 5)):
            rig.index.settle([Outcome(row.ref.id, "pacs", DeliveryState.DELIVERED, 1.0)])
            self.settled.add(row.meta.sop_instance_uid)

    def end(self, rig: Rig) -> None:
        """The process ends; perhaps the power fails, or the index is lost."""
        self.disk.heal()
        kind = self.random.random()
        rig.close()
        path = self.directory / "index.sqlite"
        if kind > 0.93:
            path.unlink()
        elif kind < 0.4 and self.states:
            path.write_bytes(self.random.choice(self.states))
            unseal(path)  # a cut comes before it is closed
        self.states.clear()

    def missing(self) -> list[str]:
        """What is not as it was acknowledged, after a start at which all can be read."""
        rig = self.start(bad=False)
        assert rig is not None
        rig.step()
        rows = {row.meta.sop_instance_uid: row for row in rig.index.instances(Filter(), 10_000)}
        found = [
            f"{uid}: {what}"
            for uid, (number, size) in self.truth.items()
            if uid not in self.settled and (what := self._wrong(rig, rows.get(uid), number, size))
        ]
        rig.close()
        return found

    def _wrong(self, rig: Rig, row: Any, number: int, size: int) -> str:
        if row is None:
            return "lost"
        if row.disposition is not Disposition.ROUTED:
            return f"{row.disposition.name}: {row.meta.reason}"
        try:
            return "" if rig.read(row.ref) == payload(number, size) else "other bytes"
        except SpoolError as error:
            return str(error)


def play(seed: int, directory: Path, disk: BadDisk) -> list[str]:
    game = Game(directory, Loop(), disk, Random(seed))
    for life in range(game.random.randint(2, 6)):
        rig = game.start(bad=bool(life) and game.random.random() < 0.7)
        if rig is None:
            continue
        disk.heal()
        for _ in range(game.random.randint(0, 14)):
            game.act(rig)
        game.end(rig)
    return game.missing()


def test_whatever_starts_could_not_read_is_there_in_the_end(tmp_path: Path, disk: BadDisk) -> None:
    failed = {}
    for seed in SEEDS:
        directory = tmp_path / str(seed)
        directory.mkdir()
        if missing := play(seed, directory, disk):
            failed[seed] = missing
        shutil.rmtree(directory)
    assert not failed
