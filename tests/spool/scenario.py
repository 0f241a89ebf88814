"""A day of a spool, its index and their upkeep, in phases; what everybody is told meanwhile.

Owns the scenario that is played again for every call that can fail, and what must hold after it:
nothing that was acknowledged is gone or wrong, nothing takes space that nobody accounts for, and
once the fault is gone the next instance is taken without a restart.

The parts are the real ones; what the gateway does around them (start all or nothing, feed until
the index has it, upkeep again and again) is done here in the same order.
"""

import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from router import opening
from router.spool.errors import SpoolDamaged, SpoolError, SpoolFull
from router.spool.index_types import DeliveryState, Disposition, Filter
from router.spool.index_types import Outcome as Fate
from router.spool.keeper import Keeper
from router.spool.rebuild import rebuild
from router.spool.record import InstanceMeta, Position, Ref
from router.spool.spool import Spool
from tests.spool.faults import Seam
from tests.spool.spool_samples import KIB, Loop, Outcome, meta, payload, read, settings

_payload = functools.cache(payload)  # the same few in every run
PIECE = 50_000
NOW = 2e9
SETTLED = 1.7e9


@dataclass
class Truth:
    """What senders know, over all starts."""

    sent: dict[str, tuple[bytes, InstanceMeta]] = field(default_factory=dict)
    acked: dict[str, Ref] = field(default_factory=dict)
    delivered: set[str] = field(default_factory=set)


