"""A house whose gates are those of a real index, for tests with more of them than are in mind."""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Collection, Iterable
from pathlib import Path

from router.forward.vigil import Vigil
from router.spool.index import Index
from router.spool.index_soon import Look, Soon
from router.spool.index_types import Gate, Moved
from router.spool.plan import Plan
from tests.forward.gates import GateHouse
from tests.forward.virtual import run, wall
from tests.spool.index_samples import add, audited, meta, ref


class RealGates:
    """`GateIndex`, with what was opened and when."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.opened: list[tuple[float, Gate]] = []
        self.choices: list[Soon] = []
        self.changed = asyncio.Event()
        self.look_takes = 0.001
        self.looks = 0

    async def soon_gates(self, look: Look) -> Soon:
        await asyncio.sleep(self.look_takes)
        self.looks += 1
        soon = self.index.soon_gates(look)
        self.choices = [soon]
        return soon

    async def open_gate(self, gate_id: int) -> Moved:
        await asyncio.sleep(0.001)
        (gate,) = self.index._gates.shut_among(f"[{gate_id}]")
        moved = self.index.open_gate(gate_id)
        if not moved.more:
            self.opened.append((wall(), gate))
        self.changed.set()
        return moved

    async def shut_gate(
        self, destination: str | None, schedule: str, exclude: Collection[int]
    ) -> Moved:
        await asyncio.sleep(0.001)
        return self.index.shut_gate(destination, schedule, exclude)

    async def came(self, gate: Gate) -> int:
        await asyncio.sleep(0.001)
        return self.index.came(gate.study_instance_uid)


class ManyGates(GateHouse):
    """`receive` puts one instance of each study behind its gate at pacs."""

    def __init__(self, index: Index) -> None:
        super().__init__()
        self.real = RealGates(index)
        self.index = self.real  # type: ignore[assignment]
        self.keeper = self.new_keeper()
        self.numbers = 0

    def receive(
        self, plan: Plan, studies: Iterable[str], *, at: float | None = None, to: str = "pacs"
    ) -> None:
        entries = []
        for study in studies:
            self.numbers += 1
            when = self.clock() if at is None else at
            item = meta(self.numbers, to, study=study, plan=plan, at=when)
            entries.append((ref(self.numbers), item))
        add(self.real.index, *entries)
        self.keeper.notify()

    def kept(self) -> int:
        """Objects of gates that are in memory, but for what the test itself has noted."""
        noted = {id(gate) for _, gate in self.real.opened}
        self.real.choices.clear()
        gc.collect()
        return sum(
            isinstance(one, Gate | Vigil) and id(one) not in noted for one in gc.get_objects()
        )

    def opened_at(self) -> dict[str, float]:
        return {gate.key: at for at, gate in self.real.opened}


def scenario(
    path: Path, steps: Callable[[ManyGates], Awaitable[None]], *, start: bool = True
) -> None:
    """Runs the steps in a house whose gatekeeper has begun."""

    async def main() -> None:
        with audited(path / "index.db") as index:
            house = ManyGates(index)
            if start:
                house.keeper.start()
            await steps(house)
            await house.keeper.stop()

    run(main())
