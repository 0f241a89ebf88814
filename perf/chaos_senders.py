"""Who sends to the gateway of `perf.chaos`, and what.

Owns the shares of what is sent, and going on over a new association after each that broke.
"""

import asyncio
import random

from pydicom.uid import MRImageStorage

from perf import data, wire
from perf.book import Book, Goods, pdus
from perf.chaos_settings import ASLEEP, BOTH, EITHER, STEADY
from perf.load import Association

# Above this many deliveries that are owed the senders take their time, or the queue of the one
# that is often away would only ever grow.
_OWED = 4_000
_TIME_TAKEN = 0.02
_TROUBLE = (wire.WireError, OSError, TimeoutError, asyncio.IncompleteReadError)
# With the share of each among what is sent.  The large ones lie in files of their own; the last
# ones wait until the end, so that the segments around them become sparse and are compacted.
_GOODS = (
    (Goods(data.Kind("chaos-small", 4, MRImageStorage, "MR", 64, 64, 16), BOTH), 60),
    (Goods(data.Kind("chaos-mr", 5, MRImageStorage, "MR", 256, 256, 16), BOTH), 34),
    (Goods(data.Kind("chaos-large", 6, MRImageStorage, "MR", 1024, 1024, 16), BOTH), 4),
    (Goods(data.Kind("chaos-late", 7, MRImageStorage, "OT", 64, 64, 16), (*BOTH, ASLEEP)), 2),
    (Goods(data.Kind("chaos-unwanted", 10, MRImageStorage, "PR", 64, 64, 16), ()), 3),
    (Goods(data.Kind("chaos-either", 8, MRImageStorage, "US", 64, 64, 16), (EITHER,)), 20),
)
_WHOLE = Goods(data.Kind("chaos-whole", 9, MRImageStorage, "CR", 64, 64, 16), (STEADY,))
_WHOLE_SHARE = 10
_STUDY = 20  # instances that follow one another in one study


# Seconds between two instances, at most, of three associations in four; the others have no pause.
# More is more than a gateway that lives for a second can archive: its spool grows, and its starts.
_PAUSES = (0.0, 0.1, 0.1, 0.1)


class Sender:
    """Sends instances for as long as it may, over a new association after each that broke."""

    def __init__(self, number: int, port: int, book: Book, seed: int) -> None:
        self._number = number
        self._port = port
        self._book = book
        self._random = random.Random(seed)
        self._serial = self._whole = 0

    async def run(self, up: asyncio.Event, stop: asyncio.Event) -> None:
        """Until `stop`; when it cannot connect it waits for `up`."""
        while not stop.is_set():
            association = Association(self._port, "ROUTER", MRImageStorage)
            try:
                await association.open()
                pause = self._random.choice(_PAUSES)
                for _ in range(self._random.randint(1, 200)):
                    await self._send(association)
                    if pause:
                        await asyncio.sleep(self._random.uniform(0.0, pause))
                    if stop.is_set():
                        break
                await association.release()
            except _TROUBLE:
                await association.close()
                await _first(up, stop)

    async def _send(self, association: Association) -> None:
        shares = [*_GOODS, (_WHOLE, _WHOLE_SHARE)]
        (goods,) = self._random.choices([g for g, _ in shares], [share for _, share in shares])
        self._serial += 1
        uid, body = goods.make(self._number, self._serial)
        if goods is _WHOLE:
            self._whole += 1
            body = _in_study(body, self._number, self._whole // _STUDY)
        self._book.send(uid, body, goods.destinations)
        self._book.answer(uid, await association.store(uid, pdus(body, association.maximum_length)))
        if sum(len(self._book.owed[name]) for name in BOTH) > _OWED:
            await asyncio.sleep(_TIME_TAKEN)


def _in_study(body: bytes, sender: int, number: int) -> bytes:
    """The same instance, but of the study of that number."""
    of_template = data.instance_uid(_WHOLE.kind, data.TEMPLATE_SENDER, 0, level=1).encode()
    of_number = data.instance_uid(_WHOLE.kind, sender, number, level=1).encode()
    if body.count(of_template) != 1:
        raise ValueError("the study of the template was not found")
    return body.replace(of_template, of_number)


async def _first(*events: asyncio.Event) -> None:
    waiters = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
    for waiter in waiters:
        waiter.cancel()
