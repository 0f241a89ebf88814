"""A line between a sender and an acceptor on which a script decides what goes wrong.

Owns sockets, timing and the framing of PDUs, and a record of what was said on each connection.
It must not know the product: what it needs of PS3.8 and PS3.7 it has from `perf.wire`.
"""

import asyncio
import contextlib
import math
import random
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, TypeAlias

from perf import wire

_HEADER = struct.Struct(">BxI")
_LINGER = struct.pack("ii", 1, 0)
"""SO_LINGER of no time: closing resets (RST) rather than ends (FIN)."""
_CHUNK = 64 * 1024
_NARROW = 16 * 1024
"""Receive buffer of a line that is slow or not read, in bytes: the kernel keeps no more for it."""

How: TypeAlias = Literal["fin", "rst"]


class End(Enum):
    """A step that ends the connection."""

    FIN = "fin"
    RST = "rst"


@dataclass(frozen=True, slots=True)
class Pause:
    """A step that holds up the answers, in seconds."""

    seconds: float


class Held:
    """A step that says nothing yet: what is held back comes with a later answer."""


Step: TypeAlias = bytes | End | Pause | Held


@dataclass(frozen=True, slots=True)
class Answer:
    """A PDU of the acceptor, the ``number``-th of its kind on this connection, from 1.

    ``request`` is the command set of the C-STORE-RQ that it answers, if it is a P-DATA-TF.
    """

    kind: int
    number: int
    pdu: bytes
    request: dict[int, bytes] = field(default_factory=dict)


Rewrite: TypeAlias = Callable[[Answer], Iterable[Step]]


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection ends when exactly ``after`` bytes went in one direction."""

    direction: Literal["request", "answer"]
    after: int
    how: How = "fin"


@dataclass(frozen=True, slots=True)
class Script:
    """What one connection suffers; the default lets everything pass.

    ``greet`` ends it as it begins.  After ``stop_reading`` bytes nothing is read of the sender,
    for ``stall`` seconds, then the connection is reset; ``answering`` False swallows all that it
    says.  ``delay`` and ``jitter`` (seconds) hold up every answer; ``bandwidth`` (bytes a second)
    is that of the requests.  ``split`` sends answers a byte at a time.  ``rewrite`` gives what goes
    to the sender in place of a PDU; once it has given something else than that PDU the record says
    ``fault``.  ``setup`` is the same, before it and without that.
    """

    greet: How | None = None
    stop_reading: int | None = None
    stall: float = math.inf
    answering: bool = True
    delay: float = 0.0
    jitter: float = 0.0
    bandwidth: float | None = None
    split: bool = False
    cut: Cut | None = None
    rewrite: Rewrite | None = None
    setup: Rewrite | None = None

    @property
    def interferes(self) -> bool:
        """Whether it does more than to slow down."""
        changes = (self.greet, self.stop_reading, self.cut, self.rewrite)
        return not self.answering or any(change is not None for change in changes)


THROUGH = Script()


@dataclass(slots=True)
class Record:
    """What was said on one connection: ``request N`` for the C-STORE-RQ of message N, ``fault``
    where the script first interfered, ``end`` when the sender's end came.  ``to_acceptor`` and
    ``to_sender`` are the bytes that were passed on, the ends those of the PDUs as they came."""

    at: float
    said: list[str] = field(default_factory=list)
    to_acceptor: int = 0
    to_sender: int = 0
    request_ends: list[int] = field(default_factory=list)
    answer_ends: list[int] = field(default_factory=list)

    @property
    def after_fault(self) -> list[str]:
        """What the sender still said after the fault."""
        if "fault" not in self.said:
            return []
        return self.said[self.said.index("fault") + 1 :]


class Frames:
    """Cuts a stream into PDUs."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The PDUs, headers and all, that are complete by now."""
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            size = _HEADER.size + _HEADER.unpack_from(self._buffer)[1]
            if len(self._buffer) < size:
                return
            yield bytes(self._buffer[:size])
            del self._buffer[:size]


