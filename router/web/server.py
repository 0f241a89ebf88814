"""The HTTP servers, inside the event loop that already runs.

Owns the listening sockets and their bounds.  uvicorn's protocol does the HTTP; its `Server` is
left out, since it takes over the signals, ends the process when a port is taken, and polls.
Must not know what is served.
"""

import asyncio
import contextlib
import errno
import functools
import os
import socket
import stat
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h11
import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

_log = structlog.get_logger("router.web")

_PEER = struct.Struct("3i")
_LONGEST_PATH = 107
"""Bytes of a socket's path that the kernel takes."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server gives to its clients; times in seconds.

    A client has ``request`` for the head of a request, ``idle`` between requests and ``stalled``
    without taking anything of an answer.  Over ``answered`` connections are told 503, over
    ``connections`` closed at once: file descriptors are the DICOM listeners' too.
    """

    connections: int = 128
    answered: int = 64
    request: float = 10.0
    idle: int = 15
    stalled: float = 30.0
    head_bytes: int = 16 * 1024


class _Connection(H11Protocol):
    """uvicorn's protocol with an end to every wait."""

    def __init__(self, owner: "WebServer", config: uvicorn.Config, state: ServerState) -> None:
        super().__init__(config, state, {}, asyncio.get_running_loop())
        self._owner = owner
        self._limits = owner.limits
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if isinstance(self._owner.address, Path):
            self.client = _peer_of(transport)
        # Writing counts as paused while any byte is left, so that `stalled` covers the last ones.
        transport.set_write_buffer_limits(high=0)
        if len(self.connections) > self._limits.connections:
            transport.abort()
            return
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_head()
        self._forget_write()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._owner.connection_lost()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self._limits.stalled, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._forget_write()

    def _watch_head(self) -> None:
        """While no request is being answered, the next one's head must come in time."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget_head()
        elif self._head_timer is None and self.timeout_keep_alive_task is None:
            self._head_timer = self.loop.call_later(self._limits.request, self.transport.abort)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _forget_write(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def shutdown(self) -> None:
        """Close now, or after the answer that is under way."""
        try:
            super().shutdown()
        except h11.LocalProtocolError:
            # What the peer sent had broken the connection's state already.
            self.transport.abort()


def _peer_of(transport: asyncio.Transport) -> tuple[str, int] | None:
    """``uid 1000`` and the process id of whoever opened a unix socket, as the kernel says."""
    sock = transport.get_extra_info("socket")
    try:
        told = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    except (AttributeError, OSError):
        return None
    pid, uid, _ = _PEER.unpack(told)
    return f"uid {uid}", pid


class WebServer:
    """One listener: ``address`` is a host and port, or the path of a unix socket.

    Port 0 takes a free one; `address` tells which after `start`.  A unix socket is made with
    mode 0600, and is never there with another one.
    """

    def __init__(
        self, app: ASGIApp, address: tuple[str, int] | Path, limits: Limits | None = None
    ) -> None:
        self.address = address
        self.limits = limits or Limits()
        self._app = app
        self._state = ServerState()
        self._server: asyncio.AbstractServer | None = None
        self._quiet = asyncio.Event()

    @property
    def url(self) -> str:
        """Where it listens, as one types it."""
        if isinstance(self.address, Path):
            return f"unix:{self.address}"
        host, port = self.address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def start(self) -> None:
        """Returns when it listens.  Raises OSError, whose text names address, cause and fix."""
        config = uvicorn.Config(
            self._app,
            http="h11",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            limit_concurrency=self.limits.answered,
            timeout_keep_alive=self.limits.idle,
            h11_max_incomplete_event_size=self.limits.head_bytes,
        )
        config.load()
        make = functools.partial(_Connection, self, config, self._state)
        if isinstance(self.address, Path):
            self._server = await self._listen_unix(make, self.address)
        else:
            self._server = await self._listen_tcp(make, *self.address)

    async def _listen_tcp(self, make: Any, host: str, port: int) -> asyncio.AbstractServer:
        # One socket of a known family: port 0 would give each family a port of its own.
        address = "127.0.0.1" if host == "localhost" else host
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.bind((address, port))
            server = await asyncio.get_running_loop().create_server(make, sock=sock, backlog=128)
        except OSError as error:
            sock.close()
            raise _refused(error, f"{host}:{port}") from error
        self.address = (host, sock.getsockname()[1])
        return server

    async def _listen_unix(self, make: Any, path: Path) -> asyncio.AbstractServer:
        sock = _bind_unix(path)
        try:
            loop = asyncio.get_running_loop()
            return await loop.create_unix_server(make, sock=sock, backlog=32)
        except OSError as error:
            sock.close()
            raise _refused(error, path) from error

    async def stop(self, grace: float = 5.0) -> None:
        """Stop listening, let what is under way finish for ``grace`` seconds, cut the rest.

        Answers under way are cancelled then; nothing of this server is left on return.
        """
        if self._server is None:
            return
        self._server.close()
        self._server = None
        if isinstance(self.address, Path):
            try:
                self.address.unlink(missing_ok=True)
            except OSError as error:  # such as a disk that is read-only; the next start takes it
                _log.warning("a socket is left", path=str(self.address), why=error.strerror)
        for connection in list(self._state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._until_quiet()
        for connection in list(self._state.connections):
            connection.transport.abort()
        tasks = list(self._state.tasks)
        if tasks:
            _log.warning("requests cut off", count=len(tasks))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _until_quiet(self) -> None:
        while self._state.connections:
            self._quiet.clear()
            await self._quiet.wait()

    def connection_lost(self) -> None:
        """Told by a connection when it is gone."""
        if not self._state.connections:
            self._quiet.set()


def _bind_unix(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise OSError(
            errno.ENAMETOOLONG,
            f"cannot listen on {path}: a socket's path has at most {_LONGEST_PATH} bytes; "
            "choose a shorter data_dir",
        )
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        _take_over(path)
        # Bound inside a directory of mode 0700 and moved when its own mode is right: under its
        # name nobody can ever open it in between.
        with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as private:
            hidden = Path(private, "s")
            sock.bind(str(hidden))
            hidden.chmod(0o600)
            hidden.rename(path)
    except OSError as error:
        sock.close()
        raise _refused(error, path) from error
    return sock


def _take_over(path: Path) -> None:
    """Make sure that nobody answers at ``path``; what a killed process left is replaced."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "something that is not a socket is there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return
        except BlockingIOError as full:  # its backlog is: somebody has it
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)) from full
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


_FIXES = {
    errno.EADDRINUSE: "another process has it: stop that one, or set another http.listen",
    errno.EADDRNOTAVAIL: "this machine has no such address: correct http.listen",
    errno.EACCES: "ports under 1024 need CAP_NET_BIND_SERVICE: grant it, or set another "
    "http.listen",
}


def _refused(error: OSError, address: str | Path) -> OSError:
    if isinstance(address, str):
        fix = _FIXES.get(error.errno or 0, "correct http.listen")
    elif error.errno == errno.EADDRINUSE:
        fix = "another dcmrouter runs on this data_dir: stop that one"
    else:
        fix = "look at the rights on data_dir"
    cause = error.strerror or str(error)
    return OSError(error.errno, f"cannot listen on {address}: {cause}; {fix}")
