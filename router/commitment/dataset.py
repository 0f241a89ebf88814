"""The data sets of storage commitment: what is asked for, and what was answered.

Owns their encoding and decoding, the bounds on both, and the reasons of the standard.  Must not
know associations, the spool, nor who asks whom.  PS3.4 §J.3.2 and §J.3.3, PS3.3 §C.14.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from router.dicom.elements import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    HEADER,
    IMPLICIT_LITTLE,
    LONG_HEADER,
    UNDEFINED,
    BadHeader,
    Encoding,
    read_header,
    show,
)

STORAGE_COMMITMENT_PUSH_MODEL: Final = "1.2.840.10008.1.20.1"
STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE: Final = "1.2.840.10008.1.20.1.1"
"""The one instance of the class that there is (PS3.4 §J.3.5)."""
IMPLICIT: Final = "1.2.840.10008.1.2"
EXPLICIT: Final = "1.2.840.10008.1.2.1"
_EXPLICIT_BIG = "1.2.840.10008.1.2.2"
TRANSFER_SYNTAXES: Final = (IMPLICIT, EXPLICIT, _EXPLICIT_BIG)
"""Those in which a commitment can be read."""

REQUEST_STORAGE_COMMITMENT: Final = 1
"""The one Action Type ID (PS3.4 §J.3.2)."""
SUCCESSFUL: Final = 1
FAILURES_EXIST: Final = 2
"""Event Type IDs of a report (PS3.4 §J.3.3): all is committed, or some of it is not."""

PROCESSING_FAILURE: Final = 0x0110
NO_SUCH_OBJECT_INSTANCE: Final = 0x0112
CLASS_INSTANCE_CONFLICT: Final = 0x0119
REFERENCED_SOP_CLASS_NOT_SUPPORTED: Final = 0x0122
DUPLICATE_TRANSACTION_UID: Final = 0x0131
RESOURCE_LIMITATION: Final = 0x0213
REASONS: Final[Mapping[int, str]] = {
    PROCESSING_FAILURE: "processing failure",
    NO_SUCH_OBJECT_INSTANCE: "no such object instance",
    CLASS_INSTANCE_CONFLICT: "class and instance do not belong together",
    REFERENCED_SOP_CLASS_NOT_SUPPORTED: "referenced SOP class not supported",
    DUPLICATE_TRANSACTION_UID: "duplicate transaction UID",
    RESOURCE_LIMITATION: "resource limitation",
}
"""Failure Reason (0008,1197) by number, PS3.3 §C.14.1.1."""

LARGEST: Final = 32 * 2**20
"""Bytes of a data set."""
MOST_ITEMS: Final = 100_000
"""References of one data set, in all of its sequences."""

MISSING_ATTRIBUTE: Final = 0x0120
MISSING_ATTRIBUTE_VALUE: Final = 0x0121
INVALID_ATTRIBUTE_VALUE: Final = 0x0106

_SOP_CLASS_UID = 0x00081150
_SOP_INSTANCE_UID = 0x00081155
_TRANSACTION_UID = 0x00081195
_FAILURE_REASON = 0x00081197
_FAILED_SOP_SEQUENCE = 0x00081198
_REFERENCED_SOP_SEQUENCE = 0x00081199
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_DEPTH = 16
_LONGEST_UID = 64
_UID_CHARACTERS = frozenset("0123456789.")


class MalformedCommitment(ValueError):
    """A data set that is none of storage commitment.

    ``status`` is the DIMSE status that says so (PS3.7 annex C).
    """

    def __init__(self, message: str, status: int = PROCESSING_FAILURE) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Item:
    """A reference to an instance."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A reference that was not committed, and the Failure Reason; see `REASONS`."""

    item: Item
    reason: int


