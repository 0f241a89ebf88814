"""An association that we ask a peer for.

Owns the requestor's side of one association: connecting, negotiation, requests and their
answers, release and abort.  Must not know queues or retries.  PS3.7 §9.1, PS3.8 §7.
"""

import asyncio
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from router.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from router.dimse.command import Command, encode_command, encode_store_request, respond
from router.dimse.fragment import DataSetFramer, encode_command_pdu, encode_message
from router.net.errors import (
    AssociationAborted,
    AssociationBroken,
    AssociationError,
    AssociationRejected,
    AssociationTimeout,
    ConnectFailed,
)
from router.net.link import Link
from router.net.pool import Proposal, Readable
from router.net.settings import Remote
from router.ul import (
    AAssociateRQ,
    ArtimExpired,
    AssociateAccepted,
    AssociateRejected,
    Event,
    PeerAborted,
    PresentationContextRQ,
    ProtocolFailed,
    ReleaseReplied,
    ReleaseRequested,
    RemoteProtocolError,
    TransportClosed,
    UserInformation,
)

VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"

_BUFFER_SIZE = 256 * 1024
_OWN_MAXIMUM_LENGTH = 128 * 1024
_UNRECOGNIZED_OPERATION = 0x0211
_C_ECHO_RQ = 0x0030


class RequestorObserver(Protocol):
    """Counts associations; must neither wait nor raise."""

    def on_opened(self, direction: str, local_ae: str, peer: str) -> None:
        """An association was accepted by the peer."""
        ...

    def on_closed(self, direction: str, local_ae: str, peer: str) -> None:
        """It ended."""
        ...

    def on_aborted(self, direction: str, by: str) -> None:
        """It was aborted, by ``local`` or ``peer``."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to call, as whom, and with how much patience (seconds)."""

    name: str
    ae_title: str
    host: str
    port: int
    calling_ae: str
    max_pdu: int = 2**20
    asynchronous_operations: int = 1
    connect_timeout: float = 10.0
    negotiation_timeout: float = 30.0
    dimse_timeout: float = 60.0

    @classmethod
    def of(cls, name: str, remote: Remote, calling_ae: str) -> "Target":
        """The target that a configured remote is; `calling_ae` where it names none of its own.

        Raises ValueError when the remote has no host.
        """
        if remote.host is None:
            raise ValueError(f"remote {name} has no host")
        return cls(
            name=name,
            ae_title=remote.ae_title,
            host=remote.host,
            port=remote.port,
            calling_ae=remote.calling_ae or calling_ae,
            max_pdu=remote.max_pdu,
            asynchronous_operations=remote.asynchronous_operations,
            connect_timeout=remote.connect_timeout,
            negotiation_timeout=remote.negotiation_timeout,
            dimse_timeout=remote.dimse_timeout,
        )

    def __str__(self) -> str:
        return f"{self.name} ({self.ae_title} at {self.host}:{self.port})"


@dataclass(frozen=True, slots=True)
class StoreResult:
    """The answer to a C-STORE-RQ; `comment` is its Error Comment or ""."""

    status: int
    comment: str


