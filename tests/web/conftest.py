"""A gateway for the page and the control socket, and a client of the latter."""

import httpx
import pytest

from router.web.control import create_control_app
from tests.web.fakes import FakeGateway


@pytest.fixture
async def gateway():
    gateway = FakeGateway()
    yield gateway
    await gateway.exporter.close()


@pytest.fixture
async def client(gateway):
    app = create_control_app(gateway, now=lambda: 10_000.0)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://control") as client:
        yield client
