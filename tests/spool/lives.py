"""Random lives of a spool and its index, with all that may happen to a delivery.

Owns the acts of a life and its ends: duplicates and twins, routes with plans, destinations whose
host changes, answers that are lost, storage commitment, orders, a clock that is set, upkeep, and
stops, power cuts and lost indexes in between, at any moment of it.  What must be so when all is
over is in `lives_world`, what a cut leaves in `power` and `lives_disk`.
"""

import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from router.opening import open_index
from router.spool.errors import SpoolDamaged
from router.spool.index import Index
from router.spool.index_check import disagreement
from router.spool.index_commitments import Refusal, Transaction
from router.spool.index_duplicates import SameBytes
from router.spool.index_types import OPEN_STATES, DeliveryState, Disposition, Filter, Waiting
from router.spool.record import InstanceMeta, RouteMeta
from tests.spool.lives_disk import NAME, IndexDisk, IndexFiles, quiet
from tests.spool.lives_world import COMMITS, NAMES, NIGHT, PLANS, Moved, World
from tests.spool.power import Recorder
from tests.spool.spool_samples import KIB, Loop, Rig, payload, settings

_SIZES = (10, 3000, 9000, 15_000, 40_000, 70_000)
_STUDIES = 3
_ROUNDS = 60
_BY_ORDER = "by an order"

_ACTS: dict[str, float] = {
    "commit": 10,
    "feed": 6,
    "deliver": 12,
    "divert": 5,
    "upkeep": 6,
    "seal": 2,
    "order": 2,
    "gates": 3,
    "change_host": 1.5,
    "up_or_down": 3,
    "ask_for_commitment": 3,
    "expire": 0.4,
    "redirect": 0.6,
    "resend": 2,
    "drop": 0.3,
    "set_clock": 0.4,
    "write_back": 1,
}


class _Moment(NamedTuple):
    """All that a power cut at one moment depends on."""

    at: int
    index: IndexFiles
    world: World


class _Recorder(Recorder):
    """Tells of moments at which it matters whether the power fails then."""

    def __init__(self, root: Path, moment: Callable[[], None]) -> None:
        super().__init__(root)
        self._moment = moment

    def sync(self, fd: Any) -> None:
        self._moment()
        super().sync(fd)
        self._moment()

    def unlink(self, path: Any, **more: Any) -> None:
        super().unlink(path, **more)
        self._moment()


