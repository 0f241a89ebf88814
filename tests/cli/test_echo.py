"""``echo``, and how a remote is named."""

import json
import socket
from pathlib import Path

import pytest

from tests.cli.support import Peer, Site, free_ports, ok, ok_json, run


def test_a_peer_that_answers(tmp_path: Path) -> None:
    with Peer() as peer:
        site = Site(tmp_path, peer.port)
        assert "archive (PEER at 127.0.0.1" in ok("echo", "archive", "--config", site.config)
        assert " answered in " in ok("echo", peer.address)
        answer = ok_json("echo", peer.address, "--calling", "ME")
    assert answer["answered"] is True
    assert answer["status"] == "0000"
    assert 0 < answer["round_trip_seconds"] < 10


def test_a_peer_that_answers_with_a_failure() -> None:
    with Peer(echo_status=0x0122) as peer:
        result = run("echo", peer.address)
        assert result.exit_code == 1
        assert "answered 0122H failure" in result.stderr
        assert run("echo", peer.address, "--json").exit_code == 1


def test_nobody_there() -> None:
    (port,) = free_ports(1)
    result = run("echo", f"PEER@127.0.0.1:{port}")
    assert result.exit_code == 1
    assert "could not be connected to" in result.stderr
    assert "Connection refused" in result.stderr
    found = run("echo", f"PEER@127.0.0.1:{port}", "--json")
    assert found.exit_code == 1
    assert json.loads(found.stdout)["answered"] is False


def test_a_peer_that_says_nothing_is_waited_for_as_long_as_asked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        result = run("echo", f"PEER@127.0.0.1:{server.getsockname()[1]}", "--timeout", "100ms")
    assert result.exit_code == 1
    assert "did not answer the association request within 0.1 s" in result.stderr


def test_a_mistyped_remote_is_answered_with_the_nearest(tmp_path: Path) -> None:
    site = Site(tmp_path)
    result = run("echo", "archve", "--config", site.config)
    assert result.exit_code == 2
    assert "no remote is called 'archve'; did you mean 'archive'?" in result.stderr
    assert (
        "there are: archive, broken, scanner"
        in run("echo", "xyzzy", "--config", site.config).stderr
    )


def test_a_remote_that_only_calls_us(tmp_path: Path) -> None:
    result = run("echo", "scanner", "--config", Site(tmp_path).config)
    assert result.exit_code == 2
    assert "scanner has no host" in result.stderr


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("archive",), "use --config FILE"),
        (("PEER@",), "not of the form AE@host:port"),
        (("PEER@host:x",), "not of the form AE@host:port"),
        (("PEER@host:0",), "greater than or equal to 1"),
        (("SEVENTEEN-LETTERS@host:104",), "1 to 16 characters"),
        (("PEER@host:104", "--calling", "A\\B"), "no backslash"),
        (("PEER@host:104", "--timeout", "soon"), "a duration such as"),
        (("PEER@host:104", "--timeout", "0"), "more than 0"),
    ],
)
def test_bad_usage(args: tuple[str, ...], why: str) -> None:
    result = run("echo", *args)
    assert result.exit_code == 2
    assert why in result.stderr


def test_an_ipv6_address_and_the_default_port() -> None:
    from router.cli.remotes import find_target

    target = find_target("PEER@[::1]:11112", None, None)
    assert (target.ae_title, target.host, target.port) == ("PEER", "::1", 11112)
    assert target.calling_ae == "DCMROUTER"
    assert find_target("PEER@[fe80::1]", None, None).host == "fe80::1"
    assert find_target("A@B@host", None, None).ae_title == "A@B"
    assert find_target("PEER@host", None, None).port == 104
