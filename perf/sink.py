"""A destination that accepts everything, keeps nothing and counts.

``python -m perf.sink --expect N`` prints a JSON line with its port, another when the N-th
distinct instance was answered, one per SIGUSR1, and a last one at SIGTERM.  With ``--notes`` it
writes at the end when the last byte of each data set came.  Owns the receiving half of
`perf.wire`; the pixels are skipped where the kernel put them.
"""

import argparse
import asyncio
import json
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import uvloop

from perf import wire

_MAXIMUM_LENGTH = 1024 * 1024


@dataclass(slots=True)
class Tally:
    """What arrived.  ``instances`` are distinct SOP Instance UIDs, with the monotonic time at
    which the last byte of each had first come; ``stores`` are all C-STOREs."""

    stores: int = 0
    instances: dict[bytes, float] = field(default_factory=dict)
    data_bytes: int = 0
    first: float = 0.0
    last: float = 0.0
    changed: Callable[[], None] = lambda: None

    def stored(self, uid: bytes, now: float) -> None:
        self.first = self.first or now
        self.last = now
        self.stores += 1
        self.instances.setdefault(uid, now)
        self.changed()

    def summary(self) -> dict[str, float]:
        return {
            "stores": self.stores,
            "instances": len(self.instances),
            "data_bytes": self.data_bytes,
            "first": self.first,
            "last": self.last,
        }


class SinkProtocol(asyncio.BufferedProtocol):
    """An acceptor as a small state machine: collect so many bytes, then skip so many."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._buffer = memoryview(bytearray(512 * 1024))
        self._parts = bytearray()
        self._command = bytearray()
        self._request: dict[int, bytes] = {}
        self._context = self._control = self._pdu_left = self._value_left = 0
        self._await(6, self._pdu_header)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, since uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        at = 0
        while at < nbytes:
            if self._value_left and not self._control & 1:
                # A fragment of the data set: counted where it lies.
                taken = min(self._value_left, nbytes - at)
                self._tally.data_bytes += taken
                self._value_taken(taken)
                at += taken
                continue
            wanted = self._value_left or self._need - len(self._parts)
            piece = self._buffer[at : min(at + wanted, nbytes)]
            at += len(piece)
            if self._value_left:
                self._command += piece
                self._value_taken(len(piece))
                continue
            self._parts += piece
            if len(self._parts) == self._need:
                parts = bytes(self._parts)
                self._then(parts)

    def _await(self, need: int, then: Callable[[bytes], None]) -> None:
        self._parts.clear()
        self._need, self._then = need, then

    def _pdu_header(self, header: bytes) -> None:
        self._kind, length = struct.unpack(">BxI", header)
        if self._kind == wire.P_DATA_TF:
            self._pdu_left = length
            self._await(6, self._pdv_header)
        elif 0 < length <= 2**20:
            self._await(length, self._other)
        else:
            self._transport.abort()

    def _pdv_header(self, header: bytes) -> None:
        length, self._context, self._control = struct.unpack(">IBB", header)
        self._pdu_left -= length + 4
        self._value_left = length - 2
        if not self._value_left:
            self._value_taken(0)

    def _value_taken(self, n: int) -> None:
        self._value_left -= n
        if self._value_left:
            return
        self._await(6, self._pdv_header if self._pdu_left > 0 else self._pdu_header)
        if self._control == 0x03:
            self._request = wire.parse_command(bytes(self._command))
            self._command.clear()
            if int.from_bytes(self._request[0x0100], "little") == wire.C_ECHO_RQ:
                self._transport.write(wire.response(self._context, self._request))
        elif self._control == 0x02:
            now = time.monotonic()
            self._transport.write(wire.response(self._context, self._request))
            self._tally.stored(self._request[0x1000], now)

    def _other(self, body: bytes) -> None:
        self._await(6, self._pdu_header)
        if self._kind == wire.ASSOCIATE_RQ:
            self._transport.write(wire.associate_ac(body, _MAXIMUM_LENGTH))
        elif self._kind == wire.RELEASE_RQ:
            self._transport.write(wire.RELEASE_RP_PDU)
        else:
            self._transport.close()


async def serve(expect: int, port: int, notes: Path | None = None) -> None:
    """Listen until SIGTERM; says what it has, on standard output."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    tally = Tally()

    def changed() -> None:
        if len(tally.instances) == expect:
            _say(tally.summary())
            tally.changed = lambda: None

    tally.changed = changed
    loop.add_signal_handler(signal.SIGUSR1, lambda: _say(tally.summary()))
    server = await loop.create_server(lambda: SinkProtocol(tally), "127.0.0.1", port)
    _say({"port": server.sockets[0].getsockname()[1]})
    await stop.wait()
    server.close()
    if notes:
        write_notes(notes, tally.instances)
    _say(tally.summary())


def write_notes(path: Path, instances: Mapping[bytes, float]) -> None:
    """A line per instance: SOP Instance UID and when its last byte came."""
    lines = (f"{uid.rstrip(bytes(1)).decode()} {when!r}\n" for uid, when in instances.items())
    path.write_text("".join(lines))


def read_notes(path: Path) -> dict[str, float]:
    """What `write_notes` wrote.  Raises OSError."""
    pairs = (line.split() for line in path.read_text().splitlines())
    return {uid: float(when) for uid, when in pairs}


def _say(values: dict[str, float]) -> None:
    print(json.dumps(values), flush=True)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m perf.sink", description=__doc__)
    parser.add_argument("--expect", type=int, default=0)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--notes", type=Path, default=None, help="file for the times of arrival")
    args = parser.parse_args()
    uvloop.run(serve(args.expect, args.port, args.notes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
