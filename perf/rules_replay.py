"""``dcmrouter rules replay`` over a hundred thousand instances: how long, and in what memory.

``python -m perf.rules_replay`` makes a spool with as many real records as it is told and an index
of them, tries some 60 rules on it with the command, as an operator would, and prints seconds and
the most memory that the process had.  Exit 0 when nothing was missing from its report.

What differs from a spool that came in over the wire: pixel data of 4 KB in place of what images
have.  A replay does not read those, but it finds the records closer together on the disk.
"""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perf import data, wire
from perf.backlog import Record, store
from perf.processes import BenchError
from router.spool.index import Index
from router.spool.record import InstanceMeta, RouteMeta
from router.spool.settings import SpoolSettings
from router.spool.spool import Spool

_PIXELS = 4096
_AT_ONCE = 128
_BATCH = 2000
_STUDY = 100
_RULES = 60
_CALLERS = 20
_HERE = Path(__file__).parent

# What wait4 tells of a child has this process's own memory in it, from before the exec.
_COMMAND = """
import pathlib, sys
from router.cli.root import root
try:
    root()
finally:
    sys.stderr.write(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """``peak`` is the largest resident set in bytes."""

    seconds: float
    peak: int
    report: dict[str, Any]


def make_spool(directory: Path, count: int, now: float) -> None:
    """A data directory with ``count`` instances, received in the hour before ``now``; half of
    them CT, all routed to ``pacs``."""
    directory.mkdir(parents=True)
    asyncio.run(_fill(directory, count, now))


async def _fill(directory: Path, count: int, now: float) -> None:
    loop = asyncio.get_running_loop()
    spool = await asyncio.to_thread(
        Spool.open, directory / "spool", SpoolSettings(), loop.call_soon_threadsafe, _nothing
    )
    index = Index.open(directory / "index.sqlite")
    templates = [_template(data.KINDS[name]) for name in ("ct", "mr")]
    waiting: list[Record] = []
    try:
        await asyncio.to_thread(spool.start, 0)
        for begin in range(0, count, _AT_ONCE):
            numbers = range(begin, min(begin + _AT_ONCE, count))
            waiting += await asyncio.gather(
                *(_store(spool, templates[n % 2], _describe(n, count, now)) for n in numbers)
            )
            if len(waiting) >= _BATCH or numbers.stop == count:
                _add(index, waiting)
                waiting.clear()
    finally:
        await asyncio.to_thread(spool.close)
        index.close()


def _nothing(*_: object) -> None:
    """The committer's figures, which nobody asks for here."""


def _template(kind: data.Kind) -> tuple[bytes, int]:
    """A data set with little pixel data, and where its SOP Instance UID stands."""
    found = data.make_dataset(kind, 0, 0, pixels=False)
    uid = found.SOPInstanceUID.encode()
    found.add_new(0x7FE00010, "OW", bytes(_PIXELS))
    encoded = data.encode(found)
    return encoded, encoded.index(uid)


def _describe(number: int, count: int, now: float) -> InstanceMeta:
    kind = data.KINDS[("ct", "mr")[number % 2]]
    study = number // _STUDY
    return InstanceMeta(
        received_at=now - 3600 * (1 - number / count),
        association=f"replay-{study}",
        calling_ae=f"SCANNER{number % _CALLERS}",
        called_ae="ROUTER",
        source="10.0.0.7",
        remote="",
        sop_class_uid=kind.sop_class_uid,
        sop_instance_uid=data.instance_uid(kind, 0, number),
        transfer_syntax_uid=wire.EXPLICIT_LE,
        study_instance_uid=data.instance_uid(kind, 0, study, level=1),
        series_instance_uid=data.instance_uid(kind, 0, study, level=2),
        modality=kind.modality,
        disposition="route",
        rules_version="then",
        routes=(RouteMeta("pacs", "everything to the PACS"),),
    )


def _store(
    spool: Spool, template: tuple[bytes, int], meta: InstanceMeta
) -> "asyncio.Future[Record]":
    encoded, at = template
    uid = meta.sop_instance_uid.encode()
    return store(spool, [memoryview(encoded[:at] + uid + encoded[at + len(uid) :])], meta)


def _add(index: Index, records: Sequence[Record]) -> None:
    entries = [(ref, meta) for ref, meta, _ in records]
    end = max(position for _, _, position in records)
    index.add(entries, end, suppress_duplicates=False, same_bytes=lambda *_: False)


def write_candidate(path: Path, data_dir: Path) -> None:
    """A configuration whose rules look at a dozen attributes and route some of it elsewhere."""
    rules = ["  - {name: everything to the PACS, to: pacs}"]
    rules += (
        f"  - {{name: 'protocol {number}', to: ai, when: {{calling_ae: 'SCANNER{number % 20}', "
        f"Modality: CT, BodyPartExamined: [HEAD, 'PART{number}'], "
        f"StudyDescription: '*study*', InstanceNumber: '< {number % 9}'}}}}"
        for number in range(_RULES - 2)
    )
    rules.append("  - {name: CT to the second archive, when: {Modality: CT}, to: archive}")
    path.write_text(
        f"data_dir: {data_dir}\n"
        "local: [{ae_title: ROUTER, listen: 127.0.0.1:11112, accept: any}]\n"
        "remotes:\n"
        + "".join(
            f"  {name}: {{ae_title: {name.upper()}, host: 127.0.0.1, port: 104}}\n"
            for name in ("pacs", "ai", "archive")
        )
        + "rules:\n"
        + "\n".join(rules)
        + "\n"
    )


def measure(candidate: Path) -> Measured:
    """The command, as a process.  Raises BenchError when it fails."""
    arguments = ("rules", "replay", "--with", os.fspath(candidate), "--since", "2h", "--json")
    began = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-c", _COMMAND, *arguments],
        capture_output=True,
        cwd=_HERE.parent,
        env={**os.environ, "DCMROUTER_CONFIG": ""},
        check=False,
    )
    if process.returncode:
        raise BenchError(f"rules replay ended with {process.returncode}: {process.stderr!r}")
    peak = int(process.stderr.split()[-1]) * 1024
    return Measured(time.perf_counter() - began, peak, json.loads(process.stdout))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=100_000)
    count = parser.parse_args().instances
    directory = Path(tempfile.mkdtemp(prefix="rules-replay-", dir=_HERE / "work"))
    try:
        make_spool(directory / "data", count, time.time())
        write_candidate(directory / "new.yaml", directory / "data")
        found = measure(directory / "new.yaml")
    finally:
        shutil.rmtree(directory)
    added = {d["destination"]: d["added"]["count"] for d in found.report["destinations"]}
    print(
        f"{found.report['replayed']} instances in {found.seconds:.1f} s "
        f"({found.report['replayed'] / found.seconds:.0f}/s), {found.peak / 1e6:.0f} MB at most; "
        f"added: {added}"
    )
    return 0 if found.report["replayed"] == count else 1


if __name__ == "__main__":
    sys.exit(main())
