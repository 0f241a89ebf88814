"""Lives of a spool on a disk that loses its power, and what must be left of them.

Owns the random work of one life, the mixes of it, and the check after a cut: what was
acknowledged is there, whole, once; nothing else is served for it.
"""

import random
import shutil
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from router.spool.errors import SpoolDamaged
from router.spool.index_types import DeliveryState, Disposition, Filter, Outcome
from router.spool.record import InstanceMeta, Position, Ref
from tests.spool.index_copies import index_bytes
from tests.spool.power import Recorder
from tests.spool.spool_samples import KIB, Loop, Rig, meta, payload, settings

CUTS_OF_A_LIFE = 4
LIVES = 3
CUTS = CUTS_OF_A_LIFE * LIVES
"""Of one `play`."""

POSSIBLE = ("newest", "any")
INDEXES = (*POSSIBLE, "any", "none", "copy of before")


@dataclass(frozen=True)
class Mix:
    """What a spool does mostly: settings, sizes of instances, weights of the acts."""

    settings: dict[str, object] = field(default_factory=dict)
    sizes: tuple[int, ...] = (0, 10, 3000, 40_000, 130_000, 200_000, 420_000)
    acts: dict[str, int] = field(default_factory=dict)
    group: tuple[int, ...] = (1, 1, 2, 5)


_ACTS = {"commit": 8, "abandon": 1, "feed": 4, "settle": 3, "upkeep": 4, "seal": 1, "busy": 2}

MIXES = {
    "mixed": Mix(),
    "receiving": Mix(
        sizes=(0, 10, 900, 5000, 17_000, 40_000),
        acts={"commit": 20, "settle": 1, "upkeep": 1},
        group=(1, 2, 5, 20),
    ),
    "recycling": Mix(
        settings={"segment_size": 64 * KIB, "large_instance": 16 * KIB},
        sizes=(10, 3000, 9000, 15_000),
        acts={"settle": 8, "upkeep": 8, "feed": 8},
    ),
    "compacting": Mix(
        sizes=(10, 3000, 9000, 40_000),
        acts={"settle": 10, "upkeep": 6, "feed": 8, "seal": 5},
        group=(5, 10),
    ),
    "large": Mix(sizes=(70_000, 200_000, 420_000, 700_001), acts={"settle": 4, "abandon": 4}),
    "scarce memory": Mix(settings={"receive_memory": 128 * KIB}, group=(3, 5)),
    "growing": Mix(
        settings={"spare_segments": 3, "segment_size": 128 * KIB, "large_instance": 32 * KIB},
        acts={"busy": 10},
    ),
    "wiping": Mix(
        settings={"wipe": True, "segment_size": 64 * KIB, "large_instance": 16 * KIB},
        sizes=(10, 3000, 9000, 30_000),
        acts={"settle": 8, "upkeep": 8, "feed": 8},
    ),
    "keeping": Mix(settings={"keep_settled": 1e10}, acts={"settle": 8, "feed": 8}),
}


@dataclass
class Truth:
    """What a sender knows, and what an operator may expect."""

    sent: dict[str, tuple[bytes, InstanceMeta]] = field(default_factory=dict)
    """By SOP Instance UID, which are unique here."""
    acked: list[tuple[int, str]] = field(default_factory=list)
    settled: list[tuple[int, str]] = field(default_factory=list)
    """(moment, UID): acknowledged; settled everywhere, so that it may go."""
    kept: set[str] = field(default_factory=set)
    """Acknowledged before an earlier cut, or there after it."""
    of_before: int = 0
    """How many were sent before the latest cut."""


