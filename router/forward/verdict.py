"""What a C-STORE status means for the instance that it answers.

Owns one table, status to fate, and how the settings of a remote change it.  Must not know queues,
nor when an instance is tried again.  PS3.4 table B.2-1,
PS3.7 Annex C; that something is temporary or not is our judgement, not the standard's.
"""

from dataclasses import dataclass
from enum import Enum

from pydicom.config import IGNORE
from pydicom.uid import UID

from router.dimse.status import DELIVERED, SUCCESS, describe_status
from router.net.pool import Proposal
from router.net.retry import Retry, StatusFate


class Fate(Enum):
    """What becomes of an instance after an attempt."""

    DELIVERED = "delivered"
    TEMPORARY = "temporary"
    PERMANENT = "permanent"


@dataclass(frozen=True, slots=True)
class Verdict:
    """``reason`` is for an operator, "" for a plain success.

    ``strained`` tells that the destination, not the instance, is at fault: it is short of
    something, and sending it the next instance at once would not help.
    """

    fate: Fate
    reason: str
    strained: bool = False


@dataclass(frozen=True, slots=True)
class _Row:
    first: int
    last: int
    fate: Fate
    strained: bool = False
    doubtful: bool = False
    """Whether several attempts may be wanted before it is believed: PS3.4 leaves the last digits
    to the implementation, and some archives answer so while they are busy."""


_AS_USUAL = Retry()
_FATES: dict[StatusFate, Fate] = {
    "temporary": Fate.TEMPORARY,
    "permanent": Fate.PERMANENT,
    "delivered": Fate.DELIVERED,
}
HAS_ONE = "the destination has an instance of this UID already, which may be this one or another"
_DUPLICATE = 0x0111
_ROWS = (
    _Row(0x0110, 0x0110, Fate.TEMPORARY),  # processing failure: a database that restarts, say
    _Row(_DUPLICATE, _DUPLICATE, Fate.PERMANENT),
    _Row(0x0117, 0x0117, Fate.PERMANENT),  # invalid SOP instance
    _Row(0x0122, 0x0122, Fate.PERMANENT),  # SOP class not supported
    _Row(0x0124, 0x0124, Fate.PERMANENT),  # not authorised
    _Row(0x0210, 0x0210, Fate.TEMPORARY),  # duplicate invocation: of the message, not the object
    _Row(0x0211, 0x0212, Fate.PERMANENT),  # unrecognised operation, mistyped argument
    _Row(0x0213, 0x0213, Fate.TEMPORARY, strained=True),  # resource limitation
    _Row(0xA700, 0xA7FF, Fate.TEMPORARY, strained=True),  # out of resources
    _Row(0xA900, 0xA9FF, Fate.PERMANENT, doubtful=True),  # data set does not match SOP class
    _Row(0xC000, 0xCFFF, Fate.PERMANENT, doubtful=True),  # cannot understand
)


def judge(
    status: int,
    comment: str = "",
    *,
    attempts: int = 1,
    retry: Retry = _AS_USUAL,
) -> Verdict:
    """The verdict on an instance that was answered ``status`` and Error Comment ``comment``.

    A duplicate SOP instance (0111) is dead, though an earlier attempt may have arrived whose
    answer was lost: what the destination has may as well be another object of that UID, and a dead
    letter is seen where a loss is not.  A status of no row is temporary: what is not understood is
    tried again, within the attempts that the destination allows, and never taken for a success.

    ``retry`` has what the remote's settings say instead; ``attempts`` counts this one.
    """
    reason = "" if status == SUCCESS else describe_status(status)
    if reason and comment:
        reason = f"{reason} ({comment})"
    said = retry.fate_of(status)
    if said == "delivered" or (said is None and status in DELIVERED):
        return Verdict(Fate.DELIVERED, reason)
    if status == _DUPLICATE:
        reason = f"{reason}; {HAS_ONE}"
    row = _row(status)
    fate = row.fate if said is None else _FATES[said]
    if said is None and row.doubtful and attempts < retry.permanent_after:
        fate = Fate.TEMPORARY
    return Verdict(fate, reason, row.strained and fate is Fate.TEMPORARY)


def _row(status: int) -> _Row:
    for row in _ROWS:
        if row.first <= status <= row.last:
            return row
    return _Row(status, status, Fate.TEMPORARY)


def describe_pair(pair: Proposal) -> str:
    """``CT Image Storage (1.2.840…) as Explicit VR Little Endian (1.2.840…)``."""
    return " as ".join(_name(uid) for uid in pair)


def no_context(pair: Proposal) -> str:
    """Why an instance is not sent for whose pair the peer accepted no presentation context."""
    return (
        f"no presentation context accepted: {describe_pair(pair)}; "
        "let the destination accept it, or transcode"
    )


def _name(uid: str) -> str:
    name = UID(uid, IGNORE).name  # one that breaks the rules is described too
    return uid if name == uid else f"{name} ({uid})"
