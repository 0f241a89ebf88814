"""The two archives of the demonstration: they keep nothing but a digest of what they get.

Owns a Storage SCP on the gateway's own network code, which hashes every data set as it comes.
PS3.4 annex B.
"""

import hashlib
import time
from dataclasses import dataclass, field

from router.dimse.command import Command
from router.ingest.verification import VerificationService
from router.net.acceptor import AcceptedAssociation
from router.net.admission import Admission
from router.net.listener import Listeners
from router.net.service import Operation, ServiceRegistry
from router.net.settings import LocalAE, NetworkSettings
from router.ul import ContextResult, NegotiatedContext, PresentationContextRQ

Identity = tuple[str, str]
"""SOP Instance UID, and SHA-256 of the data set in hexadecimal."""

_C_STORE_RQ = 0x0001
_SUCCESS = 0x0000
_UNRECOGNIZED_OPERATION = 0x0211
_VERIFICATION = "1.2.840.10008.1.1"


@dataclass(slots=True)
class Received:
    """What a sink got; times are on the monotonic clock, of the last byte."""

    instances: int = 0
    bytes: int = 0
    at: dict[Identity, float] = field(default_factory=dict)
    """When each was there first."""
    first: float | None = None
    last: float | None = None


class Sink:
    """One archive, on an address of its own; must be made on the event loop."""

    def __init__(self, name: str, ae_title: str, listen: str) -> None:
        self.name = name
        self.received = Received()
        local = LocalAE(ae_title=ae_title, listen=listen, accept="any")
        settings = NetworkSettings(max_pdu=2**20)
        self._listen = local.listen
        self._listeners = Listeners(
            ServiceRegistry((VerificationService(), _Digesting(self.received))),
            Admission((local,), {}, settings),
            settings,
            _Uncounted(),
            lambda _: 0,
        )

    async def start(self) -> int:
        """Listen; the port.  Raises OSError."""
        await self._listeners.open([self._listen])
        return self._listeners.listening[self._listen]

    async def stop(self) -> None:
        """Close at once."""
        await self._listeners.stop(1.0)


class _Digesting:
    """Takes every storage class in the first syntax proposed."""

    def __init__(self, received: Received) -> None:
        self._received = received

    def takes(self, abstract_syntax: str) -> bool:
        """See `Service`."""
        return abstract_syntax != _VERIFICATION

    def choose(self, local: LocalAE, context: PresentationContextRQ) -> tuple[int, str]:
        """See `Service`."""
        return ContextResult.ACCEPTANCE, context.transfer_syntaxes[0]

    def begin(
        self, association: AcceptedAssociation, context: NegotiatedContext, command: Command
    ) -> Operation | None:
        """See `Service`."""
        if command.field != _C_STORE_RQ or not command.has_data_set:
            association.reply(context.id, command, _UNRECOGNIZED_OPERATION)
            return _Passed() if command.has_data_set else None
        return _Digest(self._received, association, context, command)


class _Digest:
    """One instance on its way in."""

    def __init__(
        self,
        received: Received,
        association: AcceptedAssociation,
        context: NegotiatedContext,
        command: Command,
    ) -> None:
        self._received = received
        self._association = association
        self._context = context
        self._command = command
        self._hash = hashlib.sha256()
        self._length = 0
        if received.first is None:
            received.first = time.monotonic()

    def data(self, piece: memoryview) -> None:
        """See `Operation`."""
        self._hash.update(piece)
        self._length += len(piece)

    def end(self) -> None:
        """Note it, and say so."""
        received = self._received
        received.instances += 1
        received.bytes += self._length
        received.last = time.monotonic()
        identity = (self._command.affected_sop_instance_uid, self._hash.hexdigest())
        received.at.setdefault(identity, received.last)
        self._association.reply(self._context.id, self._command, _SUCCESS)

    def abandon(self) -> None:
        """It did not come whole: it never was."""


class _Passed:
    """A data set that nobody wants."""

    def data(self, piece: memoryview) -> None:
        """Dropped."""

    def end(self) -> None:
        """Answered already."""

    def abandon(self) -> None:
        """Nothing was kept."""


class _Uncounted:
    """The sinks have no metrics."""

    def on_opened(self, direction: str, local_ae: str, peer: str) -> None:
        """See `NetObserver`."""

    def on_closed(self, direction: str, local_ae: str, peer: str) -> None:
        """See `NetObserver`."""

    def on_rejected(self, reason: str) -> None:
        """See `NetObserver`."""

    def on_aborted(self, direction: str, by: str) -> None:
        """See `NetObserver`."""

    def on_protocol_error(self, kind: str) -> None:
        """See `NetObserver`."""

    def on_cut(self, reason: str) -> None:
        """See `NetObserver`."""

    def on_unused(self, reason: str) -> None:
        """See `NetObserver`."""
