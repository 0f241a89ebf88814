"""``kill -9`` at random moments under load, again and again; then every instance is accounted for.

``python -m perf.chaos --kills 50``.  Four senders never pause; two destinations, one of which
is switched off every now and then; the gateway is killed at random, also while it starts.  Each
instance is sent once.  At the end everything that was acknowledged must have arrived at both,
with the bytes that were sent, and the gateway's own account must balance.  Owns the plan of the
kills and the comparison; a power cut, which also loses what was not synced, is not made here.
"""

import argparse
import asyncio
import random
import shutil
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop
from pydicom.uid import MRImageStorage

from perf import data, wire
from perf.gateway import GatewayProcess
from perf.load import Association
from perf.processes import BenchError
from perf.witness import Seen, Witness

_SENDERS = 4
_CONTEXT = 1
_STALLED = 60.0
_START_UPS = 0.3
# What the log says of a record that was cut short, which is what kills do.
_TORN_EVENTS = ("damage in the spool", "upkeep of the spool")
_TORN_REASONS = ("CRC-32 is", "damaged description")
_TROUBLE = (wire.WireError, OSError, TimeoutError, asyncio.IncompleteReadError)

# With the share of each among what is sent; the last lies in a file of its own in the spool.
_KINDS = (
    (data.Kind("chaos-small", 4, MRImageStorage, "MR", 64, 64, 16), 60),
    (data.Kind("chaos-mr", 5, MRImageStorage, "MR", 256, 256, 16), 36),
    (data.Kind("chaos-large", 6, MRImageStorage, "MR", 1024, 1024, 16), 4),
)


def settings(ports: dict[str, int]) -> dict[str, Any]:
    """Small segments and a short retention, so that segments are recycled between the kills."""
    retry = {"first": "50ms", "cap": "500ms", "max_attempts": 1_000_000}
    remote = {"host": "127.0.0.1", "associations": 2, "retry": retry}
    return {
        "remotes": {
            name: {"ae_title": name.upper(), "port": port, **remote} for name, port in ports.items()
        },
        "rules": [{"name": "everything to both", "to": list(ports)}],
        "spool": {
            "segment_size": "8MiB",
            "large_instance": "1MiB",
            "keep_settled": "3s",
            "low_disk": "64MiB",
        },
        "log": {"format": "json", "level": "info"},
    }


@dataclass(slots=True)
class Book:
    """What was sent, what of it was acknowledged, and what is wrong."""

    sent: dict[str, str] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    refused: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


class Sender:
    """Sends instances for as long as it may, over a new association after each that broke."""

    def __init__(self, number: int, port: int, book: Book, seed: int) -> None:
        self._number = number
        self._port = port
        self._book = book
        self._random = random.Random(seed)
        self._serial = 0

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
                up_or_stop = [asyncio.ensure_future(e.wait()) for e in (up, stop)]
                await asyncio.wait(up_or_stop, return_when=asyncio.FIRST_COMPLETED)
                for waiter in up_or_stop:
                    waiter.cancel()

    async def _send(self, association: Association) -> None:
        (kind,) = self._random.choices([k for k, _ in _KINDS], [share for _, share in _KINDS])
        self._serial += 1
        uid = data.instance_uid(kind, self._number, self._serial)
        body = _instance(kind, uid, self._number << 40 | self._serial)
        self._book.sent[uid] = Seen.of(uid, body).digest
        status = await association.store(uid, _pdus(body, association.maximum_length))
        if status == 0:
            self._book.acknowledged.add(uid)
        else:
            self._book.refused[f"{status:04X}"] += 1


_TEMPLATES = {kind.name: data.template(kind) for kind, _ in _KINDS}


def _instance(kind: data.Kind, uid: str, serial: int) -> bytes:
    template = _TEMPLATES[kind.name]
    body = bytearray(template.data)
    body[template.uid_offset : template.uid_offset + len(uid)] = uid.encode()
    struct.pack_into("<Q", body, template.pixel_offset, serial)
    return bytes(body)


async def _pdus(body: bytes, maximum: int) -> AsyncIterator[bytes]:
    for pdu in wire.data_pdus(_CONTEXT, memoryview(body), maximum):
        yield pdu


