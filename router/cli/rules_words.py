"""An explanation as lines of text, and as JSON.

Owns the form.  Lines keep within the width they are given; whatever comes from a data set or a
peer is made harmless.
"""

import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

import click

from router.cli.output import safe, seconds
from router.cli.rules_stage import Stage
from rules.decision import Route
from rules.interpret import Explanation, RuleTrace
from rules.rule import Rule
from rules.sending import PRIORITIES
from rules.verdict import words
from rules.window import Windows
from rules.words import span_words

_WIDE = 80
_LEAST = 40
_INDENT = 6
_COLOURS = {"holds": "green", "does not hold": "yellow"}


def width() -> int:
    """Columns to keep within: those of the terminal, 80 elsewhere."""
    if not sys.stdout.isatty():
        return _WIDE
    return max(_LEAST, shutil.get_terminal_size((_WIDE, 24)).columns)


def trace_lines(traces: Iterable[RuleTrace], rules: tuple[Rule, ...], columns: int) -> list[str]:
    """Rules with their verdicts; under each its clauses and what follows from it."""
    found: list[str] = []
    numbers = {rule.name: number for number, rule in enumerate(rules, 1)}
    for trace in traces:
        head = f"{numbers.get(trace.rule.name, 0):3}  {trace.rule.name}: "
        lines = _wrap(head + trace.verdict, columns, 5)
        colour = _COLOURS.get(trace.verdict)
        if colour and lines[-1].endswith(trace.verdict):
            rest = lines[-1].removesuffix(trace.verdict)
            lines[-1] = rest + click.style(trace.verdict, fg=colour)
        found += lines
        for clause in trace.clauses:
            mark = "yes " if clause.held else "no  "
            indent = _INDENT + 2 * clause.depth
            text = f"{clause.text}: {clause.why}" if clause.why else clause.text
            lines = _wrap(" " * indent + mark + text, columns, indent + len(mark))
            if not clause.held:
                lines[0] = lines[0].replace(mark, click.style(mark, dim=True), 1)
            found += lines
        if trace.effect:
            found += _wrap(" " * _INDENT + "=>  " + trace.effect, columns, _INDENT + 4)
    return found


def outcome_lines(stage: Stage, explanation: Explanation, moment: float, columns: int) -> list[str]:
    """Where it goes in the end, and how."""
    decision = explanation.decision
    found: list[str] = []
    if decision.disposition != "route":
        found += _wrap(f"it {words(decision)}", columns, 3)
    else:
        found.append("it goes to")
        for route in decision.routes:
            text = "; ".join(route_words(stage, route, moment))
            found += _wrap(f"  {route.destination}: {text}", columns, 6)
    if decision.tags:
        found += _wrap(f"labels: {', '.join(decision.tags)}", columns, 8)
    if decision.keep_for:
        found.append(f"kept for {span_words(decision.keep_for)} once it is settled")
    return found


def route_words(stage: Stage, route: Route, moment: float) -> Iterator[str]:
    """How a delivery is made: by which rule, when, and who else may have it."""
    yield f"by rule {route.rule!r}"
    if route.members:
        others = ", ".join(route.members[1:])
        text = f"{route.mode.replace('_', ' ')}, else {others}"
        text += ", also when it refuses" if route.on_refusal == "next" else ""
        yield text + (", whole studies" if route.keep else "")
    send = route.send
    if send.after == "at-once":
        yield "at once"
    else:
        text = f"when the {send.after.removesuffix('-complete')} is complete"
        text += f", {seconds(send.quiet)} after the last of it"
        if send.expect:
            text += f" and {send.expect} has no more, for {seconds(send.wait)} at most"
        yield text
    if send.schedule:
        yield schedule_words(stage, send.schedule, moment)
    if route.priority:
        names = {number: name for name, number in PRIORITIES.items()}
        yield f"priority {names.get(route.priority, route.priority)}"


def windows_of(stage: Stage, name: str) -> Windows | None:
    """The windows of a schedule; None for one that the configuration does not have."""
    schedule = stage.config.schedules.get(name)
    if schedule is None:
        return None
    return schedule.windows(stage.zone)


def schedule_words(stage: Stage, name: str, moment: float) -> str:
    """``schedule night, which is open then until …``."""
    windows = windows_of(stage, name)
    if windows is None:
        return f"schedule {name}"
    state = "open" if windows.open_at(moment) else "shut"
    change = windows.next_change(moment)
    if change is None:
        return f"schedule {name}, always {state}"
    return f"schedule {name}, {state} then, until {stage.local(change)}"


def _wrap(text: str, columns: int, indent: int) -> list[str]:
    return textwrap.wrap(
        safe(text),
        columns,
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
        drop_whitespace=True,
    ) or [""]


# -- for scripts ---------------------------------------------------------------------------------


def explanation_json(stage: Stage, explanation: Explanation, moment: float) -> dict[str, Any]:
    """The whole of it."""
    decision = explanation.decision
    return {
        "disposition": decision.disposition,
        "reason": decision.reason,
        "version": decision.version,
        "tags": list(decision.tags),
        "keep": decision.keep_for or None,
        "routes": [_route_json(stage, route, moment) for route in decision.routes],
        "rules": [trace_json(trace) for trace in explanation.rules],
    }


def _route_json(stage: Stage, route: Route, moment: float) -> dict[str, Any]:
    send = route.send
    windows = windows_of(stage, send.schedule) if send.schedule else None
    return {
        "destination": route.destination,
        "rule": route.rule,
        "mode": route.mode,
        "members": list(route.members),
        "keep": route.keep or None,
        "on_refusal": route.on_refusal if route.members else None,
        "priority": route.priority,
        "after": send.after,
        "quiet": send.quiet if send.after != "at-once" else None,
        "expect": send.expect or None,
        "wait": send.wait if send.expect else None,
        "schedule": send.schedule or None,
        "schedule_open": windows.open_at(moment) if windows is not None else None,
    }


def trace_json(trace: RuleTrace) -> dict[str, Any]:
    """One rule."""
    return {
        "rule": trace.rule.name,
        "file": trace.rule.file,
        "line": trace.rule.line,
        "verdict": trace.verdict,
        "effect": trace.effect,
        "clauses": [
            {"text": c.text, "held": c.held, "why": c.why, "depth": c.depth} for c in trace.clauses
        ],
    }
