"""One command of every message type, with every element that its row may hold."""

from typing import Any

from router.dimse.command import Command
from router.dimse.messages import MESSAGES, DataSet, Message

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"

_VALUES: dict[str, Any] = {
    "affected_sop_class_uid": CT_IMAGE_STORAGE,
    "requested_sop_class_uid": "1.2.840.10008.5.1.1.1",
    "message_id": 7,
    "message_id_being_responded_to": 65535,
    "move_destination": "ARCHIVE",
    "priority": 2,
    "status": 0xA700,
    "offending_element": (0x00080018, 0x7FE00010),
    "error_comment": "disk is full",
    "error_id": 12,
    "affected_sop_instance_uid": "1.2.826.0.1.3680043.8.498.1",
    "requested_sop_instance_uid": "1.2.826.0.1.3680043.8.498.22",
    "event_type_id": 2,
    "attribute_identifier_list": (0x00100010, 0x00100020, 0x00080005),
    "action_type_id": 1,
    "number_of_remaining_suboperations": 0,
    "number_of_completed_suboperations": 3,
    "number_of_failed_suboperations": 300,
    "number_of_warning_suboperations": 1,
    "move_originator_application_entity_title": "MOVER",
    "move_originator_message_id": 9,
}


def full(row: Message, has_data_set: bool | None = None) -> Command:
    """A command of this type with all its elements."""
    if has_data_set is None:
        has_data_set = row.data_set is not DataSet.NEVER
    values = {element.keyword: _VALUES[element.keyword] for element in row.elements}
    return Command(row.field, has_data_set, **values)


def least(row: Message, has_data_set: bool = False) -> Command:
    """A command of this type with only what it must have."""
    values = {keyword: _VALUES[keyword] for keyword in row.required}
    return Command(row.field, has_data_set, **values)


ROWS = list(MESSAGES.values())
NAMES = [row.name for row in ROWS]
