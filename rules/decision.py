"""The answer of the rules: where an instance goes, and why."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Disposition = Literal["route", "hold", "discard"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an instance when it is decided.

    ``remote`` is the configured name of the system that sent it, or "".  ``attributes`` maps a
    tag (``0x00080060``) to its values as text, character set decoded, padding removed; a tag
    that the data set lacks is not a key, one with no value maps to ``()``.
    """

    calling_ae: str
    called_ae: str
    source_address: str
    remote: str = ""
    sop_class_uid: str = ""
    transfer_syntax_uid: str = ""
    attributes: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Route:
    """One destination, with the rule that asked for it first."""

    destination: str
    rule: str
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """``disposition`` is ``route`` exactly when ``routes`` is not empty.

    A destination appears once however many rules named it; ``reason`` tells why an instance is
    held or discarded.  ``version`` names the rule set that decided.
    """

    disposition: Disposition
    routes: tuple[Route, ...]
    reason: str
    version: str
