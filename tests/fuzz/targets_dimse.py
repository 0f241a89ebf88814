"""Targets of DIMSE: command sets, fragments in any order, whole conversations on one association.

Owns the promises of `router.dimse` for every input.  Must not know how inputs are made.
"""

from collections.abc import Callable, Sequence
from functools import cache

from router.dicom.scan import Scanner
from router.dimse.assemble import Assembler
from router.dimse.command import (
    ABSENT,
    Command,
    clean_error_comment,
    decode_command,
    encode_command,
    respond,
)
from router.dimse.fragment import encode_message
from router.dimse.responder import StoreResponder
from router.dimse.status import CANNOT_UNDERSTAND, SUCCESS
from router.ul import Event, LocalProtocolError, ProtocolFailed, RemoteProtocolError
from tests.fuzz import seeds_ul
from tests.fuzz.core import FrozenConnection, Outcome, Target, Violation, held, pieces
from tests.fuzz.targets_ul import same
from tests.fuzz.tree import Node
from tests.ul.support import EXPLICIT, associated

_MEANINGLESS = b"\0\0\xfe\xff\0\0\0\0"
"""An element of group 0000 that nobody knows; behind it no short way over a C-STORE-RQ is taken."""
_LIMIT = 400
_LONGEST_REPLY = 4096
_PEER_MAXIMUM = 200
_WANTED = (0x00080016, 0x00080018, 0x00080060, 0x0020000D, 0x0020000E)


# -- command sets ------------------------------------------------------------------------------


def check_command(data: bytes) -> Outcome:
    """`decode_command`, both its ways; what is answered to it; what is written of it again."""
    try:
        command = decode_command(data)
    except RemoteProtocolError:
        return Outcome(True)
    if (slowly := decode_command(data + _MEANINGLESS)) != command:
        raise Violation(f"the short way reads otherwise:\n  {command!r}\n  {slowly!r}")
    if decode_command(memoryview(data)) != command:
        raise Violation("bytes and a view of them read otherwise")
    _ = (repr(command), command.data_set_fault, command.name)
    _check_text(command)
    answered(command, 0)
    try:
        first = decode_command(encode_command(command))
    except LocalProtocolError:
        return Outcome(False)  # a Command Field that is no message
    if (second := decode_command(encode_command(first))) != first:
        raise Violation(f"written and read again is another command:\n  {first!r}\n  {second!r}")
    return Outcome(False)


def _check_text(command: Command) -> None:
    for value in command:
        if isinstance(value, str) and not (value.isascii() and value.isprintable()):
            raise Violation(f"text that is not printable ASCII: {value!r}")
        if isinstance(value, int) and not -1 <= value <= 0xFFFF:
            raise Violation(f"a number that no US element holds: {value}")


def answered(command: Command, maximum_length: int) -> bytes:
    """The answer of an acceptor that knows no such service; none of what has no Message ID.

    Must be possible for whatever was read.
    """
    if command.is_response or command.message_id == ABSENT:
        return b""
    comment = clean_error_comment(f"{command.name} \\ {command.affected_sop_class_uid}")
    response = encode_command(respond(command, 0x0211, error_comment=comment))
    return encode_message(3, response, None, maximum_length)


# -- fragments ---------------------------------------------------------------------------------


def check_assembler(data: bytes) -> Outcome:
    """A list of values, each behind context, control and a length of two bytes.

    Byte 0 chooses the bound on a command set, byte 1 the cuts.
    """
    if len(data) < 2:
        return Outcome(True)
    limit = _LIMIT if data[0] & 1 else 64 * 1024
    whole, refused, _ = _assemble(data, limit, None)
    cut, _, most = _assemble(data, limit, data[1])
    same(whole, cut, "the messages")
    return Outcome(refused, most)


def _assemble(
    data: bytes, limit: int, cuts: int | None
) -> tuple[list[tuple[object, ...]], bool, int]:
    """What came of it, whether it was refused, most bytes that were kept."""
    log: list[tuple[object, ...]] = []
    collected = bytearray()

    def on_end() -> None:
        log.append(("end", bytes(collected)))
        collected.clear()

    assembler = Assembler(
        lambda context_id, command: log.append((context_id, command)),
        collected.extend,
        on_end,
        command_limit=limit,
    )
    at, most, refused = 2, 0, False
    try:
        while at + 4 <= len(data):
            context_id, control = data[at], data[at + 1]
            start = at + 4
            at = start + (data[at + 2] << 8 | data[at + 3])
            value = data[start:at]
            cut = list(pieces(value, cuts)) if cuts is not None and value else [memoryview(value)]
            for number, piece in enumerate(cut, 1):
                assembler.fragment(context_id, control, piece, number == len(cut))
            most = max(most, held(assembler))
    except RemoteProtocolError as error:
        log.append(("refused", str(error)))
        refused = True
    if most > min(limit, len(data)):
        raise Violation(f"{most} bytes of a command set are kept, at most {limit} may be")
    log.append(("rest", refused or assembler.under_way, bytes(collected)))
    return log, refused, most


