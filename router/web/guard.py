"""What every answer has and every request must be, whatever the route.

Owns the headers of safety, the check of the Host header, the JSON form of errors, and the bounds
on a request's body and on the time of an answer.
"""

import asyncio
import ipaddress
import json
from collections.abc import Awaitable, Callable, Collection
from email.utils import formatdate

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.web.page import POLICY
from router.web.sources import ControlError

MAX_BODY = 1 << 20
BODY_TIMEOUT = 10.0

_log = structlog.get_logger("router.web")

_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}

_FIXES = {
    404: "see docs/reference/http.md for the addresses there are",
    405: "this address answers to another method; on the TCP port all is read-only, and actions "
    "go through the control socket, as with `dcmrouter queue`",
}


def error(status: int, text: str, fix: str = "") -> JSONResponse:
    """The form of every refusal: what is wrong and what to do about it."""
    return JSONResponse({"error": text, "fix": fix}, status_code=status)


class Guard:
    """Wraps an application.

    ``hosts`` are the names that a Host header may carry besides IP addresses and ``localhost``;
    None lets any pass.  A page elsewhere whose name is rebound to our address would read the
    status with its visitor's browser; it cannot make the browser send another name than its own.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None = None) -> None:
        self._app = app
        self._hosts = None if hosts is None else {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI; only ``http`` is served."""
        if scope["type"] != "http":
            return

        async def safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers["date"] = formatdate(usegmt=True)
            await send(message)

        host = Headers(scope=scope).get("host", "")
        if self._hosts is not None and not _known(host, self._hosts):
            answer = error(
                421,
                "this name is not one of this gateway's",
                "use its IP address or localhost; a proxy in front is to send one of those as Host",
            )
            await answer(scope, receive, safe)
            return
        await self._app(scope, receive, safe)


def _known(host: str, names: Collection[str]) -> bool:
    if not host:  # HTTP/1.0, as some health checks speak it; browsers always send the header
        return True
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    name = name.lower().rstrip(".")
    if name == "localhost" or name in names:
        return True
    try:
        ipaddress.ip_address(name[1:-1] if name.startswith("[") else name)
    except ValueError:
        return False
    return True


Endpoint = Callable[[Request], Awaitable[Response]]


Late = tuple[str, str]
"""What is said of a request that takes too long, where ``{}`` is for how many seconds, and the
fix."""
LOOK: Late = ("the gateway did not answer in time", "try again; see its log")
ORDER: Late = (
    "the order was broken off after {:g} s; what it did until then stands",
    "the log says how much it was; give it again leaving that out, else some is done twice",
)
CHANGE: Late = (
    "the configuration was not changed within {:g} s, and that goes on",
    "`dcmrouter rules versions` and the log say what becomes of it",
)


def bounded(endpoint: Endpoint, seconds: float, late: Late = LOOK) -> Endpoint:
    """The endpoint, answering 503 with ``late`` when it takes longer than ``seconds``.

    `ControlError` becomes the answer that it describes; any other exception is logged here,
    once, and answered 500 without its text, which may name what the asker should not see.
    """

    async def answer(request: Request) -> Response:
        try:
            async with asyncio.timeout(seconds):
                return await endpoint(request)
        except ControlError as refusal:
            return error(refusal.status, refusal.error, refusal.fix)
        except TimeoutError:
            _log.warning("request took too long", path=request.url.path, seconds=seconds)
            text, fix = late
            return error(503, text.format(seconds), fix)
        except ClientDisconnect:
            return error(400, "the request broke off")
        except HTTPException:
            raise
        except Exception:  # noqa: BLE001  the boundary: logged here, once
            _log.exception("request failed", path=request.url.path)
            return error(500, "the gateway failed to answer", "see its log for the reason")

    return answer


async def http_exception(_: Request, exception: Exception) -> Response:
    """Starlette's own refusals in our form: no such address, no such method."""
    assert isinstance(exception, HTTPException)
    fix = _FIXES.get(exception.status_code, "")
    answer = error(exception.status_code, exception.detail, fix)
    answer.headers.update(exception.headers or {})
    return answer


async def read_json(request: Request) -> dict[str, object]:
    """The object in the body; {} when there is no body.

    Raises ControlError when it is not an object, over `MAX_BODY` bytes, or too slow to come.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            async for piece in request.stream():
                body += piece
                if len(body) > MAX_BODY:
                    raise ControlError(
                        f"the body is over {MAX_BODY} bytes", "ask for less at once", status=413
                    )
    except TimeoutError:
        raise ControlError("the body did not come in time", status=408) from None
    if not body:
        return {}
    try:
        value = json.loads(bytes(body))
    except (ValueError, RecursionError) as problem:
        raise ControlError(f"the body is not JSON: {problem}", 'send an object, {"…": …}') from None
    if not isinstance(value, dict):
        raise ControlError("the body is not an object", 'send an object, {"…": …}')
    return value
