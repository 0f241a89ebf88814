"""DIMSE, PS3.7: command sets, assembly, fragmentation, statuses.  Floor 2, sans-IO.

Owns everything between the fragments of the upper layer and the messages of a service.  Must not
know sockets, clocks, logs, or what a service does with a message.
"""

from router.dimse.assemble import Assembler
from router.dimse.command import (
    Command,
    clean_error_comment,
    decode_command,
    encode_command,
    encode_store_request,
    respond,
)
from router.dimse.fragment import DataSetFramer, encode_command_pdu, encode_message, fragment_room
from router.dimse.messages import MESSAGES, DataSet, Message, message_name
from router.dimse.responder import StoreResponder
from router.dimse.status import DimseError, Service, StatusClass, describe_status, status_class

__all__ = [
    "MESSAGES",
    "Assembler",
    "Command",
    "DataSet",
    "DataSetFramer",
    "DimseError",
    "Message",
    "Service",
    "StatusClass",
    "StoreResponder",
    "clean_error_comment",
    "decode_command",
    "describe_status",
    "encode_command",
    "encode_command_pdu",
    "encode_message",
    "encode_store_request",
    "fragment_room",
    "message_name",
    "respond",
    "status_class",
]