@dataclass(frozen=True, slots=True)
class Action:
    """What an N-ACTION-RQ asks for; at least one item."""

    transaction_uid: str
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What an N-EVENT-REPORT-RQ says."""

    transaction_uid: str
    committed: tuple[Item, ...]
    failed: tuple[Failure, ...]

    @property
    def event_type(self) -> int:
        """The Event Type ID that belongs to it."""
        return FAILURES_EXIST if self.failed else SUCCESSFUL


def describe_reason(reason: int) -> str:
    """``0112H, no such object instance``."""
    known = REASONS.get(reason, "a reason that the standard does not name")
    return f"{reason:04X}H, {known}"


# -- writing -----------------------------------------------------------------------------------


def encode_action(
    transaction_uid: str, items: Sequence[Item], transfer_syntax: str = IMPLICIT
) -> bytes:
    """The Action Information of a request (PS3.4 table J.3-1).

    Raises ValueError for none or more than `MOST_ITEMS` items, and for a UID that is none.
    """
    if not items:
        raise ValueError("a request for storage commitment names one instance at least")
    _check_number(len(items))
    writer = _Writer(transfer_syntax)
    uid = writer.element(_TRANSACTION_UID, "UI", _uid_value(transaction_uid))
    return uid + writer.sequence(_REFERENCED_SOP_SEQUENCE, (writer.item(one) for one in items))


def encode_report(
    transaction_uid: str,
    committed: Sequence[Item],
    failed: Sequence[Failure],
    transfer_syntax: str = IMPLICIT,
) -> bytes:
    """The Event Information of a report (PS3.4 table J.3-2); a sequence without items is left out.

    Raises ValueError as `encode_action`.
    """
    _check_number(len(committed) + len(failed))
    writer = _Writer(transfer_syntax)
    parts = [writer.element(_TRANSACTION_UID, "UI", _uid_value(transaction_uid))]
    if failed:
        items = (writer.item(one.item, one.reason) for one in failed)
        parts.append(writer.sequence(_FAILED_SOP_SEQUENCE, items))
    if committed:
        items = (writer.item(one) for one in committed)
        parts.append(writer.sequence(_REFERENCED_SOP_SEQUENCE, items))
    return b"".join(parts)


def _check_number(count: int) -> None:
    if count > MOST_ITEMS:
        raise ValueError(f"a commitment has {MOST_ITEMS} references at most, not {count}")


def is_uid(text: str) -> bool:
    """Whether it can be written as a reference."""
    return 0 < len(text) <= _LONGEST_UID and _UID_CHARACTERS.issuperset(text)


def _uid_value(text: str) -> bytes:
    if not is_uid(text):
        raise ValueError(f"{text!r} is no UID")
    value = text.encode("ascii")
    return value + b"\0" if len(value) & 1 else value


class _Writer:
    """Elements in one of `TRANSFER_SYNTAXES`."""

    def __init__(self, transfer_syntax: str) -> None:
        self._encoding = _encoding(transfer_syntax)

    def element(self, tag: int, vr: str, value: bytes) -> bytes:
        encoding = self._encoding
        head = encoding.tag.pack(tag >> 16, tag & 0xFFFF)
        if not encoding.explicit:
            return head + encoding.length.pack(len(value)) + value
        if vr == "SQ":
            return head + b"SQ\0\0" + encoding.length.pack(len(value)) + value
        return head + vr.encode() + encoding.short_length.pack(len(value)) + value

    def item(self, item: Item, reason: int | None = None) -> bytes:
        value = self.element(_SOP_CLASS_UID, "UI", _uid_value(item.sop_class_uid))
        value += self.element(_SOP_INSTANCE_UID, "UI", _uid_value(item.sop_instance_uid))
        if reason is not None:
            number = struct.pack(self._encoding.order + "H", reason)
            value += self.element(_FAILURE_REASON, "US", number)
        encoding = self._encoding
        return encoding.tag.pack(0xFFFE, 0xE000) + encoding.length.pack(len(value)) + value

    def sequence(self, tag: int, items: Iterable[bytes]) -> bytes:
        return self.element(tag, "SQ", b"".join(items))


# -- reading -----------------------------------------------------------------------------------


def decode_action(data: bytes, transfer_syntax: str) -> Action:
    """What is asked for; ``data`` is the whole Action Information.

    Takes some 10 µs an item: one of thousands is not for the event loop.  Raises
    MalformedCommitment.
    """
    found = _read(data, transfer_syntax)
    uid = _uid(found, _TRANSACTION_UID, "Transaction UID")
    items = found.get(_REFERENCED_SOP_SEQUENCE)
    if not isinstance(items, list):
        raise MalformedCommitment(
            f"no Referenced SOP Sequence {show(_REFERENCED_SOP_SEQUENCE)}", MISSING_ATTRIBUTE
        )
    if not items:
        raise MalformedCommitment(
            f"Referenced SOP Sequence {show(_REFERENCED_SOP_SEQUENCE)} has no items",
            MISSING_ATTRIBUTE_VALUE,
        )
    return Action(uid, tuple(map(_item, items)))


def decode_report(data: bytes, transfer_syntax: str) -> Report:
    """What was answered; ``data`` is the whole Event Information.

    A failure without a reason counts as 0110H.  Takes as long, and raises, as `decode_action`.
    """
    found = _read(data, transfer_syntax)
    uid = _uid(found, _TRANSACTION_UID, "Transaction UID")
    committed, failed = found.get(_REFERENCED_SOP_SEQUENCE), found.get(_FAILED_SOP_SEQUENCE)
    return Report(
        uid,
        tuple(map(_item, committed)) if isinstance(committed, list) else (),
        tuple(Failure(_item(one), _reason(one, transfer_syntax)) for one in failed)
        if isinstance(failed, list)
        else (),
    )


_Found: TypeAlias = dict[int, "bytes | list[_Found]"]
_Wanted: TypeAlias = Mapping[int, "_Wanted | None"]
_REFERENCE: _Wanted = {_SOP_CLASS_UID: None, _SOP_INSTANCE_UID: None, _FAILURE_REASON: None}
_WANTED: _Wanted = {
    _TRANSACTION_UID: None,
    _REFERENCED_SOP_SEQUENCE: _REFERENCE,
    _FAILED_SOP_SEQUENCE: _REFERENCE,
}
_NOTHING: _Wanted = {}


def _encoding(transfer_syntax: str) -> Encoding:
    if transfer_syntax == IMPLICIT:
        return IMPLICIT_LITTLE
    if transfer_syntax == EXPLICIT:
        return EXPLICIT_LITTLE
    if transfer_syntax == _EXPLICIT_BIG:
        return EXPLICIT_BIG
    raise ValueError(f"storage commitment is not encoded in {transfer_syntax}")


def _read(data: bytes, transfer_syntax: str) -> _Found:
    if len(data) > LARGEST:
        raise MalformedCommitment(f"more than {LARGEST} bytes", RESOURCE_LIMITATION)
    found, _ = _Reader(data).elements(_encoding(transfer_syntax), 0, len(data), _WANTED, 0)
    return found


class _Reader:
    """Walks over a data set and keeps what is wanted, nothing of it twice."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._items = 0

    def elements(
        self,
        encoding: Encoding,
        at: int,
        end: int,
        wanted: _Wanted,
        depth: int,
        *,
        open_: bool = False,
    ) -> tuple[_Found, int]:
        """The wanted elements up to ``end``, or up to the end of an item of undefined length
        (``open_``), and where the next begins."""
        found: _Found = {}
        while at < end:
            tag, vr, start, length = self._header(encoding, at, end)
            if open_ and tag == _ITEM_END:
                return found, start
            if tag >> 16 == 0xFFFE:
                raise MalformedCommitment(f"{show(tag)} out of place at byte {at}")
            inner = wanted.get(tag)
            if inner is not None or length == UNDEFINED:
                inside = IMPLICIT_LITTLE if vr == "UN" else encoding
                items, at = self._sequence(inside, start, end, length, inner or _NOTHING, depth)
                if inner is not None:
                    found[tag] = items
                continue
            at = start + length
            if at > end:
                raise MalformedCommitment(f"{show(tag)} of {length} bytes runs past the end")
            if tag in wanted:
                found[tag] = self._data[start:at]
        if open_:
            raise MalformedCommitment("an item without its end")
        return found, at

    def _header(self, encoding: Encoding, at: int, end: int) -> tuple[int, str, int, int]:
        """Tag, VR, where the value begins and its length."""
        if end - at < HEADER:
            raise MalformedCommitment(f"it ends inside the header of an element at byte {at}")
        group, element = encoding.tag.unpack_from(self._data, at)
        tag = group << 16 | element
        if group == 0xFFFE:
            return tag, "", at + HEADER, encoding.length.unpack_from(self._data, at + 4)[0]
        try:
            header = read_header(encoding, self._data, at, end)
        except BadHeader as error:
            raise MalformedCommitment(f"{show(tag)} at byte {at} {error}") from None
        if header is None:
            raise MalformedCommitment(f"it ends inside the header of {show(tag)} at byte {at}")
        vr, length, size = header
        assert size <= LONG_HEADER
        return tag, vr, at + size, length

    def _sequence(
        self, encoding: Encoding, at: int, end: int, length: int, wanted: _Wanted, depth: int
    ) -> tuple[list[_Found], int]:
        if depth >= _DEPTH:
            raise MalformedCommitment(f"sequences more than {_DEPTH} deep")
        stop = end if length == UNDEFINED else at + length
        if stop > end:
            raise MalformedCommitment(f"a sequence of {length} bytes runs past the end")
        items: list[_Found] = []
        while at < stop:
            tag, _, start, size = self._header(encoding, at, stop)
            if tag == _SEQUENCE_END and length == UNDEFINED:
                return items, start
            if tag != _ITEM:
                raise MalformedCommitment(f"{show(tag)} in place of an item at byte {at}")
            self._items += 1
            if self._items > MOST_ITEMS:
                raise MalformedCommitment(f"more than {MOST_ITEMS} items", RESOURCE_LIMITATION)
            inside = stop if size == UNDEFINED else start + size
            if inside > stop:
                raise MalformedCommitment(f"an item of {size} bytes runs past the end")
            found, at = self.elements(
                encoding, start, inside, wanted, depth + 1, open_=size == UNDEFINED
            )
            if wanted:
                items.append(found)
        if length == UNDEFINED:
            raise MalformedCommitment("a sequence without its end")
        return items, at


