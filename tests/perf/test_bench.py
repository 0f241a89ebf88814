"""The run itself: rounds, losses, exit status, and the receivers that it starts."""

import contextlib
import fcntl
import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from perf import bench, data, machine, rows_inside
from perf.contenders import (
    Dcmrouter,
    DcmrouterWarm,
    Floor,
    Sink,
    Storescp,
    allocated_bytes,
    parse_metrics,
    program,
)
from perf.processes import (
    BenchError,
    Child,
    accepts,
    cpu_seconds,
    group_members,
    resident_bytes,
    wait_until,
)
from perf.report import Sample, Target
from perf.rows import ROWS, TITLES, Row, receive
from perf.rows_floor import measure_against_floor
from perf.steps import QUICK, Bench, await_delivered, histogram_buckets, load, quantile


def quiet() -> Console:
    return Console(file=io.StringIO(), width=120)


def row(measure: Callable[[Bench, str, int], Sample], *names: str) -> Row:
    return Row("rules", "a row", "things/s", names, measure, (Target("storescp", 1, 2),))


def test_contenders_take_turns(tmp_path: Path) -> None:
    turns: list[tuple[str, int]] = []

    def measure(_: Bench, name: str, number: int) -> Sample:
        turns.append((name, number))
        return Sample(1.0)

    what = row(measure, "dcmrouter", "storescp")
    result = bench.measure_row(what, Bench(tmp_path, QUICK), 2, quiet())

    assert turns == [("dcmrouter", 0), ("storescp", 0), ("dcmrouter", 1), ("storescp", 1)]
    assert result.ratios()[0].value == 1.0


def test_a_row_of_long_rounds_has_fewer_of_them(tmp_path: Path) -> None:
    what = replace(row(lambda *_: Sample(1.0), "dcmrouter", "storescp"), most_rounds=2)
    for rounds, had in ((1, 1), (3, 2)):
        result = bench.measure_row(what, Bench(tmp_path, QUICK), rounds, quiet())
        assert [len(each.samples) for each in result.outcomes.values()] == [had, had]


def test_a_loss_fails_the_contender_and_leaves_the_others(tmp_path: Path) -> None:
    def measure(_: Bench, name: str, number: int) -> Sample:
        if name == "dcmrouter" and number == 1:
            raise BenchError("dcmrouter received 9 of 10")
        return Sample(1.0)

    what = row(measure, "dcmrouter", "storescp")
    result = bench.measure_row(what, Bench(tmp_path, QUICK), 3, quiet())

    assert result.failed
    assert result.outcomes["dcmrouter"].reason == "round 2: dcmrouter received 9 of 10"
    assert len(result.outcomes["storescp"].samples) == 3


@pytest.mark.parametrize(("lost", "status"), [(False, 0), (True, 1)])
def test_a_run_writes_its_result_and_ends_with_1_after_a_loss(
    lost: bool, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(*_: object) -> Sample:
        if lost:
            raise BenchError("gone")
        return Sample(3.0)

    what = Row("rules", "a row", "µs", ("rules",), measure, subjects=("rules",))
    monkeypatch.setattr(bench, "ROWS", (what,))
    monkeypatch.setattr(machine, "in_memory", lambda path: False)
    output = tmp_path / "out.json"
    words = ["--quick", "--output", str(output), "--work", str(tmp_path / "work")]

    assert bench.run(bench.parse_arguments(words), quiet()) == status

    found = json.loads(output.read_text())
    assert found["quick"] is True
    assert found["command"] == "python -m perf.bench --quick"
    assert found["machine"]["cores"] == os.cpu_count()
    assert found["rows"]["rules"]["contenders"]["rules"]["status"] == ("failed" if lost else "ok")
    assert str(tmp_path) not in output.read_text()


@pytest.mark.parametrize("words", [["--only", "nothing"], ["--rounds", "0"], ["--frobnicate"]])
def test_bad_usage_ends_with_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        bench.parse_arguments(words)
    assert ended.value.code == 2


def test_a_file_system_in_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "file_system", lambda path: "tmpfs")
    console = quiet()
    assert bench.run(bench.parse_arguments(["--quick", "--work", str(tmp_path)]), console) == 2


