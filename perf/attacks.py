"""Peers that mean no good, or know no better: what they send, and at what pace.

``python -m perf.attacks NAME --port PORT`` goes on until SIGTERM and then prints one JSON line.
Owns the attackers alone; `perf.hostile` measures what a proper sender notices of them.  All of
them come from an address of their own, 127.0.0.2, and are paced: they share the machine with what
they attack, and what is asked is how well that defends itself, not who has more of the CPU.
"""

import argparse
import asyncio
import contextlib
import functools
import json
import random
import signal
import socket
import ssl
import struct
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import uvloop

from perf import wire

SOURCE = "127.0.0.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
_CONTEXT = 1
_CONNECT_LIMIT = 10.0
_ASSOCIATE_CAP = 2**20
_STRIDE = 37


@dataclass(slots=True)
class Aim:
    """What an attack is aimed at, how much of it there is, and how it went.

    ``at_once`` connections, each opened anew when it has ended, ``pace`` of them a second, and
    ``limit`` in all; ``tick`` is the time between two bytes of those that drip.
    """

    port: int
    called: str = "ROUTER"
    at_once: int = 1000
    pace: float = 500.0
    limit: int = sys.maxsize
    tick: float = 1.0
    source: str = SOURCE
    begun: int = 0
    made: int = 0
    opening: int = 0
    refused: int = 0
    sent_away: int = 0
    up: asyncio.Event = field(default_factory=asyncio.Event)
    _next: float = 0.0

    async def turn(self) -> bool:
        """Wait for the time of the next connection; False when there is to be none."""
        if self.begun >= self.limit:
            return False
        self.begun += 1
        loop = asyncio.get_running_loop()
        self._next = max(loop.time(), self._next + 1 / self.pace)
        await asyncio.sleep(self._next - loop.time())
        return True


class Wire:
    """One connection of an attacker."""

    def __init__(self, aim: Aim, number: int) -> None:
        self.aim = aim
        self.number = number

    async def open(self, receive_buffer: int = 0) -> None:
        """Connect.  Raises OSError or TimeoutError."""
        below = socket.socket()
        try:
            below.setblocking(False)
            if receive_buffer:  # counts only before there is a connection
                below.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            below.bind((self.aim.source, 0))
            async with asyncio.timeout(_CONNECT_LIMIT):
                loop = asyncio.get_running_loop()
                await loop.sock_connect(below, ("127.0.0.1", self.aim.port))
            self.reader, self.writer = await asyncio.open_connection(sock=below, limit=2**16)
        except BaseException:
            below.close()
            raise

    async def send(self, data: bytes) -> None:
        """Write, and wait while the peer takes nothing.  Raises OSError when it has closed."""
        if self.writer.is_closing():  # uvloop raises RuntimeError then
            raise ConnectionResetError("closed by the peer")
        self.writer.write(data)
        await self.writer.drain()

    async def ended(self) -> None:
        """Until the peer closes."""
        while await self.reader.read(2**16):
            pass

    async def drip(self, data: bytes) -> None:
        """A byte at each tick, then nothing."""
        for at in range(len(data)):
            await self.send(data[at : at + 1])
            await asyncio.sleep(self.aim.tick)
        await self.ended()

    async def associate(self) -> bool:
        """Ask for an association as a stranger would; whether it was granted."""
        await self.send(request(self.aim.called))
        header = await self.reader.readexactly(6)
        kind, length = struct.unpack(">BxI", header)
        await self.reader.readexactly(length)
        return bool(kind == wire.ASSOCIATE_AC)

    def close(self) -> None:
        """Drop it, whatever is still to be written."""
        if hasattr(self, "writer"):
            self.writer.transport.abort()


