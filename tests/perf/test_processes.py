"""What stands between the harness and the kernel."""

import socket

import pytest

from perf import processes


def test_a_port_is_not_given_twice_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even by a kernel that has only two: nobody listens yet on the one given first."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    ports = iter([40_001, 40_001, 40_001, 40_002])

    class Probe:
        def __enter__(self) -> "Probe":
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def bind(self, address: tuple[str, int]) -> None:
            assert address == ("127.0.0.1", 0)

        def getsockname(self) -> tuple[str, int]:
            return "127.0.0.1", next(ports)

    monkeypatch.setattr(socket, "socket", Probe)
    assert (processes.free_port(), processes.free_port()) == (40_001, 40_002)
