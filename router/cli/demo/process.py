"""The gateway of the demonstration: `dcmrouter serve` as a process of its own.

Owns its start, its end, and what to say when it does not do either.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import router
from router.cli.demo.place import Place
from router.cli.desk import SocketDesk
from router.cli.failures import Failure

_START = 60.0
_STOP = 40.0
_LINES = 15


@contextlib.asynccontextmanager
async def running(place: Place) -> AsyncIterator[SocketDesk]:
    """The gateway, up; stopped with SIGTERM at the end, which must succeed.  Raises Failure."""
    with place.log.open("wb") as log:
        root = os.fspath(Path(router.__file__).parents[1])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "router.cli", "serve", "--config", place.config_path),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": path},
            # Ctrl-C is for us; the gateway stays until its sender and its sinks are gone.
            start_new_session=True,
        )
    try:
        desk = SocketDesk(place.socket)
        await _until_up(process, desk, place)
        yield desk
    finally:
        code = await _stop(process)
    if code != 0:
        raise Failure(f"the gateway ended with exit code {code}: {_last_lines(place.log)}")


async def _until_up(process: asyncio.subprocess.Process, desk: SocketDesk, place: Place) -> None:
    ended = asyncio.ensure_future(process.wait())
    try:
        async with asyncio.timeout(_START):
            # Its socket is there as its last step but one; nothing tells of it but looking.
            while not await asyncio.to_thread(desk.probe):
                await asyncio.wait([ended], timeout=0.05)
                if ended.done():
                    raise Failure(f"the gateway did not start: {_last_lines(place.log)}")
            while not all(ae["listening"] for ae in (await _status(desk))["listeners"]):
                await asyncio.wait([ended], timeout=0.05)
    except TimeoutError:
        raise Failure(
            f"the gateway did not start within {_START:.0f} s: {_last_lines(place.log)}"
        ) from None
    finally:
        ended.cancel()


async def _status(desk: SocketDesk) -> dict[str, list[dict[str, object]]]:
    return await asyncio.to_thread(desk.status)


async def _stop(process: asyncio.subprocess.Process) -> int:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode


def _last_lines(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-_LINES:]
    return " | ".join(lines) or "it said nothing"
