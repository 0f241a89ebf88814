"""The floors of docs/architecture.md: a module imports only from lower floors."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS: dict[str, int] = {
    "rules": 0,
    "router.units": 0,
    "router.dicom": 0,
    "router.ul": 1,
    "router.spool": 1,
    "router.dimse": 2,
    "router.net": 3,
    "router.ingest": 4,
    "router.forward": 4,
    "router.query": 4,
    "router.commitment": 4,
    "router.config": 5,
    "router.trial": 5,
    "router.observe": 5,
    "router.web": 6,
    "router.cli": 6,
    "router.operate": 6,
    "router.orders": 6,
    "router.signals": 6,
    "router.queues": 6,
    "router.proof": 6,
    "router.reload": 6,
    "router.app": 6,
    "router.commitments": 6,
    "router.destinations": 6,
    "router.opening": 6,
}
# Pure means: no asyncio, threads, clock, log or socket.
PURE = ("rules", "router.dicom", "router.ul", "router.dimse")
IMPURE = {"asyncio", "threading", "time", "logging", "structlog", "socket", "random", "uvloop"}


def _modules() -> list[tuple[str, Path]]:
    found = []
    for top in ("router", "rules"):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found.append((name, path))
    return found


def _package(module: str) -> str | None:
    """The entry of FLOORS that a module belongs to; None for `router` itself."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if (name := ".".join(parts[:length])) in FLOORS:
            return name
    return None


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"relative import in {path}"
    return names


MODULES = _modules()


def test_every_package_has_a_floor() -> None:
    homeless = [name for name, _ in MODULES if _package(name) is None and name != "router"]
    assert homeless == []


@pytest.mark.parametrize(("module", "path"), MODULES, ids=[name for name, _ in MODULES])
def test_imports_go_down(module: str, path: Path) -> None:
    mine = _package(module)
    wrong = []
    for name in _imports(path):
        if name.split(".")[0] not in ("router", "rules"):
            continue
        other = _package(name)
        if mine is None or other is None or other == mine:
            continue
        same_floor_is_fine = FLOORS[mine] == 6  # the faces of the gateway, wired by app
        lower = FLOORS[other] < FLOORS[mine]
        if not (lower or (same_floor_is_fine and FLOORS[other] == 6)):
            wrong.append(name)
    assert wrong == [], f"{module} is on floor {FLOORS.get(mine or '', '-')}"


@pytest.mark.parametrize(("module", "path"), MODULES, ids=[name for name, _ in MODULES])
def test_pure_packages_are_pure(module: str, path: Path) -> None:
    if _package(module) in PURE:
        assert {name.split(".")[0] for name in _imports(path)} & IMPURE == set()


def test_rules_import_nothing_of_the_router() -> None:
    for module, path in MODULES:
        if module.split(".")[0] == "rules":
            assert not [n for n in _imports(path) if n.split(".")[0] == "router"], module


@pytest.mark.parametrize(
    ("top", "above"),
    [("router", ("perf", "tests")), ("rules", ("perf", "tests")), ("perf", ("tests",))],
)
def test_the_gateway_knows_no_measurements_and_these_no_tests(
    top: str, above: tuple[str, ...]
) -> None:
    sources = sorted((ROOT / top).rglob("*.py"))
    assert sources
    for path in sources:
        assert not {name.split(".")[0] for name in _imports(path)} & set(above), path
