"""pynetdicom's PDU classes as an independent reading of PS3.8: each reads what the other wrote."""

from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pynetdicom import pdu as theirs
from pynetdicom.pdu_items import PresentationDataValueItem
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    AsynchronousOperationsWindowNegotiation,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.presentation import build_context

from router.ul import (
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    CommonExtendedNegotiation,
    ExtendedNegotiation,
    PDataTF,
    PresentationContextAC,
    PresentationContextRQ,
    RoleSelection,
    UserIdentityRQ,
    UserInformation,
    decode_pdu,
    encode_pdu,
)
from router.ul.pdu import PDU, PDV

from . import strategies
from .support import CT, EXPLICIT, IMPLICIT, VERIFICATION

CLASSES: dict[type, type] = {
    AAssociateRQ: theirs.A_ASSOCIATE_RQ,
    AAssociateAC: theirs.A_ASSOCIATE_AC,
    AAssociateRJ: theirs.A_ASSOCIATE_RJ,
    PDataTF: theirs.P_DATA_TF,
    AReleaseRQ: theirs.A_RELEASE_RQ,
    AReleaseRP: theirs.A_RELEASE_RP,
    AAbort: theirs.A_ABORT_RQ,
}
INFORMATION = UserInformation(
    maximum_length=16384,
    implementation_class_uid="1.2.3.4",
    implementation_version_name="ROUTER_1",
    asynchronous_operations=(5, 2),
    role_selections=(RoleSelection(CT, True, True), RoleSelection(VERIFICATION, False, True)),
    extended=(ExtendedNegotiation(CT, b"\x01\x02\x03"),),
    common_extended=(CommonExtendedNegotiation(CT, "1.2.840.10008.4.2", ("1.5.1", "1.6.1")),),
    user_identity=UserIdentityRQ(2, True, b"user", b"secret"),
)


def _theirs(pdu: PDU) -> Any:
    decoded = CLASSES[type(pdu)]()
    decoded.decode(encode_pdu(pdu))
    return decoded


# What pynetdicom cannot hold is left out: empty UIDs and titles, items unknown to it, and the
# protocol version and empty fields that it does not keep.
uids = st.sampled_from([CT, VERIFICATION, "1.2.3", "1.2.840.113619.4.26"])
information = st.builds(
    UserInformation,
    maximum_length=st.integers(0, 2**32 - 1),
    implementation_class_uid=uids,
    implementation_version_name=st.just("") | strategies.titles,
    asynchronous_operations=st.none() | st.tuples(st.integers(0, 65535), st.integers(0, 65535)),
    role_selections=st.lists(
        st.builds(RoleSelection, uids, st.booleans(), st.booleans()), max_size=3
    ).map(tuple),
    extended=st.lists(
        st.builds(ExtendedNegotiation, uids, st.binary(min_size=1, max_size=9)), max_size=2
    ).map(tuple),
    common_extended=st.lists(
        st.builds(CommonExtendedNegotiation, uids, uids, st.lists(uids, max_size=3).map(tuple)),
        max_size=2,
    ).map(tuple),
    user_identity=st.none()
    | st.builds(
        UserIdentityRQ,
        st.integers(1, 5),
        st.booleans(),
        st.binary(min_size=1, max_size=9),
        st.binary(max_size=9),
    ),
)
pdus = st.one_of(
    st.builds(
        AAssociateRQ,
        strategies.titles,
        strategies.titles,
        st.lists(
            st.builds(
                PresentationContextRQ,
                strategies.ids,
                uids,
                st.lists(uids, min_size=1, max_size=3, unique=True).map(tuple),
            ),
            min_size=1,
            max_size=5,
            unique_by=lambda context: context.id,
        ).map(tuple),
        information,
    ),
    st.builds(
        AAssociateAC,
        strategies.titles,
        strategies.titles,
        st.lists(
            st.builds(PresentationContextAC, strategies.ids, st.integers(0, 4), uids),
            min_size=1,
            max_size=5,
            unique_by=lambda context: context.id,
        ).map(tuple),
        information,
    ),
    st.builds(
        AAssociateRJ, st.sampled_from([1, 2]), st.sampled_from([1, 2, 3]), st.sampled_from([1, 2])
    ),
    strategies.data,
    st.just(AReleaseRQ()),
    st.just(AReleaseRP()),
    st.builds(AAbort, st.sampled_from([0, 2]), st.sampled_from([0, 1, 2, 4, 5, 6])),
)


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(pdus)
def test_they_read_ours_and_write_the_same_bytes(pdu: PDU) -> None:
    if isinstance(pdu, PDataTF):
        assume(all(pdv.data for pdv in pdu.pdvs))  # it takes a PDV without data for malformed
    decoded = _theirs(pdu)
    assert decoded.encode() == encode_pdu(pdu)
    if isinstance(pdu, AAssociateRQ | AAssociateAC):
        assert decoded.called_ae_title.strip() == pdu.called_ae_title
        assert decoded.calling_ae_title.strip() == pdu.calling_ae_title
        ids = [context.presentation_context_id for context in decoded.presentation_context]
        assert ids == [context.id for context in pdu.presentation_contexts]
        maximum = decoded.user_information.maximum_length
        assert maximum == pdu.user_information.maximum_length


