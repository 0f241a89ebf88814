"""Fixtures of the tests against other projects' programs.

A missing program skips a test; with DCMROUTER_REQUIRE_INTEROP=1 it fails it (see `tools`).
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pynetdicom import _config

from tests.e2e.running import Start, starter


@pytest.fixture(autouse=True)
def _pynetdicom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its settings are those of the whole process, so other tests must not meet them."""
    # Send the data set as it lies in the file, not what pydicom would write of it.
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)
    # Take every storage class, retired and private ones too, in the first transfer syntax proposed.
    monkeypatch.setattr(_config, "UNRESTRICTED_STORAGE_SERVICE", True)


@pytest.fixture
def start_gateway(tmp_path: Path) -> Iterator[Start]:
    """Starts gateways by their settings; they are stopped, and must obey, after the test."""
    with ExitStack() as stack:
        yield starter(tmp_path, stack)
