"""A replay holds no more memory for many instances than for few."""

import time
from pathlib import Path

from perf.rules_replay import Measured, make_spool, measure, write_candidate

FEW, MANY = 500, 10_000
ROOM = 6_000_000
"""Bytes; a kilobyte kept of each of them would be more than that."""


def _measured(directory: Path, count: int) -> Measured:
    make_spool(directory / "data", count, time.time())
    write_candidate(directory / "new.yaml", directory / "data")
    found = measure(directory / "new.yaml")
    assert found.report["replayed"] == count
    added = {d["destination"]: d["added"]["count"] for d in found.report["destinations"]}
    assert added["archive"] == count // 2
    return found


def test_memory_does_not_grow_with_the_number_of_instances(tmp_path: Path) -> None:
    few = _measured(tmp_path / "few", FEW)
    many = _measured(tmp_path / "many", MANY)
    assert many.peak - few.peak < ROOM, (few.peak, many.peak)
