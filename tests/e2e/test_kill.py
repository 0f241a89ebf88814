"""``kill -9`` loses nothing that was acknowledged; the long run is ``make chaos``."""

import asyncio
from pathlib import Path

import pytest

from perf.chaos import Chaos

KILLS = 50


@pytest.mark.timeout(240)
def test_everything_acknowledged_is_delivered_after_kills(tmp_path: Path) -> None:
    chaos = Chaos(tmp_path, kills=KILLS, seed=20240102, minutes=2.0)
    fine = asyncio.run(chaos.run())
    assert fine, chaos.table()
    assert chaos.done >= KILLS
    assert chaos.book.acknowledged
    assert sum(chaos.hit.values()) >= KILLS // 3, chaos.table()
