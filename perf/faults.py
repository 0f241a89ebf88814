"""What a misbehaving acceptor says: one maker of scripts for each kind of wrong answer.

Owns the bytes of answers that no proper acceptor sends.  Must not know sockets, nor the product:
PS3.8 §9.3 and PS3.7 §9.3.1 by hand, on `perf.wire`.
"""

import struct
from collections.abc import Callable, Iterable

from perf import wire
from perf.proxy import Answer, End, Held, Pause, Rewrite, Step

Change = Callable[[bytes], Iterable[Step]]
ABORTED_BY_USER = struct.pack(">BxI2xBB", wire.ABORT, 4, 0, 0)
ABORTED_BY_PROVIDER = struct.pack(">BxI2xBB", wire.ABORT, 4, 2, 1)
_NO_DATA_SET = 0x0101
_SYNTAX, _CONTEXT, _USER_INFORMATION = 0x40, 0x21, 0x50


# -- where ----------------------------------------------------------------------------------------


def at_acceptance(change: Change) -> Rewrite:
    """Interferes with the A-ASSOCIATE-AC."""

    def rewrite(answer: Answer) -> Iterable[Step]:
        return change(answer.pdu) if answer.kind == wire.ASSOCIATE_AC else (answer.pdu,)

    return rewrite


def at_release(change: Change) -> Rewrite:
    """Interferes with the A-RELEASE-RP."""

    def rewrite(answer: Answer) -> Iterable[Step]:
        return change(answer.pdu) if answer.kind == wire.RELEASE_RP else (answer.pdu,)

    return rewrite


def at_response(
    change: Callable[[Answer], Iterable[Step]], numbers: Iterable[int] = (2,)
) -> Rewrite:
    """Interferes with these C-STORE-RSPs of an association, the first being 1."""
    chosen = tuple(numbers)

    def rewrite(answer: Answer) -> Iterable[Step]:
        if answer.kind == wire.P_DATA_TF and answer.number in chosen:
            return change(answer)
        return (answer.pdu,)

    return rewrite


def for_instance(number: int, change: Callable[[Answer], Iterable[Step]]) -> Rewrite:
    """Interferes with every C-STORE-RSP for the instance whose UID ends in this number."""

    def rewrite(answer: Answer) -> Iterable[Step]:
        uid = answer.request.get(0x1000, b"").rstrip(b"\0")
        return change(answer) if uid.endswith(b".%d" % number) else (answer.pdu,)

    return rewrite


# -- whole answers --------------------------------------------------------------------------------


def instead(*steps: Step) -> Callable[[object], Iterable[Step]]:
    """These, whatever the answer would have been."""
    return lambda _: steps


def before(*steps: Step) -> Callable[[Answer], Iterable[Step]]:
    """These, then the answer as it is."""
    return lambda answer: (*steps, answer.pdu)


def behind(*steps: Step) -> Callable[[Answer], Iterable[Step]]:
    """The answer as it is and these right behind it, in one write."""
    tail = b"".join(step for step in steps if isinstance(step, bytes))
    rest = tuple(step for step in steps if not isinstance(step, bytes))
    return lambda answer: (answer.pdu + tail, *rest)


def twice(answer: Answer) -> Iterable[Step]:
    """The same answer again, in one write."""
    return (answer.pdu * 2,)


def ended_by(how: End) -> Callable[[Answer], Iterable[Step]]:
    """The answer, and nothing more."""
    return lambda answer: (answer.pdu, how)


def late(seconds: float) -> Callable[[Answer], Iterable[Step]]:
    """The answer as it is, but so much later."""
    return lambda answer: (Pause(seconds), answer.pdu)


def rejected(result: int, source: int, reason: int) -> Change:
    """A-ASSOCIATE-RJ (PS3.8 §9.3.4)."""
    pdu = struct.pack(">BxIxBBB", wire.ASSOCIATE_RJ, 4, result, source, reason)
    return lambda _: (pdu, End.FIN)


# -- the C-STORE-RSP ------------------------------------------------------------------------------


