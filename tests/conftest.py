"""Fixtures of all tests."""

import pytest
import structlog


@pytest.fixture(autouse=True)
def _every_line() -> None:
    """Lines of every level are seen, whatever a command that was run before has configured."""
    structlog.reset_defaults()
