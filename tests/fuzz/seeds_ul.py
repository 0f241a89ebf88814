"""Valid PDUs and messages as trees: our own encoders' and pynetdicom's.

Owns the taking apart of valid bytes into parts with lengths.  Must not know what is done to them.
"""

import struct
from collections.abc import Sequence
from functools import cache
from io import BytesIO

from pydicom.dataset import Dataset
from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    AsynchronousOperationsWindowNegotiation,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.presentation import PresentationContext, build_context

from router.dimse.command import encode_command, encode_store_request
from router.dimse.fragment import encode_message
from router.dimse.messages import MESSAGES
from router.ul import (
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AReleaseRP,
    AReleaseRQ,
    CommonExtendedNegotiation,
    ExtendedNegotiation,
    PresentationContextAC,
    PresentationContextRQ,
    RoleSelection,
    UserIdentityRQ,
    UserInformation,
    encode_pdu,
)
from tests.dimse.samples import full, least
from tests.fuzz.tree import Node
from tests.ul.support import CT, EXPLICIT, IMPLICIT, VERIFICATION, request

_GROUP_LENGTH = b"\0\0\0\0\4\0\0\0"
CONTEXT = 3
"""The presentation context that the associations of `tests.ul.support` have for CT."""

RELEASE_RQ = encode_pdu(AReleaseRQ())
RELEASE_RP = encode_pdu(AReleaseRP())
ABORT = encode_pdu(AAbort(0, 0))
REJECTION = encode_pdu(AAssociateRJ(1, 1, 1))

_INFORMATION = UserInformation(
    16384,
    "1.2.826.0.1.3680043.8.498",
    "SAMPLE_1",
    (8, 1),
    (RoleSelection(CT, True, True), RoleSelection(VERIFICATION, False, True)),
    (ExtendedNegotiation(CT, b"\1\0\2"),),
    (CommonExtendedNegotiation(CT, "1.2.840.10008.4.2", (VERIFICATION, CT)),),
    UserIdentityRQ(2, True, b"name", b"pass"),
    None,
    ((0x60, b"later"),),
)


def _pynetdicom_associate() -> A_ASSOCIATE:
    rq = A_ASSOCIATE()
    rq.application_context_name = "1.2.840.10008.3.1.1.1"
    rq.calling_ae_title, rq.called_ae_title = "PYNETDICOM", "ROUTER"
    contexts = [build_context(VERIFICATION), build_context(CT, [EXPLICIT, IMPLICIT])]
    for number, context in enumerate(contexts):
        context.context_id = 2 * number + 1
    rq.presentation_context_definition_list = contexts
    length, uid = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received, uid.implementation_class_uid = 16382, "1.2.3.4"
    window, role = AsynchronousOperationsWindowNegotiation(), SCP_SCU_RoleSelectionNegotiation()
    window.maximum_number_operations_invoked, window.maximum_number_operations_performed = 5, 5
    role.sop_class_uid, role.scu_role, role.scp_role = CT, False, True
    extended, identity = SOPClassExtendedNegotiation(), UserIdentityNegotiation()
    extended.sop_class_uid, extended.service_class_application_information = CT, b"\2\0\3\0\1\0"
    identity.user_identity_type, identity.primary_field = 1, b"someone"
    rq.user_information = [length, uid, window, role, extended, identity]
    return rq


def _pynetdicom_answer() -> A_ASSOCIATE:
    ac = _pynetdicom_associate()
    answers = []
    for number, uid in enumerate((VERIFICATION, CT)):
        answer = PresentationContext()
        answer.context_id, answer.result = 2 * number + 1, 0
        answer.abstract_syntax, answer.transfer_syntax = uid, [IMPLICIT]
        answers.append(answer)
    ac.presentation_context_definition_list = []
    ac.presentation_context_definition_results_list = answers
    ac.result = 0
    ac.user_information = ac.user_information[:2]
    return ac


def _pynetdicom_pdata(message: DIMSEMessage, primitive: C_ECHO | C_STORE) -> bytes:
    message.primitive_to_message(primitive)
    out = b""
    for data in message.encode_msg(CONTEXT, 200):
        pdu = P_DATA_TF()
        pdu.from_primitive(data)
        out += pdu.encode()
    return out


@cache
def pynetdicom_pdus() -> tuple[bytes, ...]:
    """A request, an answer, a C-ECHO-RQ and a C-STORE-RQ in fragments."""
    rq, ac = A_ASSOCIATE_RQ(), A_ASSOCIATE_AC()
    rq.from_primitive(_pynetdicom_associate())
    ac.from_primitive(_pynetdicom_answer())
    echo, store = C_ECHO(), C_STORE()
    echo.MessageID, echo.AffectedSOPClassUID = 1, VERIFICATION
    store.MessageID, store.Priority = 2, 0
    store.AffectedSOPClassUID, store.AffectedSOPInstanceUID = CT, "1.2.3.4.5"
    store.DataSet = BytesIO(SMALL_DATA_SET + bytes(400))
    return (
        rq.encode(),
        ac.encode(),
        _pynetdicom_pdata(C_ECHO_RQ(), echo),
        _pynetdicom_pdata(C_STORE_RQ(), store),
    )


def _small_data_set() -> bytes:
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = CT, "1.2.3.4.5", "CT"
    ds.PatientName, ds.StudyInstanceUID, ds.SeriesInstanceUID = "A^B", "1.2.3", "1.2.3.4"
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = True, False
    write_dataset(out, ds)
    return out.getvalue()


SMALL_DATA_SET = _small_data_set()
"""Explicit VR little endian, as the context has it."""


