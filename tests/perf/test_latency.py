"""The sender with a timetable, and what is made of its notes."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import MRImageStorage
from pynetdicom import AE, evt

from perf import data, latency, openloop, sink, wire
from perf.latency import Distribution, Latencies, Latency, Level, Settings
from perf.openloop import Note, Plan, Timetable
from perf.processes import BenchError
from perf.rows_latency import ROWS
from perf.steps import QUICK, Bench

_TEMPLATE = len(data.template(data.KINDS["mr"]).data)


class SlowSink(sink.SinkProtocol):
    """Holds every answer back by what ``waits`` gives next, in seconds."""

    waits: Iterator[float] = iter(())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._real = self._transport
        self._transport = self  # type: ignore[assignment]

    def write(self, answer: bytes) -> None:
        is_response = answer[0] == wire.P_DATA_TF
        wait = next(self.waits, 0.0) if is_response else 0.0
        if wait:
            asyncio.get_running_loop().call_later(wait, self._real.write, answer)
        else:
            self._real.write(answer)


@contextlib.contextmanager
def serving(protocol: Callable[[], asyncio.BufferedProtocol]) -> Iterator[int]:
    """A server on a loop and a thread of its own, since the sender blocks."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def listen() -> asyncio.Server:
        return await loop.create_server(protocol, "127.0.0.1", 0)

    server = asyncio.run_coroutine_threadsafe(listen(), loop).result(10)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def plan(port: int, **changes: Any) -> Plan:
    values = {"called": "ROUTER", "kind": "mr", "associations": 2, "rate": 200.0, "seconds": 0.1}
    return Plan(port, **{**values, **changes})


def test_quantiles_are_of_values_that_were_measured() -> None:
    found = Distribution.of(n / 1000 for n in range(1000, 0, -1))
    assert found.count == 1000
    assert [found.p50, found.p99, found.p999, found.max] == pytest.approx([500, 990, 999, 1000])
    assert Distribution.of([0.25]).p50 == Distribution.of([0.25]).p999 == 250
    assert Distribution.of([-0.001]).max == 0.0
    with pytest.raises(BenchError, match="nothing was measured"):
        Distribution.of([])


def test_a_timetable_does_not_wait_for_anybody() -> None:
    table = Timetable(plan(1, rate=10.0, seconds=0.3), 100.0)
    seen = []
    while (due := table.next_due(105.0)) is not None:
        seen.append(due)
        table.taken += 1
    assert seen == [pytest.approx(100.0 + n / 10) for n in range(3)]


def test_without_a_rate_the_next_is_due_at_once_until_the_time_is_over() -> None:
    table = Timetable(plan(1, rate=0.0, seconds=2.0), 100.0)
    assert table.next_due(101.9) == 101.9
    assert table.next_due(102.0) is None


def test_what_waits_behind_a_stall_is_counted_from_when_it_was_due() -> None:
    """One answer that is late makes one long wait for it, and many for those behind it."""
    protocol = type("Late", (SlowSink,), {"waits": iter([0.0] * 10 + [0.4])})
    with serving(lambda: protocol(sink.Tally())) as port:
        result = openloop.run(plan(port, associations=1, rate=100.0, seconds=0.6))

    assert result.failures == {}
    assert result.due == len(result.notes) == 60
    late_answers = [n for n in result.notes if n.answered - n.sent > 0.3]
    late_from_due = [n for n in result.notes if n.answered - n.due > 0.15]
    assert len(late_answers) == 1
    assert len(late_from_due) >= 15
    assert all(n.due <= n.sent <= n.answered for n in result.notes)


def test_a_closed_loop_keeps_all_associations_at_work() -> None:
    tally = sink.Tally()
    with serving(lambda: sink.SinkProtocol(tally)) as port:
        result = openloop.run(plan(port, associations=3, rate=0.0, seconds=0.2))

    assert result.failures == {}
    assert result.due == len(result.notes) == tally.stores == len(tally.instances) > 3
    assert tally.data_bytes == tally.stores * _TEMPLATE
    # Each one's times lie in this order on the clock that both processes share.
    for note in result.notes:
        arrived = tally.instances[note.uid.encode() + b"\0" * (len(note.uid) % 2)]
        assert note.due <= arrived <= note.answered


def test_another_implementation_gets_every_instance_whole_and_distinct() -> None:
    received: list[Any] = []

    def store(event: evt.Event) -> int:
        received.append(event.dataset)
        return 0xA700 if len(received) == 3 else 0

    ae = AE(ae_title="ROUTER")
    ae.add_supported_context(MRImageStorage)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    assert server is not None
    assert server.socket is not None
    try:
        port = server.socket.getsockname()[1]
        result = openloop.run(plan(port, associations=1, rate=50.0, seconds=0.1))
    finally:
        server.shutdown()

    assert len({ds.SOPInstanceUID for ds in received}) == 5
    assert len({ds.PixelData for ds in received}) == 5
    assert {len(ds.PixelData) for ds in received} == {131_072}
    assert (result.due, len(result.notes), result.failures) == (5, 4, {"status A700": 1})


