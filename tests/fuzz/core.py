"""What a target is, and what targets share: cuts, frozen connections, the count of what is kept.

Owns the form of an input: a target reads its choices (a state, a transfer syntax, how to cut) from
the first bytes, so that an input is whole in itself.  Must not know any one format.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from random import Random
from typing import Any, NamedTuple

from router.ul import Connection, OnFragment
from tests.fuzz.tree import Node
from tests.ul.support import Values


class Violation(AssertionError):
    """The code under test broke a promise that it makes for every input."""


class Outcome(NamedTuple):
    """``refused``: the input ended in the error that is declared for it; ``held``: most bytes that
    were kept at a time, as far as the target counts them."""

    refused: bool
    held: int = 0


@dataclass(frozen=True, slots=True)
class Cost:
    """What one case may cost at most: a base, and a share for each byte of input.

    ``lines`` are lines of Python that were executed, ``memory`` is bytes allocated at the peak.
    """

    lines: int = 5_000
    lines_per_byte: int = 100
    memory: int = 256 * 1024
    memory_per_byte: int = 100


@dataclass(frozen=True, slots=True)
class Target:
    """``check`` raises Violation, or whatever the code under test lets out, and returns else.

    The first ``head`` bytes of an input are choices of the target; the first ``kept`` of them a
    seed sets with intent, the others are anybody's.  ``seeds`` are trees behind such a head.
    ``weight`` is the target's share of the cases, ``magic`` what to put in besides what is of all.
    """

    name: str
    check: Callable[[bytes], Outcome]
    seeds: Callable[[], Sequence[tuple[bytes, list[Node]]]]
    head: int
    kept: int = 1
    weight: int = 8
    cost: Cost = Cost()
    magic: Sequence[bytes] = ()


_SINGLE = 8
_BYTES = 800
_PIECES = 24


def _sizes(number: int) -> tuple[int, ...]:
    if number < _SINGLE:
        return (1,)
    random = Random(number)
    longest = random.choice((4, 20, 50, 100, 300, 1000))
    return tuple(random.randint(1, longest) for _ in range(random.randint(1, 9)))


SIZES = tuple(_sizes(number) for number in range(256))
"""By the byte that chooses: the sizes of pieces, over and over; the first eight are all 1."""


def pieces(data: bytes, number: int) -> Iterator[memoryview]:
    """``data`` cut in the way that ``number``, 0 to 255, stands for.

    After some pieces the rest comes whole: what cuts can break they break early.
    """
    view = memoryview(data)
    sizes = SIZES[number]
    at, turn, end = 0, 0, len(data)
    for _ in range(_BYTES if number < _SINGLE else _PIECES):
        if at >= end:
            return
        size = sizes[turn]
        yield view[at : at + size]
        at += size
        turn = turn + 1 if turn + 1 < len(sizes) else 0
    if at < end:
        yield view[at:]


def held(thing: object) -> int:
    """Bytes in the buffers that an object keeps in its slots, one level into containers."""
    total = 0
    names = (name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ()))
    for name in names:
        value = getattr(thing, name, None)
        if isinstance(value, bytes | bytearray):
            total += len(value)
        elif isinstance(value, tuple):
            for part in value:
                if isinstance(part, bytes | bytearray):
                    total += len(part)
        elif isinstance(value, dict):
            total += _held_by(value)
    return total


def _held_by(values: dict[Any, Any]) -> int:
    """Bytes in the values of a dictionary: tuples that end in them, or what has a ``size``."""
    first = next(iter(values.values()), None)
    if isinstance(first, tuple) and isinstance(first[-1], bytes):
        return sum(len(value[-1]) for value in values.values())
    if hasattr(first, "size"):
        return sum(value.size for value in values.values())
    return 0  # what is wanted, the same for all


class FrozenConnection:
    """A connection in some state, of which any number of copies can be had cheaply.

    Made once per state through the public interface, by `tests.ul.support`; making one anew for
    each case would cost several times what is under test.
    """

    def __init__(self, connection: Connection) -> None:
        values = {name: getattr(connection, name) for name in Connection.__slots__}
        self._plain = [(n, v) for n, v in values.items() if not isinstance(v, bytearray)]
        self._buffers = [(n, bytes(v)) for n, v in values.items() if isinstance(v, bytearray)]
        # The agreed contexts are a dict that is replaced when it changes, never written to.
        assert not any(isinstance(v, list | set) for v in values.values())
        (self._callback,) = (n for n, v in values.items() if isinstance(v, Values))
        self._kept = attrgetter(*(n for n, _ in self._buffers))

    def held(self, connection: Connection) -> int:
        """Bytes in the buffers of a copy."""
        return sum(map(len, self._kept(connection)))

    def revive(self, on_fragment: OnFragment) -> Connection:
        connection: Connection = Connection.__new__(Connection)
        for name, value in self._plain:
            setattr(connection, name, value)
        for name, buffer in self._buffers:
            setattr(connection, name, bytearray(buffer))
        setattr(connection, self._callback, on_fragment)
        return connection
