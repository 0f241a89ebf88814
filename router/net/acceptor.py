"""An association that a peer requested of us.

Owns the acceptor's side of one association: admission, negotiation, handing messages to services,
release and abort, and the log lines about them.  Must not know what the services do.
PS3.7 §7, PS3.8 §7.
"""

import asyncio
import dataclasses
import functools
import socket
import time
from collections.abc import Callable

from router.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from router.dimse.command import ABSENT, Command, encode_command, respond
from router.dimse.fragment import encode_message
from router.dimse.responder import StoreResponder
from router.net.admission import Refusal, is_plausible_uid
from router.net.errors import in_seconds
from router.net.host import AcceptorHost
from router.net.link import Link, describe
from router.net.normalized import N_EVENT_REPORT_RQ, Outbox
from router.net.service import Operation, Service
from router.net.settings import LocalAE
from router.ul import (
    AAssociateRQ,
    AbortSource,
    ArtimExpired,
    AssociateRefused,
    AssociateRequested,
    ContextResult,
    Event,
    PeerAborted,
    PresentationContextRQ,
    ProtocolFailed,
    ReleaseReplied,
    ReleaseRequested,
    RemoteProtocolError,
    State,
    TransportClosed,
    UserInformation,
    accept_request,
    check_request,
    describe_abort,
    negotiate,
)

_UNRECOGNIZED_OPERATION = 0x0211
_NOT_AUTHORIZED = 0x0124
_WINDOW = 16
_BURST = 128
"""Messages that may come in one piece: a peer that waits for answers has far fewer on the way."""
_UNSENT = 16 * 1024
"""Bytes of answers that the kernel takes while the peer has no room: by itself it would take
megabytes, and a peer that reads none of them could ask as long for more."""
_LAST_WORDS = 0.5
"""Seconds for our A-RELEASE-RQ to be answered when we stop, and then for our A-ABORT to arrive: not
all peers close after it."""
_BETWEEN = 1.0
"""Seconds of silence after which a peer is not taken to be between two messages, when we stop."""
_LONGEST_RAW = 80
_LONG_REQUEST = 16 * 1024
"""Bytes of a request above which its proposals are not kept for the life of the association."""


