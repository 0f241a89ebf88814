"""The thread that tells how late the machine wakes whoever waits."""

import time

import pytest

from perf import canary
from perf.canary import Canary


def test_what_it_was_late_is_told_by_quantile(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    late = iter([0.001, 0.003, 0.002, 0.050])
    watched = Canary()

    def sleep(seconds: float) -> None:
        clock[0] += seconds + next(late)
        if clock[0] > 0.056:
            watched._ended.set()

    monkeypatch.setattr(canary.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(canary.time, "sleep", sleep)
    with watched:
        watched._thread.join(5)

    assert watched.late(0.0) == pytest.approx(0.001)
    assert watched.late(0.5) == pytest.approx(0.003)
    assert watched.late(0.999) == pytest.approx(0.050)


def test_it_ends_and_has_seen_something() -> None:
    with Canary() as watched:
        time.sleep(0.05)
    assert not watched._thread.is_alive()
    assert watched.late(1.0) >= watched.late(0.0) >= 0.0
    assert watched.late(1.0) > 0.0


def test_without_a_sample_nothing_was_late() -> None:
    assert Canary().late(0.999) == 0.0
