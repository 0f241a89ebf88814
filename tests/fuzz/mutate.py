"""Inputs without end: seeds, their structure changed now and then, their bytes in every case.

Owns the choice of what to damage.  The same seed of the random numbers gives the same inputs.  Must
not know any format beyond `tree.Flat`.
"""

from collections.abc import Callable, Iterator, Sequence
from random import Random

from tests.fuzz.tree import LIES, Flat, Node, flatten, reshape

LONGEST = 16 * 1024
"""Bytes of an input at most; longer ones of a kind are `growth`'s."""
_POOL = 64
_RESHAPE_EVERY = 24
_KEEP_HEAD = 0.85

MAGIC = (
    b"\0",
    b"\xff",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x80\0\0\0",
    b"\0\0\0\x80",
    b"\x04\0\0\0\0\x06\0\0\0\x02\x03\x02",  # a P-DATA-TF with an empty value
    b"\x05\0\0\0\0\x04\0\0\0\0",  # A-RELEASE-RQ
    b"\x06\0\0\0\0\x04\0\0\0\0",
    b"\x07\0\0\0\0\x04\0\0\0\0",
    b"\x16\x03\x01",
    b"GET / HTTP/1.1\r\n",
    b"\xfe\xff\x00\xe0\xff\xff\xff\xff",  # an item, its end, the end of its sequence
    b"\xfe\xff\x0d\xe0\0\0\0\0",
    b"\xfe\xff\xdd\xe0\0\0\0\0",
    b"\xff\xfe\xe0\x00\xff\xff\xff\xff",
    b"SQ\0\0\xff\xff\xff\xff",
    b"UN\0\0\xff\xff\xff\xff",
    b"OB\0\0\xff\xff\xff\xff",
    b"DICM",
    b"\x02\x00\x10\x00UI",
    b"\x1b$B",
    b"\x1b-F\xe1",
    b"\\",
    b"^=",
    b"1.2.840.10008.1.2.1\0",
    b"1.2.840.10008.1.2.1.99",
    b"\x00\x00\x00\x08\x02\x00\x00\x00\x01\x01",  # Command Data Set Type: none follows
    b"\x00\x00\x00\x01\x02\x00\x00\x00\x01\x00",  # Command Field: C-STORE-RQ
)


class Mutator:
    """``kept`` and ``head`` as of `core.Target`."""

    def __init__(
        self,
        seeds: Sequence[tuple[bytes, list[Node]]],
        seed: str,
        *,
        head: int,
        kept: int,
        magic: Sequence[bytes] = MAGIC,
    ) -> None:
        self._random = Random(seed)
        self._seeds = seeds
        self._flat = [flatten(first, nodes) for first, nodes in seeds]
        self._pool = list(self._flat)
        self._parts = [node for _, nodes in seeds for node in _all(nodes)]
        self._head = head
        self._kept = kept
        self._magic = magic

    def inputs(self, count: int) -> Iterator[bytes]:
        """``count`` inputs; each call goes on where the last one ended."""
        for number in range(count):
            if number % _RESHAPE_EVERY == 0:
                self._reshape()
            yield self._one()

    def _reshape(self) -> None:
        first, nodes = self._random.choice(self._seeds)
        flat = flatten(first, reshape(nodes, self._random, self._parts))
        if len(flat.data) > LONGEST:
            return
        if len(self._pool) < len(self._flat) + _POOL:
            self._pool.append(flat)
        else:
            place = len(self._flat) + int(self._random.random() * _POOL)
            self._pool[place] = flat

    def _one(self) -> bytes:
        random = self._random.random
        flat = self._pool[int(random() * len(self._pool))]
        data = bytearray(flat.data)
        if self._kept and random() > _KEEP_HEAD:
            data[0] = int(random() * 256)
        for at in range(self._kept, self._head):
            data[at] = int(random() * 256)
        # None, most often one or two, seldom more: a case with much wrong ends at the first of it.
        for _ in range(int(5 * random() * random())):
            _OPERATIONS[int(random() * len(_OPERATIONS))](self, data, flat)
        return bytes(data[:LONGEST])

    def _place(self, data: bytearray) -> int:
        return self._head + int(self._random.random() * (len(data) - self._head))

    def _start(self, data: bytearray, flat: Flat) -> int:
        """Mostly the beginning of a part."""
        if self._random.random() < 0.75:
            at = flat.starts[int(self._random.random() * len(flat.starts))]
            if self._head <= at <= len(data):
                return at
        return self._place(data)

    def _flip(self, data: bytearray, flat: Flat) -> None:
        if len(data) > self._head:
            data[self._place(data)] ^= 1 << int(self._random.random() * 8)

    def _set(self, data: bytearray, flat: Flat) -> None:
        if len(data) > self._head:
            data[self._place(data)] = int(self._random.random() * 256)

    def _length(self, data: bytearray, flat: Flat) -> None:
        random = self._random.random
        if not flat.lengths:
            return
        at, width, little = flat.lengths[int(random() * len(flat.lengths))]
        order = "little" if little else "big"
        old = int.from_bytes(data[at : at + width], order)  # type: ignore[arg-type]
        if random() < 0.5:
            new = old + (-8, -4, -2, -1, 1, 2, 4, 8)[int(random() * 8)]
        elif random() < 0.8:
            new = LIES[int(random() * len(LIES))]
        else:
            new = len(data) - at - width
        new &= (1 << 8 * width) - 1
        data[at : at + width] = new.to_bytes(width, order)  # type: ignore[arg-type]

    def _truncate(self, data: bytearray, flat: Flat) -> None:
        if len(data) > self._head:
            del data[self._start(data, flat) :]

    def _delete(self, data: bytearray, flat: Flat) -> None:
        at = self._start(data, flat)
        del data[at : at + 1 + int(self._random.random() * 12)]

    def _duplicate(self, data: bytearray, flat: Flat) -> None:
        a, b = sorted((self._start(data, flat), self._start(data, flat)))
        times = (1, 1, 2, 10)[int(self._random.random() * 4)]
        if (b - a) * times <= LONGEST:
            data[b:b] = data[a:b] * times

    def _splice(self, data: bytearray, flat: Flat) -> None:
        other = self._pool[int(self._random.random() * len(self._pool))]
        a = other.starts[int(self._random.random() * len(other.starts))]
        b = other.starts[int(self._random.random() * len(other.starts))]
        at = self._start(data, flat)
        if a < b:
            data[at:at] = other.data[a:b]
        else:
            data[at:] = other.data[a:]

    def _insert(self, data: bytearray, flat: Flat) -> None:
        at = self._start(data, flat)
        data[at:at] = self._magic[int(self._random.random() * len(self._magic))]

    def _overwrite(self, data: bytearray, flat: Flat) -> None:
        at = self._start(data, flat)
        value = self._magic[int(self._random.random() * len(self._magic))]
        data[at : at + len(value)] = value

    def _swap(self, data: bytearray, flat: Flat) -> None:
        a, b, c = sorted(self._start(data, flat) for _ in range(3))
        data[a:c] = data[b:c] + data[a:b]


_OPERATIONS: tuple[Callable[[Mutator, bytearray, Flat], None], ...] = (
    Mutator._flip,
    Mutator._flip,
    Mutator._set,
    Mutator._length,
    Mutator._length,
    Mutator._length,
    Mutator._truncate,
    Mutator._delete,
    Mutator._duplicate,
    Mutator._splice,
    Mutator._insert,
    Mutator._overwrite,
    Mutator._swap,
)


def _all(nodes: list[Node]) -> Iterator[Node]:
    for node in nodes:
        yield node
        if node.parts is not None:
            yield from _all(node.parts)
