"""Opens an association with a peer.

Owns the way from a target to an association that is ready: connecting, and what is proposed.  Must
not know what is sent over it.  PS3.8 §7.1.
"""

import asyncio
import functools
from collections.abc import Sequence

from router.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, is_storage
from router.net.errors import AssociationTimeout, ConnectFailed
from router.net.normalized import Handler
from router.net.pool import Proposal
from router.net.requestor import Requestor, RequestorObserver
from router.net.target import Target
from router.ul import AAssociateRQ, PresentationContextRQ, RoleSelection, UserInformation

_OWN_MAXIMUM_LENGTH = 128 * 1024


async def connect(
    target: Target,
    proposals: Sequence[Proposal],
    observer: RequestorObserver | None = None,
    *,
    roles: Sequence[RoleSelection] = (),
    on_request: Handler | None = None,
) -> Requestor:
    """An association with `target`, with a presentation context for each proposal (128 at most).

    ``roles`` are proposed as in PS3.7 §D.3.3.4; what came of it is in `Requestor.roles`.
    ``on_request`` gets each N-EVENT-REPORT-RQ of the peer; without it they are answered 0211H.
    Raises AssociationError; nothing is left open then.
    """
    if not 1 <= len(proposals) <= 128:
        raise ValueError(f"an association has 1 to 128 presentation contexts, not {len(proposals)}")
    contexts = [
        PresentationContextRQ(2 * n + 1, abstract, (transfer,))
        for n, (abstract, transfer) in enumerate(proposals)
    ]
    rq = association_request(target, contexts, roles)
    return await negotiate(await reach(target, observer, on_request), rq)


async def reach(
    target: Target, observer: RequestorObserver | None = None, on_request: Handler | None = None
) -> Requestor:
    """A connection with `target`, on which nothing was said yet.  Raises ConnectFailed."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(target.connect_timeout):
            _, requestor = await loop.create_connection(
                functools.partial(Requestor, target, observer, on_request), target.host, target.port
            )
    except TimeoutError:
        raise ConnectFailed(
            f"{target} could not be connected to within {target.connect_timeout:g} s"
        ) from None
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConnectFailed(f"{target} could not be connected to: {why}") from error
    requestor.close_delay = target.close_delay
    return requestor


def association_request(
    target: Target,
    contexts: Sequence[PresentationContextRQ],
    roles: Sequence[RoleSelection] = (),
) -> AAssociateRQ:
    """The A-ASSOCIATE-RQ that `target` is sent, in the way that it wants (PS3.8 §9.3.2)."""
    window = target.asynchronous_operations
    stated = {role.sop_class_uid: role for role in roles}
    if target.states_role:
        for context in contexts:
            if is_storage(context.abstract_syntax) is not False:
                role = RoleSelection(context.abstract_syntax, True, False)
                stated.setdefault(context.abstract_syntax, role)
    return AAssociateRQ(
        called_ae_title=target.ae_title,
        calling_ae_title=target.calling_ae,
        presentation_contexts=tuple(contexts),
        user_information=UserInformation(
            maximum_length=_OWN_MAXIMUM_LENGTH,
            implementation_class_uid=IMPLEMENTATION_CLASS_UID,
            implementation_version_name=IMPLEMENTATION_VERSION_NAME,
            asynchronous_operations=(window, 1) if window > 1 else None,
            role_selections=tuple(stated.values()),
        ),
    )


async def negotiate(requestor: Requestor, rq: AAssociateRQ) -> Requestor:
    """Asks for the association on a connection from `reach`, and waits for the answer.

    Raises AssociationError; the connection is closed then.
    """
    target = requestor.target
    try:
        requestor.associate(rq)
        async with asyncio.timeout(target.negotiation_timeout):
            await requestor.established()
    except TimeoutError:
        requestor.abort()
        requestor.close()
        raise AssociationTimeout(
            f"{target} did not answer the association request within "
            f"{target.negotiation_timeout:g} s"
        ) from None
    except BaseException:
        requestor.close()
        raise
    return requestor
