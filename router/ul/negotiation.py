"""Negotiation of an association: which contexts, transfer syntaxes and roles are agreed on.

Owns the meaning of proposals and answers (PS3.8 §9.3.3.2 and table 9-18, PS3.7 §D.3.3.4).  Must
not know which SOP classes or transfer syntaxes are supported: the caller's functions say so.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from router.ul.errors import LocalProtocolError
from router.ul.items import (
    PresentationContextAC,
    PresentationContextRQ,
    RoleSelection,
    UserInformation,
)
from router.ul.pdu import APPLICATION_CONTEXT_NAME, AAssociateAC, AAssociateRJ, AAssociateRQ

Role = Literal["acceptor", "requestor"]

_IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"


class ContextResult(IntEnum):
    """Results of a presentation context (PS3.8 table 9-18)."""

    ACCEPTANCE = 0
    USER_REJECTION = 1
    NO_REASON = 2
    ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
    TRANSFER_SYNTAXES_NOT_SUPPORTED = 4


@dataclass(frozen=True, slots=True)
class NegotiatedContext:
    """An accepted presentation context; the roles are those that our own side may take."""

    id: int
    abstract_syntax: str
    transfer_syntax: str
    scu_role: bool
    scp_role: bool


Choose = Callable[[PresentationContextRQ], tuple[int, str]]


def check_request(rq: AAssociateRQ) -> AAssociateRJ | None:
    """The rejection that the standard itself asks for, or None.

    Only the application context name: the version is refused below, by the state machine, and
    the AE titles are for the application to judge.  A missing name passes.
    """
    if rq.application_context not in ("", APPLICATION_CONTEXT_NAME):
        return AAssociateRJ(1, 1, 2)
    return None


def negotiate(rq: AAssociateRQ, choose: Choose) -> tuple[PresentationContextAC, ...]:
    """An answer to every proposed context, in the proposer's order.

    ``choose`` gets each well-formed proposal and returns a result of table 9-18 and, when that
    is 0, one of the proposed transfer syntaxes.  Proposals without an abstract or a transfer
    syntax are answered 3 or 4 without asking.  Raises LocalProtocolError when ``choose`` accepts
    a transfer syntax that was not proposed.
    """
    return tuple(_answer(context, choose) for context in rq.presentation_contexts)


def _answer(context: PresentationContextRQ, choose: Choose) -> PresentationContextAC:
    proposed = context.transfer_syntaxes
    result: int
    if not context.abstract_syntax:
        result, chosen = ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED, ""
    elif not any(proposed):
        result, chosen = ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED, ""
    else:
        result, chosen = choose(context)
    if result == ContextResult.ACCEPTANCE:
        if chosen not in proposed:
            raise LocalProtocolError(
                f"transfer syntax {chosen!r} was not proposed for context {context.id}"
            )
    else:
        # Means nothing then, but some requestors insist on the sub-item.
        chosen = next(filter(None, proposed), _IMPLICIT_VR_LITTLE_ENDIAN)
    return PresentationContextAC(context.id, int(result), chosen)


def order_transfer_syntaxes(
    proposed: Sequence[str], preference: Sequence[str] = ()
) -> tuple[str, ...]:
    """The proposed syntaxes, those preferred first in the order of preference, each once.

    What the preference does not name follows in the proposer's order.
    """
    offered = dict.fromkeys(proposed)
    preferred = dict.fromkeys(uid for uid in preference if uid in offered)
    return tuple(preferred | offered)


def negotiate_roles(
    proposed: Iterable[RoleSelection], allow: Callable[[str], tuple[bool, bool]]
) -> tuple[RoleSelection, ...]:
    """The acceptor's answers to a role selection (PS3.7 §D.3.3.4), one per SOP class.

    ``allow`` says for a SOP class whether the requestor may be SCU and SCP.  A role that was not
    proposed is never granted.
    """
    answers: dict[str, RoleSelection] = {}
    for role in proposed:
        scu, scp = allow(role.sop_class_uid)
        answers[role.sop_class_uid] = RoleSelection(
            role.sop_class_uid, role.scu and scu, role.scp and scp
        )
    return tuple(answers.values())


def accept_request(
    rq: AAssociateRQ,
    contexts: tuple[PresentationContextAC, ...],
    user_information: UserInformation,
) -> AAssociateAC:
    """The A-ASSOCIATE-AC that answers a request, titles repeated as PS3.8 table 9-17 asks."""
    return AAssociateAC(rq.called_ae_title, rq.calling_ae_title, contexts, user_information)


def accepted(
    rq: AAssociateRQ, ac: AAssociateAC, role: Role = "requestor"
) -> dict[int, NegotiatedContext]:
    """The contexts both sides agree on, by ID, with the roles of the side ``role``.

    Tolerant of the acceptor: an answer to what was not proposed, with a transfer syntax that was
    not proposed, or contradicted by another answer with the same ID counts as a rejection.
    """
    proposals = {context.id: context for context in rq.presentation_contexts}
    agreed_roles = _agreed_roles(rq.user_information, ac.user_information)
    answers: dict[int, PresentationContextAC] = {}
    contradicted = set()
    for answer in ac.presentation_contexts:
        if answers.setdefault(answer.id, answer) != answer:
            contradicted.add(answer.id)
    contexts = {}
    for answer in answers.values():
        proposal = proposals.get(answer.id)
        if (
            answer.result != ContextResult.ACCEPTANCE
            or proposal is None
            or answer.transfer_syntax not in proposal.transfer_syntaxes
            or answer.id in contradicted
        ):
            continue
        scu, scp = agreed_roles.get(proposal.abstract_syntax, (True, False))
        if role == "acceptor":
            scu, scp = scp, scu
        contexts[answer.id] = NegotiatedContext(
            answer.id, proposal.abstract_syntax, answer.transfer_syntax, scu, scp
        )
    return contexts


def _agreed_roles(rq: UserInformation, ac: UserInformation) -> dict[str, tuple[bool, bool]]:
    """The requestor's (SCU, SCP) by SOP class, where both sides named it; else the default.

    An acceptor that leaves the answer out has not agreed, and the default roles hold.
    """
    proposed = {role.sop_class_uid: role for role in rq.role_selections}
    return {
        answer.sop_class_uid: (answer.scu and proposal.scu, answer.scp and proposal.scp)
        for answer in ac.role_selections
        if (proposal := proposed.get(answer.sop_class_uid)) is not None
    }