def test_a_receiver_that_hangs_up_is_a_failure_and_not_a_wait() -> None:
    class Rude(sink.SinkProtocol):
        def _value_taken(self, n: int) -> None:
            if self._control == 0x02:
                self._transport.abort()
            else:
                super()._value_taken(n)

    with serving(lambda: Rude(sink.Tally())) as port:
        result = openloop.run(plan(port, associations=2, rate=100.0, seconds=0.1))

    assert result.notes == []
    assert sum(result.failures.values()) == 2
    assert result.due == 2


def test_a_receiver_that_never_answers_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openloop, "_LATE", 0.2)
    protocol = type("Never", (SlowSink,), {"waits": iter([3600.0] * 10)})
    with serving(lambda: protocol(sink.Tally())) as port:
        result = openloop.run(plan(port, associations=2, rate=100.0, seconds=0.1))

    assert result.notes == []
    assert any("not answered" in why for why in result.failures)


def test_nobody_there_is_an_error_at_once() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            openloop.run(plan(holder.getsockname()[1]))


def test_notes_survive_their_files(tmp_path: Path) -> None:
    notes = [Note("2.25.1", 1.5, 2.25, 3.125), Note("2.25." + "9" * 30, 4.0, 5.0, 6.0)]
    openloop.write_notes(tmp_path / "sent", notes[:1])
    openloop.write_notes(tmp_path / "sent", notes[1:])
    assert list(openloop.read_notes(tmp_path / "sent")) == notes

    sink.write_notes(tmp_path / "came", {b"2.25.1": 0.1 + 0.2, b"2.25.22\0": 7.0})
    assert sink.read_notes(tmp_path / "came") == {"2.25.1": 0.1 + 0.2, "2.25.22": 7.0}


def _load(path: Path, notes: list[Note], due: int) -> latency._Load:
    openloop.write_notes(path, notes)
    report = {"due": float(due), "began": 0.0, "ended": 2.0}
    return latency._Load(0.5, 1.0, report, path, 5.0, 0.25)


def test_what_was_acknowledged_and_never_came_fails_the_measurement(tmp_path: Path) -> None:
    notes = [Note("2.25.1", 0.0, 0.1, 0.2), Note("2.25.2", 1.0, 1.1, 1.2)]
    load = _load(tmp_path / "sent", notes, 2)
    with pytest.raises(BenchError, match="1 of 2 were acknowledged and are lost"):
        latency._level(load, {"2.25.1": 0.3})


def test_the_four_waits_begin_and_end_where_they_say(tmp_path: Path) -> None:
    load = _load(tmp_path / "sent", [Note("2.25.1", 0.0, 0.1, 0.3)], 1)
    level = latency._level(load, {"2.25.1": 0.7})
    assert level.answer.max == pytest.approx(200)
    assert level.answer_from_due.max == pytest.approx(300)
    assert level.delivery.max == pytest.approx(400)
    assert level.delivery_from_due.max == pytest.approx(700)
    assert level.reached == 0.5


def test_each_row_shows_its_part_of_one_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def measure(self: Latency) -> Latencies:
        calls.append("measured")
        four = [Distribution(9, n, n + 1, n + 2, n + 3) for n in (10.0, 20.0, 30.0, 40.0)]
        level = Level(0.5, 100.0, 99.0, four[0], four[1], four[2], four[3], 7.5, 0.4)
        return Latencies("mr", 200.0, (level,))

    monkeypatch.setattr(Latency, "measure", measure)
    bench = Bench(tmp_path, QUICK)
    rows = {row.name: row for row in ROWS}
    samples = {
        name: rows[f"latency-{name}-mr"].measure(bench, "at-50", 0)
        for name in ("answer", "delivery", "stall")
    }

    assert calls == ["measured"]
    assert {name: sample.value for name, sample in samples.items()} == {
        "answer": 11.0,
        "delivery": 31.0,
        "stall": 7.5,
    }
    assert samples["answer"].extra["p999_from_due_ms"] == 22.0
    for name, sample in samples.items():
        assert {key for _, key in rows[f"latency-{name}-mr"].details} <= sample.extra.keys()
    rows["latency-answer-mr"].measure(bench, "at-50", 1)
    assert len(calls) == 2


def test_the_running_gateway_is_measured(tmp_path: Path) -> None:
    found = Latency(tmp_path, "mr", Settings(0.3, 0.4, 2, shares=(0.3,))).measure()

    level = found.at(0.3)
    assert found.highest > 0
    assert level.answer.count == level.delivery.count > 0
    assert 0 < level.answer.p50 <= level.answer.p99 <= level.answer.max
    assert level.answer.p50 <= level.answer_from_due.p50 < level.delivery_from_due.max
    assert level.stall_p999_ms > 0
    assert list((tmp_path / "run").iterdir()) == []
