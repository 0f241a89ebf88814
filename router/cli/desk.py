"""Where operators' questions and orders go: the running gateway, or its directory at rest.

Owns the choice between the two and the client of the control socket.  `Desk` is what the
commands see; its answers are the JSON of the control API, whoever gives them.
"""

import contextlib
import http.client
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from router.cli.failures import Failure, Misuse, os_error
from router.cli.options import data_dir_of, load_config

Json = dict[str, Any]
Conditions = Mapping[str, object]

TIMEOUT = 75.0
"""Seconds for an answer; longer than the gateway gives itself."""

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class File:
    """A Part 10 file as it comes: ``length`` bytes in pieces."""

    length: int
    pieces: Iterator[bytes]


class Desk(Protocol):
    """Asked by the commands.  Every method may raise Failure."""

    @property
    def running(self) -> bool:
        """Whether a gateway answers."""
        ...

    def status(self) -> Json:
        """The gateway at this moment."""
        ...

    def account(self, since: str = "") -> Json:
        """The balance of everything received, or of what was since so long ago (``24h``)."""
        ...

    def pauses(self) -> list[Json]:
        """Destinations that are paused: since when, by whom, why."""
        ...

    def queues(self) -> list[Json]:
        """Destinations and states."""
        ...

    def queue(self, which: Conditions, limit: int, after: str) -> Json:
        """A page of deliveries: ``entries`` and ``next``."""
        ...

    def instances(self, which: Conditions, limit: int, after: str) -> Json:
        """A page of instances: ``entries`` and ``next``."""
        ...

    def promises(self, limit: int, everything: bool) -> list[Json]:
        """Requests for storage commitment that remotes made, the latest first."""
        ...

    def instance(self, number: int) -> Json:
        """One instance with deliveries and events."""
        ...

    def file(self, number: int) -> AbstractContextManager[File]:
        """Its bytes."""
        ...

    def act(self, action: str, which: Conditions, **more: object) -> Json:
        """``retry``, ``hasten``, ``drop``, ``hold``, ``release`` or ``redirect`` what the
        conditions mean."""
        ...

    def pause(self, destination: str, because: str) -> bool:
        """Nothing more goes there; False when it was paused already."""
        ...

    def resume(self, destination: str) -> bool:
        """The reverse; False when it was not paused."""
        ...

    def resend(self, which: Conditions, to: Sequence[str]) -> Json:
        """Send instances there, again or as well."""
        ...

    def reroute(self, which: Conditions) -> Json:
        """Decide held instances anew."""
        ...

    def discard(self, which: Conditions, because: str) -> Json:
        """Give up held instances."""
        ...

    def reload(self, author: str = "", note: str = "") -> Json:
        """Read the configuration anew."""
        ...


