"""The fuzzers find what is put there to be found: without this they could be blind."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from router.dicom import charset, elements, part10, values
from router.dimse import assemble, command
from router.ul import connection, items, pdu
from rules import source
from tests.fuzz import run as fuzz_run
from tests.fuzz import runner
from tests.fuzz.core import Violation
from tests.fuzz.growth import line_ratio, time_ratio
from tests.fuzz.targets import TARGETS
from tests.fuzz.test_growth import MOST_LINES, MOST_TIME

Patch = pytest.MonkeyPatch
CASES = 6_000
"""Each of these faults is found in far fewer."""


def _values_of_any_length(patch: Patch) -> None:
    for module in (pdu, connection):
        patch.setattr(module, "check_pdv_length", lambda length, left: None)


def _fields_past_the_end(patch: Patch) -> None:
    def number(self: Any, size: int) -> int:
        (value,) = struct.unpack_from(">H" if size == 2 else ">B", self._data, self.pos)
        self.pos += size
        return int(value)

    patch.setattr(items.Cursor, "number", number)


def _text_is_ascii(patch: Patch) -> None:
    patch.setattr(items, "text", lambda value: value.strip(b"\0 ").decode("ascii"))


def _every_request_is_accepted(patch: Patch) -> None:
    def accepted(rq: Any, ac: Any, role: str = "requestor") -> dict[int, object]:
        return {context.id: object() for context in rq.presentation_contexts}

    patch.setattr(connection, "accepted", accepted)


def _a_header_in_part_is_forgotten(patch: Patch) -> None:
    collect = connection.Connection._collect

    def forget(self: Any, data: memoryview, pos: int, end: int, size: int) -> int:
        after = collect(self, data, pos, end, size)
        if len(self._buffer) == 5:
            self._buffer.clear()
        return after

    patch.setattr(connection.Connection, "_collect", forget)


def _announced_length_is_allocated(patch: Patch) -> None:
    admit, kept = connection.Connection._admit, list[bytearray]()

    def allocate(self: Any) -> None:
        (length,) = struct.unpack_from(">I", self._buffer, 2)
        kept[:] = [bytearray(min(length, 1 << 24))]
        admit(self)

    patch.setattr(connection.Connection, "_admit", allocate)


def _a_refused_request_leaves_a_timer(patch: Patch) -> None:
    release = connection.Connection.release

    def early(self: Any, now: float) -> None:
        self._deadline = now
        release(self, now)

    patch.setattr(connection.Connection, "release", early)


def _command_without_bound(patch: Patch) -> None:
    init = assemble.Assembler.__init__

    def unbounded(self: Any, *callbacks: Any, command_limit: int) -> None:
        init(self, *callbacks, command_limit=1 << 30)

    patch.setattr(assemble.Assembler, "__init__", unbounded)


def _short_way_reads_otherwise(patch: Patch) -> None:
    short = command._decode_store_request

    def wrong(data: bytes) -> command.Command | None:
        found = short(data)
        return found and found._replace(priority=0)

    patch.setattr(command, "_decode_store_request", wrong)


def _long_header_is_read_before_it_is_whole(patch: Patch) -> None:
    read = elements.read_header

    def early(encoding: Any, buffer: Any, at: int, end: int) -> Any:
        return read(encoding, bytes(buffer) + bytes(4), at, end + 4)

    patch.setattr(elements, "read_header", early)


def _error_is_not_translated(patch: Patch) -> None:
    patch.setattr(part10, "BadHeader", KeyError)


def _text_without_encoding(patch: Patch) -> None:
    def decode(self: Any, value: bytes, delimiters: bytes) -> str:
        return value.decode("ascii", "surrogateescape")

    patch.setattr(charset.CharacterSet, "decode", decode)


def _tags_of_odd_length(patch: Patch) -> None:
    def tags(vr: str, value: bytes, characters: Any, big: bool) -> tuple[str, ...]:
        return tuple(f"{tag:08X}" for (tag,) in struct.iter_unpack("<I", value))

    patch.setitem(values._READERS, "AT", tags)


def _answers_that_cannot_be_written(patch: Patch) -> None:
    patch.setattr(command, "_printable", lambda text: text)


def _yaml_errors_pass(patch: Patch) -> None:
    def lost(error: Exception, text: str, file: str) -> source.Problem:
        raise error

    patch.setattr(source, "_syntax_problem", lost)


FAULTS: list[tuple[str, Callable[[Patch], None]]] = [
    ("acceptor", _values_of_any_length),
    ("items", _fields_past_the_end),
    ("pdu", _text_is_ascii),
    ("negotiation", _every_request_is_accepted),
    ("acceptor", _a_header_in_part_is_forgotten),
    ("requestor", _a_header_in_part_is_forgotten),
    ("conversation", _a_header_in_part_is_forgotten),
    ("acceptor", _announced_length_is_allocated),
    ("session", _a_refused_request_leaves_a_timer),
    ("assembler", _command_without_bound),
    ("command", _short_way_reads_otherwise),
    ("command", _answers_that_cannot_be_written),
    ("scan", _long_header_is_read_before_it_is_whole),
    ("meta", _error_is_not_translated),
    ("text", _text_without_encoding),
    ("text", _tags_of_odd_length),
    ("rules", _yaml_errors_pass),
    ("config", _yaml_errors_pass),
]


@pytest.mark.parametrize(
    ("name", "fault"), FAULTS, ids=[f"{name}-{fault.__name__[1:]}" for name, fault in FAULTS]
)
def test_a_planted_fault_is_found(
    name: str, fault: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    assert runner.run(TARGETS[name], 20, "sound").finding is None
    fault(monkeypatch)
    report = runner.run(TARGETS[name], CASES, "planted", sampled=20)
    assert report.finding is not None
    assert report.cases < CASES


def test_what_never_ends_is_ended(monkeypatch: Patch) -> None:
    def endless(self: Any, *counted: int) -> None:
        while True:
            pass

    monkeypatch.setattr(items.Reader, "count", endless)
    monkeypatch.setattr(runner, "LONGEST_CASE", 0.05)
    finding = runner.run(TARGETS["pdu"], 10, "x").finding
    assert finding is not None
    assert "no end after" in finding.error


def test_work_above_its_bound_is_found(monkeypatch: Patch) -> None:
    count = items.Reader.count

    def slowly(self: Any, *counted: int) -> None:
        for _ in range(5_000):
            pass
        count(self, *counted)

    monkeypatch.setattr(items.Reader, "count", slowly)
    finding = runner.run(TARGETS["pdu"], 10, "x", sampled=1).finding
    assert finding is not None
    assert "lines were executed" in finding.error


def test_a_square_of_lines_is_found(monkeypatch: Patch) -> None:
    collect = connection.Connection._collect

    def counting(self: Any, data: memoryview, pos: int, end: int, size: int) -> int:
        for _ in self._buffer[::64]:
            pass
        return collect(self, data, pos, end, size)

    monkeypatch.setattr(connection.Connection, "_collect", counting)
    assert line_ratio("a request by the byte") > MOST_LINES


@pytest.mark.timed
def test_a_square_of_copies_is_found(monkeypatch: Patch) -> None:
    collect = connection.Connection._collect

    def copying(self: Any, data: memoryview, pos: int, end: int, size: int) -> int:
        for _ in range(64):  # one copy is a square too, and on a busy machine not told from noise
            self._buffer = bytearray(self._buffer)
        return collect(self, data, pos, end, size)

    monkeypatch.setattr(connection.Connection, "_collect", copying)
    assert time_ratio("a request by the byte") > MOST_TIME


def test_a_finding_is_saved_and_found_again(
    monkeypatch: Patch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--target", "text", "--seed", "s", "--save", str(tmp_path)]
    assert fuzz_run.main([*arguments, "--cases", "50"]) == 0
    assert not list(tmp_path.iterdir())
    _text_without_encoding(monkeypatch)
    assert fuzz_run.main([*arguments, "--cases", str(CASES)]) == 1
    (path,) = tmp_path.iterdir()
    printed = capsys.readouterr().out
    assert "text that has no encoding" in printed
    assert f"--target text --replay {path}" in printed
    with pytest.raises(Violation, match="no encoding"):
        fuzz_run.main(["--target", "text", "--replay", str(path)])
    monkeypatch.undo()
    assert fuzz_run.main(["--target", "text", "--replay", str(path)]) == 0


def test_two_processes_find_it_too_and_say_as_much_as_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--target", "items", "--target", "text", "--seed", "s", "--cases", "4000"]
    tables = []
    for jobs in ("1", "2"):
        assert fuzz_run.main([*arguments, "--jobs", jobs]) == 0
        rows = capsys.readouterr().out.splitlines()[1:4]
        tables.append([row.split()[:4] for row in rows])
    assert tables[0] == tables[1]
