"""Shared by the tests of the upper layer: requests, recorders and two connections in memory."""

from collections.abc import Callable
from dataclasses import dataclass, field

from router.ul import (
    AAssociateRQ,
    AbortReason,
    AbortSource,
    Connection,
    Event,
    PDataTF,
    PresentationContextRQ,
    State,
    UserInformation,
    accept_request,
    encode_pdu,
    negotiate,
)
from router.ul.negotiation import Role
from router.ul.pdu import PDV

CT = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
ARTIM = 30.0


def request(**changes: object) -> AAssociateRQ:
    values: dict[str, object] = {
        "called_ae_title": "ROUTER",
        "calling_ae_title": "CT1",
        "presentation_contexts": (
            PresentationContextRQ(1, VERIFICATION, (IMPLICIT,)),
            PresentationContextRQ(3, CT, (EXPLICIT, IMPLICIT)),
        ),
        "user_information": UserInformation(16384, "1.2.3"),
    }
    return AAssociateRQ(**(values | changes))  # type: ignore[arg-type]


def data_pdu(*values: bytes, context_id: int = 3, control: int = 2) -> bytes:
    return encode_pdu(PDataTF(tuple(PDV(context_id, control, value) for value in values)))


@dataclass
class Values:
    """Joins the pieces of each value, so that it does not matter how they were cut."""

    done: list[tuple[int, int, bytes]] = field(default_factory=list)
    part: bytearray = field(default_factory=bytearray)
    pieces: int = 0
    also: Callable[[], None] | None = None

    def __call__(self, context_id: int, control: int, piece: memoryview, end: bool) -> None:
        self.pieces += 1
        self.part += piece
        if end:
            self.done.append((context_id, control, bytes(self.part)))
            self.part.clear()
        if self.also:
            self.also()


@dataclass
class Side:
    """One connection, what it was told and what it received."""

    connection: Connection
    values: Values
    events: list[Event] = field(default_factory=list)

    def feed(self, data: bytes, step: int = 0, now: float = 0.0) -> list[Event]:
        """Whole, or ``step`` bytes at a time."""
        view = memoryview(data)
        size = step or max(len(data), 1)
        events: list[Event] = []
        for pos in range(0, len(data), size):
            events += self.connection.receive(view[pos : pos + size], now)
        self.events += events
        return events


def side(role: Role, maximum_length: int = 0, **options: object) -> Side:
    values = Values()
    connection = Connection(
        role,
        maximum_length=maximum_length,
        on_fragment=values,
        artim=ARTIM,
        **options,  # type: ignore[arg-type]
    )
    return Side(connection, values)


def exchange(one: Side, other: Side, step: int = 0) -> None:
    """Carries bytes both ways until neither has more to say."""
    while (a := one.connection.data_to_send()) or (b := other.connection.data_to_send()):
        if a:
            other.feed(a, step)
        else:
            one.feed(b, step)


def accept_all(acceptor: Side, now: float = 0.0) -> None:
    rq = acceptor.connection.request
    assert rq is not None
    contexts = negotiate(rq, lambda context: (0, context.transfer_syntaxes[0]))
    acceptor.connection.accept(accept_request(rq, contexts, UserInformation(32768)), now)


def pair(**options: object) -> tuple[Side, Side]:
    """Requestor and acceptor with transport, the request not yet sent."""
    requestor, acceptor = side("requestor", **options), side("acceptor", **options)  # type: ignore[arg-type]
    requestor.connection.transport_connected(0.0)
    acceptor.connection.transport_connected(0.0)
    return requestor, acceptor


def associated(step: int = 0, **options: object) -> tuple[Side, Side]:
    requestor, acceptor = pair(**options)
    requestor.connection.associate(request(), 0.0)
    exchange(requestor, acceptor, step)
    accept_all(acceptor)
    exchange(requestor, acceptor, step)
    requestor.events.clear()
    acceptor.events.clear()
    return requestor, acceptor


def in_state(number: int) -> Side:
    """A connection in the given state of PS3.8, its output drained."""
    requestor, acceptor = side("requestor"), side("acceptor")
    if number == 1:
        requestor.connection.transport_connected(0.0)
        return requestor
    if number == 4:
        requestor.connection.associate(request(), 0.0)
        return requestor
    acceptor.connection.transport_connected(0.0)
    if number == 2:
        return acceptor
    requestor.connection.transport_connected(0.0)
    requestor.connection.associate(request(), 0.0)
    rq = requestor.connection.data_to_send()
    if number == 5:
        return requestor
    acceptor.feed(rq)
    if number == 3:
        return acceptor
    accept_all(acceptor)
    exchange(requestor, acceptor)
    release_rq = bytes.fromhex("05 00 00000004 00000000")
    if number in (7, 9, 11):
        requestor.connection.release(0.0)
        if number > 7:
            requestor.feed(release_rq)
        if number == 11:
            requestor.connection.reply_release(0.0)
        chosen = requestor
    else:
        chosen = acceptor
        if number == 8:
            acceptor.feed(release_rq)
        elif number in (10, 12):
            acceptor.connection.release(0.0)
            acceptor.feed(release_rq)
            if number == 12:
                acceptor.feed(bytes.fromhex("06 00 00000004 00000000"))
        elif number == 13:
            acceptor.connection.abort(AbortSource.SERVICE_USER, AbortReason.NOT_SPECIFIED, 0.0)
    chosen.connection.data_to_send()
    chosen.events.clear()
    assert chosen.connection.state is State(number)
    return chosen
