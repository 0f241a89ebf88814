"""The made-up backlog is one that the product itself can start on, account for and deliver."""

from pathlib import Path

import pytest

from perf import scale
from perf.backlog import Backlog
from perf.contenders import Sink
from perf.gateway import GatewayProcess
from perf.processes import BenchError
from perf.rows_scale import ROWS
from perf.scale import Amount, Case, Scale, cases
from perf.steps import QUICK, Bench
from router.spool.index import Index
from router.spool.settings import SpoolSettings
from router.spool.spool import Spool


def test_everything_that_waits_is_there_and_readable(tmp_path: Path) -> None:
    # More than are stored at once, so that some share the bytes of others.
    Backlog(150, ["a", "b", "c"], 1_700_000_000.0).make(tmp_path / "data", segments=2)
    index = Index.open(tmp_path / "data" / "index.sqlite")
    spool = Spool.open(
        tmp_path / "data" / "spool", SpoolSettings(), lambda _: None, lambda *_: None
    )
    try:
        assert len(spool.segments.sealed()) >= 2
        # Nothing lies past the position that the index knows.
        assert list(spool.recover(index.indexed_position())) == []
        assert {line.destination: line.count for line in index.queue_summary() if line.count} == {
            "a": 50,
            "b": 50,
            "c": 50,
        }
        account = index.account(audit=True)
        assert account.received == index.last_id() == 150
        assert account.balanced
        for destination in "abc":
            for waiting in index.lease(destination, 100, 1_800_000_000.0, ()):
                reader = spool.open_reader(waiting.ref)
                try:
                    whole = bytearray(reader.length)
                    reader.read([memoryview(whole)])
                finally:
                    reader.close()
                assert len(whole) == waiting.ref.length > 131_072
    finally:
        spool.close()
        index.close()


def test_what_waited_is_delivered_once_the_destination_lives(tmp_path: Path) -> None:
    home = tmp_path / "home"
    Backlog(100, ["dead-000"], 1_700_000_000.0).make(home / "data", segments=1)
    with Sink(tmp_path, 100) as sink:
        remote = {"ae_title": "SINK", "host": "127.0.0.1", "port": sink.port}
        rules = [{"name": "everything", "to": "dead-000"}]
        settings = {"remotes": {"dead-000": remote}, "rules": rules}
        with GatewayProcess(home, settings):
            assert sink.wait(30)["instances"] == 100


@pytest.mark.parametrize("live", [False, True])
def test_a_case_is_measured_and_accounted_for(tmp_path: Path, live: bool) -> None:
    measured = Scale(tmp_path, Case("small", 90, 3, 1, live), Amount(0.2, 20, 0.05))

    found = measured.measure()

    assert 0 < found.start_seconds < 30
    assert 0 < found.start_after_kill_seconds < 30
    assert 10 < found.resident_mb <= found.peak_mb
    assert found.rate > 0
    measured.close()
    assert not (tmp_path / "run" / "scale-small").exists()


def test_a_backlog_that_lost_one_fails_the_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale, "_AGREED", 0.2)
    make = Backlog.make

    def one_less(self: Backlog, directory: Path, *, segments: int) -> None:
        make(Backlog(29, ["dead-000"], 1_700_000_000.0), directory, segments=segments)

    monkeypatch.setattr(Backlog, "make", one_less)
    with pytest.raises(BenchError, match="30 were to wait"):
        Scale(tmp_path, Case("lossy", 30, 1, 1, live=False), Amount(0.1, 4, 0.05)).measure()


def test_the_rows_compare_the_cases_that_are_measured() -> None:
    # Half of them shut is a case of `make scale` alone: the bench has fifteen minutes.
    names = {case.name for case in cases(1_000_000, 1_000, 100, 2_000)} - {"shut-large"}
    assert {name for row in ROWS for name in row.contenders} == names


def test_one_measurement_serves_all_rows_of_a_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def measure(self: Scale) -> scale.Figures:
        calls.append("measured")
        return scale.Figures(1.0, 2.0, 90.0, 120.0, 0.01, 3.0, 1500.0, 0.4, 200.0)

    monkeypatch.setattr(Scale, "measure", measure)
    bench = Bench(tmp_path, QUICK)
    values = {
        row.name: row.measure(bench, "waiting-large", 0).value
        for row in ROWS
        if "waiting-large" in row.contenders
    }

    assert calls == ["measured"]
    assert values == {
        "scale-start": 1.0,
        "scale-start-killed": 2.0,
        "scale-memory": 90.0,
        "scale-receive": 1500.0,
    }
