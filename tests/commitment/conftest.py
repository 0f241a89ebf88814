"""What the tests of commitment as SCP share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from router.spool.index import Index


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    opened = Index.open(tmp_path / "index.db")
    yield opened
    opened.close()
