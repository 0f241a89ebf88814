"""A target of both sides at once: what the peer says, and what our own side asks meanwhile.

Owns the promise that our own requests are carried out or refused with nothing changed, in whatever
place of the stream they fall.  Must not know how inputs are made.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from router.ul import (
    AAssociateRJ,
    AbortReason,
    AbortSource,
    Connection,
    LocalProtocolError,
    UserInformation,
    accept_request,
    negotiate,
)
from tests.fuzz import seeds_ul
from tests.fuzz.core import FrozenConnection, Outcome, Target, Violation
from tests.fuzz.tree import Node
from tests.ul.support import in_state, request

_NOW = 1.0
_LONG_AFTER = 1e6
_CONTROL_PDUS = 4096
"""Bytes that a connection may have to say at most between two looks at it."""


def _accept(connection: Connection) -> None:
    rq = connection.request or request()
    answers = negotiate(rq, lambda context: (0, next(filter(None, context.transfer_syntaxes))))
    connection.accept(accept_request(rq, answers, UserInformation(16384, "1.2.3")), _NOW)


_REQUESTS: tuple[Callable[[Connection], None], ...] = (
    _accept,
    lambda c: c.reject(AAssociateRJ(1, 1, 1), _NOW),
    lambda c: c.release(_NOW),
    lambda c: c.reply_release(_NOW),
    lambda c: c.abort(AbortSource.SERVICE_USER, AbortReason.NOT_SPECIFIED, _NOW),
    lambda c: c.associate(request(), _NOW),
    lambda c: c.transport_connected(_NOW),
)
_FEED = 0
_EXPIRE, _CLOSE, _TAKE = 8, 9, 10
_OPERATIONS = 11


@cache
def _states() -> tuple[FrozenConnection, ...]:
    return tuple(FrozenConnection(in_state(number).connection) for number in range(1, 14))


def _seen(connection: Connection) -> tuple[Any, ...]:
    # What is agreed comes with the state; the output is compared by the caller.
    return (connection.state, connection.deadline, connection.want_close, connection.can_send_data)


def check_session(data: bytes) -> Outcome:
    """Byte 0 is the state; then records of an operation, a length of two bytes and that many."""
    if not data:
        return Outcome(True)
    states = _states()
    frozen = states[data[0] % len(states)]
    fragments: list[bytes] = []
    connection = frozen.revive(lambda _c, _k, piece, _end: fragments.append(bytes(piece)))
    at, most, closed = 1, 0, False
    while at + 3 <= len(data):
        operation = data[at] % _OPERATIONS
        start = at + 3
        at = start + (data[at + 1] << 8 | data[at + 2])
        if operation == _FEED:
            before = connection.want_close, connection.state
            count = len(fragments)
            events = connection.receive(memoryview(data)[start:at], _NOW)
            if (closed or before[0]) and (
                events or fragments[count:] or before[1] is not connection.state
            ):
                raise Violation(f"{before[1].name} and closing, and yet it hears")
        elif operation == _EXPIRE:
            connection.timer_expired(_LONG_AFTER)
        elif operation == _CLOSE:
            closed = True
            connection.transport_closed(_NOW)
            if connection.state != 1 or connection.data_to_send():
                raise Violation(f"the transport is gone, the state {connection.state.name}")
        elif operation == _TAKE:
            connection.data_to_send()
        else:
            _request(connection, _REQUESTS[operation - 1], frozen)
        kept = frozen.held(connection)
        most = max(most, kept)
        if kept > len(data) + _CONTROL_PDUS:
            raise Violation(f"{kept} bytes are kept of {len(data)}")
    return Outcome(connection.want_close, most)


def _request(
    connection: Connection, ask: Callable[[Connection], None], frozen: FrozenConnection
) -> None:
    before, held = _seen(connection), frozen.held(connection)
    try:
        ask(connection)
    except LocalProtocolError as error:
        if (_seen(connection), frozen.held(connection)) != (before, held):
            raise Violation(f"refused, and yet something changed: {error}") from None


def _seeds() -> Sequence[tuple[bytes, list[Node]]]:
    s = seeds_ul
    data = s.data_streams()

    def feed(*streams: bytes) -> list[Node]:
        return [Node(b"\0", 2, value=s_[a:b]) for s_ in streams for a, b in ((0, 40), (40, None))]

    def ask(*operations: int) -> list[Node]:
        return [Node(bytes((operation,)), 2) for operation in operations]

    accept, reject, release, reply, abort, associate, connect = range(1, 8)
    return [
        (b"\1", feed(s.requests()[0]) + ask(accept, _TAKE) + feed(data[0], s.RELEASE_RQ)),
        (b"\1", feed(s.requests()[1]) + ask(reject, _TAKE, _EXPIRE)),
        (b"\1", feed(s.requests()[0]) + ask(accept, release) + feed(s.RELEASE_RQ, s.RELEASE_RP)),
        (b"\0", ask(associate) + feed(s.acceptances()[0], data[4]) + ask(release)),
        (b"\3", ask(connect) + feed(s.acceptances()[0]) + ask(release) + feed(s.RELEASE_RQ)),
        (b"\4", feed(s.acceptances()[1], data[3], s.ABORT)),
        (b"\5", feed(data[1]) + ask(abort) + feed(data[0]) + ask(_EXPIRE)),
        (b"\5", feed(data[0][:9]) + ask(abort) + feed(data[0][9:] + s.ABORT)),
        (b"\5", feed(data[2], s.RELEASE_RQ) + ask(reply) + ask(_CLOSE)),
        (b"\6", feed(data[4], s.RELEASE_RQ) + ask(reply) + feed(s.RELEASE_RP)),
        (b"\x09", feed(s.RELEASE_RP) + ask(reply, _CLOSE)),
        (b"\x0c", feed(data[0], s.ABORT) + ask(_EXPIRE, _CLOSE)),
    ]


TARGETS = (Target("session", check_session, _seeds, head=1, weight=60),)
