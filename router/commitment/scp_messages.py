"""What a request for commitment and its report are on the wire, as SCP.

Owns that long ones are decoded and encoded off the event loop.  Must not know when a report is
made, nor to whom it goes.  PS3.4 §J.3.
"""

import asyncio

from router.commitment.dataset import (
    STORAGE_COMMITMENT_PUSH_MODEL,
    STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
    Action,
    Report,
    decode_action,
    encode_report,
)
from router.dimse.command import Command
from router.net.normalized import N_EVENT_REPORT_RQ, Received

_LARGE = 64 * 1024
"""Bytes of a data set that is not decoded on the event loop."""
_MANY = 500
"""References of a report that is not encoded there."""


async def decoded(received: Received) -> Action:
    """What is asked for.  Raises MalformedCommitment."""
    data, syntax = received.data, received.transfer_syntax
    if len(data) < _LARGE:
        return decode_action(data, syntax)
    return await asyncio.to_thread(decode_action, data, syntax)


def command_of(report: Report) -> Command:
    """The N-EVENT-REPORT-RQ before the data set of a report."""
    return Command(
        N_EVENT_REPORT_RQ,
        affected_sop_class_uid=STORAGE_COMMITMENT_PUSH_MODEL,
        affected_sop_instance_uid=STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
        event_type_id=report.event_type,
    )


async def encoded(report: Report, transfer_syntax: str) -> bytes:
    """The data set of a report."""
    references = (report.transaction_uid, report.committed, report.failed, transfer_syntax)
    if len(report.committed) + len(report.failed) < _MANY:
        return encode_report(*references)
    return await asyncio.to_thread(encode_report, *references)
