"""Fixtures of all tests."""

import hypothesis
import pytest
import structlog

# A machine that does something else meanwhile is no fault of the code.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")


@pytest.fixture(autouse=True)
def _every_line() -> None:
    """Lines of every level are seen, whatever a command that was run before has configured."""
    structlog.reset_defaults()
