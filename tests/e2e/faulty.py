"""Gateways whose process or file system is crippled from outside, and what they acknowledged."""

import contextlib
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from perf import data
from perf.gateway import GatewayProcess
from perf.processes import wait_until
from perf.witness import Seen, WitnessThread
from tests.e2e.running import LIMIT, send, settled
from tests.interop.tools import need

REFUSED = frozenset({0x0110, 0xA700})


class FaultyGateway(GatewayProcess):
    """``wrapped`` goes in front of the command, and replaces itself by it."""

    def __init__(
        self,
        home: Path,
        settings: Mapping[str, Any],
        *,
        data_dir: Path | None = None,
        wrapped: Sequence[str] = (),
    ) -> None:
        self.wrapped = list(wrapped)
        super().__init__(home, settings, data_dir=data_dir)

    def command(self) -> list[str]:
        """See the base class."""
        return [*self.wrapped, *super().command()]

    def limit(self, what: int, soft: int) -> None:
        """Change a soft limit of the running process."""
        _, hard = resource.prlimit(self.pid, what)
        resource.prlimit(self.pid, what, (soft, hard))

    def descriptors(self) -> int:
        """One more than the highest that is in use."""
        return 1 + max(map(int, os.listdir(f"/proc/{self.pid}/fd")))  # noqa: PTH208

    def said(self, *words: str) -> list[dict[str, Any]]:
        """Log lines in which all the words occur."""
        return [line for line in self.log_lines() if all(word in str(line) for word in words)]

    def unready(self, *words: str) -> bool:
        """Wait until ``/readyz`` says no, with these words."""

        def says() -> bool:
            status, body = self.get("/readyz")
            return status == 503 and all(word.encode() in body for word in words)

        return wait_until(says, LIMIT)


class Traffic:
    """What goes through a gateway, by the statuses that its senders got."""

    def __init__(self, gateway: FaultyGateway, sink: WitnessThread) -> None:
        self.gateway = gateway
        self.sink = sink
        self.acknowledged: set[Seen] = set()
        self._number = 0

    def send(self, kind: data.Kind, count: int = 1) -> list[int]:
        """The statuses of that many further instances."""
        numbers = range(self._number, self._number + count)
        self._number += count
        found = send(self.gateway, kind, numbers)
        self.acknowledged |= {seen for seen, status in found.items() if status == 0}
        return list(found.values())

    def accepts(self, kind: data.Kind) -> bool:
        """Wait until an instance is taken."""
        return wait_until(lambda: self.send(kind) == [0], LIMIT)

    def check(self) -> None:
        """All that was acknowledged arrived, the account balances, and the log shows no fault."""
        assert settled(self.gateway, len(self.acknowledged))
        assert self.acknowledged <= set(self.sink.seen())
        account = self.gateway.account()
        assert account["balanced"]
        assert account["quarantined"] == 0
        assert sum(line["dead"] for line in account["destinations"]) == 0
        assert "Traceback" not in self.gateway.log.read_text()


@contextlib.contextmanager
def ext4(at: Path, megabytes: int) -> Iterator["Ext4"]:
    """A file system of its own in a file, which the kernel makes read-only after an error."""
    disk = Ext4(at, megabytes)
    try:
        disk.mount()
        yield disk
    finally:
        disk.unmount()


class Ext4:
    """``place`` is where it is mounted."""

    def __init__(self, place: Path, megabytes: int) -> None:
        self.place = place
        self._image = place.with_suffix(".img")
        place.mkdir()
        made = False
        if os.geteuid() == 0 and shutil.which("mkfs.ext4", path="/usr/sbin:/sbin"):
            with self._image.open("wb") as file:
                file.truncate(megabytes << 20)
            made = _ran("mkfs.ext4", "-q", str(self._image))
        need(made, "a file system in a file needs root and mkfs.ext4")

    def mount(self, *options: str) -> None:
        """Skips the test, whatever is required, where the kernel has no loop devices for us."""
        text = ",".join(("loop", "errors=remount-ro", *options))
        mounted = _ran("mount", "-t", "ext4", "-o", text, str(self._image), str(self.place))
        if not mounted:
            pytest.skip("a file system in a file cannot be mounted here")

    def unmount(self) -> None:
        """Whatever is still open there."""
        if self.place.is_mount():
            _ran("umount", "--lazy", str(self.place))

    def fail(self) -> None:
        """As the kernel does when it meets damage: from now on nothing can be written."""
        device = next(
            line.split()[0].rpartition("/")[2]
            for line in Path("/proc/mounts").read_text().splitlines()
            if line.split()[1] == str(self.place)
        )
        Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("1")

    def repair(self) -> None:
        """Unmounted: what an operator does after that."""
        _ran("fsck.ext4", "-p", str(self._image))


def _ran(*command: str) -> bool:
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    found = shutil.which(command[0], path=path)
    if found is None:
        return False
    return subprocess.run([found, *command[1:]], capture_output=True, check=False).returncode == 0
