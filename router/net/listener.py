"""The sockets that peers connect to, and all the associations that came of them.

Owns the listening sockets, the count of connections, and the log of refusals.  PS3.8 §9.1.
"""

import asyncio
import errno
from collections import Counter
from collections.abc import Callable, Iterable
from typing import cast

import structlog

from router.net.acceptor import AcceptedAssociation, NetObserver
from router.net.admission import Admission, Load
from router.net.service import ServiceRegistry
from router.net.settings import NetworkSettings, parse_address

_log = structlog.get_logger("net")

# Connections that have not asked for an association yet, or are closing, beside those that have.
_SPARE_CONNECTIONS = 256


class Listeners:
    """Listens on every address of the local AEs; `open` and `shut` follow a new configuration.

    `admit_line(key)` says whether a refusal may be logged now: None to hold it back, else how
    many were held back before it.
    """

    def __init__(
        self,
        services: ServiceRegistry,
        admission: Admission,
        settings: NetworkSettings,
        observer: NetObserver,
        admit_line: Callable[[str], int | None],
    ) -> None:
        self.services = services
        self.admission = admission
        self.settings = settings
        self.observer = observer
        self._admit_line = admit_line
        self._servers: dict[str, asyncio.Server] = {}
        self._connections: set[AcceptedAssociation] = set()
        self._by_local: Counter[str] = Counter()
        self._by_remote: Counter[str] = Counter()
        self._total = 0
        self._stopping = False
        self._empty = asyncio.Event()
        self._empty.set()

    # -- sockets -------------------------------------------------------------------------------

    async def open(self, listens: Iterable[str]) -> None:
        """Listen on more addresses, all of them or none.

        Raises OSError naming the address that could not be had, or when it is being stopped.
        """
        opened: dict[str, asyncio.Server] = {}
        try:
            for listen in dict.fromkeys(listens):
                if listen not in self._servers:
                    opened[listen] = await self._open(listen)
            if self._stopping:
                raise OSError(errno.ECANCELED, "the gateway is being stopped")
        except OSError:
            for server in opened.values():
                server.close()
            raise
        self._servers.update(opened)

    async def _open(self, listen: str) -> asyncio.Server:
        host, port = parse_address(listen)
        loop = asyncio.get_running_loop()

        def connection() -> asyncio.BaseProtocol:
            return self._connect(listen)

        try:
            return await loop.create_server(
                connection, host, port, backlog=512, reuse_address=True, start_serving=True
            )
        except OSError as error:
            raise OSError(
                error.errno,
                f"cannot listen on {listen}: {error.strerror or error}; {self._holder(port)}",
            ) from error

    def _holder(self, port: int) -> str:
        """Who has a port, as far as we can tell, and what to do about it."""
        for listen in self._servers:
            if port and parse_address(listen)[1] == port:
                return (
                    f"this gateway itself listens on {listen}: restart it, or reload it twice, "
                    "first without that address and then with the new one"
                )
        return "is another process, or another gateway, using the port?"

    def shut(self, listens: Iterable[str] | None = None) -> None:
        """Stop listening on these addresses, or on all; associations go on."""
        for listen in list(self._servers) if listens is None else list(listens):
            server = self._servers.pop(listen, None)
            if server is not None:
                server.close()

    @property
    def listening(self) -> dict[str, int]:
        """Port in use by listen address; they differ where port 0 was asked for."""
        return {
            listen: server.sockets[0].getsockname()[1]
            for listen, server in self._servers.items()
            if server.sockets
        }

    async def stop(self, timeout: float) -> None:  # noqa: ASYNC109 - a bound, not a cancellation
        """Take nothing new, let what is under way finish within `timeout` seconds, then abort."""
        self._stopping = True
        self.shut()
        for association in list(self._connections):
            association.stop()
        try:
            async with asyncio.timeout(timeout):
                await self._empty.wait()
        except TimeoutError:
            left = list(self._connections)
            _log.warning("associations cut off at stop", count=len(left))
            for association in left:
                association.abort()
            await asyncio.sleep(0)
            for association in left:
                association.close()

    # -- AcceptorHost --------------------------------------------------------------------------

    def _connect(self, listen: str) -> asyncio.BaseProtocol:
        if self._stopping:  # it was accepted before the socket was closed
            return _Turned("it is being stopped", self._admit_line)
        if len(self._connections) >= self.settings.max_associations + _SPARE_CONNECTIONS:
            self.observer.on_rejected("connections")
            return _Turned("too many are open", self._admit_line)
        association = AcceptedAssociation(self, listen)
        self._connections.add(association)
        self._empty.clear()
        return association

    def load(self) -> Load:
        """See `AcceptorHost`."""
        return Load(self._total, self._by_local, self._by_remote)

    @property
    def associations(self) -> list[AcceptedAssociation]:
        """Those that are established."""
        return [a for a in self._connections if a.established]

    def opened(self, association: AcceptedAssociation) -> None:
        """See `AcceptorHost`."""
        self._total += 1
        self._by_local[association.called_ae] += 1
        if association.remote:
            self._by_remote[association.remote] += 1
        association.counted = True

    def gone(self, association: AcceptedAssociation) -> None:
        """See `AcceptorHost`."""
        self._connections.discard(association)
        if association.counted:
            association.counted = False
            self._total -= 1
            self._by_local[association.called_ae] -= 1
            if association.remote:
                self._by_remote[association.remote] -= 1
        if not self._connections:
            self._empty.set()

    def refused(self, association: AcceptedAssociation, kind: str, text: str) -> None:
        """See `AcceptorHost`."""
        self.observer.on_rejected(kind)
        details: dict[str, str | int] = {"kind": kind, "why": text}
        if kind in ("called_ae", "calling_ae"):
            details |= association.raw_titles
        self.warn(association, kind, "association refused", details)

    def warn(
        self, association: AcceptedAssociation, kind: str, text: str, details: dict[str, str | int]
    ) -> None:
        """See `AcceptorHost`."""
        held_back = self._admit_line(f"{kind} {association.peer_address}")
        if held_back is None:
            return
        association.log.warning(
            text,
            peer=association.peer,
            calling_ae=association.calling_ae,
            called_ae=association.called_ae,
            **details,
            **({"held_back": held_back} if held_back else {}),
        )


class _Turned(asyncio.Protocol):
    """A connection that we do not hold open, for the reason `why`: closed at once."""

    def __init__(self, why: str, admit_line: Callable[[str], int | None]) -> None:
        self._why = why
        self._admit_line = admit_line

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close it."""
        if self._admit_line("connections") is not None:
            peer = transport.get_extra_info("peername")
            _log.warning(f"connection refused: {self._why}", peer=str(peer))
        cast(asyncio.Transport, transport).abort()  # uvloop's does not inherit from it
