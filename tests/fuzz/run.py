"""Many cases over all targets: ``python -m tests.fuzz.run --cases 10000000 --jobs 2``.

Prints a table and exits 0, or exits 1 at the first broken promise, with the input saved and the
command that runs it again.  Owns the sharing-out of cases.  Must not know any target.
"""

import argparse
import hashlib
import json
import multiprocessing
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from tests.fuzz.runner import Finding, Report, replay, run
from tests.fuzz.targets import TARGETS

_CHUNK = 50_000
_HEADINGS: tuple[tuple[str, int, Callable[[Report], str]], ...] = (
    ("target", 12, lambda r: r.target),
    ("cases", 11, lambda r: f"{r.cases:,}"),
    ("refused", 11, lambda r: f"{r.refused:,}"),
    ("accepted", 11, lambda r: f"{r.accepted:,}"),
    ("cases/s", 9, lambda r: f"{r.cases / max(r.seconds, 1e-9):,.0f}"),
    ("slowest ms", 11, lambda r: f"{r.slowest * 1000:.1f}"),
    ("buffered B", 11, lambda r: f"{r.held:,}"),
    ("lines", 10, lambda r: f"{r.lines:,}"),
    ("memory kB", 10, lambda r: f"{r.memory / 1000:,.0f}"),
)


def shares(cases: int, names: list[str]) -> dict[str, int]:
    """How many cases each target gets, by weight, one at least."""
    total = sum(TARGETS[name].weight for name in names)
    return {name: max(cases * TARGETS[name].weight // total, 1) for name in names}


def chunks(cases: int, names: list[str], seed: str) -> Iterator[tuple[str, int, str]]:
    """Target, count and seed of each stretch that one process does at a time."""
    left = shares(cases, names)
    for number in range(1 + max(left.values()) // _CHUNK):
        for name in names:
            if count := min(left[name], _CHUNK):
                left[name] -= count
                yield name, count, f"{seed}.{number}"


def _work(name: str, cases: int, seed: str) -> Report:
    return run(TARGETS[name], cases, seed)


def fuzz(cases: int, seed: str, names: list[str], jobs: int) -> dict[str, Report]:
    """A report per target; ends soon after the first finding."""
    reports = {name: Report(name, seed) for name in names}
    work = list(chunks(cases, names, seed))
    if jobs == 1:
        for item in work:
            reports[item[0]].add(report := _work(*item))
            if report.finding:
                break
        return reports
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        futures = [pool.submit(_work, *item) for item in work]
        for future in as_completed(futures):
            report = future.result()
            reports[report.target].add(report)
            if report.finding:
                pool.shutdown(cancel_futures=True)
                break
    return reports


def save(finding: Finding, directory: Path) -> Path:
    """Keep the input; the name is that of its bytes."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{finding.target}-{hashlib.sha256(finding.data).hexdigest()[:12]}.bin"
    path.write_bytes(finding.data)
    return path


def table(reports: dict[str, Report]) -> str:
    """The reports, one line each, and their sum."""
    lines = ["".join(f"{title:>{width}}" for title, width, _ in _HEADINGS)]
    total = Report("all", "")
    for report in reports.values():
        total.add(report)
    lines += [
        "".join(f"{show(report):>{width}}" for _, width, show in _HEADINGS)
        for report in (*reports.values(), total)
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000, help="over all targets")
    parser.add_argument("--seed", default="", help="any text; a fresh one unless given")
    parser.add_argument("--target", action="append", choices=TARGETS, help="may be repeated")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--save", type=Path, default=Path("build/fuzz"), help="for what is found")
    parser.add_argument("--json", type=Path, help="the raw figures, into this file")
    parser.add_argument("--replay", type=Path, help="run this one input of --target, and no more")
    options = parser.parse_args(arguments)
    names = options.target or list(TARGETS)
    if options.replay:
        for name in names:
            replay(TARGETS[name], options.replay.read_bytes())
        return 0
    seed = options.seed or secrets.token_hex(4)
    began = time.perf_counter()
    reports = fuzz(options.cases, seed, names, options.jobs)
    print(table(reports))
    print(f"seed {seed}, {time.perf_counter() - began:.0f} s, {options.jobs} processes")
    if options.json:
        options.json.write_text(
            json.dumps([asdict(r) for r in reports.values() if not r.finding], indent=1)
        )
    findings = [report.finding for report in reports.values() if report.finding]
    for finding in findings:
        path = save(finding, options.save)
        print(f"{finding.error}\n{finding.target}, seed {finding.seed}, input saved; again with:")
        print(f"  python -m tests.fuzz.run --target {finding.target} --replay {path}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
