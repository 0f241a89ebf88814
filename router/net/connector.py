"""Opens an association with a peer.

Owns the way from a target to an association that is ready: connecting, and what is proposed.  Must
not know what is sent over it.  PS3.8 §7.1.
"""

import asyncio
import functools
from collections.abc import Sequence

from router.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from router.net.errors import AssociationTimeout, ConnectFailed
from router.net.pool import Proposal
from router.net.requestor import Requestor, RequestorObserver
from router.net.target import Target
from router.ul import AAssociateRQ, PresentationContextRQ, UserInformation

_OWN_MAXIMUM_LENGTH = 128 * 1024


async def connect(
    target: Target,
    proposals: Sequence[Proposal],
    observer: RequestorObserver | None = None,
) -> Requestor:
    """An association with `target`, with a presentation context for each proposal (128 at most).

    Raises AssociationError; nothing is left open then.
    """
    if not 1 <= len(proposals) <= 128:
        raise ValueError(f"an association has 1 to 128 presentation contexts, not {len(proposals)}")
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(target.connect_timeout):
            _, requestor = await loop.create_connection(
                functools.partial(Requestor, target, observer), target.host, target.port
            )
    except TimeoutError:
        raise ConnectFailed(
            f"{target} could not be connected to within {target.connect_timeout:g} s"
        ) from None
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConnectFailed(f"{target} could not be connected to: {why}") from error
    window = target.asynchronous_operations
    try:
        requestor.associate(
            AAssociateRQ(
                called_ae_title=target.ae_title,
                calling_ae_title=target.calling_ae,
                presentation_contexts=tuple(
                    PresentationContextRQ(2 * n + 1, abstract, (transfer,))
                    for n, (abstract, transfer) in enumerate(proposals)
                ),
                user_information=UserInformation(
                    maximum_length=_OWN_MAXIMUM_LENGTH,
                    implementation_class_uid=IMPLEMENTATION_CLASS_UID,
                    implementation_version_name=IMPLEMENTATION_VERSION_NAME,
                    asynchronous_operations=(window, 1) if window > 1 else None,
                ),
            )
        )
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
