"""What is told of the spool and the index at the start."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from router.opening import recover
from router.spool.rebuild import Report


class Here:
    """The index's thread is this one."""

    async def run(self, work: Any, *args: Any, **more: Any) -> Any:
        return work(*args, **more)


@pytest.mark.parametrize(
    ("added", "instances", "told"),
    [(3, 3, 1), (0, 3, 1), (0, 0, 0), (3, 0, 0)],
    ids=["lost", "lost, and a start broken off", "a first start", "a kill"],
)
async def test_an_index_that_is_gone_is_told(
    monkeypatch: pytest.MonkeyPatch,
    added: int,
    instances: int,
    told: int,
) -> None:
    report = Report(added=added, anew=instances, last_id=9)
    monkeypatch.setattr("router.opening.rebuild", lambda *_, **__: report)
    started: list[int] = []
    spool: Any = SimpleNamespace(start=started.append)
    index: Any = SimpleNamespace()
    with structlog.testing.capture_logs() as lines:
        await recover(
            spool,
            index,
            Here(),
            Path("index.sqlite"),
            suppress_duplicates=False,
            anew=lambda _: None,
        )
    warned = [line for line in lines if line["log_level"] == "warning"]
    assert len(warned) == told
    assert all("may be sent again" in line["event"] for line in warned)
    assert all(line["instances"] == instances for line in warned)
    assert started == [9]
