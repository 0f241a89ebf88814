"""The wall clock may be set at any moment: it is read where people or a restart need it only."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]

ALLOWED = {
    "router/app.py": "received_at, due times and the age of what is settled, which outlive a "
    "restart; since when it runs",
    "router/opening.py": "the name of what is moved aside",
    "router/operate.py": "what people are shown, and the times that they are told they did things",
    "router/orders.py": "the same",
    "router/web/control.py": "the same",
    "router/observe/retention.py": "how long ago it was, for people",
    "router/commitments.py": "when a report is due, which outlives a restart; looked at again "
    "every so often, should the clock have been set",
    "router/proof.py": "when an answer is due, likewise",
    "router/cli/output.py": "the same",
    "router/cli/offline.py": "the same",
    "router/cli/rules_explain.py": "when an instance would be received that is tried now",
    "router/cli/rules_replay.py": "since when an operator asks for",
    "router/config/load.py": "whether a rule is valid yet or no more, for warnings",
    "router/cli/versions.py": "when a version was gone back to, for people",
    "router/reload.py": "when a configuration took effect, for people",
    "router/net/acceptor.py": "since when an association is open, for people",
    "router/net/link.py": "a part of the ids of associations",
}
_WALL = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow")}


def _reads_it(path: Path) -> bool:
    return any(
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr) in _WALL
        for node in ast.walk(ast.parse(path.read_text()))
    )


def test_the_wall_clock_is_read_where_a_step_of_it_does_no_harm() -> None:
    found = {
        str(path.relative_to(ROOT))
        for package in ("router", "rules")
        for path in (ROOT / package).rglob("*.py")
        if _reads_it(path)
    }
    assert found == ALLOWED.keys(), "time.monotonic() or the loop's time do for everything else"
