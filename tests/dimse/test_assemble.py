"""Messages put together from fragments however they were cut, and out of order."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.dimse.assemble import Assembler
from router.dimse.command import Command, encode_command, encode_store_request
from router.dimse.messages import DataSet
from router.ul.errors import AbortSource, RemoteProtocolError
from tests.dimse.samples import CT_IMAGE_STORAGE, ROWS, full, least

STORE = encode_store_request(1, CT_IMAGE_STORAGE, "1.2.3")
ECHO = encode_command(Command(0x0030, message_id=2, affected_sop_class_uid="1.2.840.10008.1.1"))


class Log:
    """Collects messages; an assembler's callbacks."""

    def __init__(self, command_limit: int = 64 * 1024) -> None:
        self.messages: list[tuple[int, Command, bytes | None]] = []
        self.data: bytearray | None = None
        self.assembler = Assembler(
            self.on_command, self.on_data, self.on_end, command_limit=command_limit
        )

    def on_command(self, context_id: int, command: Command) -> None:
        assert self.data is None
        self.messages.append((context_id, command, None))
        if command.has_data_set:
            self.data = bytearray()

    def on_data(self, piece: memoryview) -> None:
        assert self.data is not None
        assert len(piece)
        self.data += piece

    def on_end(self) -> None:
        assert self.data is not None
        context_id, command, _ = self.messages.pop()
        self.messages.append((context_id, command, bytes(self.data)))
        self.data = None

    def pdv(self, context_id: int, control: int, value: bytes = b"") -> None:
        self.assembler.fragment(context_id, control, memoryview(value), True)


_MESSAGES = st.builds(
    lambda row, some, flag, data: (
        command := (full if some else least)(
            row, row.data_set is DataSet.MUST or (flag and row.data_set is DataSet.MAY)
        ),
        data if command.has_data_set else None,
    ),
    st.sampled_from(ROWS),
    st.booleans(),
    st.booleans(),
    st.binary(max_size=300),
)


def _cuts(draw: st.DrawFn, value: bytes) -> Iterator[bytes]:
    """The value in pieces, down to one byte each, some of them empty."""
    if draw(st.integers(0, 9)) == 0:
        yield from (value[at : at + 1] for at in range(len(value)))
        return
    at = 0
    for end in sorted(draw(st.lists(st.integers(0, len(value)), max_size=6))):
        yield value[at:end]
        at = end
    yield value[at:]


@st.composite
def _streams(
    draw: st.DrawFn,
) -> tuple[list[tuple[int, Command, bytes | None]], list[tuple[int, int, bytes, bool]]]:
    messages, calls = [], []
    for command, data in draw(st.lists(_MESSAGES, max_size=4)):
        context_id = draw(st.sampled_from([1, 3, 255]))
        messages.append((context_id, command, data))
        for kind, value in ((1, encode_command(command)), (0, data)):
            if value is None:
                continue
            pdvs = list(_cuts(draw, value)) or [b""]
            for number, pdv in enumerate(pdvs):
                last = 2 if number == len(pdvs) - 1 else 0
                control = kind | last | draw(st.sampled_from([0, 0xFC]))
                pieces = list(_cuts(draw, pdv)) or [b""]
                for index, piece in enumerate(pieces):
                    calls.append((context_id, control, piece, index == len(pieces) - 1))
    return messages, calls


@given(_streams())
def test_messages_come_out_whole_however_they_are_cut(
    stream: tuple[list[tuple[int, Command, bytes | None]], list[tuple[int, int, bytes, bool]]],
) -> None:
    messages, calls = stream
    log = Log()
    for context_id, control, piece, end_of_pdv in calls:
        log.assembler.fragment(context_id, control, memoryview(piece), end_of_pdv)
    assert log.messages == messages
    assert not log.assembler.under_way