class _Unanswered(Failure):
    """Nobody listens on the socket."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(TIMEOUT)
        try:
            sock.connect(str(self._path))
        except BaseException:
            sock.close()
            raise
        self.sock = sock


class SocketDesk:
    """The control API of a running gateway (docs/reference/http.md)."""

    running = True

    def __init__(self, path: Path) -> None:
        self._path = path

    def probe(self) -> bool:
        """Whether somebody listens.  Raises Failure when that cannot be told."""
        connection = _UnixConnection(self._path)
        try:
            with self._explained():
                connection.connect()
        except _Unanswered:
            return False
        finally:
            connection.close()
        return True

    def status(self) -> Json:
        """See `Desk`."""
        return self._get("/api/v1/status")

    def account(self, since: str = "") -> Json:
        """See `Desk`."""
        return self._get("/api/v1/account", since=since)

    def pauses(self) -> list[Json]:
        """See `Desk`."""
        found: list[Json] = self._get("/api/v1/queue/pauses")["pauses"]
        return found

    def queues(self) -> list[Json]:
        """See `Desk`."""
        found: list[Json] = self._get("/api/v1/queue")["queues"]
        return found

    def queue(self, which: Conditions, limit: int, after: str) -> Json:
        """See `Desk`."""
        return self._get("/api/v1/queue/list", which, limit=limit, after=after)

    def instances(self, which: Conditions, limit: int, after: str) -> Json:
        """See `Desk`."""
        return self._get("/api/v1/instances", which, limit=limit, after=after)

    def promises(self, limit: int, everything: bool) -> list[Json]:
        """See `Desk`."""
        all_ = "true" if everything else ""
        found: list[Json] = self._get("/api/v1/commitments", limit=limit, all=all_)["commitments"]
        return found

    def instance(self, number: int) -> Json:
        """See `Desk`."""
        return self._get(f"/api/v1/instances/{number}")

    @contextlib.contextmanager
    def file(self, number: int) -> Iterator[File]:
        """See `Desk`."""
        connection = _UnixConnection(self._path)
        try:
            with self._explained():
                connection.request("GET", f"/api/v1/instances/{number}/file")
                response = connection.getresponse()
                if response.status != 200:
                    raise _refusal(response.status, _json(response.read()))
            length = int(response.getheader("content-length") or 0)
            yield File(length, self._pieces(response))
        finally:
            connection.close()

    def _pieces(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        while True:
            with self._explained():
                piece = response.read(_PIECE)
            if not piece:
                return
            yield piece

    def act(self, action: str, which: Conditions, **more: object) -> Json:
        """See `Desk`."""
        return self._post(f"/api/v1/queue/{action}", {**which, **more, **_author()})

    def pause(self, destination: str, because: str) -> bool:
        """See `Desk`."""
        reason = {"because": because} if because else {}
        body = {"destination": destination, **reason, **_author()}
        return bool(self._post("/api/v1/queue/pause", body)["changed"])

    def resume(self, destination: str) -> bool:
        """See `Desk`."""
        body = {"destination": destination, **_author()}
        return bool(self._post("/api/v1/queue/resume", body)["changed"])

    def resend(self, which: Conditions, to: Sequence[str]) -> Json:
        """See `Desk`."""
        return self._post("/api/v1/instances/resend", {**which, "to": list(to), **_author()})

    def reroute(self, which: Conditions) -> Json:
        """See `Desk`."""
        return self._post("/api/v1/instances/reroute", {**which, **_author()})

    def discard(self, which: Conditions, because: str) -> Json:
        """See `Desk`."""
        return self._post("/api/v1/instances/discard", {**which, "because": because, **_author()})

    def reload(self, author: str = "", note: str = "") -> Json:
        """See `Desk`."""
        return self._post("/api/v1/reload", {"author": author, "note": note}, also=(409,))

    def versions(self) -> Json:
        """The configurations that took effect."""
        return self._get("/api/v1/rules/versions")

    def version(self, text: str) -> Json:
        """One of them with its files."""
        return self._get(f"/api/v1/rules/versions/{quote(text, safe='')}")

    def difference(self, old: str, new: str) -> Json:
        """What differs between two of them."""
        return self._get("/api/v1/rules/diff", old=old, new=new)

    def rollback(self, version: str, author: str, note: str) -> Json:
        """Go back to one of them."""
        body = {"version": version, "author": author, "note": note}
        return self._post("/api/v1/rules/rollback", body, also=(409,))

    def _get(self, path: str, which: Conditions | None = None, **more: object) -> Json:
        given = {name: text for name, value in more.items() if (text := _query(value))}
        # A condition that is empty is refused there; left out it would mean everything.
        given |= {name: _query(value) for name, value in (which or {}).items()}
        return self._ask("GET", f"{path}?{urlencode(given)}" if given else path, None, ())

    def _post(self, path: str, body: Json, also: tuple[int, ...] = ()) -> Json:
        return self._ask("POST", path, json.dumps(body).encode(), also)

    def _ask(self, method: str, target: str, body: bytes | None, also: tuple[int, ...]) -> Json:
        connection = _UnixConnection(self._path)
        try:
            with self._explained():
                connection.request(method, target, body)
                response = connection.getresponse()
                answer = _json(response.read())
        finally:
            connection.close()
        if response.status != 200 and response.status not in also:
            raise _refusal(response.status, answer)
        return answer

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, ConnectionRefusedError):
            raise _Unanswered(f"no gateway answers at {self._path}") from None
        except PermissionError:
            raise Failure(
                f"{self._path} may not be opened by this user",
                "be the user that the gateway runs as",
            ) from None
        except TimeoutError:
            raise Failure(
                f"the gateway at {self._path} did not answer within {TIMEOUT:.0f} s",
                "look at its log",
            ) from None
        except (OSError, http.client.HTTPException) as error:
            text = os_error(error) if isinstance(error, OSError) else repr(error)
            raise Failure(f"no answer from {self._path}: {text}") from None


@contextlib.contextmanager
def open_desk(
    config_path: Path | None, socket_path: Path | None, *, offline: bool = True
) -> Iterator[Desk]:
    """The desk of the gateway that a configuration or a socket names.

    When no gateway answers, its directory is opened instead, under the spool's lock, and closed
    again at the end; not where ``offline`` is False, nor when only a socket is named.
    Raises Failure.
    """
    if socket_path is not None:
        desk = SocketDesk(socket_path)
        if not desk.probe():
            raise Failure(
                f"no gateway answers at {socket_path}",
                "start it, or give --config to look at its directory at rest",
            )
        yield desk
        return
    if config_path is None:
        raise Misuse(
            "it is not said which gateway is meant",
            "use --config FILE, set DCMROUTER_CONFIG, or name its socket with --socket",
        )
    # Not the whole configuration: one that was broken meanwhile must not hide its gateway.
    path = data_dir_of(config_path) / "control.sock"
    desk = SocketDesk(path)
    if desk.probe():
        yield desk
        return
    config = load_config(config_path).config
    where = (
        ""
        if config.data_dir.is_absolute()
        else (f" (data_dir is relative, and taken from {os.fspath(Path.cwd())})")
    )
    if not offline:
        raise Failure(f"no gateway answers at {path}{where}", "start it with dcmrouter serve")
    from router.cli.offline import open_offline

    with open_offline(config, where) as at_rest:
        yield at_rest


def refused(error: str, fix: str, status: int) -> Failure:
    """A refusal of the control API, as a command ends with it."""
    return (Misuse if status == 400 else Failure)(error, fix)


def _refusal(status: int, answer: Json) -> Failure:
    return refused(
        str(answer.get("error") or f"status {status}"), str(answer.get("fix") or ""), status
    )


def _json(body: bytes) -> Json:
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Failure("what answered is not a gateway of this version")
    return value


def _author() -> Json:
    """Who sits behind `sudo`; else the gateway asks the kernel who opened its socket."""
    user = os.environ.get("SUDO_USER", "")
    return {"author": user} if user else {}


def _query(value: object) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value)
