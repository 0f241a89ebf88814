"""The application on the control socket: what the command line asks of a running gateway.

Owns its routes and the checks on what is asked.  Who may open the socket may do all of it: the
file's mode is the access control, and there is no other, so it must never be served over TCP.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import asdict

import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from router.config.compare import CURRENT, DISK
from router.config.versions import Origin
from router.spool.errors import SpoolError
from router.spool.index_types import Changed, Filter
from router.web import encode
from router.web.commitments import promise
from router.web.guard import (
    CHANGE,
    LOOK,
    ORDER,
    Endpoint,
    Guard,
    bounded,
    http_exception,
    read_json,
)
from router.web.sources import ControlError, ControlSource, InstanceFile, Reloaded
from router.web.standing import Standing

TIMEOUT = 60.0
"""Seconds for an answer; an action on a million deliveries takes its time."""

MAX_LIMIT = 10_000
DEFAULT_LIMIT = 100
_MAX_ORIGIN = 500

_log = structlog.get_logger("router.web")

_FAILING_DISK = "look at the disk; what was asked may be done in part, and may be asked again"
_NOTHING = Filter()
_UNKNOWN = Standing(0.0)
"""For rows without deliveries."""


def create_control_app(
    control: ControlSource,
    *,
    now: Callable[[], float] = time.time,
    timeout: float = TIMEOUT,
) -> Starlette:
    """The application.  ``now`` gives seconds since the epoch, for ``older_than``."""
    views = _Views(control, now)
    gets = {
        "/api/v1/status": views.status,
        "/api/v1/account": views.account,
        "/api/v1/queue": views.queues,
        "/api/v1/queue/list": views.queue,
        "/api/v1/queue/pauses": views.pauses,
        "/api/v1/commitments": views.promises,
        "/api/v1/instances": views.instances,
        "/api/v1/instances/{number:int}": views.instance,
        "/api/v1/instances/{number:int}/file": views.file,
        "/api/v1/rules": views.rules,
        "/api/v1/rules/versions": views.versions,
        "/api/v1/rules/versions/{version:path}": views.version,
        "/api/v1/rules/diff": views.difference,
    }
    orders = {
        "/api/v1/queue/retry": views.retry,
        "/api/v1/queue/drop": views.drop,
        "/api/v1/queue/hold": views.hold,
        "/api/v1/queue/release": views.release,
        "/api/v1/queue/hasten": views.hasten,
        "/api/v1/queue/redirect": views.redirect,
        "/api/v1/queue/pause": views.pause,
        "/api/v1/queue/resume": views.resume,
        "/api/v1/instances/resend": views.resend,
        "/api/v1/instances/reroute": views.reroute,
        "/api/v1/instances/discard": views.discard,
    }
    changes = {"/api/v1/reload": views.reload, "/api/v1/rules/rollback": views.rollback}
    tables = (("GET", gets, LOOK), ("POST", orders, ORDER), ("POST", changes, CHANGE))
    return Starlette(
        routes=[
            Route(path, bounded(_plain(view), timeout, late), methods=[method])
            for method, table, late in tables
            for path, view in table.items()
        ],
        middleware=[Middleware(Guard)],
        exception_handlers={404: http_exception, 405: http_exception},
    )


def _plain(endpoint: Endpoint) -> Endpoint:
    """The endpoint, with an answer that says what the disk or the index failed at: it is no fault
    of the gateway's, and only its owner may ask here."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except SpoolError as trouble:
            _log.error("request met a failing disk", path=request.url.path, error=str(trouble))
            raise ControlError(str(trouble), _FAILING_DISK, status=500) from trouble

    return answer


