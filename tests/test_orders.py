"""What an operator was told to be done outlives a power cut."""

import asyncio
import contextlib
import itertools
import shutil
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from router.config.versions import Origin
from router.orders import Orders, portions
from router.signals import Signalled
from router.spool.errors import SpoolFull
from router.spool.index import Index
from router.spool.index_thread import IndexThread
from router.spool.index_types import DeliveryState, Filter
from tests.spool.index_samples import DROPPED, HELD, READY, audited, fill, meta, ref
from tests.test_asking_again import Thread

WHO = Origin(via="test")
PACS = Filter(destination="pacs")


@contextlib.asynccontextmanager
async def _at_rest(_: str) -> Any:
    yield ()


def _orders(index: Index) -> Orders:
    remotes = {name: SimpleNamespace(host="h") for name in ("pacs", "vna")}
    gateway: Any = SimpleNamespace(
        index=index,
        index_thread=Thread(),
        forwarder=SimpleNamespace(
            refresh=lambda: None, pause=lambda *_: None, at_rest=_at_rest, resume=lambda _: None
        ),
        gatekeeper=SimpleNamespace(notify=lambda: None),
        loaded=SimpleNamespace(config=SimpleNamespace(remotes=remotes)),
        storage=SimpleNamespace(settings=SimpleNamespace(duplicates="send")),
    )
    return Orders(gateway)


Order = Callable[[Orders], Awaitable[object]]


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What an index in ``cache`` beside it has after a power cut."""
    disk = tmp_path / "disk"
    (tmp_path / "cache").mkdir()
    real = Index.barrier

    def barrier(index: Index) -> None:
        real(index)
        shutil.rmtree(disk, ignore_errors=True)
        shutil.copytree(tmp_path / "cache", disk)

    monkeypatch.setattr(Index, "barrier", barrier)
    return disk


@pytest.mark.parametrize(
    ("order", "paused", "at_pacs", "at_vna"),
    [
        (lambda orders: orders.pause("pacs", "why", WHO), ["pacs"], READY, None),
        (lambda orders: orders.drop(PACS, "why", WHO), [], DROPPED, None),
        (lambda orders: orders.hold(PACS, WHO), [], HELD, None),
        (lambda orders: orders.redirect(PACS, "vna", "why", WHO), [], DROPPED, READY),
        (lambda orders: orders.resend(Filter(), ("vna",), WHO), [], READY, READY),
    ],
    ids=["pause", "drop", "hold", "redirect", "resend"],
)
async def test_synced_before_it_is_told(
    tmp_path: Path,
    disk: Path,
    order: Order,
    paused: list[str],
    at_pacs: DeliveryState,
    at_vna: DeliveryState | None,
) -> None:
    with audited(tmp_path / "cache" / "index.db") as index:
        fill(index, [1], "pacs")
        index.barrier()
        await order(_orders(index))
    after = Index.open(disk / "index.db")
    row = after.instance(1)
    assert row is not None
    found = {delivery.destination: delivery.state for delivery in row.deliveries}
    assert (found["pacs"], found.get("vna")) == (at_pacs, at_vna)
    assert [pause.destination for pause in after.pauses()] == paused
    after.close()


@pytest.mark.parametrize(
    ("method", "order", "at_pacs", "at_vna"),
    [
        ("drop", lambda orders: orders.drop(PACS, "why", WHO), DROPPED, None),
        ("redirect", lambda orders: orders.redirect(PACS, "vna", "why", WHO), DROPPED, READY),
        ("resend", lambda orders: orders.resend(Filter(), ("vna",), WHO), READY, READY),
    ],
)
async def test_what_an_order_did_until_it_was_broken_off_is_counted_and_synced(
    tmp_path: Path,
    disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    order: Order,
    at_pacs: DeliveryState,
    at_vna: DeliveryState | None,
) -> None:
    """Also the step that was under way then, which the index does to its end."""
    monkeypatch.setattr("router.orders._STEP", 1)
    monkeypatch.setattr("router.spool.index_reroute._AT_ONCE", 1)
    real = getattr(Index, method)
    steps = itertools.count(1)
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(index: Index, *args: Any, **more: Any) -> Any:
        if next(steps) == 2:
            loop.call_soon_threadsafe(begun.set)
            assert go_on.wait(10)
        return real(index, *args, **more)

    monkeypatch.setattr(Index, method, slow)
    thread = IndexThread()
    with audited(tmp_path / "cache" / "index.db") as index, capture_logs() as lines:
        fill(index, [1, 2, 3], "pacs")
        index.barrier()
        orders = _orders(index)
        orders._gateway.index_thread = thread
        doing = asyncio.ensure_future(order(orders))
        await begun.wait()
        doing.cancel()
        loop.call_soon(go_on.set)
        with pytest.raises(asyncio.CancelledError):
            await doing
        thread.close()
    (line,) = [line for line in lines if line["event"] == "operator"]
    assert (line["count"], line["ended"]) == (2, False)
    after = Index.open(disk / "index.db")
    for number, done in ((1, True), (2, True), (3, False)):
        row = after.instance(number)
        assert row is not None
        found = {delivery.destination: delivery.state for delivery in row.deliveries}
        want = (at_pacs, at_vna) if done else (READY, None)
        assert (found["pacs"], found.get("vna")) == want
    after.close()


async def test_a_pause_holds_though_it_cannot_be_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> bool:
        raise SpoolFull("index: database or disk is full")

    with audited(tmp_path / "index.db") as index:
        monkeypatch.setattr(Index, "pause", full)
        orders, paused = _orders(index), list[str]()
        forwarder: Any = orders._gateway.forwarder
        forwarder.pause = lambda name, _: paused.append(name)
        with pytest.raises(SpoolFull, match=r"pacs is paused, but .* disk is full"):
            await orders.pause("pacs", "why", WHO)
        assert paused == ["pacs"]
        signalled: Any = SimpleNamespace(_gateway=orders._gateway, _orders=orders)
        with capture_logs() as log:
            await Signalled._pause(signalled, Origin(author="SIGUSR1"))
        assert paused == ["pacs", "pacs", "vna"]
        assert [e["destination"] for e in log if e["log_level"] == "error"] == ["pacs", "vna"]


@pytest.mark.parametrize("broken_off", [False, True])
async def test_a_resume_is_synced_though_one_before_it_was_broken_off(
    tmp_path: Path, disk: Path, broken_off: bool
) -> None:
    with audited(tmp_path / "cache" / "index.db") as index:
        index.pause("pacs", "why", at=1.0)
        index.barrier()
        if broken_off:
            index.resume("pacs", at=2.0)
        assert await _orders(index).resume("pacs", WHO) is not broken_off
    after = Index.open(disk / "index.db")
    assert after.pauses() == []
    after.close()


@pytest.mark.parametrize(
    ("mib", "steps"),
    [
        ([], []),
        ([1] * 60, [25, 25, 10]),
        ([30, 30, 30, 200, 1, 63, 1], [2, 1, 1, 2, 1]),
        ([64, 64], [1, 1]),
    ],
)
def test_held_ones_are_compared_so_many_and_so_many_bytes_at_a_time(
    mib: list[int], steps: list[int]
) -> None:
    decided = [(ref(n, length=size * 2**20), meta(n, "pacs")) for n, size in enumerate(mib, 1)]
    found = list(portions(decided))
    assert [len(some) for some in found] == steps
    assert [one for some in found for one in some] == decided
