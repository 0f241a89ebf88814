"""``serve`` as a process: up, at work, down again; and why it does not come up."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.cli.support import Peer, Served, Site, ok, ok_json, run, write_dicom

ROOT = Path(__file__).parents[2]


def test_what_is_sent_to_it_is_delivered_and_sigterm_ends_it_cleanly(tmp_path: Path) -> None:
    paths = [write_dicom(tmp_path / "in" / f"{n}.dcm", n) for n in range(5)]
    with Peer() as peer:
        site = Site(tmp_path, peer.port)
        with site.running() as served:
            site.send(*paths)
            got = {peer.stored.get(timeout=20)[0] for _ in paths}
            url = f"http://127.0.0.1:{site.http}/readyz"
            with urllib.request.urlopen(url, timeout=10) as answer:
                assert answer.status == 200
            assert served.end(signal.SIGTERM) == 0
    assert got == {f"1.2.3.4.{n}" for n in range(5)}
    assert [line["event"] for line in served.lines][-2:] == ["stopping", "gateway stopped"]
    assert not [line for line in served.lines if line["level"] == "error"]


def test_a_reload_takes_effect_or_changes_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with site.running() as served:
        site.config.write_text(site.text.replace('accept: ["TEST*"]', 'accept: ["OTHER*"]'))
        served.kill(signal.SIGHUP)
        served.wait_for("configuration reloaded")
        result = run("echo", "--calling", "TEST", site.gateway)
        assert result.exit_code == 1
        assert "rejected the association" in result.stderr
        site.config.write_text(site.text.replace("ae_title: ROUTER", "ae_title: [x]"))
        result = run("reload", "--config", site.config)
        assert result.exit_code == 2  # the file that names the socket is itself refused
        socket_path = site.data_dir / "control.sock"
        result = run("reload", "--socket", socket_path)
        assert result.exit_code == 2
        assert f"{site.config}:5:" in result.stderr
        found = run("reload", "--socket", socket_path, "--json")
        assert json.loads(found.stdout)["applied"] is False
        assert "not in effect" in run("status", "--socket", socket_path).stdout
        assert run("echo", "--calling", "OTHER", site.gateway).exit_code == 0
        site.config.write_text(site.text)
        assert ok_json("reload", "--config", site.config)["applied"] is True
        assert run("echo", "--calling", "TEST", site.gateway).exit_code == 0
        assert served.end(signal.SIGINT) == 0


def _paused(site: Site) -> dict[str, str]:
    found = ok_json("queue", "list", "--config", site.config)["pauses"]
    return {pause["destination"]: f"{pause['who']}: {pause['reason']}" for pause in found}


def test_a_signal_pauses_all_and_another_resumes_what_it_paused(tmp_path: Path) -> None:
    told = "SIGUSR1: destinations paused; SIGUSR2 resumes them"
    with Peer() as peer:
        site = Site(tmp_path, peer.port)
        with site.running() as served:
            ok("queue", "pause", "broken", "--because", "move", "--config", site.config)
            by_hand = _paused(site)["broken"]
            served.kill(signal.SIGUSR1)
            assert served.wait_for(told)["destinations"] == ["archive"]
            both = {"archive": "SIGUSR1: signal", "broken": by_hand}
            assert _paused(site) == both
            assert "by SIGUSR1: signal" in ok("queue", "list", "--config", site.config)
            served.kill(signal.SIGUSR1)
            assert served.wait_for(told)["destinations"] == [], "a second one is harmless"
            assert _paused(site) == both
            site.send(write_dicom(tmp_path / "1.dcm", 1))
            assert served.end() == 0
        assert _paused(site) == both, "at rest"
        with site.running() as served:
            assert _paused(site) == both
            assert peer.stored.empty()
            served.kill(signal.SIGUSR2)
            told = "SIGUSR2: destinations resumed"
            assert served.wait_for(told)["destinations"] == ["archive"]
            assert peer.stored.get(timeout=20)[0] == "1.2.3.4.1"
            assert _paused(site) == {"broken": by_hand}
            served.kill(signal.SIGUSR2)
            assert served.wait_for(told)["destinations"] == []
            assert _paused(site) == {"broken": by_hand}
            assert served.end() == 0


def _fails(config: Path) -> str:
    """Why the gateway does not come up: in one line, with exit code 1."""
    served = Served(config)
    assert served.end(None) == 1
    errors = [line for line in served.lines if line["level"] == "error"]
    assert len(errors) == 1, served.lines
    assert "exception" not in errors[0]
    return str(errors[0]["why"])


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with socket.create_server(("127.0.0.1", site.listen)):
        why = _fails(site.config)
    assert f"cannot listen on 127.0.0.1:{site.listen}" in why
    assert "is another process, or another gateway, using the port?" in why
    with socket.create_server(("127.0.0.1", site.http)):
        why = _fails(site.config)
    assert f"cannot listen on 127.0.0.1:{site.http}" in why


def test_a_directory_that_another_gateway_has(tmp_path: Path) -> None:
    with (site := Site(tmp_path)).running() as served:
        why = _fails(site.config)
        assert re.search(r"in use by process \d+; stop that one", why)
        assert served.end() == 0


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.data_dir.write_text("a file")
    assert str(site.data_dir) in _fails(site.config)


def test_a_bad_configuration_is_told_line_by_line_on_standard_error(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("locale: []\nremotez: {}\n")
    done = subprocess.run(
        [sys.executable, "-m", "router.cli", "serve", "--config", path],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "c.yaml:1:1: unknown key 'locale'" in done.stderr
    assert "c.yaml:2:1: unknown key 'remotez'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_signal_during_the_start_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from router.app import Gateway
    from router.cli import serve

    started: list[str] = []

    async def start(self: Gateway) -> None:
        started.append("began")
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    monkeypatch.setattr(Gateway, "start", start)
    monkeypatch.setattr(serve, "raise_file_limit", lambda: None)
    result = run("serve", "--config", Site(tmp_path).config)
    assert started == ["began"]
    assert result.exit_code == 0, result.output


def test_a_fault_of_ours_is_reported_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from router.app import Gateway
    from router.cli import serve

    async def start(self: Gateway) -> None:
        raise AssertionError("broken inside")

    monkeypatch.setattr(Gateway, "start", start)
    monkeypatch.setattr(serve, "raise_file_limit", lambda: None)
    result = run("serve", "--config", Site(tmp_path).config)
    assert result.exit_code == 1
    assert "this is a fault in dcmrouter" in result.stderr
    assert "broken inside" in result.stderr


def test_the_process_may_open_as_many_files_as_the_system_allows(tmp_path: Path) -> None:
    script = (
        "import resource as r, gc; _, hard = r.getrlimit(r.RLIMIT_NOFILE)\n"
        "r.setrlimit(r.RLIMIT_NOFILE, (64, hard))\n"
        "from router.cli.serve import raise_file_limit, tune_collector\n"
        "raise_file_limit(); tune_collector()\n"
        "assert r.getrlimit(r.RLIMIT_NOFILE) == (hard, hard)\n"
        "assert gc.get_freeze_count() > 1000 and gc.isenabled()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stderr == ""
