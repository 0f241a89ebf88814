"""What the figures were measured on: machine, file system, versions of everybody.

Owns nothing; reads /proc and asks programs for their version.  Host names and paths are left
out on purpose, so that results can be published.
"""

import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

_MEMORY_FILE_SYSTEMS = frozenset({"tmpfs", "ramfs", "devtmpfs"})
_PROBES = 40
_PROBE_BYTES = 512 * 1024


def file_system(path: Path) -> str:
    """Type of the file system on which ``path`` lies, such as ext4."""
    best, kind = "", "unknown"
    target = str(path.resolve())
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        mount = left.split()[4]
        inside = mount == "/" or target == mount or target.startswith(mount + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, right.split()[0]
    return kind


def in_memory(path: Path) -> bool:
    """Whether ``path`` lies on a file system that never reaches a disk."""
    return file_system(path) in _MEMORY_FILE_SYSTEMS


def sync_milliseconds(folder: Path) -> float:
    """Median ``fdatasync`` of 512 KiB written over blocks that were written before."""
    path = folder / "sync-probe"
    block = os.urandom(_PROBE_BYTES)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(fd, block * 4, 0)
        os.fsync(fd)
        times = []
        for number in range(_PROBES):
            os.pwrite(fd, block, number % 4 * _PROBE_BYTES)
            began = time.perf_counter()
            os.fdatasync(fd)
            times.append(time.perf_counter() - began)
    finally:
        os.close(fd)
        path.unlink()
    return statistics.median(times) * 1000


def describe(work: Path) -> dict[str, object]:
    """The machine and the file system of the work directory."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "file_system": file_system(work),
        "free_bytes": shutil.disk_usage(work).free,
        "sync_512KiB_ms": round(sync_milliseconds(work), 3),
    }


def versions() -> dict[str, str]:
    """Version of every program and library that takes part; "missing" when not installed."""
    found = {"python": platform.python_version(), "implementation": sys.implementation.name}
    for package in ("dcmrouter", "uvloop", "pydicom", "pynetdicom"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "missing"
    found["dcmtk"] = _first_match(["storescp", "--version"], r"v(\d+\.\d+\.\d+\S*)")
    found["orthanc"] = _first_match(["Orthanc", "--version"], r"Orthanc (\S+)")
    return found


def _first_match(command: list[str], pattern: str) -> str:
    program = shutil.which(command[0], path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        return "missing"
    answer = subprocess.run(
        [program, *command[1:]], capture_output=True, text=True, timeout=20, check=False
    )
    match = re.search(pattern, answer.stdout + answer.stderr)
    return match.group(1) if match else "unknown"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
