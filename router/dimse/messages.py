"""The messages of DIMSE-C and DIMSE-N, one row each.

Owns which elements a command set may hold, which of them a message must carry, and whether a
data set follows.  Must not know how any of it is encoded, nor what a service does with it.
PS3.7 §9.3 (C-), §10.3 (N-), Annex C (fields of a status), Annex E (the elements).
"""

from dataclasses import dataclass
from enum import Enum
from typing import Literal

ElementVR = Literal["UI", "US", "UL", "AE", "LO", "AT"]

COMMAND_FIELD = 0x0100
COMMAND_DATA_SET_TYPE = 0x0800
NO_DATA_SET = 0x0101
RESPONSE = 0x8000
"""Bit of the Command Field that every response has and no request."""


@dataclass(frozen=True, slots=True)
class Element:
    """An element of group 0000, PS3.7 table E.1-1.

    ``element`` is the element number; ``keyword`` is the standard's, in snake case, and the name
    of the attribute of `router.dimse.command.Command`.
    """

    element: int
    keyword: str
    vr: ElementVR
    name: str


ELEMENTS: tuple[Element, ...] = (
    Element(0x0002, "affected_sop_class_uid", "UI", "Affected SOP Class UID"),
    Element(0x0003, "requested_sop_class_uid", "UI", "Requested SOP Class UID"),
    Element(0x0110, "message_id", "US", "Message ID"),
    Element(0x0120, "message_id_being_responded_to", "US", "Message ID Being Responded To"),
    Element(0x0600, "move_destination", "AE", "Move Destination"),
    Element(0x0700, "priority", "US", "Priority"),
    Element(0x0900, "status", "US", "Status"),
    Element(0x0901, "offending_element", "AT", "Offending Element"),
    Element(0x0902, "error_comment", "LO", "Error Comment"),
    Element(0x0903, "error_id", "US", "Error ID"),
    Element(0x1000, "affected_sop_instance_uid", "UI", "Affected SOP Instance UID"),
    Element(0x1001, "requested_sop_instance_uid", "UI", "Requested SOP Instance UID"),
    Element(0x1002, "event_type_id", "US", "Event Type ID"),
    Element(0x1005, "attribute_identifier_list", "AT", "Attribute Identifier List"),
    Element(0x1008, "action_type_id", "US", "Action Type ID"),
    Element(
        0x1020, "number_of_remaining_suboperations", "US", "Number of Remaining Sub-operations"
    ),
    Element(
        0x1021, "number_of_completed_suboperations", "US", "Number of Completed Sub-operations"
    ),
    Element(0x1022, "number_of_failed_suboperations", "US", "Number of Failed Sub-operations"),
    Element(0x1023, "number_of_warning_suboperations", "US", "Number of Warning Sub-operations"),
    Element(
        0x1030,
        "move_originator_application_entity_title",
        "AE",
        "Move Originator Application Entity Title",
    ),
    Element(0x1031, "move_originator_message_id", "US", "Move Originator Message ID"),
)
"""What a message may hold besides group length, Command Field and Command Data Set Type."""

ELEMENT_BY_KEYWORD = {element.keyword: element for element in ELEMENTS}


class DataSet(Enum):
    """Whether a data set follows the command set of a message."""

    NEVER = "never"
    MAY = "may"
    MUST = "must"


@dataclass(frozen=True, slots=True)
class Message:
    """One type of message.

    ``required`` are the keywords that both sides insist on, ``expected`` those that we always
    send but whose absence we forgive, ``optional`` those that are sent when they have a value.
    Group length, Command Field and Command Data Set Type are in every message and not listed.
    """

    name: str
    field: int
    data_set: DataSet
    required: tuple[str, ...]
    expected: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    @property
    def elements(self) -> tuple[Element, ...]:
        """All elements of the row, in the order of their tags."""
        keywords = {*self.required, *self.expected, *self.optional}
        return tuple(element for element in ELEMENTS if element.keyword in keywords)

    @property
    def is_response(self) -> bool:
        """Whether this answers a request; C-CANCEL-RQ does not, though it names one."""
        return bool(self.field & RESPONSE)


_AFFECTED = ("affected_sop_class_uid", "affected_sop_instance_uid")
_REQUESTED = ("requested_sop_class_uid", "requested_sop_instance_uid")
_ANSWER = ("message_id_being_responded_to", "status")
_ERROR = ("offending_element", "error_comment", "error_id")
_ATTRIBUTE_ERROR = (*_ERROR, "attribute_identifier_list")
_COUNTS = (
    "number_of_remaining_suboperations",
    "number_of_completed_suboperations",
    "number_of_failed_suboperations",
    "number_of_warning_suboperations",
)

