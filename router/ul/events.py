"""What a connection tells its user: the indications and confirmations of PS3.8 §7.

Owns values only.  Must not know states' transitions or bytes.
"""

from dataclasses import dataclass
from typing import TypeAlias

from router.ul.errors import RemoteProtocolError
from router.ul.pdu import AAssociateAC, AAssociateRJ, AAssociateRQ
from router.ul.state import State


@dataclass(frozen=True, slots=True)
class AssociateRequested:
    """The acceptor is asked; answer with `Connection.accept` or `Connection.reject`."""

    pdu: AAssociateRQ


@dataclass(frozen=True, slots=True)
class AssociateRefused:
    """A request that the standard itself refuses; the rejection is already in the output."""

    pdu: AAssociateRQ
    rejection: AAssociateRJ


@dataclass(frozen=True, slots=True)
class AssociateAccepted:
    """The requestor has its association; what was agreed is in `Connection.contexts`."""

    pdu: AAssociateAC


@dataclass(frozen=True, slots=True)
class AssociateRejected:
    """The requestor was turned away."""

    pdu: AAssociateRJ


@dataclass(frozen=True, slots=True)
class ReleaseRequested:
    """The peer wants to release; answer with `Connection.reply_release`.

    After a ``collision`` (both asked at once) the requestor answers now, the acceptor when its
    own request is answered: see `Connection.can_reply_release`.
    """

    collision: bool = False


@dataclass(frozen=True, slots=True)
class ReleaseReplied:
    """Our release was answered."""


@dataclass(frozen=True, slots=True)
class PeerAborted:
    """The peer aborted; see `describe_abort`."""

    source: int
    reason: int


@dataclass(frozen=True, slots=True)
class ProtocolFailed:
    """The peer broke the protocol; an A-ABORT is already in the output."""

    error: RemoteProtocolError


@dataclass(frozen=True, slots=True)
class TransportClosed:
    """The transport was closed under an association, or while one was being made."""


@dataclass(frozen=True, slots=True)
class ArtimExpired:
    """The peer neither asked for an association (Sta2) nor closed (Sta13) in time."""

    state: State


Event: TypeAlias = (
    AssociateRequested
    | AssociateRefused
    | AssociateAccepted
    | AssociateRejected
    | ReleaseRequested
    | ReleaseReplied
    | PeerAborted
    | ProtocolFailed
    | TransportClosed
    | ArtimExpired
)