class AcceptedAssociation(Link):
    """From the connection of a peer to its end."""

    def __init__(self, host: AcceptorHost, listen: str) -> None:
        settings = host.settings
        super().__init__(
            "acceptor",
            maximum_length=settings.max_pdu,
            artim_timeout=settings.artim_timeout,
            dimse_timeout=settings.dimse_timeout,
            idle_timeout=settings.idle_timeout,
            min_rate=settings.min_rate,
        )
        self.local: LocalAE | None = None
        self.remote = ""
        self.calling_ae = ""
        self.called_ae = ""
        self.established = False
        self.messages = 0
        self.since = 0.0
        self.counted = False
        self.accounted = False
        """A counter tells of it already: it was refused, or had an association."""
        self.request_size = 0
        self.responders: dict[int, StoreResponder] = {}
        self._host = host
        self._listen = listen
        self._operation: Operation | None = None
        self._services: dict[int, Service] = {}
        self._outstanding = 0
        self._burst = 0
        self._burst_at = 0
        self._owed_in_part = False
        self._full = False
        self._release_wanted = False
        self._stopping = False
        self._ending = False
        self._cut_off: asyncio.TimerHandle | None = None
        self.raw_titles: dict[str, str | int] = {}
        self.outbox = Outbox(self)

    # -- for services --------------------------------------------------------------------------

    @property
    def maximum_length(self) -> int:
        """Longest P-DATA-TF that the peer takes; 0 is unlimited."""
        return self.connection.peer_maximum_length

    def started(self) -> None:
        """A service owes an answer.

        Who has more requests under way than the largest window that we grant is not heard until
        it has answers: each of them may hold blocks of memory.
        """
        self._outstanding += 1
        if self._outstanding > _WINDOW and not self._full:
            self._full = True
            self.pause_reading()

    def answer(self, pdus: bytes) -> None:
        """Write the PDUs of an answer that a service owed."""
        self._outstanding -= 1
        self.write(pdus)
        if self._full and self._outstanding <= _WINDOW:
            self._full = False
            self.resume_reading()
        self._settle()

    def reply(self, context_id: int, request: Command, status: int, comment: str = "") -> None:
        """Answer a request at once, with a status and nothing else.

        A request without a Message ID, C-CANCEL above all, has no answer: nothing is written.
        """
        if request.message_id == ABSENT:
            return
        response = encode_command(respond(request, status, error_comment=comment))
        self.write(encode_message(context_id, response, None, self.maximum_length))

    def warn_rarely(self, kind: str, text: str, **details: str | int) -> None:
        """A log line about this association, held back when its kind is frequent."""
        self._host.warn(self, kind, text, details)

    def stop(self) -> None:
        """Ask for the end: release once nothing is under way, and abort who does not answer."""
        self._stopping = True
        self._settle()

    def cut(self, kind: str, why: str) -> None:
        """Abort an association that stands, and say why; `kind` is a fixed word."""
        self._count_cut(kind)
        self.warn_rarely(kind, "association aborted by us", why=why)
        self.abort()

    # -- Link ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `Link`."""
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
        self._host.connected(self)

    def on_collect(self, size: int) -> None:
        """See `Link`."""
        if not self.established:
            self.request_size = size
            self._host.collecting(self, size)

    def on_event(self, event: Event) -> None:
        """See `Link`."""
        match event:
            case AssociateRequested(pdu):
                self._requested(pdu)
            case AssociateRefused(pdu, rejection):
                self.calling_ae, self.called_ae = pdu.calling_ae_title, pdu.called_ae_title
                reason = f"result {rejection.result}, reason {rejection.reason}"
                self._host.refused(self, "protocol_version", f"unsupported request ({reason})")
            case ReleaseRequested():
                self._release_requested()
            case ReleaseReplied():
                self.log.debug("association released by us", peer=self.peer)
                self._settle()
            case PeerAborted(source, reason):
                self._lost_to_the_peer(
                    "association aborted by the peer", describe_abort(source, reason)
                )
            case ProtocolFailed(error):
                self._protocol_failed(error)
            case TransportClosed():
                if self.established:
                    self._lost_to_the_peer("connection lost without release or abort", "")
            case ArtimExpired(state):
                if state is State.STA2_AWAITING_ASSOCIATE_RQ:
                    self._host.refused(
                        self, "artim", "connected, but asked for no association in time"
                    )
            case _:
                self.log.error("unexpected event on an accepted association", event_=repr(event))

    def pause_writing(self) -> None:
        """Who does not read our answers is not heard until it does: answers have no other bound."""
        super().pause_writing()
        self.pause_reading()

    def resume_writing(self) -> None:
        """See `pause_writing`."""
        super().resume_writing()
        self.resume_reading()

    def on_command(self, context_id: int, command: Command) -> None:
        """See `Link`."""
        self.messages += 1
        self._bound_burst()
        if command.is_response and self.outbox.takes(command):
            self._operation = self.outbox.answered(command)
            return
        if command.is_response or (not command.known and command.message_id == ABSENT):
            self.warn_rarely("message", "a message that nobody waits for", message=command.name)
            self._operation = _Ignored() if command.has_data_set else None
            self._owed_in_part = False
            return
        context = self.connection.contexts[context_id]
        operation = None
        before = self._outstanding
        if not command.known:
            self.reply(context_id, command, _UNRECOGNIZED_OPERATION)
        elif not context.scp_role and command.field != N_EVENT_REPORT_RQ:
            self.reply(context_id, command, _NOT_AUTHORIZED, "SCU role was not negotiated")
        else:
            operation = self._services[context_id].begin(self, context, command)
        self._owed_in_part = self._outstanding > before
        if command.has_data_set:
            self._operation = operation if operation is not None else _Ignored()

    def on_data(self, piece: memoryview) -> None:
        """See `Link`."""
        assert self._operation is not None
        self._operation.data(piece)

    def on_end(self) -> None:
        """See `Link`."""
        operation = self._operation
        assert operation is not None
        operation.end()
        self._operation = None  # not before: an operation that failed is abandoned in `on_lost`
        self._settle()

    def owes(self) -> bool:
        """See `Link`; a message that was cut off by the peer's end gets no answer."""
        if self._operation is not None:
            self._abandon()
            self._outstanding -= self._owed_in_part
        return self._outstanding > 0 and self.connection.can_send_data

    def finish(self) -> None:
        """See `Link`; what was written is to arrive, for as long as the peer has to take it."""
        if self.transport is not None and not self.lost:
            self.transport.close()

    def on_lost(self, error: Exception | None) -> None:
        """See `Link`."""
        if self._cut_off is not None:
            self._cut_off.cancel()
        if self._operation is not None:
            self._abandon()
        self.outbox.lost()
        if self.established:
            self.established = False
            self._host.observer.on_closed("in", self.called_ae, self.remote)
            self._host.tell(self, "association ended", {"messages": self.messages})
        elif not self.accounted and not self._stopping:
            self._unused()
        self._host.gone(self)

    def on_silent(self, seconds: float, *, idle: bool) -> None:
        """See `Link`."""
        if idle and self._outstanding:
            return  # it is we who owe something
        if idle:
            kind, what = "idle", "was idle"
        elif not self._writable.is_set():
            kind, what = "unread", "took none of our answers"
        else:
            kind, what = "silent", "was silent in the middle of a message"
        self.cut(kind, f"the peer {what} for {in_seconds(seconds)}")

    def on_slow(self, seconds: float, count: int) -> None:
        """See `Link`."""
        self.cut(
            "slow",
            f"the peer sent {count} bytes in {in_seconds(seconds)} in the middle of a message, "
            f"network.min_rate asks for {self._host.settings.min_rate} a second",
        )

    # -- the request ---------------------------------------------------------------------------

    def _requested(self, rq: AAssociateRQ) -> None:
        now = self._loop.time()
        self.calling_ae, self.called_ae = rq.calling_ae_title, rq.called_ae_title
        self.raw_titles = _raw_titles(rq)
        if self.connection.state is not State.STA3_AWAITING_LOCAL_ASSOCIATE_RESPONSE:
            return  # the peer did not wait: its abort, or its mistake, is the next event
        rejection = check_request(rq)
        if rejection is not None:
            self.connection.reject(rejection, now)
            self._host.refused(
                self,
                "application_context",
                f"application context {rq.application_context!r} is not that of DICOM",
            )
            return
        verdict = self._host.admission.decide(
            self._listen, rq, self.peer_address, self._host.load()
        )
        if isinstance(verdict, Refusal):
            self.connection.reject(verdict.rejection, now)
            self._host.refused(self, verdict.kind, verdict.text)
            return
        self.local, self.remote = verdict.local, verdict.remote
        answers = negotiate(rq, functools.partial(self._choose, self.local))
        proposed = rq.user_information.asynchronous_operations
        window = None
        if proposed is not None:
            # 0 proposes no limit; ours is how much we let gather before an answer.
            window = (min(proposed[0] or _WINDOW, _WINDOW), 1)
        self.connection.accept(
            accept_request(
                rq,
                answers,
                UserInformation(
                    maximum_length=self._host.settings.max_pdu,
                    implementation_class_uid=IMPLEMENTATION_CLASS_UID,
                    implementation_version_name=IMPLEMENTATION_VERSION_NAME,
                    asynchronous_operations=window,
                    role_selections=self._host.services.roles(rq.user_information.role_selections),
                ),
            ),
            now,
        )
        self._services = {
            context.id: service
            for context in self.connection.contexts.values()
            if (service := self._host.services.find(context.abstract_syntax)) is not None
        }
        if self.request_size > _LONG_REQUEST:
            self.connection.forget_proposals()
        self.established = True
        self.since = time.time()
        self._host.opened(self)
        self._host.observer.on_opened("in", self.called_ae, self.remote)
        contexts = f"{len(self._services)} of {len(rq.presentation_contexts)}"
        details: dict[str, str | int] = {"remote": self.remote, "contexts": contexts}
        self._host.tell(self, "association accepted", details)

    def _choose(self, local: LocalAE, context: PresentationContextRQ) -> tuple[int, str]:
        service = None
        if is_plausible_uid(context.abstract_syntax):
            service = self._host.services.find(context.abstract_syntax)
        if service is None:
            return ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED, ""
        plausible = tuple(filter(is_plausible_uid, context.transfer_syntaxes))
        if not plausible:
            return ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED, ""
        return service.choose(local, dataclasses.replace(context, transfer_syntaxes=plausible))

    def _protocol_failed(self, error: RemoteProtocolError) -> None:
        self.heed_no_more()
        self._host.observer.on_protocol_error(describe(error))
        if self.established:
            self._count_cut("protocol")
            self.warn_rarely("protocol", "association aborted by us", why=str(error))
            return
        self._host.refused(self, "protocol", str(error))
        self.hang_up()  # a web client or a TLS client waits for more otherwise

    def _release_requested(self) -> None:
        if self.assembler.under_way:
            self.cut("protocol", "the peer asked for the release in the middle of a message")
            return
        self._release_wanted = True
        self._settle()

    def _bound_burst(self) -> None:
        """Half a megabyte of tiny messages would keep everybody else waiting for a tenth of a
        second."""
        if self._burst_at != self.received:
            self._burst_at, self._burst = self.received, 0
        self._burst += 1
        if self._burst > _BURST:
            raise RemoteProtocolError(
                f"more than {_BURST} messages at once, without waiting for an answer: the "
                f"asynchronous operations window is {_WINDOW} at most",
                source=AbortSource.SERVICE_USER,
            )

    def _count_cut(self, kind: str) -> None:
        self._host.observer.on_aborted("in", "local")
        self._host.observer.on_cut(kind)

    def _lost_to_the_peer(self, text: str, why: str) -> None:
        self.accounted = True
        self._host.observer.on_aborted("in", "peer")
        details: dict[str, str | int] = {"under_way": self.assembler.under_way}
        if why:
            details["why"] = why
        self.warn_rarely("lost", text, **details)

    def _unused(self) -> None:
        """The peer closed before there was anything to refuse: many health checks do."""
        self._host.observer.on_unused("incomplete" if self.received else "silent")
        if self.received:
            self.warn_rarely(
                "incomplete",
                "connection closed before its association request was whole",
                bytes=self.received,
            )

    def _abandon(self) -> None:
        operation, self._operation = self._operation, None
        assert operation is not None
        operation.abandon()

    def _settle(self) -> None:
        """What may only be done when no answer is outstanding any more."""
        if self._outstanding or self.lost:
            return
        if self._release_wanted and self.connection.can_reply_release:
            self.connection.reply_release(self._loop.time())
            self.flush()
        if self.half_closed:
            self.finish()
        if self._stopping and self._operation is None and not self._ending:
            self._end()

    def _end(self) -> None:
        """We stop: who is in the middle of a study goes on as long as the listeners wait."""
        if self._release_wanted:
            self._ending = True
            self._end_after(_LAST_WORDS, self.close)
        elif not (self.established and self.connection.can_release):
            self._cut_short()
        elif (wait := self._heard + _BETWEEN - self._loop.time()) > 0:
            self._end_after(wait, self._settle)
        else:
            self._ending = True
            self.connection.release(self._loop.time())
            self.flush()
            self._end_after(_LAST_WORDS, self._cut_short)

    def _cut_short(self) -> None:
        self._ending = True
        if self.established and self.connection.can_abort:
            self._count_cut("stop")
        self.abort()
        self._end_after(_LAST_WORDS, self.close)

    def _end_after(self, seconds: float, what: Callable[[], None]) -> None:
        if self._cut_off is not None:
            self._cut_off.cancel()
        if not self.lost:
            self._cut_off = self._loop.call_later(seconds, what)


def _raw_titles(rq: AAssociateRQ) -> dict[str, str | int]:
    """The AE titles as they were sent, where they are not simply padded with spaces."""
    titles = {
        "raw_called": (rq.raw_called_ae_title, rq.called_ae_title),
        "raw_calling": (rq.raw_calling_ae_title, rq.calling_ae_title),
    }
    return {
        name: repr(raw)[:_LONGEST_RAW]
        for name, (raw, title) in titles.items()
        if raw.rstrip(b" ") != title.encode("latin-1", "replace")
    }


class _Ignored:
    """The data set of a message that was answered already, or that has no answer."""

    def data(self, piece: memoryview) -> None:
        """Dropped."""

    def end(self) -> None:
        """Nothing to do."""

    def abandon(self) -> None:
        """Nothing to do."""
