"""Wires the gateway: the only place that knows all of its parts.

Owns the order of starting and stopping, and what each part takes of a new configuration; how
one takes effect is in `reload`.  What a part does is in its own package; what an operator asks of
the running gateway is in `operate`.
"""

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Callable, Sequence

import structlog

from router import __version__
from router.commitments import Commitments
from router.config import Config, Loaded
from router.config.rollback import Read
from router.destinations import destinations_of, outgoing_of, peers_of
from router.forward.forwarder import Forwarder
from router.forward.gatekeeper import Gatekeeper
from router.ingest.feed import IndexFeed
from router.ingest.storage import StorageService
from router.ingest.studies import OpenStudies
from router.ingest.verification import VerificationService
from router.net.admission import Admission
from router.net.descriptors import descriptors_left
from router.net.listener import USUAL, Listeners
from router.net.service import ServiceRegistry
from router.net.settings import parse_address
from router.observe.counters import Counters
from router.observe.ratelimit import RateLimited
from router.observe.retention import Retention
from router.observe.stall import StallMeter
from router.opening import open_index, recover
from router.operate import Operations, part10_head
from router.proof import Proof
from router.queues import Archives, QueueGateway, members_of, windows_of
from router.reload import Reloader
from router.signals import Signalled
from router.spool.archive_task import Archivist
from router.spool.errors import SpoolError
from router.spool.index import Index
from router.spool.index_thread import IndexThread
from router.spool.index_types import AddResult, Gate
from router.spool.keeper import Keeper
from router.spool.record import InstanceMeta, Position, Ref
from router.spool.spool import Spool
from router.spool.upkeep import Upkeep
from router.web.server import WebServer
from router.web.standing import PAUSED

_log = structlog.get_logger("app")
_USUAL_LINES = 600
"""A minute, for each address, about associations that come and go as they should."""

KEEPER_INTERVAL = 1.0
_LAST_COMMITS = 1.0
"""Seconds for the commits of instances whose associations were cut off at stop."""
_LAST_PAGES = 5.0
"""Seconds for answers of the web pages that are under way at stop."""