def test_a_second_run_in_the_same_place_is_refused(tmp_path: Path) -> None:
    options = bench.parse_arguments(["--quick", "--only", "rules", "--work", str(tmp_path)])
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert bench.run(options, quiet()) == 2
    assert not (tmp_path / "quick.json").exists()


def test_only_a_whole_run_replaces_the_published_result() -> None:
    def output(*words: str) -> str:
        return bench.default_output(bench.parse_arguments(words)).name

    assert output() == "latest.json"
    assert output("--rounds", "5") == "latest.json"
    assert output("--rounds", "2") == "partial.json"
    assert output("--only", "rules") == "partial.json"
    assert output("--quick") == "quick.json"


def test_every_row_has_titles_and_targets_among_its_contenders() -> None:
    for each in ROWS:
        assert set(each.contenders) <= TITLES.keys()
        assert {t.against for t in each.targets} <= {"", *each.contenders}
        assert set(each.subjects) <= set(each.contenders)
    assert len({each.name for each in ROWS}) == len(ROWS)


def test_the_quantile_is_the_upper_bound_of_its_bucket() -> None:
    text = """\
# TYPE dcmrouter_event_loop_stall_seconds histogram
dcmrouter_event_loop_stall_seconds_bucket{le="0.001"} 990.0
dcmrouter_event_loop_stall_seconds_bucket{le="0.005"} 998.0
dcmrouter_event_loop_stall_seconds_bucket{le="0.01"} 999.0
dcmrouter_event_loop_stall_seconds_bucket{le="+Inf"} 1000.0
dcmrouter_event_loop_stall_seconds_count 1000.0
"""
    buckets = histogram_buckets(parse_metrics(text)["dcmrouter_event_loop_stall_seconds_bucket"])
    assert quantile(buckets, 0.5) == 0.001
    assert quantile(buckets, 0.999) == 0.01
    assert quantile(buckets, 0.9999) == float("inf")
    with pytest.raises(BenchError, match="no samples"):
        quantile([(1.0, 0.0)], 0.5)


@pytest.mark.parametrize("kind", [Dcmrouter, DcmrouterWarm])
@pytest.mark.parametrize("forward", [0, 11113])
def test_the_configuration_of_the_product_is_one_that_it_accepts(
    kind: type[Dcmrouter], forward: int, tmp_path: Path
) -> None:
    from router.config.load import load as load_configuration

    contender = kind(tmp_path, forward_port=forward)
    contender.home.mkdir(parents=True)
    contender.port = 11112
    command = contender.command()

    loaded = load_configuration(Path(command[-1]), {})

    assert loaded.config.local[0].ae_title == contender.called_ae
    assert (loaded.config.spool.spare_segments == 12) is (kind is DcmrouterWarm)


def test_a_child_is_measured_and_ended_with_what_it_forked(tmp_path: Path) -> None:
    script = r"import os,signal; os.fork(); os.write(1, b'{}\n'); signal.pause()"
    child = Child([sys.executable, "-c", script], tmp_path / "log", pipe=True)
    with contextlib.closing(child.popen.stdout):  # type: ignore[type-var]
        assert child.popen.stdout is not None
        assert [child.popen.stdout.readline(), child.popen.stdout.readline()] == [b"{}\n"] * 2
        assert len(group_members(child.pid)) == 2
        assert cpu_seconds(child.pid) >= 0
        assert resident_bytes(child.pid) > 10**6
        child.stop(grace=5)
    assert child.popen.returncode is not None
    # SIGKILL is sent, but an orphan may take a moment to die of it, and to be reaped by init.
    assert wait_until(lambda: all(_is_zombie(pid) for pid in group_members(child.pid)), 10)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_a_child_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    child = Child([sys.executable, "-c", "import signal; signal.pause()"], tmp_path / "log")
    assert child.wait(0.2) == -9


