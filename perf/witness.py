"""A destination that remembers of every data set its SOP Instance UID and its SHA-256.

Owns a small acceptor on `perf.wire`, which shares nothing with the product.  It can be shut, as
a machine that was switched off, and opened again on the same port.
"""

import asyncio
import contextlib
import hashlib
import socket
import struct
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Self, TypeVar

from perf import wire
from perf.processes import held_port

_MAXIMUM_LENGTH = 256 * 1024
_NO_DATA_SET = 0x0101
T = TypeVar("T")


@dataclass(frozen=True, slots=True, order=True)
class Seen:
    """A data set, whoever sent it."""

    sop_instance_uid: str
    digest: str

    @classmethod
    def of(cls, uid: str, data: bytes) -> "Seen":
        """With the digest of `data`."""
        return cls(uid, hashlib.sha256(data).hexdigest())


class Witness:
    """Lives in the running event loop.  `seen` counts how often each data set came.

    A slow one waits for ``pause`` seconds before it looks at what came with a P-DATA-TF.
    """

    def __init__(self, port: int = 0, *, pause: float = 0.0) -> None:
        self.port = port
        self._pause = pause
        self.seen: Counter[Seen] = Counter()
        self.on_seen: Callable[[Seen], None] = lambda _: None
        self._server: asyncio.Server | None = None
        self._peers: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def open(self) -> None:
        """Listen, on the port of last time if there was one."""
        if not self.port:
            held = held_port()
            weakref.finalize(self, held.close)
            self.port = int(held.getsockname()[1])
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, limit=2 * _MAXIMUM_LENGTH
        )

    async def shut(self) -> None:
        """Stop listening and reset every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._peers.values():
            writer.transport.abort()
        await asyncio.gather(*self._peers)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._peers[task] = writer
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, OSError):
                await self._serve(reader, writer)
        finally:
            del self._peers[task]
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        message = _Message(self._store, writer.write)
        while True:
            kind, length = struct.unpack(">BxI", await reader.readexactly(6))
            body = await reader.readexactly(length)
            if kind == wire.P_DATA_TF:
                if self._pause:
                    await asyncio.sleep(self._pause)
                message.pdu(body)
            elif kind == wire.ASSOCIATE_RQ:
                writer.write(wire.associate_ac(body, _MAXIMUM_LENGTH))
            else:
                if kind == wire.RELEASE_RQ:
                    writer.write(wire.RELEASE_RP_PDU)
                    await writer.drain()
                return

    def _store(self, uid: str, digest: str) -> None:
        seen = Seen(uid, digest)
        self.seen[seen] += 1
        self.on_seen(seen)


class _Message:
    """Assembles the messages of one association and answers each with success."""

    def __init__(self, stored: Callable[[str, str], None], write: Callable[[bytes], None]) -> None:
        self._stored = stored
        self._write = write
        self._command = bytearray()
        self._request: dict[int, bytes] = {}
        self._hash = hashlib.sha256()

    def pdu(self, body: bytes) -> None:
        at = 0
        while at < len(body):
            length, context, control = struct.unpack_from(">IBB", body, at)
            value = body[at + 6 : at + 4 + length]
            at += 4 + length
            if control & 1:
                self._command += value
            else:
                self._hash.update(value)
            if control & 2:
                self._ended(context, command=bool(control & 1))

    def _ended(self, context: int, *, command: bool) -> None:
        if command:
            self._request = wire.parse_command(bytes(self._command))
            self._command.clear()
            self._hash = hashlib.sha256()
            if int.from_bytes(self._request[0x0800], "little") != _NO_DATA_SET:
                return
        else:
            uid = self._request[0x1000].rstrip(b"\0 ").decode()
            self._stored(uid, self._hash.hexdigest())
        self._write(wire.response(context, self._request))


class WitnessThread:
    """A `Witness` with an event loop in a thread of its own, for callers without one."""

    def __init__(self, port: int = 0) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="witness")
        self._changed = threading.Condition()
        self._witness = Witness(port)
        self._witness.on_seen = self._notify

    @property
    def port(self) -> int:
        """Where it listens, or did."""
        return self._witness.port

    def open(self) -> None:
        """See `Witness`."""
        self._call(self._witness.open())

    def shut(self) -> None:
        """See `Witness`."""
        self._call(self._witness.shut())

    def seen(self) -> Counter[Seen]:
        """What came so far."""
        with self._changed:
            return Counter(self._witness.seen)

    def wait(self, condition: Callable[[Counter[Seen]], bool], timeout: float) -> bool:
        """Until `condition` holds for what came; False when it did not in `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: condition(self._witness.seen), timeout)

    def __enter__(self) -> Self:
        self._thread.start()
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.shut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _notify(self, _: Seen) -> None:
        with self._changed:
            self._changed.notify_all()

    def _call(self, work: Coroutine[None, None, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