class Gateway:
    """One running gateway.

    `read` loads the configuration anew, for a reload; blocking, may raise Problems.  `applied` is
    told the new configuration after a reload, for what belongs to the process.
    """

    def __init__(
        self,
        loaded: Loaded,
        read: Read,
        applied: Callable[[Config], None] = lambda config: None,
    ) -> None:
        self.loaded = loaded
        self.counters = Counters()
        self.retention = Retention(self.counters, _log)
        self.index_thread = IndexThread()
        self.started_at = time.time()
        self.configured_at = self.started_at
        self.reload_error = ""
        self.upkeep: Upkeep | None = None
        self.index_trouble = ""
        self.received_before = 0
        self.reloader = Reloader(self, read)
        self._applied = applied
        self._stalls = StallMeter(self.counters.event_loop_stall_seconds)
        self._lines = RateLimited(limits={USUAL: _USUAL_LINES})
        self._stop = asyncio.Event()
        self._stop_by: float | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._exit = contextlib.AsyncExitStack()

    # -- starting ------------------------------------------------------------------------------

    async def start(self) -> None:
        """Everything up, or everything down again and the error raised.

        Raises SpoolError or OSError, with a text for the operator.
        """
        try:
            await self._start()
        except BaseException:
            await self._exit.aclose()
            raise

    async def _start(self) -> None:
        config = self.loaded.config
        self._exit.callback(self.index_thread.close)
        await self._open_spool(config)
        self._make_forwarding(config)
        self._make_services(config)
        await self._start_forwarding(config)
        await self._open_doors(config)
        await self.reloader.start()
        self._exit.push_async_callback(self.reloader.close)
        _log.info(
            "gateway started",
            version=__version__,
            listening=", ".join(f"{ae.ae_title} at {ae.listen}" for ae in config.local),
            http=config.http.listen,
            rules=self.loaded.rules.version,
        )
        for warning in self.loaded.warnings:
            _log.warning("configuration", warning=str(warning))

    def _make_forwarding(self, config: Config) -> None:
        """What sends, and what it waits for; silent until it is started."""
        queues = QueueGateway(
            self.index,
            self.index_thread,
            self._gated,
            lambda destination: self.forwarder.refused(destination),
        )
        self.proof = queues.proof = Proof(
            lambda: self.index.commitments,
            self.index_thread,
            self.counters,
            lambda: self.forwarder,
            self._gated,  # to be sent again, or in place of what is dead: behind a gate or not
        )
        self.forwarder = Forwarder(
            index=queues,
            divert=queues,
            expire=queues,
            gated=self._gated,
            returned=lambda destination: self.gatekeeper.returned(destination),
            open_reader=self.spool.open_recent,
            clock=time.time,
            random=random.Random(),
            observer=self.counters,
            log=structlog.get_logger("forward"),
        )
        self.archives = Archives(self.counters, self.forwarder.aside)
        self.archives.configure(config)
        self.gatekeeper = Gatekeeper(
            queues,
            clock=time.time,
            random=random.Random(),
            busy=self._busy,
            ask=self.archives.count,
            destinations=lambda: self.forwarder.names,
            at_rest=self.forwarder.at_rest,
            notify=self.forwarder.notify,
            log=structlog.get_logger("gates"),
        )
        self.gatekeeper.configure(windows_of(config))

    def _make_services(self, config: Config) -> None:
        """What answers peers, and what brings it to the index."""
        self.studies = OpenStudies(self.gatekeeper.freed)
        self.feed = IndexFeed(self._add_entries, self.forwarder.notify, self._gated)
        self.feed.start()
        self._exit.push_async_callback(self.feed.stop)
        self.storage = StorageService(
            config.storage,
            self.loaded.rules,
            self.spool,
            self.feed,
            self.counters,
            time.time,
            time.perf_counter,
            self.studies,
        )
        self.commitments = Commitments(
            *(self.index, self.index_thread, self.spool, self.counters),
            *(config, self.forwarder.aside, self.feed.caught_up),
        )
        self.commitments.take_report, self.commitments.awaited = self.proof.take, self.proof.awaited
        self.listeners = Listeners(
            ServiceRegistry((VerificationService(), self.commitments.service, self.storage)),
            Admission(config.local, config.remotes, config.network),
            config.network,
            self.counters,
            self._admit_line,
            self.studies.ended,
        )

    async def _start_forwarding(self, config: Config) -> None:
        """In this order: what may not go is put back, and pauses hold, before anything is sent."""
        await self.gatekeeper.prepare()
        await self.index_thread.run(self._take_peers, config)
        for pause in await self.index_thread.run(self.index.pauses):
            self.forwarder.pause(pause.destination, PAUSED)
        self.forwarder.start(
            destinations_of(config, self.counters),
            members_of(self.loaded.rules),
            outgoing_of(config),
        )
        self.gatekeeper.start()
        self.proof.start(config)
        self.commitments.start()
        self._exit.push_async_callback(self.commitments.stop)
        self._exit.push_async_callback(self._stop_forwarding)

    async def _open_doors(self, config: Config) -> None:
        """Pages, commands, and last of all the associations."""
        operations = Operations(self)
        self._exit.push_async_callback(operations.close)
        self.web = WebServer(operations.status_app(), parse_address(config.http.listen))
        self.control = WebServer(operations.control_app(), config.data_dir / "control.sock")
        for server in (self.web, self.control):
            await server.start()
            self._exit.push_async_callback(self._stop_server, server)
        await self.listeners.open(ae.listen for ae in config.local)
        self._exit.push_async_callback(self._stop_traffic)
        self._tasks.append(asyncio.create_task(self._relieve(), name="relieve"))
        self._look_at_descriptors(config)
        self._stalls.start()
        self._exit.callback(self._stalls.stop)

    async def _open_spool(self, config: Config) -> None:
        """Spool and index, in agreement, with their upkeep running."""
        loop = asyncio.get_running_loop()
        self.spool = await self.index_thread.run(
            Spool.open,
            config.data_dir / "spool",
            config.spool,
            loop.call_soon_threadsafe,
            self.counters.on_committed,
        )
        self.spool.gatherer.later = loop.call_soon
        self._exit.push_async_callback(self.index_thread.run, self.spool.close)
        path = config.data_dir / "index.sqlite"
        self._take_index(await self.index_thread.run(open_index, path))
        # First: what is found anew is compared with what these have, not those of before.
        await self.index_thread.run(self._take_peers, config)
        await recover(
            self.spool,
            self.index,
            self.index_thread,
            path,
            suppress_duplicates=config.storage.duplicates == "suppress",
            anew=self._take_index,
        )
        account = await self.index_thread.run(self.index.account)
        self.received_before = account.received
        self.keeper = Keeper(self.spool, self.index)
        await self.index_thread.run(self.keeper.sweep)
        archivist = Archivist(
            self.keeper,
            self.index_thread.run,
            settings=lambda: self.spool.settings.archive,
            open_reader=self.spool.open_reader,
            head=part10_head,
            clock=time.time,
            tell=self.retention.archived,
        )
        for note in self.spool.notes:
            _log.warning("spool", note=note)
        self._tasks.append(loop.create_task(self._keep(), name="keeper"))
        self._tasks.append(loop.create_task(self._supply(), name="supply"))
        self._tasks.append(loop.create_task(archivist.run(), name="archive"))
        self._exit.push_async_callback(self._cancel_tasks)

    def _take_index(self, index: Index) -> None:
        self.index = index
        self._exit.push_async_callback(self.index_thread.run, index.close)

    async def _add_entries(
        self, entries: Sequence[tuple[Ref, InstanceMeta]], position: Position
    ) -> AddResult:
        return await self.index_thread.run(
            self.index.add,
            entries,
            position,
            suppress_duplicates=self.storage.settings.duplicates == "suppress",
            same_bytes=self.spool.same_bytes,
        )

    def _gated(self, destination: str = "", count: int = 1) -> None:
        """Something is behind a gate; where it waits at one that is down others may have it."""
        self.gatekeeper.notify()
        if destination:
            self.forwarder.notify(destination, count)

    def _busy(self, gate: Gate) -> str:
        """Who may still send to a gate's study or series, "" when nobody."""
        series = gate.kind == "series"
        if self.studies.series_open(gate.key) if series else self.studies.study_open(gate.key):
            return "an association that has sent to it is open"
        if self.feed.holds(gate.study_instance_uid):
            return "more of it is on its way to the index"
        return ""

    def _admit_line(self, key: str) -> int | None:
        """Whether a line that a peer can provoke may be logged; how many were held back."""
        held_back = self._lines.admit(key, time.monotonic())
        if held_back is None:
            self.counters.on_log_line("suppressed")
        return held_back

    # -- running -------------------------------------------------------------------------------

    async def serve(
        self, reload: Callable[[], bool] = lambda: False, before: Sequence[int] = ()
    ) -> None:
        """Until SIGTERM or SIGINT; for the others see `Signalled`, and ``reload`` and ``before``
        there."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        signalled = Signalled(self)
        signalled.listen(reload, before)
        self._exit.push_async_callback(signalled.close)
        try:
            await self._stop.wait()
        except asyncio.CancelledError:  # a SIGTERM of before, which was to end the start
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
        _log.info("stopping")
        await self.stop()

    async def stop(self) -> None:
        """Nothing new in, what is under way finished within its time, everything closed.

        ``network.stop_timeout`` is for all of it together; what is cut off by it takes a few
        seconds more at the most.
        """
        self._stop.set()
        self._time_left()
        await self._exit.aclose()
        _log.info("gateway stopped")

    def _time_left(self) -> float:
        """Seconds until what is still under way is cut off; counted from the first call on."""
        now = asyncio.get_running_loop().time()
        if self._stop_by is None:
            self._stop_by = now + self.loaded.config.network.stop_timeout
        return max(0.0, self._stop_by - now)

    async def _stop_traffic(self) -> None:
        await asyncio.gather(self._stop_listening(), self._stop_forwarding())

    async def _stop_listening(self) -> None:
        await self.listeners.stop(self._time_left())
        try:
            async with asyncio.timeout(max(_LAST_COMMITS, self._time_left())):
                await self.spool.quiet()
        except TimeoutError:
            _log.warning("instances were still being written at stop: they are not acknowledged")

    async def _stop_forwarding(self) -> None:
        await self.gatekeeper.stop()
        await self.forwarder.stop(self._time_left())
        await self.proof.stop()

    async def _stop_server(self, server: WebServer) -> None:
        await server.stop(min(_LAST_PAGES, self._time_left()))

    async def _keep(self) -> None:
        """Upkeep of the spool, and the refusal of new instances while it has no room."""
        while True:
            try:
                upkeep = await self.index_thread.run(self.keeper.step, time.time())
            except Exception as error:  # noqa: BLE001 - upkeep ends with the gateway, not before
                trouble = str(error) or repr(error)
                if self.index_trouble != trouble:
                    unexpected = not isinstance(error, SpoolError)
                    _log.error("upkeep of the spool failed", why=trouble, exc_info=unexpected)
                self.index_trouble = trouble
                await asyncio.sleep(KEEPER_INTERVAL)
                continue
            self._tell_upkeep(upkeep)
            for key, count in self._lines.drain(time.monotonic()):
                _log.warning("held back", kind=key, lines=count)
            if not upkeep.again:
                await asyncio.sleep(KEEPER_INTERVAL)

    async def _supply(self) -> None:
        """Spare segments, ahead of what comes in."""
        trouble = ""
        while True:
            before, trouble = trouble, ""
            try:
                # Not in a thread of nobody's: closing the spool waits for its own.
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(self.spool.executor, self.keeper.supply)
            except Exception as error:  # noqa: BLE001 - as above
                trouble = str(error) or repr(error)
                if trouble != before:
                    unexpected = not isinstance(error, SpoolError)
                    _log.error("no spare segments", why=trouble, exc_info=unexpected)
            await asyncio.sleep(KEEPER_INTERVAL)

    @staticmethod
    def _look_at_descriptors(config: Config) -> None:
        left, kept = descriptors_left()
        network = config.network
        # A large instance has a file of its own while it arrives.
        wanted = 2 * network.max_associations + network.max_waiting + kept
        if left < wanted:
            _log.warning(
                "fewer file descriptors than connections are allowed; raise LimitNOFILE of the "
                "service (ulimit -n), or lower network.max_associations and network.max_waiting",
                left=left,
                wanted=wanted,
            )

    async def _relieve(self) -> None:
        """No spinning about connections that cannot be accepted."""
        while True:
            await asyncio.sleep(KEEPER_INTERVAL)
            await self.listeners.relieve()

    def _tell_upkeep(self, upkeep: Upkeep) -> None:
        before, self.upkeep = self.upkeep, upkeep
        self.index_trouble = ""
        self.spool.refuse(upkeep.refusal)
        self.retention.upkeep(before, upkeep)

    async def _cancel_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- reloading -----------------------------------------------------------------------------

    @property
    def stopping(self) -> bool:
        """Nothing new is taken any more."""
        return self._stop.is_set()

    def apply(self, loaded: Loaded) -> None:
        """Every part takes the configuration; for `Reloader`, which opens new listeners before."""
        config = loaded.config
        admission = Admission(config.local, config.remotes, config.network)
        destinations = destinations_of(config, self.counters)
        members, windows = members_of(loaded.rules), windows_of(config)
        self.loaded = loaded
        self.storage.apply(config.storage, loaded.rules)
        self.listeners.settings = config.network
        self.listeners.admission = admission
        self.forwarder.configure(destinations, members, outgoing_of(config))
        self.index_thread.post(self._take_peers, config)
        self.gatekeeper.configure(windows)
        self.commitments.configure(config)
        self.proof.configure(config)
        self.archives.configure(config)
        self.spool.apply(config.spool)
        self._applied(config)
        # Last: what is shut could not be opened again for certain, if one of these failed.
        self.listeners.shut_all_but({ae.listen for ae in config.local})

    def _take_peers(self, config: Config) -> None:
        """On the index's thread: what a destination of before has makes nothing a duplicate."""
        try:
            changed = self.index.take_peers(peers_of(config), time.time())
        except SpoolError as error:
            _log.error("which peers the destinations are could not be noted", reason=str(error))
            return
        for name in changed:
            _log.info("another peer", destination=name)

    def apply_rules(self, loaded: Loaded) -> None:
        """The same configuration with other values in its lists."""
        self.loaded = loaded
        self.storage.apply(loaded.config.storage, loaded.rules)
