"""Statuses: what class each belongs to, what it means in which service.

Owns the facts of PS3.7 Annex C and of the services' status tables in PS3.4.  Must not know what is
done about a status: whether a delivery is tried again is for those who deliver.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

SUCCESS = 0x0000
NO_SUCH_ATTRIBUTE = 0x0105
INVALID_ATTRIBUTE_VALUE = 0x0106
ATTRIBUTE_LIST_ERROR = 0x0107
PROCESSING_FAILURE = 0x0110
DUPLICATE_SOP_INSTANCE = 0x0111
NO_SUCH_SOP_INSTANCE = 0x0112
NO_SUCH_EVENT_TYPE = 0x0113
NO_SUCH_ARGUMENT = 0x0114
INVALID_ARGUMENT_VALUE = 0x0115
INVALID_SOP_INSTANCE = 0x0117
NO_SUCH_SOP_CLASS = 0x0118
CLASS_INSTANCE_CONFLICT = 0x0119
MISSING_ATTRIBUTE = 0x0120
MISSING_ATTRIBUTE_VALUE = 0x0121
SOP_CLASS_NOT_SUPPORTED = 0x0122
NO_SUCH_ACTION = 0x0123
NOT_AUTHORISED = 0x0124
DUPLICATE_TRANSACTION_UID = 0x0131
DUPLICATE_INVOCATION = 0x0210
UNRECOGNISED_OPERATION = 0x0211
MISTYPED_ARGUMENT = 0x0212
RESOURCE_LIMITATION = 0x0213
OUT_OF_RESOURCES = 0xA700
UNABLE_TO_COUNT_MATCHES = 0xA701
UNABLE_TO_PERFORM_SUBOPERATIONS = 0xA702
MOVE_DESTINATION_UNKNOWN = 0xA801
DATA_SET_MISMATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
COERCION_OF_DATA_ELEMENTS = 0xB000
SUBOPERATIONS_WITH_FAILURES = 0xB000
ELEMENTS_DISCARDED = 0xB006
DATA_SET_MISMATCH_WARNING = 0xB007
CANCEL = 0xFE00
PENDING = 0xFF00
PENDING_WARNING = 0xFF01

DELIVERED = frozenset(
    {SUCCESS, COERCION_OF_DATA_ELEMENTS, ELEMENTS_DISCARDED, DATA_SET_MISMATCH_WARNING}
)
"""The C-STORE statuses that say the SCP has stored the instance, PS3.4 table B.2-1."""


class StatusClass(Enum):
    """The classes of PS3.7 Annex C."""

    SUCCESS = "success"
    WARNING = "warning"
    FAILURE = "failure"
    CANCEL = "cancel"
    PENDING = "pending"


class Service(Enum):
    """The service whose table gives a status its meaning."""

    GENERAL = "general"
    STORAGE = "storage"
    FIND = "query"
    GET = "retrieve by C-GET"
    MOVE = "retrieve by C-MOVE"
    WORKLIST = "modality worklist"
    RELEVANT_PATIENT = "relevant patient information"
    PROCEDURE_STEP = "modality performed procedure step"
    STORAGE_COMMITMENT = "storage commitment"
    UNIFIED_PROCEDURE_STEP = "unified procedure step"
    PRINT = "print management"
    MEDIA_CREATION = "media creation management"
    EVENT_LOGGING = "application event logging"


class DimseError(Exception):
    """An operation that failed with ``status``, of which ``comment`` tells the peer why."""

    def __init__(self, status: int, comment: str = "") -> None:
        super().__init__(f"{status:04X}H {comment}".rstrip())
        self.status = status
        self.comment = comment


@dataclass(frozen=True, slots=True)
class Meaning:
    """A row of a status table; ``first`` and ``last`` are the same but for a range."""

    first: int
    last: int
    text: str


def _one(status: int, text: str) -> Meaning:
    return Meaning(status, status, text)


_OUT_OF_RESOURCES = _one(0xA700, "refused: out of resources")
_IDENTIFIER_MISMATCH = _one(0xA900, "identifier does not match SOP class")
_UNABLE = Meaning(0xC000, 0xCFFF, "unable to process")
_MATCHES = (
    _one(0xFF00, "matches are continuing"),
    _one(0xFF01, "matches are continuing, an optional key was not supported"),
)
_OPTIONAL_NOT_SUPPORTED = _one(0x0001, "requested optional attributes are not supported")
_RETRIEVE = (
    _one(0xA701, "refused: out of resources, unable to calculate number of matches"),
    _one(0xA702, "refused: out of resources, unable to perform sub-operations"),
    _IDENTIFIER_MISMATCH,
    _one(0xAA00, "none of the frames requested were found in the SOP instance"),
    _one(0xAA01, "unable to create new object for this SOP class"),
    _one(0xAA02, "unable to extract frames"),
    _one(0xAA03, "time-based request for an SOP instance that is not time-based"),
    _one(0xAA04, "invalid request"),
    _one(0xB000, "sub-operations complete, one or more failures or warnings"),
    _UNABLE,
    _one(0xFF00, "sub-operations are continuing"),
)

_GENERAL = (
    _one(0x0000, "success"),
    _one(0x0105, "no such attribute"),
    _one(0x0106, "invalid attribute value"),
    _one(0x0107, "attribute list error"),
    _one(0x0110, "processing failure"),
    _one(0x0111, "duplicate SOP instance"),
    _one(0x0112, "no such SOP instance"),
    _one(0x0113, "no such event type"),
    _one(0x0114, "no such argument"),
    _one(0x0115, "invalid argument value"),
    _one(0x0116, "attribute value out of range"),
    _one(0x0117, "invalid SOP instance"),
    _one(0x0118, "no such SOP class"),
    _one(0x0119, "class-instance conflict"),
    _one(0x0120, "missing attribute"),
    _one(0x0121, "missing attribute value"),
    _one(0x0122, "refused: SOP class not supported"),
    _one(0x0123, "no such action"),
    _one(0x0124, "refused: not authorised"),
    _one(0x0131, "duplicate transaction UID"),
    _one(0x0210, "duplicate invocation"),
    _one(0x0211, "unrecognised operation"),
    _one(0x0212, "mistyped argument"),
    _one(0x0213, "resource limitation"),
    _one(0xFE00, "cancelled"),
    _one(0xFF00, "pending"),
    _one(0xFF01, "pending, with a warning"),
)

TABLES: Mapping[Service, tuple[Meaning, ...]] = {
    # PS3.7 Annex C.
    Service.GENERAL: _GENERAL,
    # PS3.4 table B.2-1.
    Service.STORAGE: (
        Meaning(0xA700, 0xA7FF, "refused: out of resources"),
        Meaning(0xA900, 0xA9FF, "data set does not match SOP class"),
        _one(0xB000, "coercion of data elements"),
        _one(0xB006, "elements discarded"),
        _one(0xB007, "data set does not match SOP class"),
        Meaning(0xC000, 0xCFFF, "cannot understand"),
    ),
    # PS3.4 table C.4-1.
    Service.FIND: (
        _OUT_OF_RESOURCES,
        _one(0xA710, "invalid prior record key"),
        _IDENTIFIER_MISMATCH,
        _one(0xB001, "matching reached response limit, a further request may return more"),
        _UNABLE,
        *_MATCHES,
    ),
    # PS3.4 tables C.4-3, Y.4.2-1.
    Service.GET: _RETRIEVE,
    # PS3.4 tables C.4-2, Y.4.1-1.
    Service.MOVE: (_one(0xA801, "refused: move destination unknown"), *_RETRIEVE),
    # PS3.4 table K.4-1.
    Service.WORKLIST: (_OUT_OF_RESOURCES, _IDENTIFIER_MISMATCH, _UNABLE, *_MATCHES),
    # PS3.4 table Q.2-1.
    Service.RELEVANT_PATIENT: (
        _OUT_OF_RESOURCES,
        _IDENTIFIER_MISMATCH,
        _one(0xC000, "unable to process"),
        _one(0xC100, "more than one match found"),
        _one(0xC200, "unable to support requested template"),
        _one(0xFF00, "current match is supplied"),
    ),
    # PS3.4 §F.7.2.
    Service.PROCEDURE_STEP: (
        _OPTIONAL_NOT_SUPPORTED,
        _one(0x0110, "performed procedure step object may no longer be updated"),
    ),
    # PS3.3 §C.14.1.1: the values of Failure Reason (0008,1197), which are statuses in all but name.
    Service.STORAGE_COMMITMENT: (
        _one(0x0110, "processing failure"),
        _one(0x0112, "no such object instance"),
        _one(0x0119, "class/instance conflict"),
        _one(0x0122, "referenced SOP class not supported"),
        _one(0x0131, "duplicate transaction UID"),
        _one(0x0213, "resource limitation"),
    ),
    # PS3.4 Annex CC.2.
    Service.UNIFIED_PROCEDURE_STEP: (
        _OPTIONAL_NOT_SUPPORTED,
        _OUT_OF_RESOURCES,
        _IDENTIFIER_MISMATCH,
        _one(0xB300, "the UPS was created with modifications"),
        _one(0xB301, "deletion lock not granted"),
        _one(0xB304, "the UPS is already CANCELED"),
        _one(0xB305, "invalid values were coerced to valid ones"),
        _one(0xB306, "the UPS is already COMPLETED"),
        _one(0xC300, "the UPS may no longer be updated"),
        _one(0xC301, "the correct Transaction UID was not provided"),
        _one(0xC302, "the UPS is already IN PROGRESS"),
        _one(0xC303, "the UPS may only become SCHEDULED by N-CREATE"),
        _one(0xC304, "the UPS has not met the final state requirements"),
        _one(0xC307, "no such UPS instance at this SCP"),
        _one(0xC308, "receiving AE title is unknown to this SCP"),
        _one(0xC309, "the UPS state provided was not SCHEDULED"),
        _one(0xC310, "the UPS is not yet IN PROGRESS"),
        _one(0xC311, "the UPS is already COMPLETED"),
        _one(0xC312, "the performer cannot be contacted"),
        _one(0xC313, "the performer chooses not to cancel"),
        _one(0xC314, "the action is not appropriate for this instance"),
        _one(0xC315, "the SCP does not support event reports"),
        _UNABLE,
        *_MATCHES,
    ),
    # PS3.4 Annex H.
    Service.PRINT: (
        _one(0xB600, "memory allocation not supported"),
        _one(0xB601, "film session printing (collation) is not supported"),
        _one(0xB602, "film session has no image boxes (empty page)"),
        _one(0xB603, "film box has no image boxes (empty page)"),
        _one(0xB604, "image was demagnified to fit its image box"),
        _one(0xB605, "requested density is outside the printer's range"),
        _one(0xB609, "image was cropped to fit its image box"),
        _one(0xB60A, "image was decimated to fit its image box"),
        _one(0xC600, "film session has no film boxes"),
        _one(0xC601, "print queue is full"),
        _one(0xC602, "print queue is full"),
        _one(0xC603, "image is larger than its image box"),
        _one(0xC605, "insufficient memory in printer to store the image"),
        _one(0xC613, "combined print image is larger than its image box"),
        _one(0xC616, "a film box has not been printed yet"),
    ),
    # PS3.4 Annex S.
    Service.MEDIA_CREATION: (
        _OPTIONAL_NOT_SUPPORTED,
        _one(0xA510, "media creation was already initiated for this SOP instance"),
        _one(0xC201, "media creation request already completed"),
        _one(0xC202, "media creation request in progress and cannot be interrupted"),
        _one(0xC203, "cancellation denied for unspecified reason"),
    ),
    # PS3.4 Annex P.
    Service.EVENT_LOGGING: (
        _one(0xB101, "synchronisation frame of reference differs from the SCP's"),
        _one(0xB102, "event logged under a different Study Instance UID"),
        _one(0xB104, "IDs inconsistent in matching a current study; event logged"),
        _one(0xC101, "procedural logging not available for this Study Instance UID"),
        _one(0xC102, "event information does not match template"),
        _one(0xC103, "cannot match event to a current study"),
        _one(0xC104, "IDs inconsistent in matching a current study; event not logged"),
        _one(0xC10E, "operator not authorised to add to the medication administration record"),
        _one(0xC110, "patient cannot be identified"),
        _one(0xC111, "update of the medication administration record failed"),
    ),
}

# What is named alone comes before a range that it lies in, the service's own before the general.
_LOOKUP = {
    service: tuple(sorted((*rows, *_GENERAL), key=lambda row: row.last - row.first))
    for service, rows in TABLES.items()
}


def status_class(status: int) -> StatusClass:
    """The class of a status, PS3.7 Annex C; those that the standard does not allow are failures."""
    if status == SUCCESS:
        return StatusClass.SUCCESS
    if status in (PENDING, PENDING_WARNING):
        return StatusClass.PENDING
    if status == CANCEL:
        return StatusClass.CANCEL
    if status in (0x0001, 0x0107, 0x0116) or 0xB000 <= status <= 0xBFFF:
        return StatusClass.WARNING
    return StatusClass.FAILURE


def describe_status(status: int, service: Service = Service.STORAGE) -> str:
    """``A700H failure: refused: out of resources``, for people.

    Looks in the table of the service first, then in the general one; a status of neither is
    told by its class alone.
    """
    label = f"{status:04X}H {status_class(status).value}"
    for row in _LOOKUP[service]:
        if row.first <= status <= row.last:
            return label if row.text == "success" else f"{label}: {row.text}"
    return label