class _Views:
    def __init__(self, source: ControlSource, now: Callable[[], float]) -> None:
        self._source = source
        self._now = now

    async def status(self, _: Request) -> Response:
        return JSONResponse(encode.status(await self._source.status()))

    async def account(self, request: Request) -> Response:
        given = dict(request.query_params)
        since = given.pop("since", None)
        if given:
            raise ControlError(f"unknown parameter {min(given)!r}", "it takes `since`")
        if since is None:
            return JSONResponse(encode.account(await self._source.account()))
        moment = encode.parse_since(since, self._now())
        return JSONResponse(encode.account_since(await self._source.account_since(moment)))

    async def promises(self, request: Request) -> Response:
        given = dict(request.query_params)
        everything = given.pop("all", "false")
        limit = _limit(given.pop("limit", DEFAULT_LIMIT))
        if everything not in ("true", "false"):
            raise ControlError(
                f"all is true or false, not {everything!r}", "leave it out for false"
            )
        if given:
            raise ControlError(f"unknown parameter {min(given)!r}", "it takes `all` and `limit`")
        found = await self._source.promises(limit, everything == "true")
        return JSONResponse({"commitments": [promise(one) for one in found]})

    async def pauses(self, _: Request) -> Response:
        standing = await self._source.standing()
        return JSONResponse({"pauses": [asdict(pause) for pause in standing.pauses.values()]})

    async def queues(self, _: Request) -> Response:
        return JSONResponse({"queues": [encode.queue_line(q) for q in await self._source.queues()]})

    async def queue(self, request: Request) -> Response:
        which, limit, after = self._query(request)
        cursor = _cursor(after) if after else None
        items = await self._source.queue(which, limit, cursor)
        following = ".".join(map(str, items[-1].cursor)) if len(items) == limit else ""
        standing = await self._source.standing()
        entries = [encode.queue_item(item, standing) for item in items]
        return JSONResponse({"entries": entries, "next": following})

    async def instances(self, request: Request) -> Response:
        which, limit, after = self._query(request)
        rows = await self._source.instances(which, limit, _number("after", after or "0", 2**63 - 1))
        following = str(rows[-1].ref.id) if len(rows) == limit else ""
        return JSONResponse(
            {"entries": [encode.instance(r, _UNKNOWN) for r in rows], "next": following}
        )

    async def instance(self, request: Request) -> Response:
        row = await self._source.instance(_instance_number(request))
        if row is None:
            raise _gone(request)
        return JSONResponse(encode.instance(row, await self._source.standing()))

    async def file(self, request: Request) -> Response:
        file = await self._source.open_file(_instance_number(request))
        if file is None:
            raise _gone(request)
        return await _send(file)

    async def retry(self, request: Request) -> Response:
        return await self._act(request, self._source.retry)

    async def hold(self, request: Request) -> Response:
        return await self._act(request, self._source.hold)

    async def drop(self, request: Request) -> Response:
        body = await read_json(request)
        origin, reason = _origin(request, body), _because(body, "dropped by an operator")
        which = self._filter(body)
        return JSONResponse(encode.changed(await self._source.drop(which, reason, origin)))

    async def discard(self, request: Request) -> Response:
        body = await read_json(request)
        origin, reason = _origin(request, body), _because(body)
        which = self._filter(body)
        done = await self._source.discard_held(which, reason, origin)
        return JSONResponse(encode.changed(done))

    async def release(self, request: Request) -> Response:
        body = await read_json(request)
        origin, to = _origin(request, body), body.pop("to", None)
        which = self._filter(body)
        if to is None:
            return JSONResponse(encode.changed(await self._source.release(which, origin)))
        done = await self._source.route_held(which, encode.parse_names(to), origin)
        return JSONResponse(encode.changed(done))

    async def hasten(self, request: Request) -> Response:
        return await self._act(request, self._source.hasten)

    async def redirect(self, request: Request) -> Response:
        body = await read_json(request)
        origin, reason = _origin(request, body), _because(body, " ").strip()
        (target, *others) = encode.parse_names(body.pop("to", None))
        if others:
            raise ControlError("to names one destination", 'as in "to": "pacs"')
        which = self._filter(body)
        return JSONResponse(asdict(await self._source.redirect(which, target, reason, origin)))

    async def resend(self, request: Request) -> Response:
        body = await read_json(request)
        origin = _origin(request, body)
        names = encode.parse_names(body.pop("to", None))
        which = self._filter(body)
        return JSONResponse(asdict(await self._source.resend(which, names, origin)))

    async def reroute(self, request: Request) -> Response:
        body = await read_json(request)
        origin = _origin(request, body)
        return JSONResponse(asdict(await self._source.reroute(self._filter(body), origin)))

    async def pause(self, request: Request) -> Response:
        body = await read_json(request)
        origin, reason = _origin(request, body), _because(body, " ").strip()
        name = _destination(body)
        return JSONResponse({"changed": await self._source.pause(name, reason, origin)})

    async def resume(self, request: Request) -> Response:
        body = await read_json(request)
        origin, name = _origin(request, body), _destination(body)
        return JSONResponse({"changed": await self._source.resume(name, origin)})

    async def rules(self, _: Request) -> Response:
        return JSONResponse(encode.rules(await self._source.rules()))

    async def versions(self, _: Request) -> Response:
        return JSONResponse(encode.versions(await self._source.versions()))

    async def version(self, request: Request) -> Response:
        text = str(request.path_params["version"])
        version, files = await self._source.version(text)
        shown = [encode.version_file(file) for file in files]
        return JSONResponse(encode.version(version) | {"files": shown})

    async def difference(self, request: Request) -> Response:
        given = dict(request.query_params)
        old, new = given.pop("old", CURRENT), given.pop("new", DISK)
        if given:
            raise ControlError(f"unknown parameter {min(given)!r}", "it takes `old` and `new`")
        return JSONResponse(asdict(await self._source.difference(old, new)))

    async def reload(self, request: Request) -> Response:
        body = await read_json(request)
        origin = _origin(request, body)
        _nothing_more(body)
        return _reloaded(await self._source.reload(origin))

    async def rollback(self, request: Request) -> Response:
        body = await read_json(request)
        origin = _origin(request, body)
        version = body.pop("version", None)
        if not isinstance(version, str | int) or isinstance(version, bool):
            raise ControlError("version is a number or a text", 'as in "version": 17')
        _nothing_more(body)
        return _reloaded(await self._source.rollback(str(version), origin))

    async def _act(
        self, request: Request, action: Callable[[Filter, Origin], Awaitable[Changed]]
    ) -> Response:
        body = await read_json(request)
        origin = _origin(request, body)
        return JSONResponse(encode.changed(await action(self._filter(body), origin)))

    def _filter(self, body: dict[str, object]) -> Filter:
        everything = body.pop("all", False)
        which = encode.parse_filter(body, self._now())
        if which == _NOTHING and everything is not True:
            raise ControlError(
                "no condition is given, which would mean everything",
                'give a condition, or "all": true to mean it',
            )
        return which

    def _query(self, request: Request) -> tuple[Filter, int, str]:
        given: dict[str, object] = dict(request.query_params)
        after = str(given.pop("after", ""))
        limit = _limit(given.pop("limit", DEFAULT_LIMIT))
        return encode.parse_filter(given, self._now()), limit, after


