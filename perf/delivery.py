"""Deliveries through everything that a network and a peer can do, and an account of each.

``python -m perf.delivery``: a gateway sends what it receives to pynetdicom and to DCMTK, each
behind a proxy that breaks connections at any byte, answers wrongly, late or not at all, and to a
sink that nothing befalls.  Every instance must arrive everywhere; one that arrives twice must have
had its first answer lost or changed on the way; the sink must not notice.  Exit 0 only when that
held.

Owns what befalls a connection, and the judgement.  Must not know the product: what it did is seen
from what passed the proxies, from the files of the destinations, and from its account.
"""

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias, overload

from pydicom import dcmread
from rich.console import Console
from rich.table import Table

from perf import data, wire
from perf import faults as wrong
from perf.contenders import Contender, Pynetdicom, Sink, Storescp
from perf.gateway import GatewayProcess
from perf.processes import BenchError, Child
from perf.proxy import THROUGH, Answer, Cut, End, FaultProxy, How, Script, Step

PATIENCE = 1.0
"""Seconds of each time-out of the gateway."""
ISLAND = 5.0
"""Seconds after the last instance was acknowledged in which the sink has everything."""
_LIMIT = 1200.0
_REACH = 8
"""A fault befalls one of the first so many messages of its connection."""
_ANSWER = 150
"""Bytes of a C-STORE-RSP, about."""
Change: TypeAlias = Callable[[Answer], Iterable[Step]]
_STATUSES = (0x0110, 0x0117, 0x0122, 0x0124, 0x0210, 0x0213, 0xA700, 0xA701, 0xA900, 0xC000, 0xC123)


class UniqueNames(Storescp):
    """storescp with a file of its own for each C-STORE.

    By default it names files after the instance, and what it removes after an association that
    broke off in the middle may be what another one has stored completely meanwhile.
    """

    def command(self) -> list[str]:
        """See `Contender`."""
        program, *options = super().command()
        return [program, "--unique-filenames", *options]


@dataclass(slots=True)
class Said:
    """What an acceptor answered for an instance, in its ``pdu``-th PDU on the connection, from 0.

    ``at``: when, by the monotonic clock.  ``intact``: nothing changed the answer.
    """

    at: float
    uid: str
    status: int
    pdu: int
    intact: bool = True


@dataclass(slots=True)
class Conversation:
    """One connection: its script by name, and what was answered on it, in order."""

    name: str
    script: Script
    said: list[Said] = field(default_factory=list)
    pdus: int = 0


class Mischief(Sequence[Script]):
    """A script for each connection, until enough of them had a fault; see `FaultProxy`."""

    def __init__(self, wanted: int, size: int, dice: random.Random) -> None:
        self._wanted = wanted
        self._size = size
        self._random = dice
        self.proxy: FaultProxy | None = None
        self.conversations: list[Conversation] = []
        self.over = False

    def __len__(self) -> int:
        return sys.maxsize

    def __iter__(self) -> Iterator[Script]:
        return iter(())

    @overload
    def __getitem__(self, index: int) -> Script: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Script]: ...
    def __getitem__(self, index: int | slice) -> Script | Sequence[Script]:
        """The script of the connection that is being accepted."""
        name, script = ("through", THROUGH) if self.faults >= self._wanted else self._draw()
        conversation = Conversation(name, script)
        self.conversations.append(conversation)
        return _heard(script, conversation)

    @property
    def faults(self) -> int:
        """Connections that had their fault."""
        records = self.proxy.records if self.proxy is not None else []
        return sum("fault" in record.said for record in records)

    def _draw(self) -> tuple[str, Script]:
        dice = self._random
        how: How = dice.choice(("fin", "rst"))
        number = dice.randint(1, _REACH)
        match dice.choice(_KINDS):
            case "cut in a request":
                after = dice.randint(1, _REACH * self._size)
                return f"cut in a request ({how})", Script(cut=Cut("request", after, how))
            case "cut in an answer":
                after = dice.randint(1, _REACH * _ANSWER)
                return f"cut in an answer ({how})", Script(cut=Cut("answer", after, how))
            case "slow, then cut":
                cut = Cut("request", dice.randint(1, 2 * self._size), how)
                return "slow, then cut", Script(bandwidth=1e6, delay=0.02, jitter=0.05, cut=cut)
            case "closed at once":
                return f"closed at once ({how})", Script(greet=how)
            case "half-open":
                return "half-open", Script(answering=False)
            case "never reads on":
                after = dice.randint(0, 2 * self._size)
                return "never reads on", Script(stop_reading=after, stall=3 * PATIENCE)
            case "rejected":
                result, source, reason = dice.choice(((1, 1, 1), (2, 3, 1), (2, 3, 2)))
                rejection = wrong.rejected(result, source, reason)
                return "rejected", Script(rewrite=wrong.at_acceptance(rejection))
            case "status":
                status = dice.choice(_STATUSES)
                change = wrong.response(status)
                return f"status {status:04X}", _once(change, number)
            case kind:
                change = _changes(dice)[kind]
                return kind, _once(change, number)


