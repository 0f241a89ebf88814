"""A destination that remembers of every data set its SOP Instance UID and its SHA-256.

Owns a small acceptor on `perf.wire`, which shares nothing with the product.  It can be shut, as
a machine that was switched off, and opened again on the same port.  With a `Committer` it commits
what it has to whoever asks.
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
from perf.committing import Committer
from perf.processes import held_port

_MAXIMUM_LENGTH = 256 * 1024
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

    def __init__(
        self, port: int = 0, *, pause: float = 0.0, committer: Committer | None = None
    ) -> None:
        self.port = port
        self.committer = committer
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
        if self.committer is not None:
            await self.committer.close()

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
        def write(data: bytes) -> None:
            if not writer.is_closing():
                writer.write(data)

        message = _Message(self._store, write, self.committer)
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

    def _store(self, reference: wire.Reference, digest: str) -> None:
        if self.committer is not None:
            self.committer.took(reference)
        seen = Seen(reference[1], digest)
        self.seen[seen] += 1
        self.on_seen(seen)


class _Message:
    """Assembles the messages of one association and answers each request with success."""

    def __init__(
        self,
        stored: Callable[[wire.Reference, str], None],
        write: Callable[[bytes], None],
        committer: Committer | None,
    ) -> None:
        self._stored = stored
        self._write = write
        self._committer = committer
        self._command = bytearray()
        self._request: dict[int, bytes] = {}
        self._hash = hashlib.sha256()
        self._action: bytearray | None = None

    def pdu(self, body: bytes) -> None:
        at = 0
        while at < len(body):
            length, context, control = struct.unpack_from(">IBB", body, at)
            value = body[at + 6 : at + 4 + length]
            at += 4 + length
            if control & 1:
                self._command += value
            elif self._action is not None:
                self._action += value
            else:
                self._hash.update(value)
            if control & 2:
                self._ended(context, command=bool(control & 1))

    def _ended(self, context: int, *, command: bool) -> None:
        if command:
            self._request = wire.parse_command(bytes(self._command))
            self._command.clear()
            self._hash = hashlib.sha256()
            field = self._number(0x0100)
            commits = self._committer is not None and field == wire.N_ACTION_RQ
            self._action = bytearray() if commits else None
            if field & wire.RESPONSE:
                if self._committer is not None:
                    self._committer.answered(self._number(0x0900))
                return
            if self._number(0x0800) != wire.NO_DATA_SET:
                return
        elif self._action is None:
            self._stored((self._uid(0x0002), self._uid(0x1000)), self._hash.hexdigest())
        self._write(wire.response(context, self._request))
        if self._action is not None and self._committer is not None:
            self._committer.asked(bytes(self._action), context, self._write)
            self._action = None

    def _uid(self, element: int) -> str:
        return self._request[element].rstrip(b"\0 ").decode()

    def _number(self, element: int) -> int:
        return int.from_bytes(self._request[element], "little")


class WitnessThread:
    """A `Witness` with an event loop in a thread of its own, for callers without one."""

    def __init__(self, port: int = 0, *, committer: Committer | None = None) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="witness")
        self._changed = threading.Condition()
        self._witness = Witness(port, committer=committer)
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
