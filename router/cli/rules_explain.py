"""``rules explain``: rule by rule, why an instance goes where.

Owns how a file, a directory or an instance of the spool comes before the rules.  Values of
attributes are shown, patients' too: it is the operator's own terminal, and they asked.
"""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from router.cli.failures import FAILED, Failure, Misuse
from router.cli.files import DicomFile, FileReader, Skipped, find
from router.cli.options import config_option, json_option
from router.cli.output import plural, print_json, safe
from router.cli.rules_stage import Stage, lookout, set_stage
from router.cli.rules_words import (
    explanation_json,
    outcome_lines,
    trace_lines,
    width,
)
from router.spool.look import Pieces
from router.spool.record import InstanceMeta, Ref
from router.trial.facts import MODALITY, facts_of_record, first, scan
from rules.decision import Facts
from rules.interpret import Explanation
from rules.interpret import explain as interpret
from rules.verdict import words

_PIECE = 64 * 1024


@dataclass(frozen=True, slots=True)
class _Given:
    """What was said on the command line of how it came; None where nothing was."""

    calling_ae: str | None
    called_ae: str | None
    source: str | None
    remote: str | None
    moment: float | None


@dataclass(frozen=True, slots=True)
class _Subject:
    """Something to be explained; ``error`` is why the gateway could not parse it."""

    name: str
    facts: Facts
    error: str = ""


@click.command()
@click.argument("what", metavar="FILE|DIR|INSTANCE")
@config_option
@click.option("--calling-ae", metavar="AE", help="Who sends it, by AE title.")
@click.option("--called-ae", metavar="AE", help="The local AE that is called; the only one.")
@click.option("--source", metavar="ADDRESS", help="The address that it comes from.")
@click.option("--remote", metavar="NAME", help="Who sends it, by name; else as the AE title says.")
@click.option("--at", metavar="TIME", help="When it is received: 2026-11-21T02:00; else now.")
@click.option("--verbose", "-v", is_flag=True, help="Of a directory, the whole for each file.")
@json_option
def explain(
    what: str,
    config_path: Path | None,
    verbose: bool,
    as_json: bool,
    at: str | None,
    **given: str | None,
) -> None:
    """Why an instance goes where, rule by rule.

    Of a DICOM file, of each in a directory, or of an instance in the spool by its number: that one
    as it was received, as far as the options do not say otherwise.  Values of attributes are shown,
    patients' too.  Exit code 1 when nothing could be read.
    """
    stage = set_stage(config_path)
    how = _Given(**given, moment=None if at is None else stage.moment(at))
    _check(stage, how)
    skipped: list[Skipped] = []
    path = Path(what)
    if not path.exists() and what.isdecimal():
        subjects = iter([_of_instance(stage, int(what), how)])
    elif path.exists():
        subjects = _of_files(stage, path, how, skipped)
    else:
        raise Misuse(f"there is no file {what}", "give a file, a directory or an instance's number")
    brief = path.is_dir() and not verbose
    done, shown = 0, []
    for done, subject in enumerate(subjects, 1):
        explanation = interpret(stage.rules, subject.facts)
        if as_json:
            shown.append(_json(stage, subject, explanation))
        elif brief:
            click.echo(_line(stage, subject, explanation))
        else:
            _print(stage, subject, explanation, again=done > 1)
    if as_json:
        print_json(
            {
                "config": stage.loaded.file,
                "version": stage.rules.version,
                "instances": shown,
                "skipped": [{"path": str(s.path), "reason": s.reason} for s in skipped],
            }
        )
    _tell_skipped(skipped)
    if not done:
        raise SystemExit(FAILED)


def _check(stage: Stage, how: _Given) -> None:
    if how.remote and how.remote not in stage.config.remotes:
        from rules.nearest import did_you_mean

        known = stage.config.remotes
        fix = did_you_mean(how.remote, known) or f"there are: {', '.join(known) or 'none'}"
        raise Misuse(f"no remote is called {how.remote!r}", fix)
    for name, title in (("--calling-ae", how.calling_ae), ("--called-ae", how.called_ae)):
        if title is not None and not 0 < len(title.strip()) <= 16:
            raise Misuse(f"{name} {title!r} is no AE title", "they have 1 to 16 characters")
    from rules.pattern import parse_address

    if how.source and parse_address(how.source) is None:
        raise Misuse(f"--source {how.source!r} is no address", "such as 10.0.0.7")


# -- where it comes from -------------------------------------------------------------------------


def _of_files(stage: Stage, path: Path, how: _Given, skipped: list[Skipped]) -> Iterator[_Subject]:
    """What can be read; what cannot is told in ``skipped``."""
    if how.calling_ae is None:
        raise Misuse("it is not said who sends it", "use --calling-ae AE")
    if not how.source and how.remote is None and stage.unknown_caller(how.calling_ae):
        raise Misuse(
            f"the remote {how.calling_ae!r} is known by its address, and rules ask for it",
            "say which address it comes from with --source ADDRESS, or who it is with --remote",
        )
    now = time.time()
    for file in find([path]):
        if isinstance(file, Skipped):
            skipped.append(file)
            continue
        try:
            yield _of_file(stage, file, how, now)
        except OSError as error:
            skipped.append(Skipped(file.path, error.strerror or str(error)))


