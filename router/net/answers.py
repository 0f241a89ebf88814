"""What the answers of an acceptor tell a requestor, beyond what the upper layer makes of them.

Owns the requests that await their answer, and what an answer must fit.  Must not know sockets or
time.  PS3.7 §9.1.1, PS3.8 table 9-18.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from router.dimse.command import Command
from router.net.pool import Proposal
from router.ul import AAssociateAC, AAssociateRQ, ContextResult

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
