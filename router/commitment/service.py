"""Storage commitment on associations that peers request of us.

Owns the presentation contexts and roles, and handing requests over: N-ACTION to whoever answers as
SCP, N-EVENT-REPORT to whoever waits for reports as SCU.  Must not know what is decided.
PS3.4 §J.3, PS3.7 §D.3.3.4.
"""

import asyncio
from collections.abc import Callable

from router.commitment.dataset import IMPLICIT, STORAGE_COMMITMENT_PUSH_MODEL, TRANSFER_SYNTAXES
from router.dimse.command import Command, encode_command, respond
from router.dimse.fragment import encode_message
from router.net.acceptor import AcceptedAssociation
from router.net.normalized import (
    LARGEST,
    N_ACTION_RQ,
    N_EVENT_REPORT_RQ,
    RESOURCE_LIMITATION,
    Back,
    Collected,
    Handler,
    Received,
    dealt,
)
from router.net.service import Operation
from router.net.settings import LocalAE
from router.ul import ContextResult, NegotiatedContext, PresentationContextRQ

MOST_TOGETHER = 128 << 20
"""Bytes of the data sets of all requests that are under way; who sends more is answered 0213H."""
_UNRECOGNIZED_OPERATION = 0x0211


class _Bounded:
    """A data set out of ``room``, the bytes that all of them together may still take."""

    def __init__(self, collected: Collected, service: "CommitmentService") -> None:
        self._collected = collected
        self._service = service
        self.size = 0

    def data(self, piece: memoryview) -> None:
        """See `router.net.service.Operation`."""
        if self._service.room < len(piece):
            self._collected.pass_over()
        if not self._collected.passed_over:
            self._service.room -= len(piece)
            self.size += len(piece)
            self._collected.data(piece)
        if self._collected.passed_over:
            self.free()

    def end(self) -> None:
        """See `router.net.service.Operation`."""
        self._collected.end()

    def abandon(self) -> None:
        """See `router.net.service.Operation`."""
        self._collected.abandon()
        self.free()

    def free(self) -> None:
        """It is not needed any more."""
        self._service.room += self.size
        self.size = 0


class CommitmentService:
    """``take_action`` answers as SCP where ``offered`` says so of a local AE, ``take_report`` gets
    reports where ``awaited()``.  Both may change their minds at any time."""

    def __init__(
        self,
        take_action: Handler,
        take_report: Handler,
        offered: Callable[[str], bool],
        awaited: Callable[[], bool],
    ) -> None:
        self._take_action = take_action
        self._take_report = take_report
        self._offered = offered
        self._awaited = awaited
        self._tasks: set[asyncio.Task[None]] = set()
        self.room = MOST_TOGETHER
        """Bytes that requests may still take before they are dealt with."""

    def takes(self, abstract_syntax: str) -> bool:
        """See `Service`."""
        return abstract_syntax == STORAGE_COMMITMENT_PUSH_MODEL and (
            self._offered("") or self._awaited()
        )

    def roles(self, abstract_syntax: str) -> tuple[bool, bool]:
        """See `WithRoles`: who asks is the SCU, who reports the SCP."""
        return self._offered(""), self._awaited()

    def choose(self, local: LocalAE, context: PresentationContextRQ) -> tuple[int, str]:
        """Implicit VR Little Endian where it is proposed, which every SCP has to take."""
        if not self._offered(local.ae_title) and not self._awaited():
            return ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED, ""
        if IMPLICIT in context.transfer_syntaxes:
            return ContextResult.ACCEPTANCE, IMPLICIT
        for uid in context.transfer_syntaxes:
            if uid in TRANSFER_SYNTAXES:
                return ContextResult.ACCEPTANCE, uid
        return ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED, ""

    def begin(
        self, association: AcceptedAssociation, context: NegotiatedContext, command: Command
    ) -> Operation | None:
        """See `Service`."""
        handler: Handler | None = None
        if command.field == N_ACTION_RQ and self._offered(association.called_ae):
            handler = self._take_action
        elif command.field == N_EVENT_REPORT_RQ and self._awaited():
            handler = self._take_report
        if handler is None:
            association.reply(context.id, command, _UNRECOGNIZED_OPERATION)
            return None
        taken = handler
        association.started()

        def whole(data: bytes | None) -> None:
            task = asyncio.get_running_loop().create_task(
                self._deal(association, context, command, data, taken)
            )
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(lambda _: bounded.free())

        bounded = _Bounded(Collected(whole), self)
        if command.has_data_set:
            return bounded
        whole(b"")
        return None

    async def close(self) -> None:
        """Until what was asked is answered."""
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _deal(
        self,
        association: AcceptedAssociation,
        context: NegotiatedContext,
        command: Command,
        data: bytes | None,
        handler: Handler,
    ) -> None:
        comment = ""
        if data is None:
            status, comment = RESOURCE_LIMITATION, f"more than {LARGEST} bytes, or too many at once"
        else:
            received = Received(
                association=association.id,
                remote=association.remote,
                peer_ae=association.calling_ae,
                own_ae=association.called_ae,
                address=association.peer_address,
                transfer_syntax=context.transfer_syntax,
                command=command,
                data=data,
                back=Back(association.outbox, context.id, context.transfer_syntax),
            )
            status = await dealt(handler, received, association)
        head = encode_command(respond(command, status, error_comment=comment))
        association.answer(encode_message(context.id, head, None, association.maximum_length))
