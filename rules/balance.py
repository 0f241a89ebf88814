"""Which of several destinations an instance is for, when they share the load.

Owns the draw: rendezvous hashing with weights, so that one study (patient, instance) always has
the same order of destinations, on every machine and after every restart, and a destination that
is added or taken out moves only what falls to it.
"""

import hashlib
import math
from collections.abc import Mapping
from functools import lru_cache

from rules.attributes import Key
from rules.rule import By, Target
from rules.values import CACHED

_BY: dict[By, tuple[int, ...]] = {
    "study": (0x0020000D,),
    "patient": (0x00100020, 0x00100021),  # with its issuer: two hospitals number alike
    "instance": (0x00080018,),
}


def attributes_for(target: Target) -> tuple[int, ...]:
    """Those that the draw needs."""
    return _BY[target.by] if target.mode == "balance" else ()


def drawn(target: Target, attributes: Mapping[Key, tuple[str, ...]]) -> tuple[str, ...]:
    """The members in the order that is this instance's; what lacks the attribute counts as one
    study (patient) with all others that lack it."""
    parts = [(attributes.get(tag) or ("",))[0] for tag in _BY[target.by]]
    key = "\0".join(parts)
    # What a sender may make as long as it likes is not kept.
    order = cached_order if len(key) <= CACHED else _order
    return order(target.members, target.weights, key)


def _order(members: tuple[str, ...], weights: tuple[int, ...], key: str) -> tuple[str, ...]:
    scores = {}
    for member, weight in zip(members, weights or (1,) * len(members), strict=True):
        digest = hashlib.blake2b(f"{member}\0{key}".encode("utf-8", "replace"), digest_size=8)
        # Between 0 and 1 and neither: as many bits as a float holds, and half of one.
        share = ((int.from_bytes(digest.digest(), "big") >> 11) + 0.5) / 2**53
        # The larger, the likelier in proportion to the weight.
        scores[member] = weight / -math.log(share)
    return tuple(sorted(members, key=lambda member: (-scores[member], member)))


cached_order = lru_cache(maxsize=4096)(_order)