def _once(change: Change, number: int) -> Script:
    """At one answer; if the connection survives it, it is closed a few messages later."""

    def rewrite(answer: Answer) -> Iterable[Step]:
        if answer.kind != wire.P_DATA_TF or answer.number < number:
            return (answer.pdu,)
        if answer.number == number:
            return change(answer)
        return (answer.pdu, End.FIN) if answer.number == number + 3 else (answer.pdu,)

    return Script(rewrite=rewrite)


def _changes(dice: random.Random) -> dict[str, Change]:
    return {
        "garbage": wrong.instead(dice.randbytes(dice.randint(1, 300)), End.FIN),
        "late": wrong.late(1.5 * PATIENCE),
        "twice": wrong.twice,
        "for another message": wrong.response(add_to_id=1),
        "for another instance": wrong.response(instance="2.25.1"),
        "aborted": wrong.instead(wrong.ABORTED_BY_USER, End.FIN),
        "answered and gone": wrong.ended_by(dice.choice((End.FIN, End.RST))),
    }


_KINDS = (
    *("cut in a request", "cut in an answer") * 4,
    *("slow, then cut", "closed at once", "half-open", "never reads on", "rejected"),
    *("status",) * 3,
    *_changes(random.Random(0)),
)


def _heard(script: Script, conversation: Conversation) -> Script:
    """The same script, with a note of what the acceptor says."""

    def note(answer: Answer) -> Iterable[Step]:
        if answer.kind == wire.P_DATA_TF:
            uid = answer.request[0x1000].rstrip(b"\0").decode()
            status = _status(answer.pdu)
            conversation.said.append(Said(time.monotonic(), uid, status, conversation.pdus))
        conversation.pdus += 1
        return (answer.pdu,)

    inner = script.rewrite

    def changed(answer: Answer) -> Iterable[Step]:
        if inner is None:
            return (answer.pdu,)
        steps = tuple(inner(answer))
        if answer.kind == wire.P_DATA_TF and steps != (answer.pdu,):
            conversation.said[answer.number - 1].intact = False
        return steps

    return replace(script, rewrite=None if inner is None else changed, setup=note)


def _status(pdu: bytes) -> int:
    """Of a C-STORE-RSP in one P-DATA-TF."""
    return int.from_bytes(wire.parse_command(pdu[12:])[0x0900], "little")


@dataclass(slots=True)
class Verdict:
    """What became of one destination's deliveries."""

    name: str
    faults: int
    connections: int
    kinds: Counter[str]
    arrived: int
    missing: int
    twice: int
    unexplained: list[str]
    sizes: int


def _when(said: Said) -> float:
    return said.at


def judge(name: str, mischief: Mischief, expected: set[str], folder: Path) -> Verdict:
    """``folder`` has the files of the destination."""
    proxy = mischief.proxy
    records = proxy.records if proxy is not None else []
    taken: dict[str, list[Said]] = defaultdict(list)
    kinds: Counter[str] = Counter()
    for conversation, record in zip(mischief.conversations, records, strict=True):
        if "fault" in record.said:
            kinds[conversation.name.partition(" (")[0]] += 1
        for said in conversation.said:
            if conversation.script.rewrite is None:
                said.intact = record.answer_ends[said.pdu] <= record.to_sender
            if said.status == 0:
                taken[said.uid].append(said)
        if conversation.name.endswith("(rst)") and conversation.said:
            # What lies unread in the receiver's buffer is lost with a reset.
            conversation.said[-1].intact = False
    repeated = {uid: sorted(said, key=_when) for uid, said in taken.items() if len(said) > 1}
    sizes = Counter[int]()
    found = set[str]()
    for path in folder.iterdir():
        if path.is_file():
            found.add(
                dcmread(
                    path, stop_before_pixels=True, force=True, specific_tags=["SOPInstanceUID"]
                ).SOPInstanceUID
            )
            sizes[path.stat().st_size] += 1
    return Verdict(
        name,
        mischief.faults,
        len(records),
        kinds,
        len(expected & found),
        len(expected - found),
        len(repeated),
        [uid for uid, said in repeated.items() if any(each.intact for each in said[:-1])],
        len(sizes),
    )


