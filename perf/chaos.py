"""``kill -9`` under load, again and again; then every instance is accounted for.

``python -m perf.chaos --kills 50``. Four senders never stop, half of the time as fast as they are
answered; of three destinations one is switched off every now and then, and one until the end;
some instances go to one of two, whichever is up, and some when their study is complete. Half of
the kills come at random moments, while the gateway runs, starts or stops; half at a chosen place
in a chosen phase (`perf.failpoints`). Each instance is sent once. At the end everything that was
acknowledged must have arrived wherever it was to go, with the bytes that were sent, and the
gateway's own account must balance. The steady one is asked to commit what it took: nothing may
count as delivered there that it did not commit; what has left the spool must lie in the archive
(`perf.chaos_archive`), but for what a rule discarded. Owns the plan of the kills and the checks;
a power cut, which also loses what was not synced, is not made here.
"""

import argparse
import asyncio
import http.client
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from perf import failpoints
from perf.book import Book, settled
from perf.chaos_archive import ArchiveCheck
from perf.chaos_log import wrong_lines
from perf.chaos_senders import Sender
from perf.chaos_settings import ASLEEP, BOTH, EITHER, MOODY, STEADY, settings
from perf.committing import Committer
from perf.failpoints import Failpoint
from perf.forkserver import Forked, ForkedGateway, ForkServer
from perf.processes import BenchError
from perf.witness import Seen, Witness