class Life:
    """One run of the spool on a recorded disk, until the power fails."""

    def __init__(
        self, directory: Path, loop: Loop, chance: random.Random, truth: Truth, mix: Mix
    ) -> None:
        self.directory = directory
        self.chance = chance
        self.truth = truth
        self.loop = loop
        self.mix = mix
        self.snapshots: list[tuple[int, bytes]] = []
        self.barriers: list[int] = [0]
        self.gone_before: set[str] = set()
        self.recorder = Recorder(directory)
        self.ids: dict[int, str] = {}
        self._acts: dict[str, Callable[[Rig], None]] = {
            "commit": self._commit,
            "abandon": self._abandon,
            "feed": self._feed,
            "settle": self._settle,
            "upkeep": self._upkeep,
            "seal": self._seal,
            "busy": self._busy,
        }

    def run(self, actions: int) -> None:
        with self.recorder.recording():
            rig = Rig(self.directory, self.loop, settings(**self.mix.settings))
            try:
                barrier = rig.index.barrier

                def barring() -> None:
                    barrier()
                    self.snapshot()
                    self.barriers.append(self.snapshots[-1][0])

                rig.index.barrier = barring  # type: ignore[method-assign]
                self.snapshot()
                rig.start()
                # It may go on with an older index, which names what was given up long since.
                self.gone_before = gone(rig)
                rig.keeper.sweep()
                for row in rig.index.instances(Filter(), 10_000):
                    self.ids[row.ref.id] = row.meta.sop_instance_uid
                self.snapshot()
                weights = _ACTS | self.mix.acts
                names = self.chance.choices(list(weights), list(weights.values()), k=actions)
                for name in names:
                    self._acts[name](rig)
            finally:
                rig.close()

    def snapshot(self) -> None:
        """The index as it is at this moment."""
        self.snapshots.append((self.recorder.now(), index_bytes(self.directory / "index.sqlite")))

    def _commit(self, rig: Rig, meanwhile: Callable[[Rig], None] | None = None) -> None:
        count = self.chance.choice(self.mix.group)
        told: list[int] = []
        for _ in range(count):
            number = len(self.truth.sent)
            data = payload(number, self.chance.choice(self.mix.sizes))
            what = meta(number, *self.chance.choice([("pacs",), ("pacs", "vna"), ()]))
            uid = what.sop_instance_uid
            self.truth.sent[uid] = (data, what)
            arriving = rig.begin()
            for at in range(0, len(data), 50_000):
                arriving.append(memoryview(data)[at : at + 50_000])

            def done(
                ref: Ref | None, end: Position | None, error: object, what: InstanceMeta = what
            ) -> None:
                assert ref is not None, error
                assert end is not None
                told.append(ref.id)
                self.ids[ref.id] = what.sop_instance_uid
                self.truth.acked.append((self.recorder.now(), what.sop_instance_uid))
                rig.ends.append((ref, what, end))

            arriving.commit(what.to_bytes(), done)
        if meanwhile is not None:
            meanwhile(rig)
        self.loop.run_until(lambda: len(told) == count)

    def _busy(self, rig: Rig) -> None:
        """Upkeep while a group is being committed."""
        self._commit(rig, self._upkeep)

    def _abandon(self, rig: Rig) -> None:
        arriving = rig.begin()
        arriving.append(memoryview(payload(0, self.chance.choice(self.mix.sizes))))
        arriving.abandon()

    def _feed(self, rig: Rig) -> None:
        rig.feed()
        self.snapshot()

    def _settle(self, rig: Rig) -> None:
        rows = rig.index.instances(Filter(), 10_000)
        for row in self.chance.sample(rows, min(len(rows), 6)):
            uid = row.meta.sop_instance_uid
            if row.disposition in (Disposition.HELD, Disposition.QUARANTINED):
                rig.index.discard_held(Filter(ids=(row.ref.id,)), "enough", at=1.0)
            else:
                rig.index.settle(
                    [
                        Outcome(row.ref.id, route.destination, DeliveryState.DELIVERED, 1.0)
                        for route in rig.row(row.ref.id).meta.routes
                    ]
                )
            self.truth.settled.append((self.recorder.now(), uid))
        self.snapshot()

    def _upkeep(self, rig: Rig) -> None:
        trouble = rig.step().trouble
        # What an earlier cut tore, unacknowledged, is held, and told whenever it stands in the way.
        held = rig.index.instances(Filter(disposition=Disposition.QUARANTINED), 10_000)
        for line in filter(None, trouble.split("; ")):
            assert any(line.startswith(f"instance {row.ref.id}: ") for row in held), line
        self.snapshot()

    def _seal(self, rig: Rig) -> None:
        # As after a failed group; otherwise a small workload fills few segments.
        future = rig.spool.executor.submit(rig.spool.segments.seal)
        future.add_done_callback(lambda _: self.loop.post(lambda: None))
        self.loop.run_until(future.done)

    # -- the cut -----------------------------------------------------------------------------------

    def cut(self, at: int, to: Path, which: str) -> None:
        """Leave under `to` what the power cut at `at` leaves, with an index of some age.

        SQLite with ``synchronous=NORMAL`` may lose its latest transactions and is sound: the
        index is that of any moment since the last barrier, or worse, as `which` says.
        """
        self.recorder.cut(at, self.chance, to)
        times = [time for time, _ in self.snapshots]
        newest = bisect_right(times, at) - 1
        barrier = max(time for time in self.barriers if time <= at)
        oldest = next((n for n, time in enumerate(times) if time >= barrier), 0)
        if which == "none" or newest < 0:
            return
        first = 0 if which == "copy of before" else min(oldest, newest)
        chosen = newest if which == "newest" else self.chance.randint(first, newest)
        (to / "index.sqlite").write_bytes(self.snapshots[chosen][1])


