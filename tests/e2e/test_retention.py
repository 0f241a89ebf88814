"""Settled instances leave the spool by age, into the archive, over kills and reloads."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from perf.gateway import GatewayProcess
from perf.processes import wait_until
from perf.witness import WitnessThread
from tests.e2e.running import LIMIT, MEDIUM, SMALL, Start, instance, route_to, send, settled

pytestmark = pytest.mark.timeout(120)

COUNT = 400


def settings(port: int, folder: Path, **rule: Any) -> dict[str, Any]:
    """What is settled goes to the archive at once."""
    found = route_to(port)
    found["spool"] |= {"archive": {"folder": str(folder), "after": "0s"}, "keep_settled": "1h"}
    found["rules"][0] |= rule
    return found


def archived(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*/*.dcm"))


def named(folder: Path) -> list[str]:
    """The files that manifests speak of."""
    lines = [line for path in folder.glob("*/*/manifest.jsonl") for line in path.open()]
    return sorted(json.loads(line)["file"] for line in lines)


def emptied(gateway: GatewayProcess) -> bool:
    return wait_until(lambda: not list(gateway.instances()), LIMIT)


def test_every_instance_is_in_the_archive_once_over_kills(
    start_gateway: Start, tmp_path: Path
) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    with WitnessThread() as sink:
        gateway = start_gateway(settings(sink.port, folder))
        send(gateway, SMALL, range(COUNT))
        for _ in range(4):
            before = len(archived(folder))
            assert wait_until(lambda n=before: len(archived(folder)) > n or n == COUNT, LIMIT)
            gateway.kill()
            gateway.start()
        assert settled(gateway, COUNT)
        assert emptied(gateway)
        account = gateway.account()
        assert account["received"] == COUNT
        assert not account["differences"]
        metrics = gateway.metrics()
        assert metrics["dcmrouter_archive_failed"][""] == 0
    files = archived(folder)
    # One that was delivered and not settled when it was killed is settled anew: still one file.
    assert len(files) == COUNT
    assert named(folder) == sorted(path.name for path in files)
    bodies = {instance(SMALL, n)[1] for n in range(COUNT)}
    assert {path.read_bytes()[-len(next(iter(bodies))) :] for path in files} == bodies
    assert not list(folder.glob("*/*/.*")), "half a file is left"


def test_an_archive_that_is_away_keeps_everything_and_is_taken_by_a_reload(
    start_gateway: Start, tmp_path: Path
) -> None:
    folder = tmp_path / "archive"
    with WitnessThread() as sink:
        gateway = start_gateway(route_to(sink.port))
        assert "dcmrouter_archive_failed" not in gateway.metrics()
        gateway.configure(settings(sink.port, folder))
        gateway.signal(signal.SIGHUP)
        assert wait_until(
            lambda: gateway.metrics().get("dcmrouter_archive_failed") == {"": 0.0}, LIMIT
        )
        send(gateway, SMALL, range(5))
        assert wait_until(
            lambda: gateway.metrics().get("dcmrouter_archive_failed") == {"": 1.0}, LIMIT
        )
        assert len(list(gateway.instances())) == 5
        send(gateway, SMALL, range(5, 8))  # nothing else is held up
        assert settled(gateway, 8)
        folder.mkdir()
        assert emptied(gateway)
        assert len(archived(folder)) == 8
        purged = gateway.metrics()["dcmrouter_purged_instances_total"]
        assert purged == {'why="archived"': 8.0}
        events = [line["event"] for line in gateway.log_lines()]
    told = "the archive cannot be written to: settled instances stay in the spool"
    assert events.count(told) == 1
    assert "the archive can be written to again" in events


def test_what_a_rule_keeps_outlives_what_was_settled_later(
    start_gateway: Start,
) -> None:
    with WitnessThread() as sink:
        plain = route_to(sink.port)
        plain["spool"] |= {"keep_settled": "0s"}
        plain["rules"].append({"name": "cache", "when": {"Rows": MEDIUM.rows}, "keep": "1h"})
        gateway = start_gateway(plain)
        send(gateway, MEDIUM, range(2))
        assert settled(gateway, 2)
        send(gateway, SMALL, range(3))
        assert settled(gateway, 5)
        assert wait_until(lambda: len(list(gateway.instances())) <= 2, LIMIT)
        assert len(list(gateway.instances())) == 2
        assert gateway.metrics()["dcmrouter_purged_instances_total"] == {'why="age"': 3.0}