def response(
    status: int | None = 0,
    *,
    add_to_id: int | None = 0,
    instance: str | None = None,
    field: int = wire.C_STORE_RSP,
    data_set: int | None = _NO_DATA_SET,
    comment: str = "",
) -> Callable[[Answer], Iterable[Step]]:
    """A response of one's own.

    ``add_to_id`` is added to the Message ID that it responds to; None for a status, an id or a
    Command Data Set Type leaves the element out.  ``instance`` is an Affected SOP Instance UID
    other than that of the request, "" leaves it out together with the class.
    """

    def change(answer: Answer) -> Iterable[Step]:
        request = answer.request
        number = int.from_bytes(request[0x0110], "little")
        uid = request[0x1000] if instance is None else instance.encode()
        elements = [
            (0x0002, b"" if instance == "" else request[0x0002]),
            (0x0100, struct.pack("<H", field)),
            (0x0120, None if add_to_id is None else struct.pack("<H", number + add_to_id)),
            (0x0800, None if data_set is None else struct.pack("<H", data_set)),
            (0x0900, None if status is None else struct.pack("<H", status)),
            (0x0902, comment.encode()),
            (0x1000, uid),
        ]
        return (command(answer.pdu[10], [(n, value) for n, value in elements if value]),)

    return change


class Swapped:
    """Two messages outstanding, each answered for the SOP instance of the other; a `Rewrite`."""

    def __init__(self) -> None:
        self._first: Answer | None = None

    def __call__(self, answer: Answer) -> Iterable[Step]:
        if answer.kind != wire.P_DATA_TF:
            return (answer.pdu,)
        first, self._first = self._first, answer
        if first is None:
            return (Held(),)
        uids = [a.request[0x1000].rstrip(b"\0").decode() for a in (first, answer)]
        return (*response(instance=uids[1])(first), *response(instance=uids[0])(answer))


def command(context_id: int, elements: Iterable[tuple[int, bytes]]) -> bytes:
    """A P-DATA-TF with a command set of these elements."""
    body = b"".join(
        struct.pack("<HHI", 0, number, len(value) + len(value) % 2)
        + value
        + b"\0" * (len(value) % 2)
        for number, value in elements
    )
    body = struct.pack("<HHII", 0, 0, 4, len(body)) + body
    size = len(body)
    return struct.pack(">BxIIBB", wire.P_DATA_TF, size + 6, size + 2, context_id, 0x03) + body


def even(element: tuple[int, bytes]) -> tuple[int, bytes]:
    """With a value of even length, as all have."""
    number, value = element
    return number, value + bytes(len(value) % 2)


# -- the A-ASSOCIATE-AC ---------------------------------------------------------------------------


def contexts(choose: Callable[[int, str], tuple[int, int, str] | None]) -> Change:
    """Another answer to each presentation context.

    ``choose`` gets id and accepted transfer syntax and gives id, result (PS3.8 table 9-18) and
    transfer syntax, or None for no answer at all.
    """

    def change(pdu: bytes) -> Iterable[Step]:
        fixed, items = pdu[6:74], b""
        for kind, value in wire_items(pdu[74:]):
            if kind != _CONTEXT:
                items += item(kind, value)
                continue
            syntax = value[8:].rstrip(b"\0").decode()
            chosen = choose(value[0], syntax)
            if chosen is not None:
                number, result, other = chosen
                sub = item(_SYNTAX, other.encode()) if other else b""
                items += item(_CONTEXT, struct.pack(">BxBx", number, result) + sub)
        return (struct.pack(">BxI", wire.ASSOCIATE_AC, 68 + len(items)) + fixed + items,)

    return change


def maximum_length(length: int) -> Change:
    """Another Maximum Length (PS3.8 §D.1)."""

    def change(pdu: bytes) -> Iterable[Step]:
        at = pdu.rindex(struct.pack(">BxH", 0x51, 4)) + 4
        return (pdu[:at] + struct.pack(">I", length) + pdu[at + 4 :],)

    return change


def window(invoked: int) -> Change:
    """Grants an asynchronous operations window (PS3.7 §D.3.3.3), which our acceptor would not."""

    def change(pdu: bytes) -> Iterable[Step]:
        at = 74
        while pdu[at] != _USER_INFORMATION:
            at += 4 + int.from_bytes(pdu[at + 2 : at + 4], "big")
        user = pdu[at + 4 :] + item(0x53, struct.pack(">HH", invoked, 1))
        body = pdu[6:at] + item(_USER_INFORMATION, user)
        return (struct.pack(">BxI", wire.ASSOCIATE_AC, len(body)) + body,)

    return change


def wire_items(data: bytes) -> Iterable[tuple[int, bytes]]:
    """Type and value of the items of an A-ASSOCIATE PDU."""
    at = 0
    while at < len(data):
        kind, length = struct.unpack_from(">BxH", data, at)
        yield kind, data[at + 4 : at + 4 + length]
        at += 4 + length


def item(kind: int, value: bytes) -> bytes:
    """An item or sub-item."""
    return struct.pack(">BxH", kind, len(value)) + value
