"""Gates in a dictionary, and a house for the gatekeeper, for tests in virtual time."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random

import structlog

from router.forward.gatekeeper import Gatekeeper
from router.spool.index_soon import Look, Soon
from router.spool.index_types import Gate, Moved
from router.spool.plan import Plan
from tests.forward.virtual import wall

LIMIT = 10


class FakeGates:
    """What is behind gates, what is due and keeps to a schedule; as the index does it."""

    def __init__(self) -> None:
        self.shut: dict[int, Gate] = {}
        self.held: dict[int, int] = {}
        self.due: dict[tuple[str, str], int] = {}
        self.opened: list[tuple[float, Gate]] = []
        self.shut_at: list[tuple[float, str, str | None, tuple[int, ...]]] = []
        self.all_came: int = 0
        self.broken: Exception | None = None
        self.looks = 0
        self.changed = asyncio.Event()
        self._ids = itertools.count(1)
        self._supplements: dict[tuple[str, str], tuple[int, int]] = {}

    def arrive(
        self, destination: str, plan: Plan, count: int = 1, *, key: str = "1.2", at: float = 0.0
    ) -> int:
        """Puts some behind a gate; its id."""
        kind = {"study-complete": "study", "series-complete": "series"}.get(plan.after, "schedule")
        name = plan.schedule if kind == "schedule" else key
        return self._behind(destination, kind, name, plan, count, at or wall())

    def _behind(
        self, destination: str, kind: str, key: str, plan: Plan, count: int, at: float
    ) -> int:
        for gate in self.shut.values():
            if (gate.destination, gate.kind, gate.key) == (destination, kind, key):
                self.shut[gate.id] = replace(gate, instances=gate.instances + count, last_at=at)
                self.held[gate.id] += count
                return gate.id
        number = next(self._ids)
        supplement, earlier = self._supplements.get((destination, key), (0, 0))
        study = "" if kind == "schedule" else "1.2"
        self.shut[number] = Gate(
            number,
            destination,
            kind,
            key,
            plan,
            study,
            count,
            earlier,
            at,
            at,
            supplement,  # type: ignore[arg-type]
        )
        self.held[number] = count
        return number

    async def _call(self) -> None:
        await asyncio.sleep(0.001)
        if self.broken is not None:
            raise self.broken

    async def soon_gates(self, look: Look) -> Soon:
        await self._call()
        self.looks += 1
        assert len(self.shut) <= look.whole, "the real index is for that"
        return Soon(list(self.shut.values()))

    async def came(self, gate: Gate) -> int:
        await self._call()
        return self.all_came

    async def open_gate(self, gate_id: int) -> Moved:
        await self._call()
        gate = self.shut.get(gate_id)
        if gate is None:
            return Moved()
        count = min(LIMIT, self.held[gate_id])
        self.held[gate_id] -= count
        more = self.held[gate_id] > 0
        if not more:
            del self.shut[gate_id], self.held[gate_id]
            self._supplements[gate.destination, gate.key] = (
                gate.supplement + 1,
                gate.earlier + gate.instances,
            )
            self.opened.append((wall(), gate))
        self.changed.set()
        schedule = gate.plan.schedule
        if gate.kind != "schedule" and schedule:
            self._behind(gate.destination, "schedule", schedule, gate.plan, count, wall())
            return Moved({}, {gate.destination: count}, more)
        self.due[gate.destination, schedule] = self.due.get((gate.destination, schedule), 0) + count
        return Moved({gate.destination: count} if count else {}, {}, more)

    async def shut_gate(
        self, destination: str | None, schedule: str, exclude: Collection[int]
    ) -> Moved:
        await self._call()
        self.shut_at.append((wall(), schedule, destination, tuple(exclude)))
        gated: dict[str, int] = {}
        for (name, keeps), count in list(self.due.items()):
            if keeps == schedule and destination in (None, name) and count:
                moved = min(LIMIT, count)
                self.due[name, keeps] -= moved
                self._behind(name, "schedule", schedule, Plan(schedule=schedule), moved, wall())
                gated[name] = moved
        return Moved({}, gated, bool(gated))


class GateHouse:
    """A gatekeeper with its surroundings."""

    def __init__(self) -> None:
        self.index = FakeGates()
        self.sending: dict[str, tuple[int, ...]] = {"pacs": ()}
        self.resting: list[str] = []
        self.due: list[tuple[str, int]] = []
        self.open_studies: set[str] = set()
        self.asked: list[tuple[float, str, str]] = []
        self.answer: Callable[[], int | None] = lambda: 0
        self.answer_takes = 0.05
        self.clock_off = 0.0
        self.keeper = self.new_keeper()

    def new_keeper(self) -> Gatekeeper:
        return Gatekeeper(
            self.index,
            clock=self.clock,
            random=Random(3),
            busy=lambda gate: "somebody sends" if gate.key in self.open_studies else "",
            ask=self._ask,
            destinations=lambda: self.sending,
            at_rest=self._at_rest,
            notify=lambda destination, count: self.due.append((destination, count)),
            log=structlog.get_logger(),
        )

    def clock(self) -> float:
        return wall() + self.clock_off

    @asynccontextmanager
    async def _at_rest(self, destination: str) -> AsyncIterator[Collection[int]]:
        self.resting.append(destination)
        yield self.sending[destination]
        self.resting.remove(destination)

    async def _ask(self, archive: str, gate: Gate) -> int | None:
        self.asked.append((asyncio.get_running_loop().time(), archive, gate.key))
        await asyncio.sleep(self.answer_takes)
        return self.answer()

    def arrive(self, plan: Plan, count: int = 1, **where: str) -> int:
        """At pacs, unless told otherwise."""
        number = self.index.arrive(
            where.pop("destination", "pacs"), plan, count, at=self.clock(), **where
        )  # type: ignore[arg-type]
        self.keeper.notify()
        return number

    async def opened(self, count: int = 1) -> list[tuple[float, Gate]]:
        """Once so many gates were opened."""
        while len(self.index.opened) < count:
            self.index.changed.clear()
            await self.index.changed.wait()
        return self.index.opened
