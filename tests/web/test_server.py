import asyncio
import os
import signal
import socket
import stat
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from router.spool.errors import SpoolDamaged
from router.web.control import create_control_app
from router.web.server import Limits, WebServer
from router.web.status import create_app
from tests.web.fakes import FakeGateway

LOCAL = ("127.0.0.1", 0)


class Waiting:
    """An application with an answer that comes when told, and one that never ends."""

    def __init__(self):
        self.asked = asyncio.Event()
        self.gate = asyncio.Event()
        self.cancelled = False
        routes = [
            Route("/slow", self.slow),
            Route("/endless", self.endless),
            Route("/big", self.big),
            Route("/", self.hello),
        ]
        self.app = Starlette(routes=routes)

    async def hello(self, _):
        return PlainTextResponse("hello")

    async def slow(self, _):
        self.asked.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return Response("done")

    async def big(self, _):
        return Response(b"x" * 32_000_000)

    async def endless(self, _):
        async def pieces():
            while True:
                yield b"x" * 65536
                await asyncio.sleep(0)

        return StreamingResponse(pieces())


@pytest.fixture
async def serve():
    servers = []

    async def start(app, address=LOCAL, limits=None):
        server = WebServer(app, address, limits)
        await server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.stop(0.1)


def unix_client(path):
    transport = httpx.AsyncHTTPTransport(uds=str(path))
    return httpx.AsyncClient(transport=transport, base_url="http://control")


async def test_a_free_port_is_taken_and_told(serve, gateway):
    server = await serve(create_app(gateway))
    assert server.address[1] > 0
    async with httpx.AsyncClient(base_url=server.url) as client:
        answer = await client.get("/healthz")
        assert answer.json() == {"status": "ok"}
        assert "server" not in answer.headers
        assert len(answer.headers.get_list("date")) == 1
        assert (await client.head("/metrics")).text == ""


