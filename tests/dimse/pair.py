"""Two upper layers, each with an assembler, joined by nothing but bytes in memory."""

from collections.abc import Callable

from router.dimse.assemble import Assembler
from router.dimse.command import Command, encode_command
from router.dimse.fragment import encode_message
from router.ul import (
    AAssociateRQ,
    AbortReason,
    AbortSource,
    AssociateAccepted,
    AssociateRequested,
    Connection,
    Event,
    PresentationContextRQ,
    ReleaseRequested,
    State,
    UserInformation,
    accept_request,
    negotiate,
)

NOW = 1000.0
ABSTRACT_SYNTAXES = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.2.2.1")
TRANSFER_SYNTAX = "1.2.840.10008.1.2.1"
CLOSED = "closed"
ROLES = ["requestor", "acceptor"]
CUTS = [1, 7, 1 << 30]
"""Bytes that come at a time: one, a few, and all there are."""

Message = tuple[int, Command, bytes | None]
Service = Callable[["Side", Message], None]


class Side:
    """One end: what came in, what is to go out, and a service that answers messages."""

    def __init__(self, role: str, maximum_length: int, one_pdv_per_pdu: bool = True) -> None:
        assert role in ("requestor", "acceptor")
        self.connection = Connection(
            "requestor" if role == "requestor" else "acceptor",
            maximum_length=maximum_length,
            on_fragment=self._on_fragment,
        )
        self.assembler = Assembler(self._on_command, self._on_data, self._on_end)
        self.user_information = UserInformation(maximum_length, "1.2.3", "TEST")
        self.one_pdv_per_pdu = one_pdv_per_pdu
        self.messages: list[Message] = []
        self.events: list[Event | str] = []
        self.out = bytearray()
        self.service: Service = lambda side, message: None
        self.on_piece: Callable[[int], None] = lambda received: None
        self._begun: tuple[int, Command] | None = None
        self._data = bytearray()

    @property
    def state(self) -> State:
        return self.connection.state

    def send(self, context_id: int, command: Command, data: bytes | None = None) -> bytes:
        """Queues a whole message; returns its bytes."""
        assert command.has_data_set == (data is not None)
        wire = encode_message(
            context_id,
            encode_command(command),
            data,
            self.connection.peer_maximum_length,
            one_pdv_per_pdu=self.one_pdv_per_pdu,
        )
        self.send_raw(wire)
        return wire

    def send_raw(self, wire: bytes) -> None:
        assert self.connection.can_send_data
        self.flush()
        self.out += wire

    @property
    def received(self) -> int:
        """Bytes of the present or last data set so far."""
        return len(self._data)

    def flush(self) -> None:
        self.out += self.connection.data_to_send()

    def abort(self, source: AbortSource, reason: AbortReason = AbortReason.NOT_SPECIFIED) -> None:
        self.connection.abort(source, reason, NOW)

    def take(self, events: list[Event]) -> None:
        """What the driver does by itself: accept what is asked, answer a release."""
        for event in events:
            self.events.append(event)
            if isinstance(event, AssociateRequested):
                if self.state is not State.STA3_AWAITING_LOCAL_ASSOCIATE_RESPONSE:
                    continue  # the peer took it back in the same breath
                contexts = negotiate(event.pdu, lambda context: (0, context.transfer_syntaxes[0]))
                answer = accept_request(event.pdu, contexts, self.user_information)
                self.connection.accept(answer, NOW)
            elif isinstance(event, ReleaseRequested) and self.connection.can_reply_release:
                self.connection.reply_release(NOW)

    def _on_fragment(self, context_id: int, control: int, piece: memoryview, end: bool) -> None:
        self.assembler.fragment(context_id, control, piece, end)

    def _on_command(self, context_id: int, command: Command) -> None:
        assert self._begun is None
        if command.has_data_set:
            self._begun = (context_id, command)
            self._data.clear()
        else:
            self._complete((context_id, command, None))

    def _on_data(self, piece: memoryview) -> None:
        self._data += piece
        self.on_piece(len(self._data))

    def _on_end(self) -> None:
        assert self._begun is not None
        context_id, command = self._begun
        self._begun = None
        self._complete((context_id, command, bytes(self._data)))

    def _complete(self, message: Message) -> None:
        self.messages.append(message)
        self.service(self, message)


class Pair:
    """A requestor and an acceptor, and the wire that carries ``cut`` bytes at a time."""

    def __init__(
        self, cut: int = 1 << 30, maximum_length: int = 16384, one_pdv_per_pdu: bool = True
    ) -> None:
        self.requestor = Side("requestor", maximum_length, one_pdv_per_pdu)
        self.acceptor = Side("acceptor", maximum_length, one_pdv_per_pdu)
        self.cut = cut

    def roles(self, role: str) -> tuple[Side, Side]:
        """The side of that role, and the other."""
        return self.sides()[ROLES.index(role)]

    def ask(self) -> None:
        """An association is requested; there is no transport yet."""
        contexts = tuple(
            PresentationContextRQ(2 * number + 1, uid, (TRANSFER_SYNTAX,))
            for number, uid in enumerate(ABSTRACT_SYNTAXES)
        )
        rq = AAssociateRQ("SCP", "SCU", contexts, self.requestor.user_information)
        self.requestor.connection.associate(rq, NOW)

    def request(self) -> None:
        """The transport is there and the A-ASSOCIATE-RQ is queued."""
        self.ask()
        self.acceptor.connection.transport_connected(NOW)
        self.requestor.connection.transport_connected(NOW)

    def associate(self) -> None:
        self.request()
        self.pump()
        assert isinstance(self.requestor.events[-1], AssociateAccepted)
        assert self.requestor.state is self.acceptor.state is State.STA6_DATA_TRANSFER
        self.requestor.events.clear()
        self.acceptor.events.clear()

    def release(self) -> None:
        self.requestor.connection.release(NOW)
        self.pump()

    def sides(self) -> tuple[tuple[Side, Side], tuple[Side, Side]]:
        return (self.requestor, self.acceptor), (self.acceptor, self.requestor)

    def step(self, sender: Side, receiver: Side, limit: int | None = None) -> bool:
        """Carries at most ``limit`` bytes one way, in cuts; whether there were any."""
        sender.flush()
        wire = bytes(sender.out if limit is None else sender.out[:limit])
        del sender.out[: len(wire)]
        for at in range(0, len(wire), self.cut):
            view = memoryview(wire[at : at + self.cut])
            receiver.take(receiver.connection.receive(view, NOW))
        return bool(wire)

    def pump(self) -> None:
        """Carries bytes both ways until it is quiet, then closes if a side wants to."""
        while sum(self.step(sender, receiver) for sender, receiver in self.sides()):
            pass
        if any(sender.connection.want_close for sender, _ in self.sides()):
            self.close()

    def close(self) -> None:
        for side, _ in self.sides():
            for event in side.connection.transport_closed(NOW):
                side.events.append(event)
            side.events.append(CLOSED)
