"""The examples that are shipped: each loads, does what its cases say, and has its how-to."""

from pathlib import Path

import pytest

from tests.cli.support import ok, ok_json

ROOT = Path(__file__).parents[2]
CASES = sorted((ROOT / "rules/examples").glob("*.cases.yaml"))
EXAMPLES = sorted(set((ROOT / "rules/examples").glob("*.yaml")) - set(CASES))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name)
def test_an_example_does_what_its_cases_say(path: Path) -> None:
    assert ok_json("rules", "test", path)["failed"] == 0


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_checked_without_a_warning(path: Path) -> None:
    told = ok("check", "--config", path)
    assert "valid, no warnings" in told


def test_each_example_has_its_cases_and_its_page() -> None:
    names = {path.stem for path in EXAMPLES}
    assert len(names) >= 9
    assert {path.name.removesuffix(".cases.yaml") for path in CASES} == names
    assert {path.stem for path in (ROOT / "docs/how-to/rules").glob("*.md")} == names
    readme = (ROOT / "README.md").read_text()
    assert all(f"docs/how-to/rules/{name}.md" in readme for name in names)
