"""Hypothesis strategies for everything that an A-ASSOCIATE PDU can carry."""

from hypothesis import strategies as st

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
)
from router.ul.pdu import PDV

bytes_8 = st.integers(0, 255)
uids = st.lists(st.integers(0, 99999), min_size=2, max_size=6).map(
    lambda parts: ".".join(map(str, parts))
)
titles = st.text("ABCXYZ019_ ", min_size=1, max_size=16).map(lambda title: title.strip() or "A")
blobs = st.binary(max_size=40)
ids = st.integers(0, 127).map(lambda n: 2 * n + 1)

user_information = st.builds(
    UserInformation,
    maximum_length=st.integers(0, 2**32 - 1),
    implementation_class_uid=st.just("") | uids,
    implementation_version_name=st.just("") | titles,
    asynchronous_operations=st.none() | st.tuples(st.integers(0, 65535), st.integers(0, 65535)),
    role_selections=st.lists(
        st.builds(RoleSelection, uids, st.booleans(), st.booleans()), max_size=4
    ).map(tuple),
    extended=st.lists(st.builds(ExtendedNegotiation, uids, blobs), max_size=3).map(tuple),
    common_extended=st.lists(
        st.builds(CommonExtendedNegotiation, uids, uids, st.lists(uids, max_size=3).map(tuple)),
        max_size=3,
    ).map(tuple),
    user_identity=st.none()
    | st.builds(UserIdentityRQ, st.integers(1, 5), st.booleans(), blobs, blobs),
    user_identity_response=st.none() | blobs,
    unknown=st.lists(st.tuples(st.integers(0x5A, 0xFF), blobs), max_size=3).map(tuple),
)
contexts_rq = st.lists(
    st.builds(
        PresentationContextRQ, ids, st.just("") | uids, st.lists(uids, max_size=4).map(tuple)
    ),
    max_size=8,
    unique_by=lambda context: context.id,
).map(tuple)
contexts_ac = st.lists(
    st.builds(PresentationContextAC, ids, bytes_8, st.just("") | uids),
    max_size=8,
    unique_by=lambda context: context.id,
).map(tuple)
requests = st.builds(
    AAssociateRQ,
    called_ae_title=st.just("") | titles,
    calling_ae_title=st.just("") | titles,
    presentation_contexts=contexts_rq,
    user_information=user_information,
    application_context=uids,
    protocol_version=st.integers(0, 65535),
)
acceptances = st.builds(
    AAssociateAC,
    called_ae_title=st.just("") | titles,
    calling_ae_title=st.just("") | titles,
    presentation_contexts=contexts_ac,
    user_information=user_information,
    application_context=uids,
    protocol_version=st.integers(0, 65535),
)
data = st.lists(st.builds(PDV, ids, st.integers(0, 3), blobs), min_size=1, max_size=4).map(
    lambda pdvs: PDataTF(tuple(pdvs))
)
pdus = st.one_of(
    requests,
    acceptances,
    st.builds(AAssociateRJ, bytes_8, bytes_8, bytes_8),
    data,
    st.just(AReleaseRQ()),
    st.just(AReleaseRP()),
    st.builds(AAbort, bytes_8, bytes_8),
)
