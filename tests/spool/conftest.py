"""A loop that the test runs, and indexes and spools that are closed after it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from router.spool.index import Index
from tests.spool.committing import Bench
from tests.spool.index_samples import audited
from tests.spool.spool_samples import Loop, Rig, settings

OpenRig = Callable[..., Rig]


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    """A new one, which is audited at the end of the test."""
    with audited(tmp_path / "index.db") as opened:
        yield opened


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    """With it the syncs of the disk cost nothing: no test here cuts the real power."""
    monkeypatch.setattr(os, "fsync", os.fstat)  # still an error for what is no descriptor
    monkeypatch.setattr(os, "fdatasync", os.fstat)
    made = Loop()
    yield made
    made.close()


@pytest.fixture
def open_rig(tmp_path: Path, loop: Loop) -> Iterator[OpenRig]:
    """``open_rig(segment_size=…, start=True)``; whatever is open at the end is closed."""
    rigs: list[Rig] = []

    def opened(directory: Path = tmp_path, *, start: bool = True, **changes: object) -> Rig:
        rig = Rig(directory, loop, settings(**changes))
        rigs.append(rig)
        if start:
            rig.start()
        real = rig.close

        def close() -> None:
            rigs.remove(rig)
            real()

        rig.close = close  # type: ignore[method-assign]
        return rig

    yield opened
    for rig in rigs:
        rig.close()


@pytest.fixture
def rig(open_rig: OpenRig) -> Rig:
    return open_rig()


@pytest.fixture
def bench(tmp_path: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench(tmp_path, loop, monkeypatch)
    made.committer.start()
    yield made
    made.disk.hold.set()
    made.committer.stop()
    made.segments.close()
