"""What tests of the archive do: move a batch, and look at what is there."""

import asyncio
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

from router.operate import part10_head
from router.spool.archive_files import ArchiveFolder, Stored
from router.spool.archive_manifest import MANIFEST
from router.spool.archive_task import Archivist, Moved
from router.spool.index_types import Filter, InstanceRow
from router.spool.record import Ref
from tests.spool.keeping import T0
from tests.spool.spool_samples import Rig


def archivist(
    rig: Rig,
    told: list[Moved] | None = None,
    now: float = T0 + 1000,
    elapsed: Callable[[], float] = time.monotonic,
) -> Archivist:
    async def run(work: Callable[..., object], *arguments: object) -> object:
        return rig.loop.in_thread(work, *arguments)

    return Archivist(
        rig.keeper,
        run,
        settings=lambda: rig.spool.settings.archive,
        open_reader=rig.spool.open_reader,
        head=part10_head,
        clock=lambda: now,
        tell=(told if told is not None else []).append,
        elapsed=elapsed,
    )


def once(rig: Rig, now: float = T0 + 1000) -> Moved | None:
    return asyncio.run(archivist(rig, now=now).once())


def left(rig: Rig) -> list[int]:
    return [row.ref.id for row in rig.index.instances(Filter(), 1000)]


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def manifest(folder: Path) -> list[dict[str, object]]:
    lines = [
        line for path in sorted(folder.rglob(MANIFEST)) for line in path.read_text().splitlines()
    ]
    return [json.loads(line) for line in lines]


def rows(rig: Rig, refs: list[Ref]) -> list[InstanceRow]:
    return [rig.row(ref.id) for ref in refs]


def writer(rig: Rig, folder: Path) -> ArchiveFolder:
    return ArchiveFolder(folder, rig.spool.open_reader, part10_head)


def write(rig: Rig, folder: Path, refs: list[Ref]) -> Stored:
    return writer(rig, folder).write(rows(rig, refs), threading.Event())