@cache
def requests() -> tuple[bytes, ...]:
    contexts = (
        *request().presentation_contexts,
        PresentationContextRQ(5, "1.2.3", ()),
        PresentationContextRQ(255, "", (EXPLICIT,)),
    )
    rich = request(user_information=_INFORMATION, presentation_contexts=contexts)
    return (encode_pdu(request()), encode_pdu(rich), pynetdicom_pdus()[0])


@cache
def acceptances() -> tuple[bytes, ...]:
    contexts = (
        PresentationContextAC(1, 0, IMPLICIT),
        PresentationContextAC(3, 0, EXPLICIT),
        PresentationContextAC(5, 3, ""),
    )
    identity = UserInformation(0, "1.2.3", "X", (1, 1), (), (), (), None, b"token")
    return (
        encode_pdu(AAssociateAC("ROUTER", "CT1", contexts[:2], UserInformation(16384, "1.2.3"))),
        encode_pdu(AAssociateAC("ROUTER", "CT1", contexts, identity)),
        pynetdicom_pdus()[1],
    )


@cache
def data_streams() -> tuple[bytes, ...]:
    """Messages on CONTEXT: requests and responses, in one PDU and in many, with a data set."""
    store = encode_store_request(7, CT, "1.2.3.4.5", 0, "MOVER", 9)
    data = SMALL_DATA_SET + bytes(100)
    echo = encode_command(least(MESSAGES[0x0030]))
    return (
        encode_message(CONTEXT, store, data, 0),
        encode_message(CONTEXT, store, data, 100),
        encode_message(CONTEXT, store, data, 400, one_pdv_per_pdu=False),
        encode_message(CONTEXT, echo, None, 0) * 3,
        encode_message(CONTEXT, encode_command(full(MESSAGES[0x8001])), None, 0),
        encode_message(CONTEXT, encode_command(full(MESSAGES[0x0020])), data[:40], 60),
        encode_message(CONTEXT, encode_command(full(MESSAGES[0x0021])), data[:40], 0),
        encode_message(CONTEXT, encode_command(full(MESSAGES[0x8110])), b"", 0),
        *pynetdicom_pdus()[2:],
    )


@cache
def commands() -> tuple[bytes, ...]:
    """One command set of every message type with everything, and with the least."""
    whole = [encode_command(full(row)) for row in MESSAGES.values()]
    short = [encode_command(least(row)) for row in MESSAGES.values()]
    moved = encode_store_request(65535, CT, "1.2.826.0.1.3680043.8.498.1", 2, "MOVER", 9)
    return (*whole, *short, moved)


# -- taking valid bytes apart ------------------------------------------------------------------


def pdu_nodes(stream: bytes) -> list[Node]:
    """The PDUs of a stream, each with its items or values, and these with theirs."""
    nodes = []
    while stream:
        end = 6 + int.from_bytes(stream[2:6], "big")
        nodes.append(Node(stream[:2], 4, False, _pdu_parts(stream[0], stream[6:end])))
        stream = stream[end:]
    return nodes


def _pdu_parts(kind: int, body: bytes) -> list[Node]:
    if kind in (1, 2):
        return [Node(value=body[:68]), *item_nodes(body[68:])]
    if kind == 4:
        return _pdv_nodes(body)
    return [Node(value=body)]


def item_nodes(body: bytes) -> list[Node]:
    """Items of A-ASSOCIATE PDUs, at any level."""
    nodes = []
    while body:
        end = 4 + int.from_bytes(body[2:4], "big")
        nodes.append(Node(body[:2], 2, False, _item_parts(body[0], body[4:end])))
        body = body[end:]
    return nodes


def _item_parts(kind: int, value: bytes) -> list[Node]:
    if kind in (0x20, 0x21):
        return [Node(value=value[:4]), *item_nodes(value[4:])]
    if kind == 0x50:
        return item_nodes(value)
    if kind == 0x58:
        return [Node(value=value[:2]), *_prefixed(value[2:], 2)]
    if kind in (0x54, 0x56):
        return _prefixed(value, 1)
    if kind == 0x57:
        first = _prefixed(value, 2)
        related = first.pop().value
        return [*first, Node(width=2, parts=_prefixed(related[2:], 9))]
    return [Node(value=value)]


def _prefixed(value: bytes, fields: int) -> list[Node]:
    nodes = []
    while fields and value:
        end = 2 + int.from_bytes(value[:2], "big")
        nodes.append(Node(width=2, value=value[2:end]))
        value, fields = value[end:], fields - 1
    return [*nodes, Node(value=value)]


def _pdv_nodes(body: bytes) -> list[Node]:
    nodes = []
    while body:
        end = 4 + int.from_bytes(body[:4], "big")
        value = body[6:end]
        whole = body[5] == 3 and value.startswith(_GROUP_LENGTH)
        parts = command_nodes(value) if whole else [Node(value=value)]
        nodes.append(Node(width=4, parts=[Node(value=body[4:6]), *parts]))
        body = body[end:]
    return nodes


def command_nodes(data: bytes) -> list[Node]:
    """The elements of a command set."""
    nodes = []
    while data:
        end = 8 + struct.unpack_from("<I", data, 4)[0]
        nodes.append(Node(data[:4], 4, True, None, data[8:end]))
        data = data[end:]
    return nodes


def streams(*choices: tuple[bytes, Sequence[bytes]]) -> list[tuple[bytes, list[Node]]]:
    """Trees of streams, each behind its head."""
    return [(head, pdu_nodes(stream)) for head, many in choices for stream in many]
