"""What the tests with a running gateway share: starting it, sending to it, waiting for it.

The sender and the receivers are those of `perf`, which share no code with the product.
"""

import asyncio
import functools
import itertools
import struct
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pydicom.uid import MRImageStorage

from perf import data, wire
from perf.gateway import GatewayProcess
from perf.load import Association
from perf.processes import wait_until
from perf.witness import Seen

Start = Callable[[dict[str, Any]], GatewayProcess]

LIMIT = 60.0
SMALL = data.Kind("e2e-small", 7, MRImageStorage, "MR", 64, 64, 16)
MEDIUM = data.Kind("e2e-medium", 9, MRImageStorage, "MR", 256, 256, 16)
LARGE = data.Kind("e2e-large", 8, MRImageStorage, "MR", 2048, 1024, 16)
_CONTEXT = 1


def starter(home: Path, stack: ExitStack) -> Start:
    """Starts gateways below `home` that live as long as `stack`, and then obey SIGTERM."""
    numbers = itertools.count(1)

    def start(settings: dict[str, Any]) -> GatewayProcess:
        gateway = GatewayProcess(home / f"gw{next(numbers)}", settings)
        stack.callback(_stop, gateway)
        return gateway.start()

    return start


def _stop(gateway: GatewayProcess) -> None:
    assert gateway.stop(), "the gateway had to be killed"


def destination(port: int, **more: Any) -> dict[str, Any]:
    """A remote on this machine that is called again soon after a failure."""
    retry = {"first": "50ms", "cap": "200ms", "max_attempts": 1000}
    return {"ae_title": "SINK", "host": "127.0.0.1", "port": port, "retry": retry, **more}


def route_to(port: int, **more: Any) -> dict[str, Any]:
    """Everything goes to the one destination ``sink``."""
    return {
        "remotes": {"sink": destination(port)},
        "rules": [{"name": "everything", "to": "sink"}],
        "spool": {"segment_size": "4MiB", "large_instance": "1MiB", "spare_segments": 1},
        **more,
    }


_template = functools.cache(data.template)


def instance(kind: data.Kind, number: int) -> tuple[str, bytes]:
    """SOP Instance UID and data set of an instance that differs from all others."""
    template = _template(kind)
    uid = data.instance_uid(kind, 1, number)
    body = bytearray(template.data)
    body[template.uid_offset : template.uid_offset + len(uid)] = uid.encode()
    struct.pack_into("<Q", body, template.pixel_offset, number)
    return uid, bytes(body)


def association(gateway: GatewayProcess) -> Association:
    """To the gateway, with a context for MR images; not open yet."""
    return Association(gateway.port, "ROUTER", MRImageStorage)


async def store(to: Association, uid: str, body: bytes) -> int:
    """Send one data set over an open association; the status."""
    return await to.store(uid, _pdus(data_pdus(to, body)))


def data_pdus(to: Association, body: bytes, maximum: int = 0) -> Iterator[bytes]:
    """A data set as P-DATA-TF PDUs of at most `maximum` bytes, or what the peer allows."""
    return wire.data_pdus(_CONTEXT, memoryview(body), maximum or to.maximum_length)


async def _pdus(pdus: Iterator[bytes]) -> AsyncIterator[bytes]:
    for pdu in pdus:
        yield pdu


def send(gateway: GatewayProcess, kind: data.Kind, numbers: Sequence[int]) -> dict[Seen, int]:
    """Send instances over one association; the status of each."""

    async def run() -> dict[Seen, int]:
        to = association(gateway)
        await to.open()
        found = {}
        for number in numbers:
            uid, body = instance(kind, number)
            found[Seen.of(uid, body)] = await store(to, uid, body)
        await to.release()
        return found

    return asyncio.run(run())


def settled(gateway: GatewayProcess, received: int, timeout: float = LIMIT) -> bool:
    """Wait until that many instances are in the index and nothing waits for a destination."""
    return wait_until(
        lambda: gateway.account()["received"] >= received and gateway.waiting() == 0, timeout
    )
