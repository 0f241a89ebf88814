"""A data directory that takes nothing any more: said to everybody, and nothing is lost.

The file system may be read-only, the right to write gone, or every write may fail.
"""

import resource
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from perf.processes import wait_until
from perf.witness import WitnessThread
from tests.e2e.faulty import REFUSED, FaultyGateway, Traffic, ext4
from tests.e2e.running import LARGE, LIMIT, MEDIUM, SMALL, route_to
from tests.interop.tools import require

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def _traffic(stack: ExitStack, home: Path, *wrapped: str, data_dir: Path | None = None) -> Traffic:
    """A gateway whose destination is shut."""
    sink = stack.enter_context(WitnessThread())
    settings = route_to(sink.port)
    settings["spool"] |= {"low_disk": "0"}
    gateway = FaultyGateway(home / "gw", settings, data_dir=data_dir, wrapped=wrapped)
    stack.enter_context(gateway)
    sink.shut()
    return Traffic(gateway, sink)


def test_the_kernel_makes_the_file_system_read_only(tmp_path: Path, stack: ExitStack) -> None:
    disk = stack.enter_context(ext4(tmp_path / "disk", 96))
    traffic = _traffic(stack, tmp_path, data_dir=disk.place / "data")
    gateway = traffic.gateway
    assert set(traffic.send(MEDIUM, 5)) | set(traffic.send(LARGE, 2)) == {0}
    disk.fail()
    for kind in (MEDIUM, LARGE, SMALL):
        assert set(traffic.send(kind)) <= REFUSED
    assert gateway.unready("disk: ", "Read-only file system")
    assert gateway.get("/healthz")[0] == 200
    assert gateway.said("instance refused", "Read-only file system")
    assert gateway.stop(), "it could not be stopped"

    disk.unmount()
    disk.mount("ro,noload")
    gateway.spawn()
    assert gateway.wait(LIMIT) == 1
    (line,) = gateway.said("the gateway cannot run")
    assert "Read-only file system" in line["why"]
    assert "mount its file system writable" in line["why"]
    assert "set another data_dir" in line["why"]

    disk.unmount()
    disk.repair()
    disk.mount()
    gateway.start()
    assert traffic.accepts(MEDIUM)
    assert traffic.accepts(LARGE)
    traffic.sink.open()
    traffic.check()


def test_every_write_fails_for_a_while(tmp_path: Path, stack: ExitStack) -> None:
    traffic = _traffic(stack, tmp_path)
    gateway = traffic.gateway
    assert set(traffic.send(MEDIUM, 5)) | set(traffic.send(LARGE, 2)) == {0}
    # The log is a file as well: not a line of it can be written meanwhile.
    gateway.limit(resource.RLIMIT_FSIZE, 0)
    for kind in (MEDIUM, LARGE):
        assert set(traffic.send(kind)) <= REFUSED
    assert gateway.unready("disk: ", "File too large")
    traffic.sink.open()
    for kind in (SMALL, LARGE):
        assert set(traffic.send(kind)) <= REFUSED
    gateway.limit(resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)
    assert wait_until(gateway.ready, LIMIT), "it is not ready again although nobody sends"
    assert set(traffic.send(MEDIUM, 5)) | set(traffic.send(LARGE, 2)) == {0}
    traffic.check()


def test_the_right_to_the_directory_is_lost_for_a_while(tmp_path: Path, stack: ExitStack) -> None:
    # Root passes every lock unless it gives the keys away.
    without = "-dac_override,-dac_read_search"
    keys = [f"--inh-caps={without}", f"--bounding-set={without}"]
    traffic = _traffic(stack, tmp_path, require("setpriv"), *keys)
    gateway = traffic.gateway
    assert set(traffic.send(MEDIUM, 5)) | set(traffic.send(LARGE, 2)) == {0}
    gateway.data_dir.chmod(0)
    stack.callback(gateway.data_dir.chmod, 0o700)
    assert set(traffic.send(LARGE)) <= REFUSED
    assert gateway.unready("disk: ", "Permission denied")
    # What is open stays so: small ones may be taken until the segment is full.
    statuses = [status for _ in range(3) for status in traffic.send(MEDIUM, 20)]
    assert set(statuses) & REFUSED
    gateway.data_dir.chmod(0o700)
    assert traffic.accepts(MEDIUM)
    assert traffic.accepts(LARGE)
    assert wait_until(gateway.ready, LIMIT)
    traffic.sink.open()
    traffic.check()

    assert gateway.stop()
    gateway.data_dir.chmod(0o500)
    (gateway.data_dir / "spool").chmod(0)
    gateway.spawn()
    try:
        assert gateway.wait(LIMIT) == 1
    finally:
        (gateway.data_dir / "spool").chmod(0o700)
    (line,) = gateway.said("the gateway cannot run")
    assert "Permission denied" in line["why"]
    assert "the right to write there" in line["why"]
