"""``kill -9`` under load, again and again; then every instance is accounted for.

``python -m perf.chaos --kills 50``.  Four senders never stop; of three destinations one is
switched off every now and then, and one until the end; some instances go to one of two, whichever
is up, and some when their study is complete.  Half of the kills come at random
moments, while the gateway runs, starts or stops; half at a chosen place in a chosen phase
(`perf.failpoints`).  Each instance is sent once.  At the end everything that was acknowledged must
have arrived wherever it was to go, with the bytes that were sent, and the gateway's own account
must balance.  Owns the plan of the kills and the checks; a power cut, which also loses what was
not synced, is not made here.
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
from pydicom.uid import MRImageStorage

from perf import data, failpoints, wire
from perf.book import Book, Goods, pdus, settled
from perf.failpoints import Failpoint
from perf.forkserver import Forked, ForkedGateway, ForkServer
from perf.load import Association
from perf.processes import BenchError
from perf.witness import Seen, Witness

_SENDERS = 4
# Seconds without an arrival after which there will be none, and when nothing waits any more.
_READY = 30.0
# Seconds that a gateway may live with a chosen moment ahead of it.
_PATIENCE = 2.0
# Phases that no kill had met by the end get so many more, with more time.
_MORE, _MORE_PATIENCE = 5, 8.0
# Every so many kills the lists are read as a whole; the balance is looked at with every one.
_THOROUGH = 20
# Above this many deliveries that are owed the senders take their time, or the queue of the one
# that is often away would only ever grow.
_OWED = 4_000
_TIME_TAKEN = 0.02
# By then every phase had its turn, half of the kills being for chosen ones.
_ROUND = 2 * len(failpoints.SITES)
STARTING, RUNNING, STOPPING = "starting", "running", "stopping"
# What the log says of a record that was cut short, which is what kills do.
_TORN_EVENTS = ("damage in the spool", "upkeep of the spool")
_TORN_REASONS = ("CRC-32 is", "damaged description")
_TROUBLE = (wire.WireError, OSError, TimeoutError, asyncio.IncompleteReadError)
_NO_ANSWER = (BenchError, OSError, http.client.HTTPException, ValueError)

STEADY, MOODY, ASLEEP = "steady", "moody", "asleep"
_BOTH = (STEADY, MOODY)
EITHER = "either"
"""No destination of its own: what goes there goes to the moody one, or else to the steady one."""
# With the share of each among what is sent.  The large ones lie in files of their own; the last
# ones wait until the end, so that the segments around them become sparse and are compacted.
_GOODS = (
    (Goods(data.Kind("chaos-small", 4, MRImageStorage, "MR", 64, 64, 16), _BOTH), 60),
    (Goods(data.Kind("chaos-mr", 5, MRImageStorage, "MR", 256, 256, 16), _BOTH), 34),
    (Goods(data.Kind("chaos-large", 6, MRImageStorage, "MR", 1024, 1024, 16), _BOTH), 4),
    (Goods(data.Kind("chaos-late", 7, MRImageStorage, "OT", 64, 64, 16), (*_BOTH, ASLEEP)), 2),
    (Goods(data.Kind("chaos-either", 8, MRImageStorage, "US", 64, 64, 16), (EITHER,)), 20),
)
_WHOLE = Goods(data.Kind("chaos-whole", 9, MRImageStorage, "CR", 64, 64, 16), (STEADY,))
_WHOLE_SHARE = 10
_STUDY = 20  # instances that follow one another in one study


def settings(ports: dict[str, int], *, segment_size: str, other: bool) -> dict[str, Any]:
    """Small segments and a short retention, so that segments are recycled between the kills.

    With ``other`` it differs in what a reload may change.
    """
    retry = {"first": "50ms", "cap": "500ms", "max_attempts": 1_000_000}
    remote = {"host": "127.0.0.1", "associations": 3 if other else 2, "retry": retry}
    rules = [
        {"name": "most to both", "when": {"not": {"Modality": ["US", "CR"]}}, "to": list(_BOTH)},
        {"name": "the late ones", "when": {"Modality": "OT"}, "to": ASLEEP},
        {"name": "one of two", "when": {"Modality": "US"}, "to": {"failover": [MOODY, STEADY]}},
        {
            "name": "whole studies",
            "when": {"Modality": "CR"},
            "to": STEADY,
            "send": {"after": "study-complete", "quiet": "1s"},
        },
    ]
    return {
        "remotes": {
            name: {"ae_title": name.upper(), "port": port, **remote} for name, port in ports.items()
        },
        "rules": rules[::-1] if other else rules,
        "spool": {
            "segment_size": segment_size,
            "large_instance": "1MiB",
            "keep_settled": "500ms" if other else "300ms",
            "low_disk": "64MiB",
        },
        # Soon past its associations, a stop comes to closing the spool and the index.
        "network": {"stop_timeout": "500ms"},
        "log": {"format": "json", "level": "warning"},
    }


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


class Sender:
    """Sends instances for as long as it may, over a new association after each that broke."""

    def __init__(self, number: int, port: int, book: Book, seed: int) -> None:
        self._number = number
        self._port = port
        self._book = book
        self._random = random.Random(seed)
        self._serial = self._whole = 0

    async def run(self, up: asyncio.Event, stop: asyncio.Event) -> None:
        """Until `stop`; when it cannot connect it waits for `up`."""
        while not stop.is_set():
            association = Association(self._port, "ROUTER", MRImageStorage)
            try:
                await association.open()
                for _ in range(self._random.randint(1, 200)):
                    await self._send(association)
                    if stop.is_set():
                        break
                await association.release()
            except _TROUBLE:
                await association.close()
                await _first(up, stop)

    async def _send(self, association: Association) -> None:
        shares = [*_GOODS, (_WHOLE, _WHOLE_SHARE)]
        (goods,) = self._random.choices([g for g, _ in shares], [share for _, share in shares])
        self._serial += 1
        uid, body = goods.make(self._number, self._serial)
        if goods is _WHOLE:
            self._whole += 1
            body = _in_study(body, self._number, self._whole // _STUDY)
        self._book.send(uid, body, goods.destinations)
        self._book.answer(uid, await association.store(uid, pdus(body, association.maximum_length)))
        if sum(len(self._book.owed[name]) for name in _BOTH) > _OWED:
            await asyncio.sleep(_TIME_TAKEN)


def _in_study(body: bytes, sender: int, number: int) -> bytes:
    """The same instance, but of the study of that number."""
    of_template = data.instance_uid(_WHOLE.kind, data.TEMPLATE_SENDER, 0, level=1).encode()
    of_number = data.instance_uid(_WHOLE.kind, sender, number, level=1).encode()
    if body.count(of_template) != 1:
        raise ValueError("the study of the template was not found")
    return body.replace(of_template, of_number)


async def _first(*events: asyncio.Event) -> None:
    waiters = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
    for waiter in waiters:
        waiter.cancel()


class Chaos:
    """One run.  `home` is empty and stays behind when something was wrong."""

    def __init__(self, home: Path, *, kills: int, seed: int, minutes: float) -> None:
        self.home = home
        self.kills = kills
        self.minutes = minutes
        self.book = Book((STEADY, MOODY, ASLEEP, EITHER))
        self.witnesses = {name: Witness() for name in (STEADY, MOODY, ASLEEP)}
        self.done = self.torn = self.checks = 0
        self.hit: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        self.by_chance: Counter[str] = Counter()
        self._seed = seed
        self._dice = random.Random(seed)
        self._moody_open = True
        self._segment_size = "8MiB"
        self._other = False
        self._patience = _PATIENCE

    async def run(self) -> bool:
        """Kill, restart, account; True when nothing is wrong."""
        for name, witness in self.witnesses.items():
            witness.on_seen = self._receiver(name)
            await witness.open()
        await self.witnesses[ASLEEP].shut()
        with ForkServer(self.home / "forkserver.log") as server:
            self.gateway = ForkedGateway(server, self.home, self._settings())
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
        return not self.book.faults

    def _receiver(self, name: str) -> Callable[[Seen], None]:
        meant, either = self.book.receiver(name), self.book.receiver(EITHER)

        def came(seen: Seen) -> None:
            _, destinations = self.book.sent.get(seen.sop_instance_uid, (b"", ()))
            (either if EITHER in destinations and name in _BOTH else meant)(seen)

        return came

    def _settings(self) -> dict[str, Any]:
        ports = {name: witness.port for name, witness in self.witnesses.items()}
        return settings(ports, segment_size=self._segment_size, other=self._other)

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
        self.gateway.point = kill.point
        owed = {(name, uid) for name in (*_BOTH, EITHER) for uid in self.book.owed[name]}
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

    async def _check_thoroughly(self, owed: set[tuple[str, str]]) -> None:
        """Nothing is in the spool twice; what was ``owed`` at the start waits or has arrived."""
        rows = await asyncio.to_thread(lambda: list(self.gateway.instances()))
        times = Counter(row["sop_instance_uid"] for row in rows)
        if twice := [uid for uid, count in times.items() if count > 1]:
            self.book.fault(
                f"after kill {self.done}: {len(twice)} instances twice in the spool, "
                f"such as {twice[0]}"
            )
        queue = await asyncio.to_thread(lambda: list(self.gateway.queue()))
        waiting = {(row["destination"], row["sop_instance_uid"]) for row in queue}
        waiting |= {(EITHER, uid) for name, uid in waiting if name in _BOTH}
        lost = {(n, uid) for n, uid in owed - waiting if uid in self.book.owed[n]}
        if lost:
            self.book.fault(
                f"after kill {self.done}: {len(lost)} acknowledged deliveries neither wait nor "
                f"arrived, such as {min(lost)}"
            )

    async def _drain(self) -> None:
        """Until nothing waits any longer, or nothing moves."""
        if not self._moody_open:
            await self._toggle()
        await self.witnesses[ASLEEP].open()
        await settled(self.book, lambda: asyncio.to_thread(self.gateway.waiting))

    async def _conclude(self) -> None:
        book = self.book
        for name, owed in book.owed.items():
            if owed:
                book.fault(f"{len(owed)} acknowledged never came to {name}, such as {min(owed)}")
        if not book.acknowledged:
            book.fault("nothing was acknowledged, so nothing was tested")
        account = await asyncio.to_thread(self.gateway.account)
        dead = sum(d["dead"] for d in account["destinations"])
        if dead or account["discarded"]:
            book.fault(f"{dead} dead letters, {account['discarded']} discarded")
        for event, count in self._errors_in_log().items():
            book.fault(f"{count} × in the log: {event}")
        await asyncio.to_thread(self._check_held)
        if self.done >= _ROUND:
            for phase in failpoints.SITES:
                if not self.hit[phase]:
                    book.fault(f"no kill met the gateway {phase}")

    def _check_held(self) -> None:
        """Held may be only what a kill cut short: written in part, and never acknowledged."""
        for row in self.gateway.instances():
            if row["disposition"] == "routed":
                continue
            self.torn += 1
            uid = row["sop_instance_uid"]
            if uid in self.book.acknowledged or "damaged in the spool" not in row["reason"]:
                self.book.fault(f"{uid} is {row['disposition']}: {row['reason']}")

    def _errors_in_log(self) -> Counter[str]:
        lines = self.gateway.log_lines()
        return Counter(
            str(line.get("event", line.get("text")))
            for line in lines
            if "text" in line
            or (line.get("level") in ("error", "critical") and not _expected(line))
        )

    def table(self) -> str:
        """What was done and found, for people."""
        rows: list[tuple[str, object]] = [("kills", self.done)]
        rows += [(f"  chosen, {phase}", self.hit[phase]) for phase in failpoints.SITES]
        rows += [(f"  by chance, {phase}", n) for phase, n in sorted(self.by_chance.items())]
        rows += self.book.lines()
        rows.append(("cut short, and held", self.torn))
        text = "\n".join(f"{name:<34}{value!s:>10}" for name, value in rows)
        faults = [f"WRONG: {fault}" for fault in self.book.faults]
        if self.book.more_faults:
            faults.append(f"WRONG: and {self.book.more_faults} more")
        return "\n".join([text, *faults])


def _expected(line: dict[str, Any]) -> bool:
    """Whether it is about records that were cut short, or a reload that came with the stop."""
    if line["event"] == "configuration not reloaded":
        return "is being stopped" in line["problem"]
    about = str(line.get("where", line.get("why")))
    return line["event"] in _TORN_EVENTS and any(reason in about for reason in _TORN_REASONS)


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