def _of_file(stage: Stage, file: DicomFile, how: _Given, now: float) -> _Subject:
    with closing(FileReader(file)) as reader:
        scanned = scan(file.transfer_syntax_uid, stage.rules.tags, _pieces(reader))
    calling, source = how.calling_ae or "", how.source or ""
    facts = Facts(
        calling_ae=calling,
        called_ae=stage.called_ae if how.called_ae is None else how.called_ae,
        source_address=source,
        remote=stage.identify(calling, source) if how.remote is None else how.remote,
        sop_class_uid=file.sop_class_uid,
        transfer_syntax_uid=file.transfer_syntax_uid,
        attributes=scanned.attributes,
        received_at=now if how.moment is None else how.moment,
        too_large=scanned.too_large,
    )
    return _Subject(str(file.path), facts, scanned.error)


def _pieces(reader: FileReader) -> Iterator[bytes]:
    while reader.remaining:
        piece = bytearray(min(_PIECE, reader.remaining))
        reader.read([memoryview(piece)])
        yield bytes(piece)


def _of_instance(stage: Stage, number: int, how: _Given) -> _Subject:
    def make(_: Ref, meta: InstanceMeta, pieces: Pieces) -> _Subject:
        scanned = scan(meta.transfer_syntax_uid, stage.rules.tags, pieces)
        said = {
            "calling_ae": how.calling_ae,
            "called_ae": how.called_ae,
            "source": how.source,
            "received_at": how.moment,
        }
        meta = meta._replace(**{k: v for k, v in said.items() if v is not None})  # type: ignore[arg-type]
        facts = facts_of_record(meta, scanned, stage.identify)
        if how.remote is not None:
            facts = replace(facts, remote=how.remote)
        return _Subject(f"instance {number}", facts, scanned.error)

    with lookout(stage.config.data_dir) as (found, view):
        ref = view.refs([number]).get(number)
        seen = found.one(ref, make) if ref is not None else None
    if seen is None or (seen.result is None and not seen.damage):
        raise Failure(
            f"there is no instance {number}",
            "it was purged after its last delivery, or never was; see `dcmrouter instances list`",
        )
    if seen.result is None:
        raise Failure(f"instance {number} cannot be read: {seen.damage}")
    return seen.result


# -- how it is shown -----------------------------------------------------------------------------


def _line(stage: Stage, subject: _Subject, explanation: Explanation) -> str:
    fate = _unparsable(stage, subject) if subject.error else words(explanation.decision)
    return safe(f"{subject.name}: {fate}")


def _unparsable(stage: Stage, subject: _Subject) -> str:
    """What the gateway does with it whatever the rules say."""
    verb = "refused" if stage.config.storage.unparsable == "refuse" else "held"
    return f"is {verb}, whatever the rules say: it cannot be parsed: {subject.error}"


def _print(stage: Stage, subject: _Subject, explanation: Explanation, *, again: bool) -> None:
    columns, facts = width(), subject.facts
    if again:
        click.echo()
    what = first(dict(facts.attributes), MODALITY) or "no modality"
    click.echo(click.style(safe(f"{subject.name}: {what}"), bold=True))
    who = f"{facts.calling_ae} ({facts.remote or 'no remote by name'})"
    where = f" at {facts.source_address}" if facts.source_address else ""
    click.echo(safe(f"from {who}{where} to {facts.called_ae or '(no local AE said)'}"))
    click.echo(safe(f"received {stage.local(facts.received_at)} {stage.zone}"))
    if subject.error:
        click.echo(safe(f"it {_unparsable(stage, subject)}"))
        return
    click.echo()
    for line in trace_lines(explanation.rules, stage.rules.rules, columns):
        click.echo(line)
    click.echo()
    for line in outcome_lines(stage, explanation, facts.received_at, columns):
        click.echo(line)


def _json(stage: Stage, subject: _Subject, explanation: Explanation) -> dict[str, Any]:
    facts = subject.facts
    return {
        "name": subject.name,
        "calling_ae": facts.calling_ae,
        "called_ae": facts.called_ae,
        "source": facts.source_address,
        "remote": facts.remote,
        "sop_class_uid": facts.sop_class_uid,
        "transfer_syntax_uid": facts.transfer_syntax_uid,
        "received_at": facts.received_at,
        "error": subject.error,
        **explanation_json(stage, explanation, facts.received_at),
    }


def _tell_skipped(skipped: list[Skipped]) -> None:
    for each in skipped:
        click.echo(safe(f"dcmrouter: {each.path}: {each.reason}"), err=True)
    if len(skipped) > 1:
        click.echo(f"dcmrouter: {plural(len(skipped), 'file')} not read", err=True)
