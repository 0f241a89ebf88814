"""What the answers of an acceptor tell a requestor, beyond what the upper layer makes of them.

Owns the requests that await their answer, and what an answer must fit.  Must not know sockets or
time.  PS3.7 §9.1.1, PS3.8 table 9-18.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from router.dimse.command import Command
from router.dimse.status import COERCION_OF_DATA_ELEMENTS, StatusClass, status_class
from router.net.pool import Proposal
from router.ul import AAssociateAC, AAssociateRQ, AbortSource, ContextResult, RemoteProtocolError

if TYPE_CHECKING:
    from router.net.requestor import Requestor

_C_ECHO_RQ = 0x0030
_C_CANCEL_RQ = 0x0FFF
_RECENT = 64
"""Instances that an answer may be mistaken for; more than any window that we propose."""
_FINAL = (
    ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED,
    ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED,
)


@dataclass(frozen=True, slots=True)
class StoreResult:
    """The answer to a C-STORE-RQ; `comment` is its Error Comment or ""."""

    status: int
    comment: str


class Following(Protocol):
    """What takes the data set that follows a response."""

    def data(self, piece: memoryview) -> None:
        """The next bytes of it.  Raises RemoteProtocolError for what it cannot take."""
        ...

    def end(self) -> None:
        """It is complete."""
        ...


class Request:
    """One that awaits its answer; `sent` when its message is out to the last byte.

    `instance` is the SOP Instance UID of a C-STORE-RQ, else "".  Its message was written up to
    byte `ends_at` of all that were written, at `sent_at` (seconds of the loop's clock).
    """

    __slots__ = ("answer", "ends_at", "field", "instance", "sent", "sent_at")

    def __init__(self, field: int, instance: str, answer: "asyncio.Future[Command]") -> None:
        self.field = field
        self.instance = instance
        self.answer = answer
        self.sent = False
        self.sent_at = 0.0
        self.ends_at = 0

    def out(self, now: float, written: int) -> None:
        """Its message was written just now, to its end."""
        self.sent, self.sent_at, self.ends_at = True, now, written

    def following(self, command: Command) -> Following | None:
        """What takes the data set of a response, after which it is still outstanding; None when
        the response is the answer.  Raises RemoteProtocolError."""
        return None


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

    def following(self, command: Command) -> "Question | None":
        """Itself until the last response.  Raises RemoteProtocolError without an identifier."""
        if status_class(command.status) is not StatusClass.PENDING:
            return None
        self._identifier.clear()
        if not command.has_data_set:
            raise RemoteProtocolError(
                f"{command.name} with status {command.status:04X} and without an identifier",
                source=AbortSource.SERVICE_USER,
            )
        return self

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


def cancel(message_id: int) -> Command:
    """The C-CANCEL-RQ for the request of that number (PS3.7 §9.3.2.3)."""
    return Command(_C_CANCEL_RQ, message_id_being_responded_to=message_id)


async def echo(requestor: "Requestor", context_id: int, sop_class_uid: str) -> int:
    """See `Requestor.echo`."""
    try:
        request = Request(_C_ECHO_RQ, "", asyncio.get_running_loop().create_future())
        command = Command(_C_ECHO_RQ, affected_sop_class_uid=sop_class_uid)
        await requestor.put(context_id, command, None, request)
        return (await request.answer).status
    except BaseException:
        requestor.give_up()
        raise


async def ask(
    requestor: "Requestor", context_id: int, question: Question, sop_class_uid: str, data: bytes
) -> Command:
    """See `Requestor.ask`."""
    try:
        command = Command(
            question.field,
            affected_sop_class_uid=sop_class_uid,
            priority=0,
            has_data_set=True,
        )
        message_id = await requestor.put(context_id, command, data, question)
        await question.over_or_enough()
        if not question.answer.done():
            await requestor.put(context_id, cancel(message_id))
        return await question.answer
    except BaseException:
        requestor.give_up()
        raise


class Names:
    """The instances that responses name, against those of their messages (PS3.7 §9.1.1.1.8).

    Archives are about that give what they store a UID of their own.  That of something else that
    they were sent is another matter: then the answer is for that one.
    """

    def __init__(self) -> None:
        self.recent: deque[str] = deque(maxlen=_RECENT)
        self._told = False

    def sent(self, instance: str) -> None:
        """A message with this instance is on its way."""
        self.recent.append(instance)

    def surprise(self, request: Request, command: Command, waiting: Iterable[Request]) -> bool:
        """Whether a response names an instance that was not sent, for the first time.

        Raises RemoteProtocolError for that of another message, which is ``waiting`` or was sent
        before.
        """
        named = command.affected_sop_instance_uid
        if not request.instance or not named or named == request.instance:
            return False
        if named in self.recent or any(named == other.instance for other in waiting):
            raise RemoteProtocolError(
                f"{command.name} for message {command.message_id_being_responded_to}, but for "
                f"another instance: {named}",
                source=AbortSource.SERVICE_USER,
            )
        if self._told or command.status == COERCION_OF_DATA_ELEMENTS:
            return False
        self._told = True  # it does so with all of them
        return True


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
