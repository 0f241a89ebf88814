"""Fixtures of the tests that run the gateway as a process of its own."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.running import Start, starter


@pytest.fixture
def start_gateway(tmp_path: Path) -> Iterator[Start]:
    """Starts gateways by their settings; they are stopped, and must obey, after the test."""
    with ExitStack() as stack:
        yield starter(tmp_path, stack)
