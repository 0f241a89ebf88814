"""Both ends of an association over loopback: a listener with a service in memory, wires for what
no proper peer would send, and the rule that nothing is left behind when a scenario ends."""

import asyncio
import contextlib
import gc
import itertools
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import uvloop
from structlog.testing import capture_logs
from structlog.typing import EventDict

from router.dimse.assemble import Assembler
from router.dimse.command import Command, encode_command, encode_store_request
from router.dimse.fragment import encode_message
from router.dimse.responder import StoreResponder
from router.ingest.verification import VerificationService
from router.net.acceptor import AcceptedAssociation
from router.net.admission import Admission
from router.net.connector import connect
from router.net.listener import Listeners
from router.net.requestor import Requestor, Target
from router.net.service import Operation, Service, ServiceRegistry
from router.net.settings import LocalAE, NetworkSettings, Remote
from router.ul import (
    PDU,
    AAbort,
    AAssociateAC,
    AReleaseRP,
    AReleaseRQ,
    ContextResult,
    NegotiatedContext,
    PDataTF,
    PresentationContextRQ,
    decode_pdu,
    encode_pdu,
)
from tests.ul.support import CT, EXPLICIT, IMPLICIT, VERIFICATION, request

T = TypeVar("T")
LISTEN = "127.0.0.1:0"
ECHO_PAIR = (VERIFICATION, IMPLICIT)
CT_PAIR = (CT, EXPLICIT)
CT_CONTEXT = 3
"""Of `tests.ul.support.request`."""

__all__ = ["CT", "EXPLICIT", "IMPLICIT", "VERIFICATION", "request"]


