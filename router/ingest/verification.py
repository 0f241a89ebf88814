"""Verification as SCP: answers C-ECHO.  PS3.4 annex A, PS3.7 §9.1.5."""

from router.dicom.uids import transfer_syntax
from router.dimse.command import Command
from router.dimse.status import SUCCESS
from router.net.acceptor import AcceptedAssociation
from router.net.service import Operation
from router.net.settings import LocalAE
from router.ul import ContextResult, NegotiatedContext, PresentationContextRQ

VERIFICATION = "1.2.840.10008.1.1"
_C_ECHO_RQ = 0x0030
_UNRECOGNIZED_OPERATION = 0x0211


class VerificationService:
    """Success to whoever was admitted."""

    def takes(self, abstract_syntax: str) -> bool:
        """See `Service`."""
        return abstract_syntax == VERIFICATION

    def choose(self, local: LocalAE, context: PresentationContextRQ) -> tuple[int, str]:
        """The proposer's first plain syntax: there is no data set that it could matter for."""
        for uid in context.transfer_syntaxes:
            if not transfer_syntax(uid).is_encapsulated:
                return ContextResult.ACCEPTANCE, uid
        return ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED, ""

    def begin(
        self, association: AcceptedAssociation, context: NegotiatedContext, command: Command
    ) -> Operation | None:
        """See `Service`."""
        status = SUCCESS if command.field == _C_ECHO_RQ else _UNRECOGNIZED_OPERATION
        association.reply(context.id, command, status)
        return None