def _origin(request: Request, body: dict[str, object]) -> Origin:
    """Who asks: as they say, else the user at the other end of the socket."""
    texts = {}
    for name in ("author", "note"):
        value = body.pop(name, "")
        if not isinstance(value, str) or len(value) > _MAX_ORIGIN:
            raise ControlError(f"{name} is text of at most {_MAX_ORIGIN} characters")
        texts[name] = value.strip()
    peer = request.client.host if request.client is not None else ""
    return Origin(via=f"control socket {peer}".strip(), **texts)


def _nothing_more(body: dict[str, object]) -> None:
    if body:
        raise ControlError(f"unknown field {min(body)!r}", "see docs/reference/http.md")


def _reloaded(result: Reloaded) -> Response:
    return JSONResponse(encode.reloaded(result), status_code=200 if result.applied else 409)


def _destination(body: dict[str, object]) -> str:
    """The only field that is left."""
    name = body.pop("destination", None)
    if not isinstance(name, str) or not name:
        raise ControlError("destination is a name", 'as in "destination": "pacs"')
    _nothing_more(body)
    return name


def _because(body: dict[str, object], otherwise: str = "") -> str:
    """The reason that is given; one that may be left out is ``otherwise`` then."""
    reason = body.pop("because", None)
    if reason is None and otherwise:
        return otherwise
    if not isinstance(reason, str) or not reason.strip():
        raise ControlError("because is text", 'as in "because": "sent by hand"')
    return reason


def _number(name: str, text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= most):
        raise ControlError(f"{name} is a number from 0 to {most}, not {text!r}")
    return int(text)


def _limit(given: object) -> int:
    limit = _number("limit", str(given), MAX_LIMIT)
    if limit == 0:
        raise ControlError("limit is at least 1", "leave it out for the default")
    return limit


def _cursor(text: str) -> tuple[int, int]:
    parts = text.split(".")
    if len(parts) != 2:
        raise ControlError(f"after {text!r} is not a cursor", "take `next` of the page before")
    return _number("after", parts[0], 2**63 - 1), _number("after", parts[1], 2**63 - 1)


def _instance_number(request: Request) -> int:
    return _number("the instance", str(request.path_params["number"]), 2**63 - 1)


def _gone(request: Request) -> ControlError:
    return ControlError(
        f"there is no instance {request.path_params['number']}",
        "it was purged after its last delivery, or never was; see `dcmrouter instances list`",
        status=404,
    )


async def _send(file: InstanceFile) -> Response:
    """The file as it is read.

    The first piece is read before anything is promised, so that a record that cannot be read at
    all is refused in words; damage that shows later cuts the connection short of its length.
    """
    pieces = file.pieces
    try:
        first = await anext(pieces, b"")
    except SpoolError as damage:
        await _close(pieces)
        raise ControlError(str(damage), "the instance is damaged on disk", status=500) from None
    except BaseException:
        await _close(pieces)
        raise
    headers = {
        "content-length": str(file.length),
        "content-disposition": f'attachment; filename="{_file_name(file.name)}"',
    }
    return _FileResponse(first, pieces, headers)


class _FileResponse(StreamingResponse):
    """Closes the pieces however the answer ends: they hold a segment of the spool open."""

    def __init__(self, first: bytes, pieces: AsyncIterator[bytes], headers: dict[str, str]) -> None:
        super().__init__(_rest(first, pieces), headers=headers, media_type="application/dicom")
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await _close(self._pieces)


async def _rest(first: bytes, pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    try:
        yield first
        async for piece in pieces:
            yield piece
            # Pieces that need no wait must not keep the loop, least of all when nobody reads on.
            await asyncio.sleep(0)
    except SpoolError as damage:
        _log.error("instance file broken off", error=str(damage))
        raise


async def _close(pieces: AsyncIterator[bytes]) -> None:
    """Give back what the iterator holds open, when it is a generator."""
    close = getattr(pieces, "aclose", None)
    if close is not None:
        with contextlib.suppress(RuntimeError):  # running already, when the client left
            await close()


def _file_name(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name)
