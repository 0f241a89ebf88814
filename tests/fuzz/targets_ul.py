"""Targets of the upper layer: single PDUs, items, and streams into a connection in every state.

Owns the promises of `router.ul` for every input.  Must not know how inputs are made.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from router.net.admission import is_plausible_uid
from router.ul import (
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AbortReason,
    AbortSource,
    AssociateAccepted,
    AssociateRequested,
    Connection,
    ContextResult,
    Event,
    LocalProtocolError,
    PresentationContextRQ,
    ProtocolFailed,
    RemoteProtocolError,
    State,
    UserInformation,
    accept_request,
    accepted,
    check_request,
    decode_pdu,
    describe_abort,
    describe_rejection,
    encode_pdu,
    negotiate,
    negotiate_roles,
    order_transfer_syntaxes,
)
from router.ul.framing import ASSOCIATE_CAP
from router.ul.items import Reader, decode_context_ac, decode_context_rq, decode_user_information
from tests.fuzz import seeds_ul
from tests.fuzz.core import Cost, FrozenConnection, Outcome, Target, Violation, pieces
from tests.fuzz.tree import Node
from tests.ul.support import EXPLICIT, associated, in_state, request

_SMALL = 256
_CONTROL_PDUS = 64
"""Bytes that a connection may have to say of itself at a time: an A-ABORT, a reply."""


def same(one: object, other: object, what: str) -> None:
    """Both ways of feeding the same bytes must end alike."""
    if one != other:
        raise Violation(f"{what} depends on how the bytes were cut:\n  {one!r}\n  {other!r}"[:2000])


# -- single PDUs and items ---------------------------------------------------------------------


def check_pdu(data: bytes) -> Outcome:
    """`decode_pdu`, and what our own side does with an A-ASSOCIATE PDU next."""
    try:
        pdu = decode_pdu(data)
    except RemoteProtocolError:
        return Outcome(True)
    if isinstance(pdu, AAbort):
        describe_abort(pdu.source, pdu.reason)
    elif isinstance(pdu, AAssociateRJ):
        describe_rejection(pdu.result, pdu.source, pdu.reason)
    if data[-1] & 3:
        return Outcome(False)  # the rest costs as much again as three of these
    try:
        again = decode_pdu(encode_pdu(pdu))
    except LocalProtocolError:
        again = pdu  # some text fields may be longer in what we read than in what we write
    if again != pdu:
        raise Violation(f"read, written and read again is another PDU:\n  {pdu!r}\n  {again!r}")
    if isinstance(pdu, AAssociateRQ):
        answers = negotiate(pdu, lambda context: (0, next(filter(None, context.transfer_syntaxes))))
        encode_pdu(accept_request(pdu, answers, UserInformation(16384, "1.2.3")))
    elif isinstance(pdu, AAssociateAC):
        contexts = accepted(request(), pdu)
        if not contexts.keys() <= {c.id for c in request().presentation_contexts}:
            raise Violation(f"contexts that were never proposed: {sorted(contexts)}")
    return Outcome(False)


_ITEM_READERS = (decode_context_rq, decode_context_ac, decode_user_information)


def check_items(data: bytes) -> Outcome:
    """The items below a PDU: byte 0 chooses which."""
    if not data:
        return Outcome(True)
    try:
        _ITEM_READERS[data[0] % 3](Reader(data), 1, len(data))
    except RemoteProtocolError:
        return Outcome(True)
    return Outcome(False)


# -- streams -----------------------------------------------------------------------------------


class _User:
    """Takes fragments, joined so that cuts do not show, and acts in the middle if told to.

    ``plan`` under 160 does nothing; above, at the end of one of the first four values: abort,
    release, or an error of the layer above.
    """

    __slots__ = ("act_at", "calls", "connection", "done", "part", "plan", "silent")

    def __init__(self, plan: int) -> None:
        self.connection: Connection | None = None
        self.plan = plan
        self.act_at = plan & 3 if plan >= 160 else -1
        self.done: list[tuple[int, int, bytes]] = []
        self.part = bytearray()
        self.calls = 0
        self.silent = False

    def __call__(self, context_id: int, control: int, piece: memoryview, end: bool) -> None:
        if self.silent:
            raise Violation("a fragment after the association was aborted")
        if not piece and not end:
            raise Violation("an empty fragment that ends nothing")
        self.calls += 1
        self.part += piece
        if not end:
            return
        self.done.append((context_id, control, bytes(self.part)))
        self.part.clear()
        if len(self.done) - 1 == self.act_at:
            self._act()

    def _act(self) -> None:
        connection = self.connection
        assert connection is not None
        if self.plan >= 240:
            self.silent = True
            raise RemoteProtocolError("from above", source=AbortSource.SERVICE_USER)
        if self.plan >= 200 and connection.can_abort:
            self.silent = True
            connection.abort(AbortSource.SERVICE_USER, AbortReason.NOT_SPECIFIED, 1.0)
        elif connection.can_release:
            connection.release(1.0)


@cache
def _acceptors() -> tuple[FrozenConnection, ...]:
    states = (2, 3, 6, 8, 10, 12, 13)
    small = associated(maximum_length=_SMALL)[1].connection
    return (*(FrozenConnection(in_state(n).connection) for n in states), FrozenConnection(small))


@cache
def _requestors() -> tuple[FrozenConnection, ...]:
    states = (1, 4, 5, 7, 9, 11)
    small, large = associated(maximum_length=_SMALL)[0], associated()[0]
    frozen = tuple(FrozenConnection(in_state(n).connection) for n in states)
    return (*frozen, FrozenConnection(small.connection), FrozenConnection(large.connection))


def _event(event: Event) -> Any:
    # Exceptions have no equality of their own.
    if isinstance(event, ProtocolFailed):
        return (str(event.error), event.error.source, event.error.reason)
    return event


def _stream(
    frozen: FrozenConnection, parts: Sequence[memoryview], plan: int
) -> tuple[tuple[Any, ...], int, bool]:
    """What came of it; most bytes that were kept; whether the peer was found at fault."""
    user = _User(plan)
    connection = frozen.revive(user)
    user.connection = connection
    most = fed = 0
    events: list[Event] = []
    for number, part in enumerate(parts):
        events += connection.receive(part, 1.0)
        fed += len(part)
        if not number & 3:
            kept = frozen.held(connection)
            most = max(most, kept)
            if kept > min(fed, ASSOCIATE_CAP) + _CONTROL_PDUS:
                raise Violation(f"{kept} bytes are kept of {fed}")
    failures = sum(isinstance(event, ProtocolFailed) for event in events)
    if failures > 1:
        raise Violation(f"{failures} protocol errors on one connection")
    if failures and connection.state not in (State.STA1_IDLE, State.STA13_AWAITING_TRANSPORT_CLOSE):
        raise Violation(f"a protocol error, and the state is {connection.state.name}")
    if user.calls > fed:
        raise Violation(f"{user.calls} fragments of {fed} bytes")
    said = connection.data_to_send()
    if len(said) > _CONTROL_PDUS:
        raise Violation(f"{len(said)} bytes to say")
    state, deadline, closes = connection.state, connection.deadline, connection.want_close
    ended = [*connection.timer_expired(1.0 + 1e9), *connection.transport_closed(2.0)]
    if connection.receive(memoryview(b"\4\0\0\0\0\6\0\0\0\2\3\2"), 3.0):
        raise Violation("heard something after the transport was closed")
    result = (
        list(map(_event, events)),
        user.done,
        bytes(user.part),
        said,
        (state, deadline, closes),
        ended,
    )
    return result, most, failures > 0


def _check_stream(states: tuple[FrozenConnection, ...], data: bytes) -> Outcome:
    if len(data) < 3:
        return Outcome(True)
    frozen = states[data[0] % len(states)]
    view = memoryview(data)[3:]
    whole, _, refused = _stream(frozen, (view,), data[2])
    cut, most, _ = _stream(frozen, tuple(pieces(data[3:], data[1])), data[2])
    for one, other, what in zip(whole, cut, _RESULT, strict=True):
        same(one, other, what)
    return Outcome(refused, most)


_RESULT = ("events", "values", "the value under way", "the answer", "the state", "the end")


def check_acceptor(data: bytes) -> Outcome:
    """A stream into an acceptor: bytes 0 to 2 are the state, the cuts, what the user does."""
    return _check_stream(_acceptors(), data)


def check_requestor(data: bytes) -> Outcome:
    """The same into a requestor."""
    return _check_stream(_requestors(), data)


# -- a request, answered -----------------------------------------------------------------------


@cache
def _fresh() -> tuple[FrozenConnection, FrozenConnection]:
    return (
        FrozenConnection(in_state(2).connection),
        FrozenConnection(in_state(5).connection),
    )


def _choose(context: PresentationContextRQ) -> tuple[int, str]:
    if not is_plausible_uid(context.abstract_syntax):
        return ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED, ""
    plausible = tuple(filter(is_plausible_uid, context.transfer_syntaxes))
    if not plausible:
        return ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED, ""
    return ContextResult.ACCEPTANCE, order_transfer_syntaxes(plausible, (EXPLICIT,))[0]


def check_negotiation(data: bytes) -> Outcome:
    """A request is answered as the acceptor answers it; the answer goes to a requestor.

    Byte 0 is nothing's, byte 1 the cuts.
    """
    if len(data) < 2:
        return Outcome(True)
    fresh, asking = _fresh()
    connection = fresh.revive(lambda *_: None)
    events: list[Event] = []
    for part in pieces(data[2:], data[1]):
        events += connection.receive(part, 1.0)
        if events:
            break
    if not events or not isinstance(events[0], AssociateRequested):
        return Outcome(True)
    if connection.state is not State.STA3_AWAITING_LOCAL_ASSOCIATE_RESPONSE:
        return Outcome(True)
    rq = events[0].pdu
    if (rejection := check_request(rq)) is not None:
        connection.reject(rejection, 1.0)
        return Outcome(True)
    roles = negotiate_roles(rq.user_information.role_selections, lambda uid: (True, False))
    if any(role.scp for role in roles):
        raise Violation(f"a role that was not allowed: {roles!r}")
    answers = negotiate(rq, _choose)
    connection.accept(accept_request(rq, answers, UserInformation(16384, "1.2.3")), 1.0)
    agreed = {answer.id for answer in answers if answer.result == 0}
    if connection.contexts.keys() != agreed:
        raise Violation(f"accepted {sorted(agreed)}, in force {sorted(connection.contexts)}")
    requestor = asking.revive(lambda *_: None)
    answer = requestor.receive(memoryview(connection.data_to_send()), 1.0)
    if not (len(answer) == 1 and isinstance(answer[0], AssociateAccepted)):
        raise Violation(f"our own answer is not taken: {answer!r}"[:500])
    return Outcome(False)


# -- seeds -------------------------------------------------------------------------------------


def _pdu_seeds() -> Sequence[tuple[bytes, list[Node]]]:
    s = seeds_ul
    every = (*s.requests(), *s.acceptances(), *s.data_streams()[:1], s.REJECTION, s.ABORT)
    return [(b"", nodes) for pdu in every for node in s.pdu_nodes(pdu) for nodes in [[node]]]


def _item_seeds() -> Sequence[tuple[bytes, list[Node]]]:
    kinds = {0x20: b"\0", 0x21: b"\1", 0x50: b"\2"}
    return [
        (kinds[item.head[0]], item.parts or [])
        for stream in (*seeds_ul.requests(), *seeds_ul.acceptances())
        for item in seeds_ul.pdu_nodes(stream)[0].parts or ()
        if item.head and item.head[0] in kinds
    ]


_STATES = {2: 0, 3: 1, 6: 2, 8: 3, 10: 4, 12: 5, 13: 6}


def _acceptor_seeds() -> Sequence[tuple[bytes, list[Node]]]:
    s, heads = seeds_ul, {state: bytes((n, 0, 0)) for state, n in _STATES.items()}
    ends = (s.RELEASE_RQ, s.ABORT, s.RELEASE_RP)
    data = s.data_streams()
    return s.streams(
        (heads[2], s.requests()),
        (heads[3], (s.ABORT, s.requests()[0])),
        (heads[6], (*data, *(data[3] + end for end in ends))),
        (heads[8], (s.ABORT, data[3])),
        (heads[10], (s.RELEASE_RP, *ends)),
        (heads[12], ends),
        (heads[13], (s.requests()[0], data[0] + s.ABORT)),
        (bytes((7, 0, 0)), data),
    )


def _requestor_seeds() -> Sequence[tuple[bytes, list[Node]]]:
    s, data = seeds_ul, seeds_ul.data_streams()
    ends = (s.RELEASE_RQ, s.ABORT, s.RELEASE_RP)
    return s.streams(
        (b"\0\0\0", (s.requests()[0],)),
        (b"\2\0\0", (*s.acceptances(), s.REJECTION, s.acceptances()[0] + data[4])),
        (b"\3\0\0", (data[4] + s.RELEASE_RP, *ends)),
        (b"\4\0\0", ends),
        (b"\5\0\0", ends),
        (b"\6\0\0", data),
        (b"\7\0\0", (*data, *ends)),
    )


def _negotiation_seeds() -> Sequence[tuple[bytes, list[Node]]]:
    return seeds_ul.streams((b"\0\0", seeds_ul.requests()))


_ASSOCIATE = Cost(memory_per_byte=300)

TARGETS = (
    Target("pdu", check_pdu, _pdu_seeds, head=0, kept=0, weight=150, cost=_ASSOCIATE),
    Target("items", check_items, _item_seeds, head=1, weight=130, cost=_ASSOCIATE),
    Target("acceptor", check_acceptor, _acceptor_seeds, head=3, weight=120, cost=_ASSOCIATE),
    Target("requestor", check_requestor, _requestor_seeds, head=3, weight=100, cost=_ASSOCIATE),
    Target(
        "negotiation",
        check_negotiation,
        _negotiation_seeds,
        head=2,
        kept=0,
        weight=48,
        cost=_ASSOCIATE,
    ),
)
