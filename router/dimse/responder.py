"""C-STORE-RSP at the rate of small images.

Owns the constant parts of the responses on one presentation context.  Must not know when a
response is due.  PS3.7 §9.3.1.2.
"""

import struct

from router.dimse.command import Command, encode_command
from router.dimse.fragment import encode_message, fragment_room
from router.dimse.messages import NO_DATA_SET
from router.ul.errors import LocalProtocolError

_C_STORE_RSP = 0x8001
_REMEMBERED = 256
_PDU = struct.Struct(">BxIIBB")
_UP_TO_CLASS = struct.Struct("<IIIII")
_FIELD_TO_MESSAGE_ID = struct.Struct("<IIHII")
# Message ID's value, Command Data Set Type, Status, header of Affected SOP Instance UID.
_MESSAGE_ID_TO_INSTANCE = struct.Struct("<HIIHIIHII")


class StoreResponder:
    """Writes whole P-DATA-TF PDUs for the responses on one presentation context.

    ``maximum_length`` is the peer's.  Raises LocalProtocolError when it has no room for a PDV.
    """

    __slots__ = ("_context_id", "_heads", "_maximum_length", "_room")

    def __init__(self, context_id: int, maximum_length: int) -> None:
        self._context_id = context_id
        self._maximum_length = maximum_length
        self._room = fragment_room(maximum_length)
        # Everything before the Message ID's value, by class and by length of the instance UID.
        self._heads: dict[tuple[str, int], bytes] = {}

    def response(
        self,
        message_id: int,
        sop_class_uid: str,
        sop_instance_uid: str,
        status: int = 0,
        error_comment: str = "",
    ) -> bytes:
        """The PDUs of the response to the C-STORE-RQ with this Message ID and these UIDs.

        ``error_comment`` may be any text; what an Error Comment cannot hold is replaced.  Raises
        LocalProtocolError when a number does not fit 16 bits or a UID is not ASCII.
        """
        if error_comment or not sop_class_uid or not sop_instance_uid:
            return self._any(message_id, sop_class_uid, sop_instance_uid, status, error_comment)
        try:
            uid = sop_instance_uid.encode("ascii")
            if len(uid) & 1:
                uid += b"\0"
            head = self._heads.get((sop_class_uid, len(uid)))
            if head is None:
                head = self._head(sop_class_uid, len(uid))
            pdu = head + _MESSAGE_ID_TO_INSTANCE.pack(
                message_id, 0x08000000, 2, NO_DATA_SET, 0x09000000, 2, status, 0x10000000, len(uid)
            )
        except (UnicodeEncodeError, struct.error) as error:
            raise LocalProtocolError(f"C-STORE-RSP cannot be encoded: {error}") from None
        if len(pdu) + len(uid) - 12 > self._room:
            return self._any(message_id, sop_class_uid, sop_instance_uid, status, "")
        return pdu + uid

    def _any(
        self, message_id: int, sop_class_uid: str, sop_instance_uid: str, status: int, comment: str
    ) -> bytes:
        command = Command(
            _C_STORE_RSP,
            message_id_being_responded_to=message_id,
            status=status,
            affected_sop_class_uid=sop_class_uid,
            affected_sop_instance_uid=sop_instance_uid,
            error_comment=comment,
        )
        return encode_message(self._context_id, encode_command(command), None, self._maximum_length)

    def _head(self, sop_class_uid: str, instance_length: int) -> bytes:
        uid = sop_class_uid.encode("ascii")
        if len(uid) & 1:
            uid += b"\0"
        body = len(uid) + instance_length + 56
        head = (
            _PDU.pack(0x04, body + 18, body + 14, self._context_id, 0x03)
            + _UP_TO_CLASS.pack(0, 4, body, 0x00020000, len(uid))
            + uid
            + _FIELD_TO_MESSAGE_ID.pack(0x01000000, 2, _C_STORE_RSP, 0x01200000, 2)
        )
        if len(self._heads) >= _REMEMBERED:
            # A peer names the classes, so their number is not ours to trust.
            self._heads.clear()
        self._heads[sop_class_uid, instance_length] = head
        return head
