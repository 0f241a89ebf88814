"""Gates, windows and failover together, out of the real index, in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from random import Random

import pytest
import structlog

from router.forward.gatekeeper import Gatekeeper
from router.net.errors import AssociationBroken, ConnectFailed
from router.spool.index_soon import Look, Soon
from router.spool.index_types import DeliveryState, Gate, Moved
from rules.window import parse_windows
from tests.forward.test_failover import Pair
from tests.forward.virtual import run, wall

# Virtual time begins on a Tuesday at 22:30 UTC.
CLOSES_IN = 30 * 60.0
WINDOW = parse_windows(["22:00-23:00"], "UTC")


class GatedPair(Pair):
    """With a gatekeeper, wired as the gateway does it."""

    def __init__(self, path: Path, **options: object) -> None:
        super().__init__(path, **options)
        self.keeper = Gatekeeper(
            self,
            clock=wall,
            random=Random(1),
            busy=lambda gate: "",
            ask=self._ask,
            destinations=lambda: self.forwarder.names,
            at_rest=self.forwarder.at_rest,
            notify=self.forwarder.notify,
            log=structlog.get_logger(),
        )
        self.forwarder._returned = self.keeper.returned

    async def _ask(self, archive: str, gate: Gate) -> int | None:
        raise AssertionError(archive)

    async def soon_gates(self, look: Look) -> Soon:
        await asyncio.sleep(0.001)
        return self.real.soon_gates(look)

    async def open_gate(self, gate_id: int) -> Moved:
        await asyncio.sleep(0.001)
        return self.real.open_gate(gate_id)

    async def shut_gate(
        self, destination: str | None, schedule: str, exclude: Collection[int]
    ) -> Moved:
        await asyncio.sleep(0.001)
        return self.real.shut_gate(destination, schedule, exclude=exclude)

    async def came(self, gate: Gate) -> int:
        await asyncio.sleep(0.001)
        return self.real.came(gate.study_instance_uid)

    def ready(self) -> dict[str, tuple[int, int]]:
        """By destination, how many are READY and how many of them behind a gate."""
        lines = self.real.queue_summary()
        return {
            q.destination: (q.count, q.gated)
            for q in lines
            if q.state is DeliveryState.READY and q.count
        }


def scenario(path: Path, steps: Callable[[GatedPair], Awaitable[None]], **options: object) -> None:
    async def main() -> None:
        pair = GatedPair(path, **options)
        pair.keeper.configure({"night": WINDOW})
        pair.start({"a", "b"})
        pair.keeper.start()
        await steps(pair)
        await pair.keeper.stop()
        await pair.stop()
        pair.real.close()

    run(main())


def test_what_came_back_unsent_after_the_window_closed_waits_for_the_next(tmp_path: Path) -> None:
    async def steps(pair: GatedPair) -> None:
        peer = pair.peers["a"]
        peer.stalled = asyncio.Event()
        pair.receive("a", schedule="night", count=5)
        pair.keeper.notify()
        await asyncio.sleep(CLOSES_IN + 60)
        assert pair.forwarder.snapshot()["a"].in_flight == 1
        assert pair.ready() == {"a": (5, 4)}
        # It is put back as what was not begun when its association fell.
        destination = pair.forwarder._destinations["a"]
        peer.connect_error = ConnectFailed("down")
        error = AssociationBroken("connection lost")
        for courier in list(destination._crew.couriers):
            for item in list(courier.held.values()):
                del courier.held[item.ref.id]
                destination._crew._clerk.broken(courier, item, error, begun=False)
            courier.checkout.association.end()
        await asyncio.sleep(3600)
        assert pair.ready() == {"a": (5, 5)}
        peer.connect_error = peer.stalled = None
        await asyncio.sleep(3600)
        assert not peer.stored, "the window is shut"
        await asyncio.sleep(86400)
        pair.check()

    scenario(tmp_path, steps)


def test_what_came_back_unsent_and_keeps_to_no_window_is_sent(tmp_path: Path) -> None:
    async def steps(pair: GatedPair) -> None:
        peer = pair.peers["a"]
        peer.stalled = asyncio.Event()
        pair.receive("a")
        await asyncio.sleep(CLOSES_IN + 60)
        destination = pair.forwarder._destinations["a"]
        (courier,) = destination._crew.couriers
        for item in list(courier.held.values()):
            del courier.held[item.ref.id]
            destination.put_back(item)
        peer.stalled = None
        courier.checkout.association.end()
        await asyncio.sleep(60)
        assert pair.where() == {"a": 1}

    scenario(tmp_path, steps)


@pytest.mark.parametrize("refreshed", [False, True])
def test_what_comes_back_to_one_that_was_removed_goes_to_another(
    tmp_path: Path, refreshed: bool
) -> None:
    async def steps(pair: GatedPair) -> None:
        peer = pair.peers["a"]
        peer.stalled = asyncio.Event()
        pair.receive("a", "b")
        await asyncio.sleep(1)
        destination = pair.forwarder._destinations["a"]
        (courier,) = destination._crew.couriers
        ((number, item),) = courier.held.items()
        if refreshed:
            pair.forwarder.refresh("a")
        pair.forwarder.configure([pair.configs["b"], pair.configs["c"]], {"b"})
        await asyncio.sleep(1)
        del courier.held[number]
        destination.put_back(item)
        await asyncio.sleep(60)
        assert pair.where() == {"b": 1}
        courier.checkout.association.end()

    scenario(tmp_path, steps)


@pytest.mark.parametrize("flap", [20.0, 50.0])
def test_a_study_goes_when_it_is_quiet_however_its_members_flap(
    tmp_path: Path, flap: float
) -> None:
    async def steps(pair: GatedPair) -> None:
        began = wall()
        pair.receive("a", "b", after="study-complete")
        pair.keeper.notify()
        for number in range(int(200 / flap)):
            await asyncio.sleep(flap)
            source, up = ("a", ["b"]) if number % 2 == 0 else ("b", ["a", "b"])
            if pair.real.divert(source, up, (), wall()).gated:
                pair.keeper.notify()
        await asyncio.sleep(200)
        ((at, _),) = [(s.at, s.uid) for peer in pair.peers.values() for s in peer.stored]
        assert at == pytest.approx(began - 1_700_000_000.0 + 60, abs=3)

    scenario(tmp_path, steps)