def test_under_way_from_the_first_fragment_to_the_last() -> None:
    log = Log()
    seen = [log.assembler.under_way]
    log.pdv(1, 1, STORE[:50])
    seen.append(log.assembler.under_way)
    log.pdv(1, 3, STORE[50:])
    seen.append(log.assembler.under_way)
    log.pdv(1, 0, b"ab")
    seen.append(log.assembler.under_way)
    log.pdv(1, 2)
    seen.append(log.assembler.under_way)
    assert seen == [False, True, True, True, False]
    assert log.messages[0][2] == b"ab"


def test_the_last_bit_counts_only_at_the_end_of_its_pdv() -> None:
    log = Log()
    log.assembler.fragment(1, 3, memoryview(STORE[:9]), False)
    assert log.messages == []
    log.assembler.fragment(1, 3, memoryview(STORE[9:]), True)
    assert len(log.messages) == 1
    log.assembler.fragment(1, 2, memoryview(b"ab"), False)
    assert log.messages[0][2] is None
    log.assembler.fragment(1, 2, memoryview(b""), True)
    assert log.messages[0][2] == b"ab"


@pytest.mark.parametrize(
    ("pdvs", "message"),
    [
        ([(1, 2, b"ab")], "context 1 without a command"),
        ([(1, 3, ECHO), (1, 2, b"ab")], "context 1 without a command"),
        ([(1, 3, STORE), (1, 2, b"ab"), (1, 0, b"cd")], "context 1 without a command"),
        ([(1, 3, STORE), (1, 0, b"ab"), (1, 3, ECHO)], "before the end of the data set on 1"),
        ([(1, 3, STORE), (1, 1, b"")], "before the end of the data set on 1"),
        ([(1, 3, STORE), (3, 0, b"ab")], "context 3 inside a data set on 1"),
        ([(1, 1, STORE[:20]), (3, 3, STORE[20:])], "context 3 inside a command set on 1"),
        ([(1, 1, STORE[:20]), (1, 0, b"ab")], "before the end of the command set on 1"),
        ([(1, 1, b""), (1, 0, b"ab")], "before the end of the command set on 1"),
        ([(1, 3, b"")], "without Command Field"),
        ([(1, 1, b""), (1, 3, b"")], "without Command Field"),
        ([(1, 3, STORE[:-1])], "runs past the end"),
    ],
)
def test_fragments_out_of_order_are_refused(
    pdvs: list[tuple[int, int, bytes]], message: str
) -> None:
    log = Log()
    for pdv in pdvs[:-1]:
        log.pdv(*pdv)
    with pytest.raises(RemoteProtocolError, match=message) as caught:
        log.pdv(*pdvs[-1])
    assert caught.value.source is AbortSource.SERVICE_USER


def test_a_command_set_over_the_limit_is_refused_before_it_is_kept() -> None:
    log = Log(command_limit=100)
    log.pdv(1, 1, bytes(60))
    with pytest.raises(RemoteProtocolError, match="longer than 100 bytes"):
        log.pdv(1, 1, bytes(41))
    with pytest.raises(RemoteProtocolError, match="longer than 100 bytes"):
        Log(command_limit=100).pdv(1, 3, bytes(101))
    log = Log(command_limit=len(STORE))
    log.pdv(1, 3, STORE)
    assert log.messages


def test_a_data_set_has_no_limit_here() -> None:
    log = Log(command_limit=len(STORE))
    log.pdv(1, 3, STORE)
    for _ in range(100):
        log.pdv(1, 0, bytes(1024))
    log.pdv(1, 2)
    assert log.messages[0][2] == bytes(102400)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 3]),
            st.integers(0, 255),
            st.binary(max_size=40) | st.sampled_from([STORE, ECHO, STORE[:40], STORE[40:]]),
            st.booleans(),
        ),
        max_size=12,
    )
)
def test_any_sequence_is_read_or_refused(calls: list[tuple[int, int, bytes, bool]]) -> None:
    log = Log()
    for context_id, control, piece, end_of_pdv in calls:
        try:
            log.assembler.fragment(context_id, control, memoryview(piece), end_of_pdv)
        except RemoteProtocolError:
            break
    assert {command.field for _, command, _ in log.messages} <= {0x0001, 0x0030}
