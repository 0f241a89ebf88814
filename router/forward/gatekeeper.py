"""Opens and shuts the gates: what waits for a study, a series or a schedule.

Owns when that is, in one task for all gates, and the questions to archives.  Must not know
destinations beyond their names, nor associations: who may still send to a study it is told.

Everything that a gate waits for is in the index, so after a restart it goes on from there.  What
cannot be known any longer is taken for the time that has passed: no gate stays shut for ever.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from random import Random

from structlog.typing import FilteringBoundLogger

from router.forward.backoff import delay
from router.forward.ports import Ask, GateIndex
from router.forward.questions import Questions
from router.forward.vigil import Vigil
from router.net.settings import Retry
from router.spool.errors import SpoolError
from router.spool.index_types import Gate, GateKind
from router.spool.plan import Plan
from rules.window import Windows

LONGEST_WAIT = 60.0
"""Windows are of the wall clock, which may be set: no timer runs longer, in seconds."""
_SOONEST, _LATEST = 0.1, 2.0
_SHARE = 20
"""A look at all gates is had at most once in this many times of what it takes, within bounds."""
_AT_ONCE = 256
_ENOUGH = 16
"""Gates in one turn that cannot be opened: then it is no fault of theirs."""
_TROUBLE = Retry(first=0.5, factor=2.0, cap=30.0, jitter=0.25)
_GONE = "the schedule is not configured any more"

AtRest = Callable[[str], AbstractAsyncContextManager[Collection[int]]]
"""While it is entered a destination takes nothing from its queue; gives the ids that it has."""


class Gatekeeper:
    """``clock`` gives seconds since the epoch; timers run by the event loop's own clock.

    ``busy`` says who may still send to a gate's study or series, "" when nobody.
    ``notify(destination, count)`` is called for what became due.
    """

    def __init__(
        self,
        index: GateIndex,
        *,
        clock: Callable[[], float],
        random: Random,
        busy: Callable[[Gate], str],
        ask: Ask,
        destinations: Callable[[], Iterable[str]],
        at_rest: AtRest,
        notify: Callable[[str, int], None],
        log: FilteringBoundLogger,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._index = index
        self._clock = clock
        self._random = random
        self._busy = busy
        self._destinations = destinations
        self._at_rest = at_rest
        self._notify = notify
        self._logger = log
        self._wake = asyncio.Event()
        self._questions = Questions(index, ask, self._loop.time, self._wake.set, log)
        self._schedules: dict[str, Windows] = {}
        self._shut: set[str] = set()
        self._returned: set[str] = set()
        self._opened: set[tuple[str, str]] = set()
        self._gates: list[Gate] = []
        self._vigils: dict[int, Vigil] = {}
        self._faulty: dict[int, tuple[int, float]] = {}
        """Gates that could not be opened: how often, and until when they are left alone."""
        self._stale = True
        self._looked_at: float | None = None
        self._look_again_at = 0.0
        self._failures = 0
        self._main: asyncio.Task[None] | None = None

    # -- from outside ------------------------------------------------------------------------

    def configure(self, schedules: Mapping[str, Windows]) -> None:
        """Takes on another set of schedules."""
        # One that has other windows is looked at as if it were new.
        same = {name for name, windows in schedules.items() if self._schedules.get(name) == windows}
        self._shut &= same
        self._schedules = dict(schedules)
        self._wake.set()

    async def prepare(self) -> None:
        """Puts back what may not be sent now; to be called before anything sends.

        Raises SpoolError.
        """
        for name, windows in self._schedules.items():
            if not windows.open_at(self._clock()):
                await self._put_back(None, name, ())
                self._shut.add(name)

    def start(self) -> None:
        """Begins with what waits in the index."""
        self._main = self._loop.create_task(self._run(), name="gatekeeper")

    def notify(self) -> None:
        """Something was put behind a gate."""
        self._stale = True
        self._wake.set()

    def freed(self) -> None:
        """An association that may have held up a study has ended."""
        self._wake.set()

    def returned(self, destination: str) -> None:
        """Something came back unsent that was in hand there when a window closed."""
        self._returned.add(destination)
        self._wake.set()

    async def stop(self) -> None:
        """What is under way at the index is finished; the gates stay as they are."""
        self._questions.stop()
        if self._main is not None:
            self._main.cancel()
            await asyncio.wait([self._main])

    # -- the one task ------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                seconds = await self._turn()
                self._well()
            except Exception as error:  # noqa: BLE001 - gates must open, whatever went wrong once
                # Not before its time, however much comes in: the index is in trouble.
                await asyncio.sleep(self._in_trouble(error))
                continue
            timer = self._loop.call_later(min(seconds, LONGEST_WAIT), self._wake.set)
            try:
                await self._wake.wait()
            finally:
                timer.cancel()

    async def _turn(self) -> float:
        """Looks at everything; how many seconds later to look again at the latest."""
        now = self._loop.time()
        await self._shut_schedules()
        await self._put_back_returned()
        if now < self._look_again_at:
            return self._look_again_at - now
        if self._stale:
            await self._look()
        waits = [self._next_window()]
        questions: list[Vigil] = []
        for number, gate in enumerate(self._gates.copy(), 1):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)  # others have their turn
            if gate.kind == "schedule":
                waits.append(await self._try(gate, self._why_schedule(gate)))
                continue
            verdict = self._vigils[gate.id].judge(self._loop.time(), self._busy(gate))
            if verdict.complete:
                waits.append(await self._try(gate, verdict.why))
            elif verdict.seconds is not None:
                waits.append(verdict.seconds)
            if verdict.ask:
                questions.append(self._vigils[gate.id])
        waits.append(self._questions.ask(questions) or LONGEST_WAIT)
        now, spent = self._loop.time(), self._loop.time() - now
        self._look_again_at = now + min(max(_SOONEST, _SHARE * spent), _LATEST)
        if self._stale:
            waits.append(self._look_again_at - now)
        return min(waits)

    async def _look(self) -> None:
        """Reads the gates anew."""
        began = self._loop.time()
        self._stale = False
        try:
            gates = await self._index.gates()
        except BaseException:
            self._stale = True
            raise
        now, wall = self._loop.time(), self._clock()
        moved = self._moved(gates)
        vigils: dict[int, Vigil] = {}
        for number, gate in enumerate(gates, 1):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)  # as in `_turn`
            if gate.kind == "schedule":
                continue
            vigil = self._vigils.get(gate.id)
            elsewhere = moved.get((gate.kind, gate.key, gate.plan))
            if vigil is not None:
                other = None if elsewhere is vigil else elsewhere
                vigil.look(gate, wall, now, self._looked_at or began, other)
            elif self._looked_at is None:
                vigil = Vigil(gate, wall, now)
            else:
                vigil = Vigil.begun(gate, wall, now, self._looked_at)
                if elsewhere is not None and gate.last_at <= elsewhere.gate.last_at:
                    vigil.go_on(elsewhere)
            vigils[gate.id] = vigil
        self._gates, self._vigils = list(gates), vigils
        self._faulty = {gate.id: self._faulty[gate.id] for gate in gates if gate.id in self._faulty}
        self._looked_at = began

    def _moved(self, gates: Iterable[Gate]) -> dict[tuple[GateKind, str, Plan], Vigil]:
        """Those that lost some of what they had since the last look, as it went to others.

        Were such a diversion an arrival, a study would wait for ever while its members flap.
        """
        left = {gate.id: gate.instances for gate in gates}
        return {
            (vigil.gate.kind, vigil.gate.key, vigil.gate.plan): vigil
            for vigil in self._vigils.values()
            if vigil.gate.plan.members and left.get(vigil.gate.id, 0) < vigil.gate.instances
        }

    # -- opening -----------------------------------------------------------------------------

    async def _try(self, gate: Gate, why: str) -> float:
        """Opens it unless ``why`` is ""; how many seconds later to try again, if need be.

        One that cannot be opened must not keep those behind it shut.
        """
        failures, not_before = self._faulty.get(gate.id, (0, 0.0))
        now = self._loop.time()
        if not why or now < not_before:
            return not_before - now if why else LONGEST_WAIT
        try:
            await self._open(gate, why)
        except Exception as error:
            failures += 1
            seconds = delay(_TROUBLE, failures, self._random.random())
            self._faulty[gate.id] = failures, now + seconds
            if failures == 1:
                self._logger.error(
                    "a gate cannot be opened",
                    destination=gate.destination,
                    gate=gate.id,
                    reason=str(error),
                    exc_info=not isinstance(error, SpoolError),
                )
            if sum(known[1] > now for known in self._faulty.values()) >= _ENOUGH:
                raise
            return seconds
        self._faulty.pop(gate.id, None)
        return LONGEST_WAIT

    async def _open(self, gate: Gate, why: str) -> None:
        # Also when it is broken off: what is left has a gate still, and is found again.
        self._stale = True
        count = 0
        while True:
            moved = await self._index.open_gate(gate.id)
            for destination, ready in moved.ready.items():
                self._notify(destination, ready)
            count += sum(moved.ready.values()) + sum(moved.gated.values())
            if not moved.more or (gate.kind == "schedule" and self._is_shut(gate.key)):
                break
        if gate in self._gates and not moved.more:
            self._gates.remove(gate)
            self._vigils.pop(gate.id, None)
        if count and self._worth_a_line(gate):
            self._logger.info(
                "gate opened",
                destination=gate.destination,
                gate=gate.id,
                waited_for=gate.kind if gate.kind != "schedule" else f"schedule {gate.key}",
                instances=count,
                supplement=gate.supplement,
                why=why,
            )
        if count and why == _GONE:
            self._logger.warning(
                "a schedule is not configured any more: what waited for it is sent now",
                schedule=gate.key,
                destination=gate.destination,
                instances=count,
            )

    def _worth_a_line(self, gate: Gate) -> bool:
        """While a window is open each batch finds its gate and opens it: only the first is told."""
        if gate.kind != "schedule":
            return True
        known = (gate.key, gate.destination) in self._opened
        self._opened.add((gate.key, gate.destination))
        return not known

    # -- schedules ---------------------------------------------------------------------------

    def _is_shut(self, schedule: str) -> bool:
        windows = self._schedules.get(schedule)
        return windows is not None and not windows.open_at(self._clock())

    def _why_schedule(self, gate: Gate) -> str:
        """Why it is opened, "" while it is not."""
        if gate.key not in self._schedules:
            return _GONE
        return "" if self._is_shut(gate.key) else "its window is open"

    async def _shut_schedules(self) -> None:
        for name in list(self._schedules):
            if not self._is_shut(name):
                self._shut.discard(name)
            elif name not in self._shut:
                await self._shut_one(name)
                self._shut.add(name)

    async def _shut_one(self, schedule: str) -> None:
        """What is not being sent yet goes back behind the gate, destination by destination."""
        count = 0
        all_in_hand: set[int] = set()
        for destination in list(self._destinations()):
            async with self._at_rest(destination) as in_hand:
                all_in_hand.update(in_hand)
                count += await self._put_back(destination, schedule, in_hand)
        # And where nothing can be sent now, which may be configured again while it is shut.
        count += await self._put_back(None, schedule, all_in_hand)
        self._stale = True
        self._opened = {opened for opened in self._opened if opened[0] != schedule}
        if count:
            self._logger.info("window closed", schedule=schedule, instances=count)

    async def _put_back_returned(self) -> None:
        """What was in hand when a window closed and came back unsent goes behind the gate too."""
        while self._returned:
            destination = self._returned.pop()
            try:
                async with self._at_rest(destination) as in_hand:
                    for schedule in self._shut:
                        if await self._put_back(destination, schedule, in_hand):
                            self._stale = True
            except BaseException:
                self._returned.add(destination)
                raise

    async def _put_back(
        self, destination: str | None, schedule: str, in_hand: Collection[int]
    ) -> int:
        count, more = 0, True
        while more:
            moved = await self._index.shut_gate(destination, schedule, tuple(in_hand))
            count += sum(moved.gated.values())
            more = moved.more
        return count

    def _next_window(self) -> float:
        """Seconds until a window opens or closes."""
        wall, soonest = self._clock(), LONGEST_WAIT
        for windows in self._schedules.values():
            change = windows.next_change(wall)
            if change is not None:
                soonest = min(soonest, max(0.0, change - wall))
        return soonest

    # -- trouble -----------------------------------------------------------------------------

    def _in_trouble(self, error: Exception) -> float:
        self._failures += 1
        self._stale = True
        if not isinstance(error, SpoolError):
            self._logger.exception("keeping the gates failed")
        elif self._failures == 1:
            self._logger.error("gates cannot be opened or shut", reason=str(error))
        return delay(_TROUBLE, self._failures, self._random.random())

    def _well(self) -> None:
        if self._failures:
            self._logger.info("gates can be opened again")
        self._failures = 0