def _their_items() -> list[Any]:
    maximum = MaximumLengthNotification()
    maximum.maximum_length_received = 16384
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = "1.2.3.4"
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = "ROUTER_1"
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = 5
    window.maximum_number_operations_performed = 2
    roles = []
    for uid, scu, scp in ((CT, True, True), (VERIFICATION, False, True)):
        role = SCP_SCU_RoleSelectionNegotiation()
        role.sop_class_uid, role.scu_role, role.scp_role = uid, scu, scp
        roles.append(role)
    extended = SOPClassExtendedNegotiation()
    extended.sop_class_uid = CT
    extended.service_class_application_information = b"\x01\x02\x03"
    common = SOPClassCommonExtendedNegotiation()
    common.sop_class_uid = CT
    common.service_class_uid = "1.2.840.10008.4.2"
    common.related_general_sop_class_identification = ["1.5.1", "1.6.1"]
    identity = UserIdentityNegotiation()
    identity.user_identity_type = 2
    identity.positive_response_requested = True
    identity.primary_field = b"user"
    identity.secondary_field = b"secret"
    return [maximum, implementation, version, window, *roles, extended, common, identity]


def _their_associate() -> A_ASSOCIATE:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title = "CT1"
    primitive.called_ae_title = "ROUTER"
    primitive.user_information = _their_items()
    return primitive


def test_we_read_their_request() -> None:
    primitive = _their_associate()
    contexts = [build_context(VERIFICATION, IMPLICIT), build_context(CT, [EXPLICIT, IMPLICIT])]
    for number, context in zip((1, 3), contexts, strict=True):
        context.context_id = number
    primitive.presentation_context_definition_list = contexts
    assert decode_pdu(theirs.A_ASSOCIATE_RQ(primitive).encode()) == AAssociateRQ(
        "ROUTER",
        "CT1",
        (
            PresentationContextRQ(1, VERIFICATION, (IMPLICIT,)),
            PresentationContextRQ(3, CT, (EXPLICIT, IMPLICIT)),
        ),
        INFORMATION,
    )


def test_we_read_their_acceptance() -> None:
    primitive = _their_associate()
    answer = UserIdentityNegotiation()
    answer.server_response = b"token"
    primitive.user_information = [*_their_items()[:-1], answer]
    contexts = [build_context(VERIFICATION, IMPLICIT), build_context(CT, EXPLICIT)]
    for number, result, context in zip((1, 3), (3, 0), contexts, strict=True):
        context.context_id = number
        context.result = result
    primitive.presentation_context_definition_results_list = contexts
    primitive.result = 0
    pdu = decode_pdu(theirs.A_ASSOCIATE_AC(primitive).encode())
    assert isinstance(pdu, AAssociateAC)
    assert pdu.presentation_contexts == (
        PresentationContextAC(1, 3, IMPLICIT),
        PresentationContextAC(3, 0, EXPLICIT),
    )
    assert pdu.user_information.user_identity_response == b"token"
    assert pdu.user_information.role_selections == INFORMATION.role_selections


@pytest.mark.parametrize(
    ("pdu", "fields"),
    [
        (AAssociateRJ(2, 3, 2), {"result": 2, "source": 3, "reason_diagnostic": 2}),
        (AAbort(2, 6), {"source": 2, "reason_diagnostic": 6}),
        (AReleaseRQ(), {}),
        (AReleaseRP(), {}),
    ],
)
def test_we_read_their_short_pdus(pdu: PDU, fields: dict[str, int]) -> None:
    encoder = CLASSES[type(pdu)]()
    for name, value in fields.items():
        setattr(encoder, name, value)
    assert decode_pdu(encoder.encode()) == pdu


def test_we_read_their_data() -> None:
    encoder = theirs.P_DATA_TF()
    for context_id, value in ((1, b"\x03abc"), (3, b"\x02defg")):
        pdv = PresentationDataValueItem()
        pdv.presentation_context_id = context_id
        pdv.presentation_data_value = value
        encoder.presentation_data_value_items.append(pdv)
    assert decode_pdu(encoder.encode()) == PDataTF((PDV(1, 3, b"abc"), PDV(3, 2, b"defg")))
