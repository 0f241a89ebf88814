"""What an operator, a page or Prometheus asks of the running gateway.

Owns the answers to `router.web.sources` and `router.observe.state`: looking up, and acting on
queues.  Must not know HTTP, nor how the gateway is wired beyond the parts that it asks.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import TYPE_CHECKING, TypeVar

import structlog
from starlette.applications import Starlette

from router import __version__
from router.config.compare import Difference
from router.config.restore import RestoreError
from router.config.versions import File, Origin, Version, VersionsError
from router.dicom.part10 import write_file_meta
from router.net.settings import parse_address
from router.observe.counters import UNKNOWN
from router.observe.exposition import Exporter
from router.observe.state import DestinationState, DiskState, Snapshot
from router.orders import Orders, named
from router.reload import Result
from router.spool.errors import SpoolError
from router.spool.index_hours import SinceAccount, account_since
from router.spool.index_promises import Promise
from router.spool.index_types import (
    Account,
    Filter,
    InstanceRow,
    QueueItem,
    QueueLine,
)
from router.spool.reader import Reader
from router.web.control import create_control_app
from router.web.outline import line_of
from router.web.sources import (
    AssociationState,
    ControlError,
    InstanceFile,
    ListenerState,
    ListState,
    Readiness,
    Reloaded,
    RulesView,
    Status,
    VersionsView,
)
from router.web.standing import Standing
from router.web.status import create_app, hosts_for

if TYPE_CHECKING:
    from router.app import Gateway

_log = structlog.get_logger("operate")

T = TypeVar("T")

_PIECE = 1 << 20


def part10_head(row: InstanceRow) -> bytes:
    """What comes before the data set of an instance in a file (PS3.10 §7)."""
    return write_file_meta(
        row.meta.sop_class_uid,
        row.meta.sop_instance_uid,
        row.meta.transfer_syntax_uid,
        source_ae=row.meta.calling_ae,
    )


class Operations(Orders):
    """Implements `StatusSource`, `ControlSource` and `Sources` for one gateway."""

    def __init__(self, gateway: "Gateway") -> None:
        super().__init__(gateway)
        self._exporter = Exporter(
            gateway.counters,
            self,
            on_error=lambda error: _log.error("metrics are incomplete", why=str(error)),
        )

    def status_app(self) -> Starlette:
        """What the TCP port serves."""
        host, _ = parse_address(self._gateway.loaded.config.http.listen)
        return create_app(self, allowed_hosts=hosts_for(host, ()))

    def control_app(self) -> Starlette:
        """What the control socket serves."""
        return create_control_app(self)

    async def close(self) -> None:
        """End what is under way."""
        await self._exporter.close()

    # -- looking -------------------------------------------------------------------------------

    async def snapshot(self) -> Snapshot:
        """See `Sources`."""
        gateway = self._gateway
        index = gateway.index

        def look() -> tuple[list[QueueLine], Account]:
            return index.queue_summary(), index.account()

        unindexed = gateway.feed.waiting
        indexed = sum(r.instances for r in gateway.counters.received.children.values()) - unindexed
        queues, account = await gateway.index_thread.run(look)
        upkeep = gateway.upkeep
        differences = dict(account.differences)
        # Counted apart from the index: what was acknowledged and does not wait must be there.
        if (missing := indexed - (account.received - gateway.received_before)) > 0:
            differences["index"] = missing
        return Snapshot(
            now=time.time(),
            queues=tuple(queues),
            destinations=tuple(
                DestinationState(
                    name=name,
                    up=state.up,
                    reason=state.reason,
                    next_probe_at=state.next_probe,
                    associations=state.open_associations,
                    in_flight=state.in_flight,
                    paused=state.paused,
                    opens_at=state.until,
                    shut=state.shut,
                    limited=state.limited,
                    urgent=state.urgent,
                )
                for name, state in sorted(gateway.forwarder.snapshot().items())
                if state.configured
            ),
            disk=DiskState(
                upkeep.used,
                upkeep.free,
                bool(upkeep.refusal),
                min(upkeep.used, gateway.spool.segments.spare_bytes),
                upkeep.share,
                bool(gateway.retention.archive_trouble)
                if gateway.loaded.config.spool.archive
                else None,
            )
            if upkeep
            else None,
            held_instances=account.held + account.quarantined,
            dead_instances=sum(d.dead for d in account.destinations.values()),
            unindexed_instances=unindexed,
            account_differences=differences,
        )

    async def metrics(self) -> bytes:
        """See `StatusSource`."""
        return await self._exporter.render()

    async def readiness(self) -> Readiness:
        """See `StatusSource`."""
        gateway = self._gateway
        listening = gateway.listeners.listening
        reasons = [
            f"{ae.ae_title} does not listen at {ae.listen}"
            for ae in gateway.loaded.config.local
            if ae.listen not in listening
        ]
        if gateway.spool.refusal:
            reasons.append(gateway.spool.refusal)
        elif gateway.spool.trouble:
            reasons.append(f"disk: {gateway.spool.trouble}")
        if gateway.feed.refusal:
            reasons.append(gateway.feed.refusal)
        elif gateway.feed.trouble or gateway.index_trouble:
            reasons.append(f"index: {gateway.feed.trouble or gateway.index_trouble}")
        return Readiness(tuple(reasons))

    async def status(self) -> Status:
        """See `StatusSource`."""
        gateway = self._gateway
        listening = gateway.listeners.listening
        return Status(
            version=__version__,
            started_at=gateway.started_at,
            snapshot=await self.snapshot(),
            rules_version=gateway.loaded.rules.version,
            configured_at=gateway.configured_at,
            reload_error=gateway.reload_error,
            listeners=tuple(
                ListenerState(ae.ae_title, ae.listen, ae.listen in listening)
                for ae in gateway.loaded.config.local
            ),
            associations=tuple(
                AssociationState(
                    id=a.id,
                    direction="in",
                    local_ae=a.called_ae,
                    peer=a.remote or UNKNOWN,
                    calling_ae=a.calling_ae,
                    address=a.peer_address,
                    since=a.since,
                    instances=a.messages,
                )
                for a in gateway.listeners.associations
            ),
        )

    async def queues(self) -> Sequence[QueueLine]:
        """See `StatusSource`."""
        return await self._gateway.index_thread.run(self._gateway.index.queue_summary)

    # -- one by one ----------------------------------------------------------------------------

    async def queue(
        self, which: Filter, limit: int, after: tuple[int, int] | None
    ) -> Sequence[QueueItem]:
        """See `ControlSource`."""
        await self._named(which)
        index = self._gateway.index
        return await self._gateway.index_thread.run(index.queue_list, which, limit, after)

    async def standing(self) -> Standing:
        """See `ControlSource`."""
        gateway = self._gateway
        snapshot = await self.snapshot()
        pauses = await gateway.index_thread.run(gateway.index.pauses)
        return Standing(
            now=snapshot.now,
            destinations={state.name: state for state in snapshot.destinations},
            sending=gateway.forwarder.sending(),
            pauses={pause.destination: pause for pause in pauses},
        )

    async def promises(self, limit: int, everything: bool) -> Sequence[Promise]:
        """See `ControlSource`."""
        listing = self._gateway.index.promises.listing
        return await self._gateway.index_thread.run(listing, limit, everything=everything)

    async def instances(self, which: Filter, limit: int, after: int) -> Sequence[InstanceRow]:
        """See `ControlSource`."""
        await self._named(which)
        index = self._gateway.index
        return await self._gateway.index_thread.run(index.instances, which, limit, after)

    async def instance(self, number: int) -> InstanceRow | None:
        """See `ControlSource`."""
        return await self._gateway.index_thread.run(self._gateway.index.instance, number)

    async def open_file(self, number: int) -> InstanceFile | None:
        """See `ControlSource`."""
        row = await self.instance(number)
        if row is None:
            return None
        try:
            reader = self._gateway.spool.open_reader(row.ref)
        except SpoolError as error:
            raise ControlError(str(error), "see the log of the gateway", status=500) from error
        meta = part10_head(row)
        return InstanceFile(
            name=f"{number}.dcm", length=len(meta) + reader.length, pieces=_pieces(meta, reader)
        )

    # -- the configuration ---------------------------------------------------------------------

    async def rules(self) -> RulesView:
        """See `StatusSource`."""
        gateway = self._gateway
        loaded, reloader = gateway.loaded, gateway.reloader
        now = time.time()
        return RulesView(
            version=loaded.rules.version,
            number=reloader.in_force.number if reloader.in_force else 0,
            since=gateway.configured_at,
            rules=tuple(line_of(rule, now) for rule in loaded.rules.rules),
            destinations=tuple(sorted(loaded.rules.destinations)),
            lists=tuple(
                ListState(name, count, failed)
                for name, (count, failed) in gateway.counters.config.lists.items()
            ),
            reload_error=gateway.reload_error,
            trouble=reloader.trouble,
        )

    async def reload(self, origin: Origin) -> Reloaded:
        """See `ControlSource`."""
        return _reloaded(await self._gateway.reloader.reload(await named(origin)))

    async def versions(self) -> VersionsView:
        """See `ControlSource`."""
        reloader = self._gateway.reloader
        listing = await self._asked(reloader.listing())
        number = reloader.in_force.number if reloader.in_force else 0
        return VersionsView(listing.versions, listing.damaged, number, reloader.trouble)

    async def version(self, text: str) -> tuple[Version, Sequence[File]]:
        """See `ControlSource`."""
        return await self._asked(self._gateway.reloader.files(text))

    async def difference(self, old: str, new: str) -> Difference:
        """See `ControlSource`."""
        return await self._asked(self._gateway.reloader.difference(old, new))

    async def rollback(self, text: str, origin: Origin) -> Reloaded:
        """See `ControlSource`."""
        reloader = self._gateway.reloader
        return _reloaded(await self._asked(reloader.rollback(text, await named(origin))))

    async def _asked(self, work: Awaitable[T]) -> T:
        try:
            return await work
        except VersionsError as error:
            raise ControlError(str(error), error.fix, status=404) from error
        except RestoreError as error:
            raise ControlError(str(error), error.fix, status=409) from error

    async def account(self) -> Account:
        """See `ControlSource`."""
        return await self._gateway.index_thread.run(self._gateway.index.account)

    async def account_since(self, since: float) -> SinceAccount:
        """See `ControlSource`."""
        path = self._gateway.loaded.config.data_dir / "index.sqlite"
        return await asyncio.to_thread(account_since, path, since)


def _reloaded(result: Result) -> Reloaded:
    problems = tuple(map(str, result.problems))
    return Reloaded(
        not problems, result.changes, problems, result.version, result.files, result.notes
    )


async def _pieces(meta: bytes, reader: Reader) -> AsyncIterator[bytes]:
    """The head together with the first bytes, so that damage shows before anything is promised."""
    try:
        head = meta
        while head or reader.remaining:
            piece = bytearray(min(_PIECE, reader.remaining))
            if piece:
                reading = asyncio.ensure_future(asyncio.to_thread(reader.read, [memoryview(piece)]))
                try:
                    await asyncio.shield(reading)
                finally:
                    # Cancelled or not, the reader is not closed under the thread that uses it.
                    await asyncio.wait([reading])
            yield head + piece
            head = b""
    finally:
        reader.close()
