"""One transport connection with the upper layer and DIMSE on it.

Owns the asyncio side that acceptor and requestor share: the receive buffer, writing with flow
control, the timers, and handing events to the subclass.  Must not know services or policies.
PS3.8 §9.1.

One receive buffer serves all connections of a process: the loop fills it and hands it over in
one step, and what must be kept is copied by whoever keeps it.
"""

import abc
import asyncio
import contextlib
import itertools
import socket
import struct
import sys
import time
from typing import Any, cast

import structlog

from router.dimse.assemble import Assembler
from router.dimse.command import Command
from router.net.pool import Pace
from router.ul import (
    AbortReason,
    AbortSource,
    Connection,
    Event,
    LocalProtocolError,
    RemoteProtocolError,
)
from router.ul.negotiation import Role

RECEIVE_BUFFER_SIZE = 256 * 1024
_HEADERS = 12
"""Bytes of a PDU's header and of a PDV's (PS3.8 §9.3.5)."""

_STILL_TALKS = 16 * 2**20
"""Bytes that may come behind our A-ABORT or A-ASSOCIATE-RJ: as much as can be on its way."""

_FROZEN = 1.0
"""Seconds that a timer is late when it was this process that did not run, or hardly."""
_THAWING = 1.0
"""Seconds to read what came while we were frozen, before ARTIM counts against the peer."""

_NO_LINGER = struct.pack("ii", 1, 0)

_log = structlog.get_logger("net")
_shared = memoryview(bytearray(RECEIVE_BUFFER_SIZE))
_started = f"{int(time.time()) % 36**6:x}"
_numbers = itertools.count(1)


def new_association_id() -> str:
    """An id for logs, unique among the processes that use one data directory."""
    return f"{_started}-{next(_numbers)}"