class Chaos:
    """One run.  `home` is empty and stays behind when something was wrong."""

    def __init__(self, home: Path, *, kills: int, seed: int, minutes: float) -> None:
        self.home = home
        self.kills = kills
        self.minutes = minutes
        self.book = Book()
        self.done = self.in_start = self.torn = 0
        self.steady = Witness()
        self.moody = Witness()
        self._seed = seed
        self._random = random.Random(seed)
        self._moody_open = True

    async def run(self) -> bool:
        """Kill, restart, account; True when nothing is wrong."""
        await self.steady.open()
        await self.moody.open()
        ports = {"steady": self.steady.port, "moody": self.moody.port}
        self.gateway = GatewayProcess(self.home, settings(ports))
        up, stop = asyncio.Event(), asyncio.Event()
        senders = [
            Sender(number, self.gateway.port, self.book, self._seed + number)
            for number in range(_SENDERS)
        ]
        try:
            async with asyncio.TaskGroup() as group:
                for sender in senders:
                    group.create_task(sender.run(up, stop))
                try:
                    await self._kill_again_and_again(up)
                    await self._start()
                    up.set()
                finally:
                    stop.set()
            await self._drain()
            await self._check_running()
            self._compare()
            self._check_held()
        except (BenchError, OSError) as error:
            self.book.faults.append(str(error))
        finally:
            if not await asyncio.to_thread(self.gateway.stop):
                self.book.faults.append("the gateway did not end within 30 s of SIGTERM")
            await self.steady.shut()
            await self.moody.shut()
        return not self.book.faults

    async def _kill_again_and_again(self, up: asyncio.Event) -> None:
        end = time.monotonic() + self.minutes * 60 if self.minutes else float("inf")
        while self.done < self.kills and time.monotonic() < end:
            if self._random.random() < _START_UPS:
                self.gateway.spawn()
                await asyncio.sleep(self._random.uniform(0.0, 1.2))
                self.in_start += 1
            else:
                await self._start()
                up.set()
                await self._check_running()
                await asyncio.sleep(self._random.uniform(0.0, 1.5))
            self.gateway.kill()
            up.clear()
            self.done += 1
            if self._random.random() < 0.5:
                await self._toggle()
            if self.book.faults:
                return

    async def _toggle(self) -> None:
        await (self.moody.shut() if self._moody_open else self.moody.open())
        self._moody_open = not self._moody_open

    async def _start(self) -> None:
        # Spawned here and not in a thread: the child is to die with this thread, the main one.
        self.gateway.spawn()
        await asyncio.to_thread(self.gateway.await_ready)

    async def _check_running(self) -> None:
        """The account balances, and nothing that was sent once is in the spool twice."""
        account = await asyncio.to_thread(self.gateway.account)
        if not account["balanced"]:
            self.book.faults.append(f"after kill {self.done}: {account['differences']}")
        rows = await asyncio.to_thread(lambda: list(self.gateway.instances()))
        times = Counter(row["sop_instance_uid"] for row in rows)
        if twice := [uid for uid, count in times.items() if count > 1]:
            self.book.faults.append(
                f"after kill {self.done}: {len(twice)} instances twice in the spool, "
                f"such as {twice[0]}"
            )

    async def _drain(self) -> None:
        """Until nothing waits any longer, or nothing moves."""
        if not self._moody_open:
            await self._toggle()
        best, since = -1, time.monotonic()
        while time.monotonic() - since < _STALLED:
            arrived = len(self.steady.seen) + len(self.moody.seen)
            if arrived > best:
                best, since = arrived, time.monotonic()
            waiting = await asyncio.to_thread(self.gateway.waiting)
            if not waiting and not any(self._missing().values()):
                return
            await asyncio.sleep(0.1)
        self.book.faults.append(f"nothing moved for {_STALLED:.0f} s, {waiting} deliveries wait")

    def _missing(self) -> dict[str, set[str]]:
        return {
            name: self.book.acknowledged - {seen.sop_instance_uid for seen in witness.seen}
            for name, witness in self._witnesses().items()
        }

    def _witnesses(self) -> dict[str, Witness]:
        return {"steady": self.steady, "moody": self.moody}

    def _compare(self) -> None:
        faults, sent = self.book.faults, self.book.sent
        for name, missing in self._missing().items():
            if missing:
                faults.append(
                    f"{len(missing)} acknowledged instances never came to {name}, "
                    f"such as {min(missing)}"
                )
        for name, witness in self._witnesses().items():
            other = [s for s in witness.seen if sent.get(s.sop_instance_uid) != s.digest]
            if other:
                faults.append(f"{len(other)} came to {name} with other bytes, such as {other[0]}")
        if not self.book.acknowledged:
            faults.append("nothing was acknowledged, so nothing was tested")
        account = self.gateway.account()
        dead = sum(d["dead"] for d in account["destinations"])
        if dead or account["discarded"]:
            faults.append(f"{dead} dead letters, {account['discarded']} discarded")
        faults += [
            f"{count} × in the log: {event}" for event, count in self._errors_in_log().items()
        ]

    def _check_held(self) -> None:
        """Held may be only what a kill cut short: written in part, and never acknowledged."""
        for row in self.gateway.instances():
            if row["disposition"] == "routed":
                continue
            self.torn += 1
            uid = row["sop_instance_uid"]
            if uid in self.book.acknowledged or "damaged in the spool" not in row["reason"]:
                self.book.faults.append(f"{uid} is {row['disposition']}: {row['reason']}")

    def _errors_in_log(self) -> Counter[str]:
        lines = self.gateway.log_lines()
        return Counter(
            str(line.get("event", line.get("text")))
            for line in lines
            if "text" in line or (line.get("level") in ("error", "critical") and not _torn(line))
        )

    def table(self) -> str:
        """What was done and found, for people."""
        book = self.book
        rows: list[tuple[str, object]] = [
            ("kills", self.done),
            ("  of them while starting", self.in_start),
            ("instances sent", len(book.sent)),
            ("acknowledged", len(book.acknowledged)),
            ("refused", dict(book.refused) or 0),
            ("cut short, and held", self.torn),
        ]
        for name, witness in self._witnesses().items():
            uids = {seen.sop_instance_uid for seen in witness.seen}
            rows += [
                (f"delivered to {name}", len(uids)),
                ("  more than once", sum(count > 1 for count in witness.seen.values())),
                ("  never acknowledged", len(uids - book.acknowledged)),
                ("  acknowledged and lost", len(book.acknowledged - uids)),
            ]
        text = "\n".join(f"{name:<28}{value!s:>10}" for name, value in rows)
        return "\n".join([text, *(f"WRONG: {fault}" for fault in book.faults)])


def _torn(line: dict[str, Any]) -> bool:
    """Whether a line of the log is about records that were cut short."""
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