class Requestor(Link):
    """Made by `connect`.  Requests may run side by side, up to `window`.

    After any AssociationError, and after a request was cancelled, the association is closed.
    """

    def __init__(self, target: Target, observer: RequestorObserver | None) -> None:
        super().__init__(
            "requestor",
            maximum_length=_OWN_MAXIMUM_LENGTH,
            artim_timeout=target.negotiation_timeout,
            dimse_timeout=target.dimse_timeout,
            idle_timeout=None,
        )
        self.target = target
        self.accepted: dict[Proposal, int] = {}
        self.window = 1
        self._observer = observer
        self._counted = False
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._ended = asyncio.Event()
        self._error: AssociationError | None = None
        self._waiting: dict[int, asyncio.Future[Command]] = {}
        self._last_id = 0
        self._sending = asyncio.Lock()
        self._buffer = memoryview(b"")

    # -- requests ------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """No request can be made on it any more."""
        return self.lost or self._error is not None or not self.connection.can_send_data

    @property
    def maximum_length(self) -> int:
        """Longest P-DATA-TF that we send, in bytes of its variable field."""
        theirs = self.connection.peer_maximum_length
        return min(theirs, self.target.max_pdu) if theirs else self.target.max_pdu

    async def echo(self) -> int:
        """C-ECHO (PS3.7 §9.1.5); its status.  Raises AssociationError."""
        context_id = self.accepted.get((VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN))
        if context_id is None:
            raise AssociationBroken(f"{self.target} accepted no context for Verification")
        message_id, answer = self._expect()
        command = Command(_C_ECHO_RQ, affected_sop_class_uid=VERIFICATION, message_id=message_id)
        try:
            async with self._sending:
                self._check()
                self.write(
                    encode_message(context_id, encode_command(command), None, self.maximum_length)
                )
            return (await self._answer(answer)).status
        except BaseException:
            self._give_up()
            raise
        finally:
            self._waiting.pop(message_id, None)

    async def store(
        self,
        context_id: int,
        sop_class_uid: str,
        sop_instance_uid: str,
        reader: Readable,
        *,
        priority: int = 0,
    ) -> StoreResult:
        """C-STORE (PS3.7 §9.1.1) of the data set that `reader` yields; does not close it.

        Raises AssociationError, or what the reader raises; the association is closed then.
        """
        message_id, answer = self._expect()
        try:
            async with self._sending:
                self._check()
                await self.drained()
                command = encode_store_request(
                    message_id, sop_class_uid, sop_instance_uid, priority
                )
                await self._send(context_id, command, reader)
            response = await self._answer(answer)
        except BaseException:
            # Where in the message we stopped is lost on the peer: nothing can follow it.
            self._give_up()
            raise
        finally:
            self._waiting.pop(message_id, None)
        return StoreResult(response.status, response.error_comment)

    async def _send(self, context_id: int, command: bytes, reader: Readable) -> None:
        maximum = self.maximum_length
        if not self._buffer:
            self._buffer = memoryview(bytearray(_BUFFER_SIZE))
        head = encode_command_pdu(context_id, command, maximum)
        framer = DataSetFramer(context_id, reader.length, maximum)
        if len(head) > _BUFFER_SIZE // 2:
            self.write(head)
            await self.drained()
            head = b""
        start = len(head)
        self._buffer[:start] = head
        while not framer.done:
            used, gaps = framer.fill(self._buffer[start:])
            if gaps and not reader.try_read(gaps):
                await self._loop.run_in_executor(None, reader.read, gaps)
                self._check()
            self.write(self._buffer[: start + used])
            start = 0
            if not framer.done:
                await self.drained()
                self._check()

    def _expect(self) -> tuple[int, asyncio.Future[Command]]:
        message_id = self._last_id
        while True:
            message_id = message_id % 0xFFFF + 1
            if message_id not in self._waiting:
                break
        self._last_id = message_id
        answer: asyncio.Future[Command] = self._loop.create_future()
        self._waiting[message_id] = answer
        return message_id, answer

    async def _answer(self, answer: asyncio.Future[Command]) -> Command:
        if self._error is not None and not answer.done():
            raise self._error
        return await answer

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
        if self.closed:
            raise AssociationBroken(f"the association with {self.target} is closed")

    def _give_up(self) -> None:
        if not self.closed:
            self._fail(AssociationBroken(f"a request to {self.target} was given up"))
            self.abort()

    # -- the end -------------------------------------------------------------------------------

    async def release(self) -> None:
        """A-RELEASE; waits for the answer.  Raises AssociationTimeout without one."""
        if self.lost or not self.connection.can_release:
            self.close()
            return
        self.connection.release(self._loop.time())
        self.flush()
        try:
            async with asyncio.timeout(self.target.negotiation_timeout):
                await self._ended.wait()
        except TimeoutError:
            self.abort()
            self.close()
            raise AssociationTimeout(f"{self.target} did not answer the release") from None

    # -- Link ----------------------------------------------------------------------------------

    def on_event(self, event: Event) -> None:
        """See `Link`."""
        match event:
            case AssociateAccepted(pdu):
                self._established(pdu.user_information.asynchronous_operations)
            case AssociateRejected(pdu):
                self._fail(
                    AssociationRejected(str(self.target), pdu.result, pdu.source, pdu.reason)
                )
            case PeerAborted(source, reason):
                self._count_abort("peer")
                self._fail(AssociationAborted(str(self.target), source, reason))
            case ProtocolFailed(error):
                self._count_abort("local")
                self._fail(AssociationBroken(f"{self.target} broke the protocol: {error}"))
            case TransportClosed():
                self._fail(AssociationBroken(f"{self.target} closed the connection"))
            case ReleaseRequested():
                # The peer has had enough; what is outstanding will not be answered.
                self._fail(AssociationBroken(f"{self.target} released the association"))
                if self.connection.can_reply_release:
                    self.connection.reply_release(self._loop.time())
            case ReleaseReplied():
                self._ended.set()
            case ArtimExpired():
                self._fail(AssociationTimeout(f"{self.target} did not close in time"))
            case _:
                self.log.error("unexpected event on a requested association", event_=repr(event))

    def _established(self, window: tuple[int, int] | None) -> None:
        for context in self.connection.contexts.values():
            self.accepted[context.abstract_syntax, context.transfer_syntax] = context.id
        proposed = self.target.asynchronous_operations
        if proposed > 1 and window is not None:
            granted = window[0] or proposed  # 0 is unlimited
            self.window = max(1, min(proposed, granted))
        self._counted = True
        if self._observer is not None:
            self._observer.on_opened("out", self.target.calling_ae, self.target.name)
        if not self._ready.done():
            self._ready.set_result(None)

    def on_command(self, context_id: int, command: Command) -> None:
        """See `Link`."""
        if not command.is_response:
            response = encode_command(respond(command, _UNRECOGNIZED_OPERATION))
            self.write(encode_message(context_id, response, None, self.maximum_length))
            return
        answer = self._waiting.pop(command.message_id_being_responded_to, None)
        if answer is None:
            raise RemoteProtocolError(
                f"{command.name} for message {command.message_id_being_responded_to}, "
                "which is not outstanding"
            )
        if not answer.done():
            answer.set_result(command)

    def on_data(self, piece: memoryview) -> None:
        """A data set that no request of ours asks for is passed over."""

    def on_end(self) -> None:
        """See `on_data`."""

    def on_lost(self, error: Exception | None) -> None:
        """See `Link`."""
        self._fail(AssociationBroken(f"{self.target} closed the connection"))
        self._ended.set()
        if self._counted and self._observer is not None:
            self._counted = False
            self._observer.on_closed("out", self.target.calling_ae, self.target.name)

    def under_way(self) -> bool:
        """See `Link`."""
        return bool(self._waiting) or self.assembler.under_way

    def on_silent(self, seconds: float, *, idle: bool) -> None:
        """See `Link`."""
        self._count_abort("local")
        self._fail(AssociationTimeout(f"{self.target} was silent for {seconds:.0f} s"))
        self.abort()

    def _count_abort(self, by: str) -> None:
        if self._observer is not None:
            self._observer.on_aborted("out", by)

    def _fail(self, error: AssociationError) -> None:
        """Every request that waits, and every later one, ends with the first error."""
        if self._error is None:
            self._error = error
        if not self._ready.done():
            self._ready.set_exception(self._error)
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(self._error)
                answer.exception()  # its request may have been cancelled: then nobody looks
        self._writable.set()

    async def established(self) -> None:
        """Until the peer has accepted.  Raises AssociationError."""
        await self._ready


