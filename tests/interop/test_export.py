"""Exported instances are files that other programs read, as valid as what was received."""

import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from perf.gateway import GatewayProcess
from perf.witness import WitnessThread
from tests.e2e.running import Start
from tests.interop.corpus import Sample, read_sample, samples
from tests.interop.peers import Arrival
from tests.interop.settings import destination, route_to_all, settled
from tests.interop.tools import require

pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore:Invalid value for VR UI"),
]

FLOOR = 225


def _dcmrouter(*arguments: str) -> None:
    """Run a command of the product; it must say that all is done."""
    command = [sys.executable, "-m", "router.cli", *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()


def _export(gateway: GatewayProcess, into: Path) -> dict[Arrival, Path]:
    """All instances as the command exports them, by what they hold."""
    options = ["--config", str(gateway.config), "--all", "--to", str(into)]
    _dcmrouter("instances", "export", *options)
    found = {}
    for path in into.iterdir():
        sample = read_sample(path)
        assert sample is not None, f"{path.name} has no head"
        found[Arrival.of_sample(sample)] = path
    return found


def _dciodvfy_errors(path: Path) -> frozenset[str]:
    """What dciodvfy calls an error; it says so on standard error, and in the exit code."""
    done = subprocess.run(
        [require("dciodvfy"), str(path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )
    lines = (done.stderr + done.stdout).decode(errors="replace").splitlines()
    return frozenset(line for line in lines if line.startswith("Error"))


def _dcmdump_reads(path: Path) -> bool:
    done = subprocess.run(
        [require("dcmdump"), "-q", str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=60,
    )
    return done.returncode == 0


def _worse(pairs: Iterable[tuple[Sample, Path]]) -> list[str]:
    """The exports that a program reads less well than the file that was sent."""

    def check(pair: tuple[Sample, Path]) -> list[str]:
        sample, exported = pair
        found = []
        if not _dcmdump_reads(exported) and _dcmdump_reads(sample.path):
            found.append(f"{sample.path.name}: dcmdump reads it no longer")
        errors = _dciodvfy_errors(exported)
        if errors and (new := errors - _dciodvfy_errors(sample.path)):
            found.append(f"{sample.path.name}: {sorted(new)}")
        return found

    with ThreadPoolExecutor(4) as pool:
        return [line for lines in pool.map(check, pairs) for line in lines]


def test_exports_hold_the_bytes_and_are_as_valid_as_what_was_sent(
    tmp_path: Path, start_gateway: Start
) -> None:
    for program in ("dcmdump", "dciodvfy"):
        require(program)
    with WitnessThread() as sink:
        gateway = start_gateway(route_to_all({"sink": destination(sink.port)}))
        paths = [str(sample.path) for sample in samples()]
        _dcmrouter("send", f"ROUTER@127.0.0.1:{gateway.port}", *paths)
        assert settled(gateway, len(paths))
        exported = _export(gateway, tmp_path / "exported")
    pairs = [
        (sample, exported[arrival])
        for sample in samples()
        if (arrival := Arrival.of_sample(sample)) in exported
    ]
    assert len(exported) == len(pairs) == len(paths) >= FLOOR
    assert _worse(pairs) == []
    # The comparison is worth something: most are read, and many have nothing wrong.
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(_dcmdump_reads, exported.values())) >= FLOOR - 10