class Runner:
    """Runs scenarios on one kind of loop; afterwards nothing may be left, said or pending."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.logs: list[EventDict] = []

    def __call__(
        self,
        scenario: Callable[[], Coroutine[Any, Any, T]],
        limit: float = 20.0,
        tracebacks: int = 0,
    ) -> T:
        """The result of a scenario; `tracebacks` is how many the log must hold."""
        faults: list[dict[str, Any]] = []

        async def main() -> T:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: faults.append(context))
            async with asyncio.timeout(limit):
                result = await scenario()
            for _ in range(5):  # transports close in callbacks of the next rounds
                await asyncio.sleep(0)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, left
            return result

        on_uvloop = self.kind == "uvloop"
        factory = uvloop.new_event_loop if on_uvloop else asyncio.SelectorEventLoop
        with warnings.catch_warnings(), capture_logs() as self.logs:
            warnings.simplefilter("error")
            with asyncio.Runner(debug=not on_uvloop, loop_factory=factory) as runner:
                result = runner.run(main())
            gc.collect()
        assert faults == [], faults
        assert len([line for line in self.logs if line.get("exc_info")]) == tracebacks, self.logs
        return result

    def said(self, *words: str) -> list[EventDict]:
        """Log lines in which all the words occur."""
        return [line for line in self.logs if all(word in str(line) for word in words)]


class Recorder:
    """Counts as the gateway does, and holds what must balance."""

    def __init__(self) -> None:
        self.open: Counter[tuple[str, str, str]] = Counter()
        self.closed = asyncio.Event()
        self.opened = 0
        self.rejected: Counter[str] = Counter()
        self.aborted: Counter[tuple[str, str]] = Counter()
        self.errors: Counter[str] = Counter()
        self.cut: Counter[str] = Counter()
        self.unused: Counter[str] = Counter()

    def on_opened(self, direction: str, local_ae: str, peer: str) -> None:
        self.opened += 1
        self.open[direction, local_ae, peer] += 1

    def on_closed(self, direction: str, local_ae: str, peer: str) -> None:
        self.open[direction, local_ae, peer] -= 1
        assert self.open[direction, local_ae, peer] >= 0
        self.closed.set()

    async def all_closed(self) -> None:
        """Until as many were closed as were opened."""
        while any(self.open.values()):
            self.closed.clear()
            await self.closed.wait()

    def on_rejected(self, reason: str) -> None:
        self.rejected[reason] += 1

    def on_aborted(self, direction: str, by: str) -> None:
        self.aborted[direction, by] += 1

    def on_protocol_error(self, kind: str) -> None:
        self.errors[kind] += 1

    def on_cut(self, reason: str) -> None:
        self.cut[reason] += 1

    def on_unused(self, reason: str) -> None:
        self.unused[reason] += 1


class Shelved:
    """An instance as the service in memory saw it."""

    def __init__(
        self,
        shelf: "Shelf",
        association: AcceptedAssociation,
        context: NegotiatedContext,
        command: Command,
    ) -> None:
        self.association = association
        self.context = context
        self.command = command
        self.bytes = bytearray()
        self.fate = ""
        self._shelf = shelf
        association.started()

    def data(self, piece: memoryview) -> None:
        assert self.fate == ""
        self.bytes += piece
        self._shelf.stir.set()

    def end(self) -> None:
        assert self.fate == ""
        self.fate = "ended"
        self._shelf.ended.append(self)
        self._shelf.stir.set()
        self._shelf.policy(self)

    def abandon(self) -> None:
        assert self.fate == ""
        self.fate = "abandoned"
        self._shelf.stir.set()

    def answer(self, status: int = 0, comment: str = "") -> None:
        responder = StoreResponder(self.context.id, self.association.maximum_length)
        self.association.answer(
            responder.response(
                self.command.message_id,
                self.command.affected_sop_class_uid,
                self.command.affected_sop_instance_uid,
                status,
                comment,
            )
        )


class Shelf:
    """A service that takes everything but Verification and keeps it in memory.

    `policy` decides on the answer of an instance that is complete: at once, later or never.
    """

    def __init__(self) -> None:
        self.begun: list[Shelved] = []
        self.ended: list[Shelved] = []
        self.stir = asyncio.Event()
        self.policy: Callable[[Shelved], None] = Shelved.answer

    def takes(self, abstract_syntax: str) -> bool:
        return abstract_syntax.startswith("1.2.840.10008.5.")

    def choose(self, local: LocalAE, context: PresentationContextRQ) -> tuple[int, str]:
        return ContextResult.ACCEPTANCE, context.transfer_syntaxes[0]

    def begin(
        self, association: AcceptedAssociation, context: NegotiatedContext, command: Command
    ) -> Operation | None:
        if command.field != 0x0001:
            association.reply(context.id, command, 0x0211)
            return None
        shelved = Shelved(self, association, context, command)
        self.begun.append(shelved)
        self.stir.set()
        return shelved

    async def until(self, condition: Callable[["Shelf"], bool]) -> None:
        while not condition(self):
            self.stir.clear()
            await self.stir.wait()


class WatchedListeners(Listeners):
    """Tells when connections go."""

    went: asyncio.Event

    def gone(self, association: AcceptedAssociation) -> None:
        super().gone(association)
        self.went.set()

    async def until_open(self, count: int) -> None:
        while len(self._connections) != count:
            self.went.clear()
            await self.went.wait()


@dataclass
class Gate:
    """A listener on loopback."""

    listeners: WatchedListeners
    observer: Recorder
    shelf: Shelf
    lines: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.listeners.listening[LISTEN]

    async def quiet(self) -> None:
        """Until no connection is left; then nothing is counted as open either."""
        await self.listeners.until_open(0)
        load = self.listeners.load()
        assert load.total == 0
        assert not any(load.by_local.values())
        assert not any(load.by_remote.values())
        assert not any(self.observer.open.values())

    async def wire(self) -> "Wire":
        return await Wire.open(self.port)

    async def associated(self, **changes: Any) -> "Wire":
        wire = await self.wire()
        await wire.associate(**changes)
        return wire


@contextlib.asynccontextmanager
async def gate(
    *services: Service,
    settings: NetworkSettings | None = None,
    accept: Any = "any",
    remotes: dict[str, Remote] | None = None,
    local: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[Gate]:
    """A listener until the scenario is over; then every connection must have ended."""
    shelf = Shelf()
    settings = settings or NetworkSettings(**options)
    aes = [LocalAE(ae_title="ROUTER", listen=LISTEN, accept=accept, **(local or {}))]
    observer = Recorder()
    listeners = WatchedListeners(
        ServiceRegistry((VerificationService(), *(services or (shelf,)))),
        Admission(aes, remotes or {}, settings),
        settings,
        observer,
        lambda key: 0,
    )
    listeners.went = asyncio.Event()
    await listeners.open([LISTEN])
    subject = Gate(listeners, observer, shelf)
    try:
        yield subject
    finally:
        await listeners.stop(0.0)
        await subject.quiet()
    assert all(shelved.fate for shelved in shelf.begun)


class Wire:
    """A socket with PDUs on it, for peers of every kind."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.began = 0.0
        self._answers: list[Command] = []
        self._assembler = Assembler(
            lambda _, command: self._answers.append(command), lambda _: None, lambda: None
        )

    @classmethod
    async def open(cls, port: int) -> "Wire":
        began = asyncio.get_running_loop().time()
        wire = cls(*await asyncio.open_connection("127.0.0.1", port))
        wire.began = began
        return wire

    async def send(self, *parts: bytes | PDU) -> None:
        data = b"".join(p if isinstance(p, bytes) else encode_pdu(p) for p in parts)
        self.writer.write(data)
        await self.writer.drain()

    async def pdu(self) -> PDU | None:
        """The next PDU, None at the end of the stream."""
        try:
            head = await self.reader.readexactly(6)
            return decode_pdu(head + await self.reader.readexactly(int.from_bytes(head[2:])))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def associate(self, **changes: Any) -> AAssociateAC:
        await self.send(request(**changes))
        answer = await self.pdu()
        assert isinstance(answer, AAssociateAC), answer
        return answer

    async def answer(self) -> Command:
        """The next command set that the peer sends."""
        while not self._answers:
            pdu = await self.pdu()
            assert isinstance(pdu, PDataTF), pdu
            for pdv in pdu.pdvs:
                self._assembler.fragment(
                    pdv.context_id, pdv.control, memoryview(pdv.data), end_of_pdv=True
                )
        return self._answers.pop(0)

    async def aborted(self) -> AAbort:
        """The peer aborts, whatever else it says before."""
        while (pdu := await self.pdu()) is not None:
            if isinstance(pdu, AAbort):
                return pdu
        raise AssertionError("closed without an A-ABORT")

    async def release(self) -> None:
        await self.send(AReleaseRQ())
        assert isinstance(await self.pdu(), AReleaseRP)
        await self.close()

    async def ended(self) -> None:
        """Until the peer closes; what it says before that is not looked at."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


async def silent(seconds: float, wire: Wire) -> None:
    """Who is at the wire says nothing until it is closed, which is after `seconds`."""
    await wire.ended()
    # A loop's time may be some milliseconds old.
    assert asyncio.get_running_loop().time() - wire.began >= seconds - 0.01
    await wire.close()


def echo_rq(message_id: int = 1) -> bytes:
    command = Command(0x0030, affected_sop_class_uid=VERIFICATION, message_id=message_id)
    return encode_message(1, encode_command(command), None, 0)


def store_rq(
    data: bytes = b"abc", message_id: int = 1, uid: str = "1.2.3", maximum: int = 0
) -> bytes:
    command = encode_store_request(message_id, CT, uid)
    return encode_message(CT_CONTEXT, command, data, maximum)


def target(port: int, **changes: Any) -> Target:
    return Target("pacs", "ROUTER", "127.0.0.1", port, "CT1", **changes)


async def call(port: int, observer: Recorder | None = None, **changes: Any) -> Requestor:
    """An association with contexts for Verification and CT."""
    return await connect(target(port, **changes), [ECHO_PAIR, CT_PAIR], observer)


class Data:
    """The bytes of a data set; `gate` holds back a read that is not served from memory."""

    def __init__(self, data: bytes, cold: bool = False) -> None:
        self.length = self.remaining = len(data)
        self.cold = cold
        self.reads = 0
        self.closed = False
        self._data = memoryview(data)

    def try_read(self, buffers: list[memoryview]) -> bool:
        if self.cold:
            return False
        self.read(buffers)
        return True

    def read(self, buffers: list[memoryview]) -> None:
        assert not self.closed
        self.reads += 1
        for buffer in buffers:
            at = self.length - self.remaining
            buffer[:] = self._data[at : at + len(buffer)]
            self.remaining -= len(buffer)

    def close(self) -> None:
        self.closed = True


_numbers = itertools.count(1)


async def store(requestor: Requestor, data: bytes, uid: str = "", cold: bool = False) -> int:
    context_id = requestor.accepted[CT_PAIR]
    result = await requestor.store(
        context_id, CT, uid or f"1.2.3.{next(_numbers)}", Data(data, cold)
    )
    return result.status
