"""Messages as trees of parts with lengths, and changes to their structure.

Owns the nesting that all formats here share: a head, a length field, parts, a tail.  Lengths are
true again after a change, so that what is wrong is met deep inside and not at the first length.
Must not know what any part means.
"""

from dataclasses import dataclass
from random import Random


@dataclass(slots=True)
class Node:
    """``head``, a length field of ``width`` bytes (0: none), the parts or the value, ``tail``.

    ``length`` stands in place of the true one, for undefined lengths and for lies.
    """

    head: bytes = b""
    width: int = 0
    little: bool = False
    parts: "list[Node] | None" = None
    value: bytes = b""
    tail: bytes = b""
    length: int | None = None

    def copy(self) -> "Node":
        parts = None if self.parts is None else [part.copy() for part in self.parts]
        return Node(self.head, self.width, self.little, parts, self.value, self.tail, self.length)


@dataclass(frozen=True, slots=True)
class Flat:
    """The bytes of a tree; where its length fields (position, width, little) and parts are."""

    data: bytes
    lengths: tuple[tuple[int, int, bool], ...]
    starts: tuple[int, ...]


def flatten(head: bytes, nodes: list[Node]) -> Flat:
    data = bytearray(head)
    lengths: list[tuple[int, int, bool]] = []
    starts: list[int] = []
    for node in nodes:
        _append(node, data, lengths, starts)
    starts.append(len(data))
    return Flat(bytes(data), tuple(lengths), tuple(starts))


def _append(
    node: Node, data: bytearray, lengths: list[tuple[int, int, bool]], starts: list[int]
) -> None:
    starts.append(len(data))
    data += node.head
    at = len(data)
    if node.width:
        lengths.append((at, node.width, node.little))
        data += bytes(node.width)
    if node.parts is None:
        data += node.value
    else:
        for part in node.parts:
            _append(part, data, lengths, starts)
    if node.width:
        length = len(data) - at - node.width if node.length is None else node.length
        field = (length & ((1 << 8 * node.width) - 1)).to_bytes(
            node.width, "little" if node.little else "big"
        )
        data[at : at + node.width] = field
    data += node.tail


_DEEPEST = 100
LIES = (0, 1, 2, 3, 4, 7, 8, 0x7F, 0xFF, 0x100, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)


def reshape(nodes: list[Node], random: Random, others: list[Node]) -> list[Node]:
    """A copy with up to three changes of structure; ``others`` are parts to graft in."""
    copy = [node.copy() for node in nodes]
    for _ in range(1 + int(random.random() * 3)):
        lists = _lists(copy)
        parts = lists[int(random.random() * len(lists))]
        if not parts:
            parts.append(random.choice(others).copy())
            continue
        _change(parts, int(random.random() * len(parts)), random, others)
    return copy


def _lists(nodes: list[Node]) -> list[list[Node]]:
    found = [nodes]
    for parts in found:  # grows while it is walked over
        found += [node.parts for node in parts if node.parts is not None]
    return found


def _change(parts: list[Node], at: int, random: Random, others: list[Node]) -> None:
    node = parts[at]
    match int(random.random() * 11):
        case 0:
            del parts[at]
        case 1:
            parts[at:at] = [node.copy() for _ in range(random.choice((1, 2, 20)))]
        case 2:
            other = int(random.random() * len(parts))
            parts[at], parts[other] = parts[other], node
        case 3:
            parts.insert(at, random.choice(others).copy())
        case 4:  # the same shell around itself, some deep
            for _ in range(random.choice((1, 2, 8, 70, _DEEPEST))):
                node = Node(node.head, node.width, node.little, [node], b"", node.tail, node.length)
            parts[at] = node
        case 5:
            if node.width:
                node.length = random.choice(LIES)
        case 6:
            node.parts, node.value = None, random.randbytes(random.choice((0, 1, 2, 5, 60)))
        case 7:
            node.value, node.parts = node.value * random.choice((2, 9)), None
        case 8:
            node.tail = b""
        case 9:
            random.shuffle(parts)
        case _:
            head = bytearray(node.head)
            if head:
                head[int(random.random() * len(head))] = int(random.random() * 256)
                node.head = bytes(head)