# -- conversations -----------------------------------------------------------------------------


class _Service:
    """An acceptor's user: stores are scanned and answered at their end, others at once."""

    def __init__(self) -> None:
        self.assembler = Assembler(self._on_command, self._on_data, self._on_end)
        self.said = bytearray()
        self.log: list[tuple[object, ...]] = []
        self._responder = StoreResponder(seeds_ul.CONTEXT, _PEER_MAXIMUM)
        self._store: tuple[Command, Scanner] | None = None
        self._begun = False

    def _on_command(self, context_id: int, command: Command) -> None:
        if self._begun:
            raise Violation("a command before the end of the data set before it")
        self.log.append((context_id, command))
        self._begun = command.has_data_set
        if command.field == 0x0001 and command.has_data_set:
            self._store = command, Scanner(EXPLICIT, _WANTED, value_limit=256)
        else:
            self.said += answered(command, _PEER_MAXIMUM)

    def _on_data(self, piece: memoryview) -> None:
        if not self._begun:
            raise Violation("data without a command")
        if self._store is not None:
            self._store[1].feed(piece)

    def _on_end(self) -> None:
        self._begun = False
        if self._store is None:
            return
        (command, scanner), self._store = self._store, None
        scanner.finish()
        status = CANNOT_UNDERSTAND if scanner.error else SUCCESS
        self.log.append((scanner.error, sorted(scanner.attributes().items())))
        self.said += self._responder.response(
            command.message_id,
            command.affected_sop_class_uid,
            command.affected_sop_instance_uid,
            status,
            scanner.error,
        )


@cache
def _frozen() -> FrozenConnection:
    return FrozenConnection(associated()[1].connection)


def check_conversation(data: bytes) -> Outcome:
    """A stream behind a good A-ASSOCIATE, through connection, assembler, scanner and answers.

    Byte 0 is nothing's, byte 1 the cuts.
    """
    if len(data) < 2:
        return Outcome(True)
    whole = _converse((memoryview(data)[2:],), len(data))
    cut = _converse(tuple(pieces(data[2:], data[1])), len(data))
    for one, other, what in zip(whole, cut, ("messages", "answers", "events"), strict=True):
        same(one, other, what)
    return Outcome(bool(whole[2]))


def _converse(
    parts: Sequence[memoryview], length: int
) -> tuple[list[tuple[object, ...]], bytes, list[str]]:
    service = _Service()
    connection = _frozen().revive(service.assembler.fragment)
    events: list[Event] = []
    for part in parts:
        events += connection.receive(part, 1.0)
    if len(service.said) > _LONGEST_REPLY + 8 * length:
        raise Violation(f"{len(service.said)} bytes of answers to {length}")
    failures = [str(e.error) for e in events if isinstance(e, ProtocolFailed)]
    return service.log, bytes(service.said), failures


# -- seeds -------------------------------------------------------------------------------------


def _command_seeds() -> Sequence[tuple[bytes, list[Node]]]:
    return [(b"", seeds_ul.command_nodes(command)) for command in seeds_ul.commands()]


def _fragment_seeds() -> Sequence[tuple[bytes, list[Node]]]:
    command_nodes: Callable[[bytes], list[Node]] = seeds_ul.command_nodes
    seeds = []
    for command in seeds_ul.commands():
        nodes = [Node(b"\3\3", 2, False, command_nodes(command))]
        if decode_command(command).has_data_set:
            nodes += [Node(b"\3\0", 2, value=b"abc" * 20), Node(b"\3\2", 2, value=b"de")]
        half = len(command) // 2
        cut = [Node(b"\3\1", 2, value=command[:half]), Node(b"\3\3", 2, value=command[half:])]
        seeds += [(b"\0\0", nodes), (b"\1\0", [*cut, *nodes[1:], *nodes])]
    return seeds


def _conversation_seeds() -> Sequence[tuple[bytes, list[Node]]]:
    ends = (seeds_ul.RELEASE_RQ, seeds_ul.ABORT)
    data = seeds_ul.data_streams()
    return seeds_ul.streams((b"\0\0", (*data, b"".join(data[:4]), *(data[0] + e for e in ends))))


TARGETS = (
    Target("command", check_command, _command_seeds, head=0, kept=0, weight=150),
    Target("assembler", check_assembler, _fragment_seeds, head=2, weight=70),
    Target("conversation", check_conversation, _conversation_seeds, head=2, kept=0, weight=40),
)
