"""An association that we ask a peer for.

Owns the requestor's side of one association: negotiation, requests and their
answers, release and abort.  Must not know queues or retries.  PS3.7 §9.1, PS3.8 §7.
"""

import asyncio
from collections.abc import Callable

from router.dimse.command import (
    ABSENT,
    Command,
    encode_command,
    encode_store_request,
    respond,
)
from router.dimse.fragment import DataSetFramer, encode_command_pdu, encode_message
from router.dimse.messages import RESPONSE
from router.dimse.status import StatusClass, status_class
from router.net.admission import LEAST_MAXIMUM_LENGTH
from router.net.answers import Following, Names, Question, Request, ask, echo, refused_in_doubt
from router.net.answers import StoreResult as StoreResult
from router.net.aside import read_aside
from router.net.errors import (
    AssociationAborted,
    AssociationBroken,
    AssociationError,
    AssociationRejected,
    AssociationTimeout,
    in_seconds,
)
from router.net.kernel import unacknowledged
from router.net.link import Link
from router.net.normalized import Handler, Inbox, perform
from router.net.observer import RequestorObserver as RequestorObserver
from router.net.patience import Patience, fail_one
from router.net.pool import Proposal, Readable
from router.net.target import Target as Target
from router.ul import (
    AAssociateRQ,
    AbortReason,
    AbortSource,
    ArtimExpired,
    AssociateAccepted,
    AssociateRejected,
    Event,
    LocalProtocolError,
    PeerAborted,
    ProtocolFailed,
    ReleaseReplied,
    ReleaseRequested,
    RemoteProtocolError,
    TransportClosed,
)

VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"

_BUFFER_SIZE = 256 * 1024
_OWN_MAXIMUM_LENGTH = 128 * 1024
_UNRECOGNIZED_OPERATION = 0x0211
_ASKED = 64
"""Requests of the peer between two answers: what we answer it has no other bound."""
_C_STORE_RQ = 0x0001


