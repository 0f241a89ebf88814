"""What destinations report of the commitment that they were asked for.

Owns what an N-EVENT-REPORT means for the deliveries that it names, whichever association it comes
on: the one of the request, a later one, or one that the destination opens.  Must not know how it
was asked.  PS3.4 §J.3.3, PS3.3 §C.14.1.1.

Whoever has a Transaction UID was told it by us, over the association of the request: the report is
taken from whatever node of the destination sends it.
"""

import asyncio
from collections.abc import Callable, Mapping

from structlog.typing import FilteringBoundLogger

from router.commitment.dataset import (
    CLASS_INSTANCE_CONFLICT,
    DUPLICATE_TRANSACTION_UID,
    FAILURES_EXIST,
    REFERENCED_SOP_CLASS_NOT_SUPPORTED,
    SUCCESSFUL,
    MalformedCommitment,
    Report,
    decode_report,
    describe_reason,
)
from router.commitment.index import CommitmentIndex
from router.commitment.ports import Observer
from router.dimse.status import (
    INVALID_ARGUMENT_VALUE,
    NO_SUCH_EVENT_TYPE,
    PROCESSING_FAILURE,
    SUCCESS,
)
from router.net.normalized import Received
from router.spool.errors import SpoolError
from router.spool.index_commitments import COMMITTED, Committed, Name, Refusal

_AT_ONCE = 16 * 1024
"""Bytes of a report that are decoded on the event loop."""
_FOR_GOOD = (CLASS_INSTANCE_CONFLICT, REFERENCED_SOP_CLASS_NOT_SUPPORTED)
"""Reasons that sending the same instance again would not change."""


def refusals(report: Report) -> dict[Name, Refusal]:
    """Why which instance is not committed, by SOP Instance UID.

    A duplicate Transaction UID tells of the request, and nothing of an instance.
    """
    return {
        failure.item.sop_instance_uid: Refusal(
            f"not committed: {describe_reason(failure.reason)}",
            again=failure.reason not in _FOR_GOOD,
        )
        for failure in report.failed
        if failure.reason != DUPLICATE_TRANSACTION_UID
    }


class Reports:
    """``resend`` is how often what is refused is sent again, by destination; ``clock`` gives
    seconds since the epoch.  ``answered(destination, result)`` is called when a report changed
    something."""

    def __init__(
        self,
        index: CommitmentIndex,
        *,
        clock: Callable[[], float],
        log: FilteringBoundLogger,
        observer: Observer,
        answered: Callable[[Committed], None],
    ) -> None:
        self._index = index
        self._clock = clock
        self._logger = log
        self._observer = observer
        self._answered = answered
        self.resend: Mapping[str, int] = {}

    async def take(self, request: Received) -> int:
        """See `router.net.normalized.Handler`."""
        log = self._logger.bind(association=request.association, remote=request.remote)
        event = request.command.event_type_id
        if event not in (SUCCESSFUL, FAILURES_EXIST):
            log.warning("not a report of storage commitment", event_type=event)
            return NO_SUCH_EVENT_TYPE
        try:
            report = await _decoded(request.data, request.transfer_syntax)
        except MalformedCommitment as error:
            log.warning("report of storage commitment cannot be read", why=str(error))
            return error.status
        try:
            result = await self._index.answer(
                report.transaction_uid,
                [item.sop_instance_uid for item in report.committed],
                refusals(report),
                at=self._clock(),
                most=self.resend,
                words=f"{COMMITTED} {report.transaction_uid}",
            )
        except SpoolError as error:
            log.error("report of storage commitment cannot be recorded", why=str(error))
            return PROCESSING_FAILURE
        if not result.known:
            log.warning("report of a transaction that was not asked for, or long ago")
            return INVALID_ARGUMENT_VALUE
        self.tell(result, log)
        return SUCCESS

    def tell(self, result: Committed, log: FilteringBoundLogger | None = None) -> None:
        """To the log, the counters, and whoever is to go on with it."""
        log = self._logger if log is None else log
        bad = result.resent or result.dead or result.left or result.foreign
        (log.warning if bad else log.info)(
            "storage commitment answered",
            destination=result.destination,
            committed=result.committed,
            sent_again=result.resent,
            dead=result.dead,
            not_mentioned=result.left,
            foreign=result.foreign,
        )
        for outcome in ("committed", "resent", "dead"):
            if count := getattr(result, outcome):
                self._observer.on_commitment(result.destination, outcome, count)
        self._answered(result)

    def given_up(self, destination: str, count: int) -> None:
        """So many were answered by nobody for too long, and are dead."""
        self._answered(Committed(known=True, destination=destination, dead=count))


async def _decoded(data: bytes, transfer_syntax: str) -> Report:
    if len(data) <= _AT_ONCE:
        return decode_report(data, transfer_syntax)
    return await asyncio.to_thread(decode_report, data, transfer_syntax)
