"""An association that a peer requested of us.

Owns the acceptor's side of one association: admission, negotiation, handing messages to services,
release and abort, and the log lines about them.  Must not know what the services do.
PS3.7 §7, PS3.8 §7.
"""

import asyncio
import dataclasses
import functools
import time
from typing import Protocol

from router.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from router.dimse.command import ABSENT, Command, encode_command, respond
from router.dimse.fragment import encode_message
from router.dimse.responder import StoreResponder
from router.net.admission import Admission, Load, Refusal, is_plausible_uid
from router.net.link import Link, describe
from router.net.service import Operation, Service, ServiceRegistry
from router.net.settings import LocalAE, NetworkSettings
from router.ul import (
    AAssociateRQ,
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
_LAST_WORDS = 0.5
"""Seconds for an A-ABORT of ours to arrive when we stop: not all peers close after it."""
_LONGEST_RAW = 80


class NetObserver(Protocol):
    """Counts what happens; must neither wait nor raise."""

    def on_opened(self, direction: str, local_ae: str, peer: str) -> None:
        """An association was accepted; `peer` is a configured name or ""."""
        ...

    def on_closed(self, direction: str, local_ae: str, peer: str) -> None:
        """It ended."""
        ...

    def on_rejected(self, reason: str) -> None:
        """We refused one, for a fixed word."""
        ...

    def on_aborted(self, direction: str, by: str) -> None:
        """One was aborted, by ``local`` or ``peer``."""
        ...

    def on_protocol_error(self, kind: str) -> None:
        """A peer broke the protocol, in the sense of a fixed word."""
        ...


class AcceptorHost(Protocol):
    """What an accepted association needs of the listeners."""

    admission: Admission
    services: ServiceRegistry
    settings: NetworkSettings
    observer: NetObserver

    def load(self) -> Load:
        """Associations that are open now."""
        ...

    def opened(self, association: "AcceptedAssociation") -> None:
        """An association was accepted."""
        ...

    def gone(self, association: "AcceptedAssociation") -> None:
        """A connection is gone, whether it had an association or not."""
        ...

    def refused(self, association: "AcceptedAssociation", kind: str, text: str) -> None:
        """A refusal, to be counted, and logged at a bounded rate."""
        ...

    def warn(
        self,
        association: "AcceptedAssociation",
        kind: str,
        text: str,
        details: dict[str, str | int],
    ) -> None:
        """A log line, at a bounded rate for each kind and peer."""
        ...


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
        )
        self.local: LocalAE | None = None
        self.remote = ""
        self.calling_ae = ""
        self.called_ae = ""
        self.established = False
        self.messages = 0
        self.since = 0.0
        self.counted = False
        self.responders: dict[int, StoreResponder] = {}
        self._host = host
        self._listen = listen
        self._operation: Operation | None = None
        self._services: dict[int, Service] = {}
        self._outstanding = 0
        self._owed_in_part = False
        self._full = False
        self._release_wanted = False
        self._stopping = False
        self._ending = False
        self._cut_off: asyncio.TimerHandle | None = None
        self.raw_titles: dict[str, str | int] = {}

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
        """Ask for the end: abort when nothing is under way, else when it is done."""
        self._stopping = True
        self._settle()

    # -- Link ----------------------------------------------------------------------------------

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
            case PeerAborted(source, reason):
                self._host.observer.on_aborted("in", "peer")
                self.log.warning(
                    "association aborted by the peer",
                    peer=self.peer,
                    calling_ae=self.calling_ae,
                    why=describe_abort(source, reason),
                    under_way=self.assembler.under_way,
                )
            case ProtocolFailed(error):
                self._protocol_failed(error)
            case TransportClosed():
                if self.established:
                    self._host.observer.on_aborted("in", "peer")
                    self.log.warning(
                        "connection lost without release or abort",
                        peer=self.peer,
                        calling_ae=self.calling_ae,
                        under_way=self.assembler.under_way,
                    )
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
        if command.is_response or (not command.known and command.message_id == ABSENT):
            self.log.warning(
                "a message that nobody waits for", peer=self.peer, message=command.name
            )
            self._operation = _Ignored() if command.has_data_set else None
            self._owed_in_part = False
            return
        context = self.connection.contexts[context_id]
        operation = None
        before = self._outstanding
        if not command.known:
            self.reply(context_id, command, _UNRECOGNIZED_OPERATION)
        elif not context.scp_role:
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
        if self.established:
            self.established = False
            self._host.observer.on_closed("in", self.called_ae, self.remote)
            self.log.info(
                "association ended",
                peer=self.peer,
                calling_ae=self.calling_ae,
                called_ae=self.called_ae,
                messages=self.messages,
            )
        self._host.gone(self)

    def on_silent(self, seconds: float, *, idle: bool) -> None:
        """See `Link`."""
        if idle and self._outstanding:
            return  # it is we who owe something
        if idle:
            what = "was idle"
        elif not self._writable.is_set():
            what = "took none of our answers"
        else:
            what = "was silent in the middle of a message"
        self._cut("timeout", f"the peer {what} for {seconds:.0f} s")

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
                ),
            ),
            now,
        )
        self._services = {
            context.id: service
            for context in self.connection.contexts.values()
            if (service := self._host.services.find(context.abstract_syntax)) is not None
        }
        self.established = True
        self.since = time.time()
        self._host.opened(self)
        self._host.observer.on_opened("in", self.called_ae, self.remote)
        self.log.info(
            "association accepted",
            peer=self.peer,
            calling_ae=self.calling_ae,
            called_ae=self.called_ae,
            remote=self.remote,
            contexts=f"{len(self._services)} of {len(rq.presentation_contexts)}",
        )

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
        self._host.observer.on_protocol_error(describe(error))
        if self.established:
            self._host.observer.on_aborted("in", "local")
            self.warn_rarely("protocol", "association aborted by us", why=str(error))
            return
        self._host.refused(self, "protocol", str(error))
        self.hang_up()  # a web client or a TLS client waits for more otherwise

    def _release_requested(self) -> None:
        if self.assembler.under_way:
            self._cut("protocol", "the peer asked for the release in the middle of a message")
            return
        self._release_wanted = True
        self._settle()

    def _cut(self, kind: str, why: str) -> None:
        """Abort an association that stands, and say why."""
        self._host.observer.on_aborted("in", "local")
        self.warn_rarely(kind, "association aborted by us", why=why)
        self.abort()

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
            self._ending = True
            if not self._release_wanted:
                if self.connection.can_abort:
                    self._host.observer.on_aborted("in", "local")
                self.abort()
            self._cut_off = self._loop.call_later(_LAST_WORDS, self.close)


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
