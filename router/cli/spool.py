"""``spool``: what lies on disk, looked at from outside.

Owns how a verification is told.  The gateway is not asked, and may run meanwhile.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click

from router.cli.failures import FAILED, Failure, Misuse
from router.cli.options import config_option, json_option, load_config
from router.cli.output import plural, print_json, print_table, safe, size
from router.spool.errors import SpoolError, SpoolLocked
from router.spool.forget import forget
from router.spool.verify import verify
from router.spool.verify_report import Finding, Report, SegmentReport

Progress = Callable[[int, int], None]

_SEGMENTS_SHOWN = 100
_FINDINGS_SHOWN = 100


@click.group()
def spool() -> None:
    """The spool on disk."""


@spool.command("verify")
@config_option
@json_option
def verify_(config_path: Path | None, as_json: bool) -> None:
    """Read every segment, record and large file, and compare them with the index.

    Reads alone and takes no lock: it may run beside the gateway.  Exit code 0 when everything is
    sound, 1 when something is damaged or missing, 2 for bad usage.
    """
    data_dir = load_config(config_path).config.data_dir
    directory = data_dir / "spool"
    if not directory.is_dir():
        raise Misuse(f"there is no spool in {data_dir}", "correct data_dir, or the directory")
    try:
        with _progress() as progress:
            report = verify(directory, data_dir / "index.sqlite", progress)
    except SpoolError as error:
        raise Failure(f"not verified: {error}") from None
    if as_json:
        print_json({"sound": report.sound, **asdict(report)})
    else:
        _print(report)
    if not report.sound:
        raise SystemExit(FAILED)


@spool.command("forget")
@click.argument("segment")
@config_option
def forget_(segment: str, config_path: Path | None) -> None:
    """Look no longer for a SEGMENT that is missing, such as 00000012.seg.

    For one whose file is lost for good, while the gateway is stopped.  What was in it stays lost:
    what the index names of it is shown as before.
    """
    data_dir = load_config(config_path).config.data_dir
    if not (data_dir / "spool").is_dir():
        raise Misuse(f"there is no spool in {data_dir}", "correct data_dir, or the directory")
    try:
        generation = forget(data_dir / "spool", segment)
    except SpoolLocked as error:
        raise Failure(f"nothing was done: {error}", "stop the gateway first") from None
    except SpoolError as error:
        raise Failure(f"nothing was done: {error}") from None
    what = f"in which generation {generation} was begun" if generation else "which was not read"
    click.echo(f"segment {safe(segment)}, {what}, is given up")


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on standard error, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    bar = click.progressbar(length=1, label="reading", file=sys.stderr)
    with bar:

        def told(done: int, total: int) -> None:
            bar.length = max(total, 1)
            bar.update(done - bar.pos)

        yield told


def _print(report: Report) -> None:
    segments = report.segments
    shown = segments
    if len(segments) > _SEGMENTS_SHOWN:
        shown = [s for s in segments if s.damaged or s.missing or s.orphaned]
    if shown:
        _print_segments(shown[:_SEGMENTS_SHOWN])
    left_out = len(segments) - len(shown[:_SEGMENTS_SHOWN])
    if left_out:
        click.echo(f"… and {plural(left_out, 'segment')} more: --json has them all")
    for finding in report.findings[:_FINDINGS_SHOWN]:
        click.echo(_line(finding))
    unsaid = sum(report.counts.values()) - len(report.findings[:_FINDINGS_SHOWN])
    if unsaid:
        click.echo(f"… and {unsaid} findings more: --json has the first 10,000")
    if report.index:
        click.echo(f"THE INDEX: {safe(report.index)}")
    _print_sum(report)


def _print_segments(segments: list[SegmentReport]) -> None:
    columns = ("segment", ">generation", "state", ">size", ">sound", ">bytes")
    more = (">past", ">orphaned", ">damaged", ">missing")
    print_table(
        (*columns, *more),
        [
            (
                *(s.name or "(none)", s.generation or "", s.state, size(s.size)),
                *(s.records, size(s.bytes), s.past, s.orphaned, s.damaged, s.missing),
            )
            for s in segments
        ],
    )


def _line(finding: Finding) -> str:
    who = f", instance {finding.instance}" if finding.instance is not None else ""
    uid = f" ({finding.sop_instance_uid})" if finding.sop_instance_uid else ""
    return safe(f"{finding.kind}: {finding.where}{who}{uid}: {finding.what}")


def _print_sum(report: Report) -> None:
    records = sum(s.records for s in report.segments)
    total = sum(s.bytes for s in report.segments)
    counts = report.counts
    click.echo(
        f"{plural(len(report.segments), 'segment')}, {plural(report.large_files, 'large file')} "
        f"({size(report.large_bytes)}): {plural(records, 'instance')} sound ({size(total)}), "
        f"{counts['damaged']} damaged, {counts['missing']} missing, "
        f"{counts['orphaned']} orphaned, {counts['stale']} stale"
    )
    click.echo("the spool is sound" if report.sound else "THE SPOOL IS NOT SOUND")
