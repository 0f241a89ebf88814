"""A full disk costs nothing but what could not be taken.

The data directory lies on a small file system of its own, which needs the right to mount.
"""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from perf import data
from perf.gateway import GatewayProcess
from perf.processes import wait_until
from perf.witness import Seen, WitnessThread
from tests.e2e.running import (
    LARGE,
    LIMIT,
    MEDIUM,
    association,
    destination,
    instance,
    send,
    settled,
    store,
)
from tests.interop.tools import need

pytestmark = pytest.mark.timeout(180)

SIZE = 96
OUT_OF_RESOURCES = 0xA700


@contextmanager
def _small_disk(at: Path) -> Iterator[Path]:
    """A file system of SIZE MiB in memory."""
    at.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={SIZE}m,mode=700", "tmpfs", str(at)]
    mounted = os.geteuid() == 0 and subprocess.run(["mount", *options], check=False).returncode == 0
    need(mounted, "a file system of a given size needs root and the right to mount")
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(2**16))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system, unmounted after the test."""
    with _small_disk(tmp_path / "disk") as at:
        yield at


def _settings(port: int, low_disk: str) -> dict[str, Any]:
    return {
        "remotes": {"sink": destination(port)},
        "rules": [{"name": "everything", "to": "sink"}],
        "spool": {
            "segment_size": "4MiB",
            "large_instance": "1MiB",
            "spare_segments": 1,
            "low_disk": low_disk,
            "keep_settled": "0s",
        },
    }


class _Run:
    """A gateway on the small disk, and what it acknowledged."""

    def __init__(self, gateway: GatewayProcess, sink: WitnessThread) -> None:
        self.gateway = gateway
        self.sink = sink
        self.acknowledged: set[Seen] = set()
        self.statuses: set[int] = set()
        self._number = 0

    def send(self, kind: data.Kind, count: int) -> list[int]:
        """The statuses of that many further instances."""
        numbers = range(self._number, self._number + count)
        self._number += count
        found = send(self.gateway, kind, numbers)
        self.acknowledged |= {seen for seen, status in found.items() if status == 0}
        self.statuses |= set(found.values())
        return list(found.values())

    def fill(self, kind: data.Kind, at_once: int) -> None:
        """Send until an instance is refused."""
        for _ in range(SIZE * 2**20 // kind.pixel_bytes):
            if set(self.send(kind, at_once)) != {0}:
                break
        assert self.statuses == {0, OUT_OF_RESOURCES}

    def accepts_again(self, kind: data.Kind) -> bool:
        """Wait until an instance is taken."""
        return wait_until(lambda: self.send(kind, 1) == [0], LIMIT)

    def check(self) -> None:
        """All that was acknowledged arrives, nothing else does, and the log shows no fault."""
        assert settled(self.gateway, len(self.acknowledged))
        assert set(self.sink.seen()) == self.acknowledged
        account = self.gateway.account()
        assert account["balanced"]
        assert account["received"] == len(self.acknowledged)
        assert account["quarantined"] == 0
        assert "Traceback" not in self.gateway.log.read_text()


@pytest.fixture
def run(disk: Path, tmp_path: Path, low_disk: str) -> Iterator[_Run]:
    """With the destination shut."""
    with ExitStack() as stack:
        sink = stack.enter_context(WitnessThread())
        settings = _settings(sink.port, low_disk)
        gateway = GatewayProcess(tmp_path / "gw", settings, data_dir=disk / "data")
        stack.enter_context(gateway)
        sink.shut()
        yield _Run(gateway, sink)


BOTH_MARKS = pytest.mark.parametrize("low_disk", ["24MiB", "0"], ids=["at the mark", "to the end"])
KINDS = pytest.mark.parametrize(
    ("kind", "at_once"), [(MEDIUM, 20), (LARGE, 1)], ids=["small", "large"]
)


@BOTH_MARKS
@KINDS
def test_forwarding_goes_on_and_makes_room_for_more(
    run: _Run, kind: data.Kind, at_once: int
) -> None:
    run.fill(kind, at_once)
    assert run.gateway.get("/healthz")[0] == 200
    run.sink.open()
    # Room is made as deliveries end, not all at once.
    assert all(run.accepts_again(kind) for _ in range(4))
    run.check()
    assert wait_until(run.gateway.ready, LIMIT)


@pytest.mark.parametrize("low_disk", ["24MiB"])
def test_readiness_says_why_nothing_is_accepted(run: _Run) -> None:
    run.fill(MEDIUM, 20)
    assert wait_until(lambda: b"low disk" in run.gateway.get("/readyz")[1], LIMIT)
    assert run.gateway.get("/readyz")[0] == 503
    assert run.gateway.get("/healthz")[0] == 200


@BOTH_MARKS
def test_receiving_goes_on_when_somebody_else_frees_the_disk(run: _Run, disk: Path) -> None:
    assert set(run.send(MEDIUM, 20)) == {0}
    other = disk / "of-somebody-else"
    with pytest.raises(OSError, match="No space left"):
        _fill(other)
    # What is left of the segments in use may still take some.
    for _ in range(20):
        if OUT_OF_RESOURCES in run.send(MEDIUM, 20):
            break
    assert run.statuses == {0, OUT_OF_RESOURCES}
    other.unlink()
    assert run.accepts_again(MEDIUM)
    run.sink.open()
    run.check()


@pytest.mark.parametrize("low_disk", ["0"])
def test_a_kill_on_a_full_disk_loses_nothing(run: _Run) -> None:
    run.fill(MEDIUM, 20)
    run.gateway.kill()
    run.gateway.start()
    run.sink.open()
    assert run.accepts_again(MEDIUM)
    run.check()


@pytest.mark.parametrize("low_disk", ["0"])
def test_an_instance_that_fills_the_disk_half_way_leaves_nothing(run: _Run, disk: Path) -> None:
    async def send_large() -> int:
        to = association(run.gateway)
        await to.open()
        kind = data.Kind("e2e-huge", 10, LARGE.sop_class_uid, "MR", 8192, 8192, 16)
        status = await store(to, *instance(kind, 1))
        await to.release()
        return status

    assert set(run.send(MEDIUM, 3)) == {0}
    assert asyncio.run(send_large()) == OUT_OF_RESOURCES
    large = disk / "data" / "spool" / "large"
    assert wait_until(lambda: not list(large.iterdir()), LIMIT)
    assert run.accepts_again(LARGE)
    run.sink.open()
    run.check()
