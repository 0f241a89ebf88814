"""Who was promised what: the account that a run under fire keeps of its own.

Owns what was sent, what of it was acknowledged, what has come to each destination, and what one
of them has committed.  Bytes are compared the moment they arrive.  Knows the product only by what
it answers and delivers.
"""

import asyncio
import hashlib
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from perf import data, wire
from perf.witness import Seen

_CONTEXT = 1
_TOLD = 20
_STALLED, _LOST = 60.0, 10.0


class Goods:
    """Instances of one kind, each of them different from all others."""

    def __init__(self, kind: data.Kind, destinations: Sequence[str]) -> None:
        self.kind = kind
        self.destinations = tuple(destinations)
        self._template = data.template(kind)

    def make(self, sender: int, number: int) -> tuple[str, bytes]:
        """SOP Instance UID and data set of one."""
        template = self._template
        uid = data.instance_uid(self.kind, sender, number)
        body = bytearray(template.data)
        body[template.uid_offset : template.uid_offset + len(uid)] = uid.encode()
        struct.pack_into("<Q", body, template.pixel_offset, sender << 40 | number)
        return uid, bytes(body)


async def pdus(body: bytes, maximum: int) -> AsyncIterator[bytes]:
    """The P-DATA-TF PDUs of a data set."""
    for pdu in wire.data_pdus(_CONTEXT, memoryview(body), maximum):
        yield pdu


class Book:
    """Every instance is sent once; after its acknowledgement it is owed to its destinations.

    One of them may be ``committing``: its commitment is owed as well.
    """

    def __init__(self, destinations: Sequence[str], *, committing: str = "") -> None:
        self.sent: dict[str, tuple[bytes, tuple[str, ...]]] = {}
        self.acknowledged: set[str] = set()
        self.refused: Counter[str] = Counter()
        self.arrived: dict[str, Counter[str]] = {name: Counter() for name in destinations}
        self.owed: dict[str, set[str]] = {name: set() for name in destinations}
        self.committed: set[str] = set()
        self.uncommitted: set[str] = set()
        """Acknowledged, meant for the one that commits, and not committed yet."""
        self._committing = committing
        self.faults: list[str] = []
        self.more_faults = 0

    def fault(self, text: str) -> None:
        """Something is wrong; the first ones are kept."""
        if len(self.faults) < _TOLD:
            self.faults.append(text)
        else:
            self.more_faults += 1

    def send(self, uid: str, body: bytes, destinations: tuple[str, ...]) -> None:
        """An instance is about to be sent."""
        self.sent[uid] = (hashlib.sha256(body).digest(), destinations)

    def answer(self, uid: str, status: int) -> None:
        """It was answered."""
        if status:
            self.refused[f"{status:04X}"] += 1
            return
        self.acknowledged.add(uid)
        for name in self.sent[uid][1]:
            if uid not in self.arrived[name]:
                self.owed[name].add(uid)
        if self._committing in self.sent[uid][1] and uid not in self.committed:
            self.uncommitted.add(uid)

    def commit(self, uid: str) -> None:
        """The one that commits says that it keeps an instance."""
        if uid not in self.sent:
            self.fault(f"{uid} was committed and never sent")
        self.committed.add(uid)
        self.uncommitted.discard(uid)

    def is_owed(self, name: str, uid: str) -> bool:
        """Whether an instance has yet to come to a destination, or to be committed by it."""
        return uid in self.owed[name] or (name == self._committing and uid in self.uncommitted)

    def receiver(self, name: str) -> Callable[[Seen], None]:
        """What a witness is to call for each data set that came."""
        arrived, owed = self.arrived[name], self.owed[name]

        def came(seen: Seen) -> None:
            uid = seen.sop_instance_uid
            digest, destinations = self.sent.get(uid, (b"", ()))
            if digest.hex() != seen.digest:
                self.fault(f"{uid} came to {name} with other bytes than were sent")
            elif name not in destinations:
                self.fault(f"{uid} came to {name}, where it was not to go")
            arrived[uid] += 1
            owed.discard(uid)

        return came

    @property
    def settled(self) -> bool:
        """Whether everything that was acknowledged has arrived, and is committed where it is to
        be."""
        return not any(self.owed.values()) and not self.uncommitted

    def lines(self) -> list[tuple[str, object]]:
        """The account as rows of a table."""
        rows: list[tuple[str, object]] = [
            ("instances sent", len(self.sent)),
            ("acknowledged", len(self.acknowledged)),
            ("refused", dict(self.refused) or 0),
        ]
        for name, arrived in self.arrived.items():
            rows += [
                (f"delivered to {name}", len(arrived)),
                ("  more than once", sum(count > 1 for count in arrived.values())),
                ("  never acknowledged", len(arrived.keys() - self.acknowledged)),
                ("  acknowledged and lost", len(self.owed[name])),
            ]
        if self._committing:
            rows += [
                (f"committed by {self._committing}", len(self.committed)),
                ("  acknowledged and not committed", len(self.uncommitted)),
            ]
        return rows


async def settled(book: Book, waiting: Callable[[], Awaitable[int]]) -> None:
    """Until the gateway has nothing ``waiting`` any longer and the book is settled.

    A fault in the book when nothing moves any longer before that.
    """
    best, since, left = -1, time.monotonic(), 1
    while time.monotonic() - since < (_STALLED if left else _LOST):
        arrived = sum(map(len, book.arrived.values())) + len(book.committed)
        if arrived > best:
            best, since = arrived, time.monotonic()
        left = await waiting()
        if not left and book.settled:
            return
        await asyncio.sleep(0.1)
    book.fault(f"nothing moves any longer, {left} deliveries wait")