@dataclass(slots=True)
class Result:
    """A run."""

    instances: int
    seconds: float
    verdicts: list[Verdict]
    retried: int
    account: dict[str, Any]
    sink_stores: int
    sink_instances: int
    sink_after: float

    def troubles(self, wanted: int) -> list[str]:
        """Everything that is not as it has to be."""
        found = []
        if sum(verdict.faults for verdict in self.verdicts) < wanted:
            found.append(f"fewer than {wanted} faults befell it")
        for v in self.verdicts:
            if v.missing:
                found.append(f"{v.name}: {v.missing} of {self.instances} did not arrive")
            if v.unexplained:
                found.append(f"{v.name}: {len(v.unexplained)} were sent again though answered")
            if v.sizes != 1:
                found.append(f"{v.name}: files of {v.sizes} sizes, of instances of one size")
        if self.sink_instances != self.instances or self.sink_stores != self.instances:
            found.append(f"the sink has {self.sink_instances} in {self.sink_stores} stores")
        if self.sink_after > ISLAND:
            found.append(f"the sink had to wait {self.sink_after:.1f} s for the others")
        if not self.account["balanced"]:
            found.append(f"the account does not balance: {self.account['differences']}")
        return found


class Run:
    """One gateway, its destinations, and what befalls them."""

    def __init__(self, home: Path, instances: int, wanted: int, seed: int) -> None:
        self._home = home
        self._count = instances
        dice = random.Random(seed)
        size = len(data.template(data.KINDS["mr"]).data)
        self._mischief = {
            name: Mischief(-(-wanted // 2), size, random.Random(dice.random()))
            for name in ("pynetdicom", "storescp")
        }

    async def run(self) -> Result:
        """Raises BenchError when something that is not judged went wrong."""
        loop = asyncio.get_running_loop()
        peers: list[Contender] = [Pynetdicom(self._home), UniqueNames(self._home)]
        proxies: list[FaultProxy] = []
        sink = await loop.run_in_executor(None, Sink, self._home)
        try:
            for peer in peers:
                await loop.run_in_executor(None, peer.start)
                mischief = self._mischief[peer.name]
                proxy = mischief.proxy = FaultProxy(peer.port, mischief)
                await proxy.open()
                proxies.append(proxy)
            return await self._send(peers, sink)
        finally:
            for proxy in proxies:
                await proxy.close()
            for peer in peers:
                await loop.run_in_executor(None, peer.stop)
            await loop.run_in_executor(None, sink.close)

    async def _send(self, peers: Sequence[Contender], sink: Sink) -> Result:
        loop = asyncio.get_running_loop()
        ports = {
            name: mischief.proxy.port
            for name, mischief in self._mischief.items()
            if mischief.proxy is not None
        }
        with GatewayProcess(self._home / "gateway", _settings(ports, sink.port)) as gateway:
            began = time.monotonic()
            report = await loop.run_in_executor(None, self._load, gateway)
            acknowledged = float(report["ended"])
            retried = await self._settle(gateway, began)
            seconds = time.monotonic() - began
            account = await loop.run_in_executor(None, gateway.account)
            tally = await loop.run_in_executor(None, sink.now)
        expected = {
            data.instance_uid(data.KINDS["mr"], sender, number)
            for sender in range(4)
            for number in range(self._count // 4)
        }
        verdicts = [
            judge(peer.name, self._mischief[peer.name], expected, peer.home) for peer in peers
        ]
        return Result(
            len(expected),
            seconds,
            verdicts,
            retried,
            account,
            int(tally["stores"]),
            int(tally["instances"]),
            max(0.0, tally["last"] - acknowledged),
        )

    def _load(self, gateway: GatewayProcess) -> dict[str, Any]:
        command = [sys.executable, "-m", "perf.load", "--port", str(gateway.port), "--kind", "mr"]
        command += ["--associations", "4", "--at-once", "4"]
        child = Child(
            [*command, "--instances", str(self._count // 4)], self._home / "load.log", pipe=True
        )
        try:
            child.wait(_LIMIT)
            output = child.popen.stdout.read() if child.popen.stdout is not None else b""
            report: dict[str, Any] = json.loads(output.splitlines()[-1])
        except (IndexError, ValueError):
            raise BenchError(f"perf.load failed: {child.tail()}") from None
        finally:
            child.stop()
        if report["failures"]:
            raise BenchError(f"not everything was acknowledged: {report['failures']}")
        return report

    async def _settle(self, gateway: GatewayProcess, began: float) -> int:
        """Until everything is delivered; what was given up is retried, as an operator would.

        How many were.
        """
        loop = asyncio.get_running_loop()
        retried = 0
        while True:
            if time.monotonic() - began > _LIMIT:
                raise BenchError(f"not delivered in {_LIMIT:g} s: {gateway.ask('/api/v1/queue')}")
            queues = (await loop.run_in_executor(None, gateway.ask, "/api/v1/queue"))["queues"]
            left = Counter[str]()
            for queue in queues:
                left[queue["state"]] += queue["instances"]
            if not left["ready"] and not left["dead"]:
                return retried
            if not left["ready"]:
                body = {"state": "dead"}
                status, answer = await loop.run_in_executor(
                    None, gateway.control, "POST", "/api/v1/queue/retry", body
                )
                if status != 200:
                    raise BenchError(f"queue/retry: {status} {answer[:200]!r}")
                retried += left["dead"]
            await asyncio.sleep(0.25)


def _settings(ports: dict[str, int], sink: int) -> dict[str, Any]:
    patience = f"{PATIENCE:g}s"
    times = {"connect_timeout": patience, "negotiation_timeout": patience, "linger": "500ms"}
    retry = {"first": "50ms", "factor": 2.0, "cap": "500ms", "max_attempts": 50}
    remotes = {
        name: {"ae_title": name.upper(), "host": "127.0.0.1", "port": port, "associations": 4}
        | {"dimse_timeout": patience, "retry": retry}
        | times
        for name, port in ports.items()
    }
    remotes["sink"] = {"ae_title": "SINK", "host": "127.0.0.1", "port": sink, "associations": 4}
    return {
        "remotes": remotes,
        "rules": [{"name": "everything to all", "to": list(remotes)}],
        "log": {"level": "error"},
    }


def conclude(result: Result, wanted: int, console: Console) -> bool:
    """The tables; whether everything is as it has to be."""
    table = Table(title=f"{result.instances} instances, {result.seconds:.0f} s")
    for column in ("destination", "connections", "faults", "arrived", "twice", "twice, answered"):
        table.add_column(column, justify="left" if column == "destination" else "right")
    for v in result.verdicts:
        numbers = (v.connections, v.faults, v.arrived, v.twice, len(v.unexplained))
        table.add_row(v.name, *map(str, numbers))
    table.add_row("sink", "", "0", str(result.sink_instances), "0", "0")
    console.print(table)
    kinds = Table("fault", *(v.name for v in result.verdicts))
    for kind in sorted({kind for v in result.verdicts for kind in v.kinds}):
        kinds.add_row(kind, *(str(v.kinds[kind]) for v in result.verdicts))
    console.print(kinds)
    console.print(
        f"{result.retried} were given up for an answer that says so, and retried by hand; the sink "
        f"had everything {result.sink_after:.1f} s after the last was acknowledged"
    )
    troubles = result.troubles(wanted)
    for trouble in troubles:
        console.print(f"WRONG: {trouble}", markup=False, soft_wrap=True)
    return not troubles


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m perf.delivery", description=__doc__)
    parser.add_argument("--instances", type=int, default=10_000, help="a multiple of four")
    parser.add_argument("--faults", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="delivery-", dir=args.work))
    try:
        result = asyncio.run(Run(home, args.instances, args.faults, args.seed).run())
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(home)
    return 0 if conclude(result, args.faults, Console(width=110)) else 1


if __name__ == "__main__":
    sys.exit(main())
