"""``rules replay``: other rules over what was really received, and what would have been other.

Owns how the difference is told.  The gateway is not asked and not held up; it may run meanwhile.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from router.cli.failures import FAILED, Misuse
from router.cli.options import config_option, json_option, load_config
from router.cli.output import plural, print_json, print_table, safe
from router.cli.rules_stage import Stage, lookout, set_stage
from router.trial.replay import Destination, Example, Kind, Replay, Report
from router.units import parse_duration

_WORDS = {"route": "routed", "hold": "held", "discard": "discarded"}
_STEP = 1000


@click.command()
@config_option
@click.option(
    "--with",
    "candidate",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The configuration whose rules are tried.",
)
@click.option(
    "--since",
    default="24h",
    show_default=True,
    metavar="TIME",
    help="Received since then: 30m, 24h, 7d.",
)
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="The latest so many; else all."
)
@click.option("--show-patient", is_flag=True, help="Patient id and name with the examples.")
@json_option
def replay(
    config_path: Path | None,
    candidate: Path,
    since: str,
    limit: int | None,
    show_patient: bool,
    as_json: bool,
) -> None:
    """Try other rules on what was really received, and show what would have been other.

    Compared with the decisions of then, as they are on record.  Nothing is sent or changed, and the
    gateway may run meanwhile.  The spool is that of --config, or of the candidate without one.
    Exit code 1 when instances could not be read, 2 when a configuration is refused.
    """
    stage = set_stage(candidate)
    data_dir = stage.config.data_dir
    if config_path is not None:
        data_dir = load_config(config_path).config.data_dir
    now = time.time()
    try:
        began = now - parse_duration(since)
    except ValueError as error:
        raise Misuse(f"--since: {error}") from None
    with lookout(data_dir) as (found, _), _progress() as progress:
        run = Replay(
            found, stage.rules, stage.identify, show_patient=show_patient, progress=progress
        )
        report = run.run(began, float("inf"), limit)
    if as_json:
        print_json(_json(report, stage))
    else:
        _print(report, stage)
    if report.damaged.count:
        raise SystemExit(FAILED)


@contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    """A count on standard error, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return

    def told(done: int) -> None:
        if done % _STEP == 0:
            click.echo(f"\r{done:,} instances", nl=False, err=True)

    yield told
    click.echo("\r" + " " * 40 + "\r", nl=False, err=True)


# -- for scripts ---------------------------------------------------------------------------------


def _json(report: Report, stage: Stage) -> dict[str, Any]:
    found = asdict(report)
    found["moves"] = [
        {"before": _WORDS[before], "after": _WORDS[after], "reason": why, **asdict(kind)}
        for (before, after, why), kind in report.moves.items()
    ]
    found["dispositions"] = {
        _WORDS[name]: {"before": before, "after": after}
        for name, (before, after) in report.dispositions.items()
    }
    found["destinations"] = [
        {
            "destination": name,
            **asdict(line),
            "changed": [{"what": what, **asdict(kind)} for what, kind in line.changed.items()],
        }
        for name, line in sorted(report.destinations.items())
    ]
    return {"candidate": stage.loaded.file, "version": stage.rules.version, **found}


# -- for people ----------------------------------------------------------------------------------


def _print(report: Report, stage: Stage) -> None:
    click.echo(_headline(report, stage))
    for line in _beside(report):
        click.echo(line)
    if report.same == report.replayed:
        return
    print_table(
        ("destination", ">then", ">now", ">added", ">dropped", ">changed"),
        [_row(name, line) for name, line in sorted(report.destinations.items())],
    )
    for what, kind in _differences(report):
        click.echo()
        click.echo(safe(f"{what}: {plural(kind.count, 'instance')}"))
        for text in _examples(kind, stage):
            click.echo(safe(text))


def _headline(report: Report, stage: Stage) -> str:
    rules = f"{stage.loaded.file} (rules {stage.rules.version})"
    if report.oldest is None or report.newest is None:
        return safe(f"{rules}: nothing to replay of that time")
    span = f"received from {stage.local(report.oldest)} to {stage.local(report.newest)}"
    other = report.replayed - report.same
    count = plural(report.replayed, "instance")
    found = f"{other} would have been other" if other else "nothing would have been other"
    lines = (f"{rules} over {count},", f"{span}:", found)
    return "\n".join(map(safe, lines))


def _beside(report: Report) -> Iterator[str]:
    if report.quarantined:
        yield f"{plural(report.quarantined, 'instance')} quarantined: held by any rules"
    if report.purged:
        yield (f"{report.purged} at most not tried: purged since, or broken off while they arrived")
    if report.damaged.count:
        yield f"{plural(report.damaged.count, 'instance')} COULD NOT BE READ:"
        for example in report.damaged.examples:
            yield safe(f"  instance {example.id}: {example.detail}")


def _row(name: str, line: Destination) -> tuple[object, ...]:
    changed = sum(kind.count for kind in line.changed.values())
    return name, line.before, line.after, line.added.count, line.dropped.count, changed


def _differences(report: Report) -> Iterable[tuple[str, Kind]]:
    for (before, after, why), kind in sorted(report.moves.items()):
        yield f"{_WORDS[after]}, {_WORDS[before]} then{f' ({why})' if why else ''}", kind
    for name, line in sorted(report.destinations.items()):
        if line.added.count:
            yield f"{name}, added", line.added
        if line.dropped.count:
            yield f"{name}, dropped", line.dropped
        for what, kind in sorted(line.changed.items(), key=lambda item: -item[1].count):
            yield f"{name}, {what}", kind
    for words, labels in (("added", report.labels_added), ("dropped", report.labels_dropped)):
        for label, kind in sorted(labels.items()):
            yield f"label {label}, {words}", kind


def _examples(kind: Kind, stage: Stage) -> Iterator[str]:
    for example in kind.examples:
        yield f"  {_example(example, stage)}"
        if example.detail:
            yield f"      {example.detail}"
    if kind.count > len(kind.examples):
        yield f"  … and {kind.count - len(kind.examples)} more"


def _example(example: Example, stage: Stage) -> str:
    words = [
        f"instance {example.id}",
        example.modality or "no modality",
        f"{example.calling_ae} to {example.called_ae}",
        stage.local(example.received_at),
    ]
    if example.patient_id is not None:
        words.append(f"patient {example.patient_id or '(none)'} {example.patient_name or ''}")
    return ", ".join(words).rstrip()
