"""What a service of this gateway is to the network: the SOP classes it takes, and its operations.

Owns the interfaces between an accepted association and the services on it, and the registry that
maps an abstract syntax to its service.  PS3.7 §7.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from router.dimse.command import Command
from router.ul import (
    NegotiatedContext,
    PresentationContextRQ,
    RoleSelection,
    negotiate_roles,
)

if TYPE_CHECKING:
    from router.net.acceptor import AcceptedAssociation
    from router.net.settings import LocalAE


class Operation(Protocol):
    """One request under way, from its command set on."""

    def data(self, piece: memoryview) -> None:
        """The next bytes of its data set; the view is valid until this returns."""
        ...

    def end(self) -> None:
        """The data set is complete."""
        ...

    def abandon(self) -> None:
        """The association ended before the data set did: nobody waits for an answer."""
        ...


class Service(Protocol):
    """Answers requests on presentation contexts of certain abstract syntaxes."""

    def takes(self, abstract_syntax: str) -> bool:
        """Whether this service answers for an abstract syntax."""
        ...

    def choose(self, local: "LocalAE", context: PresentationContextRQ) -> tuple[int, str]:
        """Result (PS3.8 table 9-18) and transfer syntax for a proposed context that it takes."""
        ...

    def begin(
        self, association: "AcceptedAssociation", context: NegotiatedContext, command: Command
    ) -> Operation | None:
        """A request whose command set is complete; None when it is over with its command.

        When the command announces a data set, an operation must be returned.
        """
        ...


@runtime_checkable
class WithRoles(Protocol):
    """A service that answers role selections; of others the default roles hold."""

    def roles(self, abstract_syntax: str) -> tuple[bool, bool]:
        """Whether the peer may be the SCU, and the SCP (PS3.7 §D.3.3.4)."""
        ...


class ServiceRegistry:
    """The services in order; the first that takes an abstract syntax has it."""

    def __init__(self, services: tuple[Service, ...]) -> None:
        self._services = services

    def find(self, abstract_syntax: str) -> Service | None:
        """The service of an abstract syntax, None when it is not supported."""
        for service in self._services:
            if service.takes(abstract_syntax):
                return service
        return None

    def roles(self, proposed: Sequence[RoleSelection]) -> tuple[RoleSelection, ...]:
        """The answers to a role selection, for those classes whose service has something to say.

        An N-EVENT-REPORT-RQ reaches a service whatever roles were agreed on: many peers that
        report leave the selection out.
        """
        willing: dict[str, WithRoles] = {}
        for one in proposed:
            service: object = self.find(one.sop_class_uid)
            if isinstance(service, WithRoles):
                willing[one.sop_class_uid] = service
        meant = [one for one in proposed if one.sop_class_uid in willing]
        return negotiate_roles(meant, lambda uid: willing[uid].roles(uid))
