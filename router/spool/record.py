"""What the spool knows of an instance besides its bytes.

Owns the description that is stored with every record and the reference by which a record
is found again.  Must not know DICOM: the values are kept and compared, never interpreted.
"""

import json
from typing import Any, NamedTuple

import msgspec

DAMAGED = "damaged in the spool: "
"""How the reason begins of an instance whose bytes are not those that were received."""


def _as_plain(value: object) -> str | int | float:
    """What JSON has a word for, of a value whose class is derived from one of these."""
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(f"a description holds text and numbers, not {type(value).__name__}")


_encode = msgspec.json.Encoder(enc_hook=_as_plain).encode


class Position(NamedTuple):
    """A place in the log; generations rise with each life of a segment, so places are ordered."""

    generation: int
    offset: int


class Ref(NamedTuple):
    """Where the bytes of an instance lie.

    ``id`` is the instance's number, rising in the order in which instances began to arrive and
    never used twice; commits may come in another order.
    ``generation`` and ``offset`` name the record (offset of its header in its segment);
    ``data_offset`` and ``length`` the data set, in the segment or, when ``large``, in the
    file of its own.  ``crc`` is CRC-32 (ISO 3309, as zlib) of the data set.
    """

    id: int
    generation: int
    offset: int
    data_offset: int
    length: int
    crc: int
    large: bool = False


class RouteMeta(NamedTuple):
    """One destination of an instance, as decided when it was received.

    ``plan`` is the text of a `router.spool.plan.Plan`: when it may go, and where else.
    """

    destination: str
    rule: str
    priority: int = 0
    plan: str = ""


class InstanceMeta(NamedTuple):
    """What is stored with the bytes, so that a restart neither parses nor routes anew.

    ``disposition`` is ``route``, ``hold`` or ``discard``; ``reason`` says why for the last two
    and for a quarantined instance (``quarantined`` is then True and ``disposition`` ``hold``).
    ``received_at`` is in seconds since the epoch.  Attributes that the data set lacks are "".
    ``tags`` are the labels that rules gave it; none holds a space.  ``keep`` is for how many
    seconds a rule wants it kept once it is settled, 0.0 when none says.
    """

    received_at: float
    association: str
    calling_ae: str
    called_ae: str
    source: str
    remote: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    modality: str = ""
    disposition: str = "hold"
    reason: str = ""
    quarantined: bool = False
    rules_version: str = ""
    routes: tuple[RouteMeta, ...] = ()
    tags: tuple[str, ...] = ()
    keep: float = 0.0

    def to_bytes(self) -> bytes:
        """Compact JSON, as it lies in a record.

        Tags, plans and the time to keep come last among the values and only when there are any:
        what reads records without knowing them leaves them out.
        """
        values: tuple[object, ...] = self[: len(_PLAIN_FIELDS)]
        plans = [r.plan for r in self.routes]
        if self.keep:
            values += (self.tags, plans if any(plans) else (), self.keep)
        elif any(plans):
            values += (self.tags, plans)
        elif self.tags:
            values += (self.tags,)
        return _encode((values, [(r.destination, r.rule, r.priority) for r in self.routes]))

    @classmethod
    def from_bytes(cls, data: bytes) -> "InstanceMeta":
        """The reverse of `to_bytes`; fields that a later version added are left out.

        Raises ValueError when the bytes are not a description.
        """
        try:
            values, routes = json.loads(data)
            if not isinstance(values, list):
                raise ValueError("a list of values was expected")
            known = dict(zip(_PLAIN_FIELDS, values, strict=False))
            rest = values[len(_PLAIN_FIELDS) :]
            tags, plans, keep = [*rest, *_NOTHING_MORE[len(rest) :]][:3]
            # Most records have no plan: none is looked for there.
            texts = [str(plan) for plan in plans] or [""] * len(routes)
            return cls(
                **known,
                routes=tuple(_route(r, text) for r, text in zip(routes, texts, strict=True)),
                tags=tuple(str(tag) for tag in tags),
                keep=_seconds(keep),
            )
        except (TypeError, ValueError) as error:
            raise ValueError(f"not an instance description: {error}") from error


def _route(values: list[Any], plan: str) -> RouteMeta:
    destination, rule, priority = [*values, 0][:3]
    return RouteMeta(destination, rule, priority, plan)


def _seconds(value: object) -> float:
    # A bool is an int, and JSON here may hold Infinity.
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12:
        return float(value)
    raise ValueError(f"the time to keep is {value!r:.60}")


_NOTHING_MORE: tuple[object, ...] = ((), (), 0.0)
_PLAIN_FIELDS = InstanceMeta._fields[: InstanceMeta._fields.index("routes")]