class Lives:
    """A few lives of one spool, one after the other, and how it all ends."""

    def __init__(self, directory: Path, loop: Loop, seed: int) -> None:
        self.chance = random.Random(f"lives {seed}")
        self.world = World()
        self.loop = loop
        self._directory = directory
        self._home = directory / "life0"
        self._home.mkdir(parents=True)
        changes: dict[str, object] = {"segment_size": 64 * KIB, "large_instance": 16 * KIB}
        self._uids = self.chance.choice((5, 14))
        """So many different ones are sent; some of them with two versions of their bytes."""
        self._settings = settings(**changes, wipe=self.chance.random() < 0.15)
        self._rig: Rig
        self._disk: IndexDisk
        self._recorder: _Recorder
        self._until_cut = 0
        """Moments to come until the power fails; 0 when it does not in the middle of an act."""
        self._cut: _Moment | None = None
        self._down: set[str] = set()
        self._asked: list[tuple[str, Transaction, int]] = []
        self._index_was_lost = False
        self._without_bytes: set[int] = set()
        """Taken up again by what a segment says of them, after their own files were removed."""

    def play(self) -> int:
        """Live, and say how many instances were acknowledged.

        Raises AssertionError when one of them is not where it should be in the end, and whatever
        the spool and the index raise.
        """
        with quiet():
            for number in range(1, self.chance.randint(2, 4) + 1):
                self._live(self._directory / f"life{number}")
            self._open()
            try:
                self._finish()
            finally:
                self._rig.close()
        return len(self.world.sent)

    # -- begin and end

    def _live(self, then: Path) -> None:
        """One life; what is left of it is in the directory `then`."""
        chance = self.chance
        self._cut = None
        until_cut = chance.choice((0, 0, chance.randint(1, 30), *[chance.randint(1, 300)] * 3))
        self._recorder = _Recorder(self._home, self._moment)
        with self._recorder.recording():
            self._open(until_cut)
            try:
                # What repeats what is there still is one matter, what is purged another.
                weights = _ACTS | {
                    "upkeep": chance.choice((0.5, 6)),
                    "redirect": chance.choice((0.3, 2)),
                }
                count = chance.randint(3, 60)
                for name in chance.choices(list(weights), list(weights.values()), k=count):
                    self.world.now += chance.choice((0.1, 1.0, 30.0))
                    getattr(self, f"_{name}")()
                if self._cut is None and chance.random() < 0.8:
                    self._cut = self._now()
            finally:
                self._until_cut = 0
                self._rig.close()
        if self._cut is None:
            self._home.rename(then)
        else:
            self._recorder.cut(self._cut.at, chance, then)
            self._cut.index.cut(chance, then)
            self.world = self._cut.world
            shutil.rmtree(self._home)
        self._home = then
        if chance.random() < 0.06:
            self._lose_index()

    def _lose_index(self) -> None:
        """It is gone, or is something that nobody can read."""
        self._index_was_lost = True
        files = list(self._home.glob(f"{NAME}*"))
        if self.chance.random() < 0.5:
            for path in files:
                path.unlink()
        else:
            for path in files:
                path.write_bytes(b"what a disk makes of it" + path.read_bytes()[64:])

    def _open(self, until_cut: int = 0) -> None:
        """As the gateway does."""
        self._down, self._asked = set(), []
        if self.chance.random() < 0.25:
            self.world.change_host(self.chance.choice(NAMES), self.chance)
        rig = self._rig = Rig(self._home, self.loop, self._settings, opening=open_index)
        rig.suppress_duplicates = True
        self._disk = IndexDisk(self._home)
        self._watch(rig.index)
        self._until_cut = until_cut
        rig.index.take_peers(self.world.peers(), self.world.now)
        rig.start()
        rig.keeper.sweep()
        rig.index.shut_gate(None, NIGHT)

    def _watch(self, index: Index) -> None:
        """After each transaction the power may fail; after a barrier what was written is safe."""
        database, barrier = index._db, index.barrier
        transaction = database.transaction

        @contextmanager
        def watched() -> Iterator[None]:
            with transaction():
                yield
            self._moment()

        def barring() -> None:
            barrier()
            self._disk.synced()

        database.transaction = watched  # type: ignore[method-assign]
        index.barrier = barring  # type: ignore[method-assign]

    def _moment(self) -> None:
        if self._until_cut:
            self._until_cut -= 1
            if not self._until_cut:
                self._cut = self._now()

    def _now(self) -> _Moment:
        return _Moment(self._recorder.now(), self._disk.files(), self.world.copy())

    def _finish(self) -> None:
        """Everybody takes everything, until nothing waits; then nothing may be missing."""
        index, world = self._rig.index, self.world
        for _ in range(_ROUNDS):
            world.now += 1e5
            at = world.now
            for order in (index.release, index.retry, index.hasten):
                order(Filter(), at=at)
            for gate in index.gates():
                index.open_gate(gate.id)
            index.commitments.give_up(COMMITS, at + 1.0, "too late", at)
            index.commitments.accept(COMMITS, "enough", at, 1000)
            self._divert()
            for name in NAMES:
                found = index.lease(name, 1000, at, ())
                index.settle([world.take_surely(name, one, self._read(one)) for one in found])
            if not self._left():
                break
        assert self._left() == [], "it waits for ever"
        differences = index.account(audit=True).differences
        assert differences == {}, differences
        assert disagreement(index._db) == ""
        missing = world.missing()
        held = index.instances(Filter(disposition=Disposition.QUARANTINED), 10_000)
        why = [f"instance {row.ref.id} is held: {row.meta.reason}" for row in held]
        assert not missing, "\n".join(missing + why)

    def _left(self) -> list[tuple[str, str, int]]:
        """Destination, state and count of what is open and can be sent."""
        index = self._rig.index
        waiting = index.queue_list(Filter(), 10_000)
        if not {item.ref.id for item in waiting} - self._without_bytes:
            waiting = []
        return [
            (one.destination, one.state.name, one.count)
            for one in index.queue_summary()
            if one.count and (waiting or one.state is DeliveryState.UNCOMMITTED)
        ]

    # -- what is received

    def _commit(self) -> None:
        chance, world = self.chance, self.world
        for _ in range(chance.choice((1, 1, 2, 4))):
            which, version = chance.randrange(self._uids), chance.choice((0, 0, 0, 1))
            data = payload(which * 10 + version, _SIZES[(which + version) % len(_SIZES)])
            firsts = chance.sample(NAMES, chance.choice((1, 1, 2, 2, 3)))
            routes = tuple(
                RouteMeta(name, "r", chance.choice((0, 0, 1)), chance.choice(PLANS[name]).to_text())
                for name in firsts
            )
            what = _meta(f"1.2.{which}", f"9.{which % _STUDIES}", world.now, routes)
            kept = self._rig.commit(data, what).kept
            world.acknowledge(kept.id, what.sop_instance_uid, data, routes)

    def _feed(self) -> None:
        self._rig.feed()

    # -- what is sent

    def _deliver(self) -> None:
        """A few attempts at one destination, whose outcomes the index may never hear."""
        name = self.chance.choice(NAMES)
        if name in self._down:
            return
        index, world = self._rig.index, self.world
        outcomes = [
            world.take(name, one, self._read(one), self.chance)
            for one in index.lease(name, self.chance.randint(1, 6), world.now, ())
        ]
        mood = self.chance.random()
        if mood < 0.1:
            self._change_host()
        elif mood < 0.2:
            return
        elif mood < 0.3:
            self._feed()
        index.settle(outcomes)

    def _read(self, one: Waiting) -> bytes | None:
        """None when its file is gone, which only a lost index excuses: in the end everybody must
        have had it before."""
        try:
            return self._rig.read(one.ref)
        except SpoolDamaged:
            if not self._index_was_lost:
                raise
            self._without_bytes.add(one.ref.id)
            return None

    def _divert(self) -> None:
        up = [name for name in NAMES if name not in self._down]
        for name in NAMES:
            give_way = self.chance.choice((None, 300.0))
            self._rig.index.divert(name, up, (), self.world.now, give_way=give_way)

    def _up_or_down(self) -> None:
        self._down ^= {self.chance.choice(NAMES)}
        self._divert()

    def _change_host(self) -> None:
        name = self.chance.choice(NAMES)
        self.world.change_host(name, self.chance)
        self._rig.index.take_peers(self.world.peers(), self.world.now)

    def _gates(self) -> None:
        index = self._rig.index
        for gate in index.gates():
            if self.chance.random() < 0.5:
                index.open_gate(gate.id, self.chance.choice((1, 2000)))
        if self.chance.random() < 0.3:
            index.shut_gate(None, NIGHT)

    def _ask_for_commitment(self) -> None:
        """Ask, or hear of what was asked, or give it up."""
        commitments, world, chance = self._rig.index.commitments, self.world, self.chance
        mood = chance.random()
        if mood < 0.5:
            uid = f"2.25.{chance.getrandbits(60)}"
            made = commitments.ask(COMMITS, uid, 5, world.now, world.now + 15.0)
            if made is not None:
                self._asked.append((uid, made, world.host[COMMITS]))
        elif mood < 0.95 and self._asked:
            uid, made, host = chance.choice(self._asked)
            names = [one.sop_instance_uid for one in made.references]
            kept = [name for name in names if chance.random() < 0.7]
            refused = {
                name: Refusal("no", chance.random() < 0.7) for name in names if name not in kept
            }
            kept = [name for name in kept if world.has(COMMITS, host, name)]
            most = {COMMITS: 3}
            commitments.answer(uid, kept, refused, at=world.now, most=most, words="yes")
        else:
            commitments.give_up(COMMITS, world.now - 100.0, "too late", world.now)

    # -- what operators do

    def _which(self) -> Filter:
        of_study = Filter(study=f"9.{self.chance.randrange(_STUDIES)}")
        of_one = Filter(destination=self.chance.choice(NAMES))
        return self.chance.choice((Filter(), of_study, of_one))

    def _order(self) -> None:
        index, at = self._rig.index, self.world.now
        orders = [index.hold, index.release, index.retry, index.hasten]
        (order,) = self.chance.choices(orders, (2, 3, 3, 2))
        order(self._which(), at=at)
        if self.chance.random() < 0.5:
            index.barrier()

    def _same_bytes(self) -> SameBytes | None:
        return self.chance.choice((None, self._rig.spool.same_bytes))

    def _redirect(self) -> None:
        world = self.world
        origin, to = self.chance.sample(NAMES, 2)
        step, index = world.next_step(), self._rig.index
        world.redirected.append((step, origin, to))
        waiting = index.queue_list(Filter(destination=origin, state=DeliveryState.READY), 10_000)
        moving = {item.ref.id for item in waiting}
        everyone = [one.id for one in world.sent]
        repeating = {
            one
            for one, name in self._deliveries(everyone, DeliveryState.DUPLICATE)
            if name == origin
        }
        # What the other one took already and is still to commit stands for both.
        standing = self._deliveries(moving, DeliveryState.UNCOMMITTED)
        stands = {one.uid for one in world.sent if (one.id, to) in standing}
        which, same = Filter(destination=origin), self._same_bytes()
        index.redirect(which, to, "elsewhere", at=world.now, same_bytes=same)
        index.barrier()
        # Only now is the operator told; a cut before it may undo it.  What repeats them went too.
        dropped = {
            one
            for one, name in self._deliveries(repeating, DeliveryState.DROPPED)
            if name == origin
        }
        world.moved += [
            Moved(step, one.id, to, world.host[to], one.uid in stands)
            for one in world.sent
            if one.id in moving | dropped
        ]

    def _resend(self) -> None:
        to, same = [self.chance.choice(NAMES)], self._same_bytes()
        which = Filter(study=f"9.{self.chance.randrange(_STUDIES)}")
        self._rig.index.resend(which, to, _BY_ORDER, at=self.world.now, same_bytes=same)

    def _drop(self) -> None:
        """Of two instances; what is dropped is noted first, since the power may fail within."""
        index, world = self._rig.index, self.world
        ids = [one.id for one in self.chance.sample(world.sent, min(2, len(world.sent)))]
        before = set(world.dropped)
        world.dropped |= self._deliveries(ids, *OPEN_STATES, DeliveryState.DUPLICATE)
        index.drop(Filter(ids=tuple(ids)), _BY_ORDER, at=world.now)
        world.dropped = before | self._deliveries(ids, DeliveryState.DROPPED) & world.dropped

    def _deliveries(self, ids: Iterable[int], *states: DeliveryState) -> set[tuple[int, str]]:
        rows = [self._rig.index.instance(number) for number in ids]
        return {
            (one.instance_id, one.destination)
            for row in rows
            if row is not None
            for one in row.deliveries
            if one.state in states
        }

    def _expire(self) -> None:
        now = self.world.now
        self._rig.index.expire(self.chance.choice(NAMES), now - 60.0, "too old", (), now)

    # -- the machine

    def _upkeep(self) -> None:
        self._rig.step(self.world.now + 1e6)

    def _seal(self) -> None:
        self.loop.in_thread(self._rig.spool.segments.seal)

    def _set_clock(self) -> None:
        self.world.now += self.chance.choice((-1e5, 1e5, -400.0, 4000.0))

    def _write_back(self) -> None:
        self._disk.write_back(self._moment)


def _meta(uid: str, study: str, at: float, routes: tuple[RouteMeta, ...]) -> InstanceMeta:
    return InstanceMeta(
        received_at=at,
        association="as",
        calling_ae="CT1",
        called_ae="ROUTER",
        source="10.0.0.7",
        remote="ct",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid=uid,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        study_instance_uid=study,
        series_instance_uid=f"{study}.1",
        disposition="route",
        routes=routes,
    )
