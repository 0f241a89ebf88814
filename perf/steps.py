"""The steps of which measurements are made: files, senders, load, counting, delivery.

Owns how much a run does (`Sizes`) and what its measurements share (`Bench`).  A step that lost
something or took too long raises BenchError.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast

from perf import data, rows_inside
from perf.contenders import CONTENDERS, ENVIRONMENT, Contender, Sink, counted, program, read_line
from perf.processes import BenchError, Child, free_port, wait_until

_SENDER_LIMIT = 300.0
DELIVERY_LIMIT = 300.0
T = TypeVar("T")
# Contenders of one row that are another one driven differently.
BASE = {"dcmrouter-receiving": "dcmrouter", "dcmrouter-one": "dcmrouter"}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much each row moves; `QUICK` only shows that everything runs."""

    senders: int = 4
    mr: int = 500
    ct: int = 250
    xa: int = 8
    forward: int = 1000
    associations: int = 200
    ct_each: int = 5
    big_bytes: int = 2_000_000_000
    short_associations: int = 1000
    stall_seconds: float = 10.0
    queue_large: int = 1_000_000
    queue_small: int = 1_000
    queue_batches: int = 120
    decisions: int = 20_000
    latency_peak_seconds: float = 3.0
    latency_seconds: float = 5.0
    scale_large: int = 1_000_000
    scale_small: int = 1_000
    scale_segments: int = 2_000
    scale_destinations: int = 100
    scale_seconds: float = 4.0
    scale_delivered: int = 3_000
    scale_quiet: float = 1.0


QUICK = Sizes(
    mr=10,
    ct=6,
    xa=1,
    forward=40,
    associations=20,
    ct_each=2,
    big_bytes=64_000_000,
    short_associations=20,
    stall_seconds=1.0,
    queue_large=10_000,
    queue_batches=4,
    decisions=2_000,
    latency_peak_seconds=0.3,
    latency_seconds=0.5,
    scale_large=4_000,
    scale_small=100,
    scale_segments=4,
    scale_seconds=0.5,
    scale_delivered=40,
    scale_quiet=0.2,
)


@dataclass(slots=True)
class Bench:
    """What the measurements share: where they work, how much they do, what they made."""

    work: Path
    sizes: Sizes
    notes: dict[str, float] = field(default_factory=dict)
    _made: dict[tuple[str, int, int], list[list[Path]]] = field(default_factory=dict)
    _indexes: dict[int, rows_inside.FilledIndex] = field(default_factory=dict)
    _rates: dict[tuple[int, int], rows_inside.QueueRates] = field(default_factory=dict)
    _once: dict[tuple[object, ...], object] = field(default_factory=dict)
    _ending: list[Callable[[], None]] = field(default_factory=list)

    def once(self, key: tuple[object, ...], make: Callable[[], T]) -> T:
        """What ``make`` gave for that key, made when it is first asked for: one measurement that
        several rows show a part of."""
        if key not in self._once:
            self._once[key] = make()
        return cast("T", self._once[key])

    def files(self, kind: str, senders: int, count: int) -> list[list[Path]]:
        """Files for each sender, made and read once."""
        key = (kind, senders, count)
        if key not in self._made:
            root = self.work / "data"
            self._made[key] = data.make_files(root, data.KINDS[kind], senders, count)
            data.warm(self._made[key])
        return self._made[key]

    def at_end(self, call: Callable[[], None]) -> None:
        """``call`` when the bench is closed."""
        self._ending.append(call)

    def queue_rates(self, level: int, round_number: int) -> rows_inside.QueueRates:
        """Rates at this filling; both are measured once a round for all three rows."""
        if (level, round_number) not in self._rates:
            levels = (self.sizes.queue_large, self.sizes.queue_small)
            for each in levels:
                if each not in self._indexes:
                    folder = self.work / "run" / f"index-{each}"
                    self._indexes[each] = rows_inside.FilledIndex(folder, each)
            indexes = [self._indexes[each] for each in levels]
            found = rows_inside.rates_in_turns(indexes, self.sizes.queue_batches)
            self._rates.update(((n, round_number), r) for n, r in zip(levels, found, strict=True))
        return self._rates[level, round_number]

    def close(self) -> None:
        """Closes what was kept open between rounds."""
        for index in self._indexes.values():
            index.close()
        for end in self._ending:
            end()


def dcmsend(bench: Bench, contender: Contender, lists: list[list[Path]]) -> float:
    """One dcmsend per list, all at once; seconds from the first start to the last exit.

    Raises BenchError when any of them reports a failure.
    """
    log = bench.work / "logs" / "dcmsend.log"
    log.unlink(missing_ok=True)
    senders: list[Child] = []
    began = time.monotonic()
    try:
        for number, paths in enumerate(lists):
            senders.append(_dcmsend(contender.port, contender.called_ae, number, paths, log))
        for sender in senders:
            status = sender.wait(_SENDER_LIMIT)
            if status != 0:
                raise BenchError(f"dcmsend ended with {status}: {sender.tail()}")
        return time.monotonic() - began
    finally:
        for sender in senders:
            sender.stop()


