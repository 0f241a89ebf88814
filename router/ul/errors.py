"""Errors of the upper layer, and what an A-ABORT says of them.

Owns the abort source and reason codes of PS3.8 §9.3.8, table 9-26.  Must not know PDUs.
"""

from enum import IntEnum


class AbortSource(IntEnum):
    """Who aborted (PS3.8 table 9-26); 1 is reserved."""

    SERVICE_USER = 0
    SERVICE_PROVIDER = 2


class AbortReason(IntEnum):
    """Why the service provider aborted (PS3.8 table 9-26); 3 is reserved.

    From the service user the field is sent as 0 and not looked at when received.
    """

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    UNRECOGNIZED_PDU_PARAMETER = 4
    UNEXPECTED_PDU_PARAMETER = 5
    INVALID_PDU_PARAMETER = 6


class ProtocolError(Exception):
    """The rules of the protocol were broken, by us or by the peer."""


class LocalProtocolError(ProtocolError):
    """Our own caller asked for what the state or the encoding does not allow: a mistake of ours.

    The connection is as it was before the call.
    """


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol; ``source`` and ``reason`` are what we abort with."""

    def __init__(
        self,
        message: str,
        *,
        source: AbortSource = AbortSource.SERVICE_PROVIDER,
        reason: AbortReason = AbortReason.NOT_SPECIFIED,
    ) -> None:
        super().__init__(message)
        self.source = source
        self.reason = reason