class Life:
    """From one start to the next stop.

    ``told`` is what a peer, an operator or the log got to know: (who, text).
    """

    settings = settings(segment_size=256 * KIB, large_instance=64 * KIB, spare_segments=1)

    def __init__(self, home: Path, loop: Loop, truth: Truth) -> None:
        self.loop = loop
        self.truth = truth
        self.told: list[tuple[str, str]] = []
        self.strays: list[str] = []
        """What left a thread as an exception that nobody caught."""
        self._ends: list[tuple[Ref, InstanceMeta, Position]] = []
        self.spool = Spool.open(home / "spool", self.settings, loop.post, lambda *_: None)
        try:
            self.index = opening.open_index(home / "index.sqlite")
            try:
                self._start()
            except BaseException:
                self.index.close()
                raise
        except BaseException:
            loop.in_thread(self.spool.close)
            raise

    def _start(self) -> None:
        report = rebuild(self.spool, self.index, suppress_duplicates=False)
        for line in report.damage:
            self.told.append(("log", line))
        self.spool.start(report.last_id)
        self.keeper = Keeper(self.spool, self.index)
        self.keeper.sweep()
        self.told += [("log", note) for note in self.spool.notes]
        if self.spool.refusal:
            self.told.append(("readiness", self.spool.refusal))
        submit = self.spool.executor.submit

        def submitting(work: Callable[..., Any], *arguments: Any) -> Future[Any]:
            future = submit(work, *arguments)
            future.add_done_callback(self._ended)
            return future

        self.spool.executor.submit = submitting  # type: ignore[method-assign]

    def _ended(self, future: Future[Any]) -> None:
        if future.exception() is not None:
            self.strays.append(f"in an executor: {future.exception()!r}")

    # -- receiving -----------------------------------------------------------------------------

    def submit(self, size: int) -> Outcome:
        """One instance more, of so many bytes; the outcome comes when the loop runs."""
        number = len(self.truth.sent) + 1
        data, what = _payload(number, size), meta(number, "pacs")
        uid = what.sop_instance_uid
        self.truth.sent[uid] = (data, what)
        writer = self.spool.begin(lambda: None)
        for at in range(0, size, PIECE):
            writer.append(memoryview(data)[at : at + PIECE])
        outcome = Outcome()

        def done(ref: Ref | None, end: Position | None, error: SpoolError | None) -> None:
            outcome(ref, end, error)
            if ref is not None and end is not None:
                self.truth.acked[uid] = ref
                self._ends.append((ref, what, end))
            else:
                status = "A700" if isinstance(error, SpoolFull) else "0110"
                self.told.append(("peer", f"{status}: {error}"))

        writer.commit(what.to_bytes(), done)
        return outcome

    def receive(self, *sizes: int) -> list[Outcome]:
        """One after the other."""
        outcomes = []
        for size in sizes:
            outcome = self.submit(size)
            self.loop.run_until(lambda: outcome.told)  # noqa: B023 - run at once
            outcomes.append(outcome)
        return outcomes

    def receive_group(self, seam: Seam, first: int, *others: int) -> None:
        """``others`` in one group, since they come while that of ``first`` is being synced."""
        reached, release = threading.Event(), threading.Event()

        def hold(what: str, where: str) -> None:
            durable = what in ("sync", "write and sync") and where == "a segment"
            if durable and not reached.is_set():
                reached.set()
                self.loop.post(lambda: None)
                release.wait(20)

        seam.on_turn = hold
        outcomes = [self.submit(first)]
        self.loop.run_until(lambda: reached.is_set() or outcomes[0].told)
        outcomes += [self.submit(size) for size in others]
        release.set()
        self.loop.run_until(lambda: all(outcome.told for outcome in outcomes))
        seam.on_turn = lambda what, where: None

    def abandon(self, size: int) -> None:
        """A peer that goes away before the end, and the wait until nothing is left of it."""
        data = _payload(0, size)
        writer = self.spool.begin(lambda: None)
        for at in range(0, size, PIECE):
            writer.append(memoryview(data)[at : at + PIECE])
        writer.abandon()
        settle_executor(self)

    # -- behind the answer ---------------------------------------------------------------------

    def feed(self) -> bool:
        """Tell the index, as the feed does: what it did not take is told again."""
        if not self._ends:
            return True
        batch = list(self._ends)
        try:
            self.index.add(
                [(ref, what) for ref, what, _ in batch],
                batch[-1][2],
                suppress_duplicates=False,
                same_bytes=self.spool.same_bytes,
            )
        except SpoolError as error:
            self.told.append(("readiness", f"index: {error}"))
            return False
        del self._ends[: len(batch)]
        return True

    def read(self, uid: str, ref: Ref) -> None:
        """As for sending: bytes that are given out are those that came in."""
        try:
            assert read(self.spool, ref) == self.truth.sent[uid][0], f"{uid}: other bytes"
        except SpoolDamaged as error:
            self.told.append(("dead letter", str(error)))
        except SpoolError as error:
            self.told.append(("deferred", str(error)))

    def deliver(self, uids: list[str]) -> None:
        """Settle, as a destination's ledger does: until the index has it, or not at all."""
        fates = [
            Fate(self.truth.acked[uid].id, "pacs", DeliveryState.DELIVERED, SETTLED) for uid in uids
        ]
        try:
            due = self.index.lease("pacs", 100, NOW, ())
            assert all(item.ref.id for item in due)
            self.index.next_due("pacs", ())
            self.truth.delivered |= set(uids)
            self.index.settle(fates)
        except SpoolError as error:
            self.told.append(("queue", str(error)))

    def upkeep(self) -> str:
        """One step; what is in the way, "" when nothing is."""
        try:
            step = self.loop.in_thread(self.keeper.step, NOW)
        except SpoolError as error:
            self.told.append(("upkeep", str(error)))
            return str(error)
        if step.trouble:
            self.told.append(("upkeep", step.trouble))
        self.spool.refuse(step.refusal)
        return step.trouble

    def supply(self) -> str:
        """Spare segments; what is in the way, "" when nothing is."""
        try:
            self.loop.in_thread(self.keeper.supply)
        except SpoolError as error:
            self.told.append(("supply", str(error)))
            return str(error)
        return ""

    def close(self) -> None:
        """As at stop: the index, then the spool."""
        try:
            self.index.close()
        except SpoolError as error:
            self.told.append(("stop", str(error)))
        try:
            self.loop.in_thread(self.spool.close)
        except SpoolError as error:
            self.told.append(("stop", str(error)))
        self.loop.run_ready()


def settle_executor(life: Life) -> None:
    """Until the threads for large files and what they posted are done."""
    while True:
        threads = life.spool.executor._max_workers
        ready = threading.Barrier(threads + 1)
        for _ in range(threads):
            life.spool.executor.submit(ready.wait, 20)
        ready.wait(20)
        if life.loop.calls.empty():
            return
        life.loop.run_ready()