def _dcmsend(port: int, called: str, number: int, paths: list[Path], log: Path) -> Child:
    command = [str(program("dcmsend")), "-q", "-aet", f"BENCH{number}", "-aec", called]
    command += ["127.0.0.1", str(port), *map(str, paths)]
    return Child(command, log, env=ENVIRONMENT)


def sender_startup(bench: Bench, lists: list[list[Path]]) -> float:
    """Seconds that the senders take before they connect: all of them against a closed port."""
    log = bench.work / "logs" / "dcmsend-startup.log"
    port = free_port()
    began = time.monotonic()
    senders = [_dcmsend(port, "NOBODY", number, paths, log) for number, paths in enumerate(lists)]
    for sender in senders:
        sender.wait(_SENDER_LIMIT)
        sender.stop()
    return time.monotonic() - began


def floor_send(bench: Bench, contender: Contender, lists: list[list[Path]]) -> float:
    """Seconds that the floor's own senders took by their own clocks."""
    return _send_lists(bench, "perf.floor", ["send", "--port", contender.port], lists)


def replay_send(bench: Bench, contender: Contender, kind: str, lists: list[list[Path]]) -> float:
    """Seconds that the senders of `perf.replay` took by their own clocks."""
    options = ["--port", contender.port, "--called", contender.called_ae]
    folder = bench.work / "data" / data.VERSION / "replay" / kind
    options += ["--sop-class", data.KINDS[kind].sop_class_uid, "--folder", folder]
    return _send_lists(bench, "perf.replay", options, lists)


def _send_lists(
    bench: Bench, module: str, options: Sequence[object], lists: list[list[Path]]
) -> float:
    command = [sys.executable, "-m", module, *map(str, options)]
    for number, paths in enumerate(lists):
        file = bench.work / "run" / f"list-{number}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(map(str, paths)))
        command += ["--list", str(file)]
    log = bench.work / "logs" / f"{module.rpartition('.')[2]}-send.log"
    sender = Child(command, log, pipe=True)
    try:
        return read_line(sender, _SENDER_LIMIT)["seconds"]
    finally:
        sender.stop()


def load(bench: Bench, contender: Contender, *options: object) -> Mapping[str, float]:
    """Run `perf.load` against a contender.  Raises BenchError unless all was acknowledged."""
    target = ("--port", contender.port, "--called", contender.called_ae)
    return run_sender(bench.work, "perf.load", *target, *options)


def run_sender(work: Path, module: str, *options: object) -> Mapping[str, float]:
    """What a sender of ours reports.  Raises BenchError unless all was acknowledged."""
    command = [sys.executable, "-m", module, *map(str, options)]
    child = Child(command, work / "logs" / f"{module.rpartition('.')[2]}.log", pipe=True)
    try:
        report = read_line(child, _SENDER_LIMIT)
        if child.wait(30.0) != 0:
            raise BenchError(f"{module} had failures: {json.dumps(report)}")
        return report
    except TimeoutError:
        raise BenchError(f"{module} did not end in {_SENDER_LIMIT:.0f} s") from None
    finally:
        child.stop()


def check_count(contender: Contender, expected: int) -> None:
    """Raises BenchError when the contender's own count is not what was sent."""
    count = counted(contender, expected)
    if count != expected:
        raise BenchError(f"{contender.title} received {count} of {expected}")


def contender_type(name: str) -> type[Contender]:
    """The receiver that a name in a row stands for."""
    return CONTENDERS[BASE.get(name, name)]


def make_contender(bench: Bench, name: str, forward_port: int = 0) -> Contender:
    """The receiver of that name, not started."""
    return contender_type(name)(bench.work, forward_port=forward_port)


def await_delivered(sink: Sink, expected: int) -> Mapping[str, float]:
    """The sink's tally once it has that many distinct instances."""
    latest: Mapping[str, float] = {}

    def arrived() -> bool:
        nonlocal latest
        latest = sink.now()
        return latest["instances"] >= expected

    if not wait_until(arrived, DELIVERY_LIMIT, interval=0.1):
        raise BenchError(f"{latest['instances']:.0f} of {expected} were delivered")
    return latest


def histogram_buckets(samples: Mapping[str, float]) -> list[tuple[float, float]]:
    """(upper bound, cumulative count), rising, of samples labelled ``le="..."``."""
    return sorted(
        (float(labels.partition('le="')[2].partition('"')[0]), value)
        for labels, value in samples.items()
    )


def quantile(buckets: list[tuple[float, float]], share: float) -> float:
    """Upper bound of the bucket in which the quantile lies: never better than the truth.

    Beyond the last finite bucket it is infinite.  Raises BenchError when there are no samples.
    """
    if not buckets or buckets[-1][1] <= 0:
        raise BenchError("the histogram of event loop stalls has no samples")
    wanted = share * buckets[-1][1]
    return next(bound for bound, count in buckets if count >= wanted)
