"""What an accepted association needs of those around it.

Owns the two interfaces; `router.net.listener.Listeners` implements the one, the gateway's
counters the other.
"""

from typing import TYPE_CHECKING, Protocol

from router.net.admission import Admission, Load
from router.net.service import ServiceRegistry
from router.net.settings import NetworkSettings

if TYPE_CHECKING:
    from router.net.acceptor import AcceptedAssociation


class NetObserver(Protocol):
    """Counts what happens; must neither wait nor raise."""

    def on_opened(self, direction: str, local_ae: str, peer: str) -> None:
        """An association was accepted; `peer` is a configured name or ""."""
        ...

    def on_closed(self, direction: str, local_ae: str, peer: str) -> None:
        """It ended."""
        ...

    def on_rejected(self, reason: str) -> None:
        """We refused one, for a fixed word."""
        ...

    def on_aborted(self, direction: str, by: str) -> None:
        """One was aborted, by ``local`` or ``peer``."""
        ...

    def on_protocol_error(self, kind: str) -> None:
        """A peer broke the protocol, in the sense of a fixed word."""
        ...

    def on_cut(self, reason: str) -> None:
        """We ended an association that stood, for a fixed word; beside `on_aborted`."""
        ...

    def on_unused(self, reason: str) -> None:
        """The peer closed a connection before it asked for an association."""
        ...


class AcceptorHost(Protocol):
    """What an accepted association needs of the listeners."""

    admission: Admission
    services: ServiceRegistry
    settings: NetworkSettings
    observer: NetObserver

    def load(self) -> Load:
        """Associations that are open now."""
        ...

    def connected(self, association: "AcceptedAssociation") -> None:
        """A peer has connected."""
        ...

    def collecting(self, association: "AcceptedAssociation", size: int) -> None:
        """A request of `size` bytes is about to be collected."""
        ...

    def opened(self, association: "AcceptedAssociation") -> None:
        """An association was accepted."""
        ...

    def gone(self, association: "AcceptedAssociation") -> None:
        """A connection is gone, whether it had an association or not."""
        ...

    def refused(self, association: "AcceptedAssociation", kind: str, text: str) -> None:
        """A refusal, to be counted, and logged at a bounded rate."""
        ...

    def warn(
        self,
        association: "AcceptedAssociation",
        kind: str,
        text: str,
        details: dict[str, str | int],
    ) -> None:
        """A log line, at a bounded rate for each kind and peer."""
        ...

    def tell(
        self, association: "AcceptedAssociation", text: str, details: dict[str, str | int]
    ) -> None:
        """The same for what is usual: at a rate far above that of warnings."""
        ...
