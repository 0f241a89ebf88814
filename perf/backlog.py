"""A data directory in which so many instances wait, made quickly.

Owns the made-up backlog: a spool of real segments with real records, written by the product's own
spool, and an index in which many instances share the bytes of few records.  Everything that
starting, receiving and delivering look at is there in full number (rows, studies, segments), and
what waits can be delivered; only the disk is spared 131 GB.

What differs from a backlog that came in over the wire: segments are of 1 MiB, so that 2,000 of
them, as a million MR would need at the default of 64 MiB, take 2 GB; records of the instances
that share bytes do not exist, so this index could not be made anew from its spool.
"""

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path

from perf import data, wire
from perf.processes import BenchError
from router.spool.errors import SpoolError
from router.spool.index import Index
from router.spool.record import InstanceMeta, Position, Ref, RouteMeta
from router.spool.settings import SpoolSettings
from router.spool.spool import Spool

_SEGMENT = 2**20
_BATCH = 2000
_STUDY_SIZE = 100
_AT_ONCE = 64
_SENDER = 800_000
_HOUR = 3600.0


Record = tuple[Ref, InstanceMeta, Position]


class Backlog:
    """``waiting`` instances, evenly over ``destinations``, each of them for one; received in the
    hour before ``now``, in seconds since the epoch."""

    def __init__(self, waiting: int, destinations: Sequence[str], now: float) -> None:
        self._waiting = waiting
        self._destinations = destinations
        self._now = now
        # Whole studies go to a destination, so there are at least as many of them.
        self._study_size = max(1, min(_STUDY_SIZE, waiting // len(destinations)))

    def make(self, directory: Path, *, segments: int) -> None:
        """A data directory, whose spool begins at least one segment and no more than are needed.

        Raises BenchError when the spool refuses an instance, SpoolError, OSError.
        """
        directory.mkdir(parents=True)
        records = asyncio.run(self._fill_spool(directory / "spool", segments))
        index = Index.open(directory / "index.sqlite")
        try:
            self._fill_index(index, records)
        finally:
            index.close()

    async def _fill_spool(self, directory: Path, segments: int) -> list[Record]:
        """Real records, for the first instances."""
        settings = SpoolSettings(segment_size=_SEGMENT, large_instance=_SEGMENT // 4)
        loop = asyncio.get_running_loop()
        spool = await asyncio.to_thread(
            Spool.open, directory, settings, loop.call_soon_threadsafe, lambda *_: None
        )
        try:
            await asyncio.to_thread(spool.start, 0)
            template = data.template(data.KINDS["mr"])
            records: list[Record] = []
            while len(records) < self._waiting:
                count = min(_AT_ONCE, self._waiting - len(records))
                metas = [self._describe(len(records) + n) for n in range(count)]
                records += await asyncio.gather(*(_store(spool, template, m) for m in metas))
                if len({ref.generation for ref, _, _ in records}) >= segments:
                    break
            return records
        finally:
            await asyncio.to_thread(spool.close)

    def _describe(self, number: int) -> InstanceMeta:
        kind = data.KINDS["mr"]
        study = number // self._study_size
        return InstanceMeta(
            received_at=self._now - _HOUR * (1 - number / self._waiting),
            association=f"backlog-{study}",
            calling_ae="MR1",
            called_ae="ROUTER",
            source="10.0.0.7",
            remote="",
            sop_class_uid=kind.sop_class_uid,
            sop_instance_uid=data.instance_uid(kind, _SENDER, number),
            transfer_syntax_uid=wire.EXPLICIT_LE,
            study_instance_uid=data.instance_uid(kind, _SENDER, study, level=1),
            series_instance_uid=data.instance_uid(kind, _SENDER, study, level=2),
            modality="MR",
            disposition="route",
            rules_version="backlog",
            routes=(RouteMeta(self._destinations[study % len(self._destinations)], "backlog"),),
        )

    def _fill_index(self, index: Index, records: Sequence[Record]) -> None:
        """The records themselves first, then instances that share their bytes."""
        end = max(position for _, _, position in records)
        first_shared = max(ref.id for ref, _, _ in records) + 1 - len(records)
        for begin in range(0, self._waiting, _BATCH):
            entries = []
            for number in range(begin, min(begin + _BATCH, self._waiting)):
                ref, meta, _ = records[number % len(records)]
                if number >= len(records):
                    ref = ref._replace(id=first_shared + number)
                    meta = self._describe(number)
                entries.append((ref, meta))
            index.add(entries, end, suppress_duplicates=True, same_bytes=lambda *_: False)


def _store(spool: Spool, template: data.Template, meta: InstanceMeta) -> asyncio.Future[Record]:
    head = bytearray(template.data[: template.pixel_offset])
    uid = meta.sop_instance_uid.encode()
    head[template.uid_offset : template.uid_offset + len(uid)] = uid
    pixels = memoryview(template.data)[template.pixel_offset :]
    return store(spool, (memoryview(head), pixels), meta)


def store(
    spool: Spool, pieces: Iterable[memoryview], meta: InstanceMeta
) -> "asyncio.Future[Record]":
    """What the spool has of a data set in pieces, once it is on the disk."""
    done: asyncio.Future[Record] = asyncio.get_running_loop().create_future()

    def committed(ref: Ref | None, end: Position | None, error: SpoolError | None) -> None:
        if ref is None or end is None:
            done.set_exception(BenchError(f"the spool refused an instance: {error}"))
        else:
            done.set_result((ref, meta, end))

    writer = spool.begin(lambda: None)
    for piece in pieces:
        writer.append(piece)
    writer.commit(meta.to_bytes(), committed)
    return done