def play(life: Life, seam: Seam) -> None:
    """All that a spool does between its start and its stop."""
    seam.phase = "receiving"
    life.receive(3000, 300_000, 10, 1_300_000)
    seam.phase = "receiving a group"
    life.receive_group(seam, 40_000, 50_000, 60_000, 70_000, 20_000)
    seam.phase = "a sender goes away"
    life.abandon(2_100_000)
    seam.phase = "indexing"
    life.feed()
    seam.phase = "reading"
    uids = list(life.truth.acked)
    for uid in uids:
        life.read(uid, life.truth.acked[uid])
    seam.phase = "settling"
    life.deliver([uid for uid in uids if uid not in _kept(life.truth)])
    seam.phase = "receiving"
    life.receive(30_000)
    seam.phase = "upkeep"
    for _ in range(3):
        life.upkeep()
        life.supply()
    seam.phase = "receiving into a recycled segment"
    life.receive(60_000, 60_000, 60_000, 60_000)
    seam.phase = "indexing"
    life.feed()


def _kept(truth: Truth) -> list[str]:
    """What stays undelivered: the first small one, which compaction moves, and a large one."""
    return [uid for uid in truth.sent if len(truth.sent[uid][0]) in (3000, 300_000)]


def recovers(life: Life, home: Path) -> list[str]:
    """What does not work without a restart although nothing fails any more."""
    problems = []
    before = set(life.truth.acked)
    refused = [o.error for o in life.receive(5000, 200_000) if o.ref is None]
    if refused:
        problems.append(f"the next instances were not taken: {refused}")
    if not life.feed():
        problems.append(f"the index takes nothing: {life.told[-1]}")
    troubles = [(life.upkeep(), life.supply()) for _ in range(4)]
    if any(troubles[-1]):
        problems.append(f"upkeep is still in trouble: {troubles[-1]}")
    problems += _unaccounted(life, home)
    for uid in before - life.truth.delivered:
        row = _row(life, uid)
        if isinstance(row, str):
            problems.append(row)
    return problems


def _unaccounted(life: Life, home: Path) -> list[str]:
    """Space that nobody knows of would be lost until the next start."""
    problems = []
    spool = home / "spool"
    segments = sum(path.stat().st_size for path in (spool / "segments").iterdir())
    if segments != life.spool.segments.total_bytes:
        problems.append(f"segments take {segments}, not {life.spool.segments.total_bytes}")
    large = {int(path.stem, 16): path.stat().st_size for path in (spool / "large").iterdir()}
    if sum(large.values()) != life.spool.large_bytes():
        problems.append(f"large files take {sum(large.values())}, not {life.spool.large_bytes()}")
    orphans = set(large) - life.index.known(list(large))
    if orphans:
        problems.append(f"files of nobody are left under large/: {orphans}")
    return problems


def _row(life: Life, uid: str) -> Ref | str:
    """Where an instance that was acknowledged is; or what is wrong with it."""
    data, what = life.truth.sent[uid]
    rows = [
        row
        for row in life.index.instances(Filter(), 10_000)
        if row.meta.sop_instance_uid == uid and row.disposition is Disposition.ROUTED
    ]
    if len(rows) != 1:
        return f"{uid} was acknowledged and is there {len(rows)} times"
    try:
        if read(life.spool, rows[0].ref) != data:
            return f"{uid} was acknowledged and has other bytes"
    except SpoolError as error:
        return f"{uid} was acknowledged and cannot be read: {error}"
    full = life.index.instance(rows[0].ref.id)
    assert full is not None
    if [route.destination for route in full.meta.routes] != [r.destination for r in what.routes]:
        return f"{uid} has other routes"
    return rows[0].ref


def lost(life: Life) -> list[str]:
    """Of what was acknowledged and not delivered: what is not there once and whole."""
    return [
        row
        for uid in life.truth.acked
        if uid not in life.truth.delivered and isinstance(row := _row(life, uid), str)
    ]