def test_the_floor_counts_what_its_sender_sends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Smaller than what is sent, so that it has to go round to the start of its file.
    monkeypatch.setattr(Floor, "size", 300_000)
    what = Bench(tmp_path, QUICK)
    measure = measure_against_floor("mr", lambda bench: bench.files("mr", 2, 2), "n")

    sample = measure(what, "floor", 0)

    assert sample.work == 4
    assert sample.value > 0


def test_the_cheapest_sender_sends_what_the_files_hold(tmp_path: Path) -> None:
    what = Bench(tmp_path, QUICK)
    measure = measure_against_floor("mr", lambda bench: bench.files("mr", 2, 2), "n")

    sample = measure(what, "dcmrouter", 0)

    assert sample.work == 4
    streams = sorted((tmp_path / "data" / data.VERSION / "replay" / "mr").iterdir())
    files = sorted(path for each in what.files("mr", 2, 2) for path in each)
    assert len(streams) == len(files) == 4
    for stream, file in zip(streams, files, strict=True):
        body = file.read_bytes()
        assert stream.read_bytes().endswith(body[-100:])


def test_the_sink_in_a_process_of_its_own(tmp_path: Path) -> None:
    what = Bench(tmp_path, QUICK)
    with Sink(tmp_path, 6) as sink:
        sender = Storescp(tmp_path)
        sender.port = sink.port
        report = load(what, sender, "--kind", "mr", "--associations", 3, "--instances", 2)
        delivered = sink.wait(30)
        assert await_delivered(sink, 6)["stores"] == 6

    assert report["acknowledged"] == delivered["instances"] == 6
    assert not accepts(sink.port)


def test_a_sink_that_gets_too_little_says_how_much(tmp_path: Path) -> None:
    with Sink(tmp_path, 5) as sink, pytest.raises(BenchError, match="0 of 5 delivered"):
        sink.wait(0.1)


@pytest.mark.interop
@pytest.mark.skipif(not (program("storescp") and program("dcmsend")), reason="needs DCMTK")
def test_storescp_receives_what_dcmsend_sends(tmp_path: Path) -> None:
    what = Bench(tmp_path, QUICK)
    lists = what.files("mr", 2, 2)

    sample = receive(what, "storescp", lists, "n")

    assert sample.work == 4
    assert str(tmp_path) not in sample.command
    assert not (tmp_path / "run" / "storescp").exists()


@pytest.mark.interop
@pytest.mark.skipif(not (program("storescp") and program("dcmsend")), reason="needs DCMTK")
def test_a_receiver_that_lost_an_instance_fails_the_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = Bench(tmp_path, QUICK)
    lists = what.files("mr", 1, 2)
    monkeypatch.setattr("perf.steps.counted", lambda contender, expected: expected - 1)
    with pytest.raises(BenchError, match="received 1 of 2"):
        receive(what, "storescp", lists, "n")


def test_allocated_bytes_counts_blocks_and_not_holes(tmp_path: Path) -> None:
    (tmp_path / "full").write_bytes(b"x" * 8192)
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(10**9)
    assert allocated_bytes(tmp_path) < 10**6


def test_the_made_up_rules_are_accepted_and_tell_instances_apart() -> None:
    for mixed in (False, True):
        sample = rows_inside.decision_microseconds(500, 50, mixed)
        assert 1 < sample.extra["routes_per_decision"] < 20
        assert sample.extra["tags"] == 30 + mixed


def test_the_machine_is_described_without_its_name(tmp_path: Path) -> None:
    text = json.dumps({**machine.describe(tmp_path), **machine.versions()})
    assert os.uname().nodename not in text
    assert machine.file_system(Path("/proc")) == "proc"
