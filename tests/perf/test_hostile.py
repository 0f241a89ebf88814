"""How a run beside attackers is judged; the attacks are in `tests/e2e/test_hostile_peers.py`."""

import io

import pytest
from rich.console import Console

from perf.hostile import MEMORY_BOUND, Found, State, conclude


def found(**changes: object) -> Found:
    values: dict[str, object] = {
        "name": "http",
        "ratio": 0.95,
        "attacker": 0.0,
        "alone": 1000.0,
        "added": 2**20,
        "left": 0,
        "made": 20,
        "opening": 1,
        "counted": {"protocol": 20},
        "cut": {},
        "lines": 10,
        "clean": True,
    }
    result = Found(**{**values, **changes})  # type: ignore[arg-type]
    result.judge()
    return result


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, ""),
        ({"counted": {"protocol": 20, "silent": 1}}, ""),
        ({"counted": {"protocol": 19}}, "19 counted of 20"),
        ({"counted": {"protocol": 22}}, "22 counted of 20"),
        ({"added": MEMORY_BOUND + 2**20}, "65 MiB added"),
        ({"left": MEMORY_BOUND + 2**20}, "65 MiB left"),
        ({"lines": 201}, "201 log lines"),
        ({"lines": 201, "name": "flood"}, ""),
        ({"clean": False}, "left over"),
        ({"ratio": 0.5}, "0.50 of the speed"),
    ],
)
def test_what_falls_short_is_said(changes: dict[str, object], says: str) -> None:
    text = io.StringIO()
    one = found(**changes)
    fine = conclude({one.name: [one]}, Console(file=text, width=160))
    assert fine == (not says)
    assert says in text.getvalue()


def test_the_speed_is_judged_by_the_median_of_the_rounds() -> None:
    rounds = [found(ratio=ratio) for ratio in (0.4, 0.95, 1.0)]
    assert conclude({"http": rounds}, Console(file=io.StringIO()))


def test_the_share_of_the_attacker_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert found(ratio=0.75, attacker=0.5).of_the_rest == pytest.approx(1.0)
    assert found(ratio=0.75, attacker=0.0).of_the_rest == 0.75
    text = io.StringIO()
    conclude({"http": [found(ratio=0.75, attacker=0.5)]}, Console(file=text, width=160))
    assert "0.75 of the speed" in text.getvalue()  # judged as the sender saw it
    assert "0.50 cores" in text.getvalue()


def test_what_is_left_over() -> None:
    before = State(20, 10, 0, 0)
    assert State(28, 12, 0, 2**30).back_to(before)
    assert not State(29, 12, 0, 0).back_to(before)
    assert not State(20, 13, 0, 0).back_to(before)
    assert not State(20, 10, 1, 0).back_to(before)