# Responses name the SOP class and instance as "user option" in the standard.  Some SCUs insist on
# them all the same, so we send them; some SCPs leave them out, so we do not insist.  Priority is
# mandatory in the standard, and a request without one means MEDIUM to every SCP seen so far.
_ROWS = (
    Message(
        "C-STORE-RQ",
        0x0001,
        DataSet.MUST,
        ("message_id", *_AFFECTED),
        ("priority",),
        ("move_originator_application_entity_title", "move_originator_message_id"),
    ),
    Message("C-STORE-RSP", 0x8001, DataSet.NEVER, _ANSWER, _AFFECTED, _ERROR),
    Message(
        "C-GET-RQ", 0x0010, DataSet.MUST, ("message_id", "affected_sop_class_uid"), ("priority",)
    ),
    Message(
        "C-GET-RSP", 0x8010, DataSet.MAY, _ANSWER, ("affected_sop_class_uid",), (*_COUNTS, *_ERROR)
    ),
    Message(
        "C-FIND-RQ", 0x0020, DataSet.MUST, ("message_id", "affected_sop_class_uid"), ("priority",)
    ),
    Message("C-FIND-RSP", 0x8020, DataSet.MAY, _ANSWER, ("affected_sop_class_uid",), _ERROR),
    Message(
        "C-MOVE-RQ",
        0x0021,
        DataSet.MUST,
        ("message_id", "affected_sop_class_uid", "move_destination"),
        ("priority",),
    ),
    Message(
        "C-MOVE-RSP", 0x8021, DataSet.MAY, _ANSWER, ("affected_sop_class_uid",), (*_COUNTS, *_ERROR)
    ),
    Message("C-ECHO-RQ", 0x0030, DataSet.NEVER, ("message_id", "affected_sop_class_uid")),
    Message("C-ECHO-RSP", 0x8030, DataSet.NEVER, _ANSWER, ("affected_sop_class_uid",), _ERROR),
    Message("C-CANCEL-RQ", 0x0FFF, DataSet.NEVER, ("message_id_being_responded_to",)),
    Message("N-EVENT-REPORT-RQ", 0x0100, DataSet.MAY, ("message_id", *_AFFECTED, "event_type_id")),
    Message(
        "N-EVENT-REPORT-RSP", 0x8100, DataSet.MAY, _ANSWER, _AFFECTED, ("event_type_id", *_ERROR)
    ),
    Message(
        "N-GET-RQ",
        0x0110,
        DataSet.NEVER,
        ("message_id", *_REQUESTED),
        (),
        ("attribute_identifier_list",),
    ),
    Message("N-GET-RSP", 0x8110, DataSet.MAY, _ANSWER, _AFFECTED, _ATTRIBUTE_ERROR),
    Message("N-SET-RQ", 0x0120, DataSet.MUST, ("message_id", *_REQUESTED)),
    Message("N-SET-RSP", 0x8120, DataSet.MAY, _ANSWER, _AFFECTED, _ATTRIBUTE_ERROR),
    Message("N-ACTION-RQ", 0x0130, DataSet.MAY, ("message_id", *_REQUESTED, "action_type_id")),
    Message("N-ACTION-RSP", 0x8130, DataSet.MAY, _ANSWER, _AFFECTED, ("action_type_id", *_ERROR)),
    Message(
        "N-CREATE-RQ",
        0x0140,
        DataSet.MAY,
        ("message_id", "affected_sop_class_uid"),
        (),
        ("affected_sop_instance_uid",),
    ),
    Message("N-CREATE-RSP", 0x8140, DataSet.MAY, _ANSWER, _AFFECTED, _ATTRIBUTE_ERROR),
    Message("N-DELETE-RQ", 0x0150, DataSet.NEVER, ("message_id", *_REQUESTED)),
    Message("N-DELETE-RSP", 0x8150, DataSet.NEVER, _ANSWER, _AFFECTED, _ERROR),
)

MESSAGES: dict[int, Message] = {row.field: row for row in _ROWS}
"""Every message of PS3.7 by its Command Field."""

UNRECOGNISED_RESPONSE = Message(
    "response to an unrecognised operation",
    RESPONSE,
    DataSet.NEVER,
    _ANSWER,
    _AFFECTED,
    _ERROR,
)
"""What the answer 0211H to a request outside the table carries, PS3.7 §C.5.21."""


def message_name(field: int) -> str:
    """``C-STORE-RQ``, or ``command 1234H`` for a Command Field outside the table."""
    row = MESSAGES.get(field)
    return row.name if row else f"command {field:04X}H"
