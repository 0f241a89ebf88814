"""One association's upper layer: bytes and the time in, events and bytes out (PS3.8 §9.2).

Owns the state of one connection: framing, table 9-10 (`state`), the ARTIM timer, the agreed
presentation contexts.  Must not know sockets, clocks, AE titles or DIMSE.

The way of P-DATA-TF is short, since nearly every byte takes it: pieces of values are slices of
what was received, and nothing is created per PDU or PDV.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, TypeAlias

from router.ul.errors import AbortReason, AbortSource, LocalProtocolError, RemoteProtocolError
from router.ul.events import (
    ArtimExpired,
    AssociateAccepted,
    AssociateRefused,
    AssociateRejected,
    AssociateRequested,
    Event,
    PeerAborted,
    ProtocolFailed,
    ReleaseReplied,
    ReleaseRequested,
    TransportClosed,
)
from router.ul.framing import ASSOCIATE_CAP, DEFAULT_PDU_CAP, check_data_length, check_header
from router.ul.items import UserInformation, invalid
from router.ul.negotiation import NegotiatedContext, Role, accepted
from router.ul.pdu import (
    A_ABORT,
    A_ASSOCIATE_AC,
    A_ASSOCIATE_RJ,
    A_ASSOCIATE_RQ,
    A_RELEASE_RP,
    A_RELEASE_RQ,
    P_DATA_TF,
    PDU,
    PDU_HEADER,
    PDU_NAMES,
    PDV_HEADER,
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    abort_pdu,
    check_pdv_length,
    decode_pdu,
    encode_pdu,
)
from router.ul.state import EFFECTS, RECEIVING, REFUSAL, SENDING, TABLE, Action, State, Trigger

OnFragment: TypeAlias = Callable[[int, int, memoryview, bool], None]

_TRIGGERS = {
    A_ASSOCIATE_RQ: Trigger.ASSOCIATE_RQ_PDU,
    A_ASSOCIATE_AC: Trigger.ASSOCIATE_AC_PDU,
    A_ASSOCIATE_RJ: Trigger.ASSOCIATE_RJ_PDU,
    P_DATA_TF: Trigger.P_DATA_TF_PDU,
    A_RELEASE_RQ: Trigger.RELEASE_RQ_PDU,
    A_RELEASE_RP: Trigger.RELEASE_RP_PDU,
    A_ABORT: Trigger.ABORT_PDU,
}
_OUT_OF_PLACE = frozenset({Action.AA_1, Action.AA_6, Action.AA_7, Action.AA_8})
_FIRST_BYTES = frozenset(
    {State.STA1_IDLE, State.STA2_AWAITING_ASSOCIATE_RQ, State.STA5_AWAITING_ASSOCIATE_REPLY}
)
_VERSION_REFUSED = AAssociateRJ(result=1, source=2, reason=2)


class Connection:
    """The state machine of one connection, requestor or acceptor.

    ``maximum_length`` is what we announce for P-DATA-TF, in bytes of its variable field as
    PS3.8 §D.1 counts them; 0 is unlimited, and only ``pdu_cap`` binds then.  ``artim`` is in
    seconds, as is every ``now``, of any one clock.

    ``on_fragment(context_id, control, piece, end_of_pdv)`` gets the values of P-DATA-TF as they
    come.  The piece is a slice of what `receive` was given, valid until the call returns.  It may
    call back into the connection (`abort`, `release`), and may raise RemoteProtocolError, which
    is handled like one found here.  After any other exception the connection reads no more.
    ``on_collect(size)`` likewise; it hears of a PDU of ``size`` bytes before that is collected.

    Drive it so: `transport_connected`, then `receive` with whatever comes; after every call write
    `data_to_send`, set a timer for ``deadline`` and close the transport, once all is written,
    when ``want_close`` is true.  That is at once after the peer's A-ABORT, A-ASSOCIATE-RJ or
    A-RELEASE-RP; after our own A-ABORT, A-ASSOCIATE-RJ or A-RELEASE-RP the peer is to close, and
    only when ARTIM expires do we.  Requests raise LocalProtocolError, and change nothing, where
    table 9-10 has no cell for them.
    """

    __slots__ = (
        "_artim",
        "_buffer",
        "_close",
        "_context_id",
        "_control",
        "_deadline",
        "_deaf",
        "_on_collect",
        "_on_fragment",
        "_open",
        "_output",
        "_pdu_cap",
        "_pdu_left",
        "_pdu_limit",
        "_pdv_left",
        "_state",
        "_transport",
        "_wanted",
        "acceptance",
        "contexts",
        "request",
        "role",
    )

    def __init__(
        self,
        role: Role,
        *,
        maximum_length: int,
        on_fragment: OnFragment,
        artim: float = 30.0,
        pdu_cap: int = DEFAULT_PDU_CAP,
        on_collect: Callable[[int], None] | None = None,
    ) -> None:
        self.role = role
        self.request: AAssociateRQ | None = None
        self.acceptance: AAssociateAC | None = None
        self.contexts: dict[int, NegotiatedContext] = {}
        self._on_fragment = on_fragment
        self._on_collect = on_collect
        self._artim = artim
        self._pdu_cap = pdu_cap
        self._pdu_limit = min(maximum_length, pdu_cap) if maximum_length else pdu_cap
        self._state = State.STA1_IDLE
        self._transport: Literal["none", "up", "gone"] = "none"
        self._deadline: float | None = None
        self._output = bytearray()
        self._close = False
        self._deaf = True  # bytes that come now are ignored
        self._open = False  # the state is one in which P-DATA-TF is delivered
        self._buffer = bytearray()  # a header, or a PDU that is not P-DATA-TF, in part
        self._wanted = 0  # size of the PDU that is being collected there, 0 for a header
        self._pdu_left = 0  # bytes of the present P-DATA-TF, or of a PDU to skip, still to come
        self._pdv_left = 0  # bytes of the present value still to come
        self._context_id = 0
        self._control = 0

    # --- what the driver looks at ---

    @property
    def state(self) -> State:
        return self._state

    @property
    def deadline(self) -> float | None:
        """When to call `timer_expired`, or None while ARTIM is not running."""
        return self._deadline

    @property
    def want_close(self) -> bool:
        """The transport is to be closed as soon as the output is written."""
        return self._close

    @property
    def can_send_data(self) -> bool:
        """P-DATA-TF may be written: in Sta6, and in Sta8 to finish what the peer waits for."""
        return self._state in SENDING

    @property
    def can_release(self) -> bool:
        return (self._state, Trigger.RELEASE_REQUEST) in TABLE

    @property
    def can_reply_release(self) -> bool:
        return (self._state, Trigger.RELEASE_RESPONSE) in TABLE

    @property
    def can_abort(self) -> bool:
        return (self._state, Trigger.ABORT_REQUEST) in TABLE

    @property
    def peer_maximum_length(self) -> int:
        """Longest variable field of a P-DATA-TF that the peer takes, in bytes; 0 is unlimited."""
        pdu = self.request if self.role == "acceptor" else self.acceptance
        return 0 if pdu is None else pdu.user_information.maximum_length

    def forget_proposals(self) -> None:
        """Keep no more of request and acceptance than the maximum lengths."""
        for name in ("request", "acceptance"):
            if (pdu := getattr(self, name)) is not None:
                length = UserInformation(maximum_length=pdu.user_information.maximum_length)
                slim = replace(pdu, presentation_contexts=(), user_information=length)
                setattr(self, name, slim)

    def data_to_send(self) -> bytes:
        """The control PDUs queued since the last call."""
        if not self._output:
            return b""
        data = bytes(self._output)
        self._output.clear()
        return data

    # --- the transport and the timer ---

    def transport_connected(self, now: float) -> None:
        """The transport is there.  A requestor may call `associate` before or after."""
        if self._transport != "none":
            raise LocalProtocolError("the transport was connected before")
        if self.role == "acceptor":
            self._step(Trigger.TRANSPORT_INDICATION, now)
        elif self._state is State.STA4_AWAITING_TRANSPORT_CONNECTION:
            self._step(Trigger.TRANSPORT_CONFIRM, now, send=self.request)
        self._transport = "up"
        self._deaf = self._close  # given up while it was being connected

    def transport_closed(self, now: float) -> list[Event]:
        """The transport is gone, whoever closed it.  May be called more than once."""
        self._transport = "gone"
        self._deaf = True
        self._output.clear()
        self._buffer.clear()  # now, not when the collector finds us: a request may be long
        if (self._state, Trigger.TRANSPORT_CLOSED) not in TABLE:
            return []
        return self._step(Trigger.TRANSPORT_CLOSED, now, tell=TransportClosed())

    def timer_expired(self, now: float) -> list[Event]:
        """Call it at the deadline; before that, or with no timer running, it does nothing."""
        if self._deadline is None or now < self._deadline:
            return []
        event = ArtimExpired(self._state)
        self._step(Trigger.ARTIM_EXPIRED, now)
        return [event]

    # --- requests ---

    def associate(self, rq: AAssociateRQ, now: float) -> None:
        """A-ASSOCIATE request: sent at once, or as soon as the transport is there."""
        if self.role != "requestor" or self._transport == "gone" or self._close:
            raise LocalProtocolError("an association cannot be requested here, or not any more")
        encode_pdu(rq)  # raises here rather than when the transport is connected
        self._step(Trigger.ASSOCIATE_REQUEST, now)
        self.request = rq
        if self._transport == "up":
            self._step(Trigger.TRANSPORT_CONFIRM, now, send=rq)

    def accept(self, ac: AAssociateAC, now: float) -> None:
        """A-ASSOCIATE response; ``ac`` accepts only what was proposed."""
        if (rq := self.request) is None:
            raise LocalProtocolError("there is no request to accept")
        contexts = accepted(rq, ac, role="acceptor")
        for answer in ac.presentation_contexts:
            if answer.result == 0 and answer.id not in contexts:
                raise LocalProtocolError(f"context {answer.id} was not proposed as it is accepted")
        self._step(Trigger.ASSOCIATE_RESPONSE_ACCEPT, now, send=ac)
        self.acceptance = ac
        self.contexts = contexts

    def reject(self, rj: AAssociateRJ, now: float) -> None:
        """A-ASSOCIATE response with a result, source and reason of PS3.8 table 9-21."""
        self._step(Trigger.ASSOCIATE_RESPONSE_REJECT, now, send=rj)

    def release(self, now: float) -> None:
        """A-RELEASE request; nothing may be sent after it, what the peer sends still comes."""
        self._step(Trigger.RELEASE_REQUEST, now, send=AReleaseRQ())

    def reply_release(self, now: float) -> None:
        """A-RELEASE response."""
        self._step(Trigger.RELEASE_RESPONSE, now, send=AReleaseRP())

    def abort(self, source: AbortSource, reason: AbortReason, now: float) -> None:
        """A-ABORT request.  In Sta4 there is nobody to tell, and the transport is closed."""
        self._step(Trigger.ABORT_REQUEST, now, send=abort_pdu(source, reason))

    # --- bytes from the peer ---

    def receive(self, data: memoryview, now: float) -> list[Event]:
        """Takes bytes as they came, cut anywhere, and returns what they caused.

        Values of P-DATA-TF go to ``on_fragment`` during the call, also those that stand behind
        an event in the same bytes.  Never raises for what the peer sent.
        """
        events: list[Event] = []
        pos, end = 0, len(data)
        try:
            while pos < end and not self._deaf:
                if not self._pdu_left:
                    pos = self._receive_pdu(data, pos, end, now, events)
                elif self._open:
                    pos = self._receive_data(data, pos, end)
                else:
                    pos = self._skip(pos, end)
        except RemoteProtocolError as error:
            events += self._fail(error, now)
        except BaseException:
            self._deaf = True  # where we are in the stream is lost
            raise
        return events

    def _receive_data(self, data: memoryview, pos: int, end: int) -> int:
        """Hands on values until the PDU or the bytes end, or the state changes."""
        deliver = self._on_fragment
        pdu_left, pdv_left = self._pdu_left, self._pdv_left
        context_id, control = self._context_id, self._control
        while True:
            if not pdv_left:
                if pdu_left < PDV_HEADER.size:
                    raise invalid(f"P-DATA-TF with {pdu_left} stray bytes at its end")
                if end - pos >= PDV_HEADER.size and not self._buffer:
                    length, context_id, control = PDV_HEADER.unpack_from(data, pos)
                    pos += PDV_HEADER.size
                else:
                    pos = self._collect(data, pos, end, PDV_HEADER.size)
                    if len(self._buffer) < PDV_HEADER.size:
                        return pos
                    length, context_id, control = PDV_HEADER.unpack_from(self._buffer)
                    self._buffer.clear()
                if length < 2 or length + 4 > pdu_left:
                    check_pdv_length(length, pdu_left)
                if context_id not in self.contexts:
                    raise invalid(f"P-DATA-TF for context {context_id}, which was not accepted")
                pdu_left -= PDV_HEADER.size
                pdv_left = length - 2
                self._context_id, self._control = context_id, control
                if pdv_left and pos == end:
                    self._pdu_left, self._pdv_left = pdu_left, pdv_left
                    return pos
            start = pos
            pos = start + pdv_left
            if pos > end:
                pos = end
            pdv_left -= pos - start
            pdu_left -= pos - start
            # Stored before the callback, which may change the state or raise.
            self._pdu_left, self._pdv_left = pdu_left, pdv_left
            deliver(context_id, control, data[start:pos], not pdv_left)
            if pos == end or not pdu_left or not self._open:
                return pos

    def _skip(self, pos: int, end: int) -> int:
        """Passes over what is left of a PDU that nobody waits for any more."""
        if self._buffer:  # a PDV header in part, still counted in what is left
            self._pdu_left -= len(self._buffer)
            self._buffer.clear()
        taken = min(self._pdu_left, end - pos)
        self._pdu_left -= taken
        return pos + taken

    def _collect(self, data: memoryview, pos: int, end: int, size: int) -> int:
        """Fills the buffer up to ``size``, as far as the bytes go."""
        stop = min(pos + size - len(self._buffer), end)
        self._buffer += data[pos:stop]
        return stop

    def _receive_pdu(
        self, data: memoryview, pos: int, end: int, now: float, events: list[Event]
    ) -> int:
        """Reads a PDU's header, or more of a PDU that is being collected."""
        if self._open and not self._buffer and end - pos >= PDU_HEADER.size:
            kind, length = PDU_HEADER.unpack_from(data, pos)
            if kind == P_DATA_TF:
                check_data_length(length, self._pdu_limit)
                self._pdu_left = length
                return pos + PDU_HEADER.size
        size = self._wanted or PDU_HEADER.size
        pos = self._collect(data, pos, end, size)
        if len(self._buffer) < size:
            return pos
        if self._wanted:
            pdu = bytes(self._buffer)
            self._buffer.clear()
            self._wanted = 0
            if self._expected(pdu[0]):  # again: the state may have changed meanwhile
                events += self._handle(decode_pdu(pdu), now)
        else:
            self._admit()
        return pos

    def _admit(self) -> None:
        """Decides on a PDU whose header is in the buffer: collect it, hand it on or skip it."""
        header = bytes(self._buffer)
        check_header(
            header,
            data_limit=self._pdu_limit,
            associate_limit=min(ASSOCIATE_CAP, self._pdu_cap),
            first=self._state in _FIRST_BYTES,
        )
        kind, length = PDU_HEADER.unpack(header)
        if not self._expected(kind) or kind == P_DATA_TF:
            self._pdu_left = length
            self._buffer.clear()
        else:
            self._wanted = PDU_HEADER.size + length
            if self._on_collect is not None:
                self._on_collect(self._wanted)

    def _expected(self, kind: int) -> bool:
        """Whether table 9-10 does something with this PDU now; False is to ignore it (AA-6).

        Raises RemoteProtocolError where it answers with an A-ABORT (AA-1, AA-7, AA-8).
        """
        cell = TABLE.get((self._state, _TRIGGERS[kind]))
        if cell is not None and cell.action is Action.AA_6:
            return False
        if cell is None or cell.action in _OUT_OF_PLACE:
            raise RemoteProtocolError(
                f"{PDU_NAMES[kind]} unexpected in {self._state.name}",
                reason=AbortReason.UNEXPECTED_PDU,
            )
        return True

    def _handle(self, pdu: PDU, now: float) -> list[Event]:
        """The transition for a PDU, other than P-DATA-TF, that is expected in this state."""
        match pdu:
            case AAssociateRQ():
                self.request = pdu
                if not pdu.protocol_version & 1:  # bit 0 is version 1, the only one there is
                    return self._step(
                        Trigger.ASSOCIATE_RQ_PDU,
                        now,
                        send=_VERSION_REFUSED,
                        tell=AssociateRefused(pdu, _VERSION_REFUSED),
                        otherwise=True,
                    )
                return self._step(Trigger.ASSOCIATE_RQ_PDU, now, tell=AssociateRequested(pdu))
            case AAssociateAC():
                self.acceptance = pdu
                if self.request is not None:
                    self.contexts = accepted(self.request, pdu)
                return self._step(Trigger.ASSOCIATE_AC_PDU, now, tell=AssociateAccepted(pdu))
            case AAssociateRJ():
                return self._step(Trigger.ASSOCIATE_RJ_PDU, now, tell=AssociateRejected(pdu))
            case AReleaseRQ():
                collision = self._state is State.STA7_AWAITING_RELEASE_RP
                return self._step(
                    Trigger.RELEASE_RQ_PDU,
                    now,
                    tell=ReleaseRequested(collision),
                    otherwise=self.role == "acceptor",
                )
            case AReleaseRP():
                return self._step(Trigger.RELEASE_RP_PDU, now, tell=ReleaseReplied())
            case AAbort():
                return self._step(Trigger.ABORT_PDU, now, tell=PeerAborted(pdu.source, pdu.reason))
            case _:
                raise LocalProtocolError(f"{type(pdu).__name__} is not handled here")

    def _fail(self, error: RemoteProtocolError, now: float) -> list[Event]:
        """Evt19, and every PDU in a wrong state: table 9-10 treats them alike."""
        self._deaf = True
        self._buffer.clear()
        cell = TABLE.get((self._state, Trigger.INVALID_PDU))
        if cell is None:  # a server that speaks before it is asked, while we are in Sta1
            self._close = True
            return [ProtocolFailed(error)]
        source, reason = error.source, error.reason
        if cell.action is Action.AA_1:  # as from the service user, says table 9-9
            source = AbortSource.SERVICE_USER
        self._step(Trigger.INVALID_PDU, now, send=abort_pdu(source, reason))
        return [] if cell.action is Action.AA_7 else [ProtocolFailed(error)]

    def _step(
        self,
        trigger: Trigger,
        now: float,
        *,
        send: PDU | None = None,
        tell: Event | None = None,
        otherwise: bool = False,
    ) -> list[Event]:
        """One cell of table 9-10; ``otherwise`` chooses its other next state, if it has one.

        Raises LocalProtocolError, with nothing changed, for an empty cell or an unencodable PDU.
        """
        cell = TABLE.get((self._state, trigger))
        if cell is None:
            raise LocalProtocolError(f"{trigger.name} is not possible in {self._state.name}")
        effect, following = EFFECTS[cell.action], cell.next
        if otherwise and cell.otherwise is not None:
            following = cell.otherwise
            if cell.action is Action.AE_6:
                effect = REFUSAL
        if effect.sends and send is not None:
            self._output += encode_pdu(send)
        if effect.timer:
            self._deadline = now + self._artim if effect.timer == "start" else None
        if effect.closes:
            self._close = self._deaf = True
        self._state = following
        self._open = following in RECEIVING
        return [tell] if effect.tells and tell is not None else []