class Requestor(Link):
    """Made by `connect`.  Requests may run side by side, up to `window`.

    After any AssociationError, and after a request was cancelled, the association is closed.
    """

    def __init__(
        self, target: Target, observer: RequestorObserver | None, on_request: Handler | None = None
    ) -> None:
        super().__init__(
            "requestor",
            maximum_length=_OWN_MAXIMUM_LENGTH,
            artim_timeout=target.negotiation_timeout,
            dimse_timeout=target.dimse_timeout,
            idle_timeout=None,
        )
        self.target = target
        self.accepted: dict[Proposal, int] = {}
        self.doubtful: frozenset[Proposal] = frozenset()
        self.roles: dict[str, tuple[bool, bool]] = {}
        self.window = 1
        self._observer = observer
        self._counted = False
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._ended = asyncio.Event()
        self._error: AssociationError | None = None
        self._waiting: dict[int, Request] = {}
        self._patience = Patience(self._waiting, target.dimse_timeout)
        self._names = Names()
        self._last_id = 0
        self._sending = asyncio.Lock()
        self._buffer = memoryview(b"")
        self._on_its_way: int | None = None
        self._asked = 0
        self._answered = False
        self._collecting: Following | None = None
        self._inbox = Inbox(self, on_request)

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
        return await echo(self, context_id, VERIFICATION)

    async def store(
        self,
        context_id: int,
        sop_class_uid: str,
        sop_instance_uid: str,
        reader: Readable,
        *,
        priority: int = 0,
        on_sent: Callable[[], None] = lambda: None,
    ) -> StoreResult:
        """C-STORE (PS3.7 §9.1.1) of the data set that `reader` yields; does not close it.

        `on_sent` is called once the transport was given the last of it.
        Raises AssociationError, or what the reader raises; the association is closed then.
        """
        try:
            async with self._sending:
                await self.drained()
                self._check()
                request = Request(_C_STORE_RQ, sop_instance_uid, self._loop.create_future())
                message_id = self._expect(request)
                command = encode_store_request(
                    message_id, sop_class_uid, sop_instance_uid, priority
                )
                await self._send(context_id, command, reader)
                request.out(self._heard, self.written)
                if self.transport is not None and not self.transport.is_closing():
                    on_sent()
            response = await request.answer
        except BaseException:
            # Where in the message we stopped is lost on the peer: nothing can follow it.
            self.give_up()
            raise
        return StoreResult(response.status, response.error_comment)

    async def ask(
        self,
        context_id: int,
        field: int,
        sop_class_uid: str,
        identifier: bytes,
        on_match: Callable[[bytes], bool],
        *,
        longest: int,
    ) -> Command:
        """C-FIND (PS3.7 §9.1.2), ``field`` being its Command Field; the last response.

        ``on_match`` gets the identifier of each match.  After it has answered False the peer is
        told to stop (C-CANCEL), which it may heed or not; further matches are dropped.  Raises
        AssociationError, also for an identifier of more than ``longest`` bytes; the association is
        closed then.  How long all of it may take is the caller's matter.
        """
        question = Question(field, self._loop, on_match, longest)
        return await ask(self, context_id, question, sop_class_uid, identifier)

    async def perform(
        self, context_id: int, command: Command, data: bytes | None, *, longest: int
    ) -> tuple[Command, bytes]:
        """A DIMSE-N request (PS3.7 §10.1), its Message ID left out; the response and its data set.

        Whether our role allows it is the caller's matter; see `roles`.  Raises AssociationError,
        also for a data set of more than ``longest`` bytes; the association is closed then.
        """
        return await perform(self, context_id, command, data, longest)

    async def put(
        self,
        context_id: int,
        command: Command,
        data: bytes | None = None,
        request: Request | None = None,
    ) -> int:
        """Send a message between others; its Message ID, new if it is one of ``request``."""
        async with self._sending:
            await self.drained()
            self._check()
            if request is not None:
                command = command._replace(message_id=self._expect(request))
            head = encode_command(command)
            self.write(encode_message(context_id, head, data, self.maximum_length))
            if request is not None:
                request.out(self._heard, self.written)
        return command.message_id

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
            piece = _BUFFER_SIZE if self.pace is None else start + self.pace.piece
            used, gaps = framer.fill(self._buffer[start:piece])
            if gaps and not reader.try_read(gaps):
                await read_aside(reader, gaps)
                self._check()
            if self.pace is not None:
                await self.paced(start + used)
                self._check()
            self.stir()
            self.write(self._buffer[: start + used])
            start = 0
            if not framer.done:
                await self.drained()
                self._check()

    def _expect(self, request: Request) -> int:
        """A Message ID for the message that is sent now: the peer cannot have answered it yet."""
        message_id = self._last_id
        while True:
            message_id = message_id % 0xFFFF + 1
            if message_id not in self._waiting:
                break
        self._last_id = message_id
        self._waiting[message_id] = request
        self._names.sent(request.instance)
        self.stir()
        return message_id

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
        if self.closed:
            raise AssociationBroken(f"the association with {self.target} is closed")

    def forget(self, message_id: int) -> None:
        """The answer to a request was there, and its data set too."""
        self._waiting.pop(message_id, None)

    def give_up(self) -> None:
        """End the association, when a request did not go as it should."""
        if not self.closed:
            self._fail(AssociationBroken(f"a request to {self.target} was given up"))
            self.abort()

    # -- the end -------------------------------------------------------------------------------

    async def release(self) -> None:
        """A-RELEASE; waits for the answer.  Raises AssociationTimeout without one.

        Whatever it ends with, even cancelled, the association is over.
        """
        await self._inbox.settled(self.target.negotiation_timeout)
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
        except BaseException:
            self.abort()
            raise

    def abort(
        self,
        source: AbortSource = AbortSource.SERVICE_USER,
        reason: AbortReason = AbortReason.NOT_SPECIFIED,
    ) -> None:
        """See `Link`; requests that wait for their answer end at once."""
        self._fail(AssociationBroken(f"the association with {self.target} was aborted by us"))
        super().abort(source, reason)

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
        theirs = self.connection.peer_maximum_length
        if 0 < theirs < LEAST_MAXIMUM_LENGTH:
            self._count_abort("local")
            self._fail(
                AssociationBroken(
                    f"{self.target} announces a maximum length of {theirs} bytes, in which no "
                    f"message fits: it must be set to {LEAST_MAXIMUM_LENGTH} or more there, or 0"
                )
            )
            self.abort()
            return
        for context in self.connection.contexts.values():
            self.accepted[context.abstract_syntax, context.transfer_syntax] = context.id
            self.roles[context.abstract_syntax] = context.scu_role, context.scp_role
        ul = self.connection
        self.doubtful = refused_in_doubt(ul.request, ul.acceptance, ul.contexts)
        proposed = self.target.asynchronous_operations
        if proposed > 1 and window is not None:
            granted = window[0] or proposed  # 0 is unlimited
            self.window = max(1, min(proposed, granted))
        self._counted = True
        if self._observer is not None:
            self._observer.on_opened("out", self.target.calling_ae, self.target.name)
        if not self._ready.done():
            self._ready.set_result(None)

    def buffer_updated(self, nbytes: int) -> None:
        """See `Link`; to a request that waits, a peer that does not answer is silent."""
        heard, self._answered = self._heard, False
        super().buffer_updated(nbytes)
        if self._waiting and not self._answered:
            self._heard = heard

    def on_command(self, context_id: int, command: Command) -> None:
        """See `Link`."""
        if not command.is_response:
            self._asked += 1
            if self._asked > _ASKED:
                raise RemoteProtocolError(
                    f"more than {_ASKED} requests, and no answer to ours",
                    source=AbortSource.SERVICE_USER,
                )
            if self._inbox.takes(command):
                self._collecting = self._inbox.begin(context_id, command)
            elif command.message_id != ABSENT:
                response = encode_command(respond(command, _UNRECOGNIZED_OPERATION))
                self.write(encode_message(context_id, response, None, self.maximum_length))
            return
        number = command.message_id_being_responded_to
        request = self._waiting.get(number)
        if request is None or command.field != request.field | RESPONSE:
            raise RemoteProtocolError(
                f"{command.name} for message {number}, which is not outstanding",
                source=AbortSource.SERVICE_USER,
            )
        if self._names.surprise(request, command, self._waiting.values()):
            self.log.warning(
                "the peer answers for an instance UID that it was not sent",
                peer=str(self.target),
                message=number,
                named=command.affected_sop_instance_uid,
            )
        if not request.sent and status_class(command.status) is not StatusClass.FAILURE:
            # A refusal may come early; that all is well cannot be known before the end.
            raise RemoteProtocolError(
                f"{command.name} with status {command.status:04X} before the end of message "
                f"{number}",
                source=AbortSource.SERVICE_USER,
            )
        self._asked, self._answered = 0, True
        self._patience.answered(number, self._heard)
        if (following := request.following(command)) is not None:
            self._collecting = following
            return
        del self._waiting[number]
        if not request.answer.done():
            request.answer.set_result(command)

    def on_data(self, piece: memoryview) -> None:
        """See `Link`; a data set that no request of ours asks for is passed over."""
        if self._collecting is not None:
            self._collecting.data(piece)

    def on_end(self) -> None:
        """See `on_data`."""
        if (collecting := self._collecting) is not None:
            self._collecting = None
            collecting.end()

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

    def stir(self) -> None:
        """See `Link`."""
        super().stir()
        self._on_its_way = None

    def on_silent(self, seconds: float, *, idle: bool) -> None:
        """See `Link`; a line so slow that our bytes are still on their way is no silent peer."""
        before, self._on_its_way = self._on_its_way, self._unsent()
        if self._on_its_way and before is None:
            return  # whether they move is seen at the next look
        if before is not None and self._on_its_way < before:
            self.stir()
            return
        self._count_abort("local")
        self._fail(AssociationTimeout(f"{self.target} was silent for {in_seconds(seconds)}"))
        self.abort()

    def on_look(self, now: float, *, listening: bool) -> None:
        """See `Link`; a peer that is silent altogether is a matter of `on_silent`."""
        if not listening:
            self._patience.excuse(now)
        elif now - self._heard < self._dimse_timeout and self.connection.can_abort:
            late = self._patience.late(now, lambda: self.written - self._unsent())
            if late is not None:
                self._count_abort("local")
                self._fail(fail_one(self.target, self._waiting.pop(late[0]).answer, late[1]))
                self.abort()

    def _unsent(self) -> int:
        """Bytes that are not with the peer yet, in the transport or in the kernel."""
        held = self.transport.get_write_buffer_size() if self.transport is not None else 0
        return held + unacknowledged(self.transport)

    def _count_abort(self, by: str) -> None:
        if self._observer is not None:
            self._observer.on_aborted("out", by)

    def _fail(self, error: AssociationError) -> None:
        """Every request that waits, and every later one, ends with the first error."""
        if self._error is None:
            self._error = error
        waiting: list[asyncio.Future[None] | asyncio.Future[Command]] = [self._ready]
        waiting += [request.answer for request in self._waiting.values()]
        self._waiting.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(self._error)
                future.exception()  # its request may have been cancelled: then nobody looks
        self._writable.set()

    async def ended(self) -> None:
        """Until the association is over, whoever ended it."""
        await self._ended.wait()

    async def established(self) -> None:
        """Until the peer has accepted.  Raises AssociationError."""
        await self._ready

    def associate(self, rq: AAssociateRQ) -> None:
        """Ask for the association.  Raises AssociationError when the peer has left already."""
        try:
            self.connection.associate(rq, self._loop.time())
        except LocalProtocolError as error:
            if self._error is None:
                raise
            raise self._error from error
        self.flush()