class FaultProxy:
    """Listens on loopback and connects each caller to ``upstream`` (a port there).

    Connection n has script n, later ones the last of ``scripts``.
    """

    def __init__(self, upstream: int, scripts: Sequence[Script]) -> None:
        self.records: list[Record] = []
        self._upstream = upstream
        self._scripts = scripts
        self._random = random.Random(1)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def open(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", limit=_CHUNK)
        listening = self._server.sockets[0]
        if any(script.stop_reading is not None or script.bandwidth for script in self._scripts):
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _NARROW)
        self.port = listening.getsockname()[1]

    async def close(self) -> None:
        """Stop, and end every connection that is left."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        script = self._scripts[min(len(self.records), len(self._scripts) - 1)]
        record = Record(asyncio.get_running_loop().time())
        self.records.append(record)
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await self._serve(script, record, reader, writer)
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _serve(
        self,
        script: Script,
        record: Record,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        no_delay(writer)
        if script.greet is not None:
            record.said.append("fault")
            await end(writer, script.greet)
            await drain_away(reader)
            return
        if not script.answering:
            record.said.append("fault")
            await drain_away(reader)
            await asyncio.Event().wait()
        upstream = await asyncio.open_connection("127.0.0.1", self._upstream, limit=_CHUNK)
        no_delay(upstream[1])
        line = _Line(script, record, (reader, writer), upstream, self._random)
        try:
            await line.run()
        finally:
            upstream[1].transport.abort()


class _Line:
    """One connection that reaches the acceptor."""

    def __init__(
        self,
        script: Script,
        record: Record,
        sender: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        acceptor: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        dice: random.Random,
    ) -> None:
        self._script = script
        self._record = record
        self._from_sender, self._to_sender = sender
        self._from_acceptor, self._to_acceptor = acceptor
        self._random = dice
        self._requests: list[dict[int, bytes]] = []
        self._command = bytearray()
        self._counts: dict[int, int] = {}
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Until both ends are done, or the script has ended it and the sender has gone."""
        answers = asyncio.ensure_future(self._pass_answers())
        try:
            with contextlib.suppress(OSError):
                await self._pass_requests()
            self._record.said.append("end")
            with contextlib.suppress(OSError):
                if not self._over.is_set():
                    self._to_acceptor.write_eof()
            await answers
        finally:
            answers.cancel()
            await asyncio.wait([answers])

    async def _pass_requests(self) -> None:
        frames, cut = Frames(), self._script.cut
        limit = cut.after if cut is not None and cut.direction == "request" else None
        clock = asyncio.get_running_loop().time
        rate = self._script.bandwidth
        due = clock()
        while True:
            stop = self._script.stop_reading
            if stop is not None and self._record.to_acceptor >= stop:
                self._record.said.append("fault")
                await self._stall()
                return
            if limit is not None and cut is not None and self._record.to_acceptor >= limit:
                await self._end(cut.how)
            asked = clock()
            data = await self._from_sender.read(_CHUNK if rate is None else 4096)
            if not data:
                return
            due += clock() - asked  # while the sender says nothing nothing is saved up
            for pdu in frames.feed(data):
                self._note(pdu)
            if self._over.is_set():
                continue  # a sender that goes on is heard, and recorded, and that is all
            if limit is not None:
                data = data[: limit - self._record.to_acceptor]
            self._record.to_acceptor += len(data)
            self._to_acceptor.write(data)
            with contextlib.suppress(OSError):
                await self._to_acceptor.drain()
            if rate is not None:
                # By the clock: a sleep that took too long is made up for, or a busy machine would
                # make the line slower than it is meant to be.
                due += len(data) / rate
                await asyncio.sleep(max(0.0, due - clock()))

    async def _stall(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(
                None if self._script.stall == math.inf else self._script.stall
            ):
                await asyncio.Event().wait()
        await self._end("rst")

    def _note(self, pdu: bytes) -> None:
        before = self._record.request_ends[-1:] or [0]
        self._record.request_ends.append(before[0] + len(pdu))
        if pdu[0] == wire.RELEASE_RQ:
            self._record.said.append("release")
        at = 6
        while pdu[0] == wire.P_DATA_TF and at < len(pdu):
            length, _, control = struct.unpack_from(">IBB", pdu, at)
            if control & 1:
                self._command += pdu[at + 6 : at + 4 + length]
            if control == 0x03:
                command = wire.parse_command(bytes(self._command))
                self._command.clear()
                self._requests.append(command)
                number = int.from_bytes(command[0x0110], "little")
                self._record.said.append(f"request {number}")
            at += 4 + length

    async def _pass_answers(self) -> None:
        frames = Frames()
        with contextlib.suppress(OSError):
            while not self._over.is_set():
                data = await self._from_acceptor.read(_CHUNK)
                if not data:
                    break
                for pdu in frames.feed(data):
                    await self._answer(pdu)
            if not self._over.is_set():
                self._to_sender.write_eof()

    async def _answer(self, pdu: bytes) -> None:
        kind = pdu[0]
        before = self._record.answer_ends[-1:] or [0]
        self._record.answer_ends.append(before[0] + len(pdu))
        number = self._counts[kind] = self._counts.get(kind, 0) + 1
        request = {}
        if kind == wire.P_DATA_TF:
            request = self._requests[number - 1]
        if self._script.setup is not None:
            (changed,) = self._script.setup(Answer(kind, number, pdu, request))
            assert isinstance(changed, bytes)
            pdu = changed
        steps: Iterable[Step] = (pdu,)
        if self._script.rewrite is not None:
            steps = tuple(self._script.rewrite(Answer(kind, number, pdu, request)))
            harmless = steps == (pdu,) or any(isinstance(step, Held) for step in steps)
            if not harmless and "fault" not in self._record.said:
                self._record.said.append("fault")
        for step in steps:
            if self._over.is_set():
                return
            match step:
                case End():
                    await self._end(step.value)
                case Pause(seconds):
                    await asyncio.sleep(seconds)
                case Held():
                    continue
                case _:
                    await self._write(step)

    async def _write(self, data: bytes) -> None:
        script, cut = self._script, self._script.cut
        if script.delay or script.jitter:
            await asyncio.sleep(script.delay + script.jitter * self._random.random())
        limit = cut.after if cut is not None and cut.direction == "answer" else None
        if limit is not None:
            data = data[: limit - self._record.to_sender]
        pieces = (data[n : n + 1] for n in range(len(data))) if script.split else (data,)
        for piece in pieces:
            self._record.to_sender += len(piece)
            self._to_sender.write(piece)
            await self._to_sender.drain()
            if script.split:
                await asyncio.sleep(0)
        if limit is not None and cut is not None and self._record.to_sender >= limit:
            await self._end(cut.how)

    async def _end(self, how: How) -> None:
        if self._over.is_set():
            return
        self._over.set()
        if "fault" not in self._record.said:
            self._record.said.append("fault")
        # The acceptor keeps what it got: its own end is always an orderly one.
        self._to_acceptor.write_eof()
        await end(self._to_sender, how)


def no_delay(writer: asyncio.StreamWriter) -> None:
    """What is written is sent at once."""
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


async def end(writer: asyncio.StreamWriter, how: How) -> None:
    """FIN: we say nothing more, and go on listening; RST: the connection is gone."""
    with contextlib.suppress(OSError):
        await writer.drain()
        if how == "fin":
            writer.write_eof()
            return
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
        writer.transport.abort()


async def drain_away(reader: asyncio.StreamReader) -> None:
    """Until the other side has closed."""
    with contextlib.suppress(OSError):
        while await reader.read(_CHUNK):
            pass
