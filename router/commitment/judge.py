"""Whether an instance can be committed to whoever asks.

Owns what counts as safe, and the Failure Reason where it does not.  Must not know the index, nor
associations.  PS3.4 §J.3, PS3.3 §C.14.1.1.
"""

from collections.abc import Sequence

from router.commitment.dataset import (
    CLASS_INSTANCE_CONFLICT,
    NO_SUCH_OBJECT_INSTANCE,
    PROCESSING_FAILURE,
)
from router.commitment.settings import CommitmentSettings
from router.spool.index_promises import Kept
from router.spool.index_types import DeliveryState, Disposition

COMMITTED = 0
_TAKEN = (DeliveryState.DELIVERED, DeliveryState.UNCOMMITTED)
_LOST = (DeliveryState.DEAD, DeliveryState.DROPPED, DeliveryState.DUPLICATE)


def judge(
    settings: CommitmentSettings,
    sop_class_uid: str,
    kept: Sequence[Kept],
    age: float,
    doubted: int = 0,
) -> int | None:
    """`COMMITTED`, a Failure Reason, or None when that cannot be told yet.

    ``kept`` are the instances with the UID that was asked for, ``age`` is for how many seconds
    it has been waited for.  Of numbers up to ``doubted`` some may be missing among them: for those
    nobody knows whether they came last.
    """
    if not kept:
        return NO_SUCH_OBJECT_INSTANCE if age >= settings.grace else None
    meant = [one for one in kept if one.sop_class_uid == sop_class_uid]
    if not meant:
        return CLASS_INSTANCE_CONFLICT
    latest = _latest(meant)
    verdicts = [_judge(settings, one) for one in latest]
    if COMMITTED in verdicts:
        if max(one.instance_id for one in latest) > doubted:
            return COMMITTED
        verdicts = [one or None for one in verdicts]
    # Nobody is waited for where it is enough to be here: it may be found out in a moment.
    if None in verdicts and age < (settings.grace if settings.when == "safe" else settings.wait):
        return None
    return next((one for one in verdicts if one is not None), PROCESSING_FAILURE)


def in_question(
    settings: CommitmentSettings, sop_class_uid: str, kept: Sequence[Kept]
) -> Sequence[Kept]:
    """Those of these on whose bytes in the spool alone it rests that they are committed."""
    meant = [one for one in kept if one.sop_class_uid == sop_class_uid]
    if settings.when != "safe" or not meant:
        return ()
    good = [one for one in _latest(meant) if _judge(settings, one) == COMMITTED]
    return () if any(map(_elsewhere, good)) else good


def _elsewhere(kept: Kept) -> bool:
    """Whether a destination has it."""
    return any(state in _TAKEN for state in kept.deliveries.values())


def _latest(kept: Sequence[Kept]) -> list[Kept]:
    """Those with the content that came last: of two objects with one UID that is what whoever asks
    has now.  What a start found torn may never have been acknowledged, and says nothing of the
    others; what was damaged later was."""
    sound = [one for one in kept if not (one.damaged and one.torn)] or kept
    last = max(sound, key=lambda one: one.instance_id)
    return [one for one in sound if one.content == last.content]


def _judge(settings: CommitmentSettings, kept: Kept) -> int | None:
    if kept.damaged:
        return PROCESSING_FAILURE
    if kept.outdated or kept.superseded or kept.disposition is Disposition.DISCARDED:
        return NO_SUCH_OBJECT_INSTANCE
    found = kept.deliveries
    if settings.when == "safe":
        states = tuple(found.values())
        # What an operator took off every queue is purged next.
        gone = states and all(state is DeliveryState.DROPPED for state in states)
        if gone or kept.present is False:
            return PROCESSING_FAILURE
        return None if kept.present is None else COMMITTED
    if settings.destinations:
        found = {name: s for name, s in found.items() if name in settings.destinations}
    if not found:
        # Held as a whole it may be routed yet; routed elsewhere it will never be there.
        held = kept.disposition in (Disposition.HELD, Disposition.QUARANTINED)
        return None if held else PROCESSING_FAILURE
    if any(state in _LOST for state in found.values()):
        return PROCESSING_FAILURE
    if settings.when == "delivered":
        return COMMITTED if all(state in _TAKEN for state in found.values()) else None
    # What was delivered while nobody asked for proof is not asked for any more.
    taken = {name for name, state in found.items() if state is DeliveryState.DELIVERED}
    if taken - kept.proven:
        return PROCESSING_FAILURE
    return COMMITTED if len(taken) == len(found) else None