def _item(found: _Found) -> Item:
    return Item(
        _uid(found, _SOP_CLASS_UID, "Referenced SOP Class UID"),
        _uid(found, _SOP_INSTANCE_UID, "Referenced SOP Instance UID"),
    )


def _uid(found: _Found, tag: int, name: str) -> str:
    value = found.get(tag)
    if not isinstance(value, bytes):
        raise MalformedCommitment(f"no {name} {show(tag)}", MISSING_ATTRIBUTE)
    text = value.partition(b"\0")[0].decode("latin-1").strip(" ")
    if not text:
        raise MalformedCommitment(f"{name} {show(tag)} is empty", MISSING_ATTRIBUTE_VALUE)
    if len(text) > _LONGEST_UID or not _UID_CHARACTERS.issuperset(text):
        raise MalformedCommitment(
            f"{name} {show(tag)} is no UID: {text[:_LONGEST_UID]!r}", INVALID_ATTRIBUTE_VALUE
        )
    return text


def _reason(found: _Found, transfer_syntax: str) -> int:
    value = found.get(_FAILURE_REASON)
    if not isinstance(value, bytes) or len(value) < 2:
        return PROCESSING_FAILURE
    order = _encoding(transfer_syntax).order
    return int(struct.unpack(order + "H", value[:2])[0])
