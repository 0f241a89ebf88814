"""What the rules would be told of an instance: of a file, or of one that the spool has.

Owns the likeness to the way in (`router.ingest.storage`): the same attributes are looked for, by
the same scanner, and what cannot be parsed is not decided at all.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from router.dicom.scan import Scanner
from router.ingest.storage import ALWAYS_WANTED
from router.spool.record import InstanceMeta
from rules.attributes import Key
from rules.decision import Facts

Identify = Callable[[str, str], str]
"""The name of the remote that calls by an AE title from an address; "" for a stranger."""
Attributes = dict[Key, tuple[str, ...]]

SOP_CLASS = 0x00080016
SOP_INSTANCE = 0x00080018
MODALITY = 0x00080060


@dataclass(frozen=True, slots=True)
class Scanned:
    """``error`` says why the gateway could not parse it, "" when it could; ``too_large`` is for
    `Facts`."""

    attributes: Attributes
    error: str = ""
    too_large: frozenset[Key] = frozenset()


def scan(transfer_syntax_uid: str, wanted: Collection[Key], pieces: Iterable[bytes]) -> Scanned:
    """The wanted attributes of a data set, and those that the gateway always looks at.

    No more pieces are taken than are needed.
    """
    scanner = Scanner(transfer_syntax_uid, frozenset(wanted) | ALWAYS_WANTED)
    empty = True
    for piece in pieces:
        empty = empty and not piece
        if scanner.feed(piece):
            break
    if not scanner.done:
        scanner.finish()
    attributes: Attributes = dict(scanner.attributes())
    error = scanner.error
    if empty:
        error = "the data set is empty"
    elif not error and not (attributes.keys() & {SOP_CLASS, SOP_INSTANCE}):
        error = "it has neither a SOP Class UID nor a SOP Instance UID"
    return Scanned(attributes, error, scanner.unread)


def facts_of_record(meta: InstanceMeta, scanned: Scanned, identify: Identify) -> Facts:
    """Those of an instance that was received: who sent it is asked anew, when is not."""
    return Facts(
        calling_ae=meta.calling_ae,
        called_ae=meta.called_ae,
        source_address=meta.source,
        remote=identify(meta.calling_ae, meta.source),
        sop_class_uid=meta.sop_class_uid,
        transfer_syntax_uid=meta.transfer_syntax_uid,
        attributes=scanned.attributes,
        received_at=meta.received_at,
        too_large=scanned.too_large,
    )


def first(attributes: Attributes, key: Key) -> str:
    """Its first value, or ""."""
    values = attributes.get(key)
    return values[0] if values else ""
