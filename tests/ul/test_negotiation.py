"""Presentation contexts, transfer syntaxes and roles: what is answered and what is agreed on."""

import pytest

from router.ul import (
    AAssociateAC,
    AAssociateRJ,
    ContextResult,
    LocalProtocolError,
    NegotiatedContext,
    PresentationContextAC,
    PresentationContextRQ,
    RoleSelection,
    UserInformation,
    accept_request,
    accepted,
    check_request,
    decode_pdu,
    encode_pdu,
    negotiate,
    negotiate_roles,
    order_transfer_syntaxes,
)

from .support import CT, EXPLICIT, IMPLICIT, VERIFICATION, request

JPEG = "1.2.840.10008.1.2.4.70"


def choose(context: PresentationContextRQ) -> tuple[int, str]:
    if context.abstract_syntax != CT:
        return ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED, ""
    for uid in order_transfer_syntaxes(context.transfer_syntaxes, (EXPLICIT, IMPLICIT)):
        if uid in (EXPLICIT, IMPLICIT):
            return ContextResult.ACCEPTANCE, uid
    return ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED, ""


def test_every_proposal_is_answered_in_its_order() -> None:
    rq = request(
        presentation_contexts=(
            PresentationContextRQ(9, CT, (JPEG,)),
            PresentationContextRQ(1, CT, (JPEG, IMPLICIT, EXPLICIT)),
            PresentationContextRQ(3, VERIFICATION, (IMPLICIT,)),
            PresentationContextRQ(5, "", (IMPLICIT,)),
            PresentationContextRQ(7, CT, ()),
            PresentationContextRQ(11, CT, ("", "")),
        )
    )
    answers = negotiate(rq, choose)
    assert answers == (
        PresentationContextAC(9, 4, JPEG),
        PresentationContextAC(1, 0, EXPLICIT),
        PresentationContextAC(3, 3, IMPLICIT),
        PresentationContextAC(5, 3, IMPLICIT),
        PresentationContextAC(7, 4, IMPLICIT),
        PresentationContextAC(11, 4, IMPLICIT),
    )
    ac = accept_request(rq, answers, UserInformation(1000))
    assert decode_pdu(encode_pdu(ac)) == ac
    assert (ac.called_ae_title, ac.calling_ae_title) == ("ROUTER", "CT1")


def test_a_choice_that_was_not_proposed_is_our_mistake() -> None:
    with pytest.raises(LocalProtocolError, match="context 1"):
        negotiate(request(), lambda _context: (0, JPEG))


@pytest.mark.parametrize(
    ("proposed", "preference", "expected"),
    [
        ((JPEG, IMPLICIT, EXPLICIT), (), (JPEG, IMPLICIT, EXPLICIT)),
        ((JPEG, IMPLICIT, EXPLICIT), (EXPLICIT,), (EXPLICIT, JPEG, IMPLICIT)),
        ((IMPLICIT,), (EXPLICIT, JPEG), (IMPLICIT,)),
        ((IMPLICIT, JPEG, IMPLICIT), (JPEG, JPEG), (JPEG, IMPLICIT)),
        ((), (EXPLICIT,), ()),
    ],
)
def test_order_of_transfer_syntaxes(
    proposed: tuple[str, ...], preference: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert order_transfer_syntaxes(proposed, preference) == expected


def test_application_context() -> None:
    assert check_request(request()) is None
    assert check_request(request(application_context="")) is None
    assert check_request(request(application_context="1.2.3")) == AAssociateRJ(1, 1, 2)


def test_an_acceptor_that_answers_more_than_it_was_asked() -> None:
    ac = AAssociateAC(
        "",
        "",
        (
            PresentationContextAC(1, 0, EXPLICIT),  # not proposed for this context
            PresentationContextAC(3, 0, IMPLICIT),
            PresentationContextAC(3, 0, IMPLICIT),  # repeated
            PresentationContextAC(5, 0, IMPLICIT),  # not proposed at all
        ),
        UserInformation(),
    )
    assert accepted(request(), ac) == {3: NegotiatedContext(3, CT, IMPLICIT, True, False)}


@pytest.mark.parametrize("second", [(0, EXPLICIT), (4, "")])
def test_contradicting_answers_count_as_a_rejection(second: tuple[int, str]) -> None:
    contexts = (PresentationContextAC(3, 0, IMPLICIT), PresentationContextAC(3, *second))
    assert accepted(request(), AAssociateAC("", "", contexts, UserInformation())) == {}


@pytest.mark.parametrize("result", [1, 2, 3, 4, 77])
def test_a_rejected_context_may_lack_its_transfer_syntax(result: int) -> None:
    ac = AAssociateAC("", "", (PresentationContextAC(3, result, ""),), UserInformation())
    decoded = decode_pdu(encode_pdu(ac))
    assert isinstance(decoded, AAssociateAC)
    assert accepted(request(), decoded) == {}


# PS3.7 §D.3.3.4, as (SCU, SCP) of the requestor: proposed, answered, agreed on.
ROLES = [
    (None, None, (True, False)),
    (None, (False, True), (True, False)),  # answers what was not asked
    ((True, False), None, (True, False)),
    ((False, True), None, (True, False)),  # left out: the default roles hold
    ((False, True), (False, True), (False, True)),
    ((True, True), (True, True), (True, True)),
    ((True, True), (True, False), (True, False)),
    ((True, True), (False, True), (False, True)),
    ((True, False), (True, True), (True, False)),  # grants more than was asked
    ((False, True), (False, False), (False, False)),
]


@pytest.mark.parametrize(("proposed", "answered", "agreed"), ROLES)
def test_roles(
    proposed: tuple[bool, bool] | None,
    answered: tuple[bool, bool] | None,
    agreed: tuple[bool, bool],
) -> None:
    def information(roles: tuple[bool, bool] | None) -> UserInformation:
        return UserInformation(role_selections=(RoleSelection(CT, *roles),) if roles else ())

    rq = request(user_information=information(proposed))
    ac = AAssociateAC(
        "",
        "",
        (PresentationContextAC(1, 0, IMPLICIT), PresentationContextAC(3, 0, EXPLICIT)),
        information(answered),
    )
    ours, theirs = accepted(rq, ac), accepted(rq, ac, role="acceptor")
    assert (ours[3].scu_role, ours[3].scp_role) == agreed
    assert (theirs[3].scp_role, theirs[3].scu_role) == agreed
    assert (ours[1].scu_role, ours[1].scp_role) == (True, False)


def test_roles_that_were_not_proposed_are_never_granted() -> None:
    proposed = (
        RoleSelection("1.1", True, False),
        RoleSelection("1.2", False, True),
        RoleSelection("1.3", True, True),
        RoleSelection("1.4", True, True),
        RoleSelection("1.4", False, True),  # again: the last counts
    )
    answers = negotiate_roles(proposed, lambda uid: (uid != "1.3", True))
    assert answers == (
        RoleSelection("1.1", True, False),
        RoleSelection("1.2", False, True),
        RoleSelection("1.3", False, True),
        RoleSelection("1.4", False, True),
    )
