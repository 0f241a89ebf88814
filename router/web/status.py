"""The application on the TCP port: read-only, for Prometheus, load balancers and people.

Owns its routes.  Nothing here changes anything and nothing here names a patient, a study or an
instance: whoever reaches the port may read it.  What acts is in `router.web.control`.
"""

from collections.abc import Collection

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from router.observe.exposition import CONTENT_TYPE
from router.web import encode, page, rules_page
from router.web.guard import Endpoint, Guard, bounded, error, http_exception
from router.web.sources import StatusSource

TIMEOUT = 10.0
"""Seconds for an answer; under the 10 s after which Prometheus gives up by default."""


def create_app(
    status: StatusSource,
    *,
    allowed_hosts: Collection[str] | None = None,
    timeout: float = TIMEOUT,
) -> Starlette:
    """The application; ``allowed_hosts`` as in `Guard`, None for any."""
    views = _Views(status)
    routes = {
        "/": views.page,
        "/metrics": views.metrics,
        "/healthz": views.health,
        "/readyz": views.ready,
        "/api/v1/status": views.status,
        "/api/v1/queue": views.queue,
        "/rules": views.rules_page,
        "/api/v1/rules": views.rules,
    }
    return Starlette(
        routes=[_get(path, bounded(view, timeout)) for path, view in routes.items()],
        middleware=[Middleware(Guard, hosts=allowed_hosts)],
        exception_handlers={404: http_exception, 405: http_exception},
    )


def hosts_for(address: str, names: Collection[str]) -> Collection[str] | None:
    """What `create_app` is to allow when it listens on ``address``.

    On the loopback interface only browsers on this machine reach it, and a rebound name is the
    one way in from outside: addresses, ``localhost`` and ``names`` pass.  Elsewhere hospitals
    use names that we cannot know, so all pass unless ``names`` are given.
    """
    loopback = address in ("localhost", "::1") or address.startswith("127.")
    return names if names or loopback else None


def _get(path: str, view: Endpoint) -> Route:
    return Route(path, view, methods=["GET"])


class _Views:
    def __init__(self, source: StatusSource) -> None:
        self._source = source

    async def page(self, _: Request) -> Response:
        return HTMLResponse(page.render(await self._source.status()))

    async def metrics(self, _: Request) -> Response:
        return Response(await self._source.metrics(), headers={"content-type": CONTENT_TYPE})

    async def health(self, _: Request) -> Response:
        # The answer itself is the news: the event loop turns.
        return JSONResponse({"status": "ok"})

    async def ready(self, _: Request) -> Response:
        readiness = await self._source.readiness()
        if readiness.ready:
            return JSONResponse({"status": "ready", "reasons": []})
        return JSONResponse(
            {"status": "not ready", "reasons": list(readiness.reasons)}, status_code=503
        )

    async def status(self, _: Request) -> Response:
        return JSONResponse(encode.status(await self._source.status()))

    async def rules_page(self, _: Request) -> Response:
        return HTMLResponse(rules_page.render(await self._source.rules()))

    async def rules(self, _: Request) -> Response:
        return JSONResponse(encode.rules(await self._source.rules()))

    async def queue(self, request: Request) -> Response:
        if request.query_params:
            # A filter over TCP would be a way to ask whether a given study is here.
            return error(400, "the queue has no filter here", "use `dcmrouter queue list`")
        return JSONResponse({"queues": [encode.queue_line(q) for q in await self._source.queues()]})
