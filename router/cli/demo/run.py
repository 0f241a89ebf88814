"""The demonstration itself: sinks up, gateway up, everything sent, everything found again.

Owns the order of the steps and the proof at the end.  Must not know how any of it is shown.
"""

import asyncio
import contextlib
import hashlib
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from router.cli.demo.place import Place
from router.cli.demo.process import running
from router.cli.demo.sinks import Identity, Received, Sink
from router.cli.desk import Json, SocketDesk
from router.cli.files import DicomFile
from router.cli.sending import Outcome, Sender
from router.dicom.part10 import read_file_meta
from router.net.requestor import Target

CALLING_AE = "DEMO"
ASSOCIATIONS = 4
_PATIENCE = 60.0
"""Seconds without any progress after which the demonstration gives up waiting."""


@dataclass(slots=True)
class Result:
    """What happened.  ``lost`` has a line for everything that is not where it must be.

    ``elsewhere`` are instances that no sink got, as (disposition, reason) by identity.
    """

    began: float
    sent: list[Outcome] = field(default_factory=list)
    send_ended: float = 0.0
    ended: float = 0.0
    account: Json = field(default_factory=dict)
    sinks: dict[str, Received] = field(default_factory=dict)
    elsewhere: dict[Identity, tuple[str, str]] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)


Progress = Callable[[Result], None]


async def demonstrate(
    place: Place,
    files: Sequence[DicomFile],
    wanted: dict[DicomFile, Identity],
    progress: Progress,
    stay: Callable[[Result], bool],
) -> Result:
    """Run it; ``progress`` is told now and then.

    When ``stay`` says so of the result, the gateway and the sinks stay up until cancelled.
    Raises Failure when the gateway does not run.
    """
    _cancel_on_signals()
    async with contextlib.AsyncExitStack() as stack:
        sinks = []
        for name, ae_title, listen in place.destinations():
            sink = Sink(name, ae_title, listen)
            await sink.start()
            stack.push_async_callback(sink.stop)
            sinks.append(sink)
        desk = await stack.enter_async_context(running(place))
        result = Result(time.monotonic(), sinks={sink.name: sink.received for sink in sinks})
        await _send(place, files, result, progress)
        await _settle(desk, result, progress)
        await asyncio.to_thread(_prove, desk, wanted, result)
        progress(result)
        if stay(result):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        return result


def _cancel_on_signals() -> None:
    """Whoever ends us with more than Ctrl-C must not leave a gateway behind either."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)


async def _send(
    place: Place, files: Sequence[DicomFile], result: Result, progress: Progress
) -> None:
    local = place.config.local[0]
    host, _, port = local.listen.rpartition(":")
    target = Target("the gateway", local.ae_title, host, int(port), CALLING_AE)

    def told(outcome: Outcome) -> None:
        result.sent.append(outcome)
        progress(result)

    await Sender(target, files, associations=ASSOCIATIONS, on_outcome=told).run()
    result.send_ended = time.monotonic()


async def _settle(desk: SocketDesk, result: Result, progress: Progress) -> None:
    """Until the gateway has nothing left to do, or got nowhere for a minute."""
    acked = sum(outcome.verdict != "failed" for outcome in result.sent)
    before: object = None
    moved = time.monotonic()
    while True:
        result.account = account = await asyncio.to_thread(desk.account)
        progress(result)
        waiting = sum(line["waiting"] for line in account["destinations"])
        if account["received"] >= acked and not waiting:
            break
        now = (account["received"], waiting, [s.instances for s in result.sinks.values()])
        if now != before:
            before, moved = now, time.monotonic()
        elif time.monotonic() - moved > _PATIENCE:
            result.lost.append(
                f"{waiting} deliveries still wait after {_PATIENCE:.0f} s without progress"
            )
            break
        await asyncio.sleep(0.1)
    arrivals = [sink.last for sink in result.sinks.values() if sink.last is not None]
    result.ended = max([result.send_ended, *arrivals])


# -- the proof


def _prove(desk: SocketDesk, wanted: dict[DicomFile, Identity], result: Result) -> None:
    """Everything acked is at a sink with its very bytes, or visibly somewhere else."""
    acked = [wanted[o.file] for o in result.sent if o.verdict != "failed"]
    for outcome in result.sent:
        if outcome.verdict == "failed":
            result.lost.append(f"{outcome.file.path.name} was not taken: {outcome.reason}")
    known = set(acked)
    arrived: set[Identity] = set()
    for name, sink in result.sinks.items():
        strange = [identity for identity in sink.at if identity not in known]
        arrived.update(sink.at)
        result.lost += [f"{name} got other bytes of {uid}" for uid, _ in strange]
    for identity in dict.fromkeys(acked):
        if identity not in arrived:
            _look_for(desk, identity, result)
    _compare(result, len(acked))


def _look_for(desk: SocketDesk, identity: Identity, result: Result) -> None:
    uid, digest = identity
    for row in desk.instances({"sop_instance_uid": uid}, 100, "")["entries"]:
        if row["disposition"] != "routed" and _exported_digest(desk, row["id"]) == digest:
            result.elsewhere[identity] = (row["disposition"], row["reason"])
            return
    result.lost.append(f"{uid} is nowhere")


def _exported_digest(desk: SocketDesk, number: int) -> str:
    with desk.file(number) as file:
        whole = b"".join(file.pieces)
    return hashlib.sha256(whole[read_file_meta(whole).data_set_offset :]).hexdigest()


def _compare(result: Result, acked: int) -> None:
    """The gateway's own account against what the sender and the sinks counted."""
    account = result.account
    if account["received"] != acked:
        result.lost.append(f"{acked} were acknowledged, the gateway counts {account['received']}")
    for scope, difference in account["differences"].items():
        result.lost.append(f"the account does not balance: {scope}: {difference}")
    counted = {line["destination"]: line["delivered"] for line in account["destinations"]}
    for name, sink in result.sinks.items():
        if sink.instances != counted.get(name, 0):
            result.lost.append(
                f"{name} got {sink.instances}, the gateway counts {counted.get(name, 0)}"
            )
    dead = sum(line["dead"] for line in account["destinations"])
    if dead:
        result.lost.append(f"{dead} deliveries are dead letters")


def transit_times(result: Result, wanted: dict[DicomFile, Identity]) -> dict[str, list[float]]:
    """By sink, seconds from the sender's first byte of an instance to the sink's last, sorted."""
    began: dict[Identity, float] = {}
    repeated = Counter(wanted[outcome.file] for outcome in result.sent)
    for outcome in result.sent:
        began[wanted[outcome.file]] = outcome.began
    return {
        name: sorted(
            at - began[identity]
            for identity, at in sink.at.items()
            if repeated[identity] == 1  # of one sent twice nobody knows which came through
        )
        for name, sink in result.sinks.items()
    }
