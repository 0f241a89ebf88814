"""``rules test``: expectations kept beside the rules, held against them.

Owns how files of cases find their rules, and how what is not as expected is told.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from router.cli.failures import FAILED, ConfigurationRefused, Misuse
from router.cli.options import config_option, json_option
from router.cli.output import plural, print_json, safe
from router.cli.rules_stage import Stage, set_stage
from router.cli.rules_words import trace_json, trace_lines, width
from rules.decision import Decision
from rules.interpret import RuleTrace
from rules.interpret import explain as interpret
from rules.source import Node, Problem, Problems, parse
from rules.testcases import Case, Names, parse_cases, rules_file
from rules.verdict import Mismatch, concerns, judge, words


@dataclass(frozen=True, slots=True)
class _Result:
    case: Case
    decision: Decision
    mismatches: tuple[Mismatch, ...]
    rules: tuple[RuleTrace, ...] = ()
    """Those that have to do with what is not as expected."""


@click.command()
@click.argument(
    "files", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="CASES.YAML..."
)
@config_option
@json_option
@click.pass_context
def test(
    ctx: click.Context, files: Sequence[Path], config_path: Path | None, as_json: bool
) -> None:
    """Do the rules do what is expected of them?

    Each file of cases names its rules (`rules: ../config.yaml`, taken from where the file lies);
    --config puts others in their place.  Exit code 1 when a case is not as expected, 2 when a
    file or a configuration is refused.
    """
    given = ctx.get_parameter_source("config_path") is ParameterSource.COMMANDLINE
    instead = config_path if given else None
    stages: dict[Path, Stage] = {}
    results: list[_Result] = []
    problems: list[Problem | str] = []
    stage_of: dict[str, Stage] = {}
    for path in files:
        try:
            stage, cases = _read(path, instead, config_path, stages)
        except Problems as error:
            problems += error.problems
        except ConfigurationRefused as error:
            problems += [p for p in error.problems if p not in problems]
        else:
            stage_of[str(path)] = stage
            results += (_try(stage, case) for case in cases)
    if problems:
        raise ConfigurationRefused(problems)
    failed = sum(bool(result.mismatches) for result in results)
    if as_json:
        _print_json(results, failed)
    else:
        _print(results, failed, stage_of)
    if failed:
        raise SystemExit(FAILED)


def _read(
    path: Path, instead: Path | None, default: Path | None, stages: dict[Path, Stage]
) -> tuple[Stage, tuple[Case, ...]]:
    """The cases of a file and what they are tried on.

    Raises Problems, ConfigurationRefused, Misuse.
    """
    file = str(path)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise Problems([Problem(file, 0, 0, f"cannot be read: {error.strerror}")]) from None
    node = parse(text, file)
    config = instead if instead is not None else _rules_of(path, node, default)
    if config not in stages:
        stages[config] = set_stage(config)
    stage = stages[config]
    return stage, parse_cases(node, _names(stage))


def _rules_of(path: Path, node: Node, default: Path | None) -> Path:
    written = rules_file(node)
    if written is not None:
        config = path.parent / written.text.strip()
        if not config.is_file():
            problem = written.problem(
                f"there is no file {str(config)!r}", "it is looked for from where this file lies"
            )
            raise Problems([problem])
        return config
    if default is None:
        raise Misuse(
            f"{path} does not say which rules it is about",
            "add 'rules: config.yaml' to it, or use --config FILE",
        )
    return default


def _names(stage: Stage) -> Names:
    config = stage.config
    return Names(
        destinations=[n for n, remote in config.remotes.items() if remote.host is not None],
        remotes=list(config.remotes),
        schedules=list(config.schedules),
        rules=stage.rules.rules,
        zone=stage.zone,
        called_ae=stage.called_ae,
        identify=stage.identify,
        unknown_caller=stage.unknown_caller,
    )


def _try(stage: Stage, case: Case) -> _Result:
    decision = stage.rules.decide(case.facts)
    mismatches = judge(case, decision)
    if not mismatches:
        return _Result(case, decision, ())
    traces = interpret(stage.rules, case.facts).rules
    involved = tuple(t for t in traces if any(concerns(m, t.rule, decision) for m in mismatches))
    return _Result(case, decision, mismatches, involved)


# -- how it is told ------------------------------------------------------------------------------


def _print(results: Sequence[_Result], failed: int, stage_of: dict[str, Stage]) -> None:
    for result in results:
        if result.mismatches:
            for line in _failure(result, stage_of[result.case.file]):
                click.echo(line)
            click.echo()
    total = plural(len(results), "case")
    end = f"{failed} NOT AS EXPECTED" if failed else "all as expected"
    click.echo(f"{total}, {end}" if results else "no cases")


def _failure(result: _Result, stage: Stage) -> Iterator[str]:
    case = result.case
    yield click.style(safe(f"{case.file}:{case.line}: {case.name}"), bold=True)
    for mismatch in result.mismatches:
        yield click.style(safe(f"  {mismatch.text}"), fg="red")
    yield safe(f"  what happens: it {words(result.decision)}")
    yield from trace_lines(result.rules, stage.rules.rules, width())
    if not result.rules:
        yield "  no rule has to do with that"


def _print_json(results: Sequence[_Result], failed: int) -> None:
    print_json(
        {
            "cases": [_json(result) for result in results],
            "passed": len(results) - failed,
            "failed": failed,
        }
    )


def _json(result: _Result) -> dict[str, Any]:
    case, decision = result.case, result.decision
    return {
        "file": case.file,
        "line": case.line,
        "name": case.name,
        "passed": not result.mismatches,
        "mismatches": [mismatch.text for mismatch in result.mismatches],
        "disposition": decision.disposition,
        "reason": decision.reason,
        "destinations": [route.destination for route in decision.routes],
        "tags": list(decision.tags),
        "rules": [trace_json(trace) for trace in result.rules],
    }