Visit = Callable[[Wire], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Attack:
    """One kind of attack: what each of its connections does, and the numbers of a full run."""

    title: str
    visit: Visit
    at_once: int
    pace: float
    receive_buffer: int = 0


def request(called: str, calling: str = "STRANGER") -> bytes:
    """A well-formed A-ASSOCIATE-RQ with one context."""
    contexts = [wire.Context(_CONTEXT, MR, (wire.EXPLICIT_LE,))]
    return wire.associate_rq(called, calling, contexts, 16384)


def long_request(called: str, items: bytes) -> bytes:
    """A-ASSOCIATE-RQ with these items and nothing else."""
    body = struct.pack(">H2x16s16s32x", 1, called.ljust(16).encode(), b"STRANGER".ljust(16))
    return struct.pack(">BxI", wire.ASSOCIATE_RQ, len(body) + len(items)) + body + items


def item(kind: int, value: bytes = b"") -> bytes:
    """An item of an A-ASSOCIATE-RQ."""
    return struct.pack(">BxH", kind, len(value)) + value


def conversation(called: str, number: int) -> bytes:
    """A whole C-STORE, from the request for the association to that for its release."""
    data = bytes(256)
    header = wire.data_pdu_header(_CONTEXT, len(data), last=True)
    store = wire.store_rq(_CONTEXT, 1, MR, f"2.25.77{number:06d}")
    return request(called) + store + header + data + wire.RELEASE_RQ_PDU


def echo_rq(message_id: int) -> bytes:
    """A C-ECHO-RQ, on a context for something else: it is answered all the same."""
    elements = (
        (0x0002, b"1.2.840.10008.1.1\0"),
        (0x0100, struct.pack("<H", wire.C_ECHO_RQ)),
        (0x0110, struct.pack("<H", message_id)),
        (0x0800, b"\x01\x01"),
    )
    command = b"".join(struct.pack("<HHI", 0, n, len(v)) + v for n, v in elements)
    command = struct.pack("<HHII", 0, 0, 4, len(command)) + command
    n = len(command)
    return struct.pack(">BxIIBB", wire.P_DATA_TF, n + 6, n + 2, _CONTEXT, 3) + command


async def _silent(peer: Wire) -> None:
    await peer.ended()


async def _drip(peer: Wire) -> None:
    await peer.drip(request(peer.aim.called))


async def _http(peer: Wire) -> None:
    await peer.send(b"GET / HTTP/1.1\r\nHost: gateway\r\nConnection: keep-alive\r\n\r\n")
    await peer.ended()


@functools.cache
def client_hello() -> bytes:
    """What a TLS client says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="gateway")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


async def _tls(peer: Wire) -> None:
    await peer.send(client_hello())
    await peer.ended()


async def _random(peer: Wire) -> None:
    # A first byte of 1 to 7 would be a PDU type: those are other attacks.
    await peer.send(b"\xc3" + random.Random(peer.number).randbytes(8191))
    await peer.ended()


async def _lengths(peer: Wire) -> None:
    kind = (wire.ASSOCIATE_RQ, wire.ASSOCIATE_AC, wire.P_DATA_TF, wire.ABORT)[peer.number % 4]
    await peer.send(struct.pack(">BxI", kind, 0xFFFFFFFF) + bytes(64))
    await peer.ended()


async def _contexts(peer: Wire) -> None:
    """As many context items as fit, and in turn a million, of which the header alone is sent."""
    items = item(0x20, b"\x01\0\0\0")
    fitting = (_ASSOCIATE_CAP - 68) // len(items)
    if peer.number % 2:
        head = struct.pack(">BxI", wire.ASSOCIATE_RQ, 68 + 1_000_000 * len(items))
        await peer.send(head + items * 1000)
    else:
        await peer.send(long_request(peer.aim.called, items * fitting))
    await peer.ended()


async def _user_information(peer: Wire) -> None:
    items = item(0x10, b"1.2.840.10008.3.1.1.1") + item(0x50, item(0x56, b"\0\0") * 10_900)
    await peer.send(long_request(peer.aim.called, items))
    await peer.ended()


async def _held_requests(peer: Wire) -> None:
    """A request as long as it may be, but for its last byte."""
    items = item(0x99, bytes(0xFFFF)) * 15
    await peer.send(long_request(peer.aim.called, items)[:-1])
    await peer.ended()


async def _endless(peer: Wire) -> None:
    """A data set without an end, at 20 MB/s of all together."""
    if not await peer.associate():
        return
    await peer.send(wire.store_rq(_CONTEXT, 1, MR, f"2.25.78{peer.number}"))
    piece = wire.data_pdu_header(_CONTEXT, 2**16, last=False) + bytes(2**16)
    batch = piece * 8
    pause = len(batch) * peer.aim.at_once / 20e6
    while not peer.reader.at_eof():
        await peer.send(batch)
        await asyncio.sleep(pause)


async def _storm(peer: Wire) -> None:
    """What a load balancer's check does: connect and close."""


async def _cuts(peer: Wire) -> None:
    """A conversation, aborted behind its byte N: by A-ABORT, by the end, by a reset in turn."""
    whole = conversation(peer.aim.called, peer.number)
    # The stride, a prime, comes to every byte, and soon to every part.
    data = whole[: peer.number * _STRIDE % len(whole)]
    how = peer.number // len(whole) + peer.number
    asked = len(request(peer.aim.called))
    if len(data) > asked:  # what comes before the answer would be out of place
        if not await peer.associate():
            return
        data = data[asked:]
    await peer.send(data)
    if how % 3 == 0:
        await peer.send(struct.pack(">BxI4x", wire.ABORT, 4))
        with contextlib.suppress(TimeoutError):  # inside a PDU, it is bytes of that one
            await asyncio.wait_for(peer.ended(), peer.aim.tick / 5)
    elif how % 3 == 1:
        peer.writer.write_eof()
        await peer.ended()


async def _vanished(peer: Wire) -> None:
    """Half a data set and then nothing, not so much as a FIN: so a peer looks that was switched
    off, or whose firewall forgot the connection."""
    if not await peer.associate():
        return
    header = wire.data_pdu_header(_CONTEXT, 16_000, last=True)
    await peer.send(wire.store_rq(_CONTEXT, 1, MR, "2.25.79") + header + bytes(8000))
    await peer.ended()


async def _unread(peer: Wire) -> None:
    """Requests as many as one may have under way, again and again, and not one answer read."""
    if not await peer.associate():
        return
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
    echoes = b"".join(echo_rq(n) for n in range(1, 17))
    while not peer.writer.is_closing():
        await peer.send(echoes)
        await asyncio.sleep(peer.aim.tick / 100)


async def _burst(peer: Wire) -> None:
    """Five thousand requests at once, until it is told what comes of that."""
    if await peer.associate():
        await peer.send(echo_rq(1) * 5000)
        await peer.reader.read(2**16)


async def _knock(peer: Wire) -> None:
    await peer.send(request(f"NOBODY{peer.number % 10_000}"))
    await peer.reader.readexactly(10)


async def _flood(peer: Wire) -> None:
    if await peer.associate():
        await peer.ended()


async def _loris(peer: Wire) -> None:
    if not await peer.associate():
        return
    await peer.send(wire.store_rq(_CONTEXT, 1, MR, "2.25.80"))
    await peer.drip(wire.data_pdu_header(_CONTEXT, 16_000, last=True) + bytes(16_000))


ATTACKS: dict[str, Attack] = {
    "silent": Attack("connections that send nothing", _silent, 1000, 500),
    "drip": Attack("a byte a second", _drip, 500, 250),
    "http": Attack("HTTP requests", _http, 20, 100),
    "tls": Attack("TLS ClientHello", _tls, 20, 100),
    "random": Attack("random bytes", _random, 20, 100),
    "lengths": Attack("PDU lengths of 4 GiB", _lengths, 20, 100),
    "contexts": Attack("a million context items", _contexts, 4, 10),
    "user-information": Attack("10,900 items of user information", _user_information, 4, 20),
    "held-requests": Attack("long requests without an end", _held_requests, 250, 25),
    "endless": Attack("data sets without an end", _endless, 2, 10),
    "storm": Attack("connect and close", _storm, 20, 100),
    "cuts": Attack("aborts at every byte", _cuts, 20, 100),
    "vanished": Attack("peers that vanish half-way", _vanished, 100, 50),
    "unread": Attack("peers that read no answer", _unread, 10, 5, 4096),
    "burst": Attack("5,000 requests at once", _burst, 4, 10),
    "knock": Attack("unknown AE titles", _knock, 20, 100),
    "flood": Attack("associations from one address", _flood, 1000, 100),
    "loris": Attack("a byte a second of a data set", _loris, 100, 50),
}


async def attack(kind: Attack, aim: Aim) -> None:
    """Until `aim.limit` connections have ended, or it is cancelled; then all are closed."""
    numbers = iter(range(sys.maxsize))

    async def worker() -> None:
        while await aim.turn():
            peer = Wire(aim, next(numbers))
            aim.opening += 1  # and so it stays when it is cancelled: nobody knows how far it came
            try:
                await peer.open(kind.receive_buffer)
            except (OSError, TimeoutError):
                aim.opening -= 1
                aim.begun -= 1
                aim.refused += 1
                continue
            aim.opening -= 1
            aim.made += 1
            try:
                if aim.made >= min(aim.at_once, aim.limit):
                    aim.up.set()
                await kind.visit(peer)
            except (OSError, asyncio.IncompleteReadError):
                aim.sent_away += 1
            finally:
                peer.close()
        aim.up.set()

    async with asyncio.TaskGroup() as group:
        for _ in range(min(aim.at_once, aim.limit)):
            group.create_task(worker())


async def _run(kind: Attack, aim: Aim, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    task = loop.create_task(attack(kind, aim))
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    loop.call_later(seconds, task.cancel)
    await aim.up.wait()
    print("up", flush=True)
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)  # the aborted transports close in the next round


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m perf.attacks", description=__doc__)
    parser.add_argument("name", choices=ATTACKS)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=60.0, help="at the longest")
    args = parser.parse_args()
    kind = ATTACKS[args.name]
    aim = Aim(args.port, at_once=kind.at_once, pace=kind.pace)
    uvloop.run(_run(kind, aim, args.seconds))
    figures = {"made": aim.made, "opening": aim.opening, "refused": aim.refused}
    print(json.dumps(figures), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