async def test_ipv6(serve, gateway):
    try:
        server = await serve(create_app(gateway), ("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    async with httpx.AsyncClient(base_url=server.url) as client:
        assert (await client.get("/readyz")).status_code == 200


async def test_a_taken_port_is_an_error_that_names_it(serve, gateway):
    server = await serve(create_app(gateway))
    with pytest.raises(OSError, match=rf"127\.0\.0\.1:{server.address[1]}.*another process"):
        await WebServer(create_app(gateway), server.address).start()


async def test_an_address_of_another_machine_is_an_error_that_names_it(gateway):
    with pytest.raises(OSError, match=r"192\.0\.2\.1:0: .*http\.listen"):
        await WebServer(create_app(gateway), ("192.0.2.1", 0)).start()


async def test_signals_stay_with_whoever_had_them(serve, gateway):
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    await serve(create_app(gateway))
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


async def test_the_control_socket_is_for_its_owner_alone(serve, gateway, tmp_path):
    path = tmp_path / "control.sock"
    await serve(create_control_app(gateway), path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["control.sock"]
    async with unix_client(path) as client:
        assert (await client.post("/api/v1/reload")).json()["applied"] is True
        [(_, origin)] = gateway.calls
        assert origin.via == f"control socket uid {os.getuid()}"
        content = (await client.get("/api/v1/instances/1/file")).content
    assert len(content) == 1000


async def test_a_socket_left_by_a_killed_process_is_replaced(serve, gateway, tmp_path):
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    server = await serve(create_control_app(gateway), path)
    async with unix_client(path) as client:
        assert (await client.get("/api/v1/status")).status_code == 200
    await server.stop()
    assert not path.exists()


async def test_a_socket_that_somebody_answers_at_is_left_alone(serve, gateway, tmp_path):
    path = tmp_path / "control.sock"
    await serve(create_control_app(gateway), path)
    with pytest.raises(OSError, match="another dcmrouter"):
        await WebServer(create_control_app(gateway), path).start()
    async with unix_client(path) as client:
        assert (await client.get("/api/v1/status")).status_code == 200


async def test_a_file_in_the_place_of_the_socket_is_left_alone(gateway, tmp_path):
    path = tmp_path / "control.sock"
    path.write_text("precious")
    with pytest.raises(OSError, match="not a socket"):
        await WebServer(create_control_app(gateway), path).start()
    assert path.read_text() == "precious"


async def test_a_path_that_is_too_long_is_named(gateway, tmp_path):
    path = Path(tmp_path, "d" * 100, "control.sock")
    with pytest.raises(OSError, match="shorter data_dir"):
        await WebServer(create_control_app(gateway), path).start()


async def test_damage_found_late_cuts_the_file_short(serve, gateway, tmp_path):
    path = tmp_path / "control.sock"
    await serve(create_control_app(gateway), path)
    gateway.file_pieces = [b"x" * 600]
    gateway.file_error = SpoolDamaged("instance 5: CRC")
    async with unix_client(path) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/api/v1/instances/5/file")
    assert gateway.file_closed


async def test_a_client_that_leaves_closes_the_file(serve, gateway, tmp_path):
    path, closed = tmp_path / "control.sock", asyncio.Event()

    async def pieces():
        try:
            while True:
                yield b"x" * 65536
        finally:
            closed.set()

    gateway._pieces = pieces
    await serve(create_control_app(gateway), path)
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b"GET /api/v1/instances/5/file HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await asyncio.wait_for(closed.wait(), 5)


async def test_stopping_lets_an_answer_finish(serve):
    waiting = Waiting()
    server = await serve(waiting.app)
    async with httpx.AsyncClient(base_url=server.url) as client:
        request = asyncio.create_task(client.get("/slow"))
        await waiting.asked.wait()
        stopping = asyncio.create_task(server.stop(5))
        await asyncio.sleep(0)
        waiting.gate.set()
        assert (await request).text == "done"
        await stopping
    with pytest.raises(OSError):  # noqa: PT011  the cause differs with the platform
        await asyncio.open_connection(*server.address)


async def test_stopping_does_not_wait_for_ever(serve):
    waiting = Waiting()
    server = await serve(waiting.app)
    reader, writer = await asyncio.open_connection(*server.address)
    writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    await waiting.asked.wait()
    await asyncio.wait_for(server.stop(0.01), 5)
    assert waiting.cancelled
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    writer.close()


async def test_stopping_does_not_wait_for_idle_clients(serve):
    server = await serve(Waiting().app)
    async with httpx.AsyncClient(base_url=server.url) as client:
        await client.get("/")
        _, writer = await asyncio.open_connection(*server.address)
        await asyncio.wait_for(server.stop(60), 5)
        writer.close()
    await server.stop()


async def gone(reader):
    """Until the other side ended the connection."""
    try:
        return await asyncio.wait_for(reader.read(), 5)
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost:"])
async def test_a_client_that_does_not_finish_its_request_is_cut_off(serve, before, sent):
    server = await serve(Waiting().app, limits=Limits(request=0.05, idle=1))
    reader, writer = await asyncio.open_connection(*server.address)
    for _ in range(before):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"hello")
    writer.write(sent)
    assert await gone(reader) == b""
    writer.close()


@pytest.mark.parametrize("path", ["/endless", "/big"])
async def test_a_client_that_takes_nothing_is_cut_off(serve, path, monkeypatch):
    server = await serve(Waiting().app, limits=Limits(stalled=0.05, idle=60))
    lost = asyncio.Event()
    monkeypatch.setattr(server, "connection_lost", lost.set)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, server.address)
        await loop.sock_sendall(sock, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await asyncio.wait_for(lost.wait(), 10)


async def test_more_connections_than_allowed_are_refused(serve):
    server = await serve(Waiting().app, limits=Limits(connections=3, answered=2))
    first = [await asyncio.open_connection(*server.address) for _ in range(3)]
    reader, writer = await asyncio.open_connection(*server.address)
    assert await gone(reader) == b""
    writer.close()
    reader, writer = first[0]
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b" 503 " in await reader.readline()
    for _, writer in first:
        writer.close()


async def test_a_health_check_of_http_1_0_needs_no_host(serve, gateway):
    server = await serve(create_app(gateway, allowed_hosts=[]))
    reader, writer = await asyncio.open_connection(*server.address)
    writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
    assert b" 200 " in (await gone(reader)).splitlines()[0]
    writer.close()


async def test_a_head_over_the_limit_is_refused(serve):
    server = await serve(Waiting().app)
    reader, writer = await asyncio.open_connection(*server.address)
    writer.write(b"GET / HTTP/1.1\r\nX: " + b"x" * 40_000)
    assert b" 400 " in await reader.readline()
    writer.close()


async def test_other_protocols_are_refused_and_forgotten(serve):
    server = await serve(Waiting().app)
    for garbage in (b"\x16\x03\x01\x02\x00\x01\x00", bytes([1, 0, 0, 0, 0, 200]) + b"\0" * 200):
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(garbage + b"\r\n\r\n")
        assert b"400" in await gone(reader)
        writer.close()
    await asyncio.wait_for(server.stop(5), 5)


def test_the_same_on_uvloop(tmp_path):
    uvloop = pytest.importorskip("uvloop")

    async def main():
        gateway = FakeGateway()
        tcp = WebServer(create_app(gateway), LOCAL)
        control = WebServer(create_control_app(gateway), tmp_path / "control.sock")
        await tcp.start()
        await control.start()
        async with httpx.AsyncClient(base_url=tcp.url) as client:
            assert (await client.get("/metrics")).status_code == 200
        async with unix_client(control.address) as client:
            assert len((await client.get("/api/v1/instances/1/file")).content) == 1000
        await tcp.stop()
        await control.stop()
        await gateway.exporter.close()
        assert not list(tmp_path.iterdir())

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
