"""A load generator: many associations, each sending instances made in memory.

``python -m perf.load`` prints one JSON line with what was sent and acknowledged.  It speaks
the upper layer by itself (`perf.wire`), so it checks the product from outside.
"""

import argparse
import asyncio
import contextlib
import json
import random
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import asdict, dataclass, field

import uvloop

from perf import data, wire

_OWN_CAP = 128 * 1024
_CONTEXT = 1
_LIMIT = 120.0


@dataclass(slots=True)
class Report:
    """What a run did.  Times are of the monotonic clock, which all processes here share."""

    associations: int = 0
    sent: int = 0
    acknowledged: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    began: float = 0.0
    ended: float = 0.0

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    def fail(self, why: str) -> None:
        self.failures[why] = self.failures.get(why, 0) + 1


class Association:
    """A requestor with one presentation context, sending one C-STORE after the other."""

    def __init__(self, port: int, called: str, sop_class: str) -> None:
        self._port = port
        self._called = called
        self._sop_class = sop_class
        self._message_id = 0
        self.maximum_length = 0

    async def open(self) -> None:
        """Connect and negotiate.  Raises WireError, OSError or TimeoutError."""
        async with asyncio.timeout(_LIMIT):
            self._reader, self._writer = await asyncio.open_connection(
                "127.0.0.1", self._port, limit=2**20
            )
            self._writer.get_extra_info("socket").setsockopt(
                socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
            )
            contexts = [wire.Context(_CONTEXT, self._sop_class, (wire.EXPLICIT_LE,))]
            self._writer.write(wire.associate_rq(self._called, "LOAD", contexts, 16384))
            kind, body = await self._pdu()
        if kind == wire.ASSOCIATE_RJ:
            raise WireError(f"rejected: result, source, reason {tuple(body[1:4])}")
        if kind != wire.ASSOCIATE_AC:
            raise WireError(f"PDU type {kind} in answer to A-ASSOCIATE-RQ")
        results, maximum = wire.parse_accept(body)
        if results.get(_CONTEXT) != 0:
            raise WireError(f"presentation context refused: {results.get(_CONTEXT)}")
        self.maximum_length = min(maximum or _OWN_CAP, _OWN_CAP)

    async def store(self, sop_instance: str, body: AsyncIterator[bytes | memoryview]) -> int:
        """Send one instance whose P-DATA-TF PDUs ``body`` yields; the status."""
        self._message_id = self._message_id % 65535 + 1
        self._writer.write(wire.store_rq(_CONTEXT, self._message_id, self._sop_class, sop_instance))
        async for pdus in body:
            self._writer.write(pdus)
            async with asyncio.timeout(_LIMIT):
                await self._writer.drain()
        async with asyncio.timeout(_LIMIT):
            kind, reply = await self._pdu()
        if kind != wire.P_DATA_TF:
            raise WireError(f"PDU type {kind} in answer to C-STORE-RQ")
        command = wire.parse_command(reply[6:])
        if int.from_bytes(command[0x0120], "little") != self._message_id:
            raise WireError("the response is to another message")
        return int.from_bytes(command[0x0900], "little")

    async def begin(self, sop_instance: str, pdus: Iterable[bytes]) -> None:
        """Send the C-STORE-RQ and these PDUs of its data set, and wait for no answer."""
        self._message_id = self._message_id % 65535 + 1
        self._writer.write(wire.store_rq(_CONTEXT, self._message_id, self._sop_class, sop_instance))
        self._writer.writelines(pdus)
        async with asyncio.timeout(_LIMIT):
            await self._writer.drain()

    def abort(self, *, politely: bool) -> None:
        """A-ABORT and close, or a connection that just breaks."""
        if politely:
            self._writer.write(wire.ABORT_PDU)
            self._writer.close()
        else:
            self._writer.transport.abort()

    async def release(self) -> None:
        """A-RELEASE, then close."""
        async with asyncio.timeout(_LIMIT):
            self._writer.write(wire.RELEASE_RQ_PDU)
            kind, _ = await self._pdu()
        if kind != wire.RELEASE_RP:
            raise WireError(f"PDU type {kind} in answer to A-RELEASE-RQ")
        await self.close()

    async def close(self) -> None:
        """Close the connection, open or not."""
        if hasattr(self, "_writer"):
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()

    async def _pdu(self) -> tuple[int, bytes]:
        header = await self._reader.readexactly(6)
        kind, length = struct.unpack(">BxI", header)
        return kind, await self._reader.readexactly(length)


WireError = wire.WireError
_TROUBLE = (WireError, OSError, TimeoutError, asyncio.IncompleteReadError)


class Message:
    """An instance of a template as P-DATA-TF, encoded once per maximum length.

    Only the first PDU, with the UID and the first pixels, differs between instances.
    """

    def __init__(self, template: data.Template) -> None:
        self.template = template
        self._tails: dict[int, bytes] = {}

    async def pdus(self, uid: str, serial: int, maximum: int) -> AsyncIterator[bytes | memoryview]:
        """The P-DATA-TF PDUs of the data set with this UID and ``serial`` in its pixels."""
        t = self.template
        head = bytearray(t.data[: t.pixel_offset + 8])
        head[t.uid_offset : t.uid_offset + len(uid)] = uid.encode()
        struct.pack_into("<Q", head, t.pixel_offset, serial)
        yield wire.data_pdu_header(_CONTEXT, len(head), last=False) + bytes(head)
        yield self._tail(maximum)

    def _tail(self, maximum: int) -> bytes:
        if maximum not in self._tails:
            rest = memoryview(self.template.data)[self.template.pixel_offset + 8 :]
            self._tails[maximum] = b"".join(wire.data_pdus(_CONTEXT, rest, maximum))
        return self._tails[maximum]