class Link(asyncio.BufferedProtocol, abc.ABC):
    """Base of `AcceptedAssociation` and `Requestor`.

    Subclasses implement `on_event`, `on_command`, `on_data`, `on_end` and `on_lost`.  Exceptions
    other than RemoteProtocolError in those are ours: the association is aborted and they are
    logged.
    """

    def __init__(
        self,
        role: Role,
        *,
        maximum_length: int,
        artim_timeout: float,
        dimse_timeout: float,
        idle_timeout: float | None,
        min_rate: int = 0,
    ) -> None:
        self.id = new_association_id()
        self.log = _log.bind(association=self.id)
        self._loop = asyncio.get_running_loop()
        self.assembler = Assembler(self.on_command, self.on_data, self.on_end)
        self.connection = Connection(
            role,
            # Peers are about that take the announced length for that of the whole PDU's value
            # and add the headers of the PDU and its PDV to it.
            maximum_length=maximum_length + _HEADERS if maximum_length else 0,
            on_fragment=self.assembler.fragment,
            artim=artim_timeout,
            on_collect=self.on_collect,
        )
        self.transport: asyncio.Transport | None = None
        self.peer = ""
        self.peer_address = ""
        self.lost = False
        self.half_closed = False
        self.received = 0
        self.written = 0
        self._enough = sys.maxsize
        self._dimse_timeout = dimse_timeout
        self._idle_timeout = idle_timeout
        self._pauses = 0
        self._writable = asyncio.Event()
        self._writable.set()
        self._heard = 0.0
        self._min_rate = min_rate
        self._rate_since = 0.0
        self._rate_from = 0
        self._hanging_up = False
        self._artim: asyncio.TimerHandle | None = None
        self._artim_at: float | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._look_at = 0.0
        self._finishing: asyncio.TimerHandle | None = None
        self.close_delay = 0.0
        self.pace: Pace | None = None
        self._held_back = 0

    # -- what subclasses say -------------------------------------------------------------------

    @abc.abstractmethod
    def on_event(self, event: Event) -> None:
        """An event of the upper layer."""

    @abc.abstractmethod
    def on_command(self, context_id: int, command: Command) -> None:
        """A command set is complete."""

    @abc.abstractmethod
    def on_data(self, piece: memoryview) -> None:
        """The next bytes of a data set, valid until this returns."""

    @abc.abstractmethod
    def on_end(self) -> None:
        """The data set is complete."""

    @abc.abstractmethod
    def on_lost(self, error: Exception | None) -> None:
        """The transport is gone."""

    def under_way(self) -> bool:
        """Whether the peer owes us something, so that its silence is bounded."""
        return self.assembler.under_way

    def owes(self) -> bool:
        """Whether answers are under way to a peer that says nothing more itself.

        Once it has none, whoever says so calls `finish`.
        """
        return False

    def on_collect(self, size: int) -> None:
        """A PDU of `size` bytes, no P-DATA-TF, is about to be collected."""
        return

    def on_slow(self, seconds: float, count: int) -> None:
        """The peer sent no more than `count` bytes in `seconds`, in the middle of a message."""
        return

    def on_look(self, now: float, *, listening: bool) -> None:
        """A few times in each time-out; not ``listening``: what came since may not be read yet."""
        return

    @abc.abstractmethod
    def on_silent(self, seconds: float, *, idle: bool) -> None:
        """The peer was silent for `seconds`, while something was under way or not (`idle`)."""

    # -- asyncio.BufferedProtocol --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is there."""
        transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it
        self.transport = transport
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # Whatever was written is to be gone before the next is made: buffers are used again.
        transport.set_write_buffer_limits(high=0)
        name: Any = transport.get_extra_info("peername")
        if name:
            self.peer_address = str(name[0]).partition("%")[0].removeprefix("::ffff:")
            self.peer = (
                f"[{self.peer_address}]:{name[1]}"
                if ":" in self.peer_address
                else f"{self.peer_address}:{name[1]}"
            )
        self._heard = self._loop.time()
        self.connection.transport_connected(self._heard)
        self._start_watch()
        self.flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the loop puts what was received."""
        return _shared

    def buffer_updated(self, nbytes: int) -> None:
        """`nbytes` were received."""
        self._heard = now = self._loop.time()
        self.received += nbytes
        try:
            events = self.connection.receive(_shared[:nbytes], now)
            for event in events:
                self.on_event(event)
        except Exception:
            self.log.exception("association failed", peer=self.peer)
            self.abort(AbortSource.SERVICE_PROVIDER, AbortReason.NOT_SPECIFIED)
            return
        if events:
            self.flush()
        if self.received > self._enough:
            self.reset()

    def eof_received(self) -> bool:
        """The peer says nothing more; what it is owed is written, within its time, before we
        close too."""
        self.half_closed = True
        if self._finishing is None:
            self._finishing = self._loop.call_later(self._dimse_timeout, self.close)
        if self.owes():
            return True
        self.finish()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone."""
        self.lost = True
        for timer in (self._artim, self._watch, self._finishing):
            if timer is not None:
                timer.cancel()
        self._artim = self._watch = self._finishing = None
        self._writable.set()
        try:
            for event in self.connection.transport_closed(self._loop.time()):
                self.on_event(event)
        finally:
            self.on_lost(exc)

    def pause_writing(self) -> None:
        """The transport holds bytes that the peer has not taken."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Everything that was written is gone."""
        self._heard = self._loop.time()
        self._writable.set()

    # -- for subclasses and services -----------------------------------------------------------

    def write(self, data: bytes | memoryview) -> None:
        """Write P-DATA-TF PDUs; dropped silently when the association is over."""
        if self.transport is not None and not self.lost and self.connection.can_send_data:
            self.written += len(data)
            self.transport.write(data)

    async def paced(self, count: int) -> None:
        """Until `count` bytes may be written; meanwhile a peer's silence is not its fault."""
        if self.pace is None:
            return
        self._held_back += 1
        try:
            await self.pace.take(count)
        finally:
            self._held_back -= 1

    async def drained(self) -> None:
        """Until everything that was written has left our buffers."""
        await self._writable.wait()

    def flush(self) -> None:
        """Write what the upper layer has to say, close if it wants, and set its timer."""
        transport = self.transport
        if transport is None or self.lost:
            return
        data = self.connection.data_to_send()
        if data:
            transport.write(data)
        if self._hanging_up and transport.can_write_eof():
            transport.write_eof()
        if self.connection.want_close:
            self._part()
        deadline = self.connection.deadline
        if deadline != self._artim_at:
            self._artim_at = deadline
            if self._artim is not None:
                self._artim.cancel()
                self._artim = None
            if deadline is not None:
                self._artim = self._loop.call_at(deadline, self._artim_expired)

    def abort(
        self,
        source: AbortSource = AbortSource.SERVICE_USER,
        reason: AbortReason = AbortReason.NOT_SPECIFIED,
    ) -> None:
        """A-ABORT where the state allows it, else close; harmless when it is over."""
        try:
            self.connection.abort(source, reason, self._loop.time())
        except LocalProtocolError:
            self.close()
            return
        self.resume_reading(every=True)
        self.heed_no_more()
        self.flush()

    def heed_no_more(self) -> None:
        """Nothing that still comes is of use: who goes on and on is cut off before ARTIM is."""
        self._enough = min(self._enough, self.received + _STILL_TALKS)

    def hang_up(self) -> None:
        """With the next `flush`, let the peer read that nothing more comes after it."""
        self._hanging_up = True

    def stir(self) -> None:
        """The peer was given something just now: its silence counts from here."""
        self._heard = self._loop.time()

    def _part(self) -> None:
        """The upper layer is done with the connection; closes it, after `close_delay`."""
        if not self.close_delay or self.half_closed:
            self._drop()
        elif self._finishing is None:
            self._finishing = self._loop.call_later(self.close_delay, self._drop)

    def _drop(self) -> None:
        # A transport that is closed keeps what its peer does not read, and itself, for ever.
        if self.transport is not None and not self.lost:
            if self.transport.get_write_buffer_size():
                self.reset()
            else:
                self.transport.close()

    def finish(self) -> None:
        """After the peer's end, when it is owed nothing: close."""
        self._drop()

    def close(self) -> None:
        """Drop the connection without a word."""
        if self.transport is not None and not self.lost:
            self.transport.abort()

    def reset(self) -> None:
        """The same, and the kernel forgets it too: it would hold on to what is not read."""
        if self.transport is not None and not self.lost:
            sock = self.transport.get_extra_info("socket")
            if sock is not None:
                with contextlib.suppress(OSError):  # it may be gone already
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self.transport.abort()

    @property
    def _deaf(self) -> bool:
        return self.lost or self.half_closed

    def pause_reading(self) -> None:
        """Read no more from the peer until as many calls of `resume_reading`."""
        self._pauses += 1
        if self._pauses == 1 and self.transport is not None and not self._deaf:
            self.transport.pause_reading()

    def resume_reading(self, *, every: bool = False) -> None:
        """Take back one `pause_reading`, or all of them."""
        if not self._pauses:
            return
        self._pauses = 0 if every else self._pauses - 1
        if not self._pauses and self.transport is not None and not self._deaf:
            self._heard = self._loop.time()
            self._rate_since = 0.0
            if not self.transport.is_closing():
                self.transport.resume_reading()

    # -- timers --------------------------------------------------------------------------------

    def _artim_expired(self) -> None:
        if self._artim_at is not None and self._loop.time() - self._artim_at > _FROZEN:
            # What the peer sent meanwhile is not read yet.
            self._artim = self._loop.call_later(_THAWING, self._artim_over)
        else:
            self._artim_over()

    def _artim_over(self) -> None:
        self._artim = None
        self._artim_at = None
        for event in self.connection.timer_expired(self._loop.time()):
            self.on_event(event)
        self.flush()

    def _start_watch(self) -> None:
        limits = [self._dimse_timeout]
        if self._idle_timeout is not None:
            limits.append(self._idle_timeout)
        self._look_at = self._loop.time() + min(limits) / 4
        self._watch = self._loop.call_at(self._look_at, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        late = now - self._look_at
        self._start_watch()
        self.on_look(now, listening=late <= _FROZEN and not self._pauses)
        if late > _FROZEN:  # what the peer sent meanwhile is not read yet
            self.stir()
            self._rate_since = 0.0
            return
        silent = now - self._heard
        slow = self._min_rate and self._slow_for()
        if not self.connection.can_abort or (self._pauses and self._writable.is_set()):
            return  # ARTIM bounds the wait, or it is we who do not listen
        if self._held_back:
            self.stir()
        elif self.under_way() or not self._writable.is_set():
            if silent >= self._dimse_timeout:
                self.on_silent(silent, idle=False)
            elif slow:
                self.on_slow(*slow)
        elif self._idle_timeout is not None and silent >= self._idle_timeout:
            self.on_silent(silent, idle=True)

    def _slow_for(self) -> tuple[float, int] | None:
        """Seconds and bytes of a time that is over, if it had fewer than `min_rate` asks for.

        Twice the longest silence, so that a peer that only pauses is not taken for a slow one.
        """
        now = self._loop.time()
        waits = self._pauses or not self._writable.is_set() or not self.under_way()
        seconds, count = now - self._rate_since, self.received - self._rate_from
        if not waits and self._rate_since and seconds < 2 * self._dimse_timeout:
            return None
        slow = not waits and self._rate_since and count < self._min_rate * seconds
        self._rate_since, self._rate_from = now, self.received
        return (seconds, count) if slow else None


def describe(error: RemoteProtocolError) -> str:
    """A fixed word for counters, from the abort reason that a protocol error carries."""
    return AbortReason(error.reason).name.lower()
