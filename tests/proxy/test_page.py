"""The outcome table in the documentation is the one that is tested."""

from pathlib import Path

from tests.proxy.page import page

ROOT = Path(__file__).parents[2]


def test_the_page_is_up_to_date() -> None:
    written = (ROOT / "docs/reference/outcomes.md").read_text("utf-8")
    assert written == page(), "python -m tests.proxy.page > docs/reference/outcomes.md"