async def big_pdus(
    template: data.Template, uid: str, maximum: int
) -> AsyncIterator[bytes | memoryview]:
    """An instance of any size, its pixels made on the way out of one random block."""
    head = bytearray(template.data)
    head[template.uid_offset : template.uid_offset + len(uid)] = uid.encode()
    yield wire.data_pdu_header(_CONTEXT, len(head), last=False) + bytes(head)
    block = memoryview(random.Random(0).randbytes(maximum - 6))
    left = template.pixel_bytes
    while left:
        piece = block[: min(left, len(block))]
        left -= len(piece)
        yield wire.data_pdu_header(_CONTEXT, len(piece), last=not left) + piece


@dataclass(frozen=True, slots=True)
class Plan:
    """``associations`` in all, ``at_once`` of them open, each sending ``instances``.

    With ``barrier`` the first data set leaves only when ``at_once`` associations are open.
    With ``seconds`` every association goes on until then instead of counting.  Associations are
    numbered from ``first`` on: the UIDs depend on that number.
    """

    port: int
    called: str
    kind: str
    associations: int
    at_once: int
    instances: int
    barrier: bool = False
    seconds: float = 0.0
    first: int = 0


class Load:
    """Runs one plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._kind = data.KINDS[plan.kind]
        self._message = Message(data.template(self._kind))
        self._next = iter(range(plan.first, plan.first + plan.associations))
        self._serial = 0
        self._waiting = 0
        self._opened = asyncio.Event()
        self.report = Report()

    async def run(self) -> Report:
        """Everything that the plan says; failures are counted, not raised."""
        self.report.began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(self._plan.at_once):
                group.create_task(self._worker())
        self.report.ended = time.monotonic()
        return self.report

    async def _worker(self) -> None:
        for number in self._next:
            association = Association(self._plan.port, self._plan.called, self._kind.sop_class_uid)
            try:
                await self._open(association)
                self.report.associations += 1
                await self._send(association, number)
                await association.release()
            except _TROUBLE as error:
                self.report.fail(f"{type(error).__name__}: {error}")
                await association.close()

    async def _open(self, association: Association) -> None:
        try:
            await association.open()
        finally:
            # Those that failed count too, or the others would wait for ever.
            self._waiting += 1
            if not self._plan.barrier or self._waiting >= self._plan.at_once:
                if self._plan.barrier and not self._opened.is_set():
                    self.report.began = time.monotonic()
                self._opened.set()
        await self._opened.wait()

    async def _send(self, association: Association, sender: int) -> None:
        number = 0
        while self._more(number):
            uid = data.instance_uid(self._kind, sender, number)
            number += 1
            self._serial += 1
            self.report.sent += 1
            pdus = self._message.pdus(uid, self._serial, association.maximum_length)
            status = await association.store(uid, pdus)
            if status == 0:
                self.report.acknowledged += 1
            else:
                self.report.fail(f"status {status:04X}")

    def _more(self, number: int) -> bool:
        if self._plan.seconds:
            return time.monotonic() - self.report.began < self._plan.seconds
        return number < self._plan.instances


async def send_big(port: int, called: str, size: int) -> Report:
    """One instance of about ``size`` bytes over one association.  Raises on any trouble."""
    template = data.big_template(size)
    association = Association(port, called, template.kind.sop_class_uid)
    report = Report(associations=1, began=time.monotonic())
    await association.open()
    uid = data.instance_uid(template.kind, 999_998, 1)
    report.sent = 1
    status = await association.store(uid, big_pdus(template, uid, association.maximum_length))
    if status == 0:
        report.acknowledged = 1
    else:
        report.fail(f"status {status:04X}")
    report.ended = time.monotonic()
    await association.release()
    return report


def main() -> int:
    """Command line; exit 0 only when every instance was acknowledged with 0000."""
    parser = argparse.ArgumentParser(prog="python -m perf.load", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--called", default="ROUTER")
    parser.add_argument("--kind", choices=sorted(data.KINDS), default="ct")
    parser.add_argument("--associations", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--instances", type=int, default=1, help="per association")
    parser.add_argument("--barrier", action="store_true", help="send when all are open")
    parser.add_argument("--seconds", type=float, default=0.0, help="instead of --instances")
    parser.add_argument("--first", type=int, default=0, help="number of the first association")
    parser.add_argument("--big", type=int, default=0, metavar="BYTES", help="one such instance")
    args = parser.parse_args()
    if args.big:
        report = uvloop.run(send_big(args.port, args.called, args.big))
    else:
        plan = Plan(
            args.port,
            args.called,
            args.kind,
            args.associations,
            min(args.at_once, args.associations),
            args.instances,
            args.barrier,
            args.seconds,
            args.first,
        )
        report = uvloop.run(run_plan(plan))
    print(json.dumps({**asdict(report), "seconds": report.seconds}), flush=True)
    return 0 if report.sent == report.acknowledged and not report.failures else 1


async def run_plan(plan: Plan) -> Report:
    """`Load.run` for callers without a loop yet."""
    return await Load(plan).run()


if __name__ == "__main__":
    sys.exit(main())