_SENDERS = 4
# Seconds without an arrival after which there will be none, and when nothing waits any more.
_READY = 30.0
# Seconds that a gateway may live with a chosen moment ahead of it.
_PATIENCE = 2.0
# Phases that no kill had met by the end get so many more, with more time.
_MORE, _MORE_PATIENCE = 5, 8.0
# Every so many kills what left the spool is looked for, and the lists are read as a whole; the
# balance is looked at with every one.
_COLLECT, _THOROUGH = 20, 40
# By then every phase had its turn, half of the kills being for chosen ones.
_LOOKS = 20
_ROUND = 2 * len(failpoints.SITES)
STARTING, RUNNING, STOPPING = "starting", "running", "stopping"
_NO_ANSWER = (BenchError, OSError, http.client.HTTPException, ValueError)


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill: ``phase`` with a `Failpoint`, or a random moment of a part of life."""

    phase: str
    point: Failpoint | None = None


def plan(dice: random.Random) -> Iterator[Kill]:
    """Kills without end: a chosen one and a random one in turn, all phases equally often."""
    while True:
        phases = list(failpoints.SITES)
        dice.shuffle(phases)
        for phase in phases:
            yield Kill(phase, failpoints.choose(phase, dice))
            yield Kill(dice.choices((STARTING, RUNNING, STOPPING), (30, 55, 15))[0])


class Chaos:
    """One run.  `home` is empty and stays behind when something was wrong."""

    def __init__(self, home: Path, *, kills: int, seed: int, minutes: float) -> None:
        self.home = home
        self.kills = kills
        self.minutes = minutes
        self.book = Book((STEADY, MOODY, ASLEEP, EITHER), committing=STEADY)
        self.committer = Committer(STEADY.upper(), random.Random(seed))
        self.committer.on_committed = self.book.commit
        self.committer.on_fault = self.book.fault
        self.witnesses = {
            name: Witness(committer=self.committer if name == STEADY else None)
            for name in (STEADY, MOODY, ASLEEP)
        }
        self.archive = ArchiveCheck(home / "archive", self.book)
        self.done = self.torn = self.checks = self.purged = 0
        self.hit: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        self.by_chance: Counter[str] = Counter()
        self._seed = seed
        self._dice = random.Random(seed)
        self._moody_open = True
        self._segment_size = "8MiB"
        self._other = False
        self._patience = _PATIENCE
        self._in_spool: set[str] = set()

    async def run(self) -> bool:
        """Kill, restart, account; True when nothing is wrong."""
        for name, witness in self.witnesses.items():
            witness.on_seen = self._receiver(name)
            await witness.open()
        await self.witnesses[ASLEEP].shut()
        with ForkServer(self.home / "forkserver.log") as server:
            self.gateway = ForkedGateway(server, self.home, self._settings())
            self.committer.port = self.gateway.port
            try:
                await self._under_load()
                await self._drain()
                await self._check_thoroughly(set())
                await self._conclude()
            except* _NO_ANSWER as group:
                for error in group.exceptions:
                    self.book.fault(f"{type(error).__name__}: {error}")
            finally:
                if not await asyncio.to_thread(self.gateway.stop):
                    self.book.fault("the gateway did not end within 30 s of SIGTERM")
                for witness in self.witnesses.values():
                    await witness.shut()
        if not self.book.faults:
            await asyncio.to_thread(self._check_archive)
        return not self.book.faults

    def _receiver(self, name: str) -> Callable[[Seen], None]:
        meant, either = self.book.receiver(name), self.book.receiver(EITHER)

        def came(seen: Seen) -> None:
            _, destinations = self.book.sent.get(seen.sop_instance_uid, (b"", ()))
            (either if EITHER in destinations and name in BOTH else meant)(seen)

        return came

    def _settings(self) -> dict[str, Any]:
        ports = {name: witness.port for name, witness in self.witnesses.items()}
        return settings(
            ports,
            segment_size=self._segment_size,
            other=self._other,
            archive=str(self.archive.folder),
        )

    async def _under_load(self) -> None:
        up, stop = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for number in range(_SENDERS):
                sender = Sender(number, self.gateway.port, self.book, self._seed + number)
                group.create_task(sender.run(up, stop))
            try:
                await self._kill_again_and_again(up)
                self.gateway.point = None
                self._spawn()
                if not await self._ready():
                    raise BenchError(f"the gateway did not start: {self.gateway.tail()}")
                up.set()
            finally:
                stop.set()
                up.set()

    # -- killing -------------------------------------------------------------------------------

    async def _kill_again_and_again(self, up: asyncio.Event) -> None:
        began = time.monotonic()
        for kill in plan(self._dice):
            if self.minutes and time.monotonic() - began > self.minutes * 60:
                break
            if self.done >= self.kills or self.book.faults:
                break
            await self._live_and_die(kill, up)
            if self.done % 100 == 0:
                print(f"{self.done} kills, {time.monotonic() - began:.0f} s", flush=True)
        if self.done < _ROUND:
            return
        # A machine that is slow, or has much else to do, may not have come to everything.
        self._patience = _MORE_PATIENCE
        for phase in failpoints.SITES:
            for _ in range(_MORE):
                if not self.hit[phase] and not self.book.faults:
                    kill = Kill(phase, failpoints.choose(phase, self._dice))
                    await self._live_and_die(kill, up)

    async def _live_and_die(self, kill: Kill, up: asyncio.Event) -> None:
        """One life of the gateway, from its start to its kill."""
        if self._dice.random() < (0.25 if self._moody_open else 0.6):
            await self._toggle()
        if kill.phase == "growing the pool":
            # With segments of another size the pool begins anew.
            self._segment_size = "4MiB" if self._segment_size == "8MiB" else "8MiB"
            self.gateway.configure(self._settings())
        if kill.phase == "archiving" and not self._other:
            # By the share in use it comes to that in few lives.
            self._other = True
            self.gateway.configure(self._settings())
        if self.done % _COLLECT == 0:
            # While no gateway writes there.
            await asyncio.to_thread(self.archive.collect)
        self.gateway.point = kill.point
        owed = {(name, uid) for name in (*BOTH, EITHER) for uid in self.book.owed[name]}
        owed |= {(STEADY, uid) for uid in self.book.uncommitted}
        self._spawn()
        if kill == Kill(STARTING):
            await self._gone(self._dice.uniform(0.0, 0.12))
        elif await self._ready():
            up.set()
            await self._check_account()
            if kill.point is None and self.done - self.checks * _THOROUGH >= _THOROUGH:
                self.checks += 1
                await self._check_thoroughly(owed)
            await self._provoke(kill)
        self._end(kill)
        up.clear()
        self.done += 1

    async def _provoke(self, kill: Kill) -> None:
        """Bring the running gateway to where it is to be killed."""
        if kill.phase == "reloading" or self._dice.random() < 0.3:
            await self._gone(self._dice.uniform(0.0, 0.2))
            self._reload()
        if kill.phase in ("stopping", STOPPING):
            await self._gone(self._dice.uniform(0.0, 0.3))
            self.gateway.signal(signal.SIGTERM)
        if kill.point is not None:
            await self._gone(self._patience)
        else:
            await self._gone(self._dice.uniform(0.0, 0.1 if kill.phase == STOPPING else 1.0))

    def _end(self, kill: Kill) -> None:
        """Make sure of the end, and note what kind of end it was."""
        reached = self.gateway.ended
        self.gateway.kill()
        status = self.gateway.wait(0.0)
        stopped = status == 0 and kill.phase in ("stopping", STOPPING)
        if status != -signal.SIGKILL and not stopped:
            self.book.fault(f"the gateway ended with {status}, {kill}: {self.gateway.tail()}")
        if kill.point is not None and not (reached and status == -signal.SIGKILL):
            self.missed[kill.phase] += 1
        elif kill.point is not None:
            self.hit[kill.phase] += 1
            return
        self.by_chance["after it had stopped" if status == 0 else kill.phase] += 1

    def _spawn(self) -> None:
        self.gateway.spawn()

    async def _ready(self) -> bool:
        """Whether it got ready before it died.  Raises BenchError when it does neither."""
        end = time.monotonic() + _READY
        while not self.gateway.ended:
            if await asyncio.to_thread(self.gateway.ready):
                return True
            if time.monotonic() > end:
                raise BenchError(f"not ready after {_READY:.0f} s: {self.gateway.tail()}")
            await asyncio.sleep(0.01)
        return False

    async def _gone(self, seconds: float) -> None:
        """Until the process has ended, for that long at most."""
        child = self.gateway.child
        if not isinstance(child, Forked) or child.ended:
            return
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(child.handle, ended.set)
        try:
            async with asyncio.timeout(seconds):
                await ended.wait()
        except TimeoutError:
            return
        finally:
            loop.remove_reader(child.handle)

    def _reload(self) -> None:
        self._other = not self._other
        self.gateway.configure(self._settings())
        self.gateway.signal(signal.SIGHUP)

    async def _toggle(self) -> None:
        moody = self.witnesses[MOODY]
        await (moody.shut() if self._moody_open else moody.open())
        self._moody_open = not self._moody_open

    # -- accounting ----------------------------------------------------------------------------

    async def _check_account(self) -> None:
        """The account balances; a gateway that dies over the answer is not asked again."""
        try:
            account = await asyncio.to_thread(self.gateway.account)
        except _NO_ANSWER:
            # Its sockets close a moment before it has ended.
            await self._gone(1.0)
            if self.gateway.ended:
                return
            raise
        if not account["balanced"]:
            self.book.fault(f"after kill {self.done}: {account['differences']}")
        delivered, committed = _line(account, STEADY)["delivered"], len(self.book.committed)
        if delivered > committed:
            self.book.fault(
                f"after kill {self.done}: {delivered} are delivered to {STEADY}, which committed "
                f"{committed}"
            )

    async def _check_thoroughly(self, owed: set[tuple[str, str]]) -> None:
        """Nothing is in the spool twice; what was ``owed`` at the start waits or has arrived."""
        rows = await asyncio.to_thread(lambda: list(self.gateway.instances()))
        times = Counter(row["sop_instance_uid"] for row in rows)
        if twice := [uid for uid, count in times.items() if count > 1]:
            self.book.fault(
                f"after kill {self.done}: {len(twice)} instances twice in the spool, "
                f"such as {twice[0]}"
            )
        lost = owed
        for _ in range(_LOOKS):
            # A list takes its time: what was refused and sent again meanwhile may be on none.
            waiting = await asyncio.to_thread(self._waiting)
            waiting |= {(EITHER, uid) for name, uid in waiting if name in BOTH}
            lost = {(n, uid) for n, uid in lost - waiting if self.book.is_owed(n, uid)}
            if not lost:
                break
        else:
            self.book.fault(
                f"after kill {self.done}: {len(lost)} acknowledged deliveries neither wait nor "
                f"arrived, such as {min(lost)}"
            )
        rows = await asyncio.to_thread(lambda: list(self.gateway.queue("delivered", STEADY)))
        delivered = {row["sop_instance_uid"] for row in rows}
        if early := delivered - self.book.committed:
            self.book.fault(
                f"after kill {self.done}: {len(early)} are delivered to {STEADY}, which did not "
                f"commit them, such as {min(early)}"
            )

    def _waiting(self) -> set[tuple[str, str]]:
        """What is to be delivered or committed.  What is refused meanwhile is ready again."""
        rows = [row for state in ("", "uncommitted", "") for row in self.gateway.queue(state)]
        return {(row["destination"], row["sop_instance_uid"]) for row in rows}

    async def _drain(self) -> None:
        """Until nothing waits any longer, or nothing moves."""
        if not self._moody_open:
            await self._toggle()
        await self.witnesses[ASLEEP].open()
        await settled(self.book, self._unsettled)

    async def _unsettled(self) -> int:
        """Deliveries that are still to be made, or to be committed."""
        account = await asyncio.to_thread(self.gateway.account)
        return sum(line["waiting"] + line["uncommitted"] for line in account["destinations"])

    async def _conclude(self) -> None:
        book = self.book
        for name, owed in book.owed.items():
            if owed:
                book.fault(f"{len(owed)} acknowledged never came to {name}, such as {min(owed)}")
        if book.uncommitted:
            book.fault(
                f"{len(book.uncommitted)} acknowledged were never committed by {STEADY}, such as "
                f"{min(book.uncommitted)}"
            )
        if not book.acknowledged:
            book.fault("nothing was acknowledged, so nothing was tested")
        account = await asyncio.to_thread(self.gateway.account)
        dead = sum(d["dead"] for d in account["destinations"])
        unwanted = {uid for uid, (_, destinations) in book.sent.items() if not destinations}
        least, discarded = len(unwanted & book.acknowledged), account["discarded"]
        if dead or not least <= discarded <= len(unwanted):
            book.fault(f"{dead} dead letters, {discarded} discarded, at least {least} were to be")
        # What may go to either may have been committed, and gone to the other after all.
        least = sum(STEADY in book.sent[uid][1] for uid in book.committed)
        delivered = _line(account, STEADY)["delivered"]
        if not least <= delivered <= len(book.committed):
            book.fault(
                f"{delivered} are delivered to {STEADY}, which committed {len(book.committed)}, "
                f"{least} of them meant for it alone"
            )
        for event, count in wrong_lines(self.gateway.log_lines()).items():
            book.fault(f"{count} × in the log: {event}")
        self.purged = account["received"] - await asyncio.to_thread(self._check_held)
        if self.done >= _ROUND:
            for phase in failpoints.SITES:
                if not self.hit[phase]:
                    book.fault(f"no kill met the gateway {phase}")
            if not self.purged:
                book.fault("nothing was purged, so that was not tested")

    def _check_held(self) -> int:
        """Held may be only what a kill cut short: written in part, and never acknowledged.

        How many there are in the spool.
        """
        count = 0
        for row in self.gateway.instances():
            count += 1
            uid = row["sop_instance_uid"]
            self._in_spool.add(uid)
            unwanted = self.book.sent.get(uid, (b"", ("some",)))[1] == ()
            if row["disposition"] == ("discarded" if unwanted else "routed"):
                continue
            self.torn += 1
            if uid in self.book.acknowledged or "damaged in the spool" not in row["reason"]:
                self.book.fault(f"{uid} is {row['disposition']}: {row['reason']}")
        return count

    def _check_archive(self) -> None:
        """What was acknowledged, and is not in the spool at the end, is in the archive."""
        self.archive.collect()
        sent = self.book.sent
        gone = {uid for uid in self.book.acknowledged - self._in_spool if sent[uid][1]}
        if lost := gone - self.archive.archived:
            self.book.fault(
                f"{len(lost)} acknowledged have left the spool and are not in the archive, such "
                f"as {min(lost)}"
            )
        if self.done >= _ROUND and not gone:
            self.book.fault("nothing was archived, so that was not tested")

    def table(self) -> str:
        """What was done and found, for people."""
        rows: list[tuple[str, object]] = [("kills", self.done)]
        rows += [(f"  chosen, {phase}", self.hit[phase]) for phase in failpoints.SITES]
        rows += [(f"  by chance, {phase}", n) for phase, n in sorted(self.by_chance.items())]
        rows += self.book.lines()
        committer = self.committer
        rows += [(f"reports {way}", n) for way, n in sorted(committer.ways.items())]
        rows += [
            (f"  answered {a or 'by nobody'}", n) for a, n in sorted(committer.answers.items())
        ]
        rows.append(("committed at the second asking", len(committer.refused)))
        rows.append(("purged", self.purged))
        rows.append(("archived", len(self.archive.archived)))
        rows.append(("  more than once", self.archive.again))
        rows.append(("cut short, and held", self.torn))
        text = "\n".join(f"{name:<34}{value!s:>10}" for name, value in rows)
        faults = [f"WRONG: {fault}" for fault in self.book.faults]
        if self.book.more_faults:
            faults.append(f"WRONG: and {self.book.more_faults} more")
        return "\n".join([text, *faults])


def _line(account: dict[str, Any], destination: str) -> dict[str, Any]:
    """What the account says of a destination; zeros before it has heard of it."""
    found: dict[str, Any] = {"delivered": 0}
    for line in account["destinations"]:
        if line["destination"] == destination:
            found = line
    return found


def main() -> int:
    """Command line; exit 0 only when nothing was lost and nothing else was wrong."""
    parser = argparse.ArgumentParser(prog="python -m perf.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=None, help="of the moments of the kills")
    parser.add_argument("--minutes", type=float, default=0.0, help="stop killing after that long")
    parser.add_argument("--work", type=Path, default=None, help="directory; default: a new one")
    args = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if args.seed is None else args.seed
    if args.work is not None:
        args.work.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="chaos-", dir=args.work))
    print(f"seed {seed}, work in {home}", flush=True)
    chaos = Chaos(home, kills=args.kills, seed=seed, minutes=args.minutes)
    began = time.monotonic()
    fine = uvloop.run(chaos.run())
    print(chaos.table())
    print(f"{'sound' if fine else 'NOT sound'} after {time.monotonic() - began:.0f} s")
    if fine:
        shutil.rmtree(home)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
