"""How long a requestor waits for the answer to one message while others are answered.

Owns the deadline of each outstanding message.  Must not know sockets, nor what becomes of an
association.  Pure: takes ``now`` in seconds of any one clock.  PS3.7 §D.3.3.3.

A peer may have several messages in hand and answer them one after the other, in the order in which
they came: the last of them is not late before those ahead of it were answered.  So the time of a
message runs from the answer to the last one ahead of it, at the earliest, and the first that is
outstanding is the only one to be looked at: none is late before that one is.
"""

import asyncio
from collections.abc import Callable, Mapping

from router.dimse.command import Command
from router.net.answers import Request
from router.net.errors import AnotherUnanswered, AssociationTimeout, in_seconds


class Patience:
    """``waiting`` has the outstanding messages by number, in the order in which they were sent."""

    def __init__(self, waiting: Mapping[int, Request], timeout: float) -> None:
        self._waiting = waiting
        self._timeout = timeout
        self._since = 0.0

    def answered(self, number: int, now: float) -> None:
        """A response for that message came; it is outstanding still."""
        if number == next(iter(self._waiting)):
            self._since = now

    def excuse(self, now: float) -> None:
        """We did not listen until now."""
        self._since = now

    def late(self, now: float, arrived: Callable[[], int]) -> tuple[int, float] | None:
        """The number of the message that is late, and for how many seconds it was waited for.

        ``arrived`` gives how many of the bytes that were written are with the peer: what is on its
        way, as on a slow line, cannot be answered.  How long a message may take to be written is
        no matter of this.
        """
        number = next(iter(self._waiting), None)
        if number is None or not (request := self._waiting[number]).sent:
            return None
        seconds = now - max(request.sent_at, self._since)
        if arrived() < request.ends_at:
            self._since = now
            return None
        return (number, seconds) if seconds >= self._timeout else None


def fail_one(target: object, answer: asyncio.Future[Command], seconds: float) -> AnotherUnanswered:
    """Ends the request that waits for ``answer``; with what all others on the association end."""
    if not answer.done():
        text = f"{target} did not answer for {in_seconds(seconds)}, while other messages went on"
        answer.set_exception(AssociationTimeout(text))
        answer.exception()  # the request may have been cancelled: then nobody looks
    return AnotherUnanswered(f"{target} did not answer another message for {in_seconds(seconds)}")
