"""What the answers of an acceptor tell a requestor, beyond what the upper layer makes of them.

Owns the requests that await their answer, and what an answer must fit.  Must not know sockets or
time.  PS3.7 §9.1.1, PS3.8 table 9-18.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from router.dimse.command import Command, encode_command
from router.net.pool import Proposal
from router.ul import AAssociateAC, AAssociateRQ, AbortSource, ContextResult, RemoteProtocolError

_C_CANCEL_RQ = 0x0FFF
_FINAL = (
    ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED,
    ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED,
)


@dataclass(frozen=True, slots=True)
class StoreResult:
    """The answer to a C-STORE-RQ; `comment` is its Error Comment or ""."""

    status: int
    comment: str


class Request:
    """One that awaits its answer; `sent` when its message is out to the last byte.

    `instance` is the SOP Instance UID of a C-STORE-RQ, else "".
    """

    __slots__ = ("answer", "field", "instance", "sent")

    def __init__(self, field: int, instance: str, answer: "asyncio.Future[Command]") -> None:
        self.field = field
        self.instance = instance
        self.answer = answer
        self.sent = False


class Question(Request):
    """One that is answered by any number of matches before its last response (PS3.7 §9.1.2).

    ``on_match`` gets the identifier of each and says whether it wants more; once it does not,
    ``enough`` is done and it is called no more.  No identifier may have more than ``longest``
    bytes.
    """

    __slots__ = ("_identifier", "_longest", "_on_match", "enough")

    def __init__(
        self,
        field: int,
        loop: asyncio.AbstractEventLoop,
        on_match: Callable[[bytes], bool],
        longest: int,
    ) -> None:
        super().__init__(field, "", loop.create_future())
        self.enough: asyncio.Future[None] = loop.create_future()
        self._on_match = on_match
        self._longest = longest
        self._identifier = bytearray()

    async def over_or_enough(self) -> None:
        """Until the last response is there, or no more matches are wanted."""
        await asyncio.wait((self.answer, self.enough), return_when=asyncio.FIRST_COMPLETED)

    def pending(self, command: Command) -> None:
        """A response that is not the last.  Raises RemoteProtocolError without an identifier."""
        self._identifier.clear()
        if not command.has_data_set:
            raise RemoteProtocolError(
                f"{command.name} with status {command.status:04X} and without an identifier",
                source=AbortSource.SERVICE_USER,
            )

    def data(self, piece: memoryview) -> None:
        """More of its identifier.  Raises RemoteProtocolError when that is too long."""
        if len(self._identifier) + len(piece) > self._longest:
            raise RemoteProtocolError(
                f"an identifier of more than {self._longest} bytes",
                source=AbortSource.SERVICE_USER,
            )
        if not self.enough.done():
            self._identifier += piece

    def end(self) -> None:
        """Its identifier is complete."""
        if not self.enough.done() and not self._on_match(bytes(self._identifier)):
            self.enough.set_result(None)


def encode_cancel(message_id: int) -> bytes:
    """The command set of a C-CANCEL-RQ for the request of that number (PS3.7 §9.3.2.3)."""
    return encode_command(Command(_C_CANCEL_RQ, message_id_being_responded_to=message_id))


def renamed(request: Request, command: Command) -> str:
    """The instance that a response names, if not that of its message (PS3.7 §9.1.1.1.8), or "".

    Archives are about that give what they store a UID of their own.  That of something else that
    they were sent is another matter: then the answer is for that one.
    """
    named = command.affected_sop_instance_uid
    return named if request.instance and named and named != request.instance else ""


def refused_in_doubt(
    rq: AAssociateRQ | None, ac: AAssociateAC | None, accepted: Iterable[int]
) -> frozenset[Proposal]:
    """The proposals that were not accepted for no reason of their own; see `Association`."""
    if rq is None or ac is None:
        return frozenset()
    told = {answer.id for answer in ac.presentation_contexts if answer.result in _FINAL}
    told.update(accepted)
    return frozenset(
        (context.abstract_syntax, syntax)
        for context in rq.presentation_contexts
        if context.id not in told
        for syntax in context.transfer_syntaxes
    )
