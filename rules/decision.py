"""The answer of the rules: where an instance goes, and why."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from rules.attributes import Key
from rules.rule import Keep, Mode, OnRefusal, Send

Disposition = Literal["route", "hold", "discard"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an instance when it is decided.

    ``remote`` is the configured name of the system that sent it, or "".  ``attributes`` maps an
    attribute (``0x00080060``; see `Key` for private ones and those in sequences) to its values as
    text, character set decoded, padding removed, those of all items of a sequence one after the
    other; one that the data set lacks is not a key, one with no value maps to ``()``.
    ``received_at`` is in seconds since the epoch.  ``too_large`` are the attributes that the data
    set has and whose values are not known, there being too much of them; they map to ``()``.
    """

    calling_ae: str
    called_ae: str
    source_address: str
    remote: str = ""
    sop_class_uid: str = ""
    transfer_syntax_uid: str = ""
    attributes: Mapping[Key, tuple[str, ...]] = field(default_factory=dict)
    received_at: float = 0.0
    too_large: frozenset[Key] = frozenset()


@dataclass(frozen=True, slots=True)
class Route:
    """One delivery, with the rule that asked for it first, under that rule's options.

    ``members`` are those that may have it instead, in the order of preference, ``destination``
    being the first; () when nobody may.  With ``mode`` ``balance`` the order is drawn for this
    instance, its study or its patient.  For ``keep`` and ``on_refusal`` see `Target`.
    """

    destination: str
    rule: str
    priority: int = 0
    mode: Mode = "one"
    members: tuple[str, ...] = ()
    send: Send = field(default_factory=Send)
    keep: Keep = ""
    on_refusal: OnRefusal = "dead"


@dataclass(frozen=True, slots=True)
class Decision:
    """``disposition`` is ``route`` exactly when ``routes`` is not empty.

    A destination appears once however many rules named it; ``reason`` tells why an instance is
    held or discarded.  ``version`` names the rule set that decided.  ``tags`` are the labels
    that rules gave it, in order.  ``keep_for`` is the longest time, in seconds, for which a rule
    that matched wants it kept once it is settled; 0.0 when none says, or it is discarded.
    """

    disposition: Disposition
    routes: tuple[Route, ...]
    reason: str
    version: str
    tags: tuple[str, ...] = ()
    keep_for: float = 0.0
