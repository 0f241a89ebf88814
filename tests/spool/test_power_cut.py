"""Power cuts at random moments of random work: what was acknowledged is there, whole, once.

``DCMROUTER_POWER_CUTS`` sets how many; 40 by default.
"""

import os
import random
import shutil
import sqlite3
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from router.spool import system
from router.spool.errors import SpoolDamaged
from router.spool.index_types import DeliveryState, Disposition, Filter, Outcome
from router.spool.record import InstanceMeta, Position, Ref
from tests.spool.power import File, Recorder, contents
from tests.spool.spool_samples import Loop, Rig, meta, payload, settings

CUTS = int(os.environ.get("DCMROUTER_POWER_CUTS", "40"))
CUTS_OF_A_LIFE = 4
LIVES = 3
SIZES = (0, 10, 3000, 40_000, 130_000, 200_000, 420_000)


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

    def __init__(self, directory: Path, loop: Loop, chance: random.Random, truth: Truth) -> None:
        self.directory = directory
        self.chance = chance
        self.truth = truth
        self.loop = loop
        self.snapshots: list[tuple[int, bytes]] = []
        self.barriers: list[int] = [0]
        self.recorder = Recorder(directory / "spool")
        self.ids: dict[int, str] = {}

    def run(self, actions: int) -> None:
        with self.recorder.recording():
            rig = Rig(self.directory, self.loop, settings(wipe=False))
            try:
                barrier = rig.index.barrier

                def barring() -> None:
                    barrier()
                    self.barriers.append(self.recorder.now())
                    self.snapshot()

                rig.index.barrier = barring  # type: ignore[method-assign]
                self.snapshot()
                rig.start()
                rig.keeper.sweep()
                for row in rig.index.instances(Filter(), 10_000):
                    self.ids[row.ref.id] = row.meta.sop_instance_uid
                self.snapshot()
                for _ in range(actions):
                    self._act(rig)
            finally:
                rig.close()

    def snapshot(self) -> None:
        """The index as it is at this moment."""
        with sqlite3.connect(self.directory / "index.sqlite") as connection:
            self.snapshots.append((self.recorder.now(), connection.serialize()))
        connection.close()

    def _act(self, rig: Rig) -> None:
        act = self.chance.choices(
            [self._commit, self._abandon, self._feed, self._settle, self._upkeep, self._seal],
            [8, 1, 4, 3, 4, 1],
        )[0]
        act(rig)

    def _commit(self, rig: Rig) -> None:
        count = self.chance.choice([1, 1, 2, 5])
        told = []
        for _ in range(count):
            number = len(self.truth.sent)
            data = payload(number, self.chance.choice(SIZES))
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
        self.loop.run_until(lambda: len(told) == count)

    def _abandon(self, rig: Rig) -> None:
        arriving = rig.begin()
        arriving.append(memoryview(payload(0, self.chance.choice(SIZES))))
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
        position = rig.index.indexed_position()
        assert position is None or position.generation > 0
        future = rig.spool.executor.submit(rig.spool.segments.seal)
        future.add_done_callback(lambda _: self.loop.post(lambda: None))
        self.loop.run_until(future.done)

    # -- the cut -----------------------------------------------------------------------------------

    def cut(self, at: int, to: Path, which: str) -> None:
        """Leave under `to` what the power cut at `at` leaves, with an index of some age."""
        self.recorder.cut(at, self.chance, to / "spool")
        times = [time for time, _ in self.snapshots]
        newest = bisect_right(times, at) - 1
        # Behind a barrier the index cannot fall; since then SQLite promises nothing.
        barrier = max(time for time in self.barriers if time <= at)
        oldest = next((n for n, time in enumerate(times) if time >= barrier), 0)
        if which == "none" or newest < 0:
            return
        first = 0 if which == "copy of before" else min(oldest, newest)
        chosen = newest if which == "newest" else self.chance.randint(first, newest)
        (to / "index.sqlite").write_bytes(self.snapshots[chosen][1])


