"""What the machine can do: bytes over loopback, written and synced, and nothing else.

The receiver is a bare uvloop program.  It writes every instance into one file whose blocks
were written before, lets one ``fdatasync`` cover all that wait for it, and answers one byte
per instance afterwards.  The sender waits for that byte before it sends the next instance, as
a C-STORE SCU does.  Frame: eight bytes of length, big endian, then the bytes.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import uvloop

from perf.processes import die_with_parent

_HEADER = struct.Struct(">Q")
_CHUNK = 1024 * 1024
# A sync of so much begins while the rest of a large instance still arrives.
_SYNC_AHEAD = 8 * 1024 * 1024


def prepare(path: Path, size: int) -> None:
    """A file of ``size`` bytes, all of them written, so that no sync has metadata to journal."""
    if path.exists() and path.stat().st_size == size:
        return
    zeros = bytes(_CHUNK)
    with path.open("wb", buffering=0) as file:
        for at in range(0, size, _CHUNK):
            file.write(zeros[: min(_CHUNK, size - at)])
        os.fsync(file.fileno())


class Committer:
    """One sync at a time in a thread; what arrives meanwhile is covered by the next."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._size = size
        self._at = 0
        self._waiting: list[Receiver] = []
        self._unsynced = 0
        self._busy = False
        self._thread = ThreadPoolExecutor(1)
        self._loop = asyncio.get_running_loop()
        self.instances = 0
        self.data_bytes = 0

    def write(self, piece: memoryview) -> None:
        """Into the file at the next place; round to the start when it is full."""
        while piece:
            room = min(len(piece), self._size - self._at)
            written = os.pwrite(self._fd, piece[:room], self._at)
            self._at = (self._at + written) % self._size
            self._unsynced += written
            self.data_bytes += written
            piece = piece[written:]
        if self._unsynced >= _SYNC_AHEAD:
            self._sync()

    def done(self, receiver: "Receiver") -> None:
        """The instance is complete: answer it after a sync that starts now or later."""
        self._waiting.append(receiver)
        self._sync()

    def _sync(self) -> None:
        if self._busy:
            return
        self._busy = True
        group, self._waiting, self._unsynced = self._waiting, [], 0
        future = self._loop.run_in_executor(self._thread, os.fdatasync, self._fd)
        future.add_done_callback(lambda done: self._synced(group, done))

    def _synced(self, group: "list[Receiver]", done: asyncio.Future[None]) -> None:
        done.result()
        self._busy = False
        self.instances += len(group)
        for receiver in group:
            receiver.answer()
        if self._waiting or self._unsynced >= _SYNC_AHEAD:
            self._sync()


class Receiver(asyncio.BufferedProtocol):
    """One connection: the length, then the bytes, straight from the buffer to the file."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer
        self._buffer = memoryview(bytearray(_CHUNK))
        self._header = b""
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, since uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        at = 0
        while at < nbytes:
            if not self._left:
                piece = self._buffer[at : min(at + _HEADER.size - len(self._header), nbytes)]
                self._header += piece
                at += len(piece)
                if len(self._header) == _HEADER.size:
                    (self._left,) = _HEADER.unpack(self._header)
                    self._header = b""
                continue
            piece = self._buffer[at : min(at + self._left, nbytes)]
            self._committer.write(piece)
            at += len(piece)
            self._left -= len(piece)
            if not self._left:
                self._committer.done(self)

    def answer(self) -> None:
        """One byte: the instance is on the disk."""
        self._transport.write(b"\x00")


async def receive(path: Path) -> None:
    """Listen until SIGTERM; prints the port, and at the end what was received."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    fd = os.open(path, os.O_RDWR)
    committer = Committer(fd, path.stat().st_size)
    server = await loop.create_server(lambda: Receiver(committer), "127.0.0.1", 0)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await stop.wait()
    server.close()
    os.close(fd)
    values = {"instances": committer.instances, "data_bytes": committer.data_bytes}
    print(json.dumps(values), flush=True)


def send(port: int, paths: list[Path]) -> tuple[float, float]:
    """All files over one connection, one at a time; when it began and ended (monotonic)."""
    with socket.create_connection(("127.0.0.1", port)) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began = time.monotonic()
        for path in paths:
            with path.open("rb") as file:
                peer.sendall(_HEADER.pack(os.fstat(file.fileno()).st_size))
                peer.sendfile(file)
            if peer.recv(1) != b"\x00":
                raise ConnectionError("the receiver closed the connection")
        return began, time.monotonic()


def run_all(send: Callable[..., tuple[float, float]], jobs: Sequence[tuple[object, ...]]) -> float:
    """A process per job, all at once; seconds from the first beginning to the last end."""
    context = multiprocessing.get_context("fork")
    with context.Pool(len(jobs), initializer=die_with_parent) as pool:
        times = pool.starmap(send, jobs, chunksize=1)
    return max(end for _, end in times) - min(begin for begin, _ in times)


def main() -> int:
    """Command line of both halves."""
    parser = argparse.ArgumentParser(prog="python -m perf.floor", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    receiver = commands.add_parser("receive")
    receiver.add_argument("--file", type=Path, required=True)
    receiver.add_argument("--size", type=int, required=True, help="bytes, written beforehand")
    sender = commands.add_parser("send")
    sender.add_argument("--port", type=int, required=True)
    sender.add_argument("--list", type=Path, action="append", help="file of paths, per sender")
    args = parser.parse_args()
    if args.command == "receive":
        prepare(args.file, args.size)
        with contextlib.suppress(KeyboardInterrupt):
            uvloop.run(receive(args.file))
    else:
        lists = [[Path(line) for line in p.read_text().split("\n") if line] for p in args.list]
        print(
            json.dumps({"seconds": run_all(send, [(args.port, paths) for paths in lists])}),
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