async def connect(
    target: Target,
    proposals: Sequence[Proposal],
    observer: RequestorObserver | None = None,
) -> Requestor:
    """An association with `target`, with a presentation context for each proposal (128 at most).

    Raises AssociationError; nothing is left open then.
    """
    if not 1 <= len(proposals) <= 128:
        raise ValueError(f"an association has 1 to 128 presentation contexts, not {len(proposals)}")
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(target.connect_timeout):
            _, requestor = await loop.create_connection(
                functools.partial(Requestor, target, observer), target.host, target.port
            )
    except TimeoutError:
        raise ConnectFailed(
            f"{target} could not be connected to within {target.connect_timeout:g} s"
        ) from None
    except (OSError, UnicodeError) as error:
        raise ConnectFailed(f"{target} could not be connected to: {error}") from error
    window = target.asynchronous_operations
    try:
        requestor.connection.associate(
            AAssociateRQ(
                called_ae_title=target.ae_title,
                calling_ae_title=target.calling_ae,
                presentation_contexts=tuple(
                    PresentationContextRQ(2 * n + 1, abstract, (transfer,))
                    for n, (abstract, transfer) in enumerate(proposals)
                ),
                user_information=UserInformation(
                    maximum_length=_OWN_MAXIMUM_LENGTH,
                    implementation_class_uid=IMPLEMENTATION_CLASS_UID,
                    implementation_version_name=IMPLEMENTATION_VERSION_NAME,
                    asynchronous_operations=(window, 1) if window > 1 else None,
                ),
            ),
            loop.time(),
        )
        requestor.flush()
        async with asyncio.timeout(target.negotiation_timeout):
            await requestor.established()
    except TimeoutError:
        requestor.abort()
        requestor.close()
        raise AssociationTimeout(
            f"{target} did not answer the association request within "
            f"{target.negotiation_timeout:g} s"
        ) from None
    except BaseException:
        requestor.close()
        raise
    return requestor