def check(rig: Rig, truth: Truth, at: int) -> None:
    """What was acknowledged by `at` and was not settled is there once, with its bytes."""
    rows = rig.index.instances(Filter(), 10_000)
    sound: dict[str, int] = {}
    for row in rows:
        uid = row.meta.sop_instance_uid
        data, what = truth.sent[uid]
        try:
            served = rig.read(row.ref)
        except SpoolDamaged:
            continue
        assert served == data, f"{uid}: other bytes were served"
        if row.disposition is not Disposition.QUARANTINED:
            sound[uid] = sound.get(uid, 0) + 1
            routes = {route.destination for route in rig.row(row.ref.id).meta.routes}
            assert routes == {route.destination for route in what.routes}
    assert all(count == 1 for count in sound.values()), "an instance is there twice"
    # Neither acknowledged nor there after an earlier cut: its sender has sent it again.
    lost = set(list(truth.sent)[: truth.of_before]) - truth.kept
    stale = lost.intersection(row.meta.sop_instance_uid for row in rows)
    assert not stale, f"{stale} of an earlier life, never acknowledged, came up again"
    settled = {uid for time, uid in truth.settled if time <= at}
    for time, uid in truth.acked:
        if time <= at and uid not in settled:
            assert uid in sound, f"{uid} was acknowledged at {time} and is lost at {at}"
    assert rig.index.account(audit=True).differences == {}


def forget_after(truth: Truth, at: int, rig: Rig) -> None:
    """The world after a cut: what was acknowledged before it counts from the beginning."""
    settled = {uid for time, uid in truth.settled if time <= at}
    present = {row.meta.sop_instance_uid for row in rig.index.instances(Filter(), 10_000)}
    truth.kept |= present | {uid for time, uid in truth.acked if time <= at}
    truth.acked = [(0, uid) for time, uid in truth.acked if time <= at and uid not in settled]
    truth.settled = [(0, uid) for uid in settled if uid in present]
    truth.of_before = len(truth.sent)


def play(directory: Path, loop: Loop, seed: int) -> None:
    """Some lives of one spool, each ended by a power cut; some other ends of each are tried."""
    chance = random.Random(seed)
    truth = Truth()
    home = directory / "life0"
    Rig(home, loop, settings()).close()
    for number in range(LIVES):
        life = Life(home, loop, chance, truth)
        life.run(chance.randrange(5, 25))
        after = directory / "after"
        # The latest end is that from which the next life goes on.
        moments = sorted(chance.randint(1, life.recorder.time) for _ in range(CUTS_OF_A_LIFE))
        for turn, at in enumerate(moments):
            shutil.rmtree(after, ignore_errors=True)
            which = chance.choice(["none", "newest", "any", "any", "copy of before"])
            life.cut(at, after, which)
            rig = Rig(after, loop, settings()).start()
            rig.keeper.sweep()
            check(rig, truth, at)
            if turn == len(moments) - 1:
                forget_after(truth, at, rig)
            rig.close()
        shutil.rmtree(home)
        home = directory / f"life{number + 1}"
        after.rename(home)


@pytest.mark.parametrize("seed", range(max(1, CUTS // (LIVES * CUTS_OF_A_LIFE))))
def test_power_cuts(tmp_path: Path, loop: Loop, seed: int) -> None:
    play(tmp_path, loop, seed)
    shutil.rmtree(tmp_path)


# -- does the simulation lose what it should? ------------------------------------------------------


def test_a_spool_that_does_not_sync_is_found_out(
    tmp_path: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "sync_data", lambda _: None)

    def play_some() -> None:
        for seed in range(8):
            play(tmp_path / str(seed), loop, seed)

    with pytest.raises(AssertionError, match="is lost"):
        play_some()


def test_a_spool_that_does_not_sync_names_is_found_out(
    tmp_path: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "sync_directory", lambda _: None)

    def play_some() -> None:
        for seed in range(8):
            play(tmp_path / str(seed), loop, seed)

    with pytest.raises(AssertionError, match="is lost"):
        play_some()


def test_what_a_cut_leaves_of_a_file() -> None:
    file = File(b"a" * 8192)
    file.writes.append((1, 0, b"b" * 4096))
    file.syncs.append((2, 3))
    file.writes.append((4, 4096, b"c" * 4096))
    before, after = set(), set()
    for seed in range(60):
        chance = random.Random(seed)
        before.add(contents(file, 2, chance)[:1])
        got = contents(file, 4, chance)
        assert got[:4096] == b"b" * 4096, "what was synced is gone"
        assert set(got[4096:]) <= {ord("a"), ord("c")}
        after.add(got[4096:])
    assert before == {b"a", b"b"}
    assert len(after) > 3, "no torn blocks"
