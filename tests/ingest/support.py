"""Storage on a real spool, behind a real listener."""

import asyncio
import contextlib
import hashlib
import threading
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from router.dimse.command import encode_store_request
from router.dimse.fragment import encode_message
from router.ingest.settings import StorageSettings
from router.ingest.storage import StorageService
from router.spool.record import InstanceMeta, Position, Ref
from router.spool.settings import SpoolSettings
from router.spool.spool import Spool
from rules.decision import Decision, Facts, Route
from tests.dicom.build import EXPLICIT, explicit
from tests.net.support import CT_CONTEXT, Gate, Wire, gate
from tests.ul.support import CT

ROUTED = Decision("route", (Route("pacs", "all", 1),), "", "v1")
PIXELS = 0x7FE00010


def data_set(
    uid: str = "1.2.3", sop_class: str = CT, pixels: int = 100, modality: str = "CT"
) -> bytes:
    """A small CT in Explicit VR Little Endian."""

    def ui(value: str) -> bytes:
        return value.encode() + b"\0" * (len(value) % 2)

    return b"".join(
        (
            explicit(0x00080016, "UI", ui(sop_class)),
            explicit(0x00080018, "UI", ui(uid)),
            explicit(0x00080060, "CS", modality.encode()),
            explicit(0x0020000D, "UI", ui("1.2.3.4")),
            explicit(0x0020000E, "UI", ui("1.2.3.4.5")),
            explicit(PIXELS, "OW", bytes(i % 253 for i in range(pixels))),
        )
    )


def store_rq(
    data: bytes | None,
    message_id: int = 1,
    uid: str = "1.2.3",
    sop_class: str = CT,
    context_id: int = CT_CONTEXT,
    maximum: int = 16384,
) -> bytes:
    command = encode_store_request(message_id, sop_class, uid)
    if data is None:  # Command Data Set Type is the last but one element there
        at = command.index(bytes.fromhex("0000000802000000")) + 8
        command = command[:at] + b"\x01\x01" + command[at + 2 :]
    return encode_message(context_id, command, data, maximum)


async def stored(wire: Wire, *args: Any, **kwargs: Any) -> tuple[int, str]:
    """Status and Error Comment of one C-STORE."""
    await wire.send(store_rq(*args, **kwargs))
    answer = await wire.answer()
    assert answer.field == 0x8001
    return answer.status, answer.error_comment


@dataclass
class FixedRules:
    """The same for every instance; remembers what it was asked."""

    decision: Decision = ROUTED
    tags: Collection[int] = ()
    asked: list[Facts] = field(default_factory=list)
    version: str = "v1"

    def decide(self, facts: Facts) -> Decision:
        self.asked.append(facts)
        return self.decision


@dataclass
class ListFeed:
    """Keeps what was committed, in order."""

    entries: list[tuple[Ref, InstanceMeta, Position]] = field(default_factory=list)
    refusal: str = ""

    def add(self, ref: Ref, meta: InstanceMeta, end: Position) -> None:
        self.entries.append((ref, meta, end))


@dataclass
class StorageRecorder:
    received: list[tuple[str, str, int]] = field(default_factory=list)
    stored: list[int] = field(default_factory=list)

    def on_received(self, local_ae: str, remote: str, count: int) -> None:
        self.received.append((local_ae, remote, count))

    def on_stored(self, status: int, seconds: float) -> None:
        assert seconds >= 0
        self.stored.append(status)


@dataclass
class Reception(Gate):
    spool: Spool = field(kw_only=True)
    service: StorageService = field(kw_only=True)
    feed: ListFeed = field(kw_only=True)
    counted: StorageRecorder = field(kw_only=True)
    rules: Any = field(kw_only=True)

    @property
    def metas(self) -> list[InstanceMeta]:
        return [meta for _, meta, _ in self.feed.entries]

    def bytes_of(self, number: int) -> bytes:
        """The data set of the instance that was committed as the `number`-th."""
        reader = self.spool.open_reader(self.feed.entries[number][0])
        try:
            data = bytearray(reader.length)
            reader.read([memoryview(data)])
            return bytes(data)
        finally:
            reader.close()

    def digest_of(self, number: int) -> str:
        return hashlib.sha256(self.bytes_of(number)).hexdigest()


@contextlib.asynccontextmanager
async def reception(
    directory: Path,
    settings: StorageSettings | None = None,
    rules: Any = None,
    spool_settings: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[Reception]:
    """Until the scenario is over; then nothing may be under way in the spool."""
    loop = asyncio.get_running_loop()
    sizes = {"segment_size": 2**20, "large_instance": 2**18} | (spool_settings or {})
    spool = Spool.open(
        directory, SpoolSettings(**sizes), loop.call_soon_threadsafe, lambda count, seconds: None
    )
    list(spool.recover(None))
    spool.start(0)
    try:
        feed, counted, rules = ListFeed(), StorageRecorder(), rules or FixedRules()
        service = StorageService(
            settings or StorageSettings(),
            rules,
            spool,
            feed,
            counted,
            lambda: 1_700_000_000.0,
            loop.time,
        )
        async with gate(service, **options) as subject:
            yield Reception(
                subject.listeners,
                subject.observer,
                subject.shelf,
                spool=spool,
                service=service,
                feed=feed,
                counted=counted,
                rules=rules,
            )
        await spool.quiet()
        await _idle(spool)
        assert spool.blocks.in_use == 0
    finally:
        await asyncio.to_thread(spool.close)
    await asyncio.sleep(0)  # what the spool's threads posted at last


async def _idle(spool: Spool) -> None:
    """Until the threads for large files have nothing to do: a write, then the removal after it."""
    loop = asyncio.get_running_loop()
    threads = 4
    for _ in range(2):
        together = threading.Barrier(threads)
        waits = [loop.run_in_executor(spool.executor, together.wait) for _ in range(threads)]
        await asyncio.gather(*waits)


def recovered(directory: Path) -> list[Any]:
    """What a restart would find in the spool."""

    def no_loop(_: Callable[[], None]) -> None:
        raise AssertionError("nothing is committed here")

    spool = Spool.open(directory, SpoolSettings(), no_loop, lambda count, seconds: None)
    try:
        return list(spool.recover(None))
    finally:
        spool.close()


__all__ = ["CT", "EXPLICIT"]
