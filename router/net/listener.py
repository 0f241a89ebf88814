"""The sockets that peers connect to, and all the associations that came of them.

Owns the listening sockets, the count of connections, and the log of refusals.  PS3.8 §9.1.
"""

import asyncio
import errno
import os
import socket
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import cast

import structlog

from router.net.acceptor import AcceptedAssociation
from router.net.admission import Admission, Load, neighbourhood
from router.net.descriptors import descriptors_left
from router.net.host import NetObserver
from router.net.service import ServiceRegistry
from router.net.settings import NetworkSettings, parse_address

_log = structlog.get_logger("net")

USUAL = "association"
"""Kind of the lines that tell of associations that come and go as they should."""

REQUEST_MEMORY = 16 * 2**20
"""Bytes of association requests that are still arriving, of all peers together."""

_NONE_LEFT = (errno.EMFILE, errno.ENFILE)
_MORE = "raise LimitNOFILE of the service (ulimit -n)"


def _cause(error: OSError) -> OSError:
    """What asyncio's own loop does not tell, from Python 3.13 on, when it got no socket."""
    if error.errno is None:
        try:
            socket.socket().close()
        except OSError as cause:
            return cause
    return error


class Listeners:
    """Listens on every address of the local AEs; `open` and `shut` follow a new configuration.

    A connection *waits* until it is granted an association.  So many may wait, in all and of
    one address, and their requests may take so much memory; then the one that has waited longest
    makes room, of the address with the most where there are too many in all.  A proper peer asks
    as soon as it is connected, so it is never that one, however many a stranger opens.

    `admit_line(key)` says whether a refusal may be logged now: None to hold it back, else how
    many were held back before it.  `on_gone(id)` is called when an association that stood has
    ended.
    """

    def __init__(
        self,
        services: ServiceRegistry,
        admission: Admission,
        settings: NetworkSettings,
        observer: NetObserver,
        admit_line: Callable[[str], int | None],
        on_gone: Callable[[str], None] = lambda association: None,
    ) -> None:
        self.services = services
        self.admission = admission
        self.settings = settings
        self.observer = observer
        self._admit_line = admit_line
        self._on_gone = on_gone
        self._servers: dict[str, asyncio.Server] = {}
        self._connections: set[AcceptedAssociation] = set()
        self._by_local: Counter[str] = Counter()
        self._by_remote: Counter[str] = Counter()
        self._by_address: Counter[str] = Counter()
        self._total = 0
        # In the order in which they came; dict, since it forgets any of them at once.
        self._waiting: dict[AcceptedAssociation, None] = {}
        self._waiting_of: dict[str, dict[AcceptedAssociation, None]] = {}
        self._requests: dict[AcceptedAssociation, int] = {}
        self._requests_size = 0
        self._paused: set[str] = set()
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
            server = await loop.create_server(
                connection, host, port, backlog=512, reuse_address=True, start_serving=True
            )
            if not server.sockets:  # a loop passes over an address for which it gets no socket
                server.close()
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        except OSError as error:
            cause = _cause(error)
            what_to_do = _MORE if cause.errno in _NONE_LEFT else self._holder(port)
            raise OSError(
                cause.errno, f"cannot listen on {listen}: {cause.strerror or cause}; {what_to_do}"
            ) from error
        return server

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
        listens = [*self._servers, *self._paused] if listens is None else list(listens)
        self._paused.difference_update(listens)
        for listen in listens:
            server = self._servers.pop(listen, None)
            if server is not None:
                server.close()

    def shut_all_but(self, wanted: Collection[str]) -> None:
        """Stop listening where it is not wanted, and do not begin again there."""
        self.shut({*self._servers, *self._paused}.difference(wanted))

    async def relieve(self) -> None:
        """To be called every second or so: listens only while there is a descriptor left.

        Without one accept(2) fails, and a loop that is told of a connection that it cannot accept
        is told so again at once, for ever.
        """
        left, kept = descriptors_left()
        if not left and self._servers:
            paused = {*self._servers, *self._paused}
            self.shut()
            self._paused = paused
            _log.error(f"no file descriptor is left: not listening until there are more; {_MORE}")
        elif self._paused and left >= kept // 2:
            waiting = sorted(self._paused)
            try:
                await self.open(waiting)
            except OSError as error:
                _log.error("still not listening", why=str(error))
            else:
                self.shut(set(waiting) - self._paused)  # not wanted any more, meanwhile
                self._paused.clear()
                _log.warning("listening again")

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
        left, kept = self._make_room()
        if left < kept // 2:  # what makes room is not closed before the next round of the loop
            self.observer.on_rejected("descriptors")
            return _Turned(f"only {left} file descriptors are left: {_MORE}", self._admit_line)
        association = AcceptedAssociation(self, listen)
        self._connections.add(association)
        self._empty.clear()
        return association

    def load(self) -> Load:
        """See `AcceptorHost`."""
        return Load(self._total, self._by_local, self._by_remote, self._by_address)

    @property
    def associations(self) -> list[AcceptedAssociation]:
        """Those that are established."""
        return [a for a in self._connections if a.established]

    def connected(self, association: AcceptedAssociation) -> None:
        """See `AcceptorHost`."""
        address, settings = neighbourhood(association.peer_address), self.settings
        if len(self._waiting_of.get(address, ())) >= settings.max_waiting_per_address:
            self._drop(next(iter(self._waiting_of[address])), "waiting_address", "of its address")
        if len(self._waiting) >= settings.max_waiting:
            crowd = max(self._waiting_of.values(), key=len)  # who has most of them, not who is slow
            self._drop(next(iter(crowd)), "waiting", "in all")
        self._waiting[association] = None
        self._waiting_of.setdefault(address, {})[association] = None

    def _make_room(self) -> tuple[int, int]:
        """With few descriptors left the one that waits longest goes, for the one that comes."""
        left, kept = descriptors_left()
        if left < kept and self._waiting:
            which = f"while only {left} file descriptors are left: {_MORE}"
            self._drop(next(iter(self._waiting)), "descriptors", which)
        return left, kept

    def collecting(self, association: AcceptedAssociation, size: int) -> None:
        """See `AcceptorHost`."""
        self._forget_request(association)
        self._requests[association] = size
        self._requests_size += size
        while self._requests_size > REQUEST_MEMORY:
            self._drop(next(iter(self._requests)), "request_memory", "with long requests")

    def _drop(self, association: AcceptedAssociation, kind: str, which: str) -> None:
        """End one that waits, the longest of those that `which` tells."""
        if not association.accounted:  # else it was refused, and has had time to close
            self.refused(association, kind, f"too many wait for an association {which}")
        self._waits_no_more(association)
        association.reset()

    def _waits_no_more(self, association: AcceptedAssociation) -> None:
        self._forget_request(association)
        self._waiting.pop(association, None)
        address = neighbourhood(association.peer_address)
        same = self._waiting_of.get(address)
        if same is not None:
            same.pop(association, None)
            if not same:
                del self._waiting_of[address]

    def _forget_request(self, association: AcceptedAssociation) -> None:
        self._requests_size -= self._requests.pop(association, 0)

    def opened(self, association: AcceptedAssociation) -> None:
        """See `AcceptorHost`."""
        self._waits_no_more(association)
        self._count(association, 1)
        association.counted = association.accounted = True

    def gone(self, association: AcceptedAssociation) -> None:
        """See `AcceptorHost`."""
        self._connections.discard(association)
        self._waits_no_more(association)
        if association.counted:
            association.counted = False
            self._count(association, -1)
            self._on_gone(association.id)
        if not self._connections:
            self._empty.set()

    def _count(self, association: AcceptedAssociation, change: int) -> None:
        self._total += change
        self._by_local[association.called_ae] += change
        if association.remote:
            self._by_remote[association.remote] += change
            return
        address = neighbourhood(association.peer_address)
        self._by_address[address] += change
        if not self._by_address[address]:
            del self._by_address[address]  # there is no end of addresses

    def refused(self, association: AcceptedAssociation, kind: str, text: str) -> None:
        """See `AcceptorHost`."""
        association.accounted = True
        association.heed_no_more()
        self._forget_request(association)
        self.observer.on_rejected(kind)
        details: dict[str, str | int] = {"kind": kind, "why": text}
        if kind in ("called_ae", "calling_ae"):
            details |= association.raw_titles
        self.warn(association, kind, "association refused", details)

    def warn(
        self, association: AcceptedAssociation, kind: str, text: str, details: dict[str, str | int]
    ) -> None:
        """See `AcceptorHost`."""
        self._say(association, association.log.warning, kind, text, details)

    def tell(
        self, association: AcceptedAssociation, text: str, details: dict[str, str | int]
    ) -> None:
        """See `AcceptorHost`."""
        self._say(association, association.log.info, USUAL, text, details)

    def _say(
        self,
        association: AcceptedAssociation,
        log: Callable[..., object],
        kind: str,
        text: str,
        details: dict[str, str | int],
    ) -> None:
        held_back = self._admit_line(f"{kind} {association.peer_address}")
        if held_back is None:
            return
        log(
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
        if self._admit_line("turned") is not None:
            peer = transport.get_extra_info("peername")
            _log.warning(f"connection refused: {self._why}", peer=str(peer))
        cast(asyncio.Transport, transport).abort()  # uvloop's does not inherit from it