def gone(rig: Rig) -> set[str]:
    """The segments that the index names and that are not there."""
    lines = [line for line in rig.report.damage if line.startswith("the segment")]
    return {line.partition(" is missing")[0] for line in lines}


def check(rig: Rig, truth: Truth, at: int, which: str, gone_before: set[str]) -> None:
    """What was acknowledged by `at` and was not settled is there once, with its bytes.

    An index that no power cut leaves, as `which` says, may name what is gone.
    """
    if which in POSSIBLE:
        assert gone(rig) <= gone_before, "a segment that the index names was given up"
    rows = rig.index.instances(Filter(), 10_000)
    acked = {uid for time, uid in truth.acked if time <= at}
    sound: dict[str, int] = {}
    for row in rows:
        uid = row.meta.sop_instance_uid
        if not uid:  # its description is lost: known by its number alone
            assert row.disposition is Disposition.QUARANTINED
            continue
        data, what = truth.sent[uid]
        try:
            served = rig.read(row.ref)
        except SpoolDamaged:
            assert which not in POSSIBLE or uid not in acked, f"{uid}: its bytes are gone, not it"
            continue
        assert served == data, f"{uid}: other bytes were served"
        if row.disposition is not Disposition.QUARANTINED:
            sound[uid] = sound.get(uid, 0) + 1
            found = rig.row(row.ref.id).meta
            assert {r.destination for r in found.routes} == {r.destination for r in what.routes}
            assert (found.calling_ae, found.received_at) == (what.calling_ae, what.received_at)
    assert all(count == 1 for count in sound.values()), "an instance is there twice"
    # Neither acknowledged nor there after an earlier cut: its sender has sent it again.
    lost = set(list(truth.sent)[: truth.of_before]) - truth.kept
    stale = lost.intersection(row.meta.sop_instance_uid for row in rows)
    assert not stale, f"{stale} of an earlier life, never acknowledged, came up again"
    settled = {uid for time, uid in truth.settled if time <= at}
    for uid in acked - settled:
        assert uid in sound, f"{uid} was acknowledged and is lost at {at}"
    assert rig.index.account(audit=True).differences == {}
    # What a cut leaves is never taken for a file that is gone, or that somebody put back.
    odd = [note for note in rig.spool.notes if "is missing" in note or "earlier time" in note]
    assert not odd, f"what was cut is missed: {odd}"


def forget_after(truth: Truth, at: int, rig: Rig) -> None:
    """The world after a cut: what was acknowledged before it counts from the beginning."""
    settled = {uid for time, uid in truth.settled if time <= at}
    present = {row.meta.sop_instance_uid for row in rig.index.instances(Filter(), 10_000)}
    truth.kept |= present | {uid for time, uid in truth.acked if time <= at}
    truth.acked = [(0, uid) for time, uid in truth.acked if time <= at and uid not in settled]
    truth.settled = [(0, uid) for uid in settled if uid in present]
    truth.of_before = len(truth.sent)


def play(directory: Path, loop: Loop, seed: int, mix: str = "mixed") -> int:
    """Some lives of one spool, each ended by a power cut; some other ends of each are tried.

    Returns how many cuts were made.  The first life begins with an empty directory; every other
    with what a cut left, and half of them with its recovery: so that is cut as well.
    """
    chance = random.Random(f"{mix} {seed}")
    truth = Truth()
    home = directory / "life0"
    home.mkdir(parents=True)
    cuts = 0
    for number in range(LIVES):
        life = Life(home, loop, chance, truth, MIXES[mix])
        life.run(chance.randrange(5, 25))
        after, raw = directory / "after", directory / f"life{number + 1}"
        # The latest end is that from which the next life goes on.
        moments = sorted(chance.randint(1, life.recorder.time) for _ in range(CUTS_OF_A_LIFE))
        for turn, at in enumerate(moments):
            shutil.rmtree(after, ignore_errors=True)
            which = chance.choice(INDEXES)
            life.cut(at, after, which)
            last = turn == len(moments) - 1
            if last and (unrecovered := chance.random() < 0.5):
                shutil.copytree(after, raw)
            rig = Rig(after, loop, settings(**life.mix.settings)).start()
            rig.keeper.sweep()
            check(rig, truth, at, which, life.gone_before)
            if last:
                forget_after(truth, at, rig)
            rig.close()
            cuts += 1
        if not unrecovered:
            after.rename(raw)
        shutil.rmtree(home)
        home = raw
    return cuts
