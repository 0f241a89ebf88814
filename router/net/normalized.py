"""Requests that are answered by a data set, and requests that the peer makes of a requestor.

Owns what both have in common: a data set collected whole, within a bound, and its answer.  Must not
know what the messages mean.  PS3.7 §10.1: the DIMSE-N services, N-ACTION and N-EVENT-REPORT
above all.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from router.dimse.command import ABSENT, Command, encode_command, respond
from router.dimse.fragment import encode_message
from router.dimse.messages import RESPONSE
from router.dimse.status import PROCESSING_FAILURE
from router.net.answers import Request
from router.net.errors import AssociationBroken, AssociationError, AssociationTimeout
from router.net.link import Link
from router.ul import AbortSource, RemoteProtocolError

if TYPE_CHECKING:
    from router.net.acceptor import AcceptedAssociation
    from router.net.requestor import Requestor

N_EVENT_REPORT_RQ = 0x0100
N_ACTION_RQ = 0x0130
LARGEST = 32 * 2**20
"""Bytes of the data set of a request that is collected before it is looked at."""
RESOURCE_LIMITATION = 0x0213


@dataclass(frozen=True, slots=True)
class Received:
    """A request that a peer made, with its whole data set (b"" without one).

    ``remote`` is its name in the configuration, "" when it has none; ``peer_ae`` is its AE title
    and ``own_ae`` the one of ours that it knows; ``association`` is the id in the log.
    ``back`` is there on an association that the peer opened: the way for requests of our own.
    """

    association: str
    remote: str
    peer_ae: str
    own_ae: str
    address: str
    transfer_syntax: str
    command: Command
    data: bytes
    back: "Back | None" = None


Handler = Callable[[Received], Awaitable[int]]
"""Deals with a request and says with which status it is answered.  What it raises is logged, and
answered 0110H.  It is not cancelled when the association ends meanwhile."""


class Performance(Request):
    """A request of which the answer may have a data set of up to ``longest`` bytes."""

    __slots__ = ("_longest", "_response", "data_set")

    def __init__(self, field: int, answer: "asyncio.Future[Command]", longest: int) -> None:
        super().__init__(field, "", answer)
        self.data_set = bytearray()
        self._longest = longest
        self._response: Command | None = None

    def following(self, command: Command) -> "Performance | None":
        """The response came; itself where its data set follows."""
        if self._response is not None:
            raise RemoteProtocolError(
                f"{command.name} twice for message {command.message_id_being_responded_to}",
                source=AbortSource.SERVICE_USER,
            )
        self._response = command
        return self if command.has_data_set else None

    def data(self, piece: memoryview) -> None:
        """More of it.  Raises RemoteProtocolError when that is too long."""
        if len(self.data_set) + len(piece) > self._longest:
            raise RemoteProtocolError(
                f"a data set of more than {self._longest} bytes", source=AbortSource.SERVICE_USER
            )
        self.data_set += piece

    def abandon(self) -> None:
        """The association ended: whoever waits is told so elsewhere."""

    def end(self) -> None:
        """It is complete."""
        if self._response is not None and not self.answer.done():
            self.answer.set_result(self._response)


class Collected:
    """The data set of a request, collected; ``done`` gets it once it is whole.

    One that has more than ``largest`` bytes is passed over, and None is given instead.
    """

    __slots__ = ("_data", "_done", "_largest", "_too_large")

    def __init__(self, done: Callable[[bytes | None], None], largest: int = LARGEST) -> None:
        self._data = bytearray()
        self._done = done
        self._largest = largest
        self._too_large = False

    def data(self, piece: memoryview) -> None:
        """See `router.net.service.Operation`."""
        if len(self._data) + len(piece) > self._largest:
            self.pass_over()
        if not self._too_large:
            self._data += piece

    @property
    def passed_over(self) -> bool:
        """Whether it is not kept."""
        return self._too_large

    def pass_over(self) -> None:
        """As one that is too large, whatever it has."""
        self._too_large = True
        self._data.clear()

    def end(self) -> None:
        """See `router.net.service.Operation`."""
        self._done(None if self._too_large else bytes(self._data))

    def abandon(self) -> None:
        """See `router.net.service.Operation`; nobody waits for an answer."""
        self._data.clear()


class Back:
    """A presentation context on which we may make requests of whoever opened the association."""

    def __init__(self, outbox: "Outbox", context_id: int, transfer_syntax: str) -> None:
        self.transfer_syntax = transfer_syntax
        self._outbox = outbox
        self._context_id = context_id

    @property
    def closed(self) -> bool:
        """Nothing can be asked any more."""
        return self._outbox.closed

    async def perform(
        self, command: Command, data: bytes | None, *, longest: int, seconds: float
    ) -> tuple[Command, bytes]:
        """As `Requestor.perform`, to be answered within ``seconds``.  Raises AssociationError; the
        association goes on."""
        return await self._outbox.perform(self._context_id, command, data, longest, seconds)


class Outbox:
    """Requests of our own on an association that a peer opened."""

    def __init__(self, association: "AcceptedAssociation") -> None:
        self._association = association
        self._waiting: dict[int, Performance] = {}
        self._last_id = 0

    @property
    def closed(self) -> bool:
        """Nothing can be asked any more."""
        association = self._association
        return association.lost or not association.connection.can_send_data

    def takes(self, command: Command) -> bool:
        """Whether this is the answer to a request of ours."""
        waiting = self._waiting.get(command.message_id_being_responded_to)
        return waiting is not None and command.field == waiting.field | RESPONSE

    def answered(self, command: Command) -> Performance | None:
        """An answer that it takes; what its data set belongs to, if one follows."""
        performance = self._waiting[command.message_id_being_responded_to]
        if performance.following(command) is not None:
            return performance
        if not performance.answer.done():
            performance.answer.set_result(command)
        return None

    def lost(self) -> None:
        """The association is over."""
        for performance in self._waiting.values():
            if not performance.answer.done():
                error = AssociationBroken("the association ended before the answer")
                performance.answer.set_exception(error)

    async def perform(
        self, context_id: int, command: Command, data: bytes | None, longest: int, seconds: float
    ) -> tuple[Command, bytes]:
        """See `Back.perform`."""
        if self.closed:
            raise AssociationBroken("the association is over")
        association = self._association
        loop = asyncio.get_running_loop()
        self._last_id = number = self._last_id % 0xFFFF + 1
        performance = Performance(command.field, loop.create_future(), longest)
        self._waiting[number] = performance
        try:
            command = command._replace(message_id=number, has_data_set=data is not None)
            head = encode_command(command)
            association.write(encode_message(context_id, head, data, association.maximum_length))
            async with asyncio.timeout(seconds):
                return await performance.answer, bytes(performance.data_set)
        except TimeoutError:
            raise AssociationTimeout(
                f"{association.calling_ae} did not answer within {seconds:g} s"
            ) from None
        finally:
            del self._waiting[number]


class Inbox:
    """What the peer asks of us on an association that we opened.

    Only N-EVENT-REPORT-RQ, and only where there is a handler.
    """

    def __init__(self, requestor: "Requestor", handler: Handler | None) -> None:
        self._requestor = requestor
        self._handler = handler
        self._tasks: set[asyncio.Task[None]] = set()

    def takes(self, command: Command) -> bool:
        """Whether the request goes to the handler."""
        return (
            self._handler is not None
            and command.field == N_EVENT_REPORT_RQ
            and command.message_id != ABSENT
        )

    def begin(self, context_id: int, command: Command) -> Collected | None:
        """A request that it takes; what collects its data set, if one follows."""

        def whole(data: bytes | None) -> None:
            task = asyncio.get_running_loop().create_task(self._deal(context_id, command, data))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        if command.has_data_set:
            return Collected(whole)
        whole(b"")
        return None

    async def settled(self, seconds: float) -> None:
        """Until what came so far is answered, at most so long."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=seconds)

    async def _deal(self, context_id: int, command: Command, data: bytes | None) -> None:
        requestor, handler = self._requestor, self._handler
        context = requestor.connection.contexts[context_id]
        assert handler is not None
        if data is None:
            status, comment = RESOURCE_LIMITATION, f"more than {LARGEST} bytes"
        else:
            target = requestor.target
            received = Received(
                association=requestor.id,
                remote=target.name,
                peer_ae=target.ae_title,
                own_ae=target.calling_ae,
                address=requestor.peer_address,
                transfer_syntax=context.transfer_syntax,
                command=command,
                data=data,
            )
            status, comment = await dealt(handler, received, requestor), ""
        with contextlib.suppress(AssociationError):  # then nobody waits for the answer
            await requestor.put(context_id, respond(command, status, error_comment=comment))


async def dealt(handler: Handler, request: Received, link: Link) -> int:
    """The status that a handler answers with, 0110H when it raised."""
    try:
        return await handler(request)
    except Exception:
        link.log.exception("a request could not be dealt with", request=request.command.name)
        return PROCESSING_FAILURE


async def perform(
    requestor: "Requestor", context_id: int, command: Command, data: bytes | None, longest: int
) -> tuple[Command, bytes]:
    """See `Requestor.perform`."""
    loop = asyncio.get_running_loop()
    performance = Performance(command.field, loop.create_future(), longest)
    try:
        command = command._replace(has_data_set=data is not None)
        number = await requestor.put(context_id, command, data, performance)
        response = await performance.answer
        requestor.forget(number)
        return response, bytes(performance.data_set)
    except BaseException:
        requestor.give_up()
        raise
